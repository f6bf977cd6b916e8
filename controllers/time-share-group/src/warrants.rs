//! What this controller may destroy: nothing but its own finalizer, of a group that is being deleted. Derived from the
//! stores alone, by code that no planner calls.

use crate::watches::Stores;
use springtide_plumbing::key::Resource;
use springtide_plumbing::projection::Projection;
use springtide_plumbing::time_share::TIME_SHARE_GROUP;
use springtide_plumbing::warrant::{Target, Warrant, Warrants};

/// Warrants of the TimeShareGroup controller.
#[derive(Clone, Debug)]
pub struct TimeShareGroupWarrants {
    stores: Stores,
}

impl TimeShareGroupWarrants {
    /// Warrants by these stores.
    pub fn new(stores: Stores) -> Self {
        Self { stores }
    }
}

impl Warrants for TimeShareGroupWarrants {
    fn warrant(&self, target: &Target<'_>) -> Option<Warrant> {
        if target.resource != TIME_SHARE_GROUP || target.is_delete {
            return None;
        }
        let group = self.stores.groups.get(target.key)?;
        group.meta().is_deleting().then_some(Warrant::Declared)
    }

    fn is_protected(&self, _: &Target<'_>) -> bool {
        // Nobody marks what is not deleted.
        false
    }

    fn live(&self, resource: Resource, namespace: Option<&str>) -> usize {
        if resource == TIME_SHARE_GROUP { self.stores.groups.list(namespace).len() } else { 0 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures::{group, pod};
    use crate::watches::rig::{Rig, put};
    use serde_json::json;
    use springtide_plumbing::key::ObjectKey;

    #[test]
    fn a_finalizer_goes_with_a_group_that_is_deleted_and_nothing_else_ever_does() {
        let mut rig = Rig::new();
        put(&mut rig.groups, &group(json!({})));
        let leaving = json!({"metadata": {
            "name": "leaving", "uid": "leaving", "deletionTimestamp": "2026-11-23T10:00:00Z",
            "finalizers": ["springtide.dev/time-share-group"],
        }});
        put(&mut rig.groups, &group(leaving));
        put(&mut rig.pods, &pod("pay-1", "n1", json!({})));
        let warrants = TimeShareGroupWarrants::new(rig.stores.clone());
        let of = |resource, name: &str, is_delete| {
            let key = ObjectKey::new("shop", name);
            warrants.warrant(&Target { resource, key: &key, uid: None, is_delete })
        };
        assert_eq!(of(TIME_SHARE_GROUP, "leaving", false), Some(Warrant::Declared));
        assert_eq!(of(TIME_SHARE_GROUP, "double11", false), None);
        assert_eq!(of(TIME_SHARE_GROUP, "gone", false), None);
        assert_eq!(of(TIME_SHARE_GROUP, "leaving", true), None, "the group itself");
        assert_eq!((of(Resource::POD, "pay-1", true), of(Resource::POD, "pay-1", false)), (None, None));
        assert_eq!(
            (warrants.live(TIME_SHARE_GROUP, Some("shop")), warrants.live(Resource::POD, None)),
            (2, 0)
        );
        assert_eq!(warrants.live(TIME_SHARE_GROUP, Some("other")), 0);
    }
}
