use super::*;
use crate::fixtures::{observed, overlay};
use crate::observed::{Backend, Route};
use proptest::prelude::*;
use serde_json::json;
use springtide_crds::time_share_group::{MESSAGE_MAX_BYTES, TimeShareGroupSpec};
use springtide_plumbing::key::{ObjectKey, ResourceVersion, Uid};
use springtide_plumbing::workloads::amounts::Pair;
use springtide_plumbing::workloads::template::Template;

/// The group with changes laid over its spec, and over the template of `pay`.
fn group(spec: Value, template: Value) -> Observed {
    let mut observed = observed(spec, &[]);
    let workload = observed.members[0].workload.as_mut().unwrap();
    let mut whole = workload.template.value();
    overlay(&mut whole, template);
    workload.template = Template::shared(&whole);
    observed
}

/// The same with changes laid over container `app` of `pay`.
fn of_app(container: Value, template: Value) -> Observed {
    let mut app = json!({"name": "app"});
    overlay(&mut app, container);
    group(json!({"members": [{"name": "pay", "containers": [app]}]}), template)
}

/// Changes of container `app` of a template.
fn app(container: Value) -> Value {
    let mut app = json!({"name": "app"});
    overlay(&mut app, container);
    json!({"spec": {"containers": [app]}})
}

fn problem(observed: &Observed) -> Option<InvalidSpec> {
    let problem = check(observed).err();
    if let Some(problem) = &problem {
        assert!(problem.message.len() <= MESSAGE_MAX_BYTES, "{problem}");
    }
    problem
}

fn field(observed: &Observed) -> Option<String> {
    problem(observed).map(|problem| problem.field)
}

const APP: &str = "spec.members[pay].containers[app]";

#[test]
fn a_group_whose_workloads_are_as_it_says_is_served() {
    assert_eq!(problem(&group(json!({}), json!({}))), None);
    let metric = |name: &str| json!({"name": name, "failureAbove": "0.1", "prometheus": {"address": "http://prom", "query": "x"}});
    let guards = json!({"guards": {"metrics": [metric("errors")], "donorMaxLoad": metric("qps")}});
    assert_eq!(problem(&group(guards, json!({}))), None);
}

#[test]
fn an_address_that_may_not_be_asked_is_refused_in_the_words_of_whoever_refuses_it() {
    let metric =
        json!({"name": "m", "failureAbove": "0.1", "prometheus": {"address": "http://other", "query": "x"}});
    for (guards, named) in [
        (json!({"metrics": [metric]}), "spec.guards.metrics[m].prometheus.address"),
        (json!({"donorMaxLoad": metric}), "spec.guards.donorMaxLoad.prometheus.address"),
    ] {
        let mut observed = group(json!({"guards": guards}), json!({}));
        assert_eq!(problem(&observed), None);
        observed.refused_addresses.insert("http://other".to_owned(), "it is not on the list".to_owned());
        let problem = problem(&observed).unwrap();
        assert_eq!(problem.to_string(), format!("{named}: it is not on the list"));
    }
}

#[test]
fn a_bound_that_is_no_number_is_refused() {
    let metric =
        json!({"name": "m", "failureBelow": "many", "prometheus": {"address": "http://a", "query": "x"}});
    let named = field(&group(json!({"guards": {"metrics": [metric]}}), json!({})));
    assert_eq!(named.as_deref(), Some("spec.guards.metrics[m].failureBelow"));
}

#[test]
fn a_label_that_switches_change_may_not_be_in_the_selector_of_a_workload() {
    let label = TIME_SHARE_TRAFFIC.label;
    for (selector, is_refused) in [
        (json!({"matchLabels": {"app": "pay", label: "true"}}), true),
        (json!({"matchExpressions": [{"key": label, "operator": "Exists"}]}), true),
        (json!({"matchExpressions": [{"key": "app", "operator": "Exists"}]}), false),
        (json!(null), false),
    ] {
        for mode in ["ServiceLabel", "ReadinessGate"] {
            let mut observed =
                group(json!({"members": [{"name": "pay", "traffic": {"mode": mode}}]}), gated());
            observed.members[0].workload.as_mut().unwrap().selector = selector.clone();
            let named = field(&observed);
            assert_eq!(named.as_deref() == Some("spec.members[pay].targetRef"), is_refused, "{selector}");
            assert_eq!(named.is_some(), is_refused, "{selector}");
        }
    }
}

