//! The real thing: helm installs the charts, a node runs the image, jobs complete, and what was installed goes.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use http::Request;
use k8s_openapi::api::core::v1::{ConfigMap, Pod};
use kube::api::{Api, ListParams};
use serde_json::json;
use springtide_crds::batch_job::{BatchJobSpec, PodTemplate};
use springtide_e2e::batch::Testbed;
use springtide_e2e::helm::{Helm, checkout};
use springtide_e2e::local_cluster::LocalCluster;
use springtide_e2e::manager_image::manager_image;
use springtide_e2e::node::program::BOX_IMAGE;
use springtide_e2e::node::{NodeCluster, required_or_skipped};
use springtide_e2e::oracle::feed::PATIENCE;
use springtide_e2e::polling::{until, until_seen};
use springtide_e2e::rights::Account;

use crate::{CHART, CRDS, NAMESPACE, RELEASE};

/// Bound on how long the kubelet takes to bring a ConfigMap into a pod that runs: a sync, and a cache's age.
const KUBELET_PATIENCE: Duration = Duration::from_secs(240);
/// How long helm waits for pods.
const WAIT: [&str; 3] = ["--wait", "--timeout", "180s"];

fn task() -> Result<BatchJobSpec> {
    let template = json!({"spec": {"containers": [{
        "name": "main", "image": BOX_IMAGE, "args": ["exit", "0", "done"],
        "resources": {"requests": {"cpu": "10m", "memory": "16Mi"}},
    }]}});
    let fields = template.as_object().cloned().context("a template")?;
    Ok(BatchJobSpec::new(PodTemplate(fields)))
}

/// The manager's pods that are not on their way out.
async fn pods(cluster: &LocalCluster) -> Result<Vec<Pod>> {
    let pods: Api<Pod> = Api::namespaced(cluster.client("springtide-test")?, NAMESPACE);
    let ours = ListParams::default().labels("app.kubernetes.io/instance=springtide");
    let listed = pods.list(&ours).await?;
    Ok(listed.items.into_iter().filter(|pod| pod.metadata.deletion_timestamp.is_none()).collect())
}

async fn uids(cluster: &LocalCluster) -> Result<BTreeSet<String>> {
    Ok(pods(cluster).await?.into_iter().filter_map(|pod| pod.metadata.uid).collect())
}

/// Waits until two pods are ready, as helm does not wait for those that may be unavailable in a rollout; none has ever
/// been started again.
async fn two_healthy_pods(cluster: &LocalCluster) -> Result<()> {
    until_seen(PATIENCE, "two pods are ready", async || {
        let mut ready = 0;
        let pods = pods(cluster).await?;
        for pod in &pods {
            let statuses = pod.status.iter().flat_map(|status| status.container_statuses.iter().flatten());
            for container in statuses {
                ensure!(container.restart_count == 0, "{container:?}");
                let version = format!(":{}", env!("CARGO_PKG_VERSION"));
                ensure!(container.image.ends_with(&version), "{}", container.image);
                ready += usize::from(container.ready);
            }
        }
        let is_well = (ready, pods.len()) == (2, 2);
        Ok(if is_well { Ok(()) } else { Err(format!("{ready} of {} are", pods.len())) })
    })
    .await
}

async fn configured_workers(cluster: &LocalCluster) -> Result<u64> {
    let maps: Api<ConfigMap> = Api::namespaced(cluster.client("springtide-test")?, NAMESPACE);
    let map = maps.get("springtide-config").await?;
    let text = map.data.unwrap_or_default().remove("config.yaml").context("config.yaml")?;
    let read = springtide_manager::config::ManagerConfiguration::parse(&text)?;
    Ok(read.controllers.batch_job.workers as u64)
}

/// Waits until each of the manager's pods says that its brake is engaged by file, or that it is not.
async fn braked_by_file(cluster: &LocalCluster, engaged: bool) -> Result<()> {
    let wanted = format!("springtide_brake_engaged{{source=\"file\"}} {}", u8::from(engaged));
    let client = cluster.client("springtide-test")?;
    for pod in pods(cluster).await? {
        let pod = pod.metadata.name.context("name")?;
        let path = format!("/api/v1/namespaces/{NAMESPACE}/pods/{pod}:8080/proxy/metrics");
        until_seen(KUBELET_PATIENCE, &format!("{pod} says {wanted}"), async || {
            let request = Request::get(&path).body(Vec::new())?;
            let text = client.request_text(request).await.unwrap_or_else(|error| error.to_string());
            Ok(if text.lines().any(|line| line == wanted) { Ok(()) } else { Err(text) })
        })
        .await?;
    }
    Ok(())
}

