//! Where one pod stands in a run, and what is written next.
//!
//! It is derived from the API alone, so that a new leader goes on where the last one stopped. A state depends on the pod
//! itself, on who sends traffic to it, and on the run; never on other pods.

mod failure;
mod restart_count;
mod settling;

pub use failure::Failure;

use crate::restarts::is_of_main;
use crate::verdict::{Judgement, Verdict};
use jiff::{SignedDuration, Timestamp};
use springtide_crds::in_place_upgrade::InPlaceUpgradeSpec;
use springtide_plumbing::clock::after;
use springtide_plumbing::done_rule::{DoneVerdict, NotYet, Record};
use springtide_plumbing::first_seen::Sighting;
use springtide_plumbing::projection::Projection;
use springtide_plumbing::traffic::{DrainRule, DrainVerdict, Draining, Exposure, Lever, Traffic};
use springtide_plumbing::workloads::pod::{PodView, container_now};
use std::collections::BTreeMap;
use std::sync::Arc;

/// What the spec says about one pod's way.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    /// How it is drained.
    pub drain: DrainRule,
    /// For how long it has to be ready to count as available.
    pub min_ready: SignedDuration,
    /// How long a resize may wait or take.
    pub resize_timeout: SignedDuration,
    /// How long it may take from its patch to being available.
    pub pod_deadline: SignedDuration,
    /// Restarts that a changed container may have beyond the upgrade's own.
    pub max_restarts: u32,
}

impl Pace {
    /// What a spec says, for a workload with this `minReadySeconds` of its own.
    pub fn of(spec: &InPlaceUpgradeSpec, min_ready_seconds: u32) -> Self {
        let strategy = &spec.strategy;
        let seconds = |seconds: u32| SignedDuration::from_secs(seconds.into());
        Self {
            drain: DrainRule::from(&spec.traffic.drain),
            min_ready: seconds(strategy.min_ready_seconds.max(min_ready_seconds)),
            resize_timeout: seconds(strategy.resize_timeout_seconds),
            pod_deadline: seconds(strategy.pod_deadline_seconds),
            max_restarts: spec.health.max_restarts,
        }
    }
}

/// What is known of one pod that the pod itself does not say. Instants are this process's; losing them only lengthens
/// a wait.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Evidence {
    /// Who sends traffic to it.
    pub exposure: Exposure,
    /// Since when its drain has been proved.
    pub proved_since: Option<Timestamp>,
    /// Since when its containers have been candidates of the done rule, by name.
    pub candidates: BTreeMap<Arc<str>, Sighting>,
    /// Since when a resize of it has been open.
    pub resizing_since: Option<Timestamp>,
    /// Until when it is not tried again, as its drain was given up, or its eviction was refused.
    pub put_off_until: Option<Timestamp>,
}

/// Where a pod stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PodState {
    /// It differs, and nothing has begun.
    Old,
    /// Its resize is under way.
    Resizing,
    /// It leaves traffic.
    Draining {
        /// Services that still list it.
        waits_for: Vec<Arc<str>>,
    },
    /// It is out of traffic, and nothing has been changed that restarts it.
    Drained,
    /// It does not leave traffic, and is to be tried later.
    NotDrained {
        /// Services that still list it.
        waits_for: Vec<Arc<str>>,
    },
    /// It is changed, and its containers are not ready for long enough.
    Patched,
    /// Its containers are ready for long enough, and it is out of traffic still.
    Started,
    /// It is as it is wished, and available.
    Updated,
    /// It is as it is wished, but not available; this run has not made it so.
    Unavailable,
    /// Its controller is about to make it anew, or has just made it as it is wished, and it is not available yet.
    Renewed,
    /// Something has gone wrong.
    Failed(Failure),
    /// It cannot be changed.
    Ineligible,
}

impl PodState {
    /// Whether it has been started and is not where it is to be.
    pub fn is_in_flight(&self) -> bool {
        match self {
            Self::Resizing
            | Self::Draining { .. }
            | Self::Drained
            | Self::Patched
            | Self::Started
            | Self::Renewed => true,
            Self::Old
            | Self::NotDrained { .. }
            | Self::Updated
            | Self::Unavailable
            | Self::Failed(_)
            | Self::Ineligible => false,
        }
    }
}

