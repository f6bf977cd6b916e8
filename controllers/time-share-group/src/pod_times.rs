//! How long the parts of a switch take for its pods, for metrics and for the event of a switch: no plan rests on them.
//!
//! They are read from what the API shows of a pod, at each look at its group, and count when a part was seen from its
//! begin to its end. A process that begins to lead in the midst of one says nothing of it.

use crate::observed::{Member, MemberPod};
use crate::traffic::{lever, serves};
use jiff::{SignedDuration, Timestamp};
use springtide_crds::time_share_group::Member as MemberSpec;
use springtide_plumbing::first_seen::{Seen, Sighting};
use springtide_plumbing::key::Uid;
use springtide_plumbing::traffic::Traffic;
use springtide_plumbing::workloads::pod::PodView;
use std::collections::{HashMap, HashSet};

/// A part of a switch, for one pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Stretch {
    /// From the write that takes a pod out of traffic to the proof that it is out.
    Drain,
    /// From the write that lets a pod grow until its kubelet has put the size in force.
    Resize,
    /// From there until it gets traffic.
    WarmUp,
}

impl Stretch {
    /// All of them, in the order of a unit, for metrics that start at zero.
    pub const ALL: [Self; 3] = [Self::Drain, Self::Resize, Self::WarmUp];

    /// As metrics and events name it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Drain => "drain",
            Self::Resize => "resize",
            Self::WarmUp => "warm_up",
        }
    }
}

/// What a part took, over the pods of one switch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Took {
    /// The part.
    pub stretch: Stretch,
    /// Half of the pods took no longer.
    pub p50: SignedDuration,
    /// So did all but one in a hundred.
    pub p99: SignedDuration,
}

/// The pods of one group, while a switch is under way.
#[derive(Debug, Default)]
pub struct PodTimes {
    /// Number of the switch.
    transition: Option<u32>,
    pods: HashMap<Uid, Times>,
    /// Milliseconds of each part, in the order of [`Stretch::ALL`]; how they are ordered says nothing.
    took: [Vec<u32>; Stretch::ALL.len()],
}

/// Where one pod is.
#[derive(Debug, Default)]
struct Times {
    leaves: Stint,
    grows: Stint,
    warms: Stint,
    has_grown: bool,
}

/// Something that holds for a while.
#[derive(Debug, Default)]
struct Stint {
    seen: Seen,
    last: Option<Sighting>,
}

impl Stint {
    /// Takes in whether it holds; how long it did, when it has just ended and was seen to begin.
    fn look(&mut self, holds: bool, now: Timestamp) -> Option<SignedDuration> {
        let next = self.seen.look(holds.then_some(()), now);
        let last = std::mem::replace(&mut self.last, next);
        let ended = last.filter(|last| next.is_none() && last.saw_begin)?;
        Some(now.duration_since(ended.since).max(SignedDuration::ZERO))
    }
}

impl PodTimes {
    /// Takes in the pods of a group as they are now, and says what has come to its end since the last look. `transition` is
    /// the number of the open switch: without one, whatever happens to these pods is not measured.
    pub fn look(
        &mut self,
        transition: Option<u32>,
        specs: &[MemberSpec],
        members: &[Member],
        now: Timestamp,
    ) -> Vec<(Stretch, SignedDuration)> {
        if self.transition != transition {
            // What pods were seen at stays good from one switch to the next: the one may take the place of the other.
            self.took = Default::default();
            self.transition = transition;
        }
        let mut ended = Vec::new();
        if transition.is_none() {
            self.pods = HashMap::new();
            return ended;
        }
        let known: HashSet<&Uid> =
            members.iter().flat_map(|member| &member.pods).map(MemberPod::uid).collect();
        self.pods.retain(|uid, _| known.contains(uid));
        for (spec, member) in specs.iter().zip(members) {
            for found in &member.pods {
                match self.pods.get_mut(found.uid()) {
                    Some(times) => times.look(spec, found, now, &mut ended),
                    None => {
                        let mut times = Times::default();
                        times.look(spec, found, now, &mut ended);
                        self.pods.insert(found.uid().clone(), times);
                    }
                }
            }
        }
        for (stretch, took) in &ended {
            let milliseconds = u32::try_from(took.as_millis()).unwrap_or(u32::MAX);
            if let Some((_, all)) = self.parts().find(|(part, _)| part == stretch) {
                all.push(milliseconds);
            }
        }
        ended
    }

    /// What the parts of the open switch took until now; of what no pod has come to the end of, nothing.
    pub fn took(&mut self) -> Vec<Took> {
        let quantiles = self.parts().filter_map(|(stretch, all)| {
            Some(Took { stretch, p50: quantile(all, 50)?, p99: quantile(all, 99)? })
        });
        quantiles.collect()
    }

    fn parts(&mut self) -> impl Iterator<Item = (Stretch, &mut Vec<u32>)> {
        Stretch::ALL.into_iter().zip(&mut self.took)
    }
}

/// The smallest of these that so many percent of them do not exceed.
fn quantile(milliseconds: &mut [u32], percent: usize) -> Option<SignedDuration> {
    let place = milliseconds.len().saturating_mul(percent).div_ceil(100).checked_sub(1)?;
    let (_, found, _) = milliseconds.select_nth_unstable(place);
    Some(SignedDuration::from_millis((*found).into()))
}

