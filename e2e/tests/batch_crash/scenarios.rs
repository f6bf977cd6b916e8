//! The scenarios, and what BatchJobs come to in them.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use k8s_openapi::api::core::v1::{Node, Pod};
use k8s_openapi::api::scheduling::v1beta1::PodGroup;
use kube::ResourceExt;
use kube::api::{Api, DeleteParams, ListParams, PatchParams};
use springtide_crds::batch_job::{BatchJob, DegradedReason};
use springtide_crds::batch_queue::{BatchQueue, CapacityType, ReadyReason};
use springtide_crds::batch_task_profile::BatchTaskProfile;
use springtide_crds::common::{Condition, ConditionStatus};
use springtide_crds::reason::Reason;
use springtide_e2e::archive_sink::{Answer, ArchiveSink};
use springtide_e2e::batch::{POOL, Testbed, queues};
use springtide_e2e::crash::{Facts, Scenario, World};
use springtide_e2e::local_cluster::LocalCluster;
use springtide_e2e::oracle::feed::PATIENCE;
use springtide_e2e::oracle::jobs::{self, History};

use crate::plays::{self, HOLD};
use crate::shown;

/// The job of a scenario, of which there is one at a time.
pub(crate) const JOB: &str = "job";
/// Another one beside it.
pub(crate) const OTHER: &str = "back";
/// A pod that is of no job.
pub(crate) const STRANGER: &str = "stranger";
/// Fields of a status that differ between runs by nature: where a pod ran, how long by the clock, and what
/// the API calls approximate where a manager begins anew, which is held against the pods' lives.
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
    /// Four pods that start together or not at all, of which one is run again.
    Gang,
    /// It starts nothing for a while.
    HoldAndResume,
    /// An exit code ends it, and its other pods with it.
    Policy,
    /// Its pod is evicted and runs again.
    Disrupted,
    /// It is deleted with its pods, of which somebody else holds one, after one index is done.
    DeleteHeld,
    /// It is deleted, and another one gets its name.
    Recreate,
    /// The quota of its queue is cut, and raised again.
    QuotaCut,
    /// Its queue is drained, and goes on.
    QueueDrain,
    /// It has borrowed what the lender takes back, and has it again later.
    Cohort,
    /// A gang of a queue that nobody schedules is taken back, and comes again.
    QueueGang,
    /// Its queue is deleted while it runs, and made again.
    QueueDeleted,
    /// Another job of its queue has a higher priority, for which its pod ends, and runs again after it.
    Preempted,
    /// The peak windows of its queue are forced open, and the force is lifted.
    PeakForced,
    /// A pod runs out of memory, and the next one of its index has more.
    OutOfMemory,
    /// It has succeeded with one of its tasks, and the others are ended.
    SuccessPolicy,
    /// What its tasks request is learned, and no attempt gets anything else.
    ProfileInitial,
    /// Three indexes, two at a time, whose pods have no finalizer.
    AtLeastOnceIndexed,
    /// Two pods that the scheduler places together, by a PodGroup.
    PodGroup,
    /// A line is written of it before it goes by itself after its end.
    ArchivedTtl,
    /// A peak leaves its tier half of the queue, and all of it again.
    Degraded,
    /// By the clock the lead of a peak window begins while it runs, and a window ends for which it waits.
    WindowByClock,
    /// Of its failed pods the newest stays, and the other one for a while.
    KeptPods,
    /// Its pod ends as its nodes are busy, and another one comes when they are not.
    LoadTrigger,
    /// A server has its line before it goes by itself after its end.
    ArchivedHttp,
    /// One of its pods has no node until another one is added.
    Shown,
    /// It is the first with its key, and its profile learns from its run.
    ProfileFirstUse,
}

