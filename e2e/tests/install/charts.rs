//! The charts without a node: lint, what is rendered, what is refused, and whether the API server takes it.

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use springtide_e2e::helm::{Helm, checkout, objects};
use springtide_e2e::local_cluster::LocalCluster;
use springtide_plumbing::breaker::{Cap, Limits};
use springtide_plumbing::guard::Mode;
use springtide_plumbing::watch::Scope;

use crate::table::{REFUSED, TABLE};
use crate::{CHART, CRDS, NAMESPACE, RELEASE, Rendered, keyed, render, rules, value_files};

#[tokio::test]
async fn every_file_of_values_is_linted_and_renders_by_the_rules() -> Result<()> {
    let helm = Helm::offline()?;
    let files = value_files()?;
    ensure!(files.len() >= 8, "{files:?}");
    helm.run(&["lint", "--strict", CRDS]).await?;
    for name in files {
        let file = format!("--values={CHART}/ci/{name}-values.yaml");
        helm.run(&["lint", "--strict", CHART, "--namespace", NAMESPACE, &file]).await?;
        rules::check(&render(&helm, &name).await?).with_context(|| format!("{name}-values.yaml"))?;
    }
    Ok(())
}

#[tokio::test]
async fn every_value_comes_to_what_it_says() -> Result<()> {
    let helm = Helm::offline()?;
    ensure!(TABLE.len() >= 60, "{} rows", TABLE.len());
    let mut rendered: Option<(&str, Rendered)> = None;
    for (file, object, pointer, expected) in TABLE {
        let objects = match rendered.take() {
            Some((of, objects)) if of == *file => objects,
            _ => render(&helm, file).await?,
        };
        let expected: Value = serde_json::from_str(&expected.replace("VERSION", env!("CARGO_PKG_VERSION")))?;
        let found = objects.get(*object);
        ensure!(expected.is_null() || found.is_some(), "{file}: there is no {object}");
        let value = found.and_then(|object| object.pointer(pointer)).cloned().unwrap_or_default();
        ensure!(value == expected, "{file}: {object} has {value} at {pointer}, not {expected}");
        rendered = Some((file, objects));
    }
    Ok(())
}

#[tokio::test]
async fn the_configuration_file_says_what_the_values_say() -> Result<()> {
    let helm = Helm::offline()?;
    let tuned = rules::configuration(&render(&helm, "tuned").await?, RELEASE)?;
    let batch_job = &tuned.controllers.batch_job;
    ensure!((batch_job.enabled, batch_job.workers) == (true, 32));
    ensure!(batch_job.settings.history_limit == 100 && batch_job.settings.ttl_seconds_after_finished == 3600);
    let allowed: Vec<String> =
        batch_job.settings.archive.allowed_cidrs.iter().map(ToString::to_string).collect();
    ensure!(allowed == ["10.0.5.0/24", "fd00:5::/64"]);
    let election = &tuned.leader_election;
    ensure!((election.lease_duration_seconds, election.renew_deadline_seconds) == (60, 40));
    ensure!(tuned.logging.level == "info,springtide_plumbing::watch=debug");
    let Limits { window_seconds, namespace, cluster } = tuned.breaker;
    ensure!((window_seconds, namespace, cluster.floor) == (600, Cap { floor: 0, percent: 2 }, 5));
    ensure!(cluster.percent == Limits::default().cluster.percent);
    ensure!(tuned.write_budget.process.burst == 1_000_000);
    ensure!(tuned.tracing.otlp_endpoint == "http://collector.monitoring:4318");
    let observed = rules::configuration(&render(&helm, "observe").await?, RELEASE)?;
    ensure!(observed.controllers.batch_job.mode == Mode::Observe && observed.controllers.batch_job.enabled);
    let namespaced = rules::configuration(&render(&helm, "namespaced").await?, RELEASE)?;
    ensure!(namespaced.scope.scope() == Scope::of(["team-a", "team-b"]), "{:?}", namespaced.scope);
    let default = rules::configuration(&render(&helm, "default").await?, RELEASE)?;
    ensure!(default == springtide_manager::config::ManagerConfiguration::default(), "{default:?}");
    Ok(())
}

