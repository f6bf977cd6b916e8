//! Classes whose pods are refused, or not scheduled.

use super::*;

#[test]
fn the_first_creates_of_a_class_go_one_two_four() {
    let mut world = World::new(&[("n1", "100")]);
    let one = shape("1", json!({}));
    let job = world.offer("a", "j", &one, 50);
    let mut steps = Vec::new();
    for _ in 0..4 {
        world.admission.pass(at(1));
        let mut made = 0;
        while world.make(&job, "1", "a").is_some() {
            made += 1;
        }
        steps.push(made);
    }
    assert_eq!(steps, [1, 2, 4, 8]);
}

#[test]
fn a_refusal_pauses_the_class_until_a_pod_of_the_namespace_ends() {
    let mut world = World::new(&[("n1", "100")]);
    let one = shape("1", json!({}));
    let (job, other) = (world.offer("a", "j", &one, 5), world.offer("b", "k", &one, 5));
    world.admission.pass(at(1));
    let running = world.make(&job, "1", "a").unwrap();
    world.admission.pause(&job, Trouble::Quota, at(1));
    let verdict = world.admission.verdict(&job);
    assert_eq!((verdict.granted, verdict.wake_at), (1, Some(at(2))));
    assert_eq!(verdict.waiting.unwrap().reason, QueuedReason::ClassBackoff);
    world.settle(&[(other.clone(), "1", "b")]);
    assert_eq!(world.admission.verdict(&other).granted, 5, "another namespace has a quota of its own");
    world.end(&running);
    world.admission.pass(at(1));
    assert_eq!(world.admission.verdict(&job).granted, 1, "quota is free again");
    // Pauses double with each try, up to a minute.
    let mut now = 100;
    let pauses: Vec<_> = (0..8)
        .map(|_| {
            world.admission.pause(&job, Trouble::Quota, at(now));
            let until = world.admission.verdict(&job).wake_at.unwrap();
            let pause = until.duration_since(at(now)).as_secs();
            now += pause;
            pause
        })
        .collect();
    assert_eq!(pauses, [2, 4, 8, 16, 32, 60, 60, 60]);
    world.admission.pass(at(now - 1));
    assert_eq!(world.admission.verdict(&job).granted, 0);
    world.admission.pass(at(now));
    assert_eq!(world.admission.verdict(&job).granted, 1, "a pause ends by itself");
}

#[test]
fn a_pod_taken_back_counts_no_longer_though_its_job_wants_nothing_now() {
    let mut world = World::new(&[("n1", "100")]);
    let one = shape("1", json!({}));
    let (job, other) = (world.offer("a", "j", &one, 1), world.offer("a", "k", &one, 1));
    world.admission.pass(at(1));
    let pod = world.make_unbound(&job, "1", "a");
    world.admission.pause(&job, Trouble::Schedule, at(31));
    world.mark_deleted(&pod);
    assert_eq!(world.admission.verdict(&job).granted, 0, "nobody will run it");
    world.admission.withdraw(&job);
    world.remove(&pod);
    world.admission.pass(at(33));
    assert_eq!(world.admission.verdict(&other).granted, 1);
}

#[test]
fn a_pod_counts_in_the_class_in_which_it_was_made() {
    let mut world = World::new(&[("n1", "100")]);
    let one = shape("1", json!({}));
    let (job, other) = (world.offer("a", "j", &one, 1), world.offer("a", "k", &one, 1));
    world.admission.pass(at(1));
    let pod = world.make_unbound(&job, "1", "a");
    world.admission.pause(&other, Trouble::Schedule, at(31));
    world.ask(Demand { priority: 5, ..demand("a", "j", &one) });
    world.end(&pod);
    world.admission.pass(at(33));
    assert_eq!(world.admission.verdict(&other).granted, 1);
}

#[test]
fn a_pause_outlasts_the_last_job_of_its_class() {
    let mut world = World::new(&[("n1", "100")]);
    let one = shape("1", json!({}));
    let mut now = 0;
    let mut waits = Vec::new();
    for _ in 0..4 {
        let job = world.offer("a", "j", &one, 1);
        let offered = now;
        while world.admission.verdict(&job).granted == 0 {
            world.admission.pass(at(now));
            now += 1;
        }
        waits.push(now - 1 - offered);
        // Its pod is not scheduled in time; while it goes, the job wants nothing.
        let pod = world.make_unbound(&job, "1", "a");
        now += 30;
        world.admission.pause(&job, Trouble::Schedule, at(now));
        world.mark_deleted(&pod);
        world.admission.withdraw(&job);
        world.admission.pass(at(now));
        world.remove(&pod);
    }
    assert_eq!(waits, [0, 1, 2, 4]);
    world.admission.pass(at(now + 100));
    assert!(world.admission.classes.is_empty() && world.admission.fits.is_empty());
}

