//! What a newcomer applies as it is: each object finds what it is about, in the state that it needs.

// Helpers of tests fail the test, as tests do.
#![allow(clippy::unwrap_used)]

use serde_json::{Value, json};
use springtide_crds::in_place_upgrade::InPlaceUpgrade;
use springtide_crds::samples::{Quickstart, quickstarts};
use springtide_crds::time_share_group::{Mode, TimeShareGroup, TrafficMode};

fn quickstart(file: &str) -> Quickstart {
    quickstarts().into_iter().find(|start| start.file == file).unwrap()
}

fn object<'a>(start: &'a Quickstart, kind: &str, name: &str) -> &'a Value {
    let is_it = |object: &&Value| object["kind"] == kind && object["metadata"]["name"] == name;
    start.objects.iter().find(is_it).unwrap_or_else(|| panic!("{}: no {kind} {name}", start.file))
}

/// The label by which a Service picks those of a workload's pods that have traffic: its value there, and what the Service
/// asks for. It is no part of the selector of the workload, which would make pods anew that lose it.
fn serving(start: &Quickstart, workload: &Value, label: &str) -> (Value, Value) {
    let template = &workload["spec"]["template"];
    assert_eq!(workload["spec"]["selector"]["matchLabels"][label], Value::Null);
    let service = object(start, "Service", workload["metadata"]["name"].as_str().unwrap());
    let app = &service["spec"]["selector"]["app"];
    assert_eq!(
        (app, app),
        (&template["metadata"]["labels"]["app"], &workload["spec"]["selector"]["matchLabels"]["app"])
    );
    let port = &template["spec"]["containers"][0]["readinessProbe"]["httpGet"]["port"];
    assert_eq!(&service["spec"]["ports"][0]["targetPort"], port);
    (template["metadata"]["labels"][label].clone(), service["spec"]["selector"][label].clone())
}

#[test]
fn each_file_ends_in_the_object_that_it_is_named_for() {
    for start in quickstarts() {
        let last = start.objects.last().unwrap();
        assert_eq!(last["kind"].as_str().unwrap().to_lowercase(), start.file);
        assert!(start.doc[0].contains("Becomes Ready"), "{}", start.doc[0]);
        for object in &start.objects {
            assert_eq!(object["metadata"]["namespace"], Value::Null, "a newcomer's kubectl needs no flag");
        }
    }
}

#[test]
fn the_upgrade_finds_a_workload_that_is_locked_from_its_first_pod_on() {
    let start = quickstart("inplaceupgrade");
    let upgrade: InPlaceUpgrade = serde_json::from_value(start.objects.last().unwrap().clone()).unwrap();
    let target = &upgrade.spec.target_ref;
    let workload = object(&start, target.kind.as_str(), &target.name);
    // A Deployment that is paused before it was ever rolled out has no pods.
    let partition = &workload["spec"]["updateStrategy"]["rollingUpdate"]["partition"];
    assert!(partition.as_u64().unwrap() >= workload["spec"]["replicas"].as_u64().unwrap());
    let label = "springtide.dev/upgrade-serving";
    assert_eq!(serving(&start, workload, label), (json!("true"), json!("true")));
    assert!(upgrade.spec.health.metrics.is_empty(), "no address is allowed at first");
}

#[test]
fn the_group_finds_workloads_whose_pods_are_born_at_valley_size_and_without_traffic() {
    let start = quickstart("timesharegroup");
    let group: TimeShareGroup = serde_json::from_value(start.objects.last().unwrap().clone()).unwrap();
    let spec = &group.spec;
    assert_eq!(spec.mode, Mode::Active);
    assert!(spec.guards.metrics.is_empty() && spec.guards.donor_max_load.is_none());
    let default = spec.schedule.default_member.as_ref().unwrap();
    assert!(spec.members.iter().any(|member| member.name == *default), "somebody has the peak at once");
    for member in &spec.members {
        let workload = object(&start, member.target_ref.kind.as_str(), &member.target_ref.name);
        assert_eq!(member.traffic.mode, TrafficMode::ServiceLabel);
        let label = "springtide.dev/traffic-serving";
        assert_eq!(serving(&start, workload, label), (json!("false"), json!("true")));
        for container in &member.containers {
            let containers = workload["spec"]["template"]["spec"]["containers"].as_array().unwrap();
            let born = containers.iter().find(|born| born["name"] == *container.name).unwrap();
            let requests = &born["resources"]["requests"];
            for (name, amount) in json!(container.valley).as_object().unwrap() {
                assert_eq!(&requests[name], amount, "{}", member.name);
            }
        }
    }
}
