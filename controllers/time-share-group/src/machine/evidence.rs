//! What one pod of a unit shows: its size and its resize, its traffic, and whether it is ready.

use super::Court;
use crate::observed::{Attempt, Evidence, Member, MemberPod, PodIndex, Refused};
use crate::preflight::{Answered, answered};
use crate::profiles::restarts;
use crate::sizes::{Demand, Level, Profile, Size, is_resized};
use crate::traffic::{TrafficGoal, drain_rule, due, lever, never_leaves, serves};
use crate::union::{demand_at, spec_demand};
use jiff::{SignedDuration, Timestamp};
use springtide_crds::time_share_group::Member as MemberSpec;
use springtide_plumbing::clock::after;
use springtide_plumbing::projection::Projection;
use springtide_plumbing::traffic::{DrainVerdict, Draining, Lever, Traffic};
use springtide_plumbing::workloads::content::Role;
use springtide_plumbing::workloads::pod::PodView;

/// One pod, and what it is judged by.
#[derive(Clone, Copy)]
pub(super) struct Actor<'a> {
    /// Which pod.
    pub(super) index: PodIndex,
    /// Its member, as the spec has it.
    pub(super) spec: &'a MemberSpec,
    court: &'a Court<'a>,
    member: &'a Member,
    known: &'a MemberPod,
    profile: &'a Profile,
}

/// How far a resize has come that the spec asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Resize {
    /// It is in force.
    InForce,
    /// Its kubelet has not said anything against it since then.
    UnderWay(Timestamp),
    /// Its kubelet has had no room since then.
    Deferred(Timestamp),
    /// Its kubelet has said then that there will never be any.
    Infeasible(Timestamp),
    /// It was begun then, and fails.
    Failing(Timestamp),
}

/// How far a pod that is to shrink is out of traffic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Out {
    /// It is to be turned off.
    Serving,
    /// It is turned off, and may get traffic until then at least.
    Leaving(Timestamp),
    /// It gets none, or none is to be taken from it.
    Gone,
    /// It should have got none any more since then.
    Late(Timestamp),
}

/// Whether the containers of a pod are ready.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Readiness {
    /// They are.
    Ready,
    /// They have not been since before the switch: that is none of its doing.
    Before,
    /// They have not been since then.
    Unready {
        /// Since when.
        since: Timestamp,
        /// Whether the switch may have done it. A pod that was made since is one that starts.
        is_ours: bool,
    },
}

impl<'a> Actor<'a> {
    /// The pod of a number; `None` where the court knows none.
    pub(super) fn of(court: &'a Court<'_>, index: PodIndex) -> Option<Self> {
        let number = index.member.0;
        Some(Self {
            index,
            spec: court.observed.group.spec.members.get(number)?,
            court,
            member: court.observed.members.get(number)?,
            known: court.observed.pod(index)?,
            profile: court.profiles.get(number)?,
        })
    }

    /// The time.
    pub(super) fn now(&self) -> Timestamp {
        self.court.now
    }

