//! `springtide release`: gives the suite's finalizers back where no manager does it any more.
//!
//! A finalizer keeps an object until its controller has done with it. With the controller gone first,
//! it keeps the object, its namespace and the CRD of its owner for ever; this is the way out.
#![allow(clippy::disallowed_types, reason = "a command of a person writes with that person's rights")]

use anyhow::{Context, Result, bail, ensure};
use clap::Args;
use futures::{StreamExt, stream};
use http_body_util::BodyExt;
use jiff::{SignedDuration, Timestamp, fmt::rfc2822};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{Api, ListParams, ObjectList, PartialObjectMeta, Patch, PatchParams};
use kube::client::Body;
use kube::{Client, ResourceExt};
use springtide_plumbing::client::Connection;
use springtide_plumbing::key::Uid;
use springtide_plumbing::lease::LEASE_NAME;
use springtide_plumbing::plan::{self, Action, remove_finalizer};
use std::collections::BTreeMap;
use std::io::{IsTerminal, Write as _};
use std::path::PathBuf;
use std::sync::Arc;

/// The finalizers that the suite puts on pods.
const POD_FINALIZERS: [&str; 1] = [springtide_batch_job::projections::pod::TRACKING_FINALIZER];
/// Label of the manager's Deployment, whatever the release is called.
const SELECTOR: &str = "app.kubernetes.io/name=springtide";
/// Objects of one page of a list.
const PAGE: u32 = 500;
/// Patches in flight: a cluster in trouble is not to be hurried.
const IN_FLIGHT: usize = 4;
/// Attempts for one object that others write at the same time.
const ATTEMPTS: usize = 5;

/// Options of `springtide release`.
#[derive(Args)]
pub(crate) struct ReleaseArgs {
    /// Only objects of this namespace; all namespaces when absent.
    #[arg(short, long)]
    namespace: Option<String>,
    /// Shows what would be done, and does nothing; beside a running manager too.
    #[arg(long)]
    dry_run: bool,
    /// Does not ask.
    #[arg(short, long)]
    yes: bool,
    /// Goes on though a manager holds its Lease, or nobody may look: jobs that track their pods may
    /// then run a task again.
    #[arg(long)]
    ignore_manager: bool,
    /// Kubeconfig file. Without it: KUBECONFIG, ~/.kube/config, then the pod's service account.
    #[arg(long)]
    kubeconfig: Option<PathBuf>,
    /// Context of the kubeconfig.
    #[arg(long)]
    context: Option<String>,
}

/// Looks, tells, asks, and gives the finalizers back.
///
/// # Errors
/// A manager runs (which is no error of a dry run), the API server refuses, or something could not be given back.
pub(crate) async fn run(args: ReleaseArgs) -> Result<()> {
    let connection = Connection::load(args.kubeconfig.as_deref(), args.context.as_deref()).await?;
    let client = connection.client(&format!("springtide/{} release", env!("CARGO_PKG_VERSION")))?;
    // To look does no harm, and tells when the manager has given everything back.
    if !(args.dry_run || args.ignore_manager) {
        refuse_beside_a_manager(&client).await?;
    }
    let held = held(&client, args.namespace.as_deref()).await?;
    if held.is_empty() {
        println!("Nothing holds a finalizer of Springtide.");
        return Ok(());
    }
    let mut namespaces = BTreeMap::<&str, usize>::new();
    for pod in &held {
        *namespaces.entry(&pod.namespace).or_default() += 1;
    }
    println!("Pods that hold a finalizer of Springtide ({}):", POD_FINALIZERS.join(", "));
    for (namespace, count) in namespaces {
        println!("  {namespace}: {count}");
    }
    println!(
        "Without it a pod that is deleted goes at once, and its job cannot count what it came to. \
         Pods that nobody deletes run on."
    );
    if args.dry_run {
        println!("Dry run: nothing was changed.");
        return Ok(());
    }
    if !args.yes && !confirmed(held.len())? {
        println!("Nothing was changed.");
        return Ok(());
    }
    let count = held.len();
    let failures: Vec<String> = stream::iter(held)
        .map(|pod| {
            let client = client.clone();
            async move {
                let name = format!("{}/{}", pod.namespace, pod.name);
                give_back(client, pod).await.err().map(|error| format!("{name}: {error:#}"))
            }
        })
        .buffer_unordered(IN_FLIGHT)
        .filter_map(std::future::ready)
        .collect()
        .await;
    println!("Given back: {} of {count}.", count - failures.len());
    if !failures.is_empty() {
        bail!("not given back:\n  {}", failures.join("\n  "));
    }
    Ok(())
}

