//! The writes to one pod. Each is for one UID; a resize is for the version that was looked at too, so that what the
//! kubelet has said meanwhile is looked at first.

use super::stuck::Stuck;
use crate::names::{SKIPPED, TRANSITION};
use crate::sizes::Size;
use crate::traffic::turn_on;
use jiff::Timestamp;
use serde_json::json;
use springtide_crds::common::{bounded_text, whole_seconds};
use springtide_plumbing::key::{Resource, ResourceVersion};
use springtide_plumbing::plan::{Action, Fields, Part, Patch, Write, WriteClass};
use springtide_plumbing::projection::Projection;
use springtide_plumbing::traffic::Lever;
use springtide_plumbing::workloads::amounts::{Amounts, Pair};
use springtide_plumbing::workloads::names::TIME_SHARE_TRAFFIC;
use springtide_plumbing::workloads::pod::{ContainerView, PodView};
use springtide_plumbing::workloads::resize;
use std::sync::Arc;

/// Longest message of a mark, in bytes of its JSON form.
const MARK_MAX_BYTES: usize = 256;

/// Gives a pod a size, in the version that was looked at.
pub fn resize(pod: &PodView, size: &Size, class: WriteClass) -> Write {
    resized(pod, size, class, Some(pod.meta().resource_version))
}

/// Gives a pod a size, whatever its version: it follows another write to it.
pub fn resize_unpinned(pod: &PodView, size: &Size, class: WriteClass) -> Write {
    resized(pod, size, class, None)
}

fn resized(pod: &PodView, size: &Size, class: WriteClass, version: Option<ResourceVersion>) -> Write {
    write(pod, class, resize::patch(pod, size.containers(), version))
}

/// What a pod's node has admitted, of the containers and amounts that a size states: the resize to it withdraws the one
/// that waits. Containers of which the kubelet says nothing are left out.
pub fn allocated(pod: &PodView, size: &Size) -> Size {
    let of = |(name, wished): (&Arc<str>, &Amounts)| {
        let admitted = admitted(pod.container(name)?, wished)?;
        Some((Arc::clone(name), admitted))
    };
    Size::new(size.containers().filter_map(of))
}

/// Limits are reported as they are in force alone. One that is to be equal to its request is so here too, and none is less
/// than its request.
fn admitted(container: &ContainerView, wished: &Amounts) -> Option<Amounts> {
    let status = container.status.as_ref()?;
    let reported = status.amounts.unwrap_or_default();
    let requests = reported.requests.overlaid(status.allocated.unwrap_or_default());
    let limit = |of: fn(&Pair) -> Option<i64>| {
        let request = of(&requests);
        of(&wished.limits)?;
        if of(&wished.limits) == of(&wished.requests) {
            return request;
        }
        of(&reported.limits).max(request)
    };
    let only = |admitted: Pair, wished: Pair| Pair {
        cpu: admitted.cpu.filter(|_| wished.cpu.is_some()),
        memory: admitted.memory.filter(|_| wished.memory.is_some()),
    };
    let limits = Pair { cpu: limit(|pair| pair.cpu), memory: limit(|pair| pair.memory) };
    let amounts = Amounts { requests: only(requests, wished.requests), limits };
    (!amounts.is_empty()).then_some(amounts)
}

/// Turns traffic of a pod by a lever, for the switch of this number.
pub fn traffic(pod: &PodView, lever: Lever, is_on: bool, id: u32, now: Timestamp) -> Write {
    if is_on {
        return turn_on(pod, lever, now);
    }
    let uid = &pod.meta().uid;
    let action = TIME_SHARE_TRAFFIC.turn_off(lever, uid, &pod.time_share, &id.to_string(), now);
    write(pod, WriteClass::Spec, action)
}

/// Says on a pod that its unit is given up in the switch of this number.
pub fn mark_write(pod: &PodView, stuck: &Stuck, id: u32, now: Timestamp) -> Write {
    let message = bounded_text(&format!("{TRANSITION}{id}: {}", stuck.message), MARK_MAX_BYTES);
    let condition = json!({
        "type": SKIPPED,
        "status": "False",
        "reason": stuck.reason.as_str(),
        "message": message,
        "lastTransitionTime": whole_seconds(now).0.to_string(),
    });
    let fields = json!({"status": {"conditions": [condition]}});
    let patch = Patch::Strategic(Fields { uid: pod.meta().uid.clone(), resource_version: None, fields });
    write(pod, WriteClass::Protective, Action::Patch { part: Part::Status, patch })
}

