//! Which owners wait, and for what.

use super::{ASK_AFTER, Expectation, Place, Views};
use crate::key::{ObjectKey, Resource, ResourceVersion};
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;
use tokio::time::Instant;

#[derive(Default)]
pub(super) struct State {
    owners: HashMap<ObjectKey, Vec<Open>>,
    places: HashMap<Place, Waiters>,
    /// Owners whose namespace is not listed yet, by namespace.
    unlisted: HashMap<Arc<str>, HashSet<ObjectKey>>,
    /// When the API server is to be asked, by expectation.
    asks: BTreeMap<(Instant, u64), ObjectKey>,
    last_id: u64,
}

/// One expectation that is not known to be met.
struct Open {
    id: u64,
    expectation: Expectation,
    /// Whose advance may meet it.
    place: Place,
    /// When the API server is to be asked; `None` while it is being asked.
    ask_at: Option<Instant>,
}

/// The owners that an advance of one watch may concern.
#[derive(Default)]
struct Waiters {
    /// Those that wait for a version: an advance takes only what it reaches.
    by_version: BTreeSet<(ResourceVersion, ObjectKey)>,
    /// Those that wait for something about single objects, with the number of such things.
    by_object: HashMap<ObjectKey, usize>,
}

/// A question to the API server.
pub(super) struct Ask {
    pub(super) owner: ObjectKey,
    pub(super) resource: Resource,
    pub(super) key: ObjectKey,
    id: u64,
}

impl State {
    pub(super) fn is_waiting(&self, owner: &ObjectKey) -> bool {
        self.owners.contains_key(owner)
    }

    pub(super) fn len(&self) -> usize {
        self.owners.len()
    }

    pub(super) fn note(&mut self, owner: ObjectKey, new: Expectation, views: &Views, now: Instant) {
        // What is met now is kept all the same while the owner waits for something else: the delete
        // of an object that the store has yet to show is not met once it shows the create.
        if !self.is_waiting(&owner) && views.is_met(&new) {
            return;
        }
        let place = views.place(new.resource(), &new.key().namespace);
        let expectation = match new {
            Expectation::Seen { key, rv, .. } => self.latest_seen(&owner, &place, key, rv),
            Expectation::Gone { .. } | Expectation::Resolve { .. } => new,
        };
        self.last_id += 1;
        self.watch_for(&owner, &place, &expectation);
        self.ask_later(owner.clone(), self.last_id, now);
        let open = Open { id: self.last_id, expectation, place, ask_at: Some(now + ASK_AFTER) };
        self.owners.entry(owner).or_default().push(open);
    }

    /// Remembers an owner whose namespace is not listed yet.
    pub(super) fn await_list(&mut self, owner: ObjectKey) {
        self.unlisted.entry(Arc::clone(&owner.namespace)).or_default().insert(owner);
    }

    /// The owners that open as a watch has advanced.
    pub(super) fn advance(&mut self, place: &Place, views: &Views) -> Vec<ObjectKey> {
        let mut opened = self.advance_writes(place, views);
        let listed = |namespace: &Arc<str>| {
            place.namespace.as_ref().is_none_or(|moved| moved == namespace) && views.list(namespace)
        };
        // As a rule nobody waits for a list.
        let owners: Vec<ObjectKey> = self
            .unlisted
            .extract_if(|namespace, _| listed(namespace))
            .flat_map(|(_, owners)| owners)
            .collect();
        opened.extend(owners.into_iter().filter(|owner| !self.is_waiting(owner)));
        opened
    }

    fn advance_writes(&mut self, place: &Place, views: &Views) -> Vec<ObjectKey> {
        let last = views.last_rv(place.resource, place.namespace.as_deref().unwrap_or_default());
        let (Some(waiters), Some(last)) = (self.places.get_mut(place), last) else {
            return Vec::new();
        };
        let mut concerned: Vec<ObjectKey> = waiters.by_object.keys().cloned().collect();
        while waiters.by_version.first().is_some_and(|(rv, _)| *rv <= last) {
            concerned.extend(waiters.by_version.pop_first().map(|(_, owner)| owner));
        }
        concerned.sort_unstable();
        concerned.dedup();
        concerned.retain(|owner| {
            self.drop_seen(owner, place, last);
            self.open_if_met(owner, views)
        });
        concerned
    }

    /// When the next question is due.
    pub(super) fn next_ask(&self) -> Option<Instant> {
        self.asks.first_key_value().map(|((at, _), _)| *at)
    }

    /// A question that is due.
    pub(super) fn take_due(&mut self, now: Instant) -> Option<Ask> {
        let due = self.asks.first_entry().filter(|entry| entry.key().0 <= now)?;
        let ((_, id), owner) = due.remove_entry();
        let open = self.find(&owner, id)?;
        open.ask_at = None;
        let (resource, key) = (open.expectation.resource(), open.expectation.key().clone());
        Some(Ask { owner, resource, key, id })
    }

