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
