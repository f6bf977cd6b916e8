//! The figures of the budget.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// Rate and burst of one bucket.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct BucketConfig {
    /// How many of these writes may be sent a second in the long run: tokens of the bucket a second.
    #[schemars(range(min = 0.001, max = 100_000.0))]
    pub rate: f64,
    /// How many of these writes may be sent at once after a pause: tokens of the full bucket.
    #[schemars(range(min = 1, max = 1_000_000))]
    pub burst: u32,
}

impl BucketConfig {
    const fn new(rate: f64, burst: u32) -> Self {
        Self { rate, burst }
    }

    /// Time in which one token comes; rounded up, so that the rate is never exceeded.
    pub(super) fn interval(&self) -> Duration {
        Duration::from_nanos((1e9 / self.rate).ceil() as u64)
    }
}

/// Writes of one controller in a second, in the long run: whole ones, and at least one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WriteRates {
    /// Into one namespace.
    pub namespace: u32,
    /// Into all namespaces together.
    pub controller: u32,
}

/// All buckets. The defaults keep one process well below what a small API server bears.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
pub struct BudgetConfig {
    /// The bucket of all writes of the process.
    pub process: BucketConfig,
    /// The bucket of all writes of a controller.
    pub controller: BucketConfig,
    /// The bucket of all writes of a controller into one namespace.
    pub namespace: BucketConfig,
    /// The bucket of all events of a controller in one namespace.
    pub events: BucketConfig,
    /// The bucket of the status writes of one object.
    pub object_status: BucketConfig,
}

impl Default for BudgetConfig {
    fn default() -> Self {
        Self {
            process: BucketConfig::new(300.0, 600),
            controller: BucketConfig::new(200.0, 400),
            namespace: BucketConfig::new(100.0, 200),
            events: BucketConfig::new(5.0, 25),
            object_status: BucketConfig::new(1.0, 2),
        }
    }
}

impl BudgetConfig {
    /// What a controller may write in a second, in the long run.
    #[must_use]
    pub fn rates(&self) -> WriteRates {
        let whole = |rate: f64| (rate as u32).max(1);
        let controller = self.process.rate.min(self.controller.rate);
        WriteRates { namespace: whole(controller.min(self.namespace.rate)), controller: whole(controller) }
    }

    /// All rates and bursts multiplied, except those of one object's status: a larger budget means
    /// more objects at once, not more writes of one.
    #[must_use]
    pub fn scaled(self, factor: f64) -> Self {
        let scale = |bucket: BucketConfig| BucketConfig {
            rate: bucket.rate * factor,
            burst: ((f64::from(bucket.burst) * factor) as u32).max(1),
        };
        Self {
            process: scale(self.process),
            controller: scale(self.controller),
            namespace: scale(self.namespace),
            events: scale(self.events),
            object_status: self.object_status,
        }
    }
}
