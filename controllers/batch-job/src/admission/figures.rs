//! What a queue's status tells.

use super::class::{Class, ClassKey};
use super::line::LineId;
use super::queue::{QueueFigures, QueueId, WAITING_CLASSES, WaitingClass};
use super::{Admission, Job, Place};
use std::cmp::Reverse;
use std::hash::{DefaultHasher, Hash, Hasher};

impl Admission {
    /// The figures of a queue. Takes time by the number of classes, and of the jobs of this queue that wait.
    pub fn figures(&self, queue: &QueueId) -> QueueFigures {
        let mut figures = match queue {
            QueueId::BuiltIn => QueueFigures::default(),
            QueueId::Object(key) => self.queues.figures(key, self.blind),
        };
        let id = match queue {
            QueueId::BuiltIn => None,
            QueueId::Object(key) => Some(LineId::of_queue(key)),
        };
        let is_of_queue = |line: &LineId| match &id {
            Some(id) => line == id,
            None => line.queue.is_none(),
        };
        let mut waiting: Vec<(&ClassKey, &Class, Place, usize)> = Vec::new();
        let mut jobs = 0;
        for (key, class) in
            self.classes.iter().filter(|(key, class)| class.jobs > 0 && is_of_queue(&key.line))
        {
            figures.classes += 1;
            jobs += class.jobs;
            if self.queues.refusal(&key.line, key.tier).is_none() {
                waiting.extend(
                    class.waiting.first().map(|head| (key, class, head.clone(), class.waiting.len())),
                );
                figures.pending_jobs += self.without_grant(class.waiting.iter());
                continue;
            }
            // Not taken in at all, so that nobody has put them in order.
            let of_class = self.jobs.values().filter(|job| *job.class == *key);
            let refused: Vec<Place> =
                of_class.map(Job::place).filter(|(_, uid)| self.granted(uid) == 0).collect();
            figures.pending_jobs += refused.len();
            waiting.extend(refused.iter().min().map(|head| (key, class, head.clone(), refused.len())));
        }
        let outside = self.lines.iter().filter(|(line, _)| is_of_queue(line));
        figures.pending_jobs +=
            outside.map(|(_, line)| self.without_grant(line.outside.iter())).sum::<usize>();
        figures.admitted_jobs = jobs.saturating_sub(figures.pending_jobs);
        waiting.sort_by(|(key, _, head, _), (other, _, its, _)| {
            (Reverse(key.rank()), head).cmp(&(Reverse(other.rank()), its))
        });
        figures.waiting = waiting
            .into_iter()
            .take(WAITING_CLASSES)
            .filter_map(|(key, class, head, jobs)| {
                let job = self.jobs.get(&head.1)?;
                let (waiting, resource) = self.why(job, Some(class));
                Some(WaitingClass {
                    tier: key.tier,
                    priority: key.priority,
                    shape: digits(key),
                    reason: waiting.reason,
                    resource,
                    jobs,
                    oldest: job.demand.created,
                })
            })
            .collect();
        figures
    }

    fn without_grant<'a>(&self, places: impl Iterator<Item = &'a Place>) -> usize {
        places.filter(|(_, uid)| self.granted(uid) == 0).count()
    }
}

/// Tells the shape of a class from those of others, in the same way in every process of one build.
pub(super) fn digits(key: &ClassKey) -> String {
    let mut hasher = DefaultHasher::new();
    (&key.shape, key.gang, key.finishes).hash(&mut hasher);
    format!("{:04x}", hasher.finish() & 0xffff)
}
