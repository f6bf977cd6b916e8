//! Types that several kinds share: conditions, references, amounts, tiers, windows, metrics and drains.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::reason::Reason;

pub use crate::decimal::Decimal;
pub use crate::drain::{Drain, DrainConfirm, OnTimeout};
pub use crate::int_or_percent::IntOrPercent;
pub use crate::metric_gate::{METRICS_MAX, MetricGate, OnNoData, PrometheusQuery, QUERY_MAX_LENGTH};
pub use crate::quantity::Quantity;
pub use crate::resource_amounts::ResourceAmounts;
pub use crate::url::{ADDRESS_PATTERN, HTTPS_URL_PATTERN};
pub use crate::window::Window;

/// The API group of every kind.
pub const GROUP: &str = "springtide.dev";

/// The version all kinds are served and stored in.
pub const VERSION: &str = "v1alpha1";

/// Longest reason, in bytes: `ConflictsWithVerticalPodAutoscaler`. Those of containers and
/// pods that we copy (`CreateContainerConfigError`) are cut to it.
pub const REASON_MAX_LENGTH: usize = 34;

/// Longest condition type, in bytes: `AutoscalerConflict`.
const TYPE_MAX_LENGTH: usize = 18;

/// Where the API server's default puts `lastTransitionTime` before any
/// controller has seen the object; Gateway API uses the same instant.
pub const NEVER_SEEN_TIME: &str = "1970-01-01T00:00:00Z";

/// Longest name of a resource that our APIs take. Kubernetes allows 317 bytes; real ones, such as
/// `nvidia.com/mig-1g.10gb.shared`, are far shorter, and statuses with rows by resource stay small.
pub const RESOURCE_NAME_MAX_LENGTH: usize = 48;

/// Importance of batch work; it decides who waits and who yields.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
)]
#[schemars(inline)]
pub enum Tier {
    /// Runs on what is left; first to yield.
    #[default]
    BestEffort,
    /// Ordinary batch work.
    Standard,
    /// Last to yield.
    Guaranteed,
}

/// Status of a condition.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[schemars(inline)]
pub enum ConditionStatus {
    /// The condition holds.
    True,
    /// The condition does not hold.
    False,
    /// Not known (yet).
    Unknown,
}

impl ConditionStatus {
    /// The status as it stands in the API.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::True => "True",
            Self::False => "False",
            Self::Unknown => "Unknown",
        }
    }
}

/// One observed aspect of an object, as Kubernetes conditions are.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Condition {
    /// What the condition is about; unique in its list.
    #[serde(rename = "type")]
    pub type_: String,
    /// Whether it holds.
    pub status: ConditionStatus,
    /// `metadata.generation` this condition was computed for.
    #[serde(default)]
    pub observed_generation: i64,
    /// Why, as one CamelCase word.
    pub reason: String,
    /// Why, for people.
    #[serde(default)]
    pub message: String,
    /// When `status` last changed, in whole seconds.
    pub last_transition_time: Time,
}

impl Condition {
    /// Whether this is a condition of `R` with exactly this reason.
    pub fn is<R: Reason>(&self, reason: R) -> bool {
        self.type_ == R::CONDITION && self.reason == reason.as_str()
    }

    /// Whether it is the API server's default, which no controller has written: generations begin at 1.
    fn is_never_seen(&self) -> bool {
        self.observed_generation == 0 && self.last_transition_time.0 == Timestamp::UNIX_EPOCH
    }
}

/// Finds the condition of a type.
#[must_use]
pub fn condition<'a>(conditions: &'a [Condition], type_: &str) -> Option<&'a Condition> {
    conditions.iter().find(|condition| condition.type_ == type_)
}

/// Whether the condition of a type is there and true.
#[must_use]
pub fn holds(conditions: &[Condition], type_: &str) -> bool {
    condition(conditions, type_).is_some_and(|found| found.status == ConditionStatus::True)
}

/// Takes a condition out of the list: abnormal-true conditions
/// (`Reconciling`, `Stalled`) are absent when all is normal.
pub fn remove_condition(conditions: &mut Vec<Condition>, type_: &str) {
    conditions.retain(|condition| condition.type_ != type_);
}

/// Sets conditions in one pass over one object: the generation, the clock and
/// the bound of messages are the same for all of them.
#[derive(Clone, Copy, Debug)]
pub struct ConditionWriter {
    /// `metadata.generation` the pass looked at.
    pub observed_generation: i64,
    /// The pass's clock.
    pub now: Timestamp,
    /// Longest message of the kind, in bytes of its JSON form.
    pub message_max_bytes: usize,
}

