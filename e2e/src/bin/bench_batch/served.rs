//! What the API server says that everybody has written on jobs and pods.

use anyhow::Result;
use kube::Client;
use serde::{Deserialize, Serialize};
use springtide_e2e::bench::scrape::Scrape;

/// Resources of a job's life, of BatchJob and of its peers, with their subresources.
const JOBS_AND_PODS: [&str; 4] = ["batchjobs", "jobs", "workloads", "pods"];

/// Writes that the API server has counted, whoever sent them, refused ones too.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Served {
    /// On jobs, of whatever kind, their Workloads and their pods.
    pub(crate) jobs_and_pods: f64,
    /// On Events.
    pub(crate) events: f64,
}

impl Served {
    /// Those until now.
    pub(crate) async fn until_now(client: &Client) -> Result<Self> {
        Ok(Self::of(&Scrape::of_api_server(client).await?))
    }

    fn of(scrape: &Scrape) -> Self {
        Self { jobs_and_pods: scrape.writes_on(&JOBS_AND_PODS), events: scrape.writes_on(&["events"]) }
    }

    /// Those since then.
    pub(crate) fn since(self, before: Self) -> Self {
        Self { jobs_and_pods: self.jobs_and_pods - before.jobs_and_pods, events: self.events - before.events }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn jobs_of_all_kinds_and_their_pods_are_told_from_events() {
        let scrape = |resources: &[&str]| {
            let line = |resource: &&str| {
                format!("apiserver_request_total{{resource=\"{resource}\",verb=\"POST\",dry_run=\"\"}} 10\n")
            };
            Scrape::from(resources.iter().map(line).collect::<String>())
        };
        let served = Served::of(&scrape(&["batchjobs", "jobs", "workloads", "pods", "events", "leases"]));
        assert_eq!(served, Served { jobs_and_pods: 40.0, events: 10.0 });
        let later = Served { jobs_and_pods: 60.0, events: 11.0 };
        assert_eq!(later.since(served), Served { jobs_and_pods: 20.0, events: 1.0 });
    }
}
