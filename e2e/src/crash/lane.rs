//! One control plane on which one case after the other is run.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use k8s_openapi::api::coordination::v1::Lease;
use kube::api::{Api, Patch, PatchParams};
use serde_json::json;

use super::case::{Case, Point, Recovery};
use super::facts::Facts;
use super::in_process::{InProcess, panics};
use super::{Scenario, World};
use crate::fault_proxy::{At, Class, Entry, Fault, FaultProxy, Protocols, Stage, When};
use crate::local_cluster::LocalCluster;
use crate::manager::{LEASE_NAME, Manager};
use crate::oracle::feed::PATIENCE;
use crate::write_count::{Mark, WriteCount};

/// User of the manager that crashes, and of the one that goes on.
const USERS: [&str; 2] = ["crash-first", "crash-second"];
/// Writes that a crash may cost beyond those of a run without one.
const WRITES_PER_CRASH: usize = 3;
/// Without a write for so long, all has come to rest.
const REST: Duration = Duration::from_secs(2);
/// Between two looks at what changes all the time.
const PAUSE: Duration = Duration::from_millis(50);

/// A cluster with a proxy, for one case at a time: managers act on the whole cluster.
pub struct Lane {
    cluster: LocalCluster,
    proxy: FaultProxy,
    kubeconfigs: [PathBuf; 2],
}

/// What a scenario comes to without a crash.
#[derive(Debug, Clone)]
pub struct Reference {
    /// Writes of the manager in the namespace, as `verb resource name`.
    pub writes: Vec<String>,
    /// Writes that were under way at the same time: number of the first one, from 1, and how many.
    pub stages: Vec<(u64, u32)>,
    facts: Facts,
    /// Paths at which two runs without a crash differ.
    masked: BTreeSet<String>,
    most_writes: usize,
}

/// What became of a case.
#[derive(Debug, Clone)]
pub struct Verdict {
    /// The case.
    pub case: Case,
    /// Whether the manager came as far as the write. Their number varies by a few, as one record can hold
    /// one change or several.
    pub crashed: bool,
    /// What the oracles say against it; empty for a good case.
    pub violations: Vec<String>,
    /// How long it took.
    pub took: Duration,
}

/// The manager that is to crash.
enum First {
    InProcess(InProcess),
    Process(Manager),
}

impl First {
    async fn crash(self) -> Result<()> {
        match self {
            Self::InProcess(manager) => manager.crash().await,
            Self::Process(manager) => manager.kill().map(drop),
        }
    }
}

/// A run that has come to rest.
struct Ended {
    facts: Facts,
    stages: Vec<(u64, u32)>,
    writes: WriteCount,
    wrong: Vec<String>,
}

impl Lane {
    /// A lane on a cluster with the CRDs and without a manager.
    ///
    /// # Errors
    /// The proxy does not start.
    pub fn new(cluster: LocalCluster) -> Result<Self> {
        let proxy = FaultProxy::start(&cluster, Protocols::All)?;
        let [first, second] = USERS.map(|user| proxy.kubeconfig_for(&cluster, user, "system:masters"));
        Ok(Self { kubeconfigs: [first?, second?], cluster, proxy })
    }

    /// Plays a scenario without a crash: twice where `twice`, and what differs then is masked.
    ///
    /// # Errors
    /// It does not come to its end, or the oracles say something against it.
    pub async fn reference<S: Scenario>(&self, scenario: &S, twice: bool) -> Result<Reference> {
        let first = self.undisturbed(scenario).await?;
        let writes = first.writes.requests().iter();
        let mut reference = Reference {
            writes: writes
                .map(|write| format!("{} {} {}", write.verb.name(), write.resource, write.name))
                .collect(),
            stages: first.stages,
            facts: first.facts,
            masked: BTreeSet::new(),
            most_writes: first.writes.successful().len(),
        };
        if twice {
            let second = self.undisturbed(scenario).await?;
            reference.masked = reference.facts.differences(&second.facts).into_keys().collect();
            reference.most_writes = reference.most_writes.max(second.writes.successful().len());
        }
        Ok(reference)
    }

