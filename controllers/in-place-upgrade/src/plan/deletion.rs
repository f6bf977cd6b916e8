//! An object that is deleted in mid-run gives back what is of its making: traffic, partition, pause, pullers. What pods
//! have become they stay.

use super::{own_write, status_write};
use crate::finalize::{Finalize, Terms, finalize, partition};
use crate::message::{count, quoting};
use crate::observed::Observed;
use crate::projections::upgrade::FINALIZER;
use crate::status::Report;
use crate::target::Target;
use crate::traffic::given_back;
use crate::wish::Wish;
use jiff::Timestamp;
use springtide_crds::in_place_upgrade::SourceType;
use springtide_plumbing::key::Resource;
use springtide_plumbing::plan::{Action, Outcome, Plan, Step, Why, Write, WriteClass, remove_finalizer};
use springtide_plumbing::projection::Projection;
use springtide_plumbing::workloads::pod::PodView;

/// The plan for an object that is being deleted. Everything is looked at anew in each pass, so that nothing has to be
/// remembered; the finalizer goes when nothing is left to give back.
pub(super) fn plan(observed: &Observed, now: Timestamp) -> Plan {
    let upgrade = &observed.upgrade;
    let meta = upgrade.meta();
    let mut plan = Plan::idle(Outcome::Progressing);
    if !upgrade.is_held() {
        plan.why = vec![Why { reason: DELETING, message: "nothing of its making is left".to_owned() }];
        return plan;
    }
    let mut left = Vec::new();
    let traffic: Vec<Step> = observed.pods.iter().filter_map(|pod| given_back(pod, None, now)).collect();
    if !traffic.is_empty() {
        let pods = u32::try_from(traffic.len()).unwrap_or(u32::MAX);
        left.push(format!("traffic of {}", count(pods, "pod")));
    }
    plan.stages.push(traffic);
    match workload(observed) {
        Work::Done => {}
        Work::Waiting { message } => left.push(message),
        Work::Write { stages, message } => {
            left.push(message);
            plan.stages.extend(stages);
        }
    }
    let pullers: Vec<Step> = observed.pullers.iter().filter_map(|puller| delete(puller)).collect();
    if !pullers.is_empty() {
        left.push("pods that pull images".to_owned());
    }
    plan.stages.push(pullers);
    plan.stages.retain(|stage| !stage.is_empty());
    if left.is_empty() {
        plan.why = vec![Why { reason: DELETING, message: "nothing of its making is left".to_owned() }];
        let removal = remove_finalizer(&meta.uid, &meta.finalizers, FINALIZER);
        let removal = removal.map(|action| own_write(upgrade, action, WriteClass::Protective));
        plan.stages = removal.into_iter().map(|write| vec![write.into()]).collect();
        return plan;
    }
    let report =
        Report::of_deleted(upgrade, quoting("what is of its making is given back: ", &left.join("; "), ""));
    plan.why = vec![report.why()];
    plan.status = Some(status_write(upgrade, report.onto(upgrade, now)));
    plan
}

/// Reason of what is said of an object that goes.
const DELETING: &str = "Deleting";

/// Ends a pause of ours, or raises a partition that we have lowered.
///
/// A pause of ours stands between pods that are changed already and a template that says so: to end it alone would have
/// the Deployment make all of them anew. So the run's end is gone through.
fn workload(observed: &Observed) -> Work {
    let spec = &observed.upgrade.spec;
    let uid = &observed.upgrade.meta().uid;
    let recorded_partition =
        observed.upgrade.status.previous.as_ref().and_then(|previous| previous.partition);
    let step = match &observed.target {
        Some(target @ Target::Deployment { deployment, .. }) => {
            if deployment.paused_by.as_deref() != Some(&*uid.0) {
                return Work::Done;
            }
            let terms = Terms {
                uid,
                lock: spec.policy.lock,
                history: spec.policy.history,
                ownership: spec.policy.field_ownership,
                inline: match spec.source.type_ {
                    SourceType::Inline => spec.source.inline.as_ref(),
                    SourceType::Template => None,
                },
                recorded_partition,
                relabelled: &[],
                left_out: 0,
            };
            return match finalize(target, &Wish::of(spec, target.template()), &terms) {
                Finalize::Done { .. } => Work::Done,
                Finalize::Waiting { message } => Work::Waiting { message },
                Finalize::Write { stages, message, .. } => Work::Write { stages, message },
            };
        }
        Some(Target::StatefulSet { set, .. }) => partition::raise(set, recorded_partition),
        Some(Target::DaemonSet { .. } | Target::ReplicaSet(_)) | None => None,
    };
    let message = "the partition is as high again as it was";
    step.map_or(Work::Done, |step| Work::Write { stages: vec![vec![step]], message: message.to_owned() })
}

/// What is left to do to the workload.
enum Work {
    Done,
    Waiting { message: String },
    Write { stages: Vec<Vec<Step>>, message: String },
}

fn delete(puller: &PodView) -> Option<Step> {
    let meta = puller.meta();
    let action = Action::Delete { uid: meta.uid.clone(), resource_version: None, grace_seconds: Some(0) };
    let write = Write { resource: Resource::POD, key: meta.key.clone(), class: WriteClass::Low, action };
    (!meta.is_deleting()).then(|| write.into())
}
