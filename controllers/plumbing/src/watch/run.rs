//! The loop of one watch: list, follow, and what is done about each way that can end.

use super::backoff::Backoff;
use super::listing::{ListAt, StreamingLists, bookmark_rv};
use super::sink::{Sink, Watched};
use super::source::{EventStream, Identity, Source, Unreadable, WatchError, WatchRequest, WatchStart};
use super::{
    ABSENT_WAIT, LIST_SILENCE, LIVENESS, LONGEST_RETRY_AFTER, PROBE_AGE, PROBE_JITTER, PROBE_SILENCE,
    PROBE_TIMEOUT_SECONDS, RELIST_INTERVAL, SOUND_CONNECTION, UNREACHABLE_WAIT, WATCH_TIMEOUT_SECONDS,
    relist_jitter,
};
use crate::key::ResourceVersion;
use crate::store::Trouble;
use futures::StreamExt;
use kube::core::WatchEvent;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use std::convert::Infallible;
use std::time::Duration;
use tokio::time::{Instant, sleep, timeout};

/// Keeps what `writer` fills equal to what `source` shows, for ever; drop the future to end it.
///
/// `streaming` is shared by all watches of one client. `seed` decides the random part of every wait.
pub async fn run<S: Source, W: Sink<Object = S::Object>>(
    source: S,
    writer: W,
    streaming: StreamingLists,
    seed: u64,
) -> Infallible {
    let mut watch = Watch {
        source,
        writer,
        streaming,
        rng: StdRng::seed_from_u64(seed),
        backoff: Backoff::default(),
        next: Next::List(ListAt::LastSeen),
        probing: false,
        last_relist: None,
        connected_before: false,
        is_absent: false,
    };
    loop {
        let Err(ended) = watch.attempt().await;
        let wait = watch.settle(ended);
        sleep(wait).await;
    }
}

pub(super) struct Watch<S, W> {
    pub(super) source: S,
    pub(super) writer: W,
    pub(super) streaming: StreamingLists,
    rng: StdRng,
    backoff: Backoff,
    next: Next,
    /// Whether the present attempt is a brief watch that is to show soon whether anything was missed.
    probing: bool,
    last_relist: Option<Instant>,
    connected_before: bool,
    /// Whether the server lacks the kind, which is optional.
    is_absent: bool,
}

/// What the next attempt begins with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Next {
    /// Everything, as the store is empty or may have missed something.
    List(ListAt),
    /// A watch from the version last seen.
    Resume,
}

/// An open watch whose list, if it had one, is complete.
pub(super) struct Following<P> {
    pub(super) events: EventStream<P>,
    pub(super) opened: Instant,
}

/// How an attempt ended.
#[derive(Debug)]
pub(super) struct Ended {
    cause: Cause,
    /// How long the connection lasted; zero if it never opened.
    lived: Duration,
}

impl Ended {
    /// Before the connection was of any use.
    pub(super) fn early(cause: Cause) -> Self {
        Self { cause, lived: Duration::ZERO }
    }
}

pub(super) fn closed(opened: Instant) -> Ended {
    Ended { cause: Cause::Closed, lived: opened.elapsed() }
}

#[derive(Debug)]
pub(super) enum Cause {
    /// The server closed the stream.
    Closed,
    /// Neither event nor bookmark for so long.
    Silent(Duration),
    /// A frame bore this version, lower than one seen before: another, lagging server, or a replay.
    Regressed { rv: ResourceVersion },
    /// An event that nobody can read, not even whose it is, so something is missing from now on.
    Unreadable,
    /// The request or the stream failed.
    Failed(WatchError),
}

impl From<WatchError> for Cause {
    fn from(error: WatchError) -> Self {
        Self::Failed(error)
    }
}

/// Counts and reports what could not be decoded; gives whose it is, if that is known.
pub(super) fn unreadable<W: Sink>(writer: &W, object: Unreadable) -> Option<Identity> {
    writer.part().stats().count_unreadable();
    tracing::error!(resource = %writer.resource(), %object, "cannot decode; its last known state stays in the store");
    object.identity
}

impl<S: Source, W: Sink<Object = S::Object>> Watch<S, W> {
    /// Leaves in `next` what was being tried when it ended.
    async fn attempt(&mut self) -> Result<Infallible, Ended> {
        self.probing = false;
        if let Next::List(at) = self.next {
            let following = self.list(at).await?;
            self.next = Next::Resume;
            if std::mem::take(&mut self.is_absent) {
                tracing::info!(resource = %self.writer.resource(), "the server has this kind now");
            }
            if let Some(following) = following {
                return Err(self.follow(following, LIVENESS).await);
            }
        }
        self.probing = self.is_due_for_probe();
        let (timeout_seconds, silence) = match self.probing {
            true => (PROBE_TIMEOUT_SECONDS, PROBE_SILENCE),
            false => (self.watch_timeout(), LIVENESS),
        };
        let following = self.resume(timeout_seconds).await?;
        Err(self.follow(following, silence).await)
    }

