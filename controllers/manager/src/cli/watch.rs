//! `springtide watch`: follows an object until its run, or its switch, ends.

use super::following::Ending;
use super::read::Cluster;
use super::{ConnectionArgs, Target, TargetKind, timeshare, upgrade};
use anyhow::{Result, bail};
use clap::Args;
use jiff::SignedDuration;
use std::time::Duration;

/// Longest time for which something is followed.
const LONGEST: Duration = Duration::from_secs(720 * 3600);

/// Options of `springtide watch`.
#[derive(Args)]
pub(crate) struct WatchArgs {
    /// The upgrade or group, as ipu/NAME or tsg/NAME.
    #[arg(value_name = "KIND/NAME")]
    target: Target,
    /// Ends after this time, whatever is left to do: 1s to 720h, such as 90s, 30m or 1h30m.
    #[arg(long, value_name = "DURATION", default_value = "1h", value_parser = timeout)]
    timeout: Duration,
    #[command(flatten)]
    connection: ConnectionArgs,
}

/// Follows, and shows what changes. Writes nothing. `interrupted` resolves when somebody wants it to end.
///
/// # Errors
/// The API server cannot be asked or refuses, there is no such object, or it is deleted meanwhile.
pub(crate) async fn run(args: WatchArgs, interrupted: impl Future<Output = Result<()>>) -> Result<Ending> {
    let Target { kind, name } = &args.target;
    match kind {
        TargetKind::InPlaceUpgrade => {
            let cluster = Cluster::connect(&args.connection, "watch").await?;
            upgrade::watch::run(&cluster, name, args.timeout, interrupted).await
        }
        TargetKind::TimeShareGroup => {
            let cluster = Cluster::connect(&args.connection, "watch").await?;
            timeshare::watch::run(&cluster, name, args.timeout, interrupted).await
        }
        TargetKind::BatchJob => {
            bail!("a job is waited for by `kubectl wait bj/{name} --for=condition=Complete`")
        }
        TargetKind::BatchQueue => bail!("a queue comes to no end: see `springtide status bq/{name}`"),
    }
}

fn timeout(text: &str) -> Result<Duration, String> {
    let parsed = text.parse::<SignedDuration>().ok().and_then(|parsed| Duration::try_from(parsed).ok());
    match parsed {
        Some(timeout) if (Duration::from_secs(1)..=LONGEST).contains(&timeout) => Ok(timeout),
        Some(_) | None => Err("a time from 1s to 720h, such as 90s, 30m or 1h30m".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_timeout_is_a_duration_within_its_bounds() {
        for (text, seconds) in [("1s", 1), ("90s", 90), ("30m", 1800), ("1h30m", 5400), ("720h", 2_592_000)] {
            assert_eq!(timeout(text), Ok(Duration::from_secs(seconds)), "{text}");
        }
        for wrong in ["", "0s", "-5m", "721h", "soon", "10"] {
            assert!(timeout(wrong).is_err(), "{wrong}");
        }
    }
}
