//! The report: a Markdown page, a plot, and the goals as JSON.

mod follows;
mod goals;
mod page;
mod peers;
mod throughput;

pub(crate) use goals::decisions;

use std::path::Path;

use anyhow::Result;
use springtide_e2e::bench::parts::Log;
use springtide_e2e::bench::report::{self, Report};

use crate::Options;
use crate::comparison::{Comparison, Sweep};
use crate::contender::{Contender, RAISED};
use crate::decision::Decision;
use crate::drain::Drain;
use crate::flood::Flood;
use crate::follows::Follows;
use crate::latency::Latency;
use crate::load::Load;
use crate::online::Online;
use crate::pending::Pending;
use crate::queue::Queue;
use crate::walk::Walk;
use crate::writes::Counted;

/// What was asked for.
pub(crate) struct Asked {
    pub(crate) jobs: usize,
    pub(crate) peer_jobs: u32,
    pub(crate) shipped_jobs: u32,
    pub(crate) nodes: u16,
    pub(crate) sweep: Sweep,
    pub(crate) latency_seconds: usize,
    pub(crate) load_minutes: usize,
}

/// Everything that was measured.
pub(crate) struct Measured {
    pub(crate) asked: Asked,
    pub(crate) comparison: Option<Comparison>,
    pub(crate) latency: Option<Latency>,
    /// The same with real containers, where the machine can run them.
    pub(crate) containers: Option<Latency>,
    /// Of BatchJob, of Job, and of BatchJob where quota alone bounds it.
    pub(crate) pending: Option<[Pending; 3]>,
    pub(crate) load: Option<Load>,
    pub(crate) drain: Option<Drain>,
    pub(crate) follows: Option<Follows>,
    /// Where the machine can run containers.
    pub(crate) online: Option<Online>,
    pub(crate) queue: Option<Queue>,
    pub(crate) flood: Option<Flood>,
    pub(crate) writes: Option<Counted>,
    pub(crate) decision: Option<Decision>,
    pub(crate) walk: Option<Walk>,
    /// What became of its parts.
    pub(crate) log: Log,
}

impl Measured {
    /// Nothing yet.
    pub(crate) fn new(options: &Options) -> Self {
        Self {
            asked: Asked {
                jobs: options.comparison.jobs,
                peer_jobs: options.comparison.peer_jobs,
                shipped_jobs: options.comparison.shipped_jobs,
                nodes: options.nodes,
                sweep: options.comparison.sweep(),
                latency_seconds: options.latency_seconds,
                load_minutes: options.load_minutes,
            },
            comparison: None,
            latency: None,
            containers: None,
            pending: None,
            load: None,
            drain: None,
            follows: None,
            online: None,
            queue: None,
            flood: None,
            writes: None,
            decision: None,
            walk: None,
            log: Log::default(),
        }
    }
}

/// Writes the page, the plot and the goals, and prints the page: those of the repository after a whole run in which
/// everything was measured, by it or by one before, else partial ones in the target folder.
pub(crate) fn write(report: &Report, measured: &Measured, is_whole: bool) -> Result<()> {
    let goals = goals::of(measured)?;
    let page = page::of(measured, &goals, &report.origin())?;
    if !is_whole || !measured.log.is_complete() {
        return report.publish_partial(&page, &goals);
    }
    if let Some(comparison) = &measured.comparison {
        plot(comparison, &report.plot())?;
    }
    report.publish(&page, &goals)
}

fn plot(comparison: &Comparison, path: &Path) -> Result<()> {
    let rate = |contender| comparison.median(contender, |step| step.run.rate);
    let mut bars = vec![
        ("R' (no controller)".to_owned(), comparison.limit()),
        ("BatchJob".to_owned(), rate(Contender::Shipped)),
        (format!("budget x {RAISED}"), rate(Contender::Raised)),
        ("Job, tuned".to_owned(), rate(Contender::Job)),
    ];
    for (name, contender) in [
        ("Kueue + Job, tuned", Contender::Kueue),
        ("Job, as shipped", Contender::JobShipped),
        ("Kueue + Job, as shipped", Contender::KueueShipped),
    ] {
        if comparison.steps(contender).next().is_some() {
            bars.push((name.to_owned(), rate(contender)));
        }
    }
    report::bars(path, "single-pod jobs a second, created to all objects gone", &bars)
}
