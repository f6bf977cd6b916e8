//! Keeps the record of open incidents in its ConfigMap, and hears who closes them.

use super::{Breaker, CONFIG_MAP, Incident, RESET_ANNOTATION, resets};
use crate::config_map::ConfigMapView;
use crate::controller::{Reconciler, Settled};
use crate::events::{EventNote, Severity};
use crate::executor::WriteResult;
use crate::failing::{Failing, Telling};
use crate::key::{ObjectKey, Resource};
use crate::plan::{Action, Outcome, Plan, Write, WriteClass};
use crate::projection::Projection;
use crate::queue::{Priority, Urgency, WorkQueue};
use crate::rights::{self, Rights};
use crate::store::{Store, StoreView};
use jiff::Timestamp;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::Arc;
use tokio::sync::watch;

/// The controller of the record: its one key is the ConfigMap, and what it wants there are the open
/// incidents. An ordinary controller, so its writes pass what all writes pass.
pub struct BreakerKeeper {
    breaker: Arc<Breaker>,
    store: Store<ConfigMapView>,
    key: ObjectKey,
}

/// What is wanted and what is there.
#[derive(Clone, Debug)]
pub struct Observed {
    key: ObjectKey,
    stored: Option<Arc<ConfigMapView>>,
    open: Vec<Incident>,
}

impl BreakerKeeper {
    /// The keeper of the record in `namespace`, which `store` shows.
    pub fn new(breaker: Arc<Breaker>, store: Store<ConfigMapView>, namespace: &str) -> Arc<Self> {
        Arc::new(Self { breaker, store, key: ObjectKey::new(namespace, CONFIG_MAP) })
    }

    /// What its plans rest on, for the gate.
    pub fn views(&self) -> [Arc<dyn StoreView>; 1] {
        [Arc::new(self.store.clone())]
    }

    /// Reads the record once it is listed, and whenever it changes; fills the queue when something has to
    /// be written. Nothing happens but by the future. `leading` is whether this process keeps the record.
    pub fn wire(
        self: &Arc<Self>,
        queue: &WorkQueue<ObjectKey>,
        leading: watch::Receiver<bool>,
    ) -> impl Future<Output = ()> + Send + use<> {
        let (this, queue) = (Arc::clone(self), queue.clone());
        async move {
            this.store.synced().await;
            let wake = {
                let key = this.key.clone();
                move || queue.add(key.clone(), Priority::High, Urgency::BreaksBackoff)
            };
            let (breaker, woken) = (Arc::clone(&this.breaker), wake.clone());
            this.store.on_change(Arc::new(move |change| {
                let record = change.present().map(|record| &**record);
                if *leading.borrow() {
                    breaker.read(record)
                } else {
                    breaker.follow(record)
                }
                woken();
            }));
            // Where there is a record it was the listener's to read: it may have changed since.
            if this.store.get(&this.key).is_none() {
                this.breaker.read(None);
            }
            let woken = wake.clone();
            this.breaker.on_open(Arc::new(move |_| woken()));
            wake();
        }
    }
}

impl Reconciler for BreakerKeeper {
    const NAME: &'static str = "breaker";
    const RIGHTS: Rights = rights::OWN;
    type Observed = Observed;

    fn observe(&self, key: &ObjectKey, _: Option<&Failing>, _: Timestamp) -> Option<Observed> {
        let stored = self.store.get(key);
        Some(Observed { key: key.clone(), stored, open: self.breaker.open() })
    }

    fn plan(&self, observed: &Observed, _: Timestamp) -> Plan {
        let action = match &observed.stored {
            None => create(observed),
            Some(stored) => patch(stored, &observed.open),
        };
        let write = action.map(|action| Write {
            resource: Resource::CONFIG_MAP,
            key: observed.key.clone(),
            class: WriteClass::Protective,
            action,
        });
        match write {
            None => Plan::idle(Outcome::Converged),
            Some(write) => Plan {
                stages: vec![vec![write.into()]],
                events: notes(observed),
                ..Plan::idle(Outcome::Progressing)
            },
        }
    }

    /// The record has no status.
    fn tell(&self, key: &ObjectKey, failing: &Failing, _: Timestamp) -> Option<Telling> {
        let stored = self.store.get(key)?;
        let event = failing.note(Resource::CONFIG_MAP, key.clone(), stored.meta().uid.clone())?;
        Some(Telling { event, status: None })
    }

    fn settle(&self, _: &ObjectKey, _: &[WriteResult], _: Timestamp) -> Settled {
        Settled::Default
    }
}

/// One event for each incident that is not recorded yet.
fn notes(observed: &Observed) -> Vec<EventNote> {
    let stored = observed.stored.as_deref();
    let is_new = |incident: &&Incident| stored.is_none_or(|stored| !stored.data.contains_key(&incident.id));
    let note = |incident: &Incident| EventNote {
        resource: Resource::CONFIG_MAP,
        key: observed.key.clone(),
        uid: stored.map(|stored| stored.meta().uid.clone()).unwrap_or_default(),
        severity: Severity::Warning,
        reason: "BreakerOpened",
        action: "Destroying",
        note: format!(
            "{}; nothing more is destroyed there until annotation {RESET_ANNOTATION}={} closes the breaker",
            incident.message, incident.id
        ),
    };
    observed.open.iter().filter(is_new).map(note).collect()
}

/// There is no record without an incident.
fn create(observed: &Observed) -> Option<Action> {
    let data: BTreeMap<_, _> =
        observed.open.iter().map(|incident| (&incident.id, incident.to_text())).collect();
    let manifest = json!({
        "apiVersion": Resource::CONFIG_MAP.api_version(),
        "kind": Resource::CONFIG_MAP.kind,
        "metadata": {"namespace": observed.key.namespace, "name": observed.key.name},
        "data": data,
    });
    (!data.is_empty()).then_some(Action::Create { manifest })
}

/// Adds what is missing and takes away what was closed; other entries are not ours.
fn patch(stored: &ConfigMapView, open: &[Incident]) -> Option<Action> {
    // Ids are keys of a ConfigMap, in which nothing has to be escaped.
    let path = |id: &str| format!("/data/{id}");
    let mut changes: Vec<Value> = resets(stored)
        .into_iter()
        .filter(|id| stored.data.contains_key(*id) && !open.iter().any(|incident| incident.id == **id))
        .map(|id| json!({"op": "remove", "path": path(id)}))
        .collect();
    changes.extend(
        open.iter()
            .filter(|incident| !stored.data.contains_key(&incident.id))
            .map(|incident| json!({"op": "add", "path": path(&incident.id), "value": incident.to_text()})),
    );
    if changes.is_empty() {
        return None;
    }
    let meta = stored.meta();
    let mut operations = vec![
        json!({"op": "test", "path": "/metadata/uid", "value": meta.uid}),
        // The server answers 409 where it is another one.
        json!({"op": "replace", "path": "/metadata/resourceVersion", "value": meta.resource_version.to_string()}),
    ];
    if stored.data.is_empty() {
        operations.push(json!({"op": "add", "path": "/data", "value": {}}));
    }
    operations.append(&mut changes);
    Some(Action::json_patch(operations.into()))
}
