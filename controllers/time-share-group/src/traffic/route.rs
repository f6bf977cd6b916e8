//! The weight of a member's backend in an HTTPRoute: traffic of all its pods at once, in steps.
//!
//! The weight of whoever gives the peak up falls to what the step leaves *before* the units of the step begin, and has
//! stayed there for `drain.minSeconds`; the weight of whoever gets the peak rises to what is done *after* its units are.
//! Until a transition is over either moves one way alone, so that a transition that takes another one back goes on from
//! the weights that it finds.

use crate::observed::{Backend, Member, MemberIndex, Observed, Route};
use crate::projections::http_route::HTTP_ROUTE;
use crate::steps::Reach;
use crate::units::Heading;
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};
use springtide_crds::time_share_group::{HttpRoute, Member as MemberSpec, TrafficMode};
use springtide_plumbing::clock::after;
use springtide_plumbing::plan::{Action, Write, WriteClass};

/// What is to be written to routes, and whether they keep units from starting.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RouteMoves {
    /// Weights that fall before further units start.
    pub before: Vec<Write>,
    /// Weights that rise for the units that are done; a step, and the transition, is over when nothing of it is left.
    pub after: Vec<Write>,
    /// Whether further units may start: weights that are to have fallen have done so long enough ago.
    pub is_settled: bool,
    /// When they may, if nothing else happens.
    pub wake: Option<Timestamp>,
}

/// What a member's weight is to do.
#[derive(Clone, Copy)]
enum Trend {
    /// It falls, to that of this part of the peak.
    Falls { percent: u32 },
    /// It rises, to that of this part of the peak.
    Rises { percent: u32 },
    /// It stays what it is.
    Stays,
}

/// The weights of a transition's step. `settled_percent` are the units that are done, as far as the last step goes that is
/// over: 0 in the first step, and until all are done where a transition leads back; 100 when all are.
pub fn moves(
    observed: &Observed,
    heading: &Heading,
    reach: &Reach,
    settled_percent: u32,
    now: Timestamp,
) -> RouteMoves {
    let reached = if reach.is_last { 100 } else { reach.percent };
    let (mut before, mut after) = (Patches::default(), Patches::default());
    let mut moves = RouteMoves { is_settled: true, ..RouteMoves::default() };
    for (number, (spec, member)) in members(observed).enumerate() {
        let Some(wished) = of_mode(spec).filter(|_| member.is_ours()) else { continue };
        let index = Some(MemberIndex(number));
        let trend = if index == heading.to {
            Trend::Rises { percent: settled_percent }
        } else if index == heading.from {
            Trend::Falls { percent: 100u32.saturating_sub(reached) }
        } else if reach.is_last {
            // Whoever else has a peak still loses it with the last step, as its pods do.
            Trend::Falls { percent: 0 }
        } else {
            Trend::Stays
        };
        match trend {
            Trend::Rises { .. } => {
                after.add(member.route.as_ref(), wished, trend);
            }
            Trend::Falls { .. } => {
                let is_due = before.add(member.route.as_ref(), wished, trend);
                let wait = SignedDuration::from_secs(spec.traffic.drain.min_seconds.into());
                moves.wait(member.route.as_ref(), is_due, wait, now);
            }
            Trend::Stays => {}
        }
    }
    after.leave_out(&before);
    moves.before = before.writes(WriteClass::Spec);
    moves.after = after.writes(WriteClass::Protective);
    moves
}

/// Gives each member's backend the weight of its peak, as there is nobody any more who would.
pub fn give_back(observed: &Observed) -> Vec<Write> {
    let mut patches = Patches::default();
    for (spec, member) in members(observed).filter(|(_, member)| member.is_ours()) {
        if let Some(wished) = of_mode(spec) {
            patches.add(member.route.as_ref(), wished, Trend::Rises { percent: 100 });
        }
    }
    patches.writes(WriteClass::Protective)
}

/// What of a member's route is not there, for people; `None` where all is, or its traffic is by no route.
pub fn missing(spec: &MemberSpec, member: &Member) -> Option<String> {
    let wished = of_mode(spec)?;
    match &member.route {
        None => Some(format!("there is no HTTPRoute {}/{}", member.namespace, wished.name)),
        Some(route) if route.backends.is_empty() => {
            Some(format!("HTTPRoute {} has no backend {}", route.key, wished.backend))
        }
        Some(_) => None,
    }
}

