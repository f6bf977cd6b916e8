//! A namespace of one test, with its oracles and the hands of a user and of a kubelet.

use anyhow::{Context, Result, ensure};
use futures::{StreamExt, TryStreamExt, stream};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use kube::api::{Api, DeleteParams, Patch, PatchParams, PostParams};
use serde_json::{Value, json};
use springtide_crds::batch_job::{BatchJob, BatchJobSpec, CompleteReason, FailedReason};
use springtide_crds::reason::Reason;

use crate::local_cluster::LocalCluster;
use crate::oracle::jobs::{self, History, JobFeed};
use crate::oracle::pods::{Life, PodFeed};
use crate::write_count::{Mark, WriteCount};

/// User agent of a test's own requests.
const USER_AGENT: &str = "springtide-test";
/// Requests in flight when many objects are made.
const IN_FLIGHT: usize = 32;

/// A namespace of its own, watched from before the first job.
pub struct Testbed<'a> {
    /// The cluster.
    pub cluster: &'a LocalCluster,
    /// The namespace.
    pub namespace: String,
    /// What was seen of its pods.
    pub pods: PodFeed,
    /// What was seen of its jobs.
    pub jobs: JobFeed,
    client: kube::Client,
    mark: Mark,
}

impl<'a> Testbed<'a> {
    /// Makes a namespace `<prefix>-<random>` and starts its oracles.
    ///
    /// # Errors
    /// The API server refuses something.
    pub async fn new(cluster: &'a LocalCluster, prefix: &str) -> Result<Self> {
        let mark = cluster.audit_log()?.mark()?;
        let namespace = cluster.create_namespace(prefix).await?;
        Ok(Self { mark, ..Self::of(cluster, &namespace).await? })
    }

    /// A namespace that is there already, with oracles that see it from now on.
    ///
    /// # Errors
    /// The API server refuses something.
    pub async fn of(cluster: &'a LocalCluster, namespace: &str) -> Result<Self> {
        let client = cluster.client(USER_AGENT)?;
        Ok(Self {
            cluster,
            namespace: namespace.to_owned(),
            pods: PodFeed::start(Api::namespaced(client.clone(), namespace)).await?,
            jobs: JobFeed::start(Api::namespaced(client.clone(), namespace)).await?,
            client,
            mark: cluster.audit_log()?.mark()?,
        })
    }

