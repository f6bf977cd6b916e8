//! Waiting for what no watch of a test shows: it is asked for again and again.

use std::time::Duration;

use anyhow::{Context, Result};

/// Between two looks.
const PAUSE: Duration = Duration::from_millis(200);

/// Looks until there is something, and gives that.
///
/// # Errors
/// A look fails, or nothing is there within `bound`: with `what`.
pub async fn until<T>(bound: Duration, what: &str, look: impl AsyncFn() -> Result<Option<T>>) -> Result<T> {
    let wait = async {
        loop {
            if let Some(found) = look().await? {
                return Ok(found);
            }
            tokio::time::sleep(PAUSE).await;
        }
    };
    tokio::time::timeout(bound, wait).await.with_context(|| format!("{what}: not within {bound:?}"))?
}
