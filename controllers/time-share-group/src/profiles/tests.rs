use super::*;
use crate::fixtures::{observed, on_stage, overlay, pod};
use crate::observed::Observed;
use proptest::prelude::*;
use serde_json::{Value, json};

/// The group whose member `pay` has its container `app` stated otherwise, and from a template with these resources.
fn group(container: Value, resources: Value) -> Observed {
    let mut app = json!({"name": "app"});
    overlay(&mut app, container);
    let mut observed =
        observed(json!({"members": [{"name": "pay", "memory": "Move", "containers": [app]}]}), &[]);
    let template =
        json!({"spec": {"containers": [{"name": "app", "image": "app:1", "resources": resources}]}});
    observed.members[0].workload.as_mut().unwrap().template = Template::shared(&template);
    observed
}

fn of(observed: &Observed) -> Result<Profile, ProfileFault> {
    all(&observed.group.spec, &observed.members).map(|profiles| profiles[0].clone())
}

fn read(resources: Value) -> Amounts {
    Amounts::read(&resources)
}

#[test]
fn limits_are_made_of_those_of_the_template_by_the_policy() {
    let resources = json!({"requests": {"cpu": "200m", "memory": "1Gi"}, "limits": {"cpu": "300m"}});
    for (policy, at_peak, at_valley) in [
        ("EqualRequests", json!({"cpu": "4"}), json!({"cpu": "200m"})),
        ("KeepRatio", json!({"cpu": "6"}), json!({"cpu": "300m"})),
        ("Keep", json!({}), json!({})),
    ] {
        let profile = of(&group(json!({"limits": policy}), resources.clone())).unwrap();
        let peak = json!({"requests": {"cpu": "4", "memory": "1Gi"}, "limits": at_peak});
        let valley = json!({"requests": {"cpu": "200m", "memory": "1Gi"}, "limits": at_valley});
        assert_eq!(profile.peak.of("app"), read(peak), "{policy}: no limit is invented");
        assert_eq!(profile.valley.of("app"), read(valley), "{policy}");
    }
}

#[test]
fn a_ratio_is_rounded_up_and_one_where_only_the_limit_is_stated() {
    let ratio = json!({"limits": "KeepRatio"});
    let thirds = json!({"requests": {"cpu": "300m"}, "limits": {"cpu": "400m"}});
    let profile = of(&group(ratio.clone(), thirds)).unwrap();
    assert_eq!(profile.valley.of("app").limits.cpu, Some(267));
    let profile = of(&group(ratio.clone(), json!({"limits": {"cpu": "200m"}}))).unwrap();
    assert_eq!(profile.peak.of("app").limits.cpu, Some(4000));
    let huge = json!({"requests": {"cpu": "1m"}, "limits": {"cpu": "999999999999"}});
    assert_eq!(of(&group(ratio, huge)).unwrap().peak.of("app").limits.cpu, Some(MAX_AMOUNT));
}

#[test]
fn what_is_no_amount_or_has_no_ratio_is_named_by_its_field() {
    let field = |container: Value, resources: Value| of(&group(container, resources)).unwrap_err().field;
    let no_amount = field(json!({"peak": {"cpu": "many"}}), json!({}));
    assert_eq!(no_amount, "members[pay].containers[app].peak.cpu");
    let negative = field(json!({"valley": {"memory": "-1"}}), json!({}));
    assert_eq!(negative, "members[pay].containers[app].valley.memory");
    let nothing = json!({"requests": {"cpu": "0"}, "limits": {"cpu": "1"}});
    assert_eq!(field(json!({"limits": "KeepRatio"}), nothing), "members[pay].containers[app].limits");
}

#[test]
fn a_member_without_a_workload_has_sizes_too() {
    let mut observed = group(json!({}), json!({"limits": {"cpu": "1"}}));
    observed.members[0].workload = None;
    let profile = of(&observed).unwrap();
    assert_eq!(profile.peak.of("app"), read(json!({"requests": {"cpu": "4", "memory": "1Gi"}})));
    assert!(template_at_valley(&observed.members[0], &profile));
}

#[test]
fn a_template_is_at_valley_when_its_requests_are() {
    let container_off = |resources: Value| {
        let observed = group(json!({}), resources);
        let profile = of(&observed).unwrap();
        let off = off_valley(&observed.members[0], &profile).map(ToString::to_string);
        assert_eq!(template_at_valley(&observed.members[0], &profile), off.is_none());
        off
    };
    let app = Some("app".to_owned());
    assert_eq!(container_off(json!({"requests": {"cpu": "0.2", "memory": "1024Mi"}})), None);
    assert_eq!(container_off(json!({"limits": {"cpu": "200m", "memory": "1Gi"}})), None, "requests follow");
    assert_eq!(container_off(json!({"requests": {"cpu": "4", "memory": "1Gi"}})), app);
    assert_eq!(container_off(json!({"requests": {"cpu": "200m"}})), app);
    assert_eq!(container_off(json!({})), app);
}

