//! Whether what was seen is as it should be.

use std::collections::BTreeSet;

use jiff::{SignedDuration, Timestamp};

use super::show::View;
use super::{CPUS_PER_NODE, ELASTIC, LEAD, NODES, PERCENT, SINGLES, USUAL};

/// A look at the moment of an edge may be answered by what was before it.
const BLUR: SignedDuration = SignedDuration::from_secs(1);

/// What was seen, as far as it is judged.
pub(crate) struct Record {
    start: Timestamp,
    end: Timestamp,
    ramp_seconds: i64,
    /// BestEffort pods that were there when the lead began.
    before: BTreeSet<String>,
    /// Most pods of both tiers before the lead.
    most_before: usize,
    /// BestEffort pods seen for the first time between lead and end.
    started_inside: BTreeSet<String>,
    /// Most BestEffort pods seen while the window was open.
    low_inside: usize,
    /// Most Standard pods seen while the window was open.
    usual_inside: usize,
    /// Looks while the window was open.
    looks_inside: usize,
    /// By how many pods the ramp was ever exceeded, and the most pods on it.
    above_ramp: i64,
    low_at_end: usize,
    usual_at_end: usize,
    was_to_miss: bool,
    seen: Vec<&'static str>,
    is_back: bool,
}

/// One thing that had to be so.
pub(crate) struct Verdict {
    what: &'static str,
    expected: String,
    seen: String,
    well: bool,
}

impl Record {
    /// Of a window, before anything is seen.
    pub(crate) fn new(start: Timestamp, end: Timestamp, ramp_seconds: i64) -> Self {
        Self {
            start,
            end,
            ramp_seconds,
            before: BTreeSet::new(),
            most_before: 0,
            started_inside: BTreeSet::new(),
            low_inside: 0,
            usual_inside: 0,
            looks_inside: 0,
            above_ramp: 0,
            low_at_end: 0,
            usual_at_end: 0,
            was_to_miss: false,
            seen: Vec::new(),
            is_back: false,
        }
    }

    /// Takes in what is there now.
    pub(crate) fn see(&mut self, view: &View) {
        for reason in ["Draining", "Closed", "Ramping"] {
            if view.ready == reason && !self.seen.contains(&reason) {
                self.seen.push(reason);
            }
        }
        self.was_to_miss |= view.will_miss;
        let (low, usual) = (view.low.all.len(), view.usual.all.len());
        let lead = self.start - SignedDuration::from_secs(LEAD);
        if view.at < lead {
            self.before.clone_from(&view.low.all);
            self.most_before = self.most_before.max(low + usual);
        } else if view.at < lead + BLUR {
            self.before.extend(view.low.all.iter().cloned());
        } else if view.at < self.end {
            self.started_inside.extend(view.low.all.difference(&self.before).cloned());
        }
        if (self.start..self.end).contains(&view.at) {
            self.looks_inside += 1;
            self.low_inside = self.low_inside.max(low);
            self.usual_inside = self.usual_inside.max(usual);
            (self.low_at_end, self.usual_at_end) = (low, usual);
        }
        if view.at >= self.end {
            let since = view.at.duration_since(self.end).as_secs() + 1;
            let pods = |count: usize| i64::try_from(count).unwrap_or(i64::MAX);
            let free = pods(capacity()) - pods(self.low_at_end + self.usual_at_end);
            let came_back = pods(low + usual) - pods(self.low_at_end + self.usual_at_end);
            let slope = free * since.min(self.ramp_seconds) / self.ramp_seconds;
            self.above_ramp = self.above_ramp.max(came_back - slope);
            self.is_back = low + usual == wanted() && view.ready == "Admitting";
        }
    }

    /// Whether all jobs have come back.
    pub(crate) fn is_over(&self) -> bool {
        self.is_back
    }

    /// Says what was as it should be and what was not.
    pub(crate) fn verdicts(&self, usual: usize, failed: u32) -> Vec<Verdict> {
        let share = capacity() * PERCENT as usize / 100;
        let verdict = |what, expected: String, seen: String, well| Verdict { what, expected, seen, well };
        vec![
            verdict(
                "before the window the nodes are full",
                format!("{} pods", wanted()),
                format!("{} pods", self.most_before),
                self.most_before == wanted(),
            ),
            verdict(
                "BestEffort is gone when it opens, and stays away",
                "0 pods inside".to_owned(),
                format!("at most {} pods in {} looks", self.low_inside, self.looks_inside),
                self.low_inside == 0 && self.looks_inside > 0,
            ),
            verdict(
                "no BestEffort pod starts from the lead to the end",
                "0 starts".to_owned(),
                format!("{} starts", self.started_inside.len()),
                self.started_inside.is_empty(),
            ),
            verdict(
                "Standard keeps its share of the queue",
                format!("at most {share} of {usual} pods"),
                format!("at most {} pods", self.usual_inside),
                (1..=share).contains(&self.usual_inside),
            ),
            verdict(
                "the queue says what it does",
                "Draining, Closed, Ramping".to_owned(),
                self.seen.join(", "),
                self.seen == ["Draining", "Closed", "Ramping"],
            ),
            verdict(
                "the drain is foretold to be in time",
                "DrainWillMiss is never True".to_owned(),
                if self.was_to_miss { "it was True".to_owned() } else { "it never was".to_owned() },
                !self.was_to_miss,
            ),
            verdict(
                "after it the pods come back, not faster than the ramp",
                format!("{} pods, none above the slope", wanted()),
                format!(
                    "{}, {} above the slope",
                    if self.is_back { "all" } else { "not all" },
                    self.above_ramp.max(0)
                ),
                // One pod may be counted a moment before the second in which it is allowed.
                self.is_back && self.above_ramp <= 1,
            ),
            verdict(
                "a task that had to leave has not failed",
                "0 failures".to_owned(),
                format!("{failed} failures"),
                failed == 0,
            ),
        ]
    }
}

/// Pods of half a CPU that the nodes have room for.
fn capacity() -> usize {
    NODES * CPUS_PER_NODE as usize * 2
}

/// Pods that the jobs want.
fn wanted() -> usize {
    (SINGLES + ELASTIC + USUAL) as usize
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
