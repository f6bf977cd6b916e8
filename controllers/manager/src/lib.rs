//! What the `springtide` binary does: the manager that runs all controllers in one process.

mod compose;
mod logging;
mod tasks;

pub use compose::{ManagerArgs, run};
pub use logging::{LogFormat, init as init_logging};
