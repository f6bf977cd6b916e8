//! The breaker: how much may be destroyed that nothing entitles to ([warrants](crate::warrant)).
//!
//! What a controller deletes without a warrant is either a preemption or a bug, and looks the same. A few
//! such deletes pass; beyond the caps the breaker opens for the controller in that namespace (in all, where
//! the cap of the cluster is exceeded), and nothing is destroyed there until a person has looked and
//! closes it. Each opening is an [`Incident`] in a ConfigMap, so that it outlives the process.
//!
//! The counts of the window are of this process alone: a new leader begins at zero.

mod incident;
mod keeper;
#[cfg(test)]
mod tests;

pub use incident::Incident;
pub use keeper::BreakerKeeper;

use crate::clock::Clock;
use crate::config_map::ConfigMapView;
use crate::guard::Withheld;
use crate::plan::Write;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::time::Instant;

/// Name of the ConfigMap, in the manager's namespace, that holds the open incidents by id.
pub const CONFIG_MAP: &str = "springtide-breaker";
/// Annotation of [`CONFIG_MAP`] that closes incidents: their ids, separated by commas.
pub const RESET_ANNOTATION: &str = "springtide.dev/breaker-reset";

/// How many objects may go without a warrant in one window.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Cap {
    /// How many objects may be destroyed in one window in any case.
    #[schemars(range(min = 0, max = 100_000))]
    pub floor: usize,
    /// How many percent of the live objects may be destroyed in one window, where that is more than the floor.
    #[schemars(range(min = 0, max = 100))]
    pub percent: usize,
}

impl Cap {
    fn of(&self, live: usize) -> usize {
        self.floor.max(live.saturating_mul(self.percent) / 100)
    }
}

/// The caps of a breaker.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
pub struct Limits {
    /// Length of the sliding window of the breaker.
    #[schemars(range(min = 10, max = 86_400))]
    pub window_seconds: u32,
    /// The cap on one controller in one namespace.
    pub namespace: Cap,
    /// The cap on one controller in all namespaces.
    pub cluster: Cap,
}

impl Limits {
    /// No cap at all, for tests of what a breaker prevents.
    pub const NONE: Self = {
        let cap = Cap { floor: usize::MAX, percent: 0 };
        Self { window_seconds: 1, namespace: cap, cluster: cap }
    };

    fn window(&self) -> Duration {
        Duration::from_secs(self.window_seconds.into())
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            window_seconds: 300,
            namespace: Cap { floor: 10, percent: 5 },
            cluster: Cap { floor: 20, percent: 1 },
        }
    }
}

/// A destructive write without a warrant.
#[derive(Clone, Copy, Debug)]
pub struct Case<'a> {
    /// Who wants it.
    pub controller: &'static str,
    /// The write.
    pub write: &'a Write,
    /// The incarnation it is for: the same one again is not counted twice.
    pub uid: Option<&'a str>,
    /// Now.
    pub at: Instant,
}

/// Called with each incident as it begins; brief.
pub type OpenListener = Arc<dyn Fn(&Incident) + Send + Sync>;

/// The breaker of a process, for all its controllers.
pub struct Breaker {
    limits: Limits,
    clock: Clock,
    state: Mutex<State>,
    listeners: Mutex<Vec<OpenListener>>,
}

#[derive(Default)]
struct State {
    /// Whether it is known which incidents were open before this process.
    read: bool,
    open: BTreeMap<String, Incident>,
    /// Those of them that the record had when it was last read.
    recorded: BTreeSet<String>,
    /// By controller, what was let pass in the last window.
    spent: HashMap<&'static str, Vec<Spent>>,
}

struct Spent {
    at: Instant,
    namespace: Arc<str>,
    uid: Option<Arc<str>>,
}

impl Breaker {
    /// A breaker that lets nothing be destroyed before [`Breaker::read`] was called.
    pub fn new(limits: Limits, clock: Clock) -> Self {
        Self { limits, clock, state: Mutex::default(), listeners: Mutex::default() }
    }

    /// Whether it is open for a controller in a namespace.
    ///
    /// # Errors
    /// It is, or nobody knows yet.
    pub fn check(&self, controller: &str, namespace: &str) -> Result<(), Withheld> {
        self.lock().check(controller, namespace)
    }

