//! Crash at every write: whatever a manager was about to write, or had just written, when it ended, the
//! next one comes to the same end.
//!
//! A scenario is played without a crash, through the [fault proxy](crate::fault_proxy): that gives the
//! manager's writes, each named by what it does ([`WriteId`]), the end state, and the history of the children.
//! Then, for each write and each [`Point`] on its way, the scenario is played anew in a namespace of its own,
//! and the manager ends there. Writes that are under way at the same time can be stored in any order, so
//! subsets of them are cases too. From that moment the proxy holds whatever else it sends. Another manager
//! goes on ([`Recovery`]). Once that one leads and all has come to rest, the oracles judge. A run in which the
//! write did not come is judged all the same, but is no crash: it is repeated, at last with a manager that sees
//! some changes late, as it then says what it would leave out otherwise.
//!
//! | oracle | holds |
//! |---|---|
//! | end state | the same as without a crash, times and the like apart |
//! | history | every child was made and ended as often, and in the same way |
//! | children | never more than declared, none without a live owner |
//! | status | says what the independent witnesses have seen |
//! | writes | of statuses, others and refused ones at most three more for each crash than without one, and a status for each second that it takes longer; none once all is at rest |
//! | panics | none |

mod case;
mod driver;
mod facts;
mod in_process;
mod lane;
mod reference;
mod running;
mod strike;
mod write_id;
mod writes_made;

use anyhow::Result;

use crate::local_cluster::LocalCluster;

pub use case::{CASE_VARIABLE, Case, EACH_WRITE, Point, Recovery, Subset};
pub use driver::run;
pub use facts::Facts;
pub use lane::{Lane, Verdict};
pub use reference::Reference;
pub use strike::Struck;
pub use write_id::WriteId;

/// The namespace of one run with its independent witnesses.
#[allow(async_fn_in_trait, reason = "runs are joined in one task, never sent to another")]
pub trait World {
    /// The namespace.
    fn namespace(&self) -> &str;

    /// The resources whose changes managers act on here: that of the objects, and that of their children.
    fn resources(&self) -> [&'static str; 2];

    /// Whether every object's status is about its newest spec.
    ///
    /// # Errors
    /// The API server does not answer.
    async fn observed(&self) -> Result<bool>;

    /// The end state and the history of the children.
    ///
    /// # Errors
    /// The API server does not answer.
    async fn facts(&self) -> Result<Facts>;

    /// What is wrong whatever the scenario, after so many crashes: seen by the witnesses, or left behind.
    ///
    /// # Errors
    /// The API server does not answer.
    async fn wrong(&self, crashes: usize) -> Result<Vec<String>>;

    /// Removes all objects while a manager runs, so that none of them concerns the next run, wherever the
    /// scenario has stopped.
    ///
    /// # Errors
    /// They stay.
    async fn clear(&self) -> Result<()>;
}

/// What users do, and what comes of it.
#[allow(async_fn_in_trait, reason = "runs are joined in one task, never sent to another")]
pub trait Scenario {
    /// Where it is played.
    type World<'a>: World;

    /// A word, unique among the scenarios of a kind.
    fn name(&self) -> &'static str;

    /// Makes a namespace with its witnesses.
    ///
    /// # Errors
    /// The API server refuses something.
    async fn open<'a>(&self, cluster: &'a LocalCluster) -> Result<Self::World<'a>>;

    /// Does what users do, waits for what must come of it, and returns at its end. Waits are bounded.
    ///
    /// # Errors
    /// It does not come.
    async fn play<'a>(&self, world: &Self::World<'a>) -> Result<()>;
}
