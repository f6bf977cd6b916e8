//! Batch work in the room that members off stage have let go.

use std::collections::BTreeMap;

use anyhow::{Context, Result, ensure};
use jiff::{SignedDuration, Timestamp};
use serde_json::json;
use springtide_crds::batch_job::{BatchJobSpec, Interruption, SuspendedReason};
use springtide_crds::batch_queue::{BatchQueueSpec, PeakWindowActiveReason, QuotaRow, ReadyReason};
use springtide_crds::common::{Quantity, Tier};
use springtide_e2e::batch::queues::{create, told};
use springtide_e2e::batch::{Task, Testbed};
use springtide_e2e::time_share::node_stage::GROUP;
use springtide_e2e::time_share::pods::{Pods, Standing};
use springtide_e2e::time_share::shared;
use springtide_e2e::time_share::sizes::SizedPod;
use springtide_e2e::time_share::stage::Setting;
use springtide_e2e::time_share::windows::{minute_after, window};

/// The queue of jobs that name none.
const QUEUE: &str = "default";
/// Cores on all nodes that are free while nobody has the peak.
const FREE: u32 = 6;

/// Pods of batch work.
fn batch_pods(pods: &Pods) -> Vec<&SizedPod> {
    let is = |pod: &&SizedPod| {
        pod.pod.metadata.labels.as_ref().is_some_and(|labels| labels.contains_key("springtide.dev/job"))
    };
    pods.sizes.live().filter(is).collect()
}

#[tokio::test]
async fn batch_work_has_what_members_let_go_and_is_gone_before_they_take_it_back() -> Result<()> {
    let bounded = shared().await?;
    let stage = Setting::new("shared", 2).without_group(&bounded.cluster).await?;
    let batch = Testbed::of(&bounded.cluster, &stage.test.namespace).await?;
    let start = minute_after(150);
    // Until then an override gives pay the peak; after it nobody has it, until the window.
    let until = Timestamp::now() + SignedDuration::from_secs(40);
    stage
        .create_group(|spec| {
            let windows = [window("pay", start, 2, 20)];
            spec.schedule = serde_json::from_value(json!({"windows": windows})).unwrap();
            let over = json!({"member": "pay", "untilTime": until, "reason": "a rehearsal"});
            spec.override_ = serde_json::from_value(over).unwrap();
        })
        .await?;
    stage.settled("pay").await?;
    let cpu = QuotaRow { resource: "cpu".to_owned(), nominal: Quantity::new("100"), max: None };
    let peak = json!([{
        "name": "online", "fromTimeShareGroup": {"name": GROUP}, "leadSeconds": 20, "drainPodsPerSecond": 100,
        "actions": [{"tier": "BestEffort", "action": "Drain"}],
        "resume": {"rampSeconds": 0, "jitterSeconds": 0},
    }]);
    let spec = BatchQueueSpec {
        quota: vec![cpu],
        peak_windows: serde_json::from_value(peak)?,
        ..BatchQueueSpec::new()
    };
    create(&batch, QUEUE, spec).await?;
    told(&batch, QUEUE, PeakWindowActiveReason::Closed).await?;
    let task = Task { cpu: "1".into(), ..Task::endless() }.on(&stage.test.namespace);
    let job = BatchJobSpec {
        completions: FREE,
        parallelism: FREE,
        tier: Tier::BestEffort,
        interruption: Interruption { grace_seconds: 2, ..Interruption::default() },
        ..BatchJobSpec::new(task.template())
    };
    batch.submit("low", job).await?;
    ensure!(batch_pods(&stage.test.pods.now()).is_empty(), "none has started at the peak");

    // The room is there as soon as the statuses are smaller, and not before.
    batch.running("low", FREE as usize).await?;
    stage.stand("pay", Standing::valley(2)).await?;
    ensure!(bounded.kubelets.turned_away(&stage.test.namespace).is_empty(), "they came too soon");
    told(&batch, QUEUE, ReadyReason::Admitting).await?;

    // It is gone when the switch begins.
    let began = stage
        .test
        .until(GROUP, "the window's switch begins", |group| {
            let transition = group.status.as_ref().and_then(|status| status.transition.as_ref());
            transition.is_some_and(|transition| {
                transition.to.as_deref() == Some("pay")
                    && transition.start_time.0 >= start - SignedDuration::from_secs(21)
            })
        })
        .await?;
    let transition = began.status.and_then(|status| status.transition).context("a transition")?;
    ensure!(transition.start_time.0 < start, "{transition:?}");
    let left: BTreeMap<String, String> = {
        let pods = stage.test.pods.now();
        batch_pods(&pods).iter().map(|pod| (pod.name(), format!("{:?}", pod.pod.spec))).collect()
    };
    ensure!(left.is_empty(), "batch pods are left: {:?}", left.keys());
    batch.reason("low", SuspendedReason::PeakWindow).await?;
    stage.settled("pay").await?;
    stage.stand("pay", Standing::peak(2)).await?;
    ensure!(bounded.kubelets.turned_away(&stage.test.namespace).is_empty());
    batch.delete("low").await?;
    batch.gone("low").await?;
    stage.test.verify()
}
