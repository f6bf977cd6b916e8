//! Requests and limits of cpu and memory: the amounts that a live container can be given otherwise.

use serde_json::{Map, Value, json};
use crate::quantity::{parse_amount, quantity_text};

/// Cpu and memory, each where it is stated.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Pair {
    /// Thousandths of a core.
    pub cpu: Option<i64>,
    /// Bytes.
    pub memory: Option<i64>,
}

/// Requests and limits of one container.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Amounts {
    /// What it is guaranteed.
    pub requests: Pair,
    /// What it may use at most.
    pub limits: Pair,
}

impl Pair {
    /// Reads `cpu` and `memory` of a resource list. What is no quantity counts as not stated: the API server lets
    /// none be stored.
    pub fn read(list: &Value) -> Self {
        let text = |name: &str| match &list[name] {
            Value::String(text) => Some(text.clone()),
            Value::Number(number) => Some(number.to_string()),
            Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_) => None,
        };
        let amount = |name| parse_amount(name, &text(name)?);
        Self { cpu: amount("cpu"), memory: amount("memory") }
    }

    /// What is stated in `over`, else what is stated here.
    #[must_use]
    pub fn overlaid(self, over: Self) -> Self {
        Self { cpu: over.cpu.or(self.cpu), memory: over.memory.or(self.memory) }
    }

    /// Whether all that `wished` states is so here.
    pub fn has(&self, wished: &Self) -> bool {
        let has = |own: Option<i64>, wished: Option<i64>| wished.is_none() || own == wished;
        has(self.cpu, wished.cpu) && has(self.memory, wished.memory)
    }

    /// Whether something is stated here that `other` does not state.
    pub fn states_more_than(&self, other: &Self) -> bool {
        (self.cpu.is_some() && other.cpu.is_none()) || (self.memory.is_some() && other.memory.is_none())
    }

    /// Whether nothing is stated.
    pub fn is_empty(&self) -> bool {
        self.cpu.is_none() && self.memory.is_none()
    }

    /// As a resource list.
    pub fn to_json(self) -> Value {
        let mut list = Map::new();
        for (name, amount) in [("cpu", self.cpu), ("memory", self.memory)] {
            if let Some(amount) = amount {
                list.insert(name.to_owned(), json!(quantity_text(name, amount)));
            }
        }
        Value::Object(list)
    }
}

impl Amounts {
    /// Reads `resources` of a container, or of its status.
    pub fn read(resources: &Value) -> Self {
        Self { requests: Pair::read(&resources["requests"]), limits: Pair::read(&resources["limits"]) }
    }

    /// What is stated in `over`, else what is stated here.
    #[must_use]
    pub fn overlaid(self, over: Self) -> Self {
        Self { requests: self.requests.overlaid(over.requests), limits: self.limits.overlaid(over.limits) }
    }

    /// Whether all that `wished` states is so here.
    pub fn has(&self, wished: &Self) -> bool {
        self.requests.has(&wished.requests) && self.limits.has(&wished.limits)
    }

    /// Whether something is stated here that `other` does not state: a live container keeps it.
    pub fn states_more_than(&self, other: &Self) -> bool {
        self.requests.states_more_than(&other.requests) || self.limits.states_more_than(&other.limits)
    }

    /// Whether nothing is stated.
    pub fn is_empty(&self) -> bool {
        self.requests.is_empty() && self.limits.is_empty()
    }

    /// Whether cpu, and whether memory, is other than in `other` where that states it.
    pub fn changes_to(&self, other: &Self) -> (bool, bool) {
        let of = |of: fn(&Pair) -> Option<i64>| {
            let changes = |from: &Pair, to: &Pair| of(to).is_some() && of(to) != of(from);
            changes(&self.requests, &other.requests) || changes(&self.limits, &other.limits)
        };
        (of(|pair| pair.cpu), of(|pair| pair.memory))
    }

    /// As `resources` of a container, without empty lists.
    pub fn to_json(self) -> Value {
        let mut resources = Map::new();
        for (name, pair) in [("requests", self.requests), ("limits", self.limits)] {
            if !pair.is_empty() {
                resources.insert(name.to_owned(), pair.to_json());
            }
        }
        Value::Object(resources)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn amounts(text: &str) -> Amounts {
        Amounts::read(&serde_yaml::from_str(text).unwrap())
    }

    #[test]
    fn amounts_compare_by_value_and_not_by_spelling() {
        let one = amounts("{requests: {cpu: '1', memory: 1Gi}, limits: {memory: 2Gi}}");
        assert_eq!(one, amounts("{requests: {cpu: 1000m, memory: 1024Mi}, limits: {memory: 2147483648}}"));
        assert_ne!(one, amounts("{requests: {cpu: '1', memory: 1G}, limits: {memory: 2Gi}}"));
        let no_list = amounts("{requests: {cpu: [1], nvidia.com/gpu: 1}}");
        assert!(no_list.is_empty(), "other resources cannot be changed in place");
    }

    #[test]
    fn only_what_the_wish_states_is_asked_of_a_container() {
        let pod = amounts("{requests: {cpu: 500m, memory: 1Gi}, limits: {cpu: '1', memory: 1Gi}}");
        assert!(pod.has(&amounts("{requests: {cpu: 500m}}")), "the limits may be those of a LimitRange");
        assert!(!pod.has(&amounts("{requests: {cpu: 600m}}")));
        assert_eq!(pod.changes_to(&amounts("{requests: {cpu: 600m, memory: 1Gi}}")), (true, false));
        assert_eq!(pod.changes_to(&amounts("{limits: {memory: 2Gi}}")), (false, true));
        assert!(pod.states_more_than(&amounts("{requests: {cpu: 500m, memory: 1Gi}, limits: {cpu: '1'}}")));
    }

    proptest! {
        #[test]
        fn what_is_written_reads_back(cpu in proptest::option::of(0..1_000_000_i64), memory in 0..(1_i64 << 50)) {
            let pair = Pair { cpu, memory: Some(memory) };
            prop_assert_eq!(Pair::read(&pair.to_json()), pair);
        }

        #[test]
        fn what_is_laid_over_is_had(own in 0..9_i64, over in proptest::option::of(0..9_i64)) {
            let over = Amounts { requests: Pair { cpu: over, memory: None }, ..Amounts::default() };
            let own = Amounts { requests: Pair { cpu: Some(own), memory: Some(own) }, ..Amounts::default() };
            prop_assert!(own.overlaid(over).has(&over));
        }
    }
}
