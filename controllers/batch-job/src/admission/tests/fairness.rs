//! Who gets the next room.

use super::*;

#[test]
fn a_thousand_equal_jobs_starve_no_other_class() {
    let mut world = World::new(&[("n1", "1")]);
    let (one, half) = (shape("1", json!({})), shape("600m", json!({})));
    let crowd: Vec<Uid> = (0..999).map(|number| world.offer("a", &format!("c{number}"), &one, 1)).collect();
    let other = world.offer("a", "other", &half, 1);
    let mut turns = 0;
    while world.admission.verdict(&other).granted == 0 {
        turns += 1;
        assert!(turns <= 3, "one slot at a time, and the other class waits still");
        world.admission.pass(at(1));
        if let Some(job) = crowd.iter().find(|job| !world.admission.jobs[*job].in_flight.is_empty()) {
            let pod = world.make(job, "1", "a").unwrap();
            world.offer("a", &job.0.as_ref()[2..], &one, 0);
            world.end(&pod);
        }
    }
}

#[test]
fn the_newest_beyond_the_bound_wait_outside() {
    let mut world = World::new(&[("n1", "1")]);
    let big = shape("2", json!({}));
    let jobs: Vec<Uid> =
        (0..MAX_QUEUED_JOBS + 5).map(|number| world.offer("a", &format!("{number:05}"), &big, 1)).collect();
    let reason = |world: &World, uid: &Uid| world.admission.verdict(uid).waiting.unwrap().reason;
    let last = jobs.last().unwrap();
    assert_eq!(reason(&world, last), QueuedReason::QueueFull);
    assert_ne!(reason(&world, &jobs[0]), QueuedReason::QueueFull);
    for job in &jobs[..5] {
        world.admission.withdraw(job);
    }
    assert_ne!(reason(&world, last), QueuedReason::QueueFull, "taken in when others leave");
}

/// Pods of which jobs run when one slot is freed again and again, the first letter of each: a job of
/// `b` comes only when the one before it runs.
fn slots_of_a_backlog_and_a_trickle(trickle: impl Fn(&mut World, u32) -> Uid, namespace: &str) -> String {
    let mut world = World::new(&[("n1", "1")]);
    let one = shape("1", json!({}));
    let backlog: Vec<Uid> = (0..20).map(|number| world.offer("a", &format!("a{number}"), &one, 1)).collect();
    let mut next = trickle(&mut world, 0);
    let mut order = String::new();
    for number in 1..=8 {
        world.admission.pass(at(1));
        let (job, of) = if world.admission.verdict(&next).granted > 0 {
            (next.clone(), namespace)
        } else {
            (backlog.iter().find(|job| world.admission.verdict(job).granted > 0).unwrap().clone(), "a")
        };
        let pod = world.make(&job, "1", of).unwrap();
        world.admission.withdraw(&job);
        if job == next {
            order.push('b');
            next = trickle(&mut world, number);
        } else {
            order.push('a');
        }
        world.end(&pod);
    }
    order
}

#[test]
fn a_trickle_does_not_starve_the_backlog_of_another_namespace() {
    let one = shape("1", json!({}));
    let order = slots_of_a_backlog_and_a_trickle(
        |world, number| world.offer("b", &format!("b{number}"), &one, 1),
        "b",
    );
    assert_eq!(order.matches('a').count(), 4, "{order}");
}

#[test]
fn a_trickle_does_not_starve_the_backlog_of_another_class() {
    // As large, and another class all the same.
    let like = shape("1", json!({"nodeSelector": {"zone": "a"}}));
    let order = slots_of_a_backlog_and_a_trickle(
        |world, number| world.offer("a", &format!("b{number}"), &like, 1),
        "a",
    );
    assert_eq!(order.matches('a').count(), 4, "{order}");
}
