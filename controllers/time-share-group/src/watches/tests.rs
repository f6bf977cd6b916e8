use super::rig::{Rig, bare, deployment, owned_by, put, replica_set};
use super::*;
use crate::fixtures::{group, overlay, pod};
use futures::FutureExt;
use serde_json::{Value, json};
use springtide_plumbing::queue::Next;
use springtide_plumbing::store::StoreWriter;
use springtide_plumbing::workloads::kinds::StatefulSetView;
use std::time::Duration;

/// A controller over stores with these objects, and its queue.
struct Bench {
    rig: Rig,
    queue: WorkQueue<ObjectKey>,
    reconciler: Arc<TimeShareGroupReconciler>,
}

impl Bench {
    /// With groups `double11` (not settled, of Deployments `pay` and `promo`) and `calm` (settled, of a StatefulSet `pay` and
    /// a Deployment `games` of another namespace), and with the ReplicaSet `pay-1`.
    fn new() -> Self {
        let mut rig = Rig::new();
        put(&mut rig.groups, &group(json!({})));
        put(&mut rig.groups, &calm(1, json!({})));
        put(&mut rig.replica_sets, &replica_set("pay-1", Some("pay")));
        let queue = WorkQueue::new(1);
        let reconciler = TimeShareGroupReconciler::new(rig.stores.clone(), None);
        let _ = reconciler.queue.set(queue.clone());
        reconciler.listen();
        let mut bench = Self { rig, queue, reconciler };
        bench.woken();
        bench
    }

    /// Names of the keys that have been woken since, each with its priority.
    fn woken(&mut self) -> Vec<(String, Priority)> {
        let mut woken = Vec::new();
        while let Some(item) = self.queue.next().now_or_never().flatten() {
            self.queue.done(&item.key, Next::Success);
            woken.push((item.key.to_string(), item.priority));
        }
        woken.sort();
        woken
    }

    /// Stores an object, and takes in who is woken by it.
    fn on<P: Projection>(
        &mut self,
        writer: impl FnOnce(&mut Rig) -> &mut StoreWriter<P>,
        object: &Arc<P>,
    ) -> Vec<(String, Priority)> {
        put(writer(&mut self.rig), object);
        self.woken()
    }

    /// A group was looked at that has pods on these nodes.
    fn looked_at(&self, group: &str, nodes: &[&str]) {
        let nodes = nodes.iter().map(|node| Arc::from(*node)).collect();
        lock(&self.reconciler.nodes).insert(ObjectKey::new("shop", group), nodes);
    }
}

fn calm(number: u32, over: Value) -> Arc<GroupView> {
    let mut whole = version(
        number,
        json!({
            "metadata": {"name": "calm", "uid": "calm"},
            "spec": {"members": [
                {"name": "pay", "targetRef": {"kind": "StatefulSet"}},
                {"name": "promo", "targetRef": {"name": "games", "namespace": "events"}},
            ]},
            "status": {"conditions": [{
                "type": "Ready", "status": "True", "reason": "Settled", "message": "", "observedGeneration": 1,
                "lastTransitionTime": "2026-11-23T10:00:00Z",
            }]},
        }),
    );
    overlay(&mut whole, over);
    group(whole)
}

fn normal(key: &str) -> Vec<(String, Priority)> {
    vec![(key.to_owned(), Priority::Normal)]
}

fn low(key: &str) -> Vec<(String, Priority)> {
    vec![(key.to_owned(), Priority::Low)]
}

fn high(key: &str) -> Vec<(String, Priority)> {
    vec![(key.to_owned(), Priority::High)]
}

fn nobody() -> Vec<(String, Priority)> {
    Vec::new()
}

/// The same object at another version.
fn version(number: u32, over: Value) -> Value {
    let mut whole = json!({"metadata": {"resourceVersion": number.to_string()}});
    overlay(&mut whole, over);
    whole
}

const DOUBLE: &str = "shop/double11";
const CALM: &str = "shop/calm";

