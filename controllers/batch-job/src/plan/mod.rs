//! Every decision about a BatchJob, as a pure function of what was observed and the time.

mod course;
mod dispatch;
mod events;
mod interrupt;
mod pace;
mod release;
mod retention;
mod state;
mod success;
mod tally;

pub use course::{Course, Stop, Success};
pub use dispatch::{Dispatch, Start, demand};
pub use retention::{Stay, stay};
pub use state::{Attempt, Conflict, JobState, Settings};
pub use tally::{Fatal, Tally};

pub(crate) use course::{active_deadline, queue_deadline, seconds_stopped};
pub(crate) use pace::awaits_turn;
use state::count;
pub(crate) use state::stored_indexes;

use crate::archive::Standing;
use crate::observe::Observed;
use crate::pod_groups::{self, GroupUse};
use crate::pods::PodFactory;
use crate::profiles::explain;
use crate::projections::job::{BATCH_JOB, JobView};
use crate::status;
use jiff::{SignedDuration, Timestamp};
use pace::Due;
use serde_json::Value;
use sha2::{Digest, Sha256};
use springtide_crds::batch_job::BatchJobStatus;
use springtide_crds::reason::Reason;
use springtide_plumbing::failing::{Failing, Telling};
use springtide_plumbing::key::Uid;
use springtide_plumbing::plan::{Action, MAX_WRITES, Outcome, Plan, Step, Why, Write, WriteClass};
use springtide_plumbing::projection::Projection;

/// What has to be written for one job name now, and when to look again.
pub fn plan(observed: &Observed, now: Timestamp) -> Plan {
    let wake = observed.orphans_until.into_iter().chain(observed.next_pass).min();
    let mut draft = Draft { wake, ..Draft::default() };
    for pod in &observed.orphans {
        match observed.state.as_ref().and_then(|state| state.unreleased_until(pod, now)) {
            Some(until) => draft.wake_at(until),
            None => release::release_finalizer(pod, &mut draft),
        }
    }
    match &observed.state {
        Some(state) => of_job(observed, state, draft, now),
        None => draft.into_plan(None, Outcome::Converged, Vec::new()),
    }
}

fn of_job(observed: &Observed, state: &JobState, mut draft: Draft, now: Timestamp) -> Plan {
    if state.course == Course::Deleting {
        // Nobody will count these any more, and the job would wait for them.
        for pod in &state.pods {
            match state.unreleased_until(&pod.view, now) {
                Some(until) => draft.wake_at(until),
                None => release::release_finalizer(&pod.view, &mut draft),
            }
        }
        return draft.into_plan(None, Outcome::Waiting, Vec::new());
    }
    let outlook = status::outlook(state, observed.verdict.as_ref(), now);
    let mut why = vec![Why { reason: outlook.summary.as_str(), message: outlook.message.clone() }];
    why.extend(explain::job(&state.job.spec, &state.fitting));
    let outcome = outcome(state);
    let held = release::ended_pods(state, &mut draft, now);
    deadlines(observed, state, &mut draft, now);
    let due = pace::due(state, &outlook, observed.unfinished_jobs, now);
    // Alone: a write that is refused would keep the status from being written, and what it says from
    // being counted. What there is to release, end and create is planned as soon as it stands.
    if let Due::Now(class) = due {
        let write = status_write(&state.job, &outlook.status, class);
        let plan = Draft { wake: draft.wake, ..Draft::default() }.into_plan(Some(write), outcome, why);
        return Plan { events: events::notes(&state.job, &outlook.status), ..plan };
    }
    let reclaim = observed.verdict.as_ref().and_then(|verdict| verdict.reclaim.as_ref());
    interrupt::live_pods(state, reclaim, &mut draft, now);
    match &state.course {
        Course::Open => create(observed, state, &mut draft),
        Course::Finished => retire(observed, state, held, &mut draft, now),
        Course::Deleting
        | Course::Failing { .. }
        | Course::Completing(_)
        | Course::Stopped(_)
        | Course::Stuck { .. } => {}
    }
    let status = match due {
        Due::WhenQuiet(class) if draft.is_quiet() => Some(status_write(&state.job, &outlook.status, class)),
        Due::At(at) => {
            draft.wake_at(at);
            None
        }
        Due::Now(_) | Due::WhenQuiet(_) | Due::Never => None,
    };
    let events = status.as_ref().map(|_| events::notes(&state.job, &outlook.status)).unwrap_or_default();
    Plan { events, ..draft.into_plan(status, outcome, why) }
}

