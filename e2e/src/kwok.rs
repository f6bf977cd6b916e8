//! Nodes and pods that exist only in the API, played by KWOK with our own Stages.
//!
//! A pod on such a node starts at once. One with `restartPolicy: Never` ends by
//! itself, whoever owns it; all others run until they are deleted. Annotations of
//! the pod steer its end:
//!
//! | annotation | meaning | default |
//! |---|---|---|
//! | [`RUN_SECONDS`] | seconds from start to end, fractions allowed, or `never` | `1` |
//! | [`EXIT_CODE`] | exit code of the first container, or `index` for its number; the others end with 0 | `0` |
//! | [`TERMINATION_REASON`] | its reason, such as `OOMKilled` | `Completed` or `Error` |
//! | [`TERMINATION_MESSAGE`] | its termination message | none |
//! | [`STOP_SECONDS`] | seconds from SIGTERM to its end, as of a container that traps it | `0` |
//!
//! A change of a running pod starts its delay anew, since KWOK counts it from the
//! last change that it saw.
//!
//! With [`Stages::InPlace`] a running pod that is not of `restartPolicy: Never` follows changes of its spec as a kubelet
//! has it: its observed generation first, then containers, resources and readiness.
//!
//! | annotation | meaning | default |
//! |---|---|---|
//! | [`RESTART_SECONDS`] | seconds from a change of an image to the new container; until then the status shows the old one | `0` |
//! | [`IMAGE_OUTCOMES`] | what becomes of containers of some images, by [`image_outcomes`] | [`ImageOutcome::Runs`] |
//! | [`RESIZE_SECONDS`] | seconds until changed resources are in force | `0` |
//! | [`RESIZE_OUTCOME`] | a [`ResizeOutcome`]: why they are not, for as long as the annotation is there | they come into force |

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use futures::{StreamExt, TryStreamExt, stream};
use k8s_openapi::api::core::v1::{Node, NodeStatus};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use kube::api::{Api, ListParams, ObjectMeta, PostParams};

use crate::local_cluster::LocalCluster;
use crate::process::{Child, Command};

/// Annotation: seconds from start to end of a pod's containers, or `never`.
pub const RUN_SECONDS: &str = "kwok.springtide.dev/run-seconds";
/// Annotation: exit code of a pod's first container, or [`EXIT_CODE_INDEX`].
pub const EXIT_CODE: &str = "kwok.springtide.dev/exit-code";
/// Value of [`EXIT_CODE`]: the pod's completion index, by its label.
pub const EXIT_CODE_INDEX: &str = "index";
/// Annotation: reason in the terminated state of a pod's first container.
pub const TERMINATION_REASON: &str = "kwok.springtide.dev/termination-reason";
/// Annotation: termination message of a pod's first container.
pub const TERMINATION_MESSAGE: &str = "kwok.springtide.dev/termination-message";
/// Annotation: seconds that a running pod goes on after its deletion was asked for, fractions allowed.
pub const STOP_SECONDS: &str = "kwok.springtide.dev/stop-seconds";

/// Annotation: seconds from a change of an image to its new container, fractions allowed.
pub const RESTART_SECONDS: &str = "kwok.springtide.dev/restart-seconds";
/// Annotation: what becomes of containers of some images, as [`image_outcomes`] writes it.
pub const IMAGE_OUTCOMES: &str = "kwok.springtide.dev/image-outcomes";
/// Annotation: seconds until changed resources are in force, fractions allowed.
pub const RESIZE_SECONDS: &str = "kwok.springtide.dev/resize-seconds";
/// Annotation: a [`ResizeOutcome`]. When it is taken away, the resources come into force.
pub const RESIZE_OUTCOME: &str = "kwok.springtide.dev/resize-outcome";

/// What becomes of a container whose image has been changed to a certain one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ImageOutcome {
    /// It runs and is ready, with an imageID that follows from the name.
    Runs,
    /// As [`ImageOutcome::Runs`], with the imageID of the container before it: another name for the same content.
    SameContent,
    /// The image cannot be pulled: the old container is gone, and there is no new one.
    Missing,
    /// Each new container ends at once, every five seconds another one.
    Crashes,
    /// It runs and never becomes ready.
    Unready,
}

impl ImageOutcome {
    fn name(self) -> &'static str {
        match self {
            Self::Runs => "Runs",
            Self::SameContent => "SameContent",
            Self::Missing => "Missing",
            Self::Crashes => "Crashes",
            Self::Unready => "Unready",
        }
    }
}

