//! What is there at one moment, and how it is shown: a line whenever something has changed.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use anyhow::{Context, Result};
use jiff::Timestamp;
use kube::ResourceExt;
use springtide_crds::common::condition;
use springtide_crds::reason::Reason;
use springtide_crds::time_share_group::ReadyReason;
use springtide_e2e::node::load::Seen;
use springtide_e2e::time_share::node_stage::{GROUP, NodeStage};
use springtide_e2e::time_share::pods::serves;
use springtide_e2e::time_share::sizes::SizedPod;

use super::{Day, MEMBERS};

/// The label by which a batch pod's tier is known.
const TIER: &str = "springtide.dev/tier";

/// The pods of one service.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Service {
    /// How many have which cpu in force, in thousandths of a core.
    pub(crate) sizes: BTreeMap<i64, usize>,
    /// How many get traffic.
    pub(crate) serving: usize,
}

/// The group, its services and the batch pods at one moment.
#[derive(Clone, Debug)]
pub(crate) struct View {
    /// When it was looked at.
    pub(crate) at: Timestamp,
    /// Who has the peak, as the group says.
    pub(crate) active: Option<String>,
    /// Reason of the group's condition Ready.
    pub(crate) ready: String,
    /// The services, in the order of [`MEMBERS`].
    pub(crate) services: [Service; 2],
    /// Batch pods that stay, and those that are ending.
    pub(crate) batch: [usize; 2],
}

impl View {
    /// Looks.
    pub(crate) fn of(stage: &NodeStage<'_>) -> Self {
        let (active, ready) = {
            let groups = stage.test.groups.now();
            let status = groups.get(GROUP).and_then(|group| group.status.as_ref());
            let ready = status.and_then(|status| condition(&status.conditions, ReadyReason::CONDITION));
            let ready = ready.map(|ready| ready.reason.clone()).unwrap_or_default();
            (status.and_then(|status| status.active_member.clone()), ready)
        };
        let sizes = stage.sizes.now();
        let services = MEMBERS.map(|name| {
            let mut service = Service::default();
            for pod in sizes.of(name) {
                *service.sizes.entry(pod.size.in_force.cpu).or_default() += 1;
                service.serving += usize::from(serves(&pod.pod));
            }
            service
        });
        let is_batch = |pod: &&SizedPod| pod.pod.labels().contains_key(TIER);
        let staying = sizes.live().filter(is_batch).count();
        let all = sizes.present().filter(is_batch).count();
        Self { at: Timestamp::now(), active, ready, services, batch: [staying, all - staying] }
    }
}

/// The pods of both services, one a line: who they are, what they have, and what the kernel holds them to.
pub(crate) fn table(stage: &NodeStage<'_>) -> Result<String> {
    let mut text = format!(
        "{:<26} {:<9} {:<12} {:>8} {:>9} {:>11} {:<8} {:>8}",
        "POD", "UID", "IP", "CPU", "IN-FORCE", "KERNEL", "TRAFFIC", "RESTARTS"
    );
    let sizes = stage.sizes.now();
    for pod in MEMBERS.iter().flat_map(|name| sizes.of(name)) {
        let identity = pod.identity().context("a pod that runs")?;
        let kernel = stage.cluster.limits_of_pod(&identity.uid)?.cpu_millis;
        // Writing to a text does not fail.
        let _ = write!(
            text,
            "\n{:<26} {:<9} {:<12} {:>8} {:>9} {:>11} {:<8} {:>8}",
            pod.name(),
            identity.uid.chars().take(8).collect::<String>(),
            identity.ip,
            format!("{}m", pod.size.asked.cpu),
            format!("{}m", pod.size.in_force.cpu),
            kernel.map_or("no limit".to_owned(), |cpu| format!("{cpu}m")),
            if serves(&pod.pod) { "on" } else { "off" },
            pod.restarts(),
        );
    }
    Ok(text)
}

/// What the clients of each service have seen.
pub(crate) fn requests(seen: &[(&str, Seen)]) -> String {
    let mut text = format!(
        "{:<10} {:<16} {:>9} {:>7} {:>9} {:>9} {:>9}",
        "SERVICE", "CONNECTIONS", "REQUESTS", "FAILED", "P50", "P99", "SLOWEST"
    );
    for (name, seen) in seen {
        for (connections, half) in [("one a request", &seen.new), ("kept", &seen.kept)] {
            let millis = |micros: u64| format!("{:.1} ms", micros as f64 / 1000.0);
            let _ = write!(
                text,
                "\n{name:<10} {connections:<16} {:>9} {:>7} {:>9} {:>9} {:>9}",
                half.answered + half.failed,
                half.failed,
                millis(half.p50_micros),
                millis(half.p99_micros),
                millis(half.slowest_micros),
            );
        }
    }
    text
}

/// What has been shown already.
pub(crate) struct Screen {
    day: Day,
    last: String,
}

impl Screen {
    /// Before the first line.
    pub(crate) fn new(day: Day) -> Self {
        Self { day, last: String::new() }
    }

    /// Shows what is there, if it differs from what is shown.
    pub(crate) fn show(&mut self, view: &View) {
        let service = |(name, service): (&str, &Service)| {
            let sizes: Vec<String> =
                service.sizes.iter().rev().map(|(cpu, pods)| format!("{pods} x {cpu}m")).collect();
            format!("{name} {:<20} {} on", sizes.join(" "), service.serving)
        };
        let [staying, ending] = view.batch;
        let services: Vec<String> = MEMBERS.into_iter().zip(&view.services).map(service).collect();
        let active = view.active.as_deref().unwrap_or("nobody");
        let batch = format!("{}{}", "#".repeat(staying), "-".repeat(ending));
        let hour = self.day.member(view.at).unwrap_or("night");
        let line =
            format!("{hour:<8} {active:<8} {:<17} {}   batch {batch}", view.ready, services.join("   "));
        if line == self.last {
            return;
        }
        if self.last.is_empty() {
            println!(
                "   (seconds since the first peak begins; whose it is; who has the size; # a batch pod, - one that is ending)"
            );
        }
        let seconds = view.at.duration_since(self.day.first).as_secs_f64();
        println!("   {seconds:>+6.1} s  {}", line.trim_end());
        self.last = line;
    }
}
