//! What dry runs of resizes were answered. It is a memory of this process: a new one asks again.

use crate::observed::{Answer, Asked};
use crate::sizes::Level;
use serde_json::json;
use springtide_crds::time_share_group::Member as MemberSpec;
use springtide_plumbing::key::Uid;
use springtide_plumbing::workloads::content::Digest;
use springtide_plumbing::workloads::template::Template;
use std::collections::HashMap;

/// What answers rest on: the sizes of a member, and the template of its workload. When one of them changes, answers of
/// before say nothing any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Basis(Digest);

/// What answers about a member's pods rest on now.
pub fn basis(spec: &MemberSpec, template: &Template) -> Basis {
    let sizes = json!({"containers": spec.containers, "memory": spec.memory});
    Basis(Digest::of(&format!("{} {sizes}", template.whole)))
}

/// The answers for one group, by pod.
#[derive(Clone, Debug, Default)]
pub struct Answers(HashMap<Uid, (Basis, Asked)>);

impl Answers {
    /// What was answered of a pod on this basis; nothing of what was on another one.
    pub fn of(&self, uid: &Uid, basis: Basis) -> Asked {
        let held = self.0.get(uid).filter(|(held, _)| *held == basis);
        held.map(|(_, asked)| asked.clone()).unwrap_or_default()
    }

    /// Notes what was answered to the question about a pod and a level, which rested on this basis. What rested on another
    /// one is forgotten.
    pub fn note(&mut self, uid: Uid, level: Level, basis: Basis, answer: Answer) {
        let held = self.0.entry(uid).or_insert_with(|| (basis, Asked::default()));
        if held.0 != basis {
            *held = (basis, Asked::default());
        }
        let asked = &mut held.1;
        let kept = match level {
            Level::Valley => &mut asked.valley,
            Level::Peak => &mut asked.peak,
        };
        if answer.refused.is_some() {
            asked.refusals = asked.refusals.saturating_add(1);
        } else if kept.as_ref().is_some_and(|before| before.refused.is_some()) {
            asked.refusals = 0;
        }
        *kept = Some(answer);
    }

    /// Forgets pods that are gone.
    pub fn retain(&mut self, is_there: impl Fn(&Uid) -> bool) {
        self.0.retain(|uid, _| is_there(uid));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures::{at, observed};
    use crate::observed::RefusedBy;
    use serde_json::Value;

    fn spec(over: Value) -> MemberSpec {
        let mut member = crate::fixtures::member("pay");
        crate::fixtures::overlay(&mut member, over);
        serde_json::from_value(member).unwrap()
    }

    fn template(cpu: &str) -> std::sync::Arc<Template> {
        let container = json!({"name": "app", "resources": {"requests": {"cpu": cpu}}});
        Template::shared(&json!({"spec": {"containers": [container]}}))
    }

    fn answer(seconds: i64) -> Answer {
        Answer { at: at(seconds), refused: Some((RefusedBy::Admission, "no".into())) }
    }

    #[test]
    fn answers_are_kept_by_pod_and_level() {
        let (basis, uid) = (basis(&spec(json!({})), &template("1")), Uid("a".into()));
        let mut answers = Answers::default();
        assert_eq!(answers.of(&uid, basis), Asked::default());
        answers.note(uid.clone(), Level::Peak, basis, answer(0));
        answers.note(uid.clone(), Level::Valley, basis, answer(1));
        answers.note(uid.clone(), Level::Peak, basis, answer(2));
        let all = Asked { peak: Some(answer(2)), valley: Some(answer(1)), refusals: 3 };
        assert_eq!(answers.of(&uid, basis), all);
        assert_eq!(answers.of(&Uid("b".into()), basis), Asked::default());
        answers.retain(|known| *known != uid);
        assert_eq!(answers.of(&uid, basis), Asked::default());
    }

    #[test]
    fn refusals_are_counted_until_what_was_refused_is_let_through() {
        let (basis, uid) = (basis(&spec(json!({})), &template("1")), Uid("a".into()));
        let mut answers = Answers::default();
        let mut after = |level, refused: bool| {
            let answer = Answer { refused: answer(0).refused.filter(|_| refused), ..answer(0) };
            answers.note(uid.clone(), level, basis, answer);
            answers.of(&uid, basis).refusals
        };
        assert_eq!([after(Level::Peak, true), after(Level::Peak, true)], [1, 2]);
        assert_eq!(after(Level::Valley, false), 2, "that was another one");
        assert_eq!([after(Level::Peak, false), after(Level::Peak, true)], [0, 1]);
    }

    #[test]
    fn a_changed_size_or_template_drops_what_was_answered() {
        let (first, uid) = (basis(&spec(json!({})), &template("1")), Uid("a".into()));
        let mut answers = Answers::default();
        answers.note(uid.clone(), Level::Peak, first, answer(0));
        let larger = json!({"containers": [{"name": "app", "peak": {"cpu": "5"}}]});
        let limits = json!({"containers": [{"name": "app", "limits": "Keep"}]});
        for (what, other) in [
            ("peak", basis(&spec(larger), &template("1"))),
            ("limits", basis(&spec(limits), &template("1"))),
            ("memory", basis(&spec(json!({"memory": "Move"})), &template("1"))),
            ("template", basis(&spec(json!({})), &template("2"))),
        ] {
            assert_eq!(answers.of(&uid, other), Asked::default(), "{what}");
        }
        let same = basis(&spec(json!({"warmUpSeconds": 5})), &template("1"));
        assert_eq!(answers.of(&uid, same).peak, Some(answer(0)), "that is no matter of sizes");
        let other = basis(&spec(json!({})), &template("2"));
        answers.note(uid.clone(), Level::Valley, other, answer(1));
        assert_eq!(answers.of(&uid, other), Asked { peak: None, valley: Some(answer(1)), refusals: 1 });
        assert_eq!(answers.of(&uid, first), Asked::default());
    }

    #[test]
    fn the_basis_of_a_member_is_that_of_its_workload() {
        let observed = observed(json!({}), &[]);
        let of = |index: usize| {
            let spec = &observed.group.spec.members[index];
            basis(spec, &observed.members[index].workload.as_ref().unwrap().template)
        };
        assert_eq!(of(0), of(0));
        assert_ne!(of(0), of(1), "their templates have other labels");
    }
}
