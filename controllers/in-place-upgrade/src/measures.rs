//! What this controller measures of its own. No label names an object.

use crate::health::ends_run;
use crate::pod_times::{Passed, Stretch};
use crate::projections::upgrade::UpgradeView;
use jiff::SignedDuration;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;
use serde_json::Value;
use springtide_crds::in_place_upgrade::{HealthyReason, PlanCounts};
use springtide_crds::reason::Reason;
use springtide_plumbing::store::Store;
use std::fmt;

/// From a container that is there within a moment to one that takes its whole deadline.
const POD_SECONDS: [f64; 12] = [0.25, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 30.0, 60.0, 120.0, 300.0, 1800.0];
/// From an image that is almost there to a large one over a slow line.
const PRE_PULL_SECONDS: [f64; 11] = [1.0, 2.0, 5.0, 10.0, 20.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1800.0];

/// The metrics, all at zero at first.
#[derive(Debug)]
pub(crate) struct Measures {
    pod: Family<StepLabels, Histogram>,
    downtime: Histogram,
    pre_pull: Histogram,
    restarts: Counter,
    rollbacks: Counter,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct StepLabels {
    step: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct VerdictLabels {
    verdict: &'static str,
}

/// The step that a stretch is, in the label; that which a pod is down for goes over several of them.
fn step(stretch: Stretch) -> Option<&'static str> {
    match stretch {
        Stretch::Drain => Some("drain"),
        Stretch::Resize => Some("resize"),
        Stretch::Start => Some("start"),
        Stretch::Ready => Some("ready"),
        Stretch::Down => None,
    }
}

impl Default for Measures {
    fn default() -> Self {
        Self {
            pod: Family::new_with_constructor(|| Histogram::new(POD_SECONDS)),
            downtime: Histogram::new(POD_SECONDS),
            pre_pull: Histogram::new(PRE_PULL_SECONDS),
            restarts: Counter::default(),
            rollbacks: Counter::default(),
        }
    }
}

impl Measures {
    /// Makes them part of what is scraped, and what the statuses of these objects say of their pods.
    pub(crate) fn register(&self, registry: &mut Registry, upgrades: Store<UpgradeView>) {
        for stretch in Stretch::ALL {
            if let Some(step) = step(stretch) {
                drop(self.pod.get_or_create(&StepLabels { step }));
            }
        }
        registry.register(
            "springtide_ipu_pod_seconds",
            "Time that pods of InPlaceUpgrades took for a step: out of traffic, resized, started anew, back in traffic",
            self.pod.clone(),
        );
        registry.register(
            "springtide_ipu_pod_downtime_seconds",
            "Time that pods were not ready for an InPlaceUpgrade",
            self.downtime.clone(),
        );
        registry.register(
            "springtide_ipu_prepull_seconds",
            "Time from the creation of a pod that pulls images until its node had them",
            self.pre_pull.clone(),
        );
        registry.register(
            "springtide_ipu_restarts",
            "Containers that InPlaceUpgrades had replaced in their pods",
            self.restarts.clone(),
        );
        registry.register(
            "springtide_ipu_rollbacks",
            "Runs of InPlaceUpgrades that went wrong and were sent back",
            self.rollbacks.clone(),
        );
        registry.register_collector(Box::new(PodsByVerdict(upgrades)));
    }

    /// Something has come to its end on the ways of pods.
    pub(crate) fn passed(&self, passed: &Passed) {
        for (stretch, took) in &passed.stretches {
            match step(*stretch) {
                Some(step) => self.pod.get_or_create(&StepLabels { step }).observe(seconds(*took)),
                None => self.downtime.observe(seconds(*took)),
            }
        }
        self.restarts.inc_by(u64::try_from(passed.restarts).unwrap_or(u64::MAX));
    }

    /// A node has its images, so long after they were asked for.
    pub(crate) fn pulled(&self, took: SignedDuration) {
        self.pre_pull.observe(seconds(took));
    }