/// The value of [`IMAGE_OUTCOMES`] for some images by their full names; all others run.
#[must_use]
pub fn image_outcomes(outcomes: &[(&str, ImageOutcome)]) -> String {
    let by_image: BTreeMap<_, _> = outcomes.iter().map(|(image, outcome)| (*image, outcome.name())).collect();
    serde_json::json!(by_image).to_string()
}

/// Why changed resources are not in force.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ResizeOutcome {
    /// Condition `PodResizePending`: the node has no room now.
    Deferred,
    /// Condition `PodResizePending`: the node can never give it.
    Infeasible,
    /// Condition `PodResizeInProgress`, without end.
    InProgress,
}

impl ResizeOutcome {
    /// The value of [`RESIZE_OUTCOME`], which is the reason of the condition as well.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Deferred => "Deferred",
            Self::Infeasible => "Infeasible",
            Self::InProgress => "InProgress",
        }
    }
}

/// What KWOK does with pods.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Stages {
    /// They start, end and go; a change of a running one is not answered.
    #[default]
    Lives,
    /// In addition, running ones follow changes of their spec.
    InPlace,
    /// As that, but for their sizes: somebody else plays the part of kubelets that is about these, and says that the spec has
    /// been seen ([`Kubelets`](crate::time_share::kubelets::Kubelets)).
    Unsized,
}

/// Annotation that puts a node into KWOK's hands; all others are left alone.
const MANAGED: (&str, &str) = ("kwok.x-k8s.io/node", "fake");
/// Label that names the set of a node.
const NODE_SET: &str = "springtide.dev/node-set";

/// Files for KWOK's `--config`. It has no Stages built in.
const FILES: [(&str, &str); 5] = [
    ("config.yaml", include_str!("kwok/config.yaml")),
    ("node.yaml", include_str!("kwok/stages/node.yaml")),
    ("pod-start.yaml", include_str!("kwok/stages/pod-start.yaml")),
    ("pod-complete.yaml", include_str!("kwok/stages/pod-complete.yaml")),
    ("pod-delete.yaml", include_str!("kwok/stages/pod-delete.yaml")),
];
/// One more for [`Stages::Unsized`], ...
const IN_PLACE: (&str, &str) = ("pod-in-place.yaml", include_str!("kwok/stages/pod-in-place.yaml"));
/// ... and another one for [`Stages::InPlace`].
const RESIZE: (&str, &str) = ("pod-resize.yaml", include_str!("kwok/stages/pod-resize.yaml"));

/// Bound for new nodes to become Ready.
const NODES_READY: Duration = Duration::from_secs(180);

/// A set of equal nodes.
#[derive(Debug, Clone)]
pub struct NodeSpec {
    /// Name of the set; the nodes are `<name>-0`, `<name>-1` and so on.
    pub name: String,
    /// Number of nodes. Beyond 256 nodes the controller manager has no pod range left.
    pub count: usize,
    /// Allocatable CPU, a Kubernetes quantity.
    pub cpu: String,
    /// Allocatable memory, a Kubernetes quantity.
    pub memory: String,
    /// Allocatable number of pods.
    pub pods: u32,
    /// Labels beside `kubernetes.io/hostname`.
    pub labels: BTreeMap<String, String>,
}

impl Default for NodeSpec {
    /// Ten nodes named `kwok-…` with 32 CPUs, 128 GiB and 110 pods each.
    fn default() -> Self {
        Self {
            name: "kwok".into(),
            count: 10,
            cpu: "32".into(),
            memory: "128Gi".into(),
            pods: 110,
            labels: BTreeMap::new(),
        }
    }
}

impl NodeSpec {
    fn node(&self, index: usize) -> Node {
        let name = format!("{}-{index}", self.name);
        let mut labels = self.labels.clone();
        for (key, value) in [
            ("kubernetes.io/hostname", name.as_str()),
            ("kubernetes.io/os", "linux"),
            ("kubernetes.io/arch", "amd64"),
            (NODE_SET, &self.name),
        ] {
            labels.insert(key.into(), value.into());
        }
        let resources = BTreeMap::from([
            ("cpu".to_owned(), Quantity(self.cpu.clone())),
            ("memory".to_owned(), Quantity(self.memory.clone())),
            ("pods".to_owned(), Quantity(self.pods.to_string())),
        ]);
        Node {
            metadata: ObjectMeta {
                name: Some(name),
                labels: Some(labels),
                annotations: Some(BTreeMap::from([(MANAGED.0.into(), MANAGED.1.into())])),
                ..ObjectMeta::default()
            },
            status: Some(NodeStatus {
                allocatable: Some(resources.clone()),
                capacity: Some(resources),
                ..NodeStatus::default()
            }),
            ..Node::default()
        }
    }
}