/// Names of everything in the release's namespace, and in the cluster by our label, that a user could list.
async fn left(cluster: &LocalCluster) -> Result<BTreeSet<String>> {
    let run = async |args: &[&str]| {
        let output = cluster.kubectl(args).await?;
        ensure!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
        Ok(String::from_utf8(output.stdout)?)
    };
    let kinds = async |namespaced: &'static str| {
        let listed = run(&["api-resources", "--verbs=list", "-o", "name", namespaced]).await?;
        let kinds: Vec<_> = listed.lines().filter(|kind| !kind.starts_with("events")).collect();
        Ok::<_, anyhow::Error>(kinds.join(","))
    };
    let (namespaced, cluster_wide) = (kinds("--namespaced=true").await?, kinds("--namespaced=false").await?);
    let mut left: BTreeSet<String> =
        run(&["get", &namespaced, "-n", NAMESPACE, "-o", "name"]).await?.lines().map(str::to_owned).collect();
    let labelled =
        run(&["get", &cluster_wide, "-l", "app.kubernetes.io/instance=springtide", "-o", "name"]).await?;
    left.extend(labelled.lines().map(str::to_owned));
    Ok(left)
}

#[tokio::test]
async fn helm_installs_upgrades_rolls_back_and_uninstalls() -> Result<()> {
    if !required_or_skipped().await? {
        return Ok(());
    }
    let cluster = NodeCluster::builder().image(manager_image().await?).start().await?;
    let plane = cluster.control_plane();
    let namespace = json!({
        "apiVersion": "v1", "kind": "Namespace",
        "metadata": {"name": NAMESPACE, "labels": {"pod-security.kubernetes.io/enforce": "restricted"}},
    });
    plane.apply(&namespace.to_string()).await?;
    let before = left(plane).await?;
    let helm = Helm::on(plane)?;
    let mark = plane.audit_log()?.mark()?;
    let of_release = |verb, more: &[&'static str]| {
        let mut args = vec![verb, RELEASE];
        args.extend(more);
        args.extend(["--namespace", NAMESPACE]);
        args.extend(WAIT);
        args
    };

    helm.run(&[&["install", "crds", CRDS, "--namespace", NAMESPACE][..], &WAIT].concat()).await?;
    helm.run(&of_release("install", &[CHART, "--set=flowControl.enabled=true"])).await?;
    two_healthy_pods(plane).await?;
    let test = Testbed::new(plane, "installed").await?;
    test.submit("first", task()?).await?;
    test.completed("first").await?;

    // Live: the same pods read it anew.
    let first_pods = uids(plane).await?;
    let more = [CHART, "--set=flowControl.enabled=true", "--set=logging.level=debug"];
    helm.run(&of_release("upgrade", &more)).await?;
    ensure!(uids(plane).await? == first_pods, "a change of the log's level has started new pods");
    // The brake by file, with the ConfigMap that no chart makes.
    let map = ["--namespace", NAMESPACE, "configmap", "springtide-brake-file"];
    let engage = [&["create"][..], &map, &["--from-literal=brake=Engaged"]].concat();
    ensure!(plane.kubectl(&engage).await?.status.success());
    braked_by_file(plane, true).await?;
    test.submit("braked", task()?).await?;
    ensure!(plane.kubectl(&[&["delete"][..], &map].concat()).await?.status.success());
    braked_by_file(plane, false).await?;
    test.completed("braked").await?;
    // For a restart: new pods, one after the other, and jobs go on.
    test.submit("during", task()?).await?;
    helm.run(&of_release("upgrade", &[CHART, "--set=controllers.batchJob.workers=4"])).await?;
    test.completed("during").await?;
    two_healthy_pods(plane).await?;
    ensure!(uids(plane).await?.is_disjoint(&first_pods), "the pods have the old configuration");
    ensure!(configured_workers(plane).await? == 4);
    let schemas = left(plane).await?;
    ensure!(!schemas.iter().any(|name| name.contains("flowschema")), "{schemas:?}");

    helm.run(&[&["rollback", RELEASE, "1", "--namespace", NAMESPACE][..], &WAIT].concat()).await?;
    two_healthy_pods(plane).await?;
    ensure!(configured_workers(plane).await? == 8);
    let schemas = left(plane).await?;
    ensure!(schemas.iter().any(|name| name.contains("flowschema")), "{schemas:?}");
    test.submit("after", task()?).await?;
    test.completed("after").await?;

    helm.run(&of_release("uninstall", &[])).await?;
    helm.run(&[&["uninstall", "crds", "--namespace", NAMESPACE][..], &WAIT].concat()).await?;
    // What the manager made itself, and no chart knows of: the Lease. Endpoints and pods go by their owners.
    let lease = "lease.coordination.k8s.io/springtide-manager".to_owned();
    let expected: BTreeSet<String> = before.into_iter().chain([lease]).collect();
    until_seen(PATIENCE, &format!("nothing is left but {expected:?}"), async || {
        let left = left(plane).await?;
        Ok(if left == expected { Ok(()) } else { Err(format!("{left:?}")) })
    })
    .await?;
    for name in ["first", "braked", "during", "after"] {
        let job: springtide_crds::batch_job::BatchJob = test.api().get(name).await?;
        ensure!(job.status.is_some(), "{name} has lost its status");
    }
    // Under its own roles all the while.
    let user = Account { namespace: NAMESPACE, name: RELEASE }.user();
    let requests = plane.audit_log()?.since(mark)?.by_user(&user);
    ensure!(!requests.writes().of_resource("batchjobs/status").is_empty(), "{requests}");
    // While the roles go, those who held them may still ask.
    let forbidden = requests.filter(|request| request.code == 403 && request.verb.is_write());
    ensure!(
        forbidden.of_resource("pods").is_empty() && forbidden.of_resource("batchjobs").is_empty(),
        "{forbidden}"
    );
    test.verify()?;
    drop(test);
    cluster.stop()
}

