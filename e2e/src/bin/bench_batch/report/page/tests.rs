use std::time::Duration;

use super::*;
use crate::bare::Bare;
use crate::comparison::Step;
use crate::contender::Contender;
use crate::processes::{MANAGER, Spent};
use crate::report::goals;
use crate::served::Served;
use crate::throughput::Run;
use crate::walk::tests::walk;
use crate::{Options, Part, stored};
use clap::{Parser, ValueEnum};
use springtide_e2e::bench::lives::Lives;
use springtide_e2e::bench::parts::Log;
use springtide_e2e::bench::processes::Process;
use springtide_e2e::bench::scrape::Traffic;
use springtide_e2e::bench::stored::Done;

fn lives(in_flight: usize, rate: f64) -> Lives {
    Lives { in_flight, rate, p50: 0.5, p99: 0.9 }
}

fn spent() -> Spent {
    let process = |name: &str, cpu_seconds| Process {
        name: name.to_owned(),
        cpu_seconds,
        resident_mib: 40.0,
        peak_mib: 64.0,
    };
    Spent { seconds: 250.0, processes: vec![process("etcd", 80.0), process(MANAGER, 20.0)] }
}

fn step(contender: Contender, rate: f64, traffic: Option<Traffic>) -> Step {
    let run = Run {
        jobs: 10_000,
        rate,
        tenths: vec![38.0, 44.0],
        spent: spent(),
        traffic,
        served: Served { jobs_and_pods: 85_000.0, events: 10_000.0 },
        create_to_pod: vec![0.1],
        exit_to_gone: vec![0.2],
    };
    Step { contender, run, around: [lives(256, 49.0), lives(256, 51.0)] }
}

fn traffic() -> Traffic {
    Traffic {
        writes: vec![(["spec".to_owned(), "pods".to_owned()], 20_000.0)],
        in_flight: 7.9,
        latency: 0.05,
        throttled: vec![("window".to_owned(), 12.0)],
    }
}

fn comparison() -> Comparison {
    Comparison {
        bare: Bare { sweep: vec![lives(32, 140.0)], watched: vec![(3, lives(32, 120.0))] },
        sweep: vec![lives(256, 52.0)],
        rounds: vec![vec![
            step(Contender::Shipped, 39.0, Some(traffic())),
            step(Contender::Raised, 45.0, Some(traffic())),
            step(Contender::Job, 25.0, None),
            step(Contender::Kueue, 9.0, None),
            step(Contender::AllShipped, 36.0, Some(traffic())),
            step(Contender::JobShipped, 4.0, None),
            step(Contender::KueueShipped, 3.0, None),
        ]],
        kwok: 200.0,
        sizes: [2_500, 3_900],
    }
}

fn rendered(measured: &Measured) -> String {
    of(measured, &goals::of(measured).unwrap(), "Written by a test.").unwrap()
}

/// Something of each part.
fn measured() -> Measured {
    Measured {
        comparison: Some(comparison()),
        load: Some(Load {
            minutes: 10,
            admission: vec![0.01; 10_000],
            exit_to_outcome: vec![0.02; 10_000],
            spent: spent(),
            kept: 3_200,
        }),
        drain: Some(Drain {
            raw: 500.0,
            raw_by_few: 400.0,
            told: 380,
            lead: 27,
            rate: 372.0,
            margin: 1.5,
            inside: 0,
            ramp: vec![18, 21],
        }),
        flood: Some(Flood {
            jobs: 50_000,
            rate: 40.0,
            pods: vec![40.0, 44.0],
            gone: vec![30.0, 80.0],
            spent: spent(),
        }),
        online: Some(Online { own: phases(1.2), is_ahead: true, shared: phases(2.5) }),
        walk: Some(walk()),
        follows: Some(crate::follows::tests::follows()),
        latency: Some(latency(None)),
        containers: Some(latency(Some(events(0.0)))),
        pending: Some([15.0, 7_500.0, 14.5].map(pending)),
        queue: Some(Queue {
            idle_mib: 13.0,
            full_mib: 61.25,
            ready: 1.6,
            decides: 1.9,
            ended: 400,
            unattended: 97,
            lost: 0,
            doubled: 0,
        }),
        writes: Some(Counted {
            rows: vec![Writes {
                what: "short, Strict".to_owned(),
                id: "strict".to_owned(),
                own: 5.0,
                own_budget: 5,
                all: 9.01,
                events: events(0.0),
            }],
            job: 14.5,
            job_events: events(3.0),
            pod_group: [2.0, 2.02],
        }),
        decision: Some(Decision {
            equal: Duration::from_micros(1_530),
            distinct: Duration::from_nanos(175_100_001),
        }),
        ..Measured::new(&Options::parse_from(["bench-batch"]))
    }
}

