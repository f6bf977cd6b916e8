//! What the native controllers say of a workload, and what they have done to it.

use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use k8s_openapi::api::apps::v1::{DaemonSet, Deployment, ReplicaSet, StatefulSet};
use kube::ResourceExt;
use kube::api::{Api, ListParams};
use serde_json::Value;
use springtide_crds::in_place_upgrade::TargetKind;

use super::PULLER_PREFIX;
use super::testbed::Testbed;
use super::workload::{CONTAINER, Workload};
use crate::manager::USER_AGENT;
use crate::oracle::feed::PATIENCE;
use crate::polling::until_seen;
use crate::write_count::{Request, Verb, WriteCount};

/// Time in which a native controller that disagrees would have begun to act.
const IDLE: Duration = Duration::from_secs(5);

/// A native object as the API server has it, whatever its kind.
///
/// # Errors
/// It is not there.
pub async fn object(test: &Testbed<'_>, workload: &Workload) -> Result<Value> {
    let name = &workload.name;
    Ok(match workload.kind {
        TargetKind::Deployment => serde_json::to_value(test.api::<Deployment>().get(name).await?)?,
        TargetKind::StatefulSet => serde_json::to_value(test.api::<StatefulSet>().get(name).await?)?,
        TargetKind::DaemonSet => serde_json::to_value(test.api::<DaemonSet>().get(name).await?)?,
        TargetKind::ReplicaSet => serde_json::to_value(test.api::<ReplicaSet>().get(name).await?)?,
    })
}

/// The image of [`CONTAINER`] in the template of a native object.
#[must_use]
pub fn template_image(object: &Value) -> &str {
    let containers = object["spec"]["template"]["spec"]["containers"].as_array();
    let of_app = |container: &&Value| container["name"] == CONTAINER;
    containers
        .into_iter()
        .flatten()
        .find(of_app)
        .and_then(|found| found["image"].as_str())
        .unwrap_or_default()
}

/// What the native controller still has to do, in its own words; empty when it says that all is as the template has it.
fn differences(kind: TargetKind, object: &Value) -> Vec<String> {
    let status = &object["status"];
    let mut wrong = Vec::new();
    let mut equal = |what: &str, left: &Value, right: &Value| {
        // A count of none is left out.
        if left.as_i64().unwrap_or_default() != right.as_i64().unwrap_or_default() {
            wrong.push(format!("{what}: {left} is not {right}"));
        }
    };
    equal("observedGeneration", &status["observedGeneration"], &object["metadata"]["generation"]);
    match kind {
        TargetKind::Deployment => {
            for count in ["replicas", "updatedReplicas", "readyReplicas", "availableReplicas"] {
                equal(count, &status[count], &object["spec"]["replicas"]);
            }
        }
        TargetKind::StatefulSet => {
            for count in ["replicas", "updatedReplicas", "readyReplicas", "availableReplicas"] {
                equal(count, &status[count], &object["spec"]["replicas"]);
            }
            // Until 1.37 currentRevision does not follow where pods are replaced by nobody (kubernetes#73492).
            let is_rolling = object["spec"]["updateStrategy"]["type"] != "OnDelete";
            if is_rolling && status["currentRevision"] != status["updateRevision"] {
                wrong.push(format!("{} is not {}", status["currentRevision"], status["updateRevision"]));
            }
        }
        TargetKind::DaemonSet => {
            for count in
                ["currentNumberScheduled", "updatedNumberScheduled", "numberReady", "numberAvailable"]
            {
                equal(count, &status[count], &status["desiredNumberScheduled"]);
            }
        }
        TargetKind::ReplicaSet => {
            for count in ["replicas", "readyReplicas", "availableReplicas"] {
                equal(count, &status[count], &object["spec"]["replicas"]);
            }
        }
    }
    wrong
}

/// Waits until the native controller says of the present generation that every pod is there, ready, and as the template
/// has it.
///
/// # Errors
/// It does not come to that; with what is still different.
pub async fn agrees(test: &Testbed<'_>, workload: &Workload) -> Result<Value> {
    let what = format!("the native controller agrees about {}", workload.name);
    until_seen(PATIENCE, &what, async || {
        let object = object(test, workload).await?;
        let wrong = differences(workload.kind, &object);
        Ok(if wrong.is_empty() { Ok(object) } else { Err(wrong.join(", ")) })
    })
    .await
}

/// ReplicaSets of a Deployment, those with pods first, then by name.
///
/// # Errors
/// The API server does not answer.
pub async fn replica_sets(test: &Testbed<'_>, deployment: &str) -> Result<Vec<ReplicaSet>> {
    let sets: Api<ReplicaSet> = test.api();
    let listed = sets.list(&ListParams::default().labels(&format!("app={deployment}"))).await?;
    let owned = |set: &ReplicaSet| set.owner_references().iter().any(|owner| owner.name == deployment);
    let mut owned: Vec<ReplicaSet> = listed.items.into_iter().filter(owned).collect();
    owned.sort_by_key(|set| (replicas(set) == 0, set.name_any()));
    Ok(owned)
}

