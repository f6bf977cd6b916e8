//! The blow: the writes of a case held at their points, from which on nothing more leaves.

use std::time::{Duration, Instant};

use super::case::{Case, Point};
use crate::fault_proxy::{At, Class, Entry, Fault, FaultProxy, Latency, RuleId, Stage, When};

/// From the first write of a stage on, the others are awaited so long: what is not under way by then waits
/// for one that is held.
const TOGETHER: Duration = Duration::from_secs(2);
/// Between two looks at the writes.
const PAUSE: Duration = Duration::from_millis(5);

/// What a manager meets on its way.
pub(super) struct Strike<'a> {
    proxy: &'a FaultProxy,
    /// What the case's writes meet, in their order.
    rules: Vec<RuleId>,
    point: Point,
}

/// How a strike went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Struck {
    /// All writes of the case are at their points.
    Whole,
    /// Only some of a stage's are.
    Partly,
}

impl<'a> Strike<'a> {
    /// Has the proxy meet the writes of a case that are of `class`.
    pub(super) fn of(proxy: &'a FaultProxy, class: &Class, case: &Case) -> Self {
        let meet = |(number, write): (usize, &super::WriteId)| {
            let fault = match case.point {
                Point::BeforeSend => Fault::Hold(At::BeforeSend),
                Point::Committed => Fault::Hold(At::AfterCommit),
                // It passes, and is known by the rule that it has met.
                Point::AfterReply => Fault::Delay(Latency::Fixed(Duration::ZERO)),
                Point::Stage(stage) if stage.is_committed(number) => Fault::Hold(At::AfterCommit),
                Point::Stage(_) => Fault::Hold(At::BeforeSend),
            };
            proxy.fault(write.narrow(class.clone()), When::Nth(write.occurrence()), fault)
        };
        let strike =
            Self { proxy, rules: case.writes.iter().enumerate().map(meet).collect(), point: case.point };
        strike.silence(class)
    }

    /// Has the proxy hold the first write of `class` once it is stored.
    pub(super) fn at_first(proxy: &'a FaultProxy, class: &Class) -> Self {
        let rule = proxy.fault(class.clone(), When::Nth(1), Fault::Hold(At::AfterCommit));
        Self { proxy, rules: vec![rule], point: Point::Committed }.silence(class)
    }

    /// Nothing leaves behind a single write. The writes of a stage could wait for what is behind one of them.
    fn silence(self, class: &Class) -> Self {
        match (self.point, self.rules.as_slice()) {
            (Point::BeforeSend | Point::Committed | Point::AfterReply, [rule]) => {
                self.proxy.fault(class.clone(), When::After(*rule), Fault::Hold(At::BeforeSend));
            }
            (Point::BeforeSend | Point::Committed | Point::AfterReply | Point::Stage(_), _) => {}
        }
        self
    }

    /// Waits until the writes are at their points. That may be never: who waits bounds it.
    pub(super) async fn struck(&self) -> Struck {
        loop {
            if let Some(struck) = self.proxy.journal(|all| self.look(all)) {
                return struck;
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    fn look(&self, all: &[Entry]) -> Option<Struck> {
        let met = all.iter().filter(|entry| entry.fault.is_some_and(|rule| self.rules.contains(&rule)));
        let there = met.filter(|entry| match self.point {
            Point::BeforeSend => entry.stage == Stage::Held(At::BeforeSend),
            Point::Committed => entry.stage == Stage::Held(At::AfterCommit),
            Point::AfterReply => entry.stage == Stage::Done,
            Point::Stage(_) => matches!(entry.stage, Stage::Held(_)),
        });
        let since: Vec<Instant> = there.map(|entry| entry.at).collect();
        match (since.len() == self.rules.len(), since.first()) {
            (true, _) => Some(Struck::Whole),
            (false, Some(first)) if first.elapsed() >= TOGETHER => Some(Struck::Partly),
            (false, Some(_) | None) => None,
        }
    }
}
