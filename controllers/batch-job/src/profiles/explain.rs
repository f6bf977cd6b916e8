//! Why the pods of a job request what they do, and how long they are expected to run: in words.

use super::fitting::{Fitting, SetRequest};
use crate::projections::profile::ProfileView;
use springtide_crds::batch_job::BatchJobSpec;
use springtide_plumbing::plan::Why;
use springtide_plumbing::projection::Projection;
use springtide_plumbing::quantity::quantity_text;

/// Reason of what is said of a request.
const REQUEST: &str = "ProfileRequest";
/// Reason of what is said of a profile that sets none.
const NO_REQUEST: &str = "ProfileSetsNothing";
/// Reason of what is said of the run time.
const RUN_TIME: &str = "ExpectedRunTime";

/// How long a pod of a job is expected to run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expected {
    /// By the profile: 95 of 100 runs end within so many seconds.
    Learned(u32),
    /// By the job's spec.expectedSeconds.
    Declared(u32),
    /// By the job's spec.activeDeadlineSeconds: no longer than that.
    Bounded(u32),
}

impl Expected {
    /// What is learned goes before what is declared, and that before what is merely allowed; `None` where nothing is
    /// known.
    pub fn of(spec: &BatchJobSpec, fitting: &Fitting) -> Option<Self> {
        let learned = fitting.p95_seconds.map(Self::Learned);
        let declared = || spec.expected_seconds.map(Self::Declared);
        learned.or_else(declared).or_else(|| spec.active_deadline_seconds.map(Self::Bounded))
    }

    /// The time in seconds.
    pub fn seconds(self) -> u32 {
        match self {
            Self::Learned(seconds) | Self::Declared(seconds) | Self::Bounded(seconds) => seconds,
        }
    }
}

/// All that a job's profile has a part in, for people who ask. Nothing of a job that speaks neither of a profile nor of
/// its run time.
pub fn job(spec: &BatchJobSpec, fitting: &Fitting) -> Vec<Why> {
    if spec.profile.is_none() && spec.expected_seconds.is_none() {
        return Vec::new();
    }
    let mut whys: Vec<Why> =
        fitting.reasons.iter().map(|reason| Why { reason: REQUEST, message: reason.clone() }).collect();
    if whys.is_empty() && !fitting.note.is_empty() {
        whys.push(Why { reason: NO_REQUEST, message: fitting.note.clone() });
    }
    whys.extend(Expected::of(spec, fitting).map(|expected| {
        let message = match expected {
            Expected::Learned(seconds) => {
                let name = fitting.profile.as_deref().unwrap_or_default();
                format!("a pod runs for {seconds} s at most, as 95 of 100 runs of profile {name} did")
            }
            Expected::Declared(seconds) => format!("a pod runs for {seconds} s, by spec.expectedSeconds"),
            Expected::Bounded(seconds) => {
                format!("a pod runs for {seconds} s at most, by spec.activeDeadlineSeconds")
            }
        };
        Why { reason: RUN_TIME, message }
    }));
    whys
}

/// Every request and where it comes from, in a form that is short: condition messages are.
pub(super) fn in_short(profile: &ProfileView, requests: &[SetRequest]) -> String {
    let rows = requests.iter().map(|set| {
        let amount = quantity_text(set.resource.name(), set.amount);
        let held = if set.at_limit { " (limit)" } else { "" };
        format!("{} {} {amount}{held}", set.container, set.resource.name())
    });
    let rows: Vec<String> = rows.collect();
    let spec = &profile.spec;
    format!(
        "profile {}, p{}+{}% of {} runs: {}",
        profile.meta().key.name,
        spec.percentile,
        spec.margin_percent,
        profile.status.samples,
        rows.join(", ")
    )
}

