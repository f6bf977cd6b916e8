//! A part of a store: what one watch shows.

use crate::key::ResourceVersion;
use crate::watch::{STALE_AFTER, WatchStats};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// What one watch shows of a kind: the objects of one namespace, or of all.
///
/// What is known of one part says nothing of another: each has its own connection, and an event in one
/// namespace moves the version of no other.
#[derive(Debug)]
pub struct Part {
    namespace: Option<Arc<str>>,
    is_optional: bool,
    last_rv: Mutex<ResourceVersion>,
    standing: Mutex<Standing>,
    stats: WatchStats,
}

#[derive(Clone, Debug, Default)]
struct Standing {
    /// A list was complete once.
    listed: bool,
    trouble: Option<Trouble>,
    /// How the last attempt ended; empty where it is synced.
    obstacle: Option<String>,
}

/// Why the server shows nothing of a part at present.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// The kind is not served.
    NotServed,
    /// It may not be watched there.
    Forbidden,
}

impl Part {
    pub(super) fn new(namespace: Option<Arc<str>>) -> Self {
        Self {
            namespace,
            is_optional: false,
            last_rv: Mutex::default(),
            standing: Mutex::default(),
            stats: WatchStats::default(),
        }
    }

    /// The same of a kind that the server may lack: see [`Part::is_optional`].
    pub(super) fn optional(namespace: Option<Arc<str>>) -> Self {
        Self { is_optional: true, ..Self::new(namespace) }
    }

    /// Whether the server may do without the kind: where it does, the part is listed, and empty.
    pub fn is_optional(&self) -> bool {
        self.is_optional
    }

    /// The namespace; `None` where the part is the whole cluster.
    pub fn namespace(&self) -> Option<&Arc<str>> {
        self.namespace.as_ref()
    }

    /// The highest resourceVersion that the part reflects, by event, list or bookmark; zero before the
    /// first list.
    pub fn last_rv(&self) -> ResourceVersion {
        *lock(&self.last_rv)
    }

    /// Whether a list of it was complete once.
    pub fn is_listed(&self) -> bool {
        lock(&self.standing).listed
    }

    /// Why it is not shown at present, where the server has said so.
    pub fn trouble(&self) -> Option<Trouble> {
        lock(&self.standing).trouble
    }

    /// What keeps it from being shown, for people: how the last attempt ended. `None` where it is synced, and
    /// before the first attempt has ended.
    pub fn obstacle(&self) -> Option<String> {
        lock(&self.standing).obstacle.clone()
    }

    /// Whether it has been brought up to date, and is still shown.
    pub fn is_synced(&self) -> bool {
        let standing = lock(&self.standing);
        standing.listed && standing.trouble.is_none()
    }

    /// Whether nothing (event, bookmark or list) has brought it forward for [`STALE_AFTER`], or ever since
    /// it was made.
    pub fn is_stale(&self) -> bool {
        self.stats.since_last_frame() >= STALE_AFTER
    }

    /// Counters of the watch behind it.
    pub fn stats(&self) -> &WatchStats {
        &self.stats
    }

    /// Takes in that everything up to `rv` has been seen. Returns whether that is news to those who wait
    /// for a version, or for the first list.
    pub(super) fn advance(&self, rv: ResourceVersion, is_list: bool) -> bool {
        self.stats.frame();
        let before = std::mem::replace(&mut *lock(&self.last_rv), rv);
        let mut standing = lock(&self.standing);
        let is_first = is_list && !std::mem::replace(&mut standing.listed, true);
        standing.trouble = None;
        standing.obstacle = None;
        before != rv || is_first
    }

    /// Returns whether that is news.
    pub(crate) fn set_trouble(&self, trouble: Trouble) -> bool {
        lock(&self.standing).trouble.replace(trouble) != Some(trouble)
    }

    /// Says nothing where it is synced: it shows what it last knew.
    pub(crate) fn set_obstacle(&self, why: String) {
        let mut standing = lock(&self.standing);
        if !standing.listed || standing.trouble.is_some() {
            standing.obstacle = Some(why);
        }
    }

    /// What of it there is to wait for.
    pub(super) fn progress(&self) -> Progress {
        let standing = lock(&self.standing);
        match (standing.trouble, standing.listed) {
            (Some(Trouble::NotServed), _) | (None, false) => Progress::Awaited,
            (Some(Trouble::Forbidden), false) => Progress::Forbidden,
            // What was listed serves on; that it grows old is another matter.
            (Some(Trouble::Forbidden) | None, true) => Progress::Listed,
        }
    }
}

/// See [`super::Store::is_synced`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Progress {
    Awaited,
    Forbidden,
    Listed,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
