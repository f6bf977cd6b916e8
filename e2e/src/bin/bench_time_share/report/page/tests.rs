use std::collections::BTreeMap;

use super::*;
use crate::faults::tests::faults;
use crate::preflight::tests::asked;
use crate::report::goals;
use crate::starts::tests::starts;
use crate::switched::tests::switched;
use crate::unit::tests::units;
use crate::writes::ROUTES;
use crate::{Options, Part, stored};
use clap::{Parser, ValueEnum};
use springtide_e2e::bench::at_rest::{Large, Rest};
use springtide_e2e::bench::requests::{Compared, Requests};

fn options() -> Options {
    Options::parse_from(["bench-time-share"])
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
        texts: BTreeMap::from([("pay".to_owned(), 600_000), ("promo".to_owned(), 400_000)]),
        failures: Vec::new(),
    }
}

/// Something of each part.
pub(in crate::report) fn measured() -> Measured {
    let writes = |what: &str, id: &str, due: usize| Writes {
        what: what.to_owned(),
        id: id.to_owned(),
        own: due as f64,
        most: due,
        due,
        beside: 12,
        routes: if id == ROUTES { 2 } else { 0 },
        nudges: 0,
    };
    Measured {
        label: Some(switched(80.0)),
        gate: Some(Switched { scaled: None, ..switched(90.0) }),
        preflight: Some(asked()),
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
        writes: Some(vec![writes("the label", "label", 2), writes("the weight of a route", ROUTES, 1)]),
        unit: Some(units(1.5)),
        requests: Some(Compared { drained: requests([0, 0]), control: requests([7, 2]) }),
        faults: Some(faults(0)),
        starts: Some(starts(0)),
        ..Measured::default()
    }
}

#[test]
fn every_run_has_its_row_and_tables_are_whole() {
    let page = rendered(&measured());
    for row in [
        "| T2-label-seconds | 5000 units by the label, 300 writes/s, until the last pod serves at its peak | 80.000 s | <= 82 | met |",
        "| T2-gate-seconds | 5000 units by the gate, 300 writes/s, until the last pod serves at its peak | 90.000 s | <= 82 | **not met** |",
        "| T9-control | requests lost all units at once, which shows that the clients see it, of 1000009 through a Service | 9.000 requests | >= 1 | met |",
        "| 5000 | the label | 80 | 67 s | 62.5 | 70.0 | 89 % | 60.0, 64.0 | 2 | 1.5 s more |",
        "| the gate | 128 | 70.0 | 0.50 s | 1.00 s |",
        "| TimeShareGroup, the label | 5000 pods come to serve, 5000 warm ones stay | 80 | 40000 |",
        "| a scaler | 5000 pods are made, 5000 ended | 250 | 45000 |",
        "| the label | spec pods 4.00 | 4.0 | 20.0 ms | namespace 900 | 8.00 |",
        "| the label | 2.00 | 2 | 2 | 12 | 0 | 0 |",
        "| by the manager | 3 | 0.200 | 1.500 | 1.500 | 1 |",
        "| the same, ClaimFirst among faults | 336 | 900 | 0 |",
        "| switches that began more than a second late | 4 | 4 | 0 |",
        "| dry runs | 10000 in 300 s |",
        "| writes in 15 min in which nothing changes | 0 |",
        "| beside 50000 pods of several groups | 410 MiB |",
        "| all units at once | 40 | 1000009 | 7 | 2 | 0.4, 0.2 | 3.0, 2.0 | 0.25 s | pay 600000, promo 400000 |",
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
    for section in ["## All units", "## Writes", "## Memory", "## Requests", "timeshare.svg", "| T"] {
        assert!(!page.contains(section), "{section}\n{page}");
    }
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
