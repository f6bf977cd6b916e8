//! Every status of every group of a namespace, and what may never be.

use std::collections::BTreeMap;

use kube::ResourceExt;
use springtide_crds::common::condition;
use springtide_crds::reason::Reason;
use springtide_crds::time_share_group::{
    TimeShareGroup, TimeShareGroupStatus, Transition, UnitCounts, all_reasons,
};

use crate::oracle::feed::{Feed, Fold};
use crate::oracle::statuses::{self, Told};

/// A watch on the groups of one namespace.
pub type GroupFeed = Feed<Groups>;

/// All groups of a namespace, by name.
#[derive(Debug, Default)]
pub struct Groups {
    present: BTreeMap<String, TimeShareGroup>,
    /// Reasons of condition Ready by name, in their order, repetitions left out.
    reasons: BTreeMap<String, Vec<String>>,
    /// Numbers and steps of transitions by name, in their order, repetitions left out.
    steps: BTreeMap<String, Vec<(u32, u32)>>,
    /// Most units that were under way at a time, by name and number of the transition.
    in_flight: BTreeMap<(String, u32), u32>,
    /// Most units that had begun or were done, by name, and number and step of the transition.
    begun: BTreeMap<(String, u32, u32), u32>,
    violations: Vec<String>,
}

impl Groups {
    /// The group of a name, if it is there.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&TimeShareGroup> {
        self.present.get(name)
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.present.is_empty()
    }

    /// Reasons of its condition Ready, in their order, repetitions left out.
    #[must_use]
    pub fn reasons(&self, name: &str) -> &[String] {
        self.reasons.get(name).map_or(&[], Vec::as_slice)
    }

    /// Numbers and steps of its transitions, in their order, repetitions left out.
    #[must_use]
    pub fn steps(&self, name: &str) -> &[(u32, u32)] {
        self.steps.get(name).map_or(&[], Vec::as_slice)
    }

    /// Most units of the transition of a number that were under way at a time, by what its statuses say.
    #[must_use]
    pub fn most_in_flight(&self, name: &str, id: u32) -> u32 {
        self.in_flight.get(&(name.to_owned(), id)).copied().unwrap_or_default()
    }

    /// Most units of the transition of a number that had begun or were done in a step, by what its statuses say.
    #[must_use]
    pub fn most_begun(&self, name: &str, (id, step): (u32, u32)) -> u32 {
        self.begun.get(&(name.to_owned(), id, step)).copied().unwrap_or_default()
    }

    /// What may never be seen, whatever a test does.
    #[must_use]
    pub fn violations(&self) -> &[String] {
        &self.violations
    }

    fn judge(&mut self, before: Option<&TimeShareGroup>, group: &TimeShareGroup) {
        let none = TimeShareGroupStatus::default();
        let status = group.status.as_ref().unwrap_or(&none);
        let same = before.filter(|before| before.uid() == group.uid());
        let earlier = same.and_then(|before| before.status.as_ref());
        let json = serde_json::to_string(status).unwrap_or_default();
        let told = Told {
            generation: group.metadata.generation.unwrap_or_default(),
            observed_generation: status.observed_generation,
            observed_before: earlier.map(|earlier| earlier.observed_generation),
            conditions: &status.conditions,
            json: &json,
            documented: &all_reasons(),
        };
        let mut wrong = told.wrong();
        if let Some(transition) = &status.transition {
            wrong.extend(wrong_counts(&transition.units));
        }
        wrong.extend(earlier.and_then(|earlier| wrong_turn(earlier, status)));
        let name = group.name_any();
        self.violations.extend(wrong.into_iter().map(|what| format!("{name}: {what}: {json}")));
    }
}

fn wrong_counts(units: &UnitCounts) -> Option<String> {
    let UnitCounts { total, done, in_flight, skipped, reversed, .. } = units;
    let is_well = done + skipped <= *total && in_flight <= total && reversed <= skipped;
    (!is_well).then(|| "its units do not add up".to_owned())
}