impl Batch {
    pub(crate) const ALL: [Self; 35] = [
        Self::Single,
        Self::Indexed,
        Self::Failing,
        Self::DrainAndResume,
        Self::Scale,
        Self::Delete,
        Self::TimeToLive,
        Self::Deadline,
        Self::Mixed,
        Self::Gang,
        Self::HoldAndResume,
        Self::Policy,
        Self::Disrupted,
        Self::DeleteHeld,
        Self::Recreate,
        Self::QuotaCut,
        Self::QueueDrain,
        Self::Cohort,
        Self::QueueGang,
        Self::QueueDeleted,
        Self::Preempted,
        Self::PeakForced,
        Self::OutOfMemory,
        Self::SuccessPolicy,
        Self::ProfileInitial,
        Self::AtLeastOnceIndexed,
        Self::PodGroup,
        Self::ArchivedTtl,
        Self::Degraded,
        Self::WindowByClock,
        Self::KeptPods,
        Self::LoadTrigger,
        Self::ArchivedHttp,
        Self::Shown,
        Self::ProfileFirstUse,
    ];

    /// Whether a pod is still there at its end.
    pub(crate) fn keeps_pods(self) -> bool {
        matches!(self, Self::KeptPods)
    }

    /// The most pods that its job may have at a time.
    fn most(self) -> usize {
        match self {
            Self::Single
            | Self::Failing
            | Self::TimeToLive
            | Self::Disrupted
            | Self::Recreate
            | Self::Preempted
            | Self::ArchivedTtl
            | Self::WindowByClock
            | Self::KeptPods
            | Self::LoadTrigger
            | Self::ArchivedHttp
            | Self::ProfileFirstUse => 1,
            Self::Indexed
            | Self::DrainAndResume
            | Self::Deadline
            | Self::Mixed
            | Self::HoldAndResume
            | Self::DeleteHeld
            | Self::QueueDrain
            | Self::Cohort
            | Self::QueueDeleted
            | Self::PeakForced
            | Self::OutOfMemory
            | Self::ProfileInitial
            | Self::AtLeastOnceIndexed
            | Self::PodGroup
            | Self::Degraded
            | Self::Shown => 2,
            Self::Delete | Self::Policy | Self::QuotaCut | Self::QueueGang | Self::SuccessPolicy => 3,
            Self::Scale | Self::Gang => 4,
        }
    }
}

/// A namespace, and what stands beside it.
pub(crate) struct Namespace<'a> {
    test: Testbed<'a>,
    scenario: Batch,
    /// What takes lines of finished jobs.
    sink: Option<ArchiveSink>,
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
            Self::Gang => "gang",
            Self::HoldAndResume => "hold",
            Self::Policy => "policy",
            Self::Disrupted => "disrupted",
            Self::DeleteHeld => "delete-held",
            Self::Recreate => "recreate",
            Self::QuotaCut => "quota-cut",
            Self::QueueDrain => "queue-drain",
            Self::Cohort => "cohort",
            Self::QueueGang => "queue-gang",
            Self::QueueDeleted => "queue-deleted",
            Self::Preempted => "preempted",
            Self::PeakForced => "peak-forced",
            Self::OutOfMemory => "oom",
            Self::SuccessPolicy => "success-policy",
            Self::ProfileInitial => "profile",
            Self::AtLeastOnceIndexed => "at-least-once",
            Self::PodGroup => "pod-group",
            Self::ArchivedTtl => "archived",
            Self::Degraded => "degraded",
            Self::WindowByClock => "window",
            Self::KeptPods => "kept-pods",
            Self::LoadTrigger => "load",
            Self::ArchivedHttp => "archived-http",
            Self::Shown => "shown",
            Self::ProfileFirstUse => "profile-first-use",
        }
    }

    async fn open<'a>(&self, cluster: &'a LocalCluster) -> Result<Namespace<'a>> {
        let sink = if matches!(self, Self::ArchivedHttp) {
            Some(ArchiveSink::start(cluster.pki(), Answer::Status(204)).await?)
        } else {
            None
        };
        Ok(Namespace { test: Testbed::new(cluster, self.name()).await?, scenario: *self, sink })
    }

    async fn play<'a>(&self, world: &Self::World<'a>) -> Result<()> {
        plays::play(*self, &world.test, world.sink.as_ref()).await
    }
}

