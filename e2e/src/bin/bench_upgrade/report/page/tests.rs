use std::collections::BTreeMap;

use super::*;
use crate::conflicts::tests::conflicts;
use crate::crashes::tests::crashes;
use crate::names::Names;
use crate::random::tests::random;
use crate::report::goals;
use crate::throughput::tests::upgraded;
use crate::{Options, Part, stored};
use clap::{Parser, ValueEnum};
use springtide_e2e::bench::at_rest::{Large, Rest};
use springtide_e2e::bench::requests::{Compared, Requests};

fn options() -> Options {
    Options::parse_from(["bench-upgrade"])
}

fn rendered(measured: &Measured) -> String {
    of(measured, &options(), &goals::of(measured), "Written by a test.").unwrap()
}

fn requests(failed: [u64; 2]) -> Requests {
    Requests {
        turns: 40,
        answered: 1_000_000,
        failed,
        p50: [0.0004, 0.0002],
        p99: [0.003, 0.002],
        slowest: 0.25,
        texts: BTreeMap::from([("v1".to_owned(), 600_000), ("v2".to_owned(), 400_000)]),
        failures: Vec::new(),
    }
}

/// Something of each part.
pub(in crate::report) fn measured() -> Measured {
    let downtime = |longest: f64| Downtime {
        changes: 48,
        out: vec![0.9, longest],
        restarted: vec![0.4],
        pods: 4,
        volumes: 4,
    };
    let writes = |what: &str, id: &str, due: usize| Writes {
        what: what.to_owned(),
        id: id.to_owned(),
        own: due as f64,
        most: due,
        due,
        beside: 12,
        node: 4.0,
    };
    Measured {
        gated: Some(upgraded(3, 208.0)),
        plain: Some(upgraded(1, 70.0)),
        conflicts: Some(conflicts()),
        rest: Some(Rest {
            pods: 10_000,
            resident_mib: 92.5,
            peak_mib: 120.0,
            fresh_mib: 80.0,
            minutes: 15,
            writes: 0,
            writes_of_fresh: 0,
        }),
        many: Some(Large { pods: 50_000, idle_mib: 14.0, resident_mib: 410.0, peak_mib: 450.0 }),
        writes: Some(vec![writes("an image, pods with the gate", "gated", 3), writes("cpu", "resize", 1)]),
        downtimes: Some(Downtimes { gated: downtime(1.25), plain: downtime(1.75) }),
        requests: Some(Compared { drained: requests([0, 0]), control: requests([7, 2]) }),
        names: Some(Names {
            ends: Count { what: "upgrade-names".to_owned(), tries: 3, starts: 3, violations: 0 },
        }),
        crashes: Some(crashes(0)),
        random: Some(random(0)),
        ..Measured::default()
    }
}

#[test]
fn every_run_has_its_row_and_tables_are_whole() {
    let page = rendered(&measured());
    for row in [
        "| I3-gated-seconds | 10000 pods with a gate, all at once, until the last serves its new image | 208.000 s | <= 220 | met |",
        "| I7-plain | Ready False to True of a pod without a gate, images on the node, the longest | 1.750 s | <= 1.6 | **not met** |",
        "| I8-control | requests lost without a drain, which shows that the clients see it, of 1000009 through a Service | 9.000 requests | >= 1 | met |",
        "| 10000 | with a gate | 208 | 48.1 | 96 % | 75.0 | 64 % | 48.0, 50.0 | 1.5 s more |",
        "| without a gate | 128 | 75.0 | 0.50 s | 1.00 s |",
        "| without a gate | 10000 of 10000 | 0 |",
        "| with a gate | spec pods 2.00 | 4.0 | 20.0 ms | namespace 900 | 7.00 |",
        "| an image, pods with the gate | 3.00 | 3 | 3 | 12 | 4.00 |",
        "| refused by a conflict | 100, 0.33 % |",
        "| writes in 15 min in which nothing changes | 0 |",
        "| beside 50000 pods in several workloads | 410 MiB |",
        "| with a gate | Ready False to True | 48 | 2 | 1.25 | 1.25 | 1.25 |",
        "Of their 8 volumes 8 have kept",
        "| without a drain | 40 | 1000009 | 7 | 2 | 0.4, 0.2 | 3.0, 2.0 | 0.25 s | v1 600000, v2 400000 |",
        "| a kill of the manager at each write: upgrades | 280 | 275 | 0 |",
        "| at random, beside controllers that are late and replaced: upgrades | 1000 | 340 | 0 |",
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
fn what_was_not_measured_has_no_section_and_says_why() {
    let mut measured = Measured::default();
    let why = "It takes 16 GiB of memory, and 7 are free.".to_owned();
    measured.log.left_out.push(("memory beside 50000 pods".to_owned(), why));
    let page = rendered(&measured);
    assert!(
        page.contains(
            "**Not measured**: memory beside 50000 pods. It takes 16 GiB of memory, and 7 are free."
        ),
        "{page}"
    );
    for section in
        ["## All pods", "## Writes", "## Memory", "## Requests", "## Upgrades", "upgrade.svg", "| I"]
    {
        assert!(!page.contains(section), "{section}\n{page}");
    }
    assert!(page.contains("OpenKruise"), "why the peer is not there:\n{page}");
}

#[test]
fn what_was_stored_and_is_taken_makes_the_same_page() {
    let before = measured();
    let mut after = Measured::default();
    for part in Part::value_variants() {
        let result = stored::result(*part, &before).unwrap().unwrap();
        let text = serde_json::to_string(&result).unwrap();
        stored::put(*part, &mut after, serde_json::from_str(&text).unwrap()).unwrap();
    }
    assert_eq!(rendered(&after), rendered(&before));
}
