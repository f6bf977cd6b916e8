//! How a running manager comes back after a fault of what it stands on: how long it takes, and what it
//! writes and lists on the way. Tests say that it comes back, benches report how fast.
//!
//! The manager runs through a [`FaultProxy`], without election, and is at rest when a function begins.
//! Whether it works is seen by a new job: its pod is created.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Result, bail, ensure};
use k8s_openapi::api::core::v1::{ConfigMap, Pod};
use kube::api::{Api, ObjectMeta, PostParams};
use nix::sys::signal::Signal;
use springtide_crds::batch_job::{BatchJob, BatchJobSpec};

use crate::batch::{Task, Testbed};
use crate::fault_proxy::{Class, EventFault, FaultProxy, Handshake, Protocols, When};
use crate::local_cluster::LocalCluster;
use crate::manager::{Manager, USER_AGENT};
use crate::oracle::feed::PATIENCE;
use crate::write_count::{Mark, Request, Verb, WriteCount};

/// First letters of the jobs by which it is seen that a manager works.
const PROBE: &str = "probe";
/// Length of their names.
const PROBE_NAME: usize = PROBE.len() + 1 + 8;
/// Writes for one of them: its chain, with a record of its start where a server that gets up makes it long, and a
/// write that is refused or whose answer is lost.
const PROBE_WRITES: usize = 6 + 1;
/// Watches of one kind: one that goes on, finds that what it has missed is gone and lists anew, and as many for one
/// that ends by its age meanwhile or begins with a probe.
const WATCHES: usize = 4;
/// In which a storm of writes would have begun.
const AFTERMATH: Duration = Duration::from_secs(3);
/// Between two looks at what changes all the time.
const PAUSE: Duration = Duration::from_millis(20);
/// Objects that are written while nobody watches, so that every kind's version is far behind.
const UNSEEN_WRITES: usize = 20;

/// Jobs that have finished, and those with a pod that runs.
const FINISHED: usize = 20;
const RUNNING: usize = 5;
/// Longer than a record of a start is held back.
const REST: Duration = Duration::from_secs(6);

/// How a manager came back.
#[derive(Debug)]
pub struct Recovery {
    /// From the fault, or from the moment at which the server was ready again, until it worked.
    pub took: Duration,
    /// Its writes meanwhile and shortly after, other than for the new job: at rest none are due.
    pub writes: WriteCount,
    /// Those for the new job, and for those of earlier faults.
    pub probe_writes: WriteCount,
    /// Its lists, streaming ones too: a kind of which it has missed nothing needs none.
    pub lists: WriteCount,
    /// Its watches.
    pub watches: WriteCount,
}

/// A cluster with a manager that has work behind it and now rests, and the namespace of that work.
///
/// # Errors
/// Something does not start, or the work does not get done.
pub async fn at_rest() -> Result<(LocalCluster, FaultProxy, Manager, String)> {
    let cluster = crate::batch::cluster().await?;
    let proxy = FaultProxy::start(&cluster, Protocols::All)?;
    let mut manager =
        Manager::start_with(&cluster, proxy.kubeconfig(), "manager", &["--no-leader-election"]).await?;
    manager.wait_ready().await?;
    let test = Testbed::new(&cluster, "recovery").await?;
    test.submit_many("finished", FINISHED, &BatchJobSpec::new(Task::quick().template())).await?;
    test.submit_many("running", RUNNING, &BatchJobSpec::new(Task::endless().template())).await?;
    for number in 0..FINISHED {
        test.completed(&format!("finished-{number}")).await?;
        test.no_pods(&format!("finished-{number}")).await?;
    }
    for number in 0..RUNNING {
        test.running(&format!("running-{number}"), 1).await?;
    }
    tokio::time::sleep(REST).await;
    let namespace = test.namespace.clone();
    test.verify()?;
    drop(test);
    Ok((cluster, proxy, manager, namespace))
}

/// The manager of a cluster, and the namespace in which it is seen to work.
pub struct Subject<'a> {
    /// The cluster.
    pub cluster: &'a mut LocalCluster,
    /// What the manager runs through.
    pub proxy: &'a FaultProxy,
    /// The namespace.
    pub namespace: String,
}