/// Pods that a ReplicaSet is to have.
#[must_use]
pub fn replicas(set: &ReplicaSet) -> i32 {
    set.spec.replicas.unwrap_or(1)
}

/// The image that a ReplicaSet gives to [`CONTAINER`].
///
/// # Errors
/// Never for one that the API server has.
pub fn image_of(set: &ReplicaSet) -> Result<String> {
    Ok(template_image(&serde_json::to_value(set)?).to_owned())
}

/// The one ReplicaSet of a Deployment that is to have pods.
///
/// # Errors
/// There is none, or more than one.
pub async fn active(test: &Testbed<'_>, deployment: &str) -> Result<ReplicaSet> {
    let mut sets = replica_sets(test, deployment).await?;
    sets.retain(|set| replicas(set) > 0);
    match sets.pop() {
        Some(set) if sets.is_empty() => Ok(set),
        Some(_) | None => bail!("{deployment} has not one active ReplicaSet: {} more", sets.len()),
    }
}

/// Requests by which pods of workloads were made or ended, whoever sent them. What the manager makes are the pods by which
/// images get to nodes.
#[must_use]
pub fn replacements(requests: &WriteCount) -> WriteCount {
    let replaces = |request: &Request| match request.verb {
        Verb::Create => match request.resource.as_str() {
            "pods" => !request.user_agent.starts_with(USER_AGENT),
            resource => resource == "pods/eviction",
        },
        Verb::Delete | Verb::DeleteCollection => {
            request.resource == "pods" && !request.name.starts_with(PULLER_PREFIX)
        }
        Verb::Update | Verb::Patch | Verb::Get | Verb::List | Verb::Watch | Verb::Other => false,
    };
    requests.writes().successful().filter(replaces)
}

/// Waits for longer than a native controller takes that has something to do, and holds that meanwhile no pod was made or
/// ended, and no ReplicaSet made.
///
/// # Errors
/// It has.
pub async fn is_idle(test: &Testbed<'_>) -> Result<()> {
    let mark = test.mark()?;
    tokio::time::sleep(IDLE).await;
    let since = test.requests_since(mark)?;
    let replaced = replacements(&since);
    ensure!(replaced.is_empty(), "pods are replaced:\n{replaced}");
    let sets = since.writes().successful().of_resource("replicasets").of_verb(Verb::Create);
    ensure!(sets.is_empty(), "ReplicaSets are made:\n{sets}");
    Ok(())
}

/// What `kubectl rollout undo` would go back to: the image of its template.
///
/// # Errors
/// It offers nothing.
pub async fn offered_by_undo(test: &Testbed<'_>, deployment: &str) -> Result<String> {
    let target = format!("deployment/{deployment}");
    let printed = test.kubectl(&["rollout", "undo", &target, "--dry-run=client"]).await?;
    // A pod template as `kubectl describe` has it: the name of a container, then its fields.
    let after = printed.split_once(&format!("{CONTAINER}:")).map(|(_, after)| after);
    let image = after.and_then(|after| after.lines().find_map(|line| line.trim().strip_prefix("Image:")));
    Ok(image.with_context(|| format!("no image in {printed}"))?.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_controller_agrees_when_each_count_is_that_of_the_present_generation() {
        let mut deployment = json!({
            "metadata": {"generation": 3}, "spec": {"replicas": 2},
            "status": {"observedGeneration": 3, "replicas": 2, "updatedReplicas": 2, "readyReplicas": 2,
                "availableReplicas": 2},
        });
        assert_eq!(differences(TargetKind::Deployment, &deployment), [""; 0]);
        deployment["status"]["updatedReplicas"] = Value::Null;
        assert_eq!(differences(TargetKind::Deployment, &deployment), ["updatedReplicas: null is not 2"]);
        deployment["metadata"]["generation"] = json!(4);
        assert_eq!(differences(TargetKind::Deployment, &deployment).len(), 2);

        let mut set = json!({
            "metadata": {"generation": 1}, "spec": {"replicas": 0, "updateStrategy": {"type": "RollingUpdate"}},
            "status": {"observedGeneration": 1, "currentRevision": "a", "updateRevision": "b"},
        });
        assert_eq!(differences(TargetKind::StatefulSet, &set).len(), 1);
        set["spec"]["updateStrategy"]["type"] = json!("OnDelete");
        assert_eq!(differences(TargetKind::StatefulSet, &set), [""; 0]);
    }
}
