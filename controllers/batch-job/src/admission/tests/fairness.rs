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

#[test]
fn priority_orders_inside_a_namespace_and_buys_nothing_from_others() {
    let mut world = World::new(&[("n1", "1")]);
    let one = shape("1", json!({}));
    let ask = |world: &mut World, namespace: &str, name: &str, priority| {
        world.ask(Demand { priority, ..demand(namespace, name, &one) })
    };
    let mut jobs = Vec::new();
    for number in 0..4 {
        jobs.push(("a", "high", ask(&mut world, "a", &format!("high{number}"), 1000)));
        jobs.push(("b", "low", ask(&mut world, "b", &format!("low{number}"), -5)));
    }
    jobs.push(("b", "high", ask(&mut world, "b", "late", 5)));
    let mut order = Vec::new();
    while !jobs.is_empty() {
        world.admission.pass(at(1));
        let next = jobs.iter().position(|(.., job)| world.admission.verdict(job).granted > 0).unwrap();
        let (namespace, kind, job) = jobs.remove(next);
        let pod = world.make(&job, "1", namespace).unwrap();
        world.admission.withdraw(&job);
        world.end(&pod);
        order.push((namespace, kind));
    }
    assert_eq!(order[..4], [("a", "high"), ("b", "high"), ("a", "high"), ("b", "low")]);
    assert_eq!(order.iter().filter(|(namespace, _)| *namespace == "b").count(), 5);
    assert_eq!(order[7], ("b", "low"), "in turn to the end: {order:?}");
}

#[test]
fn a_lower_priority_gets_what_the_higher_one_leaves() {
    let mut world = World::new(&[("n1", "40")]);
    let (one, two) = (shape("1", json!({})), shape("2", json!({})));
    let high = world.ask(Demand { priority: 1, target: 17, ..demand("a", "high", &two) });
    let low = world.offer("a", "low", &one, 40);
    world.settle(&[(high.clone(), "2", "a")]);
    assert_eq!(world.admission.verdict(&high).granted, 17);
    world.settle(&[(low.clone(), "1", "a")]);
    assert_eq!(world.admission.verdict(&low).granted, 6);
    world.nothing_overcommitted();
}
