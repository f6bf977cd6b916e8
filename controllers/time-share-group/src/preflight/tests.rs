use super::*;
use crate::fixtures::{at, fill, group, observed_of, on_stage, overlay, pod};
use crate::observed::{Answer, MemberIndex, Quota, RefusedBy, Usage};
use crate::profiles;
use crate::sizes::Demand;
use crate::units::Heading;
use serde_json::{Value, json};
use springtide_plumbing::key::Uid;
use springtide_plumbing::plan::Action;

mod asking;
mod reasons;

const PAY: MemberIndex = MemberIndex(0);
const PROMO: MemberIndex = MemberIndex(1);

/// Changes laid over each pod of `pay`, and over each of `promo`.
type Over = (Value, Value);

/// The status of a group whose switch to `pay` has ended long ago.
fn settled() -> Value {
    json!({
        "observedGeneration": 1, "activeMember": "pay", "desiredMember": "pay",
        "transition": {
            "id": 6, "to": "pay", "cause": "Default", "step": 3,
            "startTime": at(-90_000).to_string(), "completionTime": at(-89_000).to_string(),
        },
    })
}

/// So many nodes with a pod of `pay` on stage and one of `promo`; changes are laid over spec and status.
fn stage_of(nodes: usize, spec: Value, status: Value, (pay, promo): Over) -> Observed {
    let mut stored = settled();
    overlay(&mut stored, status);
    let made = |member: &str, under: &Value, over: &Value| {
        let pods = (0..nodes).map(|place| {
            let mut whole = under.clone();
            overlay(&mut whole, over.clone());
            pod(&format!("{member}-{place:03}"), &format!("n{place:03}"), whole)
        });
        pods.collect::<Vec<_>>()
    };
    let pods = [("pay", made("pay", &on_stage(), &pay)), ("promo", made("promo", &json!({}), &promo))];
    let mut observed = observed_of(group(json!({"spec": spec, "status": stored})), &pods);
    fill(&mut observed, Demand::ZERO);
    observed
}

/// The same without any changes but of the spec.
fn stage(nodes: usize, spec: Value) -> Observed {
    stage_of(nodes, spec, json!({}), (json!({}), json!({})))
}

/// The switch to `promo`.
fn to_promo(start: i64) -> Upcoming {
    let heading = Heading { id: 7, from: Some(PAY), to: Some(PROMO), is_return: false };
    Upcoming { heading, start: at(start) }
}

fn look(observed: &Observed, upcoming: &Upcoming, now: i64) -> Preflight {
    let profiles = profiles::all(&observed.group.spec, &observed.members).unwrap();
    preflight(observed, &profiles, Some(upcoming), at(now))
}

/// What is asked by some dry runs.
fn asked(questions: &[Write]) -> Vec<(Uid, Level)> {
    let of = |write: &Write| {
        let Action::DryRun { question, .. } = &write.action else { panic!("{write:?}") };
        read_question(question).unwrap()
    };
    questions.iter().map(of).collect()
}

type Refusals = Option<(RefusedBy, Box<str>)>;

/// Answers dry runs.
fn answer(observed: &mut Observed, questions: &[Write], now: i64, of: impl Fn(&str, Level) -> Refusals) {
    for (uid, level) in asked(questions) {
        let mut pods = observed.members.iter_mut().flat_map(|member| &mut member.pods);
        let found = pods.find(|found| *found.uid() == uid).unwrap();
        let answer = Answer { at: at(now), refused: of(&uid.0, level) };
        match level {
            Level::Valley => found.evidence.asked.valley = Some(answer),
            Level::Peak => found.evidence.asked.peak = Some(answer),
        }
    }
}

/// What is known when all has been asked of a switch that is due.
fn known(observed: &mut Observed, of: impl Fn(&str, Level) -> Refusals) -> Preflight {
    let upcoming = to_promo(0);
    let first = look(observed, &upcoming, 0);
    answer(observed, &first.questions, 0, of);
    let second = look(observed, &upcoming, 1);
    assert!(second.questions.is_empty(), "{:?}", second.questions);
    second
}

fn accepts(_: &str, _: Level) -> Refusals {
    None
}
