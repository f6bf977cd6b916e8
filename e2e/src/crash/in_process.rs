//! A manager inside this process, which a crash can drop between two instructions.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::Path;
use std::sync::Once;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, bail};
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

static PANICS: AtomicUsize = AtomicUsize::new(0);

/// A running manager with a runtime of its own.
pub(super) struct InProcess {
    runtime: Option<Runtime>,
    run: JoinHandle<Result<()>>,
}

impl InProcess {
    /// Starts a manager that reaches the API server by `kubeconfig`; returns when it is ready.
    pub(super) async fn start(kubeconfig: &Path, further: &[&str]) -> Result<Self> {
        count_panics();
        let health = free_address()?;
        let kubeconfig = kubeconfig.to_str().context("a path in UTF-8")?;
        let address = health.to_string();
        let line = ["--kubeconfig", kubeconfig, "--health-address", &address];
        let args = ManagerArgs::of_line(line.iter().chain(further).copied())?;
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .thread_name(THREADS)
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
        match waited {
            Ok(Ok(())) => Ok(manager),
            Ok(Err(error)) => Err(error),
            Err(_) => bail!("a manager was not ready within {READY:?}"),
        }
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

/// Panics of all managers in this process so far, caught ones too.
pub(super) fn panics() -> usize {
    PANICS.load(Ordering::Relaxed)
}

fn count_panics() {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            if std::thread::current().name() == Some(THREADS) {
                PANICS.fetch_add(1, Ordering::Relaxed);
            }
            before(info);
        }));
    });
}

/// A port that is free now.
fn free_address() -> Result<SocketAddr> {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).and_then(|socket| socket.local_addr()).context("a free port")
}
