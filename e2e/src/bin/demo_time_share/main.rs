//! The demo of time-share groups: a day in two minutes. Two services with their peaks one after the other share a real
//! node while clients ask both all the time, and batch jobs have what they leave before and after. In the second peak the
//! first service gets the room by hand, and gives it back. It shows what is typed and what happens, judges it, and removes
//! everything.

mod judge;
mod manifests;
mod show;
#[path = "../demo/steps.rs"]
mod steps;
mod typed;

use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::Parser;
use jiff::{SignedDuration, Timestamp};
use springtide_e2e::manager::Manager;
use springtide_e2e::node::preflight::{Availability, availability};
use springtide_e2e::node::{Allocatable, NODE_NAME, NodeCluster};
use springtide_e2e::time_share::node_member::NodeMember;
use springtide_e2e::time_share::node_stage::{GROUP, NodeStage};
use springtide_e2e::time_share::traffic::{Clients, with_traffic};

use judge::{Deed, Record};
use show::{Screen, View};
use steps::Steps;
use typed::Terminal;

/// The services, in the order of their peaks.
const MEMBERS: [&str; 2] = ["promo", "payment"];
/// Pods of each, and what each of them requests of cpu at peak and at valley.
const PODS: u32 = 3;
const PEAK: &str = "400m";
const VALLEY: &str = "50m";
/// Pods of each that keep traffic at valley size.
const TRICKLE: u32 = 1;
/// What the node offers.
const NODE: Allocatable = Allocatable { cpu_millis: 2000, memory_bytes: 2 << 30 };
/// Name of the queue, batch jobs, and what each of their pods requests of cpu.
const QUEUE: &str = "night";
const JOBS: u32 = 6;
const JOB_CPU: &str = "250m";
/// Requests a second to each service.
const RATE: u32 = 150;
/// The peaks' times, in seconds: batch pods leave for so long before the first switch, that begins so long before the
/// first peak; each peak lasts so long; batch comes back over this time.
const LEAVE: u32 = 15;
const LEAD: u32 = 10;
const OPEN: i64 = 60;
const RAMP: u32 = 10;
/// Everything is there for so long at least before the first pod leaves.
const BEFORE: i64 = 15;
/// So many seconds after a service has the peak the user takes it to the other one by hand, or back.
const PAUSE: SignedDuration = SignedDuration::from_secs(4);
/// A change of the group that takes an override away.
const NO_OVERRIDE: &str = r#"{"spec":{"override":null}}"#;
/// The output of kubectl for what became of the last switches, the newest first.
const LAST_SWITCHES: &str = "jsonpath={range .status.lastTransitions[*]}{.id}  {.cause}  to {.to}: {.result}, \
                             {.units} units in {.durationSeconds} s, {.skipped} skipped{\"\\n\"}{end}";
/// Between two looks.
const LOOK: Duration = Duration::from_millis(200);

/// Shows two services that take turns on a real node, and batch jobs that have what they leave.
#[derive(Parser)]
#[command(name = "demo-time-share")]
struct Options {
    /// Gives up so many seconds after the end of the second peak.
    #[arg(long, value_name = "SECONDS", default_value_t = 120)]
    bound: i64,
}

