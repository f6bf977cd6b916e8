//! A load as Kueue tests its scheduler with, on a clock of its own: a cohort of queues in which small, medium and large
//! jobs come faster than they can run, and each change of a pod is followed by a pass.

use super::queues::lending;
use super::*;

/// Thousandths of a second of a step.
const STEP: i64 = 50;
const QUEUES: usize = 6;
/// Cores that each of them has of its own.
const NOMINAL: i64 = 20;

/// Jobs of one kind: how many in each queue, a new one every so many ms, for so long, of this priority and cores.
struct Kind {
    count: i64,
    every: i64,
    runs: i64,
    priority: i32,
    cores: i64,
}

const KINDS: [Kind; 3] = [
    Kind { count: 70, every: 100, runs: 200, priority: 50, cores: 1 },
    Kind { count: 20, every: 500, runs: 500, priority: 100, cores: 5 },
    Kind { count: 10, every: 1200, runs: 1000, priority: 200, cores: 20 },
];

struct Waiting {
    comes: i64,
    kind: usize,
    demand: Demand,
}

/// What became of the jobs: when the last one ended and the average wait of each kind, in ms, and how many pods ended for
/// others.
#[derive(Debug)]
struct Course {
    ends: i64,
    waits: [f64; 3],
    preempted: usize,
}

fn run(rules: &QueueRules) -> Course {
    let mut world = World::new(&[]);
    for number in 0..QUEUES {
        world.admission.node_changed(&node(&format!("n{number}"), "40", json!({})));
    }
    let mut to_come = Vec::new();
    for number in 0..QUEUES {
        let queue = world.queue(&format!("q{number}"), rules);
        for (kind, Kind { count, every, priority, cores, .. }) in KINDS.iter().enumerate() {
            let shape = shape(&cores.to_string(), json!({}));
            for job in 1..=*count {
                let comes = job * every;
                let name = format!("{number}-{kind}-{job}");
                let created = Timestamp::from_millisecond(comes).unwrap();
                let demand = demand("a", &name, &shape);
                let demand = Demand { queue: queue.clone(), priority: *priority, created, ..demand };
                to_come.push(Waiting { comes, kind, demand });
            }
        }
    }
    to_come.sort_by_key(|waiting| std::cmp::Reverse(waiting.comes));
    let jobs = to_come.len();
    let mut open: BTreeMap<Uid, (usize, i64, Demand)> = BTreeMap::new();
    // By job: the pod, and when it ends.
    let mut running: BTreeMap<Uid, (String, i64)> = BTreeMap::new();
    let (mut waited, mut preempted, mut ended) = ([0; 3], 0, 0);
    let mut now = 0;
    while ended < jobs {
        now += STEP;
        assert!(now < 600_000, "{ended} of {jobs} have ended");
        while to_come.last().is_some_and(|waiting| waiting.comes <= now) {
            let Some(Waiting { comes, kind, demand }) = to_come.pop() else { break };
            open.insert(demand.uid.clone(), (kind, comes, demand.clone()));
            world.ask(demand);
        }
        let over: Vec<Uid> =
            running.iter().filter(|(_, (_, ends))| *ends <= now).map(|(job, _)| job.clone()).collect();
        for job in over {
            let Some((pod, _)) = running.remove(&job) else { continue };
            world.end(&pod);
            world.admission.withdraw(&job);
            open.remove(&job);
            ended += 1;
        }
        world.admission.pass(Timestamp::from_millisecond(now).unwrap());
        let claimed: Vec<Uid> =
            running.keys().filter(|job| world.admission.verdict(job).reclaim.is_some()).cloned().collect();
        for job in claimed {
            let Some((pod, _)) = running.remove(&job) else { continue };
            world.remove(&pod);
            let (kind, comes, demand) = &open[&job];
            waited[*kind] -= now - comes;
            preempted += 1;
            world.ask(demand.clone());
        }
        let waiting: Vec<Uid> = open.keys().filter(|job| !running.contains_key(*job)).cloned().collect();
        for job in waiting {
            let (kind, comes, _) = &open[&job];
            let Kind { cores, runs, .. } = KINDS[*kind];
            if let Some(pod) = world.make(&job, &cores.to_string(), "a") {
                waited[*kind] += now - comes;
                running.insert(job, (pod, now + runs));
            }
        }
        world.nothing_overcommitted();
    }
    let average = |kind: usize| waited[kind] as f64 / (KINDS[kind].count * QUEUES as i64) as f64;
    Course { ends: now, waits: std::array::from_fn(average), preempted }
}

/// In which all would have run were the quota of the cohort full from the first moment on, in ms.
fn floor() -> i64 {
    let work: i64 = KINDS.iter().map(|kind| kind.count * kind.cores * kind.runs).sum();
    work / NOMINAL
}

fn rules(preemptible_by: Vec<Tier>) -> QueueRules {
    let of_tier = TierRules { preemptible_by, ..TierRules::default() };
    QueueRules { tiers: BTreeMap::from([(Tier::BestEffort, of_tier)]), ..lending(NOMINAL, 120) }
}

#[test]
fn a_cohort_under_load_uses_its_quota_up_and_nobody_waits_for_long() {
    let course = run(&rules(Vec::new()));
    assert_eq!(course.preempted, 0);
    assert!(course.ends < floor() * 3 / 2, "{course:?}, and {} were enough", floor());
    assert!(course.waits.iter().all(|wait| *wait < 5_000.0), "{course:?}");
}

#[test]
fn what_may_preempt_waits_least_and_costs_the_others_no_more_than_time() {
    let course = run(&rules(vec![Tier::BestEffort]));
    let [small, _, large] = course.waits;
    assert!(course.preempted > 0 && large < 500.0 && large < small, "{course:?}");
    assert!(course.ends < floor() * 3 / 2, "{course:?}, and {} were enough", floor());
}
