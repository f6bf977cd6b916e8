//! Who gets the room on a full node: the pods that it is given up for, and nobody else.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{Api, DeleteParams, Patch, PatchParams};
use kube::runtime::wait::{await_condition, conditions};
use serde_json::json;
use springtide_crds::time_share_group::{Order, TimeShareGroup};
use springtide_e2e::fault_proxy::{Class, Fault, Latency, When};
use springtide_e2e::node::program::BOX_IMAGE;
use springtide_e2e::oracle::feed::PATIENCE;
use springtide_e2e::time_share::node_member::{CONTAINER, NodeMember};
use springtide_e2e::time_share::node_stage::{GROUP, NodeStage};
use springtide_e2e::time_share::sizes::{SizedPod, Sizes};
use springtide_e2e::time_share::third_pods::THIRD;
use springtide_time_share_group::sizes::Level;

use super::{Proxied, TURN, shared, told};

/// Pods of each member.
const PAIRS: u32 = 4;
/// How late each resize of a pod that grows is, where the API is slow.
const LATE: Duration = Duration::from_secs(2);

fn pairs() -> [NodeMember; 2] {
    ["pay", "promo"].map(|name| NodeMember::new(name, PAIRS, "300m", "50m"))
}

/// Fills the node for both members, gives the first one the peak, and has a third pod wait for room, that fits as soon as one
/// of a pair is small while the other one is not large yet.
async fn full(stage: &NodeStage<'_>, [pay, promo]: &[NodeMember; 2], order: Order) -> Result<()> {
    stage.start(pay).await?;
    stage.start(promo).await?;
    stage.fill(i64::from(PAIRS) * 250).await?;
    stage.group(&[pay, promo], |spec| spec.switch.order = order).await?;
    stage.switch_to(Some("pay")).await?;
    let third = json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": THIRD, "labels": {"app": THIRD}},
        "spec": {"terminationGracePeriodSeconds": 0, "containers": [{
            "name": "main", "image": BOX_IMAGE, "args": ["pause"], "resources": {"requests": {"cpu": "200m"}},
        }]},
    });
    stage.test.create::<Pod>(third).await?;
    let waits = |sizes: &Sizes| {
        let conditions = sizes.named(THIRD)?.pod.status.as_ref()?.conditions.as_ref()?;
        let scheduled = conditions.iter().find(|condition| condition.type_ == "PodScheduled")?;
        (scheduled.reason.as_deref() == Some("Unschedulable")).then_some(())
    };
    stage.sizes.until("the third pod waits for room", waits).await
}

/// Whether the third pod has found room.
fn is_bound(stage: &NodeStage<'_>) -> bool {
    stage.sizes.now().named(THIRD).is_some_and(SizedPod::is_bound)
}

async fn without_third(stage: &NodeStage<'_>) -> Result<()> {
    let pods: Api<Pod> = stage.test.api();
    pods.delete(THIRD, &DeleteParams::default()).await?;
    let gone = |sizes: &Sizes| sizes.named(THIRD).is_none().then_some(());
    stage.sizes.until("the third pod is gone", gone).await
}

#[tokio::test]
async fn four_pairs_switch_on_a_full_node_while_another_pod_waits_for_room() -> Result<()> {
    let _turn = TURN.lock().await;
    let Some(bed) = shared().await? else { return Ok(()) };
    let stage = NodeStage::new(&bed.cluster, "pairs").await?;
    let members = pairs();
    full(&stage, &members, Order::Pipelined).await?;
    let before = ["pay", "promo"].map(|name| stage.sizes.now().identities(name));
    for (to, sizes) in [("promo", [Level::Valley, Level::Peak]), ("pay", [Level::Peak, Level::Valley])] {
        let group = stage.switch_to(Some(to)).await?;
        let transition = group.status.as_ref().and_then(|status| status.transition.as_ref());
        let units = transition.context("a transition")?.units;
        ensure!((units.total, units.done) == (PAIRS, PAIRS), "{}", told(&group));
        for (member, level) in members.iter().zip(sizes) {
            stage.ensure_at(member, level)?;
        }
        ensure!(!is_bound(&stage), "the third pod has got room that is not its own");
    }
    for (name, before) in ["pay", "promo"].into_iter().zip(&before) {
        stage.sizes.now().ensure_same(name, before)?;
    }
    // It was room that it waited for: when nobody has the peak, it starts.
    stage.switch_to(None).await?;
    let runs = await_condition(stage.test.api::<Pod>(), THIRD, conditions::is_pod_running());
    tokio::time::timeout(PATIENCE, runs).await.context("the third pod does not start")??;
    stage.ensure_never_overcommitted().await?;
    stage.test.verify()?;
    without_third(&stage).await?;
    stage.test.clear().await
}

