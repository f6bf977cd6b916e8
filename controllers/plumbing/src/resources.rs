//! Amounts of resources, and what a pod requests as the scheduler counts it.
//!
//! The unit of cpu is a thousandth of a core, that of every other resource the whole number the API
//! means (bytes, pods, devices), rounded up: so does the scheduler.

use crate::quantity::{HUGE_PAGES, Quantity};
use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, Visitor};
use std::fmt;
use std::sync::Arc;

/// An amount per resource; a resource that is absent is zero.
///
/// Decodes from a map of Kubernetes quantities. What is no quantity counts as zero: refusing it is the API
/// server's task. Amounts may get negative by [`ResourceList::subtract`] (an overcommitted node).
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct ResourceList {
    /// Thousandths of a core.
    pub cpu: i64,
    /// Bytes.
    pub memory: i64,
    /// Bytes.
    pub ephemeral_storage: i64,
    /// Number of pods: 1 for a pod, the bound of the kubelet for a node.
    pub pods: i64,
    /// Huge pages and extended resources, sorted by name; none is zero.
    extended: Vec<(Arc<str>, i64)>,
}

impl ResourceList {
    /// Every resource that is not zero, with its API name.
    pub fn iter(&self) -> impl Iterator<Item = (&str, i64)> {
        [
            ("cpu", self.cpu),
            ("memory", self.memory),
            ("ephemeral-storage", self.ephemeral_storage),
            ("pods", self.pods),
        ]
        .into_iter()
        .filter(|(_, amount)| *amount != 0)
        .chain(self.extended.iter().map(|(name, amount)| (name.as_ref(), *amount)))
    }

    /// The amount of one resource by its API name.
    pub fn get(&self, name: &str) -> i64 {
        match name {
            "cpu" => self.cpu,
            "memory" => self.memory,
            "ephemeral-storage" => self.ephemeral_storage,
            "pods" => self.pods,
            extended => self.extended(extended),
        }
    }

    /// Adds every amount of `other`.
    pub fn add(&mut self, other: &Self) {
        self.merge(other, i64::saturating_add);
    }

    /// Takes every amount of `other` away; the exact inverse of [`ResourceList::add`].
    pub fn subtract(&mut self, other: &Self) {
        self.merge(other, i64::saturating_sub);
    }

    /// So many times every amount; negative, to take away what [`ResourceList::add`] adds.
    #[must_use]
    pub fn times(&self, count: i64) -> Self {
        Self {
            cpu: self.cpu.saturating_mul(count),
            memory: self.memory.saturating_mul(count),
            ephemeral_storage: self.ephemeral_storage.saturating_mul(count),
            pods: self.pods.saturating_mul(count),
            extended: match count {
                0 => Vec::new(),
                _ => self
                    .extended
                    .iter()
                    .map(|(name, amount)| (Arc::clone(name), amount.saturating_mul(count)))
                    .collect(),
            },
        }
    }

    /// The same without amounts below zero.
    #[must_use]
    pub fn without_debts(mut self) -> Self {
        self.cpu = self.cpu.max(0);
        self.memory = self.memory.max(0);
        self.ephemeral_storage = self.ephemeral_storage.max(0);
        self.pods = self.pods.max(0);
        self.extended.retain(|(_, amount)| *amount > 0);
        self
    }

    /// Raises every amount to that of `other` where it is higher there.
    pub fn raise_to(&mut self, other: &Self) {
        self.merge(other, i64::max);
    }

    /// Raises to that of `other` the amounts that are zero here.
    fn fill_from(&mut self, other: &Self) {
        self.merge(other, |own, other| if own == 0 { other } else { own });
    }

    /// Takes over the amounts of `other` that are not zero there.
    fn replace_with(&mut self, other: &Self) {
        self.merge(other, |own, other| if other == 0 { own } else { other });
    }

    /// The same with 100m of cpu and 200Mi of memory where it asks for none: a batch pod without requests
    /// must not count as free, or any number of them would fit. The amounts are those that the scheduler
    /// takes for such pods when it ranks nodes (`DefaultMilliCPURequest`, `DefaultMemoryRequest`).
    #[must_use]
    pub fn charged(mut self) -> Self {
        self.fill_from(&Self { cpu: 100, memory: 200 << 20, ..Self::default() });
        self
    }

    /// How many times `self` fits into what is left of `total` beside `used`.
    ///
    /// Only resources that `self` asks for are looked at, so something that asks for none fits without
    /// bound: `u32::MAX` times.
    pub fn times_within(&self, total: &Self, used: &Self) -> u32 {
        let mut times = u32::MAX;
        let mut limit = |wanted: i64, total: i64, used: i64| {
            if wanted > 0 {
                let free = total.saturating_sub(used).max(0);
                times = times.min(u32::try_from(free / wanted).unwrap_or(u32::MAX));
            }
            times > 0
        };
        let core = limit(self.cpu, total.cpu, used.cpu)
            && limit(self.memory, total.memory, used.memory)
            && limit(self.ephemeral_storage, total.ephemeral_storage, used.ephemeral_storage)
            && limit(self.pods, total.pods, used.pods);
        if core {
            for (name, wanted) in &self.extended {
                if !limit(*wanted, total.extended(name), used.extended(name)) {
                    break;
                }
            }
        }
        times
    }

