//! T3: how long one unit takes on a real node, from the moment that the one pod is asked to shrink until the other one has
//! its peak; beside it the same two resizes without a controller.

use std::collections::BTreeMap;

use anyhow::{Context, Result, ensure};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{Api, Patch, PatchParams};
use serde::{Deserialize, Serialize};
use serde_json::json;
use springtide_e2e::bench::on_a_node;
use springtide_e2e::bench::stats::sorted;
use springtide_e2e::manager::USER_AGENT;
use springtide_e2e::node::NodeCluster;
use springtide_e2e::time_share::node_member::{CONTAINER, NodeMember};
use springtide_e2e::time_share::node_stage::NodeStage;
use springtide_e2e::time_share::sizes::Sizes;
use springtide_e2e::upgrade::pods::Identity;
use springtide_e2e::write_count::WriteCount;
use springtide_time_share_group::sizes::Level;

/// Switches, and how often the same is done by hand.
pub(crate) const SWITCHES: usize = 200;
pub(crate) const BY_HAND: usize = 100;
/// A kubelet looks at all resizes that wait so often, in seconds, whatever happens: who waited for that has taken longer.
pub(crate) const RETRY: f64 = 30.0;

/// What was measured, in seconds, sorted.
#[derive(Serialize, Deserialize)]
pub(crate) struct Units {
    /// From the first resize of each unit to the size in force of the pod that grows.
    pub(crate) switched: Vec<f64>,
    /// Resizes that were withdrawn and asked for again, in all switches.
    pub(crate) nudges: u32,
    /// The same without a controller, one resize right after the other.
    pub(crate) by_hand: Vec<f64>,
}

/// Has one pair take turns on a full node, first by the manager, then without it.
pub(crate) async fn measure() -> Result<Option<Units>> {
    let Some((cluster, manager)) = on_a_node(|| Ok(NodeCluster::builder())).await? else { return Ok(None) };
    let stage = NodeStage::new(&cluster, "unit").await?;
    let members = ["pay", "promo"].map(|name| NodeMember::new(name, 1, "600m", "50m"));
    let [pay, promo] = &members;
    let before = [stage.start(pay).await?, stage.start(promo).await?];
    // One of them at its peak fits, and nothing else.
    stage.fill(550).await?;
    stage.group(&[pay, promo], |_| {}).await?;
    stage.switch_to(Some("pay")).await?;
    let names = [only(&before[0])?, only(&before[1])?];
    let (mut switched, mut nudges) = (Vec::new(), 0);
    for number in 0..SWITCHES {
        let [to, from] = if number % 2 == 0 { [1, 0] } else { [0, 1] };
        let mark = stage.test.mark()?;
        let group = stage.switch_to(Some(&members[to].name)).await?;
        nudges += group.status.and_then(|status| Some(status.transition?.nudges)).context("a transition")?;
        let begin = first_resize(&stage.test.requests_since(mark)?, &names[from])?;
        switched.push(end(&stage.sizes.now(), &names[to])?.duration_since(begin).as_secs_f64());
    }
    manager.stop()?;
    let mut by_hand = Vec::new();
    // As many switches: `pay` has the peak again.
    for number in 0..BY_HAND {
        let [to, from] = if number % 2 == 0 { [1, 0] } else { [0, 1] };
        let begin = Timestamp::now();
        resize(&stage, &names[from], &members[from].valley).await?;
        resize(&stage, &names[to], &members[to].peak).await?;
        stage.all(&members[to], Level::Peak).await?;
        by_hand.push(end(&stage.sizes.now(), &names[to])?.duration_since(begin).as_secs_f64());
        stage.all(&members[from], Level::Valley).await?;
    }
    for (member, before) in members.iter().zip(&before) {
        stage.sizes.now().ensure_same(&member.name, before)?;
    }
    stage.ensure_never_overcommitted().await?;
    drop(stage);
    cluster.stop()?;
    ensure!(switched.len() == SWITCHES && by_hand.len() == BY_HAND);
    let (switched, by_hand) = (sorted(switched), sorted(by_hand));
    eprintln!(
        "      half of {SWITCHES} units within {:.3} s, by hand within {:.3} s; {nudges} nudges",
        switched[SWITCHES / 2],
        by_hand[BY_HAND / 2]
    );
    Ok(Some(Units { switched, nudges, by_hand }))
}

fn only(pods: &BTreeMap<String, Identity>) -> Result<String> {
    pods.keys().next().cloned().context("a pod")
}

/// When the API server got the first resize of a pod that the manager sent.
fn first_resize(requests: &WriteCount, pod: &str) -> Result<Timestamp> {
    let own = requests.by_agent(USER_AGENT).writes().successful().of_resource("pods/resize");
    let first = own.requests().iter().find(|request| request.name == pod);
    first.and_then(|request| request.received).with_context(|| format!("no resize of {pod}"))
}

/// When a pod was seen to have in force what its spec asks for now.
fn end(sizes: &Sizes, pod: &str) -> Result<Timestamp> {
    let last = sizes.named(pod).and_then(|pod| pod.asks.last());
    last.and_then(|ask| ask.in_force).with_context(|| format!("{pod} is not resized"))
}

async fn resize(stage: &NodeStage<'_>, pod: &str, cpu: &str) -> Result<()> {
    let resources = json!({"requests": {"cpu": cpu}, "limits": {"cpu": cpu}});
    let change = json!({"spec": {"containers": [{"name": CONTAINER, "resources": resources}]}});
    let pods: Api<Pod> = stage.test.api();
    let resized = pods.patch_resize(pod, &PatchParams::default(), &Patch::Strategic(change)).await;
    resized.map(drop).with_context(|| format!("resize {pod}"))
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn units(longest: f64) -> Units {
        Units { switched: vec![0.1, 0.2, longest], nudges: 1, by_hand: vec![0.09, 0.15] }
    }

    #[test]
    fn what_is_not_there_has_no_time() {
        end(&Sizes::default(), "pay-1").unwrap_err();
        first_resize(&WriteCount::default(), "pay-1").unwrap_err();
    }
}
