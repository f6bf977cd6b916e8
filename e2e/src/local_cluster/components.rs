//! The command lines of the control plane's processes.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result, bail};

use crate::binaries::Binaries;
use crate::namespaces::Namespaces;
use crate::pki::{KeyedCertificate, Pki, ServiceAccountKey};
use crate::process::Command;
use crate::state_folder::StateFolder;

/// Addresses of Services; their first one is the `kubernetes` Service.
pub const SERVICE_CIDR: &str = "10.96.0.0/16";
/// Addresses of pods; every node gets a /24 of it.
pub const POD_CIDR: &str = "10.244.0.0/16";
/// What `--advertise-address` names when no node needs to reach us: the server
/// refuses a loopback address there. Nothing uses it, see `--endpoint-reconciler-type`.
const UNUSED_ADDRESS: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
/// As who the API server passes requests on to those that serve a part of the API.
const FRONT_PROXY: &str = "front-proxy-client";

/// A process of the control plane.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Component {
    /// etcd, on Unix sockets in the state folder.
    Etcd,
    /// kube-apiserver.
    ApiServer,
    /// kube-controller-manager.
    ControllerManager,
    /// kube-scheduler.
    Scheduler,
}

impl Component {
    /// Name of the binary, which is the name in errors and of the log file too.
    #[must_use]
    pub fn binary(self) -> &'static str {
        match self {
            Self::Etcd => "etcd",
            Self::ApiServer => "kube-apiserver",
            Self::ControllerManager => "kube-controller-manager",
            Self::Scheduler => "kube-scheduler",
        }
    }
}

/// Where the API server listens, and how it is reached.
#[derive(Debug)]
pub(super) struct Endpoint {
    /// Namespaces of all components, with the node's address inside.
    pub(super) inside: Option<(Arc<Namespaces>, IpAddr)>,
    /// The API server's port, in its own network.
    pub(super) port: u16,
}

impl Endpoint {
    /// Where the components themselves find the API server.
    pub(super) fn local(&self) -> SocketAddr {
        SocketAddr::from((Ipv4Addr::LOCALHOST, self.port))
    }

    /// A port below the range from which the kernel takes those of outgoing
    /// connections, free right now. Another process may still be faster.
    pub(super) fn free_port(namespaces: Option<&Arc<Namespaces>>) -> Result<u16> {
        let probe = || {
            (0..1000)
                .map(|_| rand::random_range(20_000..32_000))
                .find(|port| TcpListener::bind((Ipv4Addr::UNSPECIFIED, *port)).is_ok())
        };
        let found = match namespaces {
            Some(namespaces) => namespaces.run(probe)?,
            None => probe(),
        };
        found.context("no free port between 20000 and 32000")
    }
}

/// All that command lines are made of.
pub(super) struct Layout<'a> {
    pub(super) binaries: &'a Binaries,
    pub(super) folder: &'a StateFolder,
    pub(super) pki: &'a Pki,
    pub(super) certificates: &'a Certificates,
    pub(super) endpoint: &'a Endpoint,
    /// The socket by which the API server reaches etcd.
    pub(super) etcd: PathBuf,
    /// Tells the logs of a second process of a component from those of the first; empty for that one.
    pub(super) suffix: &'a str,
    pub(super) audit: bool,
    pub(super) fsync: bool,
    pub(super) extra_args: &'a [(Component, Vec<String>)],
}

/// The certificates and keys of the components.
pub(super) struct Certificates {
    pub(super) server: KeyedCertificate,
    pub(super) kubelet_client: KeyedCertificate,
    pub(super) service_account: ServiceAccountKey,
    /// By which the API server is known to those that serve a part of the API, with the authority of it alone.
    pub(super) front_proxy: (PathBuf, KeyedCertificate),
}

