use super::*;
use crate::fixtures::{at, group, on_stage, overlay, pod, sized, switching};
use crate::observed::{Backend, Refused};
use crate::watches::rig::{Rig, bare, deployment, owned_by, put, replica_set};
use serde_json::{Value, json};
use springtide_plumbing::done_rule::{Base, Record};
use springtide_plumbing::metric_query::{MetricQueries, MetricVerdict, QuerySettings};

/// Stores with the group and its workloads, each with a ReplicaSet.
fn rig(over: Value) -> Rig {
    let mut rig = Rig::new();
    put(&mut rig.groups, &group(over));
    for member in ["pay", "promo"] {
        put(&mut rig.deployments, &deployment(member, json!({})));
        put(&mut rig.replica_sets, &replica_set(&format!("{member}-1"), Some(member)));
    }
    rig
}

fn reconciler(rig: &Rig) -> Arc<TimeShareGroupReconciler> {
    TimeShareGroupReconciler::new(rig.stores.clone(), None)
}

fn gather(rig: &Rig) -> Observed {
    reconciler(rig).gather(&ObjectKey::new("shop", "double11"), None, at(0)).unwrap()
}

fn names(member: &Member) -> Vec<&str> {
    member.pods.iter().map(|found| &*found.pod.meta().key.name).collect()
}

#[test]
fn members_have_their_workloads_and_live_pods_in_the_order_of_the_spec() {
    let mut rig = rig(json!({}));
    put(&mut rig.pods, &pod("promo-1", "n1", json!({})));
    put(&mut rig.pods, &pod("pay-2", "n1", json!({})));
    put(&mut rig.pods, &pod("pay-1", "n1", json!({})));
    put(&mut rig.pods, &pod("pay-3", "n1", json!({"metadata": {"deletionTimestamp": at(0).to_string()}})));
    let observed = gather(&rig);
    let members: Vec<_> = observed.members.iter().map(|member| (&*member.name, names(member))).collect();
    assert_eq!(members, [("pay", vec!["pay-1", "pay-2"]), ("promo", vec!["promo-1"])]);
    let workload = observed.members[0].workload.as_ref().unwrap();
    assert_eq!((workload.key.to_string().as_str(), workload.replicas), ("shop/pay", 1));
    assert!(observed.members.iter().all(Member::is_ours) && observed.removed.is_empty());
    assert!(observed.calendar.is_ok() && observed.excess.is_none());
}

#[test]
fn a_workload_that_is_not_there_is_missing_since_the_first_look() {
    let mut rig = rig(json!({"spec": {"members": [{"name": "pay", "targetRef": {"name": "till"}}]}}));
    let reconciler = reconciler(&rig);
    let key = ObjectKey::new("shop", "double11");
    let since = |now| reconciler.gather(&key, None, at(now)).unwrap().members[0].missing_since;
    assert_eq!((since(0), since(30)), (Some(at(0)), Some(at(0))));
    put(&mut rig.deployments, &deployment("till", json!({})));
    assert_eq!(since(60), None);
}

#[test]
fn nothing_is_known_of_a_workload_of_another_namespace_without_a_grant() {
    let mut rig = rig(json!({"spec": {"members": [{"name": "pay", "targetRef": {"namespace": "bank"}}]}}));
    put(&mut rig.deployments, &deployment("pay", json!({"metadata": {"namespace": "bank"}})));
    let member = &gather(&rig).members[0];
    assert!(!member.is_granted && member.workload.is_none() && member.missing_since.is_none());
    assert_eq!(&*member.namespace, "bank");
    let spec =
        json!({"from": [{"kind": "TimeShareGroup", "namespace": "shop"}], "to": [{"kind": "Deployment"}]});
    put(&mut rig.grants, &bare("bank", "grant", json!({"spec": spec})));
    assert!(gather(&rig).members[0].is_ours());
}

#[test]
fn the_pods_of_a_workload_that_an_older_group_has_are_left_to_it() {
    let mut rig = rig(json!({}));
    let older = json!({
        "metadata": {"name": "older", "uid": "older", "creationTimestamp": at(-9000).to_string()},
        "spec": {"members": [{"name": "promo", "targetRef": {"name": "games"}}]},
    });
    put(&mut rig.groups, &group(older));
    put(&mut rig.pods, &pod("pay-1", "n1", json!({})));
    let observed = gather(&rig);
    let taken = observed.members[0].taken_by.as_ref().map(ToString::to_string);
    assert_eq!((taken.as_deref(), observed.members[0].pods.len()), (Some("shop/older"), 0));
    assert!(observed.members[0].workload.is_some() && observed.members[1].is_ours());
}