/// Creates what is granted, in the order of the indexes.
fn create(observed: &Observed, state: &JobState, draft: &mut Draft) {
    let (granted, unfit) =
        observed.verdict.as_ref().map_or((0, 0), |verdict| (verdict.granted, verdict.unfit));
    // Of a job without any pod yet one is made first: a template that the server refuses costs one call.
    let most = if state.has_started() || state.facts.created { u32::MAX } else { 1 };
    let free = granted.saturating_sub(state.live());
    let fitting = free.saturating_sub(unfit) as usize;
    let free = free.min(most) as usize;
    let starting = &state.dispatch.startable[..free.min(state.dispatch.startable.len())];
    if starting.is_empty() {
        return;
    }
    let mut factory =
        PodFactory::new(&state.job, &state.placement, &state.fitting, &state.tally.last_failures);
    // The scheduler waits until so many pods of a group are there: what is left of a gang would wait for ever.
    let whole = granted.min(state.live() + count(state.dispatch.startable.iter()));
    match state.group {
        GroupUse::Make | GroupUse::There if whole < state.job.spec.min_parallelism => {}
        GroupUse::Make => {
            draft.group(pod_groups::create(state, factory.priority_class()));
            factory = factory.in_group();
        }
        GroupUse::There => factory = factory.in_group(),
        GroupUse::None => {}
    }
    for (number, start) in starting.iter().enumerate() {
        let create = || if number < fitting { factory.create(start) } else { factory.create_unfit(start) };
        if !draft.create(create) {
            break;
        }
    }
}

/// Deletes a finished job whose time is over, once its pods are gone that are not kept for ever.
fn retire(observed: &Observed, state: &JobState, held: bool, draft: &mut Draft, now: Timestamp) {
    let job = &state.job;
    match stay(state, observed.exceeds_history, now) {
        None => return,
        Some(Stay::Until(over)) => {
            draft.wake_at(over);
            return;
        }
        Some(Stay::Over) => {}
    }
    // Their own events, or the end of their hold, bring the next pass.
    if !observed.exceeds_history && (held || !draft.stages_are_empty()) {
        return;
    }
    match observed.archive {
        Standing::Clear => {}
        // Whoever takes its line brings the next pass.
        Standing::Waiting => return,
    }
    draft.create(|| Write {
        resource: BATCH_JOB,
        key: job.meta().key.clone(),
        class: WriteClass::Low,
        action: Action::Delete {
            uid: job.meta().uid.clone(),
            resource_version: Some(job.meta().resource_version),
            grace_seconds: None,
        },
    });
}

/// The points in time at which something is decided without an event.
fn deadlines(observed: &Observed, state: &JobState, draft: &mut Draft, now: Timestamp) {
    let job = &state.job;
    if state.course.is_ending() || state.course == Course::Finished {
        return;
    }
    let retry = state.dispatch.next_retry.map(|(_, at)| at);
    let class = observed.verdict.as_ref().and_then(|verdict| verdict.wake_at);
    let active = course::active_deadline(job, &state.tally);
    let queue = course::queue_deadline(job, &state.pods, &state.tally, now);
    let verdict = observed.verdict.as_ref().and_then(|verdict| verdict.waiting.as_ref());
    let stalled =
        verdict.filter(|waiting| status::stalls_later(waiting.reason)).map(|_| status::stalling_time(state));
    // What is past has been decided in this very pass.
    for at in [retry, class, active, queue, stalled].into_iter().flatten().filter(|at| *at > now) {
        draft.wake_at(at);
    }
}

