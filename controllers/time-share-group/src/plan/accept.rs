//! Whether a group is served at all.

use crate::autoscalers::{AutoscalerVerdict, autoscalers};
use crate::message::{count, quoting};
use crate::observed::{Member, Observed};
use crate::profiles;
use crate::rollback;
use crate::sizes::Profile;
use crate::spec_rules::{self, InvalidSpec};
use crate::transition::Course;
use jiff::{SignedDuration, Timestamp};
use springtide_crds::time_share_group::{MAX_PODS, Member as MemberSpec, RefusalReason, StalledReason};
use springtide_plumbing::clock::after;
use springtide_plumbing::plan::Outcome;
use std::sync::Arc;

/// A workload that does not show up within this time counts as missing: who applies a manifest may apply all at once.
const MISSING_AFTER: SignedDuration = SignedDuration::from_secs(60);

/// Why a group is not served.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// It needs a person.
    For {
        /// The reason; never that of a schedule, with which whoever has the peak keeps it.
        reason: RefusalReason,
        /// For people.
        message: String,
    },
    /// The workload of a member may still show up.
    MemberAwaited {
        /// The member.
        member: Arc<str>,
        /// When its workload counts as missing.
        until: Timestamp,
    },
}

impl Refusal {
    fn new(reason: RefusalReason, message: impl Into<String>) -> Self {
        Self::For { reason, message: message.into() }
    }

    /// Where the group stands.
    pub fn outcome(&self) -> Outcome {
        match self {
            Self::For { .. } => Outcome::Blocked,
            Self::MemberAwaited { .. } => Outcome::Waiting,
        }
    }

    /// When to look again though nothing happens.
    pub fn wake(&self) -> Option<Timestamp> {
        match self {
            Self::For { .. } => None,
            Self::MemberAwaited { until, .. } => Some(*until),
        }
    }
}

/// What a group that is served is judged by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Accepted {
    /// Sizes by member.
    pub profiles: Vec<Profile>,
    /// Autoscalers that are lived with.
    pub autoscalers: AutoscalerVerdict,
    /// That a member's grant has gone while a transition is open: what is open is taken back for as far as that goes, and
    /// only then is the group refused.
    pub lost: Option<Refusal>,
}

/// Whether the group is served. Its schedule is no matter of this.
///
/// # Errors
/// Why it is not.
pub fn accept(observed: &Observed, course: &Course, now: Timestamp) -> Result<Accepted, Refusal> {
    let spec = &observed.group.spec;
    let invalid = |fault: InvalidSpec| {
        Refusal::new(RefusalReason::InvalidSpec, quoting(&format!("{}: ", fault.field), &fault.message, ""))
    };
    spec_rules::check(observed).map_err(invalid)?;
    if let Some(excess) = &observed.excess {
        let message = quoting("", excess, ": delete those that nobody needs, as the oldest are served first");
        return Err(Refusal::new(RefusalReason::LimitExceeded, message));
    }
    let pods: usize = observed.members.iter().map(|member| member.pods.len()).sum();
    let pods = u32::try_from(pods).unwrap_or(u32::MAX);
    if pods > MAX_PODS {
        let message = format!(
            "the members have {} together, of {MAX_PODS} at most: scale them down, or make two groups",
            count(pods, "pod")
        );
        return Err(Refusal::new(RefusalReason::LimitExceeded, message));
    }
    let members = || spec.members.iter().zip(&observed.members);
    if let Some(refusal) = members().find_map(|(spec, member)| taken(spec, member)) {
        return Err(refusal);
    }
    let lost = members().find_map(|(spec, member)| not_granted(spec, member));
    if let Some(refusal) = lost.clone().filter(|_| !course.is_open()) {
        return Err(refusal);
    }
    let there = members().filter(|(_, member)| member.is_granted);
    // Who has begun to lead does not wait once more for what is known to be missing.
    let is_told = rollback::stalled(observed) == Some(StalledReason::Refused(RefusalReason::MemberNotFound));
    if let Some(refusal) = missing(there, is_told, now) {
        return Err(refusal);
    }
    let autoscalers = autoscalers(observed);
    if let AutoscalerVerdict::Refuse(conflict) = &autoscalers {
        return Err(Refusal::new(RefusalReason::AutoscalerRefused, conflict.message.clone()));
    }
    let profiles = profiles::all(spec, &observed.members).map_err(|fault| invalid(fault.into()))?;
    Ok(Accepted { profiles, autoscalers, lost })
}

fn taken(spec: &MemberSpec, member: &Member) -> Option<Refusal> {
    let other = member.taken_by.as_ref()?;
    let who = format!("TimeShareGroup {other} is older and has the workload of member {}", spec.name);
    Some(Refusal::new(RefusalReason::MemberTaken, quoting("", &who, ": remove it from one of them")))
}

fn not_granted(spec: &MemberSpec, member: &Member) -> Option<Refusal> {
    if member.is_granted {
        return None;
    }
    let before = format!("no ReferenceGrant in namespace {} lets this group have ", member.namespace);
    Some(Refusal::new(RefusalReason::MemberNotGranted, quoting(&before, &workload(spec), "")))
}

/// The member whose workload is gone longest, if one's is; `is_told`: the status says of one that it is missing.
fn missing<'a>(
    members: impl Iterator<Item = (&'a MemberSpec, &'a Member)>,
    is_told: bool,
    now: Timestamp,
) -> Option<Refusal> {
    let gone = members.filter(|(_, member)| member.workload.is_none());
    let until = |member: &Member| after(member.missing_since.unwrap_or(now), MISSING_AFTER);
    let (spec, member) = gone.min_by_key(|(_, member)| until(member))?;
    let until = until(member);
    if now < until && !is_told {
        return Some(Refusal::MemberAwaited { member: Arc::clone(&member.name), until });
    }
    let before = format!("member {}: there is no ", spec.name);
    let after = format!(" in namespace {}", member.namespace);
    Some(Refusal::new(RefusalReason::MemberNotFound, quoting(&before, &workload(spec), &after)))
}