/// Two members that have one backend, for people: its weight cannot be that of both.
pub fn contested(observed: &Observed) -> Option<String> {
    let mut seen: Vec<(&str, (&str, &str, &str))> = Vec::new();
    for (spec, member) in members(observed) {
        let Some(wished) = of_mode(spec) else { continue };
        let backend = (&*member.namespace, wished.name.as_str(), wished.backend.as_str());
        if let Some((other, _)) = seen.iter().find(|(_, taken)| *taken == backend) {
            return Some(format!("{other} and {} have one backend, {}", member.name, wished.backend));
        }
        seen.push((&*member.name, backend));
    }
    None
}

fn members(observed: &Observed) -> impl Iterator<Item = (&MemberSpec, &Member)> {
    observed.group.spec.members.iter().zip(&observed.members)
}

fn of_mode(spec: &MemberSpec) -> Option<&HttpRoute> {
    match spec.traffic.mode {
        TrafficMode::HttpRoute => spec.traffic.http_route.as_ref(),
        TrafficMode::None | TrafficMode::ServiceLabel | TrafficMode::ReadinessGate => None,
    }
}

/// The weight of a part of the peak, rounded down.
fn weight(wished: &HttpRoute, percent: u32) -> u32 {
    let extent = u64::from(wished.peak_weight.saturating_sub(wished.valley_weight));
    let part = extent.saturating_mul(percent.min(100).into()) / 100;
    wished.valley_weight.saturating_add(u32::try_from(part).unwrap_or(u32::MAX))
}

impl Trend {
    /// What a backend's weight is to be. On the way nobody's is turned around; at its end it is what the spec says.
    fn goal(self, backend: &Backend, wished: &HttpRoute) -> u32 {
        match self {
            Self::Falls { percent: 0 } => wished.valley_weight,
            Self::Falls { percent } => weight(wished, percent).min(backend.weight),
            Self::Rises { percent } if percent >= 100 => wished.peak_weight,
            Self::Rises { percent } => weight(wished, percent).max(backend.weight),
            Self::Stays => backend.weight,
        }
    }
}

impl RouteMoves {
    /// Units wait for a weight that is to fall; one that is not there cannot.
    fn wait(&mut self, route: Option<&Route>, is_due: bool, wait: SignedDuration, now: Timestamp) {
        let Some(route) = route.filter(|route| !is_due && !route.backends.is_empty()) else {
            self.is_settled = false;
            return;
        };
        let since = route.steady_since.map_or(now, |since| since.min(now));
        let end = after(since, wait);
        if now < end {
            self.is_settled = false;
            self.wake = Some(self.wake.map_or(end, |wake| wake.max(end)));
        }
    }
}

/// Weights that are to change, by their routes: members may share one, and it is written once.
#[derive(Default)]
struct Patches<'a>(Vec<(&'a Route, Vec<(&'a Backend, u32)>)>);

impl<'a> Patches<'a> {
    /// Adds what a trend changes; says whether it does.
    fn add(&mut self, route: Option<&'a Route>, wished: &HttpRoute, trend: Trend) -> bool {
        let Some(route) = route else { return false };
        let goals = route.backends.iter().map(|backend| (backend, trend.goal(backend, wished)));
        let changes: Vec<_> = goals.filter(|(backend, goal)| backend.weight != *goal).collect();
        if changes.is_empty() {
            return false;
        }
        match self.0.iter_mut().find(|(own, _)| own.uid == route.uid) {
            Some((_, own)) => own.extend(changes),
            None => self.0.push((route, changes)),
        }
        true
    }

    /// Leaves out routes that others write in the same pass: either would find another version than it tests.
    fn leave_out(&mut self, others: &Self) {
        self.0.retain(|(route, _)| !others.0.iter().any(|(other, _)| other.uid == route.uid));
    }

    fn writes(self, class: WriteClass) -> Vec<Write> {
        self.0.into_iter().map(|(route, changes)| write(route, &changes, class)).collect()
    }
}

/// A JSON patch of exactly this version of the route: rules have no names, and a number means nothing in another one.
fn write(route: &Route, changes: &[(&Backend, u32)], class: WriteClass) -> Write {
    let test = |path: &str, value: Value| json!({"op": "test", "path": path, "value": value});
    let mut operations = vec![
        test("/metadata/uid", json!(route.uid)),
        test("/metadata/resourceVersion", json!(route.resource_version.to_string())),
    ];
    for (backend, weight) in changes {
        let path = format!("/spec/rules/{}/backendRefs/{}", backend.rule, backend.backend);
        operations.push(test(&format!("{path}/name"), json!(&*backend.name)));
        let operation = if backend.is_stated { "replace" } else { "add" };
        operations.push(json!({"op": operation, "path": format!("{path}/weight"), "value": weight}));
    }
    let action = Action::json_patch(Value::Array(operations));
    Write { resource: HTTP_ROUTE, key: route.key.clone(), class, action }
}

#[cfg(test)]
mod tests;
