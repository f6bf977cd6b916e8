//! The write budget: how fast this process may write, and how many of its writes may be under way, in
//! several dimensions at once.
//!
//! API Priority and Fairness bounds how many requests are under way, not how many come in a second, and
//! others have dropped their client-side limits without a replacement. A write here needs
//!
//! 1. a token of every bucket above it: its object (status only), its class (events only), its
//!    namespace, its controller, the process. All are checked first and then taken together, so a wide
//!    bucket is never drained for a write that a narrow one refuses;
//! 2. a slot in the in-flight window of its priority level, which the server's answers name and whose
//!    size they steer: a server that says 429 on one level is left alone there, and there only;
//! 3. its turn: deficit round robin over the namespaces within its class, and a sixteenth of the grants
//!    for each class that waits behind a higher one. Events are dropped instead of waiting.
//!
//! Nothing ever waits here. Who is refused has a ticket from then on and goes back into its queue; the
//! pump ([`WriteBudget::run`]) grants tickets in turn, keeps what they need for a second, and wakes their keys.

mod bucket;
mod buckets;
mod config;
mod latency;
mod levels;
mod line;
#[cfg(test)]
mod obligations_test;
#[cfg(test)]
mod simulation_test;
#[cfg(test)]
mod tests;
mod turns;
mod window;

pub use config::{BucketConfig, BudgetConfig, WriteRates};
pub use levels::{Report, Route};
pub use window::Signal;

use crate::key::ObjectKey;
use crate::plan::WriteClass;
use buckets::BucketKey;
use levels::Slot;
use line::{Admitted, Ask, State};
use prometheus_client::metrics::histogram::Histogram;
use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

/// Buckets of the time that a write waits for budget, in seconds: from a token's distance to a long hold.
const WAIT_SECONDS: [f64; 14] =
    [0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 15.0, 60.0, 300.0];

/// What a write can be short of: the dimensions of the budget, the buckets from narrow to wide.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Limit {
    /// Status writes of one object.
    Object,
    /// Events of a controller in one namespace.
    Class,
    /// All writes of a controller into a namespace.
    Namespace,
    /// All writes of a controller.
    Controller,
    /// All writes of the process.
    Process,
    /// Requests of a priority level under way.
    Window,
    /// The server has answered 429 on a priority level and is left alone for a while.
    Hold,
}

impl Limit {
    /// All of them.
    pub const ALL: [Self; 7] = [
        Self::Object,
        Self::Class,
        Self::Namespace,
        Self::Controller,
        Self::Process,
        Self::Window,
        Self::Hold,
    ];

    /// The label value in metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Object => "object",
            Self::Class => "class",
            Self::Namespace => "namespace",
            Self::Controller => "controller",
            Self::Process => "process",
            Self::Window => "window",
            Self::Hold => "hold",
        }
    }
}

impl fmt::Display for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Object => "no token for the object",
            Self::Class => "no token for the class",
            Self::Namespace => "no token for the namespace",
            Self::Controller => "no token for the controller",
            Self::Process => "no token for the process",
            Self::Window => "too many requests of its priority level are under way",
            Self::Hold => "the API server has asked to be left alone on its priority level",
        })
    }
}

/// A refusal: nothing was taken. The caller is in line, unless what it wanted to write was an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{limit}")]
pub struct Throttled {
    /// When to look again at the latest; the pump wakes the caller before that. For an event, when it may pass.
    pub until: Instant,
    /// What was short; with several, the narrowest.
    pub limit: Limit,
}

/// What the budget needs to know of a write.
#[derive(Clone, Copy, Debug)]
pub struct WriteRequest<'a> {
    /// Name of the controller.
    pub controller: &'static str,
    /// Namespace of the object written; empty for a cluster-scoped one.
    pub namespace: &'a str,
    /// Class of the write.
    pub class: WriteClass,
    /// Verb and resource, by which the server finds its priority level.
    pub route: Route,
    /// The key on whose behalf it is written: who is refused is woken under this name.
    pub owner: &'a ObjectKey,
    /// The object, for the bucket of its status writes; `None` for other writes.
    pub object: Option<&'a ObjectKey>,
}

