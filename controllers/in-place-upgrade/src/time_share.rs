//! What a TimeShareGroup says of a workload that is a member of it.
//!
//! This plain data is all of a group that this controller knows, and whatever follows from it is decided where it belongs:
//! a switch and a peak hold ([`holds`](crate::holds)); the sizes of a member are the group's ([`claims`](springtide_plumbing::workloads::claims)),
//! so that a wish of others is refused, and a pod at its peak size is no drift; a pod without the group's traffic is
//! available all the same ([`machine`](crate::machine)).
//!
//! That kind does not exist yet, so nobody is a member: [`Observed::time_share`](crate::observed::Observed) is empty. Its
//! store belongs beside that of VerticalPodAutoscalers ([`Stores`](crate::Stores)), with an index by the workloads of
//! its members; `observe` reads it, and its changes wake the objects of these workloads.

use springtide_plumbing::workloads::amounts::Amounts;
use springtide_plumbing::workloads::claims::{Claim, Share, Which};
use jiff::Timestamp;
use std::collections::BTreeMap;
use std::sync::Arc;

/// What a TimeShareGroup says of one member.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TimeShare {
    /// The group's name.
    pub group: String,
    /// The member's name in the group.
    pub member: String,
    /// Whether the group is switching, whoever from and to.
    pub is_switching: bool,
    /// Until when a window or an override makes it the member's time; its time as default member is none.
    pub peak_until: Option<Timestamp>,
    /// Requests and limits at peak size of the containers that the group resizes. What is stated here the group decides,
    /// at whatever size a pod is; limits are stated unless the group leaves them alone.
    pub peak: BTreeMap<Arc<str>, Amounts>,
}

impl TimeShare {
    /// The peak that holds at `now` by `policy.timeShare`'s default: until when.
    pub fn peak(&self, now: Timestamp) -> Option<Timestamp> {
        self.peak_until.filter(|until| *until > now)
    }

    /// The amounts that the group decides.
    pub fn claim(&self) -> Claim {
        let share = |amounts: &Amounts| Share {
            requests: Which::stated(amounts.requests),
            limits: Which::stated(amounts.limits),
        };
        let named = self.peak.iter().map(|(container, amounts)| (Arc::clone(container), share(amounts)));
        Claim { named: named.collect(), others: Share::default() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use springtide_plumbing::workloads::content::Role;
    use crate::fixtures::at;
    use serde_json::json;

    #[test]
    fn a_peak_ends_at_its_time_whether_or_not_the_group_has_been_looked_at_since() {
        let share = TimeShare { peak_until: Some(at(60)), ..TimeShare::default() };
        assert_eq!((share.peak(at(59)), share.peak(at(60))), (Some(at(60)), None));
        assert_eq!(TimeShare::default().peak(at(0)), None);
    }

    #[test]
    fn a_group_claims_what_its_peak_states_of_the_containers_that_it_names() {
        let peak = Amounts::read(&json!({"requests": {"cpu": "4", "memory": "8Gi"}, "limits": {"cpu": "4"}}));
        let share = TimeShare { peak: [("app".into(), peak)].into(), ..TimeShare::default() };
        let both = Which { cpu: true, memory: true };
        let cpu = Which { cpu: true, memory: false };
        assert_eq!(share.claim().of("app", Role::Main), Share { requests: both, limits: cpu });
        assert_eq!(share.claim().of("proxy", Role::Main), Share::default());
        assert_eq!(TimeShare::default().claim(), Claim::default());
    }
}
