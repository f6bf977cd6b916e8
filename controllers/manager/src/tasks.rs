//! Named tasks none of which may end unless it is told to.

use anyhow::{Error, Result, anyhow};
use std::collections::HashMap;
use std::future::Future;
use std::time::Duration;
use tokio::task::{Id, JoinError, JoinSet};

/// Tasks by name.
#[derive(Default)]
pub(crate) struct Tasks {
    set: JoinSet<Result<()>>,
    names: HashMap<Id, &'static str>,
}

/// How tasks that were told to end have done so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Joined {
    /// All by themselves.
    All,
    /// Some did not in time: what they had begun may go on elsewhere.
    CutOff,
}

impl Tasks {
    /// Starts a task.
    pub(crate) fn spawn(
        &mut self,
        name: &'static str,
        task: impl Future<Output = Result<()>> + Send + 'static,
    ) {
        let handle = self.set.spawn(task);
        self.names.insert(handle.id(), name);
    }

    /// Resolves when a task has ended though nobody asked it to, with its name and what it ended with.
    /// A set without tasks never does.
    pub(crate) async fn ended(&mut self) -> Error {
        match self.set.join_next_with_id().await {
            Some(ended) => self.describe(ended),
            None => std::future::pending().await,
        }
    }

    /// Waits until all tasks, told to end before, have done so; after `bound` they are dropped, at some
    /// moment after this returns.
    pub(crate) async fn join(&mut self, bound: Duration) -> Joined {
        let all = async {
            while let Some(ended) = self.set.join_next_with_id().await {
                if !matches!(ended, Ok((_, Ok(())))) {
                    tracing::error!("{:#}", self.describe(ended));
                }
            }
        };
        if tokio::time::timeout(bound, all).await.is_err() {
            tracing::warn!(seconds = bound.as_secs(), left = self.set.len(), "tasks did not end in time");
            self.set.abort_all();
            return Joined::CutOff;
        }
        Joined::All
    }

    fn describe(&self, ended: Result<(Id, Result<()>), JoinError>) -> Error {
        let (id, outcome) = match ended {
            Ok((id, outcome)) => (id, outcome.err()),
            Err(error) => (error.id(), Some(Error::from(error))),
        };
        let name = self.names.get(&id).copied().unwrap_or("a task");
        match outcome {
            Some(error) => error.context(format!("{name} has failed")),
            None => anyhow!("{name} has ended unexpectedly"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_end_bears_the_name_of_the_task() {
        let mut tasks = Tasks::default();
        tasks.spawn("idle", std::future::pending());
        tasks.spawn("brief", async { Ok(()) });
        assert_eq!(tasks.ended().await.to_string(), "brief has ended unexpectedly");
        tasks.spawn("broken", async { panic!("as planned") });
        assert!(format!("{:#}", tasks.ended().await).starts_with("broken has failed: "));
    }

    #[tokio::test(start_paused = true)]
    async fn tasks_that_are_cut_off_are_told_from_those_that_end() {
        let bound = Duration::from_secs(20);
        let mut tasks = Tasks::default();
        assert_eq!(tasks.join(bound).await, Joined::All);
        let (writes, written) = tokio::sync::oneshot::channel::<()>();
        for seconds in [1, 19] {
            tasks.spawn("in time", async move {
                tokio::time::sleep(Duration::from_secs(seconds)).await;
                Ok(())
            });
        }
        assert_eq!(tasks.join(bound).await, Joined::All);
        tasks.spawn("late", async move {
            tokio::time::sleep(Duration::from_secs(21)).await;
            drop(writes);
            Ok(())
        });
        let start = tokio::time::Instant::now();
        assert_eq!(tasks.join(bound).await, Joined::CutOff);
        assert_eq!(start.elapsed(), bound);
        // It is dropped, not left running.
        assert!(written.await.is_err());
        assert_eq!(start.elapsed(), bound);
    }
}
