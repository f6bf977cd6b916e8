//! The node itself: containerd, the kubelet and kube-proxy.

use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::core::v1::Node;
use kube::Api;
use nix::sys::signal::Signal;
use procfs::{Current, Meminfo};

use super::config::{self, Kubelet, NODE};
use super::cpus::Cpus;
use super::ctr::Ctr;
use super::machine::{ADDRESS, Machine};
use crate::binaries::Binaries;
use crate::local_cluster::LocalCluster;
use crate::process::Child;

/// Name of the node object.
pub const NODE_NAME: &str = "node1";
/// The user agent of the node's own questions to the API server.
const USER_AGENT: &str = "springtide-node";
/// The kubelet registers within 2 s on an idle machine; tests share theirs with compilers.
pub(super) const READY: Duration = Duration::from_secs(120);
/// Bound for the kubelet's reaction to SIGTERM: it ends at once.
const STOP: Duration = Duration::from_secs(10);
/// The kubelet's own default.
const MAX_PODS: u32 = 110;
/// Between two looks at a process that is about to end.
const POLL: Duration = Duration::from_millis(50);
/// What a loss of power does to a node.
const POWER_OFF: &str = include_str!("power_off.sh");
/// Plugins that [`config::cni`] names.
const PLUGINS: [&str; 4] = ["bridge", "loopback", "host-local", "portmap"];

/// What pods get of the machine in sum.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Allocatable {
    /// CPU in millicores.
    pub cpu_millis: u64,
    /// Memory in bytes.
    pub memory_bytes: u64,
}

/// Options of a node.
#[derive(Clone, Debug)]
pub(super) struct NodeOptions {
    pub(super) max_pods: u32,
    pub(super) allocatable: Option<Allocatable>,
    pub(super) reserved_cpus: Option<Cpus>,
}

impl Default for NodeOptions {
    fn default() -> Self {
        Self { max_pods: MAX_PODS, allocatable: None, reserved_cpus: None }
    }
}

/// containerd, ready for images.
#[derive(Debug)]
pub(super) struct Containerd {
    process: Child,
    ctr: Ctr,
}

/// A node of a running cluster.
#[derive(Debug)]
pub(super) struct RealNode {
    // Dropped in this order: who uses containers before who runs them.
    kubelet: Child,
    kube_proxy: Child,
    containerd: Containerd,
}

impl Containerd {
    /// Starts it inside the machine and waits until it answers.
    pub(super) async fn start(machine: &Machine, binaries: &Binaries) -> Result<Self> {
        let folder = machine.node_folder();
        let plugins = folder.join("cni/bin");
        fs::create_dir_all(&plugins)?;
        for plugin in PLUGINS {
            let path = binaries.path(plugin)?;
            fs::copy(&path, plugins.join(plugin)).with_context(|| format!("copy {}", path.display()))?;
        }
        write(&folder.join("cni/net.d/10-pods.conflist"), &config::cni().to_string())?;
        write(&folder.join("containerd.toml"), &config::containerd()?)?;
        let program = binaries.path("ctr")?;
        let process = run_containerd(machine, binaries, &program).await?;
        let ctr = Ctr { program, log: process.log_path().to_owned() };
        Ok(Self { process, ctr })
    }

    /// Its client.
    pub(super) fn ctr(&self) -> &Ctr {
        &self.ctr
    }

    /// Ends its process, and starts another one. Shims and containers stay.
    async fn restart(&mut self, machine: &Machine, binaries: &Binaries) -> Result<()> {
        end(&self.process, Signal::SIGTERM).await?;
        self.process = run_containerd(machine, binaries, &self.ctr.program).await?;
        Ok(())
    }
}

