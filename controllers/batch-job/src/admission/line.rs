//! A line: the jobs that wait in one queue, or in one namespace of the built-in queue.

use super::class::ClassKey;
use super::queue::{MAX_QUEUED_JOBS, Ordering, QueueId};
use super::{Admission, Demand, Place};
use springtide_plumbing::key::{ObjectKey, Uid};
use std::collections::BTreeSet;
use std::sync::Arc;

/// Which line.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct LineId {
    pub(super) namespace: Arc<str>,
    /// Name of the BatchQueue; `None` is the built-in queue.
    pub(super) queue: Option<Arc<str>>,
}

impl LineId {
    pub(super) fn of(demand: &Demand) -> Self {
        match &demand.queue {
            QueueId::BuiltIn => Self { namespace: Arc::clone(&demand.job.namespace), queue: None },
            QueueId::Object(key) => Self::of_queue(key),
        }
    }

    pub(super) fn of_queue(key: &ObjectKey) -> Self {
        Self { namespace: Arc::clone(&key.namespace), queue: Some(Arc::clone(&key.name)) }
    }

    /// The BatchQueue; `None` is the built-in queue.
    pub(super) fn queue(&self) -> Option<ObjectKey> {
        let name = Arc::clone(self.queue.as_ref()?);
        Some(ObjectKey { namespace: Arc::clone(&self.namespace), name })
    }
}

/// Who waits in it.
#[derive(Debug)]
pub(super) struct Line {
    /// Jobs that want more than they have, oldest first.
    pub(super) waiting: BTreeSet<Place>,
    /// Jobs beyond the bound, oldest first.
    pub(super) outside: BTreeSet<Place>,
    /// How many may wait inside.
    bound: usize,
    /// The pass in which it was last served. One that is new comes after those that wait already: it may
    /// have been here before.
    pub(super) served: u64,
    /// In a strict queue, the job that holds up all others.
    pub(super) head: Option<Place>,
}

impl Line {
    fn new(turn: u64) -> Self {
        Self {
            waiting: BTreeSet::new(),
            outside: BTreeSet::new(),
            bound: MAX_QUEUED_JOBS,
            served: turn,
            head: None,
        }
    }
}

impl Admission {
    /// The place of the job by which a strict queue is held up, for who is behind it. What a queue remembers that was
    /// strict before holds up nobody.
    pub(super) fn held_up_by(&self, line: &LineId, place: &Place) -> Option<&Place> {
        match self.ordering(line) {
            Ordering::StrictFifo => self.lines.get(line)?.head.as_ref().filter(|head| *head != place),
            Ordering::PriorityFifo => None,
        }
    }

    /// Whether a place in a line is behind that of a job which waits, and by which its strict queue is held up.
    pub(super) fn is_held_up(&self, line: &LineId, place: &Place) -> bool {
        self.held_up_by(line, place).is_some()
    }

    /// Puts a job where its demand says: among those that wait, or not.
    pub(super) fn place_in_line(&mut self, uid: &Uid) {
        let Some(job) = self.jobs.get(uid) else { return };
        let wants_more = self.granted_to(job) < job.demand.target;
        let (place, class) = (job.place(), Arc::clone(&job.class));
        if !wants_more || self.queues.refusal(&class.line, class.tier).is_some() {
            self.leave(&class, &[place]);
            return;
        }
        let bound = self.queues.max_queued_jobs(&class.line);
        let line = self.lines.entry(class.line.clone()).or_insert_with(|| Line::new(self.turn));
        line.bound = bound;
        if line.waiting.contains(&place) || line.outside.contains(&place) {
            return;
        }
        if line.waiting.len() < line.bound {
            self.enter(uid, place);
        } else if line.waiting.last().is_some_and(|newest| place < *newest) {
            // The newest stays outside, whatever the order in which jobs are heard of.
            if let Some(newest) = line.waiting.pop_last() {
                line.outside.insert(newest.clone());
                self.leave_class(&newest);
            }
            self.enter(uid, place);
        } else {
            line.outside.insert(place);
        }
    }

    /// The bound of a queue has changed: the newest go outside, or the oldest come in.
    pub(super) fn bound_line(&mut self, id: &LineId) {
        let bound = self.queues.max_queued_jobs(id);
        let Some(line) = self.lines.get_mut(id) else { return };
        line.bound = bound;
        let mut out = Vec::new();
        while line.waiting.len() > bound
            && let Some(newest) = line.waiting.pop_last()
        {
            line.outside.insert(newest.clone());
            out.push(newest);
        }
        let mut come = Vec::new();
        while line.waiting.len() + come.len() < bound
            && let Some(oldest) = line.outside.pop_first()
        {
            come.push(oldest);
        }
        for place in out {
            self.leave_class(&place);
        }
        for place in come {
            let uid = place.1.clone();
            self.enter(&uid, place);
        }
    }

    fn enter(&mut self, uid: &Uid, place: Place) {
        let Some(job) = self.jobs.get(uid) else { return };
        if let Some(line) = self.lines.get_mut(&job.class.line) {
            line.waiting.insert(place.clone());
        }
        if let Some(class) = self.classes.get_mut(&*job.class) {
            class.waiting.insert(place);
        }
        self.dirty = true;
    }

    fn leave_class(&mut self, place: &Place) {
        if let Some(job) = self.jobs.get(&place.1)
            && let Some(class) = self.classes.get_mut(&*job.class)
        {
            class.waiting.remove(place);
        }
    }

    /// Takes a job out of the line; the oldest from outside takes its place.
    pub(super) fn leave_line(&mut self, uid: &Uid) {
        let Some(job) = self.jobs.get(uid) else { return };
        let (place, class) = (job.place(), Arc::clone(&job.class));
        self.leave(&class, &[place]);
    }

    /// The same of several of one class.
    pub(super) fn leave(&mut self, key: &ClassKey, places: &[Place]) {
        if let Some(class) = self.classes.get_mut(key) {
            for place in places {
                take(&mut class.waiting, place);
            }
        }
        let Some(line) = self.lines.get_mut(&key.line) else { return };
        for place in places {
            line.outside.remove(place);
            take(&mut line.waiting, place);
        }
        line.head.take_if(|head| places.contains(head));
        let mut come = Vec::new();
        while line.waiting.len() + come.len() < line.bound
            && let Some(oldest) = line.outside.pop_first()
        {
            come.push(oldest);
        }
        if line.waiting.is_empty() && line.outside.is_empty() && come.is_empty() {
            self.lines.remove(&key.line);
        }
        for place in come {
            let uid = place.1.clone();
            self.enter(&uid, place);
        }
    }
}

/// Takes a place out; that of the first, who mostly goes, without a search.
fn take(places: &mut BTreeSet<Place>, place: &Place) {
    if places.first() == Some(place) {
        places.pop_first();
    } else {
        places.remove(place);
    }
}
