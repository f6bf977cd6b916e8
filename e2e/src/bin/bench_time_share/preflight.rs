//! T6: ten thousand resizes are asked for ahead in dry runs. What that changes, whom it delays, and whether each unit that
//! does not come through later was named.

use std::cell::Cell;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use jiff::SignedDuration;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{Api, Patch, PatchParams};
use serde::{Deserialize, Serialize};
use serde_json::json;
use springtide_crds::time_share_group::{ReadyReason, TrafficMode};
use springtide_e2e::bench::scrape::Scrape;
use springtide_e2e::bench::stats::mean;
use springtide_e2e::time_share::stage::{Setting, Stage};
use springtide_time_share_group::sizes::Level;

use crate::field::{self, Field, OTHER};
use crate::switched::BUDGET;

/// Of so many units one has a pod whose resizes a policy refuses.
const ONE_IN: usize = 100;
/// Label of those pods, and the name of the policy.
const PROTECTED: &str = "protected";
const POLICY: &str = "no-resize-of-protected-pods";
/// The window is so far ahead, or up to a minute less; its preflight begins at once or up to a minute later, and asks for
/// half of its lead. It is switched by hand as soon as it is known what comes through.
const AHEAD: SignedDuration = SignedDuration::from_mins(6);
const LEAD: u32 = 300;
/// The other group: nodes, and pods of each member on each of them.
const NODES: u32 = 2;
const PODS: u32 = 10;
/// Its members take turns for so long before anything is asked for, and at least so often beside it.
const BEFORE: Duration = Duration::from_secs(60);
const TURNS: usize = 5;

/// What was measured.
#[derive(Serialize, Deserialize)]
pub(crate) struct Asked {
    /// Units that were looked at.
    pub(crate) units: usize,
    /// Dry runs that the API server has counted, and for how long they went on, in seconds.
    pub(crate) dry_runs: f64,
    pub(crate) seconds: f64,
    /// Changes of these pods that a watch has seen meanwhile.
    pub(crate) changed: usize,
    /// How long writes of other classes waited for the budget, on average, in seconds: before, and beside dry runs.
    #[serde(deserialize_with = "springtide_e2e::bench::stored::nan_of_null")]
    pub(crate) waited_before: f64,
    #[serde(deserialize_with = "springtide_e2e::bench::stored::nan_of_null")]
    pub(crate) waited_beside: f64,
    /// How long the other group took to switch, on average, in seconds: before, and beside dry runs.
    pub(crate) turn_before: f64,
    pub(crate) turn_beside: f64,
    /// Units that the preflight has found not to come through.
    pub(crate) named: usize,
    /// Units that did not when the time had come.
    pub(crate) skipped: usize,
    /// Real resizes that the API server has refused then, conflicts left out.
    pub(crate) refused: f64,
}

/// Asks for the resizes of so many units, and switches them then.
pub(crate) async fn measure(units: u32) -> Result<Asked> {
    let builder = field::builder(units).without_audit();
    let field = Field::start(builder, TrafficMode::ServiceLabel, units, BUDGET, |spec| {
        spec.guards.failure_threshold_percent = 100;
    })
    .await?;
    let denied = protect(&field).await?;
    let setting = Setting::new("busy", NODES).pods([PODS, PODS]);
    let stage = setting.without_group(&field.cluster).await?;
    stage.create_group(|_| {}).await?;
    stage.settled("pay").await?;
    let mut turns = Turns { stage: &stage, at: "pay", taken: Vec::new() };
    let before = Scrape::of(field.manager()?).await?;
    turns.take(|begun, _| begun.elapsed() < BEFORE).await?;
    let between = Scrape::of(field.manager()?).await?;
    let turn_before = mean(std::mem::take(&mut turns.taken));

    let server = Scrape::of_api_server(&field.client).await?;
    field.pods.now().count_anew();
    let began = Instant::now();
    field.foresee(AHEAD, LEAD).await?;
    let is_known = Cell::new(false);
    let known = async {
        let known = field.preflight().await;
        is_known.set(true);
        anyhow::Ok((known?, began.elapsed().as_secs_f64()))
    };
    let (known, taken) = tokio::join!(known, turns.take(|_, turns| turns < TURNS || !is_known.get()));
    let ([passed, asked], seconds) = known?;
    taken?;
    let (changed, gaps) = {
        let seen = field.pods.now();
        (seen.changes(), seen.gaps())
    };
    ensure!(gaps == 0, "the watch has begun anew");
    let beside = Scrape::of(field.manager()?).await?;
    let answered = Scrape::of_api_server(&field.client).await?;
    let dry_runs = dry_runs(&answered) - dry_runs(&server);
    ensure!(asked == units, "{asked} of {units} units were looked at");
    let turn_beside = mean(std::mem::take(&mut turns.taken));
    let named = (asked - passed) as usize;
    eprintln!(
        "      {dry_runs:.0} dry runs in {seconds:.0} s; {named} units would not come through, of {denied}"
    );

    field.ask_for(OTHER).await?;
    let group = field.settled(OTHER, &[ReadyReason::Settled, ReadyReason::SettledWithSkips]).await?;
    let transition = group.status.and_then(|status| status.transition).context("a transition")?;
    let at_peak = field.pods.now().at(OTHER, Level::Peak);
    ensure!(at_peak + denied == units as usize, "{at_peak} of {units} pods have the peak: {transition:?}");
    let after = Scrape::of_api_server(&field.client).await?;
    let result = Asked {
        units: asked as usize,
        dry_runs,
        seconds,
        changed,
        waited_before: waited(&before, &between),
        waited_beside: waited(&between, &beside),
        turn_before,
        turn_beside,
        named,
        skipped: transition.units.skipped as usize,
        refused: refused(&after) - refused(&answered),
    };
    drop(stage);
    field.stop()?;
    Ok(result)
}