/// The right to send one write, or the writes of one chain one after the other.
///
/// It holds its place in the in-flight window for as long as it lives: drop it when the last answer is
/// known. A request that is cut off gives its place back in the same way.
#[derive(Debug)]
#[must_use = "a permit is held until the write that it was given for is answered"]
pub struct Permit<'a> {
    budget: &'a WriteBudget,
    slots: Vec<Slot>,
}

impl Permit<'_> {
    /// How long a request of this route is not to go out, as its priority level is held since it was admitted; `None`
    /// where it may.
    pub fn held(&self, route: Route) -> Option<Duration> {
        let now = Instant::now();
        let state = self.budget.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.levels.held(route, &self.slots, now)
    }

    /// Tells what became of a request. For a 429, how long nothing goes out on its priority level.
    pub fn report(&self, report: &Report<'_>) -> Option<Duration> {
        self.budget.change(|state, now| state.learn(report, &self.slots, now))
    }
}

impl Drop for Permit<'_> {
    fn drop(&mut self) {
        self.budget.change(|state, now| state.finish(&self.slots, now));
    }
}

type Wake = Arc<dyn Fn(&ObjectKey) + Send + Sync>;

/// The write budget of a process. Leases do not pass it: they have a client of their own.
pub struct WriteBudget {
    state: Mutex<State>,
    wakes: Mutex<HashMap<&'static str, Wake>>,
    /// Tells [`WriteBudget::run`] that a ticket may be granted sooner than it knows.
    sooner: Notify,
    /// Time in line of admitted writes, in the order of [`WriteClass::ALL`].
    waits: [Histogram; WriteClass::ALL.len()],
}

impl fmt::Debug for WriteBudget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WriteBudget").finish_non_exhaustive()
    }
}

/// What metrics show of a budget.
#[derive(Clone, Debug, PartialEq)]
pub struct BudgetStats {
    /// Tokens in the bucket of the process.
    pub process_tokens: f64,
    /// Tokens in the buckets of the controllers asked for, in their order.
    pub controller_tokens: Vec<f64>,
    /// Refusals since the start, in the order of [`Limit::ALL`].
    pub throttled: [u64; Limit::ALL.len()],
    /// Writes shed since the start, in the order of [`WriteClass::ALL`]: events dropped, writes of the
    /// class above them put off.
    pub shed: [u64; WriteClass::ALL.len()],
    /// The in-flight windows.
    pub windows: Vec<WindowStats>,
}

/// What metrics show of an in-flight window.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WindowStats {
    /// UID of the priority level; `common` for the one of all writes that no answer has named one for.
    pub priority_level: Arc<str>,
    /// Requests under way.
    pub in_flight: u32,
    /// Requests that may be under way.
    pub limit: u32,
}

impl WriteBudget {
    /// A budget with full buckets.
    pub fn new(config: BudgetConfig) -> Self {
        Self {
            state: Mutex::new(State::new(config, rand::random())),
            wakes: Mutex::default(),
            sooner: Notify::new(),
            waits: std::array::from_fn(|_| Histogram::new(WAIT_SECONDS)),
        }
    }

    /// Has `wake` called with each key of `controller` that a write was granted to. It must be brief, and
    /// the key must run soon: the grant lapses after a second.
    pub fn on_grant(&self, controller: &'static str, wake: impl Fn(&ObjectKey) + Send + Sync + 'static) {
        self.wakes.lock().unwrap_or_else(PoisonError::into_inner).insert(controller, Arc::new(wake));
    }

