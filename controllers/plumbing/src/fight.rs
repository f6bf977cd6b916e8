//! Fights over a field: we write it, somebody reverses it, we write it again, for ever.
//!
//! A write that sets a field to what it was set to before was made undone by somebody else, as what would change
//! nothing is not sent; other fields may say something new each time. After three reversals in a minute the writes to that object keep a
//! distance that doubles from one to the next, and users are told. The server is spared; who is right is for them to
//! decide.

#[cfg(test)]
mod tests;

use crate::key::{ObjectKey, Resource, Uid};
use crate::plan::{Action, Patch, Write};
use serde_json::Value;
use std::collections::{BTreeMap, HashMap};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use tokio::time::Instant;

/// Reversals within [`WINDOW`] that make a fight.
const REVERSALS: usize = 3;
/// In which they are counted.
const WINDOW: Duration = Duration::from_secs(60);
/// The first distance between two writes of a fight.
const FIRST_DISTANCE: Duration = Duration::from_secs(10);
/// The longest.
const LONGEST_DISTANCE: Duration = Duration::from_secs(600);
/// So many records are made between two looks for those that are over.
const SWEEP_EVERY: usize = 1024;

/// A fight that has begun, or goes on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fight {
    /// The object.
    pub uid: Uid,
    /// The next write to it keeps this distance.
    pub distance: Duration,
    /// Whether this is its beginning.
    pub begins: bool,
}

/// What one controller has written lately, by object.
#[derive(Debug, Default)]
pub struct Fights {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Boxed, as a table has up to twice as many places as entries.
    bouts: HashMap<Box<Subject>, Box<Bout>>,
    records: usize,
}

/// An object, or its status: these have fields of their own.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Subject {
    resource: Resource,
    subresource: &'static str,
    key: ObjectKey,
    uid: Uid,
}

#[derive(Debug)]
struct Bout {
    /// What was written last, field by field: hashes of the path and of the value, in the order of the former.
    fields: Box<[(u64, u64)]>,
    last: Instant,
    /// When the last ones were seen, the oldest first.
    reversals: Vec<Instant>,
    /// Of a fight.
    distance: Option<Duration>,
}

impl Bout {
    /// What was written last to the field of this path.
    fn written(&self, path: u64) -> Option<u64> {
        let place = self.fields.binary_search_by_key(&path, |(path, _)| *path).ok()?;
        Some(self.fields[place].1)
    }

    fn take_in(&mut self, fields: Vec<Field>) {
        let mut all: BTreeMap<u64, u64> = self.fields.iter().copied().collect();
        all.extend(fields.into_iter().map(|field| (field.path, field.content)));
        self.fields = all.into_iter().collect();
    }

    fn is_over(&self, now: Instant) -> bool {
        let kept = self.distance.map_or(WINDOW, |distance| (2 * distance).max(WINDOW));
        now > self.last + kept
    }
}

impl Fights {
    /// When a write may go out that has to keep its distance; `None` when it may now.
    pub fn not_before(&self, write: &Write) -> Option<Instant> {
        let subject = subject(write)?;
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let bout = state.bouts.get(&subject)?;
        Some(bout.last + bout.distance?).filter(|at| *at > Instant::now())
    }

    /// Takes note of a write that has succeeded. Tells of the fight that it is a part of.
    pub fn written(&self, write: &Write) -> Option<Fight> {
        let (subject, fields) = (subject(write)?, fields(write));
        let now = Instant::now();
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.records += 1;
        if state.records >= SWEEP_EVERY {
            state.records = 0;
            state.bouts.retain(|_, bout| !bout.is_over(now));
        }
        let uid = subject.uid.clone();
        let fresh = || Bout { fields: Box::default(), last: now, reversals: Vec::new(), distance: None };
        let bout = state.bouts.entry(subject.into()).or_insert_with(|| fresh().into());
        if bout.is_over(now) {
            **bout = fresh();
        }
        bout.last = now;
        let is_reversed = |field: &Field| field.is_new && bout.written(field.path) == Some(field.content);
        let is_reversal = fields.iter().any(is_reversed);
        bout.take_in(fields);
        if !is_reversal {
            // News of our own, which nobody has reversed yet.
            return None;
        }
        if let Some(distance) = bout.distance {
            let distance = (2 * distance).min(LONGEST_DISTANCE);
            bout.distance = Some(distance);
            return Some(Fight { uid, distance, begins: false });
        }
        bout.reversals.retain(|at| *at + WINDOW > now);
        bout.reversals.push(now);
        (bout.reversals.len() >= REVERSALS).then(|| {
            bout.distance = Some(FIRST_DISTANCE);
            Fight { uid, distance: FIRST_DISTANCE, begins: true }
        })
    }
}