#[test]
fn a_member_that_is_no_more_is_found_by_the_uid_that_the_status_has() {
    let told =
        |uid: &str| json!({"status": {"members": [{"name": "games", "workloadUid": uid}, {"name": "old"}]}});
    let mut rig = rig(told("games"));
    put(&mut rig.deployments, &deployment("games", json!({})));
    put(&mut rig.replica_sets, &replica_set("games-1", Some("games")));
    put(&mut rig.pods, &pod("games-1", "n1", json!({})));
    let removed = &gather(&rig).removed;
    assert_eq!((&*removed[0].name, names(&removed[0]), removed.len()), ("games", vec!["games-1"], 1));
    let theirs = json!({
        "metadata": {"name": "other", "uid": "other"},
        "spec": {"members": [{"name": "pay", "targetRef": {"name": "games"}}]},
    });
    put(&mut rig.groups, &group(theirs));
    assert!(gather(&rig).removed.is_empty(), "another group has it");
}

#[test]
fn a_node_has_the_room_that_pods_of_no_member_take() {
    let mut rig = rig(json!({}));
    let allocatable = json!({"status": {"allocatable": {"cpu": "8", "memory": "16Gi"}}});
    put(&mut rig.nodes, &bare("", "n1", allocatable.clone()));
    put(&mut rig.nodes, &bare("", "n2", allocatable));
    put(&mut rig.pods, &pod("pay-1", "n1", on_stage()));
    put(&mut rig.pods, &pod("pay-2", "n3", json!({})));
    let other = |name: &str, over: Value| {
        let mut whole = owned_by(name, "Job", "night");
        overlay(&mut whole, over);
        pod(name, "n1", whole)
    };
    put(&mut rig.pods, &other("night-1", json!({})));
    put(&mut rig.pods, &other("night-2", json!({"metadata": {"deletionTimestamp": at(0).to_string()}})));
    put(&mut rig.pods, &other("night-3", json!({"status": {"phase": "Succeeded"}})));
    put(&mut rig.pods, &pod("pay-3", "n1", json!({"metadata": {"deletionTimestamp": at(0).to_string()}})));
    let nodes = gather(&rig).nodes;
    assert_eq!(
        nodes.keys().map(|name| &**name).collect::<Vec<_>>(),
        ["n1"],
        "others are of no interest or not there"
    );
    let gib = 1 << 30;
    let expected = Node {
        allocatable: Demand { cpu: 8000, memory: 16 * gib },
        others: Demand { cpu: 600, memory: 3 * gib },
    };
    assert_eq!(nodes["n1"], expected, "what is being deleted takes room until it has ended");
}

#[test]
fn services_are_known_by_whether_our_label_keeps_pods_from_them() {
    let mut rig = rig(json!({}));
    let label = TIME_SHARE_TRAFFIC.label;
    for (name, selector) in [
        ("by-label", json!({"app": "pay", label: "true"})),
        ("regardless", json!({"app": "pay"})),
        ("of-idle-pods", json!({"app": "pay", label: "false"})),
        ("of-others", json!({"app": "promo", label: "true"})),
        ("by-hand", json!({})),
    ] {
        put(&mut rig.services, &bare("shop", name, json!({"spec": {"selector": selector}})));
    }
    let observed = gather(&rig);
    let found: Vec<_> = observed.members[0].services.iter().map(|(name, how)| (&**name, *how)).collect();
    assert_eq!(found, [("by-label", Selects::ByLabel), ("regardless", Selects::Regardless)]);
}