    /// The pod.
    pub(super) fn pod(&self) -> &'a PodView {
        &self.known.pod
    }

    /// What is known of it beside.
    pub(super) fn evidence(&self) -> &'a Evidence {
        &self.known.evidence
    }

    /// The size that it is to have at a level, as far as that moves.
    pub(super) fn size(&self, level: Level) -> Size {
        self.profile.sized(level, self.court.scopes.of(self.index, level))
    }

    /// By how much more the whole pod would ask for with a size.
    pub(super) fn difference(&self, size: &Size) -> Demand {
        demand_at(self.pod(), size) - spec_demand(self.pod())
    }

    /// Whether its spec asks for more than its valley: for more cpu, or for more memory where that is all that moves.
    /// Memory that nobody dared to take back is no sign that a pod was grown.
    pub(super) fn is_above_valley(&self) -> bool {
        let (peak, valley) = (&self.profile.peak, &self.profile.valley);
        let is_cpu_moved =
            valley.containers().any(|(name, amounts)| peak.of(name).requests.cpu > amounts.requests.cpu);
        valley.containers().any(|(name, amounts)| {
            self.pod().container(name).is_some_and(|container| {
                let asked = container.amounts.requests;
                if is_cpu_moved {
                    amounts.requests.cpu.is_some() && asked.cpu > amounts.requests.cpu
                } else {
                    amounts.requests.memory.is_some() && asked.memory > amounts.requests.memory
                }
            })
        })
    }

    /// Whether one of the containers that change their size is not there, does not run any more, or would be restarted by
    /// it: nobody is asked, as the API server would have that.
    pub(super) fn is_ineligible(&self, size: &Size) -> bool {
        let cannot = |name: &str| {
            self.pod().container(name).is_none_or(|container| match container.role {
                Role::Init => true,
                Role::Main | Role::Sidecar => false,
            })
        };
        self.profile.peak.containers().any(|(name, _)| cannot(name)) || restarts(self.pod(), size)
    }

    /// Whether it would serve on at valley size although it is not to: it takes no part, whichever way the switch goes.
    pub(super) fn never_leaves(&self) -> bool {
        never_leaves(self.spec, self.pod())
    }

    /// How far the resize to a size has come that its spec asks for.
    pub(super) fn resize(&self, size: &Size) -> Resize {
        let pod = self.pod();
        if size.is_in_force(pod) {
            return Resize::InForce;
        }
        // The node's clock may be ahead.
        let now = self.court.now;
        let or_seen = |since: Option<Timestamp>| {
            since.or(self.evidence().open_since).map_or(now, |since| since.min(now))
        };
        // What is said of an earlier spec says nothing of this one.
        if pod.observed_generation < pod.meta().generation || is_resized(pod) {
            return Resize::UnderWay(or_seen(None));
        }
        match (&pod.resize_pending, &pod.resize_in_progress) {
            (Some(pending), _) if pending.is_infeasible => Resize::Infeasible(or_seen(pending.since)),
            (Some(pending), _) => Resize::Deferred(or_seen(pending.since)),
            (None, Some(progress)) if progress.error.is_some() => Resize::Failing(or_seen(progress.since)),
            (None, Some(progress)) => Resize::UnderWay(or_seen(progress.since)),
            (None, None) => Resize::UnderWay(or_seen(None)),
        }
    }

    /// Whether its containers are ready.
    pub(super) fn readiness(&self) -> Readiness {
        let pod = self.pod();
        if pod.are_containers_ready() {
            return Readiness::Ready;
        }
        let Court { start, now, .. } = *self.court;
        let created = pod.meta().creation_time;
        let since = pod.containers_ready.and_then(|condition| condition.since).unwrap_or(created).min(now);
        let is_older = created < start;
        if is_older && since <= start {
            return Readiness::Before;
        }
        Readiness::Unready { since, is_ours: is_older && !self.evidence().is_upgrading }
    }

    /// From when on it has been at peak for long enough to serve.
    pub(super) fn warm_at(&self) -> Timestamp {
        let now = self.court.now;
        let since = self.evidence().warm_since.map_or(now, |since| since.min(now));
        after(since, SignedDuration::from_secs(self.spec.warm_up_seconds.into()))
    }

    /// What is to be turned at a level: which lever, and whether on.
    pub(super) fn due(&self, level: Level) -> Option<(Lever, bool)> {
        due(self.spec, self.pod(), self.court.traffic.of(self.index, level))
    }

    /// Whether it has its peak size.
    pub(super) fn is_on_stage(&self) -> bool {
        self.size(Level::Peak).is_in_force(self.pod())
    }

    /// The lever to turn on, if it has its peak size and should serve for that and does not: it is warm, or has not been
    /// ready since before the switch.
    pub(super) fn due_on_stage(&self) -> Option<Lever> {
        let is_warm = || match self.readiness() {
            Readiness::Ready => self.warm_at() <= self.court.now,
            Readiness::Before => true,
            Readiness::Unready { .. } => false,
        };
        let (lever, is_on) = self.due(Level::Peak)?;
        (is_on && self.is_on_stage() && is_warm()).then_some(lever)
    }

    /// The lever to turn on, if it has its valley size and should serve at that, and does not.
    pub(super) fn due_off_stage(&self) -> Option<Lever> {
        let (lever, is_on) = self.due(Level::Valley)?;
        (is_on && self.size(Level::Valley).is_in_force(self.pod())).then_some(lever)
    }

    /// The lever to turn off, if it has its valley size and should not serve at that, and does.
    pub(super) fn lever_to_dim(&self) -> Option<Lever> {
        let (lever, is_on) = self.due(Level::Valley)?;
        (!is_on && self.size(Level::Valley).is_in_force(self.pod())).then_some(lever)
    }

    /// How far it is out of traffic, where it is to be out of it at valley size. What has never been turned on is out at
    /// first sight; so is what somebody else has turned off, unless it is served all the same.
    pub(super) fn out(&self) -> Out {
        let lever = match self.court.traffic.of(self.index, Level::Valley) {
            TrafficGoal::On | TrafficGoal::Leave => return Out::Gone,
            TrafficGoal::Off => lever(self.spec, self.pod()),
        };
        let Some(lever) = lever else { return Out::Gone };
        let off_since = match self.pod().time_share.traffic(lever) {
            Traffic::On => return Out::Serving,
            Traffic::Unset => return Out::Gone,
            Traffic::Off { since, .. } => since,
        };
        let evidence = self.evidence();
        let draining = Draining {
            off_since,
            is_still_ready: lever == Lever::ReadinessGate && self.pod().is_ready(),
            exposure: &evidence.exposure,
            proved_since: evidence.proved_since,
        };
        let Some(off_since) = off_since else {
            // Without a time it would never be over: it is turned off by us, who say since when.
            return if draining.is_proved() { Out::Gone } else { Out::Serving };
        };
        let rule = drain_rule(self.spec);
        match draining.verdict(&rule, self.court.now) {
            DrainVerdict::Drained => Out::Gone,
            DrainVerdict::Draining { wake, .. } => Out::Leaving(wake),
            DrainVerdict::TimedOut { .. } => Out::Late(after(off_since, rule.timeout)),
        }
    }

    /// The lever by which it is to be turned off, if it is to shrink and serves.
    pub(super) fn lever_to_drain(&self) -> Option<Lever> {
        match self.out() {
            Out::Serving => lever(self.spec, self.pod()),
            Out::Leaving(_) | Out::Gone | Out::Late(_) => None,
        }
    }

    /// Whether it could be turned off before it shrinks, and is off already.
    pub(super) fn is_off(&self) -> bool {
        let is_to_be = self.court.traffic.of(self.index, Level::Valley) == TrafficGoal::Off;
        is_to_be && !serves(self.spec, self.pod())
    }

    /// Whether this very switch has turned it off.
    pub(super) fn is_off_by_this_run(&self) -> bool {
        let Some(lever) = lever(self.spec, self.pod()) else { return false };
        match self.pod().time_share.traffic(lever) {
            Traffic::Off { run: Some(run), .. } => run.parse() == Ok(self.court.heading.id),
            Traffic::Off { run: None, .. } | Traffic::On | Traffic::Unset => false,
        }
    }

    /// What the API server said when this was tried last, while it is not to be tried again.
    pub(super) fn refused(&self, what: Attempt) -> Option<&'a Refused> {
        let refused = self.evidence().refused.as_ref()?;
        (refused.what == what && refused.retry_at > self.court.now).then_some(refused)
    }

    /// What a dry run of its resize to a level was answered.
    pub(super) fn answered(&self, level: Level) -> Answered {
        answered(self.member, self.known, level, self.court.asked_from, self.court.now)
    }
}
