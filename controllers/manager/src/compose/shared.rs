//! What every controller is joined to, and how one is started.

use crate::tasks::Tasks;
use anyhow::Result;
use futures::FutureExt;
use springtide_plumbing::brake::Brake;
use springtide_plumbing::breaker::Breaker;
use springtide_plumbing::budget::WriteBudget;
use springtide_plumbing::client::{Connection, Reader};
use springtide_plumbing::clock::Clock;
use springtide_plumbing::controller::{Controller, Reconciler};
use springtide_plumbing::events::EventSink;
use springtide_plumbing::executor::Executor;
use springtide_plumbing::failing::Failures;
use springtide_plumbing::gate::Gate;
use springtide_plumbing::guard::{Guard, Mode};
use springtide_plumbing::key::ObjectKey;
use springtide_plumbing::lease::Leadership;
use springtide_plumbing::metrics::Metrics;
use springtide_plumbing::queue::WorkQueue;
use springtide_plumbing::store::StoreView;
use springtide_plumbing::warrant::Warrants;
use std::convert::Infallible;
use std::future::pending;
use std::sync::Arc;
use tokio_util::sync::CancellationToken;

/// What every controller is joined to.
pub(super) struct Shared {
    pub(super) connection: Connection,
    pub(super) identity: String,
    pub(super) leadership: Leadership,
    pub(super) metrics: Arc<Metrics>,
    pub(super) budget: Arc<WriteBudget>,
    pub(super) brake: Brake,
    pub(super) breaker: Arc<Breaker>,
    pub(super) drain: CancellationToken,
}

/// What a controller brings of its own.
pub(super) struct Part<'a, R> {
    pub(super) reconciler: Arc<R>,
    pub(super) queue: WorkQueue<ObjectKey>,
    /// The stores that its plans rest on.
    pub(super) views: &'a [Arc<dyn StoreView>],
    pub(super) guard: Guard,
    /// Keys that it works on at once.
    pub(super) workers: usize,
}

impl Shared {
    pub(super) fn guard(&self, mode: Mode, warrants: Arc<dyn Warrants>) -> Guard {
        Guard { mode, brake: self.brake.clone(), breaker: self.breaker.clone(), warrants }
    }

    /// Starts a controller with a gate, a client and an executor of its own. `wired` joins its queue to
    /// the stores.
    pub(super) fn start<R: Reconciler>(
        &self,
        part: Part<'_, R>,
        wired: impl Future<Output = ()> + Send + 'static,
        agent: &dyn Fn(&str) -> String,
        tasks: &mut Tasks,
    ) -> Result<()> {
        let Part { reconciler, queue, views, guard, workers } = part;
        let client = self.connection.writer(&agent(R::NAME), self.leadership.fence.clone())?;
        let reader = Reader::new(client.clone()).charged_to(self.budget.clone(), R::NAME);
        let confirm = Box::new(move |resource, key: ObjectKey| {
            let reader = reader.clone();
            async move { reader.identity(resource, &key).await }.boxed()
        });
        let released = queue.clone();
        let gate = Gate::new(views, move |key: &ObjectKey| released.release(key), confirm);
        let granted = queue.clone();
        self.budget.on_grant(R::NAME, move |key| granted.resume(key));
        self.metrics.add_queue(R::NAME, queue.clone());
        let executor = Executor {
            controller: R::NAME,
            rights: R::RIGHTS,
            client,
            fence: self.leadership.fence.clone(),
            guard,
            budget: self.budget.clone(),
            gate: gate.clone(),
            metrics: self.metrics.clone(),
            events: EventSink::new(R::NAME, &self.identity, self.metrics.clone()),
            fights: Arc::default(),
        };
        let controller = Controller {
            reconciler,
            queue,
            gate: gate.clone(),
            executor,
            leading: self.leadership.leading.clone(),
            clock: Clock::system(),
            metrics: self.metrics.clone(),
            failures: Failures::default(),
            workers,
        };
        // The gate has no end of its own: it answers for as long as passes are under way.
        let (run, asks) = (controller.run(self.drain.clone()), gate.run(CancellationToken::new()));
        tasks.spawn(R::NAME, first_end(wired, run, asks));
        Ok(())
    }
}

/// A controller, its gate and what fills its queue as one task: none is of any use without the others.
async fn first_end(
    wired: impl Future<Output = ()>,
    run: impl Future<Output = ()>,
    asks: impl Future<Output = ()>,
) -> Result<()> {
    tokio::select! {
        // Once it is done, the watches do the rest.
        never = wired.then(|()| pending::<Infallible>()) => match never {},
        () = run => {}
        () = asks => {}
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[tokio::test]
    async fn a_controller_that_ends_by_itself_ends_its_task_though_its_gate_goes_on() {
        let mut tasks = Tasks::default();
        tasks.spawn("without a leader", first_end(async {}, async {}, pending()));
        assert_eq!(tasks.ended().await.to_string(), "without a leader has ended unexpectedly");
        tasks.spawn("without a gate", first_end(async {}, pending(), async {}));
        assert_eq!(tasks.ended().await.to_string(), "without a gate has ended unexpectedly");
        tasks.spawn("without events", first_end(async { panic!("a listener's bug") }, pending(), pending()));
        assert!(format!("{:#}", tasks.ended().await).starts_with("without events has failed: "));
    }

    #[tokio::test(start_paused = true)]
    async fn a_controller_goes_on_when_its_queue_is_joined_to_the_stores() {
        let going = first_end(async {}, pending(), pending());
        assert!(tokio::time::timeout(Duration::from_secs(60), going).await.is_err());
    }
}