#[test]
fn autoscalers_and_quotas_that_have_a_say_are_named() {
    let mut rig = rig(json!({}));
    let target = json!({"apiVersion": "apps/v1", "kind": "Deployment", "name": "pay"});
    let by = |type_: &str| {
        let resource = json!({"name": "cpu", "target": {"type": type_}});
        json!({"spec": {"scaleTargetRef": target, "metrics": [{"type": "Resource", "resource": resource}]}})
    };
    put(&mut rig.horizontal, &bare("shop", "by-value", by("AverageValue")));
    put(&mut rig.horizontal, &bare("shop", "by-utilization", by("Utilization")));
    let vertical = |mode: &str| json!({"spec": {"targetRef": target, "updatePolicy": {"updateMode": mode}}});
    put(&mut rig.vertical, &bare("shop", "advice", vertical("Off")));
    put(&mut rig.vertical, &bare("shop", "resizer", vertical("InPlaceOrRecreate")));
    let status = |resource: &str| json!({"status": {"hard": {resource: "10"}, "used": {resource: "4"}}});
    put(&mut rig.quotas, &bare("shop", "cpu", status("requests.cpu")));
    put(&mut rig.quotas, &bare("shop", "objects", status("pods")));
    put(&mut rig.quotas, &bare("other", "cpu", status("requests.cpu")));
    let observed = gather(&rig);
    let (pay, promo) = (&observed.members[0], &observed.members[1]);
    let by_utilization: Vec<_> = pay.autoscalers.by_utilization.iter().map(|name| &**name).collect();
    assert_eq!(by_utilization, ["by-utilization"]);
    assert_eq!(pay.autoscalers.vertical.as_deref(), Some("resizer"));
    assert_eq!(promo.autoscalers, Autoscalers::default());
    let free: Vec<_> = promo.quotas.iter().map(|quota| (&*quota.name, quota.requests_cpu)).collect();
    assert_eq!(free, [("cpu", Some(6000))]);
}

#[test]
fn the_weights_of_a_route_are_steady_since_they_were_first_seen() {
    let traffic = json!({"mode": "HTTPRoute", "httpRoute": {"name": "front", "backend": "pay"}});
    let mut rig = rig(json!({"spec": {"members": [{"name": "pay", "traffic": traffic}]}}));
    let route = |number: u32, weight: u32| {
        let rules = json!([{"backendRefs": [{"name": "pay", "weight": weight}, {"name": "promo", "weight": number}]}]);
        bare(
            "shop",
            "front",
            json!({"metadata": {"resourceVersion": number.to_string()}, "spec": {"rules": rules}}),
        )
    };
    put(&mut rig.routes, &route(1, 5));
    let reconciler = reconciler(&rig);
    let key = ObjectKey::new("shop", "double11");
    let seen = |now| reconciler.gather(&key, None, at(now)).unwrap().members[0].route.clone().unwrap();
    let backend = |weight| Backend { rule: 0, backend: 0, name: "pay".into(), weight, is_stated: true };
    assert_eq!((seen(0).backends, seen(0).steady_since), (vec![backend(5)], Some(at(0))));
    put(&mut rig.routes, &route(2, 5));
    assert_eq!(seen(10).steady_since, Some(at(0)), "another backend's weight");
    put(&mut rig.routes, &route(3, 6));
    assert_eq!((seen(20).backends, seen(20).steady_since), (vec![backend(6)], Some(at(20))));
}

#[test]
fn who_sends_traffic_is_looked_for_while_a_pod_is_turned_off_and_has_not_shrunk() {
    let mut rig = rig(json!({}));
    let off = |size: &str| {
        let note = format!("run=3,since={}", at(-10));
        let mut over = sized(size, size);
        overlay(&mut over, json!({"metadata": {"annotations": {"springtide.dev/traffic-drain": note}}}));
        over
    };
    put(&mut rig.pods, &pod("pay-1", "n1", off("4")));
    put(&mut rig.pods, &pod("pay-2", "n1", off("200m")));
    let endpoints = |ready: &[&str]| -> Value {
        ready.iter().map(|pod| json!({"targetRef": {"kind": "Pod", "name": pod, "uid": pod}})).collect()
    };
    let slice = |number: u32, ready: &[&str]| {
        let labels = json!({"kubernetes.io/service-name": "pay"});
        let metadata = json!({"resourceVersion": number.to_string(), "labels": labels});
        bare("shop", "pay-slice", json!({"metadata": metadata, "endpoints": endpoints(ready)}))
    };
    put(&mut rig.slices, &slice(1, &["pay-1", "pay-2"]));
    let reconciler = reconciler(&rig);
    let key = ObjectKey::new("shop", "double11");
    let evidence = |now| {
        let observed = reconciler.gather(&key, None, at(now)).unwrap();
        observed.members[0].pods.iter().map(|found| found.evidence.clone()).collect::<Vec<_>>()
    };
    let found = evidence(0);
    assert_eq!(found[0].exposure.listed_by.iter().map(|name| &**name).collect::<Vec<_>>(), ["pay"]);
    assert_eq!((found[0].proved_since, found[1].exposure.is_clear()), (None, true));
    put(&mut rig.slices, &slice(2, &["pay-2"]));
    assert_eq!((evidence(5)[0].proved_since, evidence(9)[0].proved_since), (Some(at(5)), Some(at(5))));
    let mut shrunk = off("200m");
    overlay(&mut shrunk, json!({"metadata": {"resourceVersion": "11"}}));
    put(&mut rig.pods, &pod("pay-1", "n1", shrunk));
    assert_eq!(evidence(12)[0].proved_since, Some(at(5)), "what was proved stays so");
}

