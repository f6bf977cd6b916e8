//! Watches: one per kind and scope in the whole process, each feeding one [`crate::store::Store`].
//!
//! Every further watch of a kind makes everybody's writes to it dearer for the API server, so a
//! [`WatchSet`] refuses a second one. The loop ([`run`]) is our own, because kube's hides bookmarks
//! and resourceVersions, and asks for the same expired version for ever (`tests/watch_wire/hazards.rs`).

mod backoff;
mod kube_source;
mod listing;
mod run;
mod set;
mod source;
mod stats;

pub use kube_source::{KubeConnection, KubeSource};
pub use listing::StreamingLists;
pub use run::run;
pub use set::{DuplicateWatch, RunningWatches, WatchPanicked, WatchSet};
pub use source::{
    EventStream, Identity, ListPage, ListRequest, Scope, Selector, Source, Unreadable, WatchError,
    WatchRequest, WatchStart,
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
/// together, do not list together.
pub const RELIST_JITTER: Duration = Duration::from_secs(5);

/// Seconds after which the server is asked to end a watch, chosen at random so that they spread.
/// The lower bound is well above the server's bookmark interval.
pub const WATCH_TIMEOUT_SECONDS: std::ops::RangeInclusive<u32> = 240..=420;

/// The timeout in seconds of the watch that follows a silence. Without change of its objects a server
/// sends the first bookmark after a minute, or else 2 s before the watch's own end: so a healthy one is
/// heard again before [`STALE_AFTER`], and no quiet kind holds up what must not be done on stale stores.
pub const PROBE_TIMEOUT_SECONDS: u32 = 10;

/// A connection that lived this long was sound: its end is followed by an immediate reconnect, and
/// the backoff starts anew. One that ends sooner counts as a failure, however cleanly it ends.
pub const SOUND_CONNECTION: Duration = Duration::from_secs(30);
