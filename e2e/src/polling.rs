//! Waiting for what no watch of a test shows: it is asked for again and again.

use std::time::Duration;

use anyhow::{Result, bail};

/// Between two looks.
const PAUSE: Duration = Duration::from_millis(200);

/// Looks until there is something, and gives that.
///
/// # Errors
/// A look fails, or nothing is there within `bound`: with `what`.
pub async fn until<T>(bound: Duration, what: &str, look: impl AsyncFn() -> Result<Option<T>>) -> Result<T> {
    until_seen(bound, what, async || Ok(look().await?.ok_or_else(String::new))).await
}

/// As [`until`], where a look that does not find it gives what it has seen instead.
///
/// # Errors
/// A look fails, or it is not there within `bound`: with `what`, and what was seen last.
pub async fn until_seen<T>(
    bound: Duration,
    what: &str,
    look: impl AsyncFn() -> Result<Result<T, String>>,
) -> Result<T> {
    let mut seen = String::new();
    let wait = async {
        loop {
            match look().await? {
                Ok(found) => return Ok::<T, anyhow::Error>(found),
                Err(instead) => seen = instead,
            }
            tokio::time::sleep(PAUSE).await;
        }
    };
    let waited = tokio::time::timeout(bound, wait).await;
    match waited {
        Ok(found) => found,
        Err(_) if seen.is_empty() => bail!("{what}: not within {bound:?}"),
        Err(_) => bail!("{what}: not within {bound:?}, seen: {seen}"),
    }
}