    fn extended(&self, name: &str) -> i64 {
        self.extended.iter().find(|(held, _)| held.as_ref() == name).map_or(0, |(_, amount)| *amount)
    }

    fn merge(&mut self, other: &Self, combine: impl Fn(i64, i64) -> i64) {
        self.cpu = combine(self.cpu, other.cpu);
        self.memory = combine(self.memory, other.memory);
        self.ephemeral_storage = combine(self.ephemeral_storage, other.ephemeral_storage);
        self.pods = combine(self.pods, other.pods);
        for (name, amount) in &other.extended {
            match self.extended.binary_search_by(|(held, _)| held.cmp(name)) {
                Ok(at) => {
                    self.extended[at].1 = combine(self.extended[at].1, *amount);
                    if self.extended[at].1 == 0 {
                        self.extended.remove(at);
                    }
                }
                Err(at) => match combine(0, *amount) {
                    0 => {}
                    sum => self.extended.insert(at, (Arc::clone(name), sum)),
                },
            }
        }
    }

    fn set(&mut self, name: Name, quantity: &Quantity) {
        match name {
            Name::Cpu => self.cpu = quantity.amount(1000),
            Name::Memory => self.memory = quantity.amount(1),
            Name::EphemeralStorage => self.ephemeral_storage = quantity.amount(1),
            Name::Pods => self.pods = quantity.amount(1),
            Name::Extended(name) => {
                let extended = vec![(name, quantity.amount(1))];
                self.add(&Self { extended, ..Self::default() });
            }
        }
    }
}

impl FromIterator<(Arc<str>, i64)> for ResourceList {
    /// Sums up amounts by their API names.
    fn from_iter<I: IntoIterator<Item = (Arc<str>, i64)>>(amounts: I) -> Self {
        let mut list = Self::default();
        for (name, amount) in amounts {
            let core = match &*name {
                "cpu" => &mut list.cpu,
                "memory" => &mut list.memory,
                "ephemeral-storage" => &mut list.ephemeral_storage,
                "pods" => &mut list.pods,
                _ => {
                    let extended = if amount == 0 { Vec::new() } else { vec![(name, amount)] };
                    list.add(&Self { extended, ..Self::default() });
                    continue;
                }
            };
            *core = core.saturating_add(amount);
        }
        list
    }
}

enum Name {
    Cpu,
    Memory,
    EphemeralStorage,
    Pods,
    Extended(Arc<str>),
}

impl<'de> Deserialize<'de> for Name {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct NameVisitor;
        impl Visitor<'_> for NameVisitor {
            type Value = Name;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("the name of a resource")
            }

            fn visit_str<E>(self, name: &str) -> Result<Name, E> {
                Ok(match name {
                    "cpu" => Name::Cpu,
                    "memory" => Name::Memory,
                    "ephemeral-storage" => Name::EphemeralStorage,
                    "pods" => Name::Pods,
                    extended => Name::Extended(Arc::from(extended)),
                })
            }
        }
        deserializer.deserialize_str(NameVisitor)
    }
}

impl<'de> Deserialize<'de> for ResourceList {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct ListVisitor;
        impl<'de> Visitor<'de> for ListVisitor {
            type Value = ResourceList;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a map of resource names to quantities")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<ResourceList, A::Error> {
                let mut list = ResourceList::default();
                while let Some((name, quantity)) = map.next_entry::<Name, Quantity>()? {
                    list.set(name, &quantity);
                }
                Ok(list)
            }

            fn visit_unit<E>(self) -> Result<ResourceList, E> {
                Ok(ResourceList::default())
            }
        }
        deserializer.deserialize_any(ListVisitor)
    }
}

/// `resources` of a container or a pod.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Resources {
    /// What is set aside for it.
    pub requests: Option<ResourceList>,
    /// What it may use.
    pub limits: Option<ResourceList>,
}

/// A field that stands there without a value is as one that does not stand there.
fn or_default<'de, D: Deserializer<'de>, T: Deserialize<'de> + Default>(
    deserializer: D,
) -> Result<T, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

/// What a container of a pod's spec says about its requests.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ContainerRequests {
    /// Its name, by which its status is found.
    pub name: Box<str>,
    /// `Always` makes an init container a sidecar.
    pub restart_policy: Option<Box<str>>,
    /// Its requests and limits.
    #[serde(deserialize_with = "or_default")]
    pub resources: Resources,
}

impl ContainerRequests {
    /// Whether it is an init container that goes on beside the others.
    pub fn is_sidecar(&self) -> bool {
        self.restart_policy.as_deref() == Some("Always")
    }
}

/// What of a pod's spec decides its requests. Decodes from a pod spec, as the template or the API has it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PodSpecRequests {
    /// The containers that run together.
    pub containers: Vec<ContainerRequests>,
    /// Those that run before, one after the other, and sidecars.
    pub init_containers: Vec<ContainerRequests>,
    /// What the RuntimeClass adds.
    pub overhead: Option<ResourceList>,
    /// Resources of the pod as a whole.
    #[serde(deserialize_with = "or_default")]
    pub resources: Resources,
}

