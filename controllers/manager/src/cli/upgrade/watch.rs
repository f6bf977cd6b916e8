//! `springtide watch` of an InPlaceUpgrade: follows it until its run ends.
#![allow(clippy::disallowed_types, reason = "a command of a person reads with that person's rights")]

use super::progress::{Screen, Shown};
use crate::cli::read::Cluster;
use crate::cli::text::span;
use anyhow::{Context, Result, bail};
use futures::StreamExt;
use jiff::Timestamp;
use kube::Api;
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::{self, Config, Event, watcher};
use serde_json::Value;
use springtide_crds::common::{ConditionStatus, condition};
use springtide_crds::in_place_upgrade::{
    InPlaceUpgrade, InPlaceUpgradeStatus, ReadyReason, StalledReason, TargetKind,
};
use springtide_crds::reason::Reason;
use springtide_in_place_upgrade::projections::upgrade::{IN_PLACE_UPGRADE, UpgradeView};
use springtide_plumbing::workloads::kinds::{
    DAEMON_SET, DEPLOYMENT, REPLICA_SET, STATEFUL_SET,
};
use springtide_in_place_upgrade::rehearsal::target_hash;
use springtide_plumbing::key::ObjectKey;
use std::pin::pin;
use std::process::ExitCode;
use std::time::Duration;
use tokio::time::{Instant, sleep, sleep_until};

/// What needs a person for this long is the end: it may be what was mended a moment ago, or be asked for again.
const STALL_GRACE: Duration = Duration::from_secs(10);
/// Length of one watch in seconds: one whose connection has died is noticed a little later.
const WATCH_SECONDS: u32 = 30;

/// How it ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ending {
    /// All pods are as they are wished.
    Succeeded,
    /// The run went wrong, and the pods are again what they were.
    RolledBack,
    /// Something needs a person.
    Stalled,
    /// The time that was given is over.
    TimeUp,
    /// Somebody has ended the command.
    Interrupted,
}

impl From<Ending> for ExitCode {
    fn from(ending: Ending) -> Self {
        match ending {
            Ending::Succeeded => Self::SUCCESS,
            Ending::TimeUp => Self::from(2),
            Ending::Stalled => Self::from(3),
            Ending::RolledBack => Self::from(4),
            // As a shell has it of a process that SIGINT has ended.
            Ending::Interrupted => Self::from(130),
        }
    }
}

/// Follows, and shows what changes.
///
/// # Errors
/// The API server cannot be asked or refuses, there is no such upgrade, or it is deleted meanwhile.
pub(in crate::cli) async fn run(
    cluster: &Cluster,
    name: &str,
    timeout: Duration,
    interrupted: impl Future<Output = Result<()>>,
) -> Result<Ending> {
    let begun = Instant::now();
    let key = ObjectKey::new(cluster.namespace.as_str(), name);
    let found = cluster.get(IN_PLACE_UPGRADE, &key).await?;
    let found =
        found.with_context(|| format!("there is no InPlaceUpgrade {name} in namespace {}", key.namespace))?;
    let awaited = Awaited::of(cluster, &found).await?;
    let mut screen = Screen::new(&key.to_string());
    let mut last = Shown::default();
    let ending = tokio::select! {
        ended = follow(cluster, &key, &awaited, &mut screen, &mut last) => ended?,
        signal = interrupted => signal.map(|()| Ending::Interrupted)?,
        () = sleep(timeout) => Ending::TimeUp,
    };
    let took = i64::try_from(begun.elapsed().as_secs()).unwrap_or(i64::MAX);
    screen.end(&farewell(&key, ending, &last, took))?;
    Ok(ending)
}

/// The wish whose run is followed.
struct Awaited {
    /// The wish of the workload as it is when the command begins; `None` where that cannot be read.
    wish: Option<String>,
    /// What the status said then: with another wish than that, the manager has looked at the workload since.
    before: String,
}

impl Awaited {
    async fn of(cluster: &Cluster, found: &Value) -> Result<Self> {
        let unreadable = "the InPlaceUpgrade is not as its schema wants it";
        let upgrade: UpgradeView = serde_json::from_value(found.clone()).context(unreadable)?;
        let workload = match upgrade.spec.target_ref.kind {
            TargetKind::Deployment => DEPLOYMENT,
            TargetKind::ReplicaSet => REPLICA_SET,
            TargetKind::StatefulSet => STATEFUL_SET,
            TargetKind::DaemonSet => DAEMON_SET,
        };
        // Who may not read it follows what the status says.
        let workload = cluster.get(workload, &upgrade.target_key()).await.ok().flatten();
        let wish = workload.and_then(|workload| target_hash(&upgrade, workload));
        Ok(Self { wish, before: upgrade.status.target_hash })
    }

    /// Whether a status is about the wish that is followed, or about a later one.
    fn is_met_by(&self, status: &InPlaceUpgradeStatus) -> bool {
        let hash = &status.target_hash;
        self.wish.as_ref().is_none_or(|wish| wish == hash) || *hash != self.before
    }

