//! The `springtide` binary: parse the command line, set up the log, run.

mod compose;
mod logging;
mod tasks;

use clap::{Parser, Subcommand};
use std::process::ExitCode;

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
    Manager(compose::ManagerArgs),
}

#[tokio::main]
async fn main() -> ExitCode {
    let Cli { command } = Cli::parse();
    let ran = match command {
        Command::Manager(args) => {
            if let Err(error) = logging::init(&args.log_level, args.log_format) {
                eprintln!("springtide: --log-level: {error}");
                return ExitCode::from(2);
            }
            compose::run(args).await
        }
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