/// How users are told at what the writes of a job fail. A job that has ended, or is to go, keeps its word: an
/// event tells.
pub(crate) fn tell(job: &JobView, runs: bool, failing: &Failing, now: Timestamp) -> Option<Telling> {
    let meta = job.meta();
    let event = failing.note(BATCH_JOB, meta.key.clone(), meta.uid.clone())?;
    let status = (!meta.is_deleting() && !job.is_finished())
        .then(|| status::of_failing(job, runs, failing, now))
        .flatten()
        .map(|status| status_write(job, &status, WriteClass::Status));
    Some(Telling { event, status })
}

fn outcome(state: &JobState) -> Outcome {
    let working = if state.live() > 0 { Outcome::Progressing } else { Outcome::Waiting };
    match &state.course {
        Course::Finished => Outcome::Converged,
        Course::Stuck { .. } => Outcome::Blocked,
        Course::Failing { .. } | Course::Completing(_) => Outcome::Progressing,
        Course::Deleting | Course::Stopped(_) => working,
        Course::Open if !state.conflicts.is_empty() => Outcome::Blocked,
        Course::Open => working,
    }
}

fn status_write(job: &JobView, status: &BatchJobStatus, class: WriteClass) -> Write {
    // A struct of strings, numbers and lists cannot fail to be JSON.
    let json = |status: &BatchJobStatus| serde_json::to_value(status).unwrap_or(Value::Null);
    Write {
        resource: BATCH_JOB,
        key: job.meta().key.clone(),
        class,
        action: Action::Status {
            uid: job.meta().uid.clone(),
            resource_version: job.meta().resource_version,
            status: json(status),
            stored: json(&job.status.whole()),
        },
    }
}

/// A moment below `seconds` that is each object's own, so that many do not act together. It is the same
/// in every process.
fn spread(uid: &Uid, seconds: usize) -> SignedDuration {
    let digest = Sha256::digest(uid.0.as_bytes());
    let moment = usize::from(u16::from_be_bytes([digest[0], digest[1]])) % seconds.max(1);
    SignedDuration::from_secs(i64::try_from(moment).unwrap_or(0))
}

/// A plan in the making: what gives back goes first, then what ends pods, then what creates.
#[derive(Debug, Default)]
pub(super) struct Draft {
    protecting: Vec<Write>,
    ending: Vec<Write>,
    grouping: Vec<Write>,
    creating: Vec<Write>,
    wake: Option<Timestamp>,
}

impl Draft {
    pub(super) fn protect(&mut self, write: Write) {
        if self.has_room() {
            self.protecting.push(write);
        }
    }

    pub(super) fn end(&mut self, write: Write) {
        if self.has_room() {
            self.ending.push(write);
        }
    }

    /// Comes before all that is created: a pod of a group that cannot be made is made without it.
    fn group(&mut self, write: Write) {
        if self.has_room() {
            self.grouping.push(write);
        }
    }

    /// Whether there was room for it.
    fn create(&mut self, write: impl FnOnce() -> Write) -> bool {
        let room = self.has_room();
        if room {
            self.creating.push(write());
        }
        room
    }

    /// What has no room is planned again after the events of these writes; one place is for the status.
    fn has_room(&self) -> bool {
        self.protecting.len() + self.ending.len() + self.grouping.len() + self.creating.len() < MAX_WRITES - 1
    }

    /// Whether nothing is created or ended.
    fn is_quiet(&self) -> bool {
        self.ending.is_empty() && self.creating.is_empty()
    }

    fn stages_are_empty(&self) -> bool {
        self.protecting.is_empty() && self.ending.is_empty() && self.creating.is_empty()
    }

    pub(super) fn wake_at(&mut self, at: Timestamp) {
        self.wake = Some(self.wake.map_or(at, |earlier| earlier.min(at)));
    }

    fn into_plan(self, status: Option<Write>, outcome: Outcome, why: Vec<Why>) -> Plan {
        let stages = [self.protecting, self.ending, self.grouping, self.creating];
        let stages = stages.into_iter().filter(|stage| !stage.is_empty());
        let stages = stages.map(|stage| stage.into_iter().map(Step::from).collect()).collect();
        Plan { stages, status, wake: self.wake, outcome, why, events: Vec::new() }
    }
}
