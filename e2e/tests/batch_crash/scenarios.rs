//! What users do with BatchJobs, each time to the same end.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use kube::api::{DeleteParams, ListParams};
use serde_json::json;
use springtide_crds::batch_job::{
    BatchJob, BatchJobSpec, CompleteReason, CompletionMode, CompletionTracking, FailedReason, Release, Retry,
};
use springtide_e2e::batch::{Task, Testbed};
use springtide_e2e::crash::{Facts, Scenario, World};
use springtide_e2e::local_cluster::LocalCluster;
use springtide_e2e::oracle::feed::PATIENCE;
use springtide_e2e::oracle::jobs::{self, History};

/// The only job of a scenario, unless it says otherwise.
const JOB: &str = "job";
/// Fields of a status that differ between runs by nature: where a pod ran, how long by the clock, and what
/// the API calls approximate.
const BY_NATURE: [&str; 4] = ["node", "runningSeconds", "suspendedSeconds", "disrupted"];

/// The scenarios.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Batch {
    /// One pod that succeeds.
    Single,
    /// Four indexes, two at a time.
    Indexed,
    /// Each pod fails, until the limit.
    Failing,
    /// Pods are stopped, and run again.
    DrainAndResume,
    /// Its parallelism goes up, down and up.
    Scale,
    /// It is deleted while it runs.
    Delete,
    /// It goes by itself after its end.
    TimeToLive,
    /// It runs too long.
    Deadline,
    /// Indexes that fail once and those that do not, with a limit for each.
    Mixed,
}

impl Batch {
    pub(crate) const ALL: [Self; 9] = [
        Self::Single,
        Self::Indexed,
        Self::Failing,
        Self::DrainAndResume,
        Self::Scale,
        Self::Delete,
        Self::TimeToLive,
        Self::Deadline,
        Self::Mixed,
    ];

    /// The most pods that its job may have at a time.
    fn most(self) -> usize {
        match self {
            Self::Single | Self::Failing | Self::TimeToLive => 1,
            Self::Indexed | Self::DrainAndResume | Self::Deadline | Self::Mixed => 2,
            Self::Delete => 3,
            Self::Scale => 4,
        }
    }
}

/// A namespace, and what its job may have.
pub(crate) struct Namespace<'a> {
    test: Testbed<'a>,
    most: usize,
}

fn strict(task: &Task, completions: u32, parallelism: u32) -> BatchJobSpec {
    BatchJobSpec {
        completions,
        parallelism,
        completion_mode: CompletionMode::Indexed,
        release: Release { completion_tracking: Some(CompletionTracking::Strict), ..Release::default() },
        retry: Retry { initial_backoff_seconds: 0, max_backoff_seconds: 0 },
        ..BatchJobSpec::new(task.template())
    }
}

impl Scenario for Batch {
    type World<'a> = Namespace<'a>;