fn workload(spec: &MemberSpec) -> String {
    format!("{} {}", spec.target_ref.kind.as_str(), spec.target_ref.name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures::{at, group, observed, observed_of, pod, switching};
    use serde_json::json;
    use springtide_plumbing::key::ObjectKey;

    fn two() -> Observed {
        let pods =
            [("pay", vec![pod("pay-1", "n1", json!({}))]), ("promo", vec![pod("promo-1", "n1", json!({}))])];
        observed(json!({}), &pods)
    }

    fn refused(observed: &Observed, now: i64) -> (RefusalReason, String) {
        match accept(observed, &Course::Fresh, at(now)) {
            Err(Refusal::For { reason, message }) => (reason, message),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_group_whose_members_are_there_is_served() {
        let accepted = accept(&two(), &Course::Fresh, at(0)).unwrap();
        assert_eq!((accepted.profiles.len(), accepted.lost), (2, None));
        assert_eq!(accepted.autoscalers, AutoscalerVerdict::None);
    }

    #[test]
    fn a_workload_is_awaited_for_a_minute_and_missing_then() {
        let mut observed = two();
        observed.members[1].workload = None;
        observed.members[1].missing_since = Some(at(0));
        let awaited = Refusal::MemberAwaited { member: "promo".into(), until: at(60) };
        for now in [0, 59] {
            assert_eq!(accept(&observed, &Course::Fresh, at(now)), Err(awaited.clone()));
        }
        assert_eq!((awaited.outcome(), awaited.wake()), (Outcome::Waiting, Some(at(60))));
        let (reason, message) = refused(&observed, 60);
        assert_eq!(reason, RefusalReason::MemberNotFound);
        assert_eq!(message, "member promo: there is no Deployment promo in namespace shop");
        // Who waits longest is told of first.
        observed.members[0].workload = None;
        observed.members[0].missing_since = Some(at(50));
        assert_eq!(refused(&observed, 70).0, RefusalReason::MemberNotFound);
    }

    #[test]
    fn a_workload_that_is_known_to_be_missing_is_not_awaited_once_more_by_who_begins_to_lead() {
        let told = |generation: i64| {
            let stalled = json!({
                "type": "Stalled", "status": "True", "reason": "MemberNotFound", "message": "",
                "observedGeneration": 1, "lastTransitionTime": at(-60).to_string(),
            });
            let status = json!({"conditions": [stalled]});
            group(json!({"metadata": {"generation": generation}, "status": status}))
        };
        let mut observed = observed_of(told(1), &[]);
        observed.members[1].workload = None;
        observed.members[1].missing_since = Some(at(0));
        assert_eq!(refused(&observed, 0).0, RefusalReason::MemberNotFound);
        observed.group = told(2);
        let awaited = accept(&observed, &Course::Fresh, at(0));
        assert!(matches!(awaited, Err(Refusal::MemberAwaited { .. })), "of another spec: {awaited:?}");
    }

    #[test]
    fn an_older_group_keeps_the_workload() {
        let mut observed = two();
        observed.members[0].taken_by = Some(ObjectKey::new("shop", "older"));
        let (reason, message) = refused(&observed, 0);
        assert_eq!(reason, RefusalReason::MemberTaken);
        assert!(message.contains("shop/older") && message.contains("member pay"), "{message}");
    }

    #[test]
    fn a_grant_that_goes_refuses_the_group_but_while_it_switches_it_is_taken_back_first() {
        let lose = |mut observed: Observed| {
            observed.members[1].is_granted = false;
            observed.members[1].workload = None;
            observed.members[1].pods.clear();
            observed
        };
        let (reason, message) = refused(&lose(two()), 0);
        assert_eq!(reason, RefusalReason::MemberNotGranted);
        assert!(message.ends_with("Deployment promo"), "{message}");
        let open = lose(observed_of(group(json!({"status": switching(7, Some("pay"), Some("promo"))})), &[]));
        let course = crate::transition::course(&open);
        let accepted = accept(&open, &course, at(0)).unwrap();
        assert!(matches!(accepted.lost, Some(Refusal::For { reason: RefusalReason::MemberNotGranted, .. })));
    }

    #[test]
    fn limits_faults_and_autoscalers_refuse_a_group() {
        let mut many = two();
        many.excess = Some("there are 201 TimeShareGroups in the cluster, of 200 at most".to_owned());
        assert_eq!(refused(&many, 0).0, RefusalReason::LimitExceeded);
        let mut scaled = two();
        scaled.members[0].autoscalers.vertical = Some("sizer".into());
        assert_eq!(refused(&scaled, 0).0, RefusalReason::AutoscalerRefused);
        let unknown = observed(
            json!({"members": [{"name": "pay", "containers": [{"name": "gone",
            "peak": {"cpu": "4"}, "valley": {"cpu": "1"}}]}]}),
            &[("pay", vec![])],
        );
        let (reason, message) = refused(&unknown, 0);
        assert_eq!(reason, RefusalReason::InvalidSpec);
        assert!(message.contains("gone"), "{message}");
    }

    #[test]
    fn more_pods_than_a_group_may_have_are_refused() {
        let mut observed = two();
        let one = observed.members[0].pods[0].clone();
        observed.members[0].pods = vec![one; MAX_PODS as usize];
        let (reason, message) = refused(&observed, 0);
        assert_eq!(reason, RefusalReason::LimitExceeded);
        assert!(message.contains("20001"), "{message}");
    }
}