/// A state and when time alone may change it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stand {
    /// The state.
    pub state: PodState,
    /// When to look again though nothing happens.
    pub wake: Option<Timestamp>,
}

impl Stand {
    fn at(state: PodState) -> Self {
        Self { state, wake: None }
    }

    fn until(state: PodState, wake: Timestamp) -> Self {
        Self { state, wake: Some(wake) }
    }
}

/// Where a pod stands in the run of this name.
pub fn stand(
    pod: &PodView,
    judgement: &Judgement,
    run: &str,
    pace: &Pace,
    evidence: &Evidence,
    now: Timestamp,
) -> Stand {
    match judgement.verdict {
        Verdict::Blocked(_) => return Stand::at(PodState::Ineligible),
        Verdict::Recreate => return old(evidence, now),
        Verdict::UpToDate
        | Verdict::Metadata
        | Verdict::Resize
        | Verdict::InPlace
        | Verdict::Restart
        | Verdict::NextRestart => {}
    }
    let differences = &judgement.differences;
    if differences.is_resize_open && differences.amounts.is_empty() {
        return resizing(pod, pace, evidence, now);
    }
    if !differences.is_content_equal() {
        return changing(pod, judgement, run, pace, evidence, now);
    }
    settling::settling(pod, judgement, run, pace, evidence, now)
}

/// The spec asks for the wished amounts, and the kubelet has yet to put them in force.
fn resizing(pod: &PodView, pace: &Pace, evidence: &Evidence, now: Timestamp) -> Stand {
    let pending = pod.resize_pending.as_ref();
    if let Some(pending) = pending.filter(|pending| pending.is_infeasible) {
        let since = pending.since.unwrap_or(now);
        return Stand::at(PodState::Failed(Failure::ResizeInfeasible {
            since,
            message: pending.message.clone(),
        }));
    }
    let of_node = pending.map(|pending| pending.since);
    let of_node = of_node.or(pod.resize_in_progress.as_ref().map(|progress| progress.since)).flatten();
    // The node's clock may be ahead.
    let since = of_node.or(evidence.resizing_since).map_or(now, |since| since.min(now));
    let end = after(since, pace.resize_timeout);
    if now < end {
        return Stand::until(PodState::Resizing, end);
    }
    let error = pod.resize_in_progress.as_ref().and_then(|progress| progress.error.clone());
    let message = error.or_else(|| pending.map(|pending| pending.message.clone())).unwrap_or_default();
    Stand::at(PodState::Failed(Failure::ResizeTimedOut {
        since: end,
        is_deferred: pending.is_some(),
        message,
    }))
}

/// Something is still to be written.
fn changing(
    pod: &PodView,
    judgement: &Judgement,
    run: &str,
    pace: &Pace,
    evidence: &Evidence,
    now: Timestamp,
) -> Stand {
    // Its patch was made by this run and is not what stands there: somebody else has a say in it, and would go on.
    let is_overridden = |record: &Record| {
        pod.meta().generation > record.generation
            && judgement.differences.images.iter().any(|name| record.base.contains_key(name))
    };
    if let Some(record) = pod.trace.of_run(run).filter(|record| is_overridden(record)) {
        return Stand::at(PodState::Failed(Failure::Overridden { since: record.at }));
    }
    if let Some(until) = undone_until(pod, judgement, pace, now) {
        return Stand::until(PodState::Patched, until);
    }
    let off_since = match judgement.lever.map(|lever| pod.signals.traffic(lever)) {
        Some(Traffic::Off { run: Some(by), since }) if *by == *run => since,
        Some(Traffic::Off { .. } | Traffic::On | Traffic::Unset) | None => return old(evidence, now),
    };
    match draining(pod, judgement, evidence, off_since).verdict(&pace.drain, now) {
        DrainVerdict::Drained => Stand::at(PodState::Drained),
        DrainVerdict::Draining { wake, waits_for } => Stand::until(PodState::Draining { waits_for }, wake),
        DrainVerdict::TimedOut { is_failure: false, waits_for } => {
            Stand::at(PodState::NotDrained { waits_for })
        }
        DrainVerdict::TimedOut { is_failure: true, waits_for } => {
            let since = off_since.map_or(now, |since| after(since, pace.drain.timeout));
            Stand::at(PodState::Failed(Failure::DrainTimedOut { since, waits_for }))
        }
    }
}