#[test]
fn a_pod_that_an_upgrade_has_closed_or_not_finished_is_upgrading() {
    let record = |of: &str| json!({"metadata": {"annotations": {"springtide.dev/in-place-upgrade": of}}});
    let upgrading = |over: Value| is_upgrading(&pod("pay-1", "n1", over), at(0));
    assert!(!upgrading(json!({})));
    let closed = json!({"status": {"conditions": [
        {"type": "springtide.dev/upgrade-ready", "status": "False", "message": "run=7c9f21ab04de"},
    ]}});
    assert!(upgrading(closed));
    let begun = |generation: i64, id: &str| {
        let record = Record {
            run: "7c9f21ab04de".into(),
            at: at(-60),
            generation,
            base: [("app".into(), Base::of(id, "reg/app@sha256:1"))].into(),
            restarted: None,
            renamed: BTreeSet::new(),
            added: BTreeSet::new(),
        };
        record.encode().unwrap()
    };
    assert!(upgrading(record(&begun(1, "containerd://0"))), "the kubelet has not seen it");
    assert!(upgrading(record(&begun(0, "containerd://1"))), "the old container still runs");
    assert!(!upgrading(record(&begun(0, "containerd://0"))), "another container runs");
    assert!(!upgrading(record("no record")));
}

#[test]
fn the_oldest_groups_are_served_and_those_that_are_not_take_no_pods_from_others() {
    let mut rig = rig(json!({}));
    put(&mut rig.pods, &pod("pay-1", "n1", json!({})));
    let older = |name: &str, namespace: &str, over: Value| {
        let mut whole = json!({"metadata": {
            "name": name, "uid": name, "namespace": namespace, "creationTimestamp": at(-9000).to_string(),
        }});
        overlay(&mut whole, over);
        group(whole)
    };
    let pods =
        json!({"status": {"members": [{"name": "pay", "pods": 30_000}, {"name": "promo", "pods": 20_000}]}});
    let mut unserved = pods.clone();
    overlay(
        &mut unserved,
        json!({"status": {"conditions": [{
            "type": "Accepted", "status": "False", "reason": "LimitExceeded", "message": "", "observedGeneration": 1,
            "lastTransitionTime": at(-60).to_string(),
        }]}}),
    );
    put(&mut rig.groups, &older("unserved", "a", unserved));
    assert_eq!(gather(&rig).excess, None);
    put(&mut rig.groups, &older("large", "a", pods));
    assert!(gather(&rig).excess.unwrap().contains("50001 pods, more than 50000"));
    for number in 0..Settings::default().max_per_namespace {
        put(&mut rig.groups, &older(&format!("g{number}"), "shop", json!({})));
    }
    assert!(gather(&rig).excess.unwrap().contains("more than 20 TimeShareGroups in namespace shop"));
}

