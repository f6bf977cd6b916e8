//! PodGroups of `scheduling.k8s.io`: they have the scheduler place the pods of a gang all at once or not at all.
//!
//! The admission decides when a gang starts, by counting what fits; a PodGroup makes that atomic on the nodes. It is
//! made right before the first pod of a job, goes with the job, and nobody watches it: whether the cluster serves
//! the kind at all is learned from the answer to a create. Where it does not, the count alone decides, and the queue
//! says so. What else is refused (by a quota, a policy, a webhook) is a matter of that queue, or of that job where its
//! group is invalid: all others go on asking.

use crate::lock;
use crate::plan::{Attempt, JobState};
use crate::pods::{JOB_LABEL, QUEUE_LABEL, owner_reference};
use crate::projections::job::JobView;
use crate::queues::Placement;
use jiff::{SignedDuration, Timestamp};
use serde_json::json;
use springtide_crds::batch_queue::GangScheduler;
use springtide_plumbing::clock::after;
use springtide_plumbing::error::WriteError;
use springtide_plumbing::executor::Done;
use springtide_plumbing::failing::{TRANSIENT_PASSES, explain};
use springtide_plumbing::key::{ObjectKey, Resource};
use springtide_plumbing::plan::{Action, Write, WriteClass};
use springtide_plumbing::projection::Projection;
use std::collections::HashMap;
use std::sync::Mutex;

/// `scheduling.k8s.io/v1beta1` PodGroup, of Kubernetes 1.37.
pub const POD_GROUP: Resource = Resource {
    group: "scheduling.k8s.io",
    version: "v1beta1",
    kind: "PodGroup",
    plural: "podgroups",
    namespaced: true,
};

/// A cluster that does not serve the kind is asked again so long after: the API may have been enabled.
const ASK_AGAIN: SignedDuration = SignedDuration::from_secs(600);
/// First pause after a refusal; it doubles with each further one, up to [`ASK_AGAIN`].
const FIRST_PAUSE: SignedDuration = SignedDuration::from_secs(30);
/// Hexadecimal digits of the job's UID in the name of its group.
const UID_DIGITS: usize = 8;

/// What a job has to do with a PodGroup now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum GroupUse {
    /// Nothing: it is no gang, its queue does not ask for it, or none is to be had now.
    #[default]
    None,
    /// It is made before the first pod that refers to it.
    Make,
    /// It is there.
    There,
}

/// Whether the gangs of a queue get PodGroups, as far as creates have told.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Service {
    /// Nobody has tried.
    #[default]
    Unknown,
    /// They do.
    Served,
    /// The cluster does not know the kind.
    NotServed {
        /// What the API server said.
        message: String,
    },
    /// The last one that the queue asked for was refused.
    Refused {
        /// What the API server said.
        message: String,
    },
}

/// What came of asking for the group of one job.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct GroupFacts {
    /// It is there.
    is_there: bool,
    /// It was refused as invalid, whoever asks.
    pause: Option<Pause>,
    /// Passes in a row in which nobody told what came of it.
    unanswered: u32,
}

/// Until when nothing is asked for after refusals.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Pause {
    /// Refusals in a row.
    refusals: u32,
    /// When the last of them was.
    since: Timestamp,
    until: Timestamp,
}

impl Pause {
    /// The one after a further refusal. Of what was asked for at once all is refused for one reason: that counts once.
    fn after(before: Option<Self>, now: Timestamp) -> Self {
        let refusals = before.map_or(1, |pause| match pause.lasts(now) {
            true => pause.refusals,
            false => pause.refusals.saturating_add(1),
        });
        let doubled = FIRST_PAUSE.checked_mul(1 << (refusals - 1).min(5)).unwrap_or(ASK_AGAIN);
        Self { refusals, since: now, until: after(now, doubled.min(ASK_AGAIN)) }
    }

    /// One that began in what is now the future was before the clock was put back.
    fn lasts(&self, now: Timestamp) -> bool {
        self.since <= now && now < self.until
    }
}

