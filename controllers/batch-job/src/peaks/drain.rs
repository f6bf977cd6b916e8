//! Which pods to end by now, so that all are gone when the peak starts.
//!
//! A pod is ended as late as the deadline allows, so that as many tasks as possible end by themselves: the last
//! one at start - grace, each one before it `1 / drainPodsPerSecond` earlier, all of it earlier by a reserve for a
//! manager that is replaced meanwhile. Ranks are counted from the end, so that the schedule needs no memory:
//! what ended by itself moves all others closer to the start.

use super::{Ahead, Drain, PeakState};
use jiff::{SignedDuration, Timestamp};
use springtide_crds::batch_queue::DrainWillMissReason;
use springtide_crds::common::Tier;
use springtide_plumbing::clock::after;
use std::cmp::Reverse;

/// Most of the lead that is kept in reserve, one part in so many.
const RESERVE_PART: i32 = 10;
/// A manager that crashes is replaced, and its successor knows the cluster, within this time.
const MOST_RESERVE: SignedDuration = SignedDuration::from_secs(60);
/// In the lead, what is planned by so much later than it might have been is not late.
const TOLERANCE: SignedDuration = SignedDuration::from_secs(1);

/// A pod that has to go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DrainPod {
    /// Its tier.
    pub tier: Tier,
    /// When it was created.
    pub created: Timestamp,
    /// From SIGTERM to SIGKILL.
    pub grace_seconds: u32,
    /// Whether it has a node. One that has none has not begun, and is ended as soon as the lead begins.
    pub scheduled: bool,
    /// When its deletion was asked for.
    pub ended: Option<Timestamp>,
}

/// A pod to end now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ending {
    /// Its place in the list of pods.
    pub pod: usize,
    /// Its grace, cut to the time that is left; not to 0, with which the object would go before the containers do.
    pub grace_seconds: u32,
}

/// What to end now.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DrainPlan {
    /// In this order.
    pub end: Vec<Ending>,
    /// Pods that have to go and are still there, those that are ending included.
    pub left: u32,
    /// When the next one has to be ended.
    pub wake: Option<Timestamp>,
}

/// Which of the pods to end now. `pods` are all those of tiers with action Drain, and of the others those that
/// exceed what Degrade leaves; what belongs to a tier without a drain is passed over.
#[must_use]
pub fn plan(state: &PeakState, pods: &[DrainPod], now: Timestamp) -> DrainPlan {
    let mut plan = DrainPlan::default();
    let mut groups: Vec<(Drain, Vec<usize>)> = Vec::new();
    for (place, pod) in pods.iter().enumerate() {
        let Some(drain) = state.tier(pod.tier).drain else { continue };
        plan.left = plan.left.saturating_add(1);
        match groups.iter_mut().find(|(other, _)| *other == drain) {
            Some((_, group)) => group.push(place),
            None => groups.push((drain, vec![place])),
        }
    }
    for (drain, group) in groups {
        of_group(drain, &group, pods, now, &mut plan);
    }
    plan
}

fn of_group(drain: Drain, group: &[usize], pods: &[DrainPod], now: Timestamp, plan: &mut DrainPlan) {
    let staying = group.iter().copied().filter(|place| pods[*place].ended.is_none());
    let reserve = (drain.lead / RESERVE_PART).min(MOST_RESERVE);
    let times = schedule(drain, staying, pods, reserve, drain.pods_per_second);
    let second = now.as_second();
    let this_second = |place: &&usize| pods[**place].ended.is_some_and(|ended| ended.as_second() == second);
    let most = (drain.pods_per_second as usize).saturating_sub(group.iter().filter(this_second).count());
    let (due, later) = times.split_at(times.partition_point(|(at, _)| *at <= now));
    // What has not begun need not wait for its time; but it takes no turn from those whose time is near.
    let near = later.iter().filter(|(at, _)| at.as_second() == second).count();
    let idle = later.iter().filter(|(_, place)| !pods[*place].scheduled);
    let free = most.saturating_sub(due.len() + near);
    let taken: Vec<usize> =
        due.iter().take(most).chain(idle.clone().take(free)).map(|(_, place)| *place).collect();
    let wants_more = due.len() > most || idle.count() > free;
    let next_second = Timestamp::from_second(second + 1).ok().filter(|_| wants_more);
    let next_due = later.first().map(|(at, _)| *at);
    plan.wake = [plan.wake, next_second, next_due].into_iter().flatten().min();
    plan.end.extend(taken.into_iter().map(|pod| {
        let grace_seconds = grace(drain, pods[pod].grace_seconds, now);
        Ending { pod, grace_seconds }
    }));
}

/// How long the pod goes on after it was ended, in seconds.
fn needs(pod: &DrainPod) -> u32 {
    if pod.scheduled { pod.grace_seconds } else { 0 }
}

