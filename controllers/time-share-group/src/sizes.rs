//! Sizes of pods: what a member's pods request in its peak and in its valley, and which of the two a pod has.

use springtide_plumbing::projection::Projection;
use springtide_plumbing::workloads::amounts::{Amounts, Pair};
use springtide_plumbing::workloads::pod::{ContainerView, PodView};
use std::collections::BTreeMap;
use std::ops::{Add, AddAssign, Sub, SubAssign};
use std::sync::Arc;

/// Which size a pod is to have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Level {
    /// Warm, and next to nothing.
    Valley,
    /// That of the member that is on stage.
    Peak,
}

impl Level {
    /// The level as dry runs, messages and metrics name it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Valley => "valley",
            Self::Peak => "peak",
        }
    }

    /// The one that it is not.
    #[must_use]
    pub fn other(self) -> Self {
        match self {
            Self::Valley => Self::Peak,
            Self::Peak => Self::Valley,
        }
    }
}

/// Which of the resources move.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Scope {
    /// Cpu and memory, as the spec states them.
    #[default]
    Whole,
    /// Cpu alone: memory stays what it is, as nobody knows that less of it is enough.
    Cpu,
    /// Cpu as at one level and memory as at the other one: it was to move, and its node does not let it.
    MemoryBack,
}

/// An amount of cpu and memory, or a difference of two; sums are cut at the ends of an `i64`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Demand {
    /// Thousandths of a core.
    pub cpu: i64,
    /// Bytes.
    pub memory: i64,
}

impl Demand {
    /// Nothing.
    pub const ZERO: Self = Self { cpu: 0, memory: 0 };

    /// Whether all of it is there in `room`. What is not asked for always is, also where `room` is overdrawn.
    pub fn fits(self, room: Self) -> bool {
        (self.cpu <= 0 || self.cpu <= room.cpu) && (self.memory <= 0 || self.memory <= room.memory)
    }

    /// Whether neither resource is asked for.
    pub fn is_nothing(self) -> bool {
        self.cpu <= 0 && self.memory <= 0
    }

    /// The larger of each resource.
    #[must_use]
    pub fn max(self, other: Self) -> Self {
        Self { cpu: self.cpu.max(other.cpu), memory: self.memory.max(other.memory) }
    }

    /// The same so many times.
    #[must_use]
    pub fn times(self, count: u32) -> Self {
        let count = i64::from(count);
        Self { cpu: self.cpu.saturating_mul(count), memory: self.memory.saturating_mul(count) }
    }
}

impl From<Pair> for Demand {
    fn from(pair: Pair) -> Self {
        Self { cpu: pair.cpu.unwrap_or_default(), memory: pair.memory.unwrap_or_default() }
    }
}

impl Add for Demand {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self { cpu: self.cpu.saturating_add(other.cpu), memory: self.memory.saturating_add(other.memory) }
    }
}

impl Sub for Demand {
    type Output = Self;

    fn sub(self, other: Self) -> Self {
        Self { cpu: self.cpu.saturating_sub(other.cpu), memory: self.memory.saturating_sub(other.memory) }
    }
}

impl AddAssign for Demand {
    fn add_assign(&mut self, other: Self) {
        *self = *self + other;
    }
}

impl SubAssign for Demand {
    fn sub_assign(&mut self, other: Self) {
        *self = *self - other;
    }
}

impl std::iter::Sum for Demand {
    fn sum<I: Iterator<Item = Self>>(demands: I) -> Self {
        demands.fold(Self::ZERO, Add::add)
    }
}

/// A size: requests, and limits where they move too, of the containers that a group resizes, by name. What is not stated
/// is left alone.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Size(BTreeMap<Arc<str>, Amounts>);

impl Size {
    /// The size of these containers.
    pub fn new(containers: impl IntoIterator<Item = (Arc<str>, Amounts)>) -> Self {
        Self(containers.into_iter().collect())
    }

    /// Its containers by name, in order.
    pub fn containers(&self) -> impl Iterator<Item = (&Arc<str>, &Amounts)> {
        self.0.iter()
    }

    /// What it states of one container; nothing of others.
    pub fn of(&self, container: &str) -> Amounts {
        self.0.get(container).copied().unwrap_or_default()
    }

    /// What all its containers request together.
    pub fn requests(&self) -> Demand {
        self.0.values().map(|amounts| Demand::from(amounts.requests)).sum()
    }

