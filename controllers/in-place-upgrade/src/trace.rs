//! What a pod says of itself about the run that changed it last.

use springtide_plumbing::done_rule::Record;

/// What stands in the annotation [`RECORD_ANNOTATION`](crate::names::RECORD_ANNOTATION) of a pod.
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
            Self::Record(record) => record.base.contains_key(container),
            Self::Damaged => true,
        }
    }

    /// Bytes beside itself, about.
    pub fn bytes(&self) -> usize {
        match self {
            Self::None | Self::Damaged => 0,
            Self::Record(record) => {
                let base: usize = record.base.keys().map(|name| name.len() + 72).sum();
                size_of::<Record>() + record.run.len() + base
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
}
