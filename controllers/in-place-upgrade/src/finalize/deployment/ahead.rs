//! A Deployment some of whose pods are made anew: its active ReplicaSet gets the template that is wished ahead of them,
//! and notes what its pods were made from.

use super::{flip, is_ready_for_flip, prepare, snapshot};
use crate::finalize::{Finalize, Need, Terms};
use crate::target::Target;
use crate::wish::Wish;
use serde_json::{Value, json};
use springtide_plumbing::plan::{Action, Step, Write, WriteClass};
use springtide_plumbing::projection::Projection;
use springtide_plumbing::workloads::earlier::EarlierTemplates;
use springtide_plumbing::workloads::kinds::{DeploymentView, REPLICA_SET, ReplicaSetView};
use springtide_plumbing::workloads::names::EARLIER_ANNOTATION;
use springtide_plumbing::workloads::pod::PodView;
use std::sync::Arc;

/// What is next before a pod is evicted; `None` when nothing is.
pub(in crate::finalize) fn ahead(
    target: &Target,
    deployment: &DeploymentView,
    replica_sets: &[Arc<ReplicaSetView>],
    goal: &Wish,
    terms: &Terms<'_>,
    pods: &[Arc<PodView>],
    need: Need,
) -> Option<Finalize> {
    let active = target.one_active()?;
    if active.earlier.is_open() {
        return Some(close(active, pods));
    }
    // A rollback has it back whether or not a pod was made by it already: one that comes is to be of the old template.
    let is_needed = match need {
        Need::Pods => true,
        Need::None => goal.is_rollback && !active.earlier.is_empty(),
        Need::Rest => false,
    };
    if active.template.whole == goal.whole() || !is_needed {
        return None;
    }
    if !goal.is_rollback && !is_ready_for_flip(deployment, goal, terms) {
        return Some(prepare(target, deployment, terms));
    }
    if !target.is_observed() {
        return Some(Finalize::waiting("the Deployment's controller has not seen the new template yet"));
    }
    let others = || replica_sets.iter().filter(|set| set.meta().uid != active.meta().uid);
    // Its controller takes the oldest ReplicaSet that matches for the new one. In a rollback none matches.
    let matching = others().filter(|set| !goal.is_rollback && set.template.whole == goal.whole());
    let swaps: Vec<Step> =
        matching.map(|set| flip(set, &active.template, Some(active.revision), None)).collect();
    let is_kept = !swaps.is_empty()
        || deployment.template.whole == active.template.whole
        || others().any(|set| set.template.whole == active.template.whole);
    // Whatever is said of history: as long as there are pods of a template, somebody has to know it. The Deployment's
    // controller would take away at once what is beyond its own limit.
    let keeps = deployment.history_limit > 0 && !is_kept;
    let stages = [
        swaps,
        keeps.then(|| snapshot(deployment, active)).into_iter().collect(),
        vec![flip(active, &goal.template, None, Some(&active.earlier.opened(&active.template)))],
    ];
    let message = format!(
        "ReplicaSet {} gets the template, so that pods which cannot be changed are made anew by it",
        active.meta().key.name
    );
    Some(Finalize::write(stages.into_iter().filter(|stage| !stage.is_empty()).collect(), message))
}

/// Notes which pods are of the template before, once the ReplicaSet's controller makes no more of them.
fn close(active: &ReplicaSetView, pods: &[Arc<PodView>]) -> Finalize {
    let own = pods.iter().filter(|pod| pod.is_live() && pod.owner() == Some(&active.meta().uid));
    let own: Vec<_> = own.map(|pod| pod.meta().creation_time).collect();
    // That we see as many as it counts says that none of its pods is still to show up here.
    let are_all = u32::try_from(own.len()).is_ok_and(|count| count == active.status_replicas);
    let name = &active.meta().key.name;
    if !(active.observed_generation >= active.meta().generation && are_all) {
        return Finalize::waiting(format!(
            "the controller of ReplicaSet {name} has not seen its new template yet"
        ));
    }
    let closed = active.earlier.closed(own.into_iter().max());
    Finalize::write(
        vec![vec![noted(active, &closed)]],
        format!("ReplicaSet {name} notes which pods are of its old template"),
    )
}