#[tokio::test]
async fn a_slow_api_gives_room_away_only_where_a_pod_shrinks_before_another_one_asks() -> Result<()> {
    let _turn = TURN.lock().await;
    let Some(Proxied { manager, proxy, cluster }) = Proxied::start().await? else { return Ok(()) };
    let members = pairs();
    for (order, is_lost) in [(Order::ClaimFirst, false), (Order::ShrinkFirst, true)] {
        let stage = NodeStage::new(&cluster, "slow").await?;
        full(&stage, &members, order).await?;
        let mut late = Vec::new();
        for pod in stage.sizes.now().of("promo") {
            let resizes = Class::writes().resource("pods/resize").name(&pod.name());
            late.push(proxy.fault(resizes, When::Always, Fault::Delay(Latency::Fixed(LATE))));
        }
        if is_lost {
            stage.ask_for(Some("promo")).await?;
            let bound = |sizes: &Sizes| sizes.named(THIRD).filter(|third| third.is_bound()).map(|_| ());
            stage.sizes.until("the third pod takes the room of a pod that has shrunk", bound).await?;
        } else {
            stage.switch_to(Some("promo")).await?;
            stage.ensure_at(&members[1], Level::Peak)?;
            ensure!(!is_bound(&stage), "the third pod has got room that is not its own");
        }
        late.into_iter().for_each(|rule| proxy.remove(rule));
        stage.ensure_never_overcommitted().await?;
        without_third(&stage).await?;
        stage.test.clear().await?;
    }
    Proxied { manager, proxy, cluster }.stop()
}

#[tokio::test]
async fn resizes_of_others_that_wait_keep_units_from_beginning_and_let_them_go_on_when_they_are_withdrawn()
-> Result<()> {
    let _turn = TURN.lock().await;
    let Some(bed) = shared().await? else { return Ok(()) };
    let stage = NodeStage::new(&bed.cluster, "waiting").await?;
    let members = [NodeMember::new("pay", 2, "300m", "50m"), NodeMember::new("promo", 2, "300m", "50m")];
    // Two strangers, for one of whom more is asked than there is.
    let stranger = NodeMember::new("stranger", 2, "100m", "100m");
    stage.start(&stranger).await?;
    for member in &members {
        stage.start(member).await?;
    }
    stage.fill(500).await?;
    stage.group(&[&members[0], &members[1]], |_| {}).await?;
    stage.switch_to(Some("pay")).await?;
    let pods: Api<Pod> = stage.test.api();
    let names: Vec<String> = stage.sizes.now().of("stranger").iter().map(|pod| pod.name()).collect();
    let resize = async |name: &str, cpu: &str| {
        let resources = json!({"requests": {"cpu": cpu}, "limits": {"cpu": cpu}});
        let change = json!({"spec": {"containers": [{"name": CONTAINER, "resources": resources}]}});
        let resized = pods.patch_resize(name, &PatchParams::default(), &Patch::Strategic(change)).await;
        resized.map(drop).with_context(|| format!("resize {name}"))
    };
    for name in &names {
        resize(name, "400m").await?;
    }
    let wait = |sizes: &Sizes| {
        let deferred = |name: &&String| {
            let pending = sizes.named(name).and_then(|pod| pod.pending.as_ref());
            pending.is_some_and(|pending| pending.reason == "Deferred")
        };
        (names.iter().filter(deferred).count() == names.len()).then_some(())
    };
    stage.sizes.until("both resizes wait", wait).await?;

    // By what specs ask for, nothing fits: whoever has the peak keeps it and its traffic.
    stage.ask_for(Some("promo")).await?;
    let group = stage.settled_with_skips(Some("promo")).await?;
    let units = group.status.as_ref().and_then(|status| Some(status.transition.as_ref()?.units));
    ensure!(units.is_some_and(|units| units.done == 0), "{}", told(&group));
    stage.ensure_at(&members[0], Level::Peak).with_context(|| told(&group))?;
    for name in &names {
        resize(name, "100m").await?;
    }
    stage.settled(Some("promo")).await?;
    stage.ensure_at(&members[0], Level::Valley)?;
    stage.ensure_at(&members[1], Level::Peak)?;
    stage.ensure_never_overcommitted().await?;
    stage.test.verify()?;
    stage.test.clear().await
}

