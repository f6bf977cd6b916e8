//! Kueue beside the control plane: its manager as a process, with its webhooks, and queues as large as the cluster.

mod manifests;

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use k8s_openapi::api::core::v1::{Node, Secret};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::ResourceExt;
use kube::api::{Api, ApiResource, ListParams};
use kube::runtime::wait::{await_condition, conditions};
use nix::sys::signal::Signal;
use serde_json::Value;
use springtide_e2e::local_cluster::LocalCluster;
use springtide_e2e::manager;
use springtide_e2e::process::{Child, Command};

pub(crate) use manifests::QUEUE;
use manifests::{NAMESPACE, Ports, SECRET};

/// The Go module, and its folder under `hack/tools`.
const MODULE: &str = "sigs.k8s.io/kueue";
/// The version that is pinned there.
pub(crate) const VERSION: &str = "v0.17.0";
/// Bound for its manager to become ready, and for its queues to be active.
const READY: Duration = Duration::from_secs(180);
const STOP: Duration = Duration::from_secs(60);
const AGENT: &str = "bench-kueue";

/// How a system is set up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Tuning {
    /// With the defaults of its own release.
    Shipped,
    /// So that no limit of its own is what is measured.
    Tuned,
}

/// Kueue's objects in a cluster, without its manager.
pub(crate) struct Installation {
    module: PathBuf,
    folder: PathBuf,
    ports: Ports,
    namespaces: Vec<String>,
}

impl Installation {
    /// Installs its namespace and its CRDs. The jobs will be in these namespaces.
    ///
    /// # Errors
    /// Its module cannot be had, or an object is refused.
    pub(crate) async fn new(cluster: &LocalCluster, namespaces: &[String]) -> Result<Self> {
        let module = module().await?;
        let folder = cluster.folder().join("kueue");
        std::fs::create_dir_all(folder.join(CERTIFICATES)).context("make Kueue's folder")?;
        let free = LocalCluster::free_port;
        let ports = Ports { health: free()?, metrics: free()?, webhooks: free()? };
        let objects = manifests::installation(&module, ports)?;
        cluster.apply(&objects.to_string()).await.context("install Kueue's CRDs")?;
        // Not by `kubectl wait`: it fails at a CRD that has no status yet.
        let crds: Api<CustomResourceDefinition> = Api::all(cluster.client(AGENT)?);
        for crd in crds.list(&ListParams::default()).await.context("list CRDs")? {
            let name = crd.name_any();
            let established = await_condition(crds.clone(), &name, conditions::is_crd_established());
            let established = tokio::time::timeout(READY, established).await;
            established.with_context(|| format!("the CRD {name} is not served"))?.context("watch a CRD")?;
        }
        Ok(Self { module, folder, ports, namespaces: namespaces.to_vec() })
    }

    /// Starts its manager; returns when it is ready and its queues are active. `name` names its log.
    ///
    /// # Errors
    /// It does not become so in time; the end of its log is in the error.
    pub(crate) async fn start(&self, cluster: &LocalCluster, tuning: Tuning, name: &str) -> Result<Kueue> {
        let shipped = "config/components/manager/controller_manager_config.yaml";
        let shipped = manifests::read(&self.module.join(shipped))?;
        let certificates = self.folder.join(CERTIFICATES);
        let config = manifests::configuration(&shipped, self.ports, &certificates, tuning)?;
        let path = self.folder.join(format!("{name}.yaml"));
        std::fs::write(&path, serde_yaml::to_string(&config)?)
            .with_context(|| format!("write {}", path.display()))?;
        let (webhooks, paths) = manifests::webhooks(&self.module, self.ports)?;
        cluster.apply(&webhooks.to_string()).await.context("install Kueue's webhooks")?;
        let binary = cluster.binaries().path("kueue").context("`cargo xtask tools peers` builds it")?;
        let log = cluster.folder().join("log").join(format!("{name}.log"));
        let mut child = Command::new(name, binary, log)
            .arg("--config")
            .arg(path)
            // As its Deployment has it.
            .arg("--zap-log-level=2")
            .arg("--kubeconfig")
            .arg(cluster.kubeconfig_path())
            .spawn()?;
        let health = SocketAddr::from((Ipv4Addr::LOCALHOST, self.ports.health));
        let secrets: Api<Secret> = Api::namespaced(cluster.client(AGENT)?, NAMESPACE);
        let ready = async || {
            mount(&secrets, &certificates).await?;
            manager::ready(health).await
        };
        child.wait_ready(READY, ready).await?;
        let nodes: Api<Node> = Api::all(cluster.client(AGENT)?);
        let nodes = nodes.list(&ListParams::default()).await.context("list nodes")?.items;
        let queues = manifests::queues(&nodes, &self.namespaces)?;
        cluster.apply(&queues.to_string()).await.context("create Kueue's queues")?;
        let client = cluster.client(AGENT)?;
        child.wait_ready(READY, async || active(&client, &self.namespaces).await).await?;
        Ok(Kueue { child, webhooks: paths })
    }
}