fn phases(beside: f64) -> Phases {
    Phases { alone: vec![1.0], beside: vec![beside], draining: vec![1.1], batch: 14, drained: 14 }
}

fn latency(events: Option<Events>) -> Latency {
    Latency {
        create_to_pod: vec![0.004, 0.1 + 0.2],
        exit_to_outcome: vec![0.006],
        exit_to_gone: vec![0.012, 1.0 / 3.0],
        spent: spent(),
        events,
    }
}

fn events(controller: f64) -> Events {
    Events { scheduler: 1.0, node: 0.995, controller }
}

fn pending(pod_seconds: f64) -> Pending {
    Pending { tasks: 250, pod_seconds, unschedulable: 0, pods: 250, seconds: 80.5, metric: Some(14.9) }
}

#[test]
fn every_run_has_its_row_in_every_table() {
    let page = rendered(&measured());
    for row in [
        "| G1-share-of-raw | jobs/s as a share of R', write budget x 10, 32 workers | 0.900 ratio | >= 0.8 | met |",
        "| G1-times-job | jobs/s, to those of Kubernetes Job, tuned, with TTL 0 | 1.800 ratio | >= 1.7 | met |",
        "| BatchJob, write budget as shipped | 10000 | 39.0 | 49.0, 51.0 | 78 % | 38.0, 44.0 | 10.0 |",
        "| G1-times-kueue | jobs/s, to those of Kueue + Job, tuned, with TTL 0 | 5.000 ratio | >= 3 | met |",
        "| G1-times-kueue-as-shipped | jobs/s, to those of Kueue + Job as shipped, with TTL 0 | 15.000 ratio | >= 10 | met |",
        "| Kueue + Job, as shipped | 10000 | 3.0 |",
        "With everything as shipped, the jobs/s of BatchJob are 9.0 times those of Kubernetes Job and 12.0 times those of Kueue + Job.",
        "| BatchJob, write budget x 10, 32 workers | 2.00 | 64 | 2.00 | 7.9 | 50.0 ms | window 12 |",
        "- BatchJob, write budget x 10, 32 workers: spec pods 2.00",
        "| Kubernetes Job, tuned | 250 | 80.0, 40 | ",
        "| R | 32 | 3 | 120.0 | 0.50 s | 0.90 s |",
        "| steady load | 250 |",
        "| all at once: Kubernetes Job, tuned | exit → pod gone | 200 | 200 |",
        "| pods/s of each tenth of them, in the order in which they went | 40.0 44.0 |",
        "| jobs/s of each tenth of the BatchJobs, likewise | 30.0 80.0 |",
        "| manager, of a core | 8.0 % |",
        "| G11-share-of-raw-by-few | deletes/s of a drain of 1000 pods, as a share of the raw rate by 16 in flight | 0.930 ratio | >= 0.9 | met |",
        "| G11-share-of-raw | deletes/s of a drain of 1000 pods, as a share of the raw rate by 64 in flight | 0.744 ratio | >= 0.9 | **not met** |",
        "| deletes a second of the drain | 372, 93 % of the latter, 74 % of the former |",
        "From 16 requests side by side the server takes 80 % of the deletes that it takes from 64, and answers each in 40 instead of 128 ms.",
        "| pods that came back, by the second | 18 21 |",
        "| BatchJob, write budget as shipped | 8.50 | 1.00 |",
        "| G15-used-above-max | grants above a queue's max, of those for 4711 pods in 1000000 random steps | 0.000 grants | <= 0 | met |",
        "| pods created inside a window, by the clock of the process | 1000 | 4711 | 3 |",
        "| a CPU of its own | beside 14 batch pods that keep every core busy that they get | 1.20 | 1.20 | 1.20 | 1.20 |",
        "| CPUs that all share | beside 14 batch pods that keep every core busy that they get | 2.50 | 2.50 | 2.50 | 2.50 |",
        "who asks are kept, the latter ahead of all else there (SCHED_FIFO); of the last",
        "| nodes-cordoned | pods that were made for the room of a cordoned node | 0.000 pods | <= 0 | met |",
        "| a new node takes pods | a pod for it appears | 0.05 | 0.30 |",
    ] {
        assert!(page.contains(row), "{row}\n{page}");
    }
    let columns = |line: &&str| line.starts_with('|');
    for table in page.split("\n\n") {
        let widths: Vec<usize> =
            table.lines().filter(columns).map(|line| line.matches('|').count()).collect();
        assert!(widths.windows(2).all(|pair| pair[0] == pair[1]), "{table}");
    }
}