    /// A run goes back.
    pub(crate) fn rolled_back(&self) {
        self.rollbacks.inc();
    }
}

/// Whether an open run goes wrong by the status that takes the place of `stored`.
pub(crate) fn goes_wrong(stored: &Value, status: &Value) -> bool {
    let is_wrong = |status: &Value| {
        let mut conditions = status["conditions"].as_array().into_iter().flatten();
        let is_verdict = |reason: &Value| {
            let known = HealthyReason::all().into_iter().find(|known| *reason == known.as_str());
            known.is_some_and(ends_run)
        };
        conditions.any(|found| found["type"] == HealthyReason::CONDITION && is_verdict(&found["reason"]))
    };
    !status["previous"].is_null() && is_wrong(status) && !is_wrong(stored)
}

/// None where the clock was set back.
fn seconds(duration: SignedDuration) -> f64 {
    duration.as_secs_f64().max(0.0)
}

/// The pods of all objects by what is to be done to them, as the stored statuses say; added up at scrape time.
#[derive(Debug)]
struct PodsByVerdict(Store<UpgradeView>);

/// Pods with a verdict, in the label's words.
fn verdicts(plan: &PlanCounts) -> [(&'static str, u32); 7] {
    let PlanCounts { up_to_date, metadata, resize, in_place, restart, recreate, blocked, reasons: _ } = plan;
    [
        ("up_to_date", *up_to_date),
        ("metadata", *metadata),
        ("resize", *resize),
        ("in_place", *in_place),
        ("restart", *restart),
        ("recreate", *recreate),
        ("blocked", *blocked),
    ]
}

impl Collector for PodsByVerdict {
    fn encode(&self, mut encoder: DescriptorEncoder) -> fmt::Result {
        let mut sums = verdicts(&PlanCounts::default()).map(|(verdict, _)| (verdict, 0_i64));
        for upgrade in self.0.list(None) {
            for ((_, sum), (_, pods)) in sums.iter_mut().zip(verdicts(&upgrade.status.plan)) {
                *sum = sum.saturating_add(pods.into());
            }
        }
        let help = "Pods of InPlaceUpgrades by what is to be done to them, as their statuses say";
        let mut family = encoder.encode_descriptor("springtide_ipu_pods", help, None, MetricType::Gauge)?;
        for (verdict, pods) in sums {
            family.encode_family(&VerdictLabels { verdict })?.encode_gauge(&pods)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use prometheus_client::encoding::text::encode;
    use serde_json::json;
    use springtide_plumbing::store::StoreWriter;

    fn registered() -> (Measures, Registry, StoreWriter<UpgradeView>) {
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

    #[test]
    fn every_series_is_there_before_anything_happens() {
        let (_measures, registry, _writer) = registered();
        for step in ["drain", "resize", "start", "ready"] {
            assert!(
                shows(&registry, &format!("springtide_ipu_pod_seconds_count{{step=\"{step}\"}} 0")),
                "{step}"
            );
        }
        for verdict in ["up_to_date", "metadata", "resize", "in_place", "restart", "recreate", "blocked"] {
            assert!(
                shows(&registry, &format!("springtide_ipu_pods{{verdict=\"{verdict}\"}} 0")),
                "{verdict}"
            );
        }
        for name in
            ["pod_downtime_seconds_count", "prepull_seconds_count", "restarts_total", "rollbacks_total"]
        {
            assert!(shows(&registry, &format!("springtide_ipu_{name} 0")), "{name}");
        }
    }

    #[test]
    fn what_has_passed_is_counted_by_its_step_and_downtime_for_itself() {
        let (measures, registry, _writer) = registered();
        let took = SignedDuration::from_secs(3);
        let stretches = vec![(Stretch::Drain, took), (Stretch::Down, took), (Stretch::Ready, -took)];
        measures.passed(&Passed { stretches, restarts: 2 });
        measures.pulled(took);
        measures.rolled_back();
        for line in [
            "springtide_ipu_pod_seconds_sum{step=\"drain\"} 3.0",
            "springtide_ipu_pod_seconds_sum{step=\"ready\"} 0.0",
            "springtide_ipu_pod_seconds_count{step=\"ready\"} 1",
            "springtide_ipu_pod_downtime_seconds_sum 3.0",
            "springtide_ipu_prepull_seconds_sum 3.0",
            "springtide_ipu_restarts_total 2",
            "springtide_ipu_rollbacks_total 1",
        ] {
            assert!(shows(&registry, line), "{line}");
        }
    }

    #[test]
    fn a_run_goes_wrong_once_and_only_while_it_is_open() {
        let status = |reason: HealthyReason, previous: Value| json!({"previous": previous, "conditions": [{"type": "Healthy", "reason": reason.as_str()}]});
        let open = || json!({"revision": "web-1"});
        let (well, wrong) = (HealthyReason::GatesPassing, HealthyReason::TooManyFailures);
        assert!(goes_wrong(&status(well, open()), &status(wrong, open())));
        assert!(goes_wrong(&Value::Null, &status(wrong, open())));
        assert!(!goes_wrong(&status(wrong, open()), &status(wrong, open())), "it has before");
        assert!(!goes_wrong(&status(well, open()), &status(well, open())));
        assert!(!goes_wrong(&status(well, Value::Null), &status(wrong, Value::Null)));
        let denied = HealthyReason::AdmissionDenied;
        assert!(
            !goes_wrong(&status(well, open()), &status(denied, open())),
            "it stands, and does not go back"
        );
    }

    #[test]
    fn the_pods_of_all_objects_are_added_up() {
        let (_measures, registry, mut writer) = registered();
        let upgrade = |name: &str, plan: Value| {
            let target = json!({"apiVersion": "apps/v1", "kind": "Deployment", "name": name});
            let whole = json!({
                "metadata": {"name": name, "namespace": "ns", "uid": name, "resourceVersion": "1"},
                "spec": {"targetRef": target}, "status": {"plan": plan},
            });
            serde_json::from_value::<UpgradeView>(whole).unwrap()
        };
        writer.apply(upgrade("a", json!({"inPlace": 3, "blocked": 1})));
        writer.apply(upgrade("b", json!({"inPlace": 4})));
        for line in [
            "springtide_ipu_pods{verdict=\"in_place\"} 7",
            "springtide_ipu_pods{verdict=\"blocked\"} 1",
            "springtide_ipu_pods{verdict=\"restart\"} 0",
        ] {
            assert!(shows(&registry, line), "{line}");
        }
    }
}
