//! The goals of the specification that this bench measures.

use anyhow::{Context, Result, ensure};
use springtide_e2e::bench::counted::Count;
use springtide_e2e::bench::report::{Goal, quantile};

use super::Measured;
use crate::comparison::{Comparison, Step};
use crate::contender::{Contender, RAISED, RAISED_WORKERS};
use crate::decision::{self, Decision};
use crate::drain::{self, Drain};
use crate::flood::Flood;
use crate::follows::{self, Follows};
use crate::latency::Latency;
use crate::load::{JOBS_PER_MINUTE, Load};
use crate::online::{Online, Phases};
use crate::pending::{OVERSUBSCRIBED, Pending};
use crate::queue::{self, Queue};
use crate::walk::Walk;
use crate::writes::{ALL_BUDGET, Counted, POD_GROUP_BUDGET, Writes};

/// One goal a figure, in the order of their identifiers.
pub(super) fn of(measured: &Measured) -> Result<Vec<Goal>> {
    let Measured { comparison, latency, containers, pending, load, queue, writes, decision, .. } = measured;
    let Measured { drain, online, flood, walk, follows, .. } = measured;
    let mut goals = Vec::new();
    goals.extend(comparison.iter().flat_map(throughput));
    goals.extend(writes.iter().flat_map(written));
    goals.extend(comparison.iter().flat_map(served));
    goals.extend(queue.iter().flat_map(memory));
    goals.extend(latency.iter().flat_map(latencies));
    goals.extend(containers.iter().map(real_containers));
    goals.extend(decision.iter().flat_map(decisions));
    goals.extend(pending.iter().flat_map(waits));
    goals.extend(drain.iter().flat_map(drained));
    goals.extend(walk.iter().flat_map(inside));
    goals.extend(queue.iter().flat_map(restart));
    if let Some(load) = load {
        goals.extend(steady(load)?);
    }
    goals.extend(walk.iter().map(above_max));
    goals.extend(online.iter().flat_map(beside_batch));
    goals.extend(flood.iter().map(flooded));
    goals.extend(follows.iter().flat_map(followed));
    Ok(goals)
}

fn throughput(comparison: &Comparison) -> Vec<Goal> {
    let share = comparison.median(Contender::Raised, Step::share);
    let what = format!("jobs/s as a share of R', write budget x {RAISED}, {RAISED_WORKERS} workers");
    let times = comparison.times(Contender::Raised, Contender::Job);
    let headroom = comparison.kwok / comparison.median(Contender::Raised, |step| step.run.rate);
    let mut goals = vec![
        Goal::at_least("G1-share-of-raw", &what, share, "ratio", 0.8),
        Goal::at_least(
            "G1-times-job",
            "jobs/s, to those of Kubernetes Job, tuned, with TTL 0",
            times,
            "ratio",
            1.7,
        ),
    ];
    for (contender, id, whose, bound) in [
        (Contender::Kueue, "G1-times-kueue", "Kueue + Job, tuned", 3.0),
        (Contender::JobShipped, "G1-times-job-as-shipped", "Kubernetes Job as shipped", 10.0),
        (Contender::KueueShipped, "G1-times-kueue-as-shipped", "Kueue + Job as shipped", 10.0),
    ] {
        // The peers can be left out.
        if comparison.steps(contender).next().is_some() {
            let what = format!("jobs/s, to those of {whose}, with TTL 0");
            let times = comparison.times(Contender::Raised, contender);
            goals.push(Goal::at_least(id, &what, times, "ratio", bound));
        }
    }
    let what = "pods/s that KWOK plays alone, to these jobs/s";
    goals.push(Goal::at_least("G1-kwok", what, headroom, "ratio", 2.0));
    goals
}

