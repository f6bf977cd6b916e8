//! The TimeShareGroup controller: services whose peaks do not overlap share one set of nodes. At any time the pods of one
//! member are at peak size with traffic, those of the others are warm at valley size; a switch resizes live pods and
//! moves traffic.
//!
//! - [`watches`] is the table of what is watched, and which keys a change wakes.
//! - [`observe`](observed) gathers plain data about one group; [`memory`] knows since when things are as they are, and what
//!   dry runs were answered.
//! - [`plan`] decides, as a pure function: which way the group goes and how far it may ([`transition`],
//!   [`steps`]), in which [`units`], within what fits ([`union`], [`limits`], [`quota`]).
//! - [`machine`] says where one unit stands and what is written next, by what the API shows alone.
//! - [`profiles`] are the sizes of members' pods; [`traffic`] is who is to serve, and by what that is turned.
//! - [`preflight`] proves a switch ahead; [`guards`] end one that goes wrong.
//! - [`deletion`] lets pods go: of a group, and of a member that is removed.
//! - [`status`] says in the group's status where it stands.
//! - [`GateKeeper`] keeps gates and labels of pods open that belong to no group.
//! - [`rehearsal`] is the same code over a snapshot, for people who ask.
//! - [`RIGHTS`] is the table of what may be asked of the API server, [`TimeShareGroupWarrants`] of what may be destroyed.

#[cfg(any(test, feature = "allocator"))]
pub mod allocator;
pub mod autoscalers;
pub mod deletion;
#[cfg(test)]
pub(crate) mod fixtures;
mod gate_keeping;
pub mod grants;
pub mod guards;
pub mod limits;
pub mod machine;
mod measures;
pub mod memory;
pub mod memory_safety;
pub mod message;
pub mod names;
mod observe;
pub mod observed;
pub mod placement;
pub mod plan;
pub mod preflight;
pub mod profiles;
pub mod projections;
pub mod quota;
pub mod rehearsal;
mod rights;
pub mod rollback;
pub mod sizes;
pub mod spec_rules;
pub mod status;
pub mod steps;
pub mod traffic;
pub mod transition;
pub mod union;
pub mod units;
mod warrants;
pub mod watches;

pub use gate_keeping::GateKeeper;
pub use rights::RIGHTS;
pub use warrants::TimeShareGroupWarrants;
pub use watches::Stores;
