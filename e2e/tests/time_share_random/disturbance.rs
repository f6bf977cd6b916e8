//! What is done to managers, the API server and kubelets while groups switch.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use rand::RngExt;
use rand::rngs::StdRng;
use springtide_e2e::fault_proxy::{Answer, At, Class, Fault, Latency, RuleId, When};
use springtide_e2e::manager::USER_AGENT;
use springtide_e2e::time_share::Kubelets;
use springtide_e2e::time_share::kubelets::Habits;
use springtide_e2e::upgrade::disturbed::{Disturbed, End, Processes, Watcher};

/// By so much a watch is late at most.
pub(crate) const LATEST: Duration = Duration::from_secs(3);
/// A manager stands still for so long at most: longer than a lease lasts.
const STILL: Duration = Duration::from_secs(5);
/// Between two deeds.
const BETWEEN: (u64, u64) = (300, 2000);
/// By so much a write is late at most.
const SLOW: Duration = Duration::from_secs(2);

/// What the manager's watches may be late of.
const LATE: [&str; 6] =
    ["pods", "pods", "timesharegroups", "endpointslices", "deployments", "resourcequotas"];
/// What of the manager's writes may fail: most of them resizes and traffic.
const WRITTEN: [&str; 5] = ["pods", "pods/status", "timesharegroups/status", "pods/resize", "pods/resize"];
/// So many of them, from the first on, may in a calm round.
const CALM: usize = 3;
/// A calm kubelet puts no size in force sooner than that: far later than the other resize of a unit comes on a busy machine.
const CALM_LEAST: Duration = Duration::from_millis(600);

/// One thing that is done.
#[derive(Clone, Copy, Debug)]
enum Deed {
    /// A watch is late from now on, or not any more.
    Delay { place: usize, by: Option<Duration> },
    /// Some writes fail from now on, or none any more.
    Fail { place: usize, how: Option<Failure> },
    /// The manager that leads ends.
    ReplaceLeader(End),
    /// It stands still, and does not know for how long.
    HaltLeader(Duration),
    /// Kubelets take so long at least and at most, and miss so many of a hundred changes.
    Behave { least: Duration, most: Duration, deaf_percent: u32 },
}

/// How a write fails.
#[derive(Clone, Copy, Debug)]
enum Failure {
    /// It is never seen.
    Lost,
    /// It is stored, and nobody says so.
    Unanswered,
    /// Somebody else was first.
    Conflict,
    /// The server has no time.
    Busy,
    /// It is late.
    Slow(Duration),
}

impl Failure {
    fn draw(random: &mut StdRng) -> Self {
        match random.random_range(0..5) {
            0 => Self::Lost,
            1 => Self::Unanswered,
            2 => Self::Conflict,
            3 => Self::Busy,
            _ => Self::Slow(SLOW.mul_f64(random.random())),
        }
    }

    fn fault(self) -> Fault {
        match self {
            Self::Lost => Fault::Reset(At::BeforeSend),
            Self::Unanswered => Fault::Reset(At::AfterCommit),
            Self::Conflict => Fault::Refuse(Answer::conflict()),
            Self::Busy => Fault::Refuse(Answer::unavailable()),
            Self::Slow(by) => Fault::Delay(Latency::Fixed(by)),
        }
    }
}

impl Deed {
    /// In a calm round nothing comes between the two resizes of a unit: none fails or is late, and who leads stays.
    fn draw(random: &mut StdRng, is_calm: bool) -> Self {
        match random.random_range(0..if is_calm { 9 } else { 12 }) {
            0..3 => {
                let late = random.random_range(0..3) > 0;
                let by = LATEST.mul_f64(random.random());
                Self::Delay { place: random.random_range(0..LATE.len()), by: late.then_some(by) }
            }
            3..7 => {
                let fails = random.random_range(0..3) > 0;
                let how = Failure::draw(random);
                let places = if is_calm { CALM } else { WRITTEN.len() };
                Self::Fail { place: random.random_range(0..places), how: fails.then_some(how) }
            }
            7..9 => {
                let most = Duration::from_millis(random.random_range(50..1500));
                let deaf_percent = random.random_range(0..30);
                Self::Behave { least: least(is_calm), most: most.max(least(is_calm)), deaf_percent }
            }
            9 | 10 => {
                Self::ReplaceLeader(if random.random_range(0..2) == 0 { End::Killed } else { End::Asked })
            }
            _ => Self::HaltLeader(STILL.mul_f64(random.random())),
        }
    }
}

/// The time that kubelets take for a size at least.
fn least(is_calm: bool) -> Duration {
    if is_calm { CALM_LEAST } else { Duration::from_millis(20) }
}

/// Does one thing after the other until `done`; what has begun is brought to its end. Tells of each in `deeds`.
pub(crate) async fn disturb(
    kubelets: &Kubelets,
    stage: &Disturbed,
    processes: &mut Processes<'_>,
    mut random: StdRng,
    is_calm: bool,
    done: &Cell<bool>,
    deeds: &RefCell<Vec<String>>,
) -> Result<()> {
    let began = Instant::now();
    let least = least(is_calm);
    kubelets.behave(Habits { least, most: least.max(Habits::default().most), deaf_percent: 0 });
    let mut late: BTreeMap<usize, RuleId> = BTreeMap::new();
    let mut failing: BTreeMap<usize, RuleId> = BTreeMap::new();
    while !done.get() {
        tokio::time::sleep(Duration::from_millis(random.random_range(BETWEEN.0..BETWEEN.1))).await;
        let deed = Deed::draw(&mut random, is_calm);
        deeds.borrow_mut().push(format!("{:7.3} {deed:?}", began.elapsed().as_secs_f64()));
        match deed {
            Deed::Delay { place, by } => {
                if let Some(rule) = late.remove(&place) {
                    stage.proxy.remove(rule);
                }
                let resource = LATE.get(place).context("a watch")?;
                if let Some(by) = by {
                    late.insert(place, stage.delay(Watcher::Manager, resource, by));
                }
            }
            Deed::Fail { place, how } => {
                if let Some(rule) = failing.remove(&place) {
                    stage.proxy.remove(rule);
                }
                let resource = WRITTEN.get(place).context("a resource")?;
                if let Some(how) = how {
                    let class = Class::writes().resource(resource).agent(USER_AGENT);
                    let some = When::Chance { probability: 0.3, seed: random.random() };
                    failing.insert(place, stage.proxy.fault(class, some, how.fault()));
                }
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
            Deed::Behave { least, most, deaf_percent } => {
                kubelets.behave(Habits { least, most, deaf_percent });
            }
        }
    }
    stage.proxy.clear();
    kubelets.behave(Habits::default());
    Ok(())
}
