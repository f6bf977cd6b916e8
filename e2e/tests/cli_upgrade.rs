//! What `springtide explain`, `plan`, `status` and `watch` say of InPlaceUpgrades, beside a manager that acts, on a real
//! control plane with pods that KWOK plays. All tests share one cluster and one manager; each has a namespace.

#![allow(clippy::unwrap_used, reason = "the helpers of a test fail as a test does")]

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Output;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use nix::sys::signal::{Signal as UnixSignal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};
use springtide_crds::common::IntOrPercent;
use springtide_crds::in_place_upgrade::{
    FieldOwnership, HeldReason, Hold, HoldType, InPlaceUpgradeSpec, ReadyReason, StalledReason, Step,
};
use springtide_e2e::command_line::{
    ERROR, FINE, INTERRUPTED, NOT_READY, ROLLED_BACK, STALLED, answer, asked, ended, said, springtide, start,
    viewer,
};
use springtide_e2e::fault_proxy::{Class, Fault, FaultProxy, Latency, Protocols, When};
use springtide_e2e::kwok::{IMAGE_OUTCOMES, ImageOutcome, RESTART_SECONDS, image_outcomes};
use springtide_e2e::upgrade::cost::{GATED, writes_by_pod};
use springtide_e2e::upgrade::workload::inline;
use springtide_e2e::upgrade::{Testbed, Workload, image, shared};
use springtide_e2e::write_count::Verb;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::Child;

/// Seconds that a container takes to run anew: long enough that a test comes in between.
const SLOW: &str = "3";

fn kubeconfig(test: &Testbed<'_>) -> PathBuf {
    test.cluster.kubeconfig_path()
}

async fn asked_for(test: &Testbed<'_>, args: &[&str], code: i32) -> Result<Value> {
    answer(&kubeconfig(test), &test.namespace, args, "", code).await
}

async fn text(test: &Testbed<'_>, args: &[&str]) -> Result<String> {
    let output = springtide(&kubeconfig(test), &test.namespace, args, "").await?;
    Ok(String::from_utf8(output.stdout)?)
}

