//! Whether what was seen is as it should be.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};
use springtide_crds::time_share_group::TransitionResult;
use springtide_e2e::node::load::Seen;
use springtide_e2e::time_share::node_member::NodeMember;
use springtide_e2e::time_share::node_stage::{GROUP, NodeStage};
use springtide_e2e::upgrade::pods::Identity;
use springtide_plumbing::quantity::parse_amount;
use springtide_time_share_group::sizes::Level;

use super::show::View;
use super::{Day, JOBS, LEAD, MEMBERS, PAUSE, PEAK, PODS, TRICKLE, VALLEY};

/// Times in which a service has the peak, of a whole day.
const ACTS: usize = 4;

/// A time in which one of the services is to have the peak.
struct Act {
    /// Which, in the order of [`MEMBERS`].
    member: usize,
    /// What it is that it has.
    what: String,
    from: Timestamp,
    to: Timestamp,
    /// How long after its begin the service was ready for it; before it that is less than nothing.
    ready: Option<SignedDuration>,
}

/// What the user does next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Deed {
    /// Gives the peak to the service that does not have it.
    Override,
    /// Takes that back.
    TakeBack,
}

/// What was seen, as far as it is judged.
pub(crate) struct Record {
    day: Day,
    /// What made each pod the same before, by service.
    before: [BTreeMap<String, Identity>; 2],
    /// The peaks of the day, then the one by hand, then what is left of the second peak.
    acts: Vec<Act>,
    /// Most batch pods before they were to leave, the most while peaks were open, and those in the end.
    batch: [usize; 3],
    is_over: bool,
}

/// One thing that had to be so.
pub(crate) struct Verdict {
    what: String,
    expected: String,
    seen: String,
    well: bool,
}

/// The cpu of a size in thousandths of a core.
fn cpu(amount: &str) -> i64 {
    parse_amount("cpu", amount).unwrap_or_default()
}

impl Record {
    /// Of a day, before anything is seen of it.
    pub(crate) fn new(day: Day, stage: &NodeStage<'_>) -> Self {
        let sizes = stage.sizes.now();
        Self {
            day,
            before: MEMBERS.map(|name| sizes.identities(name)),
            acts: acts(day),
            batch: [0; 3],
            is_over: false,
        }
    }

    /// Takes in what is there now. Whether a service has just come to have all of its peak, in the kernel too.
    pub(crate) fn see(&mut self, view: &View, stage: &NodeStage<'_>, members: &[NodeMember; 2]) -> bool {
        let [staying, ending] = view.batch;
        let lead = self.day.first - SignedDuration::from_secs(LEAD.into());
        let [before, inside, after] = &mut self.batch;
        if view.at < lead {
            *before = (*before).max(staying);
        } else if view.at < self.day.end {
            *inside = (*inside).max(staying + ending);
        } else {
            *after = staying;
        }
        let small = BTreeMap::from([(cpu(VALLEY), PODS as usize)]);
        let is_night = view.services.iter().all(|service| service.sizes == small);
        let is_settled = view.active.is_none() && view.ready == "Settled";
        self.is_over = view.at >= self.day.end && is_night && is_settled && staying == JOBS as usize;
        let is_held = |number: usize, level: Level| stage.ensure_at(&members[number], level).is_ok();
        let is_open = |act: &&mut Act| act.ready.is_none() && view.at < act.to;
        let Some(act) = self.acts.iter_mut().find(is_open) else { return false };
        let number = act.member;
        let is_ready =
            has_peak(view, number) && is_held(number, Level::Peak) && is_held(1 - number, Level::Valley);
        act.ready = is_ready.then(|| view.at.duration_since(act.from));
        is_ready
    }

    /// What the user does now, some seconds after a service has come to have the second peak, or that by hand.
    pub(crate) fn next_deed(&self, now: Timestamp) -> Option<Deed> {
        let deed = match self.acts.len() {
            2 => Deed::Override,
            3 => Deed::TakeBack,
            _ => return None,
        };
        let last = self.acts.last()?;
        (now >= last.from + last.ready? + PAUSE && now < last.to).then_some(deed)
    }

