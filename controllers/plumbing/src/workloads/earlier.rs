//! From which template a pod of a ReplicaSet was made whose template has been changed under it.
//!
//! Where pods are to be made anew by another template, the ReplicaSet gets it first, and pods of both are there for a
//! while. Nothing in a pod says of which it is but its time: those that there were when the ReplicaSet's controller had
//! seen the change are of the one before. So the change is noted on the ReplicaSet with the write that makes it, and the
//! time by a later one; until then all of its pods count as of the one before. All times are the API server's.
//!
//! A run that leaves pods as they are notes the same, and the note stays: nothing else would tell them from those that
//! were changed.

use crate::workloads::content::Digest;
use crate::workloads::template::Template;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// Most changes that are kept: of more, all but the first are merged.
const MOST: usize = 8;

/// A template that a ReplicaSet had.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Earlier {
    /// Pods that were created up to this time are of it, as far as they are of none before; `None` while its controller
    /// may still make some.
    pub until: Option<Timestamp>,
    /// All of the template.
    pub whole: Digest,
    /// What of it cannot be changed in place.
    pub rest: Digest,
    /// Whether a run that has ended since has left pods of it as they were.
    pub is_left: bool,
}

/// The templates that a ReplicaSet had since all of its pods were of one, oldest first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EarlierTemplates(Vec<Earlier>);

#[derive(Deserialize, Serialize)]
struct Wire {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    until: Option<Timestamp>,
    whole: String,
    rest: String,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    left: bool,
}

impl EarlierTemplates {
    /// Reads the annotation [`EARLIER_ANNOTATION`](crate::workloads::names::EARLIER_ANNOTATION); what is damaged is left out.
    pub fn read(text: &str) -> Self {
        let wires: Vec<Wire> = serde_json::from_str(text).unwrap_or_default();
        let read = wires.into_iter().take(MOST).filter_map(|wire| {
            let (whole, rest) = (Digest::parse(&wire.whole)?, Digest::parse(&wire.rest)?);
            Some(Earlier { until: wire.until, whole, rest, is_left: wire.left })
        });
        Self(read.collect())
    }

    /// The annotation's value.
    pub fn text(&self) -> String {
        let wires = self.0.iter().map(|earlier| Wire {
            until: earlier.until,
            whole: earlier.whole.to_string(),
            rest: earlier.rest.to_string(),
            left: earlier.is_left,
        });
        // It is of types that are always written.
        serde_json::to_string(&wires.collect::<Vec<_>>()).unwrap_or_default()
    }

    /// The template that a pod of this time was made from, if it was an earlier one.
    pub fn of(&self, created: Timestamp) -> Option<&Earlier> {
        self.0.iter().find(|earlier| earlier.until.is_none_or(|until| created <= until))
    }

    /// The one that all pods were of, but for those that were left as they were.
    pub fn first(&self) -> Option<&Earlier> {
        self.0.iter().find(|earlier| !earlier.is_left)
    }

    /// Whether all that is noted is of pods that were left as they were.
    pub fn is_left(&self) -> bool {
        !self.0.is_empty() && self.0.iter().all(|earlier| earlier.is_left)
    }

    /// What stays of it at the end of a run: all, where that leaves pods as they are, else what earlier runs have left.
    #[must_use]
    pub fn settled(&self, leaves: bool) -> Self {
        let kept = self.0.iter().filter(|earlier| leaves || earlier.is_left);
        Self(kept.map(|earlier| Earlier { is_left: true, ..*earlier }).collect())
    }

    /// Whether none is noted.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether pods may still be made from the last of them.
    pub fn is_open(&self) -> bool {
        self.0.last().is_some_and(|last| last.until.is_none())
    }

    /// The same when this template gives way to another.
    #[must_use]
    pub fn opened(&self, template: &Template) -> Self {
        let mut earlier = self.0.clone();
        if let Some(last) = earlier.last_mut() {
            // The pods that there are are of what was before it, for all that is known.
            last.until.get_or_insert(Timestamp::MAX);
        }
        earlier.push(Earlier { until: None, whole: template.whole, rest: template.rest, is_left: false });
        if earlier.len() > MOST {
            let first = earlier.iter().position(|earlier| !earlier.is_left);
            earlier.remove(if first == Some(1) { 2 } else { 1 });
        }
        Self(earlier)
    }

