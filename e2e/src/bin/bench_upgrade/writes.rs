//! I1: writes a pod, counted by the audit log of a cluster of their own: never in a timed run.

use anyhow::{Result, ensure};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use springtide_crds::common::IntOrPercent;
use springtide_e2e::bench::stats::mean;
use springtide_e2e::upgrade::cost::{GATED, PLAIN, RESIZED, writes_by_pod};
use springtide_e2e::upgrade::workload::CONTAINER;
use springtide_e2e::upgrade::{self, Signal, Testbed, Workload, image, native};

/// Pods of each row.
pub(crate) const PODS: u32 = 200;
/// Name of a workload and of its upgrade.
const WEB: &str = "web";

/// A row of writes.
#[derive(Serialize, Deserialize)]
pub(crate) struct Writes {
    /// Which change of which pods.
    pub(crate) what: String,
    /// For identifiers.
    pub(crate) id: String,
    /// Writes of the manager a pod, on average.
    pub(crate) own: f64,
    /// The most of any pod.
    pub(crate) most: usize,
    /// What they are to be.
    pub(crate) due: usize,
    /// Writes of the manager on everything else of this run, all pods together: the workload, the upgrade.
    pub(crate) beside: usize,
    /// Writes of KWOK a pod, in the place of a kubelet.
    pub(crate) node: f64,
}

/// A change of a template, and what it costs.
struct Case {
    what: &'static str,
    id: &'static str,
    signal: Signal,
    change: Value,
    due: usize,
}

fn cases() -> [Case; 6] {
    let of_container = |fields: Value| json!({"spec": {"containers": [fields]}});
    let new_image = || of_container(json!({"name": CONTAINER, "image": image(2)}));
    let resources = || json!({"requests": {"cpu": "150m"}, "limits": {"cpu": "300m"}});
    let case = |what, id, signal, change, due| Case { what, id, signal, change, due };
    [
        case("an image, pods with the gate", "gated", Signal::Gate, new_image(), GATED.len()),
        case("an image, pods with the label", "label", Signal::Label, new_image(), GATED.len()),
        case("an image, pods without either", "plain", Signal::None, new_image(), PLAIN.len()),
        case(
            "an annotation",
            "metadata",
            Signal::Gate,
            json!({"metadata": {"annotations": {"config": "v2"}}}),
            PLAIN.len(),
        ),
        case(
            "cpu",
            "resize",
            Signal::Gate,
            of_container(json!({"name": CONTAINER, "resources": resources()})),
            RESIZED.len(),
        ),
        case(
            "an image and cpu, pods with the gate",
            "gated-and-resized",
            Signal::Gate,
            of_container(json!({"name": CONTAINER, "image": image(2), "resources": resources()})),
            GATED.len() + RESIZED.len(),
        ),
    ]
}

/// Counts them for each kind of change.
pub(crate) async fn per_pod() -> Result<Vec<Writes>> {
    let cluster = upgrade::cluster().await?;
    let manager = upgrade::manager(&cluster).await?;
    let mut rows = Vec::new();
    for Case { what, id, signal, change, due } in cases() {
        let test = Testbed::new(&cluster, id).await?;
        let web = Workload::deployment(WEB, PODS).signal(signal);
        let before = test.start_paused(&web).await?;
        test.patch(&web, json!({"spec": {"template": change}})).await?;
        let mark = test.mark()?;
        let mut spec = web.upgrade();
        spec.strategy.max_unavailable = IntOrPercent::ALL;
        test.upgrade(WEB, spec).await?;
        test.succeeded(WEB, "").await?;
        native::agrees(&test, &web).await?;
        test.pods.now().ensure_same(WEB, &before)?;
        test.verify()?;
        let requests = test.requests_since(mark)?;
        let by_pod = writes_by_pod(&requests);
        ensure!(by_pod.len() == PODS as usize, "{what}: {} of {PODS} pods were written", by_pod.len());
        let counts = || by_pod.values().map(Vec::len);
        let all = requests.writes();
        let row = Writes {
            what: what.to_owned(),
            id: id.to_owned(),
            own: mean(counts().map(|count| count as f64)),
            most: counts().max().unwrap_or_default(),
            due,
            beside: all.by_agent(springtide_e2e::manager::USER_AGENT).len() - counts().sum::<usize>(),
            node: all.by_agent("kwok").of_resource("pods").len() as f64 / f64::from(PODS),
        };
        eprintln!("      {what}: {:.2} writes a pod", row.own);
        rows.push(row);
        test.delete(WEB).await?;
        test.patch(&web, json!({"spec": {"paused": false, "replicas": 0}})).await?;
        test.ready(&web, 0).await?;
    }
    manager.stop()?;
    cluster.stop()?;
    Ok(rows)
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::api::core::v1::PodTemplateSpec;
    use std::collections::BTreeSet;

    #[test]
    fn each_case_is_a_change_of_a_template_with_a_cost_of_its_own() {
        let cases = cases();
        for Case { what, change, due, .. } in &cases {
            let template: PodTemplateSpec = serde_json::from_value(change.clone()).unwrap();
            assert!(template.spec.is_some() || template.metadata.is_some(), "{what}");
            assert!((1..=4).contains(due), "{what}");
        }
        let ids: BTreeSet<&str> = cases.iter().map(|case| case.id).collect();
        assert_eq!(ids.len(), cases.len());
    }
}
