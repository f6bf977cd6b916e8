//! The fault proxy in front of a real API server: each fault as a client sees it, and the whole control
//! plane through it.

#![allow(clippy::unwrap_used, reason = "the helpers of a test fail as a test does")]

mod components;
mod connections;
mod kubelet;
mod requests;
mod watches;

use anyhow::{Context, Result};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{Api, ObjectMeta};
use kube::config::{KubeConfigOptions, Kubeconfig};
use springtide_e2e::fault_proxy::{FaultProxy, Protocols};
use springtide_e2e::local_cluster::LocalCluster;
use tokio::sync::OnceCell;

static CLUSTER: OnceCell<LocalCluster> = OnceCell::const_new();

/// A cluster of API server and etcd alone.
async fn cluster() -> Result<&'static LocalCluster> {
    CLUSTER.get_or_try_init(|| LocalCluster::builder().without_controllers().start()).await
}

/// A proxy, a namespace, and ConfigMaps of it by two ways.
struct Rig {
    proxy: FaultProxy,
    namespace: String,
    client: kube::Client,
    /// Through the proxy.
    maps: Api<ConfigMap>,
    /// Straight to the API server.
    truth: Api<ConfigMap>,
}

impl Rig {
    async fn new(prefix: &str) -> Result<Self> {
        let cluster = cluster().await?;
        let proxy = FaultProxy::start(cluster, Protocols::All)?;
        let namespace = cluster.create_namespace(prefix).await?;
        let kubeconfig = Kubeconfig::read_from(proxy.kubeconfig())?;
        let mut config =
            kube::Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await?;
        config.default_retry = false;
        config.read_timeout = None;
        let client = kube::Client::try_from(config)?;
        let maps = Api::namespaced(client.clone(), &namespace);
        let truth = Api::namespaced(cluster.client("truth")?, &namespace);
        Ok(Self { proxy, namespace, client, maps, truth })
    }

    async fn create(&self, name: &str) -> kube::Result<ConfigMap> {
        self.maps.create(&kube::api::PostParams::default(), &map(name)).await
    }

    async fn exists(&self, name: &str) -> Result<bool> {
        Ok(self.truth.get_opt(name).await.context("the API server itself")?.is_some())
    }
}

fn map(name: &str) -> ConfigMap {
    ConfigMap {
        metadata: ObjectMeta { name: Some(name.to_owned()), ..ObjectMeta::default() },
        data: Some([("text".to_owned(), "0123456789".repeat(30))].into()),
        ..ConfigMap::default()
    }
}
