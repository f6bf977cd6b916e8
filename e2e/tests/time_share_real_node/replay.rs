//! The allocator, by which nodes that KWOK plays admit resizes, against a real kubelet: the same resizes, the same answers.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Node, Pod};
use k8s_openapi::api::scheduling::v1::PriorityClass;
use kube::api::{Api, DeleteParams, Patch, PatchParams, PostParams};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde_json::{Value, json};
use springtide_e2e::node::program::BOX_IMAGE;
use springtide_e2e::node::{Allocatable, NODE_NAME, NodeCluster, required_or_skipped};
use springtide_e2e::time_share::sizes::{SizeFeed, SizedPod, Sizes, demand};
use springtide_plumbing::workloads::content::QosClass;
use springtide_time_share_group::allocator::{Allocator, Pending, Rank};
use springtide_time_share_group::sizes::Demand;

use super::{TURN, times};

/// Pods of a sequence, and resizes.
const PODS: usize = 4;
const RESIZES: usize = 8;
/// What the node has, in thousandths of a core: so little that pods are in each other's way.
const NODE_CPU: i64 = 1000;
/// The steps in which cpu is asked for, and the most of one pod.
const STEP_CPU: i64 = 100;
const MOST_STEPS: i64 = 7;
/// Name of the priority of some pods.
const HIGH: &str = "replayed-high";
/// Between two resizes: since when one waits is told in whole seconds, and decides who is next.
const APART: Duration = Duration::from_millis(1200);

/// A pod that is resized, and by what it goes before another one.
struct Player {
    name: String,
    rank: Rank,
}

impl Player {
    fn all(sequence: usize) -> [Self; PODS] {
        let player = |number: usize| Self {
            name: format!("replayed-{sequence}-{number}"),
            rank: Rank {
                priority: if number == 3 { 1000 } else { 0 },
                qos: if number == 2 { QosClass::Guaranteed } else { QosClass::Burstable },
            },
        };
        std::array::from_fn(player)
    }

    fn resources(&self, cpu: i64) -> Value {
        let requests = json!({"cpu": format!("{cpu}m"), "memory": "16Mi"});
        match self.rank.qos {
            QosClass::Guaranteed => json!({"requests": requests, "limits": requests}),
            QosClass::Burstable | QosClass::BestEffort => json!({"requests": requests}),
        }
    }

    fn manifest(&self) -> Value {
        let mut spec = json!({
            "terminationGracePeriodSeconds": 0,
            "containers": [
                {"name": "main", "image": BOX_IMAGE, "args": ["pause"], "resources": self.resources(STEP_CPU)},
            ],
        });
        if self.rank.priority > 0 {
            spec["priorityClassName"] = json!(HIGH);
        }
        let meta = json!({"name": self.name, "labels": {"app": "replayed"}});
        json!({"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": spec})
    }
}

/// What is known of a pod on its node: what is allocated to it, and whether it waits.
fn of_allocator(node: &Allocator, name: &str) -> Option<(i64, bool)> {
    let holding = node.pod(name)?;
    let waits = match holding.pending {
        Some(Pending::Deferred { .. }) => true,
        Some(Pending::Infeasible) | None => false,
    };
    Some((holding.allocated.cpu, waits))
}

/// The same by the kubelet, of a pod that it has nothing more to do for.
fn of_kubelet(pod: &SizedPod) -> Option<(i64, bool)> {
    let waits = pod.pending.as_ref().is_some_and(|pending| pending.reason == "Deferred");
    let observed = pod.pod.status.as_ref().and_then(|status| status.observed_generation);
    let is_quiet = observed >= pod.pod.metadata.generation && pod.size.in_force == pod.size.allocated;
    is_quiet.then_some((pod.size.allocated.cpu, waits))
}

/// Lets everything happen on the played node that follows from what has been asked for.
fn settle(node: &mut Allocator, players: &[Player], now: Timestamp) {
    loop {
        let mut has_changed = false;
        for player in players {
            has_changed |= node.actuate(&player.name);
        }
        if node.retry(now).is_empty() && !has_changed {
            return;
        }
    }
}

/// Both sides of a sequence, pod by pod.
fn states(
    players: &[Player],
    state: impl Fn(&str) -> Option<(i64, bool)>,
) -> Option<BTreeMap<String, (i64, bool)>> {
    players.iter().map(|player| Some((player.name.clone(), state(&player.name)?))).collect()
}

