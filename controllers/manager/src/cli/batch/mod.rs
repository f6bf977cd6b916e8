//! The verbs for BatchJobs and BatchQueues.

pub(super) mod explain;
pub(super) mod plan;
pub(super) mod status;
mod world;

use super::RehearsalArgs;
use anyhow::Result;
use springtide_batch_job::Settings;

/// The settings of the manager for which something is computed.
fn settings(args: &RehearsalArgs) -> Result<Settings> {
    let configuration = args.configuration()?;
    Ok(configuration
        .map_or_else(Settings::default, |found| Settings::from(&found.controllers.batch_job.settings)))
}
