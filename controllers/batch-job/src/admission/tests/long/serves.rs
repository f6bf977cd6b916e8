//! Who waits when no more work comes is served, if not at once then as what runs comes to its end.

use super::super::*;
use super::sizes::{EXTENDED, GIBIBYTE, NODES, RESOURCES, counted, list, of_online, whole};
use super::{AGENTS_JOBS, JOBS, Walk};
use springtide_crds::batch_job::StopPolicy;
use std::cmp::Reverse;

/// Between two passes: load triggers hear of the load before what they know is old, and some pauses outlast one.
const STEP: SignedDuration = SignedDuration::from_secs(20);
/// Passes for what has to come to an end first: pauses, ramps, room that is kept for who has gone.
const SETTLING: usize = 50;
/// Passes for each pod that runs or is still to come. One ends at least in each pass, but its room may be for a class
/// that pauses for a minute, or for one for which all others have just been ended.
const PASSES_PER_POD: usize = 5;

impl Walk {
    /// No more work comes, all nodes are idle but for batch work, and what runs ends bit by bit: within a bounded number
    /// of passes everybody is served but those that may rightly wait for ever. Returns how many waited for that.
    pub(super) fn everybody_is_served(&mut self) -> usize {
        self.world.ask_again();
        let waited = self.unserved().len();
        let open: u32 = self.world.admission.jobs.values().map(|job| job.demand.target).sum();
        let passes = SETTLING + PASSES_PER_POD * (open as usize + self.world.pods.len());
        for _ in 0..passes {
            self.now = self.now.checked_add(STEP).unwrap();
            self.world.ask_again();
            self.measure_idle();
            self.pass();
            self.create_granted();
            let random = &mut self.random;
            self.world.schedule(self.now, || random.below(3) == 0);
            self.world.nothing_overcommitted();
            if self.unserved().is_empty() {
                return waited;
            }
            self.give_back();
            self.end_some();
        }
        let waiting: Vec<_> = self
            .unserved()
            .into_iter()
            .map(|uid| (self.world.admission.jobs[&uid].demand.clone(), self.world.admission.verdict(&uid)))
            .collect();
        panic!("after {passes} passes these wait: {waiting:#?}\n{:#?}", self.rules);
    }

    /// Jobs that want more than they have, and may not wait for ever.
    fn unserved(&self) -> Vec<Uid> {
        self.world.short().into_iter().filter(|uid| !self.waits_for_ever(uid)).collect()
    }

    /// Whether a job may rightly wait for ever, though all that runs comes to its end: by itself, behind such a job in a
    /// strict queue, or outside of a queue that is full of such jobs.
    fn waits_for_ever(&self, uid: &Uid) -> bool {
        let job = &self.world.admission.jobs[uid];
        let Some(line) = self.world.admission.lines.get(&job.class.line) else {
            return self.never_starts(job);
        };
        if line.outside.contains(&job.place()) {
            let most = self.rules_of(job).map_or(MAX_QUEUED_JOBS, |rules| rules.max_queued_jobs);
            let is_full = line.waiting.len() >= most;
            return self.never_starts(job)
                || is_full && line.waiting.iter().all(|it| self.is_stuck(it, line));
        }
        self.is_stuck(&job.place(), line)
    }

    /// Whether a job in a line never starts, or the first one does not by which a strict queue is held up.
    fn is_stuck(&self, place: &Place, line: &Line) -> bool {
        let job = |place: &Place| &self.world.admission.jobs[&place.1];
        let ordering = self.rules_of(job(place)).map_or(Ordering::PriorityFifo, |rules| rules.ordering);
        let first = line.waiting.iter().min_by_key(|place| (Reverse(job(place).class.rank()), *place));
        let held_up_by = match ordering {
            Ordering::StrictFifo => first,
            Ordering::PriorityFifo => None,
        };
        self.never_starts(job(place)) || held_up_by.is_some_and(|first| self.never_starts(job(first)))
    }