impl Times {
    fn look(
        &mut self,
        spec: &MemberSpec,
        found: &MemberPod,
        now: Timestamp,
        ended: &mut Vec<(Stretch, SignedDuration)>,
    ) {
        let MemberPod { pod, evidence } = found;
        let is_off = lever(spec, pod).is_some_and(|lever| match pod.time_share.traffic(lever) {
            Traffic::Off { run: Some(_), .. } => true,
            Traffic::Off { run: None, .. } | Traffic::On | Traffic::Unset => false,
        });
        let drained = self.leaves.look(is_off && evidence.proved_since.is_none(), now);
        let grown = self.grows.look(evidence.open_since.is_some() && is_growing(pod), now);
        self.has_grown |= grown.is_some();
        let is_warming = self.has_grown && evidence.open_since.is_none() && !serves(spec, pod);
        let warm = self.warms.look(is_warming, now);
        self.has_grown &= warm.is_none();
        let parts = [(Stretch::Drain, drained), (Stretch::Resize, grown), (Stretch::WarmUp, warm)];
        ended.extend(parts.into_iter().filter_map(|(stretch, took)| Some((stretch, took?))));
    }
}

/// Whether its spec asks for more than its kubelet has put in force.
fn is_growing(pod: &PodView) -> bool {
    let is_more = |asked: Option<i64>, in_force: Option<i64>| {
        asked.zip(in_force).is_some_and(|(asked, in_force)| asked > in_force)
    };
    pod.containers.iter().any(|container| {
        let reported = container.status.as_ref().and_then(|status| status.amounts);
        let asked = container.amounts.requests;
        reported.map(|amounts| amounts.requests).is_some_and(|in_force| {
            is_more(asked.cpu, in_force.cpu) || is_more(asked.memory, in_force.memory)
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures::{at, observed, on_stage, overlay, pod, serving, sized};
    use serde_json::{Value, json};
    use std::sync::Arc;

    /// Turned off by transition 7 at `at(0)`.
    fn turned_off(size: &str) -> Value {
        let mut over = sized(size, size);
        let note = format!("run=7,since={}", at(0));
        overlay(&mut over, serving("false"));
        overlay(&mut over, json!({"metadata": {"annotations": {"springtide.dev/traffic-drain": note}}}));
        over
    }

    /// A look at one pod of promo.
    fn look(times: &mut PodTimes, over: Value, is_proved: bool, now: i64) -> Vec<(Stretch, i64)> {
        let pods = [("promo", vec![pod("promo-1", "n1", over)])];
        let mut observed = observed(json!({}), &pods);
        observed.members[1].pods[0].evidence.proved_since = is_proved.then(|| at(now));
        let specs = Arc::clone(&observed.group);
        let ended = times.look(Some(7), &specs.spec.members, &observed.members, at(now));
        ended.into_iter().map(|(stretch, took)| (stretch, took.as_secs())).collect()
    }

    fn growing(in_force: &str) -> Value {
        sized("4", in_force)
    }

    #[test]
    fn each_part_is_measured_when_it_ends() {
        let mut times = PodTimes::default();
        assert_eq!(look(&mut times, on_stage(), false, 0), []);
        assert_eq!(look(&mut times, turned_off("4"), false, 1), []);
        assert_eq!(look(&mut times, turned_off("4"), true, 6), [(Stretch::Drain, 5)]);
        let mut receiver = PodTimes::default();
        assert_eq!(look(&mut receiver, json!({}), false, 0), []);
        assert_eq!(look(&mut receiver, growing("200m"), false, 1), []);
        assert_eq!(look(&mut receiver, growing("200m"), false, 2), []);
        assert_eq!(look(&mut receiver, growing("4"), false, 4), [(Stretch::Resize, 3)]);
        assert_eq!(look(&mut receiver, growing("4"), false, 9), []);
        assert_eq!(look(&mut receiver, on_stage(), false, 19), [(Stretch::WarmUp, 15)]);
        assert_eq!(look(&mut receiver, on_stage(), false, 25), [], "once");
    }

    #[test]
    fn what_was_not_seen_to_begin_is_not_measured() {
        let mut times = PodTimes::default();
        assert_eq!(look(&mut times, turned_off("4"), false, 0), []);
        assert_eq!(look(&mut times, turned_off("4"), true, 9), []);
        let mut receiver = PodTimes::default();
        assert_eq!(look(&mut receiver, growing("200m"), false, 0), []);
        assert_eq!(look(&mut receiver, growing("4"), false, 3), []);
        assert_eq!(look(&mut receiver, on_stage(), false, 9), [], "nobody knows since when it has its size");
    }

    #[test]
    fn a_pod_that_shrinks_is_nobody_that_a_unit_waits_for() {
        let mut times = PodTimes::default();
        assert_eq!(look(&mut times, turned_off("4"), true, 0), []);
        let mut shrinking = turned_off("4");
        overlay(&mut shrinking, sized("200m", "4"));
        assert_eq!(look(&mut times, shrinking, true, 1), []);
        assert_eq!(look(&mut times, turned_off("200m"), true, 2), []);
    }

    #[test]
    fn without_a_switch_nothing_is_measured_and_the_next_one_begins_anew() {
        let mut times = PodTimes::default();
        look(&mut times, json!({}), false, 0);
        look(&mut times, growing("200m"), false, 1);
        look(&mut times, growing("4"), false, 4);
        assert_eq!(times.took().len(), 1);
        let nothing = observed(json!({}), &[]);
        assert_eq!(times.look(None, &nothing.group.spec.members, &nothing.members, at(5)), []);
        assert!(times.took().is_empty() && times.pods.is_empty());
    }

    #[test]
    fn quantiles_are_of_those_that_ended() {
        let of = |all: &[u32], percent| quantile(&mut all.to_vec(), percent).map(|took| took.as_millis());
        let hundred: Vec<u32> = (1..=100).rev().collect();
        assert_eq!(
            [of(&hundred, 50), of(&hundred, 99), of(&[7], 99), of(&[], 50)],
            [Some(50), Some(99), Some(7), None]
        );
    }
}
