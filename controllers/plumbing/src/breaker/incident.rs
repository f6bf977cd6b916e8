//! One opening of the breaker, as the ConfigMap keeps it.

use super::Case;
use crate::guard::Withheld;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// One opening of the breaker.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Incident {
    /// Its name, by which it is closed; the key in the ConfigMap.
    #[serde(skip)]
    pub id: String,
    /// The controller that may destroy nothing; absent: all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub controller: Option<String>,
    /// Where it may not; absent: in all namespaces.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    /// When it began.
    pub opened: Timestamp,
    /// What happened, for people.
    pub message: String,
}

impl Incident {
    /// An incident that this write is one too many for.
    pub(super) fn of(
        case: &Case<'_>,
        namespace: Option<&str>,
        cap: usize,
        window: Duration,
        opened: Timestamp,
    ) -> Self {
        let Case { controller, write, .. } = case;
        let place = namespace.map_or("the cluster".to_owned(), |namespace| format!("namespace {namespace}"));
        let message = format!(
            "{controller} was about to destroy more than {cap} objects in {place} within {} s that nothing \
             entitles it to; the last was {} {} ({})",
            window.as_secs(),
            write.resource,
            write.key,
            write.action.verb(),
        );
        Self {
            id: format!("{controller}-{:08x}", rand::random::<u32>()),
            controller: Some((*controller).to_owned()),
            namespace: namespace.map(str::to_owned),
            opened,
            message,
        }
    }

    /// Reads an entry of the ConfigMap. One that is not of our writing stops everything: it may be what is
    /// left of an incident.
    pub(super) fn parse(id: &str, text: &str) -> Self {
        let unreadable = |error| Self {
            id: String::new(),
            controller: None,
            namespace: None,
            opened: Timestamp::UNIX_EPOCH,
            message: format!("the entry {id} cannot be read ({error}), so it counts for all controllers"),
        };
        let incident = serde_json::from_str(text).unwrap_or_else(unreadable);
        Self { id: id.to_owned(), ..incident }
    }

    /// The entry of the ConfigMap.
    pub(super) fn to_text(&self) -> String {
        // A struct of strings and a time cannot fail to be JSON.
        serde_json::to_string(self).unwrap_or_default()
    }

    /// Whether it keeps a controller from destroying anything in a namespace.
    pub fn covers(&self, controller: &str, namespace: &str) -> bool {
        self.controller.as_deref().is_none_or(|mine| mine == controller)
            && self.namespace.as_deref().is_none_or(|mine| mine == namespace)
    }

    pub(super) fn withheld(&self) -> Withheld {
        Withheld::BreakerOpen { id: self.id.clone() }
    }
}
