//! The page, the plot and the goals.

use crate::brake::Silence;
use crate::leadership::Changes;
use crate::memory::Memory;
use crate::pressure::Pressure;
use crate::recovery::Recoveries;
use anyhow::Result;
use springtide_e2e::bench::report::{self, Goal, Report, quantile};
use std::fmt::Write as _;

/// Everything that was measured.
pub(crate) struct Measured {
    pub(crate) memory: Memory,
    pub(crate) pressure: Pressure,
    /// Writes of a lease a second.
    pub(crate) lease_writes: f64,
    pub(crate) changes: Changes,
    pub(crate) silence: Silence,
    pub(crate) recoveries: Recoveries,
}

/// Writes `docs/benchmarks/plumbing.md`, its plot and `target/bench/plumbing.json`, and prints the page.
pub(crate) fn write(report: &Report, measured: &Measured) -> Result<()> {
    let Memory { kib, typed_kib, .. } = measured.memory;
    let bars = [("typed pod".to_owned(), typed_kib), ("manager, all included".to_owned(), kib)];
    report::bars(&report.plot(), "KiB a watched pod", &bars)?;
    let goals = goals(measured);
    report.publish(&page(measured, &goals, &report.origin())?, &goals)
}

fn goals(measured: &Measured) -> Vec<Goal> {
    let Measured { memory, pressure, lease_writes, changes, silence, recoveries } = measured;
    let (storm, seats, dimensions) = (&pressure.storm, &pressure.seats, &pressure.dimensions);
    let budget = &pressure.budget;
    let bound = |bucket: &springtide_plumbing::budget::BucketConfig| bucket.rate + f64::from(bucket.burst);
    let in_a_second = |id: &str, what: &str, writes: usize, bound: f64| {
        Goal::at_most(id, &format!("writes in the busiest second, {what}"), writes as f64, "writes", bound)
    };
    let hand_over = quantile(&changes.handovers, 0.99);
    let slowdown = pressure.beside_p99 / pressure.alone_p99;
    vec![
        Goal::at_most("A2-lease-writes", "writes a second of a held lease", *lease_writes, "writes/s", 0.2),
        Goal::below(
            "A2-lease-wait",
            "wait of the elector's renewals while all that the budget gives is wanted, p99",
            pressure.lease_wait_p99,
            "ms",
            10.0,
        ),
        Goal::below(
            "A2-lease-wait-raw",
            "the same beside writers without a budget, p99",
            pressure.raw_lease_wait_p99,
            "ms",
            10.0,
        ),
        in_a_second("A6-controller", "one controller", pressure.busiest_process, bound(&budget.controller)),
        in_a_second("A6-namespace", "one namespace", pressure.busiest_namespace, bound(&budget.namespace)),
        in_a_second("A6-process", "two controllers", dimensions.process, bound(&budget.process)),
        in_a_second(
            "A6-object-status",
            "the status of one object",
            dimensions.object_status,
            bound(&budget.object_status),
        ),
        in_a_second("A6-events", "events of one namespace", dimensions.events, bound(&budget.events)),
        Goal::at_most(
            "A7-probes",
            "requests in any Retry-After of a 429 storm",
            storm.most_probes as f64,
            "requests",
            1.0,
        ),
        Goal::at_most(
            "A7-amplification",
            "requests for each stored write, over two minutes with a storm of 60 s",
            storm.amplification,
            "ratio",
            1.1,
        ),
        Goal::at_least(
            "A7-recovery",
            "rate 30 s after the storm, to that before",
            storm.recovered,
            "ratio",
            0.9,
        ),
        Goal::at_most(
            "A7-level-probes",
            "refused requests in the busiest second of a minute without a seat on a real level",
            seats.busiest_second as f64,
            "requests",
            1.0,
        ),
        Goal::at_least(
            "A7-level-recovery",
            "rate 30 s after that minute, to that before",
            seats.recovered,
            "ratio",
            0.9,
        ),
        Goal::at_least(
            "A7-other-level",
            "rate of another level in that minute, to that before and to what was wanted",
            seats.other_level,
            "ratio",
            0.9,
        ),
        Goal::at_most(
            "A7-lost",
            "objects without their last write after it",
            seats.lost as f64,
            "objects",
            0.0,
        ),
        Goal::at_most("A7-lease", "slowest renewal of a lease in it", seats.slowest_lease, "s", 5.0),
        Goal::at_least(
            "A8-jain",
            "Jain's index of what 20 tenants and a greedy one got of their fair shares",
            pressure.fairness.jain,
            "ratio",
            0.95,
        ),
        Goal::at_least(
            "A8-served",
            "what the least served of the 20 got of what it wanted",
            pressure.fairness.least_served,
            "ratio",
            0.95,
        ),
        Goal::at_least(
            "A8-turns-jain",
            "the same where turns alone share out what the controller may write, and it is short",
            pressure.fairness_scarce.jain,
            "ratio",
            0.95,
        ),
        Goal::at_least(
            "A8-turns-served",
            "what the least served of the 20 got of what it wanted there",
            pressure.fairness_scarce.least_served,
            "ratio",
            0.95,
        ),
        Goal::at_most(
            "A8-wait",
            "p99 of the others' writes beside the greedy one, to that without it",
            slowdown,
            "ratio",
            2.0,
        ),
        Goal::at_most("A9-memory", "memory of a watched pod", memory.kib, "KiB", 2.5),
        Goal::at_most(
            "A9-resident",
            "resident set with 150,000 such pods, extrapolated",
            memory.full_mib + memory.kib * (150_000.0 - memory.pods as f64) / 1024.0,
            "MiB",
            400.0,
        ),
        Goal::at_most("A9-decode", "time to decode a pod", memory.decode_micros, "µs", 10.0),
        Goal::at_most(
            "B6-hand-over",
            "a standby leads after the leader was asked to end, p99",
            hand_over,
            "s",
            2.0,
        ),
        Goal::at_most("A14-file", "last write after the brake's file was put", silence.file, "s", 1.0),
        Goal::at_most("A14-signal", "last write after the brake's signal", silence.signal, "s", 1.0),
        Goal::at_most(
            "A14-config-map",
            "last write after the brake's ConfigMap",
            silence.config_map,
            "s",
            5.0,
        ),
        Goal::at_most("B6-etcd", "a new job has its pod after etcd was killed", recoveries.etcd, "s", 10.0),
        Goal::at_most(
            "B6-api-server",
            "the same after the API server was killed, from when it is ready",
            recoveries.api_server,
            "s",
            5.0,
        ),
        Goal::at_most(
            "B6-compaction",
            "the same after all watches have expired, from when the API server is ready",
            recoveries.compaction,
            "s",
            10.0,
        ),
        Goal::at_most("B6-silent-watch", "a silent watch is replaced", recoveries.silent_watch, "s", 90.0),
        Goal::at_most(
            "B6-half-open",
            "a new job has its pod after all connections lost their peer",
            recoveries.half_open,
            "s",
            90.0,
        ),
        Goal::at_most(
            "B6-crash",
            "a standby leads after the leader was killed, the slowest",
            changes.crash,
            "s",
            32.0,
        ),
    ]
}

