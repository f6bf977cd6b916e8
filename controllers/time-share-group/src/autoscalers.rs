//! Autoscalers that are in a group's way.

use crate::observed::Observed;
use springtide_crds::common::bounded_text;
use springtide_crds::time_share_group::{AutoscalerConflictReason, Autoscalers as Policy};

/// Longest name of an autoscaler in a message; of a longer one the end is cut, so that the remedy is not.
const NAME_MAX_BYTES: usize = 22;

/// What autoscalers mean for a group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AutoscalerVerdict {
    /// None is in its way.
    None,
    /// It is said that one is.
    Report(Conflict),
    /// With this one the group is not served.
    Refuse(Conflict),
}

/// An autoscaler and a group that are in each other's way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Conflict {
    /// Reason of condition AutoscalerConflict.
    pub reason: AutoscalerConflictReason,
    /// Which autoscaler, of which member, and what helps.
    pub message: String,
}

impl AutoscalerVerdict {
    /// Reason of condition AutoscalerConflict.
    pub fn reason(&self) -> AutoscalerConflictReason {
        match self {
            Self::None => AutoscalerConflictReason::None,
            Self::Report(conflict) | Self::Refuse(conflict) => conflict.reason,
        }
    }
}

/// What the autoscalers of members mean for the group. Who else resizes live pods always keeps it from being served: the two
/// would undo each other's sizes for ever. Who scales by the utilization of a request sees each switch as a change of load
/// (kubernetes#142155), which a group can live with if it says so.
pub fn autoscalers(observed: &Observed) -> AutoscalerVerdict {
    let mut vertical =
        observed.members.iter().filter_map(|member| Some((member, member.autoscalers.vertical.as_ref()?)));
    if let Some((member, name)) = vertical.next() {
        let name = bounded_text(name, NAME_MAX_BYTES);
        return AutoscalerVerdict::Refuse(Conflict {
            reason: AutoscalerConflictReason::VerticalPodAutoscaler,
            message: format!(
                "VerticalPodAutoscaler {name} resizes pods of {} too: set its updateMode to Off",
                member.name
            ),
        });
    }
    let mut horizontal = observed
        .members
        .iter()
        .flat_map(|member| member.autoscalers.by_utilization.iter().map(move |name| (member, name)));
    let Some((member, name)) = horizontal.next() else { return AutoscalerVerdict::None };
    let name = bounded_text(name, NAME_MAX_BYTES);
    let conflict = Conflict {
        reason: AutoscalerConflictReason::HorizontalPodAutoscalerUtilization,
        message: format!(
            "HorizontalPodAutoscaler {name} scales {} by utilization, which switches move: use AverageValue",
            member.name
        ),
    };
    match observed.group.spec.autoscalers {
        Policy::Report => AutoscalerVerdict::Report(conflict),
        Policy::Refuse => AutoscalerVerdict::Refuse(conflict),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures::observed;
    use serde_json::json;
    use springtide_crds::time_share_group::{MEMBER_NAME_MAX_LENGTH, MESSAGE_MAX_BYTES};

    fn by_utilization(policy: &str, name: &str) -> Observed {
        let mut observed = observed(json!({"autoscalers": policy}), &[]);
        observed.members[1].autoscalers.by_utilization = vec![name.into(), "later".into()];
        observed
    }

    #[test]
    fn a_group_without_autoscalers_has_no_conflict() {
        let verdict = autoscalers(&observed(json!({"autoscalers": "Refuse"}), &[]));
        assert_eq!((verdict.reason(), verdict), (AutoscalerConflictReason::None, AutoscalerVerdict::None));
    }

    #[test]
    fn one_that_scales_by_utilization_is_reported_or_refused_as_the_spec_says() {
        let reason = AutoscalerConflictReason::HorizontalPodAutoscalerUtilization;
        let reported = autoscalers(&by_utilization("Report", "web"));
        assert_eq!(reported.reason(), reason);
        let AutoscalerVerdict::Report(conflict) = reported else { panic!() };
        assert!(conflict.message.contains(" web scales promo "), "{}", conflict.message);
        let refused = autoscalers(&by_utilization("Refuse", "web"));
        assert_eq!(refused, AutoscalerVerdict::Refuse(conflict));
    }

    #[test]
    fn one_that_resizes_live_pods_is_refused_whatever_the_spec_says() {
        let mut observed = by_utilization("Report", "web");
        observed.members[0].autoscalers.vertical = Some("sizer".into());
        let AutoscalerVerdict::Refuse(conflict) = autoscalers(&observed) else { panic!() };
        assert_eq!(conflict.reason, AutoscalerConflictReason::VerticalPodAutoscaler);
        assert!(
            conflict.message.contains("sizer") && conflict.message.contains(" pay "),
            "{}",
            conflict.message
        );
    }

    #[test]
    fn the_remedy_is_told_however_long_names_are() {
        let mut observed = by_utilization("Report", &"x".repeat(253));
        observed.members[1].name = "m".repeat(MEMBER_NAME_MAX_LENGTH).into();
        let AutoscalerVerdict::Report(conflict) = autoscalers(&observed) else { panic!() };
        assert!(conflict.message.len() <= MESSAGE_MAX_BYTES, "{}", conflict.message.len());
        observed.members[1].autoscalers.vertical = Some("x".repeat(253).into());
        let AutoscalerVerdict::Refuse(conflict) = autoscalers(&observed) else { panic!() };
        assert!(conflict.message.len() <= MESSAGE_MAX_BYTES, "{}", conflict.message.len());
    }
}
