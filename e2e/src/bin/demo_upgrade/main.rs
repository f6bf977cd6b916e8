//! The demo of upgrades in place: a small service on a real node gets another version while clients ask it all the time,
//! then one that does not run. It shows what happens, judges it, and removes everything.

mod judge;
mod show;
#[path = "../demo/steps.rs"]
mod steps;

use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Result, bail};
use clap::Parser;
use springtide_crds::in_place_upgrade::{InPlaceUpgradeSpec, StalledReason, TargetKind};
use springtide_e2e::node::NodeCluster;
use springtide_e2e::node::preflight::{Availability, availability};
use springtide_e2e::upgrade::real_node::{CRASHING, NodeBed};
use springtide_e2e::upgrade::traffic::{Traffic, lines, server_reference};
use springtide_e2e::upgrade::{Testbed, Workload, native};

use judge::Record;
use show::Screen;
use steps::Steps;

/// Name of the Deployment, of its Service and of its InPlaceUpgrade.
const NAME: &str = "shop";
/// Its pods.
const REPLICAS: u32 = 3;
/// Requests a second.
const RATE: u32 = 300;
/// Between two looks.
const LOOK: Duration = Duration::from_millis(200);

/// Upgrades a small service in place on a real node, while requests run.
#[derive(Parser)]
#[command(name = "demo-upgrade")]
struct Options {}

#[tokio::main]
async fn main() -> ExitCode {
    let Options {} = Options::parse();
    let ended = tokio::select! {
        ended = run() => ended,
        _ = tokio::signal::ctrl_c() => Err(anyhow::anyhow!("interrupted; everything is removed")),
    };
    match ended {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("demo-upgrade: {error:#}");
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

/// Runs it; `false` when something was not as it should be.
async fn run() -> Result<bool> {
    ensure_node().await?;
    let mut steps = Steps::new();
    steps.begin(
        "Start a control plane, a real node (containerd, kubelet, kube-proxy), a registry and `springtide manager`",
    );
    let bed = NodeBed::start(NodeCluster::builder()).await?;
    let test = Testbed::new(bed.plane(), "demo").await?;
    steps.begin(&format!("Create Deployment {NAME} with {REPLICAS} pods of version v1, and pause it"));
    let shop = Workload::deployment(NAME, REPLICAS).serving();
    let before = test.start_paused(&shop).await?;
    steps.note(&show::table(&test.pods.now(), NAME));
    steps.begin(&format!(
        "Send {RATE} requests a second through its Service, half of them on new connections"
    ));
    let traffic = Traffic::start(&test, &shop, RATE).await?;
    let mark = test.mark()?;

    let wish = server_reference(2);
    steps.begin(&format!("kubectl set image deployment/{NAME} app={wish}, and create InPlaceUpgrade {NAME}"));
    test.set_image(&shop, &wish).await?;
    test.upgrade(NAME, InPlaceUpgradeSpec::new(TargetKind::Deployment, NAME)).await?;
    let mut screen = Screen::new(&test, NAME);
    screen.until(test.succeeded(NAME, "")).await?;
    native::agrees(&test, &shop).await?;
    let upgraded = show::table(&test.pods.now(), NAME);
    let versions = test.pods.now().of(NAME).iter().filter(|life| life.runs(&wish)).count();

    steps.begin(&format!("kubectl set image deployment/{NAME} app={CRASHING}, which ends at once"));
    test.set_image(&shop, CRASHING).await?;
    screen.until(test.told(NAME, StalledReason::RolledBack)).await?;
    test.running(&shop, &wish, REPLICAS as usize).await?;
    steps.note("the template still asks for it: the object is Stalled until somebody changes one of the two");

    steps.begin("Look at the pods again, and ask the clients what they have seen");
    let seen = traffic.end().await?;
    steps.note("after the upgrade:");
    steps.note(&upgraded);
    steps.note("after the rollback:");
    steps.note(&show::table(&test.pods.now(), NAME));
    let after = test.pods.now().identities(NAME);
    let mut volumes = Vec::new();
    for pod in after.values() {
        volumes.push(lines(&bed.cluster, &pod.ip)?);
    }
    let requests = test.requests_since(mark)?;
    let record =
        Record { before, after, versions, volumes, replaced: native::replacements(&requests).len(), seen };
    steps.begin("Stop the manager and remove the cluster");
    drop(test);
    bed.stop()?;
    steps.end();
    println!();
    let well = judge::print(&record.verdicts());
    println!(
        "\n{} after {:.0} s.",
        if well { "All as it should be" } else { "NOT as it should be" },
        steps.seconds()
    );
    Ok(well)
}
