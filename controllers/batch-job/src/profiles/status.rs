//! The status of a profile, as a pure function of what is stored, the runs since, and what measures usage.

use super::learned::{Learnable, Learned, LearnedContainer, Run, SAMPLES_NEEDED};
use crate::projections::profile::ProfileView;
use jiff::Timestamp;
use springtide_crds::batch_task_profile::{
    BatchTaskProfileStatus, ContainerProfile, MESSAGE_MAX_BYTES, ReadyReason, RecommendedRequests,
    ReconcilingReason, RunTime, StalledReason,
};
use springtide_crds::common::{ConditionWriter, remove_condition, whole_seconds};
use springtide_crds::reason::Reason;
use springtide_plumbing::projection::Projection;
use springtide_plumbing::quantity::quantity_text;

/// How the message of Stalled begins that is about the bounds: it follows from the spec, and goes with it. Any other is about
/// a run, and goes with the next one that fits.
const BOUNDS: &str = "spec.bounds";

/// What is known of the API that measures the usage of pods.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum UsageApi {
    /// It was not asked yet.
    #[default]
    NotAsked,
    /// It answers.
    Served,
    /// It does not: it is not installed, out of order, or may not be asked.
    NotServed,
}

/// What is learned by the stored status.
pub fn stored(status: &BatchTaskProfileStatus) -> Learned {
    let container =
        |row: &ContainerProfile| LearnedContainer::decode(row.name.as_str().into(), &row.histogram);
    let run_time = status.run_time.as_ref().map_or("", |run_time| run_time.histogram.as_str());
    Learned {
        samples: status.samples,
        oom_kills: status.oom_kills,
        last_sample: status.last_sample_time.as_ref().map(|time| time.0),
        containers: status.containers.iter().map(container).collect(),
        run_time: Learned::decode_run_time(run_time),
    }
}

/// The status a profile should have now.
pub fn next(
    profile: &ProfileView,
    runs: &[Run],
    usage_api: UsageApi,
    now: Timestamp,
) -> BatchTaskProfileStatus {
    let rule = profile.rule();
    let mut learned = stored(&profile.status);
    // What the last run said: a mismatch, or that there is none.
    let mut verdict = None;
    for run in runs {
        verdict = Some(learned.record(run, rule.half_life_seconds).err());
    }
    let mut status = profile.status.clone();
    status.observed_generation = profile.meta().generation;
    status.samples = learned.samples;
    status.oom_kills = learned.oom_kills;
    status.last_sample_time = learned.last_sample.map(whole_seconds);
    let row = |container: &LearnedContainer| {
        let recommended = |resource: Learnable| {
            let amount = container.recommended(resource, &rule)?;
            Some(quantity_text(resource.name(), amount))
        };
        ContainerProfile {
            name: container.name.to_string(),
            recommended: RecommendedRequests {
                cpu: recommended(Learnable::Cpu),
                memory: recommended(Learnable::Memory),
            },
            histogram: container.encode(),
        }
    };
    status.containers = learned.containers.iter().map(row).collect();
    status.run_time =
        learned.run_seconds(50).zip(learned.run_seconds(95)).map(|(p50_seconds, p95_seconds)| RunTime {
            p50_seconds,
            p95_seconds,
            histogram: learned.encode_run_time(),
        });
    let stalled = match (bounds_mismatch(profile, &learned), verdict) {
        (Some(message), _) => Some(message),
        (None, Some(verdict)) => verdict.map(|mismatch| mismatch.to_string()),
        (None, None) => {
            let stalled = profile.condition(StalledReason::CONDITION);
            stalled.map(|stalled| stalled.message.clone()).filter(|message| !message.starts_with(BOUNDS))
        }
    };
    let writer = ConditionWriter {
        observed_generation: profile.meta().generation,
        now,
        message_max_bytes: MESSAGE_MAX_BYTES,
    };
    let (ready, message) = match &stalled {
        Some(message) => (ReadyReason::ContainerMismatch, message.clone()),
        None => ready(&status, usage_api),
    };
    let conditions = &mut status.conditions;
    writer.set(conditions, ready, &message);
    let is_on_its_way = match ready {
        ReadyReason::Pending | ReadyReason::TooFewSamples => true,
        ReadyReason::Learned | ReadyReason::ContainerMismatch => false,
    };
    if is_on_its_way {
        writer.set(conditions, ReconcilingReason::TooFewSamples, &message);
    } else {
        remove_condition(conditions, ReconcilingReason::CONDITION);
    }
    match stalled {
        Some(message) => writer.set(conditions, StalledReason::ContainerMismatch, &message),
        None => remove_condition(conditions, StalledReason::CONDITION),
    }
    status
}

/// A bound of a container that no task has, once there was one.
fn bounds_mismatch(profile: &ProfileView, learned: &Learned) -> Option<String> {
    let known: Vec<&str> = learned.containers.iter().map(|container| &*container.name).collect();
    let is_known = |container: &str| known.is_empty() || known.contains(&container);
    let bound = profile.spec.bounds.iter().find(|bound| !is_known(&bound.container))?;
    Some(format!("{BOUNDS} names container {}, the tasks have {}", bound.container, known.join(", ")))
}

fn ready(status: &BatchTaskProfileStatus, usage_api: UsageApi) -> (ReadyReason, String) {
    let samples = status.samples;
    if samples < SAMPLES_NEEDED {
        return (ReadyReason::TooFewSamples, format!("{samples} of {SAMPLES_NEEDED} runs that are needed"));
    }
    let missing = status.containers.iter().flat_map(|row| {
        let absent =
            |name: &'static str, amount: &Option<String>| amount.is_none().then_some((&row.name, name));
        [absent("cpu", &row.recommended.cpu), absent("memory", &row.recommended.memory)].into_iter().flatten()
    });
    let missing: Vec<String> =
        missing.map(|(container, resource)| format!("{container} {resource}")).collect();
    if missing.is_empty() {
        return (ReadyReason::Learned, format!("learned from {samples} runs"));
    }
    let remedy = match usage_api {
        UsageApi::NotServed => "metrics.k8s.io is not served; let tasks say usage: cpu=350m memory=900Mi",
        UsageApi::NotAsked | UsageApi::Served => {
            "let tasks say usage: cpu=350m memory=900Mi, or run for a minute"
        }
    };
    // What helps is worth more than a long list.
    let (listed, more) = missing.split_at(missing.len().min(2));
    let more = if more.is_empty() { String::new() } else { format!(" and {} more", more.len()) };
    let message = format!("{samples} runs, but not yet 20 with {}{more}: {remedy}", listed.join(", "));
    (ReadyReason::Learned, message)
}