#[tokio::test]
async fn common_labels_are_on_every_object_and_select_nothing() -> Result<()> {
    const LABELS: &str = "--set-json=commonLabels={\"team\":\"platform\",\"example.com/cost-centre\":\"42\"}";
    let helm = Helm::offline()?;
    for name in &value_files()? {
        // They have such labels of their own: see the table.
        if ["named", "scheduling"].contains(&name.as_str()) {
            continue;
        }
        let file = format!("--values={CHART}/ci/{name}-values.yaml");
        let args = ["template", RELEASE, CHART, "--namespace", NAMESPACE, &file, LABELS];
        let labelled = keyed(objects(&helm.run(&args).await?)?)?;
        let plain = render(&helm, name).await?;
        ensure!(labelled.len() == plain.len(), "{name}");
        for (key, mut object) in labelled {
            let places = match object["kind"].as_str() {
                Some("Deployment") => vec!["/metadata/labels", "/spec/template/metadata/labels"],
                Some(_) | None => vec!["/metadata/labels"],
            };
            for place in places {
                let labels = object.pointer_mut(place).and_then(Value::as_object_mut).context("labels")?;
                for (label, value) in [("team", "platform"), ("example.com/cost-centre", "42")] {
                    let found = labels.remove(label);
                    ensure!(found == Some(value.into()), "{name}: {key} has {found:?} as {label} at {place}");
                }
            }
            ensure!(Some(&object) == plain.get(&key), "{name}: {key} differs in more than that:\n{object}");
        }
    }
    Ok(())
}

#[tokio::test]
async fn kube_state_metrics_gets_the_generated_configuration() -> Result<()> {
    let rendered = render(&Helm::offline()?, "monitoring").await?;
    let map = rendered.get("ConfigMap/springtide-kube-state-metrics").context("no ConfigMap")?;
    let read: Value = serde_yaml::from_str(map["data"]["config.yaml"].as_str().context("config.yaml")?)?;
    let file = std::fs::read_to_string(checkout(CHART).join("files/kube-state-metrics/config.yaml"))?;
    ensure!(read == serde_yaml::from_str::<Value>(&file)?, "{read}");
    ensure!(read["kind"] == "CustomResourceStateMetrics", "{read}");
    Ok(())
}

#[tokio::test]
async fn what_the_schema_does_not_have_is_refused_with_its_place() -> Result<()> {
    let helm = Helm::offline()?;
    for (set, place) in REFUSED {
        let output = helm.try_run(&["template", RELEASE, CHART, "--namespace", NAMESPACE, set]).await?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(!output.status.success(), "{set} is accepted");
        ensure!(said.contains(place), "{set}: {said}");
    }
    for set in ["--set=keep=maybe", "--set=other=1", "--set=commonLabels.helm\\.sh/chart=x"] {
        ensure!(!helm.try_run(&["template", "crds", CRDS, set]).await?.status.success(), "{set} is accepted");
    }
    Ok(())
}

