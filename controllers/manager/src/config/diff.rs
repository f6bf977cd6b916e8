//! What a changed configuration changes, and which of it needs a restart.

use super::ManagerConfiguration;
use super::schema::json;
use serde_json::Value;

/// Fields that change live, with all below them.
const LIVE: [&str; 2] = ["writeBudget", "logging.level"];

/// Paths of fields that differ.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// Those that are applied at once.
    pub live: Vec<String>,
    /// Those that wait for a restart.
    pub restart: Vec<String>,
}

impl Changes {
    /// What leads from one configuration to another.
    #[must_use]
    pub fn between(old: &ManagerConfiguration, new: &ManagerConfiguration) -> Self {
        let mut paths = Vec::new();
        differing("", &json(old), &json(new), &mut paths);
        let (live, restart) = paths.into_iter().partition(|path| is_live(path));
        Self { live, restart }
    }
}

/// Whether the field at this path changes without a restart.
#[must_use]
pub fn is_live(path: &str) -> bool {
    LIVE.iter()
        .any(|live| path.strip_prefix(live).is_some_and(|rest| rest.is_empty() || rest.starts_with('.')))
}

fn differing(path: &str, old: &Value, new: &Value, paths: &mut Vec<String>) {
    if let (Value::Object(old), Value::Object(new)) = (old, new) {
        let names = old.keys().chain(new.keys().filter(|name| !old.contains_key(*name)));
        for name in names {
            let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
            let [old, new] = [old, new].map(|fields| fields.get(name).unwrap_or(&Value::Null));
            differing(&path, old, new, paths);
        }
    } else if old != new {
        paths.push(path.to_owned());
    }
}