#[tokio::test(start_paused = true)]
async fn a_first_list_wakes_every_group_after_what_happens_now() {
    let mut rig = Rig::new();
    put(&mut rig.groups, &group(json!({})));
    let reconciler = TimeShareGroupReconciler::new(rig.stores.clone(), None);
    let queue = WorkQueue::new(1);
    let _ = reconciler.queue.set(queue.clone());
    reconciler.listen();
    let mut bench = Bench { rig, queue, reconciler };
    assert_eq!(bench.woken(), low(DOUBLE));
}

#[tokio::test(start_paused = true)]
async fn a_pod_wakes_the_group_of_its_workload_also_through_its_replica_set() {
    let mut bench = Bench::new();
    assert_eq!(bench.on(|rig| &mut rig.pods, &pod("pay-1", "n1", json!({}))), normal(DOUBLE));
    let of_set = pod("pay-0", "n1", owned_by("pay-0", "StatefulSet", "pay"));
    assert_eq!(bench.on(|rig| &mut rig.pods, &of_set), normal(CALM));
    let of_job = pod("pay-2", "n1", owned_by("pay-2", "Job", "pay"));
    assert_eq!(bench.on(|rig| &mut rig.pods, &of_job), nobody());
    let of_nobody = pod("pay-3", "n1", json!({"metadata": {"ownerReferences": []}}));
    assert_eq!(bench.on(|rig| &mut rig.pods, &of_nobody), nobody());
    bench.rig.pods.delete(PodView::clone(&of_set));
    assert_eq!(bench.woken(), normal(CALM));
}

#[tokio::test(start_paused = true)]
async fn a_pod_that_leaves_room_wakes_the_groups_of_its_node_that_may_wait_for_it() {
    let mut bench = Bench::new();
    let other = |number: u32, cpu: &str, phase: &str| {
        let containers = json!([{"name": "app", "resources": {"requests": {"cpu": cpu}}}]);
        let mut over = version(number, owned_by("night-1", "Job", "night"));
        overlay(
            &mut over,
            json!({
                "spec": {"containers": containers},
                "status": {"phase": phase, "containerStatuses": [{
                    "name": "app", "allocatedResources": {"cpu": cpu}, "resources": {"requests": {"cpu": cpu}},
                }]},
            }),
        );
        pod("night-1", "n1", over)
    };
    assert_eq!(bench.on(|rig| &mut rig.pods, &other(1, "2", "Running")), nobody());
    assert_eq!(bench.on(|rig| &mut rig.pods, &other(2, "1", "Running")), nobody(), "nobody has pods there");
    bench.looked_at("double11", &["n1", "n2"]);
    bench.looked_at("calm", &["n1"]);
    assert_eq!(bench.on(|rig| &mut rig.pods, &other(3, "2", "Running")), nobody(), "it takes more");
    assert_eq!(bench.on(|rig| &mut rig.pods, &other(4, "1", "Running")), normal(DOUBLE));
    assert_eq!(bench.on(|rig| &mut rig.pods, &other(5, "1", "Succeeded")), normal(DOUBLE));
    assert_eq!(bench.on(|rig| &mut rig.pods, &other(6, "1", "Succeeded")), nobody(), "it has left it before");
    bench.looked_at("double11", &["n2"]);
    bench.rig.pods.delete(PodView::clone(&other(7, "1", "Succeeded")));
    assert_eq!(bench.woken(), nobody());
}

#[tokio::test(start_paused = true)]
async fn a_workload_wakes_the_groups_of_its_kind_and_name() {
    let mut bench = Bench::new();
    assert_eq!(bench.on(|rig| &mut rig.deployments, &deployment("pay", json!({}))), normal(DOUBLE));
    assert_eq!(bench.on(|rig| &mut rig.deployments, &deployment("games", json!({}))), nobody());
    let games = deployment("games", json!({"metadata": {"namespace": "events"}}));
    assert_eq!(bench.on(|rig| &mut rig.deployments, &games), normal(CALM));
    let set: Arc<StatefulSetView> = bare("shop", "pay", json!({}));
    assert_eq!(bench.on(|rig| &mut rig.stateful_sets, &set), normal(CALM));
    bench.rig.stateful_sets.delete(StatefulSetView::clone(&set));
    assert_eq!(bench.woken(), normal(CALM));
}

