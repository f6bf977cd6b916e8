//! A manager inside this process, which a crash can drop between two instructions.

use std::cell::OnceCell;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Once};
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use springtide_manager::{LogLevel, ManagerArgs};
use tokio::runtime::Runtime;
use tokio::task::JoinHandle;

use crate::manager::ready;

/// Name of the threads of these managers.
const THREADS: &str = "crash-manager";
/// Bound for a manager to be ready.
const READY: Duration = Duration::from_secs(60);
/// Bound for its threads to let go: a task that never yields would hold them.
const GONE: Duration = Duration::from_secs(20);
/// Between two looks at its health.
const PAUSE: Duration = Duration::from_millis(20);

thread_local! {
    /// Where this thread's panics are counted, if it is one of a manager's.
    static COUNTER: OnceCell<Panics> = const { OnceCell::new() };
}

/// Counts the panics of some managers, caught ones too.
#[derive(Debug, Clone, Default)]
pub(super) struct Panics(Arc<AtomicUsize>);

impl Panics {
    /// So many so far.
    pub(super) fn count(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }

    pub(super) fn add(&self, count: usize) {
        self.0.fetch_add(count, Ordering::Relaxed);
    }
}

/// A running manager with a runtime of its own.
pub(super) struct InProcess {
    runtime: Option<Runtime>,
    run: JoinHandle<Result<()>>,
}

impl InProcess {
    /// Starts a manager that reaches the API server by `kubeconfig`; returns when it is ready. What panics in
    /// it is counted in `panics`.
    pub(super) async fn start(kubeconfig: &Path, further: &[&str], panics: &Panics) -> Result<Self> {
        count_panics();
        let panics = panics.clone();
        let health = free_address()?;
        let kubeconfig = kubeconfig.to_str().context("a path in UTF-8")?;
        let address = health.to_string();
        let line = ["--kubeconfig", kubeconfig, "--health-address", &address];
        let args = ManagerArgs::of_line(line.iter().chain(further).copied())?;
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .thread_name(THREADS)
            .on_thread_start(move || {
                let _ = COUNTER.with(|counter| counter.set(panics.clone()));
            })
            .enable_all()
            .build()
            .context("a manager's runtime")?;
        let (configured, log) = (args.read()?, LogLevel::fixed());
        let run = runtime.spawn(springtide_manager::run(configured, log, std::future::pending()));
        let mut manager = Self { runtime: Some(runtime), run };
        let is_ready = async {
            while ready(health).await.is_err() {
                if manager.run.is_finished() {
                    let ended = (&mut manager.run).await.context("a manager panicked")?;
                    ended.context("a manager ended")?;
                    bail!("a manager ended though nobody asked it to");
                }
                tokio::time::sleep(PAUSE).await;
            }
            Ok(())
        };
        let waited = tokio::time::timeout(READY, is_ready).await;
        let error = match waited {
            Ok(Ok(())) => return Ok(manager),
            Ok(Err(error)) => error,
            Err(_) => anyhow!("a manager was not ready within {READY:?}"),
        };
        manager.crash().await?;
        Err(error)
    }

    /// Ends it without a word, as a crash does: its tasks are dropped where they stand. Returns when all of
    /// them are.
    pub(super) async fn crash(mut self) -> Result<()> {
        if let Some(runtime) = self.runtime.take() {
            // It waits for the runtime's threads, which no async task may do.
            tokio::task::spawn_blocking(move || runtime.shutdown_timeout(GONE)).await?;
        }
        Ok(())
    }
}

impl Drop for InProcess {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

fn count_panics() {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            // A thread that is at its end has no counter any more, and runs nothing of a manager.
            let _ = COUNTER.try_with(|counter| counter.get().inspect(|panics| panics.add(1)).is_some());
            before(info);
        }));
    });
}

/// A port that is free now.
fn free_address() -> Result<SocketAddr> {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).and_then(|socket| socket.local_addr()).context("a free port")
}
