//! The live table: drawn in place on a terminal, elsewhere a few lines when
//! something has changed.

use std::collections::BTreeMap;
use std::env;
use std::io::IsTerminal;
use std::time::{Duration, Instant};

use anyhow::Result;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressFinish, ProgressStyle};
use tabled::builder::Builder;
use tabled::settings::{Padding, Style};

use super::live::{Capacity, Live, Row};
use super::scenario::Expected;

/// Between two drawings: eyes follow no more, and a log needs less.
const ON_TERMINAL: Duration = Duration::from_millis(100);
const IN_LOG: Duration = Duration::from_secs(1);
/// Pods shown in a row; the others are counted.
const SHOWN_PODS: usize = 8;
/// Width of the bar of the node, in characters.
const BAR: u64 = 20;

/// Where the table is shown.
pub(crate) struct Screen {
    started: Instant,
    terminal: Option<ProgressBar>,
    /// What a log shows already.
    logged: BTreeMap<String, Row>,
}

impl Screen {
    /// On the terminal that standard output is, unless `CI` is set.
    pub(crate) fn new() -> Self {
        let terminal = std::io::stdout().is_terminal() && env::var_os("CI").is_none();
        let terminal = terminal.then(|| {
            // However it ends, the last table stays where it is.
            let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stdout())
                .with_finish(ProgressFinish::Abandon);
            if let Ok(style) = ProgressStyle::with_template("{msg}") {
                bar.set_style(style);
            }
            bar
        });
        Self { started: Instant::now(), terminal, logged: BTreeMap::new() }
    }

    /// How often to call [`Screen::show`].
    pub(crate) fn period(&self) -> Duration {
        if self.terminal.is_some() { ON_TERMINAL } else { IN_LOG }
    }

    /// Shows what is there now.
    ///
    /// # Errors
    /// As [`Live::see`].
    pub(crate) fn show(&mut self, live: &Live, jobs: &[Expected], capacity: Capacity) -> Result<()> {
        let seconds = self.started.elapsed().as_secs_f64();
        let rows = live.rows(jobs);
        let cpu = live.cpu_millis()?;
        match &self.terminal {
            Some(bar) => {
                let node = node_line(live.pods(), cpu, capacity);
                bar.set_message(format!("\n{}\n\n{seconds:6.1} s  {node}", table(&rows)));
            }
            None => {
                let changed: Vec<&Row> =
                    rows.iter().filter(|row| self.logged.get(&row.job) != Some(row)).collect();
                if !changed.is_empty() {
                    println!("{seconds:6.1} s  {}", node_line(live.pods(), cpu, capacity));
                    for row in &changed {
                        println!("          {}", log_line(row));
                    }
                    self.logged = rows.into_iter().map(|row| (row.job.clone(), row)).collect();
                }
            }
        }
        Ok(())
    }

    /// A line above the table.
    pub(crate) fn remark(&self, text: &str) {
        match &self.terminal {
            Some(bar) => bar.println(text),
            None => println!("{text}"),
        }
    }
}

/// A table without frame, as kubectl prints them.
pub(crate) fn plain(rows: impl IntoIterator<Item = Vec<String>>) -> String {
    let mut builder = Builder::default();
    for row in rows {
        builder.push_record(row);
    }
    let text = builder.build().with(Style::empty()).with(Padding::new(0, 3, 0, 0)).to_string();
    // Every column is filled up with spaces, the last one too.
    text.lines().map(str::trim_end).collect::<Vec<_>>().join("\n")
}

fn table(rows: &[Row]) -> String {
    let head =
        ["JOB", "STATE", "SUCCEEDED", "ACTIVE", "FAILED", "WAITS FOR", "PODS"].map(str::to_owned).to_vec();
    let rows = rows.iter().map(|row| {
        vec![
            row.job.clone(),
            row.state.clone(),
            format!("{}/{}", row.succeeded, row.completions),
            row.active.to_string(),
            row.failed.to_string(),
            row.waits.clone(),
            pods(row),
        ]
    });
    plain(std::iter::once(head).chain(rows))
}

fn log_line(row: &Row) -> String {
    let Row { job, state, succeeded, completions, active, failed, .. } = row;
    let waits = if row.waits.is_empty() { String::new() } else { format!(", waits: {}", row.waits) };
    let pods = if row.pods.is_empty() { String::new() } else { format!(", pods {}", pods(row)) };
    format!(
        "{job:<15} {state:<20} {succeeded}/{completions} succeeded, {active} active, {failed} failed{waits}{pods}"
    )
}

fn pods(row: &Row) -> String {
    let shown: Vec<&str> = row.pods.iter().take(SHOWN_PODS).map(String::as_str).collect();
    let more = row.pods.len() - shown.len();
    let more = if more == 0 { String::new() } else { format!(" and {more} more") };
    shown.join(" ") + &more
}

fn node_line(pods: usize, cpu_millis: u64, capacity: Capacity) -> String {
    let total = capacity.cpu_millis.max(1);
    let filled = (cpu_millis * BAR).div_ceil(total).min(BAR);
    let bar: String = (0..BAR).map(|cell| if cell < filled { '#' } else { '.' }).collect();
    format!("[{bar}] {} of {} CPUs asked for by {pods} pods", cores(cpu_millis), cores(capacity.cpu_millis))
}

/// CPU for people.
pub(crate) fn cores(millis: u64) -> String {
    format!("{}.{}", millis / 1000, millis % 1000 / 100)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(pods: usize) -> Row {
        Row {
            job: "more-than-fits".into(),
            state: "Running".into(),
            succeeded: 3,
            completions: 16,
            active: 2,
            failed: 0,
            waits: "NoCapacity".into(),
            pods: (0..pods).map(|index| format!("{index}-0")).collect(),
        }
    }

    #[test]
    fn columns_stand_below_each_other() {
        let text = table(&[row(2), Row { job: "x".into(), ..row(0) }]);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), 3);
        let column = lines[0].find("WAITS FOR").unwrap();
        assert!(lines[1..].iter().all(|line| line[column..].starts_with("NoCapacity")), "{text}");
        assert!(lines[1].ends_with("0-0 1-0"), "{text}");
    }

    #[test]
    fn many_pods_are_counted() {
        assert_eq!(pods(&row(10)), "0-0 1-0 2-0 3-0 4-0 5-0 6-0 7-0 and 2 more");
        let line = log_line(&row(0));
        assert!(line.ends_with("3/16 succeeded, 2 active, 0 failed, waits: NoCapacity"), "{line}");
    }

    #[test]
    fn the_bar_is_full_only_when_the_node_is() {
        let capacity = Capacity { cpu_millis: 2000 };
        assert!(node_line(4, 2000, capacity).starts_with("[####################] 2.0 of 2.0"));
        assert!(node_line(0, 0, capacity).starts_with("[....................] 0.0 of 2.0"));
        assert!(node_line(1, 100, capacity).starts_with("[#...................] 0.1"));
        assert!(node_line(1, 1900, capacity).starts_with("[###################.] 1.9"));
    }
}
