//! TimeShareGroup, as its own controller reads it.

use crate::names::FINALIZER;
use serde::Deserialize;
use springtide_crds::common::{Condition, condition};
use springtide_crds::reason::Reason;
use springtide_crds::time_share_group::{
    Member as MemberSpec, ReadyReason, TimeShareGroupSpec, TimeShareGroupStatus,
};
use springtide_plumbing::key::{ObjectKey, Resource, ResourceVersion};
use springtide_plumbing::projection::{Meta, NoLabels, Projection};
use std::sync::Arc;

pub use springtide_plumbing::time_share::TIME_SHARE_GROUP;

/// One TimeShareGroup.
#[derive(Clone, Debug, Deserialize)]
pub struct GroupView {
    #[serde(rename = "metadata")]
    meta: Meta,
    /// The spec.
    pub spec: TimeShareGroupSpec,
    /// The status as stored.
    #[serde(default)]
    pub status: TimeShareGroupStatus,
}

impl GroupView {
    /// Key of a member's workload, which is of the kind that the member names.
    pub fn target_key(&self, member: &MemberSpec) -> ObjectKey {
        let target = &member.target_ref;
        let namespace = match &target.namespace {
            Some(namespace) => Arc::from(namespace.as_str()),
            None => Arc::clone(&self.meta.key.namespace),
        };
        ObjectKey { namespace, name: target.name.as_str().into() }
    }

    /// A condition as stored.
    pub fn condition(&self, type_: &str) -> Option<&Condition> {
        condition(&self.status.conditions, type_)
    }

    /// The reason of a condition as stored, where it is one that this program knows.
    pub fn reason<R: Reason>(&self) -> Option<R> {
        let stored = self.condition(R::CONDITION)?;
        R::all().into_iter().find(|reason| stored.reason == reason.as_str())
    }

    /// Whether a switch goes on, as the stored status has it.
    pub fn is_switching(&self) -> bool {
        let transition = self.status.transition.as_ref();
        transition.is_some_and(|transition| transition.completion_time.is_none())
    }

    /// Whether nothing is left to do, and nothing is waited for, as the stored status has it.
    pub fn is_settled(&self) -> bool {
        self.reason::<ReadyReason>() == Some(ReadyReason::Settled)
    }

    /// Whether it holds our finalizer.
    pub fn is_held(&self) -> bool {
        self.meta.finalizers.iter().any(|held| held.as_ref() == FINALIZER)
    }

    /// The same with another status, as another version.
    #[must_use]
    pub fn with_status(&self, status: TimeShareGroupStatus, resource_version: ResourceVersion) -> Self {
        Self { meta: Meta { resource_version, ..self.meta.clone() }, spec: self.spec.clone(), status }
    }

    /// The same with our finalizer, or without it where it is there, as another version.
    #[must_use]
    pub fn with_finalizer_turned(&self, resource_version: ResourceVersion) -> Self {
        let mut turned = Self { meta: Meta { resource_version, ..self.meta.clone() }, ..self.clone() };
        if self.is_held() {
            turned.meta.finalizers.retain(|held| held.as_ref() != FINALIZER);
        } else {
            turned.meta.finalizers.push(FINALIZER.into());
        }
        turned
    }
}

impl Projection for GroupView {
    const RESOURCE: Resource = TIME_SHARE_GROUP;
    type Labels = NoLabels;

    fn meta(&self) -> &Meta {
        &self.meta
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures::{group, switching};
    use serde_json::json;
    use springtide_crds::time_share_group::RefusalReason;

    #[test]
    fn a_workload_is_of_the_groups_namespace_unless_its_member_names_another() {
        let members = json!([{"name": "promo", "targetRef": {"namespace": "events"}}]);
        let group = group(json!({"spec": {"members": members}}));
        let keys: Vec<_> =
            group.spec.members.iter().map(|member| group.target_key(member).to_string()).collect();
        assert_eq!(keys, ["shop/pay", "events/promo"]);
    }

    #[test]
    fn a_switch_goes_on_until_its_completion_time_is_there() {
        let mut status = switching(3, None, Some("pay"));
        assert!(group(json!({"status": status})).is_switching());
        status["transition"]["completionTime"] = json!("2026-11-23T10:00:00Z");
        assert!(!group(json!({"status": status})).is_switching() && !group(json!({})).is_switching());
    }

    #[test]
    fn a_reason_is_known_by_its_condition() {
        let conditions = json!([{
            "type": "Accepted", "status": "False", "reason": "LimitExceeded", "message": "", "observedGeneration": 1,
            "lastTransitionTime": "2026-11-23T10:00:00Z",
        }]);
        let refused = group(json!({"status": {"conditions": conditions}}));
        assert_eq!(refused.reason::<RefusalReason>(), Some(RefusalReason::LimitExceeded));
        assert_eq!(group(json!({})).reason::<RefusalReason>(), None);
        assert!(!refused.is_settled());
    }

    #[test]
    fn the_finalizer_is_put_on_and_taken_off() {
        let held = group(json!({})).with_finalizer_turned(ResourceVersion(2));
        assert!(held.is_held() && held.meta().resource_version == ResourceVersion(2));
        assert!(!held.with_finalizer_turned(ResourceVersion(3)).is_held());
    }
}