#[test]
fn what_is_refused_at_one_instant_is_one_refusal_and_stops_the_rest() {
    let mut world = World::new(&[("n1", "100")]);
    let one = shape("1", json!({}));
    let proven = world.offer("a", "proven", &one, 40);
    world.settle(&[(proven.clone(), "1", "a")]);
    let jobs: Vec<Uid> = (0..30).map(|number| world.offer("a", &format!("j{number}"), &one, 1)).collect();
    world.admission.pass(at(10));
    assert!(jobs.iter().all(|job| world.admission.verdict(job).granted == 1));
    world.admission.pause(&jobs[0], Trouble::Quota, at(10));
    assert!(jobs.iter().all(|job| world.admission.verdict(job).granted == 0), "they would be refused too");
    for job in &jobs[1..] {
        world.admission.pause(job, Trouble::Quota, at(10));
    }
    assert_eq!(world.admission.verdict(&jobs[0]).wake_at, Some(at(11)));
    world.nothing_overcommitted();
    world.admission.pass(at(11));
    let tries = jobs.iter().filter(|job| world.admission.verdict(job).granted == 1).count();
    assert_eq!(tries, 1);
}

#[test]
fn a_job_whose_pod_cannot_be_created_lets_the_others_of_its_class_go_first() {
    let mut world = World::new(&[("n1", "100")]);
    let one = shape("1", json!({}));
    let bad = world.ask(Demand { created: at(0), ..demand("a", "bad", &one) });
    let good: Vec<_> = (1..4)
        .map(|n| world.ask(Demand { created: at(n), ..demand("a", &format!("good-{n}"), &one) }))
        .collect();
    let mut now = 10;
    let mut tries = 0;
    while good.iter().any(|job| world.admission.verdict(job).granted == 0) {
        assert!(now < 200, "the others wait behind it");
        world.admission.pass(at(now));
        if world.admission.jobs[&bad].in_flight.len() == 1 {
            tries += 1;
            world.admission.pause(&bad, Trouble::Create, at(now));
        }
        for job in &good {
            world.make(job, "1", "a");
        }
        now += 1;
    }
    assert_eq!(tries, 1);
    // It is tried again, after those that came before its refusal and before those that come later.
    let later = world.ask(Demand { created: at(now), ..demand("a", "later", &one) });
    for _ in 0..5 {
        world.admission.pass(at(now));
        now += 1;
    }
    assert_eq!(world.admission.jobs[&bad].in_flight.len(), 1);
    world.admission.pause(&bad, Trouble::Create, at(now));
    world.admission.pass(at(now + 60));
    assert_eq!(world.admission.verdict(&later).granted, 1);
    // Its line is whole: nobody stands in it twice.
    world.admission.withdraw(&bad);
    let lines = &world.admission.lines;
    assert!(lines.values().all(|line| !line.waiting.iter().any(|(_, uid)| *uid == bad)));
}

#[test]
fn a_pause_leaves_the_room_of_pods_that_exist_though_nobody_has_seen_them() {
    let mut world = World::new(&[("n1", "4")]);
    let one = shape("1", json!({}));
    let job = world.offer("a", "j", &one, 4);
    world.admission.pass(at(1));
    world.make(&job, "1", "a").unwrap();
    world.admission.pass(at(1));
    assert_eq!(world.admission.verdict(&job).granted, 3, "one runs, two may be made");
    // One of the two was made, the other refused.
    world.admission.created(&job, &ObjectKey::new("a", "p2"));
    world.admission.pause(&job, Trouble::Quota, at(1));
    assert_eq!(world.admission.verdict(&job).granted, 2);
    let other = world.offer("b", "k", &one, 4);
    world.settle(&[(other.clone(), "1", "b")]);
    assert_eq!(world.admission.verdict(&other).granted, 2, "room for two is left, not for three");
    assert_eq!(world.make(&job, "1", "a").as_deref(), Some("p4"));
    world.nothing_overcommitted();
    assert_eq!(world.admission.verdict(&job).granted, 2);
}

#[test]
fn a_pod_that_nobody_ever_sees_holds_its_room_until_its_job_is_planned_again() {
    let mut world = World::new(&[("n1", "1")]);
    let one = shape("1", json!({}));
    let job = world.offer("a", "j", &one, 1);
    world.admission.pass(at(1));
    world.admission.created(&job, &ObjectKey::new("a", "p1"));
    world.admission.pause(&job, Trouble::Create, at(1));
    assert_eq!(world.admission.verdict(&job).granted, 1);
    // It came and went between two looks; the job has it counted, and asks for nothing more.
    world.offer("a", "j", &one, 0);
    let other = world.offer("b", "k", &one, 1);
    world.admission.pass(at(2));
    assert_eq!(world.admission.verdict(&other).granted, 1);
}

#[test]
fn a_job_without_grants_stays_in_line_when_its_class_pauses_anew() {
    let mut world = World::new(&[("n1", "4")]);
    let job = world.offer("a", "j", &shape("1", json!({})), 1);
    world.admission.pass(at(1));
    world.admission.pause(&job, Trouble::Quota, at(1));
    // Its create was on its way for longer than that pause.
    world.admission.pause(&job, Trouble::Create, at(10));
    world.admission.pass(at(100));
    assert_eq!(world.admission.verdict(&job).granted, 1);
}