#[tokio::test]
async fn the_notes_say_what_holds_for_these_values() -> Result<()> {
    let cluster = LocalCluster::shared().await?;
    let helm = Helm::on(cluster)?;
    let notes = async |set: &str| {
        let args = ["install", "noted", CHART, "--namespace", NAMESPACE, "--dry-run=client", set];
        let text = helm.run(&args).await?;
        let (_, notes) = text.split_once("NOTES:").context("no notes")?;
        Ok::<_, anyhow::Error>(notes.to_owned())
    };
    let default = notes("--set=replicas=2").await?;
    for said in ["2 replicas, of which one writes", "on every node", "helm uninstall noted --namespace"] {
        ensure!(default.contains(said), "{said}: {default}");
    }
    for (set, said) in [
        ("--set=replicas=0", "replicas is 0: no manager runs"),
        ("--set=replicas=1", "1 replica, of which one writes"),
        ("--set=controllers.batchJob.mode=Observe", "nothing is written"),
        ("--set=scope.type=Namespaces,scope.namespaces={team-a}", "alone, and sees no nodes: team-a"),
        ("--set=admissionPolicies.enabled=true", "nothing is bounded in admissionPolicies.queues"),
        (
            "--set=admissionPolicies.enabled=true,admissionPolicies.queues.maxWeight=9",
            "controllers.batchJob.settings.builtInQueue=Disabled",
        ),
    ] {
        let notes = notes(set).await?;
        ensure!(notes.contains(said) && !default.contains(said), "{set}: {notes}");
    }
    let none = notes("--set=replicas=0").await?;
    ensure!(!none.contains("rollout") && !none.contains("one replica"), "{none}");
    let closed = "controllers.batchJob.settings.builtInQueue=Disabled";
    let bounds =
        format!("--set=admissionPolicies.enabled=true,admissionPolicies.queues.maxWeight=9,{closed}");
    let bounded = notes(&bounds).await?;
    ensure!(!bounded.contains("admissionPolicies") && !bounded.contains(closed), "{bounded}");
    let own = notes("--set=image.repository=registry.example/springtide").await?;
    ensure!(!own.contains("on every node"), "{own}");
    Ok(())
}

#[tokio::test]
async fn crds_are_kept_when_the_value_says_so() -> Result<()> {
    let helm = Helm::offline()?;
    for (set, policy) in [("--set=keep=true", Value::from("keep")), ("--set=keep=false", Value::Null)] {
        let crds = objects(&helm.run(&["template", "crds", CRDS, set, "--set=commonLabels.team=a"]).await?)?;
        ensure!(crds.len() == springtide_crds::all().len(), "{} CRDs", crds.len());
        for crd in crds {
            let annotations = &crd["metadata"]["annotations"];
            ensure!(annotations["helm.sh/resource-policy"] == policy, "{annotations}");
            ensure!(crd["metadata"]["labels"]["team"] == "a", "{}", crd["metadata"]["labels"]);
            ensure!(!annotations[springtide_crds::MAX_PER_NAMESPACE].is_null(), "{annotations}");
        }
    }
    Ok(())
}

#[tokio::test]
async fn the_api_server_takes_every_object() -> Result<()> {
    let cluster = LocalCluster::shared().await?;
    let helm = Helm::offline()?;
    for namespace in [NAMESPACE, "team-a", "team-b", "monitoring"] {
        cluster
            .apply(&format!("{{apiVersion: v1, kind: Namespace, metadata: {{name: {namespace}}}}}"))
            .await?;
    }
    let crds = helm.run(&["template", "crds", CRDS]).await?;
    dry_run(cluster, objects(&crds)?).await?;
    for name in value_files()? {
        let mut rendered = render(&helm, &name).await?;
        // Their CRDs are the Prometheus operator's: see `foreign`.
        rendered.retain(|_, object| object["apiVersion"] != "monitoring.coreos.com/v1");
        dry_run(cluster, rendered.into_values().collect()).await.with_context(|| name)?;
    }
    Ok(())
}

/// As `helm install` sends them, but that nothing is stored. What the server warns of is an error too.
pub(crate) async fn dry_run(cluster: &LocalCluster, objects: Vec<Value>) -> Result<()> {
    let list = serde_json::json!({"apiVersion": "v1", "kind": "List", "items": objects});
    let file = cluster.folder().join("rendered.json");
    std::fs::write(&file, list.to_string())?;
    let path = file.to_str().context("a path")?;
    let args = ["apply", "--server-side", "--dry-run=server", "--validate=strict", "-f", path];
    let output = cluster.kubectl(&args).await?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success() && !said.contains("Warning"), "{said}");
    let lines = String::from_utf8_lossy(&output.stdout).lines().count();
    ensure!(lines == objects.len(), "{lines} of {} objects", objects.len());
    Ok(())
}
