//! How many BatchJobs there are, and where they stand: counted in the store at scrape time.

use crate::ceiling::Standing;
use crate::projections::job::{BATCH_JOB, JobView};
use crate::{BatchJobReconciler, lock};
use springtide_crds::batch_job::{CompleteReason, StalledReason};
use springtide_crds::reason::Reason;
use springtide_plumbing::metrics::{Census, Population};
use springtide_plumbing::projection::Projection;

impl Population for BatchJobReconciler {
    fn census(&self) -> Census {
        let mut census = Census::new(
            BATCH_JOB.kind,
            CompleteReason::all().iter().map(Reason::as_str),
            StalledReason::all().iter().map(Reason::as_str),
            self.settings.max_per_namespace,
            self.settings.max_per_cluster,
        );
        let jobs = self.stores.jobs.list(None);
        for job in jobs.iter().filter(|job| job.is_ours()) {
            let reason = job.condition(CompleteReason::CONDITION).map(|summary| summary.reason.as_str());
            census.add(&job.meta().key.namespace, reason, stalled(job));
        }
        if census.exceeds_a_maximum() {
            let ceiling = lock(&self.ceiling);
            let beyond = jobs.iter().filter(|job| job.is_ours() && ceiling.standing(job) != Standing::Within);
            census.beyond_maximum = beyond.count();
        }
        census
    }
}

/// Why a job needs a person. One that has failed is Stalled for good, and nothing is left to be done.
fn stalled(job: &JobView) -> Option<&str> {
    let needs_a_person = job.holds(StalledReason::CONDITION) && !job.is_finished();
    needs_a_person.then(|| job.condition(StalledReason::CONDITION))?.map(|stalled| stalled.reason.as_str())
}
