//! Leadership: one process writes, the others are warm.
//!
//! A Lease of 30 s is renewed every 5 s on a client of its own, so that no write ever delays it.
//! Standbys *watch* it and keep their stores warm. The [`Fence`] is what writes are checked
//! against; [`Leadership::leading`] only says when workers may take keys.

mod fence;
mod record;

pub use fence::{Fence, MonotonicClock, boot_clock};
pub use record::LeaseView;

use crate::client::{Answer, send};
use crate::key::{ObjectKey, Resource, ResourceVersion};
use crate::store::Store;
use http::{Method, StatusCode};
use jiff::Timestamp;
use record::{Manifest, Standby, decide};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// Name of the manager's Lease.
pub const LEASE_NAME: &str = "springtide-manager";
/// Deadline of one attempt: several fit between a failure and the renew deadline.
const ATTEMPT_DEADLINE: Duration = Duration::from_secs(5);
/// Pause after a failed attempt.
const RETRY_AFTER_FAILURE: Duration = Duration::from_secs(1);

/// Times of the election. The defaults are 30, 20 and 5 s: 0.2 writes/s, and a successor begins
/// 10 s after the fence of a lost leader has closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LeaseTimes {
    /// How long others wait after the last renewal they saw.
    pub duration: Duration,
    /// The fence closes so long after the start of the last successful renewal.
    pub renew_deadline: Duration,
    /// Time between renewals.
    pub retry_period: Duration,
}

impl Default for LeaseTimes {
    fn default() -> Self {
        Self {
            duration: Duration::from_secs(30),
            renew_deadline: Duration::from_secs(20),
            retry_period: Duration::from_secs(5),
        }
    }
}

/// Which Lease, whose, and when.
#[derive(Clone, Debug)]
pub struct LeaseConfig {
    /// Namespace and name of the Lease.
    pub key: ObjectKey,
    /// Who we are; unique per process.
    pub identity: String,
    /// When it is renewed, and when it is lost.
    pub times: LeaseTimes,
}

impl LeaseConfig {
    /// The default times for this Lease and identity.
    pub fn new(key: ObjectKey, identity: String) -> Self {
        Self { key, identity, times: LeaseTimes::default() }
    }
}

/// The Lease as its watch last showed it, and when that version was first seen here, on the clock of the
/// election; `None` while there is no Lease.
pub type Observed = Option<(Arc<LeaseView>, Duration)>;

/// Follows the Lease in its store, on the clock that the [`Elector`] has too.
pub fn observe(lease: &Store<LeaseView>, clock: MonotonicClock) -> watch::Receiver<Observed> {
    let (sender, receiver) = watch::channel(None);
    lease.on_change(Arc::new(move |change| {
        sender.send_replace(change.present().map(|lease| (Arc::clone(lease), clock())));
    }));
    receiver
}

/// What the rest of the process sees of the election.
#[derive(Clone)]
pub struct Leadership {
    /// Whether workers may take keys.
    pub leading: watch::Receiver<bool>,
    /// Whether a write may leave, checked right before each.
    pub fence: Fence,
}

impl Leadership {
    /// For a process that runs without election.
    pub fn without_election() -> Self {
        let (sender, leading) = watch::channel(true);
        // The value never changes, so nobody has to hold the sender: a receiver outlives it.
        drop(sender);
        Self { leading, fence: Fence::always_open() }
    }
}

/// Takes, renews and releases the Lease.
#[allow(clippy::disallowed_types, reason = "leases go out on a client of their own")]
pub struct Elector {
    client: kube::Client,
    config: LeaseConfig,
    fence: Fence,
    leading: watch::Sender<bool>,
    observed: watch::Receiver<Observed>,
}

/// The Lease while we hold it.
struct Held {
    version: ResourceVersion,
    transitions: u32,
    acquired: Timestamp,
    /// On the fence's clock: when the last successful renewal began.
    renewed: Duration,
}

/// What came of one write of the Lease.
enum Written {
    Stored(ResourceVersion),
    Conflict,
    Failed(String),
}

