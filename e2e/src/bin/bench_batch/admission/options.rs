//! What is measured of the admission, and how.

use std::path::PathBuf;

use super::Part;
use crate::comparison::{Sweep, asked_or};

/// What is measured of the admission, and how.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Options {
    /// Only these parts, separated by commas. The report is then target/bench/batch-admission-partial.md.
    #[arg(long, value_enum, value_delimiter = ',')]
    pub(super) only: Vec<Part>,
    /// A load in the form of Kueue's runner, instead of that of the baseline.
    #[arg(long)]
    pub(super) generator: Option<PathBuf>,
    /// Factor on the write budget of the manager, in the runs that raise it.
    #[arg(long, default_value_t = 10)]
    pub(super) write_budget_factor: u32,
    /// Workers of the manager in those runs.
    #[arg(long, default_value_t = 64)]
    pub(super) workers: usize,
    /// Leaves out that pods end for those of higher priority in their own queue (withinClusterQueue of the load).
    #[arg(long)]
    pub(super) without_preemption: bool,
    /// Finds the raw rate by a few steps of some seconds, once each, for trials: the whole sweep takes some ten minutes.
    #[arg(long)]
    pub(super) short_sweep: bool,
    /// Writers in flight of the sweep for the raw rate, instead of those of the method.
    #[arg(long, value_delimiter = ',')]
    pub(super) raw_in_flight: Vec<usize>,
    /// Seconds of each step of that sweep, instead of those of the method.
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..=600))]
    pub(super) raw_seconds: Option<u64>,
}

impl Options {
    /// How the raw rate is found: by the steps for bare pods, whose lives are as short.
    pub(super) fn sweep(&self) -> Sweep {
        let method = Sweep::new(self.short_sweep);
        Sweep {
            bare_in_flight: asked_or(&self.raw_in_flight, method.bare_in_flight.clone()),
            seconds: self.raw_seconds.unwrap_or(method.seconds),
            ..method
        }
    }

    /// Whether all is measured that the method asks for, and no less of it.
    pub(super) fn is_whole(&self) -> bool {
        self.only.is_empty()
            && self.generator.is_none()
            && !self.without_preemption
            && self.sweep().is_whole()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(clap::Parser)]
    struct Only {
        #[command(flatten)]
        options: Options,
    }

    fn options(args: &[&str]) -> Options {
        let args = ["bench"].iter().chain(args);
        <Only as clap::Parser>::parse_from(args).options
    }

    #[test]
    fn the_raw_rate_is_found_by_the_whole_sweep_unless_something_else_is_asked_for() {
        let whole = options(&[]);
        assert!(whole.is_whole());
        let Sweep { bare_in_flight, times, seconds, .. } = whole.sweep();
        assert_eq!((bare_in_flight.first(), bare_in_flight.last()), (Some(&1), Some(&256)));
        assert_eq!((times, seconds), (3, 20));
        for less in [
            &["--short-sweep"][..],
            &["--raw-seconds", "10"],
            &["--raw-in-flight", "64"],
            &["--only", "baseline"],
            &["--without-preemption"],
        ] {
            assert!(!options(less).is_whole(), "{less:?}");
        }
        let trial = options(&["--short-sweep", "--raw-in-flight", "8,16", "--raw-seconds", "2"]).sweep();
        assert_eq!((trial.bare_in_flight, trial.times, trial.seconds), (vec![8, 16], 1, 2));
    }
}