/// When each pod has to be ended at the latest, ascending. The longest grace goes first; of equal ones BestEffort
/// and of a tier the newest, which lose the least. Without a start all go at once, by tier.
fn schedule(
    drain: Drain,
    places: impl Iterator<Item = usize>,
    pods: &[DrainPod],
    reserve: SignedDuration,
    per_second: u32,
) -> Vec<(Timestamp, usize)> {
    let latest = |pod: &DrainPod| match drain.start {
        None => Timestamp::MIN,
        Some(start) => {
            let latest = after(after(start, -reserve), -SignedDuration::from_secs(needs(pod).into()));
            latest.max(after(start, -drain.lead))
        }
    };
    let mut times: Vec<(Timestamp, usize)> = places.map(|place| (latest(&pods[place]), place)).collect();
    times.sort_by_key(|(_, place)| {
        let pod = &pods[*place];
        let longest = drain.start.map(|_| Reverse(needs(pod)));
        (longest, pod.tier, pod.scheduled, Reverse(pod.created), *place)
    });
    let step = SignedDuration::from_nanos(i64::from(1_000_000_000_u32.div_ceil(per_second.max(1))));
    let mut next: Option<Timestamp> = None;
    for (at, _) in times.iter_mut().rev() {
        *at = next.map_or(*at, |next| after(next, -step).min(*at));
        next = Some(*at);
    }
    times
}

fn grace(drain: Drain, seconds: u32, now: Timestamp) -> u32 {
    match drain.start {
        None => seconds,
        Some(start) => {
            let left = start.duration_since(now).as_secs().max(1);
            seconds.min(u32::try_from(left).unwrap_or(u32::MAX))
        }
    }
}

/// Whether all pods will be gone when their peak starts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Forecast {
    /// Reason of condition DrainWillMiss.
    pub reason: DrainWillMissReason,
    /// Message of that condition.
    pub message: String,
}

/// Pods of a queue that have to go for one peak.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Load {
    /// When the first of them may be ended.
    pub first: Timestamp,
    /// When all must be gone.
    pub start: Timestamp,
    /// How many they are.
    pub pods: usize,
}

impl Load {
    fn of(ahead: &Ahead, pods: usize) -> Self {
        Self { first: after(ahead.start, -ahead.lead), start: ahead.start, pods }
    }

    /// Whether some of both are ended at the same time. What is late is ended now.
    #[must_use]
    pub fn overlaps(&self, other: &Self, now: Timestamp) -> bool {
        let end = |load: &Self| load.start.max(now);
        self.first <= end(other) && other.first <= end(self)
    }
}

/// What is to be deleted for the peaks of the next hour, and for those that are on. `pods` are all of the queue.
#[must_use]
pub fn loads(state: &PeakState, pods: &[DrainPod]) -> Vec<Load> {
    let loads = state.ahead.iter().map(|ahead| Load::of(ahead, leaving(ahead, pods).len()));
    loads.filter(|load| load.pods > 0).collect()
}

/// The pods that have to go for a peak, and whose deletion has still to be asked for.
fn leaving(ahead: &Ahead, pods: &[DrainPod]) -> Vec<DrainPod> {
    let has_to_go = |pod: &&DrainPod| pod.ended.is_none() && ahead.tiers.contains(&pod.tier);
    pods.iter().filter(has_to_go).copied().collect()
}

/// Foretells the drains of the next hour, and of those that are on. `pods` are all of the queue.
///
/// `deletes_per_second` is how many pods of a load may be deleted in a second: the queue's share of what the manager's
/// write budget allows at present, in the long run. Counted is one write for each pod, its deletion; what a job writes
/// of pods that are gone (their finalizers, its status) comes on top, and is not foretold.
#[must_use]
pub fn forecast(
    state: &PeakState,
    pods: &[DrainPod],
    deletes_per_second: impl Fn(&Load) -> u32,
    now: Timestamp,
) -> Forecast {
    let missed = state.ahead.iter().find_map(|ahead| miss(ahead, pods, &deletes_per_second, now));
    missed.unwrap_or_else(|| Forecast {
        reason: DrainWillMissReason::OnTime,
        message: match state.ahead.first() {
            Some(ahead) if ahead.start > now => {
                format!("the pods that have to go before peak {} will be gone at {}", ahead.name, ahead.start)
            }
            Some(_) | None => "no pod has to go that will not be gone in time".to_owned(),
        },
    })
}

fn miss(
    ahead: &Ahead,
    pods: &[DrainPod],
    deletes_per_second: impl Fn(&Load) -> u32,
    now: Timestamp,
) -> Option<Forecast> {
    let leaving = leaving(ahead, pods);
    let longest = leaving.iter().map(needs).max()?;
    let (name, count, rate) = (&ahead.name, leaving.len(), ahead.pods_per_second);
    let lead = ahead.lead.as_secs();
    if i64::from(longest) > lead {
        let message = format!(
            "peak {name}: a grace of {longest} s is cut, as leadSeconds is {lead}; raise leadSeconds"
        );
        return Some(Forecast { reason: DrainWillMissReason::GraceTooLong, message });
    }
    let drain = Drain { start: Some(ahead.start), lead: ahead.lead, pods_per_second: rate };
    let first = after(ahead.start, -ahead.lead);
    let soonest = if now < first { first } else { after(now, -TOLERANCE) };
    let misses = |per_second: u32| {
        let times = schedule(drain, 0..count, &leaving, SignedDuration::ZERO, per_second);
        times.first().is_some_and(|(at, _)| *at < soonest)
    };
    if misses(rate) {
        let message = format!(
            "peak {name}: {count} pods are too many for drainPodsPerSecond {rate} and leadSeconds {lead}; raise one"
        );
        return Some(Forecast { reason: DrainWillMissReason::RateTooLow, message });
    }
    let share = deletes_per_second(&Load::of(ahead, count));
    if misses(share) {
        let message = format!(
            "peak {name}: {count} pods are too many for {share} writes a second, their share of the budget; raise it \
             or leadSeconds"
        );
        return Some(Forecast { reason: DrainWillMissReason::BudgetTooSmall, message });
    }
    None
}