    async fn undisturbed<S: Scenario>(&self, scenario: &S) -> Result<Ended> {
        self.begin();
        let before = panics();
        let mark = self.cluster.audit_log()?.mark()?;
        let world = scenario.open(&self.cluster).await?;
        let manager = InProcess::start(&self.kubeconfigs[0], &["--no-leader-election"]).await?;
        self.whole(scenario, &world).await?;
        let ended = self.judge(&world, mark, before).await?;
        world.clear().await?;
        manager.crash().await?;
        ensure!(ended.wrong.is_empty(), "{} without a crash:\n{}", scenario.name(), ended.wrong.join("\n"));
        Ok(ended)
    }

    /// Runs one case.
    pub async fn case<S: Scenario>(&self, scenario: &S, reference: &Reference, case: &Case) -> Verdict {
        let began = Instant::now();
        let (crashed, mut violations) = match self.try_case(scenario, reference, case).await {
            Ok(verdict) => verdict,
            // What a scenario waits for in vain is as wrong as what an oracle sees.
            Err(error) => (true, vec![format!("{error:#}")]),
        };
        if !violations.is_empty() {
            violations.push(self.course(began));
        }
        Verdict { case: case.clone(), crashed, violations, took: began.elapsed() }
    }

    /// The writes of all managers with the seconds at which they came, a line each.
    fn course(&self, began: Instant) -> String {
        self.proxy.journal(|all| {
            let writes = all.iter().filter(|entry| entry.request.is_write());
            let lines = writes.map(|entry| {
                let Entry { at, request, upstream, stage, .. } = entry;
                let seconds = at.duration_since(began).as_secs_f64();
                let (verb, resource, name) = (request.verb.name(), &request.resource, &request.name);
                format!("{seconds:7.3} {} {verb} {resource} {name}: {upstream} {stage:?}", request.user)
            });
            lines.collect::<Vec<_>>().join("\n")
        })
    }

    async fn try_case<S: Scenario>(
        &self,
        scenario: &S,
        reference: &Reference,
        case: &Case,
    ) -> Result<(bool, Vec<String>)> {
        self.begin();
        let before = panics();
        let mark = self.cluster.audit_log()?.mark()?;
        let world = scenario.open(&self.cluster).await?;
        let namespace = world.namespace();
        let [first, second] = &self.kubeconfigs;
        let election = ["--lease-namespace", namespace];
        let (first, standby) = match case.recovery {
            Recovery::Restart => {
                let first = InProcess::start(first, &["--no-leader-election"]).await?;
                (First::InProcess(first), None)
            }
            Recovery::Failover => {
                let first = InProcess::start(first, &election).await?;
                self.wait_for_lease(namespace).await?;
                (First::InProcess(first), Some(InProcess::start(second, &election).await?))
            }
            Recovery::Sigkill => {
                // Its port is read from its log, so each has one of its own.
                let name = format!("crash-{namespace}");
                let mut first =
                    Manager::start_with(&self.cluster, first, &name, &["--no-leader-election"]).await?;
                first.wait_ready().await?;
                (First::Process(first), None)
            }
        };
        let class = Class::writes().except("leases").user(USERS[0]).namespace(namespace);
        self.arm(&class, case);
        let crash = async {
            self.struck(&class, case).await?;
            first.crash().await?;
            match standby {
                Some(standby) => {
                    self.release_lease(namespace).await?;
                    Ok(standby)
                }
                None => InProcess::start(second, &["--no-leader-election"]).await,
            }
        };
        let whole = self.whole(scenario, &world);
        tokio::pin!(whole, crash);
        let mut next = None;
        tokio::select! {
            // A crash at the last write comes before the rest after it.
            biased;
            crashed = &mut crash => next = Some(crashed.context("the crash")?),
            ended = &mut whole => ended?,
        }
        let crashed = next.is_some();
        if crashed {
            whole.await?;
        }
        let ended = self.judge(&world, mark, before).await?;
        let mut violations = ended.wrong;
        let differences = reference.facts.differences(&ended.facts).into_iter();
        violations.extend(
            differences
                .filter(|(path, _)| !reference.masked.contains(path))
                .map(|(_, difference)| difference),
        );
        // Of the refused ones most lost a race with a user of the scenario, as they do without a crash.
        let writes = ended.writes.successful().len();
        let most = reference.most_writes + WRITES_PER_CRASH;
        if writes > most {
            violations.push(format!("{writes} writes, at most {most} were to be:\n{}", ended.writes));
        }
        self.proxy.clear();
        world.clear().await?;
        if let Some(next) = next {
            next.crash().await?;
        }
        Ok((crashed, violations))
    }

