//! The hands of an administrator: BatchTaskProfiles of a test's namespace.

use anyhow::{Context, Result};
use kube::api::PostParams;
use kube::runtime::wait::await_condition;
use springtide_crds::batch_task_profile::{BatchTaskProfile, BatchTaskProfileSpec};

use super::Testbed;
use crate::oracle::feed::PATIENCE;

/// Creates a profile, and waits until the manager tells that it has seen it. By then it knows as well what became of
/// all other profiles before: of one kind changes come in their order.
///
/// # Errors
/// It is refused, or nobody sees it.
pub async fn create(test: &Testbed<'_>, name: &str) -> Result<BatchTaskProfile> {
    let profiles = test.api::<BatchTaskProfile>();
    let made = BatchTaskProfile::new(name, BatchTaskProfileSpec::default());
    let made = profiles.create(&PostParams::default(), &made).await;
    let made = made.with_context(|| format!("create the profile {name}"))?;
    let seen = |profile: Option<&BatchTaskProfile>| {
        let status = profile.and_then(|profile| profile.status.as_ref());
        status.is_some_and(|status| status.observed_generation > 0)
    };
    let waited = tokio::time::timeout(PATIENCE, await_condition(profiles, name, seen)).await;
    waited.with_context(|| format!("nobody has seen the profile {name}"))??;
    Ok(made)
}
