//! The log (structured, one line an event, to stderr), and with it the traces: both take what the process tells of
//! itself through `tracing`.

use crate::config::{LogFormat, Logging};
use anyhow::Result;
use springtide_plumbing::traces::Traces;
use tracing::Subscriber;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer, Registry, fmt, reload};

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

/// Sets up the log of the process, and traces where there are any.
///
/// # Errors
/// When the level is no filter.
pub fn init(logging: &Logging, traces: Option<&Traces>) -> Result<LogLevel> {
    let (subscriber, level) = subscriber(logging, traces, std::io::stderr)?;
    subscriber.try_init()?;
    Ok(level)
}

/// The level of the log is not that of the traces, so each has a filter of its own.
fn subscriber<W>(
    logging: &Logging,
    traces: Option<&Traces>,
    writer: W,
) -> Result<(impl Subscriber + Send + Sync + use<W>, LogLevel)>
where
    W: for<'writer> MakeWriter<'writer> + Send + Sync + 'static,
{
    let (filter, handle) = reload::Layer::new(EnvFilter::try_new(&logging.level)?);
    let lines = fmt::layer().with_writer(writer);
    let lines: Box<dyn Layer<Registry> + Send + Sync> = match logging.format {
        LogFormat::Json => lines.json().flatten_event(true).with_filter(filter).boxed(),
        LogFormat::Text => lines.with_filter(filter).boxed(),
    };
    let level = LogLevel(Box::new(move |filter| Ok(handle.reload(filter)?)));
    Ok((tracing_subscriber::registry().with(lines).with(traces.map(Traces::layer)), level))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use std::sync::{Arc, Mutex};

    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);

    impl Lines {
        fn take(&self) -> String {
            String::from_utf8(std::mem::take(&mut *self.0.lock().unwrap())).unwrap()
        }
    }

    impl Write for Lines {
        fn write(&mut self, text: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(text);
            Ok(text.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    fn set_up(traces: Option<&Traces>) -> (Lines, tracing::subscriber::DefaultGuard, LogLevel) {
        let lines = Lines::default();
        let writer = lines.clone();
        let (subscriber, level) = subscriber(&Logging::default(), traces, move || writer.clone()).unwrap();
        (lines, subscriber.set_default(), level)
    }

    fn pass_is_taken() -> bool {
        !tracing::debug_span!("reconcile").is_disabled()
    }

    #[test]
    fn without_traces_the_spans_of_passes_are_made_only_for_a_log_that_shows_them() {
        let (lines, _subscribed, level) = set_up(None);
        assert!(!pass_is_taken());
        tracing::info!(answer = 42, "told");
        tracing::debug!("not told");
        let line: serde_json::Value = serde_json::from_str(&lines.take()).unwrap();
        assert_eq!((&line["message"], &line["answer"]), (&"told".into(), &42.into()));
        level.set("debug").unwrap();
        assert!(pass_is_taken());
        tracing::debug!("told now");
        assert!(lines.take().contains("told now"));
        level.set("off").unwrap();
        assert!(!pass_is_taken());
        tracing::error!("not told");
        assert_eq!(lines.take(), "");
    }

    #[test]
    fn traces_take_their_spans_whatever_the_log_shows_and_leave_the_log_as_it_is() {
        let nowhere = "http://127.0.0.1:9".parse().unwrap();
        let traces = Traces::to(&nowhere, "a", "1").unwrap();
        let (lines, _subscribed, level) = set_up(Some(&traces));
        for filter in ["info", "off"] {
            level.set(filter).unwrap();
            assert!(pass_is_taken());
            assert!(tracing::debug_span!("other").is_disabled());
        }
        tracing::debug_span!("reconcile").in_scope(|| tracing::error!("not told"));
        level.set("info").unwrap();
        tracing::debug!("not told");
        assert_eq!(lines.take(), "");
    }
}
