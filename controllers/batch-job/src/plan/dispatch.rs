//! Which attempts could start now, and the demand that the admission is asked to meet.

use super::state::{Attempt, JobState, count};
use super::tally::Tally;
use crate::admission::Demand;
use crate::failure::backoff;
use crate::memory::Facts;
use crate::projections::job::JobView;
use crate::projections::pod::PodView;
use jiff::Timestamp;
use springtide_plumbing::key::Uid;
use springtide_plumbing::projection::Projection;
use std::collections::HashMap;
use std::sync::Arc;

/// What a job could start.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Dispatch {
    /// Index and attempt, in the order in which they start; no more than parallelism leaves room for.
    pub startable: Vec<(u32, u32)>,
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
    for index in tally.indexes.open() {
        if dispatch.startable.len() == room {
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
        let attempt = tally.failures(index);
        match retry_time(job, index, attempt, facts, now).filter(|at| *at > now) {
            Some(at) if dispatch.next_retry.is_none_or(|(_, first)| at < first) => {
                dispatch.next_retry = Some((index, at));
            }
            Some(_) => {}
            None => dispatch.startable.push((index, attempt)),
        }
    }
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

/// When an index may start again: the pause counts from the end of its last pod.
fn retry_time(job: &JobView, index: u32, failures: u32, facts: &Facts, now: Timestamp) -> Option<Timestamp> {
    let setback = facts.setbacks.get(&index).copied().unwrap_or_default();
    let after_failure = (failures > 0).then(|| {
        let seen = setback.failed.filter(|_| setback.failures == failures);
        let row =
            job.status.last_failures.iter().find(|row| (row.index, row.attempt + 1) == (index, failures));
        let recorded = row.and_then(|row| row.finish_time.as_ref()).map(|time| time.0);
        // Of a failure that nothing is left of, or whose node's clock is ahead: the full pause from the
        // start of this process.
        let at = seen.or(recorded.filter(|at| *at <= now)).unwrap_or(facts.since);
        at + backoff(&job.spec.retry, failures)
    });
    // One disruption is bad luck; what is disrupted again and again waits like what fails.
    let pause = backoff(&job.spec.retry, setback.disruptions.saturating_sub(1));
    let after_disruption = setback.disrupted.map(|at| at + pause);
    after_failure.max(after_disruption)
}

/// What the job asks of the admission: `None` when it has no pods and may start none.
pub fn demand(state: &JobState) -> Option<Demand> {
    let job = &state.job;
    let target = state.live() + count(state.dispatch.startable.iter());
    (target > 0).then(|| Demand {
        job: job.meta().key.clone(),
        uid: job.meta().uid.clone(),
        created: job.meta().creation_time,
        priority: job.spec.priority,
        shape: Arc::clone(state.shape()),
        target,
        min_parallelism: job.spec.min_parallelism.min(target),
    })
}