    fn is_due_for_probe(&self) -> bool {
        self.writer.part().stats().since_last_frame() > PROBE_AGE
    }

    async fn resume(&mut self, timeout_seconds: u32) -> Result<Following<S::Object>, Ended> {
        self.count_connection();
        let request =
            WatchRequest { start: WatchStart::Watch { from: self.writer.part().last_rv() }, timeout_seconds };
        let events = match timeout(LIST_SILENCE, self.source.open(request)).await {
            Ok(events) => events.map_err(|error| Ended::early(error.into()))?,
            Err(_) => {
                let message = format!("no answer to a WATCH for {} s", LIST_SILENCE.as_secs());
                return Err(Ended::early(WatchError::Transport(message).into()));
            }
        };
        Ok(Following { events, opened: Instant::now() })
    }

    /// Takes frames until the connection ends, or brings none for `silence`.
    async fn follow(
        &mut self,
        Following { mut events, opened }: Following<S::Object>,
        silence: Duration,
    ) -> Ended {
        loop {
            let cause = match timeout(silence, events.next()).await {
                Err(_) => Cause::Silent(silence),
                Ok(None) => Cause::Closed,
                Ok(Some(frame)) => match self.take(frame) {
                    Ok(()) => continue,
                    Err(cause) => cause,
                },
            };
            return Ended { cause, lived: opened.elapsed() };
        }
    }

    /// Takes one frame of a watch whose list is complete.
    fn take(&mut self, frame: Result<WatchEvent<S::Object>, WatchError>) -> Result<(), Cause> {
        match frame {
            Ok(WatchEvent::Added(object) | WatchEvent::Modified(object)) => {
                self.check_rv(object.resource_version())?;
                self.writer.part().stats().count_event();
                self.writer.apply(object);
            }
            Ok(WatchEvent::Deleted(object)) => {
                self.check_rv(object.resource_version())?;
                self.writer.part().stats().count_event();
                self.writer.delete(object);
            }
            Ok(WatchEvent::Bookmark(bookmark)) => {
                let rv = bookmark_rv(&bookmark)?;
                self.check_rv(rv)?;
                self.writer.advance(rv);
            }
            Ok(WatchEvent::Error(status)) => return Err(WatchError::from_status(&status).into()),
            Err(WatchError::Unreadable(object)) => {
                let identity = unreadable(&self.writer, object).ok_or(Cause::Unreadable)?;
                self.check_rv(identity.resource_version)?;
                if identity.deleted {
                    self.writer.delete_unread(&identity.key, identity.resource_version);
                } else {
                    self.writer.advance(identity.resource_version);
                }
            }
            Err(error) => return Err(error.into()),
        }
        Ok(())
    }

    fn check_rv(&self, rv: ResourceVersion) -> Result<(), Cause> {
        if rv < self.writer.part().last_rv() {
            self.writer.part().stats().count_rv_regression();
            return Err(Cause::Regressed { rv });
        }
        Ok(())
    }

