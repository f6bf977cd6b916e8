//! Keys with writes to make, a real work queue, workers and the pump, against a server that is a function.

use super::tests::{ROUTES, request};
use super::*;
use crate::queue::{Next, Priority, Urgency, WorkQueue};
use std::collections::BTreeMap;
use tokio::task::JoinSet;

const HOUR: Duration = Duration::from_secs(3600);

/// What the server makes of a write.
#[derive(Clone, Copy)]
pub(super) struct Reply {
    pub(super) after: Duration,
    pub(super) end: End,
}

#[derive(Clone, Copy)]
pub(super) enum End {
    Told(Signal),
    /// The request is given up before the answer.
    CutOff,
    /// The worker panics before the answer.
    Panics,
}

pub(super) fn answered(after: Duration) -> Reply {
    Reply { after, end: End::Told(Signal::Answered) }
}

type Serve = Arc<dyn Fn(&ObjectKey, Duration) -> Reply + Send + Sync>;

/// All of it; clones share it.
#[derive(Clone)]
pub(super) struct Simulation {
    pub(super) budget: Arc<WriteBudget>,
    queue: WorkQueue<ObjectKey>,
    serve: Serve,
    pub(super) start: Instant,
    state: Arc<Mutex<Log>>,
}

/// What a key still has to write.
#[derive(Clone, Copy)]
struct Wish {
    class: WriteClass,
    chains: u32,
    /// Writes of each chain.
    length: usize,
}

#[derive(Default)]
struct Log {
    left: BTreeMap<ObjectKey, Wish>,
    /// Each write as it went out.
    sent: Vec<(Duration, ObjectKey, WriteClass)>,
    answered: usize,
}

impl Simulation {
    pub(super) fn start(
        config: BudgetConfig,
        workers: usize,
        serve: impl Fn(&ObjectKey, Duration) -> Reply + Send + Sync + 'static,
    ) -> (Self, JoinSet<()>) {
        let budget = Arc::new(WriteBudget::new(config));
        let queue = WorkQueue::new(1);
        let granted = queue.clone();
        budget.on_grant("c", move |key| granted.resume(key));
        let simulation =
            Self { budget, queue, serve: Arc::new(serve), start: Instant::now(), state: Arc::default() };
        let mut tasks = JoinSet::new();
        let pump = simulation.budget.clone();
        tasks.spawn(async move { pump.run(CancellationToken::new()).await });
        for _ in 0..workers {
            tasks.spawn(simulation.clone().work());
        }
        (simulation, tasks)
    }

    /// A key wants so many writes.
    pub(super) fn want(&self, namespace: &str, class: WriteClass, key: usize, writes: u32) {
        self.want_chains(namespace, class, key, writes, 1);
    }

    /// A key wants so many chains of so many writes each.
    pub(super) fn want_chains(
        &self,
        namespace: &str,
        class: WriteClass,
        key: usize,
        chains: u32,
        length: usize,
    ) {
        let key = ObjectKey::new(namespace, format!("{}-{key}", class.as_str()));
        self.state.lock().unwrap().left.insert(key.clone(), Wish { class, chains, length });
        self.queue.add(key, Priority::Normal, Urgency::Routine);
    }

    async fn work(self) {
        while let Some(item) = self.queue.next().await {
            let (this, key) = (self.clone(), item.key.clone());
            let pass = tokio::spawn(async move { this.pass(&key).await }).await;
            // As the loop of a controller has it: a panic is a failed pass.
            self.queue.done(&item.key, pass.unwrap_or(Next::Failed { min: Duration::ZERO }));
        }
    }

    async fn pass(&self, key: &ObjectKey) -> Next {
        loop {
            let Wish { class, chains, length } = self.state.lock().unwrap().left[key];
            if chains == 0 {
                self.budget.forgo("c", key);
                return Next::Success;
            }
            let write = request(key, class, 0);
            let Ok(permit) = self.budget.try_admit_chain(&write, &vec![write; length - 1]) else {
                // Nothing but the pump brings it back in the time of a test.
                return Next::Throttled { until: Instant::now() + HOUR };
            };
            let sent = Instant::now();
            self.state.lock().unwrap().sent.push((self.start.elapsed(), key.clone(), class));
            let reply = (self.serve)(key, self.start.elapsed());
            tokio::time::sleep(reply.after).await;
            let signal = match reply.end {
                End::Told(signal) => signal,
                End::CutOff => continue,
                End::Panics => panic!("a worker's bug"),
            };
            if let Some(hold) = permit.report(&Report { route: ROUTES[0], level: None, signal, sent }) {
                return Next::Throttled { until: Instant::now() + hold };
            }
            let mut log = self.state.lock().unwrap();
            log.answered += 1;
            if let Some(wish) = log.left.get_mut(key) {
                wish.chains -= 1;
            }
        }
    }

    pub(super) fn sent(&self) -> Vec<(Duration, ObjectKey, WriteClass)> {
        self.state.lock().unwrap().sent.clone()
    }

    pub(super) fn left(&self) -> u32 {
        self.state.lock().unwrap().left.values().map(|wish| wish.chains).sum()
    }

    pub(super) fn answered(&self) -> usize {
        self.state.lock().unwrap().answered
    }
}