/// What no status may say after another one.
fn wrong_turn(before: &TimeShareGroupStatus, after: &TimeShareGroupStatus) -> Option<String> {
    let Some(earlier) = &before.transition else {
        return (before.active_member != after.active_member)
            .then(|| "the peak came without a switch".to_owned());
    };
    let Some(later) = &after.transition else { return Some("its transition is forgotten".to_owned()) };
    let way = |transition: &Transition| {
        (transition.from.clone(), transition.to.clone(), transition.cause, transition.start_time.clone())
    };
    if later.id < earlier.id {
        return Some("a transition came back".to_owned());
    }
    let ends = earlier.completion_time.is_none() && later.completion_time.is_some();
    if before.active_member != after.active_member && !(ends && after.active_member == later.to) {
        return Some("the peak changed hands before the end of its switch".to_owned());
    }
    if later.id > earlier.id {
        let is_kept = after.last_transitions.iter().any(|last| last.id == earlier.id);
        return (!is_kept).then(|| "no record is kept of a transition".to_owned());
    }
    if way(earlier) != way(later) {
        return Some("a transition became another one".to_owned());
    }
    if later.step < earlier.step {
        return Some("a step came back".to_owned());
    }
    let is_held_otherwise = later.step == earlier.step
        && later.completion_time.is_none()
        && earlier.hold_until_time.is_some()
        && earlier.hold_until_time != later.hold_until_time;
    if is_held_otherwise {
        return Some("a hold became another one".to_owned());
    }
    let is_reopened = earlier.completion_time.is_some() && later.completion_time != earlier.completion_time;
    is_reopened.then(|| "what had ended goes on".to_owned())
}

/// Whether a group has a condition with this reason, about its present generation.
#[must_use]
pub fn says<R: Reason>(group: &TimeShareGroup, reason: &R) -> bool {
    let conditions = group.status.as_ref().map(|status| status.conditions.as_slice()).unwrap_or_default();
    statuses::says(conditions, group.metadata.generation, reason)
}

impl Fold for Groups {
    type Object = TimeShareGroup;

    fn apply(&mut self, group: TimeShareGroup) {
        let name = group.name_any();
        let before = self.present.remove(&name);
        self.judge(before.as_ref(), &group);
        let status = group.status.as_ref();
        let conditions = status.map(|status| status.conditions.as_slice()).unwrap_or_default();
        let reason = condition(conditions, "Ready").map(|ready| ready.reason.clone()).unwrap_or_default();
        let reasons = self.reasons.entry(name.clone()).or_default();
        if reasons.last() != Some(&reason) {
            reasons.push(reason);
        }
        if let Some(transition) = status.and_then(|status| status.transition.as_ref()) {
            let steps = self.steps.entry(name.clone()).or_default();
            let step = (transition.id, transition.step);
            if steps.last() != Some(&step) {
                steps.push(step);
            }
            let most = self.in_flight.entry((name.clone(), transition.id)).or_default();
            *most = transition.units.in_flight.max(*most);
            let begun = transition.units.in_flight + transition.units.done;
            let most = self.begun.entry((name.clone(), transition.id, transition.step)).or_default();
            *most = begun.max(*most);
        }
        self.present.insert(name, group);
    }

    fn delete(&mut self, group: &TimeShareGroup) {
        self.present.remove(&group.name_any());
    }

    fn relisted(&mut self, present: &[TimeShareGroup]) {
        self.present.retain(|name, _| present.iter().any(|group| group.name_any() == *name));
    }

    fn describe(&self) -> String {
        let shown = |(name, group): (&String, &TimeShareGroup)| {
            let status = serde_json::to_string(&group.status).unwrap_or_default();
            let (reasons, generation) = (self.reasons(name), group.metadata.generation);
            format!("{name}: {reasons:?}, generation {generation:?}: {status}\n")
        };
        self.present.iter().map(shown).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn group(status: &Value) -> TimeShareGroup {
        let member = |name: &str| {
            json!({
                "name": name, "targetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": name},
                "containers": [{"name": "app", "peak": {"cpu": "4"}, "valley": {"cpu": "1"}}],
            })
        };
        serde_json::from_value(json!({
            "apiVersion": "springtide.dev/v1alpha1", "kind": "TimeShareGroup",
            "metadata": {"name": "share", "uid": "1", "generation": 2},
            "spec": {"members": [member("pay"), member("promo")]}, "status": status,
        }))
        .unwrap()
    }