/// The scripts (`sh` blocks) of the guide, by the heading that they stand under.
fn guide() -> Result<Vec<(String, Vec<String>)>> {
    let text = std::fs::read_to_string(checkout("docs/install.md"))?;
    let mut sections: Vec<(String, Vec<String>)> = Vec::new();
    let mut script: Option<String> = None;
    for line in text.lines() {
        match (&mut script, line) {
            (None, "```sh") => script = Some(String::new()),
            (None, _) => {
                sections.extend(line.strip_prefix("## ").map(|title| (title.to_owned(), Vec::new())))
            }
            (Some(whole), "```") => {
                let (_, scripts) = sections.last_mut().context("a script before the first heading")?;
                scripts.push(std::mem::take(whole));
                script = None;
            }
            (Some(whole), line) => whole.push_str(&format!("{line}\n")),
        }
    }
    sections.retain(|(_, scripts)| !scripts.is_empty());
    Ok(sections)
}

#[tokio::test]
async fn every_command_of_the_guide_does_what_it_says() -> Result<()> {
    if !required_or_skipped().await? {
        return Ok(());
    }
    let guide = guide()?;
    let titles: Vec<_> = guide.iter().map(|(title, _)| title.as_str()).collect();
    ensure!(titles == ["Helm", "kustomize", "A single file"], "{titles:?}");
    let cluster = NodeCluster::builder().image(manager_image().await?).start().await?;
    let plane = cluster.control_plane();
    let helm = Helm::on(plane)?;
    for (title, scripts) in &guide {
        let (remove, install) = scripts.split_last().context("a way in and a way out")?;
        for script in install {
            helm.shell(script).await.with_context(|| title.clone())?;
            two_healthy_pods(plane).await.with_context(|| title.clone())?;
        }
        let test = Testbed::new(plane, "guide").await?;
        test.submit("job", task()?).await?;
        let job = test.completed("job").await.with_context(|| title.clone())?;
        ensure!(job.status.context("status")?.result.context("result")?.message == "done");
        drop(test);
        helm.shell(remove).await.with_context(|| title.clone())?;
        until(PATIENCE, &format!("{title}: no pod stays"), async || {
            Ok(uids(plane).await?.is_empty().then_some(()))
        })
        .await?;
    }
    drop(helm);
    cluster.stop()
}
