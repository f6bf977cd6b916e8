//! The log: structured, one line an event, to stderr.

use crate::config::{LogFormat, Logging};
use anyhow::Result;
use tracing_subscriber::EnvFilter;

/// Changes the level of the log while it runs.
pub struct LogLevel(Box<dyn Fn(EnvFilter) -> Result<()> + Send + Sync>);

impl LogLevel {
    /// That of a process whose log is not the manager's to change.
    pub fn fixed() -> Self {
        Self(Box::new(|_| Ok(())))
    }

    /// Sets a level, or a filter as in `RUST_LOG`.
    ///
    /// # Errors
    /// When it is no filter.
    pub fn set(&self, level: &str) -> Result<()> {
        self.0(EnvFilter::try_new(level)?)
    }
}

/// Sets up the log of the process.
///
/// # Errors
/// When its level is no filter.
pub fn init(logging: &Logging) -> Result<LogLevel> {
    let filter = EnvFilter::try_new(&logging.level)?;
    let builder = tracing_subscriber::fmt().with_writer(std::io::stderr);
    Ok(match logging.format {
        LogFormat::Json => {
            let builder = builder.json().flatten_event(true).with_env_filter(filter).with_filter_reloading();
            let handle = builder.reload_handle();
            builder.init();
            LogLevel(Box::new(move |filter| Ok(handle.reload(filter)?)))
        }
        LogFormat::Text => {
            let builder = builder.with_env_filter(filter).with_filter_reloading();
            let handle = builder.reload_handle();
            builder.init();
            LogLevel(Box::new(move |filter| Ok(handle.reload(filter)?)))
        }
    })
}