    /// As much of it as moves; see [`Profile::sized`] for memory that is of another size.
    #[must_use]
    pub fn scoped(&self, scope: Scope) -> Self {
        let cut = |pair: Pair| match scope {
            Scope::Whole => pair,
            Scope::Cpu | Scope::MemoryBack => Pair { memory: None, ..pair },
        };
        let containers = self.0.iter().map(|(name, amounts)| {
            let Amounts { requests, limits } = *amounts;
            (Arc::clone(name), Amounts { requests: cut(requests), limits: cut(limits) })
        });
        Self(containers.collect())
    }

    /// The same with the memory of another size.
    #[must_use]
    fn with_memory_of(mut self, other: &Self) -> Self {
        for (name, amounts) in &mut self.0 {
            let memory = other.of(name);
            amounts.requests.memory = memory.requests.memory;
            amounts.limits.memory = memory.limits.memory;
        }
        self
    }

    /// Whether a pod's spec asks for it.
    pub fn is_asked_by(&self, pod: &PodView) -> bool {
        self.holds_of(pod, |container| Some(container.amounts))
    }

    /// Whether its node has put it in force: the spec asks for it, the kubelet has seen that spec, and reports these amounts
    /// without a resize under way. A kubelet that reports no amounts never has.
    pub fn is_in_force(&self, pod: &PodView) -> bool {
        self.is_asked_by(pod)
            && is_resized(pod)
            && self.holds_of(pod, |container| container.status.as_ref().and_then(|status| status.amounts))
    }

    /// Whether something holds of all its containers that the pod has; of one that it has not, it does not.
    fn holds_of(&self, pod: &PodView, amounts: impl Fn(&ContainerView) -> Option<Amounts>) -> bool {
        self.0.iter().all(|(name, wished)| {
            let found = pod.container(name).and_then(&amounts);
            found.is_some_and(|found| found.has(wished))
        })
    }
}

/// Whether the kubelet has nothing left to do of what the spec of a pod asks for, as far as conditions and generation say.
pub fn is_resized(pod: &PodView) -> bool {
    pod.resize_pending.is_none()
        && pod.resize_in_progress.is_none()
        && pod.observed_generation >= pod.meta().generation
}

/// The sizes of one member's pods.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Profile {
    /// On stage.
    pub peak: Size,
    /// Off stage.
    pub valley: Size,
}

impl Profile {
    /// The size of a level.
    pub fn size(&self, level: Level) -> &Size {
        match level {
            Level::Valley => &self.valley,
            Level::Peak => &self.peak,
        }
    }

    /// The size that a pod is to have at a level, as far as that moves.
    pub fn sized(&self, level: Level, scope: Scope) -> Size {
        let size = self.size(level).scoped(scope);
        match scope {
            Scope::Whole | Scope::Cpu => size,
            Scope::MemoryBack => size.with_memory_of(self.size(level.other())),
        }
    }

    /// By how much more a pod requests at peak. It rests on the spec alone, so what is derived from it stays while pods
    /// change.
    pub fn extent(&self) -> Demand {
        self.peak.requests() - self.valley.requests()
    }

    /// Which size a pod's spec asks for. A profile whose sizes are one and the same is at peak and at valley: it is where
    /// it is looked for, `sought`.
    pub fn asked(&self, pod: &PodView, sought: Level, scope: Scope) -> Standing {
        let is = |level: Level| self.sized(level, scope).is_asked_by(pod);
        if is(sought) {
            Standing::At(sought)
        } else if is(sought.other()) {
            Standing::At(sought.other())
        } else {
            Standing::Between
        }
    }
}

/// Which size a pod has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Standing {
    /// One of its member's.
    At(Level),
    /// Another one: an older profile's, or that of a hand.
    Between,
}