    fn begin(&self) {
        self.proxy.clear();
        self.proxy.forget();
    }

    /// Has the proxy hold the write at its point, and all behind it.
    fn arm(&self, class: &Class, case: &Case) {
        let hold = |when, at| {
            self.proxy.fault(class.clone(), when, Fault::Hold(at));
        };
        match case.point {
            Point::BeforeSend => hold(When::From(case.write), At::BeforeSend),
            Point::Committed => {
                hold(When::Nth(case.write), At::AfterCommit);
                hold(When::From(case.write + 1), At::BeforeSend);
            }
            Point::AfterReply => hold(When::From(case.write + 1), At::BeforeSend),
            Point::Stage(stage) => {
                for number in 0..stage.size {
                    let at = if stage.is_committed(number) { At::AfterCommit } else { At::BeforeSend };
                    hold(When::Nth(case.write + u64::from(number)), at);
                }
                hold(When::From(case.write + u64::from(stage.size)), At::BeforeSend);
            }
        }
    }

    /// Waits until the write, or all of its stage, is at its point. That is longer than all that a scenario
    /// waits for: where it never comes, the scenario's end says so.
    async fn struck(&self, class: &Class, case: &Case) -> Result<()> {
        let first = usize::try_from(case.write - 1)?;
        let (size, wanted) = match case.point {
            Point::BeforeSend => (1, Stage::Held(At::BeforeSend)),
            Point::Committed => (1, Stage::Held(At::AfterCommit)),
            Point::AfterReply => (1, Stage::Done),
            Point::Stage(stage) => (usize::try_from(stage.size)?, Stage::Held(At::BeforeSend)),
        };
        let at_point = |all: &[Entry]| {
            let writes = all.iter().filter(|entry| class.holds(&entry.request)).skip(first).take(size);
            let there = writes.filter(|entry| match case.point {
                Point::BeforeSend | Point::Committed | Point::AfterReply => entry.stage == wanted,
                Point::Stage(_) => matches!(entry.stage, Stage::Held(_)),
            });
            let since: Vec<_> = there.map(|entry| entry.at).collect();
            // In this run fewer may have been sent at a time.
            since.len() == size || since.first().is_some_and(|first| size > 1 && first.elapsed() >= REST)
        };
        while !self.proxy.journal(at_point) {
            tokio::time::sleep(PAUSE / 10).await;
        }
        Ok(())
    }

    /// The scenario and the rest after it.
    async fn whole<S: Scenario>(&self, scenario: &S, world: &S::World<'_>) -> Result<()> {
        scenario.play(world).await?;
        let deadline = Instant::now() + PATIENCE;
        loop {
            let quiet = self.proxy.journal(|all| {
                let writes = all.iter().filter(|entry| is_own(entry, world.namespace()));
                writes.map(|entry| entry.at.elapsed()).min().is_none_or(|since| since >= REST)
            });
            if quiet && world.observed().await? {
                return Ok(());
            }
            ensure!(Instant::now() < deadline, "the managers do not come to rest");
            tokio::time::sleep(PAUSE).await;
        }
    }