/// What this process knows of PodGroups.
#[derive(Debug, Default)]
pub(crate) struct PodGroups(Mutex<Known>);

#[derive(Debug, Default)]
struct Known {
    kind: Kind,
    /// Queues whose last one was refused.
    refused: HashMap<ObjectKey, Refused>,
}

/// Whether the cluster knows the kind.
#[derive(Debug, Default)]
enum Kind {
    #[default]
    Unknown,
    Served,
    NotServed {
        /// One that lies ahead was before the clock was put back.
        since: Timestamp,
        message: String,
    },
}

#[derive(Debug)]
struct Refused {
    message: String,
    /// The queue asks for none until then; `None` where what was refused is wrong with one job alone.
    pause: Option<Pause>,
}

impl PodGroups {
    /// What is known now of the gangs of a queue.
    pub(crate) fn service(&self, queue: &ObjectKey) -> Service {
        let known = lock(&self.0);
        match (&known.kind, known.refused.get(queue)) {
            (Kind::NotServed { message, .. }, _) => Service::NotServed { message: message.clone() },
            (Kind::Unknown | Kind::Served, Some(refused)) => {
                Service::Refused { message: refused.message.clone() }
            }
            (Kind::Served, None) => Service::Served,
            (Kind::Unknown, None) => Service::Unknown,
        }
    }

    /// A queue is gone.
    pub(crate) fn forget(&self, queue: &ObjectKey) {
        lock(&self.0).refused.remove(queue);
    }

    /// Takes in what came of the create of a job's group. Returns whether that is all that is to be done about it.
    pub(crate) fn settle(
        &self,
        facts: &mut GroupFacts,
        write: &Write,
        outcome: &Result<Done, WriteError>,
        now: Timestamp,
    ) -> bool {
        match outcome {
            Ok(_) | Err(WriteError::AlreadyExists) => {
                *facts = GroupFacts { is_there: true, ..GroupFacts::default() };
                self.served(&queue_of(write));
                true
            }
            // Without it the gang starts by the count alone, and its queue says so.
            Err(WriteError::Refused(refusal)) => {
                facts.unanswered = 0;
                let message = explain(write, refusal);
                match refusal.code {
                    _ if refusal.is_kind_not_served() => self.not_served(message, now),
                    // What is wrong with one job is told, and keeps no other from asking.
                    400 | 413 | 422 => {
                        facts.pause = Some(Pause::after(facts.pause, now));
                        self.refused(queue_of(write), message, |of_queue| of_queue);
                    }
                    _ => self.refused(queue_of(write), message, |before| Some(Pause::after(before, now))),
                }
                true
            }
            // A webhook that never answers must not hold the gang up for ever.
            Err(error @ WriteError::Unknown(_)) => {
                facts.unanswered += 1;
                let is_enough = facts.unanswered >= TRANSIENT_PASSES;
                if is_enough {
                    facts.unanswered = 0;
                    let pause = |before| Some(Pause::after(before, now));
                    self.refused(queue_of(write), error.to_string(), pause);
                }
                is_enough
            }
            // Pods could not be made either, or the loop knows when to look again.
            Err(WriteError::NotSent(_) | WriteError::Withheld(_)) => false,
            Err(
                WriteError::Throttled(_)
                | WriteError::Busy { .. }
                | WriteError::NotLeading
                | WriteError::StaleStore(_)
                | WriteError::Contested { .. }
                | WriteError::Skipped
                | WriteError::Gone
                | WriteError::Conflict(_)
                | WriteError::FieldConflict(_)
                | WriteError::DisruptionBudget(_),
            ) => true,
        }
    }

    fn served(&self, queue: &ObjectKey) {
        let mut known = lock(&self.0);
        known.kind = Kind::Served;
        known.refused.remove(queue);
    }

    fn not_served(&self, message: String, now: Timestamp) {
        lock(&self.0).kind = Kind::NotServed { since: now, message };
    }

