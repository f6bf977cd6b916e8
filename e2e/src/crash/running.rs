//! The managers of a case, in this process or in their own.

use anyhow::{Context, Result};

use super::in_process::{InProcess, Panics};
use crate::manager::Manager;

/// A manager that crashes some day.
pub(super) enum Mortal {
    InProcess(InProcess),
    Process(Manager),
}

impl Mortal {
    /// Ends it; the panics of a process of its own are counted then, by its log.
    pub(super) async fn crash(self, panics: &Panics) -> Result<()> {
        match self {
            Self::InProcess(manager) => manager.crash().await,
            Self::Process(manager) => {
                let log = manager.child().log_path().to_owned();
                manager.kill()?;
                let log = std::fs::read(&log).with_context(|| format!("read {}", log.display()))?;
                panics.add(panics_told(&String::from_utf8_lossy(&log)));
                Ok(())
            }
        }
    }
}

/// How many panics a log tells of, caught ones too, as the standard library words them.
fn panics_told(log: &str) -> usize {
    log.lines().filter(|line| line.contains("panicked at ")).count()
}

/// The managers of a case that have not crashed.
#[derive(Default)]
pub(super) struct Running {
    /// The one that does the work.
    pub(super) acting: Option<Mortal>,
    /// One that waits for the lease.
    pub(super) standby: Option<InProcess>,
}

impl Running {
    /// Ends all of them.
    pub(super) async fn crash(&mut self, panics: &Panics) -> Result<()> {
        if let Some(manager) = self.acting.take() {
            manager.crash(panics).await?;
        }
        if let Some(manager) = self.standby.take() {
            manager.crash().await?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_tells_of_each_panic_once() {
        let log = "{\"level\":\"INFO\"}\nthread 'tokio-rt-worker' (7) panicked at src/plan.rs:1:1:\nindex out of bounds\n";
        assert_eq!((panics_told(log), panics_told("")), (1, 0));
    }
}
