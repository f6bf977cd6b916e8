//! What is done to controllers while upgrades run.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use rand::RngExt;
use rand::rngs::StdRng;
use springtide_e2e::fault_proxy::RuleId;
use springtide_e2e::upgrade::disturbed::{Disturbed, End, Processes, Watcher};

/// By so much a watch is late at most.
pub(crate) const LATEST: Duration = Duration::from_secs(6);
/// A process stands still for so long at most: longer than a lease lasts.
const STILL: Duration = Duration::from_secs(5);
/// Between two deeds.
const BETWEEN: (u64, u64) = (500, 3000);

/// Whose watches of what may be late.
const LATE: [(Watcher, &str); 12] = [
    (Watcher::ControllerManager, "deployments"),
    (Watcher::ControllerManager, "replicasets"),
    (Watcher::ControllerManager, "replicasets"),
    (Watcher::ControllerManager, "statefulsets"),
    (Watcher::ControllerManager, "pods"),
    (Watcher::ControllerManager, "pods"),
    (Watcher::Manager, "deployments"),
    (Watcher::Manager, "replicasets"),
    (Watcher::Manager, "statefulsets"),
    (Watcher::Manager, "controllerrevisions"),
    (Watcher::Manager, "pods"),
    (Watcher::Manager, "inplaceupgrades"),
];

/// One thing that is done.
#[derive(Clone, Copy, Debug)]
enum Deed {
    /// A watch is late from now on, or not any more.
    Delay { place: usize, by: Option<Duration> },
    /// The controller manager is killed, and another one takes its place.
    ReplaceControllerManager,
    /// It stands still.
    HaltControllerManager(Duration),
    /// The manager that leads ends.
    ReplaceLeader(End),
    /// It stands still, and does not know for how long.
    HaltLeader(Duration),
}

impl Deed {
    fn draw(random: &mut StdRng) -> Self {
        match random.random_range(0..10) {
            0..5 => {
                let late = random.random_range(0..3) > 0;
                let by = LATEST.mul_f64(random.random());
                Self::Delay { place: random.random_range(0..LATE.len()), by: late.then_some(by) }
            }
            5 | 6 => Self::ReplaceControllerManager,
            7 => Self::HaltControllerManager(STILL.mul_f64(random.random())),
            8 => Self::ReplaceLeader(if random.random_range(0..2) == 0 { End::Killed } else { End::Asked }),
            _ => Self::HaltLeader(STILL.mul_f64(random.random())),
        }
    }
}

/// Does one thing after the other until `done`; what has begun is brought to its end. Tells of each in `deeds`.
pub(crate) async fn disturb(
    stage: &Disturbed,
    processes: &mut Processes<'_>,
    mut random: StdRng,
    done: &Cell<bool>,
    deeds: &RefCell<Vec<String>>,
) -> Result<()> {
    let began = Instant::now();
    let mut rules: BTreeMap<usize, RuleId> = BTreeMap::new();
    while !done.get() {
        tokio::time::sleep(Duration::from_millis(random.random_range(BETWEEN.0..BETWEEN.1))).await;
        let deed = Deed::draw(&mut random);
        deeds.borrow_mut().push(format!("{:7.3} {deed:?}", began.elapsed().as_secs_f64()));
        match deed {
            Deed::Delay { place, by } => {
                if let Some(rule) = rules.remove(&place) {
                    stage.proxy.remove(rule);
                }
                let (who, resource) = LATE.get(place).copied().context("a watch")?;
                if let Some(by) = by {
                    rules.insert(place, stage.delay(who, resource, by));
                }
            }
            Deed::ReplaceControllerManager => processes.replace_controller_manager(&[])?,
            Deed::HaltControllerManager(time) => {
                processes.controller_manager()?.pause()?;
                tokio::time::sleep(time).await;
                processes.controller_manager()?.resume()?;
            }
            Deed::ReplaceLeader(end) => {
                let leader = processes.leader().await?;
                processes.replace_manager(leader, end).await?;
            }
            Deed::HaltLeader(time) => {
                let leader = processes.leader().await?;
                processes.manager(leader)?.child().pause()?;
                tokio::time::sleep(time).await;
                processes.manager(leader)?.child().resume()?;
            }
        }
    }
    stage.proxy.clear();
    Ok(())
}
