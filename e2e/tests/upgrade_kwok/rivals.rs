//! Whoever holds what Git has, and applies it again and again: neither writes what the other one has written.

use std::fmt::Debug;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::apps::v1::{Deployment, StatefulSet};
use kube::Resource;
use kube::api::{Api, Patch, PatchParams};
use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};
use springtide_crds::in_place_upgrade::{FieldOwnership, StalledReason};
use springtide_e2e::batch::long;
use springtide_e2e::kwok::RESTART_SECONDS;
use springtide_e2e::upgrade::cost::workload_writes;
use springtide_e2e::upgrade::replacements::Replacements;
use springtide_e2e::upgrade::workload::{CONTAINER, in_two_steps};
use springtide_e2e::upgrade::{Signal, Testbed, Workload, image, native, shared};
use tokio::task::JoinHandle;

/// As kustomize-controller calls itself.
const MANAGER: &str = "kustomize-controller";
/// Between two applies.
const EVERY: Duration = Duration::from_secs(1);
/// Applies after the end of a run: of the long run ten minutes, ...
const AFTER: u64 = 600;
/// ... and of the sample.
const AFTER_SAMPLE: u64 = 5;

/// Somebody who applies a manifest every second and takes the fields that are in it, until it is dropped.
struct Rival {
    applied: Arc<AtomicU64>,
    task: JoinHandle<Result<()>>,
}

impl Drop for Rival {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Rival {
    fn start<K>(api: Api<K>, manifest: Value) -> Result<Self>
    where
        K: Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug + Send + Sync + 'static,
    {
        let applied = Arc::new(AtomicU64::new(0));
        let count = Arc::clone(&applied);
        let name = manifest["metadata"]["name"].as_str().context("a name")?.to_owned();
        let task: JoinHandle<Result<()>> = tokio::spawn(async move {
            let params = PatchParams::apply(MANAGER).force();
            loop {
                api.patch(&name, &params, &Patch::Apply(&manifest)).await.context("what Git has")?;
                count.fetch_add(1, Ordering::Relaxed);
                tokio::time::sleep(EVERY).await;
            }
        });
        Ok(Self { applied, task })
    }

    /// Waits until it has applied its manifest so often more.
    async fn has_applied(&self, more: u64) -> Result<()> {
        let wanted = self.applied.load(Ordering::Relaxed) + more;
        while self.applied.load(Ordering::Relaxed) < wanted {
            ensure!(!self.task.is_finished(), "an apply of the rival was refused");
            tokio::time::sleep(EVERY / 10).await;
        }
        Ok(())
    }

