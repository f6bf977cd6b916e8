//! What the status of a queue tells of its peak windows.

use crate::admission::PeakFigures;
use crate::peaks::Phase;
use crate::projections::queue::{BATCH_QUEUE, QueueView};
use springtide_crds::batch_queue::{
    BatchQueueStatus, DrainWillMissReason, PeakWindowActiveReason, ReadyReason,
};
use springtide_crds::common::{ConditionStatus, ConditionWriter, condition, remove_condition};
use springtide_crds::reason::Reason;
use springtide_plumbing::events::{EventNote, Severity};
use springtide_plumbing::projection::Projection;

/// Condition Ready of a queue that nothing else keeps from admitting; `None` while no peak has an effect.
pub(super) fn ready(peak: &PeakFigures) -> Option<(ReadyReason, String)> {
    let reason = match peak.state.phase {
        Phase::Idle => return None,
        Phase::Draining => ReadyReason::Draining,
        Phase::Closed => ReadyReason::Closed,
        Phase::Ramping => ReadyReason::Ramping,
    };
    Some((reason, peak.state.message.clone()))
}

/// Adds what there is to tell; of a queue without windows, nothing.
pub(super) fn tell(peak: Option<&PeakFigures>, writer: &ConditionWriter, status: &mut BatchQueueStatus) {
    let Some(peak) = peak else {
        (status.active_window, status.next_window) = (None, None);
        status.active_load_triggers.clear();
        remove_condition(&mut status.conditions, PeakWindowActiveReason::CONDITION);
        remove_condition(&mut status.conditions, DrainWillMissReason::CONDITION);
        return;
    };
    let state = &peak.state;
    status.active_window = state.active.as_ref().map(|active| active.status(peak.pods_left));
    let on = state.triggers.iter().filter(|trigger| trigger.is_on);
    status.active_load_triggers = on.map(|trigger| trigger.name.clone()).collect();
    status.next_window = state.next.as_ref().map(|next| next.status());
    writer.set(&mut status.conditions, state.reason, &state.message);
    match &peak.forecast {
        Some(forecast) => writer.set(&mut status.conditions, forecast.reason, &forecast.message),
        None => {
            let message = "no pod has to go for a peak within the hour";
            writer.set(&mut status.conditions, DrainWillMissReason::OnTime, message);
        }
    }
}

/// One event for each turn of the windows, and when a drain will miss its time.
pub(super) fn notes(queue: &QueueView, status: &BatchQueueStatus) -> Vec<EventNote> {
    let turned = |type_: &str| {
        let found = condition(&status.conditions, type_)?;
        let was = queue.condition(type_);
        was.is_none_or(|was| was.reason != found.reason).then_some((found, was.is_none()))
    };
    let note = |severity, reason, action, text: &str| EventNote {
        resource: BATCH_QUEUE,
        key: queue.meta().key.clone(),
        uid: queue.meta().uid.clone(),
        severity,
        reason,
        action,
        note: text.to_owned(),
    };
    let window = turned(PeakWindowActiveReason::CONDITION).and_then(|(found, is_first)| {
        let reason = PeakWindowActiveReason::all().into_iter().find(|reason| found.is(*reason))?;
        let is_told = match reason {
            PeakWindowActiveReason::Draining
            | PeakWindowActiveReason::Closed
            | PeakWindowActiveReason::Ramping
            | PeakWindowActiveReason::Forced
            | PeakWindowActiveReason::LoadTrigger
            | PeakWindowActiveReason::ForcedOff => true,
            // That a queue is new, with its windows, is no turn.
            PeakWindowActiveReason::Idle => !is_first,
            // Condition Stalled has an event of its own.
            PeakWindowActiveReason::Unresolved => false,
        };
        is_told.then(|| note(Severity::Normal, reason.as_str(), "FollowingPeakWindows", &found.message))
    });
    let misses = turned(DrainWillMissReason::CONDITION).and_then(|(found, _)| {
        let reason = DrainWillMissReason::all().into_iter().find(|reason| found.is(*reason))?;
        let is_bad = reason.status() == ConditionStatus::True;
        is_bad.then(|| note(Severity::Warning, reason.as_str(), "Draining", &found.message))
    });
    window.into_iter().chain(misses).collect()
}
