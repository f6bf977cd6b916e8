//! BatchQueue as the API server sees it.

// Helpers of tests fail the test, as tests do.
#![allow(clippy::unwrap_used)]

use serde_json::{Value, json};
use springtide_crds::batch_queue::{
    BatchQueue, BatchQueueSpec, BatchQueueStatus, CapacityType, Ordering, crd,
};
use springtide_crds::common::{Quantity, Tier};
use springtide_crds::schema::with_defaults;

fn schema(part: &str) -> Value {
    json!(crd())["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"][part].clone()
}

#[test]
fn the_defaults_of_rust_and_of_the_schema_are_the_same() {
    let mut stored = json!({});
    with_defaults(&mut stored, &schema("spec"));
    assert_eq!(stored, json!(BatchQueueSpec::new()));
    assert_eq!(serde_json::from_value::<BatchQueueSpec>(stored).unwrap(), BatchQueueSpec::new());
}

#[test]
fn a_sparse_object_reads_as_its_defaults_and_a_quantity_as_text_or_number() {
    let queue: BatchQueue = serde_json::from_value(json!({
        "apiVersion": "springtide.dev/v1alpha1", "kind": "BatchQueue", "metadata": {"name": "a"},
        "spec": {
            "quota": [{"resource": "cpu", "nominal": 2, "max": "3500m"}],
            "capacitySource": {"percent": 60},
            "ordering": "StrictFIFO",
        },
    }))
    .unwrap();
    let spec = &queue.spec;
    assert_eq!(
        (&spec.quota[0].nominal, spec.quota[0].max.as_ref()),
        (&Quantity::new("2"), Some(&Quantity::new("3500m")))
    );
    assert_eq!(
        (spec.capacity_source.type_, spec.capacity_source.percent),
        (CapacityType::NodeAllocatable, 60)
    );
    assert_eq!((spec.max_tier, spec.ordering, spec.weight), (Tier::Standard, Ordering::StrictFifo, 1));
    assert_eq!((spec.retention.history_limit, spec.max_queued_jobs), (400, 1000));
}

#[test]
fn the_status_nobody_wrote_reads_as_a_status() {
    let status: BatchQueueStatus = serde_json::from_value(schema("status")["default"].clone()).unwrap();
    let reasons: Vec<(&str, &str)> = status
        .conditions
        .iter()
        .map(|condition| (condition.type_.as_str(), condition.reason.as_str()))
        .collect();
    assert_eq!(reasons, [("Ready", "Pending"), ("Reconciling", "Pending")]);
}

#[test]
fn maps_are_bounded_and_a_quantity_is_a_text_or_a_number() {
    let spec = schema("spec");
    let tier = &spec["properties"]["tiers"]["items"]["properties"];
    assert_eq!(tier["podLabels"]["maxProperties"], 16);
    assert_eq!(tier["resourceNames"]["additionalProperties"]["maxLength"], 48);
    let max = &spec["properties"]["quota"]["items"]["properties"]["max"];
    assert_eq!((&max["x-kubernetes-int-or-string"], &max["maxLength"]), (&json!(true), &json!(22)));
    let text = json!(crd()).to_string();
    assert!(!text.contains("nullable") && !text.contains("uint"));
}
