//! Watches: one per kind in the whole process, or one per kind and namespace where only some are watched.
//! Each feeds a part of a [`crate::store::Store`], or of several that keep different fields of the same objects.
//!
//! Every further watch of a kind makes everybody's writes to it dearer for the API server, so a
//! [`WatchSet`] refuses a second one, and lets controllers with projections of their own share the first. The loop ([`run`]) is our own, because kube's hides bookmarks
//! and resourceVersions, and asks for the same expired version for ever (`tests/hazards/`).

mod backoff;
mod fan;
mod kube_source;
mod listing;
mod run;
mod set;
mod sink;
mod source;
mod stats;

pub use kube_source::{KubeConnection, KubeSource};
pub use listing::StreamingLists;
pub use run::run;
pub use set::{DuplicateWatch, RegistrationError, RunningWatches, WatchPanicked, WatchSet};
pub use sink::{Sink, Watched};
pub use source::{
    EventStream, Identity, ListPage, ListRequest, ListVersion, Scope, Selector, Source, Unreadable,
    WatchError, WatchRequest, WatchStart,
};
pub use stats::WatchStats;

use std::time::Duration;

/// A connection without event or bookmark for this long is taken for dead and replaced. The API server
/// sends a bookmark about every 60 s; this leaves it a quarter more.
pub const LIVENESS: Duration = Duration::from_secs(75);

/// A store that nothing has brought forward for this long is stale. It is longer than [`LIVENESS`], so
/// that a reconnect has the chance to mend it first.
pub const STALE_AFTER: Duration = Duration::from_secs(90);

/// A streaming list that brings neither an initial event nor its end bookmark for this long is given
/// up for a plain LIST. Also how long the server may take to answer that a watch is open.
pub const LIST_SILENCE: Duration = Duration::from_secs(30);

/// How long one plain LIST may take: `--request-timeout` of kube-apiserver, which has then given up too.
pub const LIST_DEADLINE: Duration = Duration::from_secs(60);

/// A 410 and its like have everything listed anew at most once in this time.
pub const RELIST_INTERVAL: Duration = Duration::from_secs(60);

/// A relist waits up to this long at random, so that the watches of many processes, which expire
/// together, do not list together. Of so long a tenth where there is little to list: see [`relist_jitter`].
pub const RELIST_JITTER: Duration = Duration::from_secs(5);

/// A list of so many objects is one that servers must be spared.
pub const DEAR_LIST: usize = 10_000;

/// The longest wait before a relist of so many objects: [`RELIST_JITTER`] from [`DEAR_LIST`] on, in proportion
/// below, and a tenth at least. Where lists cost nothing, work is to go on soon.
pub fn relist_jitter(objects: usize) -> Duration {
    RELIST_JITTER.mul_f64((objects as f64 / DEAR_LIST as f64).clamp(0.1, 1.0))
}

/// Seconds after which the server is asked to end a watch, chosen at random so that they spread.
/// The lower bound is well above the server's bookmark interval.
pub const WATCH_TIMEOUT_SECONDS: std::ops::RangeInclusive<u32> = 240..=420;

/// A watch that resumes when nothing has brought its store forward for longer than this begins with a
/// probe, as the first bookmark of an ordinary one, after about a minute, might come when the store is
/// stale already.
pub const PROBE_AGE: Duration = STALE_AFTER.saturating_sub(Duration::from_secs(65));

/// The timeout in seconds of a probe: so brief a watch that its bookmark, 2 s before its end, tells soon
/// whether anything was missed. A server leaves that bookmark out when its version is the one that the
/// watch began with; then a streaming list, which always ends with one, tells that nothing was.
pub const PROBE_TIMEOUT_SECONDS: u32 = 6;

/// A probe from which nothing is heard for this long is given up, as [`LIVENESS`] is for other watches:
/// the server should have ended it 5 s before.
pub const PROBE_SILENCE: Duration = Duration::from_secs(PROBE_TIMEOUT_SECONDS as u64 + 5);

/// The list after a probe that brought nothing waits up to this long at random: such a list is the rule
/// for kinds that nothing changes, and their watches may have begun together.
pub const PROBE_JITTER: Duration = Duration::from_secs(1);

/// The wait, at random, after an attempt that nobody accepted the connection of, that a balancer without a server
/// behind it cut off, or that a server answered which is still starting. It costs the server nothing, and work is to go
/// on within seconds after it is back; and how long it was away says nothing of how it is to be treated once it answers,
/// so this stays out of the backoff.
pub const UNREACHABLE_WAIT: std::ops::RangeInclusive<Duration> =
    Duration::from_millis(1500)..=Duration::from_secs(3);

/// The wait, at random, before a server that lacks an optional kind is asked for it again: its CRD may come at any time. Its
/// answer is a sign of life, so this stays well below [`STALE_AFTER`].
pub const ABSENT_WAIT: std::ops::RangeInclusive<Duration> = Duration::from_secs(20)..=Duration::from_secs(30);

/// The longest pause that a server can ask for: a store that lags for longer is of no use.
pub const LONGEST_RETRY_AFTER: Duration = Duration::from_secs(60);

/// A connection that lived this long was sound: its end is followed by an immediate reconnect, and
/// the backoff starts anew. One that ends sooner counts as a failure, however cleanly it ends.
pub const SOUND_CONNECTION: Duration = Duration::from_secs(30);