    /// The same when its controller makes no pod of the last one any more. `newest` is when the last of its pods was
    /// created, if it has any.
    #[must_use]
    pub fn closed(&self, newest: Option<Timestamp>) -> Self {
        let mut earlier = self.0.clone();
        if let Some(last) = earlier.last_mut() {
            last.until.get_or_insert(newest.unwrap_or(Timestamp::UNIX_EPOCH));
        }
        Self(earlier)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workloads::fixtures::{at, template};
    use proptest::prelude::*;
    use serde_json::json;

    #[test]
    fn pods_are_of_the_template_that_there_was_when_they_were_made() {
        let [first, second] = ["app:1", "app:2"].map(|image| template(image, json!({})));
        let of = |noted: &EarlierTemplates, second| noted.of(at(second)).map(|earlier| earlier.whole);
        let open = EarlierTemplates::default().opened(&first);
        assert_eq!(
            (of(&open, 99), open.is_open()),
            (Some(first.whole), true),
            "its controller may not have seen it"
        );
        let noted = open.closed(Some(at(10)));
        assert_eq!((of(&noted, 10), of(&noted, 11), noted.is_open()), (Some(first.whole), None, false));
        let twice = noted.opened(&second);
        assert_eq!((of(&twice, 10), of(&twice, 11)), (Some(first.whole), Some(second.whole)));
        let twice = twice.closed(Some(at(20)));
        assert_eq!((of(&twice, 20), of(&twice, 21)), (Some(second.whole), None));
        assert_eq!(twice.first().map(|earlier| earlier.whole), Some(first.whole));
        assert_eq!(EarlierTemplates::read(&twice.text()), twice);
        assert_eq!(of(&open.closed(None), 0), None, "there were no pods");
    }

    #[test]
    fn what_all_pods_were_of_is_kept_however_often_the_template_changes() {
        let first = template("app:1", json!({}));
        let mut noted = EarlierTemplates::default().opened(&first);
        for number in 0..20 {
            noted = noted.closed(Some(at(number))).opened(&template(&format!("other:{number}"), json!({})));
        }
        assert_eq!(noted.first().map(|earlier| earlier.whole), Some(first.whole));
        assert!(noted.text().len() < 2000, "{}", noted.text().len());
    }

    #[test]
    fn what_a_run_leaves_is_told_from_what_all_pods_were_of() {
        let [first, second] = ["app:1", "app:2"].map(|image| template(image, json!({})));
        let left = EarlierTemplates::default().opened(&first).settled(true);
        assert!(left.is_left() && left.is_open() && left.first().is_none());
        assert_eq!(left.settled(false), left, "the next run has not changed that");
        let next = left.closed(Some(at(10))).opened(&second).closed(Some(at(20)));
        assert_eq!(next.first().map(|earlier| earlier.whole), Some(second.whole));
        assert_eq!(next.of(at(5)).map(|earlier| earlier.whole), Some(first.whole));
        assert!(!next.is_left() && next.settled(true).is_left());
        assert_eq!(next.settled(false), left.closed(Some(at(10))));
        assert_eq!(EarlierTemplates::read(&next.text()), next);
        assert!(!EarlierTemplates::default().is_left());
        assert!(!EarlierTemplates::default().opened(&first).text().contains("left"));
    }

    #[test]
    fn however_much_is_left_the_one_that_all_others_were_of_is_kept() {
        let template = |number: i64| template(&format!("app:{number}"), json!({}));
        let mut noted = EarlierTemplates::default();
        for number in 0..20 {
            noted = noted.opened(&template(number)).closed(Some(at(number))).settled(true);
        }
        for number in 20..40 {
            noted = noted.opened(&template(number)).closed(Some(at(number)));
            assert_eq!(noted.first().map(|earlier| earlier.whole), Some(template(20).whole), "{number}");
        }
    }

    proptest! {
        #[test]
        fn whatever_stands_there_is_read_without_a_panic(text in ".{0,60}|\\[\\{\"whole\":\"[0-9a-f]{0,40}\"\\}\\]") {
            let read = EarlierTemplates::read(&text);
            prop_assert_eq!(EarlierTemplates::read(&read.text()), read);
        }
    }
}