fn page(measured: &Measured, goals: &[Goal], origin: &str) -> Result<String> {
    let Measured { memory, pressure, lease_writes: _, changes, silence, recoveries: _ } = measured;
    let mut page = String::new();
    writeln!(page, "# Plumbing: memory, writes under pressure, leadership\n\n{origin}\n")?;
    writeln!(page, "![KiB a watched pod](plumbing.svg)\n")?;
    page.push_str(&report::goals_section(goals));
    writeln!(page, "\n## A watched pod, of {} pods of {} bytes\n", memory.pods, memory.bytes)?;
    writeln!(page, "| | KiB | µs to decode |\n|---|---|---|")?;
    writeln!(
        page,
        "| manager, stores and indexes included | {:.2} | {:.1} |",
        memory.kib, memory.decode_micros
    )?;
    writeln!(
        page,
        "| typed pod of k8s-openapi (peer) | {:.1} | {:.1} |",
        memory.typed_kib, memory.typed_decode_micros
    )?;
    writeln!(page, "\nResident set of the manager with all of them: {:.0} MiB.", memory.full_mib)?;
    writeln!(page, "\n## Writes under pressure\n\n| | |\n|---|---|")?;
    writeln!(
        page,
        "| raw limit: writes a second of 100 writers without a budget | {:.0} |",
        pressure.raw_rate
    )?;
    writeln!(page, "| in the busiest second, without a budget | {} |", pressure.raw_busiest)?;
    let budget = &pressure.budget;
    for (what, bucket, writes) in [
        ("controller", &budget.controller, pressure.busiest_process),
        ("namespace", &budget.namespace, pressure.busiest_namespace),
        ("two controllers of a process", &budget.process, pressure.dimensions.process),
        ("status of an object", &budget.object_status, pressure.dimensions.object_status),
        ("events of a namespace", &budget.events, pressure.dimensions.events),
    ] {
        let (rate, burst) = (bucket.rate, bucket.burst);
        writeln!(page, "| in the busiest second, {what} of {rate:.1}/s, burst {burst} | {writes} |")?;
    }
    writeln!(page, "| stored a second before a 429 storm | {:.1} |", pressure.storm.rate_before)?;
    writeln!(
        page,
        "| requests in a Retry-After of it, on average | {:.2} |",
        pressure.storm.probes_per_wait
    )?;
    writeln!(page, "| stored a second before a level lost its seats | {:.1} |", pressure.seats.rate_before)?;
    writeln!(page, "| the others' writes alone, p99 | {:.1} ms |", pressure.alone_p99)?;
    writeln!(page, "| beside the greedy tenant, p99 | {:.1} ms |", pressure.beside_p99)?;
    for (beside, wait) in [
        ("a budget that is wanted whole", pressure.lease_wait_p99),
        ("writers without a budget", pressure.raw_lease_wait_p99),
    ] {
        writeln!(page, "| wait of the elector's renewals beside {beside}, p99 | {wait:.2} ms |")?;
    }
    writeln!(
        page,
        "| answer of a lease on the client of the writes (peer), p99 | {:.1} ms |",
        pressure.shared_wait_p99
    )?;
    let [fastest, median, slowest] = [0.0, 0.5, 1.0].map(|q| 1000.0 * quantile(&changes.handovers, q));
    writeln!(page, "\n## Changes of the leader\n")?;
    writeln!(
        page,
        "{} hand-overs took {fastest:.0} to {slowest:.0} ms, {median:.0} ms in the median; after SIGKILL of the \
         leader a standby led in {:.1} s at most.",
        changes.handovers.len(),
        changes.crash
    )?;
    writeln!(
        page,
        "\n## Brake and faults\n\nBefore the brake the manager wrote {:.0} times a second at least. Figures of both \
         are the slowest of all runs.",
        silence.before
    )?;
    write!(
        page,
        "\n## Method\n\n\
         A control plane (etcd without fsync, kube-apiserver) on the same machine. Memory: the resident set of \
         the manager before any pod and after all were created while it watched; the pods are bound, every other one is of a \
         BatchJob, and the manager observes. Pressure: the executor and the budget in the bench's process, a bucket scaled so that the \
         process may write a fourth of the raw limit of the same run; the greedy tenant has 100 writers that never \
         rest, each of 20 others wants two writes a second, or less where that is half of \
         the budget together; the fair share of a tenant is that of max-min fairness of what \
         all got; where turns alone share out, a namespace may have all that the controller may write, of which the 20 want \
         three fourths together; beside the greedy one waits count from 2 s on, when its burst is spent. Of decoding, which is run in ten parts, the fastest part counts. The wait of a lease is the time from the elector's request to its arrival at a proxy that only it uses, on the \
         client that a manager makes for it, with 200 writers in the same process; through the client of the writes only \
         the answer tells. In the storm a proxy answers each write with 429 and Retry-After 2 for 60 s. \
         For a minute without a seat a tenant keeps all seats of a level of 10 shares (flow control of an API server \
         with its default 600 seats); 100 writers that never rest write on it, 20 paced ones on another level. \
         Managers have the shipped lease times; the Lease is read every 10 ms. The API server that is killed is the \
         only one, and its next watch cache begins after what the manager has seen last, so watches expire there too. \
         Times of single runs vary on a small machine; compare within one run.\n"
    )?;
    Ok(page)
}
