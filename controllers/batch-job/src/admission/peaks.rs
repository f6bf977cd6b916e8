//! Peak windows in the admission: who has to go by now, and who may not start.
//!
//! What the windows of a queue mean is asked anew whenever that may have changed (see [`crate::peaks`]), so that it
//! follows from the spec and the time alone. Jobs are told how many of their pods have to go, not which: within a
//! job the order of a drain is that in which a job gives pods back anyway.

use super::claims::Claim;
use super::class::{ClassKey, ExpectedTime};
use super::line::LineId;
use super::pods::{self, Holding};
use super::queue::{QueueId, ReclaimCause};
use super::quota::{Drains, Share};
use super::verdict::Why;
use super::{Admission, Job, Waiting};
use crate::loads::{StoredLoads, Usage};
use crate::peaks::degrade::{DegradedJob, DegradedPod, surplus};
use crate::peaks::drain::{self, DrainPod, Forecast, Load};
use crate::peaks::{Action, PeakState, Peaks, TIERS};
use jiff::{SignedDuration, Timestamp};
use springtide_crds::batch_job::{InterruptionPolicy, QueuedReason};
use springtide_crds::batch_queue::peaks::ActiveWindow;
use springtide_crds::common::{ConditionStatus, Tier};
use springtide_crds::reason::Reason;
use springtide_plumbing::budget::WriteRates;
use springtide_plumbing::clock::after;
use springtide_plumbing::key::{ObjectKey, Uid};
use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

/// Pods are not ended one by one: all that are due within this time go together.
const SHORTEST_STEP: SignedDuration = SignedDuration::from_millis(100);
/// How often the pods are looked at while some have to go.
const LONGEST_STEP: SignedDuration = SignedDuration::from_secs(1);
/// How often a drain that is still to come is foretold.
const FORECAST_STEP: SignedDuration = SignedDuration::from_secs(5);

/// What the peak windows of a queue mean now, for its status.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeakFigures {
    /// What they mean.
    pub state: PeakState,
    /// Pods that have to go and are still there.
    pub pods_left: u32,
    /// Whether all will be gone in time; `None` where none has to go within the hour.
    pub forecast: Option<Forecast>,
    /// When the admission has to look again by itself.
    pub wake: Option<Timestamp>,
}

/// What all drains come to, for metrics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DrainTotals {
    /// Pods that have to go and are still there.
    pub pods_left: u64,
    /// Queues of which some will not be gone in time.
    pub at_risk: u64,
    /// Queues of which some are still there though their peak has begun.
    pub missed: u64,
}

/// What all load triggers come to, for metrics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LoadTotals {
    /// Triggers that are on.
    pub on: u64,
    /// Triggers of which nobody knows the load, so that their tiers start nothing.
    pub unmeasured: u64,
}

/// What a job gives back for a peak.
#[derive(Clone, Debug)]
pub(super) struct Drained {
    queue: ObjectKey,
    /// Live pods that may stay for now.
    keep: u32,
    cause: ReclaimCause,
    /// When all must be gone.
    pub(super) start: Option<Timestamp>,
}

impl Admission {
    /// Takes in the peak windows of a queue, after its rules, and `status.activeWindow` as it is stored.
    pub fn peaks_changed(
        &mut self,
        queue: &QueueId,
        peaks: Option<Arc<Peaks>>,
        stored: Option<ActiveWindow>,
    ) {
        let QueueId::Object(key) = queue else { return };
        self.queues.set_peaks(key, peaks, stored);
        self.dirty = true;
    }

    /// Takes in `status.activeWindow` of a queue, which tells when a ForceOn was lifted.
    pub fn peak_stored(&mut self, queue: &ObjectKey, stored: Option<&ActiveWindow>) {
        self.dirty |= self.queues.set_stored_peak(queue, stored);
    }

    /// Takes in what the status of a queue says of its load triggers; what this process has measured itself counts more.
    pub fn loads_stored(&mut self, queue: &ObjectKey, stored: StoredLoads) {
        self.queues.set_stored_loads(queue, stored);
    }

    /// Takes in what is in use on the nodes. The next pass acts on it.
    pub fn usage_changed(&mut self, usage: Arc<Usage>) {
        self.queues.set_usage(usage);
    }

    /// What all load triggers come to.
    pub fn load_totals(&self) -> LoadTotals {
        self.queues.load_totals()
    }

    /// How fast pods may be deleted; without a word, any number at once. The next look at a drain goes by it.
    pub fn set_write_rates(&mut self, rates: WriteRates) {
        self.write_rates = Some(rates);
    }