    fn name(&self) -> &'static str {
        match self {
            Self::Single => "single",
            Self::Indexed => "indexed",
            Self::Failing => "failing",
            Self::DrainAndResume => "drain",
            Self::Scale => "scale",
            Self::Delete => "delete",
            Self::TimeToLive => "ttl",
            Self::Deadline => "deadline",
            Self::Mixed => "mixed",
        }
    }

    async fn open<'a>(&self, cluster: &'a LocalCluster) -> Result<Namespace<'a>> {
        Ok(Namespace { test: Testbed::new(cluster, self.name()).await?, most: self.most() })
    }

    async fn play<'a>(&self, world: &Self::World<'a>) -> Result<()> {
        let test = &world.test;
        match self {
            Self::Single => {
                test.submit(JOB, BatchJobSpec::new(Task::quick().template())).await?;
                test.completed(JOB).await?;
            }
            Self::Indexed => {
                test.submit(JOB, strict(&Task::quick(), 4, 2)).await?;
                test.completed(JOB).await?;
            }
            Self::Failing => {
                let spec = BatchJobSpec { backoff_limit: Some(2), ..strict(&Task::failing(3), 1, 1) };
                test.submit(JOB, spec).await?;
                test.failed(JOB, FailedReason::BackoffLimitExceeded).await?;
            }
            Self::DrainAndResume => {
                test.submit(JOB, strict(&Task::endless(), 2, 2)).await?;
                test.running(JOB, 2).await?;
                test.edit(JOB, json!({"spec": {"stopPolicy": "Drain"}})).await?;
                test.reason(JOB, CompleteReason::Suspended).await?;
                test.no_pods(JOB).await?;
                test.edit(JOB, json!({"spec": {"stopPolicy": "None"}})).await?;
                end(test, 2).await?;
                test.completed(JOB).await?;
            }
            Self::Scale => {
                test.submit(JOB, strict(&Task::endless(), 4, 1)).await?;
                test.running(JOB, 1).await?;
                for parallelism in [3, 1, 4] {
                    test.edit(JOB, json!({"spec": {"parallelism": parallelism}})).await?;
                    test.running(JOB, parallelism).await?;
                    // KWOK removes a pod by its name, perhaps twice: one that is new could be hit.
                    only(test, parallelism).await?;
                }
                end(test, 4).await?;
                test.completed(JOB).await?;
            }
            Self::Delete => {
                test.submit(JOB, strict(&Task::endless(), 3, 3)).await?;
                test.running(JOB, 3).await?;
                test.delete(JOB).await?;
                test.gone(JOB).await?;
            }
            Self::TimeToLive => {
                let spec =
                    BatchJobSpec { ttl_seconds_after_finished: Some(1), ..strict(&Task::quick(), 1, 1) };
                test.submit(JOB, spec).await?;
                test.gone(JOB).await?;
            }
            Self::Deadline => {
                let spec =
                    BatchJobSpec { active_deadline_seconds: Some(2), ..strict(&Task::endless(), 2, 2) };
                test.submit(JOB, spec).await?;
                test.failed(JOB, FailedReason::DeadlineExceeded).await?;
            }
            Self::Mixed => {
                let spec =
                    BatchJobSpec { backoff_limit_per_index: Some(1), ..strict(&Task::endless(), 3, 2) };
                test.submit(JOB, spec).await?;
                // Index 0 fails once, index 1 for good, index 2 not at all.
                for (name, code) in
                    [("job-0-0", 4), ("job-1-0", 5), ("job-0-1", 0), ("job-1-1", 6), ("job-2-0", 0)]
                {
                    test.end_pod(&test.running_pod(name).await?, code).await?;
                }
                test.failed(JOB, FailedReason::FailedIndexes).await?;
            }
        }
        test.no_pods(JOB).await
    }
}

/// Ends the pods that run, when there are so many.
async fn end(test: &Testbed<'_>, count: usize) -> Result<()> {
    for life in test.running(JOB, count).await? {
        test.end_pod(&life, 0).await?;
    }
    Ok(())
}

/// Waits until no other pods than so many are there.
async fn only(test: &Testbed<'_>, count: usize) -> Result<()> {
    test.pods
        .until(&format!("{count} pods and no more"), |pods| {
            (pods.of(JOB).iter().filter(|life| life.gone.is_none()).count() == count).then_some(())
        })
        .await
}

impl Namespace<'_> {
    async fn jobs(&self) -> Result<Vec<BatchJob>> {
        Ok(self.test.api::<BatchJob>().list(&ListParams::default()).await?.items)
    }

    async fn pods(&self) -> Result<Vec<Pod>> {
        Ok(self.test.api::<Pod>().list(&ListParams::default()).await?.items)
    }

    /// Names of pods that no job owns.
    async fn orphans(&self) -> Result<Vec<String>> {
        let jobs = self.jobs().await?;
        let owned = |pod: &Pod| {
            let owners = pod.owner_references();
            owners.iter().any(|owner| jobs.iter().any(|job| job.uid().as_deref() == Some(&owner.uid)))
        };
        Ok(self.pods().await?.iter().filter(|pod| !owned(pod)).map(ResourceExt::name_any).collect())
    }
}