#[test]
fn metrics_are_asked_for_in_a_switch_and_an_address_that_may_not_be_is_told_before() {
    let gate = |name: &str, address: &str, bound: &str| {
        let prometheus = json!({"address": address, "query": "up"});
        json!({"name": name, "prometheus": prometheus, bound: "1"})
    };
    let guards = json!({
        "donorMaxLoad": gate("qps", "http://prom", "failureAbove"),
        "metrics": [gate("qps", "http://prom", "failureBelow"), gate("p99", "http://else", "failureAbove")],
    });
    let mut rig = rig(json!({"spec": {"guards": guards}}));
    let settings =
        QuerySettings { allowed: vec!["http://prom".parse().unwrap()], ..QuerySettings::default() };
    let queries = Arc::new(MetricQueries::new(settings));
    let reconciler = TimeShareGroupReconciler::new(rig.stores.clone(), Some(queries));
    let key = ObjectKey::new("shop", "double11");
    let calm = reconciler.gather(&key, None, at(0)).unwrap();
    assert_eq!(calm.refused_addresses.keys().collect::<Vec<_>>(), ["http://else"]);
    assert!(calm.metrics.is_empty() && calm.donor_load.is_none());
    let open = json!({
        "metadata": {"resourceVersion": "2"}, "spec": {"guards": guards}, "status": switching(3, Some("promo"), Some("pay")),
    });
    put(&mut rig.groups, &group(open));
    let switching = reconciler.gather(&key, None, at(0)).unwrap();
    let named: Vec<_> = switching.metrics.iter().map(|guard| &*guard.name).collect();
    assert_eq!(named, ["qps", "p99"]);
    let load = switching.donor_load.unwrap();
    assert!(&*load.name == "qps" && matches!(load.verdict, MetricVerdict::NoData { .. }), "{load:?}");
}

#[test]
fn what_stands_still_is_known_since_the_last_move_of_a_pod() {
    let mut rig = rig(json!({}));
    put(&mut rig.pods, &pod("pay-1", "n1", json!({})));
    let reconciler = reconciler(&rig);
    let key = ObjectKey::new("shop", "double11");
    let still = |now| reconciler.gather(&key, None, at(now)).unwrap().still_since;
    assert_eq!((still(0), still(5)), (Some(at(0)), Some(at(0))));
    let unready = json!({
        "metadata": {"resourceVersion": "11"},
        "status": {"conditions": [{"type": "Ready", "status": "False"}]},
    });
    put(&mut rig.pods, &pod("pay-1", "n1", unready));
    assert_eq!(still(10), Some(at(0)), "readiness comes and goes");
    let mut resized = sized("4", "200m");
    overlay(&mut resized, json!({"metadata": {"resourceVersion": "12", "generation": 2}}));
    put(&mut rig.pods, &pod("pay-1", "n1", resized));
    assert_eq!(still(15), Some(at(15)));
}

#[test]
fn a_group_that_is_gone_is_forgotten() {
    let mut rig = rig(json!({}));
    put(&mut rig.pods, &pod("pay-1", "n1", json!({})));
    let reconciler = reconciler(&rig);
    let key = ObjectKey::new("shop", "double11");
    assert!(reconciler.gather(&key, None, at(0)).is_some());
    assert!(lock(&reconciler.nodes)[&key].contains("n1"));
    rig.groups.delete(GroupView::clone(&group(json!({}))));
    assert!(reconciler.gather(&key, None, at(1)).is_none());
    assert!(lock(&reconciler.nodes).is_empty() && lock(&reconciler.memories).is_empty());
}

#[test]
fn what_was_refused_is_known_at_the_next_look() {
    use springtide_plumbing::controller::Reconciler;
    use springtide_plumbing::error::{Refusal, WriteError};
    use springtide_plumbing::executor::WriteResult;
    use springtide_plumbing::key::Resource;
    use springtide_plumbing::plan::{Write, WriteClass};
    let mut rig = rig(json!({}));
    let pay = pod("pay-1", "n1", json!({}));
    put(&mut rig.pods, &pay);
    let reconciler = reconciler(&rig);
    let key = ObjectKey::new("shop", "double11");
    reconciler.gather(&key, None, at(0)).unwrap();
    let action = TIME_SHARE_TRAFFIC.turn_on(Lever::ServiceLabel, &pay.meta().uid, &pay.time_share, at(0));
    let write =
        Write { resource: Resource::POD, key: pay.meta().key.clone(), class: WriteClass::Protective, action };
    let refusal = Refusal {
        code: 403,
        reason: "Forbidden".to_owned(),
        message: "denied by policy".to_owned(),
        fields: vec![],
    };
    let results = [WriteResult { write, outcome: Err(WriteError::Refused(refusal)) }];
    reconciler.settle(&key, &results, at(1));
    let observed = reconciler.gather(&key, None, at(2)).unwrap();
    let Some(Refused { at: when, message, .. }) = &observed.members[0].pods[0].evidence.refused else {
        panic!()
    };
    assert_eq!((*when, &**message), (at(1), "denied by policy"));
}