#[tokio::test]
async fn a_pod_of_two_containers_may_grow_in_one_and_shrink_in_the_other() -> Result<()> {
    let _turn = TURN.lock().await;
    let Some(bed) = shared().await? else { return Ok(()) };
    let stage = NodeStage::new(&bed.cluster, "containers").await?;
    let beside = json!({
        "name": "beside", "image": BOX_IMAGE, "args": ["sleep", "100000"],
        "resources": {"requests": {"cpu": "50m"}, "limits": {"cpu": "50m"}},
    });
    let pay = NodeMember::new("pay", 1, "300m", "50m").container(beside);
    let promo = NodeMember::new("promo", 1, "400m", "50m");
    stage.test.create::<Deployment>(pay.manifest()).await?;
    stage.start(&promo).await?;
    let up = |sizes: &Sizes| {
        let pods = sizes.of("pay");
        (pods.len() == 1 && pods.iter().all(|pod| pod.is_up() && pod.is_resized())).then_some(())
    };
    stage.sizes.until("both containers are up", up).await?;
    // At peak 400m in all, and so has the other one.
    stage.fill(350).await?;
    let sized = |[app, beside]: [&str; 2]| {
        let of =
            |name: &str, peak: &str| json!({"name": name, "peak": {"cpu": peak}, "valley": {"cpu": "50m"}});
        json!([of(CONTAINER, app), of("beside", beside)])
    };
    let containers = serde_json::from_value(sized(["300m", "100m"]))?;
    stage
        .group(&[&pay, &promo], |spec| {
            if let Some(member) = spec.members.first_mut() {
                member.containers = containers;
            }
        })
        .await?;
    stage.switch_to(Some("pay")).await?;
    let asks = |sizes: &Sizes, app: &str, beside: &str| {
        let pods = sizes.of("pay");
        let [pod] = pods.as_slice() else { return None };
        let statuses = pod.pod.status.as_ref()?.container_statuses.as_ref()?;
        let has = |name: &str, cpu: &str| {
            let status = statuses.iter().find(|status| status.name == name);
            let requests = status.and_then(|status| status.resources.as_ref()?.requests.as_ref());
            requests.and_then(|requests| requests.get("cpu")).is_some_and(|amount| amount.0 == cpu)
        };
        (pod.is_resized() && has(CONTAINER, app) && has("beside", beside)).then_some(())
    };
    stage.sizes.until("its peak is in force", |sizes| asks(sizes, "300m", "100m")).await?;
    // As much in sum: one grows by what the other one gives up.
    let mut group = stage.test.api::<TimeShareGroup>().get(GROUP).await?;
    group.spec.members[0].containers = serde_json::from_value(sized(["100m", "300m"]))?;
    let members = serde_json::to_value(&group.spec.members)?;
    stage.edit(json!({"spec": {"members": members}})).await?;
    stage.sizes.until("its other peak is in force", |sizes| asks(sizes, "100m", "300m")).await?;
    stage.settled(Some("pay")).await?;
    stage.switch_to(Some("promo")).await?;
    stage.ensure_at(&promo, Level::Peak)?;
    stage.sizes.until("its valley is in force", |sizes| asks(sizes, "50m", "50m")).await?;
    stage.ensure_never_overcommitted().await?;
    stage.test.verify()?;
    stage.test.clear().await
}
