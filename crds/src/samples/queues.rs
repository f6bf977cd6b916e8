//! Examples of BatchQueue.

use std::collections::BTreeMap;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde_json::json;

use super::Sample;
use crate::batch_job::StopPolicy;
use crate::batch_queue::loads::{LoadResource, LoadTrigger};
use crate::batch_queue::peaks::{PeakAction, PeakOverride, PeakOverrideMode, PeakWindow, Resume, TierAction};
use crate::batch_queue::{
    Archive, ArchiveType, BatchQueue, BatchQueueSpec, CapacitySource, CapacityType, GangScheduler,
    NodeSelector, Ordering, Preemptible, QuotaRow, Retention, TierMapping,
};
use crate::batch_task_profile::ProfileMode;
use crate::common::{Quantity, Tier, Window};

/// The time zone of the examples.
const ZONE: &str = "Asia/Shanghai";
/// When the override of an example ends: midnight after the eleventh of November 2026, in China.
const OVERRIDE_ENDS: Timestamp = Timestamp::constant(1_794_412_800, 0);

/// The examples of BatchQueue.
#[must_use]
pub fn batch_queues() -> Vec<Sample> {
    [with_quota(), with_peaks(), with_tiers(), with_retention()].concat()
}

fn sample(file: &'static str, doc: &'static str, name: &str, spec: BatchQueueSpec) -> Sample {
    Sample { file, doc, object: json!(BatchQueue::new(name, spec)) }
}

fn with_quota() -> Vec<Sample> {
    vec![
        sample(
            "batchqueue-default",
            "The queue of every job of its namespace that names none: at most two CPUs and 2Gi of memory at a time, of \
             half of what the nodes leave. Finished jobs stay for an hour.",
            "default",
            BatchQueueSpec {
                quota: vec![quota("cpu", "2", None), quota("memory", "2Gi", None)],
                capacity_source: CapacitySource { percent: 50, ..CapacitySource::default() },
                retention: Retention { ttl_seconds_after_finished: 3600, ..Retention::default() },
                ..BatchQueueSpec::new()
            },
        ),
        sample(
            "batchqueue-reports",
            "A queue of cohort idle: one CPU is its own, and it may borrow another one that no other queue of the \
             cohort uses. Jobs name it in spec.queueName; those of tier Guaranteed run here too.",
            "reports",
            BatchQueueSpec {
                cohort: Some("idle".to_owned()),
                quota: vec![quota("cpu", "1", Some("2"))],
                max_tier: Tier::Guaranteed,
                ..BatchQueueSpec::new()
            },
        ),
        sample(
            "batchqueue-nightly",
            "A queue that lends to queue reports, as both are of cohort idle: what it does not use of its two CPUs. When \
             jobs of its own need them, pods of the borrower end. It may borrow one itself, with three times the weight. \
             Jobs whose profile has a key and no mode get requests that were learned where they have none.",
            "nightly",
            BatchQueueSpec {
                cohort: Some("idle".to_owned()),
                weight: 3,
                quota: vec![quota("cpu", "2", Some("3"))],
                default_profile_mode: ProfileMode::Initial,
                ..BatchQueueSpec::new()
            },
        ),
        sample(
            "batchqueue-training",
            "A queue for gangs, strictly in their order: while the first job waits, all others do. The scheduler places a \
             gang as a whole, where the cluster serves PodGroups. Up to eight pods that fit on no node are shown to a \
             node autoscaler, and only the oldest hundred jobs wait inside; the others are taken in as these leave.",
            "training",
            BatchQueueSpec {
                ordering: Ordering::StrictFifo,
                gang_scheduler: GangScheduler::PodGroup,
                capacity_source: CapacitySource { max_pending_pods: 8, ..CapacitySource::default() },
                max_queued_jobs: 100,
                ..BatchQueueSpec::new()
            },
        ),
    ]
}

