//! The hands of an administrator: BatchTaskProfiles of a test's namespace.

use std::time::Duration;

use anyhow::{Context, Result};
use kube::api::PostParams;
use kube::runtime::wait::await_condition;
use springtide_crds::batch_task_profile::{BatchTaskProfile, BatchTaskProfileSpec};
use springtide_crds::common::condition;
use springtide_crds::reason::Reason;

use super::Testbed;
use crate::oracle::feed::PATIENCE;
use crate::polling::until_seen;

/// Bound for what a profile has learned: its status is written once a minute at most.
const LEARNING: Duration = Duration::from_secs(300);

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

/// Waits until a profile is there, and as `check` wants it.
///
/// # Errors
/// It does not become so.
pub async fn profile(
    test: &Testbed<'_>,
    name: &str,
    what: &str,
    check: impl Fn(&BatchTaskProfile) -> bool,
) -> Result<BatchTaskProfile> {
    let profiles = test.api::<BatchTaskProfile>();
    until_seen(LEARNING, &format!("profile {name} is {what}"), async || {
        Ok(match profiles.get_opt(name).await? {
            Some(found) if check(&found) => Ok(found),
            other => Err(format!("{other:?}")),
        })
    })
    .await
}

/// Whether a profile has a condition with this reason.
#[must_use]
pub fn says<R: Reason>(profile: &BatchTaskProfile, reason: &R) -> bool {
    let conditions = profile.status.as_ref().map(|status| status.conditions.as_slice()).unwrap_or_default();
    condition(conditions, R::CONDITION).is_some_and(|condition| condition.reason == reason.as_str())
}
