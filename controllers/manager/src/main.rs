//! The `springtide` binary: parse the command line, set up the log, run.

mod cli;

use anyhow::Result;
use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};
use springtide_manager::{ManagerArgs, init_logging, run};
use springtide_plumbing::traces::END_BOUND;
use std::ffi::{OsStr, OsString};
use std::path::Path;
use std::process::ExitCode;
use tokio::signal::unix::{SignalKind, signal};

/// The name under which kubectl finds the program as its plugin.
const PLUGIN: &str = "kubectl-springtide";

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
    /// Says why a BatchJob, an InPlaceUpgrade or a TimeShareGroup is where it is: what it waits for, what lets it go on, and what to do.
    Explain(cli::explain::ExplainArgs),
    /// Shows queues, with what waits in them, upgrades, with what holds them, or groups, with who has the peak when.
    Status(cli::status::StatusArgs),
    /// Says what an InPlaceUpgrade, a TimeShareGroup or a manifest leads to: the writes of the manager, and what would wait. Stores nothing.
    Plan(cli::plan::PlanArgs),
    /// Follows an InPlaceUpgrade until its run ends, or a TimeShareGroup until its switch does; the exit code tells how.
    Watch(cli::watch::WatchArgs),
    /// Gives finalizers back where no manager does it any more: before CRDs or namespaces are removed.
    Release(cli::release::ReleaseArgs),
    /// Writes a program that does nothing: for the containers by which images are pulled.
    #[command(hide = true)]
    CopyNoop(cli::noop::CopyNoopArgs),
    /// Does nothing until SIGTERM or SIGINT: for the pods by which images are pulled.
    #[command(hide = true)]
    Idle,
}

#[tokio::main]
async fn main() -> ExitCode {
    let command = match parse(std::env::args_os()) {
        Ok(Cli { command }) => command,
        Err(error) => {
            // What cannot be printed nobody reads.
            let _ = error.print();
            return usage_code(&error, std::env::args_os().nth(1));
        }
    };
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
                    let ran = run(configured, log_level, signalled()).await.map(|()| ExitCode::SUCCESS);
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
        Command::Explain(args) => cli::explain::run(args).await.map(ExitCode::from),
        Command::Status(args) => cli::status::run(args).await.map(ExitCode::from),
        Command::Plan(args) => cli::plan::run(args).await.map(ExitCode::from),
        Command::Watch(args) => cli::watch::run(args, signalled()).await.map(ExitCode::from),
        Command::Release(args) => cli::release::run(args).await.map(|()| ExitCode::SUCCESS),
        Command::CopyNoop(args) => cli::noop::run(&args).map(|()| ExitCode::SUCCESS),
        Command::Idle => signalled().await.map(|()| ExitCode::SUCCESS),
    };
    match ran {
        Ok(code) => code,
        Err(error) => {
            // The log may be JSON for a collector; whoever started the process reads stderr.
            tracing::error!("{error:#}");
            eprintln!("springtide: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Reads a command line. Called kubectl-springtide, the program is a plugin of kubectl, and names itself as that.
fn parse(words: impl IntoIterator<Item = OsString>) -> Result<Cli, clap::Error> {
    let words: Vec<OsString> = words.into_iter().collect();
    let is_plugin = words.first().is_some_and(|own| Path::new(own).file_stem() == Some(OsStr::new(PLUGIN)));
    let name = if is_plugin { "kubectl springtide" } else { "springtide" };
    Cli::from_arg_matches(&Cli::command().bin_name(name).try_get_matches_from(words)?)
}

/// Of commands whose exit code tells how things stand, 2 is taken.
fn usage_code(error: &clap::Error, command: Option<OsString>) -> ExitCode {
    let tells = command
        .is_some_and(|word| ["explain", "status", "plan", "watch"].iter().any(|command| word == *command));
    match error.exit_code() {
        0 => ExitCode::SUCCESS,
        _ if tells => ExitCode::FAILURE,
        _ => ExitCode::from(2),
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

#[cfg(test)]
mod tests {
    use super::*;

    fn usage(own: &str) -> String {
        let words = [own, "explain", "--help"].map(OsString::from);
        parse(words).err().unwrap().to_string()
    }

    #[test]
    fn as_a_plugin_it_names_itself_so() {
        Cli::command().debug_assert();
        assert!(usage("/usr/local/bin/kubectl-springtide").contains("Usage: kubectl springtide explain"));
        assert!(usage("springtide").contains("Usage: springtide explain"));
    }
}
