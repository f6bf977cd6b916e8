//! Cpu and memory of a workload's pods that somebody else decides: a TimeShareGroup, a VerticalPodAutoscaler.
//!
//! What is claimed is neither held against a pod nor written to it, whatever the wish has of it. A wish that changes it
//! is refused.

use crate::workloads::amounts::{Amounts, Pair};
use crate::workloads::content::{Content, Role};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Which of cpu and memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Which {
    /// Cpu.
    pub cpu: bool,
    /// Memory.
    pub memory: bool,
}

/// What of one container is claimed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Share {
    /// Of its requests.
    pub requests: Which,
    /// Of its limits.
    pub limits: Which,
}

/// What one of them claims of each container of a pod.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Claim {
    /// Of these containers. Plain init containers cannot be claimed: nobody resizes what has ended.
    pub named: BTreeMap<Arc<str>, Share>,
    /// Of all other ones of `spec.containers`. Those of `spec.initContainers` that run beside them are claimed by name
    /// alone.
    pub others: Share,
}

impl Which {
    /// What a list states.
    pub fn stated(list: Pair) -> Self {
        Self { cpu: list.cpu.is_some(), memory: list.memory.is_some() }
    }

    fn or(self, other: Self) -> Self {
        Self { cpu: self.cpu || other.cpu, memory: self.memory || other.memory }
    }

    fn rest(self, list: Pair) -> Pair {
        Pair { cpu: list.cpu.filter(|_| !self.cpu), memory: list.memory.filter(|_| !self.memory) }
    }

    fn is_changed(self, from: &Pair, to: &Pair) -> bool {
        (self.cpu && from.cpu != to.cpu) || (self.memory && from.memory != to.memory)
    }
}

impl Share {
    /// What the amounts state that is not claimed.
    pub fn rest(self, amounts: Amounts) -> Amounts {
        Amounts { requests: self.requests.rest(amounts.requests), limits: self.limits.rest(amounts.limits) }
    }

    /// Whether something that is claimed differs.
    pub fn is_changed(self, from: &Amounts, to: &Amounts) -> bool {
        self.requests.is_changed(&from.requests, &to.requests)
            || self.limits.is_changed(&from.limits, &to.limits)
    }

    fn or(self, other: Self) -> Self {
        Self { requests: self.requests.or(other.requests), limits: self.limits.or(other.limits) }
    }
}

impl Claim {
    /// A claim to whatever these amounts state of containers, whatever they are.
    pub fn of_stated(containers: impl IntoIterator<Item = (Arc<str>, Amounts)>) -> Self {
        let share = |amounts: Amounts| Share {
            requests: Which::stated(amounts.requests),
            limits: Which::stated(amounts.limits),
        };
        let named = containers.into_iter().map(|(container, amounts)| (container, share(amounts)));
        Self { named: named.collect(), others: Share::default() }
    }

    /// What is claimed of a container.
    pub fn of(&self, container: &str, role: Role) -> Share {
        let named = self.named.get(container).copied();
        match role {
            Role::Main => named.unwrap_or(self.others),
            Role::Sidecar => named.unwrap_or_default(),
            Role::Init => Share::default(),
        }
    }

    /// The first container of which `to` changes what is claimed.
    pub fn contested<'a>(&self, from: &Content, to: &'a Content) -> Option<&'a Arc<str>> {
        let changed = to.containers.iter().find(|(name, wished)| {
            let own = from.containers.get(*name);
            own.is_some_and(|own| self.of(name, wished.role).is_changed(&own.amounts, &wished.amounts))
        });
        changed.map(|(name, _)| name)
    }
}

/// What all of them together claim of a container.
pub fn share(claims: &[Claim], container: &str, role: Role) -> Share {
    claims.iter().map(|claim| claim.of(container, role)).fold(Share::default(), Share::or)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workloads::fixtures::template;
    use serde_json::{Value, json};

    const CPU: Which = Which { cpu: true, memory: false };
    const MEMORY: Which = Which { cpu: false, memory: true };
    const NOTHING: Which = Which { cpu: false, memory: false };

    fn amounts(value: Value) -> Amounts {
        Amounts::read(&value)
    }

    fn content(cpu: &str, memory: &str) -> Content {
        let resources = json!({"requests": {"cpu": cpu, "memory": memory}});
        let containers = json!([{"name": "app", "image": "app:1", "resources": resources}]);
        template("app:1", json!({"spec": {"containers": containers}})).content.clone()
    }

    #[test]
    fn what_is_claimed_counts_as_not_stated() {
        let share = Share { requests: CPU, limits: MEMORY };
        let whole =
            json!({"requests": {"cpu": "1", "memory": "1Gi"}, "limits": {"cpu": "2", "memory": "2Gi"}});
        let rest = json!({"requests": {"memory": "1Gi"}, "limits": {"cpu": "2"}});
        assert_eq!(share.rest(amounts(whole.clone())), amounts(rest));
        assert_eq!(Share::default().rest(amounts(whole.clone())), amounts(whole));
    }

    #[test]
    fn only_a_change_of_what_is_claimed_contests_it() {
        let claim = |requests, limits| Claim { others: Share { requests, limits }, ..Claim::default() };
        let (old, more_cpu, more_memory) = (content("1", "1Gi"), content("2", "1Gi"), content("1", "2Gi"));
        let contested = |claim: &Claim, to: &Content| claim.contested(&old, to).map(ToString::to_string);
        let app = Some("app".to_owned());
        assert_eq!(contested(&claim(CPU, CPU), &more_cpu), app);
        assert_eq!(contested(&claim(CPU, CPU), &more_memory), None);
        assert_eq!(contested(&claim(MEMORY, NOTHING), &more_memory), app);
        assert_eq!(contested(&claim(NOTHING, MEMORY), &more_memory), None, "its request changes alone");
        assert_eq!(contested(&claim(CPU, CPU), &old), None);
    }

    #[test]
    fn a_container_is_claimed_by_its_name_or_as_one_of_all_others_and_a_sidecar_by_name_alone() {
        let (of_app, of_others) =
            (Share { requests: MEMORY, limits: NOTHING }, Share { requests: CPU, limits: CPU });
        let claim =
            Claim { named: [("app".into(), of_app), ("setup".into(), of_app)].into(), others: of_others };
        assert_eq!((claim.of("app", Role::Main), claim.of("b", Role::Main)), (of_app, of_others));
        assert_eq!(
            (claim.of("app", Role::Sidecar), claim.of("b", Role::Sidecar)),
            (of_app, Share::default())
        );
        assert_eq!(claim.of("setup", Role::Init), Share::default());
    }

    #[test]
    fn what_two_claim_of_a_container_adds_up() {
        let of = |requests| Claim { others: Share { requests, limits: NOTHING }, ..Claim::default() };
        let both = share(&[of(CPU), of(MEMORY)], "app", Role::Main);
        assert_eq!(both, Share { requests: Which { cpu: true, memory: true }, limits: NOTHING });
        assert_eq!(share(&[], "app", Role::Main), Share::default());
    }
}
