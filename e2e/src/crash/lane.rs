//! One control plane on which one case after the other is run.

use std::convert::Infallible;
use std::future::{Future, pending};
use std::path::PathBuf;
use std::pin::Pin;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use futures::future::{MaybeDone, maybe_done};
use k8s_openapi::api::coordination::v1::Lease;
use kube::api::{Api, Patch, PatchParams};
use serde_json::{Value, json};

use super::case::{Case, Recovery};
use super::facts::Facts;
use super::in_process::{InProcess, Panics};
use super::reference::Reference;
use super::running::{Mortal, Running};
use super::strike::{Strike, Struck};
use super::write_id::Course;
use super::writes_made::WritesMade;
use super::{Scenario, World};
use crate::fault_proxy::{Class, Entry, EventFault, FaultProxy, Protocols, When};
use crate::local_cluster::LocalCluster;
use crate::manager::{LEASE_NAME, Manager, lease_holder};
use crate::oracle::feed::PATIENCE;
use crate::write_count::{Mark, Verb, WriteCount};

/// User of the manager that crashes, and of the one that goes on.
const USERS: [&str; 2] = ["crash-first", "crash-second"];
/// Without a write for so long, all has come to rest.
const REST: Duration = Duration::from_secs(2);
/// Between two looks at what changes all the time.
const PAUSE: Duration = Duration::from_millis(50);
/// How often a case is run until its write is at its point, ...
const TRIES: u32 = 5;
/// ... or all of a stage, of which some are: what is under way together is not the same in every run.
const TRIES_PARTLY: u32 = 2;
/// From this one on the manager sees changes late, in turns those of the children and those of the objects.
const LATE_FROM: u32 = 3;
/// By so much: longer than the distance between two statuses of an object.
const LATE_BY: Duration = Duration::from_millis(1500);

/// A cluster with a proxy, for one case at a time: managers act on the whole cluster.
pub struct Lane {
    cluster: LocalCluster,
    proxy: FaultProxy,
    kubeconfigs: [PathBuf; 2],
    /// File of the configuration of all managers.
    configuration: String,
    client: kube::Client,
    panics: Panics,
}

/// What became of a case.
#[derive(Debug, Clone)]
pub struct Verdict {
    /// The case.
    pub case: Case,
    /// Whether the manager crashed, and with how many of the case's writes at their points. It does not where
    /// they do not come, as one record can hold one change or several.
    pub crashed: Option<Struck>,
    /// How often it was run until that was so; every run is judged.
    pub tries: u32,
    /// What the oracles say against it; empty for a good case.
    pub violations: Vec<String>,
    /// Whether it has left something behind, so that no other case may follow on its lane.
    pub spoilt: bool,
    /// How long it took.
    pub took: Duration,
}

/// One run of a case.
struct Tried {
    /// Whether it crashed, and what is wrong.
    judged: Result<(Option<Struck>, Vec<String>)>,
    /// An error where something of it is still there.
    left: Result<()>,
}

/// A run that has come to rest.
pub(super) struct Ended {
    pub(super) facts: Facts,
    pub(super) course: Course,
    pub(super) writes: WritesMade,
    pub(super) wrong: Vec<String>,
}

impl Lane {
    /// A lane on a cluster with the CRDs and without a manager; all that come are configured so.
    ///
    /// # Errors
    /// The proxy does not start, or the configuration cannot be written.
    pub fn new(cluster: LocalCluster, configuration: &Value) -> Result<Self> {
        let file = cluster.folder().join("crash-configuration.yaml");
        std::fs::write(&file, configuration.to_string())
            .with_context(|| format!("write {}", file.display()))?;
        let configuration = file.to_str().context("a path in UTF-8")?.to_owned();
        let proxy = FaultProxy::start(&cluster, Protocols::All)?;
        let [first, second] = USERS.map(|user| proxy.kubeconfig_for(&cluster, user, "system:masters"));
        let client = cluster.client("springtide-crash")?;
        let (kubeconfigs, panics) = ([first?, second?], Panics::default());
        Ok(Self { kubeconfigs, configuration, client, cluster, proxy, panics })
    }

    pub(super) fn cluster(&self) -> &LocalCluster {
        &self.cluster
    }

    /// Panics of its managers.
    pub(super) fn panics(&self) -> usize {
        self.panics.count()
    }

