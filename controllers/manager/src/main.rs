//! The `springtide` binary: parse the command line, set up the log, run.

mod cli;

use anyhow::Result;
use clap::{Parser, Subcommand};
use springtide_manager::{ManagerArgs, init_logging, run};
use springtide_plumbing::traces::END_BOUND;
use std::process::ExitCode;
use tokio::signal::unix::{SignalKind, signal};

/// Kubernetes operators that let one pool of machines carry a promotion peak.
#[derive(Parser)]
#[command(name = "springtide", version, propagate_version = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Runs the controllers until SIGTERM or SIGINT.
    Manager(Box<ManagerArgs>),
    /// Gives finalizers back where no manager does it any more: before CRDs or namespaces are removed.
    Release(cli::release::ReleaseArgs),
}

#[tokio::main]
async fn main() -> ExitCode {
    let Cli { command } = Cli::parse();
    let ran = match command {
        Command::Manager(args) => {
            // Before there is a log: whoever started the process reads stderr.
            let set_up = args.read().and_then(|mut configured| {
                let traces = configured.traces()?;
                let log_level = init_logging(&configured.configuration.logging, traces.as_ref())?;
                Ok((configured, log_level, traces))
            });
            match set_up {
                Ok((configured, log_level, traces)) => {
                    let ran = run(configured, log_level, signalled()).await;
                    if let Some(traces) = traces {
                        traces.end(END_BOUND).await;
                    }
                    ran
                }
                Err(error) => {
                    eprintln!("springtide: {error:#}");
                    return ExitCode::from(2);
                }
            }
        }
        Command::Release(args) => cli::release::run(args).await,
    };
    match ran {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // The log may be JSON for a collector; whoever started the process reads stderr.
            tracing::error!("{error:#}");
            eprintln!("springtide: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Resolves at SIGTERM or SIGINT.
async fn signalled() -> Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    Ok(())
}
