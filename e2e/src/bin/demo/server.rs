//! `demo serve`: the process that holds the cluster, and what it says to the
//! foreground.

use std::fs::File;
use std::io::{BufRead, Write};

use anyhow::{Context, Result};
use nix::unistd::{dup2_stderr, setsid};
use serde::{Deserialize, Serialize};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;

use super::home::{Claim, Cluster, Home, State};
use super::host::Host;

/// What the foreground writes, as a line, to have the cluster outlive it.
pub(crate) const KEEP: &str = "keep";

/// What the foreground is told, a line of JSON each.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Event {
    /// A remark.
    Note(String),
    /// Something begins.
    Step(String),
    /// The cluster and the manager are ready.
    Ready(Box<Cluster>),
    /// It ends, for this reason.
    Failed(String),
}

/// Tells the foreground, if it is still there.
pub(crate) fn tell(event: &Event) {
    let Ok(mut line) = serde_json::to_string(event) else { return };
    line.push('\n');
    let mut out = std::io::stdout();
    // A foreground that is gone is noticed by the end of standard input.
    let _ = out.write_all(line.as_bytes()).and_then(|()| out.flush());
}

/// Holds a cluster until the foreground or a signal says otherwise.
///
/// # Errors
/// The cluster does not start, or its manager ends.
pub(crate) async fn serve() -> Result<()> {
    // Ctrl-C and a closing terminal are for the foreground, which then closes our input.
    setsid().context("leave the terminal")?;
    let mut end = End::listen()?;
    let home = Home::of_user()?;
    let Some(claim) = home.claim()? else {
        tell(&Event::Failed(home.taken()?));
        return Ok(());
    };
    let log = home.log();
    let log = File::create(&log).with_context(|| format!("write {}", log.display()))?;
    dup2_stderr(log).context("write errors to the log")?;

    let held = hold(&claim, &mut end).await;
    match held {
        Err(error) if end.kept => {
            // Nobody listens any more. State and log stay for `demo clean`, which shows why.
            eprintln!("the demo ended by itself: {error:#}");
            Ok(())
        }
        Err(error) => {
            tell(&Event::Failed(format!("{error:#}")));
            claim.remove()
        }
        Ok(()) => claim.remove(),
    }
}

async fn hold(claim: &Claim, end: &mut End) -> Result<()> {
    let mut state = State::own()?;
    claim.publish(&state)?;
    let host = tokio::select! {
        started = Host::start() => started?,
        () = end.wait() => return Ok(()),
    };
    let cluster = host.describe()?;
    state.cluster = Some(cluster.clone());
    claim.publish(&state)?;
    tell(&Event::Ready(Box::new(cluster)));
    let ended = tokio::select! {
        ended = host.watch() => ended,
        () = end.wait() => Ok(()),
    };
    host.stop()?;
    ended
}

/// Everything that ends the demo.
struct End {
    foreground: mpsc::UnboundedReceiver<Said>,
    terminate: Signal,
    interrupt: Signal,
    /// The foreground may go, the cluster stays.
    kept: bool,
}

/// What is learnt of the foreground.
enum Said {
    Keep,
    Gone,
}

impl End {
    fn listen() -> Result<Self> {
        let (said, foreground) = mpsc::unbounded_channel();
        // Blocked in a read for as long as the foreground lives; ends with the process.
        std::thread::Builder::new()
            .name("foreground".into())
            .spawn(move || {
                for line in std::io::stdin().lock().lines() {
                    match line {
                        Ok(line) if line == KEEP => drop(said.send(Said::Keep)),
                        Ok(_) => {}
                        Err(_) => break,
                    }
                }
                drop(said.send(Said::Gone));
            })
            .context("listen to the foreground")?;
        let on = |kind| signal(kind).context("handle signals");
        let (terminate, interrupt) = (on(SignalKind::terminate())?, on(SignalKind::interrupt())?);
        Ok(Self { foreground, terminate, interrupt, kept: false })
    }

    /// Returns when the demo has to end. Can be dropped and called again.
    async fn wait(&mut self) {
        loop {
            tokio::select! {
                _ = self.terminate.recv() => return,
                _ = self.interrupt.recv() => return,
                Some(said) = self.foreground.recv() => match said {
                    Said::Keep => self.kept = true,
                    Said::Gone if self.kept => {}
                    Said::Gone => return,
                },
            }
        }
    }
}
