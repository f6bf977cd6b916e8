//! What a TimeShareGroup says of a workload that is a member of it.
//!
//! This plain data is all of a group that this controller knows, and whatever follows from it is decided where it belongs:
//! a switch and a peak hold ([`holds`](crate::holds)); the sizes of a member are the group's ([`claims`](springtide_plumbing::workloads::claims)),
//! so that a wish of others is refused, and a pod at its peak size is no drift; a pod without the group's traffic is
//! available all the same ([`machine`](crate::machine)).

use jiff::Timestamp;
use springtide_crds::time_share_group::Mode;
use springtide_plumbing::projection::Projection;
use springtide_plumbing::time_share::{MemberView, TimeShareGroupView};
use springtide_plumbing::workloads::claims::Claim;

/// What a TimeShareGroup says of one member. One that only observes says nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TimeShare {
    /// The group's name, with its namespace where that is another one.
    pub group: String,
    /// The member's name in the group.
    pub member: String,
    /// Whether the group is switching, whoever from and to.
    pub is_switching: bool,
    /// Until when a window or an override makes it the member's time; its time as default member is none.
    pub peak_until: Option<Timestamp>,
    /// When that begins or ends by time alone: the earliest time at which it says something else.
    pub turns_at: Option<Timestamp>,
    /// Requests and limits of the containers that the group resizes: these it decides, at whatever size a pod is.
    pub claim: Claim,
}

impl TimeShare {
    /// What a group says of this member. Of one that is being deleted only the sizes count: it switches nothing any more.
    pub fn of(group: &TimeShareGroupView, member: &MemberView, now: Timestamp) -> Option<Self> {
        match group.mode {
            Mode::Observe => return None,
            Mode::Active | Mode::Paused => {}
        }
        let key = &group.meta().key;
        let is_there = !group.meta().is_deleting();
        let desired = group.desired(now).filter(|_| is_there);
        Some(Self {
            group: if key.namespace == member.workload.namespace {
                key.name.to_string()
            } else {
                key.to_string()
            },
            member: member.name.to_string(),
            is_switching: is_there && group.is_switching,
            peak_until: desired.as_ref().and_then(|desired| desired.gives_until(&member.name)),
            turns_at: desired.and_then(|desired| desired.until),
            claim: member.claim.clone(),
        })
    }

    /// The peak that holds at `now` by `policy.timeShare`'s default: until when.
    pub fn peak(&self, now: Timestamp) -> Option<Timestamp> {
        self.peak_until.filter(|until| *until > now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures::at;
    use serde_json::{Value, json};
    use springtide_crds::in_place_upgrade::TargetKind;
    use springtide_plumbing::key::ObjectKey;

    #[test]
    fn a_peak_ends_at_its_time_whether_or_not_the_group_has_been_looked_at_since() {
        let share = TimeShare { peak_until: Some(at(60)), ..TimeShare::default() };
        assert_eq!((share.peak(at(59)), share.peak(at(60))), (Some(at(60)), None));
        assert_eq!(TimeShare::default().peak(at(0)), None);
    }

    /// The group has two members; `web` has noon, the other one the rest.
    fn said(over: impl Fn(&mut Value), now: &str) -> Option<TimeShare> {
        let size = || json!({"cpu": "1"});
        let member = |name: &str| {
            json!({
                "name": name, "targetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": name},
                "containers": [{"name": "app", "peak": size(), "valley": size()}],
            })
        };
        let window = json!({"start": "12:00", "end": "14:00", "timeZone": "UTC"});
        let mut group = json!({
            "metadata": {"namespace": "ns", "name": "day-night", "uid": "g", "resourceVersion": "1", "generation": 1},
            "spec": {
                "members": [member("web"), member("batch")],
                "schedule": {"defaultMember": "batch", "windows": [{"name": "noon", "member": "web", "window": window}]},
            },
            "status": {"transition": {"id": 1, "cause": "Window", "startTime": "2026-05-04T11:50:00Z", "step": 1}},
        });
        over(&mut group);
        let group: TimeShareGroupView = serde_json::from_value(group).unwrap();
        let web = ObjectKey::new("ns", "web");
        TimeShare::of(&group, group.member_of(TargetKind::Deployment, &web).unwrap(), now.parse().unwrap())
    }

    fn time(text: &str) -> Option<Timestamp> {
        Some(text.parse().unwrap())
    }

    #[test]
    fn a_group_tells_of_its_switch_and_of_the_peak_from_the_lead_to_the_end_of_the_window() {
        let before = said(|_| (), "2026-05-04T11:00:00Z").unwrap();
        assert_eq!((before.peak_until, before.turns_at), (None, time("2026-05-04T11:50:00Z")));
        let noon = said(|_| (), "2026-05-04T11:50:00Z").unwrap();
        assert_eq!(
            (noon.peak_until, noon.turns_at),
            (time("2026-05-04T14:00:00Z"), time("2026-05-04T14:00:00Z"))
        );
        assert_eq!(
            (noon.group.as_str(), noon.member.as_str(), noon.is_switching),
            ("day-night", "web", true)
        );
        let over = json!({"member": "batch", "untilTime": "2026-05-04T13:00:00Z", "reason": "INC-1"});
        let forced = said(|group| group["spec"]["override"] = over.clone(), "2026-05-04T12:00:00Z").unwrap();
        assert_eq!((forced.peak_until, forced.turns_at), (None, time("2026-05-04T13:00:00Z")));
    }

    #[test]
    fn a_group_that_only_observes_says_nothing_and_one_that_goes_claims_sizes_alone() {
        let now = "2026-05-04T12:00:00Z";
        assert_eq!(said(|group| group["spec"]["mode"] = json!("Observe"), now), None);
        let paused = said(|group| group["spec"]["mode"] = json!("Paused"), now).unwrap();
        assert!(paused.is_switching && paused.peak_until.is_some(), "pods may be anywhere between");
        let goes = |group: &mut Value| group["metadata"]["deletionTimestamp"] = json!("2026-05-04T12:00:00Z");
        let gone = said(goes, now).unwrap();
        assert_eq!((gone.is_switching, gone.peak_until, gone.turns_at), (false, None, None));
        assert_eq!(gone.claim, paused.claim);
        assert_ne!(gone.claim, Claim::default());
    }

    #[test]
    fn a_schedule_that_cannot_be_read_holds_no_peak() {
        let broken = |group: &mut Value| {
            group["spec"]["schedule"]["windows"][0]["window"]["timeZone"] = json!("No/Where");
        };
        let said = said(broken, "2026-05-04T12:00:00Z").unwrap();
        assert_eq!((said.peak_until, said.turns_at, said.is_switching), (None, None, true));
    }
}
