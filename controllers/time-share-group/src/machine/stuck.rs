//! When a unit does not come through, and the mark by which a unit that was given up is known.
//!
//! The mark is a condition of one of its pods, so that every leader knows it, and none of them takes a unit back that it
//! has not said so of: first the mark is stored, then the unit goes back.

use super::Court;
use super::evidence::Actor;
use crate::names::TRANSITION;
use crate::observed::{Attempt, MemberIndex, Observed, PodIndex};
use crate::sizes::Level;
use crate::units::Unit;
use jiff::{SignedDuration, Timestamp};
use serde::Deserialize;
use serde::de::IntoDeserializer;
use serde::de::value::{Error, StrDeserializer};
use springtide_crds::time_share_group::StuckReason;
use springtide_plumbing::projection::Projection;
use springtide_plumbing::workloads::pod::PodView;

/// For so long a pod may be unready at its new size before that is held against it.
pub(super) const UNREADY_GRACE: SignedDuration = SignedDuration::from_secs(20);

/// Why a unit does not come through.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stuck {
    /// Why.
    pub reason: StuckReason,
    /// Which pod of it.
    pub pod: PodIndex,
    /// Since when.
    pub since: Timestamp,
    /// Why, for people: what the kubelet or the API server says.
    pub message: Box<str>,
}

/// That a unit was given up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mark {
    /// Why.
    pub reason: StuckReason,
    /// The pod that bears it.
    pub pod: PodIndex,
    /// When it was; `None` where nothing says so.
    pub since: Option<Timestamp>,
}

/// What is wrong, as far as it is known without its words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Trouble {
    pub(super) reason: StuckReason,
    pub(super) pod: PodIndex,
    pub(super) since: Timestamp,
}

impl Trouble {
    /// The same with words for people.
    pub(super) fn told(self, court: &Court<'_>) -> Stuck {
        let Self { reason, pod, since } = self;
        let message = Actor::of(court, pod).map(|actor| words(&actor, reason)).unwrap_or_default();
        Stuck { reason, pod, since, message }
    }
}

fn words(actor: &Actor<'_>, reason: StuckReason) -> Box<str> {
    let pod = actor.pod();
    let known = match reason {
        StuckReason::Deferred | StuckReason::Infeasible => {
            pod.resize_pending.as_ref().map(|pending| pending.message.clone())
        }
        StuckReason::ResizeFailed => {
            pod.resize_in_progress.as_ref().and_then(|progress| progress.error.clone())
        }
        StuckReason::AdmissionDenied => {
            let attempts = [Attempt::Resize(Level::Peak), Attempt::Resize(Level::Valley), Attempt::Traffic];
            let refused = attempts.into_iter().find_map(|what| actor.refused(what));
            let asked = &actor.evidence().asked;
            let answers = [&asked.peak, &asked.valley].into_iter().flatten();
            let denied =
                answers.filter_map(|answer| answer.refused.as_ref()).map(|(_, words)| words.clone()).next();
            refused.map(|refused| refused.message.clone()).or(denied)
        }
        StuckReason::DrainTimedOut => {
            let services: Vec<&str> =
                actor.evidence().exposure.listed_by.iter().map(AsRef::as_ref).take(3).collect();
            (!services.is_empty()).then(|| format!("listed as ready by {}", services.join(", ")).into())
        }
        StuckReason::NotReady | StuckReason::Upgrading | StuckReason::DeadlineExceeded => None,
    };
    known.filter(|message| !message.is_empty()).unwrap_or_else(|| reason.as_str().into())
}

/// The mark of this switch that a unit bears. One of an earlier switch counts no more.
pub fn mark(unit: &Unit, court: &Court<'_>) -> Option<Mark> {
    let of = |pod: PodIndex| Mark::read(&court.observed.pod(pod)?.pod, pod, court.heading.id);
    unit.to.iter().chain(&unit.from).find_map(|pod| of(*pod))
}

/// All units that were given up in a switch, those that were first, first; by the pods that bear the marks.
pub fn given_up(observed: &Observed, id: u32) -> Vec<Mark> {
    let mut found = Vec::new();
    for (number, member) in observed.members.iter().enumerate() {
        for (pod, known) in member.pods.iter().enumerate() {
            let index = PodIndex { member: MemberIndex(number), pod };
            if let Some(mark) = Mark::read(&known.pod, index, id) {
                found.push((mark.since, &known.pod.meta().key, mark));
            }
        }
    }
    found.sort_unstable_by_key(|(since, key, _)| (*since, *key));
    found.into_iter().map(|(_, _, mark)| mark).collect()
}

impl Mark {
    fn read(pod: &PodView, index: PodIndex, id: u32) -> Option<Self> {
        let skipped = pod.skipped.as_ref()?;
        if switch_of(&skipped.message) != Some(id) {
            return None;
        }
        let reason: StrDeserializer<'_, Error> = (*skipped.reason).into_deserializer();
        // Whatever somebody else has made of it: that it was given up is known by the switch.
        let reason = StuckReason::deserialize(reason).unwrap_or(StuckReason::DeadlineExceeded);
        Some(Self { reason, pod: index, since: skipped.since })
    }
}

/// The number of the switch that a mark's message names, with more words behind it or without.
fn switch_of(message: &str) -> Option<u32> {
    let rest = message.strip_prefix(TRANSITION)?;
    let end = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
    rest.get(..end)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures::{at, observed, pod};
    use proptest::prelude::*;
    use serde_json::{Value, json};

    fn marked(reason: &str, message: &str, since: i64) -> Value {
        json!({"status": {"conditions": [{
            "type": "springtide.dev/time-share", "status": "False", "reason": reason, "message": message,
            "lastTransitionTime": at(since).to_string(),
        }]}})
    }

    #[test]
    fn marks_of_one_switch_are_listed_by_their_time_and_those_of_others_are_not() {
        let pods = [
            (
                "pay",
                vec![
                    pod("pay-1", "n1", marked("Infeasible", "transition=7: too large", 9)),
                    pod("pay-2", "n1", marked("Deferred", "transition=6", 1)),
                    pod("pay-3", "n1", json!({})),
                ],
            ),
            (
                "promo",
                vec![
                    pod("promo-1", "n1", marked("BySomebody", "transition=7", 5)),
                    pod("promo-2", "n1", marked("Deferred", "transition=77", 5)),
                ],
            ),
        ];
        let observed = observed(json!({}), &pods);
        let found = given_up(&observed, 7);
        let names: Vec<_> = found
            .iter()
            .map(|mark| (mark.reason, &*observed.pod(mark.pod).unwrap().pod.meta().key.name, mark.since))
            .collect();
        let expected = [
            (StuckReason::DeadlineExceeded, "promo-1", Some(at(5))),
            (StuckReason::Infeasible, "pay-1", Some(at(9))),
        ];
        assert_eq!(names, expected);
    }

    #[test]
    fn a_message_names_its_switch_with_or_without_more_words() {
        for (message, id) in [
            ("transition=7", Some(7)),
            ("transition=7: no room", Some(7)),
            ("transition=", None),
            ("transition=99999999999", None),
            ("transition=-1", None),
            ("7", None),
        ] {
            assert_eq!(switch_of(message), id, "{message}");
        }
    }

    proptest! {
        #[test]
        fn no_message_breaks_its_reader(message in ".{0,40}") {
            let _ = switch_of(&message);
            let _ = switch_of(&format!("{TRANSITION}{message}"));
        }
    }
}