#[tokio::main]
async fn main() -> ExitCode {
    let options = Options::parse();
    let ended = tokio::select! {
        ended = run(&options) => ended,
        _ = tokio::signal::ctrl_c() => Err(anyhow::anyhow!("interrupted; everything is removed")),
    };
    match ended {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("demo-time-share: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// # Errors
/// No real node can run here: with what is missing.
async fn ensure_node() -> Result<()> {
    let found = availability().await;
    match &found {
        Availability::Ready => Ok(()),
        // An ordinary user lacks other things as well, but having those would not help.
        Availability::Missing(_) if !nix::unistd::geteuid().is_root() => bail!(
            "it needs a real node (containerd, kubelet, kube-proxy) in network and mount namespaces of its own, and \
             for that root: run it again as root. Nothing of the machine is changed, and everything is removed"
        ),
        Availability::Off | Availability::Missing(_) => bail!("it needs a real node: {found}"),
    }
}

/// The times of the day.
#[derive(Clone, Copy)]
struct Day {
    /// The first peak begins.
    first: Timestamp,
    /// The second one does, and the first is over.
    second: Timestamp,
    /// That is over too.
    end: Timestamp,
}

impl Day {
    /// Of which the first peak begins at the next full minute that is far enough: windows have no seconds.
    fn next(now: Timestamp) -> Result<Self> {
        let ahead = i64::from(LEAVE + LEAD) + BEFORE;
        let earliest = now + SignedDuration::from_secs(ahead);
        let first =
            Timestamp::from_second((earliest.as_second() / 60 + 1) * 60).context("the next minute")?;
        let open = SignedDuration::from_secs(OPEN);
        Ok(Self { first, second: first + open, end: first + open + open })
    }

    /// Whose peak is then, if it is one's.
    fn member(&self, at: Timestamp) -> Option<&'static str> {
        let [first, second] = MEMBERS;
        if at < self.first || at >= self.end {
            None
        } else if at < self.second {
            Some(first)
        } else {
            Some(second)
        }
    }
}

/// Runs it; `false` when something was not as it should be.
async fn run(options: &Options) -> Result<bool> {
    ensure_node().await?;
    let mut steps = Steps::new();
    steps.begin(
        "Start a control plane, a real node of two CPUs (containerd, kubelet, kube-proxy) and `springtide manager`",
    );
    let cluster = NodeCluster::builder().allocatable(NODE).start().await?;
    let plane = cluster.control_plane();
    plane.install_crds().await?;
    let mut manager = Manager::start(plane, "manager", &[]).await?;
    manager.wait_ready().await?;
    let stage = NodeStage::new(&cluster, "demo").await?;

    steps.begin(&format!(
        "Create Deployments {} with {PODS} pods of {VALLEY} cpu each, that serve HTTP",
        MEMBERS.join(" and ")
    ));
    let members = MEMBERS.map(|name| NodeMember::new(name, PODS, PEAK, VALLEY).trickle(TRICKLE));
    for member in &members {
        stage.start(member).await?;
    }
    steps.begin(&format!("Make TimeShareGroup {GROUP} of both, and {JOBS} batch jobs for the night"));
    let terminal = Terminal::new(&stage);
    let day = Day::next(Timestamp::now())?;
    terminal.apply(&steps, "share.yaml", &[manifests::group(day)]).await?;
    stage.settled(None).await?;
    let night = [vec![manifests::queue()], manifests::jobs()].concat();
    terminal.apply(&steps, "night.yaml", &night).await?;
    terminal.get(&steps).await?;
    steps.begin(&format!(
        "Send {RATE} requests a second to each through its Service, half of them on new connections"
    ));
    let mut clients = Vec::new();
    for name in MEMBERS {
        let selector = with_traffic(Some(name), true);
        clients.push(Clients::start(&stage.test, name, &selector, TRICKLE as usize, RATE).await?);
    }
    steps.note(&show::table(&stage)?);

    steps.begin("Watch the day go by");
    let mut screen = Screen::new(day);
    let mut record = Record::new(day, &stage);
    let give_up = day.end + SignedDuration::from_secs(options.bound);
    loop {
        let view = View::of(&stage);
        screen.show(&view);
        if record.see(&view, &stage, &members) {
            steps.note(&show::table(&stage)?);
            terminal.get(&steps).await?;
        }
        match record.next_deed(view.at) {
            Some(Deed::Override) => {
                terminal.patch(&steps, &override_to(first_member(), day.end)).await?;
                record.begin_by_hand(Timestamp::now());
            }
            Some(Deed::TakeBack) => {
                terminal.patch(&steps, NO_OVERRIDE).await?;
                record.begin_again(Timestamp::now());
            }
            None => {}
        }
        if record.is_over() {
            break;
        }
        if view.at > give_up {
            steps.note("not everything has come back in time");
            break;
        }
        if !manager.child().is_running() {
            bail!("the manager has ended by itself; its log ends with:\n{}", manager.child().log_tail());
        }
        tokio::time::sleep(LOOK).await;
    }
    steps.begin("Ask the clients what they have seen, and look at the pods again");
    let mut seen = Vec::new();
    for (name, clients) in MEMBERS.into_iter().zip(clients) {
        seen.push((name, clients.end().await?));
    }
    steps.note(&show::requests(&seen));
    steps.note(&show::table(&stage)?);
    terminal.kubectl(&steps, &["get", "tsg", GROUP, "-o", LAST_SWITCHES]).await?;
    let has = stage.allocatable().await?.cpu;
    let most = stage.sizes.now().most_allocated(NODE_NAME).cpu;
    let verdicts = record.verdicts(&stage, &seen, most, has);
    steps.begin("Stop the manager and remove the cluster");
    drop(stage);
    manager.stop()?;
    cluster.stop()?;
    steps.end();
    println!();
    let well = judge::print(&verdicts);
    println!(
        "\n{} after {:.0} s.",
        if well { "All as it should be" } else { "NOT as it should be" },
        steps.seconds()
    );
    Ok(well)
}

/// A change of the group by which a member has the peak until then, whatever its windows say.
fn override_to(member: &str, until: Timestamp) -> String {
    let until = until.strftime("%FT%TZ");
    format!(r#"{{"spec":{{"override":{{"member":"{member}","untilTime":"{until}","reason":"INC-4711"}}}}}}"#)
}

/// The service with the first peak.
fn first_member() -> &'static str {
    let [first, _] = MEMBERS;
    first
}

#[cfg(test)]
mod tests {
    use super::*;
    use springtide_crds::time_share_group::Override;

    #[test]
    fn a_day_begins_at_a_full_minute_that_is_far_enough() {
        let now = Timestamp::from_second(1_795_000_000 / 60 * 60 + 1).unwrap();
        let day = Day::next(now).unwrap();
        assert_eq!(day.first.as_second() % 60, 0);
        let ahead = day.first.duration_since(now).as_secs();
        assert!((i64::from(LEAVE + LEAD) + BEFORE..=i64::from(LEAVE + LEAD) + BEFORE + 60).contains(&ahead));
        let late = Day::next(now + SignedDuration::from_secs(30)).unwrap();
        assert_eq!(late.first.duration_since(day.first).as_secs(), 60);
        let at = |seconds| day.member(day.first + SignedDuration::from_secs(seconds));
        let members = [at(-1), at(0), at(OPEN - 1), at(OPEN), at(2 * OPEN)];
        assert_eq!(members, [None, Some("promo"), Some("promo"), Some("payment"), None]);
    }

    #[test]
    fn an_override_is_one_as_the_group_takes_it() {
        let day = Day::next(Timestamp::now()).unwrap();
        let change: serde_json::Value = serde_json::from_str(&override_to(first_member(), day.end)).unwrap();
        let given: Override = serde_json::from_value(change["spec"]["override"].clone()).unwrap();
        assert_eq!((given.member.as_deref(), given.until_time.0), (Some("promo"), day.end));
        let none: serde_json::Value = serde_json::from_str(NO_OVERRIDE).unwrap();
        assert!(none["spec"]["override"].is_null());
    }
}