/// What a write is to; `None` for one that sets no fields.
fn subject(write: &Write) -> Option<Subject> {
    match &write.action {
        Action::Create { .. } | Action::Delete { .. } | Action::Evict { .. } | Action::DryRun { .. } => None,
        Action::Patch { .. } | Action::Apply { .. } | Action::Status { .. } => {
            let uid = Uid(write.action.uid()?.into());
            let (resource, subresource, key) =
                (write.resource, write.action.subresource(), write.key.clone());
            Some(Subject { resource, subresource, key, uid })
        }
    }
}

/// One field as a write sets it.
struct Field {
    /// Hash of its path.
    path: u64,
    /// Hash of its value.
    content: u64,
    /// Whether the object has another value there, as far as the write knows.
    is_new: bool,
}

/// What a write sets, field by field: the operations of a patch, or the leaves of what is merged; of a status the
/// fields, and of these the conditions by type, as each tells of something else. An apply is one field, as most of what
/// it says is there already: it is reversed where the same one has to be sent again.
fn fields(write: &Write) -> Vec<Field> {
    match &write.action {
        Action::Create { .. } | Action::Delete { .. } | Action::Evict { .. } | Action::DryRun { .. } => {
            Vec::new()
        }
        Action::Patch { patch: Patch::Json { operations }, .. } => {
            let changes = operations.as_array().into_iter().flatten().filter(|change| change["op"] != "test");
            let field = |change: &Value| Field {
                path: hash(&change["path"].to_string()),
                content: hash(&change.to_string()),
                is_new: true,
            };
            changes.map(field).collect()
        }
        Action::Patch { patch: Patch::Merge(merged) | Patch::Strategic(merged), .. } => {
            let mut set = Vec::new();
            leaves("", &without_times(&merged.fields), &mut set);
            set
        }
        Action::Apply { manager, fields, .. } => {
            let content = hash(&without_times(fields).to_string());
            vec![Field { path: hash(manager), content, is_new: true }]
        }
        Action::Status { status, stored, .. } => {
            let (wanted, found) = (flat(status), flat(stored));
            let absent = hash("");
            let gone = found.keys().filter(|path| !wanted.contains_key(*path));
            let gone = gone.map(|path| Field { path: *path, content: absent, is_new: true });
            let set = wanted.iter().map(|(path, content)| Field {
                path: *path,
                content: *content,
                is_new: found.get(path) != Some(content),
            });
            set.chain(gone).collect()
        }
    }
}

/// The leaves of what is merged. Of a list they are its elements, by what they are merged by: the name of a container,
/// the type of a condition, else as a whole.
fn leaves(path: &str, value: &Value, set: &mut Vec<Field>) {
    let mut leaf = |path: &str, value: &Value| {
        set.push(Field { path: hash(path), content: hash(&value.to_string()), is_new: true });
    };
    match value {
        Value::Object(fields) => {
            for (name, value) in fields {
                leaves(&format!("{path}/{name}"), value, set);
            }
        }
        Value::Array(items) => {
            let key_of = |item: &Value| {
                let key =
                    ["name", "type"].into_iter().find_map(|key| item.get(key)?.as_str().map(str::to_owned));
                key.map(|key| format!("{path}/{key}"))
            };
            match items.iter().map(key_of).collect::<Option<Vec<_>>>() {
                Some(paths) => paths.iter().zip(items).for_each(|(path, item)| leaf(path, item)),
                None => leaf(path, value),
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => leaf(path, value),
    }
}

/// The fields of a status: hashes of their paths with those of their values.
fn flat(status: &Value) -> HashMap<u64, u64> {
    let content = |value: &Value| hash(&without_times(value).to_string());
    let mut fields = HashMap::new();
    for (name, value) in status.as_object().into_iter().flatten() {
        match value.as_array().filter(|_| name == "conditions") {
            Some(conditions) => fields.extend(
                conditions
                    .iter()
                    .map(|condition| (hash(&format!("{name}/{}", condition["type"])), content(condition))),
            ),
            None => drop(fields.insert(hash(name), content(value))),
        }
    }
    fields
}

fn hash(text: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    text.hash(&mut hasher);
    hasher.finish()
}

/// Of a field whose name ends in `Time` only the presence says something, as in the comparison with what is stored.
fn without_times(value: &Value) -> Value {
    match value {
        Value::Object(fields) => fields
            .iter()
            .map(|(name, value)| {
                let value = if name.ends_with("Time") { Value::Bool(true) } else { without_times(value) };
                (name.clone(), value)
            })
            .collect(),
        Value::Array(items) => items.iter().map(without_times).collect(),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => value.clone(),
    }
}