/// Nothing has begun, or it was given up for a while.
fn old(evidence: &Evidence, now: Timestamp) -> Stand {
    match evidence.put_off_until.filter(|until| *until > now) {
        Some(until) => Stand::until(PodState::Old, until),
        None => Stand::at(PodState::Old),
    }
}

/// Where a pod stands that was born as it is wished in the place of one that could not become so: its controller is to
/// have it available within the deadline, as if we had changed it.
pub fn renewed(pod: &PodView, stand: Stand, pace: &Pace, now: Timestamp) -> Stand {
    if stand.state != PodState::Unavailable {
        return stand;
    }
    let deadline = after(pod.meta().creation_time, pace.pod_deadline.saturating_add(pace.min_ready));
    if now >= deadline {
        return Stand::at(PodState::Failed(Failure::DeadlineExceeded { since: deadline }));
    }
    Stand::until(PodState::Renewed, stand.wake.map_or(deadline, |wake| wake.min(deadline)))
}

/// Until when a patch of another run is waited for that the kubelet has not carried out yet.
///
/// A kubelet that sees two patches at once, the second of which takes the first one back, restarts nothing, and nobody
/// could tell whether the second is done.
fn undone_until(pod: &PodView, judgement: &Judgement, pace: &Pace, now: Timestamp) -> Option<Timestamp> {
    let record = pod.trace.record()?;
    let until = after(record.at, pace.pod_deadline);
    let is_undone = judgement.differences.restarting().any(|name| is_undone(pod, record, name, now));
    (is_undone && now < until).then_some(until)
}

/// Whether the kubelet has yet to stop a container whose image a patch has changed.
fn is_undone(pod: &PodView, record: &Record, name: &str, now: Timestamp) -> bool {
    let Some(container) = pod.container(name).filter(|_| record.base.contains_key(name)) else {
        return false;
    };
    match record.judge(name, &container_now(pod, container), SignedDuration::ZERO, None, now) {
        DoneVerdict::NotYet { reason: NotYet::NotObserved | NotYet::OldContainer, .. } => true,
        DoneVerdict::NotYet { reason: NotYet::NotRunning | NotYet::SameImage, .. } | DoneVerdict::Done => {
            false
        }
    }
}

/// Whether a container of a pod that may be ready is about to be stopped, as its spec asks for it: its kubelet has yet to
/// see the image that we have written, or to put a resize in force that restarts it. Until then, and for as long as the
/// container takes to end, the pod says that it is ready.
pub fn is_about_to_stop(pod: &PodView, now: Timestamp) -> bool {
    let is_patched = pod
        .trace
        .record()
        .is_some_and(|record| record.base.keys().any(|name| is_undone(pod, record, name, now)));
    // One that waits for room on its node stops nothing.
    is_patched || (pod.resize_pending.is_none() && has_resize_that_restarts(pod))
}

/// Whether a resize that restarts a container has been asked for and is not in force.
fn has_resize_that_restarts(pod: &PodView) -> bool {
    pod.containers.iter().filter(|container| is_of_main(container.role)).any(|container| {
        let in_force = container.status.as_ref().and_then(|status| status.amounts);
        let (cpu, memory) = in_force.map_or((false, false), |amounts| amounts.changes_to(&container.amounts));
        (cpu && container.cpu_restarts) || (memory && container.memory_restarts)
    })
}

/// Whether a pod is about to be out of service where it stands, though it may be ready: what limits count is what has been
/// begun, not what its kubelet has come to see of it.
pub fn is_going(pod: &PodView, state: &PodState, now: Timestamp) -> bool {
    match state {
        PodState::Patched | PodState::Renewed => true,
        PodState::Resizing => has_resize_that_restarts(pod),
        PodState::Old
        | PodState::Draining { .. }
        | PodState::Drained
        | PodState::NotDrained { .. }
        | PodState::Started
        | PodState::Updated
        | PodState::Unavailable
        | PodState::Failed(_)
        | PodState::Ineligible => is_about_to_stop(pod, now),
    }
}

/// What is known of a pod that is out of traffic.
pub fn draining<'a>(
    pod: &PodView,
    judgement: &Judgement,
    evidence: &'a Evidence,
    off_since: Option<Timestamp>,
) -> Draining<'a> {
    let is_still_ready = judgement.lever == Some(Lever::ReadinessGate) && pod.is_ready();
    Draining { off_since, is_still_ready, exposure: &evidence.exposure, proved_since: evidence.proved_since }
}

