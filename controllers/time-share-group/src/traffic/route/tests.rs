//! Routes as a gateway's users have them, and what becomes of their weights.

use super::*;
use crate::fixtures::{NAMESPACE, at, observed};
use proptest::prelude::*;
use springtide_plumbing::key::{ObjectKey, ResourceVersion, Uid};
use springtide_plumbing::plan::Patch;
use std::collections::BTreeMap;

const PROMO_TO_PAY: Heading =
    Heading { id: 7, from: Some(MemberIndex(1)), to: Some(MemberIndex(0)), is_return: false };
const BACK: Heading =
    Heading { id: 8, from: Some(MemberIndex(0)), to: Some(MemberIndex(1)), is_return: true };

/// HTTPRoutes by name, as stored.
type Routes = BTreeMap<String, Value>;

/// A route with a rule of this backend and another one, and a rule of another one alone.
fn route(name: &str, backend: &str, weight: Value) -> Value {
    let mut own = json!({"name": backend, "port": 80});
    if !weight.is_null() {
        own["weight"] = weight;
    }
    json!({
        "metadata": {"name": name, "namespace": NAMESPACE, "uid": name, "resourceVersion": "5"},
        "spec": {"rules": [
            {"backendRefs": [{"name": "static", "weight": 1}]},
            {"backendRefs": [{"name": "elsewhere", "weight": 10}, own]},
        ]},
    })
}

/// A route as the projection has it, of this backend.
fn view(route: &Value, backend: &str, steady_since: Option<Timestamp>) -> Route {
    let mut backends = Vec::new();
    for (rule, found) in route["spec"]["rules"].as_array().unwrap().iter().enumerate() {
        for (number, found) in found["backendRefs"].as_array().unwrap().iter().enumerate() {
            if found["name"] == backend {
                backends.push(Backend {
                    rule,
                    backend: number,
                    name: backend.into(),
                    weight: found["weight"].as_u64().map_or(1, |weight| u32::try_from(weight).unwrap()),
                    is_stated: found["weight"].is_number(),
                });
            }
        }
    }
    let metadata = &route["metadata"];
    Route {
        key: ObjectKey::new(NAMESPACE, metadata["name"].as_str().unwrap()),
        uid: Uid(metadata["uid"].as_str().unwrap().into()),
        resource_version: ResourceVersion::parse(metadata["resourceVersion"].as_str().unwrap()).unwrap(),
        backends,
        steady_since,
    }
}

/// Members `pay` and `promo` by routes of their names, from 5 at valley to 100 at peak; their weights have been so for
/// an hour.
fn seen(routes: &Routes) -> Observed {
    let member = |name: &str, route: &str| {
        let http_route = json!({"name": route, "backend": name, "peakWeight": 100, "valleyWeight": 5});
        let traffic = json!({"mode": "HTTPRoute", "httpRoute": http_route, "drain": {"minSeconds": 20}});
        json!({"name": name, "traffic": traffic})
    };
    let route_of = |name: &str| if routes.contains_key(name) { name.to_owned() } else { "both".to_owned() };
    let members: Vec<_> = ["pay", "promo"].iter().map(|name| member(name, &route_of(name))).collect();
    let mut observed = observed(json!({"members": members}), &[]);
    for member in &mut observed.members {
        let stored = routes.get(&route_of(&member.name));
        member.route = stored.map(|route| view(route, &member.name, Some(at(-3600))));
    }
    observed
}

fn own(pay: u32, promo: u32) -> Routes {
    let of = |name: &str, weight: u32| (name.to_owned(), route(name, name, json!(weight)));
    Routes::from([of("pay", pay), of("promo", promo)])
}

fn weights(routes: &Routes) -> Vec<u32> {
    let observed = seen(routes);
    let backends = observed.members.iter().flat_map(|member| member.route.iter());
    backends.flat_map(|route| &route.backends).map(|backend| backend.weight).collect()
}

fn reach(percent: u32) -> Reach {
    Reach { percent, is_last: percent == 100, ..Reach::default() }
}

/// Stores patches as an API server does.
///
/// # Errors
/// When a test of one fails.
fn store(routes: &mut Routes, writes: &[Write]) -> Result<(), json_patch::PatchError> {
    for write in writes {
        let Action::Patch { patch: Patch::Json { operations }, .. } = &write.action else {
            panic!("{write:?} is no JSON patch")
        };
        let patch: json_patch::Patch = serde_json::from_value(operations.clone()).unwrap();
        let route = routes.get_mut(&*write.key.name).unwrap();
        json_patch::patch(route, &patch)?;
        let version: u32 = route["metadata"]["resourceVersion"].as_str().unwrap().parse().unwrap();
        route["metadata"]["resourceVersion"] = json!((version + 1).to_string());
    }
    Ok(())
}