    /// Takes in whether the API server and the store agree; true if that opens the owner's gate.
    pub(super) fn answered(&mut self, ask: &Ask, agrees: bool, views: &Views, now: Instant) -> bool {
        // Met by the store while the question was under way?
        let Some(open) = self.find(&ask.owner, ask.id) else { return false };
        if agrees {
            self.drop_expectation(&ask.owner, ask.id);
        } else {
            open.ask_at = Some(now + ASK_AFTER);
            self.ask_later(ask.owner.clone(), ask.id, now);
        }
        agrees && self.open_if_met(&ask.owner, views)
    }

    /// Opens the gate of `owner` when all that it waits for is met, at one moment.
    fn open_if_met(&mut self, owner: &ObjectKey, views: &Views) -> bool {
        let Some(opens) = self.owners.get(owner) else { return false };
        if !opens.iter().all(|open| views.is_met(&open.expectation)) {
            return false;
        }
        let ids: Vec<u64> = opens.iter().map(|open| open.id).collect();
        for id in ids {
            self.drop_expectation(owner, id);
        }
        self.owners.remove(owner);
        true
    }

    /// Merges what `owner` has to see of one watch: the highest version stands for all.
    fn latest_seen(
        &mut self,
        owner: &ObjectKey,
        place: &Place,
        key: ObjectKey,
        rv: ResourceVersion,
    ) -> Expectation {
        let resource = place.resource;
        let (key, rv) = match self.seen(owner, place) {
            Some((id, old_key, old_rv)) => {
                self.drop_expectation(owner, id);
                if old_rv > rv { (old_key, old_rv) } else { (key, rv) }
            }
            None => (key, rv),
        };
        Expectation::Seen { resource, key, rv }
    }

    /// A version that was reached once counts for good; what concerns single objects is looked at
    /// until all is met.
    fn drop_seen(&mut self, owner: &ObjectKey, place: &Place, last: ResourceVersion) {
        if let Some((id, _, rv)) = self.seen(owner, place)
            && rv <= last
        {
            self.drop_expectation(owner, id);
        }
    }

    fn seen(&self, owner: &ObjectKey, of: &Place) -> Option<(u64, ObjectKey, ResourceVersion)> {
        self.owners.get(owner)?.iter().find_map(|open| match &open.expectation {
            Expectation::Seen { key, rv, .. } if open.place == *of => Some((open.id, key.clone(), *rv)),
            Expectation::Seen { .. } | Expectation::Gone { .. } | Expectation::Resolve { .. } => None,
        })
    }

    fn find(&mut self, owner: &ObjectKey, id: u64) -> Option<&mut Open> {
        self.owners.get_mut(owner)?.iter_mut().find(|open| open.id == id)
    }

    fn ask_later(&mut self, owner: ObjectKey, id: u64, now: Instant) {
        self.asks.insert((now + ASK_AFTER, id), owner);
    }

    fn watch_for(&mut self, owner: &ObjectKey, place: &Place, expectation: &Expectation) {
        let waiters = self.places.entry(place.clone()).or_default();
        match expectation {
            Expectation::Seen { rv, .. } => {
                waiters.by_version.insert((*rv, owner.clone()));
            }
            Expectation::Gone { .. } | Expectation::Resolve { .. } => {
                *waiters.by_object.entry(owner.clone()).or_default() += 1;
            }
        }
    }

    /// Removes one expectation with all that leads to it; the owner stays, if only with none.
    fn drop_expectation(&mut self, owner: &ObjectKey, id: u64) {
        let Some(opens) = self.owners.get_mut(owner) else { return };
        let Some(at) = opens.iter().position(|open| open.id == id) else { return };
        let Open { expectation, place, ask_at, .. } = opens.swap_remove(at);
        if let Some(at) = ask_at {
            self.asks.remove(&(at, id));
        }
        let Some(waiters) = self.places.get_mut(&place) else { return };
        match &expectation {
            Expectation::Seen { rv, .. } => {
                waiters.by_version.remove(&(*rv, owner.clone()));
            }
            Expectation::Gone { .. } | Expectation::Resolve { .. } => {
                if let Some(count) = waiters.by_object.get_mut(owner) {
                    *count -= 1;
                    if *count == 0 {
                        waiters.by_object.remove(owner);
                    }
                }
            }
        }
    }

    /// Whether nothing is remembered, in any index.
    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        let idle = |waiters: &Waiters| waiters.by_version.is_empty() && waiters.by_object.is_empty();
        self.owners.is_empty()
            && self.asks.is_empty()
            && self.unlisted.is_empty()
            && self.places.values().all(idle)
    }
}
