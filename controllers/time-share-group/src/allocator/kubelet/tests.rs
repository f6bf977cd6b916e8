use super::*;
use crate::fixtures::at;
use springtide_plumbing::workloads::pod::PodView;

fn pod(uid: &str, generation: i64, cpu: &str) -> Value {
    let resources = json!({"requests": {"cpu": cpu}, "limits": {"cpu": "8"}});
    json!({
        "metadata": {
            "name": uid, "namespace": "shop", "uid": uid, "generation": generation,
            "ownerReferences": [{"kind": "ReplicaSet", "name": "r", "uid": "r", "controller": true}],
        },
        "spec": {"containers": [{"name": "app", "resources": resources}]},
        "status": {
            "conditions": [{"type": "Ready", "status": "True"}],
            "containerStatuses": [{"name": "app", "containerID": "c"}],
        },
    })
}

fn kubelet(cores: i64) -> Kubelet {
    Kubelet::new(Demand { cpu: cores * 1000, memory: 0 })
}

/// What controllers read of a pod with the status that its kubelet gives it.
fn read(kubelet: &Kubelet, pod: &Value) -> PodView {
    let mut told = pod.clone();
    told["status"] = kubelet.status(pod);
    serde_json::from_value(told).unwrap()
}

fn amounts(pod: &PodView) -> (Option<i64>, Option<i64>) {
    let status = pod.containers[0].status.as_ref().unwrap();
    (status.amounts.unwrap().requests.cpu, status.allocated.unwrap().cpu)
}

#[test]
fn a_new_pod_has_its_size_at_once_and_one_without_room_is_turned_away() {
    let mut kubelet = kubelet(5);
    let first = pod("a", 1, "4");
    assert!(kubelet.look(&first, at(0)) && !kubelet.look(&pod("b", 1, "2"), at(0)));
    let told = read(&kubelet, &first);
    assert_eq!((amounts(&told), told.observed_generation), ((Some(4000), Some(4000)), 1));
    assert!(told.is_ready(), "other conditions stay");
    assert_eq!(kubelet.pods().collect::<Vec<_>>(), ["a"]);
    assert_eq!(kubelet.status(&pod("b", 1, "2")), pod("b", 1, "2")["status"], "it is not known");
}

#[test]
fn a_smaller_size_is_under_way_until_it_is_put_in_force_and_the_other_pod_is_deferred_until_then() {
    let mut kubelet = kubelet(5);
    for (uid, cpu) in [("a", "4"), ("b", "1")] {
        assert!(kubelet.look(&pod(uid, 1, cpu), at(0)));
    }
    let (shrunk, grown) = (pod("a", 2, "1"), pod("b", 2, "4"));
    assert!(kubelet.look(&shrunk, at(5)) && kubelet.look(&grown, at(5)));
    let [a, b] = [&shrunk, &grown].map(|pod| read(&kubelet, pod));
    assert_eq!((amounts(&a), amounts(&b)), ((Some(4000), Some(1000)), (Some(1000), Some(1000))));
    assert_eq!(a.resize_in_progress.unwrap().since, Some(at(5)));
    let pending = b.resize_pending.unwrap();
    assert_eq!((pending.is_infeasible, pending.since, b.observed_generation), (false, Some(at(5)), 2));
    assert_eq!(kubelet.under_way(), ["a"]);
    assert!(kubelet.put_in_force("a") && !kubelet.put_in_force("a"));
    assert_eq!(kubelet.look_again(at(6)), ["b"]);
    assert!(kubelet.put_in_force("b"));
    let [a, b] = [&shrunk, &grown].map(|pod| read(&kubelet, pod));
    assert_eq!((amounts(&a), amounts(&b)), ((Some(1000), Some(1000)), (Some(4000), Some(4000))));
    assert!(a.resize_in_progress.is_none() && b.resize_pending.is_none());
    assert_eq!(kubelet.node().allocated(), Demand { cpu: 5000, memory: 0 });
}

#[test]
fn what_waits_gets_its_room_when_another_pod_ends() {
    let mut kubelet = kubelet(5);
    for (uid, cpu) in [("a", "4"), ("b", "1")] {
        kubelet.look(&pod(uid, 1, cpu), at(0));
    }
    kubelet.look(&pod("b", 2, "5"), at(1));
    kubelet.remove("a");
    kubelet.miss_news();
    assert!(kubelet.look_again(at(2)).is_empty(), "it has not noticed");
    assert!(kubelet.look(&pod("b", 3, "3"), at(3)), "another size is a reason to look");
    assert_eq!(amounts(&read(&kubelet, &pod("b", 3, "3"))).1, Some(3000));
}

#[test]
fn what_the_node_has_not_is_infeasible() {
    let mut kubelet = kubelet(5);
    kubelet.look(&pod("a", 1, "1"), at(0));
    let large = pod("a", 2, "6");
    kubelet.look(&large, at(1));
    assert!(read(&kubelet, &large).resize_pending.unwrap().is_infeasible);
}

#[test]
fn containers_beside_each_other_count_together_and_those_that_start_a_pod_do_not() {
    let init = |name: &str, policy: Value| json!({"name": name, "restartPolicy": policy, "resources": {"requests": {"cpu": "2"}}});
    let mut whole = pod("a", 1, "1");
    whole["spec"]["initContainers"] = json!([init("setup", Value::Null), init("proxy", json!("Always"))]);
    let mut kubelet = kubelet(5);
    assert!(kubelet.look(&whole, at(0)));
    assert_eq!(kubelet.node().allocated().cpu, 3000);
}