fn with_peaks() -> Vec<Sample> {
    vec![
        sample(
            "batchqueue-peak",
            "A queue that leaves the machines to online services on every evening: from ten minutes before eight jobs \
             of tier BestEffort leave, those of tier Standard shrink to three tenths, and after ten all come back over \
             ten minutes.",
            "evening",
            BatchQueueSpec {
                peak_windows: vec![PeakWindow {
                    actions: vec![
                        act(Tier::BestEffort, PeakAction::Drain),
                        TierAction { percent: Some(30), ..act(Tier::Standard, PeakAction::Degrade) },
                    ],
                    ..peak("evening", daily("20:00", "22:00"))
                }],
                ..BatchQueueSpec::new()
            },
        ),
        sample(
            "batchqueue-calendar",
            "A queue with peaks by a calendar: for four hours of each Friday evening, by a cron expression, nothing of tier \
             BestEffort starts; on two dates its pods leave from ten in the evening on, and stay away from eleven to two. \
             The override lets no window have an effect until its time is over, and says why.",
            "calendar",
            BatchQueueSpec {
                peak_windows: vec![
                    PeakWindow {
                        actions: vec![act(Tier::BestEffort, PeakAction::Hold)],
                        ..peak(
                            "friday",
                            Window {
                                start: None,
                                end: None,
                                cron: Some("30 18 * * 5".to_owned()),
                                duration_seconds: Some(14_400),
                                time_zone: ZONE.to_owned(),
                                dates: None,
                            },
                        )
                    },
                    PeakWindow {
                        actions: vec![act(Tier::BestEffort, PeakAction::Drain)],
                        lead_seconds: 3600,
                        ..peak(
                            "promotion",
                            Window {
                                dates: Some(vec!["2026-11-10".to_owned(), "2026-12-11".to_owned()]),
                                ..daily("23:00", "02:00")
                            },
                        )
                    },
                ],
                override_peak: Some(PeakOverride {
                    mode: PeakOverrideMode::ForceOff,
                    until_time: Time(OVERRIDE_ENDS),
                    reason: "INC-4711: the promotion is moved".to_owned(),
                }),
                ..BatchQueueSpec::new()
            },
        ),
        sample(
            "batchqueue-load",
            "A queue by what the nodes really do, which needs a metrics server: jobs get half of what nobody uses. When \
             75 % of the CPUs have been busy for a minute, nothing of tier BestEffort starts; at 90 % of the memory its \
             pods leave, and tier Standard shrinks to a half. They come back over ten minutes. Nothing starts by measures that are older than a minute and a \
             half.",
            "leftovers",
            BatchQueueSpec {
                capacity_source: CapacitySource {
                    type_: CapacityType::NodeMetrics,
                    percent: 50,
                    stale_after_seconds: 90,
                    ..CapacitySource::default()
                },
                load_triggers: vec![
                    trigger("busy", LoadResource::Cpu, (75, 60), PeakAction::Hold),
                    LoadTrigger {
                        actions: vec![
                            act(Tier::BestEffort, PeakAction::Drain),
                            TierAction { percent: Some(50), ..act(Tier::Standard, PeakAction::Degrade) },
                        ],
                        ..trigger("full", LoadResource::Memory, (90, 80), PeakAction::Drain)
                    },
                ],
                ..BatchQueueSpec::new()
            },
        ),
    ]
}

fn with_tiers() -> Vec<Sample> {
    vec![
        sample(
            "batchqueue-urgent",
            "A queue whose jobs of tier BestEffort give way: their pods end for jobs of tier Guaranteed once they exist \
             for a minute, and run again by themselves. Pods of Standard end only for jobs of their own tier with a \
             higher priority, or of Guaranteed.",
            "urgent",
            BatchQueueSpec {
                quota: vec![quota("cpu", "2", None)],
                max_tier: Tier::Guaranteed,
                tiers: vec![
                    yielding(Tier::BestEffort, &[Tier::Guaranteed], 60),
                    yielding(Tier::Standard, &[Tier::Standard, Tier::Guaranteed], 0),
                ],
                ..BatchQueueSpec::new()
            },
        ),
        sample(
            "batchqueue-colocated",
            "A queue on the nodes of pool online, where an agent, here Koordinator, offers what online services leave as \
             resources of its own: pods of tier BestEffort request these in place of cpu and memory, and get the agent's \
             label and scheduler and a PriorityClass, which must exist. Jobs of higher tiers do not run here.",
            "colocated",
            BatchQueueSpec {
                capacity_source: CapacitySource {
                    type_: CapacityType::ExtendedResource,
                    node_selector: Some(NodeSelector { match_labels: texts(&[("pool", "online")]) }),
                    reserve: BTreeMap::from([("kubernetes.io/batch-cpu".to_owned(), Quantity::new("2000"))]),
                    ..CapacitySource::default()
                },
                max_tier: Tier::BestEffort,
                tiers: vec![TierMapping {
                    priority_class_name: Some("koord-batch".to_owned()),
                    scheduler_name: Some("koord-scheduler".to_owned()),
                    pod_labels: texts(&[("koordinator.sh/qosClass", "BE")]),
                    resource_names: texts(&[
                        ("cpu", "kubernetes.io/batch-cpu"),
                        ("memory", "kubernetes.io/batch-memory"),
                    ]),
                    ..plain(Tier::BestEffort)
                }],
                ..BatchQueueSpec::new()
            },
        ),
    ]
}

