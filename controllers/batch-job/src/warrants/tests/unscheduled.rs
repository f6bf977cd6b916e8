//! Pods that no node has taken.

use super::*;

#[test]
fn a_pod_that_was_never_scheduled_may_go_after_its_time() {
    let mut bench = Bench::new();
    bench.job(json!({"completions": 3, "parallelism": 3}), json!({}));
    bench.pod("a-0-0", unscheduled);
    bench.pod("a-1-0", |_| {});
    bench.pod("a-2-0", |pod| {
        unscheduled(pod);
        pod["spec"]["schedulingGates"] = json!([{"name": "foreign"}]);
    });
    bench.after(29);
    assert_eq!(bench.deletable(3), 0);
    bench.after(1);
    assert_eq!(bench.deletable(3), 1);
    assert_eq!(bench.delete("a-0-0"), Some(Warrant::Declared));
    assert_eq!(bench.release("a-0-0"), None, "only with its deletion");
    bench.pod("a-0-0", |pod| {
        unscheduled(pod);
        deleting(pod);
    });
    assert_eq!(bench.release("a-0-0"), Some(Warrant::Declared));
}

#[test]
fn half_a_gang_may_go_with_the_one_it_waits_for() {
    let gang = json!({"completions": 4, "parallelism": 4, "minParallelism": 4});
    let mut bench = Bench::new();
    bench.job(gang.clone(), json!({}));
    bench.running(3);
    assert_eq!(bench.deletable(3), 0);
    bench.pod("a-3-0", unscheduled);
    bench.after(29);
    assert_eq!(bench.deletable(4), 0);
    bench.after(1);
    assert_eq!(bench.deletable(4), 4);

    // One that is at work, and lost a member long after.
    let mut bench = Bench::new();
    bench.job(gang.clone(), json!({"active": 4, "disrupted": 1}));
    bench.running(3);
    bench.after(1000);
    bench.pod("a-3-0", |pod| {
        unscheduled(pod);
        pod["metadata"]["creationTimestamp"] = "2026-11-11T00:16:40Z".into();
    });
    bench.after(30);
    assert_eq!(bench.deletable(4), 1, "the late one alone");

    // One of which the others cannot even be made.
    let mut bench = Bench::new();
    bench.job(gang, json!({"active": 2}));
    bench.running(2);
    bench.after(30);
    assert_eq!(bench.deletable(2), 2);
}

#[test]
fn a_pod_that_waits_for_a_new_node_has_ten_minutes() {
    let mut bench = Bench::new();
    bench.job(json!({"pendingDeadlineSeconds": 30}), json!({}));
    bench.pod("a-0-0", |pod| {
        unscheduled(pod);
        pod["metadata"]["labels"]["springtide.dev/unfit"] = json!("true");
    });
    bench.after(599);
    assert_eq!(bench.delete("a-0-0"), None);
    bench.after(1);
    assert_eq!(bench.delete("a-0-0"), Some(Warrant::Declared));
}