/// Forgets what pods were made from at the end of a run, when all are of the ReplicaSet's template but those that runs
/// leave as they are; `None` where nothing else is noted.
pub(in crate::finalize) fn settle(active: &ReplicaSetView, leaves: bool) -> Option<Finalize> {
    let kept = active.earlier.settled(leaves);
    if kept == active.earlier {
        return None;
    }
    let name = &active.meta().key.name;
    let message = if kept.is_empty() {
        format!("ReplicaSet {name} has no pods of another template any more")
    } else {
        format!("ReplicaSet {name} notes which pods are left as they are")
    };
    Some(Finalize::write(vec![vec![noted(active, &kept)]], message))
}

/// The path of the note.
fn path() -> String {
    format!("/metadata/annotations/{}", EARLIER_ANNOTATION.replace('/', "~1"))
}

/// The operation by which the note becomes this one; of nothing none stays.
pub(super) fn note(earlier: &EarlierTemplates) -> Value {
    if earlier.is_empty() {
        json!({"op": "remove", "path": path()})
    } else {
        json!({"op": "add", "path": path(), "value": earlier.text()})
    }
}

fn noted(set: &ReplicaSetView, earlier: &EarlierTemplates) -> Step {
    let meta = set.meta();
    let action = Action::json_patch(json!([
        {"op": "test", "path": "/metadata/uid", "value": meta.uid},
        {"op": "test", "path": "/metadata/resourceVersion", "value": meta.resource_version.to_string()},
        note(earlier),
    ]));
    Write { resource: REPLICA_SET, key: meta.key.clone(), class: WriteClass::Spec, action }.into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures::{at, deployment, pod, replica_set, template};
    use springtide_crds::in_place_upgrade::{FieldOwnership, History, InPlaceUpgradeSpec, Lock, TargetKind};
    use springtide_plumbing::key::Uid;
    use springtide_plumbing::plan::Patch;
    use springtide_plumbing::workloads::template::Template;

    fn wish(template: &Arc<Template>) -> Wish {
        Wish::of(&InPlaceUpgradeSpec::new(TargetKind::Deployment, "web"), template)
    }

    fn next(
        sets: Vec<Arc<ReplicaSetView>>,
        goal: &Wish,
        pods: &[Arc<PodView>],
        need: Need,
    ) -> Option<Finalize> {
        let uid = Uid("ipu".into());
        let terms = Terms {
            uid: &uid,
            lock: Lock::Require,
            history: History::None,
            ownership: FieldOwnership::Refuse,
            inline: None,
            recorded_partition: None,
            relabelled: &[],
            left_out: 0,
        };
        let target = Target::deployment(deployment(2, "app:2", json!({})), sets);
        let Target::Deployment { deployment, replica_sets } = &target else { panic!("it is one") };
        ahead(&target, deployment, replica_sets, goal, &terms, pods, need)
    }

    fn writes(next: &Option<Finalize>) -> Vec<&Write> {
        let Some(Finalize::Write { stages, .. }) = next else { panic!("{next:?}") };
        stages.iter().flatten().flat_map(Step::writes).collect()
    }

    fn operation(write: &Write, path: &str) -> Value {
        let Action::Patch { patch: Patch::Json { operations }, .. } = &write.action else {
            panic!("{write:?}")
        };
        let found = operations.as_array().unwrap().iter().find(|operation| operation["path"] == path);
        found.cloned().unwrap_or_default()
    }

    fn noted_in(write: &Write) -> EarlierTemplates {
        EarlierTemplates::read(operation(write, &path())["value"].as_str().unwrap())
    }

    fn changed(set: &Arc<ReplicaSetView>, change: impl FnOnce(&mut ReplicaSetView)) -> Arc<ReplicaSetView> {
        let mut set = ReplicaSetView::clone(set);
        change(&mut set);
        Arc::new(set)
    }

    #[test]
    fn the_old_template_is_kept_and_noted_with_the_write_that_changes_it() {
        let (old, new) = (template("app:1", json!({})), template("app:2", json!({})));
        let sets = || vec![replica_set("rs", 1, 2, "app:1")];
        assert_eq!(next(sets(), &wish(&new), &[], Need::None), None, "no pod asks for it");
        assert_eq!(next(sets(), &wish(&new), &[], Need::Rest), None);
        let planned = next(sets(), &wish(&new), &[], Need::Pods);
        let writes = writes(&planned);
        assert_eq!(writes.len(), 2);
        assert!(matches!(writes[0].action, Action::Create { .. }));
        assert_eq!(
            operation(writes[1], "/spec/template")["value"]["spec"]["containers"][0]["image"],
            "app:2"
        );
        assert_eq!(noted_in(writes[1]), EarlierTemplates::default().opened(&old));
        let kept = vec![replica_set("rs", 2, 2, "app:1"), replica_set("kept", 1, 0, "app:1")];
        assert_eq!(self::writes(&next(kept, &wish(&new), &[], Need::Pods)).len(), 1);
        let matching = vec![replica_set("rs", 2, 2, "app:1"), replica_set("older", 1, 0, "app:2")];
        let swapped = next(matching, &wish(&new), &[], Need::Pods);
        let swapped = self::writes(&swapped);
        assert_eq!(swapped.iter().map(|write| &*write.key.name).collect::<Vec<_>>(), ["older", "rs"]);
    }

    #[test]
    fn the_time_is_noted_once_the_controller_has_seen_it_and_all_of_its_pods_are_known() {
        let (old, new) = (template("app:1", json!({})), template("app:2", json!({})));
        let flipped = changed(&replica_set("rs", 1, 2, "app:2"), |set| {
            set.earlier = EarlierTemplates::default().opened(&old);
            set.observed_generation = 1;
        });
        let born = |name: &str, second: i64| {
            pod(name, json!({"metadata": {"creationTimestamp": at(second).to_string()}}))
        };
        let pods = [born("a", 3), born("b", 5)];
        let next = |set: &Arc<ReplicaSetView>, pods: &[Arc<PodView>]| {
            next(vec![Arc::clone(set)], &wish(&new), pods, Need::Rest)
        };
        assert!(
            matches!(next(&flipped, &pods[..1]), Some(Finalize::Waiting { .. })),
            "one is still to show up"
        );
        let unseen = changed(&flipped, |set| set.observed_generation = -1);
        assert!(matches!(next(&unseen, &pods), Some(Finalize::Waiting { .. })));
        let closed = next(&flipped, &pods);
        let noted = noted_in(writes(&closed)[0]);
        assert!(noted.of(at(5)).is_some() && noted.of(at(6)).is_none());
        let closed = changed(&flipped, |set| set.earlier = noted);
        assert_eq!(next(&closed, &pods), None);
        let forgotten = settle(&closed, false);
        assert_eq!(operation(writes(&forgotten)[0], &path())["op"], "remove");
        assert_eq!(settle(&replica_set("rs", 1, 2, "app:2"), false), None);
        let kept = settle(&closed, true);
        let left = noted_in(writes(&kept)[0]);
        assert!(left.is_left() && left.of(at(5)).is_some());
        let left = changed(&closed, |set| set.earlier = left);
        assert_eq!(
            (settle(&left, true), settle(&left, false)),
            (None, None),
            "it stays until the next change"
        );
    }

    #[test]
    fn a_rollback_has_the_old_template_back_though_no_pod_was_made_anew_yet() {
        let (old, new) = (template("app:1", json!({})), template("app:2", json!({})));
        let flipped = changed(&replica_set("rs", 2, 2, "app:2"), |set| {
            set.earlier = EarlierTemplates::default().opened(&old).closed(Some(at(0)));
        });
        let sets = vec![flipped, replica_set("kept", 1, 0, "app:1")];
        let back = next(sets, &wish(&new).back_to(&old), &[], Need::None);
        let writes = writes(&back);
        assert_eq!(writes.len(), 1, "what pods were born of is the Deployment's own template");
        assert_eq!(
            operation(writes[0], "/spec/template")["value"]["spec"]["containers"][0]["image"],
            "app:1"
        );
        assert!(noted_in(writes[0]).is_open());
    }
}
