//! What the pods are at one moment, and how it is shown: a line whenever something has changed.

use std::fmt::Write as _;
use std::time::Instant;

use anyhow::Result;
use jiff::Timestamp;
use springtide_crds::common::condition;
use springtide_crds::in_place_upgrade::ReadyReason;
use springtide_crds::reason::Reason;
use springtide_e2e::upgrade::pods::{Life, Pods, is_false};
use springtide_e2e::upgrade::{GATE, Testbed};

use super::LOOK;

/// The pods of a workload, one a line: who they are, and since when they and their containers run.
pub(crate) fn table(pods: &Pods, workload: &str) -> String {
    let mut text = format!(
        "{:<24} {:<9} {:<12} {:<6} {:<9} {:<9} {:<8} {:>8}",
        "POD", "UID", "IP", "NODE", "STARTED", "CONTAINER", "VERSION", "RESTARTS"
    );
    for life in pods.of(workload) {
        let Some(identity) = life.identity() else { continue };
        let started =
            life.pod.status.as_ref().and_then(|status| status.start_time.as_ref()).map(|time| time.0);
        let state = life.container().and_then(|container| container.state.as_ref());
        let container =
            state.and_then(|state| state.running.as_ref()?.started_at.as_ref()).map(|time| time.0);
        // Writing to a text does not fail.
        let _ = write!(
            text,
            "\n{:<24} {:<9} {:<12} {:<6} {:<9} {:<9} {:<8} {:>8}",
            life.name(),
            identity.uid.chars().take(8).collect::<String>(),
            identity.ip,
            identity.node,
            time_of_day(started),
            time_of_day(container),
            tag(life.image().unwrap_or_default()),
            life.restarts(),
        );
    }
    text
}

fn time_of_day(at: Option<Timestamp>) -> String {
    at.map_or_else(|| "-".to_owned(), |at| at.strftime("%H:%M:%S").to_string())
}

fn tag(image: &str) -> &str {
    image.rsplit_once(':').map_or(image, |(_, tag)| tag)
}

/// What a pod does, in three words.
fn state(life: &Life) -> String {
    let image = life.image().unwrap_or_default();
    let does = match (life.runs(image), is_false(&life.pod, GATE), life.is_ready()) {
        (false, _, _) => "starts",
        (true, true, _) => "is out of traffic",
        (true, false, true) => "serves",
        (true, false, false) => "is not ready",
    };
    format!("{} {does}", tag(image))
}

/// What has been shown already of one workload and its upgrade.
pub(crate) struct Screen<'a> {
    test: &'a Testbed<'a>,
    name: &'a str,
    begun: Instant,
    last: String,
}

impl<'a> Screen<'a> {
    /// Before the first line.
    pub(crate) fn new(test: &'a Testbed<'a>, name: &'a str) -> Self {
        Self { test, name, begun: Instant::now(), last: String::new() }
    }

    /// Shows what happens until `end` is there, and gives that.
    ///
    /// # Errors
    /// As `end`.
    pub(crate) async fn until<T>(&mut self, end: impl Future<Output = Result<T>>) -> Result<T> {
        let mut end = std::pin::pin!(end);
        loop {
            self.show();
            tokio::select! {
                ended = &mut end => {
                    self.show();
                    return ended;
                }
                () = tokio::time::sleep(LOOK) => {}
            }
        }
    }

    fn show(&mut self) {
        let ready = {
            let upgrades = self.test.upgrades.now();
            let status = upgrades.get(self.name).and_then(|upgrade| upgrade.status.as_ref());
            let ready = status.and_then(|status| condition(&status.conditions, ReadyReason::CONDITION));
            ready.map(|ready| ready.reason.clone()).unwrap_or_default()
        };
        let states: Vec<String> = self.test.pods.now().of(self.name).into_iter().map(state).collect();
        let line = format!("{ready:<12} {}", states.join(" | "));
        if line != self.last {
            println!("   {:>6.1} s  {line}", self.begun.elapsed().as_secs_f64());
            self.last = line;
        }
    }
}