impl ConditionWriter {
    /// Sets the condition of `R` to `reason` and the status that goes with it.
    ///
    /// `lastTransitionTime` moves only when the status changes, so that an
    /// unchanged situation gives an identical status and hence no write. What
    /// the API server's default says since [`NEVER_SEEN_TIME`] begins now.
    /// Too long a message is cut.
    pub fn set<R: Reason>(&self, conditions: &mut Vec<Condition>, reason: R, message: &str) {
        let status = reason.status();
        let previous = conditions.iter_mut().find(|condition| condition.type_ == R::CONDITION);
        let last_transition_time = match &previous {
            Some(previous) if previous.status == status && !previous.is_never_seen() => {
                previous.last_transition_time.clone()
            }
            Some(_) | None => whole_seconds(self.now),
        };
        let next = Condition {
            type_: R::CONDITION.to_owned(),
            status,
            observed_generation: self.observed_generation,
            reason: reason.as_str().to_owned(),
            message: bounded_text(message, self.message_max_bytes),
            last_transition_time,
        };
        match previous {
            Some(previous) => *previous = next,
            None => conditions.push(next),
        }
    }
}

/// The instant cut to whole seconds, as the API stores times. Comparing a
/// status with its stored form works only on such times.
#[must_use]
pub fn whole_seconds(instant: Timestamp) -> Time {
    Time(Timestamp::from_second(instant.as_second()).unwrap_or(instant))
}

/// Makes foreign text fit a status field: control characters become spaces,
/// and it is cut, at a character, to `max_bytes` of its JSON form (a quote or
/// backslash takes two). Cut text ends in `...`.
#[must_use]
pub fn bounded_text(text: &str, max_bytes: usize) -> String {
    const ELLIPSIS: &str = "...";
    let clean = |c: char| if c.is_control() { ' ' } else { c };
    let json_len = |c: char| match c {
        '"' | '\\' => 2,
        other => other.len_utf8(),
    };
    let text = text.trim();
    let full: usize = text.chars().map(clean).map(json_len).sum();
    if full <= max_bytes {
        return text.chars().map(clean).collect();
    }
    let mut room = max_bytes.saturating_sub(ELLIPSIS.len());
    let mut cut: String = text
        .chars()
        .map(clean)
        .take_while(|c| {
            let len = json_len(*c);
            let fits = len <= room;
            room = room.saturating_sub(len);
            fits
        })
        .collect();
    if max_bytes >= ELLIPSIS.len() {
        cut.push_str(ELLIPSIS);
    }
    cut
}

/// Schema of a `conditions` list with at most `types` conditions and messages
/// of at most `message_max_bytes`.
pub(crate) fn conditions_schema(types: usize, message_max_bytes: usize) -> Schema {
    json_schema!({
        "type": "array",
        "maxItems": types,
        "x-kubernetes-list-type": "map",
        "x-kubernetes-list-map-keys": ["type"],
        "items": {
            "type": "object",
            "description": "One observed aspect of the object.",
            "required": ["type", "status", "observedGeneration", "reason", "message", "lastTransitionTime"],
            "properties": {
                "type": {"type": "string", "maxLength": TYPE_MAX_LENGTH, "description": "What the condition is about."},
                "status": {"type": "string", "enum": ["True", "False", "Unknown"], "description": "Whether it holds."},
                "observedGeneration": {
                    "type": "integer", "format": "int64", "minimum": 0, "maximum": MAX_GENERATION,
                    "description": "The metadata.generation this condition was computed for.",
                },
                "reason": {
                    "type": "string", "maxLength": REASON_MAX_LENGTH,
                    "description": "Why, as one CamelCase word; the reference lists them all.",
                },
                "message": {"type": "string", "maxLength": message_max_bytes, "description": "Why, for people."},
                "lastTransitionTime": {
                    "type": "string", "format": "date-time", "description": "When status last changed.",
                },
            },
        },
    })
}

/// The status every object has before its controller has seen it. The API server
/// adds it at each read, so `kubectl wait` and kstatus are right without a write.
/// `summary` is the type of the kind's summary condition, `noun` what people call an object.
pub(crate) fn never_seen(summary: &str, noun: &str) -> Value {
    let condition = |type_: &str, status: &str| {
        json!({
            "type": type_,
            "status": status,
            "observedGeneration": 0,
            "reason": "Pending",
            "message": format!("The controller has not seen the {noun} yet."),
            "lastTransitionTime": NEVER_SEEN_TIME,
        })
    };
    json!({
        "observedGeneration": 0,
        "conditions": [condition(summary, "Unknown"), condition("Reconciling", "True")],
    })
}

/// Bound of `observedGeneration`: the API server counts spec changes in int64,
/// and 10^9 of them is one a second for 30 years.
pub const MAX_GENERATION: i64 = 1_000_000_000;

/// A reference to an object of a known kind in the same namespace.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[schemars(inline)]
#[serde(rename_all = "camelCase")]
pub struct LocalObjectReference {
    /// Name of the object.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
}

/// A reference to an object of any kind in the same namespace.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[schemars(inline)]
#[serde(rename_all = "camelCase")]
pub struct TypedLocalObjectReference {
    /// API version of the object, such as `apps/v1`.
    #[schemars(length(min = 1, max = 253))]
    pub api_version: String,
    /// Kind of the object.
    #[schemars(length(min = 1, max = 63))]
    pub kind: String,
    /// Name of the object.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
}

/// A point in time, in whole seconds. Unlike the Kubernetes type it embeds,
/// its schema is bounded and carries no description of its own.
pub(crate) fn time_schema(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"type": "string", "format": "date-time"})
}