impl Elector {
    /// An elector and what others see of it. `observed` is fed from the watch on the Lease.
    #[allow(clippy::disallowed_types, reason = "leases go out on a client of their own")]
    pub fn new(
        client: kube::Client,
        config: LeaseConfig,
        clock: MonotonicClock,
        observed: watch::Receiver<Observed>,
    ) -> (Self, Leadership) {
        let (leading, receiver) = watch::channel(false);
        let fence = Fence::closed(clock);
        let leadership = Leadership { leading: receiver, fence: fence.clone() };
        (Self { client, config, fence, leading, observed }, leadership)
    }

    /// Runs until `shutdown`; then gives the Lease back when it holds it. Cancel `shutdown` only
    /// when the workers have stopped: the fence closes at once, under whatever they still do. Takes at
    /// most some 15 s to end, when the server does not answer.
    pub async fn run(mut self, shutdown: CancellationToken) {
        while let Some(held) = self.acquire(&shutdown).await {
            tracing::info!(lease = %self.config.key, identity = self.config.identity, "leading");
            self.fence.open_until(held.renewed + self.config.times.renew_deadline);
            self.leading.send_replace(true);
            let kept = self.keep(held, &shutdown).await;
            self.fence.close();
            self.leading.send_replace(false);
            match kept {
                Some(held) => self.release(held).await,
                None => tracing::warn!(lease = %self.config.key, "leadership lost"),
            }
        }
    }

    /// Waits until the Lease is ours; `None` at the shutdown. A write under way is waited for: stored
    /// without being known here, it would keep others waiting for nothing.
    async fn acquire(&mut self, shutdown: &CancellationToken) -> Option<Held> {
        while !shutdown.is_cancelled() {
            let now = self.fence.now();
            let seen = self.observed.borrow_and_update().clone();
            let decision = decide(
                seen.as_ref().map(|(lease, at)| (lease.as_ref(), *at)),
                &self.config.identity,
                self.config.times.duration,
                now,
            );
            let (version, transitions) = match decision {
                Standby::Create => (None, 0),
                Standby::Take => match &seen {
                    Some((lease, _)) => (Some(lease.version()), lease.transitions() + 1),
                    None => (None, 0),
                },
                Standby::WaitUntil(at) => {
                    self.changed_or_after(at.saturating_sub(now), shutdown).await;
                    continue;
                }
            };
            let acquired = Timestamp::now();
            match self
                .write(&self.config.identity, version, self.config.times.duration, transitions, acquired)
                .await
            {
                Written::Stored(version) => {
                    return Some(Held { version, transitions, acquired, renewed: now });
                }
                // Somebody was faster, or the watch has not shown the newest version yet.
                Written::Conflict => {}
                Written::Failed(error) => {
                    tracing::warn!(lease = %self.config.key, error, "cannot write the lease");
                }
            }
            self.changed_or_after(self.config.times.retry_period, shutdown).await;
        }
        None
    }