impl World for Namespace<'_> {
    fn namespace(&self) -> &str {
        &self.test.namespace
    }

    async fn observed(&self) -> Result<bool> {
        Ok(self.jobs().await?.iter().all(|job| {
            job.status.as_ref().map(|status| status.observed_generation) == job.metadata.generation
        }))
    }

    async fn facts(&self) -> Result<Facts> {
        let mut facts = Facts::default();
        for job in self.jobs().await? {
            let path = format!("job {}", job.name_any());
            facts.add_document(&path, &serde_json::to_value(&job.spec)?, &[]);
            facts.add_document(&path, &serde_json::to_value(&job.status)?, &BY_NATURE);
            facts.add(format!("{path}.finalizers"), job.finalizers().join(","));
        }
        // Of each name, how often it was made and how each of them ended.
        let mut lives: BTreeMap<String, Vec<String>> = BTreeMap::new();
        let pods = self.test.pods.now();
        for life in pods.of(JOB) {
            let end = match (&life.ended, life.deleting.or(life.gone)) {
                // One that is deleted ends some day, seen or not.
                (Some((at, end)), deleted) if deleted.is_none_or(|deleted| deleted > *at) => {
                    format!("ended with {}", end.exit_code)
                }
                (Some(_) | None, Some(_)) => "deleted".to_owned(),
                (Some(_) | None, None) => "runs".to_owned(),
            };
            let gone = if life.gone.is_some() { "gone" } else { "still there" };
            lives.entry(life.name.clone()).or_default().push(format!("{end}, {gone}"));
        }
        for (name, lives) in lives {
            facts.add(format!("pod {name}"), lives.join("; "));
        }
        // One that is deleted on its way may have been seen anywhere on it.
        let ended = |history: &History| jobs::is_finished(&history.job);
        if let Some(history) = self.test.jobs.now().history(JOB).filter(|history| ended(history)) {
            facts.add("job's last reason", history.reasons.last().cloned().unwrap_or_default());
        }
        Ok(facts)
    }

    async fn wrong(&self) -> Result<Vec<String>> {
        let mut wrong = self.test.jobs.now().violations().to_vec();
        {
            let pods = self.test.pods.now();
            wrong.extend_from_slice(pods.violations());
            ensure!(pods.gaps() == 0, "the oracle has missed events");
            let most = pods.most_active(JOB);
            if most > self.most {
                wrong.push(format!("{most} pods at a time, {} may be", self.most));
            }
        }
        for job in self.jobs().await? {
            let status = job.status.clone().unwrap_or_default();
            let pods = self.test.pods.now();
            let own = pods
                .of(&job.name_any())
                .into_iter()
                .filter(|life| Some(&life.job_uid) == job.metadata.uid.as_ref());
            let (mut active, mut succeeded) = (0, 0);
            for life in own {
                active += u32::from(life.is_active());
                succeeded += u32::from(life.ended.as_ref().is_some_and(|(_, end)| end.succeeded));
            }
            if (status.active, status.succeeded) != (active, succeeded) {
                let (said, of_active) = (status.succeeded, status.active);
                wrong.push(format!("the status has {of_active} active and {said} succeeded pods, there were {active} and {succeeded}"));
            }
        }
        // What a deleted job owned is the garbage collector's, which takes its time.
        let deadline = Instant::now() + PATIENCE;
        let mut orphans = self.orphans().await?;
        while !orphans.is_empty() && Instant::now() < deadline {
            tokio::time::sleep(Duration::from_millis(200)).await;
            orphans = self.orphans().await?;
        }
        wrong.extend(orphans.into_iter().map(|pod| format!("pod {pod} has no owner that lives")));
        Ok(wrong)
    }

    async fn clear(&self) -> Result<()> {
        let test = &self.test;
        test.api::<BatchJob>().delete_collection(&DeleteParams::default(), &ListParams::default()).await?;
        let deadline = Instant::now() + PATIENCE;
        while !self.jobs().await?.is_empty() || !self.pods().await?.is_empty() {
            ensure!(Instant::now() < deadline, "jobs or pods of {} stay", test.namespace);
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        let client = test.cluster.client("springtide-test")?;
        let namespaces: kube::Api<k8s_openapi::api::core::v1::Namespace> = kube::Api::all(client);
        namespaces.delete(&test.namespace, &DeleteParams::default()).await.context("delete the namespace")?;
        Ok(())
    }
}
