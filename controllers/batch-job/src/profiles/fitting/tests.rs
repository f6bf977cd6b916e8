use super::*;
use crate::projections::job::Template;
use proptest::prelude::*;

const MI: i64 = 1 << 20;

fn recommended(container: &str, cpu: Option<i64>, memory: Option<i64>) -> Recommended {
    Recommended { container: container.into(), cpu, memory }
}

fn template(spec: Value) -> PodTemplate {
    serde_json::from_value(json!({"spec": spec})).unwrap()
}

fn main_with(resources: Value) -> PodTemplate {
    template(json!({"containers": [{"name": "main", "image": "app", "resources": resources}]}))
}

/// The requests of the containers of a template with these recommendations.
fn requests(template: &PodTemplate, rows: &[Recommended], mode: ProfileMode) -> Option<Vec<Value>> {
    let fitted = Fitted::new(template, rows, mode)?;
    let mut spec = template.spec().unwrap().clone();
    fitted.apply(&mut spec);
    assert_eq!(
        *fitted.shape,
        Shape::of_template(&PodTemplate(Map::from_iter([("spec".to_owned(), Value::Object(spec.clone()))]))),
        "what is charged is what is created"
    );
    let of = |list: &str| spec.get(list).and_then(Value::as_array).cloned().unwrap_or_default();
    let all = of("containers").into_iter().chain(of("initContainers"));
    Some(all.map(|container| container["resources"].clone()).collect())
}

fn row() -> [Recommended; 1] {
    [recommended("main", Some(350), Some(900 * MI))]
}

#[test]
fn initial_fills_what_is_absent_and_auto_replaces_what_is_there() {
    let both = json!({"requests": {"cpu": "350m", "memory": "900Mi"}});
    for (resources, mode, expected) in [
        (json!(null), ProfileMode::Initial, Some(both.clone())),
        (json!({}), ProfileMode::Initial, Some(both.clone())),
        (json!({"requests": null}), ProfileMode::Auto, Some(both.clone())),
        (
            json!({"requests": {"cpu": "2"}}),
            ProfileMode::Initial,
            Some(json!({"requests": {"cpu": "2", "memory": "900Mi"}})),
        ),
        (json!({"requests": {"cpu": 2, "memory": "1Gi"}}), ProfileMode::Initial, None),
        (
            json!({"requests": {"cpu": "2", "gpu": 1}}),
            ProfileMode::Auto,
            Some(json!({"requests": {"cpu": "350m", "memory": "900Mi", "gpu": 1}})),
        ),
        (json!(null), ProfileMode::Observe, None),
        (json!(null), ProfileMode::Off, None),
    ] {
        let found = requests(&main_with(resources.clone()), &row(), mode);
        assert_eq!(found, expected.map(|expected| vec![expected]), "{resources} {mode:?}");
    }
}

#[test]
fn nothing_is_asked_for_above_a_limit_and_limits_stay() {
    let limits = json!({"cpu": "0.1", "memory": "2Gi"});
    for mode in [ProfileMode::Initial, ProfileMode::Auto] {
        let found = requests(&main_with(json!({"limits": limits})), &row(), mode);
        assert_eq!(
            found,
            Some(vec![json!({"limits": limits, "requests": {"cpu": "100m", "memory": "900Mi"}})])
        );
    }
    let fitted = Fitted::new(&main_with(json!({"limits": limits})), &row(), ProfileMode::Auto).unwrap();
    assert_eq!(fitted.requests.iter().map(|set| set.at_limit).collect::<Vec<_>>(), [true, false]);
}

#[test]
fn containers_are_told_apart_and_those_before_the_task_count_too() {
    let template = template(json!({
        "containers": [{"name": "main"}, {"name": "log"}], "initContainers": [{"name": "fetch"}],
    }));
    let rows = [
        recommended("log", None, Some(3 * MI / 2)),
        recommended("fetch", Some(2000), None),
        recommended("x", Some(1), None),
    ];
    assert_eq!(
        requests(&template, &rows, ProfileMode::Auto),
        Some(vec![
            json!(null),
            json!({"requests": {"memory": "1572864"}}),
            json!({"requests": {"cpu": "2"}})
        ])
    );
    let fitted = Fitted::new(&template, &rows, ProfileMode::Auto).unwrap();
    assert_eq!(
        fitted.sums(),
        RecommendedRequests { cpu: Some("2".to_owned()), memory: Some("1572864".to_owned()) }
    );
}