    /// How the run has ended by what the manager says of the object as it is now; `None` while it goes on.
    fn end(&self, generation: i64, status: &InPlaceUpgradeStatus) -> Option<Ending> {
        let is_current = status.observed_generation == generation;
        if !is_current || !self.is_met_by(status) {
            return None;
        }
        let told = |type_| condition(&status.conditions, type_);
        let ready = told(ReadyReason::CONDITION);
        let is = |reason| ready.is_some_and(|ready| ready.is(reason));
        if is(ReadyReason::UpToDate) {
            Some(Ending::Succeeded)
        } else if is(ReadyReason::RolledBack) {
            Some(Ending::RolledBack)
        } else {
            let stalled = told(StalledReason::CONDITION);
            let holds = stalled.is_some_and(|stalled| stalled.status == ConditionStatus::True);
            holds.then_some(Ending::Stalled)
        }
    }
}

/// Shows every change until the run ends. A watch that breaks is begun anew, where it was.
async fn follow(
    cluster: &Cluster,
    key: &ObjectKey,
    awaited: &Awaited,
    screen: &mut Screen,
    last: &mut Shown,
) -> Result<Ending> {
    let api: Api<InPlaceUpgrade> = Api::namespaced(cluster.client.clone(), &key.namespace);
    let config = Config::default().fields(&format!("metadata.name={}", key.name)).timeout(WATCH_SECONDS);
    let mut events = pin!(watcher(api, config).default_backoff());
    let mut stalled_until: Option<Instant> = None;
    let (mut is_listed, mut is_lost) = (false, false);
    loop {
        let event = tokio::select! {
            event = events.next() => event,
            // There is nothing to wait for where nothing needs a person.
            () = sleep_until(stalled_until.unwrap_or_else(Instant::now)), if stalled_until.is_some() => {
                return Ok(Ending::Stalled);
            }
        };
        let upgrade = match event {
            Some(Ok(Event::Apply(upgrade) | Event::InitApply(upgrade))) => upgrade,
            Some(Ok(Event::Init)) => {
                is_listed = false;
                continue;
            }
            Some(Ok(Event::InitDone)) if is_listed => continue,
            Some(Ok(Event::InitDone | Event::Delete(_))) => bail!("InPlaceUpgrade {key} was deleted"),
            Some(Err(error)) => {
                if let Some(refusal) = refusal(&error) {
                    bail!("watch InPlaceUpgrade {key}: {refusal}");
                }
                if !is_lost {
                    screen
                        .remark(&format!("the watch broke and is begun anew: {error}"), Timestamp::now())?;
                }
                is_lost = true;
                continue;
            }
            None => bail!("watch InPlaceUpgrade {key}: it has ended"),
        };
        (is_listed, is_lost) = (true, false);
        let status = upgrade.status.unwrap_or_default();
        *last = Shown::of(&status);
        screen.show(last, Timestamp::now())?;
        match awaited.end(upgrade.metadata.generation.unwrap_or_default(), &status) {
            Some(Ending::Stalled) => {
                stalled_until.get_or_insert_with(|| Instant::now() + STALL_GRACE);
            }
            Some(ending) => return Ok(ending),
            None => stalled_until = None,
        }
    }
}

/// What no further attempt would change: the caller may not, or there is no such kind.
fn refusal(error: &watcher::Error) -> Option<String> {
    let status = match error {
        watcher::Error::InitialListFailed(kube::Error::Api(status))
        | watcher::Error::WatchStartFailed(kube::Error::Api(status))
        | watcher::Error::WatchError(status) => status,
        watcher::Error::InitialListFailed(_)
        | watcher::Error::WatchStartFailed(_)
        | watcher::Error::WatchFailed(_)
        | watcher::Error::NoResourceVersion => return None,
    };
    [401, 403, 404].contains(&status.code).then(|| status.message.clone())
}

/// How it ended, in words.
fn farewell(key: &ObjectKey, ending: Ending, last: &Shown, seconds: i64) -> String {
    let after = span(seconds);
    let how = match ending {
        Ending::Succeeded => format!("up to date after {after}"),
        Ending::RolledBack => format!("rolled back after {after}"),
        Ending::Stalled => format!("needs a person after {after}"),
        Ending::TimeUp => format!("not at its end after {after}; it goes on without this command"),
        Ending::Interrupted => format!("left after {after}; it goes on without this command"),
    };
    let hint = match ending {
        Ending::Succeeded | Ending::Interrupted => String::new(),
        Ending::RolledBack | Ending::Stalled | Ending::TimeUp => {
            format!("\nsee: springtide explain ipu/{} -n {}", key.name, key.namespace)
        }
    };
    format!("InPlaceUpgrade {key}: {how}\n{}{hint}", last.line())
}

#[cfg(test)]
mod tests;