    async fn judge<W: World>(&self, world: &W, mark: Mark, panics_before: usize) -> Result<Ended> {
        let own = |count: WriteCount| {
            count
                .in_namespace(world.namespace())
                .writes()
                .without_leases()
                .filter(|request| USERS.contains(&request.user.as_str()))
        };
        let log = self.cluster.audit_log()?;
        let writes = own(log.since(mark)?);
        let mut wrong = world.wrong().await?;
        let facts = world.facts().await?;
        let later = own(log.since(mark)?).len() - writes.len();
        if later > 0 {
            wrong.push(format!("{later} writes after all had come to rest"));
        }
        let panicked = panics() - panics_before;
        if panicked > 0 {
            wrong.push(format!("{panicked} panics"));
        }
        let stages = self.proxy.journal(|all| {
            let own = all.iter().filter(|entry| is_own(entry, world.namespace()));
            stages(&own.map(|entry| (entry.at, entry.ended.unwrap_or(entry.at))).collect::<Vec<_>>())
        });
        Ok(Ended { facts, stages, writes, wrong })
    }

    fn leases(&self, namespace: &str) -> Result<Api<Lease>> {
        Ok(Api::namespaced(self.cluster.client("springtide-crash")?, namespace))
    }

    async fn wait_for_lease(&self, namespace: &str) -> Result<()> {
        let leases = self.leases(namespace)?;
        let deadline = Instant::now() + PATIENCE;
        while Instant::now() < deadline {
            let lease = leases.get_opt(LEASE_NAME).await?;
            let holder = lease.and_then(|lease| lease.spec?.holder_identity);
            if holder.is_some_and(|holder| !holder.is_empty()) {
                return Ok(());
            }
            tokio::time::sleep(PAUSE).await;
        }
        bail!("the first manager has not taken the lease")
    }

    /// Ends the lease of a manager that is gone for certain, as its expiry would half a minute later: that
    /// the standby waits for it is another test's.
    async fn release_lease(&self, namespace: &str) -> Result<()> {
        let released = Patch::Merge(json!({"spec": {"holderIdentity": "", "leaseDurationSeconds": 1}}));
        self.leases(namespace)?.patch(LEASE_NAME, &PatchParams::default(), &released).await?;
        Ok(())
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

/// Groups writes, given by beginning and end in the order of their beginnings, of which each one was under
/// way when the last one of its group began.
fn stages(writes: &[(Instant, Instant)]) -> Vec<(u64, u32)> {
    let mut stages = Vec::new();
    let (mut first, mut first_end) = (0, None::<Instant>);
    for (number, (at, ended)) in writes.iter().enumerate() {
        match first_end {
            Some(earliest) if *at < earliest => first_end = Some(earliest.min(*ended)),
            Some(_) | None => {
                stages.push((first, number - first));
                (first, first_end) = (number, Some(*ended));
            }
        }
    }
    stages.push((first, writes.len() - first));
    let more_than_one = stages.into_iter().filter(|(_, size)| *size > 1);
    more_than_one.map(|(first, size)| (first as u64 + 1, u32::try_from(size).unwrap_or(u32::MAX))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn writes_that_were_all_under_way_at_once_are_a_stage() {
        let start = Instant::now();
        let at = |(from, to): &(u64, u64)| {
            (start + Duration::from_millis(*from), start + Duration::from_millis(*to))
        };
        let of = |writes: &[(u64, u64)]| stages(&writes.iter().map(at).collect::<Vec<_>>());
        assert_eq!(of(&[]), []);
        assert_eq!(of(&[(0, 5), (6, 9)]), []);
        assert_eq!(of(&[(0, 5), (1, 9), (6, 12), (7, 8), (20, 21)]), [(1, 2), (3, 2)]);
        assert_eq!(of(&[(0, 1), (2, 9), (3, 8), (4, 7)]), [(2, 3)]);
    }
}