    /// What all drains come to.
    pub fn drain_totals(&self) -> DrainTotals {
        let mut totals = DrainTotals::default();
        for (_, drains) in self.queues.drains() {
            let misses = |forecast: &Forecast| forecast.reason.status() == ConditionStatus::True;
            totals.pods_left += u64::from(drains.pods_left);
            totals.at_risk += u64::from(drains.forecast.as_ref().is_some_and(misses));
            totals.missed += u64::from(drains.is_late);
        }
        totals
    }

    /// Whether pods that have to go are to be looked at.
    pub(super) fn drains_are_due(&self, now: Timestamp) -> bool {
        !self.queues.drains_due(now).is_empty()
    }

    /// Where windows mean something else now: takes back what was granted to tiers that are closed, and counts what
    /// has come back since a peak.
    pub(super) fn peaks_turned(&mut self, woken: &mut Vec<ObjectKey>) {
        for key in self.queues.take_turned() {
            let line = LineId::of_queue(&key);
            // What had to go is asked anew in this very pass; who need not go any more may be given at once.
            let (jobs, claims) = (&self.jobs, &mut self.claims);
            self.drains.retain(|uid, drained| {
                let is_other = drained.queue != key;
                if !is_other {
                    claims.remove(uid);
                    woken.extend(jobs.get(uid).map(|job| job.demand.job.clone()));
                }
                is_other
            });
            let granted = |job: &&Job| job.class.line == line && !job.in_flight.is_empty();
            let is_closed = |job: &&Job| self.queues.closed(&line, job.class.tier).is_some();
            let closed = self.jobs.values().filter(granted).filter(is_closed);
            let closed: Vec<Uid> = closed.map(|job| job.demand.uid.clone()).collect();
            for uid in closed {
                // A pod that exists takes its room, seen or not.
                let made = self.jobs.get(&uid).map_or(0, |job| job.unseen.len());
                self.give_back(&uid, made);
                self.place_in_line(&uid);
                woken.extend(self.jobs.get(&uid).map(|job| job.demand.job.clone()));
            }
            self.wake_where_over(&key, woken);
            let Some(state) = self.queues.peak_of(&key) else { continue };
            let ended = TIERS.map(|tier| (tier, state.tier(tier).ramp.map(|ramp| ramp.ended)));
            if ended.iter().all(|(_, ended)| ended.is_none()) {
                continue;
            }
            let since = |tier: Tier| ended.iter().find(|(of, _)| *of == tier).and_then(|(_, ended)| *ended);
            let mut started = self.pods.started(&key, since);
            for job in self.jobs.values().filter(granted).filter(|job| since(job.class.tier).is_some()) {
                started.add(&self.queues.wanted(&job.class).times(pods::signed(job.in_flight.len())));
            }
            self.queues.set_started(&key, started);
        }
    }

    /// Where a peak has just come to its end, ramp included, wakes the jobs that it has left without pods: what they
    /// wait for is something else now.
    fn wake_where_over(&mut self, key: &ObjectKey, woken: &mut Vec<ObjectKey>) {
        let limits = |state: &PeakState| {
            TIERS
                .iter()
                .map(|tier| state.tier(*tier))
                .any(|peak| peak.action != Action::None || peak.ramp.is_some())
        };
        if self.queues.peak_of(key).is_some_and(limits) {
            self.limited.insert(key.clone());
        } else if self.limited.remove(key) {
            let line = LineId::of_queue(key);
            let without_pods = |job: &&Job| job.class.line == line && self.granted(&job.demand.uid) == 0;
            woken.extend(self.jobs.values().filter(without_pods).map(|job| job.demand.job.clone()));
        }
    }

    /// Adds the claims of peaks.
    pub(super) fn claim_for_peaks(&mut self, now: Timestamp) {
        for key in self.queues.drains_due(now) {
            self.drains.retain(|_, drained| drained.queue != key);
            let drains = self.look_at_drains(&key, now).unwrap_or_default();
            self.queues.set_drains(&key, drains);
        }
        let (jobs, live, leaving) = (&self.jobs, &self.live, &self.leaving);
        self.drains.retain(|uid, _| jobs.contains_key(uid));
        for (uid, drained) in &self.drains {
            if pods::staying(live, leaving, uid) > drained.keep {
                self.claims.insert(uid.clone(), Claim::beyond(drained.keep, drained.cause));
            }
        }
    }

