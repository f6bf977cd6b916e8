//! What this controller measures of its own. No label names an object.

use crate::pod_times::Stretch;
use crate::projections::group::GroupView;
use jiff::SignedDuration;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;
use serde_json::Value;
use springtide_crds::common::{ConditionStatus, Quantity, condition};
use springtide_crds::reason::Reason;
use springtide_crds::time_share_group::{
    LastTransition, PreflightPassedReason, TimeShareGroupStatus, TransitionResult,
};
use springtide_plumbing::quantity::parse_amount;
use springtide_plumbing::store::Store;
use std::fmt;

/// From a resize on a quiet node, some 100 ms, to one that has waited for the kubelet's own look every three minutes.
const UNIT_SECONDS: [f64; 12] = [0.1, 0.25, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 30.0, 60.0, 180.0, 600.0];
/// From a group of a few pods to a large one with a look at its canary.
const SWITCH_SECONDS: [f64; 11] =
    [5.0, 15.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1200.0, 3600.0, 14_400.0, 86_400.0];
/// Thousandths of a core.
const MILLICORES: f64 = 1000.0;

/// The metrics, all at zero at first.
#[derive(Debug)]
pub(crate) struct Measures {
    unit: Family<StepLabels, Histogram>,
    switch: Histogram,
    units: Family<ResultLabels, Counter>,
    nudges: Counter,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct StepLabels {
    step: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ResultLabels {
    result: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ResourceLabels {
    resource: &'static str,
}

impl Default for Measures {
    fn default() -> Self {
        Self {
            unit: Family::new_with_constructor(|| Histogram::new(UNIT_SECONDS)),
            switch: Histogram::new(SWITCH_SECONDS),
            units: Family::default(),
            nudges: Counter::default(),
        }
    }
}

impl Measures {
    /// Makes them part of what is scraped, and what the statuses of these groups say.
    pub(crate) fn register(&self, registry: &mut Registry, groups: Store<GroupView>) {
        for stretch in Stretch::ALL {
            drop(self.unit.get_or_create(&StepLabels { step: stretch.as_str() }));
        }
        for (result, _) in (Ended { seconds: 0, done: 0, skipped: 0, interrupted: 0 }).units() {
            drop(self.units.get_or_create(&ResultLabels { result }));
        }
        registry.register(
            "springtide_tsg_unit_seconds",
            "Time that pods of TimeShareGroups took for a step of a switch: out of traffic, grown, warm and in traffic",
            self.unit.clone(),
        );
        registry.register(
            "springtide_tsg_switch_seconds",
            "Time that switches of TimeShareGroups took to their end, holds included",
            self.switch.clone(),
        );
        registry.register(
            "springtide_tsg_units",
            "Units of switches of TimeShareGroups that ended, by what became of them",
            self.units.clone(),
        );
        registry.register(
            "springtide_tsg_nudges",
            "Resizes that were withdrawn and asked for again, as a kubelet had them deferred",
            self.nudges.clone(),
        );
        registry.register_collector(Box::new(Statuses(groups)));
    }

    /// Parts of a switch have come to their end.
    pub(crate) fn passed(&self, ended: &[(Stretch, SignedDuration)]) {
        for (stretch, took) in ended {
            let unit = self.unit.get_or_create(&StepLabels { step: stretch.as_str() });
            unit.observe(took.as_secs_f64().max(0.0));
        }
    }

    /// So many resizes were withdrawn and asked for again.
    pub(crate) fn nudged(&self, count: u32) {
        self.nudges.inc_by(count.into());
    }

    /// A status was written in the place of a stored one: counts the switch that has ended by it, if one has.
    pub(crate) fn written(&self, stored: &Value, status: &Value) {
        let Some(ended) = Ended::between(stored, status) else { return };
        self.switch.observe(ended.seconds.into());
        for (result, units) in ended.units() {
            self.units.get_or_create(&ResultLabels { result }).inc_by(units.into());
        }
    }
}

/// A switch that has ended, and its units.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Ended {
    seconds: u32,
    done: u32,
    skipped: u32,
    /// Those that were not done yet when another switch took the place of it.
    interrupted: u32,
}

impl Ended {
    /// What has ended by a status that takes the place of the stored one.
    fn between(stored: &Value, status: &Value) -> Option<Self> {
        let last = |status: &Value| {
            serde_json::from_value::<LastTransition>(status["lastTransitions"][0].clone()).ok()
        };
        let ended = last(status)?;
        if last(stored)
            .is_some_and(|before| before.id == ended.id && before.completion_time == ended.completion_time)
        {
            return None;
        }
        let done = match ended.result {
            TransitionResult::Succeeded => ended.units.saturating_sub(ended.skipped),
            // Another one stands in the place of it by now.
            TransitionResult::RolledBack | TransitionResult::Superseded => {
                let done = stored["transition"]["units"]["done"].as_u64().unwrap_or_default();
                u32::try_from(done).unwrap_or(u32::MAX)
            }
        };
        let interrupted = ended.units.saturating_sub(ended.skipped).saturating_sub(done);
        Some(Self { seconds: ended.duration_seconds, done, skipped: ended.skipped, interrupted })
    }

    /// Its units by the label's words.
    fn units(&self) -> [(&'static str, u32); 3] {
        [("done", self.done), ("skipped", self.skipped), ("interrupted", self.interrupted)]
    }
}

/// What the statuses of all groups say, added up at scrape time.
#[derive(Debug)]
struct Statuses(Store<GroupView>);

/// The sums.
#[derive(Debug, Default)]
struct Sums {
    saved_cores: f64,
    saved_bytes: f64,
    nodes_over_budget: i64,
    unpaired: i64,
    preflights_failed: i64,
}

impl Sums {
    fn add(&mut self, status: &TimeShareGroupStatus) {
        if let Some(union) = &status.union {
            self.saved_cores += amount("cpu", union.saved.cpu.as_ref()) / MILLICORES;
            self.saved_bytes += amount("memory", union.saved.memory.as_ref());
            self.nodes_over_budget += i64::from(union.nodes_over_budget);
        }
        self.unpaired += status.members.iter().map(|member| i64::from(member.unpaired)).sum::<i64>();
        let passed = condition(&status.conditions, PreflightPassedReason::CONDITION);
        let has_failed = passed.is_some_and(|passed| passed.status == ConditionStatus::False);
        self.preflights_failed += i64::from(has_failed);
    }
}

/// An amount of a status, which no arithmetic rests on.
#[allow(clippy::cast_precision_loss, reason = "a metric is a floating-point number")]
fn amount(resource: &str, quantity: Option<&Quantity>) -> f64 {
    quantity.and_then(|quantity| parse_amount(resource, quantity.as_str())).unwrap_or_default() as f64
}

impl Collector for Statuses {
    fn encode(&self, mut encoder: DescriptorEncoder) -> fmt::Result {
        let mut sums = Sums::default();
        for group in self.0.list(None) {
            sums.add(&group.status);
        }
        let help = "What nodes need less than if all members of TimeShareGroups had their peak at once: cores, and bytes";
        let mut saved = encoder.encode_descriptor("springtide_tsg_saved", help, None, MetricType::Gauge)?;
        for (resource, amount) in [("cpu", sums.saved_cores), ("memory", sums.saved_bytes)] {
            saved.encode_family(&ResourceLabels { resource })?.encode_gauge(&amount)?;
        }
        for (name, help, count) in [
            (
                "springtide_tsg_nodes_over_budget",
                "Nodes that cannot hold the largest peak of their members beside all else that runs there",
                sums.nodes_over_budget,
            ),
            (
                "springtide_tsg_unpaired",
                "Pods of TimeShareGroups on nodes where no pod of the other members could shrink for them",
                sums.unpaired,
            ),
            (
                "springtide_tsg_preflights_failed",
                "TimeShareGroups whose next switch would not come through as their guards ask for",
                sums.preflights_failed,
            ),
        ] {
            encoder.encode_descriptor(name, help, None, MetricType::Gauge)?.encode_gauge(&count)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures::{at, group};
    use prometheus_client::encoding::text::encode;
    use serde_json::json;
    use springtide_plumbing::store::StoreWriter;
    use std::sync::Arc;

    fn registered() -> (Measures, Registry, StoreWriter<GroupView>) {
        let (store, writer) = Store::new(&[]);
        let (measures, mut registry) = (Measures::default(), Registry::default());
        measures.register(&mut registry, store);
        (measures, registry, writer)
    }

    fn shows(registry: &Registry, line: &str) -> bool {
        let mut text = String::new();
        encode(&mut text, registry).unwrap();
        text.lines().any(|found| found == line)
    }

    fn last(id: u32, units: u32, skipped: u32, result: &str) -> Value {
        json!([{
            "id": id, "to": "pay", "cause": "Window", "completionTime": at(138).to_string(), "durationSeconds": 138,
            "units": units, "skipped": skipped, "result": result,
        }])
    }

    #[test]
    fn every_series_is_there_before_anything_happens() {
        let (_measures, registry, _writer) = registered();
        for line in [
            "springtide_tsg_unit_seconds_count{step=\"drain\"} 0",
            "springtide_tsg_unit_seconds_count{step=\"resize\"} 0",
            "springtide_tsg_unit_seconds_count{step=\"warm_up\"} 0",
            "springtide_tsg_switch_seconds_count 0",
            "springtide_tsg_units_total{result=\"done\"} 0",
            "springtide_tsg_units_total{result=\"skipped\"} 0",
            "springtide_tsg_units_total{result=\"interrupted\"} 0",
            "springtide_tsg_nudges_total 0",
            "springtide_tsg_saved{resource=\"cpu\"} 0.0",
            "springtide_tsg_saved{resource=\"memory\"} 0.0",
            "springtide_tsg_nodes_over_budget 0",
            "springtide_tsg_unpaired 0",
            "springtide_tsg_preflights_failed 0",
        ] {
            assert!(shows(&registry, line), "{line}");
        }
    }

    #[test]
    fn parts_of_a_switch_are_counted_by_what_they_are() {
        let (measures, registry, _writer) = registered();
        let took = SignedDuration::from_secs(3);
        measures.passed(&[(Stretch::Drain, took), (Stretch::Resize, took), (Stretch::Resize, -took)]);
        measures.nudged(2);
        for line in [
            "springtide_tsg_unit_seconds_sum{step=\"drain\"} 3.0",
            "springtide_tsg_unit_seconds_sum{step=\"resize\"} 3.0",
            "springtide_tsg_unit_seconds_count{step=\"resize\"} 2",
            "springtide_tsg_nudges_total 2",
        ] {
            assert!(shows(&registry, line), "{line}");
        }
    }

    #[test]
    fn a_switch_counts_once_when_it_ends() {
        let (measures, registry, _writer) = registered();
        let open = json!({"transition": {"id": 7, "units": {"total": 10, "done": 6}}});
        let ended = json!({"lastTransitions": last(7, 10, 1, "Succeeded")});
        measures.written(&open, &ended);
        measures.written(&ended, &ended);
        measures.written(&Value::Null, &open);
        let back = json!({"transition": {"id": 8}, "lastTransitions": last(7, 10, 1, "RolledBack")});
        measures.written(&open, &back);
        for line in [
            "springtide_tsg_switch_seconds_count 2",
            "springtide_tsg_switch_seconds_sum 276.0",
            // Nine of the one, and those of the other that were done when it went wrong.
            "springtide_tsg_units_total{result=\"done\"} 15",
            "springtide_tsg_units_total{result=\"skipped\"} 2",
            "springtide_tsg_units_total{result=\"interrupted\"} 3",
        ] {
            assert!(shows(&registry, line), "{line}");
        }
    }

    #[test]
    fn what_statuses_say_is_added_up() {
        let (_measures, registry, mut writer) = registered();
        let stored = |name: &str, cpu: &str, over: u32, passed: &str| {
            let amounts = json!({"cpu": cpu, "memory": "1Gi"});
            let whole = group(json!({
                "metadata": {"name": name, "uid": name},
                "status": {
                    "union": {"nodes": 4, "nodesOverBudget": over, "budget": amounts, "sumOfPeaks": amounts, "saved": amounts},
                    "members": [{"name": "pay", "unpaired": 3}, {"name": "promo", "unpaired": 1}],
                    "conditions": [{
                        "type": "PreflightPassed", "status": passed, "reason": "QuotaExceeded", "message": "",
                        "observedGeneration": 1, "lastTransitionTime": at(0).to_string(),
                    }],
                },
            }));
            Arc::unwrap_or_clone(whole)
        };
        writer.apply(stored("a", "40k", 2, "False"));
        writer.apply(stored("b", "500m", 0, "True"));
        for line in [
            "springtide_tsg_saved{resource=\"cpu\"} 40000.5",
            "springtide_tsg_saved{resource=\"memory\"} 2147483648.0",
            "springtide_tsg_nodes_over_budget 2",
            "springtide_tsg_unpaired 8",
            "springtide_tsg_preflights_failed 1",
        ] {
            assert!(shows(&registry, line), "{line}");
        }
    }
}
