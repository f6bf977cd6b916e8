//! A watch whose events are kept, and waiting for what they add up to.

use std::fmt::Debug;
use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Result, bail};
use futures::StreamExt;
use kube::Resource;
use kube::api::Api;
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::{Config, Event, watcher};
use serde::de::DeserializeOwned;
use tokio::sync::watch;
use tokio::task::AbortHandle;

/// Bound for events that are certain to come; far above what they take.
pub const PATIENCE: Duration = Duration::from_secs(240);
/// Between two looks at a state that changes all the time.
const PAUSE: Duration = Duration::from_millis(10);

/// What a watch's events are folded into.
pub trait Fold: Default + Send + 'static {
    /// The watched kind.
    type Object: Resource + Clone + DeserializeOwned + Debug + Send + 'static;

    /// An object is new or has changed.
    fn apply(&mut self, object: Self::Object);

    /// An object is gone.
    fn delete(&mut self, object: &Self::Object);

    /// The watch has begun anew: what is not in `present` went while nobody looked.
    fn relisted(&mut self, present: &[Self::Object]);

    /// What a test sees when it waits in vain: one line a thing of interest.
    fn describe(&self) -> String;
}

/// A running watch of one namespace. Dropping it ends it. It belongs to the runtime
/// that started it.
#[derive(Debug)]
pub struct Feed<F> {
    state: Arc<Mutex<F>>,
    changes: watch::Receiver<u64>,
    task: AbortHandle,
}

impl<F> Drop for Feed<F> {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl<F: Fold> Feed<F> {
    /// Starts to watch what `api` names; returns when the first list is complete, so
    /// that nothing that happens from now on is missed.
    ///
    /// # Errors
    /// The first list does not come.
    pub async fn start(api: Api<F::Object>) -> Result<Self> {
        let state = Arc::new(Mutex::new(F::default()));
        let (sender, mut changes) = watch::channel(0_u64);
        let task = tokio::spawn(run(api, Arc::clone(&state), sender)).abort_handle();
        let first = tokio::time::timeout(PATIENCE, changes.changed()).await;
        let feed = Self { state, changes, task };
        match first {
            Ok(Ok(())) => Ok(feed),
            Ok(Err(_)) | Err(_) => bail!("the oracle's first list did not come within {PATIENCE:?}"),
        }
    }

    /// The state as of the newest event.
    pub fn now(&self) -> MutexGuard<'_, F> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until `check` gives something; it is asked anew after each event.
    ///
    /// # Errors
    /// It gives nothing within [`PATIENCE`]: with `what` and the state.
    pub async fn until<T>(&self, what: &str, check: impl FnMut(&F) -> Option<T>) -> Result<T> {
        self.until_within(PATIENCE, what, check).await
    }

    /// As [`Feed::until`], within `bound`.
    ///
    /// # Errors
    /// As [`Feed::until`].
    pub async fn until_within<T>(
        &self,
        bound: Duration,
        what: &str,
        check: impl FnMut(&F) -> Option<T>,
    ) -> Result<T> {
        match tokio::time::timeout(bound, self.wait(check)).await {
            Ok(Some(found)) => Ok(found),
            Ok(None) => bail!("the oracle ended while it waited for {what}"),
            Err(_) => bail!("{what} did not come within {bound:?}; seen:\n{}", self.now().describe()),
        }
    }

    fn wait<T>(&self, mut check: impl FnMut(&F) -> Option<T>) -> impl Future<Output = Option<T>> {
        let mut changes = self.changes.clone();
        async move {
            loop {
                changes.mark_unchanged();
                if let Some(found) = check(&self.now()) {
                    return Some(found);
                }
                changes.changed().await.ok()?;
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}

/// The watch ends only with its feed: after errors it goes on where it was.
async fn run<F: Fold>(api: Api<F::Object>, state: Arc<Mutex<F>>, changes: watch::Sender<u64>) {
    let events = watcher(api, Config::default()).default_backoff();
    futures::pin_mut!(events);
    let mut listed = Vec::new();
    while let Some(event) = events.next().await {
        let seen = {
            let mut state = state.lock().unwrap_or_else(PoisonError::into_inner);
            match event {
                Ok(Event::Init) => {
                    listed.clear();
                    false
                }
                Ok(Event::InitApply(object)) => {
                    listed.push(object);
                    false
                }
                Ok(Event::InitDone) => {
                    state.relisted(&listed);
                    listed.drain(..).for_each(|object| state.apply(object));
                    true
                }
                Ok(Event::Apply(object)) => {
                    state.apply(object);
                    true
                }
                Ok(Event::Delete(object)) => {
                    state.delete(&object);
                    true
                }
                // A restarted API server: the watcher tries again after a pause.
                Err(error) => {
                    tracing::debug!(%error, "the oracle's watch broke");
                    false
                }
            }
        };
        if seen {
            changes.send_modify(|count| *count += 1);
        }
    }
}