    /// Decides which pods of a queue have to go by now. `None` where none has to before long.
    fn look_at_drains(&mut self, key: &ObjectKey, now: Timestamp) -> Option<Drains> {
        let state = self.queues.peak_of(key)?.clone();
        let is_draining = TIERS.iter().any(|tier| state.tier(*tier).drain.is_some());
        if !is_draining && state.ahead.is_empty() {
            return None;
        }
        let holdings = self.pods.of_queue(key, now);
        // What of a job nobody has asked for is left to its controller: it is about to be.
        let known: Vec<(Holding<'_>, &Job)> =
            holdings.into_iter().filter_map(|holding| Some((holding, self.jobs.get(holding.job)?))).collect();
        let drain_pod = |(holding, job): &(Holding<'_>, &Job)| DrainPod {
            tier: holding.tier,
            created: holding.created,
            grace_seconds: job.demand.interruption.grace_seconds,
            scheduled: holding.scheduled,
            ended: holding.left,
        };
        let mut has_to_go: HashSet<usize> = HashSet::new();
        for tier in TIERS {
            let peak = state.tier(tier);
            if peak.drain.is_none() {
                continue;
            }
            let of_tier = known.iter().enumerate().filter(|(_, (holding, _))| holding.tier == tier);
            if peak.action == Action::Drain {
                has_to_go.extend(of_tier.map(|(place, _)| place));
            } else if let Some(percent) = peak.percent {
                let shares = self.queues.shares(key, percent);
                let of_tier: Vec<(usize, &(Holding<'_>, &Job))> = of_tier.collect();
                let uses = |holding: &Holding<'_>| self.queues.uses(key, &shares, holding.requests);
                has_to_go.extend(beyond(&of_tier, &shares, uses));
                has_to_go.extend(
                    of_tier
                        .iter()
                        .filter(|(_, (holding, _))| holding.left.is_some())
                        .map(|(place, _)| *place),
                );
            }
        }
        let mut places: Vec<usize> = has_to_go.into_iter().collect();
        places.sort_unstable();
        let going: Vec<DrainPod> = places.iter().map(|place| drain_pod(&known[*place])).collect();
        let plan = drain::plan(&state, &going, now);
        // Who goes at once, for an override or a load trigger, is never late.
        let is_late = |pod: &DrainPod| {
            let start = state.tier(pod.tier).drain.and_then(|drain| drain.start);
            start.is_some_and(|start| start <= now)
        };
        let mut ending: BTreeMap<&Uid, (u32, Tier)> = BTreeMap::new();
        for end in &plan.end {
            let (holding, _) = &known[places[end.pod]];
            ending.entry(holding.job).or_insert((0, holding.tier)).0 += 1;
        }
        for (uid, (count, tier)) in ending {
            let peak = state.tier(tier);
            let drained = Drained {
                queue: key.clone(),
                keep: pods::staying(&self.live, &self.leaving, uid).saturating_sub(count),
                cause: match peak.action {
                    Action::Drain => ReclaimCause::PeakWindow,
                    Action::None | Action::Degrade { .. } | Action::Hold => ReclaimCause::Degraded,
                },
                start: peak.drain.and_then(|drain| drain.start),
            };
            self.drains.insert(uid.clone(), drained);
        }
        let all: Vec<DrainPod> = known.iter().map(drain_pod).collect();
        let share = |load: &Load| self.share_of_writes(key, load, now);
        let forecast = (!state.ahead.is_empty()).then(|| drain::forecast(&state, &all, share, now));
        let loads = drain::loads(&state, &all);
        let due = match is_draining {
            true => {
                let soonest = plan.wake.unwrap_or(Timestamp::MAX).max(after(now, SHORTEST_STEP));
                soonest.min(after(now, LONGEST_STEP))
            }
            false => after(now, FORECAST_STEP),
        };
        Some(Drains {
            pods_left: plan.left,
            is_late: going.iter().any(is_late),
            forecast,
            due: Some(due),
            loads,
        })
    }

    /// Pods of a queue that may be deleted in a second for a load of its own: by what it is of all that have to go
    /// meanwhile, in its namespace and everywhere, as far as they have been looked at.
    fn share_of_writes(&self, key: &ObjectKey, load: &Load, now: Timestamp) -> u32 {
        let Some(rates) = self.write_rates else { return u32::MAX };
        let (mut of_namespace, mut of_all) = (load.pods, load.pods);
        for (other, drains) in self.queues.drains().filter(|(other, _)| *other != key) {
            let beside = drains.loads.iter().filter(|beside| beside.overlaps(load, now));
            let pods: usize = beside.map(|beside| beside.pods).sum();
            of_all += pods;
            if other.namespace == key.namespace {
                of_namespace += pods;
            }
        }
        let share = |rate: u32, of: usize| {
            let share = u64::from(rate) * load.pods as u64 / of.max(1) as u64;
            u32::try_from(share.max(1)).unwrap_or(u32::MAX)
        };
        share(rates.namespace, of_namespace).min(share(rates.controller, of_all))
    }

    /// Whether all pods of the job's tier have to go.
    pub(super) fn is_drained(&self, job: &Job) -> bool {
        let state = self.queues.peak(&job.class.line);
        state.is_some_and(|state| state.tier(job.class.tier).action == Action::Drain)
    }

    /// Whether any job of a class could start and would not be interrupted by a peak.
    pub(super) fn may_finish(&self, key: &ClassKey) -> bool {
        key.finishes.is_none_or(|expected: ExpectedTime| {
            // Tasks of a class may take up to twice as long as its shortest could.
            self.queues.would_finish(&key.line, key.tier, expected.at_least(), self.last_pass)
                && self.startable(key).next().is_some()
        })
    }

    /// The jobs of a class that wait, oldest first, but those that a peak would interrupt: they are passed over.
    pub(super) fn startable<'a>(&'a self, key: &'a ClassKey) -> impl Iterator<Item = &'a Job> {
        let waiting = self.classes.get(key).into_iter().flat_map(|class| &class.waiting);
        waiting.filter_map(move |(_, uid)| self.jobs.get(uid)).filter(move |job| self.may_start(job))
    }

    /// Whether a job would not be interrupted by a peak, or may be.
    pub(super) fn may_start(&self, job: &Job) -> bool {
        let (key, expected) = (&job.class, job.demand.interruption.expected);
        key.finishes.is_none() || self.queues.would_finish(&key.line, key.tier, expected, self.last_pass)
    }

    /// Why a job does not start that a peak would interrupt.
    pub(super) fn would_not_finish(&self, job: &Job) -> Option<Why> {
        let key = &job.class;
        let interruptibility = &job.demand.interruption;
        match interruptibility.policy {
            InterruptionPolicy::FinishOrDontStart => {}
            InterruptionPolicy::Interruptible => return None,
        }
        let (state, now) = (self.queues.peak(&key.line)?, self.last_pass?);
        let expected = interruptibility.expected;
        if state.would_finish(key.tier, expected, now) {
            return None;
        }
        let at = state.tier(key.tier).interruption?.at;
        let message = match expected {
            Some(expected) => format!(
                "a task takes {} s, and pods of its tier are ended for a peak from {at:.0} on",
                expected.as_secs()
            ),
            None => format!(
                "pods of its tier are ended for a peak from {at:.0} on, and spec.expectedSeconds is not set"
            ),
        };
        Some((Waiting { reason: QueuedReason::WouldNotFinish, message }, None))
    }
}

/// The pods of a tier that exceed its shares, by their places.
fn beyond(
    pods: &[(usize, &(Holding<'_>, &Job))],
    shares: &[Share],
    uses: impl Fn(&Holding<'_>) -> Vec<u64>,
) -> Vec<usize> {
    let mut by_job: HashMap<&Uid, usize> = HashMap::new();
    let mut jobs: Vec<(DegradedJob, Vec<usize>)> = Vec::new();
    for (place, (holding, job)) in pods.iter().filter(|(_, (holding, _))| holding.left.is_none()) {
        let at = *by_job.entry(holding.job).or_insert_with(|| {
            let degraded = DegradedJob {
                created: job.demand.created,
                min_parallelism: job.demand.min_parallelism as usize,
                finishes: job.demand.interruption.policy == InterruptionPolicy::FinishOrDontStart,
                pods: Vec::new(),
            };
            jobs.push((degraded, Vec::new()));
            jobs.len() - 1
        });
        jobs[at].0.pods.push(DegradedPod { created: holding.created, uses: uses(holding) });
        jobs[at].1.push(*place);
    }
    let (jobs, places): (Vec<DegradedJob>, Vec<Vec<usize>>) = jobs.into_iter().unzip();
    let limit: Vec<u64> = shares.iter().map(|share| share.limit).collect();
    surplus(&jobs, &limit).into_iter().map(|(job, pod)| places[job][pod]).collect()
}