fn written(counted: &Counted) -> Vec<Goal> {
    let of_row = |Writes { what, id, own, own_budget, all, events: _ }: &Writes| {
        let goal = |of: &str, whose: &str, value: f64, budget: u32| {
            let what = format!("writes of {whose} a job, {what}");
            Goal::at_most(&format!("G2-{of}-{id}"), &what, value, "writes/job", f64::from(budget))
        };
        [goal("own", "the manager", *own, *own_budget), goal("all", "all components", *all, ALL_BUDGET)]
    };
    let mut goals: Vec<Goal> = counted.rows.iter().flat_map(of_row).collect();
    // Nothing of what these jobs do is more than their statuses tell.
    let own_events = counted.rows.iter().map(|row| row.events.controller).fold(f64::NAN, f64::max);
    let what = "Events of the manager a job, in the row of those with the most";
    goals.push(Goal::at_most("G2-own-events", what, own_events, "Events/job", 0.0));
    let [_, all] = counted.pod_group;
    let (what, most) = ("writes of all components on the PodGroup of a gang", f64::from(POD_GROUP_BUDGET));
    goals.push(Goal::at_most("G2-pod-group", what, all, "writes/gang", most));
    goals
}

/// Of all jobs at once, some of which wait or run so long that one more is due: the most that a job may take in any case.
fn served(comparison: &Comparison) -> [Goal; 2] {
    [(Contender::Shipped, "G2-timed-shipped"), (Contender::Raised, "G2-timed-raised")].map(
        |(contender, id)| {
            let what = format!(
                "writes of all components a job by the API server's own count, all jobs at once: {}",
                contender.title()
            );
            let a_job = |step: &Step| step.run.served.jobs_and_pods / step.run.jobs as f64;
            let value = comparison.median(contender, a_job);
            Goal::at_most(id, &what, value, "writes/job", f64::from(ALL_BUDGET))
        },
    )
}

fn full_queue() -> String {
    format!("{} jobs wait and {} run", queue::WAITING, queue::RUNNING)
}

fn memory(queue: &Queue) -> [Goal; 2] {
    // The goals are in MB.
    let mb = |mib: f64| mib * 1.048_576;
    let (what, full, over) = (full_queue(), mb(queue.full_mib), mb(queue.full_mib - queue.idle_mib));
    [
        Goal::at_most("G3-rss", &format!("manager RSS, {what}"), full, "MB", 60.0),
        Goal::at_most("G3-rss-over-idle", &format!("manager RSS over idle, {what}"), over, "MB", 25.0),
    ]
}

fn latencies(latency: &Latency) -> [Goal; 3] {
    let goal = |id, what: &str, spans: &[f64], bound| {
        Goal::below(id, &format!("{what}, p99"), 1000.0 * quantile(spans, 0.99), "ms", bound)
    };
    [
        goal("G4-create-to-pod", "create to pod", &latency.create_to_pod, 100.0),
        goal("G5-exit-to-outcome", "exit to outcome", &latency.exit_to_outcome, 200.0),
        goal("G6-exit-to-gone", "exit to pod gone", &latency.exit_to_gone, 500.0),
    ]
}

fn real_containers(latency: &Latency) -> Goal {
    let what = "exit to pod gone with real containers, p99";
    Goal::below("G6-real-containers", what, 1000.0 * quantile(&latency.exit_to_gone, 0.99), "ms", 1000.0)
}

/// G9.
pub(crate) fn decisions(decision: &Decision) -> [Goal; 2] {
    let goal = |id, what, time: std::time::Duration, bound| {
        let what = format!("CPU of the decisions that grant {} {what}", decision::JOBS);
        Goal::at_most(id, &what, 1000.0 * time.as_secs_f64(), "ms", bound)
    };
    [
        goal("G9-equal", "equal jobs", decision.equal, 5.0),
        goal("G9-distinct", "jobs with a shape each", decision.distinct, 500.0),
    ]
}

fn waits([ours, theirs, by_quota]: &[Pending; 3]) -> [Goal; 3] {
    let what = format!(
        "seconds that pods wait for a node, to those of Job's pods, {OVERSUBSCRIBED} x oversubscribed"
    );
    let unschedulable = ours.unschedulable as f64;
    [
        Goal::at_most("G10-pending", &what, ours.pod_seconds / theirs.pod_seconds, "ratio", 0.01),
        Goal::at_most("G10-unschedulable", "pods that fitted nowhere", unschedulable, "pods", 0.0),
        Goal::at_most(
            "G10-unschedulable-by-quota",
            "pods that fitted nowhere, with a quota of as much as the nodes have room for",
            by_quota.unschedulable as f64,
            "pods",
            0.0,
        ),
    ]
}