    /// An API of the namespace, for the test's own hands.
    #[must_use]
    pub fn api<K>(&self) -> Api<K>
    where
        K: kube::Resource<Scope = k8s_openapi::NamespaceResourceScope, DynamicType = ()>,
    {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    /// Creates a job.
    ///
    /// # Errors
    /// It is refused.
    pub async fn submit(&self, name: &str, spec: BatchJobSpec) -> Result<BatchJob> {
        let created = self.api().create(&PostParams::default(), &BatchJob::new(name, spec)).await;
        created.with_context(|| format!("create the job {name}"))
    }

    /// Creates jobs `<prefix>-0` and so on, many at a time.
    ///
    /// # Errors
    /// One is refused.
    pub async fn submit_many(&self, prefix: &str, count: usize, spec: &BatchJobSpec) -> Result<()> {
        stream::iter(0..count)
            .map(|number| async move {
                self.submit(&format!("{prefix}-{number}"), spec.clone()).await.map(drop)
            })
            .buffer_unordered(IN_FLIGHT)
            .try_collect()
            .await
    }

    /// Merges `change` into the job.
    ///
    /// # Errors
    /// It is refused.
    pub async fn edit(&self, name: &str, change: Value) -> Result<BatchJob> {
        let edited = self.api().patch(name, &PatchParams::default(), &Patch::Merge(change)).await;
        edited.with_context(|| format!("edit the job {name}"))
    }

    /// Deletes a job.
    ///
    /// # Errors
    /// It is refused.
    pub async fn delete(&self, name: &str) -> Result<()> {
        self.api::<BatchJob>().delete(name, &DeleteParams::default()).await?;
        Ok(())
    }

    /// Waits until a job is as `check` wants it.
    ///
    /// # Errors
    /// It does not become so.
    pub async fn job(&self, name: &str, what: &str, check: impl Fn(&BatchJob) -> bool) -> Result<BatchJob> {
        let what = format!("{name}: {what}");
        self.jobs.until(&what, |jobs| jobs.get(name).filter(|job| check(job)).cloned()).await
    }

    /// Waits until a job has a condition with this reason.
    ///
    /// # Errors
    /// It does not get it.
    pub async fn reason<R: Reason>(&self, name: &str, reason: R) -> Result<BatchJob> {
        let what = format!("{} {}", R::CONDITION, reason.as_str());
        self.job(name, &what, |job| jobs::has(job, &reason)).await
    }

    /// Waits for the end of a job, which must be Complete.
    ///
    /// # Errors
    /// It fails or does not end.
    pub async fn completed(&self, name: &str) -> Result<BatchJob> {
        let job = self.job(name, "its end", jobs::is_finished).await?;
        ensure!(jobs::has(&job, &CompleteReason::Completed), "{name} failed: {:?}", job.status);
        Ok(job)
    }

    /// Waits for the end of a job, which must have failed for this reason.
    ///
    /// # Errors
    /// It completes, fails for another reason, or does not end.
    pub async fn failed(&self, name: &str, reason: FailedReason) -> Result<BatchJob> {
        let job = self.job(name, "its end", jobs::is_finished).await?;
        ensure!(
            jobs::has(&job, &reason) && jobs::has(&job, &CompleteReason::Failed(reason)),
            "{name} did not end with {}: {:?}",
            reason.as_str(),
            job.status
        );
        Ok(job)
    }

    /// Waits until a job that goes soon after its end has ended, and gives what was last seen of it, gone or not.
    ///
    /// # Errors
    /// It does not end.
    pub async fn ended(&self, name: &str) -> Result<BatchJob> {
        let end = |history: &History| jobs::is_finished(&history.job).then(|| history.job.clone());
        self.jobs.until(&format!("{name}: its end"), |jobs| jobs.history(name).and_then(end)).await
    }

    /// Waits until a job is gone, and gives what was seen of it.
    ///
    /// # Errors
    /// It stays.
    pub async fn gone(&self, name: &str) -> Result<History> {
        self.jobs
            .until(&format!("{name} is gone"), |jobs| {
                jobs.history(name).filter(|history| history.gone).cloned()
            })
            .await
    }

    /// Waits until exactly `count` pods of a job run, and gives them by index.
    ///
    /// # Errors
    /// It does not come to that.
    pub async fn running(&self, job: &str, count: usize) -> Result<Vec<Life>> {
        let what = format!("{count} running pods of {job}");
        self.pods
            .until(&what, |pods| {
                let running = pods.of(job).into_iter().filter(|life| life.is_running());
                let mut running: Vec<_> = running.cloned().collect();
                running.sort_by_key(|life| life.index);
                (running.len() == count).then_some(running)
            })
            .await
    }

    /// Waits until pod `name` runs.
    ///
    /// # Errors
    /// It does not come to that.
    pub async fn running_pod(&self, name: &str) -> Result<Life> {
        let running = |life: &&Life| life.name == name && life.is_running();
        self.pods.until(&format!("pod {name} runs"), |pods| pods.all().find(running).cloned()).await
    }

    /// Waits until another pod of the name of this one runs.
    ///
    /// # Errors
    /// It does not come to that.
    pub async fn running_again(&self, before: &Life) -> Result<Life> {
        let another = |life: &&Life| life.name == before.name && life.uid != before.uid && life.is_running();
        self.pods
            .until(&format!("another pod {} runs", before.name), |pods| pods.all().find(another).cloned())
            .await
    }

    /// Waits until no object of a pod of the job is left.
    ///
    /// # Errors
    /// One stays.
    pub async fn no_pods(&self, job: &str) -> Result<()> {
        let gone = |life: &Life| life.gone.is_some();
        self.pods
            .until(&format!("the end of all pods of {job}"), |pods| {
                pods.of(job).into_iter().all(gone).then_some(())
            })
            .await
    }

    /// Ends a pod that would run for ever, as its kubelet would report it, and waits until the oracle has
    /// seen that: what is asked of it next is about the others.
    ///
    /// # Errors
    /// The API server refuses it.
    pub async fn end_pod(&self, pod: &Life, exit_code: i32) -> Result<()> {
        self.end_pod_with(pod, exit_code, json!({})).await
    }

    /// As [`Testbed::end_pod`], with further fields in the status.
    ///
    /// # Errors
    /// As [`Testbed::end_pod`].
    pub async fn end_pod_with(&self, pod: &Life, exit_code: i32, further: Value) -> Result<()> {
        let now = Timestamp::now();
        let mut status = json!({
            "phase": if exit_code == 0 { "Succeeded" } else { "Failed" },
            "containerStatuses": [{
                "name": "main", "image": "example.com/task:1", "imageID": "", "ready": false, "restartCount": 0,
                "state": {"terminated": {
                    "exitCode": exit_code,
                    "reason": if exit_code == 0 { "Completed" } else { "Error" },
                    "startedAt": now, "finishedAt": now,
                }},
            }],
        });
        if let (Some(status), Value::Object(further)) = (status.as_object_mut(), further) {
            status.extend(further);
        }
        // By UID, so that a pod of the same name is safe.
        let patch = json!({"metadata": {"uid": pod.uid}, "status": status});
        self.api::<Pod>()
            .patch_status(&pod.name, &PatchParams::default(), &Patch::Strategic(patch))
            .await
            .with_context(|| format!("end the pod {}", pod.name))?;
        let over = |life: &Life| life.uid == pod.uid && !life.is_active();
        self.pods
            .until(&format!("the end of pod {}", pod.name), |pods| pods.all().any(over).then_some(()))
            .await
    }

    /// Removes a pod as `kubectl delete --force --grace-period=0` does.
    ///
    /// # Errors
    /// The API server refuses it.
    pub async fn force_delete(&self, pod: &Life) -> Result<()> {
        let params = DeleteParams::default().grace_period(0);
        self.api::<Pod>().delete(&pod.name, &params).await?;
        Ok(())
    }

    /// All requests on objects of the namespace since it was made.
    ///
    /// # Errors
    /// The audit log cannot be read.
    pub fn requests(&self) -> Result<WriteCount> {
        Ok(self.cluster.audit_log()?.since(self.mark)?.in_namespace(&self.namespace))
    }

    /// Runs kubectl in the namespace and gives what it prints.
    ///
    /// # Errors
    /// It fails.
    pub async fn kubectl(&self, args: &[&str]) -> Result<String> {
        self.cluster.kubectl_in(&self.namespace, args).await
    }

    /// What must hold at the end of every test.
    ///
    /// # Errors
    /// An oracle has seen something that may never be.
    pub fn verify(&self) -> Result<()> {
        let mut wrong = self.jobs.now().violations().to_vec();
        wrong.extend_from_slice(self.pods.now().violations());
        ensure!(wrong.is_empty(), "seen in {}:\n{}", self.namespace, wrong.join("\n"));
        Ok(())
    }

    /// Names of the jobs that the API server has now.
    ///
    /// # Errors
    /// It does not answer.
    pub async fn listed(&self) -> Result<Vec<String>> {
        let listed = self.api::<BatchJob>().list(&kube::api::ListParams::default()).await?;
        Ok(listed.items.iter().map(ResourceExt::name_any).collect())
    }
}
