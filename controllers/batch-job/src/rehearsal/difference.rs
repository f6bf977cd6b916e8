//! What a changed object leads to: the writes with it, less those that are due without it.

use super::perform::put;
use super::{PlannedWrite, Rehearsal, World};
use crate::projections::job::JobView;
use crate::projections::profile::ProfileView;
use crate::projections::queue::QueueView;
use jiff::Timestamp;
use std::collections::BTreeSet;
use std::sync::Arc;

/// Objects that are new, or changed to this.
#[derive(Clone, Debug, Default)]
pub struct Changes {
    /// BatchJobs.
    pub jobs: Vec<Arc<JobView>>,
    /// BatchQueues.
    pub queues: Vec<Arc<QueueView>>,
    /// BatchTaskProfiles. What follows from their specs is taken to be drawn at once; the manager does so within a minute.
    pub profiles: Vec<Arc<ProfileView>>,
}

/// What comes of changes.
pub struct Difference {
    /// Writes that the change leads to, in the order in which they would be sent. Those of statuses are not among
    /// them: when they are due is a matter of seconds, and they change nothing.
    pub writes: Vec<PlannedWrite>,
    /// Writes that are due now and would be no longer.
    pub spared: Vec<PlannedWrite>,
    /// Whether there was more than was looked at.
    pub is_cut: bool,
    /// How things stand after it.
    pub after: Rehearsal,
}

/// What such objects lead to.
pub fn caused_by(world: &World, changes: Changes, now: Timestamp) -> Difference {
    let Changes { jobs, queues, profiles } = changes;
    let mut before = Rehearsal::new(world.clone(), now);
    before.run();
    let mut changed = world.clone();
    for job in jobs {
        put(&mut changed.jobs, job);
    }
    for queue in queues {
        put(&mut changed.queues, queue);
    }
    for profile in profiles {
        put(&mut changed.profiles, profile);
    }
    let mut after = Rehearsal::new(changed, now);
    after.run();
    let (due, then) = (told(&before), told(&after));
    let only = |these: &[PlannedWrite], others: &[PlannedWrite]| {
        let others: BTreeSet<&PlannedWrite> = others.iter().collect();
        these.iter().filter(|write| !others.contains(write)).cloned().collect()
    };
    Difference {
        writes: only(&then, &due),
        spared: only(&due, &then),
        is_cut: before.is_cut() || after.is_cut(),
        after,
    }
}

fn told(rehearsal: &Rehearsal) -> Vec<PlannedWrite> {
    let writes = rehearsal.writes().iter().map(|write| rehearsal.describe(write));
    writes.filter(|write| write.subresource != "status").collect()
}