fn drained(drain: &Drain) -> [Goal; 5] {
    let pods = drain::PODS;
    let what = format!("from the end of the last of {pods} pods to the start of their peak");
    let share = |in_flight: usize| {
        format!("deletes/s of a drain of {pods} pods, as a share of the raw rate by {in_flight} in flight")
    };
    let (few, most) = (drain::FEW, drain::IN_FLIGHT);
    let inside = drain.inside as f64;
    let steepest = "pods that came back in the fullest second of a ramp, to its slope";
    [
        Goal::at_least("G11-before-start", &what, drain.margin, "s", 0.0),
        Goal::at_least("G11-share-of-raw-by-few", &share(few), drain.share_of_few(), "ratio", 0.9),
        Goal::at_least("G11-share-of-raw", &share(most), drain.share(), "ratio", 0.9),
        Goal::at_most("G11-starts-inside", "pods that started in the lead and the peak", inside, "pods", 0.0),
        Goal::at_most("G12-steepest", steepest, drain.steepest(), "ratio", 1.1),
    ]
}

/// Of the clocks, and of the walk that goes through windows too.
fn inside(walk: &Walk) -> [Goal; 2] {
    let goal = |id, counted: &Count, which: &str| {
        let what = format!("pods that started inside a window, {} {which}", counted.tries);
        Goal::at_most(id, &what, counted.violations as f64, "pods", 0.0)
    };
    [
        goal("G11-starts-inside-random-clocks", &walk.inside_by_clock, "random clocks"),
        goal("G11-starts-inside-random-steps", &walk.inside, "random steps of the admission"),
    ]
}

fn above_max(walk: &Walk) -> Goal {
    let Count { tries, starts, violations, what: _ } = &walk.above_max;
    let what = format!("grants above a queue's max, of those for {starts} pods in {tries} random steps");
    Goal::at_most("G15-used-above-max", &what, *violations as f64, "grants", 0.0)
}

/// Of both servers the same is asked; of shared CPUs the kernel gives each what it thinks is fair.
fn beside_batch(Online { own, shared, is_ahead: _ }: &Online) -> [Goal; 4] {
    let goal = |id, server: &str, when: &str, phases: &Phases, phase: &[f64]| {
        let what = format!("p99 of an online server {server}, {when}, to that alone");
        Goal::at_most(id, &what, phases.times_alone(phase), "ratio", 1.3)
    };
    let [beside, draining] = ["beside batch pods that fill its node", "while those are drained"];
    let [of_its_own, that_all_share] = ["with a CPU of its own", "on CPUs that all share"];
    [
        goal("online-beside", of_its_own, beside, own, &own.beside),
        goal("online-draining", of_its_own, draining, own, &own.draining),
        goal("online-shared-beside", that_all_share, beside, shared, &shared.beside),
        goal("online-shared-draining", that_all_share, draining, shared, &shared.draining),
    ]
}

/// Both ways: where the last ones go faster, the many that waited beside the first have slowed these.
fn flooded(flood: &Flood) -> Goal {
    let what = format!(
        "pods/s of the last tenth of {} jobs that are there at once, to those of the first",
        flood.jobs
    );
    let ratio = flood.last_to_first();
    Goal::new("flood-last-tenth", &what, ratio, "ratio", "0.8 to 1.2", (0.8..=1.2).contains(&ratio))
}

/// A node as kueue#3210 has it, and a job on a queue that is not there.
fn followed(follows: &Follows) -> [Goal; 4] {
    let tries = follows::TRIES;
    let longest = |spans: &[f64]| spans.iter().copied().fold(f64::NAN, f64::max);
    let of_node = |id, node: &str, spans: &[f64]| {
        let what = format!("from {node} takes pods to the first pod for it, the longest of {tries}");
        Goal::below(id, &what, longest(spans), "s", 1.0)
    };
    let missing = format!("from a job on a missing queue until it is Stalled, the longest of {tries}");
    [
        of_node("nodes-new", "when a new node", &follows.new_node.pod),
        of_node("nodes-uncordoned", "when a node that was cordoned", &follows.uncordoned.pod),
        Goal::at_most(
            "nodes-cordoned",
            "pods that were made for the room of a cordoned node",
            follows.on_cordoned as f64,
            "pods",
            0.0,
        ),
        Goal::at_most("missing-queue", &missing, longest(&follows.missing_queue), "s", 5.0),
    ]
}

