//! What a pod says of itself about the run that changed it last.

use crate::workloads::image_name::is_flip;
use jiff::Timestamp;
use crate::done_rule::{Record, mark};

/// What stands in the annotation [`RECORD_ANNOTATION`](crate::workloads::names::RECORD_ANNOTATION) of a pod.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Trace {
    /// Nothing: it was never changed.
    #[default]
    None,
    /// It was, by this run.
    Record(Box<Record>),
    /// What is no record of ours, so that any field may be of our making.
    Damaged,
}

/// What a key is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A label.
    Label,
    /// An annotation.
    Annotation,
}

impl Kind {
    /// By which a record knows a key; see [`Record::added`].
    pub fn mark(self, key: &str) -> Box<str> {
        match self {
            Self::Label => mark(&format!("label {key}")),
            Self::Annotation => mark(&format!("annotation {key}")),
        }
    }
}

impl Trace {
    /// Reads the annotation's value.
    pub fn read(annotation: Option<&str>) -> Self {
        match annotation {
            None => Self::None,
            Some(text) => Record::decode(text).map_or(Self::Damaged, |record| Self::Record(Box::new(record))),
        }
    }

    /// The record, where it is of this run.
    pub fn of_run(&self, run: &str) -> Option<&Record> {
        match self {
            Self::Record(record) if &*record.run == run => Some(record),
            Self::Record(_) | Self::None | Self::Damaged => None,
        }
    }

    /// Whether a container may have got its image from us.
    pub fn has_changed_image_of(&self, container: &str) -> bool {
        match self {
            Self::None => false,
            Self::Record(record) => record.base.contains_key(container) || record.renamed.contains(container),
            Self::Damaged => true,
        }
    }

    /// For which restart the pod has been restarted last.
    pub fn restarted(&self) -> Option<Timestamp> {
        self.record()?.restarted
    }

    /// Whether a container's image is the wished one under another name, that a restart has given it.
    pub fn is_renamed(&self, container: &str, wished: &str, own: &str) -> bool {
        self.record().is_some_and(|record| record.renamed.contains(container)) && is_flip(wished, own)
    }

    /// Whether a label or annotation has come to the pod by a patch of ours.
    pub fn has_added(&self, kind: Kind, key: &str) -> bool {
        let added = self.record().map(|record| &record.added).filter(|added| !added.is_empty());
        added.is_some_and(|added| added.contains(&kind.mark(key)))
    }

    /// What it says, where it is a record.
    pub fn record(&self) -> Option<&Record> {
        match self {
            Self::Record(record) => Some(record),
            Self::None | Self::Damaged => None,
        }
    }

    /// Bytes beside itself, about.
    pub fn bytes(&self) -> usize {
        match self {
            Self::None | Self::Damaged => 0,
            Self::Record(record) => {
                let base: usize = record.base.keys().map(|name| name.len() + 72).sum();
                let renamed: usize = record.renamed.iter().map(|name| name.len() + 16).sum();
                size_of::<Record>() + record.run.len() + base + renamed + 32 * record.added.len()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_of_one_run_and_what_is_damaged_is_of_none() {
        let record = r#"{"run":"7c9f21ab04de","at":"2026-11-23T10:00:00Z","g":1,"base":{"app":["a","b"]}}"#;
        let trace = Trace::read(Some(record));
        assert_eq!(trace.of_run("7c9f21ab04de").map(|record| record.generation), Some(1));
        assert_eq!(trace.of_run("000000000000"), None);
        assert!(trace.has_changed_image_of("app") && !trace.has_changed_image_of("other"));
        assert_eq!(Trace::read(Some("{}")), Trace::Damaged);
        assert!(Trace::Damaged.has_changed_image_of("other"));
        assert!(!Trace::read(None).has_changed_image_of("app"));
    }

    #[test]
    fn a_record_says_what_was_restarted_under_which_name_and_what_was_added() {
        let digest = format!("sha256:{}", "0".repeat(64));
        let added = Kind::Label.mark("v");
        let record = format!(
            r#"{{"run":"r","at":"2026-11-23T10:00:00Z","g":1,"base":{{}},"restarted":"2026-11-23T09:00:00Z",
                "renamed":["app"],"added":["{added}"]}}"#
        );
        let trace = Trace::read(Some(&record));
        assert_eq!(trace.restarted().map(|at| at.to_string()).as_deref(), Some("2026-11-23T09:00:00Z"));
        assert!(trace.is_renamed("app", "app:1", &format!("app:1@{digest}")));
        assert!(!trace.is_renamed("app", "app:2", &format!("app:1@{digest}")));
        assert!(!trace.is_renamed("b", "app:1", &format!("app:1@{digest}")), "that is the user's own");
        assert!(trace.has_changed_image_of("app"));
        assert!(trace.has_added(Kind::Label, "v") && !trace.has_added(Kind::Annotation, "v"));
        assert!(!Trace::None.has_added(Kind::Label, "v") && Trace::Damaged.restarted().is_none());
    }
}