/// Plays one sequence. Returns how many of its answers were that a resize has to wait.
async fn play(pods: &Api<Pod>, feed: &SizeFeed, room: Demand, sequence: usize) -> Result<usize> {
    let mut random = StdRng::seed_from_u64(sequence as u64);
    let players = Player::all(sequence);
    let mut node = Allocator::new(room);
    for player in &players {
        let pod: Pod = serde_json::from_value(player.manifest())?;
        pods.create(&PostParams::default(), &pod).await.with_context(|| format!("create {}", player.name))?;
        let born = Demand { cpu: STEP_CPU, memory: 16 << 20 };
        node.offer(&player.name, born, player.rank, Timestamp::now());
    }
    let kubelet = |sizes: &Sizes| states(&players, |name| of_kubelet(sizes.named(name)?));
    let up = |sizes: &Sizes| {
        players.iter().all(|player| sizes.named(&player.name).is_some_and(SizedPod::is_up)).then_some(())
    };
    feed.until("all pods are up", up).await?;
    let (mut waits, mut history) = (0, Vec::new());
    for _ in 0..RESIZES {
        let player = &players[random.random_range(0..PODS)];
        let cpu = STEP_CPU * random.random_range(1..=MOST_STEPS);
        history.push(format!("{} to {cpu}m", player.name));
        let now = Timestamp::now();
        node.offer(&player.name, Demand { cpu, memory: 16 << 20 }, player.rank, now);
        settle(&mut node, &players, now);
        let change = json!({"spec": {"containers": [{"name": "main", "resources": player.resources(cpu)}]}});
        pods.patch_resize(&player.name, &PatchParams::default(), &Patch::Strategic(change))
            .await
            .with_context(|| format!("resize {}", player.name))?;
        let expected = states(&players, |name| of_allocator(&node, name)).context("all pods are there")?;
        let agrees = |sizes: &Sizes| (kubelet(sizes).as_ref() == Some(&expected)).then_some(());
        feed.until(&format!("sequence {sequence}, {history:?}: {expected:?}"), agrees).await?;
        tokio::time::sleep(APART).await;
        let seen = kubelet(&feed.now());
        ensure!(
            seen.as_ref() == Some(&expected),
            "sequence {sequence}, {history:?}: {expected:?} became {seen:?}"
        );
        waits += expected.values().filter(|(_, waits)| *waits).count();
    }
    for player in &players {
        pods.delete(&player.name, &DeleteParams::default()).await?;
    }
    let gone = |sizes: &Sizes| sizes.of("replayed").is_empty().then_some(());
    feed.until("all pods are gone", gone).await?;
    Ok(waits)
}

#[tokio::test]
async fn random_resizes_are_answered_alike_by_the_allocator_and_by_a_real_kubelet() -> Result<()> {
    let _turn = TURN.lock().await;
    if !required_or_skipped().await? {
        return Ok(());
    }
    let allocatable = Allocatable { cpu_millis: NODE_CPU.unsigned_abs(), memory_bytes: 1 << 30 };
    let cluster = NodeCluster::builder().allocatable(allocatable).start().await?;
    let plane = cluster.control_plane();
    let client = plane.client("springtide-test")?;
    let high = json!({
        "apiVersion": "scheduling.k8s.io/v1", "kind": "PriorityClass", "metadata": {"name": HIGH}, "value": 1000,
        "preemptionPolicy": "Never",
    });
    let classes: Api<PriorityClass> = Api::all(client.clone());
    classes.create(&PostParams::default(), &serde_json::from_value(high)?).await?;
    let namespace = plane.create_namespace("replay").await?;
    let pods: Api<Pod> = Api::namespaced(client.clone(), &namespace);
    let feed = SizeFeed::start(Api::all(client.clone())).await?;
    let node = Api::<Node>::all(client).get(NODE_NAME).await?;
    let room = demand(&node.status.and_then(|status| status.allocatable).context("allocatable")?);
    ensure!(room.cpu == NODE_CPU, "{room:?}");
    let (mut waits, sequences) = (0, times(5, 50));
    for sequence in 0..sequences {
        waits += play(&pods, &feed, room, sequence).await?;
    }
    println!("{waits} answers in {sequences} sequences of {RESIZES} were that a resize has to wait");
    ensure!(waits >= sequences, "hardly anybody had to wait: {waits}");
    let most = feed.now().most_allocated(NODE_NAME);
    ensure!(most.cpu <= room.cpu && most.memory <= room.memory, "{most:?} of {room:?}");
    drop(feed);
    cluster.stop()
}
