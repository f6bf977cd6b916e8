//! What a write means to the read-your-writes gate.

use super::Done;
use crate::error::WriteError;
use crate::gate::Expectation;
use crate::key::ResourceVersion;
use crate::plan::{Action, Write, WriteClass};

/// What the stores must show before the owner is planned again. `decided_on` is the version of the
/// object that the planner saw, `shown` the one right before the write went out.
pub(super) fn expectation(
    write: &Write,
    decided_on: Option<ResourceVersion>,
    shown: Option<ResourceVersion>,
    outcome: &Result<Done, WriteError>,
) -> Option<Expectation> {
    if write.class == WriteClass::Event {
        // Nobody plans on them.
        return None;
    }
    let resource = write.resource;
    let key = write.key.clone();
    match (outcome, &write.action) {
        (Ok(Done { noop: true, .. }), _) => None,
        // Nothing was stored, or would have been.
        (Ok(_) | Err(WriteError::Unknown(_)), Action::DryRun { .. }) => None,
        // The answer to a delete bears no usable version where the object went at once, that to an eviction never.
        (Ok(_) | Err(WriteError::Gone), Action::Delete { uid, .. } | Action::Evict { uid, .. }) => {
            Some(Expectation::Gone { resource, key, uid: uid.clone() })
        }
        // The object went with its last finalizer: the answer bears the version that was there before
        // (k8s.io/apiserver, deleteWithoutFinalizers), which the store has shown already.
        (Ok(Done { resource_version, .. }), Action::Patch { .. })
            if write.action.is_destructive() && resource_version.is_some() && *resource_version == shown =>
        {
            Some(Expectation::Resolve { resource, key, before: shown })
        }
        (Ok(Done { resource_version: Some(rv), .. }), _) => {
            Some(Expectation::Seen { resource, key, rv: *rv })
        }
        // The store has caught up already: between plan and send it has let the object go.
        (Err(WriteError::Gone), Action::Patch { .. } | Action::Apply { .. } | Action::DryRun { .. })
            if decided_on.is_none() =>
        {
            None
        }
        // A name that is taken, or a view that was too old: the store may have caught up by now.
        (Err(WriteError::AlreadyExists | WriteError::Gone), _)
        | (
            Err(WriteError::Conflict(_)),
            Action::Delete { .. }
            | Action::Evict { .. }
            | Action::Patch { .. }
            | Action::Apply { .. }
            | Action::Status { .. }
            | Action::DryRun { .. },
        ) => Some(Expectation::Resolve { resource, key, before: decided_on }),
        // A create can conflict on something else (a quota being updated): there is nothing to wait for.
        (Err(WriteError::Conflict(_)), Action::Create { .. }) => None,
        // Only what comes after the sending can tell what became of it.
        (Ok(Done { resource_version: None, .. }) | Err(WriteError::Unknown(_)), _) => {
            Some(Expectation::Resolve { resource, key, before: shown })
        }
        (
            Err(
                WriteError::Throttled(_)
                | WriteError::Busy { .. }
                | WriteError::NotLeading
                | WriteError::Withheld(_)
                | WriteError::StaleStore(_)
                | WriteError::Contested { .. }
                | WriteError::Skipped
                | WriteError::FieldConflict(_)
                | WriteError::DisruptionBudget(_)
                | WriteError::Refused(_)
                | WriteError::NotSent(_),
            ),
            _,
        ) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::{ObjectKey, Resource, Uid};
    use crate::plan::{Fields, Part, Patch, remove_finalizer};
    use serde_json::json;

    fn key() -> ObjectKey {
        ObjectKey::new("ns", "p")
    }

    fn uid() -> Uid {
        Uid("u".into())
    }

    fn write(action: Action) -> Write {
        Write { resource: Resource::POD, key: key(), class: WriteClass::Protective, action }
    }

    fn release() -> Write {
        write(remove_finalizer(&uid(), &["f".into()], "f").unwrap())
    }

    fn merge() -> Action {
        let fields = Fields { uid: uid(), resource_version: None, fields: json!({"spec": {}}) };
        Action::Patch { part: Part::Resize, patch: Patch::Strategic(fields) }
    }

    fn apply() -> Action {
        let fields = json!({"spec": {}});
        let (part, manager) = (Part::Main, "springtide-a");
        Action::Apply { part, manager, uid: uid(), resource_version: None, fields, force: false }
    }

    fn evict() -> Action {
        Action::Evict { uid: uid(), resource_version: None, grace_seconds: None }
    }

    fn done(rv: u128) -> Result<Done, WriteError> {
        Ok(Done { resource_version: Some(ResourceVersion(rv)), ..Done::default() })
    }

    fn seen(rv: u128) -> Option<Expectation> {
        Some(Expectation::Seen { resource: Resource::POD, key: key(), rv: ResourceVersion(rv) })
    }

    fn resolve(before: Option<ResourceVersion>) -> Option<Expectation> {
        Some(Expectation::Resolve { resource: Resource::POD, key: key(), before })
    }

    #[test]
    fn a_patch_that_takes_the_object_away_waits_until_the_store_shows_it_no_more() {
        let shown = Some(ResourceVersion(7));
        let expected = |shown, rv| expectation(&release(), Some(ResourceVersion(7)), shown, &done(rv));
        assert_eq!(expected(shown, 7), resolve(shown));
        assert_eq!(expected(shown, 8), seen(8), "something else holds it");
        assert_eq!(expected(None, 8), seen(8));
    }

    #[test]
    fn a_patch_that_has_changed_nothing_waits_for_nothing_new() {
        let shown = Some(ResourceVersion(7));
        for action in [merge(), apply()] {
            assert_eq!(expectation(&write(action.clone()), shown, shown, &done(7)), seen(7), "{action:?}");
        }
    }

    #[test]
    fn a_patch_of_what_is_gone_waits_only_for_a_store_that_still_shows_it() {
        for write in [release(), write(merge()), write(apply()), write(merge().dry_run("q"))] {
            let expected = |decided_on| expectation(&write, decided_on, None, &Err(WriteError::Gone));
            assert_eq!(expected(None), None);
            let before = Some(ResourceVersion(7));
            assert_eq!(expected(before), resolve(before));
        }
    }

    #[test]
    fn an_eviction_waits_as_a_delete_does() {
        let expected = |outcome| expectation(&write(evict()), None, Some(ResourceVersion(7)), &outcome);
        let gone = Some(Expectation::Gone { resource: Resource::POD, key: key(), uid: uid() });
        assert_eq!(expected(Ok(Done::default())), gone);
        assert_eq!(expected(Err(WriteError::Gone)), gone);
        assert_eq!(expected(Err(WriteError::DisruptionBudget("no".to_owned()))), None);
        assert_eq!(expected(Err(WriteError::Unknown("reset".to_owned()))), resolve(Some(ResourceVersion(7))));
    }

    #[test]
    fn what_became_of_a_lost_write_is_looked_at_and_a_lost_question_asked_again() {
        let (before, after) = (Some(ResourceVersion(6)), Some(ResourceVersion(7)));
        let lost = Err(WriteError::Unknown("reset".to_owned()));
        for action in [merge(), apply(), evict(), release().action] {
            assert_eq!(
                expectation(&write(action.clone()), before, after, &lost),
                resolve(after),
                "{action:?}"
            );
            assert_eq!(expectation(&write(action.dry_run("q")), before, after, &lost), None);
        }
        let old = Err(WriteError::Conflict("old".to_owned()));
        assert_eq!(
            expectation(&write(apply()), before, after, &old),
            resolve(before),
            "the store may know by now"
        );
        assert_eq!(expectation(&write(apply().dry_run("q")), before, after, &old), resolve(before));
        let held = Err(WriteError::FieldConflict(Vec::new()));
        assert_eq!(expectation(&write(apply()), before, after, &held), None, "it was seen well enough");
        assert_eq!(expectation(&write(apply().dry_run("q")), before, after, &done(9)), None);
    }
}
