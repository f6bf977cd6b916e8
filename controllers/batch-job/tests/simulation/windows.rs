//! Peak windows under clocks at random: whatever the clock of the process shows, and wherever in a day of whatever time
//! zone the window lies, no pod starts inside.

use crate::cluster::{is_deleting, text};
use crate::lives::spec;
use crate::peaks::{Random, kubelets, second};
use crate::world::World;
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

/// Clocks of the sample, and of the long run (`SPRINGTIDE_LONG=1`).
const SAMPLE: u64 = 20;
const LONG: u64 = 1_000;
/// They share neither the day nor, all of them, the minute.
const ZONES: [&str; 5] = ["UTC", "Asia/Shanghai", "America/New_York", "Asia/Kathmandu", "Pacific/Auckland"];
/// By so many milliseconds at most a clock is off.
const MOST_OFF: i64 = 12 * 3_600_000;

/// What came of some clocks.
#[derive(Default)]
struct Tally {
    /// Pods that were created, and those of them that the window concerns.
    starts: usize,
    concerned: usize,
    /// Of those, the ones inside.
    inside: Vec<String>,
}

fn number(random: &mut Random, bound: i64) -> i64 {
    i64::try_from(random.below(bound.unsigned_abs())).unwrap()
}

/// A process with one clock, from before, amid or after a window until all has come back.
fn play(seed: u64, tally: &mut Tally) {
    let mut random = Random(seed);
    let mut world = World::new("12");
    let ahead = number(&mut random, 2 * MOST_OFF) - MOST_OFF;
    world.put_clock_ahead(SignedDuration::from_millis(ahead));
    // Windows begin and end with a minute. Some are over when the process begins, amid others it does.
    let minute = world.now().as_second() / 60 - 1 + number(&mut random, 4);
    let start = Timestamp::from_second(60 * minute).unwrap();
    let end = start + SignedDuration::from_mins(1 + number(&mut random, 2));
    let (lead, ramp) = (number(&mut random, 100), number(&mut random, 30));
    let zone = ZONES[usize::try_from(seed).unwrap() % ZONES.len()];
    let local = |at: Timestamp| at.in_tz(zone).unwrap().strftime("%H:%M").to_string();
    world.set_queue(
        "q",
        Some(json!({
            "maxTier": "Guaranteed",
            "peakWindows": [{
                "name": "peak",
                "window": {"start": local(start), "end": local(end), "timeZone": zone},
                "actions": [
                    {"tier": "BestEffort", "action": "Drain"}, {"tier": "Standard", "action": "Hold"},
                ],
                "leadSeconds": lead,
                "drainPodsPerSecond": 5,
                "resume": {"rampSeconds": ramp, "jitterSeconds": 5},
            }],
        })),
    );
    // As much as there is room for, so that each has its part of what comes back.
    for (name, tier, parallelism, gang) in [
        ("drained", "BestEffort", 4, 1),
        ("gang", "BestEffort", 3, 3),
        ("held", "Standard", 4, 1),
        ("kept", "Guaranteed", 1, 1),
    ] {
        let job = json!({
            "queueName": "q", "tier": tier, "completions": 5_000, "parallelism": parallelism,
            "minParallelism": gang, "interruption": {"graceSeconds": number(&mut random, 20)},
            "template": {"spec": {"containers": [
                {"name": "main", "image": "app", "resources": {"requests": {"cpu": "1"}}}]}},
        });
        world.cluster.submit(name, spec(job));
    }
    let last = end.max(world.now()) + SignedDuration::from_secs(ramp + 20);
    let concerned_before = tally.concerned;
    while world.now() < last {
        if random.below(60) == 0 {
            world.restart();
        }
        let before = world.cluster.log.len();
        // At times nobody is there.
        if random.below(20) == 0 {
            kubelets(&mut world);
        } else {
            second(&mut world);
        }
        let now = world.now();
        // What was refused has a reason behind its name.
        let created = world.cluster.log[before..].iter().filter_map(|line| line.strip_prefix("create pods "));
        for pod in created.filter(|pod| !pod.contains(':')) {
            tally.starts += 1;
            let from = match pod.split('-').next().unwrap() {
                "drained" | "gang" => start - SignedDuration::from_secs(lead),
                "held" => start,
                "kept" => continue,
                other => panic!("a pod of {other}"),
            };
            tally.concerned += 1;
            if (from..end).contains(&now) {
                tally.inside.push(format!("seed {seed}: {pod} at {now}, the window is {start} to {end}"));
            }
        }
        end_some(&mut world, &mut random);
        world.cluster.pass_time(500 + number(&mut random, 2500));
    }
    assert!(tally.concerned > concerned_before, "seed {seed}: nothing has ever started");
    assert_eq!(world.cluster.violations, [] as [String; 0], "seed {seed}");
}

/// Some tasks end, for the next ones to start if they may.
fn end_some(world: &mut World, random: &mut Random) {
    let runs = |pod: &Value| text(pod, "/status/phase") == "Running" && !is_deleting(pod);
    let running = world.cluster.pods.objects.iter().filter(|(_, pod)| runs(pod));
    let names: Vec<String> = running.map(|(name, _)| name.clone()).collect();
    for name in names {
        if random.below(20) == 0 {
            world.cluster.finish(&name, 0);
        }
    }
}

#[test]
fn no_pod_starts_inside_a_window_whatever_the_clock_shows() {
    let long = std::env::var("SPRINGTIDE_LONG").is_ok_and(|long| long == "1");
    let clocks = if long { LONG } else { SAMPLE };
    let mut tally = Tally::default();
    for seed in 0..clocks {
        play(seed, &mut tally);
    }
    // The bench reads this line.
    let Tally { starts, concerned: _, inside } = tally;
    let counted = json!({
        "what": "clocks-starts-inside", "tries": clocks, "starts": starts, "violations": inside.len(),
    });
    println!("counted: {counted}");
    assert_eq!(inside, [] as [String; 0]);
}
