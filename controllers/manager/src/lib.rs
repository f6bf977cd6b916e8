//! What the `springtide` binary does: the manager that runs all controllers in one process.

mod compose;
pub mod config;
mod logging;
mod options;
mod reload;
mod tasks;

pub use compose::run;
pub use logging::{LogLevel, init as init_logging};
pub use options::{Configured, ManagerArgs};
pub use reload::Measures as ReloadMeasures;
