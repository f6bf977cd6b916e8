//! Which test binaries exist and how each is built: the one table.

/// A Go module under `hack/tools` that pins one upstream project, and the
/// flags all its binaries are built with.
pub(crate) struct Module {
    /// Folder under `hack/tools`.
    pub(crate) folder: &'static str,
    /// What is given to the linker besides `-s -w`.
    pub(crate) ldflags: &'static str,
    /// Go build tags, separated by spaces.
    pub(crate) tags: &'static str,
    /// Whether C code is compiled in (needs gcc and the libraries' headers).
    pub(crate) cgo: bool,
    /// The binaries taken from it.
    pub(crate) tools: &'static [Tool],
}

/// One binary.
pub(crate) struct Tool {
    /// File name of the binary, and the name by which users ask for it.
    pub(crate) name: &'static str,
    /// Import path of its `package main`.
    pub(crate) package: &'static str,
    /// Which part of a local cluster needs it.
    pub(crate) group: Group,
}

/// A part of a local cluster; users may ask for all its binaries by its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Group {
    /// etcd, the servers of Kubernetes, kubectl.
    ControlPlane,
    /// KWOK, which plays nodes and pods.
    Kwok,
    /// What runs real containers on this machine.
    Node,
    /// What installs the suite in tests.
    Install,
    /// What judges the alerts.
    Monitoring,
    /// Other batch systems, beside which the bench measures: nothing else needs them.
    Peers,
}

impl Group {
    /// All groups, in the order they are printed.
    pub(crate) const ALL: [Group; 6] =
        [Group::ControlPlane, Group::Kwok, Group::Node, Group::Install, Group::Monitoring, Group::Peers];

    /// The name on the command line.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Group::ControlPlane => "control-plane",
            Group::Kwok => "kwok",
            Group::Node => "node",
            Group::Install => "install",
            Group::Monitoring => "monitoring",
            Group::Peers => "peers",
        }
    }

    /// Whether its binaries are provided only to those who name them.
    pub(crate) fn is_on_request(self) -> bool {
        match self {
            Group::Peers => true,
            Group::ControlPlane | Group::Kwok | Group::Node | Group::Install | Group::Monitoring => false,
        }
    }
}

const fn tool(name: &'static str, package: &'static str, group: Group) -> Tool {
    Tool { name, package, group }
}

