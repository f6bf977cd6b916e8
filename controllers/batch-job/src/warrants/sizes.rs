//! What the pods request that a job waits for: as much as its profile and its tasks that ran out of memory may make of
//! its template.

use super::{BatchJobWarrants, record};
use crate::lock;
use crate::profiles::fitting::{self, Fitting};
use crate::projections::job::JobView;
use springtide_plumbing::resources::ResourceList;
use crate::shape::Shape;
use springtide_crds::batch_task_profile::ProfileMode;
use springtide_plumbing::key::ObjectKey;

impl BatchJobWarrants {
    /// The most that a pod of a job in this queue requests, resource by resource: the planner may have an older profile,
    /// or tasks of several sizes.
    pub(super) fn size(&self, job: &JobView, queue: &ObjectKey) -> ResourceList {
        let mut size = job.template.shape.requests.clone();
        let fitting = self.fitting(job, queue);
        if let Some(fitted) = &fitting.fitted {
            size.raise_to(&fitted.shape.requests);
        }
        let on_oom = job.spec.retry.on_oom.as_ref();
        let steps = on_oom.map_or(0, |on_oom| record::most_ooms(job).min(on_oom.max_steps));
        if steps > 0 {
            for fitting in [&fitting, &Fitting::default()] {
                size.raise_to(&Shape::of_template(&job.template.larger(fitting, on_oom, steps)).requests);
            }
        }
        size
    }

    /// What the stored profile of a job sets.
    fn fitting(&self, job: &JobView, queue: &ObjectKey) -> Fitting {
        let (Some(key), Some(asked)) = (job.profile_key(), &job.spec.profile) else {
            return Fitting::default();
        };
        let default = self.stores.queues.get(queue).map(|queue| queue.spec.default_profile_mode);
        let wanted = fitting::wanted(asked, default.unwrap_or_default());
        let Some(profile) = self.stores.profiles.get(&key) else { return Fitting::default() };
        let fitted = match fitting::mode(wanted, Some(&*profile)) {
            ProfileMode::Off | ProfileMode::Observe => None,
            mode @ (ProfileMode::Initial | ProfileMode::Auto) => {
                lock(&self.fittings).fitted(&key, &profile, &job.template, mode)
            }
        };
        Fitting { fitted, ..Fitting::default() }
    }
}