/// What it makes for each job.
pub(crate) fn workloads() -> ApiResource {
    ApiResource {
        group: "kueue.x-k8s.io".to_owned(),
        version: "v1beta2".to_owned(),
        api_version: "kueue.x-k8s.io/v1beta2".to_owned(),
        kind: "Workload".to_owned(),
        plural: "workloads".to_owned(),
    }
}

/// Folder of the certificate of its webhooks.
const CERTIFICATES: &str = "certificates";

/// A running manager of Kueue.
pub(crate) struct Kueue {
    child: Child,
    webhooks: Vec<String>,
}

impl Kueue {
    /// The process.
    pub(crate) fn child(&self) -> &Child {
        &self.child
    }

    /// Removes its webhooks, without which no pod could be created any more, and ends it. The rest of the
    /// installation stays.
    ///
    /// # Errors
    /// A webhook stays, or it cannot be signalled.
    pub(crate) async fn stop(self, cluster: &LocalCluster) -> Result<()> {
        let client = cluster.client(AGENT)?;
        for path in &self.webhooks {
            let request = http::Request::delete(path).body(Vec::new())?;
            client.request::<Value>(request).await.with_context(|| format!("delete {path}"))?;
        }
        self.child.stop(Signal::SIGTERM, STOP)?;
        Ok(())
    }
}

/// Puts the certificate that its manager has made where the kubelet would mount it.
async fn mount(secrets: &Api<Secret>, folder: &Path) -> Result<()> {
    let certificate = folder.join("tls.crt");
    if certificate.exists() {
        return Ok(());
    }
    let data = secrets.get(SECRET).await?.data.unwrap_or_default();
    let part = |key: &str| data.get(key).map(|bytes| &bytes.0).context("it has not made its certificate yet");
    std::fs::write(folder.join("tls.key"), part("tls.key")?)?;
    // Last, and at once: it takes this one's coming for that of both.
    let whole = folder.join("tls.crt.part");
    std::fs::write(&whole, part("tls.crt")?)?;
    Ok(std::fs::rename(whole, certificate)?)
}

/// Whether it takes jobs in each of the namespaces.
async fn active(client: &kube::Client, namespaces: &[String]) -> Result<()> {
    let group = "/apis/kueue.x-k8s.io/v1beta2";
    let mut paths = vec![format!("{group}/clusterqueues/{QUEUE}")];
    let local = |namespace: &String| format!("{group}/namespaces/{namespace}/localqueues/{QUEUE}");
    paths.extend(namespaces.iter().map(local));
    for path in paths {
        let queue: Value = client.request(http::Request::get(&path).body(Vec::new())?).await?;
        ensure!(is_active(&queue), "{path} is not active: {}", queue["status"]["conditions"]);
    }
    Ok(())
}

fn is_active(queue: &Value) -> bool {
    let conditions = queue["status"]["conditions"].as_array();
    conditions
        .into_iter()
        .flatten()
        .any(|condition| condition["type"] == "Active" && condition["status"] == "True")
}

/// The folder of its Go module, which has its CRDs, in Go's cache of modules; downloaded where it is not there.
async fn module() -> Result<PathBuf> {
    let output = tokio::process::Command::new("go")
        .current_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("../hack/tools/kueue"))
        // The caller's must not change which one it is.
        .env("GOFLAGS", "")
        .env("GOWORK", "off")
        .args(["mod", "download", "-json", MODULE])
        .output()
        .await
        .context("run `go mod download`: Kueue's CRDs are in its module")?;
    let printed = String::from_utf8_lossy(&output.stdout);
    if !output.status.success() {
        bail!("`go mod download {MODULE}`: {printed}{}", String::from_utf8_lossy(&output.stderr).trim());
    }
    folder_of_module(&printed)
}

/// The folder that `go mod download -json` names.
fn folder_of_module(printed: &str) -> Result<PathBuf> {
    let module: Value = serde_json::from_str(printed).context("what `go mod download -json` prints")?;
    ensure!(module["Version"] == VERSION, "{MODULE} is {}, not {VERSION}", module["Version"]);
    Ok(module["Dir"].as_str().context("a module without folder")?.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_version_that_the_report_names_is_the_pinned_one() {
        let pins = Path::new(env!("CARGO_MANIFEST_DIR")).join("../hack/tools/kueue/go.mod");
        let pins = std::fs::read_to_string(pins).unwrap();
        assert!(pins.contains(&format!("{MODULE} {VERSION} ")), "{pins}");
        let printed = json!({"Path": MODULE, "Version": VERSION, "Dir": "/modules/kueue"}).to_string();
        assert_eq!(folder_of_module(&printed).unwrap(), Path::new("/modules/kueue"));
        let other = printed.replace(VERSION, "v0.16.0");
        assert!(folder_of_module(&other).unwrap_err().to_string().contains("v0.16.0"));
    }

    #[test]
    fn a_queue_is_active_when_it_says_so() {
        let queue = |status: &str| json!({"status": {"conditions": [{"type": "Active", "status": status}]}});
        assert!(is_active(&queue("True")));
        assert!(!is_active(&queue("False")) && !is_active(&json!({})));
    }
}