impl RealNode {
    /// Joins a machine with containerd to a cluster whose control plane runs on it.
    pub(super) async fn start(
        machine: &Machine,
        containerd: Containerd,
        cluster: &LocalCluster,
        options: &NodeOptions,
    ) -> Result<Self> {
        let folder = machine.node_folder();
        let reserved = options.allocatable.map(reserved).transpose()?;
        let cgroup_root = machine.cgroup_root();
        let kubelet = Kubelet {
            cgroup_root: &cgroup_root,
            max_pods: options.max_pods,
            reserved_cpu: reserved.map_or(0, |reserved| reserved.cpu_millis),
            reserved_memory: reserved.map_or(0, |reserved| reserved.memory_bytes),
            reserved_cpus: options.reserved_cpus.as_ref(),
        };
        write(&folder.join("kubelet.yaml"), &kubelet.render().to_string())?;
        write(&folder.join("kube-proxy.yaml"), &config::kube_proxy(NODE_NAME).to_string())?;
        fs::copy(cluster.pki().authority_certificate(), folder.join("ca.crt"))?;
        // Each as the user whose rights it has in a cluster, not as administrator.
        let server = format!("https://127.0.0.1:{}", cluster.inner_port());
        for (name, user, group) in [
            ("kubelet", format!("system:node:{NODE_NAME}"), "system:nodes"),
            ("kube-proxy", "system:kube-proxy".to_owned(), "system:node-proxiers"),
        ] {
            let certificate = cluster.pki().client(name, &user, group)?;
            cluster.pki().kubeconfig(&folder.join(format!("{name}.kubeconfig")), &server, &certificate)?;
        }
        let kube_proxy = start_kube_proxy(machine, cluster)?;
        let kubelet = start_kubelet(machine, cluster)?;
        let mut node = Self { kubelet, kube_proxy, containerd };
        let nodes: Api<Node> = Api::all(cluster.client(USER_AGENT)?);
        node.kubelet.wait_ready(READY, async || ready(&nodes.get(NODE_NAME).await?)).await?;
        node.kube_proxy.ensure_running()?;
        Ok(node)
    }

    /// Ends the kubelet, and starts one that goes by `kubeconfig`. Containers stay.
    pub(super) async fn run_kubelet_through(
        &mut self,
        machine: &Machine,
        cluster: &LocalCluster,
        kubeconfig: &Path,
    ) -> Result<()> {
        fs::copy(kubeconfig, machine.node_folder().join("kubelet.kubeconfig"))?;
        self.restart_kubelet(machine, cluster).await
    }

    /// Ends the kubelet, and starts it again. Containers stay.
    pub(super) async fn restart_kubelet(&mut self, machine: &Machine, cluster: &LocalCluster) -> Result<()> {
        end(&self.kubelet, Signal::SIGTERM).await?;
        self.kubelet = start_kubelet(machine, cluster)?;
        Ok(())
    }

    /// Ends containerd, and starts it again. Containers stay.
    pub(super) async fn restart_containerd(
        &mut self,
        machine: &Machine,
        cluster: &LocalCluster,
    ) -> Result<()> {
        self.containerd.restart(machine, cluster.binaries()).await
    }

    /// Ends everything of the node as a loss of power does, forgets what a machine keeps in memory alone, and starts it
    /// again. What is on its disk stays.
    pub(super) async fn reboot(&mut self, machine: &Machine, cluster: &LocalCluster) -> Result<()> {
        for process in [&self.kubelet, &self.kube_proxy, &self.containerd.process] {
            end(process, Signal::SIGKILL).await?;
        }
        let script = machine
            .command("power-off", Path::new("/bin/sh"))
            .args(["-c", POWER_OFF, "power-off"])
            .arg(machine.cgroup_root())
            .arg(NODE)
            .spawn()?;
        let deadline = tokio::time::Instant::now() + READY;
        while script.is_running() {
            ensure!(tokio::time::Instant::now() < deadline, "containers do not end");
            tokio::time::sleep(POLL).await;
        }
        let said = script.log_tail();
        ensure!(said.lines().last() == Some("off"), "the node is not off: {said}");
        self.containerd.process =
            run_containerd(machine, cluster.binaries(), &self.containerd.ctr.program).await?;
        self.kube_proxy = start_kube_proxy(machine, cluster)?;
        self.kubelet = start_kubelet(machine, cluster)?;
        Ok(())
    }