    /// Whether a job could not start even if it were alone, by the rules of its queue and the nodes that are up. Windows
    /// are over, and the load of nodes is low and known.
    fn never_starts(&self, job: &Job) -> bool {
        let pods = i64::from(job.demand.min_parallelism.max(1));
        if self.fits_alone(&job.class.shape) < pods {
            return true;
        }
        let (Some(name), Some(rules)) = (job.class.line.queue.as_deref(), self.rules_of(job)) else {
            return false;
        };
        let is_stopped = match rules.stop {
            StopPolicy::None => false,
            StopPolicy::Hold | StopPolicy::Drain => true,
        };
        let wanted = counted(&job.class.shape).times(pods);
        let exceeds_quota = rules.quota.iter().any(|row| {
            let most = match rules.cohort {
                Some(_) => row.max.min(self.cohort_nominal(&row.resource)),
                None => row.nominal,
            };
            wanted.get(&row.resource) > most
        });
        let exceeds_capacity = RESOURCES.into_iter().any(|resource| {
            self.capacity(name, resource).is_some_and(|capacity| wanted.get(resource) > capacity)
        });
        is_stopped || exceeds_quota || exceeds_capacity
    }

    /// The rules of the queue of a job; `None` of the built-in one.
    fn rules_of(&self, job: &Job) -> Option<&QueueRules> {
        job.class.line.queue.as_deref().map(|name| &self.rules[name])
    }

    /// Pods of a shape that the nodes which are up have room for beside what does not belong to jobs.
    fn fits_alone(&self, shape: &Shape) -> i64 {
        let there = NODES.into_iter().filter(|(name, ..)| self.nodes[name]);
        let fits = there.map(|node| {
            let foreign = self.foreign.iter().filter(|(_, on)| *on == node.0).count();
            let mut free = whole(node);
            free.subtract(&of_online().times(i64::try_from(foreign).unwrap()));
            let times = |free: i64, wanted: i64| if wanted > 0 { free.max(0) / wanted } else { i64::MAX };
            let of_agent = times(self.offered[node.0], shape.requests.get(EXTENDED));
            let of_node = RESOURCES.map(|resource| times(free.get(resource), shape.requests.get(resource)));
            of_node.into_iter().fold(of_agent, i64::min)
        });
        fits.sum()
    }

    /// A metrics server tells of all nodes, on which nobody uses anything.
    fn measure_idle(&mut self) {
        let second = self.now.as_second();
        let there = NODES.into_iter().map(|(name, ..)| name).filter(|name| self.nodes[name]);
        let told: Vec<(&'static str, i64, i64)> = there.map(|name| (name, 0, 0)).collect();
        self.server.tells(&mut self.world, second, &told);
        let others = told.into_iter().map(|(name, ..)| (name, list(0, GIBIBYTE)));
        self.measured = Some((second, others.collect()));
    }

    /// Every job creates the pods that it is granted.
    fn create_granted(&mut self) {
        for job in 0..JOBS + AGENTS_JOBS {
            let granted = self.world.admission.jobs.get(&Self::uid(job)).map_or(0, |job| job.in_flight.len());
            for _ in 0..granted {
                self.make(job);
            }
        }
    }

    /// What was told to go has gone, and of what runs some ends, one pod at least.
    fn end_some(&mut self) {
        let pods = &self.world.admission.pods;
        let is_going = |pod: &String| pods.is_leaving(&ObjectKey::new("a", pod.as_str()));
        let bound = self.world.pods.iter().filter(|(_, pod)| pod.3.is_some()).map(|(name, _)| name.clone());
        let (going, running): (Vec<String>, Vec<String>) = bound.partition(is_going);
        for pod in going {
            self.world.end(&pod);
        }
        let first = self.random.below(running.len().max(1) as u64);
        for (number, pod) in (0..).zip(running) {
            if number == first || self.random.below(3) == 0 {
                self.world.finish(&pod);
            }
        }
    }
}
