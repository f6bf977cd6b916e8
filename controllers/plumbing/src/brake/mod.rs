//! The brake: a stop switch for all writes but those of leases.
//!
//! It is engaged by any of three sources, of which the first two need no API: a file, a signal, and the
//! ConfigMap [`CONFIG_MAP`], which is never written by us. An absent file and an absent ConfigMap mean
//! released. Until the ConfigMap has been read nothing is destroyed; once it was, the last value counts for
//! as long as it cannot be read.

mod sources;
mod switches;

pub use sources::{FILE_POLL, Signals, watch_config_map, watch_file};

use crate::config_map::ConfigMapView;
use std::fmt;
use std::sync::Arc;
use switches::Switches;
use tokio::sync::watch;

/// Name of the ConfigMap in the manager's namespace.
pub const CONFIG_MAP: &str = "springtide-brake";

/// What engages a brake.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// The file that the manager was told to look for.
    File,
    /// A signal.
    Signal,
    /// The ConfigMap.
    ConfigMap,
}

impl Source {
    /// All of them, for metrics that start at zero.
    pub const ALL: [Self; 3] = [Self::File, Self::Signal, Self::ConfigMap];

    /// The label value in metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::File => "file",
            Self::Signal => "signal",
            Self::ConfigMap => "config_map",
        }
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File => f.write_str("its file"),
            Self::Signal => f.write_str("a signal"),
            Self::ConfigMap => write!(f, "ConfigMap {CONFIG_MAP}"),
        }
    }
}

/// The brake of a process; clones are handles on the same one.
#[derive(Clone, Debug)]
pub struct Brake(Arc<watch::Sender<State>>);

#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct State {
    file: bool,
    signal: bool,
    /// `None` until the ConfigMap has been read.
    config_map: Option<Switches>,
}

impl Brake {
    /// A brake whose ConfigMap has not been read.
    #[allow(clippy::new_without_default, reason = "a brake that nothing fills must be meant")]
    pub fn new() -> Self {
        Self(Arc::new(watch::Sender::new(State::default())))
    }

    /// The file is there, or is not.
    pub fn set_file(&self, engaged: bool) {
        self.set("file", |state| std::mem::replace(&mut state.file, engaged) != engaged);
    }

    /// A signal engages or releases it.
    pub fn set_signal(&self, engaged: bool) {
        self.set("signal", |state| std::mem::replace(&mut state.signal, engaged) != engaged);
    }

    /// What the ConfigMap says now; `None` when there is none.
    pub fn read(&self, config_map: Option<&ConfigMapView>) {
        let switches = config_map.map(|map| Switches::read(&map.data)).unwrap_or_default();
        self.set("ConfigMap", |state| state.config_map.replace(switches.clone()) != Some(switches));
    }

    /// There was no ConfigMap a moment ago: released, unless it has been read since.
    pub fn read_absent(&self) {
        self.set("ConfigMap", |state| {
            let is_news = state.config_map.is_none();
            state.config_map.get_or_insert_default();
            is_news
        });
    }

    fn set(&self, source: &str, change: impl FnOnce(&mut State) -> bool) {
        if self.0.send_if_modified(change) {
            tracing::warn!(source, brake = ?*self.0.borrow(), "the brake has changed");
        }
    }

    /// What keeps a controller from writing, if anything does.
    pub fn engaged_by(&self, controller: &str) -> Option<Source> {
        self.0.borrow().engaged_by(controller)
    }

    /// Whether the ConfigMap has been read.
    pub fn is_read(&self) -> bool {
        self.0.borrow().config_map.is_some()
    }

    /// Whether a source engages it, be it for one controller only.
    pub fn is_engaged_by(&self, source: Source) -> bool {
        let state = self.0.borrow();
        match source {
            Source::File => state.file,
            Source::Signal => state.signal,
            Source::ConfigMap => state.config_map.as_ref().is_some_and(Switches::is_any_engaged),
        }
    }

    /// Resolves when a controller may write, or may not: at once if that is so already.
    pub async fn wait_for(&self, controller: &str, engaged: bool) {
        let mut state = self.0.subscribe();
        // The sender lives in `self`, so the channel cannot close while this waits.
        let _ = state.wait_for(|state| state.engaged_by(controller).is_some() == engaged).await;
    }
}

impl State {
    fn engaged_by(&self, controller: &str) -> Option<Source> {
        if self.file {
            return Some(Source::File);
        }
        if self.signal {
            return Some(Source::Signal);
        }
        let switches = self.config_map.as_ref()?;
        switches.is_engaged(controller).then_some(Source::ConfigMap)
    }
}