#[test]
fn a_pod_changes_by_what_its_spec_asks_for_now() {
    let profile = crate::fixtures::profile(crate::fixtures::PEAK, crate::fixtures::VALLEY);
    let more = Demand { cpu: 3800, memory: 0 };
    let (small, large) = (pod("pay-1", "n1", json!({})), pod("pay-1", "n1", on_stage()));
    assert_eq!((change(&small, &profile.peak), change(&small, &profile.valley)), (more, Demand::ZERO));
    assert_eq!(change(&large, &profile.valley), Demand::ZERO - more);
    let limits = Size::new([("app".into(), read(json!({"limits": {"cpu": "2"}})))]);
    assert_eq!(limits_change(&small, &limits), Demand { cpu: 2000, memory: 0 });
    assert_eq!(limits_change(&small, &profile.peak), Demand::ZERO);
    let other =
        Size::new([("proxy".into(), read(json!({"requests": {"cpu": "2"}, "limits": {"cpu": "2"}})))]);
    assert_eq!((change(&small, &other), limits_change(&small, &other)), (Demand::ZERO, Demand::ZERO));
}

#[test]
fn amounts_of_a_pod_as_a_whole_decide_its_class() {
    let profile = crate::fixtures::profile(crate::fixtures::PEAK, crate::fixtures::VALLEY);
    let whole = json!({"spec": {"resources": {"limits": {"cpu": "8", "memory": "8Gi"}}}, "status": {"qosClass": "Guaranteed"}});
    assert_eq!(qos_of(&pod("pay-1", "n1", whole), &profile.peak), QosClass::Guaranteed);
    assert_eq!(qos_of(&pod("pay-1", "n1", json!({})), &profile.peak), QosClass::Burstable);
}

/// A pod of `pay` as it is born from its template: what has a limit and no request gets that.
fn born(observed: &Observed) -> Arc<PodView> {
    let own = stated(&observed.members[0].workload.as_ref().unwrap().template, "app");
    let requests = own.limits.overlaid(own.requests);
    let resources = Amounts { requests, limits: own.limits }.to_json();
    let class = match qos_class([&own]) {
        QosClass::Guaranteed => "Guaranteed",
        QosClass::Burstable => "Burstable",
        QosClass::BestEffort => "BestEffort",
    };
    let mut json = json!({
        "metadata": {"name": "pay-1", "namespace": "shop", "uid": "pay-1",
            "ownerReferences": [{"kind": "ReplicaSet", "name": "pay-1", "uid": "pay-1", "controller": true}]},
        "spec": {"nodeName": "n1", "containers": [{"name": "app", "image": "app:1"}]},
        "status": {"qosClass": class},
    });
    json["spec"]["containers"][0]["resources"] = resources;
    Arc::new(serde_json::from_value(json).unwrap())
}

proptest! {
    #[test]
    fn limits_that_follow_requests_leave_a_pod_its_class(
        valley in (1..2000_i64, 1..2000_i64),
        more in (0..2000_i64, 0..2000_i64),
        above in (proptest::option::of(0..500_i64), proptest::option::of(0..500_i64)),
    ) {
        let list = |cpu: Option<i64>, memory: Option<i64>| Pair { cpu, memory: memory.map(|mebi| mebi << 20) };
        let requests = list(Some(valley.0), Some(valley.1));
        let container = |policy: &str| json!({
            "limits": policy,
            "peak": list(Some(valley.0 + more.0), Some(valley.1 + more.1)).to_json(),
            "valley": requests.to_json(),
        });
        for policy in ["EqualRequests", "KeepRatio", "Keep"] {
            // With equal requests nothing may be above them, and what is kept must be above the peak.
            let over = |above: Option<i64>, valley: i64, more: i64| above.map(|above| match policy {
                "EqualRequests" => valley,
                "KeepRatio" => valley + above,
                _ => valley + more + above + 1,
            });
            let limits = list(over(above.0, valley.0, more.0), over(above.1, valley.1, more.1));
            let observed = group(container(policy), Amounts { requests, limits }.to_json());
            let (profile, pod) = (of(&observed).unwrap(), born(&observed));
            for level in [Level::Peak, Level::Valley] {
                prop_assert_eq!(Some(qos_of(&pod, profile.size(level))), pod.qos, "{} {:?}", policy, level);
            }
            prop_assert!(profile.valley.is_asked_by(&pod), "a pod that is born at valley is not resized");
            prop_assert!(template_at_valley(&observed.members[0], &profile));
        }
    }

    #[test]
    fn a_kept_ratio_is_never_less_than_the_one_of_the_template(
        request in 0..MAX_AMOUNT, own in 1..1_000_000_i64, above in 0..1_000_000_i64,
    ) {
        let limit = scaled(request, own + above, own).unwrap();
        prop_assert!(limit >= request || limit == MAX_AMOUNT);
        prop_assert!(limit == MAX_AMOUNT || i128::from(limit) * i128::from(own) >= i128::from(request) * i128::from(own + above));
        prop_assert_eq!(scaled(request, own + above, 0), None);
    }
}
