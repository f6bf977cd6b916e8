//! Which attempts could start now, and the demand that the admission is asked to meet.

use super::state::{Attempt, JobState, count};
use super::tally::Tally;
use crate::admission::{Demand, Interruptibility};
use crate::failure::backoff;
use crate::growth;
use crate::indexes::Retries;
use crate::memory::Facts;
use crate::profiles::explain::Expected;
use crate::projections::job::JobView;
use crate::projections::pod::PodView;
use crate::shape::Shape;
use jiff::{SignedDuration, Timestamp};
use springtide_plumbing::key::Uid;
use springtide_plumbing::projection::Projection;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

/// A pod that could start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Start {
    /// Which task.
    pub index: u32,
    /// Which attempt at it; 0 is the first.
    pub attempt: u32,
    /// By how many steps its memory is larger than that of the template.
    pub oom_steps: u32,
}

/// What a job could start.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Dispatch {
    /// In the order in which they start; no more than parallelism leaves room for. Their memory is alike, as the
    /// admission is asked for pods of one shape: those that need more come when no other task of the job can start, so
    /// that one which fits nowhere stops no other. Only the pods of a gang may differ.
    pub startable: Vec<Start>,
    /// The first index whose pause after a failure is not over, and when it will be.
    pub next_retry: Option<(u32, Timestamp)>,
    /// A pod of an earlier job of this name that holds an index; when it is gone the index can start.
    pub held_by: Option<Arc<str>>,
}

/// `everyone`: the pods of all incarnations of the job's name.
pub(super) fn of(
    job: &JobView,
    tally: &Tally,
    pods: &[Attempt],
    everyone: &[Arc<PodView>],
    facts: &Facts,
    now: Timestamp,
) -> Dispatch {
    let mut dispatch = Dispatch::default();
    // Half a gang is taken back: it comes again as a whole, when all of it is gone.
    if facts.gathering.is_some() && pods.iter().any(|pod| pod.is_live() && pod.view.meta().is_deleting()) {
        return dispatch;
    }
    let live = count(pods.iter().filter(|pod| pod.is_live()));
    let room = job.spec.parallelism.saturating_sub(live) as usize;
    let occupied = occupied(job.meta().uid.clone(), tally, pods, everyone);
    let is_gang = job.spec.min_parallelism > 1;
    let mut by_steps: BTreeMap<u32, Vec<Start>> = BTreeMap::new();
    for index in tally.indexes.open() {
        if by_steps.get(&0).is_some_and(|starts| starts.len() >= room) || room == 0 {
            break;
        }
        match occupied.get(&index) {
            Some(Occupant::Own) => continue,
            Some(Occupant::Earlier(pod)) => {
                dispatch.held_by.get_or_insert_with(|| Arc::clone(pod));
                continue;
            }
            None => {}
        }
        let Retries { failures: attempt, oom_steps } = tally.retries(index);
        match retry_time(job, index, attempt, facts, now).filter(|at| *at > now) {
            Some(at) if dispatch.next_retry.is_none_or(|(_, first)| at < first) => {
                dispatch.next_retry = Some((index, at));
            }
            Some(_) => {}
            None => {
                let oom_steps = growth::steps(job, oom_steps);
                // A gang is asked for as a whole, and charged as if each of its pods were as large as the largest.
                let group = by_steps.entry(if is_gang { 0 } else { oom_steps }).or_default();
                group.push(Start { index, attempt, oom_steps });
            }
        }
    }
    dispatch.startable = by_steps.into_values().next().unwrap_or_default();
    dispatch.startable.truncate(room);
    dispatch
}

enum Occupant {
    /// A pod of this job.
    Own,
    /// A pod of an earlier job of the same name.
    Earlier(Arc<str>),
}

/// Indexes that cannot start now: a pod of theirs may still run, or the name they need is not free yet.
fn occupied(uid: Uid, tally: &Tally, pods: &[Attempt], everyone: &[Arc<PodView>]) -> HashMap<u32, Occupant> {
    let own = pods
        .iter()
        .filter(|pod| pod.is_live() || pod.attempt == tally.failures(pod.index))
        .map(|pod| (pod.index, Occupant::Own));
    let earlier = everyone
        .iter()
        .filter(|pod| pod.job_owner().is_none_or(|owner| owner.uid != uid))
        .filter_map(|pod| Some((pod, pod.attempt()?)))
        .filter(|(pod, (index, attempt))| !pod.is_terminal() || *attempt == tally.failures(*index))
        .map(|(pod, (index, _))| (index, Occupant::Earlier(Arc::clone(&pod.meta().key.name))));
    earlier.chain(own).collect()
}

/// When an index may start again: the pause counts from the end of its last pod. An end that lies ahead was noted
/// before the clock was put back, and nobody knows how long ago it was: one pause too short does less harm than one
/// of hours.
fn retry_time(job: &JobView, index: u32, failures: u32, facts: &Facts, now: Timestamp) -> Option<Timestamp> {
    let setback = facts.setbacks.get(&index).copied().unwrap_or_default();
    let after = |at: Timestamp, pause: SignedDuration| (at <= now).then(|| at + pause);
    let after_failure = (failures > 0).then(|| {
        let seen = setback.failed.filter(|_| setback.failures == failures);
        let row =
            job.status.last_failures.iter().find(|row| (row.index, row.attempt + 1) == (index, failures));
        let recorded = row.and_then(|row| row.finish_time.as_ref()).map(|time| time.0);
        // Of a failure that nothing is left of, or whose node's clock is ahead: the full pause from the
        // start of this process.
        let at = seen.or(recorded.filter(|at| *at <= now)).unwrap_or(facts.since);
        after(at, backoff(&job.spec.retry, failures))
    });
    // One disruption is bad luck; what is disrupted again and again waits like what fails.
    let pause = backoff(&job.spec.retry, setback.disruptions.saturating_sub(1));
    let after_disruption = setback.disrupted.and_then(|at| after(at, pause));
    after_failure.flatten().max(after_disruption)
}

/// What the job asks of the admission: `None` when it has no pods and may start none.
pub fn demand(state: &JobState) -> Option<Demand> {
    let job = &state.job;
    let target = state.live() + count(state.dispatch.startable.iter());
    (target > 0).then(|| Demand {
        job: job.meta().key.clone(),
        uid: job.meta().uid.clone(),
        created: job.meta().creation_time,
        queue: state.placement.queue.clone().unwrap_or_default(),
        tier: state.placement.tier,
        priority: job.spec.priority,
        shape: shape(state),
        target,
        min_parallelism: job.spec.min_parallelism.min(target),
        interruption: Interruptibility {
            policy: job.spec.interruption.policy,
            grace_seconds: job.spec.interruption.grace_seconds,
            expected: Expected::of(&job.spec, &state.fitting)
                .map(|expected| SignedDuration::from_secs(expected.seconds().into())),
        },
    })
}

/// What the pods look like that could start: the largest of a gang.
fn shape(state: &JobState) -> Arc<Shape> {
    let job = &state.job;
    let oom_steps = state.dispatch.startable.iter().map(|start| start.oom_steps).max().unwrap_or(0);
    let on_oom = job.spec.retry.on_oom.as_ref().filter(|_| oom_steps > 0);
    if on_oom.is_none() {
        return Arc::clone(&state.shape);
    }
    let grown = job.template.larger(&state.fitting, on_oom, oom_steps);
    Arc::new(match &state.placement.mapping {
        Some(mapping) => Shape::of_mapped(&grown, mapping),
        None => Shape::of_template(&grown),
    })
}
