//! Workloads that a real node runs and that are members of a group: small servers by [`BOX_IMAGE`], which every node has.

use anyhow::Result;
use serde_json::{Value, json};
use springtide_crds::time_share_group::{
    Member, MemoryPolicy, Overlap, Step, TimeShareGroupSpec, TrafficMode, ValleyTraffic,
};
use springtide_plumbing::quantity::parse_amount;
use springtide_plumbing::workloads::names::TIME_SHARE_TRAFFIC;
use springtide_time_share_group::sizes::{Demand, Level};

use crate::node::PodLimits;
use crate::node::program::BOX_IMAGE;
use crate::upgrade::traffic::{LINES, PORT};

/// Name of the container that changes its size.
pub const CONTAINER: &str = "app";
/// Label of the pods of all members, by which one Service selects those of whichever has the traffic.
pub const FRONT: &str = "front";
/// A connection is closed after so many answers, as servers do: who keeps his stays with a pod that has no traffic any more.
const ANSWERS: &str = "100";
/// What a pod requests of memory where memory does not move, and its limit.
const MEMORY: (&str, &str) = ("16Mi", "64Mi");

/// A Deployment whose pods serve HTTP and answer by its name, and the member of a group that it is.
#[derive(Clone, Debug)]
pub struct NodeMember {
    /// Its name, which is the value of its pods' label `app` too.
    pub name: String,
    /// Its pods.
    pub replicas: u32,
    /// Requests of cpu at peak.
    pub peak: String,
    /// And at valley, which the template has.
    pub valley: String,
    /// Limits of memory at peak and at valley, which are requests as well, where memory moves.
    pub memory: Option<[String; 2]>,
    /// What it requests of memory where that does not move.
    pub(crate) requested_memory: &'static str,
    /// How its pods get their traffic.
    pub mode: TrafficMode,
    /// Whether pods without traffic keep it.
    pub valley_traffic: ValleyTraffic,
    /// Pods that keep it, with [`ValleyTraffic::Trickle`].
    pub trickle: Option<u32>,
    /// Changes of the pods' spec, each merged over what is made here, item by item where items of a list have names.
    pub(crate) over: Value,
}

impl NodeMember {
    /// With the label as the way to traffic.
    #[must_use]
    pub fn new(name: &str, replicas: u32, peak: &str, valley: &str) -> Self {
        Self {
            name: name.to_owned(),
            replicas,
            peak: peak.to_owned(),
            valley: valley.to_owned(),
            memory: None,
            requested_memory: MEMORY.0,
            mode: TrafficMode::ServiceLabel,
            valley_traffic: ValleyTraffic::Off,
            trickle: None,
            over: json!({}),
        }
    }

    /// Of another name.
    #[must_use]
    pub fn named(self, name: &str) -> Self {
        Self { name: name.to_owned(), ..self }
    }

    /// With so many pods.
    #[must_use]
    pub fn replicas(self, replicas: u32) -> Self {
        Self { replicas, ..self }
    }

    /// With so much cpu at peak.
    #[must_use]
    pub fn peak(self, peak: &str) -> Self {
        Self { peak: peak.to_owned(), ..self }
    }

    /// With another way to traffic.
    #[must_use]
    pub fn mode(self, mode: TrafficMode) -> Self {
        Self { mode, ..self }
    }

    /// With so many pods that keep their traffic at valley size.
    #[must_use]
    pub fn trickle(self, pods: u32) -> Self {
        Self { valley_traffic: ValleyTraffic::Trickle, trickle: Some(pods), ..self }
    }

    /// With memory that moves between these limits, which are requests too.
    #[must_use]
    pub fn memory(self, peak: &str, valley: &str) -> Self {
        Self { memory: Some([peak.to_owned(), valley.to_owned()]), ..self }
    }

    /// With pods of QoS class Guaranteed.
    #[must_use]
    pub fn guaranteed(self) -> Self {
        Self { requested_memory: MEMORY.1, ..self }
    }

    /// With another container, given as a pod has it: over the server where it has its name, else beside it.
    #[must_use]
    pub fn container(self, container: Value) -> Self {
        self.pod(json!({"containers": [container]}))
    }