    /// Decides what comes next, and gives the wait before it.
    fn settle(&mut self, Ended { cause, lived }: Ended) -> Duration {
        let tried = self.next;
        let sound = lived >= SOUND_CONNECTION;
        match tried {
            // Once; after that the version last seen counts again.
            Next::List(ListAt::Unset) => self.next = Next::List(ListAt::LastSeen),
            Next::List(ListAt::LastSeen) | Next::Resume => {}
        }
        let resource = self.writer.resource();
        if sound {
            self.backoff.reset();
        }
        let (wait, why) = match cause {
            // However soon: its end is of our own asking.
            Cause::Closed | Cause::Silent(_) if self.probing => {
                let mute = self.is_due_for_probe();
                tracing::debug!(%resource, mute, "probe has ended");
                return if mute { self.confirm() } else { Duration::ZERO };
            }
            Cause::Closed if sound => {
                tracing::debug!(%resource, "watch closed by the server");
                return Duration::ZERO;
            }
            Cause::Closed => (self.back_off(), "closed early".to_owned()),
            Cause::Silent(silence) => (Duration::ZERO, format!("silent for {} s", silence.as_secs())),
            Cause::Regressed { rv } => {
                let seen = self.writer.part().last_rv();
                let wait = self.back_off();
                // It goes on: a list tells a server that lags from a cluster that went back.
                let wait = if self.probing { wait.max(self.confirm()) } else { wait };
                (wait, format!("sent resourceVersion {rv} after {seen}"))
            }
            Cause::Unreadable => (self.relist(), "an event was lost".to_owned()),
            Cause::Failed(error) => {
                let wait = match &error {
                    WatchError::Expired(_) | WatchError::Unreadable(_) => self.relist(),
                    WatchError::NotServed(_) if self.writer.part().is_optional() => return self.absent(),
                    WatchError::NotServed(_) => {
                        // When the kind comes back it may have another history.
                        self.next = Next::List(ListAt::LastSeen);
                        self.writer.set_trouble(Trouble::NotServed);
                        self.back_off()
                    }
                    WatchError::Server { code: 403, message, .. } => {
                        if self.writer.set_trouble(Trouble::Forbidden) {
                            self.tell_of_prohibition(message);
                        }
                        self.back_off()
                    }
                    WatchError::AheadOfServer(_) => match tried {
                        Next::List(ListAt::LastSeen) => {
                            self.next = Next::List(ListAt::Unset);
                            Duration::ZERO
                        }
                        Next::List(ListAt::Unset) | Next::Resume => self.back_off(),
                    },
                    WatchError::Server { retry_after, .. } => {
                        self.back_off().max(retry_after.unwrap_or_default().min(LONGEST_RETRY_AFTER))
                    }
                    // A server that goes cuts what was sound. What it answers while it gets up again comes first in
                    // the backoff, as work is to go on within seconds after it is ready.
                    WatchError::Transport(_) if sound => Backoff::first(&mut self.rng),
                    WatchError::Refused { .. } | WatchError::Transport(_) => self.back_off(),
                    WatchError::Unreachable(_) | WatchError::Starting(_) => {
                        self.rng.random_range(UNREACHABLE_WAIT)
                    }
                };
                let why = match &error {
                    WatchError::NotServed(_) if resource.is_custom() => {
                        format!("{error}: the API server does not know {resource}; apply its CRD")
                    }
                    WatchError::NotServed(_)
                    | WatchError::Expired(_)
                    | WatchError::AheadOfServer(_)
                    | WatchError::Refused { .. }
                    | WatchError::Server { .. }
                    | WatchError::Unreadable(_)
                    | WatchError::Transport(_)
                    | WatchError::Unreachable(_)
                    | WatchError::Starting(_) => error.to_string(),
                };
                (wait, why)
            }
        };
        self.writer.set_obstacle(why.clone());
        tracing::warn!(%resource, why, wait_seconds = wait.as_secs_f32(), next = ?self.next, "watch ended");
        wait
    }

    fn tell_of_prohibition(&self, message: &str) {
        let resource = self.writer.resource();
        match self.writer.part().namespace() {
            Some(namespace) => tracing::error!(
                %resource, namespace = &**namespace, message,
                "may not be watched in this namespace, or there is no such namespace: nothing that rests on it is \
                 done there until a Role allows it; other namespaces go on"
            ),
            None => tracing::error!(%resource, message, "may not be watched until a role allows it"),
        }
    }

    fn back_off(&mut self) -> Duration {
        self.backoff.next(&mut self.rng)
    }

    /// Takes in that the server lacks the kind, of which there is nothing then; gives the wait before it is asked again.
    fn absent(&mut self) -> Duration {
        self.next = Next::List(ListAt::LastSeen);
        let seen = self.writer.part().last_rv();
        self.writer.replace(W::Listing::default(), seen);
        // Who asks again has not lost a connection.
        self.connected_before = false;
        if !std::mem::replace(&mut self.is_absent, true) {
            tracing::info!(
                resource = %self.writer.resource(),
                "the server does not have this kind; nothing waits for it, and it is looked for now and then"
            );
        }
        self.rng.random_range(ABSENT_WAIT)
    }

    /// Has a list show that nothing was missed; gives the wait before it. It is no relist: nothing says
    /// that anything was.
    fn confirm(&mut self) -> Duration {
        self.next = Next::List(ListAt::LastSeen);
        self.rng.random_range(Duration::ZERO..=PROBE_JITTER)
    }

    /// Has everything listed next; gives the wait until that may begin.
    fn relist(&mut self) -> Duration {
        self.next = Next::List(ListAt::LastSeen);
        self.writer.part().stats().count_relist();
        let now = Instant::now();
        let earliest = self.last_relist.map_or(now, |last| now.max(last + RELIST_INTERVAL));
        let jitter = relist_jitter(self.writer.stored());
        let at = earliest + self.rng.random_range(Duration::ZERO..=jitter);
        self.last_relist = Some(at);
        at - now
    }

    pub(super) fn watch_timeout(&mut self) -> u32 {
        self.rng.random_range(WATCH_TIMEOUT_SECONDS)
    }

    pub(super) fn count_connection(&mut self) {
        if std::mem::replace(&mut self.connected_before, true) {
            self.writer.part().stats().count_restart();
        }
    }
}