/// Members that take turns.
struct Turns<'a, 'b> {
    stage: &'a Stage<'b>,
    at: &'static str,
    /// How long each switch took, in seconds.
    taken: Vec<f64>,
}

impl Turns<'_, '_> {
    /// Switches again and again as long as `goes_on` says so of the begin and the number of switches.
    async fn take(&mut self, goes_on: impl Fn(Instant, usize) -> bool) -> Result<()> {
        let begun = Instant::now();
        while goes_on(begun, self.taken.len()) {
            self.at = if self.at == "pay" { "promo" } else { "pay" };
            let asked = Instant::now();
            self.stage.give(self.at).await?;
            self.stage.settled(self.at).await?;
            self.taken.push(asked.elapsed().as_secs_f64());
        }
        Ok(())
    }
}

/// Has a policy refuse the resizes of some pods that are to grow; gives how many these are.
async fn protect(field: &Field) -> Result<usize> {
    let policy = json!({"apiVersion": "v1", "kind": "List", "items": [
        {
            "apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingAdmissionPolicy",
            "metadata": {"name": POLICY},
            "spec": {
                "failurePolicy": "Fail",
                "matchConstraints": {"resourceRules": [{
                    "apiGroups": [""], "apiVersions": ["v1"], "operations": ["UPDATE"],
                    "resources": ["pods/resize"],
                }]},
                "validations": [{
                    "expression": format!("!('{PROTECTED}' in object.metadata.labels)"),
                    "message": "the pod is protected",
                }],
            },
        },
        {
            "apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingAdmissionPolicyBinding",
            "metadata": {"name": POLICY},
            "spec": {"policyName": POLICY, "validationActions": ["Deny"]},
        },
    ]});
    field.cluster.apply(&policy.to_string()).await?;
    let pods: Api<Pod> = field.api();
    let label = Patch::Merge(json!({"metadata": {"labels": {PROTECTED: "yes"}}}));
    let pairs = field.pairs();
    let mut denied = 0;
    for [_, (_, other)] in pairs.iter().step_by(ONE_IN) {
        pods.patch(other, &PatchParams::default(), &label).await?;
        denied += 1;
    }
    Ok(denied)
}

/// Dry runs of resizes that the API server has counted.
fn dry_runs(server: &Scrape) -> f64 {
    let labels = [("resource", "pods"), ("subresource", "resize"), ("dry_run", "All")];
    server.sum("apiserver_request_total", &labels)
}

/// Real resizes of pods that the API server has counted as forbidden or invalid.
fn refused(server: &Scrape) -> f64 {
    let of = |code| {
        let labels = [("resource", "pods"), ("subresource", "resize"), ("dry_run", ""), ("code", code)];
        server.sum("apiserver_request_total", &labels)
    };
    ["403", "422"].into_iter().map(of).sum()
}

/// How long writes waited for the budget on average, those of the class of dry runs left out; NaN where there was none.
fn waited(before: &Scrape, after: &Scrape) -> f64 {
    let grown = |name: &str| {
        let all = after.sum(name, &[]) - before.sum(name, &[]);
        let low = [("class", "low")];
        all - (after.sum(name, &low) - before.sum(name, &low))
    };
    grown("springtide_write_budget_wait_seconds_sum") / grown("springtide_write_budget_wait_seconds_count")
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn asked() -> Asked {
        Asked {
            units: 5000,
            dry_runs: 10_000.0,
            seconds: 300.0,
            changed: 0,
            waited_before: 0.0004,
            waited_beside: 0.0005,
            turn_before: 2.5,
            turn_beside: 2.75,
            named: 50,
            skipped: 50,
            refused: 0.0,
        }
    }

    #[test]
    fn waits_are_those_of_all_classes_but_that_of_dry_runs() {
        let scrape = |spec: u32, low: u32| {
            let sample = |name: &str, class: &str, value: f64| {
                format!("springtide_write_budget_wait_seconds_{name}{{class=\"{class}\"}} {value}\n")
            };
            Scrape::from(
                [
                    sample("sum", "spec", 0.5 * f64::from(spec)),
                    sample("count", "spec", f64::from(spec)),
                    sample("sum", "low", 10.0 * f64::from(low)),
                    sample("count", "low", f64::from(low)),
                ]
                .concat(),
            )
        };
        assert_eq!(waited(&scrape(2, 1), &scrape(6, 9)), 0.5);
        assert!(waited(&scrape(2, 1), &scrape(2, 9)).is_nan());
    }
}