impl Namespace<'_> {
    async fn jobs(&self) -> Result<Vec<BatchJob>> {
        Ok(self.test.api::<BatchJob>().list(&ListParams::default()).await?.items)
    }

    async fn queues(&self) -> Result<Vec<BatchQueue>> {
        Ok(self.test.api::<BatchQueue>().list(&ListParams::default()).await?.items)
    }

    async fn profiles(&self) -> Result<Vec<BatchTaskProfile>> {
        Ok(self.test.api::<BatchTaskProfile>().list(&ListParams::default()).await?.items)
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

    fn resources(&self) -> [&'static str; 2] {
        ["batchjobs", "pods"]
    }

    async fn observed(&self) -> Result<bool> {
        let jobs = self.jobs().await?;
        let seen = jobs.iter().all(|job| {
            job.status.as_ref().map(|status| status.observed_generation) == job.metadata.generation
        });
        // The status of a queue follows what happens in it within seconds.
        let active = self.test.pods.now().all().filter(|life| life.is_active()).count();
        let open = jobs.iter().filter(|job| !jobs::is_finished(job)).count();
        let (mut running, mut admitted, mut told) = (0, 0, true);
        let queues = self.queues().await?;
        for queue in &queues {
            let status = queue.status.clone().unwrap_or_default();
            running += status.running_pods as usize;
            admitted += (status.admitted_jobs + status.pending_jobs) as usize;
            told &= Some(status.observed_generation) == queue.metadata.generation;
            // A manager that begins may tell of a queue before it has counted what the nodes have.
            let is_static = queue.spec.capacity_source.type_ == CapacityType::Static;
            told &= is_static || status.capacity.contains_key("cpu");
        }
        Ok(seen && (queues.is_empty() || told && (running, admitted) == (active, open)))
    }

    async fn facts(&self) -> Result<Facts> {
        let mut facts = Facts::default();
        for job in self.jobs().await? {
            let path = format!("job {}", job.name_any());
            facts.add_document(&path, &serde_json::to_value(&job.spec)?, &[]);
            let mut status = job.status.clone().unwrap_or_default();
            // A manager that ends between a claim and its telling takes the reason with it.
            status.conditions.retain(|condition| condition.type_ != DegradedReason::CONDITION);
            facts.add_document(&path, &serde_json::to_value(&status)?, &BY_NATURE);
            facts.add(format!("{path}.finalizers"), job.finalizers().join(","));
        }
        for queue in self.queues().await? {
            let path = format!("queue {}", queue.name_any());
            // A sink has another port each time.
            facts.add_document(&path, &serde_json::to_value(&queue.spec)?, &["url"]);
            // What it says of itself is held against its figures.
            facts.add_document(&path, &serde_json::to_value(&queue.status)?, &["conditions"]);
        }
        for profile in self.profiles().await? {
            let path = format!("profile {}", profile.name_any());
            // The weights of samples fade with time, from the first of them on.
            facts.add_document(&path, &serde_json::to_value(&profile.status)?, &["histogram"]);
        }
        if let Some(sink) = &self.sink {
            // The line of a job may have come more than once.
            facts.add("jobs of which the sink has a line", BTreeSet::from_iter(sink.taken()).len());
        }
        let groups = self.test.api::<PodGroup>().list(&ListParams::default()).await?;
        facts.add("pod groups", groups.items.len());
        // Of each name, how often it was made and how each of them ended.
        let mut lives: BTreeMap<String, Vec<String>> = BTreeMap::new();
        let pods = self.test.pods.now();
        for life in pods.of(JOB).into_iter().chain(pods.of(OTHER)) {
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

    async fn wrong(&self, crashes: usize) -> Result<Vec<String>> {
        let mut wrong = self.test.jobs.now().violations().to_vec();
        {
            let pods = self.test.pods.now();
            wrong.extend_from_slice(pods.violations());
            ensure!(pods.gaps() == 0, "the oracle has missed events");
            let most = pods.most_active(JOB);
            if most > self.scenario.most() {
                wrong.push(format!("{most} pods at a time, {} may be", self.scenario.most()));
            }
        }
        for job in self.jobs().await? {
            let status = job.status.clone().unwrap_or_default();
            let pods = self.test.pods.now();
            let own = pods
                .of(&job.name_any())
                .into_iter()
                .filter(|life| Some(&life.job_uid) == job.metadata.uid.as_ref());
            let (mut active, mut succeeded, mut failed, mut disrupted) = (0, 0, 0, 0);
            for life in own {
                active += u32::from(life.is_active());
                // One that is deleted or evicted is no failure.
                let is_disturbed = match &life.ended {
                    Some((at, end)) => {
                        let by_itself = !life.disrupted && life.deleting.is_none_or(|deleted| deleted > *at);
                        succeeded += u32::from(end.succeeded);
                        failed += u32::from(by_itself && !end.succeeded);
                        !by_itself && !end.succeeded
                    }
                    None => life.gone.is_some(),
                };
                disrupted += u32::from(is_disturbed && life.node.is_some());
            }
            let is_degraded = |condition: &&Condition| {
                condition.type_ == DegradedReason::CONDITION && condition.status == ConditionStatus::True
            };
            if let Some(degraded) = status.conditions.iter().find(is_degraded) {
                wrong.push(format!("it has all that it may have, and says {degraded:?}"));
            }
            let said = (status.active, status.succeeded, status.failed);
            if said != (active, succeeded, failed) {
                wrong.push(format!(
                    "the status has (active, succeeded, failed) = {said:?}, there were {:?}",
                    (active, succeeded, failed)
                ));
            }
            // A manager that begins does not know which of those that are there have been counted, nor which are
            // gone uncounted: each crash may cost or repeat each of them.
            let unsure = u64::from(disrupted) * u64::try_from(crashes)?;
            if u64::from(status.disrupted.abs_diff(disrupted)) > unsure {
                let said = status.disrupted;
                wrong.push(format!(
                    "the status has {said} disrupted pods, there were {disrupted} and {crashes} crashes"
                ));
            }
        }
        for queue in self.queues().await? {
            if !queues::says(&queue, &ReadyReason::Admitting) {
                wrong.push(format!("queue {} is open and says {:?}", queue.name_any(), queue.status));
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
        // The namespace itself stays: its end would cost the API server as much as all of the run.
        let test = &self.test;
        test.api::<BatchJob>().delete_collection(&DeleteParams::default(), &ListParams::default()).await?;
        test.api::<BatchQueue>().delete_collection(&DeleteParams::default(), &ListParams::default()).await?;
        plays::remove_stranger(test).await?;
        // A scenario that has failed may have left its own finalizer.
        for pod in self.pods().await?.iter().filter(|pod| pod.finalizers().iter().any(|held| held == HOLD)) {
            test.api::<Pod>().patch(&pod.name_any(), &PatchParams::default(), &plays::release()).await?;
        }
        let deadline = Instant::now() + PATIENCE;
        while !self.jobs().await?.is_empty()
            || !self.pods().await?.is_empty()
            || !self.queues().await?.is_empty()
            || !self.profiles().await?.is_empty()
        {
            ensure!(Instant::now() < deadline, "jobs, queues, profiles or pods of {} stay", test.namespace);
            // A job that is going may have had one made once more.
            let all = ListParams::default();
            test.api::<BatchTaskProfile>().delete_collection(&DeleteParams::default(), &all).await?;
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        if matches!(self.scenario, Batch::Shown) {
            let own = ListParams::default().labels(&format!("{POOL}={}", shown::NODES));
            let nodes: Api<Node> = Api::all(test.cluster.client("springtide-test")?);
            nodes.delete_collection(&DeleteParams::default(), &own).await?;
        }
        Ok(())
    }
}
