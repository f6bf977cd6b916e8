//! What a wait for capacity costs, write by write.

use crate::lives::{spec, strict, to_the_very_end};
use crate::world::World;
use serde_json::{Value, json};

/// Writes on a job that waits so many seconds for the core of another one, gets it and ends: at once, or after minutes.
fn writes_of_waiting(spec_of: fn(Value) -> Value, seconds: usize, runs_long: bool) -> Vec<String> {
    let mut world = World::new("1");
    let sized = json!({"template": {"spec": {"containers": [
        {"name": "main", "image": "app", "resources": {"requests": {"cpu": "1"}}}]}}});
    world.cluster.submit("hog", spec(sized.clone()));
    world.settle();
    world.work_but_finish_nothing();
    world.cluster.submit("a", spec_of(sized));
    for _ in 0..seconds {
        world.settle();
        world.cluster.pass_time(1000);
    }
    assert!(!world.pod_names().contains(&"a-0-0"), "there is no room for it");
    world.cluster.finish("hog-0-0", 0);
    let seconds_running = if runs_long { 200 } else { 0 };
    for _ in 0..seconds_running {
        world.settle();
        world.work_but_finish_nothing();
        world.cluster.pass_time(1000);
    }
    to_the_very_end(&mut world);
    world.cluster.log.into_iter().filter(|line| !line.contains("hog")).collect()
}

const RECORD: &str = "patch batchjobs a";
const CREATE: &str = "create pods a-0-0";
const DELETE: &str = "delete pods a-0-0";
const GONE: &str = "delete batchjobs a";

#[test]
fn a_task_that_waits_and_is_short_costs_five_writes() {
    assert_eq!(writes_of_waiting(spec, 200, false), [RECORD, CREATE, RECORD, DELETE, GONE]);
}

#[test]
fn a_task_that_waits_and_runs_long_costs_six_writes() {
    assert_eq!(writes_of_waiting(spec, 200, true), [RECORD, CREATE, RECORD, RECORD, DELETE, GONE]);
}

#[test]
fn a_task_that_waits_for_less_than_half_a_minute_costs_no_more_than_one_that_never_did() {
    assert_eq!(writes_of_waiting(spec, 25, false), [CREATE, RECORD, DELETE, GONE]);
}

/// The removal of the finalizer of a Strict task's pod.
const RELEASE: &str = "patch pods a-0-0";

#[test]
fn a_strict_task_that_waits_and_is_short_costs_six_writes() {
    assert_eq!(
        writes_of_waiting(strict, 60, false),
        [CREATE, RECORD, RELEASE, DELETE, GONE],
        "its wait ends soon"
    );
    assert_eq!(writes_of_waiting(strict, 200, false), [RECORD, CREATE, RECORD, RELEASE, DELETE, GONE]);
}

#[test]
fn a_strict_task_that_waits_and_runs_long_costs_six_writes() {
    // Its outcome is the next that it says: that it runs would be one more.
    assert_eq!(writes_of_waiting(strict, 200, true), [RECORD, CREATE, RECORD, RELEASE, DELETE, GONE]);
}