    /// `pause` makes the queue's pause of the one before.
    fn refused(&self, queue: ObjectKey, message: String, pause: impl FnOnce(Option<Pause>) -> Option<Pause>) {
        let mut known = lock(&self.0);
        // Nobody asks while it is known not to be served: this answer is the newer one.
        if let Kind::NotServed { .. } = known.kind {
            known.kind = Kind::Unknown;
        }
        let before = known.refused.get(&queue).and_then(|refused| refused.pause);
        known.refused.insert(queue, Refused { message, pause: pause(before) });
    }

    /// What a job with these pods has to do with one now.
    pub(crate) fn use_of(
        &self,
        job: &JobView,
        placement: &Placement,
        facts: &GroupFacts,
        pods: &[Attempt],
        now: Timestamp,
    ) -> GroupUse {
        match placement.gang_scheduler {
            GangScheduler::PodGroup if job.spec.min_parallelism > 1 => {}
            GangScheduler::PodGroup | GangScheduler::None => return GroupUse::None,
        }
        // It counts its own pods alone: with a part of the gang outside it would wait for ever.
        if pods.iter().any(|pod| pod.is_live() && !pod.view.is_grouped) {
            return GroupUse::None;
        }
        if facts.is_there {
            return GroupUse::There;
        }
        let known = lock(&self.0);
        let is_known_not_to_be = match &known.kind {
            Kind::NotServed { since, .. } => *since <= now && now < after(*since, ASK_AGAIN),
            Kind::Unknown | Kind::Served => false,
        };
        let namespace = job.meta().key.namespace.clone();
        let queue = ObjectKey { namespace, name: placement.queue_name().unwrap_or_default().into() };
        let of_queue = known.refused.get(&queue).and_then(|refused| refused.pause);
        let pauses = [facts.pause, of_queue].into_iter().flatten().any(|pause| pause.lasts(now));
        if is_known_not_to_be || pauses { GroupUse::None } else { GroupUse::Make }
    }
}

/// The queue whose gang a group is for.
fn queue_of(write: &Write) -> ObjectKey {
    let name = match &write.action {
        Action::Create { manifest } => {
            manifest["metadata"]["labels"][QUEUE_LABEL].as_str().unwrap_or_default()
        }
        Action::Delete { .. }
        | Action::Patch { .. }
        | Action::Apply { .. }
        | Action::Evict { .. }
        | Action::Status { .. }
        | Action::DryRun { .. } => "",
    };
    ObjectKey { namespace: write.key.namespace.clone(), name: name.into() }
}

/// Key of the group of one incarnation of a job: one that is left of an earlier job of the name is on its way out.
pub fn pod_group_key(job: &JobView) -> ObjectKey {
    let meta = job.meta();
    let digits: String = meta.uid.0.chars().filter(char::is_ascii_alphanumeric).take(UID_DIGITS).collect();
    let name = format!("{}-{}", meta.key.name, digits.to_ascii_lowercase());
    ObjectKey { namespace: meta.key.namespace.clone(), name: name.into() }
}