#[test]
fn the_weight_that_falls_goes_first_and_units_wait_until_it_has_been_so_for_a_while() {
    let mut routes = own(5, 100);
    let first = moves(&seen(&routes), &PROMO_TO_PAY, &reach(10), 0, at(0));
    assert_eq!((first.before.len(), first.after.len(), first.is_settled), (1, 0, false));
    assert_eq!(first.before[0].class, WriteClass::Spec);
    store(&mut routes, &first.before).unwrap();
    assert_eq!(weights(&routes), [5, 90]);

    let mut fallen = seen(&routes);
    for (steady_since, wake) in
        [(Some(at(0)), Some(at(20))), (None, Some(at(39))), (Some(at(900)), Some(at(39)))]
    {
        fallen.members[1].route.as_mut().unwrap().steady_since = steady_since;
        let waiting = moves(&fallen, &PROMO_TO_PAY, &reach(10), 0, at(19));
        assert!(waiting.before.is_empty() && waiting.after.is_empty() && !waiting.is_settled);
        assert_eq!(waiting.wake, wake);
    }
    fallen.members[1].route.as_mut().unwrap().steady_since = Some(at(0));
    let settled = moves(&fallen, &PROMO_TO_PAY, &reach(10), 0, at(20));
    assert_eq!(settled, RouteMoves { is_settled: true, ..RouteMoves::default() });

    let done = moves(&fallen, &PROMO_TO_PAY, &reach(10), 10, at(60));
    assert_eq!((done.after.len(), done.after[0].class), (1, WriteClass::Protective));
    store(&mut routes, &done.after).unwrap();
    assert_eq!(weights(&routes), [14, 90]);
}

#[test]
fn a_patch_names_the_backend_and_is_for_the_version_that_was_looked_at() {
    let routes = own(5, 100);
    let writes = moves(&seen(&routes), &PROMO_TO_PAY, &reach(100), 0, at(0)).before;
    assert_eq!((writes[0].resource, &*writes[0].key.name), (HTTP_ROUTE, "promo"));
    assert_eq!(writes[0].action.uid(), Some("promo"));
    let mut stored = routes.clone();
    store(&mut stored, &writes).unwrap();
    let mut expected = route("promo", "promo", json!(5));
    expected["metadata"]["resourceVersion"] = json!("6");
    assert_eq!(stored["promo"], expected, "nothing else is changed");
    for (path, value) in [
        ("/metadata/uid", json!("another")),
        ("/metadata/resourceVersion", json!("6")),
        ("/spec/rules/1/backendRefs/1/name", json!("another")),
    ] {
        let mut changed = routes.clone();
        *changed.get_mut("promo").unwrap().pointer_mut(path).unwrap() = value;
        let before = changed.clone();
        assert!(store(&mut changed, &writes).is_err(), "{path}");
        assert_eq!(changed, before);
    }
}

#[test]
fn a_weight_that_is_not_stated_is_one_and_is_added() {
    let mut routes = own(5, 100);
    routes.insert("pay".to_owned(), route("pay", "pay", Value::Null));
    assert_eq!(weights(&routes), [1, 100]);
    let writes = moves(&seen(&routes), &PROMO_TO_PAY, &reach(100), 100, at(0)).after;
    store(&mut routes, &writes).unwrap();
    assert_eq!(weights(&routes), [100, 100]);
}

#[test]
fn members_of_one_route_are_written_one_after_the_other() {
    let mut both = route("both", "pay", json!(5));
    both["spec"]["rules"][0]["backendRefs"] =
        json!([{"name": "promo", "weight": 100}, {"name": "pay", "weight": 9}]);
    let mut routes = Routes::from([("both".to_owned(), both)]);
    assert_eq!(weights(&routes), [9, 5, 100]);
    // Both are due as somebody has changed them after the end.
    let made = moves(&seen(&routes), &PROMO_TO_PAY, &reach(100), 100, at(0));
    assert_eq!((made.before.len(), made.after.len()), (1, 0));
    store(&mut routes, &made.before).unwrap();
    let made = moves(&seen(&routes), &PROMO_TO_PAY, &reach(100), 100, at(0));
    assert_eq!((made.before.len(), made.after.len()), (0, 1));
    store(&mut routes, &made.after).unwrap();
    assert_eq!(weights(&routes), [100, 100, 5]);
}