/// A template that lists the gate.
fn gated() -> Value {
    json!({"spec": {"readinessGates": [{"conditionType": TIME_SHARE_TRAFFIC.gate}]}})
}

#[test]
fn what_traffic_is_turned_by_has_to_be_there() {
    let mode = |traffic: Value| json!({"members": [{"name": "pay", "traffic": traffic}]});
    let by_gate = || mode(json!({"mode": "ReadinessGate"}));
    assert_eq!(field(&group(by_gate(), json!({}))).as_deref(), Some("spec.members[pay].traffic.mode"));
    assert_eq!(field(&group(by_gate(), gated())), None);
    let by_route = json!({"mode": "HTTPRoute", "httpRoute": {"name": "front", "backend": "pay"}});
    let missing = problem(&group(mode(by_route.clone()), json!({}))).unwrap();
    assert_eq!(missing.to_string(), "spec.members[pay].traffic.httpRoute: there is no HTTPRoute shop/front");
    let both = json!({"members": [
        {"name": "pay", "traffic": by_route.clone()}, {"name": "promo", "traffic": by_route},
    ]});
    let mut contested = group(both, json!({}));
    for member in &mut contested.members {
        member.route = Some(Route {
            key: ObjectKey::new("shop", "front"),
            uid: Uid("front".into()),
            resource_version: ResourceVersion(1),
            backends: vec![Backend { rule: 0, backend: 0, name: "pay".into(), weight: 1, is_stated: false }],
            steady_since: None,
        });
    }
    assert_eq!(field(&contested).as_deref(), Some("spec.members"));
}

#[test]
fn a_container_has_to_be_in_the_template_and_to_run_beside_the_others() {
    let named = |list: &str, container: Value| {
        let template = json!({"spec": {list: [container]}});
        let containers = json!([{"name": "proxy", "peak": {"cpu": "1"}, "valley": {"cpu": "1"}}]);
        field(&group(json!({"members": [{"name": "pay", "containers": containers}]}), template))
    };
    let proxy = Some("spec.members[pay].containers[proxy]".to_owned());
    assert_eq!(named("containers", json!({"name": "other"})), proxy, "it is not there");
    assert_eq!(named("initContainers", json!({"name": "proxy"})), proxy, "it ends");
    assert_eq!(named("containers", json!({"name": "proxy"})), None);
    assert_eq!(named("initContainers", json!({"name": "proxy", "restartPolicy": "Always"})), None);
}

#[test]
fn a_container_that_a_switch_would_restart_is_refused() {
    let restarting = |resource: &str, memory: &str| {
        let policy = json!([{"resourceName": resource, "restartPolicy": "RestartContainer"}]);
        let peak = json!({"peak": {"cpu": "4", "memory": if memory == "Move" { "2Gi" } else { "1Gi" }}});
        let mut observed = of_app(peak, app(json!({"resizePolicy": policy})));
        let mut group = (*observed.group).clone();
        group.spec.members[0].memory = serde_json::from_value(json!(memory)).unwrap();
        observed.group = group.into();
        field(&observed)
    };
    assert_eq!(restarting("cpu", "Keep").as_deref(), Some(APP));
    assert_eq!(restarting("memory", "Move").as_deref(), Some(APP));
    assert_eq!(restarting("memory", "Keep"), None, "its memory stays");
    let other = json!([{"resourceName": "cpu", "restartPolicy": "NotRequired"}]);
    assert_eq!(field(&of_app(json!({}), app(json!({"resizePolicy": other})))), None);
    let same = json!({"peak": {"cpu": "200m"}});
    let policy = json!([{"resourceName": "cpu", "restartPolicy": "RestartContainer"}]);
    assert_eq!(field(&of_app(same, app(json!({"resizePolicy": policy})))), None, "nothing moves");
}