/// A running KWOK.
#[derive(Debug)]
pub struct Kwok {
    child: Child,
}

impl Kwok {
    /// Starts KWOK for a cluster and adds `nodes`; returns when they are Ready.
    /// Drop it before the cluster.
    ///
    /// # Errors
    /// It does not start, or as [`Kwok::add_nodes`].
    pub async fn start(cluster: &LocalCluster, nodes: &NodeSpec, stages: Stages) -> Result<Self> {
        let folder = cluster.folder().join("kwok");
        std::fs::create_dir_all(&folder).context("make KWOK's folder")?;
        let log = cluster.folder().join("log").join("kwok.log");
        let mut command = Command::new("kwok", cluster.binaries().path("kwok")?, log)
            // Else it looks for a configuration in the user's home.
            .env("KWOK_WORKDIR", &folder)
            .arg("--kubeconfig")
            .arg(cluster.inner_kubeconfig_path())
            .arg("--manage-all-nodes=false")
            .arg(format!("--manage-nodes-with-annotation-selector={}={}", MANAGED.0, MANAGED.1));
        let further = match stages {
            Stages::Lives => vec![],
            Stages::InPlace => vec![IN_PLACE, RESIZE],
            Stages::Unsized => vec![IN_PLACE],
        };
        for (name, text) in FILES.into_iter().chain(further) {
            let path = folder.join(name);
            std::fs::write(&path, text).with_context(|| format!("write {}", path.display()))?;
            command = command.arg("--config").arg(path);
        }
        if let Some(namespaces) = cluster.namespaces() {
            command = command.in_namespaces(namespaces);
        }
        let mut kwok = Self { child: command.spawn()? };
        let added = kwok.add_nodes(cluster, nodes).await;
        // Its own end explains more than nodes that do not become Ready.
        kwok.child.ensure_running()?;
        added?;
        Ok(kwok)
    }

    /// Adds a set of nodes; returns their names when all are Ready and without taints.
    ///
    /// # Errors
    /// A node exists already, or they are not Ready within three minutes.
    pub async fn add_nodes(&self, cluster: &LocalCluster, spec: &NodeSpec) -> Result<Vec<String>> {
        let nodes: Api<Node> = Api::all(cluster.client("springtide-e2e")?);
        let names = stream::iter(0..spec.count)
            .map(|index| {
                let nodes = nodes.clone();
                async move {
                    let node = spec.node(index);
                    nodes.create(&PostParams::default(), &node).await?;
                    Ok::<_, kube::Error>(node.metadata.name.unwrap_or_default())
                }
            })
            .buffered(16)
            .try_collect::<Vec<_>>()
            .await
            .with_context(|| format!("create the nodes {}-…", spec.name))?;

        let params = ListParams::default().labels(&format!("{NODE_SET}={}", spec.name));
        let deadline = tokio::time::Instant::now() + NODES_READY;
        loop {
            let listed = nodes.list(&params).await.context("list nodes")?;
            let ready = listed.items.iter().filter(|node| usable(node)).count();
            if ready >= spec.count {
                return Ok(names);
            }
            if !self.child.is_running() || tokio::time::Instant::now() >= deadline {
                bail!(
                    "{ready} of {} nodes {}-… are Ready; KWOK's log ends with:\n{}",
                    spec.count,
                    spec.name,
                    self.child.log_tail()
                );
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Its process, for pauses and for resource figures.
    #[must_use]
    pub fn child(&self) -> &Child {
        &self.child
    }

    /// Its process, for an orderly stop.
    #[must_use]
    pub(crate) fn into_child(self) -> Child {
        self.child
    }
}

/// Ready, and without taints that keep pods away.
#[must_use]
pub fn usable(node: &Node) -> bool {
    let conditions = node.status.as_ref().and_then(|status| status.conditions.as_ref());
    let ready = conditions.is_some_and(|conditions| {
        conditions.iter().any(|condition| condition.type_ == "Ready" && condition.status == "True")
    });
    let taints = node.spec.as_ref().and_then(|spec| spec.taints.as_ref());
    ready && taints.is_none_or(Vec::is_empty)
}
