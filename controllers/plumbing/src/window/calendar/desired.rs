//! Who has the peak at a time.

use super::claims::{Stretch, Union};
use super::{Calendar, Forced};
use jiff::Timestamp;
use springtide_crds::time_share_group::Override;
use std::sync::Arc;

/// Why somebody, or nobody, has the peak.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Cause {
    /// The override says so.
    Override,
    /// A window of the member is open, or its lead has begun.
    Window,
    /// No window says otherwise.
    Default,
}

/// Who is to be at peak at a time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Desired {
    /// The member; `None`: nobody.
    pub member: Option<Arc<str>>,
    /// Why.
    pub cause: Cause,
    /// The window by which it is so; of several that follow one another the first.
    pub window: Option<Arc<str>>,
    /// When that window opens or has opened: the switch to it begins by its lead earlier.
    pub window_start: Option<Timestamp>,
    /// Since when member and cause are these; `None` where nobody knows, as for an override, and for more than a year.
    pub since: Option<Timestamp>,
    /// When one of the two changes, and with it the earliest time at which to look again; `None` where that is more than
    /// a year away, or never.
    pub until: Option<Timestamp>,
    /// The next switch.
    pub next: Option<Next>,
}

impl Desired {
    /// Until when a window or the override gives the peak to this member: [`Timestamp::MAX`] where that is for ever, or for
    /// more than a year. `None` while neither does, whoever has it by default.
    #[must_use]
    pub fn gives_until(&self, member: &str) -> Option<Timestamp> {
        let is_given = match self.cause {
            Cause::Window | Cause::Override => self.member.as_deref() == Some(member),
            Cause::Default => false,
        };
        is_given.then(|| self.until.unwrap_or(Timestamp::MAX))
    }
}

/// A switch that is to come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Next {
    /// The member to switch to; `None`: nobody.
    pub member: Option<Arc<str>>,
    /// When the switch begins: the start of the window less its lead, the end of the one before, or that of the override.
    pub start: Timestamp,
    /// The window by which it is so.
    pub window: Option<Arc<str>>,
    /// When that window opens or has opened.
    pub window_start: Option<Timestamp>,
}

/// A member other than the default one, with its windows.
type Rival<'a> = (&'a Arc<str>, Union<'a>);

impl Calendar {
    /// Who is to be at peak now: by the override until its time, else by the window that is open or whose lead has begun,
    /// else the default member. An override whose time has come is nothing, and so is one for a member that is not there.
    ///
    /// Where windows of different members meet, which is a [conflict](super::Survey::conflict), the one goes on that began
    /// first.
    #[must_use]
    pub fn desired(&self, over: Option<&Override>, now: Timestamp) -> Desired {
        let Some(Forced { member, until }) = self.forced(over).filter(|forced| now < forced.until) else {
            return self.scheduled(now);
        };
        let then = self.scheduled(until);
        let next = if then.member == member {
            then.next
        } else {
            let Desired { member, window, window_start, .. } = then;
            Some(Next { member, start: until, window, window_start })
        };
        Desired {
            member,
            cause: Cause::Override,
            window: None,
            window_start: None,
            since: None,
            until: Some(until),
            next,
        }
    }

    /// Who is to be at peak by the schedule alone.
    fn scheduled(&self, now: Timestamp) -> Desired {
        let rivals = self.rivals();
        let Some((member, stretch)) = holder(&rivals, now) else { return self.by_default(&rivals, now) };
        let until = Some(stretch.end).filter(|end| *end < Timestamp::MAX);
        Desired {
            member: Some(Arc::clone(member)),
            cause: Cause::Window,
            window: Some(Arc::clone(&stretch.window.name)),
            window_start: Some(stretch.opens),
            since: known(stretch.start),
            until,
            next: until
                .map(|end| self.following(&rivals, end))
                .filter(|next| next.member.as_ref() != Some(member)),
        }
    }

    /// What holds when a stretch has ended.
    fn following(&self, rivals: &[Rival<'_>], end: Timestamp) -> Next {
        match holder(rivals, end) {
            Some((member, stretch)) => Next::to(member, end, &stretch),
            None => {
                let own = self.windows_of_default().at(end);
                Next {
                    member: self.default.clone(),
                    start: end,
                    window: own.as_ref().map(|stretch| Arc::clone(&stretch.window.name)),
                    window_start: own.map(|stretch| stretch.opens),
                }
            }
        }
    }

    /// While no other member has a window.
    fn by_default(&self, rivals: &[Rival<'_>], now: Timestamp) -> Desired {
        let coming = rivals.iter().filter_map(|(member, union)| Some((*member, union.next_after(now)?)));
        let next = coming.min_by_key(|(_, stretch)| stretch.start);
        let gone = rivals.iter().filter_map(|(_, union)| union.last_end(now)).max();
        let own = self.windows_of_default();
        let open = own.at(now);
        let (since, until) = match &open {
            Some(stretch) => (known(stretch.start), Some(stretch.end)),
            None => (own.last_end(now), own.next_after(now).map(|stretch| stretch.start)),
        };
        let until = [until, next.as_ref().map(|(_, stretch)| stretch.start)].into_iter().flatten().min();
        Desired {
            member: self.default.clone(),
            cause: if open.is_some() { Cause::Window } else { Cause::Default },
            window: open.as_ref().map(|stretch| Arc::clone(&stretch.window.name)),
            window_start: open.as_ref().map(|stretch| stretch.opens),
            since: since.max(gone),
            until: until.filter(|until| *until < Timestamp::MAX),
            next: next.map(|(member, stretch)| Next::to(member, stretch.start, &stretch)),
        }
    }

    /// The windows of the default member itself: they switch nothing.
    fn windows_of_default(&self) -> Union<'_> {
        Union::of(self.windows.iter().filter(|window| self.is_default(&window.member)))
    }

    /// Members whose windows take the peak from the default member, in the order of the members.
    fn rivals(&self) -> Vec<Rival<'_>> {
        let others = self.members.iter().filter(|member| !self.is_default(member));
        others
            .map(|member| (member, self.windows_of(member)))
            .filter(|(_, union)| !union.is_empty())
            .collect()
    }
}

impl Next {
    fn to(member: &Arc<str>, start: Timestamp, stretch: &Stretch<'_>) -> Self {
        Self {
            member: Some(Arc::clone(member)),
            start,
            window: Some(Arc::clone(&stretch.window.name)),
            window_start: Some(stretch.opens),
        }
    }
}

/// Who of them has the peak: who has begun first.
fn holder<'a>(rivals: &[Rival<'a>], now: Timestamp) -> Option<(&'a Arc<str>, Stretch<'a>)> {
    let open = rivals.iter().filter_map(|(member, union)| Some((*member, union.at(now)?)));
    open.min_by_key(|(_, stretch)| stretch.start)
}

/// A start, unless it stands for one of more than a year ago.
fn known(start: Timestamp) -> Option<Timestamp> {
    Some(start).filter(|start| *start > Timestamp::UNIX_EPOCH)
}