/// A pod with finalizers, at least one of them ours.
struct Held {
    namespace: String,
    name: String,
    uid: Uid,
    finalizers: Vec<Arc<str>>,
}

impl Held {
    fn of(pod: &PartialObjectMeta<Pod>) -> Option<Self> {
        let finalizers: Vec<Arc<str>> = pod.finalizers().iter().map(|held| held.as_str().into()).collect();
        let ours = |held: &Arc<str>| POD_FINALIZERS.contains(&held.as_ref());
        finalizers.iter().any(ours).then(|| Self {
            namespace: pod.namespace().unwrap_or_default(),
            name: pod.name_any(),
            uid: Uid(pod.uid().unwrap_or_default().into()),
            finalizers,
        })
    }

    /// The patch that takes our first finalizer away.
    fn patch(&self) -> Option<Result<Patch<()>>> {
        let Action::Patch { patch: plan::Patch::Json { operations }, .. } =
            POD_FINALIZERS.iter().find_map(|ours| remove_finalizer(&self.uid, &self.finalizers, ours))?
        else {
            return None;
        };
        Some(serde_json::from_value(operations).map(Patch::Json).context("build the patch"))
    }
}

/// By the finalizer and not by labels, which their users may take off.
async fn held(client: &Client, namespace: Option<&str>) -> Result<Vec<Held>> {
    let pods: Api<Pod> = match namespace {
        Some(namespace) => Api::namespaced(client.clone(), namespace),
        None => Api::all(client.clone()),
    };
    let mut held = Vec::new();
    let mut page = ListParams::default().limit(PAGE);
    loop {
        let list = pods.list_metadata(&page).await.context("list the pods")?;
        held.extend(list.items.iter().filter_map(Held::of));
        match list.metadata.continue_.filter(|token| !token.is_empty()) {
            Some(token) => page = page.continue_token(&token),
            None => return Ok(held),
        }
    }
}

/// Takes our finalizers off one pod, however often others write it meanwhile.
async fn give_back(client: Client, mut pod: Held) -> Result<()> {
    let pods: Api<Pod> = Api::namespaced(client, &pod.namespace);
    for _ in 0..ATTEMPTS {
        let Some(patch) = pod.patch() else { return Ok(()) };
        match pods.patch_metadata(&pod.name, &PatchParams::default(), &patch?).await {
            Ok(_) => {}
            Err(kube::Error::Api(status)) if status.code == 404 => return Ok(()),
            // A test of the patch has failed: somebody else has written the finalizers.
            Err(kube::Error::Api(status)) if [409, 422].contains(&status.code) => {}
            Err(error) => return Err(error.into()),
        }
        // Gone, or another pod of that name that holds none of ours: done.
        let now = pods.get_metadata_opt(&pod.name).await?;
        match now.as_ref().and_then(Held::of).filter(|now| now.uid == pod.uid) {
            Some(now) => pod = now,
            None => return Ok(()),
        }
    }
    bail!("others write it all the time; try again")
}