impl Certificates {
    pub(super) fn create(pki: &Pki, node: Option<IpAddr>) -> Result<Self> {
        let node = node.map(|address| address.to_string());
        let mut names = vec![
            "localhost",
            "kubernetes",
            "kubernetes.default",
            "kubernetes.default.svc",
            "kubernetes.default.svc.cluster.local",
            "127.0.0.1",
            "10.96.0.1",
        ];
        names.extend(node.as_deref());
        let front_proxy = pki.nested(FRONT_PROXY)?;
        Ok(Self {
            server: pki.server("apiserver", &names)?,
            kubelet_client: pki.client(
                "kubelet-client",
                "kube-apiserver-kubelet-client",
                "system:masters",
            )?,
            service_account: pki.service_account_key()?,
            front_proxy: (
                front_proxy.authority_certificate(),
                front_proxy.client("client", FRONT_PROXY, "kubernetes")?,
            ),
        })
    }
}

/// The audit log's place in a state folder.
pub(super) fn audit_log(folder: &StateFolder) -> PathBuf {
    folder.join("audit.log")
}

/// The kubeconfig by which the components reach the API server.
pub(super) fn component_kubeconfig(folder: &StateFolder) -> PathBuf {
    folder.join("components.kubeconfig")
}

/// etcd's socket for clients.
pub(super) fn etcd_socket(folder: &StateFolder) -> PathBuf {
    folder.join("etcd.sock")
}

