//! What jobs cost the API server.

use anyhow::{Result, ensure};
use springtide_crds::batch_job::BatchJobSpec;

use super::Testbed;
use crate::local_cluster::LocalCluster;
use crate::manager::USER_AGENT;
use crate::write_count::WriteCount;

/// The writes that whole lives of jobs with one task take, from their creation until every object is
/// gone: those of the manager, and those of all components. Events apart: those of scheduler and
/// kubelet are the same for every batch system. Refused requests count; the jobs get a TTL of 0.
///
/// # Errors
/// A job does not end, an oracle has seen something that may never be, or there is no audit log.
pub async fn writes_of_jobs(
    cluster: &LocalCluster,
    jobs: usize,
    spec: BatchJobSpec,
) -> Result<[WriteCount; 2]> {
    let test = Testbed::new(cluster, "count").await?;
    let prepared = test.requests()?.writes().len();
    let spec = BatchJobSpec { ttl_seconds_after_finished: Some(0), ..spec };
    test.submit_many("job", jobs, &spec).await?;
    for number in 0..jobs {
        let name = format!("job-{number}");
        test.gone(&name).await?;
        test.no_pods(&name).await?;
        test.pods.now().exactly_one_run(&name, 1)?;
    }
    test.verify()?;
    let all = test.requests()?.writes();
    // The namespace's own beginning is no cost of jobs.
    let of_jobs = |kind: &str| kind.starts_with("pods") || kind.starts_with("batchjobs");
    let all = all.filter(|request| of_jobs(&request.resource));
    ensure!(prepared < 10, "a namespace that is being used: {prepared} writes");
    Ok([all.by_agent(USER_AGENT), all])
}