    /// Renews until shutdown (gives the Lease back) or until it is lost (`None`).
    async fn keep(&mut self, mut held: Held, shutdown: &CancellationToken) -> Option<Held> {
        let mut pause = self.config.times.retry_period;
        loop {
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = self.shown_to_be_anothers(held.version) => return None,
                () = shutdown.cancelled() => return Some(held),
            }
            if !self.fence.is_open() {
                return None;
            }
            let start = self.fence.now();
            let written = self
                .write(
                    &self.config.identity,
                    Some(held.version),
                    self.config.times.duration,
                    held.transitions,
                    held.acquired,
                )
                .await;
            pause = match written {
                Written::Stored(version) => {
                    held.version = version;
                    held.renewed = start;
                    self.fence.open_until(start + self.config.times.renew_deadline);
                    self.config.times.retry_period
                }
                // A renewal whose answer was lost also ends here: the server says who holds it.
                Written::Conflict => match self.read().await {
                    Ok(Some(lease)) if lease.holder() == Some(&self.config.identity) => {
                        held.version = lease.version();
                        RETRY_AFTER_FAILURE
                    }
                    Ok(_) => return None,
                    Err(error) => {
                        tracing::warn!(lease = %self.config.key, error, "cannot read the lease");
                        RETRY_AFTER_FAILURE
                    }
                },
                Written::Failed(error) => {
                    tracing::warn!(lease = %self.config.key, error, "cannot renew the lease");
                    RETRY_AFTER_FAILURE
                }
            };
        }
    }

    /// Gives the Lease back, so that a standby need not wait for it to expire. Best effort.
    async fn release(&self, held: Held) {
        let written =
            self.write("", Some(held.version), Duration::from_secs(1), held.transitions, held.acquired).await;
        match written {
            Written::Stored(_) => tracing::info!(lease = %self.config.key, "lease released"),
            Written::Conflict | Written::Failed(_) => {
                tracing::warn!(lease = %self.config.key, "lease not released; it expires by itself");
            }
        }
    }

    async fn changed_or_after(&mut self, wait: Duration, shutdown: &CancellationToken) {
        // A closed channel means that the watch has ended; the time still passes.
        let changed = async {
            if self.observed.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        };
        tokio::select! {
            () = changed => {}
            () = tokio::time::sleep(wait) => {}
            () = shutdown.cancelled() => {}
        }
    }

    /// Resolves when the watch shows another holder in a version after the one that we hold. What is
    /// older tells nothing, and nothing shown is no proof of anything: the renewals find out.
    async fn shown_to_be_anothers(&mut self, ours: ResourceVersion) {
        let identity = &self.config.identity;
        let anothers = |seen: &Observed| {
            seen.as_ref().is_some_and(|(lease, _)| lease.version() > ours && lease.holder() != Some(identity))
        };
        if self.observed.wait_for(anothers).await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    async fn write(
        &self,
        identity: &str,
        version: Option<ResourceVersion>,
        duration: Duration,
        transitions: u32,
        acquired: Timestamp,
    ) -> Written {
        let key = &self.config.key;
        let manifest = Manifest {
            namespace: &key.namespace,
            name: &key.name,
            version,
            identity,
            duration,
            transitions,
            acquired,
            renewed: Timestamp::now(),
        };
        let (method, path) = match version {
            Some(_) => (Method::PUT, Resource::LEASE.object_path(key)),
            None => (Method::POST, Resource::LEASE.collection_path(Some(&key.namespace))),
        };
        let body = manifest.to_json().to_string().into_bytes();
        match send(&self.client, method, &path, "application/json", body, ATTEMPT_DEADLINE).await {
            Ok(answer) if answer.code.is_success() => match parse(&answer) {
                Some(lease) => Written::Stored(lease.version()),
                None => Written::Failed("the answer is no Lease".to_owned()),
            },
            Ok(answer) if answer.code == StatusCode::CONFLICT => Written::Conflict,
            // Deleted by somebody while we held it: a conflict that the next read resolves.
            Ok(answer) if answer.code == StatusCode::NOT_FOUND && version.is_some() => Written::Conflict,
            Ok(answer) => Written::Failed(answer.status().message),
            Err(error) => Written::Failed(error.to_string()),
        }
    }

    async fn read(&self) -> Result<Option<LeaseView>, String> {
        let path = Resource::LEASE.object_path(&self.config.key);
        let answer =
            send(&self.client, Method::GET, &path, "application/json", Vec::new(), ATTEMPT_DEADLINE).await;
        match answer {
            Ok(answer) if answer.code == StatusCode::NOT_FOUND => Ok(None),
            Ok(answer) if answer.code.is_success() => {
                parse(&answer).map(Some).ok_or_else(|| "the answer is no Lease".to_owned())
            }
            Ok(answer) => Err(answer.status().message),
            Err(error) => Err(error.to_string()),
        }
    }
}

fn parse(answer: &Answer) -> Option<LeaseView> {
    serde_json::from_slice(&answer.body).ok()
}