    /// The kubelet's process.
    pub(super) fn kubelet(&self) -> &Child {
        &self.kubelet
    }

    /// Ends the processes; containers are left to the end of the machine.
    pub(super) fn stop(self) -> Result<()> {
        self.kubelet.stop(Signal::SIGTERM, STOP)?;
        self.kube_proxy.stop(Signal::SIGTERM, STOP)?;
        self.containerd.process.stop(Signal::SIGTERM, STOP)?;
        Ok(())
    }
}

async fn run_containerd(machine: &Machine, binaries: &Binaries, ctr: &Path) -> Result<Child> {
    let mut process = machine
        .command("containerd", &binaries.path("containerd")?)
        .args(["--config", &format!("{NODE}/containerd.toml")])
        // A proxy of the machine is not there for the private one.
        .env("NO_PROXY", "*")
        .spawn()?;
    process.wait_ready(READY, async || machine.run(ctr, &["version"])).await?;
    Ok(process)
}

/// Ends a process, and waits until it has.
async fn end(process: &Child, signal: Signal) -> Result<()> {
    process.signal(signal)?;
    let deadline = tokio::time::Instant::now() + STOP;
    while process.is_running() {
        ensure!(tokio::time::Instant::now() < deadline, "{} does not end", process.name());
        tokio::time::sleep(POLL).await;
    }
    Ok(())
}

fn start_kube_proxy(machine: &Machine, cluster: &LocalCluster) -> Result<Child> {
    machine
        .command("kube-proxy", &cluster.binaries().path("kube-proxy")?)
        .args(["--config", &format!("{NODE}/kube-proxy.yaml")])
        .spawn()
}

fn start_kubelet(machine: &Machine, cluster: &LocalCluster) -> Result<Child> {
    machine
        .command("kubelet", &cluster.binaries().path("kubelet")?)
        .args(["--config", &format!("{NODE}/kubelet.yaml")])
        .args(["--kubeconfig", &format!("{NODE}/kubelet.kubeconfig")])
        .args(["--root-dir", &format!("{NODE}/kubelet")])
        .args(["--hostname-override", NODE_NAME])
        .args(["--node-ip", &ADDRESS.to_string()])
        .spawn()
}

/// Ready, and without the taints that keep pods away while it was not.
fn ready(node: &Node) -> Result<()> {
    let conditions = node.status.as_ref().and_then(|status| status.conditions.as_ref());
    let ready = conditions.into_iter().flatten().find(|condition| condition.type_ == "Ready");
    let ready = ready.context("the node has no condition Ready")?;
    ensure!(
        ready.status == "True",
        "the node is not Ready: {}",
        ready.message.as_deref().unwrap_or_default()
    );
    let taints = node.spec.as_ref().and_then(|spec| spec.taints.as_ref());
    ensure!(taints.is_none_or(Vec::is_empty), "the node still has taints: {taints:?}");
    Ok(())
}

/// What the kubelet must keep back so that pods get this much: it offers what the
/// machine has, less the reserve.
fn reserved(wanted: Allocatable) -> Result<Allocatable> {
    let memory = Meminfo::current().context("read how much memory there is")?.mem_total;
    let cpus = Cpus::online()?.len();
    let cpu_millis = cpus as u64 * 1000;
    let missing = || format!("{wanted:?} is more than the machine has ({cpus} CPUs, {memory} bytes)");
    Ok(Allocatable {
        cpu_millis: cpu_millis.checked_sub(wanted.cpu_millis).with_context(missing)?,
        memory_bytes: memory.checked_sub(wanted.memory_bytes).with_context(missing)?,
    })
}

fn write(path: &Path, text: &str) -> Result<()> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    fs::write(path, text).with_context(|| format!("write {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn more_than_the_machine_is_refused() {
        let huge = Allocatable { cpu_millis: 1, memory_bytes: u64::MAX };
        assert!(reserved(huge).unwrap_err().to_string().contains("more than the machine has"));
        let none = Allocatable { cpu_millis: 0, memory_bytes: 0 };
        assert!(reserved(none).unwrap().memory_bytes > 0);
    }
}