/// What a container's status says about its resources; it differs from the spec during a resize.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ContainerStatusRequests {
    /// Name of the container.
    pub name: Box<str>,
    /// What the kubelet has admitted.
    pub allocated_resources: Option<ResourceList>,
    /// What is in force.
    pub resources: Resources,
}

/// What of a pod's status decides its requests.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PodStatusRequests {
    /// Statuses of containers and init containers.
    pub containers: Vec<ContainerStatusRequests>,
    /// `status.allocatedResources`.
    pub allocated_resources: Option<ResourceList>,
    /// `status.resources`.
    pub resources: Resources,
    /// Whether the node can never carry out the resize that the spec asks for: condition
    /// `PodResizePending` with reason `Infeasible`.
    pub is_resize_infeasible: bool,
}

impl PodSpecRequests {
    /// What a pod made from this template will request once the API server has filled in requests from
    /// limits. LimitRanges and the RuntimeClass may still add to it.
    pub fn of_template(&self) -> ResourceList {
        let from_limits = |container: &ContainerRequests| {
            let mut requests = container.resources.requests.clone().unwrap_or_default();
            if let Some(limits) = &container.resources.limits {
                requests.fill_from(limits);
            }
            requests
        };
        let mut sum = self.aggregate(from_limits);
        // A pod-level limit is a request only for what no container requests.
        for (list, combine) in [
            (&self.resources.limits, ResourceList::fill_from as fn(&mut ResourceList, &ResourceList)),
            (&self.resources.requests, ResourceList::replace_with),
        ] {
            if let Some(list) = list {
                combine(&mut sum, &pod_level(list));
            }
        }
        self.finish(sum)
    }

    /// What the stored pod holds on its node, as the scheduler of Kubernetes 1.37 counts it: the highest of
    /// what is asked for, admitted and in force.
    pub fn of_pod(&self, status: &PodStatusRequests) -> ResourceList {
        let none = ResourceList::default();
        let asked = |container: &ContainerRequests| container.resources.requests.clone().unwrap_or_default();
        let unless_infeasible = |container: &ContainerRequests| {
            if status.is_resize_infeasible { none.clone() } else { asked(container) }
        };
        let of = |container: &ContainerRequests| {
            status.containers.iter().find(|status| status.name == container.name)
        };
        let mut sum = if status.is_resize_infeasible { none.clone() } else { self.aggregate(asked) };
        match (&status.allocated_resources, &status.resources.requests) {
            (Some(allocated), Some(in_force)) => {
                sum.raise_to(allocated);
                sum.raise_to(in_force);
            }
            (Some(_), None) | (None, Some(_)) | (None, None) => {
                sum.raise_to(&self.aggregate(|container| {
                    of(container)
                        .and_then(|status| status.allocated_resources.clone())
                        .unwrap_or_else(|| unless_infeasible(container))
                }));
                sum.raise_to(&self.aggregate(|container| {
                    of(container)
                        .and_then(|status| {
                            status.resources.requests.clone().or_else(|| status.allocated_resources.clone())
                        })
                        .unwrap_or_else(|| unless_infeasible(container))
                }));
            }
        }
        if let Some(requests) = &self.resources.requests {
            let mut whole = if status.is_resize_infeasible { none } else { pod_level(requests) };
            for seen in [&status.resources.requests, &status.allocated_resources].into_iter().flatten() {
                whole.raise_to(&pod_level(seen));
            }
            sum.replace_with(&whole);
        }
        self.finish(sum)
    }

    /// Containers and sidecars run together; before them each init container runs beside the sidecars
    /// that started earlier. The pod needs the highest of these.
    fn aggregate(&self, requests: impl Fn(&ContainerRequests) -> ResourceList) -> ResourceList {
        let mut sum = ResourceList::default();
        for container in &self.containers {
            sum.add(&requests(container));
        }
        let mut sidecars = ResourceList::default();
        let mut starting = ResourceList::default();
        for container in &self.init_containers {
            let mut step = requests(container);
            if container.is_sidecar() {
                sum.add(&step);
                sidecars.add(&step);
                starting.raise_to(&sidecars);
            } else {
                step.add(&sidecars);
                starting.raise_to(&step);
            }
        }
        sum.raise_to(&starting);
        sum
    }

    fn finish(&self, mut sum: ResourceList) -> ResourceList {
        if let Some(overhead) = &self.overhead {
            sum.add(overhead);
        }
        sum.pods = 1;
        sum
    }
}

/// The resources that can be requested for a pod as a whole.
fn pod_level(list: &ResourceList) -> ResourceList {
    ResourceList {
        cpu: list.cpu,
        memory: list.memory,
        extended: list.extended.iter().filter(|(name, _)| name.starts_with(HUGE_PAGES)).cloned().collect(),
        ..ResourceList::default()
    }
}

#[cfg(test)]
mod tests;
