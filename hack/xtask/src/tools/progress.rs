//! What a build shows: a spinner on a terminal, plain lines everywhere else.
//! All of it goes to stderr, since stdout may be read by a program.

use std::env;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// How often a log without a spinner shows that a long build still goes on.
const HEARTBEAT: Duration = Duration::from_secs(30);

/// Progress of one `go build`.
pub(crate) struct Progress {
    bar: ProgressBar,
    started: Instant,
    last_line: Instant,
}

impl Progress {
    /// Starts the clock, and the spinner when stderr is a terminal outside CI.
    pub(crate) fn start() -> Self {
        let bar = ProgressBar::new_spinner();
        if env::var_os("CI").is_some() {
            bar.set_draw_target(ProgressDrawTarget::hidden());
        }
        if let Ok(style) = ProgressStyle::with_template("{spinner} {elapsed} {wide_msg}") {
            bar.set_style(style);
        }
        bar.enable_steady_tick(Duration::from_millis(100));
        Self { bar, started: Instant::now(), last_line: Instant::now() }
    }

    /// Says what is being done now; a line of its own only once per heartbeat.
    pub(crate) fn doing(&mut self, what: String) {
        if self.bar.is_hidden() {
            if self.last_line.elapsed() >= HEARTBEAT {
                self.line(&format!("  {:4} s  still {what}", self.started.elapsed().as_secs()));
            }
        } else {
            self.bar.set_message(what);
        }
    }

    /// Prints that `tool` is there, with the seconds since the start.
    pub(crate) fn built(&mut self, tool: &str) {
        self.line(&format!("  {:4} s  built {tool}", self.started.elapsed().as_secs()));
    }

    fn line(&mut self, text: &str) {
        self.last_line = Instant::now();
        if self.bar.is_hidden() {
            eprintln!("{text}");
        } else {
            self.bar.println(text);
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}