    /// Counts a destructive write without a warrant, and opens where that is one too many. `live` counts
    /// the live objects of the controller in a namespace or in all; it is asked where the floor is reached.
    ///
    /// # Errors
    /// The breaker is open, be it since this very write.
    pub fn admit(&self, case: &Case<'_>, live: &dyn Fn(Option<&str>) -> usize) -> Result<(), Withheld> {
        let opened = {
            let mut state = self.lock();
            let namespace = &case.write.key.namespace;
            state.check(case.controller, namespace)?;
            let spent = state.spent.entry(case.controller).or_default();
            spent.retain(|spent| case.at.duration_since(spent.at) < self.limits.window());
            // What was let pass before may only go now.
            if let Some(before) =
                spent.iter_mut().find(|spent| spent.uid.is_some() && spent.uid.as_deref() == case.uid)
            {
                before.at = case.at;
                return Ok(());
            }
            let here = spent.iter().filter(|spent| spent.namespace == *namespace).count();
            let beyond = |cap: Cap, count: usize, of: Option<&str>| {
                (count >= cap.floor).then(|| cap.of(live(of))).filter(|cap| count >= *cap)
            };
            let exceeded = match beyond(self.limits.namespace, here, Some(namespace)) {
                Some(cap) => Some((Some(&**namespace), cap)),
                None => beyond(self.limits.cluster, spent.len(), None).map(|cap| (None, cap)),
            };
            match exceeded {
                None => {
                    let uid = case.uid.map(Arc::from);
                    spent.push(Spent { at: case.at, namespace: Arc::clone(namespace), uid });
                    return Ok(());
                }
                Some((namespace, cap)) => {
                    let incident = Incident::of(case, namespace, cap, self.limits.window(), self.clock.now());
                    state.open.insert(incident.id.clone(), incident.clone());
                    incident
                }
            }
        };
        tracing::error!(
            controller = case.controller,
            incident = opened.id,
            message = opened.message,
            "the breaker has opened: nothing is destroyed there until it is closed by hand"
        );
        let listeners = self.listeners.lock().unwrap_or_else(PoisonError::into_inner).clone();
        for listener in listeners {
            listener(&opened);
        }
        Err(opened.withheld())
    }

    /// Takes in what [`CONFIG_MAP`] says: incidents of earlier processes are open, those that its
    /// annotation names are closed. An incident that is missing there stays open, and is recorded once more.
    pub fn read(&self, record: Option<&ConfigMapView>) {
        self.take(record, false);
    }

    /// The same for a process that does not lead, and so neither opens nor records anything: an incident that the
    /// record had and has no more was closed, though the annotation may speak of another one by now.
    pub fn follow(&self, record: Option<&ConfigMapView>) {
        self.take(record, true);
    }

    fn take(&self, record: Option<&ConfigMapView>, follows: bool) {
        let mut state = self.lock();
        state.read = true;
        let Some(record) = record else { return };
        if follows {
            let State { open, recorded, .. } = &mut *state;
            let is_closed = |id: &str| recorded.contains(id) && !record.data.contains_key(id);
            for (id, _) in open.extract_if(.., |id, _| is_closed(id)) {
                tracing::info!(incident = id, "the breaker was closed by hand, as the record says");
            }
        }
        state.recorded = record.data.keys().cloned().collect();
        let resets = resets(record);
        let is_reset = |id: &str| resets.contains(id);
        for (id, text) in record.data.iter().filter(|(id, _)| !is_reset(id)) {
            state.open.entry(id.clone()).or_insert_with(|| {
                let incident = Incident::parse(id, text);
                tracing::warn!(incident = id, message = incident.message, "the breaker is open");
                incident
            });
        }
        let closed = state.open.extract_if(.., |id, _| is_reset(id)).collect::<Vec<_>>();
        for (id, incident) in closed {
            tracing::info!(incident = id, "the breaker was closed by hand");
            // Whoever closes it has judged what was counted.
            for (controller, spent) in &mut state.spent {
                spent.retain(|spent| !incident.covers(controller, &spent.namespace));
            }
        }
    }

    /// The open incidents, by id.
    pub fn open(&self) -> Vec<Incident> {
        self.lock().open.values().cloned().collect()
    }

    /// Calls `listener` with each incident that begins from now on.
    pub fn on_open(&self, listener: OpenListener) {
        self.listeners.lock().unwrap_or_else(PoisonError::into_inner).push(listener);
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing that can panic leaves it half changed.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn check(&self, controller: &str, namespace: &str) -> Result<(), Withheld> {
        if !self.read {
            return Err(Withheld::Unread(CONFIG_MAP));
        }
        match self.open.values().find(|incident| incident.covers(controller, namespace)) {
            Some(incident) => Err(incident.withheld()),
            None => Ok(()),
        }
    }
}

/// The ids that the annotation of the record names.
fn resets(record: &ConfigMapView) -> BTreeSet<&str> {
    let named = record.annotation(RESET_ANNOTATION).unwrap_or_default();
    named.split(',').map(str::trim).filter(|id| !id.is_empty()).collect()
}

impl fmt::Debug for Breaker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Breaker").field("limits", &self.limits).field("open", &self.open()).finish()
    }
}