/// Whether a lever keeps traffic from a pod.
pub(crate) fn is_off(pod: &PodView, lever: Option<Lever>) -> bool {
    lever.is_some_and(|lever| match pod.signals.traffic(lever) {
        Traffic::Off { .. } => true,
        // A gate that nobody has set keeps traffic away, a label that is not there is no lever.
        Traffic::Unset => lever == Lever::ReadinessGate,
        Traffic::On => false,
    })
}

/// Whether a pod counts as available: its containers are ready for `min_ready`, and it is in traffic as far as we have
/// a say. Gates of others are not judged; without any, its kubelet has to say so too, which follows our gate a moment
/// later.
pub fn is_available(pod: &PodView, lever: Option<Lever>, min_ready: SignedDuration, now: Timestamp) -> bool {
    let ready = pod.containers_ready.filter(|condition| condition.holds);
    pod.is_live()
        && !is_off(pod, lever)
        && (pod.is_ready() || pod.traits.has_foreign_gates)
        && ready.is_some_and(|condition| {
            after(condition.since.map_or(now, |since| since.min(now)), min_ready) <= now
        })
}

/// Until when a pod that its kubelet is about to start is left alone; `None` for any other.
///
/// A patch that meets its start would have a container end that has just come into traffic. One that cannot start, or does
/// not within the deadline, is changed all the same.
pub fn about_to_start(pod: &PodView, pace: &Pace, now: Timestamp) -> Option<Timestamp> {
    let created = pod.meta().creation_time;
    let until = after(created, pace.pod_deadline);
    let is_lasting =
        |container| failure::of_container(container, created).is_some_and(|found| !found.may_pass);
    let cannot = || pod.containers.iter().any(is_lasting);
    let is_starting = pod.node.is_some() && pod.has_not_started() && now < until && !cannot();
    is_starting.then_some(until)
}

/// What is written to a pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum PodWrite {
    /// W0: cpu and memory.
    Resize,
    /// W1: traffic is turned off.
    TrafficOff,
    /// W2: images, metadata, revision, record.
    Patch,
    /// W3: traffic is turned on.
    TrafficOn,
    /// It is evicted, so that its controller makes it anew.
    Evict,
}

/// What a pod may do now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Leave {
    /// It may start.
    Start,
    /// It may go on, if it has started.
    GoOn,
    /// It comes to rest: traffic back if it is unpatched, finished if it is patched.
    Rest,
}

/// What is written to a pod next; `None` where something is waited for, or nothing is left.
pub fn next_write(pod: &PodView, judgement: &Judgement, state: &PodState, leave: Leave) -> Option<PodWrite> {
    let differences = &judgement.differences;
    let is_off = is_off(pod, judgement.lever);
    let traffic_back = is_off.then_some(PodWrite::TrafficOn);
    let change = || {
        let write = if differences.amounts.is_empty() { PodWrite::Patch } else { PodWrite::Resize };
        Some(write)
    };
    match state {
        PodState::Old => match leave {
            Leave::Start if judgement.verdict == Verdict::Recreate => Some(PodWrite::Evict),
            Leave::Start => {
                let resizes_first = !differences.amounts.is_empty() && !differences.resize_restarts;
                let drains = judgement.verdict.restarts()
                    && judgement.lever.is_some()
                    && !resizes_first
                    && !pod.has_not_started();
                if drains { Some(PodWrite::TrafficOff) } else { change() }
            }
            // Whoever turned it off goes on no more.
            Leave::GoOn | Leave::Rest => traffic_back,
        },
        PodState::Drained => match leave {
            Leave::Start | Leave::GoOn => change(),
            Leave::Rest => traffic_back,
        },
        PodState::Draining { .. } => match leave {
            Leave::Start | Leave::GoOn => None,
            Leave::Rest => traffic_back,
        },
        PodState::NotDrained { .. } | PodState::Started | PodState::Ineligible => traffic_back,
        PodState::Failed(failure) => traffic_back.filter(|_| failure.leaves_pod_as_it_was()),
        PodState::Unavailable
        | PodState::Resizing
        | PodState::Patched
        | PodState::Updated
        | PodState::Renewed => None,
    }
}

#[cfg(test)]
mod tests;