#[test]
fn what_was_not_measured_has_no_section_and_what_failed_is_named() {
    let mut measured = Measured::new(&Options::parse_from(["bench-batch"]));
    measured.log.failures.push(("a full queue".to_owned(), "the manager has ended".to_owned()));
    measured.log.without_node("containers".to_owned());
    let page = rendered(&measured);
    assert!(page.contains("**Not measured**: a full queue. the manager has ended"), "{page}");
    assert!(page.contains("**Not measured**: containers. No real node is wanted"), "{page}");
    for section in ["## Throughput", "## Latency", "## Writes", "## A full queue", "batch.svg", "G1"] {
        assert!(!page.contains(section), "{section}\n{page}");
    }
}

#[test]
fn what_was_stored_and_is_taken_makes_the_same_page() {
    let mut before = measured();
    // Without lives, and without writes, there is no time that they took.
    let comparison = before.comparison.as_mut().unwrap();
    comparison.sweep.push(Lives { in_flight: 1, rate: 0.0, p50: f64::NAN, p99: f64::NAN });
    comparison.bare.watched[0].1.rate = 0.1 + 0.2;
    comparison.rounds[0].push(Step {
        contender: Contender::Workers(16),
        ..step(Contender::Raised, 44.0, Some(Traffic { latency: f64::NAN, ..traffic() }))
    });
    let mut after = Measured::new(&Options::parse_from(["bench-batch", "--resume"]));
    for part in Part::value_variants() {
        let result = stored::result(*part, &before).unwrap().unwrap();
        let text = serde_json::to_string(&result).unwrap();
        stored::put(*part, &mut after, serde_json::from_str(&text).unwrap()).unwrap();
    }
    let page = rendered(&before);
    assert!(page.contains("| R' | 1 | the generator's | 0.0 | NaN s | NaN s |"), "{page}");
    assert_eq!(rendered(&after), page);
}

#[test]
fn the_page_says_when_parts_were_measured_if_that_was_not_in_one_go() {
    let done = |part: &str, end: &str, commit: &str, is_taken| Done {
        part: part.to_owned(),
        commit: commit.to_owned(),
        machine: "2 cores".to_owned(),
        end: end.parse().unwrap(),
        is_taken,
        is_elsewhere: false,
    };
    let throughput = |is_taken| done("throughput", "2026-11-11T08:59:59.9Z", "0a1b2c3", is_taken);
    let latency = done("latency", "2026-11-12T17:03:00Z", "4d5e6f7", false);
    let sentence = |done| {
        let page = rendered(&Measured { log: Log { done, ..Log::default() }, ..measured() });
        assert!(!page.contains("on another machine"), "{page}");
        let sentence = page.lines().find(|line| line.starts_with("Parts are independent")).unwrap();
        sentence.to_owned()
    };
    let once = sentence(vec![throughput(false), latency.clone()]);
    assert!(once.contains("beside it. Times of single runs"), "{once}");
    let twice = sentence(vec![throughput(true), latency.clone()]);
    assert!(
        twice.contains(
            "not measured in one go, but throughput until 2026-11-11 08:59 UTC (commit 0a1b2c3); \
             latency until 2026-11-12 17:03 UTC (commit 4d5e6f7), with nothing changed"
        ),
        "{twice}"
    );
    assert!(!twice.contains("2 cores"), "the beginning says it: {twice}");

    let elsewhere = Done { machine: "4 cores".to_owned(), is_elsewhere: true, ..throughput(true) };
    let log = Log { done: vec![elsewhere, latency], ..Log::default() };
    let page = rendered(&Measured { log, ..measured() });
    for part in [
        "Parts of it were measured before, on another machine, which is named at the end.",
        "throughput until 2026-11-11 08:59 UTC on 4 cores (commit 0a1b2c3); \
         latency until 2026-11-12 17:03 UTC on 2 cores (commit 4d5e6f7), with nothing changed",
        "Every comparison is within one part, and so on one machine.",
    ] {
        assert!(page.contains(part), "{part}\n{page}");
    }
}