fn restart(queue: &Queue) -> [Goal; 4] {
    let what = full_queue();
    let after = |figure: &str| format!("{figure} after kill -9, {what}");
    [
        Goal::below("G13-ready", &after("ready"), queue.ready, "s", 5.0),
        Goal::below("G13-decides", &after("deciding again"), queue.decides, "s", 5.0),
        Goal::at_most("G13-lost", "outcomes lost by it, Strict", queue.lost as f64, "outcomes", 0.0),
        Goal::at_most("G13-doubled", "outcomes doubled by it, Strict", queue.doubled as f64, "outcomes", 0.0),
    ]
}

fn steady(load: &Load) -> Result<[Goal; 2]> {
    ensure!(!load.admission.is_empty(), "a load without jobs");
    let what = format!("{JOBS_PER_MINUTE} jobs/min for {} min", load.minutes);
    let admission = quantile(&load.admission, 0.99);
    let core = load.core_percent().context("the load run")?;
    Ok([
        Goal::below("G14-admission", &format!("create to pod at {what}, p99"), admission, "s", 1.0),
        Goal::below("G14-cpu", &format!("of a core, used by the manager at {what}"), core, "%", 50.0),
    ])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::processes::Spent;
    use crate::walk::tests::walk;
    use crate::writes::Events;

    fn json(goals: impl IntoIterator<Item = Goal>) -> Vec<serde_json::Value> {
        goals.into_iter().map(|goal| serde_json::to_value(goal).unwrap()).collect()
    }

    fn pending(pod_seconds: f64, unschedulable: usize) -> Pending {
        Pending { tasks: 250, pod_seconds, unschedulable, pods: 250, seconds: 80.0, metric: None }
    }

    #[test]
    fn pods_wait_as_a_share_of_what_those_of_job_wait() {
        let goals = json(waits(&[pending(15.0, 0), pending(7_500.0, 200), pending(15.0, 2)]));
        assert_eq!((goals[0]["value"].as_f64(), goals[0]["met"].as_bool()), (Some(0.002), Some(true)));
        assert_eq!((goals[1]["met"].as_bool(), goals[2]["met"].as_bool()), (Some(true), Some(false)));
        let goals = json(waits(&[pending(150.0, 1), pending(7_500.0, 200), pending(15.0, 0)]));
        assert_eq!((goals[0]["value"].as_f64(), goals[0]["met"].as_bool()), (Some(0.02), Some(false)));
        assert_eq!((goals[1]["target"].as_str(), goals[1]["met"].as_bool()), (Some("<= 0"), Some(false)));
    }

    #[test]
    fn a_drain_that_is_late_or_slow_misses_and_so_does_a_ramp_that_is_too_steep() {
        let of = |margin, rate, inside, most| {
            let ramp = vec![18, most];
            let raw_by_few = 400.0;
            let drain = Drain { raw: 410.0, raw_by_few, told: 380, lead: 27, rate, margin, inside, ramp };
            json(drained(&drain)).iter().map(|goal| goal["met"] == true).collect::<Vec<_>>()
        };
        assert_eq!(of(0.5, 370.0, 0, 22), [true; 5]);
        assert_eq!(of(0.5, 365.0, 0, 22), [true, true, false, true, true], "each is judged by its own rate");
        assert_eq!(of(-0.5, 350.0, 1, 23), [false; 5]);
    }

    #[test]
    fn what_may_never_be_misses_with_the_first_time_that_it_was() {
        let walk = walk();
        let goals = json(inside(&walk).into_iter().chain([above_max(&walk)]));
        let found: Vec<_> = goals
            .iter()
            .map(|goal| (goal["id"].as_str().unwrap(), goal["value"].as_f64(), goal["met"] == true))
            .collect();
        assert_eq!(
            found,
            [
                ("G11-starts-inside-random-clocks", Some(3.0), false),
                ("G11-starts-inside-random-steps", Some(0.0), true),
                ("G15-used-above-max", Some(0.0), true),
            ]
        );
        assert_eq!(goals[2]["target"], "<= 0");
    }

    #[test]
    fn a_rate_that_falls_or_rises_by_more_than_a_fifth_misses() {
        let of = |pods: &[f64]| {
            let spent = Spent { seconds: 1.0, processes: Vec::new() };
            let flood = Flood { jobs: 50_000, rate: 40.0, pods: pods.to_vec(), gone: Vec::new(), spent };
            json([flooded(&flood)])[0]["met"] == true
        };
        assert!(of(&[40.0, 20.0, 33.0]) && of(&[40.0, 47.0]));
        assert!(!of(&[40.0, 31.0]) && !of(&[40.0, 49.0]) && !of(&[]));
    }

    #[test]
    fn one_event_of_the_manager_in_any_row_misses() {
        let row = |controller| Writes {
            what: "short".to_owned(),
            id: "short".to_owned(),
            own: 4.0,
            own_budget: 4,
            all: 8.0,
            events: Events { scheduler: 1.0, node: 1.0, controller },
        };
        let of = |events: &[f64]| {
            let counted = Counted {
                rows: events.iter().copied().map(row).collect(),
                job: 14.0,
                job_events: Events::default(),
                pod_group: [2.0, 2.0],
            };
            let goals = json(written(&counted));
            let own = goals.iter().find(|goal| goal["id"] == "G2-own-events").unwrap();
            (own["value"].as_f64(), own["met"] == true)
        };
        assert_eq!(of(&[0.0, 0.0]), (Some(0.0), true));
        assert_eq!(of(&[0.0, 0.005, 0.0]), (Some(0.005), false));
        assert!(!of(&[]).1, "nothing was counted");
    }

    #[test]
    fn the_longest_wait_for_a_node_or_a_word_counts() {
        let met = |follows: &Follows| -> Vec<bool> {
            json(followed(follows)).iter().map(|goal| goal["met"] == true).collect()
        };
        let mut follows = follows::tests::follows();
        assert_eq!(met(&follows), [true; 4]);
        follows.new_node.pod.push(1.2);
        follows.uncordoned.pod.push(1.0);
        follows.on_cordoned = 1;
        follows.missing_queue.push(5.1);
        assert_eq!(met(&follows), [false; 4]);
    }

    #[test]
    fn an_online_server_may_be_slower_by_a_third_at_most() {
        let phases = |beside, draining| Phases {
            alone: vec![2.0],
            beside: vec![beside],
            draining: vec![draining],
            batch: 10,
            drained: 10,
        };
        let online = Online { own: phases(2.5, 2.7), is_ahead: true, shared: phases(5.4, 2.2) };
        let goals = json(beside_batch(&online));
        let met: Vec<_> =
            goals.iter().map(|goal| (goal["id"].as_str().unwrap(), goal["met"] == true)).collect();
        assert_eq!(
            met,
            [
                ("online-beside", true),
                ("online-draining", false),
                ("online-shared-beside", false),
                ("online-shared-draining", true),
            ]
        );
    }

    #[test]
    fn a_figure_that_is_none_meets_no_goal() {
        let goals = json(waits(&[pending(0.0, 0), pending(0.0, 0), pending(0.0, 0)]));
        assert_eq!(goals[0]["met"], false, "nothing of nothing is no small share");
    }

    #[test]
    fn the_use_of_a_core_is_that_of_the_manager_over_the_run() {
        let load = crate::load::tests::load();
        let goals = json(steady(&load).unwrap());
        assert_eq!((goals[1]["value"].as_f64(), goals[1]["target"].as_str()), (Some(10.0), Some("< 50")));
        assert!(
            goals.iter().all(|goal| goal["met"] == true && goal["id"].as_str().unwrap().starts_with("G14-"))
        );
        let nobody = Spent { seconds: 60.0, processes: Vec::new() };
        steady(&Load { spent: nobody, ..load }).map(drop).unwrap_err();
    }
}