    /// With other fields of the pods' spec.
    #[must_use]
    pub fn pod(mut self, over: Value) -> Self {
        overlay(&mut self.over, over);
        self
    }

    /// What a pod requests at a size, of the container that changes it.
    #[must_use]
    pub fn requests(&self, level: Level) -> Demand {
        let of = |resource: &str, amount: &str| parse_amount(resource, amount).unwrap_or_default();
        let cpu = of("cpu", self.cpu(level));
        let memory = of("memory", self.memory_at(level).unwrap_or(self.requested_memory));
        Demand { cpu, memory }
    }

    /// What the kernel holds a pod to at a size, if the server is its only container.
    #[must_use]
    pub fn limits(&self, level: Level) -> PodLimits {
        let of = |resource: &str, amount: &str| {
            parse_amount(resource, amount).and_then(|amount| u64::try_from(amount).ok())
        };
        PodLimits {
            cpu_millis: of("cpu", self.cpu(level)),
            memory_bytes: of("memory", self.memory_at(level).unwrap_or(MEMORY.1)),
        }
    }

    fn cpu(&self, level: Level) -> &str {
        match level {
            Level::Peak => &self.peak,
            Level::Valley => &self.valley,
        }
    }

    fn memory_at(&self, level: Level) -> Option<&str> {
        let [peak, valley] = self.memory.as_ref()?;
        Some(match level {
            Level::Peak => peak,
            Level::Valley => valley,
        })
    }

    /// The Deployment: pods are born at valley size, without traffic.
    #[must_use]
    pub fn manifest(&self) -> Value {
        let selector = json!({"app": self.name});
        let mut labels = json!({"app": self.name, FRONT: "yes"});
        let mut gates = json!([]);
        match self.mode {
            TrafficMode::ServiceLabel => labels[TIME_SHARE_TRAFFIC.label] = json!("false"),
            TrafficMode::ReadinessGate => gates = json!([{"conditionType": TIME_SHARE_TRAFFIC.gate}]),
            TrafficMode::None | TrafficMode::HttpRoute => {}
        }
        let memory = |otherwise: &'static str| self.memory_at(Level::Valley).unwrap_or(otherwise);
        let mut pod = json!({
            "terminationGracePeriodSeconds": 5,
            "readinessGates": gates,
            "volumes": [{"name": "scratch", "emptyDir": {}}],
            "containers": [{
                "name": CONTAINER, "image": BOX_IMAGE,
                "args": ["http", PORT.to_string(), self.name, LINES, ANSWERS],
                "ports": [{"containerPort": PORT}],
                "volumeMounts": [{"name": "scratch", "mountPath": "/scratch"}],
                "readinessProbe": {
                    "httpGet": {"path": "/", "port": PORT}, "periodSeconds": 1, "timeoutSeconds": 5,
                },
                "resources": {
                    "requests": {"cpu": self.valley, "memory": memory(self.requested_memory)},
                    "limits": {"cpu": self.valley, "memory": memory(MEMORY.1)},
                },
            }],
        });
        overlay(&mut pod, self.over.clone());
        json!({
            "apiVersion": "apps/v1", "kind": "Deployment",
            "metadata": {"name": self.name, "labels": {"app": self.name}},
            "spec": {
                "replicas": self.replicas,
                "selector": {"matchLabels": selector},
                "template": {"metadata": {"labels": labels}, "spec": pod},
            },
        })
    }

    /// The member: nobody waits longer than it takes.
    ///
    /// # Errors
    /// Never, as it is plain.
    pub fn member(&self) -> Result<Member> {
        let size = |level: Level| {
            let mut size = json!({"cpu": self.cpu(level)});
            if let Some(memory) = self.memory_at(level) {
                size["memory"] = json!(memory);
            }
            size
        };
        let mut member: Member = serde_json::from_value(json!({
            "name": self.name,
            "targetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": self.name},
            "containers": [{"name": CONTAINER, "peak": size(Level::Peak), "valley": size(Level::Valley)}],
            "traffic": {"mode": self.mode, "valley": self.valley_traffic, "trickle": self.trickle},
        }))?;
        member.traffic.drain.min_seconds = 0;
        member.memory = if self.memory.is_some() { MemoryPolicy::Move } else { MemoryPolicy::Keep };
        Ok(member)
    }
}