impl Standing {
    /// Whether it is this size.
    pub fn is(self, level: Level) -> bool {
        match self {
            Self::At(own) => own == level,
            Self::Between => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn pod(cpu: &str, in_force: &str, over: Value) -> PodView {
        let mut pod = json!({
            "metadata": {"name": "pay-1", "namespace": "shop", "uid": "u", "generation": 2,
                "ownerReferences": [{"kind": "ReplicaSet", "name": "pay", "uid": "r", "controller": true}]},
            "spec": {"containers": [{"name": "app", "resources": {"requests": {"cpu": cpu, "memory": "1Gi"}}}]},
            "status": {"observedGeneration": 2, "containerStatuses": [{"name": "app",
                "resources": {"requests": {"cpu": in_force, "memory": "1Gi"}}}]},
        });
        if let Some(fields) = over.as_object() {
            for (name, value) in fields {
                pod["status"][name] = value.clone();
            }
        }
        serde_json::from_value(pod).unwrap()
    }

    fn size(cpu: i64, memory: Option<i64>) -> Size {
        let requests = Pair { cpu: Some(cpu), memory };
        Size::new([("app".into(), Amounts { requests, ..Amounts::default() })])
    }

    fn profile() -> Profile {
        Profile { peak: size(4000, Some(8 << 30)), valley: size(200, Some(1 << 30)) }
    }

    #[test]
    fn a_size_is_in_force_when_the_kubelet_reports_it_of_the_present_spec_and_nothing_is_under_way() {
        let valley = &profile().valley;
        assert!(valley.is_in_force(&pod("200m", "0.2", json!({}))));
        assert!(!valley.is_in_force(&pod("200m", "4", json!({}))), "it has still more");
        assert!(!valley.is_in_force(&pod("4", "200m", json!({}))), "its spec asks for more");
        assert!(!valley.is_in_force(&pod("200m", "200m", json!({"observedGeneration": 1}))));
        for type_ in ["PodResizePending", "PodResizeInProgress"] {
            let conditions = json!([{"type": type_, "status": "True", "reason": "Deferred"}]);
            assert!(!valley.is_in_force(&pod("200m", "200m", json!({"conditions": conditions}))), "{type_}");
        }
        let old_kubelet = json!({"containerStatuses": [{"name": "app"}]});
        assert!(!valley.is_in_force(&pod("200m", "200m", old_kubelet)), "it reports no amounts");
    }

    #[test]
    fn a_pod_stands_at_the_size_that_its_spec_asks_for() {
        let asked = |pod: &PodView, scope| profile().asked(pod, Level::Peak, scope);
        assert_eq!(asked(&pod("200m", "4", json!({})), Scope::Whole), Standing::At(Level::Valley));
        assert_eq!(asked(&pod("1", "1", json!({})), Scope::Whole), Standing::Between);
        assert_eq!(asked(&pod("4", "4", json!({})), Scope::Whole), Standing::Between, "its memory is less");
        assert_eq!(asked(&pod("4", "4", json!({})), Scope::Cpu), Standing::At(Level::Peak));
        let same = Profile { peak: size(200, None), valley: size(200, None) };
        let pod = pod("200m", "200m", json!({}));
        assert_eq!(same.asked(&pod, Level::Peak, Scope::Whole), Standing::At(Level::Peak));
        assert_eq!(same.asked(&pod, Level::Valley, Scope::Whole), Standing::At(Level::Valley));
    }

    #[test]
    fn memory_that_cannot_move_is_of_the_other_level() {
        let profile = profile();
        assert_eq!(profile.sized(Level::Valley, Scope::MemoryBack), size(200, Some(8 << 30)));
        assert_eq!(profile.sized(Level::Peak, Scope::MemoryBack), size(4000, Some(1 << 30)));
        assert_eq!(profile.sized(Level::Valley, Scope::Cpu), size(200, None));
        assert_eq!(profile.sized(Level::Peak, Scope::Whole), profile.peak);
        let pod = pod("4", "4", json!({}));
        assert_eq!(profile.asked(&pod, Level::Peak, Scope::MemoryBack), Standing::At(Level::Peak));
    }

    #[test]
    fn a_container_that_the_pod_does_not_have_is_of_no_size() {
        let other = Size::new([("proxy".into(), Amounts::default())]);
        assert!(!other.is_asked_by(&pod("200m", "200m", json!({}))));
    }

    #[test]
    fn what_is_not_asked_for_fits_also_where_there_is_less_than_nothing() {
        let room = Demand { cpu: 500, memory: -1 };
        assert!(Demand { cpu: 500, memory: 0 }.fits(room) && Demand { cpu: 0, memory: -5 }.fits(room));
        assert!(!Demand { cpu: 501, memory: 0 }.fits(room) && !Demand { cpu: 0, memory: 1 }.fits(room));
        assert_eq!(profile().extent(), Demand { cpu: 3800, memory: 7 << 30 });
        assert_eq!(profile().extent().times(2) - profile().extent(), profile().extent());
    }
}
