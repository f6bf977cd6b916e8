use super::*;
use serde_json::json;

fn list(value: serde_json::Value) -> ResourceList {
    serde_json::from_value(value).unwrap()
}

fn spec(yaml: &str) -> PodSpecRequests {
    serde_yaml::from_str(yaml).unwrap()
}

#[test]
fn what_is_no_quantity_counts_as_nothing() {
    for text in ["", "-1", "1 Gi", "one"] {
        assert_eq!(list(json!({ "memory": text, "cpu": "1" })), list(json!({"cpu": "1"})), "{text}");
    }
    assert_eq!(
        list(json!({"cpu": 2, "memory": 1.5, "nvidia.com/gpu": -1})),
        list(json!({"cpu": "2", "memory": "2"}))
    );
}

#[test]
fn amounts_add_and_come_off_exactly() {
    let mut sum = list(json!({"cpu": "1", "b/x": "2"}));
    let before = sum.clone();
    let more = list(json!({"memory": "1Gi", "a/y": "1", "b/x": "3", "pods": 1}));
    sum.add(&more);
    assert_eq!(sum, list(json!({"cpu": "1", "memory": "1Gi", "pods": "1", "a/y": "1", "b/x": "5"})));
    sum.subtract(&more);
    assert_eq!(sum, before);
    sum.subtract(&more);
    assert_eq!(sum.get("b/x"), -1);
    assert_eq!(sum.get("a/y"), -1);
}

#[test]
fn whole_pods_fit_by_the_scarcest_resource() {
    let node = list(json!({"cpu": "4", "memory": "8Gi", "pods": "10", "gpu.io/a": "3"}));
    let used = list(json!({"cpu": "500m", "pods": "8"}));
    let times = |pod: serde_json::Value| list(pod).times_within(&node, &used);
    assert_eq!(times(json!({"cpu": "1"})), 3);
    assert_eq!(times(json!({"cpu": "100m", "pods": "1"})), 2);
    assert_eq!(times(json!({"memory": "3Gi"})), 2);
    assert_eq!(times(json!({"gpu.io/a": "2"})), 1);
    assert_eq!(times(json!({"gpu.io/b": "1"})), 0);
    assert_eq!(times(json!({"ephemeral-storage": "1"})), 0);
    assert_eq!(times(json!({})), u32::MAX);
    let over = list(json!({"cpu": "5"}));
    assert_eq!(list(json!({"cpu": "1"})).times_within(&node, &over), 0);
    assert_eq!(list(json!({"memory": "8Gi"})).times_within(&node, &over), 1);
}

#[test]
fn init_containers_and_sidecars_count_as_the_sidecar_kep_says() {
    // https://github.com/kubernetes/enhancements/tree/master/keps/sig-node/753-sidecar-containers
    let pod = spec(
        "containers: [{name: a, resources: {requests: {cpu: 1, memory: 1Gi}}}, {name: b, resources: {requests: {cpu: 500m}}}]
initContainers:
- {name: first, resources: {requests: {cpu: 3}}}
- {name: sidecar, restartPolicy: Always, resources: {requests: {cpu: 1, memory: 1Gi}}}
- {name: last, resources: {requests: {cpu: 1, memory: 4Gi}}}
overhead: {cpu: 10m, memory: 1Mi}",
    );
    // cpu: first alone needs 3, containers + sidecar 2500m; memory: last beside the sidecar.
    let expected = list(json!({"cpu": "3010m", "memory": "5121Mi", "pods": "1"}));
    assert_eq!(pod.of_template(), expected);
    assert_eq!(pod.of_pod(&PodStatusRequests::default()), expected);
}

#[test]
fn a_template_requests_its_limits_where_it_requests_nothing() {
    let pod = spec("containers: [{name: a, resources: {requests: {cpu: 1}, limits: {cpu: 2, memory: 1Gi}}}]");
    assert_eq!(pod.of_template(), list(json!({"cpu": "1", "memory": "1Gi", "pods": "1"})));
    let pod = spec(
        "containers: [{name: a, resources: {requests: {cpu: 1}}}, {name: b}]
resources: {limits: {cpu: 4, memory: 2Gi}}",
    );
    assert_eq!(pod.of_template(), list(json!({"cpu": "1", "memory": "2Gi", "pods": "1"})));
    let pod = spec(
        "containers: [{name: a, resources: {requests: {cpu: 1, x.io/d: 1, ephemeral-storage: 1Ki}}}]
resources: {requests: {cpu: 3, ephemeral-storage: 2Ki}}",
    );
    assert_eq!(
        pod.of_template(),
        list(json!({"cpu": "3", "ephemeral-storage": "1Ki", "x.io/d": "1", "pods": "1"})),
        "pod-level requests replace cpu, memory and huge pages alone"
    );
}

#[test]
fn a_resize_holds_the_highest_of_asked_admitted_and_in_force() {
    let pod = spec(
        "containers: [{name: a, resources: {requests: {cpu: 1}}}, {name: b, resources: {requests: {cpu: 1}}}]",
    );
    let status = |allocated: &str, in_force: &str, is_resize_infeasible| PodStatusRequests {
        containers: vec![ContainerStatusRequests {
            name: "a".into(),
            allocated_resources: Some(list(json!({ "cpu": allocated }))),
            resources: Resources { requests: Some(list(json!({ "cpu": in_force }))), limits: None },
        }],
        is_resize_infeasible,
        ..PodStatusRequests::default()
    };
    let cpu = |status| pod.of_pod(&status).cpu;
    assert_eq!(cpu(status("1", "3", false)), 4000, "shrinking: what is in force counts until it is not");
    assert_eq!(cpu(status("2", "1", false)), 3000, "growing: what is admitted counts at once");
    assert_eq!(cpu(status("500m", "500m", false)), 2000, "deferred: what is asked for counts");
    assert_eq!(cpu(status("500m", "500m", true)), 500, "infeasible: what is asked for does not count");
}

#[test]
fn a_pod_level_resize_counts_from_the_status_of_the_pod() {
    let pod =
        spec("{containers: [{name: a, resources: {requests: {cpu: 1}}}], resources: {requests: {cpu: 2}}}");
    let status = PodStatusRequests {
        allocated_resources: Some(list(json!({"cpu": "5"}))),
        resources: Resources { requests: Some(list(json!({"cpu": "3"}))), limits: None },
        ..PodStatusRequests::default()
    };
    assert_eq!(pod.of_pod(&status).cpu, 5000);
    assert_eq!(pod.of_pod(&PodStatusRequests::default()).cpu, 2000);
}

#[test]
fn a_batch_pod_without_requests_is_charged_what_the_scheduler_assumes() {
    let charged = spec("containers: [{name: a}]").of_template().charged();
    assert_eq!(charged, list(json!({"cpu": "100m", "memory": "200Mi", "pods": "1"})));
    assert_eq!(
        spec("containers: [{name: a, resources: {requests: {cpu: 1m, memory: 1Ki}}}]")
            .of_template()
            .charged()
            .cpu,
        1
    );
}