/// A group of these members: all units in one step, each where its donors shrink for it.
///
/// # Errors
/// Never, as it is plain.
pub fn group_of(members: &[&NodeMember]) -> Result<TimeShareGroupSpec> {
    let members = members.iter().map(|member| member.member()).collect::<Result<_>>()?;
    let mut spec = TimeShareGroupSpec::new(members);
    spec.switch.steps = vec![Step { percent: 100, hold_seconds: 0 }];
    spec.switch.overlap = Overlap::Never;
    spec.switch.max_in_flight_units_per_node = 110;
    Ok(spec)
}

/// Lays one tree over another: objects are merged, and so are lists whose items have names, item by item; anything else
/// takes the place of what was there, and null takes it away.
fn overlay(under: &mut Value, over: Value) {
    match (under, over) {
        (Value::Object(under), Value::Object(over)) => {
            for (name, value) in over {
                if value.is_null() {
                    under.remove(&name);
                } else {
                    overlay(under.entry(name).or_insert(Value::Null), value);
                }
            }
        }
        (Value::Array(under), Value::Array(over)) if over.iter().all(|item| item["name"].is_string()) => {
            for item in over {
                match under.iter_mut().find(|own| own["name"] == item["name"]) {
                    Some(own) => overlay(own, item),
                    None => under.push(item),
                }
            }
        }
        (under, over) => *under = over,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::api::apps::v1::Deployment;

    #[test]
    fn a_member_is_born_at_valley_size_without_traffic() {
        let pay = NodeMember::new("pay", 3, "400m", "50m")
            .container(json!({"name": CONTAINER, "readinessProbe": null}))
            .container(json!({"name": "log", "image": BOX_IMAGE}));
        let deployment: Deployment = serde_json::from_value(pay.manifest()).unwrap();
        let template = deployment.spec.template;
        let labels = template.metadata.unwrap().labels.unwrap();
        assert_eq!(labels[TIME_SHARE_TRAFFIC.label], "false");
        let pod = template.spec.unwrap();
        assert!(pod.readiness_gates.unwrap().is_empty());
        assert_eq!(
            pod.containers.iter().map(|container| &*container.name).collect::<Vec<_>>(),
            ["app", "log"]
        );
        assert!(pod.containers[0].readiness_probe.is_none());
        let resources = pod.containers[0].resources.as_ref().unwrap();
        assert_eq!(resources.limits.as_ref().unwrap()["cpu"].0, "50m");
        assert_eq!(
            pay.limits(Level::Peak),
            PodLimits { cpu_millis: Some(400), memory_bytes: Some(64 << 20) }
        );
        assert_eq!(pay.requests(Level::Valley), Demand { cpu: 50, memory: 16 << 20 });

        let gated = NodeMember::new("pay", 3, "400m", "50m").mode(TrafficMode::ReadinessGate);
        let deployment: Deployment = serde_json::from_value(gated.manifest()).unwrap();
        let template = deployment.spec.template;
        assert!(!template.metadata.unwrap().labels.unwrap().contains_key(TIME_SHARE_TRAFFIC.label));
        let gates = template.spec.unwrap().readiness_gates.unwrap();
        assert_eq!(gates[0].condition_type, TIME_SHARE_TRAFFIC.gate);
    }

    #[test]
    fn a_group_has_its_members_in_one_step() {
        let (pay, promo) = (NodeMember::new("pay", 1, "1", "50m"), NodeMember::new("promo", 1, "1", "50m"));
        let moves = promo.memory("128Mi", "32Mi").trickle(1);
        let spec = group_of(&[&pay, &moves]).unwrap();
        assert_eq!((spec.members.len(), spec.switch.steps.len()), (2, 1));
        assert_eq!(spec.members[0].memory, MemoryPolicy::Keep);
        let promo = &spec.members[1];
        assert_eq!((promo.memory, promo.traffic.valley), (MemoryPolicy::Move, ValleyTraffic::Trickle));
        assert!(promo.containers[0].peak.memory.is_some() && promo.traffic.trickle.is_some());
        assert_eq!(moves.limits(Level::Valley).memory_bytes, Some(32 << 20));
    }
}
