//! How many pods may be taken out of service at once: by PodDisruptionBudgets, and by node or zone.
//!
//! Nothing here evicts; who restarts or resizes live pods asks, so that a budget holds for such work as it does for
//! evictions.

pub mod budget;
pub mod in_flight;

pub use budget::{DisruptionBudgetView, POD_DISRUPTION_BUDGET};
pub use in_flight::InFlight;