    /// Grants tickets as their time comes, until `shutdown`. Without it they are granted only when
    /// somebody asks or a write has ended.
    pub async fn run(&self, shutdown: CancellationToken) {
        loop {
            let due = self.change(|state, _| state.announce());
            let timer = async {
                match due {
                    Some(due) => sleep_until(due).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                () = shutdown.cancelled() => return,
                () = self.sooner.notified() => {}
                () = timer => {}
            }
        }
    }

    /// Admits a write: from a grant if the caller has one, else from what nobody in line can use now.
    ///
    /// # Errors
    /// There is nothing for it now. The caller is in line from here on, once, for what it asked last.
    pub fn try_admit(&self, request: &WriteRequest<'_>) -> Result<Permit<'_>, Throttled> {
        self.try_admit_chain(request, &[])
    }

    /// Admits writes that are to go out one after the other, each as soon as the one before it is
    /// answered: the tokens of all are there before the first is sent. They need one slot of each of their
    /// priority levels.
    ///
    /// # Errors
    /// As [`WriteBudget::try_admit`].
    pub fn try_admit_chain(
        &self,
        first: &WriteRequest<'_>,
        rest: &[WriteRequest<'_>],
    ) -> Result<Permit<'_>, Throttled> {
        let caller = (first.controller, first.owner.clone());
        let ask = Ask::of(first, rest);
        let Admitted { slots, waited } = self.change(|state, now| state.admit(caller, ask, now))?;
        self.waits[first.class as usize].observe(waited.as_secs_f64());
        Ok(Permit { budget: self, slots })
    }

    /// Takes a token of the namespace, the controller and the process, for a request that is no write and
    /// waits for nothing. Whether there was one that nobody in line can use.
    pub fn spend(&self, controller: &'static str, namespace: &str) -> bool {
        self.change(|state, now| state.buckets.spend(controller, namespace.into(), now))
    }

    /// Takes the ticket or grant of a key back: it does not want to write any more.
    pub fn forgo(&self, controller: &'static str, owner: &ObjectKey) {
        self.change(|state, now| {
            state.withdraw(&(controller, owner.clone()), now);
        });
    }

    /// Goes on with other figures. Tickets, grants, windows and what was taken from the buckets stay.
    pub fn reconfigure(&self, config: BudgetConfig) {
        self.change(|state, now| state.reconfigure(config, now));
    }

    /// What a controller may write in a second, in the long run, by the figures that are in force.
    pub fn rates(&self) -> WriteRates {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).buckets.rates()
    }

    /// The figures of this moment: of the process and of these controllers.
    pub fn stats(&self, controllers: &[&'static str]) -> BudgetStats {
        let now = Instant::now();
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let tokens = |key: &BucketKey| state.buckets.tokens(key, now);
        let windows = state.levels.figures().into_iter();
        BudgetStats {
            process_tokens: tokens(&BucketKey::Process),
            controller_tokens: controllers.iter().map(|name| tokens(&BucketKey::Controller(name))).collect(),
            throttled: state.throttled,
            shed: state.shed,
            windows: windows
                .map(|(priority_level, in_flight, limit)| WindowStats { priority_level, in_flight, limit })
                .collect(),
        }
    }

    /// Time in line of the admitted writes of each class.
    pub(crate) fn waits(&self) -> impl Iterator<Item = (WriteClass, &Histogram)> {
        WriteClass::ALL.into_iter().zip(&self.waits)
    }

    /// Runs a change of the state, grants what it frees, and wakes whom that concerns.
    fn change<T>(&self, change: impl FnOnce(&mut State, Instant) -> T) -> T {
        let now = Instant::now();
        // No panic can leave the state half changed in a way that a lock would mend.
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.pump(now);
        let result = change(&mut state, now);
        state.pump(now);
        let woken = state.take_woken();
        let sooner = state.is_sooner();
        drop(state);
        if sooner {
            self.sooner.notify_one();
        }
        for (controller, owner) in &woken {
            let wake = self.wakes.lock().unwrap_or_else(PoisonError::into_inner).get(controller).cloned();
            if let Some(wake) = wake {
                wake(owner);
            }
        }
        result
    }
}
