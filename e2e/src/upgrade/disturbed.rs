//! A cluster whose controller manager and managers reach the API server by a proxy, so that they can be made to see late
//! what changes, and which are replaced and stand still as a test wants it.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use super::manager_through;
use crate::fault_proxy::{Class, EventFault, FaultProxy, Protocols, RuleId, When};
use crate::local_cluster::LocalCluster;
use crate::manager::{Manager, USER_AGENT, lease_holder};
use crate::oracle::feed::PATIENCE;
use crate::process::Child;
use crate::write_count::Verb;

/// Names of the two managers, of which one leads.
const MANAGERS: [&str; 2] = ["manager-a", "manager-b"];
/// Duration, renew deadline and retry period of their lease in seconds, a tenth of the shipped ones: a leader that is gone
/// is replaced before a run has ended without one.
const LEASE_TIMES: &str = "3,2,0.5";
/// Namespace of the lease, which [`Manager::start_with`] names.
const LEASE_NAMESPACE: &str = "default";
/// Between two looks at the lease.
const PAUSE: Duration = Duration::from_millis(50);

/// Who watches by way of the proxy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Watcher {
    /// The native controllers, all in one process.
    ControllerManager,
    /// The managers.
    Manager,
}

impl Watcher {
    /// Its watches of a resource, by the one process or the other.
    #[must_use]
    pub fn watches(self, resource: &str) -> Class {
        let agent = match self {
            Self::ControllerManager => "kube-controller-manager/",
            Self::Manager => USER_AGENT,
        };
        Class::of([Verb::Watch]).resource(resource).agent(agent)
    }
}

/// How a manager ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// By SIGKILL: its lease stays, until it is over.
    Killed,
    /// By SIGTERM: it lets go of its lease.
    Asked,
}

/// The cluster and the proxy. It has no controller manager and no manager before [`Processes`] has them.
pub struct Disturbed {
    // Dropped in this order.
    /// What all of them go through.
    pub proxy: FaultProxy,
    /// The cluster.
    pub cluster: LocalCluster,
}

impl Disturbed {
    /// Starts both.
    ///
    /// # Errors
    /// As [`cluster`](super::cluster), or the proxy does not start.
    pub async fn start() -> Result<Self> {
        let mut cluster = super::cluster().await?;
        cluster.end_controller_manager();
        Ok(Self { proxy: FaultProxy::start(&cluster, Protocols::All)?, cluster })
    }

    /// From now on each event of these watches comes so much later, in its order; those that have begun are no exception.
    pub fn delay(&self, who: Watcher, resource: &str, by: Duration) -> RuleId {
        self.proxy.event_fault(who.watches(resource), &[], When::Always, EventFault::Delay(by))
    }
}

/// The processes that go through the proxy: a controller manager, and managers of which one leads.
pub struct Processes<'a> {
    stage: &'a Disturbed,
    controller_manager: Option<Child>,
    managers: [Option<Manager>; MANAGERS.len()],
    /// Managers so far.
    started: u32,
}

impl<'a> Processes<'a> {
    /// Starts all of them; returns when both managers are ready and one of them leads.
    ///
    /// # Errors
    /// One does not start.
    pub async fn start(stage: &'a Disturbed) -> Result<Self> {
        let mut processes = Self { stage, controller_manager: None, managers: [None, None], started: 0 };
        processes.replace_controller_manager(&[])?;
        for number in 0..MANAGERS.len() {
            processes.start_manager(number).await?;
        }
        processes.leader().await?;
        Ok(processes)
    }

    /// The controller manager.
    ///
    /// # Errors
    /// It was not started again after a failure.
    pub fn controller_manager(&self) -> Result<&Child> {
        self.controller_manager.as_ref().context("no controller manager")
    }

    /// Kills the controller manager, and starts another one with these flags beside the usual ones.
    ///
    /// # Errors
    /// It does not start.
    pub fn replace_controller_manager(&mut self, args: &[&str]) -> Result<()> {
        // First the old one: two at a time would do everything twice.
        self.controller_manager = None;
        let way = self.stage.proxy.kubeconfig();
        self.controller_manager = Some(self.stage.cluster.controller_manager_through(way, args)?);
        Ok(())
    }

    /// The manager of a number.
    ///
    /// # Errors
    /// It was not started again after a failure.
    pub fn manager(&self, number: usize) -> Result<&Manager> {
        self.managers.get(number).and_then(Option::as_ref).context("no such manager")
    }

    /// Waits until one of the managers leads, and gives its number.
    ///
    /// # Errors
    /// None does.
    pub async fn leader(&self) -> Result<usize> {
        let client = self.stage.cluster.client("springtide-test")?;
        let deadline = Instant::now() + PATIENCE;
        loop {
            let holder = lease_holder(client.clone(), LEASE_NAMESPACE).await?;
            let number = holder.and_then(|holder| MANAGERS.iter().position(|name| *name == holder));
            if let Some(number) = number {
                return Ok(number);
            }
            ensure!(Instant::now() < deadline, "no manager leads");
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// Ends a manager, and starts another one in its place; returns when that one is ready.
    ///
    /// # Errors
    /// It does not end, or the other one does not start.
    pub async fn replace_manager(&mut self, number: usize, end: End) -> Result<()> {
        let ended = self.managers.get_mut(number).and_then(Option::take).context("no such manager")?;
        // It waits for the process, which no async task may do.
        tokio::task::spawn_blocking(move || match end {
            End::Killed => ended.kill(),
            End::Asked => ended.stop(),
        })
        .await??;
        self.start_manager(number).await
    }

    async fn start_manager(&mut self, number: usize) -> Result<()> {
        let identity = *MANAGERS.get(number).context("no such manager")?;
        self.started += 1;
        // Its port is read from its log, so each has one of its own.
        let name = format!("{identity}-{}", self.started);
        let args = ["--identity", identity, "--lease-times", LEASE_TIMES];
        let (cluster, way) = (&self.stage.cluster, self.stage.proxy.kubeconfig());
        let manager = manager_through(cluster, way, &name, &args).await?;
        if let Some(place) = self.managers.get_mut(number) {
            *place = Some(manager);
        }
        Ok(())
    }
}
