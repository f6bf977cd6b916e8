//! What the ConfigMap of the brake says.

use std::collections::{BTreeMap, BTreeSet};

/// Key of the switch for all controllers.
const ALL: &str = "all";
/// Controllers and actions that have a switch, as the chart names them. `bringUp` and `reclaim` are
/// heard by the controller of ElasticSites alone.
const KNOWN: [&str; 7] =
    [ALL, "batchJob", "inPlaceUpgrade", "timeShareGroup", "elasticSite", "bringUp", "reclaim"];

/// Controllers that are a part of another one, whose switch is theirs too.
const PARTS: [(&str, &str); 2] = [("batch-queue", "batch-job"), ("batch-task-profile", "batch-job")];

/// The switches of the ConfigMap that are engaged, by [`folded`] key.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Switches(BTreeSet<String>);

impl Switches {
    /// A value that is neither Engaged nor Released engages: whoever wrote it meant to use the brake, and
    /// a stop by mistake can be undone, which a deletion cannot.
    pub(super) fn read(data: &BTreeMap<String, String>) -> Self {
        let mut engaged = BTreeSet::new();
        for (key, value) in data {
            if !KNOWN.iter().any(|known| folded(known) == folded(key)) {
                tracing::warn!(key, known = ?KNOWN, "ConfigMap springtide-brake has a key that no switch has");
            }
            let value = value.trim();
            if value.eq_ignore_ascii_case("Released") {
                continue;
            }
            if !value.eq_ignore_ascii_case("Engaged") {
                tracing::warn!(
                    key,
                    value,
                    "ConfigMap springtide-brake has a value that is neither Engaged nor Released: taken as Engaged"
                );
            }
            engaged.insert(folded(key));
        }
        Self(engaged)
    }

    pub(super) fn is_engaged(&self, controller: &str) -> bool {
        let whole = PARTS.iter().find(|(part, _)| *part == controller).map(|(_, whole)| *whole);
        self.0.contains(ALL) || self.0.contains(&folded(whole.unwrap_or(controller)))
    }

    pub(super) fn is_any_engaged(&self) -> bool {
        !self.0.is_empty()
    }
}

/// A switch's name without what is easily mistaken in a hurry: `batchJob`, `batch-job` and `BatchJob` are one.
fn folded(name: &str) -> String {
    name.chars().filter(char::is_ascii_alphanumeric).map(|c| c.to_ascii_lowercase()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn engaged(entries: &[(&str, &str)], controller: &str) -> bool {
        let data = entries.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        Switches::read(&data).is_engaged(controller)
    }

    #[test]
    fn a_switch_is_for_its_controller_and_all_is_for_all() {
        assert!(!engaged(&[], "batch-job"));
        assert!(engaged(&[("all", "Engaged")], "batch-job"));
        assert!(engaged(&[("batchJob", "Engaged")], "batch-job"));
        for part in ["batch-queue", "batch-task-profile"] {
            assert!(engaged(&[("batchJob", "Engaged")], part), "{part} is a part of it");
            assert!(!engaged(&[("elasticSite", "Engaged")], part));
        }
        assert!(!engaged(&[("batchJob", "Engaged")], "elastic-site"));
        assert!(engaged(&[("all", "Engaged"), ("batchJob", "Released")], "batch-job"), "all is stronger");
        assert!(!engaged(&[("reclaim", "Engaged")], "elastic-site"), "it stops one action only");
    }

    #[test]
    fn haste_does_not_keep_it_from_braking() {
        for key in ["batchJob", "batch-job", "BatchJob", "batchjob"] {
            assert!(engaged(&[(key, "Engaged")], "batch-job"), "{key}");
        }
        for value in ["engaged", " Engaged\n", "ENGAGED", "true", "yes", ""] {
            assert!(engaged(&[("all", value)], "batch-job"), "{value:?}");
        }
        for value in ["Released", "released\n"] {
            assert!(!engaged(&[("all", value)], "batch-job"), "{value:?}");
        }
    }
}
