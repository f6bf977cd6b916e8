//! How long a busy manager still writes after the brake was engaged.

use anyhow::{Result, ensure};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{Api, DeleteParams, ObjectMeta, PostParams};
use nix::sys::signal::Signal;
use springtide_crds::batch_job::{BatchJobSpec, CompletionMode};
use springtide_e2e::batch::{self, Task, Testbed};
use springtide_e2e::manager::{Manager, USER_AGENT};
use std::time::Duration;
use tokio::time::sleep;

/// The manager is busy for so long before each brake, and watched for so long after it.
const BUSY: Duration = Duration::from_secs(4);
const SILENCE: Duration = Duration::from_secs(7);

/// Seconds from engaging until the last write came in, the slowest of all runs.
pub(crate) struct Silence {
    pub(crate) file: f64,
    pub(crate) signal: f64,
    pub(crate) config_map: f64,
    /// Writes a second before: what was to be stopped.
    pub(crate) before: f64,
}

/// By what a brake is engaged.
#[derive(Clone, Copy)]
enum Switch {
    File,
    Signal,
    ConfigMap,
}

/// Engages and releases each switch so many times while a long job runs.
pub(crate) async fn measure(times: usize) -> Result<Silence> {
    let cluster = batch::cluster().await?;
    let brake = cluster.folder().join("brake");
    let file_argument = brake.display().to_string();
    let args = ["--no-leader-election", "--brake-file", &file_argument];
    let mut manager = Manager::start(&cluster, "manager", &args).await?;
    manager.wait_ready().await?;
    let test = Testbed::new(&cluster, "brake").await?;
    let endless = BatchJobSpec {
        completions: 100_000,
        parallelism: 20,
        completion_mode: CompletionMode::Indexed,
        ..BatchJobSpec::new(Task::quick().template())
    };
    test.submit("busy", endless).await?;
    test.job("busy", "some successes", |job| job.status.as_ref().is_some_and(|status| status.succeeded > 10))
        .await?;
    let maps: Api<ConfigMap> = Api::namespaced(cluster.client("bench-generator")?, "default");
    let name = "springtide-brake";
    let map = ConfigMap {
        metadata: ObjectMeta { name: Some(name.to_owned()), ..ObjectMeta::default() },
        data: Some([("all".to_owned(), "Engaged".to_owned())].into()),
        ..ConfigMap::default()
    };
    let log = cluster.audit_log()?;
    let mut least_before = f64::INFINITY;
    let mut slowest = [Switch::File, Switch::Signal, Switch::ConfigMap].map(|switch| (switch, 0.0_f64));
    for _ in 0..times {
        for (switch, slowest) in &mut slowest {
            let mark = log.mark()?;
            sleep(BUSY).await;
            let engaged = Timestamp::now();
            match switch {
                Switch::File => std::fs::write(&brake, "")?,
                Switch::Signal => manager.child().signal(Signal::SIGUSR1)?,
                Switch::ConfigMap => drop(maps.create(&PostParams::default(), &map).await?),
            }
            sleep(SILENCE).await;
            let writes = log.since(mark)?.by_agent(USER_AGENT).writes().without_leases();
            let times: Vec<Timestamp> = writes.requests().iter().filter_map(|write| write.received).collect();
            let before = times.iter().filter(|at| **at < engaged).count() as f64 / BUSY.as_secs_f64();
            ensure!(before > 0.0, "the manager had nothing to do");
            least_before = least_before.min(before);
            let last = times.into_iter().max().unwrap_or(engaged);
            *slowest = slowest.max(last.duration_since(engaged).as_secs_f64());
            match switch {
                Switch::File => std::fs::remove_file(&brake)?,
                Switch::Signal => manager.child().signal(Signal::SIGUSR2)?,
                Switch::ConfigMap => drop(maps.delete(name, &DeleteParams::default()).await?),
            }
        }
    }
    manager.stop()?;
    drop(test);
    cluster.stop()?;
    let [file, signal, config_map] = slowest.map(|(_, seconds)| seconds);
    Ok(Silence { file, signal, config_map, before: least_before })
}