fn write(pod: &PodView, class: WriteClass, action: Action) -> Write {
    Write { resource: Resource::POD, key: pod.meta().key.clone(), class, action }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures::{at, pod, profile, serving, sized};
    use crate::observed::{MemberIndex, PodIndex};
    use crate::sizes::{Demand, Level};
    use serde_json::Value;
    use springtide_crds::time_share_group::StuckReason;

    const GIB: i64 = 1 << 30;

    fn fields(write: &Write) -> (Part, Option<ResourceVersion>, &Value) {
        let Action::Patch { part, patch: Patch::Strategic(Fields { uid, resource_version, fields }) } =
            &write.action
        else {
            panic!("{write:?} is no strategic merge")
        };
        assert_eq!(&*uid.0, "pay-1");
        (*part, *resource_version, fields)
    }

    fn peak() -> Size {
        let gib = |cpu| Demand { cpu, memory: GIB };
        profile(gib(4000), gib(200)).size(Level::Peak).clone()
    }

    #[test]
    fn a_resize_is_for_the_version_that_was_looked_at_and_the_second_of_two_for_any() {
        let pod = pod("pay-1", "n1", serde_json::json!({}));
        let pinned = resize(&pod, &peak(), WriteClass::Spec);
        let (part, version, body) = fields(&pinned);
        let resources = serde_json::json!({"requests": {"cpu": "4", "memory": "1024Mi"}});
        let containers = serde_json::json!({"containers": [{"name": "app", "resources": resources}]});
        assert_eq!((part, version), (Part::Resize, Some(ResourceVersion(10))));
        assert_eq!(body, &serde_json::json!({"spec": containers}));
        let unpinned = resize_unpinned(&pod, &peak(), WriteClass::Spec);
        assert_eq!(fields(&unpinned), (Part::Resize, None, body));
    }

    #[test]
    fn what_was_admitted_is_what_the_size_states_of_it() {
        let waiting = pod("pay-1", "n1", sized("4", "200m"));
        let requests = Pair { cpu: Some(200), memory: Some(GIB) };
        let admitted = |limits: Pair| {
            let wished = Amounts { requests: Pair { cpu: Some(4000), memory: Some(GIB) }, limits };
            allocated(&waiting, &Size::new([("app".into(), wished), ("other".into(), wished)]))
        };
        let one = |limits| Size::new([("app".into(), Amounts { requests, limits })]);
        let cpu = |cpu| Pair { cpu: Some(cpu), memory: None };
        assert_eq!(admitted(Pair::default()), one(Pair::default()));
        assert_eq!(admitted(cpu(4000)), one(cpu(200)), "as the request");
        assert_eq!(
            admitted(cpu(8000)),
            one(cpu(200)),
            "none is in force, and less than the request is refused"
        );
        let cpu_alone = Amounts { requests: cpu(4000), ..Amounts::default() };
        let of_cpu = allocated(&waiting, &Size::new([("app".into(), cpu_alone)]));
        assert_eq!(of_cpu.of("app").requests, cpu(200), "memory stays what it is");
        let silent = pod("pay-1", "n1", serde_json::json!({"status": {"containerStatuses": []}}));
        assert_eq!(allocated(&silent, &peak()), Size::default());
    }

    #[test]
    fn traffic_off_names_the_switch_and_traffic_on_goes_first() {
        let pod = pod("pay-1", "n1", serving("true"));
        let off = traffic(&pod, Lever::ServiceLabel, false, 7, at(0));
        let (part, version, body) = fields(&off);
        assert_eq!((part, version, off.class), (Part::Main, None, WriteClass::Spec));
        assert_eq!(body["metadata"]["labels"][TIME_SHARE_TRAFFIC.label], "false");
        let note = body["metadata"]["annotations"][TIME_SHARE_TRAFFIC.annotation].as_str().unwrap();
        assert!(note.starts_with("run=7,since="), "{note}");
        let on = traffic(&pod, Lever::ServiceLabel, true, 7, at(0));
        assert_eq!(on.class, WriteClass::Protective);
        assert_eq!(fields(&on).2["metadata"]["labels"][TIME_SHARE_TRAFFIC.label], "true");
    }

    #[test]
    fn a_mark_is_one_condition_of_the_switch_and_short() {
        let pod = pod("pay-1", "n1", serde_json::json!({}));
        let index = PodIndex { member: MemberIndex(0), pod: 0 };
        let stuck = |message: &str| Stuck {
            reason: StuckReason::Infeasible,
            pod: index,
            since: at(0),
            message: message.into(),
        };
        let mark = mark_write(&pod, &stuck("no room"), 7, at(5));
        let (part, version, body) = fields(&mark);
        assert_eq!((part, version, mark.class), (Part::Status, None, WriteClass::Protective));
        let condition = serde_json::json!({
            "type": "springtide.dev/time-share", "status": "False", "reason": "Infeasible",
            "message": "transition=7: no room", "lastTransitionTime": at(5).to_string(),
        });
        assert_eq!(body["status"]["conditions"], serde_json::json!([condition]));
        let long = mark_write(&pod, &stuck(&"x".repeat(1000)), 7, at(5));
        let message = fields(&long).2["status"]["conditions"][0]["message"].as_str().unwrap().to_owned();
        assert!(message.len() <= MARK_MAX_BYTES && message.starts_with("transition=7: x"), "{message}");
    }
}