#[test]
fn resources_of_the_pod_as_a_whole_are_left_alone() {
    for resources in [json!({"requests": {"cpu": "1"}}), json!({"limits": {"memory": "1Gi"}})] {
        let template = template(json!({"containers": [{"name": "main"}], "resources": resources}));
        assert_eq!(requests(&template, &row(), ProfileMode::Auto), None);
    }
}

fn profile(status: Value, spec: Value) -> ProfileView {
    serde_json::from_value(json!({
        "metadata": {"namespace": "ns", "name": "etl", "uid": "u", "resourceVersion": "1", "generation": 1},
        "spec": spec, "status": status,
    }))
    .unwrap()
}

fn learned() -> Value {
    json!({"samples": 212, "containers": [{"name": "main", "recommended": {"cpu": "350m", "memory": "900Mi"}}]})
}

fn asks(mode: Option<ProfileMode>) -> JobProfile {
    JobProfile { key: Some("etl".to_owned()), mode }
}

#[test]
fn the_job_asks_and_the_profile_allows() {
    let limited = profile(learned(), json!({"maxMode": "Observe"}));
    for (asked, expected) in [
        (None, ProfileMode::Observe),
        (Some(ProfileMode::Observe), ProfileMode::Observe),
        (Some(ProfileMode::Auto), ProfileMode::Observe),
        (Some(ProfileMode::Off), ProfileMode::Off),
    ] {
        assert_eq!(mode(wanted(&asks(asked), ProfileMode::Auto), Some(&limited)), expected);
    }
    assert_eq!(mode(ProfileMode::Auto, Some(&profile(learned(), json!({})))), ProfileMode::Auto);
    assert_eq!(mode(ProfileMode::Auto, None), ProfileMode::Auto);
}

#[test]
fn what_the_job_does_not_say_its_queue_does_and_without_a_key_there_is_nothing() {
    let all = [ProfileMode::Off, ProfileMode::Observe, ProfileMode::Initial, ProfileMode::Auto];
    for default in all {
        assert_eq!(wanted(&asks(None), default), default);
        for asked in all {
            assert_eq!(wanted(&asks(Some(asked)), default), asked);
        }
        assert_eq!(
            wanted(&JobProfile { key: None, mode: Some(ProfileMode::Off) }, default),
            ProfileMode::Off
        );
        assert_eq!(wanted(&JobProfile::default(), default), ProfileMode::Off);
    }
}

#[test]
fn a_run_time_is_told_from_twenty_runs_on_to_every_job_that_is_learned_from() {
    let mut fittings = Fittings::default();
    let key = ObjectKey::new("ns", "etl");
    let template = Template::new(&main_with(json!(null)));
    let mut of = |wanted, samples: u32, spec: Value| {
        let status = json!({"samples": samples, "runTime": {"p50Seconds": 40, "p95Seconds": 95}});
        let fitting = fittings.of(&key, wanted, &template, Some(&profile(status, spec)));
        (fitting.p95_seconds, fitting.profile.is_some())
    };
    assert_eq!(of(ProfileMode::Observe, 19, json!({})), (None, true));
    for mode in [ProfileMode::Observe, ProfileMode::Initial, ProfileMode::Auto] {
        assert_eq!(of(mode, 20, json!({})), (Some(95), true));
    }
    assert_eq!(of(ProfileMode::Off, 20, json!({})), (None, false));
    assert_eq!(of(ProfileMode::Auto, 20, json!({"maxMode": "Off"})), (None, false));
}