    /// Starts a manager in this process that needs no lease, by the way of the first or the second one.
    pub(super) async fn manager(&self, number: usize) -> Result<InProcess> {
        let args = self.args(&["--no-leader-election"]);
        InProcess::start(&self.kubeconfigs[number], &args, &self.panics).await
    }

    /// Arguments of a manager: these, and where its configuration is.
    fn args<'a>(&'a self, further: &[&'a str]) -> Vec<&'a str> {
        [&["--config", self.configuration.as_str()], further].concat()
    }

    pub(super) fn mark(&self) -> Result<Mark> {
        self.cluster.audit_log()?.mark()
    }

    /// Runs one case, up to five times until the manager crashes where it is to. Once all is at rest, no write
    /// may come for as long as `watched`.
    pub async fn case<S: Scenario>(
        &self,
        scenario: &S,
        reference: &Reference,
        case: &Case,
        watched: Duration,
    ) -> Verdict {
        let began = Instant::now();
        let mut verdict = Verdict {
            case: case.clone(),
            crashed: None,
            tries: 0,
            violations: Vec::new(),
            spoilt: false,
            took: Duration::ZERO,
        };
        loop {
            verdict.tries += 1;
            let try_began = Instant::now();
            let tried = self.try_case(scenario, reference, &verdict, watched).await;
            match tried.judged {
                Ok((crashed, violations)) => {
                    verdict.crashed = crashed.or(verdict.crashed);
                    verdict.violations = violations;
                }
                // What a scenario waits for in vain is as wrong as what an oracle sees.
                Err(error) => verdict.violations = vec![format!("{error:#}")],
            }
            if let Err(error) = tried.left {
                verdict.spoilt = true;
                verdict
                    .violations
                    .push(format!("the lane ends here, as the case has left behind: {error:#}"));
            }
            if !verdict.violations.is_empty() {
                verdict.violations.push(self.course(try_began));
            }
            let tries_max = match verdict.crashed {
                Some(Struck::Whole) => break,
                Some(Struck::Partly) => TRIES_PARTLY,
                None => TRIES,
            };
            if !verdict.violations.is_empty() || verdict.tries >= tries_max {
                break;
            }
        }
        Verdict { took: began.elapsed(), ..verdict }
    }

    /// The writes of all managers with the seconds at which they came, a line each.
    fn course(&self, began: Instant) -> String {
        self.proxy.journal(|all| {
            let writes = all.iter().filter(|entry| entry.request.is_write());
            let lines = writes.map(|entry| {
                let Entry { at, request, upstream, stage, .. } = entry;
                let seconds = at.duration_since(began).as_secs_f64();
                let (verb, resource, name) = (request.verb.name(), &request.resource, &request.name);
                let (user, says) = (&request.user, &request.says);
                format!("{seconds:7.3} {user} {verb} {resource} {name} {says}: {upstream} {stage:?}")
            });
            lines.collect::<Vec<_>>().join("\n")
        })
    }

    /// Runs a case once, and leaves nothing of it behind.
    async fn try_case<S: Scenario>(
        &self,
        scenario: &S,
        reference: &Reference,
        verdict: &Verdict,
        watched: Duration,
    ) -> Tried {
        self.begin();
        let mut running = Running::default();
        let world = match scenario.open(&self.cluster).await {
            Ok(world) => world,
            Err(error) => return Tried { judged: Err(error), left: Ok(()) },
        };
        let panics_before = self.panics();
        let mut judged = self.disturbed(scenario, &world, reference, verdict, watched, &mut running).await;
        self.proxy.clear();
        if judged.is_ok() {
            // Who has come to the end has what is behind it as well.
            if let Err(error) = world.clear().await {
                judged = Err(error);
            }
        }
        let mut left = running.crash(&self.panics).await;
        let panicked = self.panics() - panics_before;
        if panicked > 0 {
            let told = format!("{panicked} panics");
            judged = match judged {
                Ok((crashed, violations)) => Ok((crashed, violations.into_iter().chain([told]).collect())),
                Err(error) => Err(error.context(told)),
            };
        }
        if judged.is_err() && left.is_ok() {
            left = self.empty(&world).await;
        }
        Tried { judged, left }
    }

    /// Empties what a case has left, whose own managers may be what is wrong.
    async fn empty<W: World>(&self, world: &W) -> Result<()> {
        let manager = self.manager(1).await?;
        let cleared = world.clear().await;
        manager.crash().await?;
        cleared
    }

    async fn disturbed<S: Scenario>(
        &self,
        scenario: &S,
        world: &S::World<'_>,
        reference: &Reference,
        Verdict { case, tries, .. }: &Verdict,
        watched: Duration,
        running: &mut Running,
    ) -> Result<(Option<Struck>, Vec<String>)> {
        let mark = self.mark()?;
        let namespace = world.namespace();
        if *tries >= LATE_FROM {
            let [objects, children] = world.resources();
            let late = if (tries - LATE_FROM).is_multiple_of(2) { children } else { objects };
            let watches = Class::of([Verb::Watch]).resource(late).user(USERS[0]);
            self.proxy.event_fault(watches, &[], When::Always, EventFault::Delay(LATE_BY));
        }
        self.managers(namespace, case.recovery, running).await?;
        let class = |user| Class::writes().except("leases").user(user).namespace(namespace);
        let mut strike = Some(Strike::of(&self.proxy, &class(USERS[0]), case));
        let mut crashes = Vec::new();

        let play = maybe_done(scenario.play(world));
        tokio::pin!(play);
        let mut since = Instant::now();
        loop {
            let to_the_end = async {
                play.as_mut().await;
                // What failed does not come to rest.
                if play.as_mut().output_mut().is_some_and(|played| played.is_ok()) {
                    self.rest(world, since).await?;
                }
                anyhow::Ok(())
            };
            let struck = match &strike {
                None => {
                    to_the_end.await?;
                    None
                }
                Some(strike) => tokio::select! {
                    // A crash at the last write comes before the rest after it.
                    biased;
                    struck = strike.struck() => Some(struck),
                    ended = to_the_end => {
                        ended?;
                        None
                    }
                },
            };
            let Some(struck) = struck else { break };
            crashes.push(struck);
            let again = case.recovery == Recovery::Twice && crashes.len() == 1;
            strike = again.then(|| Strike::at_first(&self.proxy, &class(USERS[1])));
            // Whoever goes on has the rest of the play, and leads before it is awaited.
            let replaced = async {
                if let Some(manager) = running.acting.take() {
                    manager.crash(&self.panics).await?;
                }
                if crashes.len() > 1 {
                    // It met the same way as the one that goes on.
                    self.proxy.clear();
                }
                self.next(namespace, running).await
            };
            beside(play.as_mut(), replaced).await.context("the crash")?;
            since = Instant::now();
        }
        play.as_mut().take_output().context("the scenario has no end")??;

        let ended = self.judge(world, mark, watched, crashes.len()).await?;
        let mut violations = ended.wrong;
        violations.extend(reference.facts.differences(&ended.facts).into_values());
        violations.extend(ended.writes.excess(&reference.writes_made, crashes.len()));
        Ok((crashes.first().copied(), violations))
    }

    /// Starts the manager that is to crash, and one that waits where the recovery is by one.
    async fn managers(&self, namespace: &str, recovery: Recovery, running: &mut Running) -> Result<()> {
        let election = self.args(&["--lease-namespace", namespace]);
        match recovery {
            Recovery::Restart | Recovery::Twice => {
                running.acting = Some(Mortal::InProcess(self.manager(0).await?));
            }
            Recovery::Failover => {
                let [first, second] = &self.kubeconfigs;
                let first = InProcess::start(first, &election, &self.panics).await?;
                running.acting = Some(Mortal::InProcess(first));
                self.wait_for_lease(namespace, None).await?;
                running.standby = Some(InProcess::start(second, &election, &self.panics).await?);
            }
            Recovery::Sigkill => {
                // Its port is read from its log, so each has one of its own.
                let name = format!("crash-{namespace}");
                let (way, args) = (&self.kubeconfigs[0], self.args(&["--no-leader-election"]));
                let mut first = Manager::start_with(&self.cluster, way, &name, &args).await?;
                let ready = first.wait_ready().await;
                running.acting = Some(Mortal::Process(first));
                ready?;
            }
        }
        Ok(())
    }

    /// Has the manager act that goes on; returns once it leads.
    async fn next(&self, namespace: &str, running: &mut Running) -> Result<()> {
        if running.standby.is_some() {
            let before = self.holder(namespace).await?;
            self.release_lease(namespace).await?;
            self.wait_for_lease(namespace, before.as_deref()).await?;
        }
        let next = match running.standby.take() {
            Some(standby) => standby,
            None => self.manager(1).await?,
        };
        running.acting = Some(Mortal::InProcess(next));
        Ok(())
    }

    pub(super) fn begin(&self) {
        self.proxy.clear();
        self.proxy.forget();
    }

    /// Waits for the rest of a run whose managers have led since then.
    pub(super) async fn rest<W: World>(&self, world: &W, since: Instant) -> Result<()> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let last = self.proxy.journal(|all| {
                let writes = all.iter().filter(|entry| is_own(entry, world.namespace()));
                // One that is under way is no rest.
                writes.map(|entry| entry.ended.unwrap_or_else(Instant::now)).max()
            });
            let quiet = last.into_iter().fold(since, Instant::max).elapsed();
            match REST.checked_sub(quiet).filter(|left| !left.is_zero()) {
                Some(left) => tokio::time::sleep(left).await,
                None if world.observed().await? => return Ok(()),
                None => tokio::time::sleep(PAUSE).await,
            }
            ensure!(Instant::now() < deadline, "the managers do not come to rest");
        }
    }

    /// Judges a run that has come to rest after so many crashes.
    pub(super) async fn judge<W: World>(
        &self,
        world: &W,
        mark: Mark,
        watched: Duration,
        crashes: usize,
    ) -> Result<Ended> {
        let own = |count: WriteCount| {
            count
                .in_namespace(world.namespace())
                .writes()
                .without_leases()
                .filter(|request| USERS.contains(&request.user.as_str()))
        };
        let log = self.cluster.audit_log()?;
        let writes = own(log.since(mark)?);
        tokio::time::sleep(watched).await;
        let mut wrong = world.wrong(crashes).await?;
        let facts = world.facts().await?;
        let all = own(log.since(mark)?);
        let later = &all.requests()[writes.len()..];
        if !later.is_empty() {
            wrong.push(format!("{} writes after all had come to rest: {later:?}", later.len()));
        }
        let (course, writes) = self.proxy.journal(|all| {
            let own: Vec<_> = all.iter().filter(|entry| is_own(entry, world.namespace())).collect();
            (Course::of(&own), WritesMade::of(&writes, &own))
        });
        Ok(Ended { facts, course, writes, wrong })
    }

    fn leases(&self, namespace: &str) -> Api<Lease> {
        Api::namespaced(self.client.clone(), namespace)
    }

    /// Who holds the lease.
    async fn holder(&self, namespace: &str) -> Result<Option<String>> {
        lease_holder(self.client.clone(), namespace).await
    }

    /// Waits until somebody else than `before` holds the lease.
    async fn wait_for_lease(&self, namespace: &str, before: Option<&str>) -> Result<()> {
        let deadline = Instant::now() + PATIENCE;
        while Instant::now() < deadline {
            let holder = self.holder(namespace).await?;
            if holder.is_some() && holder.as_deref() != before {
                return Ok(());
            }
            tokio::time::sleep(PAUSE).await;
        }
        bail!("a manager has not taken the lease")
    }

    /// Ends the lease of a manager that is gone for certain, as its expiry would half a minute later: that
    /// the standby waits for it is another test's.
    async fn release_lease(&self, namespace: &str) -> Result<()> {
        let released = Patch::Merge(json!({"spec": {"holderIdentity": "", "leaseDurationSeconds": 1}}));
        self.leases(namespace).patch(LEASE_NAME, &PatchParams::default(), &released).await?;
        Ok(())
    }
}

/// Awaits `other` while `play` goes on.
async fn beside<P: Future, T>(play: Pin<&mut MaybeDone<P>>, other: impl Future<Output = T>) -> T {
    let never = async {
        play.await;
        pending::<Infallible>().await
    };
    tokio::select! {
        done = other => done,
        never = never => match never {},
    }
}

/// Whether it is a write of a manager in the namespace.
fn is_own(entry: &Entry, namespace: &str) -> bool {
    let request = &entry.request;
    request.is_write()
        && request.namespace == namespace
        && request.resource != "leases"
        && USERS.contains(&request.user.as_str())
}
