//! Waiting for many things, and saying how far they are.

use std::time::{Duration, Instant};

use anyhow::{Result, bail};

/// A run in which nothing more is seen for this long has failed. A system that takes in ten thousand jobs before it
/// ends the first one is not to.
const SILENCE: Duration = Duration::from_secs(900);
/// Distance of two lines that say how far a run is.
const PROGRESS: Duration = Duration::from_secs(15);
/// How often it is looked whether all has come about.
const POLL: Duration = Duration::from_millis(100);

/// Waits until `count` gives as many as are wanted, and says every few seconds how many there are.
///
/// # Errors
/// `bound` is over, or there was none more for fifteen minutes.
pub async fn until_all(what: &str, wanted: usize, bound: Duration, count: impl Fn() -> usize) -> Result<()> {
    let start = Instant::now();
    let (mut last, mut news, mut told) = (0, start, start);
    loop {
        let now = count();
        if now >= wanted {
            return Ok(());
        }
        if now > last {
            (last, news) = (now, Instant::now());
        }
        if told.elapsed() > PROGRESS {
            told = Instant::now();
            eprintln!("      {what}: {now} of {wanted} after {:.0} s", start.elapsed().as_secs_f64());
        }
        if news.elapsed() > SILENCE {
            bail!("{what}: only {now} of {wanted}, and none more for {} s", SILENCE.as_secs());
        }
        if start.elapsed() > bound {
            bail!("{what}: only {now} of {wanted} after {} s", bound.as_secs());
        }
        tokio::time::sleep(POLL).await;
    }
}