/// All modules, in build order: runc is last, because it alone needs Debian
/// packages, and without them everything else shall still be built.
pub(crate) const MODULES: &[Module] = &[
    Module {
        folder: "etcd",
        ldflags: "",
        tags: "",
        cgo: false,
        tools: &[tool("etcd", "go.etcd.io/etcd/server/v3", Group::ControlPlane)],
    },
    Module {
        folder: "kubernetes",
        // Without these the servers call themselves v0.0.0, and clients take
        // them for a release without any of today's features.
        ldflags: "-X k8s.io/component-base/version.gitVersion=v1.37.2 \
                  -X k8s.io/component-base/version.gitMajor=1 \
                  -X k8s.io/component-base/version.gitMinor=37 \
                  -X k8s.io/client-go/pkg/version.gitVersion=v1.37.2",
        tags: "",
        cgo: false,
        tools: &[
            tool("kube-apiserver", "k8s.io/kubernetes/cmd/kube-apiserver", Group::ControlPlane),
            tool(
                "kube-controller-manager",
                "k8s.io/kubernetes/cmd/kube-controller-manager",
                Group::ControlPlane,
            ),
            tool("kube-scheduler", "k8s.io/kubernetes/cmd/kube-scheduler", Group::ControlPlane),
            tool("kubectl", "k8s.io/kubernetes/cmd/kubectl", Group::ControlPlane),
            tool("kubelet", "k8s.io/kubernetes/cmd/kubelet", Group::Node),
            tool("kube-proxy", "k8s.io/kubernetes/cmd/kube-proxy", Group::Node),
        ],
    },
    Module {
        folder: "kwok",
        ldflags: "",
        tags: "",
        cgo: false,
        tools: &[tool("kwok", "sigs.k8s.io/kwok/cmd/kwok", Group::Kwok)],
    },
    Module {
        folder: "promtool",
        ldflags: "",
        tags: "",
        cgo: false,
        tools: &[tool("promtool", "github.com/prometheus/prometheus/cmd/promtool", Group::Monitoring)],
    },
    Module {
        folder: "containerd",
        ldflags: "",
        tags: "",
        cgo: false,
        tools: &[
            tool("containerd", "github.com/containerd/containerd/v2/cmd/containerd", Group::Node),
            tool(
                "containerd-shim-runc-v2",
                "github.com/containerd/containerd/v2/cmd/containerd-shim-runc-v2",
                Group::Node,
            ),
            tool("ctr", "github.com/containerd/containerd/v2/cmd/ctr", Group::Node),
        ],
    },
    Module {
        folder: "cni",
        ldflags: "",
        tags: "",
        cgo: false,
        tools: &[
            tool("bridge", "github.com/containernetworking/plugins/plugins/main/bridge", Group::Node),
            tool("loopback", "github.com/containernetworking/plugins/plugins/main/loopback", Group::Node),
            tool("host-local", "github.com/containernetworking/plugins/plugins/ipam/host-local", Group::Node),
            tool("portmap", "github.com/containernetworking/plugins/plugins/meta/portmap", Group::Node),
        ],
    },
    Module {
        folder: "metrics-server",
        ldflags: "",
        tags: "",
        cgo: false,
        tools: &[tool("metrics-server", "sigs.k8s.io/metrics-server/cmd/metrics-server", Group::Node)],
    },
    Module {
        folder: "helm",
        // As above: a client without a version is taken for another by charts that ask for one.
        ldflags: "-X helm.sh/helm/v4/internal/version.version=v4.3.1",
        tags: "",
        cgo: false,
        tools: &[tool("helm", "helm.sh/helm/v4/cmd/helm", Group::Install)],
    },
    Module {
        folder: "kueue",
        // Its user agent has the version, by which the audit log tells it from others.
        ldflags: "-X sigs.k8s.io/kueue/pkg/version.GitVersion=v0.17.0",
        tags: "",
        cgo: false,
        tools: &[tool("kueue", "sigs.k8s.io/kueue/cmd/kueue", Group::Peers)],
    },
    Module {
        folder: "runc",
        ldflags: "-extldflags -static",
        tags: "seccomp netgo osusergo",
        cgo: true,
        tools: &[tool("runc", "github.com/opencontainers/runc", Group::Node)],
    },
];

impl Module {
    /// Whether one of its tools is this one.
    pub(crate) fn has(&self, tool: &Tool) -> bool {
        self.tools.iter().any(|of| of.name == tool.name)
    }

    /// The flags of `go build` for this module, without output and packages.
    pub(crate) fn flags(&self) -> Vec<String> {
        let ldflags = ["-s -w", self.ldflags].join(" ");
        let mut flags = vec![
            "-trimpath".to_owned(),
            "-buildvcs=false".to_owned(),
            "-ldflags".to_owned(),
            ldflags.trim_end().to_owned(),
        ];
        if !self.tags.is_empty() {
            flags.extend(["-tags".to_owned(), self.tags.to_owned()]);
        }
        flags
    }
}

/// The tools that `names` (of tools or groups) stand for, each once, in build
/// order; when `names` is empty, all of them but those on request. Fails on a name that is neither.
pub(crate) fn select(names: &[String]) -> anyhow::Result<Vec<&'static Tool>> {
    let tools = || MODULES.iter().flat_map(|module| module.tools);
    if let Some(unknown) = names.iter().find(|name| !tools().any(|tool| tool.answers_to(name))) {
        let groups: Vec<_> = Group::ALL.iter().map(|group| group.name()).collect();
        let known: Vec<_> = tools().map(|tool| tool.name).collect();
        anyhow::bail!(
            "no tool or group is called {unknown}; groups: {}; tools: {}",
            groups.join(", "),
            known.join(", ")
        );
    }
    let is_wanted = |tool: &&Tool| match names {
        [] => !tool.group.is_on_request(),
        names => names.iter().any(|name| tool.answers_to(name)),
    };
    Ok(tools().filter(is_wanted).collect())
}

