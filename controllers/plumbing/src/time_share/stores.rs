//! The stores of groups and grants, which the controllers share that look at them.

use super::{MemberView, ReferenceGrantView, TimeShareGroupView, is_granted};
use crate::key::{ObjectKey, ResourceVersion};
use crate::projection::Projection;
use crate::store::{Index, Store, StoreView};
use crate::watch::{RegistrationError, Scope, Selector, WatchSet};
use crate::workloads::indexes::workload_key;
use springtide_crds::in_place_upgrade::TargetKind;
use springtide_crds::reference_grant::{FromKind, ToKind};
use std::collections::BTreeMap;
use std::sync::Arc;

/// TimeShareGroups by the workloads of their members, granted or not: see [`workload_key`].
pub const GROUPS_BY_WORKLOAD: Index<TimeShareGroupView> = Index::many("workload", |group| {
    let key = |member: &MemberView| {
        workload_key(TargetKind::from(member.kind), &member.workload.namespace, &member.workload.name)
    };
    group.members.iter().map(key).collect()
});

/// TimeShareGroups and ReferenceGrants. Both are empty where the server has no such kind.
#[derive(Clone, Debug)]
pub struct TimeShares {
    /// All TimeShareGroups of the scope.
    pub groups: Store<TimeShareGroupView>,
    /// All ReferenceGrants of the scope.
    pub grants: Store<ReferenceGrantView>,
}

impl TimeShares {
    /// Registers their watches, or shares those that another controller has registered.
    ///
    /// # Errors
    /// When one of them overlaps another watch of its kind, or may not be.
    pub fn register(watches: &mut WatchSet, scope: &Scope) -> Result<Self, RegistrationError> {
        Ok(Self {
            groups: watches.share_optional(scope.clone(), Selector::default(), &[GROUPS_BY_WORKLOAD])?,
            grants: watches.share_optional(scope.clone(), Selector::default(), &[])?,
        })
    }

    /// Stores that are listed, and hold these: for who has no watch of them.
    pub fn of(groups: &[Arc<TimeShareGroupView>], grants: &[Arc<ReferenceGrantView>]) -> Self {
        Self { groups: listed(groups, &[GROUPS_BY_WORKLOAD]), grants: listed(grants, &[]) }
    }

    /// Both, for the gate of a controller whose plans rest on them.
    pub fn views(&self) -> [Arc<dyn StoreView>; 2] {
        [Arc::new(self.groups.clone()), Arc::new(self.grants.clone())]
    }

    /// Whether both have been listed, or the server has none.
    pub fn are_synced(&self) -> bool {
        self.groups.is_synced() && self.grants.is_synced()
    }

    /// Resolves when that is so.
    pub fn synced(&self) -> impl Future<Output = ()> + Send + 'static {
        let (groups, grants) = (self.groups.synced(), self.grants.synced());
        async move {
            groups.await;
            grants.await;
        }
    }

    /// Whether objects of a kind in a namespace may name that object: see [`is_granted`].
    pub fn is_granted(&self, from: (FromKind, &str), to: (ToKind, &ObjectKey)) -> bool {
        let grants =
            if *to.1.namespace == *from.1 { Vec::new() } else { self.grants.list(Some(&to.1.namespace)) };
        is_granted(grants.iter().map(AsRef::as_ref), from, to)
    }

    /// The group that has this workload as a member. Of several it is the oldest; one of another namespace counts only
    /// while a grant lets it name the workload.
    pub fn group_of(&self, kind: TargetKind, workload: &ObjectKey) -> Option<Arc<TimeShareGroupView>> {
        let has = |group: &Arc<TimeShareGroupView>| {
            group.member_of(kind, workload).is_some_and(|member| {
                let from = (FromKind::TimeShareGroup, &*group.meta().key.namespace);
                self.is_granted(from, (ToKind::from(member.kind), workload))
            })
        };
        let index = workload_key(kind, &workload.namespace, &workload.name);
        let groups = self.groups.by_index(&GROUPS_BY_WORKLOAD, &index).into_iter().filter(has);
        groups.min_by_key(|group| (group.meta().creation_time, group.meta().uid.clone()))
    }
}

fn listed<P: Projection>(objects: &[Arc<P>], indexes: &[Index<P>]) -> Store<P> {
    let (store, mut writer) = Store::new(indexes);
    let list: BTreeMap<ObjectKey, Arc<P>> =
        objects.iter().map(|object| (object.meta().key.clone(), Arc::clone(object))).collect();
    let version =
        list.values().map(|object| object.meta().resource_version).max().unwrap_or(ResourceVersion(1));
    writer.replace(list, version);
    store
}