#[tokio::test(start_paused = true)]
async fn a_replica_set_wakes_the_group_of_its_deployment_or_its_own_if_nobody_owns_it() {
    let mut bench = Bench::new();
    assert_eq!(bench.on(|rig| &mut rig.replica_sets, &replica_set("pay-2", Some("pay"))), normal(DOUBLE));
    let member = json!({"name": "pay", "targetRef": {"kind": "ReplicaSet", "name": "bare"}});
    let of_set = group(json!({"metadata": {"name": "sets", "uid": "sets"}, "spec": {"members": [member]}}));
    put(&mut bench.rig.groups, &of_set);
    bench.woken();
    assert_eq!(bench.on(|rig| &mut rig.replica_sets, &replica_set("bare", None)), normal("shop/sets"));
}

#[tokio::test(start_paused = true)]
async fn services_slices_and_quotas_wake_groups_that_are_not_settled_and_have_a_member_there() {
    let mut bench = Bench::new();
    assert_eq!(bench.on(|rig| &mut rig.services, &bare("shop", "pay", json!({}))), normal(DOUBLE));
    assert_eq!(bench.on(|rig| &mut rig.slices, &bare("shop", "pay-1", json!({}))), normal(DOUBLE));
    assert_eq!(bench.on(|rig| &mut rig.quotas, &bare("shop", "team", json!({}))), normal(DOUBLE));
    for namespace in ["events", "other"] {
        assert_eq!(bench.on(|rig| &mut rig.services, &bare(namespace, "pay", json!({}))), nobody());
        assert_eq!(bench.on(|rig| &mut rig.slices, &bare(namespace, "pay-1", json!({}))), nobody());
        assert_eq!(bench.on(|rig| &mut rig.quotas, &bare(namespace, "team", json!({}))), nobody());
    }
    let switches =
        json!({"status": {"conditions": [{"type": "Ready", "status": "False", "reason": "Switching"}]}});
    put(&mut bench.rig.groups, &calm(2, switches));
    bench.woken();
    assert_eq!(bench.on(|rig| &mut rig.slices, &bare("events", "games-1", json!({}))), normal(CALM));
}

#[tokio::test(start_paused = true)]
async fn a_node_wakes_the_groups_with_pods_on_it_when_its_room_changes() {
    let mut bench = Bench::new();
    let node = |number: u32, cpu: &str| -> Arc<NodeView> {
        bare("", "n1", version(number, json!({"status": {"allocatable": {"cpu": cpu}}})))
    };
    assert_eq!(bench.on(|rig| &mut rig.nodes, &node(1, "8")), nobody(), "nobody has pods there");
    bench.looked_at("calm", &["n1"]);
    assert_eq!(bench.on(|rig| &mut rig.nodes, &node(2, "8")), nobody(), "its heartbeat");
    assert_eq!(bench.on(|rig| &mut rig.nodes, &node(3, "4")), low(CALM));
    bench.rig.nodes.delete(NodeView::clone(&node(4, "4")));
    assert_eq!(bench.woken(), low(CALM));
}

#[tokio::test(start_paused = true)]
async fn an_autoscaler_wakes_the_group_of_its_target_when_it_says_something_else() {
    let mut bench = Bench::new();
    let target = |name: &str| json!({"apiVersion": "apps/v1", "kind": "Deployment", "name": name});
    let horizontal = |number: u32, name: &str, min: u32| -> Arc<HorizontalPodAutoscalerView> {
        bare(
            "shop",
            "hpa",
            version(number, json!({"spec": {"scaleTargetRef": target(name), "minReplicas": min}})),
        )
    };
    assert_eq!(bench.on(|rig| &mut rig.horizontal, &horizontal(1, "pay", 1)), normal(DOUBLE));
    assert_eq!(bench.on(|rig| &mut rig.horizontal, &horizontal(2, "pay", 2)), nobody());
    assert_eq!(
        bench.on(|rig| &mut rig.horizontal, &horizontal(3, "other", 2)),
        normal(DOUBLE),
        "it lets it go"
    );
    let vertical = |number: u32, mode: &str| -> Arc<VerticalPodAutoscalerView> {
        let policy = json!({"updateMode": mode});
        bare(
            "shop",
            "vpa",
            version(number, json!({"spec": {"targetRef": target("promo"), "updatePolicy": policy}})),
        )
    };
    assert_eq!(bench.on(|rig| &mut rig.vertical, &vertical(1, "Auto")), normal(DOUBLE));
    assert_eq!(bench.on(|rig| &mut rig.vertical, &vertical(2, "Auto")), nobody(), "a recommendation");
    assert_eq!(bench.on(|rig| &mut rig.vertical, &vertical(3, "Off")), normal(DOUBLE));
}