    /// Pay has the peak, and a switch to promo is in this step.
    fn switching(id: u32, step: u32, over: Value) -> Value {
        let mut transition = json!({
            "id": id, "from": "pay", "to": "promo", "cause": "Override", "startTime": "2026-01-01T00:00:00Z",
            "step": step, "units": {"total": 4},
        });
        let mut status = json!({"observedGeneration": 2, "activeMember": "pay"});
        for (name, value) in over.as_object().cloned().unwrap_or_default() {
            match name.as_str() {
                "activeMember" | "lastTransitions" => status[name] = value,
                _ => transition[name] = value,
            }
        }
        status["transition"] = transition;
        status
    }

    fn violations(statuses: &[Value]) -> Vec<String> {
        let mut groups = Groups::default();
        statuses.iter().for_each(|status| groups.apply(group(status)));
        groups.violations().to_vec()
    }

    #[test]
    fn a_switch_that_goes_its_way_is_not_held_against_anybody() {
        let held = json!({"holdUntilTime": "2026-01-01T00:01:00Z"});
        let done = json!({"completionTime": "2026-01-01T00:02:00Z", "activeMember": "promo"});
        let last = json!([{"id": 2, "to": "promo", "cause": "Override", "completionTime": "2026-01-01T00:02:00Z",
            "durationSeconds": 120, "units": 4, "skipped": 0, "nudges": 0, "result": "Succeeded"}]);
        let statuses = [
            switching(2, 1, json!({})),
            switching(2, 1, held),
            switching(2, 2, json!({"units": {"total": 4, "inFlight": 2, "done": 1}})),
            switching(2, 2, done),
            switching(3, 1, json!({"activeMember": "promo", "lastTransitions": last})),
        ];
        assert_eq!(violations(&statuses), [""; 0]);
        let mut groups = Groups::default();
        statuses.iter().for_each(|status| groups.apply(group(status)));
        assert_eq!(groups.steps("share"), [(2, 1), (2, 2), (3, 1)]);
        assert_eq!([2, 3].map(|id| groups.most_in_flight("share", id)), [2, 0]);
        assert_eq!([1, 2].map(|step| groups.most_begun("share", (2, step))), [0, 3]);
    }

    #[test]
    fn what_no_group_may_say_after_another_thing_is_kept() {
        let held = |time: &str| json!({"holdUntilTime": time});
        for (before, after, what) in [
            (switching(3, 1, json!({})), switching(2, 1, json!({})), "came back"),
            (switching(2, 2, json!({})), switching(2, 1, json!({})), "a step came back"),
            (switching(2, 1, json!({})), switching(2, 1, json!({"to": "other"})), "another one"),
            (switching(2, 1, json!({})), switching(3, 1, json!({})), "no record"),
            (switching(2, 1, json!({})), switching(2, 1, json!({"activeMember": "promo"})), "before the end"),
            (
                switching(2, 1, held("2026-01-01T00:01:00Z")),
                switching(2, 1, held("2026-01-01T00:02:00Z")),
                "a hold",
            ),
            (
                switching(2, 1, json!({"completionTime": "2026-01-01T00:01:00Z"})),
                switching(2, 1, json!({})),
                "goes on",
            ),
            (
                switching(2, 1, json!({})),
                switching(2, 1, json!({"units": {"total": 1, "done": 2}})),
                "add up",
            ),
        ] {
            let found = violations(&[before, after]);
            assert!(found.iter().any(|found| found.contains(what)), "{what}: {found:?}");
        }
    }
}
