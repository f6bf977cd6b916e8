//! `springtide watch` of a TimeShareGroup: follows it until its switch ends.

use super::progress::shown;
use crate::cli::following::{self, Ending, Followed};
use crate::cli::read::Cluster;
use anyhow::{Context, Result};
use jiff::Timestamp;
use springtide_crds::common::ConditionStatus;
use springtide_crds::reason::{Reason, said};
use springtide_crds::time_share_group::{ReadyReason, StalledReason, TimeShareGroup, TimeShareGroupStatus};
use springtide_plumbing::key::ObjectKey;
use springtide_plumbing::window::calendar::Calendar;
use springtide_time_share_group::projections::group::{GroupView, TIME_SHARE_GROUP};
use std::time::Duration;

/// Follows, and shows what changes.
///
/// # Errors
/// The API server cannot be asked or refuses, there is no such group, or it is deleted meanwhile.
pub(in crate::cli) async fn run(
    cluster: &Cluster,
    name: &str,
    timeout: Duration,
    interrupted: impl Future<Output = Result<()>>,
) -> Result<Ending> {
    let key = ObjectKey::new(cluster.namespace.as_str(), name);
    let found = cluster.get(TIME_SHARE_GROUP, &key).await?;
    let found =
        found.with_context(|| format!("there is no TimeShareGroup {name} in namespace {}", key.namespace))?;
    let unreadable = "the TimeShareGroup is not as its schema wants it";
    let group: GroupView = serde_json::from_value(found).context(unreadable)?;
    let awaited = Awaited::of(&group, Timestamp::now());
    let followed = Followed { kind: TIME_SHARE_GROUP.kind, short: "tsg", key: &key, succeeded: "at rest" };
    let look = |group: &TimeShareGroup| {
        let status = group.status.clone().unwrap_or_default();
        let steps = u32::try_from(group.spec.switch.steps.len()).unwrap_or(u32::MAX);
        let ending = awaited.end(group.metadata.generation.unwrap_or_default(), &status);
        (shown(&status, steps), ending)
    };
    following::run(cluster, &followed, look, timeout, interrupted).await
}

/// The switch that is followed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Awaited {
    /// Number of the last transition when the command began, where another one was due by then: before that has begun,
    /// nothing has ended.
    after: Option<u32>,
}

impl Awaited {
    /// The switch that is open, or due by spec and time; the manager may not have begun it yet.
    fn of(group: &GroupView, now: Timestamp) -> Self {
        let last = group.status.transition.as_ref();
        let names = group.spec.members.iter().map(|member| member.name.as_str());
        // Who cannot tell follows what the status says.
        let Ok(calendar) = Calendar::parse(&group.spec.schedule, names) else { return Self::default() };
        let desired = calendar.desired(group.spec.override_.as_ref(), now).member;
        let leads_there = last.is_some_and(|last| last.to.as_deref() == desired.as_deref());
        Self { after: (!leads_there).then(|| last.map_or(0, |last| last.id)) }
    }

    /// How it has ended by what the manager says of the group as it is now; `None` while it goes on.
    fn end(self, generation: i64, status: &TimeShareGroupStatus) -> Option<Ending> {
        if status.observed_generation != generation {
            return None;
        }
        match said::<StalledReason>(&status.conditions).map(|(reason, _)| reason) {
            Some(StalledReason::RolledBack) => return Some(Ending::RolledBack),
            // It goes on all the same.
            Some(StalledReason::DeadlineExceeded) | None => {}
            Some(
                StalledReason::GuardBreached
                | StalledReason::UnitStuck
                | StalledReason::RollbackStuck
                | StalledReason::NoProgress
                | StalledReason::Forbidden
                | StalledReason::InternalError
                | StalledReason::Refused(_),
            ) => return Some(Ending::Stalled),
        }
        let transition = status.transition.as_ref();
        let has_begun = match self.after {
            Some(after) => transition.is_some_and(|transition| transition.id != after),
            None => true,
        };
        let ready = said::<ReadyReason>(&status.conditions).map(|(reason, _)| reason);
        let is_ready = ready.is_some_and(|ready| ready.status() == ConditionStatus::True);
        (has_begun && is_ready).then_some(Ending::Succeeded)
    }
}

#[cfg(test)]
mod tests;