fn with_retention() -> Vec<Sample> {
    vec![
        sample(
            "batchqueue-archived",
            "A queue of at most fifty pods at a time, whatever the nodes have. Its finished jobs go after ten seconds, each \
             once the manager has written a line of JSON about it to its standard output. Jobs name it in spec.queueName.",
            "archived",
            BatchQueueSpec {
                quota: vec![quota("pods", "50", None)],
                capacity_source: CapacitySource { type_: CapacityType::Static, ..CapacitySource::default() },
                retention: Retention {
                    ttl_seconds_after_finished: 10,
                    archive: Archive { type_: ArchiveType::Stdout, url: None },
                    ..Retention::default()
                },
                ..BatchQueueSpec::new()
            },
        ),
        sample(
            "batchqueue-audited",
            "A queue whose finished jobs go after an hour, or as soon as there are more than fifty, each once its line was \
             posted to a URL; put your own in its place. Until then it is held: jobs wait, and nothing starts.",
            "audited",
            BatchQueueSpec {
                stop_policy: StopPolicy::Hold,
                retention: Retention {
                    ttl_seconds_after_finished: 3600,
                    history_limit: 50,
                    archive: Archive {
                        type_: ArchiveType::Http,
                        url: Some("https://archive.example.com/batch-jobs".to_owned()),
                    },
                },
                ..BatchQueueSpec::new()
            },
        ),
    ]
}

fn quota(resource: &str, nominal: &str, max: Option<&str>) -> QuotaRow {
    QuotaRow { resource: resource.to_owned(), nominal: Quantity::new(nominal), max: max.map(Quantity::new) }
}

fn daily(start: &str, end: &str) -> Window {
    Window {
        start: Some(start.to_owned()),
        end: Some(end.to_owned()),
        cron: None,
        duration_seconds: None,
        time_zone: ZONE.to_owned(),
        dates: None,
    }
}

/// A peak without actions, and else at its defaults.
fn peak(name: &str, window: Window) -> PeakWindow {
    PeakWindow {
        name: name.to_owned(),
        window: Some(window),
        from_time_share_group: None,
        actions: Vec::new(),
        lead_seconds: 600,
        drain_pods_per_second: 50,
        resume: Resume::default(),
    }
}

fn act(tier: Tier, action: PeakAction) -> TierAction {
    TierAction { tier, action, percent: None }
}

fn trigger(name: &str, resource: LoadResource, (high, low): (u32, u32), action: PeakAction) -> LoadTrigger {
    LoadTrigger {
        name: name.to_owned(),
        resource,
        high_percent: high,
        low_percent: low,
        sustain_seconds: 60,
        actions: vec![act(Tier::BestEffort, action)],
        drain_pods_per_second: 50,
        resume: Resume::default(),
    }
}

/// A tier that runs as the template says.
fn plain(name: Tier) -> TierMapping {
    TierMapping {
        name,
        priority_class_name: None,
        scheduler_name: None,
        pod_labels: BTreeMap::new(),
        resource_names: BTreeMap::new(),
        preemptible: None,
    }
}

fn yielding(name: Tier, by: &[Tier], min_run_seconds: u32) -> TierMapping {
    TierMapping { preemptible: Some(Preemptible { by: by.to_vec(), min_run_seconds }), ..plain(name) }
}

fn texts(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
}