    /// Goes on after the end of a run.
    async fn goes_on(&self) -> Result<()> {
        self.has_applied(if long() { AFTER } else { AFTER_SAMPLE }).await
    }
}

/// The generation of a native object.
async fn generation(test: &Testbed<'_>, workload: &Workload) -> Result<u64> {
    let object = native::object(test, workload).await?;
    object["metadata"]["generation"].as_u64().context("a generation")
}

/// The container of a manifest's template that is upgraded.
fn container(manifest: &mut Value) -> Result<&mut Map<String, Value>> {
    let containers = manifest["spec"]["template"]["spec"]["containers"].as_array_mut();
    let found = containers.into_iter().flatten().find(|container| container["name"] == CONTAINER);
    found.and_then(Value::as_object_mut).context("the container")
}

#[tokio::test]
async fn a_paused_deployment_that_git_applies_every_second_is_never_written() -> Result<()> {
    let test = Testbed::new(shared().await?, "rival-locked").await?;
    let web = Workload::deployment("web", 4).annotated(RESTART_SECONDS, "0.5");
    let before = test.start_paused(&web).await?;
    let oracle = Replacements::watch(&test).await?;
    let mut git = web.manifest();
    git["spec"]["paused"] = json!(true);
    let rival = Rival::start::<Deployment>(test.api(), git.clone())?;
    rival.has_applied(2).await?;
    drop(rival);
    // Somebody merges the new image.
    container(&mut git)?.insert("image".to_owned(), json!(image(2)));
    test.upgrade("web", web.one_by_one()).await?;
    let mark = test.mark()?;
    let rival = Rival::start::<Deployment>(test.api(), git)?;
    rival.has_applied(1).await?;
    let merged = generation(&test, &web).await?;
    test.succeeded("web", "").await?;
    rival.goes_on().await?;
    native::agrees(&test, &web).await?;
    test.running(&web, &image(2), 4).await?;
    let written = workload_writes(&test.requests_since(mark)?);
    ensure!(written.of_resource("deployments").is_empty(), "{written}");
    ensure!(generation(&test, &web).await? == merged, "somebody has something to say each time");
    test.pods.now().ensure_same("web", &before)?;
    oracle.ensure_none()?;
    test.verify()
}

/// A StatefulSet in two steps, beside a rival whose manifest has its partition, or has not.
async fn beside_a_partition(prefix: &str, is_gits: bool) -> Result<u64> {
    let test = Testbed::new(shared().await?, prefix).await?;
    let db = Workload::stateful_set("db", 3).annotated(RESTART_SECONDS, "0.5");
    let before = test.start(&db).await?;
    let oracle = Replacements::watch(&test).await?;
    test.set_image(&db, &image(2)).await?;
    let mut git = db.manifest();
    container(&mut git)?.insert("image".to_owned(), json!(image(2)));
    if !is_gits {
        git["spec"]["updateStrategy"] = json!({"type": "RollingUpdate"});
    }
    let rival = Rival::start::<StatefulSet>(test.api(), git)?;
    rival.has_applied(1).await?;
    let merged = generation(&test, &db).await?;
    let mark = test.mark()?;
    let mut spec = db.one_by_one();
    spec.strategy.steps = in_two_steps(1);
    test.upgrade("db", spec).await?;
    test.succeeded("db", "").await?;
    rival.goes_on().await?;
    native::agrees(&test, &db).await?;
    test.running(&db, &image(2), 3).await?;
    let written = workload_writes(&test.requests_since(mark)?).successful();
    let own = written.of_resource("statefulsets").len() as u64;
    let moved = generation(&test, &db).await? - merged;
    test.pods.now().ensure_same("db", &before)?;
    oracle.ensure_none()?;
    test.verify()?;
    // What moves beyond our own writes is the rival's.
    Ok(moved.saturating_sub(own))
}

#[tokio::test]
async fn a_partition_that_git_leaves_alone_is_lowered_and_raised_by_nobody_else() -> Result<()> {
    let foreign = beside_a_partition("rival-partition", false).await?;
    ensure!(foreign == 0, "the rival has changed it {foreign} times");
    Ok(())
}

#[tokio::test]
async fn a_partition_that_git_insists_on_comes_to_the_same_end() -> Result<()> {
    let foreign = beside_a_partition("rival-insists", true).await?;
    println!("the rival has taken the partition back {foreign} times");
    Ok(())
}

#[tokio::test]
async fn a_deployment_whose_image_git_leaves_alone_is_written_twice_for_a_transient_run() -> Result<()> {
    let test = Testbed::new(shared().await?, "rival-transient").await?;
    let web = Workload::deployment("web", 3).signal(Signal::None).annotated(RESTART_SECONDS, "0.5");
    let before = test.start(&web).await?;
    let oracle = Replacements::watch(&test).await?;
    let mut git = web.manifest();
    container(&mut git)?.remove("image");
    let rival = Rival::start::<Deployment>(test.api(), git)?;
    rival.has_applied(2).await?;
    let at_first = generation(&test, &web).await?;
    let mark = test.mark()?;
    test.upgrade("web", web.transient(&image(2))).await?;
    test.succeeded("web", "").await?;
    rival.goes_on().await?;
    let deployment = native::agrees(&test, &web).await?;
    ensure!(native::template_image(&deployment) == image(2), "{deployment}");
    ensure!(!deployment["spec"]["paused"].as_bool().unwrap_or_default(), "{deployment}");
    test.running(&web, &image(2), 3).await?;
    let written = workload_writes(&test.requests_since(mark)?);
    ensure!(written.of_resource("deployments").len() == 2, "pause with template, and un-pause:\n{written}");
    ensure!(generation(&test, &web).await? == at_first + 2, "the rival has something to say each time");
    test.pods.now().ensure_same("web", &before)?;
    oracle.ensure_none()?;
    test.verify()
}

#[tokio::test]
async fn an_image_that_git_has_is_refused_and_the_rival_goes_on_as_before() -> Result<()> {
    let test = Testbed::new(shared().await?, "rival-refused").await?;
    let web = Workload::deployment("web", 2).signal(Signal::None);
    let before = test.start(&web).await?;
    let oracle = Replacements::watch(&test).await?;
    let rival = Rival::start::<Deployment>(test.api(), web.manifest())?;
    rival.has_applied(1).await?;
    let at_first = generation(&test, &web).await?;
    let mut spec = web.transient(&image(2));
    spec.policy.field_ownership = FieldOwnership::Refuse;
    test.upgrade("web", spec).await?;
    test.told("web", StalledReason::FieldOwnershipConflict).await?;
    rival.goes_on().await?;
    ensure!(generation(&test, &web).await? == at_first);
    test.running(&web, &image(1), 2).await?;
    test.pods.now().ensure_same("web", &before)?;
    oracle.ensure_none()?;
    test.verify()
}