    /// The first service has the peak by hand from now on.
    pub(crate) fn begin_by_hand(&mut self, now: Timestamp) {
        let [first, _] = MEMBERS;
        self.begin(0, format!("{first} has it by hand inside the other one's peak"), now);
    }

    /// What is left of the second peak begins.
    pub(crate) fn begin_again(&mut self, now: Timestamp) {
        let [_, second] = MEMBERS;
        self.begin(1, format!("{second} has it back when the override is gone"), now);
    }

    fn begin(&mut self, member: usize, what: String, from: Timestamp) {
        if let Some(last) = self.acts.last_mut() {
            last.to = from;
        }
        self.acts.push(Act { member, what, from, to: self.day.end, ready: None });
    }

    /// Whether the day is over, and everything has come back.
    pub(crate) fn is_over(&self) -> bool {
        self.is_over
    }

    /// Says what was as it should be and what was not.
    pub(crate) fn verdicts(
        &self,
        stage: &NodeStage<'_>,
        seen: &[(&str, Seen)],
        most: i64,
        has: i64,
    ) -> Vec<Verdict> {
        let mut verdicts = Vec::new();
        let mut add = |what: String, expected: String, seen: String, well: bool| {
            verdicts.push(Verdict { what, expected, seen, well });
        };
        for Act { what, ready, .. } in &self.acts {
            let told = ready.map_or("never".to_owned(), |ready| format!("{:+.1} s", ready.as_secs_f64()));
            add(
                what.clone(),
                format!(
                    "{PODS} pods at {PEAK}, {PODS} in traffic, the others at {VALLEY}, before it is over"
                ),
                format!("ready {told} after its begin"),
                ready.is_some(),
            );
        }
        add(
            "it was switched by hand, and back".to_owned(),
            "2 peaks by the clock, 1 by hand, and the rest of the second one".to_owned(),
            format!("{} in all", self.acts.len()),
            self.acts.len() == ACTS,
        );
        let (after, restarts) = {
            let sizes = stage.sizes.now();
            let pods = MEMBERS.iter().flat_map(|name| sizes.of(name));
            let restarts: i32 = pods.map(|pod| pod.restarts()).sum();
            (MEMBERS.map(|name| sizes.identities(name)), restarts)
        };
        let same = self.before.iter().zip(&after).filter(|(before, after)| before == after).count();
        add(
            "they are the same pods all day".to_owned(),
            "UID, IP and node stay, 0 restarts".to_owned(),
            format!("those of {same} of 2 services are what they were, {restarts} restarts"),
            same == 2 && restarts == 0,
        );
        for (name, seen) in seen {
            let (answered, failed) = (seen.answered(), seen.failed());
            add(
                format!("no request to {name} is lost"),
                "0 failed".to_owned(),
                format!("{failed} failed of {} at {} a second", answered + failed, seen.rate()),
                failed == 0 && answered > 0,
            );
        }
        let [before, inside, after] = self.batch;
        let jobs = JOBS as usize;
        add(
            "batch has what the services leave, and is gone before they need it".to_owned(),
            format!("{jobs} pods before, 0 from the first switch to the last peak's end, {jobs} after it"),
            format!("{before} before, at most {inside} inside, {after} after"),
            (before, inside, after) == (jobs, 0, jobs),
        );
        add(
            "the node never has more than it has".to_owned(),
            format!("at most {has}m of cpu allocated"),
            format!("at most {most}m"),
            most <= has,
        );
        let groups = stage.test.groups.now();
        let status = groups.get(GROUP).and_then(|group| group.status.as_ref());
        let ended = status.map(|status| status.last_transitions.as_slice()).unwrap_or_default();
        let well =
            ended.iter().filter(|last| last.result == TransitionResult::Succeeded && last.skipped == 0);
        let well = well.count();
        add(
            "each switch is done, and nothing was skipped".to_owned(),
            "5 switches at least: to each service by the clock and by hand, and to nobody".to_owned(),
            format!("{well} of {}", ended.len()),
            well == ended.len() && well > ACTS,
        );
        verdicts
    }
}

