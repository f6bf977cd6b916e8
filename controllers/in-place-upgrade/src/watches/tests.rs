use super::rig::{Rig, bare, put, upgrade};
use super::*;
use crate::fixtures::{autoscaler, daemon_set, deployment, node, overlay, pod, replica_set, stateful_set};
use futures::FutureExt;
use serde_json::{Value, json};
use springtide_plumbing::controller::Reconciler;
use springtide_plumbing::queue::Next;
use springtide_plumbing::store::StoreWriter;
use springtide_plumbing::workloads::kinds::StatefulSetView;
use std::time::Duration;

/// A controller over stores with these objects, and its queue.
struct Bench {
    rig: Rig,
    queue: WorkQueue<ObjectKey>,
}

impl Bench {
    /// With objects `web` (of the Deployment, a run is open), `web-set` (of a StatefulSet of the same name) and `idle`
    /// (of another Deployment), and with the ReplicaSet `rs` of the Deployment.
    fn new() -> Self {
        let mut rig = Rig::new();
        put(&mut rig.upgrades, &upgrade("web", "Deployment", "web", true, json!({})));
        put(&mut rig.upgrades, &upgrade("web-set", "StatefulSet", "web", false, json!({})));
        put(&mut rig.upgrades, &upgrade("idle", "Deployment", "idle", false, json!({})));
        put(&mut rig.replica_sets, &replica_set("rs", 1, 1, "app:1"));
        let queue = WorkQueue::new(1);
        let reconciler = InPlaceUpgradeReconciler::new(rig.stores.clone(), None, "");
        let _ = reconciler.queue.set(queue.clone());
        reconciler.listen();
        let mut bench = Self { rig, queue };
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
}

fn normal(key: &str) -> Vec<(String, Priority)> {
    vec![(key.to_owned(), Priority::Normal)]
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

fn owned_by(kind: &str, name: &str) -> Value {
    let owner = json!({"apiVersion": "apps/v1", "kind": kind, "name": name, "uid": name, "controller": true});
    json!({"metadata": {"ownerReferences": [owner]}})
}

#[tokio::test(start_paused = true)]
async fn a_first_list_wakes_every_object_after_what_happens_now() {
    let mut rig = Rig::new();
    put(&mut rig.upgrades, &upgrade("web", "Deployment", "web", false, json!({})));
    let reconciler = InPlaceUpgradeReconciler::new(rig.stores.clone(), None, "");
    let queue = WorkQueue::new(1);
    let _ = reconciler.queue.set(queue.clone());
    reconciler.listen();
    let mut bench = Bench { rig, queue };
    assert_eq!(bench.woken(), [("ns/web".to_owned(), Priority::Low)]);
}

#[tokio::test(start_paused = true)]
async fn a_pod_wakes_the_object_of_its_workload_also_through_its_replica_set() {
    let mut bench = Bench::new();
    assert_eq!(bench.on(|rig| &mut rig.pods, &pod("web-1", json!({}))), normal("ns/web"));
    let of_set = pod("web-0", owned_by("StatefulSet", "web"));
    assert_eq!(bench.on(|rig| &mut rig.pods, &of_set), normal("ns/web-set"));
    let of_job = pod("web-2", owned_by("Job", "web"));
    assert_eq!(bench.on(|rig| &mut rig.pods, &of_job), nobody());
    let of_nobody = pod("web-3", json!({"metadata": {"ownerReferences": []}}));
    assert_eq!(bench.on(|rig| &mut rig.pods, &of_nobody), nobody());
    put(&mut bench.rig.upgrades, &upgrade("bare", "ReplicaSet", "rs", false, json!({})));
    bench.woken();
    let again = bench.on(|rig| &mut rig.pods, &pod("web-1", version(11, json!({}))));
    assert_eq!(again, [normal("ns/bare"), normal("ns/web")].concat());
    bench.rig.pods.delete(PodView::clone(&pod("web-0", owned_by("StatefulSet", "web"))));
    assert_eq!(bench.woken(), normal("ns/web-set"));
}

#[tokio::test(start_paused = true)]
async fn a_pod_that_pulls_images_wakes_the_object_that_it_pulls_for() {
    let mut bench = Bench::new();
    let puller = pod("ipu-pull-1", owned_by("InPlaceUpgrade", "idle"));
    assert_eq!(bench.on(|rig| &mut rig.pods, &puller), normal("ns/idle"));
}

#[tokio::test(start_paused = true)]
async fn a_workload_wakes_the_objects_of_its_kind_and_name() {
    let mut bench = Bench::new();
    let web = deployment(3, "app:2", json!({}));
    assert_eq!(bench.on(|rig| &mut rig.deployments, &web), normal("ns/web"));
    let set = stateful_set(3, "app:1", json!({}), json!({}));
    assert_eq!(bench.on(|rig| &mut rig.stateful_sets, &set), nobody(), "it is called db");
    put(&mut bench.rig.upgrades, &upgrade("db", "StatefulSet", "db", false, json!({})));
    put(&mut bench.rig.upgrades, &upgrade("log", "DaemonSet", "log", false, json!({})));
    bench.woken();
    bench.rig.stateful_sets.delete(StatefulSetView::clone(&set));
    assert_eq!(bench.woken(), normal("ns/db"));
    let daemons = daemon_set(3, "app:1", true);
    assert_eq!(bench.on(|rig| &mut rig.daemon_sets, &daemons), normal("ns/log"));
    let revision = bare("ns", "log-1", owned_by("DaemonSet", "log"));
    assert_eq!(bench.on(|rig| &mut rig.revisions, &revision), normal("ns/log"));
}

#[tokio::test(start_paused = true)]
async fn a_replica_set_wakes_the_object_of_its_deployment_or_its_own_if_nobody_owns_it() {
    let mut bench = Bench::new();
    assert_eq!(bench.on(|rig| &mut rig.replica_sets, &replica_set("rs-2", 2, 0, "app:2")), normal("ns/web"));
    put(&mut bench.rig.upgrades, &upgrade("bare", "ReplicaSet", "bare", false, json!({})));
    bench.woken();
    assert_eq!(bench.on(|rig| &mut rig.replica_sets, &bare("ns", "bare", json!({}))), normal("ns/bare"));
}

#[tokio::test(start_paused = true)]
async fn budgets_services_and_slices_wake_open_runs_of_their_namespace_alone() {
    let mut bench = Bench::new();
    assert_eq!(bench.on(|rig| &mut rig.budgets, &bare("ns", "web", json!({}))), normal("ns/web"));
    assert_eq!(bench.on(|rig| &mut rig.services, &bare("ns", "web", json!({}))), normal("ns/web"));
    assert_eq!(bench.on(|rig| &mut rig.slices, &bare("ns", "web-1", json!({}))), normal("ns/web"));
    assert_eq!(bench.on(|rig| &mut rig.budgets, &bare("other", "web", json!({}))), nobody());
    assert_eq!(bench.on(|rig| &mut rig.services, &bare("other", "web", json!({}))), nobody());
    assert_eq!(bench.on(|rig| &mut rig.slices, &bare("other", "web-1", json!({}))), nobody());
}

#[tokio::test(start_paused = true)]
async fn a_node_wakes_open_runs_when_it_comes_and_when_its_images_change() {
    let mut bench = Bench::new();
    let low = vec![("ns/web".to_owned(), Priority::Low)];
    let n1 = |images: &[&str], number: u32| node("n1", images, version(number, json!({})));
    assert_eq!(bench.on(|rig| &mut rig.nodes, &n1(&["app:1"], 1)), low);
    assert_eq!(bench.on(|rig| &mut rig.nodes, &n1(&["app:1"], 2)), nobody(), "its heartbeat");
    assert_eq!(bench.on(|rig| &mut rig.nodes, &n1(&["app:1", "app:2"], 3)), low);
}

#[tokio::test(start_paused = true)]
async fn an_autoscaler_wakes_the_object_of_its_target_when_it_says_something_else() {
    let mut bench = Bench::new();
    let vpa = |number: u32, over: Value| autoscaler("vpa", version(number, over));
    assert_eq!(bench.on(|rig| &mut rig.autoscalers, &vpa(1, json!({}))), normal("ns/web"));
    let recommended = vpa(2, json!({"status": {"recommendation": {}}}));
    assert_eq!(bench.on(|rig| &mut rig.autoscalers, &recommended), nobody());
    let off = json!({"spec": {"updatePolicy": {"updateMode": "Off"}}});
    assert_eq!(bench.on(|rig| &mut rig.autoscalers, &vpa(3, off)), normal("ns/web"));
    let moved = || json!({"spec": {"targetRef": {"name": "idle"}}});
    let both = [normal("ns/idle"), normal("ns/web")].concat();
    assert_eq!(bench.on(|rig| &mut rig.autoscalers, &vpa(4, moved())), both, "one lets it go");
    bench.rig.autoscalers.delete(VerticalPodAutoscalerView::clone(&vpa(5, moved())));
    assert_eq!(bench.woken(), normal("ns/idle"));
}

/// The group `g` of a namespace with the Deployments of these names in `ns` as members.
fn group(number: u32, namespace: &str, names: [&str; 2], over: Value) -> Arc<TimeShareGroupView> {
    let member = |name: &str| {
        let target = json!({"apiVersion": "apps/v1", "kind": "Deployment", "name": name, "namespace": "ns"});
        let size = || json!({"cpu": "1"});
        json!({"name": name, "targetRef": target, "containers": [{"name": "app", "peak": size(), "valley": size()}]})
    };
    let mut whole = json!({"metadata": {"generation": number}, "spec": {"members": names.map(member)}});
    overlay(&mut whole, over);
    bare(namespace, "g", version(number, whole))
}

#[tokio::test(start_paused = true)]
async fn a_time_share_group_wakes_the_objects_of_its_members_when_it_says_something_else() {
    let mut bench = Bench::new();
    let members = ["web", "other"];
    assert_eq!(bench.on(|rig| &mut rig.groups, &group(1, "ns", members, json!({}))), normal("ns/web"));
    let counted = json!({"metadata": {"generation": 1}, "status": {"desiredMember": "web"}});
    assert_eq!(bench.on(|rig| &mut rig.groups, &group(2, "ns", members, counted)), nobody());
    let transition = json!({"id": 1, "cause": "Window", "startTime": "2026-05-04T11:50:00Z", "step": 1});
    let switching = json!({"metadata": {"generation": 1}, "status": {"transition": transition}});
    assert_eq!(bench.on(|rig| &mut rig.groups, &group(3, "ns", members, switching)), normal("ns/web"));
    let moved = group(4, "ns", ["idle", "other"], json!({}));
    let both = [normal("ns/idle"), normal("ns/web")].concat();
    assert_eq!(bench.on(|rig| &mut rig.groups, &moved), both, "one lets it go");
    bench.rig.groups.delete(TimeShareGroupView::clone(&moved));
    assert_eq!(bench.woken(), normal("ns/idle"));
}

#[tokio::test(start_paused = true)]
async fn a_grant_wakes_the_objects_of_workloads_that_groups_of_other_namespaces_have() {
    let mut bench = Bench::new();
    put(&mut bench.rig.groups, &group(1, "ns", ["idle", "other"], json!({})));
    put(&mut bench.rig.groups, &group(2, "far", ["web", "other"], json!({})));
    bench.woken();
    let from = json!([{"kind": "TimeShareGroup", "namespace": "far"}]);
    let spec = json!({"spec": {"from": from, "to": [{"kind": "Deployment"}]}});
    assert_eq!(bench.on(|rig| &mut rig.grants, &bare("ns", "grant", spec.clone())), normal("ns/web"));
    assert_eq!(bench.on(|rig| &mut rig.grants, &bare("elsewhere", "grant", spec)), nobody());
}

#[tokio::test(start_paused = true)]
async fn what_a_group_says_of_a_workload_is_observed_and_that_of_another_namespace_by_grant_alone() {
    let mut bench = Bench::new();
    let reconciler = InPlaceUpgradeReconciler::new(bench.rig.stores.clone(), None, "");
    let group_of = || {
        let observed =
            reconciler.observe(&ObjectKey::new("ns", "web"), None, "2026-05-04T12:00:00Z".parse().unwrap());
        observed.unwrap().time_share.map(|share| share.group)
    };
    assert_eq!(group_of(), None);
    put(&mut bench.rig.groups, &group(1, "far", ["web", "other"], json!({})));
    assert_eq!(group_of(), None);
    let from = json!([{"kind": "TimeShareGroup", "namespace": "far"}]);
    let spec = json!({"spec": {"from": from, "to": [{"kind": "Deployment", "name": "web"}]}});
    put(&mut bench.rig.grants, &bare("ns", "grant", spec));
    assert_eq!(group_of().as_deref(), Some("far/g"));
}

#[tokio::test(start_paused = true)]
async fn an_object_wakes_itself_and_the_others_of_its_target_when_it_comes_or_goes() {
    let mut bench = Bench::new();
    let web = |number: u32, generation: i64| {
        let over = version(number, json!({"metadata": {"generation": generation}}));
        upgrade("web", "Deployment", "web", true, over)
    };
    assert_eq!(bench.on(|rig| &mut rig.upgrades, &web(2, 1)), normal("ns/web"), "its status");
    let high = |key: &str| vec![(key.to_owned(), Priority::High)];
    assert_eq!(bench.on(|rig| &mut rig.upgrades, &web(3, 2)), high("ns/web"), "its spec");
    let rival = upgrade("rival", "Deployment", "web", false, json!({}));
    let both = vec![("ns/rival".to_owned(), Priority::High), ("ns/web".to_owned(), Priority::Low)];
    assert_eq!(bench.on(|rig| &mut rig.upgrades, &rival), both);
    bench.rig.upgrades.delete(UpgradeView::clone(&rival));
    assert_eq!(bench.woken(), both, "whoever is left may be the older one now");
}

#[tokio::test(start_paused = true)]
async fn news_of_an_object_that_fails_wait_for_its_backoff_and_a_new_spec_does_not() {
    let mut bench = Bench::new();
    let key = ObjectKey::new("ns", "web");
    put(&mut bench.rig.pods, &pod("web-1", version(30, json!({}))));
    let item = bench.queue.next().now_or_never().flatten().unwrap();
    assert_eq!(item.key, key);
    bench.queue.done(&key, Next::Failed { min: Duration::from_secs(60) });
    assert_eq!(bench.on(|rig| &mut rig.pods, &pod("web-1", version(31, json!({})))), nobody());
    let edited = version(4, json!({"metadata": {"generation": 2}}));
    let edited = upgrade("web", "Deployment", "web", true, edited);
    assert_eq!(bench.on(|rig| &mut rig.upgrades, &edited), vec![("ns/web".to_owned(), Priority::High)]);
}