/// The write that makes the group of a job whose pods have this PriorityClass: the scheduler goes by that of the
/// group.
pub fn create(state: &JobState, priority_class: Option<&str>) -> Write {
    let job = &state.job;
    let key = pod_group_key(job);
    let mut manifest = json!({
        "apiVersion": POD_GROUP.api_version(),
        "kind": POD_GROUP.kind,
        "metadata": {
            "namespace": key.namespace,
            "name": key.name,
            "labels": {
                JOB_LABEL: job.meta().key.name,
                QUEUE_LABEL: state.placement.queue_name().unwrap_or_default(),
            },
            "ownerReferences": [owner_reference(job)],
        },
        "spec": {"schedulingPolicy": {"gang": {"minCount": job.spec.min_parallelism}}},
    });
    if let Some(class) = priority_class {
        manifest["spec"]["priorityClassName"] = json!(class);
    }
    Write { resource: POD_GROUP, key, class: WriteClass::Spec, action: Action::Create { manifest } }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admission::QueueId;
    use crate::failure::Ending;
    use serde_json::Value;
    use springtide_plumbing::error::Refusal;
    use std::sync::Arc;

    fn job(min_parallelism: u32) -> JobView {
        let spec: Value =
            json!({"parallelism": 9, "completions": 9, "minParallelism": min_parallelism, "template": {}});
        let meta = json!({"namespace": "ns", "name": "a".repeat(52), "uid": "0A1b-2c3d-4e5f"});
        serde_json::from_value(json!({"metadata": meta, "spec": spec})).unwrap()
    }

    fn asks(queue: &str) -> Placement {
        let queue = QueueId::Object(ObjectKey::new("ns", queue));
        Placement { gang_scheduler: GangScheduler::PodGroup, queue: Some(queue), ..Placement::default() }
    }

    /// The pod of a gang.
    fn pod(spec: Value) -> Attempt {
        let owner =
            json!({"kind": "BatchJob", "name": "a", "uid": "0A1b", "apiVersion": "x", "controller": true});
        let meta = json!({"namespace": "ns", "name": "a-0-0", "uid": "p", "resourceVersion": "1", "ownerReferences": [owner]});
        let view = serde_json::from_value(json!({"metadata": meta, "spec": spec})).unwrap();
        Attempt { view: Arc::new(view), index: 0, attempt: 0, ending: None }
    }

    /// The create of the group of a queue's gang.
    fn write(queue: &str) -> Write {
        let manifest = json!({"metadata": {"labels": {QUEUE_LABEL: queue}}});
        let (key, action) = (ObjectKey::new("ns", "a-0a1b2c3d"), Action::Create { manifest });
        Write { resource: POD_GROUP, key, class: WriteClass::Spec, action }
    }

    fn refused(code: u16, message: &str) -> Result<Done, WriteError> {
        let (reason, fields) = (String::new(), Vec::new());
        Err(WriteError::Refused(Refusal { code, reason, message: message.to_owned(), fields }))
    }

    fn made() -> Result<Done, WriteError> {
        Ok(Done::default())
    }

    /// What is known, and what of it concerns one job of queue q.
    #[derive(Default)]
    struct World {
        groups: PodGroups,
        facts: GroupFacts,
    }

    impl World {
        /// What a gang has to do with its group so many seconds after the epoch that has none yet.
        fn of(&self, queue: &str, second: i64) -> GroupUse {
            self.groups.use_of(&job(2), &asks(queue), &GroupFacts::default(), &[], at(second))
        }

        /// What came of the job's create.
        fn settle(&mut self, outcome: &Result<Done, WriteError>, second: i64) -> bool {
            self.groups.settle(&mut self.facts, &write("q"), outcome, at(second))
        }

        fn service(&self, queue: &str) -> Service {
            self.groups.service(&ObjectKey::new("ns", queue))
        }
    }

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    const UNKNOWN_KIND: &str = "the server could not find the requested resource";

    #[test]
    fn a_gang_has_a_group_where_its_queue_asks_for_it_and_the_cluster_takes_it() {
        let mut world = World::default();
        assert_eq!(world.of("q", 0), GroupUse::Make);
        let none = GroupFacts::default();
        let of =
            |job: &JobView, placement: &Placement| world.groups.use_of(job, placement, &none, &[], at(0));
        assert_eq!(of(&job(1), &asks("q")), GroupUse::None, "it is no gang");
        assert_eq!(of(&job(2), &Placement::default()), GroupUse::None, "nobody asks for it");
        assert!(world.settle(&refused(404, UNKNOWN_KIND), 0));
        for queue in ["q", "r"] {
            assert_eq!(world.of(queue, 599), GroupUse::None);
            assert_eq!(world.of(queue, 600), GroupUse::Make, "it is asked for again");
            assert_eq!(world.of(queue, -1), GroupUse::Make, "the clock was put back");
            assert_eq!(world.service(queue), Service::NotServed { message: UNKNOWN_KIND.to_owned() });
        }
        assert!(world.settle(&made(), 600));
        assert_eq!((world.of("q", 600), world.service("r")), (GroupUse::Make, Service::Served));
        let own = world.groups.use_of(&job(2), &asks("q"), &world.facts, &[], at(600));
        assert_eq!(own, GroupUse::There);
    }

    #[test]
    fn a_refusal_pauses_its_queue_alone_for_longer_each_time() {
        let mut world = World::default();
        let mut now = 0;
        for pause in [30, 60, 120, 240, 480, 600, 600] {
            assert_eq!(world.of("q", now), GroupUse::Make);
            // Two at once are refused for one reason.
            for _ in 0..2 {
                assert!(world.settle(&refused(403, "exceeded quota: groups"), now));
            }
            assert_eq!(world.of("q", now + pause - 1), GroupUse::None, "{pause}");
            assert_eq!(world.of("r", now), GroupUse::Make, "another queue goes on asking");
            assert_eq!(world.service("q"), Service::Refused { message: "exceeded quota: groups".to_owned() });
            assert_eq!(world.service("r"), Service::Unknown);
            now += pause;
        }
        assert!(world.settle(&made(), now));
        assert_eq!((world.service("q"), world.service("r")), (Service::Served, Service::Served));
        assert!(world.settle(&refused(403, "exceeded quota: groups"), now));
        assert_eq!(world.of("q", now + 30), GroupUse::Make, "it begins anew");
        world.groups.forget(&ObjectKey::new("ns", "q"));
        assert_eq!((world.of("q", now), world.service("q")), (GroupUse::Make, Service::Served));
    }

    #[test]
    fn an_invalid_group_pauses_its_job_alone_and_its_queue_tells() {
        let mut world = World::default();
        assert!(world.settle(&refused(422, "minCount: Invalid value"), 0));
        let of_job =
            |world: &World, second| world.groups.use_of(&job(2), &asks("q"), &world.facts, &[], at(second));
        assert_eq!((of_job(&world, 29), of_job(&world, 30)), (GroupUse::None, GroupUse::Make));
        assert_eq!(world.of("q", 0), GroupUse::Make, "another gang of the queue");
        assert_eq!(world.service("q"), Service::Refused { message: "minCount: Invalid value".to_owned() });
    }

    #[test]
    fn who_gets_no_answer_asks_three_times_and_goes_on_without() {
        let mut world = World::default();
        let lost = || Err(WriteError::Unknown("500 failed calling webhook".to_owned()));
        assert_eq!([1, 2, 3].map(|second| world.settle(&lost(), second)), [false, false, true]);
        assert_eq!((world.of("q", 4), world.of("r", 4)), (GroupUse::None, GroupUse::Make));
        let Service::Refused { message } = world.service("q") else { panic!("it is to be told") };
        assert!(message.contains("failed calling webhook"), "{message}");
    }

    #[test]
    fn a_gang_of_which_a_part_runs_without_a_group_gets_none() {
        let (world, facts) = (World::default(), GroupFacts::default());
        let of = |pods: &[Attempt]| world.groups.use_of(&job(2), &asks("q"), &facts, pods, at(0));
        let grouped = || pod(json!({"schedulingGroup": {"podGroupName": "a-0a1b2c3d"}}));
        assert_eq!(of(&[grouped()]), GroupUse::Make, "a new manager does not know of it yet");
        assert_eq!(of(&[grouped(), pod(json!({}))]), GroupUse::None);
        let ended = Attempt { ending: Some(Ending::Succeeded), ..pod(json!({})) };
        assert_eq!(of(&[ended]), GroupUse::Make);
    }

    #[test]
    fn each_incarnation_has_a_name_of_its_own() {
        let key = pod_group_key(&job(2));
        assert_eq!(&*key.name, format!("{}-0a1b2c3d", "a".repeat(52)));
        assert!(key.name.len() <= 63);
    }
}