impl Tool {
    fn answers_to(&self, name: &str) -> bool {
        self.name == name || self.group.name() == name
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn go_mod(module: &Module) -> String {
        let path = crate::repository_root().join("hack/tools").join(module.folder).join("go.mod");
        std::fs::read_to_string(path).unwrap()
    }

    #[test]
    fn every_tool_is_declared_in_its_module_and_nothing_else_is() {
        for module in MODULES {
            let text = go_mod(module);
            let mut declared: Vec<_> = match text.split_once("\ntool (\n") {
                Some((_, block)) => block.split_once("\n)").unwrap().0.lines().map(str::trim).collect(),
                None => text.lines().filter_map(|line| line.strip_prefix("tool ")).collect(),
            };
            let mut packages: Vec<_> = module.tools.iter().map(|tool| tool.package).collect();
            declared.sort_unstable();
            packages.sort_unstable();
            assert_eq!(declared, packages, "hack/tools/{}/go.mod", module.folder);
        }
    }

    #[test]
    fn the_version_told_to_kubernetes_is_the_pinned_one() {
        let module = MODULES.iter().find(|module| module.folder == "kubernetes").unwrap();
        let text = go_mod(module);
        let pinned = text
            .lines()
            .find_map(|line| line.trim().strip_prefix("k8s.io/kubernetes "))
            .and_then(|rest| rest.split_whitespace().next())
            .unwrap();
        let mut parts = pinned.trim_start_matches('v').split('.');
        let (major, minor) = (parts.next().unwrap(), parts.next().unwrap());
        for want in [
            format!("component-base/version.gitVersion={pinned}"),
            format!("client-go/pkg/version.gitVersion={pinned}"),
            format!("version.gitMajor={major} "),
            format!("version.gitMinor={minor} "),
        ] {
            assert!(module.ldflags.contains(&want), "{want:?} is not in {:?}", module.ldflags);
        }
    }

    #[test]
    fn the_version_told_to_helm_is_the_pinned_one() {
        let module = MODULES.iter().find(|module| module.folder == "helm").unwrap();
        let pinned = module.ldflags.rsplit('=').next().unwrap();
        assert!(go_mod(module).contains(&format!("helm.sh/helm/v4 {pinned}")), "{pinned}");
    }

    #[test]
    fn the_version_told_to_kueue_is_the_pinned_one() {
        let module = MODULES.iter().find(|module| module.folder == "kueue").unwrap();
        let pinned = module.ldflags.rsplit('=').next().unwrap();
        assert!(go_mod(module).contains(&format!("sigs.k8s.io/kueue {pinned} ")), "{pinned}");
    }

    #[test]
    fn several_binaries_of_one_module_get_their_name_from_the_package() {
        // `go build -o folder/` names each binary after its package's last element.
        for module in MODULES.iter().filter(|module| module.tools.len() > 1) {
            for tool in module.tools {
                assert_eq!(tool.package.rsplit('/').next(), Some(tool.name));
            }
        }
    }

    #[test]
    fn names_select_tools_and_groups_once() {
        let names = |wanted: &[&str]| -> Vec<_> {
            let wanted: Vec<_> = wanted.iter().map(|name| (*name).to_owned()).collect();
            select(&wanted).unwrap().iter().map(|tool| tool.name).collect()
        };
        assert_eq!(names(&["kwok", "etcd", "kwok"]), ["etcd", "kwok"]);
        assert_eq!(
            names(&["control-plane", "kubectl"]),
            ["etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler", "kubectl"]
        );
        assert_eq!(names(&["peers"]), ["kueue"]);
        let all: usize = MODULES.iter().map(|module| module.tools.len()).sum();
        assert_eq!(names(&[]).len(), all - 1);
        assert!(!names(&[]).contains(&"kueue"), "only the bench needs it, and it takes minutes");
    }

    #[test]
    fn an_unknown_name_is_refused_with_the_known_ones() {
        let error = select(&["kubeadm".to_owned()]).err().unwrap().to_string();
        assert!(
            error.contains("kubeadm") && error.contains("control-plane") && error.contains("runc"),
            "{error}"
        );
    }
}
