//! Reads what decisions about BatchJobs rest on.

use crate::cli::read::{Cluster, Refused, Unread, failure, optional};
use anyhow::Result;
use springtide_batch_job::Settings;
use springtide_batch_job::projections::job::JobView;
use springtide_batch_job::projections::node::NodeView;
use springtide_batch_job::projections::pod::PodView;
use springtide_batch_job::projections::priority_class::PriorityClassView;
use springtide_batch_job::projections::profile::ProfileView;
use springtide_batch_job::projections::queue::QueueView;
use springtide_batch_job::rehearsal::World;
use springtide_plumbing::projection::Projection;
use springtide_plumbing::time_share::{ReferenceGrantView, TimeShareGroupView};
use std::sync::Arc;

/// What could be read.
pub(super) struct Seen {
    pub(super) world: World,
    pub(super) unread: Vec<Unread>,
}

/// Everything that decisions about BatchJobs rest on.
pub(super) async fn read(cluster: &Cluster, settings: Settings) -> Result<Seen> {
    let (jobs, pods, nodes, queues, classes, profiles) = tokio::join!(
        cluster.widest::<JobView>(),
        cluster.widest::<PodView>(),
        cluster.list::<NodeView>(None),
        cluster.widest::<QueueView>(),
        cluster.list::<PriorityClassView>(None),
        cluster.widest::<ProfileView>(),
    );
    let mut unread = Vec::new();
    let (mut jobs, _) =
        jobs?.or_note(&mut unread, "other namespaces may have jobs that take the same room first")?;
    let (pods, all_pods) = pods?.or_note(
        &mut unread,
        "what the pods of other namespaces take on the nodes is not known, so whether a pod fits is not computed",
    )?;
    let (queues, all_queues) = queues?.or_note(&mut unread, "jobs of other namespaces are left out")?;
    if !all_queues {
        jobs.retain(|job| *job.meta().key.namespace == *cluster.namespace);
    }
    let nodes = optional(nodes, "the cluster", &mut unread, "whether a pod fits is not computed")?;
    let names_a_class =
        |queue: &Arc<QueueView>| queue.tiers().iter().any(|tier| tier.priority_class_name.is_some());
    let before = unread.len();
    let consequence = "the PriorityClasses that queues name are taken to be there";
    let priority_classes = optional(classes, "the cluster", &mut unread, consequence)?;
    if !queues.iter().any(names_a_class) {
        unread.truncate(before);
    }
    let nodes = nodes.filter(|_| all_pods);
    let (profiles, _) =
        profiles?.or_note(&mut unread, "what profiles of other namespaces give is not known")?;
    let (mut time_share_groups, mut grants) = (Vec::new(), Vec::new());
    if queues.iter().any(|queue| queue.peaks.groups().next().is_some()) {
        let (all_groups, all_grants) = tokio::join!(
            widest_of_optional::<TimeShareGroupView>(cluster),
            widest_of_optional::<ReferenceGrantView>(cluster),
        );
        let consequence = "no peak window is taken to follow a TimeShareGroup that is there";
        time_share_groups =
            optional(all_groups, "the cluster", &mut unread, consequence)?.unwrap_or_default();
        let consequence = "no queue is taken to be granted a TimeShareGroup of another namespace";
        grants = optional(all_grants, "the cluster", &mut unread, consequence)?.unwrap_or_default();
    }
    let world =
        World { jobs, pods, nodes, queues, profiles, priority_classes, time_share_groups, grants, settings };
    Ok(Seen { world, unread })
}

/// A kind that the server may lack, in all namespaces, or in the one that is meant where the caller may not see all.
async fn widest_of_optional<P: Projection>(cluster: &Cluster) -> Result<Vec<Arc<P>>, Refused> {
    match cluster.list(None).await {
        Err(Refused::Forbidden(_)) => cluster.list(Some(&cluster.namespace)).await,
        found @ (Ok(_) | Err(Refused::NotServed(_) | Refused::Failed(_))) => found,
    }
}

/// BatchJobs and BatchQueues of a namespace, or of all.
pub(super) async fn queues_and_jobs(cluster: &Cluster, all: bool) -> Result<World> {
    let namespace = (!all).then_some(cluster.namespace.as_str());
    let (queues, jobs) =
        tokio::join!(cluster.list::<QueueView>(namespace), cluster.list::<JobView>(namespace));
    let (queues, jobs) = (queues.map_err(failure)?, jobs.map_err(failure)?);
    Ok(World { queues, jobs, ..World::default() })
}
