//! Configuration of containerd, CNI, the kubelet and kube-proxy. All paths are
//! those inside the private machine, so they do not differ between runs.

use anyhow::{Context, Result};
use serde_json::{Value, json};

use super::cpus::Cpus;
use super::program::PAUSE_IMAGE;

/// Everything of the node, as seen inside the private machine.
pub(super) const NODE: &str = "/run/node";
/// The socket of containerd, which is also the default of `ctr`.
pub(super) const CONTAINERD_SOCKET: &str = "/run/containerd/containerd.sock";
/// Pods of all nodes; the controller manager's `--cluster-cidr` must say the same.
pub(super) const CLUSTER_CIDR: &str = "10.244.0.0/16";
/// Pods of the one node.
const POD_CIDR: &str = "10.244.0.0/24";

/// What a user may change about a node.
#[derive(Debug)]
pub(super) struct Kubelet<'a> {
    /// Group below which all pods are.
    pub(super) cgroup_root: &'a str,
    /// Most pods at a time.
    pub(super) max_pods: u32,
    /// CPU that pods do not get, in millicores.
    pub(super) reserved_cpu: u64,
    /// Memory that pods do not get, in bytes.
    pub(super) reserved_memory: u64,
    /// CPUs that no pod has to itself, where others may be some pod's own: the first ones, as the policy takes those
    /// for what is reserved. Their number takes the place of `reserved_cpu`.
    pub(super) reserved_cpus: Option<&'a Cpus>,
}

impl Kubelet<'_> {
    /// `KubeletConfiguration`.
    pub(super) fn render(&self) -> Value {
        let mut config = json!({
            "apiVersion": "kubelet.config.k8s.io/v1beta1",
            "kind": "KubeletConfiguration",
            "authentication": {
                "anonymous": { "enabled": false },
                "webhook": { "enabled": true },
                "x509": { "clientCAFile": format!("{NODE}/ca.crt") },
            },
            "authorization": { "mode": "Webhook" },
            "cgroupDriver": "cgroupfs",
            "cgroupRoot": self.cgroup_root,
            "clusterDNS": ["10.96.0.10"],
            "clusterDomain": "cluster.local",
            "containerRuntimeEndpoint": format!("unix://{CONTAINERD_SOCKET}"),
            // `pods` needs a cgroup that we do not size; requests are the scheduler's.
            "enforceNodeAllocatable": [],
            // The disk belongs to the machine, whose fill level is not ours to judge.
            "evictionHard": {},
            "imageGCHighThresholdPercent": 100,
            // Hosts may still mount their controllers in version 1.
            "failCgroupV1": false,
            "failSwapOn": false,
            "maxPods": self.max_pods,
            "podLogsDir": format!("{NODE}/logs"),
            // There is no registry here that others pull from.
            "registryPullQPS": 0,
            // How late a mounted ConfigMap follows; the default is a minute and more.
            "syncFrequency": "5s",
            // The machine's resolver means nothing in the private network.
            "resolvConf": "",
            "systemReserved": {
                "cpu": format!("{}m", self.reserved_cpu),
                "memory": self.reserved_memory.to_string(),
            },
            "volumePluginDir": format!("{NODE}/volume-plugins"),
        });
        if let Some(cpus) = self.reserved_cpus {
            config["cpuManagerPolicy"] = json!("static");
            // A bit of the last one is reserved, and the policy takes all of it: the node goes on offering the rest.
            let reserved = cpus.len().saturating_sub(1) * 1000 + 100;
            config["systemReserved"]["cpu"] = json!(format!("{reserved}m"));
        }
        config
    }
}

/// Configuration of containerd, in TOML.
pub(super) fn containerd() -> Result<String> {
    let runc = json!({ "runtime_type": "io.containerd.runc.v2", "options": { "SystemdCgroup": false } });
    let config = json!({
        "version": 3,
        "root": format!("{NODE}/containerd"),
        "state": "/run/containerd",
        "grpc": { "address": CONTAINERD_SOCKET },
        "plugins": {
            "io.containerd.cri.v1.images": {
                "snapshotter": "overlayfs",
                "pinned_images": { "sandbox": PAUSE_IMAGE },
                // Read at each pull, and empty where no registry is started.
                "registry": { "config_path": format!("{NODE}/certs.d") },
            },
            "io.containerd.cri.v1.runtime": {
                // Without CAP_SYS_RESOURCE nobody may lower a score, and every
                // sandbox would fail on it.
                "restrict_oom_score_adj": true,
                "containerd": { "default_runtime_name": "runc", "runtimes": { "runc": runc } },
                "cni": { "bin_dirs": [format!("{NODE}/cni/bin")], "conf_dir": format!("{NODE}/cni/net.d") },
            },
            "io.containerd.internal.v1.opt": { "path": format!("{NODE}/opt") },
        },
    });
    toml::to_string(&config).context("write the configuration of containerd")
}

/// The CNI network of the pods: a bridge, addresses from a file, host ports.
pub(super) fn cni() -> Value {
    json!({
        "cniVersion": "1.0.0",
        "name": "pods",
        "plugins": [
            {
                "type": "bridge",
                "bridge": "cni0",
                "isGateway": true,
                "ipMasq": false,
                "ipam": {
                    "type": "host-local",
                    "dataDir": format!("{NODE}/cni/data"),
                    "ranges": [[{ "subnet": POD_CIDR }]],
                    "routes": [{ "dst": "0.0.0.0/0" }],
                },
            },
            { "type": "portmap", "capabilities": { "portMappings": true } },
        ],
    })
}

/// `KubeProxyConfiguration`.
pub(super) fn kube_proxy(node: &str) -> Value {
    json!({
        "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
        "kind": "KubeProxyConfiguration",
        "mode": "nftables",
        "clientConnection": { "kubeconfig": format!("{NODE}/kube-proxy.kubeconfig") },
        "clusterCIDR": CLUSTER_CIDR,
        "hostnameOverride": node,
        // The table's size is the whole kernel's and read-only in a private network.
        "conntrack": { "maxPerCore": 0 },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn containerd_keeps_its_tables() {
        let parsed: Value = toml::from_str(&containerd().unwrap()).unwrap();
        assert_eq!(parsed["version"], 3);
        let runtime = &parsed["plugins"]["io.containerd.cri.v1.runtime"];
        assert_eq!(runtime["restrict_oom_score_adj"], true);
        assert_eq!(runtime["containerd"]["runtimes"]["runc"]["options"]["SystemdCgroup"], false);
        assert_eq!(parsed["plugins"]["io.containerd.cri.v1.images"]["pinned_images"]["sandbox"], PAUSE_IMAGE);
    }

    #[test]
    fn the_kubelet_gets_its_own_group_and_reserve() {
        let kubelet = Kubelet {
            cgroup_root: "/springtide-x",
            max_pods: 5,
            reserved_cpu: 250,
            reserved_memory: 1 << 20,
            reserved_cpus: None,
        };
        let config = kubelet.render();
        assert_eq!(config["cgroupRoot"], "/springtide-x");
        assert_eq!(config["maxPods"], 5);
        assert_eq!(config["systemReserved"], json!({ "cpu": "250m", "memory": "1048576" }));
        assert!(config.get("cpuManagerPolicy").is_none());

        let cpus = "0-2".parse().unwrap();
        let config = Kubelet { reserved_cpus: Some(&cpus), ..kubelet }.render();
        assert_eq!(
            (&config["cpuManagerPolicy"], &config["systemReserved"]["cpu"]),
            (&json!("static"), &json!("2100m"))
        );
    }
}