#[tokio::test(start_paused = true)]
async fn a_route_wakes_the_groups_whose_traffic_is_by_it_when_its_backends_change() {
    let mut bench = Bench::new();
    let route = |number: u32, weight: u32| -> Arc<HttpRouteView> {
        let rules = json!([{"backendRefs": [{"name": "games", "weight": weight}]}]);
        bare("events", "front", version(number, json!({"spec": {"rules": rules}})))
    };
    assert_eq!(bench.on(|rig| &mut rig.routes, &route(1, 5)), nobody());
    let traffic = json!({"mode": "HTTPRoute", "httpRoute": {"name": "front", "backend": "games"}});
    let by_route = json!({"spec": {"members": [{"name": "promo", "traffic": traffic}]}});
    put(&mut bench.rig.groups, &calm(2, by_route));
    bench.woken();
    assert_eq!(bench.on(|rig| &mut rig.routes, &route(2, 5)), nobody(), "its status");
    assert_eq!(bench.on(|rig| &mut rig.routes, &route(3, 6)), normal(CALM));
    let elsewhere: Arc<HttpRouteView> = bare("shop", "front", json!({}));
    assert_eq!(bench.on(|rig| &mut rig.routes, &elsewhere), nobody());
}

#[tokio::test(start_paused = true)]
async fn a_grant_wakes_the_groups_of_other_namespaces_with_a_member_in_its_own() {
    let mut bench = Bench::new();
    let grant = |namespace: &str| {
        let spec = json!({"from": [{"kind": "TimeShareGroup", "namespace": "shop"}], "to": [{"kind": "Deployment"}]});
        bare(namespace, "grant", json!({"spec": spec}))
    };
    assert_eq!(bench.on(|rig| &mut rig.grants, &grant("events")), normal(CALM));
    assert_eq!(bench.on(|rig| &mut rig.grants, &grant("shop")), nobody());
}

#[tokio::test(start_paused = true)]
async fn a_group_wakes_itself_and_all_others_when_it_comes_goes_or_names_other_workloads() {
    let mut bench = Bench::new();
    let double = |number: u32, generation: i64, over: Value| {
        let mut whole = version(number, json!({"metadata": {"generation": generation}}));
        overlay(&mut whole, over);
        group(whole)
    };
    assert_eq!(bench.on(|rig| &mut rig.groups, &double(2, 1, json!({}))), normal(DOUBLE), "its status");
    let paused = json!({"spec": {"mode": "Paused"}});
    assert_eq!(bench.on(|rig| &mut rig.groups, &double(3, 2, paused)), high(DOUBLE), "its spec");
    let member = json!({"spec": {"members": [{"name": "pay", "targetRef": {"name": "till"}}]}});
    let both = [low(CALM), high(DOUBLE)].concat();
    assert_eq!(bench.on(|rig| &mut rig.groups, &double(4, 3, member)), both);
    bench.rig.groups.delete(GroupView::clone(&double(5, 3, json!({}))));
    assert_eq!(bench.woken(), both, "whoever is left may be the oldest now");
}

#[tokio::test(start_paused = true)]
async fn news_of_a_group_that_fails_wait_for_its_backoff_and_a_new_spec_does_not() {
    let mut bench = Bench::new();
    let key = ObjectKey::new("shop", "double11");
    put(&mut bench.rig.pods, &pod("pay-1", "n1", version(30, json!({}))));
    let item = bench.queue.next().now_or_never().flatten().unwrap();
    assert_eq!(item.key, key);
    bench.queue.done(&key, Next::Failed { min: Duration::from_secs(60) });
    assert_eq!(bench.on(|rig| &mut rig.pods, &pod("pay-1", "n1", version(31, json!({})))), nobody());
    let edited = group(version(4, json!({"metadata": {"generation": 2}})));
    assert_eq!(bench.on(|rig| &mut rig.groups, &edited), high(DOUBLE));
}
