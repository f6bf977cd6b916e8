//! Pods that give way to load. What KWOK plays uses nothing that could be measured, so that a metrics server would have
//! nothing to tell: the test itself writes the object of `metrics.k8s.io`, which the API server serves.

use std::convert::Infallible;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use anyhow::{Context, Result};
use jiff::Timestamp;
use kube::api::{Api, ApiResource, DynamicObject, Patch, PatchParams};
use serde_json::{Value, json};
use springtide_crds::batch_job::CompleteReason;
use springtide_crds::batch_queue::BatchQueueSpec;
use springtide_e2e::batch::{Testbed, queues};
use springtide_e2e::local_cluster::LocalCluster;
use springtide_e2e::oracle::feed::PATIENCE;
use springtide_e2e::polling::until;

use crate::plays::{QUEUE, at_least_once, queued, quota};
use crate::scenarios::JOB;
use crate::windows::come_back;

const GROUP: &str = "metrics.k8s.io";
const VERSION: &str = "v1beta1";
const KIND: &str = "NodeMetrics";
const PLURAL: &str = "nodes";
const USER_AGENT: &str = "springtide-test";

/// The node whose load counts, of the pool of all scenarios, ...
const NODE: &str = "general-0";
/// ... and its processors.
const CORES: u32 = 32;
/// Percent of them in use: more than the trigger goes on at, ...
const BUSY: u32 = 90;
/// ... and less than it goes off at.
const CALM: u32 = 10;
/// Between two measures: what is not measured anew grows old.
const EVERY: Duration = Duration::from_secs(2);

/// What the cluster tells of the load of the node.
struct Load {
    objects: Api<DynamicObject>,
    /// Percent.
    level: AtomicU32,
}

impl Load {
    fn of(cluster: &LocalCluster, level: u32) -> Result<Self> {
        let resource = ApiResource {
            group: GROUP.to_owned(),
            version: VERSION.to_owned(),
            api_version: format!("{GROUP}/{VERSION}"),
            kind: KIND.to_owned(),
            plural: PLURAL.to_owned(),
        };
        let objects = Api::all_with(cluster.client(USER_AGENT)?, &resource);
        Ok(Self { objects, level: AtomicU32::new(level) })
    }

    /// Tells it, as measured now.
    async fn tell(&self) -> Result<()> {
        let millis = self.level.load(Ordering::Relaxed) * CORES * 10;
        let measure = json!({
            "apiVersion": format!("{GROUP}/{VERSION}"), "kind": KIND, "metadata": {"name": NODE},
            "timestamp": Timestamp::now(), "window": "10s",
            "usage": {"cpu": format!("{millis}m"), "memory": "1Gi"},
        });
        let params = PatchParams::apply(USER_AGENT).force();
        self.objects.patch(NODE, &params, &Patch::Apply(measure)).await.context("tell the load of a node")?;
        Ok(())
    }

    async fn keep_telling(&self) -> Result<Infallible> {
        loop {
            tokio::time::sleep(EVERY).await;
            self.tell().await?;
        }
    }
}

/// Has the cluster serve what a metrics server tells of nodes.
pub(crate) async fn serve(cluster: &LocalCluster) -> Result<()> {
    let schema = json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true});
    let definition = json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {
            "name": format!("{PLURAL}.{GROUP}"),
            // Groups of Kubernetes are refused without a word on that.
            "annotations": {"api-approved.kubernetes.io": "unapproved, in place of a metrics server"},
        },
        "spec": {
            "group": GROUP, "scope": "Cluster",
            "names": {"plural": PLURAL, "kind": KIND, "listKind": format!("{KIND}List")},
            "versions": [{
                "name": VERSION, "served": true, "storage": true, "schema": {"openAPIV3Schema": schema},
            }],
        },
    });
    cluster.apply(&definition.to_string()).await?;
    let load = Load::of(cluster, CALM)?;
    until(PATIENCE, "the cluster takes the load of a node", async || Ok(load.tell().await.ok())).await
}

/// Its pod goes as the load is high, and another one comes when it has been low for long enough.
pub(crate) async fn gave_way(test: &Testbed<'_>) -> Result<()> {
    let load = Load::of(test.cluster, CALM)?;
    load.tell().await?;
    tokio::select! {
        told = load.keep_telling() => match told? {},
        played = with_load(test, &load) => played,
    }
}

async fn with_load(test: &Testbed<'_>, load: &Load) -> Result<()> {
    let source = json!({"type": "Static", "nodeSelector": {"matchLabels": {"kubernetes.io/hostname": NODE}}});
    let spec = BatchQueueSpec {
        load_triggers: serde_json::from_value(triggers("Hold"))?,
        capacity_source: serde_json::from_value(source)?,
        ..quota("100m", None)
    };
    queues::open(test, QUEUE, spec).await?;
    test.submit(JOB, at_least_once(queued(1, 1))).await?;
    test.running(JOB, 1).await?;
    // From then on it is known that it has started, whoever finds its pod gone.
    test.reason(JOB, CompleteReason::Running).await?;
    turn(test, load, BUSY).await?;
    // Before a pod goes it is stored that the trigger is on: who does not know it would begin with another pod.
    queues::queue(test, QUEUE, "held by the load", |queue| {
        queue.status.as_ref().is_some_and(|status| status.active_load_triggers == ["hot"])
    })
    .await?;
    queues::edit(test, QUEUE, json!({"spec": {"loadTriggers": triggers("Drain")}})).await?;
    test.reason(JOB, CompleteReason::Suspended).await?;
    test.no_pods(JOB).await?;
    turn(test, load, CALM).await?;
    test.running(JOB, 1).await?;
    // Nobody measures any more after the play: what follows from that would be told at rest.
    come_back(test, 1, json!({"spec": {"loadTriggers": null}})).await
}

fn triggers(action: &str) -> Value {
    json!([{
        "name": "hot", "resource": "cpu", "highPercent": 75, "lowPercent": 60, "sustainSeconds": 10,
        "actions": [{"tier": "BestEffort", "action": action}],
        "resume": {"rampSeconds": 2, "jitterSeconds": 0},
    }])
}

/// Changes the load, and something of the queue that means nothing here: for a queue that has changed the manager looks
/// at the load at once.
async fn turn(test: &Testbed<'_>, load: &Load, level: u32) -> Result<()> {
    load.level.store(level, Ordering::Relaxed);
    load.tell().await?;
    queues::edit(test, QUEUE, json!({"spec": {"weight": level}})).await
}