#[test]
fn every_job_is_told_what_it_got_or_why_it_got_nothing() {
    let mut fittings = Fittings::default();
    let key = ObjectKey::new("ns", "etl");
    let template = Template::new(&main_with(json!({"limits": {"memory": "512Mi"}})));
    let mut of = |wanted, profile: Option<&ProfileView>| fittings.of(&key, wanted, &template, profile);
    let auto = ProfileMode::Auto;
    let known = profile(learned(), json!({}));
    let fitting = of(auto, Some(&known));
    assert_eq!(fitting.note, "profile etl, p95+15% of 212 runs: main cpu 350m, main memory 512Mi (limit)");
    assert_eq!(
        fitting.status(),
        Some(JobProfileStatus {
            samples: 212,
            applied: RecommendedRequests { cpu: Some("350m".to_owned()), memory: Some("512Mi".to_owned()) },
        })
    );
    assert_eq!(
        fitting.reasons,
        [
            "container main requests cpu 350m, the template requests none: percentile 95 of 212 runs of profile etl and \
             15 %",
            "container main requests memory 512Mi, the template requests none: percentile 95 of 212 runs of profile etl \
             and 15 %, held at the container's limit",
        ]
    );
    assert_eq!(of(auto, None).note, "there is no BatchTaskProfile etl yet");
    let few = profile(json!({"samples": 7, "containers": [{"name": "main"}]}), json!({}));
    assert_eq!(of(auto, Some(&few)).note, "profile etl has 7 runs and recommends nothing yet");
    let limited = profile(learned(), json!({"maxMode": "Observe"}));
    assert_eq!(of(auto, Some(&limited)).note, "spec.maxMode of profile etl is Observe");
    let other = profile(
        json!({"samples": 30, "containers": [{"name": "app", "recommended": {"cpu": "1"}}]}),
        json!({}),
    );
    assert_eq!(of(auto, Some(&other)).note, "profile etl has nothing to add to the template's requests");
    let observes = Fitting { profile: Some("etl".into()), ..Fitting::default() };
    assert_eq!(of(ProfileMode::Observe, Some(&known)), observes, "learning alone is no news");
    assert_eq!(of(ProfileMode::Off, Some(&known)), Fitting::default());
}

#[test]
fn a_template_is_fitted_once_until_the_profile_recommends_otherwise() {
    let mut fittings = Fittings::default();
    let key = ObjectKey::new("ns", "etl");
    let template = Template::new(&main_with(json!(null)));
    let auto = ProfileMode::Auto;
    let mut of =
        |status: Value| fittings.of(&key, auto, &template, Some(&profile(status, json!({})))).fitted.unwrap();
    let first = of(learned());
    let mut more_runs = learned();
    more_runs["samples"] = json!(300);
    assert!(Arc::ptr_eq(&first, &of(more_runs)), "more runs alone change no shape");
    let mut grown = learned();
    grown["containers"][0]["recommended"]["cpu"] = json!("400m");
    assert_eq!(of(grown).requests[0].amount, 400);
    for number in 0..2 * TEMPLATES_MAX {
        let other = Template::new(&main_with(json!({"limits": {"cpu": number + 1}})));
        fittings.of(&key, auto, &other, Some(&profile(learned(), json!({}))));
        assert!(fittings.0[&key].templates.len() <= TEMPLATES_MAX);
    }
}

proptest! {
    #[test]
    fn no_request_exceeds_its_limit_and_none_is_lost(
        cpu in prop::option::of(1..8000_i64),
        memory in prop::option::of(1..1_i64 << 40),
        request in prop::option::of(1..4000_i64),
        limit in prop::option::of(1..4000_i64),
        replaces in any::<bool>(),
    ) {
        let amount = |milli: Option<i64>| milli.map(|milli| format!("{milli}m"));
        let template = main_with(json!({
            "requests": amount(request).map(|cpu| json!({"cpu": cpu})).unwrap_or(json!({})),
            "limits": amount(limit).map(|cpu| json!({"cpu": cpu})).unwrap_or(json!({})),
        }));
        let mode = if replaces { ProfileMode::Auto } else { ProfileMode::Initial };
        let rows = [recommended("main", cpu, memory)];
        let Some(found) = requests(&template, &rows, mode) else {
            prop_assert!(memory.is_none() && (cpu.is_none() || (!replaces && request.is_some())));
            return Ok(());
        };
        let list: ResourceList = serde_json::from_value(found[0]["requests"].clone()).unwrap();
        let expected = match (cpu, request) {
            (Some(cpu), Some(_)) if replaces => Some(limit.map_or(cpu, |limit| limit.min(cpu))),
            (Some(cpu), None) => Some(limit.map_or(cpu, |limit| limit.min(cpu))),
            (_, request) => request,
        };
        prop_assert_eq!(list.cpu, expected.unwrap_or(0));
        prop_assert_eq!(list.memory, memory.unwrap_or(0));
    }
}
