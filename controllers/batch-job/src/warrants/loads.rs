//! Whether a load trigger may ask for the end of a pod, by the spec of its queue and what is measured alone.
//!
//! Whether the load was high for long enough is for the planner to know. Here it must be above what turns the trigger
//! off, as the planner ends nothing else; on data that is not older than the planner may use. What it has planned may
//! be on its way for some seconds when that changes.

use super::BatchJobWarrants;
use super::peaks::Asks;
use crate::ledger::counts;
use crate::loads::{MOST_AGE, Reading, Usage};
use crate::projections::queue::QueueView;
use crate::queues::rules;
use jiff::{SignedDuration, Timestamp};
use springtide_crds::batch_queue::loads::{LoadResource, LoadTrigger};
use springtide_crds::batch_queue::peaks::{PeakAction, PeakOverrideMode};
use springtide_crds::common::Tier;
use std::sync::Arc;

/// A plan is carried out, or made anew, within this time.
const UNDER_WAY: SignedDuration = SignedDuration::from_secs(10);

impl BatchJobWarrants {
    fn load(&self) -> Option<Arc<Usage>> {
        self.usage.get()?()
    }

    /// What load triggers may ask of a tier now.
    pub(super) fn load_asks(&self, queue: &QueueView, tier: Tier, now: Timestamp) -> Asks {
        let spec = &queue.spec;
        let is_off = spec.override_peak.as_ref().is_some_and(|forced| {
            forced.in_force(now).is_some_and(|mode| match mode {
                PeakOverrideMode::ForceOff => true,
                PeakOverrideMode::ForceOn => false,
            })
        });
        if spec.load_triggers.is_empty() || is_off {
            return Asks::Nothing;
        }
        let Some(usage) = self.load() else { return Asks::Nothing };
        let is_new = usage.taken.is_some_and(|taken| now.duration_since(taken).abs() < UNDER_WAY);
        let looks = [Some(&*usage), usage.before().filter(|_| is_new)];
        let asks = looks.into_iter().flatten().map(|usage| self.asks_by(usage, queue, tier, now));
        asks.fold(Asks::Nothing, Asks::or)
    }

    /// The same by what was told at one look.
    fn asks_by(&self, usage: &Usage, queue: &QueueView, tier: Tier, now: Timestamp) -> Asks {
        let spec = &queue.spec;
        let age = |reading: &Reading| now.duration_since(reading.at).abs();
        let reading = self.reading(usage, queue).filter(|it| age(it) < MOST_AGE + UNDER_WAY);
        let Some(reading) = reading else { return Asks::Nothing };
        let is_busy = |trigger: &&LoadTrigger| {
            let share = match trigger.resource {
                LoadResource::Cpu => reading.cpu,
                LoadResource::Memory => reading.memory,
            };
            share > trigger.low_percent * 10
        };
        let actions = spec.load_triggers.iter().filter(is_busy).flat_map(|trigger| &trigger.actions);
        actions.filter(|entry| entry.tier == tier).fold(Asks::Nothing, |asks, entry| {
            asks.or(match (entry.action, entry.percent) {
                (PeakAction::Drain, _) => Asks::All,
                (PeakAction::Degrade, Some(percent)) => Asks::Beyond(percent),
                (PeakAction::Degrade, None) | (PeakAction::None | PeakAction::Hold, _) => Asks::Nothing,
            })
        })
    }

    fn reading(&self, usage: &Usage, queue: &QueueView) -> Option<Reading> {
        let selector = rules::rules(queue).load_nodes;
        let nodes = self.stores.nodes.as_ref()?.list(None);
        Reading::of(nodes.iter().map(|node| &**node).filter(|node| counts(node, &selector)), usage, MOST_AGE)
    }
}
