//! Files that a newcomer applies as they are: small workloads, and behind them the object that is about them.

use serde_json::{Value, json};

use super::IMAGE;
use crate::common::{Quantity, ResourceAmounts};
use crate::in_place_upgrade::{InPlaceUpgrade, InPlaceUpgradeSpec, TargetKind};
use crate::time_share_group::{
    LimitsPolicy, Member, MemberContainer, MemberKind, MemberRef, MemoryPolicy, Schedule, Step, Switch,
    TimeShareGroup, TimeShareGroupSpec, Traffic, TrafficMode,
};

/// Where the servers of the examples listen.
const PORT: u16 = 8080;
/// What a server requests of cpu, at valley size too.
const SMALL: &str = "50m";
/// What it requests of cpu at its peak.
const LARGE: &str = "200m";

/// Several objects in one file that need nothing but each other.
#[derive(Clone, Debug)]
pub struct Quickstart {
    /// File name without folder and extension.
    pub file: &'static str,
    /// What it shows and how it ends, and then lines of what to try next.
    pub doc: &'static [&'static str],
    /// The objects in the order in which they are applied; the last one is of our kinds.
    pub objects: Vec<Value>,
}

/// One for each kind that is about workloads of others.
#[must_use]
pub fn quickstarts() -> Vec<Quickstart> {
    vec![
        Quickstart {
            file: "inplaceupgrade",
            doc: &[
                "A StatefulSet of two small servers, which its partition keeps from rolling, their Service, and the \
                 InPlaceUpgrade that makes its pods equal to its template. Becomes Ready, reason UpToDate. Then change the \
                 template, and see that the pods stay the same ones:",
                "  kubectl set resources statefulset/hello --requests=cpu=60m   # nothing restarts",
                "  kubectl set image statefulset/hello app=<another image>      # one pod after the other leaves traffic",
                "  kubectl get ipu hello --watch",
            ],
            objects: upgrade(),
        },
        Quickstart {
            file: "timesharegroup",
            doc: &[
                "Two Deployments of two small servers each, day and night, their Services, and the TimeShareGroup in which \
                 day has the peak. Becomes Ready, reason Settled. Then give the peak to night for an hour, and see that cpu \
                 and traffic move between the same pods:",
                "  kubectl patch tsg hello --type merge -p '{\"spec\":{\"override\":{\"member\":\"night\",\"reason\":\"to \
                 try it\",\"untilTime\":\"'$(date -u -d '1 hour' +%FT%TZ)'\"}}}'",
                "  kubectl get tsg hello --watch",
                "  kubectl get pods -L springtide.dev/traffic-serving",
            ],
            objects: time_share(),
        },
    ]
}

fn upgrade() -> Vec<Value> {
    let serving = ("springtide.dev/upgrade-serving", "true");
    let mut set = workload("StatefulSet", "hello", serving);
    set["spec"]["serviceName"] = json!("hello");
    set["spec"]["updateStrategy"] = json!({"type": "RollingUpdate", "rollingUpdate": {"partition": 100_000}});
    let upgrade = InPlaceUpgrade::new("hello", InPlaceUpgradeSpec::new(TargetKind::StatefulSet, "hello"));
    vec![set, service("hello", serving.0), json!(upgrade)]
}

fn time_share() -> Vec<Value> {
    let label = "springtide.dev/traffic-serving";
    // Pods are born at valley size, and without traffic.
    let day = workload("Deployment", "day", (label, "false"));
    let mut night = workload("Deployment", "night", (label, "false"));
    night["spec"]["template"]["spec"]["affinity"] = json!({"podAffinity": {
        "preferredDuringSchedulingIgnoredDuringExecution": [{
            "weight": 100,
            "podAffinityTerm": {
                "labelSelector": {"matchLabels": {"app": "day"}}, "topologyKey": "kubernetes.io/hostname",
            },
        }],
    }});
    let group = TimeShareGroupSpec {
        schedule: Schedule { default_member: Some("day".to_owned()), ..Schedule::default() },
        // So few units need no canary.
        switch: Switch { steps: vec![Step { percent: 100, hold_seconds: 0 }], ..Switch::default() },
        ..TimeShareGroupSpec::new(vec![member("day"), member("night")])
    };
    let group = json!(TimeShareGroup::new("hello", group));
    vec![day, service("day", label), night, service("night", label), group]
}

/// Two servers that answer by the workload's name.
fn workload(kind: &str, name: &str, (label, value): (&str, &str)) -> Value {
    json!({
        "apiVersion": "apps/v1",
        "kind": kind,
        "metadata": {"name": name},
        "spec": {
            "replicas": 2,
            "selector": {"matchLabels": {"app": name}},
            "template": {
                "metadata": {"labels": {"app": name, label: value}},
                "spec": {
                    "containers": [{
                        "name": "app",
                        "image": IMAGE,
                        "args": ["http", PORT.to_string(), format!("hello from {name}")],
                        "readinessProbe": {"httpGet": {"path": "/", "port": PORT}, "periodSeconds": 1},
                        "resources": {"requests": {"cpu": SMALL, "memory": "32Mi"}, "limits": {"memory": "32Mi"}},
                    }],
                },
            },
        },
    })
}

/// The Service of those pods of a workload that have the label.
fn service(name: &str, label: &str) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name},
        "spec": {"selector": {"app": name, label: "true"}, "ports": [{"port": 80, "targetPort": PORT}]},
    })
}

fn member(name: &str) -> Member {
    let cpu = |amount: &str| ResourceAmounts { cpu: Some(Quantity::new(amount)), memory: None };
    Member {
        name: name.to_owned(),
        target_ref: MemberRef {
            api_version: "apps/v1".to_owned(),
            kind: MemberKind::Deployment,
            name: name.to_owned(),
            namespace: None,
        },
        containers: vec![MemberContainer {
            name: "app".to_owned(),
            peak: cpu(LARGE),
            valley: cpu(SMALL),
            limits: LimitsPolicy::default(),
        }],
        memory: MemoryPolicy::default(),
        warm_up_seconds: 0,
        traffic: Traffic { mode: TrafficMode::ServiceLabel, ..Traffic::default() },
    }
}
