//! Whether what was seen is as it should be.

use std::collections::BTreeMap;

use jiff::SignedDuration;
use springtide_crds::time_share_group::TransitionResult;
use springtide_e2e::node::load::Seen;
use springtide_e2e::time_share::node_member::NodeMember;
use springtide_e2e::time_share::node_stage::{GROUP, NodeStage};
use springtide_e2e::upgrade::pods::Identity;
use springtide_plumbing::quantity::parse_amount;
use springtide_time_share_group::sizes::Level;

use super::show::View;
use super::{Day, JOBS, LEAD, MEMBERS, OPEN, PEAK, PODS, TRICKLE, VALLEY};

/// What was seen, as far as it is judged.
pub(crate) struct Record {
    day: Day,
    /// What made each pod the same before, by service.
    before: [BTreeMap<String, Identity>; 2],
    /// How long after its peak began each service was ready for it; before it that is less than nothing.
    ready: [Option<SignedDuration>; 2],
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
            ready: [None; 2],
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
        let mut is_news = false;
        for (number, start) in [self.day.first, self.day.second].into_iter().enumerate() {
            let is_held = |number: usize, level: Level| stage.ensure_at(&members[number], level).is_ok();
            if self.ready[number].is_none()
                && has_peak(view, number)
                && is_held(number, Level::Peak)
                && is_held(1 - number, Level::Valley)
            {
                self.ready[number] = Some(view.at.duration_since(start));
                is_news = true;
            }
        }
        is_news
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
        for (name, ready) in MEMBERS.into_iter().zip(self.ready) {
            let told = ready.map_or("never".to_owned(), |ready| format!("{:+.1} s", ready.as_secs_f64()));
            let open = SignedDuration::from_secs(OPEN);
            add(
                format!("{name} has its peak size and all traffic in its peak"),
                format!(
                    "{PODS} pods at {PEAK}, {PODS} in traffic, the others at {VALLEY}, before it is over"
                ),
                format!("ready {told} after the start of its peak"),
                ready.is_some_and(|ready| ready < open),
            );
        }
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
            "3 switches at least: to each service, and to nobody".to_owned(),
            format!("{well} of {}", ended.len()),
            well == ended.len() && well >= 3,
        );
        verdicts
    }
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
    use jiff::Timestamp;

    fn service(cpu: i64, serving: usize) -> Service {
        Service { sizes: BTreeMap::from([(cpu, PODS as usize)]), serving }
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