impl Layout<'_> {
    /// The complete command of a component.
    pub(super) fn command(&self, component: Component) -> Result<Command> {
        let binary = component.binary();
        let name = format!("{binary}{}", self.suffix);
        let mut command = Command::new(
            &name,
            self.binaries.path(binary)?,
            self.folder.join("log").join(format!("{name}.log")),
        )
        .args(match component {
            Component::Etcd => self.etcd()?,
            Component::ApiServer => self.api_server()?,
            Component::ControllerManager => self.controller_manager()?,
            Component::Scheduler => self.client_flags()?,
        });
        for (owner, args) in self.extra_args {
            if *owner == component {
                command = command.args(args);
            }
        }
        Ok(match &self.endpoint.inside {
            Some((namespaces, _)) => command.in_namespaces(namespaces),
            None => command,
        })
    }

    fn etcd(&self) -> Result<Vec<String>> {
        // Sockets below a folder of mode 0700 need no port and keep other users out.
        let client = socket_url(&etcd_socket(self.folder))?;
        let peer = socket_url(&self.folder.join("peer.sock"))?;
        let mut args = vec![
            flag("data-dir", self.folder.join("etcd")),
            flag("listen-client-urls", &client),
            flag("advertise-client-urls", &client),
            flag("listen-peer-urls", &peer),
            flag("initial-advertise-peer-urls", &peer),
            flag("initial-cluster", format!("default={peer}")),
            // As kubeadm has it. With etcd's 10 min, the watch cache of a kind that nothing changes
            // would know of no newer version for as long, and send no bookmark.
            flag("watch-progress-notify-interval", "5s"),
        ];
        if !self.fsync {
            args.push("--unsafe-no-fsync".into());
        }
        Ok(args)
    }

    fn api_server(&self) -> Result<Vec<String>> {
        let Certificates { server, kubelet_client, service_account, front_proxy } = self.certificates;
        let (front_proxy_authority, front_proxy) = front_proxy;
        let mut args = vec![
            flag("etcd-servers", socket_url(&self.etcd)?),
            flag("secure-port", self.endpoint.port.to_string()),
            flag("client-ca-file", self.pki.authority_certificate()),
            flag("tls-cert-file", &server.certificate),
            flag("tls-private-key-file", &server.key),
            flag("service-account-key-file", &service_account.public),
            flag("service-account-signing-key-file", &service_account.private),
            flag("service-account-issuer", "https://kubernetes.default.svc"),
            flag("kubelet-client-certificate", &kubelet_client.certificate),
            flag("kubelet-client-key", &kubelet_client.key),
            // Nobody knows the names of nodes, and `kubectl exec` and `logs` ask for them first.
            flag("kubelet-preferred-address-types", "InternalIP"),
            // As kubeadm has it: so it may pass requests on with the user's name.
            flag("requestheader-client-ca-file", front_proxy_authority),
            flag("requestheader-allowed-names", FRONT_PROXY),
            flag("requestheader-username-headers", "X-Remote-User"),
            flag("requestheader-group-headers", "X-Remote-Group"),
            flag("requestheader-extra-headers-prefix", "X-Remote-Extra-"),
            flag("proxy-client-cert-file", &front_proxy.certificate),
            flag("proxy-client-key-file", &front_proxy.key),
            flag("authorization-mode", "Node,RBAC"),
            flag("enable-admission-plugins", "NodeRestriction"),
            flag("service-cluster-ip-range", SERVICE_CIDR),
            flag("allow-privileged", "true"),
            // A local cluster serves whole suites and benches: the default limits
            // (400 and 200) would measure themselves.
            flag("max-requests-inflight", "5000"),
            flag("max-mutating-requests-inflight", "2500"),
        ];
        match &self.endpoint.inside {
            // The namespace is private, so "all addresses" are its own.
            Some((_, node)) => {
                args.extend([flag("bind-address", "0.0.0.0"), flag("advertise-address", node.to_string())])
            }
            None => args.extend([
                flag("bind-address", "127.0.0.1"),
                flag("advertise-address", UNUSED_ADDRESS.to_string()),
                flag("endpoint-reconciler-type", "none"),
            ]),
        }
        if self.audit {
            args.extend([
                flag("audit-policy-file", self.folder.join("audit-policy.yaml")),
                flag("audit-log-path", audit_log(self.folder)),
                // In the file before the client has the whole answer, see `write_count`.
                flag("audit-log-mode", "blocking"),
                // Rotation would take lines from under the reader.
                flag("audit-log-maxsize", "0"),
            ]);
        }
        Ok(args)
    }

    fn controller_manager(&self) -> Result<Vec<String>> {
        let mut args = self.client_flags()?;
        let account = &self.certificates.service_account;
        args.extend([
            flag("service-account-private-key-file", &account.private),
            flag("root-ca-file", self.pki.authority_certificate()),
            flag("cluster-signing-cert-file", self.pki.authority_certificate()),
            flag("cluster-signing-key-file", self.pki.authority_key()),
            flag("use-service-account-credentials", "true"),
            flag("allocate-node-cidrs", "true"),
            flag("cluster-cidr", POD_CIDR),
            flag("service-cluster-ip-range", SERVICE_CIDR),
            // On a machine that stood still for a minute no node has failed. With the default of 50 s each
            // pod's status would be written as not ready, which a count of writes takes for work.
            flag("node-monitor-grace-period", "5m"),
        ]);
        Ok(args)
    }

    /// What controller manager and scheduler have in common.
    fn client_flags(&self) -> Result<Vec<String>> {
        Ok(vec![
            flag("kubeconfig", component_kubeconfig(self.folder)),
            // There is one of each; an election would only cost time at the start.
            flag("leader-elect", "false"),
            // The defaults (20 and 50 a second) are for clusters with other users.
            flag("kube-api-qps", "1000"),
            flag("kube-api-burst", "2000"),
            // Nobody reads their metrics; a port less to find.
            flag("secure-port", "0"),
        ])
    }
}

fn flag(name: &str, value: impl AsRef<std::ffi::OsStr>) -> String {
    format!("--{name}={}", Path::new(&value).display())
}

/// `sun_path` has 108 bytes, one of them for the end.
fn socket_url(path: &Path) -> Result<String> {
    let text = path.display().to_string();
    if text.len() > 107 {
        bail!("{text} is too long for a Unix socket: set TMPDIR to a shorter folder");
    }
    Ok(format!("unix://{text}"))
}