#[test]
fn who_neither_gets_nor_gives_the_peak_loses_it_with_the_last_step() {
    let routes = own(70, 70);
    let first = Heading { from: None, ..PROMO_TO_PAY };
    let step = |percent| moves(&seen(&routes), &first, &reach(percent), 0, at(0));
    assert_eq!((step(10).before.len(), step(10).is_settled), (0, true));
    assert_eq!((step(100).before.len(), step(100).is_settled), (1, false));
}

#[test]
fn what_is_not_there_is_said_and_nothing_starts_without_it() {
    let mut observed = seen(&own(5, 100));
    let spec = |observed: &Observed, number: usize| observed.group.spec.members[number].clone();
    assert_eq!(missing(&spec(&observed, 1), &observed.members[1]), None);
    observed.members[1].route.as_mut().unwrap().backends.clear();
    let message = missing(&spec(&observed, 1), &observed.members[1]).unwrap();
    assert_eq!(message, "HTTPRoute shop/promo has no backend promo");
    assert!(!moves(&observed, &PROMO_TO_PAY, &reach(100), 0, at(0)).is_settled);
    observed.members[1].route = None;
    let message = missing(&spec(&observed, 1), &observed.members[1]).unwrap();
    assert_eq!(message, "there is no HTTPRoute shop/promo");
    let made = moves(&observed, &PROMO_TO_PAY, &reach(100), 0, at(0));
    assert!(!made.is_settled && made.before.is_empty() && made.wake.is_none());
    let by_label: MemberSpec = serde_json::from_value(crate::fixtures::member("promo")).unwrap();
    assert_eq!(missing(&by_label, &observed.members[1]), None);
}

#[test]
fn two_members_cannot_have_one_backend() {
    let routes = own(5, 100);
    assert_eq!(contested(&seen(&routes)), None);
    let own = json!({"name": "pay", "backend": "pay"});
    let members = ["pay", "promo"]
        .map(|name| json!({"name": name, "traffic": {"mode": "HTTPRoute", "httpRoute": own}}));
    let message = contested(&observed(json!({"members": members}), &[])).unwrap();
    assert_eq!(message, "pay and promo have one backend, pay");
}

#[test]
fn a_group_that_goes_gives_each_backend_the_weight_of_its_peak_unless_another_group_has_the_member() {
    let mut routes = own(5, 60);
    let given = give_back(&seen(&routes));
    store(&mut routes, &given).unwrap();
    assert_eq!(weights(&routes), [100, 100]);
    assert!(give_back(&seen(&routes)).is_empty());
    let mut observed = seen(&own(5, 100));
    observed.members[0].taken_by = Some(ObjectKey::new(NAMESPACE, "older"));
    assert!(give_back(&observed).is_empty());
}

proptest! {
    /// A transition goes so many steps, and is then taken back: until that is over the one weight only falls and the
    /// other only rises, and at the end either is what the spec says. What is written is not written again.
    #[test]
    fn weights_move_one_way_in_a_transition_and_end_where_they_belong(
        percents in prop::collection::btree_set(1..100u32, 0..5),
        steps_gone in 0..6usize,
    ) {
        let mut routes = own(5, 100);
        let mut settled = 0;
        let steps: Vec<u32> = percents.into_iter().chain([100]).collect();
        let gone = &steps[..steps_gone.min(steps.len())];
        let mut pass = |heading: &Heading, percent: u32, settled: u32, is_falling: usize| {
            let before = weights(&routes);
            let made = moves(&seen(&routes), heading, &reach(percent), settled, at(0));
            prop_assert_eq!(made.is_settled, made.before.is_empty());
            store(&mut routes, &made.before).unwrap();
            let made = moves(&seen(&routes), heading, &reach(percent), settled, at(0));
            store(&mut routes, &made.after).unwrap();
            let after = weights(&routes);
            prop_assert!(after[is_falling] <= before[is_falling]);
            prop_assert!(after[1 - is_falling] >= before[1 - is_falling]);
            let made = moves(&seen(&routes), heading, &reach(percent), settled, at(0));
            prop_assert_eq!(made, RouteMoves { is_settled: true, ..RouteMoves::default() });
            Ok(after)
        };
        for percent in gone {
            pass(&PROMO_TO_PAY, *percent, settled, 1)?;
            settled = *percent;
        }
        if settled == 100 {
            prop_assert_eq!(pass(&PROMO_TO_PAY, 100, 100, 1)?, [100, 5]);
        }
        pass(&BACK, 100, 0, 0)?;
        prop_assert_eq!(pass(&BACK, 100, 100, 0)?, [5, 100]);
    }
}
