//! A control plane and one real node, together on one private machine.

use std::path::Path;

use anyhow::{Context, Result};

use super::cgroup::{PodLimits, limits_of_pod};
use super::cpus::Cpus;
use super::ctr::Ctr;
use super::leftovers::Footprint;
use super::machine::{ADDRESS, Machine};
use super::program::base_images;
use super::real_node::{Allocatable, Containerd, NodeOptions, RealNode};
use crate::binaries::Binaries;
use crate::local_cluster::{self, LocalCluster};
use springtide_image::Image;
use tokio::sync::Mutex;

/// Options of a [`NodeCluster`].
#[derive(Debug)]
pub struct Builder {
    control_plane: local_cluster::Builder,
    options: NodeOptions,
    images: Vec<Image>,
}

impl Builder {
    /// Options of the control plane. Default: [`LocalCluster::builder`].
    #[must_use]
    pub fn control_plane(mut self, builder: local_cluster::Builder) -> Self {
        self.control_plane = builder;
        self
    }

    /// Most pods on the node at a time. Default: 110, as the kubelet has it.
    #[must_use]
    pub fn max_pods(mut self, pods: u32) -> Self {
        self.options.max_pods = pods;
        self
    }

    /// What the node offers to pods, whatever the machine has beyond that. Default:
    /// all of the machine.
    #[must_use]
    pub fn allocatable(mut self, allocatable: Allocatable) -> Self {
        self.options.allocatable = Some(allocatable);
        self
    }

    /// Gives each Guaranteed pod that asks for whole CPUs as many to itself (the kubelet's static CPU manager policy);
    /// these are never among them, and all other pods run on them and on what is nobody's own. Processes of the system
    /// are not kept there: [`Pinned`](super::cpus::Pinned) does that. The kubelet takes the first CPUs for it, as many as
    /// these are, and offers what nine tenths of the last of them hold. Default: all pods share all CPUs.
    #[must_use]
    pub fn reserved_cpus(mut self, cpus: Cpus) -> Self {
        self.options.reserved_cpus = Some(cpus);
        self
    }

    /// Puts a further image on the node, besides those of
    /// [`base_images`](super::program::base_images).
    #[must_use]
    pub fn image(mut self, image: Image) -> Self {
        self.images.push(image);
        self
    }

    /// Starts everything and waits until the node is Ready, has the images and takes
    /// pods.
    ///
    /// # Errors
    /// What [`preflight`](super::preflight) finds missing, or a component that does
    /// not become ready; its last log lines stand in the error. Nothing is left behind.
    pub async fn start(self) -> Result<NodeCluster> {
        let Self { control_plane, options, mut images } = self;
        let binaries = Binaries::locate()?;
        let machine = Machine::create(&binaries.search_path()).await?;
        images.splice(0..0, base_images()?);
        let (control_plane, containerd) = tokio::try_join!(
            control_plane.in_namespaces(machine.namespaces(), ADDRESS.into()).start(),
            async {
                let containerd = Containerd::start(&machine, &binaries).await?;
                containerd.ctr().import(&machine, &images).await?;
                Ok(containerd)
            }
        )?;
        let ctr = containerd.ctr().clone();
        let node = RealNode::start(&machine, containerd, &control_plane, &options).await?;
        Ok(NodeCluster { node: Mutex::new(node), ctr, control_plane, machine })
    }
}

/// A running cluster with a real node. Dropping it ends every process, container
/// and namespace of it, and removes its state.
pub struct NodeCluster {
    // Dropped in this order: the machine's first process ends only after all others.
    node: Mutex<RealNode>,
    ctr: Ctr,
    control_plane: LocalCluster,
    machine: Machine,
}

impl NodeCluster {
    /// Options with their defaults.
    #[must_use]
    pub fn builder() -> Builder {
        Builder {
            control_plane: LocalCluster::builder(),
            options: NodeOptions::default(),
            images: Vec::new(),
        }
    }

    /// The control plane: clients, kubeconfig, audit log.
    #[must_use]
    pub fn control_plane(&self) -> &LocalCluster {
        &self.control_plane
    }

    /// The control plane, to restart its parts.
    #[must_use]
    pub fn control_plane_mut(&mut self) -> &mut LocalCluster {
        &mut self.control_plane
    }

    /// Stops the kubelet in its tracks: it keeps its connections, and does nothing; containers go on.
    ///
    /// # Errors
    /// It has ended.
    pub async fn pause_kubelet(&self) -> Result<()> {
        self.node.lock().await.kubelet().pause()
    }