/// A manager that runs gives its finalizers back by itself, and puts new ones on new pods.
async fn refuse_beside_a_manager(client: &Client) -> Result<()> {
    let path = format!("/apis/coordination.k8s.io/v1/leases?fieldSelector=metadata.name%3D{LEASE_NAME}");
    let response = client.send(http::Request::get(path).body(Body::empty())?).await?;
    ensure!(
        response.status().is_success(),
        "cannot see whether a manager runs (listing Leases: {}); make sure that none does, and pass --ignore-manager",
        response.status()
    );
    // The server's clock, not ours: it is that of the cluster, near enough to the holder's.
    let date = response.headers().get(http::header::DATE).and_then(|date| date.to_str().ok());
    let now =
        date.and_then(|date| rfc2822::parse(date).ok()).map_or_else(Timestamp::now, |at| at.timestamp());
    let body = response.into_body().collect().await?.to_bytes();
    let leases: ObjectList<Lease> = serde_json::from_slice(&body).context("read the Leases")?;
    for lease in &leases {
        if let Some(holder) = holder_at(lease, now) {
            let namespace = lease.namespace().unwrap_or_default();
            bail!(
                "the manager {holder} runs (Lease {namespace}/{LEASE_NAME}), and gives finalizers back by itself; \
                 end it first, as by `kubectl -n {namespace} scale deployment -l {SELECTOR} --replicas=0`"
            );
        }
    }
    Ok(())
}

/// Who holds the Lease, unless it has expired by then.
fn holder_at(lease: &Lease, now: Timestamp) -> Option<&str> {
    let spec = lease.spec.as_ref()?;
    let holder = spec.holder_identity.as_deref().filter(|holder| !holder.is_empty())?;
    let duration = SignedDuration::from_secs(spec.lease_duration_seconds.unwrap_or_default().into());
    let renewed = spec.renew_time.as_ref()?.0;
    (renewed + duration > now).then_some(holder)
}

fn confirmed(count: usize) -> Result<bool> {
    ensure!(std::io::stdin().is_terminal(), "not a terminal: pass --yes to go on, or --dry-run to look");
    print!("Give back the finalizers of {count} pods? [y/N] ");
    std::io::stdout().flush()?;
    let mut answer = String::new();
    std::io::stdin().read_line(&mut answer)?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn pod(finalizers: &[&str]) -> PartialObjectMeta<Pod> {
        serde_json::from_value(json!({
            "apiVersion": "meta.k8s.io/v1", "kind": "PartialObjectMetadata",
            "metadata": {"namespace": "n", "name": "p", "uid": "u", "finalizers": finalizers},
        }))
        .unwrap()
    }

    #[test]
    fn only_a_finalizer_of_ours_is_taken_away() {
        assert!(Held::of(&pod(&["foregroundDeletion"])).is_none());
        let held = Held::of(&pod(&["example.com/theirs", POD_FINALIZERS[0]])).unwrap();
        let Patch::Json(patch) = held.patch().unwrap().unwrap() else { panic!("a JSON patch") };
        let patch = serde_json::to_value(patch).unwrap();
        assert_eq!(patch[2], json!({"op": "remove", "path": "/metadata/finalizers/1"}));
        assert_eq!(patch[0], json!({"op": "test", "path": "/metadata/uid", "value": "u"}));
    }

    #[test]
    fn a_lease_that_is_released_or_expired_is_held_by_nobody() {
        let lease = |holder: &str| -> Lease {
            serde_json::from_value(json!({"spec": {
                "holderIdentity": holder, "leaseDurationSeconds": 30, "renewTime": "2026-11-01T00:00:00.000000Z",
            }}))
            .unwrap()
        };
        let at = |seconds| {
            "2026-11-01T00:00:00Z".parse::<Timestamp>().unwrap() + SignedDuration::from_secs(seconds)
        };
        assert_eq!(holder_at(&lease("a"), at(29)), Some("a"));
        assert_eq!(holder_at(&lease("a"), at(30)), None);
        assert_eq!(holder_at(&lease(""), at(1)), None);
    }
}