/// One request: what it stands in the place of, what it follows from, and what held it.
pub(super) fn request(profile: &ProfileView, set: &SetRequest) -> String {
    let resource = set.resource.name();
    let text = |amount: i64| quantity_text(resource, amount);
    let replaced = set.replaced.map_or_else(
        || "the template requests none".to_owned(),
        |replaced| format!("in place of the template's {}", text(replaced)),
    );
    let rule = profile.rule();
    let bound =
        rule.bounds.iter().find(|bound| bound.resource == set.resource && bound.container == set.container);
    let held = match bound {
        _ if set.at_limit => ", held at the container's limit",
        Some(bound) if bound.max == Some(set.amount) => ", held at max of spec.bounds",
        Some(bound) if bound.min == Some(set.amount) => ", raised to min of spec.bounds",
        Some(_) | None => "",
    };
    format!(
        "container {} requests {resource} {}, {replaced}: percentile {} of {} runs of profile {} and {} %{held}",
        set.container,
        text(set.amount),
        rule.percentile,
        profile.status.samples,
        profile.meta().key.name,
        rule.margin_percent,
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::profiles::learned::Learnable;
    use serde_json::json;

    fn profile() -> ProfileView {
        serde_json::from_value(json!({
            "metadata": {"namespace": "ns", "name": "etl", "uid": "u", "resourceVersion": "1", "generation": 1},
            "spec": {"percentile": 90, "marginPercent": 10, "bounds": [
                {"container": "main", "resource": "cpu", "min": "100m", "max": 2},
            ]},
            "status": {"samples": 212},
        }))
        .unwrap()
    }

    fn set(amount: i64, replaced: Option<i64>, at_limit: bool) -> SetRequest {
        SetRequest { container: "main".into(), resource: Learnable::Cpu, amount, replaced, at_limit }
    }

    #[test]
    fn every_request_is_traced_to_what_it_follows_from() {
        let follows = "percentile 90 of 212 runs of profile etl and 10 %";
        for (set, expected) in [
            (set(350, None, false), format!("cpu 350m, the template requests none: {follows}")),
            (set(350, Some(500), false), format!("cpu 350m, in place of the template's 500m: {follows}")),
            (
                set(500, None, true),
                format!("cpu 500m, the template requests none: {follows}, held at the container's limit"),
            ),
            (
                set(2000, Some(1000), false),
                format!("cpu 2, in place of the template's 1: {follows}, held at max of spec.bounds"),
            ),
            (
                set(100, None, false),
                format!("cpu 100m, the template requests none: {follows}, raised to min of spec.bounds"),
            ),
        ] {
            assert_eq!(request(&profile(), &set), format!("container main requests {expected}"));
        }
    }

    #[test]
    fn what_is_learned_goes_before_what_is_declared_and_that_before_what_is_allowed() {
        let spec = |fields: serde_json::Value| {
            let mut spec = json!({"template": {}});
            spec.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
            serde_json::from_value::<BatchJobSpec>(spec).unwrap()
        };
        let learned = Fitting { profile: Some("etl".into()), p95_seconds: Some(95), ..Fitting::default() };
        let both = spec(json!({"expectedSeconds": 120, "activeDeadlineSeconds": 3600}));
        let bounded = spec(json!({"activeDeadlineSeconds": 3600}));
        let none = Fitting::default();
        assert_eq!(Expected::of(&both, &learned), Some(Expected::Learned(95)));
        assert_eq!(Expected::of(&both, &none), Some(Expected::Declared(120)));
        assert_eq!(Expected::of(&bounded, &none), Some(Expected::Bounded(3600)));
        assert_eq!(Expected::of(&spec(json!({})), &none), None);
        let said =
            |fitting: &Fitting| job(&both, fitting).into_iter().map(|why| why.message).collect::<Vec<_>>();
        assert_eq!(said(&learned), ["a pod runs for 95 s at most, as 95 of 100 runs of profile etl did"]);
        assert_eq!(said(&none), ["a pod runs for 120 s, by spec.expectedSeconds"]);
        let waits = Fitting { note: "there is no BatchTaskProfile etl yet".to_owned(), ..Fitting::default() };
        assert_eq!(job(&both, &waits)[0].reason, NO_REQUEST);
    }
}
