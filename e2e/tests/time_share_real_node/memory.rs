//! Memory that moves with cpu, unless a pod uses it.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use springtide_e2e::node::PodLimits;
use springtide_e2e::node::metrics_server::MetricsServer;
use springtide_e2e::oracle::feed::PATIENCE;
use springtide_e2e::polling::until_seen;
use springtide_e2e::time_share::node_member::NodeMember;
use springtide_e2e::time_share::node_stage::NodeStage;
use springtide_e2e::time_share::sizes::Sizes;
use springtide_e2e::upgrade::traffic::PROGRAM;
use springtide_plumbing::quantity::parse_amount;
use springtide_time_share_group::sizes::Level;

use super::{TURN, shared, told};

/// What pods have at peak and at valley, and what one of them comes to use in between.
const PEAK: &str = "256Mi";
const VALLEY: &str = "64Mi";
const USED: &str = "128Mi";
const USED_BYTES: i64 = 128 << 20;
/// For a process to have taken its memory, and for the kubelet to know: it measures every ten seconds.
const TAKEN: Duration = Duration::from_secs(15);

/// Waits until the metrics server says that a pod uses at least so many bytes.
async fn uses(stage: &NodeStage<'_>, pod: &str, bytes: i64) -> Result<()> {
    let path = format!("/apis/metrics.k8s.io/v1beta1/namespaces/{}/pods/{pod}", stage.test.namespace);
    until_seen(PATIENCE, &format!("{pod} uses {bytes} bytes"), async || {
        // Before it was measured for the first time, it is not there.
        let Ok(printed) = stage.test.kubectl(&["get", "--raw", &path]).await else {
            return Ok(Err("nothing".to_owned()));
        };
        let metrics: Value = serde_json::from_str(&printed)?;
        let used = metrics["containers"][0]["usage"]["memory"].as_str().unwrap_or_default();
        let is_enough = parse_amount("memory", used).is_some_and(|used| used >= bytes);
        Ok(if is_enough { Ok(()) } else { Err(used.to_owned()) })
    })
    .await
}

#[tokio::test]
async fn memory_moves_with_cpu_and_stays_with_a_pod_that_uses_it() -> Result<()> {
    let _turn = TURN.lock().await;
    let Some(bed) = shared().await? else { return Ok(()) };
    let metrics = MetricsServer::start(&bed.cluster).await?;
    let stage = NodeStage::new(&bed.cluster, "memory").await?;
    let [pay, promo] =
        ["pay", "promo"].map(|name| NodeMember::new(name, 1, "600m", "50m").memory(PEAK, VALLEY));
    let before = [stage.start(&pay).await?, stage.start(&promo).await?];
    stage.fill(550).await?;
    stage.group(&[&pay, &promo], |_| {}).await?;
    let [pay_pod, promo_pod] =
        [&before[0], &before[1]].map(|pods| pods.keys().next().cloned().unwrap_or_default());
    for pod in [&pay_pod, &promo_pod] {
        uses(&stage, pod, 1).await?;
    }
    for (to, sizes) in [
        ("pay", [Level::Peak, Level::Valley]),
        ("promo", [Level::Valley, Level::Peak]),
        ("pay", [Level::Peak, Level::Valley]),
    ] {
        let group = stage.switch_to(Some(to)).await?;
        for (member, level) in [&pay, &promo].into_iter().zip(sizes) {
            stage.ensure_at(member, level).with_context(|| told(&group))?;
        }
    }

    // It comes to use more than it is to be left with. First only its kubelet may know, then the metrics server does too.
    let plane = bed.plane();
    let (namespace, pod) = (stage.test.namespace.clone(), pay_pod.clone());
    let user = tokio::spawn(async move {
        let args = ["exec", "--namespace", &namespace, &pod, "--", PROGRAM, "hold", USED, "100000"];
        plane.kubectl(&args).await
    });
    tokio::time::sleep(TAKEN).await;
    ensure!(!user.is_finished(), "it does not take its memory: {:?}", user.await);
    let uid = before[0].get(&pay_pod).context("a pod")?.uid.clone();
    let kept = PodLimits {
        cpu_millis: pay.limits(Level::Valley).cpu_millis,
        memory_bytes: pay.limits(Level::Peak).memory_bytes,
    };
    for measured in [false, true] {
        if measured {
            uses(&stage, &pay_pod, USED_BYTES).await?;
        }
        stage.ask_for(Some("promo")).await?;
        let group = stage.ended(Some("promo")).await?;
        let cpu_alone = |sizes: &Sizes| {
            let pod = sizes.named(&pay_pod)?;
            let asked = pod.size.asked;
            let (valley, peak) = (pay.requests(Level::Valley), pay.requests(Level::Peak));
            (pod.is_resized() && asked.cpu == valley.cpu && asked.memory == peak.memory).then_some(())
        };
        stage.sizes.until("cpu alone has moved", cpu_alone).await.with_context(|| told(&group))?;
        let held = bed.cluster.limits_of_pod(&uid)?;
        ensure!(held == kept, "the kernel holds it to {held:?}");
        let large = |sizes: &Sizes| {
            let pod = sizes.named(&promo_pod)?;
            (pod.is_resized() && pod.size.asked.cpu == promo.requests(Level::Peak).cpu).then_some(())
        };
        stage.sizes.until("cpu of the other one has moved", large).await?;
        ensure!(!user.is_finished(), "the process was killed: {:?}", user.await);
        stage.ask_for(Some("pay")).await?;
        stage.ended(Some("pay")).await?;
        stage.all(&pay, Level::Peak).await?;
    }
    for (name, before) in ["pay", "promo"].into_iter().zip(&before) {
        stage.sizes.now().ensure_same(name, before)?;
    }
    stage.ensure_never_overcommitted().await?;
    stage.test.verify()?;
    stage.test.clear().await?;
    // Its pod is gone, so that it ends too, in whatever way.
    tokio::time::timeout(PATIENCE, user).await.context("kubectl goes on without its pod")???;
    metrics.stop()
}