    /// Lets it go on.
    ///
    /// # Errors
    /// It has ended.
    pub async fn resume_kubelet(&self) -> Result<()> {
        self.node.lock().await.kubelet().resume()
    }

    /// Runs the kubelet by the way of `kubeconfig` from now on, which must lead to an address on this machine.
    /// The one that runs is ended; its containers stay.
    ///
    /// # Errors
    /// It does not end, or another one does not start.
    pub async fn run_kubelet_through(&mut self, kubeconfig: &Path) -> Result<()> {
        self.node.get_mut().run_kubelet_through(&self.machine, &self.control_plane, kubeconfig).await
    }

    /// Ends the kubelet and starts it again; containers stay. It is back when it answers what the API server has meanwhile.
    ///
    /// # Errors
    /// It does not end, or another one does not start.
    pub async fn restart_kubelet(&self) -> Result<()> {
        self.node.lock().await.restart_kubelet(&self.machine, &self.control_plane).await
    }

    /// Ends containerd and starts it again; containers stay.
    ///
    /// # Errors
    /// It does not end, or another one does not come to answer.
    pub async fn restart_containerd(&self) -> Result<()> {
        self.node.lock().await.restart_containerd(&self.machine, &self.control_plane).await
    }

    /// Has the node lose its power and start again: all containers end at once, and pods get other addresses, while the
    /// control plane goes on. What is on the node's disk stays, the volumes of its pods too.
    ///
    /// # Errors
    /// Something does not end, or does not start.
    pub async fn reboot(&self) -> Result<()> {
        self.node.lock().await.reboot(&self.machine, &self.control_plane).await
    }

    /// Kills the processes of a container, by the ID that its status has.
    ///
    /// # Errors
    /// There is no such container, or it does not run.
    pub fn kill_container(&self, id: &str) -> Result<()> {
        let id = id.strip_prefix("containerd://").unwrap_or(id);
        let arguments = ["tasks", "kill", "--all", "--signal", "SIGKILL", id];
        self.ctr.run(&self.machine, &arguments).map(drop)
    }

    /// What the kernel holds a pod of this UID to.
    ///
    /// # Errors
    /// It has no control group.
    pub fn limits_of_pod(&self, uid: &str) -> Result<PodLimits> {
        limits_of_pod(self.machine.footprint().id(), uid)
    }

    /// Takes an image off the node, under every name that it has.
    ///
    /// # Errors
    /// The node has no image of this name, or containerd refuses.
    pub fn remove_image(&self, reference: &str) -> Result<()> {
        self.ctr.remove(&self.machine, reference)
    }

    /// Puts a further image on the node.
    ///
    /// # Errors
    /// containerd refuses the archive.
    pub async fn import(&self, image: Image) -> Result<()> {
        self.ctr.import(&self.machine, &[image]).await
    }

    /// Ids of the containers that containerd has for pods of a namespace, those of
    /// their sandboxes included, running or ended.
    ///
    /// # Errors
    /// containerd does not answer.
    pub fn containers(&self, namespace: &str) -> Result<Vec<String>> {
        let filter = format!(r#"labels."io.kubernetes.pod.namespace"=={namespace}"#);
        let listed = self.ctr.run(&self.machine, &["containers", "ls", "-q", &filter])?;
        Ok(listed.lines().map(str::to_owned).collect())
    }

    /// Runs a program inside the cluster's network and mounts and gives its standard
    /// output; blocks the thread.
    ///
    /// # Errors
    /// It fails, or takes longer than two minutes.
    pub fn run_inside(&self, program: &str, arguments: &[&str]) -> Result<String> {
        self.machine.run(Path::new(program), arguments)
    }

    /// The machine that all of it runs on.
    pub(super) fn machine(&self) -> &Machine {
        &self.machine
    }

    /// What to look for when nothing of this cluster may be left.
    #[must_use]
    pub fn footprint(&self) -> Footprint {
        self.machine.footprint().clone().with_folder(self.control_plane.folder())
    }

    /// Ends everything in order, each component with time to finish. Dropping the
    /// cluster is quicker, but kills.
    ///
    /// # Errors
    /// A process cannot be waited for; the others are still ended.
    pub fn stop(self) -> Result<()> {
        let Self { node, ctr: _, control_plane, machine } = self;
        let node = node.into_inner().stop();
        let control_plane = control_plane.stop();
        drop(machine);
        node.context("stop the node")?;
        control_plane.context("stop the control plane")
    }
}