#[test]
fn a_peak_above_a_limit_that_is_kept_is_refused() {
    let limited = |policy: &str, limit: &str| {
        problem(&of_app(json!({"limits": policy}), app(json!({"resources": {"limits": {"cpu": limit}}}))))
    };
    let problem = limited("Keep", "2").unwrap();
    assert_eq!(problem.field, format!("{APP}.peak.cpu"));
    assert!(problem.message.contains("limit of 2,"), "{problem}");
    assert_eq!(limited("Keep", "5"), None);
    assert_eq!(limited("KeepRatio", "2"), None);
}

#[test]
fn sizes_of_another_class_of_service_are_refused() {
    let classes = |policy: &str, resources: Value| {
        problem(&of_app(json!({"limits": policy}), app(json!({"resources": resources}))))
    };
    let limits = |cpu: &str| json!({"limits": {"cpu": cpu, "memory": "1Gi"}});
    let at_peak = classes("Keep", limits("4")).unwrap();
    assert_eq!(at_peak.field, "spec.members[pay].containers");
    assert!(
        at_peak.message.starts_with("QoS class would be Guaranteed at peak and is Burstable"),
        "{at_peak}"
    );
    let born_otherwise = classes("EqualRequests", limits("400m")).unwrap();
    assert_eq!(born_otherwise.field, at_peak.field, "its pods are born Burstable");
    assert_eq!(classes("EqualRequests", limits("200m")), None);
    assert_eq!(classes("KeepRatio", limits("400m")), None);
    let mut whole = app(json!({"resources": limits("4")}));
    whole["spec"]["resources"] = json!({"limits": {"cpu": "8", "memory": "8Gi"}});
    assert_eq!(field(&of_app(json!({"limits": "Keep"}), whole)), None, "the pod as a whole decides");
}

#[test]
fn what_has_no_size_is_refused_by_its_field() {
    let named = field(&of_app(json!({"peak": {"cpu": "-4"}}), json!({})));
    assert_eq!(named, Some(format!("{APP}.peak.cpu")));
}

#[test]
fn nothing_is_said_of_a_workload_that_is_not_there() {
    let mut observed = of_app(json!({"limits": "Keep"}), app(json!({"resources": {"limits": {"cpu": "2"}}})));
    observed.members[0].workload = None;
    assert_eq!(problem(&observed), None);
}

fn amount() -> impl Strategy<Value = Option<i64>> {
    proptest::option::of(1..40_i64)
}

fn pair() -> impl Strategy<Value = Pair> {
    (amount(), amount()).prop_map(|(cpu, memory)| Pair {
        cpu: cpu.map(|cpu| 100 * cpu),
        memory: memory.map(|gibi| gibi << 30),
    })
}

proptest! {
    #[test]
    fn whoever_is_served_has_pods_of_one_class(
        requests in pair(), limits in pair(), peak in pair(), valley in pair(),
        policy in proptest::sample::select(vec!["EqualRequests", "KeepRatio", "Keep"]),
        memory in proptest::sample::select(vec!["Move", "Keep"]),
    ) {
        let own = Amounts { requests, limits };
        let members = json!([{
            "name": "pay", "memory": memory, "targetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "pay"},
            "containers": [{"name": "app", "peak": peak.to_json(), "valley": valley.to_json(), "limits": policy}],
        }]);
        let spec: TimeShareGroupSpec = serde_json::from_value(json!({"members": members})).unwrap();
        let template = json!({"spec": {"containers": [{"name": "app", "image": "app:1", "resources": own.to_json()}]}});
        let mut observed = group(json!({}), json!({}));
        observed.members.truncate(1);
        let mut group = (*observed.group).clone();
        group.spec = spec;
        observed.group = group.into();
        observed.members[0].workload.as_mut().unwrap().template = Template::shared(&template);
        // No panic, and a verdict that holds.
        if check(&observed).is_ok() {
            let spec = &observed.group.spec;
            let profile = &profiles::all(spec, &observed.members).unwrap()[0];
            for size in [&profile.peak, &profile.valley] {
                let resized = own.overlaid(size.scoped(widest(spec.members[0].memory)).of("app"));
                prop_assert_eq!(qos_class([&resized]), qos_class([&own]));
            }
        }
    }
}
