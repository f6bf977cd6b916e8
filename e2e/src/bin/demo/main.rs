//! The demo: real batch jobs on a real local Kubernetes, from nothing to nothing.
//!
//! Two processes share the work. The one in the foreground shows and judges; it
//! touches the cluster only as any user would. The other one, `demo serve`, holds
//! the cluster and the manager as its children. It ends, and all of it with it,
//! when its standard input closes, so also when the foreground is killed; unless
//! the foreground has said to keep it before (`make demo KEEP=1`).

mod clean;
mod foreground;
mod home;
mod host;
mod live;
mod scenario;
mod server;
mod steps;
mod summary;
mod table;

use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};

/// Runs real batch jobs on a real local Kubernetes, shows them, and removes everything.
#[derive(Parser)]
#[command(name = "demo", args_conflicts_with_subcommands = true)]
struct Cli {
    #[command(flatten)]
    options: Options,
    #[command(subcommand)]
    command: Option<Command>,
}

/// What a run of the demo may differ in.
#[derive(Args)]
pub(crate) struct Options {
    /// Leaves the cluster and the manager running; `demo clean` ends them.
    #[arg(long)]
    pub(crate) keep: bool,
    /// Gives up after the jobs have had so many seconds.
    #[arg(long, value_name = "SECONDS", default_value_t = 240)]
    pub(crate) bound: u64,
}

#[derive(Subcommand)]
enum Command {
    /// Ends the demo that is running, and removes all of it.
    Clean,
    /// Holds the cluster of a demo; started by the demo itself.
    #[command(hide = true)]
    Serve,
}

#[tokio::main]
async fn main() -> ExitCode {
    let Cli { options, command } = Cli::parse();
    let ended = match command {
        None => foreground::run(&options).await,
        Some(Command::Clean) => clean::run().map(|()| ExitCode::SUCCESS),
        Some(Command::Serve) => server::serve().await.map(|()| ExitCode::SUCCESS),
    };
    match ended {
        Ok(code) => code,
        Err(error) => {
            eprintln!("demo: {error:#}");
            ExitCode::FAILURE
        }
    }
}