impl Subject<'_> {
    /// API server and all of its connections go, and it is ready again.
    ///
    /// # Errors
    /// The API server or the manager does not come back.
    pub async fn api_server_restart(&mut self, signal: Signal) -> Result<Recovery> {
        let mark = self.mark()?;
        self.cluster.restart_api_server(signal).await?;
        self.works(Instant::now(), mark).await
    }

    /// etcd goes beneath the API server, and accepts connections again.
    ///
    /// # Errors
    /// etcd or the manager does not come back.
    pub async fn etcd_restart(&mut self, signal: Signal) -> Result<Recovery> {
        let mark = self.mark()?;
        self.cluster.restart_etcd(signal).await?;
        self.works(Instant::now(), mark).await
    }

    /// While the manager has no connection, things change, etcd's history is compacted, and the API server
    /// starts anew with an empty watch cache: no watch can go on from where it was.
    ///
    /// # Errors
    /// A server or the manager does not come back.
    pub async fn compaction(&mut self) -> Result<Recovery> {
        let mark = self.mark()?;
        self.proxy.on_connect(Handshake::Reset);
        self.proxy.reset_connections();
        let maps: Api<ConfigMap> = Api::namespaced(self.cluster.client("springtide-e2e")?, &self.namespace);
        for _ in 0..UNSEEN_WRITES {
            let generate_name = Some("unseen-".to_owned());
            let metadata = ObjectMeta { generate_name, ..ObjectMeta::default() };
            let map = ConfigMap { metadata, ..ConfigMap::default() };
            maps.create(&PostParams::default(), &map).await?;
        }
        self.cluster.compact_etcd().await?;
        self.cluster.restart_api_server(Signal::SIGKILL).await?;
        self.proxy.on_connect(Handshake::Complete);
        self.works(Instant::now(), mark).await
    }

    /// The running watch of pods falls silent, and nothing says so. `took` is the time until the manager
    /// asks for another one.
    ///
    /// # Errors
    /// The manager does not notice.
    pub async fn blackholed_watch(&mut self) -> Result<Recovery> {
        let mark = self.mark()?;
        self.proxy.forget();
        let class = || Class::of([Verb::Watch]).resource("pods").agent(USER_AGENT);
        let began = Instant::now();
        let silence = self.proxy.event_fault(class(), &[], When::Always, EventFault::Silence);
        self.proxy.fired(silence, 1).await?;
        self.proxy.remove(silence);
        let another = class();
        self.proxy
            .until("another watch of pods", |all| {
                all.iter().any(|entry| another.holds(&entry.request)).then_some(())
            })
            .await?;
        let noticed = began.elapsed();
        Ok(Recovery { took: noticed, ..self.works(began, mark).await? })
    }

    /// Every connection of the manager is open, and nobody is behind it any more.
    ///
    /// # Errors
    /// The manager does not come back.
    pub async fn half_open_connections(&mut self) -> Result<Recovery> {
        let mark = self.mark()?;
        self.proxy.freeze_connections();
        self.works(Instant::now(), mark).await
    }

    fn mark(&self) -> Result<Mark> {
        self.cluster.audit_log()?.mark()
    }

    /// Waits until a new job has its pod, and for what may come after.
    async fn works(&self, since: Instant, mark: Mark) -> Result<Recovery> {
        let client = self.cluster.client("springtide-e2e")?;
        let jobs: Api<BatchJob> = Api::namespaced(client.clone(), &self.namespace);
        let pods: Api<Pod> = Api::namespaced(client, &self.namespace);
        let name = format!("{PROBE}-{:08x}", rand::random::<u32>());
        let job = BatchJob::new(&name, BatchJobSpec::new(Task::quick().template()));
        let deadline = since + PATIENCE;
        let mut created = false;
        loop {
            // Every server may still be getting up.
            created = created || jobs.create(&PostParams::default(), &job).await.is_ok();
            if created && pods.get(&format!("{name}-0-0")).await.is_ok() {
                break;
            }
            if Instant::now() >= deadline {
                bail!("no manager has worked within {PATIENCE:?}; the job was created: {created}");
            }
            tokio::time::sleep(PAUSE).await;
        }
        let took = since.elapsed();
        tokio::time::sleep(AFTERMATH).await;
        let own = self.cluster.audit_log()?.since(mark)?.by_agent(USER_AGENT);
        let lists = own.filter(|request| {
            let streaming = request.query.contains("sendInitialEvents=true");
            request.verb == Verb::List || (request.verb == Verb::Watch && streaming)
        });
        let watches = own.of_verb(Verb::Watch);
        let all = own.writes().without_leases();
        let writes = all.filter(|request| !request.name.starts_with(PROBE));
        let probe_writes = all.filter(|request| request.name.starts_with(PROBE));
        Ok(Recovery { took, writes, probe_writes, lists, watches })
    }
}

impl Recovery {
    /// # Errors
    /// It wrote what was not due, or wrote for a job, listed or watched a kind again and again.
    pub fn without_storm(&self) -> Result<()> {
        ensure!(self.writes.is_empty(), "writes that nothing called for:\n{}", self.writes);
        let job = |request: &Request| request.name.chars().take(PROBE_NAME).collect::<String>();
        ensure!(
            most(&self.probe_writes, job) <= PROBE_WRITES,
            "writes for one job, again and again:\n{}",
            self.probe_writes
        );
        // Two objects of a kind may each be watched by name.
        let watched = |request: &Request| {
            (request.group.clone(), request.resource.clone(), request.field_selector().to_owned())
        };
        ensure!(most(&self.lists, watched) <= 1, "lists of one kind, again and again:\n{}", self.lists);
        ensure!(
            most(&self.watches, watched) <= WATCHES,
            "watches of one kind, again and again:\n{}",
            self.watches
        );
        Ok(())
    }
}

/// The most requests that are of one group.
fn most<K: Ord>(count: &WriteCount, group: impl Fn(&Request) -> K) -> usize {
    let mut groups = BTreeMap::<K, usize>::new();
    for request in count.requests() {
        *groups.entry(group(request)).or_default() += 1;
    }
    groups.into_values().max().unwrap_or_default()
}