/// The words of a text, whatever its lines.
fn unbroken(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// An upgrade whose first step of one pod waits for an approval.
fn approved_after_one(workload: &Workload) -> InPlaceUpgradeSpec {
    let hold = Hold { type_: HoldType::Approval, duration_seconds: None };
    let mut spec = workload.upgrade();
    spec.strategy.steps = vec![
        Step { replicas: IntOrPercent::Int(1), hold: Some(hold) },
        Step { replicas: IntOrPercent::ALL, hold: None },
    ];
    spec
}

/// Resources that are written on the way of each pod, as a plan has them.
fn ways(upgrade: &Value) -> BTreeMap<String, Vec<String>> {
    let pods = upgrade["pods"].as_array().into_iter().flatten();
    let resource = |write: &Value| match write["subresource"].as_str() {
        None | Some("") => "pods".to_owned(),
        Some(part) => format!("pods/{part}"),
    };
    pods.map(|pod| {
        let name = pod["name"].as_str().unwrap_or_default().to_owned();
        (name, pod["writes"].as_array().into_iter().flatten().map(resource).collect())
    })
    .collect()
}

/// Verdicts of all dry runs of a plan.
fn checked(upgrade: &Value) -> BTreeSet<&str> {
    upgrade["checks"].as_array().into_iter().flatten().filter_map(|check| check["verdict"].as_str()).collect()
}

#[tokio::test]
async fn an_upgrade_that_is_held_is_explained_with_what_lets_it_go_on() -> Result<()> {
    let test = Testbed::new(shared().await?, "ipu-explain").await?;
    let web = Workload::deployment("web", 3);
    test.start_paused(&web).await?;
    test.set_image(&web, &image(2)).await?;
    test.upgrade("web", approved_after_one(&web)).await?;
    let held = test.told("web", HeldReason::ApprovalRequired).await?;
    let status = held.status.context("a status")?;
    let explained = asked_for(&test, &["explain", "ipu/web"], NOT_READY).await?;
    ensure!(explained["kind"] == "UpgradeExplanation" && explained["basis"] == "Computed", "{explained}");
    ensure!(explained["summary"]["reason"] == "Held", "{explained}");
    let told = status.conditions.iter().find(|condition| condition.is(HeldReason::ApprovalRequired));
    let message = told.map(|condition| condition.message.as_str());
    ensure!(explained["held"]["message"].as_str() == message, "{explained} and {message:?}");
    ensure!(explained["targetHash"] == status.target_hash.as_str(), "{explained}");
    ensure!(explained["counts"]["updatedReady"] == 1 && explained["plan"]["inPlace"] == 2, "{explained}");
    let of_pods = explained["nextWrites"].as_array().into_iter().flatten();
    ensure!(of_pods.into_iter().all(|write| write["kind"] != "Pod"), "{explained}");
    let words = unbroken(&text(&test, &["explain", "ipu/web"]).await?);
    for piece in
        ["Held ApprovalRequired", "Step 1 of 2: 1 of 3 pods", "Left 2 by image", "kubectl patch ipu web"]
    {
        ensure!(words.contains(piece), "no {piece} in:\n{words}");
    }
    let told = asked_for(&test, &["status", "ipu/web"], NOT_READY).await?;
    ensure!(
        told["items"][0]["held"] == "ApprovalRequired" && told["items"][0]["step"]["index"] == 1,
        "{told}"
    );
    let table = text(&test, &["status", "ipu"]).await?;
    ensure!(table.starts_with("UPGRADE") && table.contains("WAITING"), "{table}");

    // What it says helps.
    let command =
        explained["remedies"].as_array().into_iter().flatten().filter_map(Value::as_str).next_back();
    let patch = command.and_then(|command| command.split('\'').nth(1)).context("a patch")?;
    test.edit("web", serde_json::from_str(patch)?).await?;
    test.succeeded("web", "").await?;
    let done = asked_for(&test, &["explain", "ipu/web"], FINE).await?;
    ensure!(done["summary"]["reason"] == "UpToDate" && done["wakes"] == "", "{done}");
    ensure!(done["lastRun"]["result"] == "Succeeded", "{done}");
    asked_for(&test, &["status", "ipu"], FINE).await?;
    // Nobody has written for an explanation, or asked to try.
    let asked = asked(test.cluster, "explain")?;
    ensure!(!asked.is_empty() && asked.of_verb(Verb::Patch).is_empty(), "{asked}");
    test.verify()
}

#[tokio::test]
async fn what_is_planned_before_anything_is_locked_is_what_the_manager_writes_then() -> Result<()> {
    let test = Testbed::new(shared().await?, "ipu-plan").await?;
    let web = Workload::deployment("web", 3);
    test.start(&web).await?;
    let mut spec = web.upgrade();
    spec.source = inline(&image(2));
    spec.policy.field_ownership = FieldOwnership::Force;
    spec.strategy.max_unavailable = IntOrPercent::ALL;
    let manifest = json!({
        "apiVersion": "springtide.dev/v1alpha1", "kind": "InPlaceUpgrade", "metadata": {"name": "web"},
        "spec": spec,
    })
    .to_string();
    let mark = test.mark()?;
    let plan = answer(&kubeconfig(&test), &test.namespace, &["plan", "-f", "-"], &manifest, STALLED).await?;
    ensure!(plan["objects"][0]["isNew"] == true && plan["objects"][0]["isChecked"] == true, "{plan}");
    let upgrade = &plan["upgrades"][0];
    ensure!(upgrade["stalled"]["reason"] == "NotLocked", "{plan}");
    ensure!(checked(upgrade) == BTreeSet::from(["Accepted"]), "{plan}");
    let ways = ways(upgrade);
    ensure!(ways.len() == 3 && ways.values().all(|way| way == GATED), "{ways:?}");
    for pod in upgrade["pods"].as_array().into_iter().flatten() {
        ensure!(
            pod["verdict"] == "InPlace" && pod["differences"][0] == format!("image of app: {}", image(2))
        );
        let change = json!({"op": "replace", "path": "/spec/containers/0/image", "value": image(2)});
        ensure!(pod["writes"][1]["body"].as_array().is_some_and(|body| body.contains(&change)), "{pod}");
    }
    ensure!(test.requests_since(mark)?.writes().by_agent("springtide/").is_empty(), "a plan stores nothing");

    // Locked: the same, and now it begins.
    test.patch(&web, json!({"spec": {"paused": true}})).await?;
    let begins = answer(&kubeconfig(&test), &test.namespace, &["plan", "-f", "-"], &manifest, FINE).await?;
    let next = begins["upgrades"][0]["nextWrites"].as_array().context("writes")?;
    let of_pods: BTreeSet<_> = next
        .iter()
        .filter(|write| write["kind"] == "Pod")
        .map(|write| (write["name"].as_str(), write["subresource"].as_str()))
        .collect();
    ensure!(of_pods.len() == 3 && of_pods.iter().all(|(_, part)| *part == Some("status")), "{begins}");
    let mark = test.mark()?;
    test.upgrade("web", spec).await?;
    test.succeeded("web", "").await?;
    let written = writes_by_pod(&test.requests_since(mark)?.successful());
    ensure!(written == ways, "written {written:?}, planned {ways:?}");
    let after = asked_for(&test, &["plan", "ipu/web"], FINE).await?;
    ensure!(after["upgrades"][0]["checks"] == json!([]), "nothing is left to be asked: {after}");
    ensure!(crate::ways(&after["upgrades"][0]).values().all(Vec::is_empty), "{after}");
    let asked = asked(test.cluster, "plan")?;
    ensure!(!asked.of_verb(Verb::Patch).is_empty() && asked.writes().is_empty(), "dry runs alone: {asked}");
    test.verify()
}

/// Starts `springtide watch` and waits for its first line, by which it has seen the upgrade.
async fn watching(test: &Testbed<'_>, kubeconfig: &Path, timeout: &str) -> Result<(Child, String)> {
    let args = ["watch", "ipu/web", "--timeout", timeout];
    let mut child = start(kubeconfig, &test.namespace, &args).await?;
    let stdout = child.stdout.take().context("its output")?;
    let mut lines = BufReader::new(stdout);
    let mut first = String::new();
    tokio::time::timeout(springtide_e2e::oracle::feed::PATIENCE, lines.read_line(&mut first)).await??;
    let drained = tokio::spawn(async move {
        let mut line = String::new();
        // Whoever writes to a pipe that nobody reads stands still.
        while lines.read_line(&mut line).await.is_ok_and(|read| read > 0) {}
    });
    drop(drained);
    Ok((child, first))
}

fn code(output: &Output) -> Option<i32> {
    output.status.code()
}

#[tokio::test]
async fn watch_follows_a_run_to_its_end_over_connections_that_break() -> Result<()> {
    let test = Testbed::new(shared().await?, "ipu-watch").await?;
    let web = Workload::deployment("web", 4).annotated(RESTART_SECONDS, SLOW);
    test.start_paused(&web).await?;
    test.upgrade("web", web.one_by_one()).await?;
    test.told("web", ReadyReason::UpToDate).await?;
    let proxy = FaultProxy::start(test.cluster, Protocols::All)?;
    let watches = Class::of([Verb::Watch]).resource("inplaceupgrades").namespace(&test.namespace);
    let seen = proxy.fault(watches, When::Always, Fault::Delay(Latency::Fixed(Duration::from_millis(1))));
    // The status still says that all is well: of the wish before.
    test.set_image(&web, &image(2)).await?;
    let args = ["watch", "ipu/web", "--timeout", "10m"];
    let child = start(proxy.kubeconfig(), &test.namespace, &args).await?;
    test.under_way(&web, &image(2)).await?;
    proxy.fired(seen, 1).await?;
    proxy.reset_connections();
    proxy.fired(seen, 2).await?;
    let output = ended(child).await?;
    ensure!(code(&output) == Some(FINE), "{}", said(&output));
    let words = String::from_utf8_lossy(&output.stdout);
    ensure!(words.contains("Upgrading: ") && words.contains("UpToDate: 4/4 pods"), "{words}");
    ensure!(words.contains(&format!("InPlaceUpgrade {}/web: up to date after", test.namespace)), "{words}");
    test.running(&web, &image(2), 4).await?;
    test.verify()
}

#[tokio::test]
async fn watch_tells_a_rollback_from_what_needs_a_person_and_from_what_takes_too_long() -> Result<()> {
    let test = Testbed::new(shared().await?, "ipu-endings").await?;
    let web = Workload::deployment("web", 3);
    let before = test.start(&web).await?;
    // Not locked: a person has to do something.
    let mut spec = approved_after_one(&web);
    spec.source = inline(&image(2));
    spec.policy.field_ownership = FieldOwnership::Force;
    test.upgrade("web", spec).await?;
    test.told("web", StalledReason::NotLocked).await?;
    let args = ["watch", "ipu/web", "--timeout", "10m"];
    let stalled = springtide(&kubeconfig(&test), &test.namespace, &args, "").await?;
    ensure!(code(&stalled) == Some(STALLED), "{}", said(&stalled));
    ensure!(said(&stalled).contains("see: springtide explain ipu/web"), "{}", said(&stalled));

    // Held: it takes too long, and somebody loses patience.
    test.patch(&web, json!({"spec": {"paused": true}})).await?;
    test.told("web", HeldReason::ApprovalRequired).await?;
    let args = ["watch", "ipu/web", "--timeout", "2s"];
    let late = springtide(&kubeconfig(&test), &test.namespace, &args, "").await?;
    ensure!(code(&late) == Some(NOT_READY) && said(&late).contains("not at its end"), "{}", said(&late));
    let (child, first) = watching(&test, &kubeconfig(&test), "10m").await?;
    ensure!(first.contains("Held: 1/3 pods, step 1/2"), "{first}");
    let pid = i32::try_from(child.id().context("it runs")?)?;
    kill(Pid::from_raw(pid), UnixSignal::SIGINT)?;
    let left = ended(child).await?;
    ensure!(code(&left) == Some(INTERRUPTED) && left.stderr.is_empty(), "{}", said(&left));

    // A wish that goes wrong.
    let missing = image_outcomes(&[(&image(3), ImageOutcome::Missing)]);
    for name in before.keys() {
        test.annotate(name, json!({IMAGE_OUTCOMES: missing})).await?;
    }
    let mut spec = web.one_by_one();
    spec.source = inline(&image(3));
    spec.health.failure_threshold = IntOrPercent::Int(0);
    test.edit(
        "web",
        json!({"spec": {"strategy": spec.strategy, "source": spec.source, "health": spec.health}}),
    )
    .await?;
    let args = ["watch", "ipu/web", "--timeout", "10m"];
    let back = springtide(&kubeconfig(&test), &test.namespace, &args, "").await?;
    ensure!(code(&back) == Some(ROLLED_BACK) && said(&back).contains("rolled back after"), "{}", said(&back));
    test.told("web", ReadyReason::RolledBack).await?;
    let explained = asked_for(&test, &["explain", "ipu/web"], STALLED).await?;
    ensure!(explained["stalled"]["reason"] == "RolledBack", "{explained}");
    test.all_in_traffic(&web).await?;
    test.verify()
}

#[tokio::test]
async fn of_an_upgrade_that_is_not_there_every_verb_says_so() -> Result<()> {
    let test = Testbed::new(shared().await?, "ipu-none").await?;
    for verb in ["explain", "plan", "status", "watch"] {
        let output = springtide(&kubeconfig(&test), &test.namespace, &[verb, "ipu/none"], "").await?;
        ensure!(code(&output) == Some(ERROR), "{verb}: {}", said(&output));
        let message = format!("there is no InPlaceUpgrade none in namespace {}", test.namespace);
        ensure!(String::from_utf8_lossy(&output.stderr).contains(&message), "{verb}: {}", said(&output));
    }
    let empty = asked_for(&test, &["status", "ipu"], FINE).await?;
    ensure!(empty["items"] == json!([]), "{empty}");
    // Its workload is not there either.
    let lost = Workload::deployment("lost", 1);
    test.upgrade("lost", lost.upgrade()).await?;
    let waits = asked_for(&test, &["explain", "ipu/lost"], FINE).await?;
    ensure!(waits["summary"]["reason"] == "Planning" && waits["until"].is_string(), "{waits}");
    test.delete("lost").await?;
    test.verify()
}

#[tokio::test]
async fn who_may_only_view_is_told_all_but_what_was_not_checked() -> Result<()> {
    let test = Testbed::new(shared().await?, "ipu-viewer").await?;
    let web = Workload::deployment("web", 2);
    test.start_paused(&web).await?;
    test.set_image(&web, &image(2)).await?;
    test.upgrade("web", approved_after_one(&web)).await?;
    test.told("web", HeldReason::ApprovalRequired).await?;
    let file = viewer(test.cluster, &test.namespace, &["inplaceupgrade"]).await?;
    let ask = async |args: &[&str], code| answer(&file, &test.namespace, args, "", code).await;

    let explained = ask(&["explain", "ipu/web"], NOT_READY).await?;
    ensure!(
        explained["held"]["reason"] == "ApprovalRequired" && explained["basis"] == "Computed",
        "{explained}"
    );
    let unseen: BTreeSet<_> = explained["notSeen"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|row| row["resource"].as_str())
        .collect();
    ensure!(unseen.contains("nodes") && !unseen.contains("pods"), "{explained}");
    // Whoever may not patch pods cannot have it tried.
    let plan = ask(&["plan", "ipu/web"], NOT_READY).await?;
    let upgrade = &plan["upgrades"][0];
    ensure!(checked(upgrade) == BTreeSet::from(["NotAsked"]) && plan["seesNodes"] == false, "{plan}");
    let ways = ways(upgrade);
    ensure!(ways.values().filter(|way| *way == GATED).count() == 1, "one pod is left: {ways:?}");
    let told = ask(&["status", "ipu"], NOT_READY).await?;
    ensure!(told["items"][0]["counts"]["updatedReady"] == 1, "{told}");

    let hash = test.target_hash("web");
    test.edit("web", json!({"spec": {"approval": {"targetHash": hash, "throughStep": 1}}})).await?;
    let args = ["watch", "ipu/web", "--timeout", "10m"];
    let watched = springtide(&file, &test.namespace, &args, "").await?;
    ensure!(code(&watched) == Some(FINE), "{}", said(&watched));
    // Where not even that may be read, the server's words.
    for verb in ["explain", "plan", "status", "watch"] {
        let other = springtide(&file, "default", &[verb, "ipu/web"], "").await?;
        ensure!(code(&other) == Some(ERROR), "{verb}: {}", said(&other));
        ensure!(String::from_utf8_lossy(&other.stderr).contains("forbidden"), "{verb}: {}", said(&other));
    }
    test.verify()
}