/// The peaks that the clock brings.
fn acts(day: Day) -> Vec<Act> {
    let peaks = MEMBERS.into_iter().zip([(day.first, day.second), (day.second, day.end)]);
    let act = |(member, (name, (from, to))): (usize, (&str, _))| {
        let what = format!("{name} has its peak size and all traffic in its peak");
        Act { member, what, from, to, ready: None }
    };
    peaks.enumerate().map(act).collect()
}

/// Whether a service has its peak with all pods and all traffic, and the other one is small.
fn has_peak(view: &View, number: usize) -> bool {
    let of = |size: &str| BTreeMap::from([(cpu(size), PODS as usize)]);
    let (own, other) = (&view.services[number], &view.services[1 - number]);
    own.sizes == of(PEAK)
        && own.serving == PODS as usize
        && other.sizes == of(VALLEY)
        && other.serving == TRICKLE as usize
}

/// Prints the summary. Returns whether all is well.
pub(crate) fn print(verdicts: &[Verdict]) -> bool {
    for Verdict { what, expected, seen, well } in verdicts {
        println!("{:<7} {what}", if *well { "ok" } else { "MISSED" });
        println!("          expected  {expected}");
        println!("          seen      {seen}");
    }
    verdicts.iter().all(|verdict| verdict.well)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::show::Service;

    fn service(cpu: i64, serving: usize) -> Service {
        Service { sizes: BTreeMap::from([(cpu, PODS as usize)]), serving }
    }

    #[test]
    fn the_user_acts_some_seconds_after_a_service_is_ready_and_twice_at_most() {
        let day = Day::next(Timestamp::UNIX_EPOCH).unwrap();
        let mut record = Record {
            day,
            before: [BTreeMap::new(), BTreeMap::new()],
            acts: acts(day),
            batch: [0; 3],
            is_over: false,
        };
        let second = SignedDuration::from_secs(1);
        let at = |seconds: i32| day.second + second * seconds;
        assert_eq!(record.next_deed(at(59)), None, "the second service is not ready");
        record.acts[1].ready = Some(second * 6);
        let pause = i32::try_from(PAUSE.as_secs()).unwrap();
        assert_eq!(record.next_deed(at(6 + pause - 1)), None);
        assert_eq!(record.next_deed(at(6 + pause)), Some(Deed::Override));
        assert_eq!(record.next_deed(day.end), None, "there is no peak any more");
        record.begin_by_hand(at(20));
        assert_eq!(record.acts[1].to, at(20));
        assert_eq!(record.next_deed(at(40)), None);
        record.acts[2].ready = Some(second * 8);
        assert_eq!(record.next_deed(at(40)), Some(Deed::TakeBack));
        record.begin_again(at(40));
        assert_eq!((record.acts.len(), record.next_deed(at(50))), (ACTS, None));
        let members: Vec<usize> = record.acts.iter().map(|act| act.member).collect();
        assert_eq!(members, [0, 1, 0, 1]);
    }

    #[test]
    fn a_service_has_its_peak_when_it_is_large_and_serves_and_the_other_one_is_small() {
        let view = |first: Service, second: Service| View {
            at: Timestamp::UNIX_EPOCH,
            active: None,
            ready: String::new(),
            services: [first, second],
            batch: [0; 2],
        };
        let good = view(service(400, 3), service(50, 1));
        assert!(has_peak(&good, 0) && !has_peak(&good, 1));
        for bad in [
            view(service(400, 2), service(50, 1)),
            view(service(400, 3), service(400, 3)),
            view(service(400, 3), service(50, 3)),
        ] {
            assert!(!has_peak(&bad, 0), "{bad:?}");
        }
    }
}
