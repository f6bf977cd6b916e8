//! What is shown of a run as it goes on: bars on a terminal, elsewhere a line whenever something has changed.

use crate::cli::text::count;
use anyhow::Result;
use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};
use jiff::Timestamp;
use springtide_crds::common::condition;
use springtide_crds::in_place_upgrade::{
    InPlaceUpgradeStatus, PodCounts, PrePullCounts, ReadyReason, StepStatus,
};
use springtide_crds::reason::Reason;
use std::fmt::Write as _;
use std::io::{IsTerminal, Write};
use std::time::Duration;

/// Between two drawings of what turns.
const TICK: Duration = Duration::from_millis(200);
/// Bars and words behind them; a name is as wide as the longest one.
const BAR: &str = "{prefix:7} [{bar:30}] {pos}/{len} {msg}";
const HEAD: &str = "{spinner} {wide_msg}";

/// What is shown of a status.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Shown {
    /// Reason of condition Ready.
    pub(super) ready: String,
    /// Its message.
    pub(super) message: String,
    pub(super) step: Option<StepStatus>,
    pub(super) counts: PodCounts,
    pub(super) pre_pull: Option<PrePullCounts>,
}

impl Shown {
    pub(super) fn of(status: &InPlaceUpgradeStatus) -> Self {
        let ready = condition(&status.conditions, ReadyReason::CONDITION);
        Self {
            ready: ready
                .map_or_else(|| ReadyReason::Pending.as_str().to_owned(), |ready| ready.reason.clone()),
            message: ready.map(|ready| ready.message.clone()).unwrap_or_default(),
            step: status.step.clone(),
            counts: status.pods,
            pre_pull: status.pre_pull,
        }
    }

    /// All of it in one line.
    pub(super) fn line(&self) -> String {
        let Self { ready, message, step, counts, pre_pull } = self;
        let mut line = format!("{ready}: {}/{} pods", counts.updated_ready, counts.total);
        if let Some(step) = step {
            let _ = write!(line, ", step {}/{}", step.index, step.of);
        }
        for (number, what) in
            [(counts.in_flight, "in flight"), (counts.failed, "failed"), (counts.blocked, "blocked")]
        {
            if number > 0 {
                let _ = write!(line, ", {number} {what}");
            }
        }
        if let Some(PrePullCounts { nodes, ready, .. }) = pre_pull {
            let _ = write!(line, ", images on {ready} of {}", count(size(*nodes), "node"));
        }
        if !message.is_empty() {
            let _ = write!(line, "; {message}");
        }
        line
    }
}

/// Where a run is shown.
pub(super) enum Screen {
    /// On a terminal.
    Bars(Bars),
    /// Anywhere else: the last line is not said twice.
    Lines(Box<dyn Write + Send>, String),
}

/// Bars of pods and of nodes.
pub(super) struct Bars {
    all: MultiProgress,
    head: ProgressBar,
    pods: ProgressBar,
    /// Absent while no node has to pull.
    images: Option<ProgressBar>,
    name: String,
}

impl Screen {
    /// On standard output, of an upgrade of this name.
    pub(super) fn new(name: &str) -> Self {
        let stdout = std::io::stdout();
        if stdout.is_terminal() {
            Self::Bars(Bars::new(name, ProgressDrawTarget::stdout()))
        } else {
            Self::Lines(Box::new(stdout), String::new())
        }
    }

    /// Shows what is there now.
    ///
    /// # Errors
    /// Nobody reads it any more.
    pub(super) fn show(&mut self, shown: &Shown, now: Timestamp) -> Result<()> {
        match self {
            Self::Bars(bars) => bars.show(shown),
            Self::Lines(out, last) => {
                let line = shown.line();
                if *last != line {
                    writeln!(out, "{now:.0} {line}")?;
                    *last = line;
                }
            }
        }
        Ok(())
    }

    /// Says something beside it.
    ///
    /// # Errors
    /// Nobody reads it any more.
    pub(super) fn remark(&mut self, text: &str, now: Timestamp) -> Result<()> {
        match self {
            Self::Bars(bars) => bars.all.println(text)?,
            Self::Lines(out, _) => writeln!(out, "{now:.0} {text}")?,
        }
        Ok(())
    }

    /// Leaves what is shown where it is, and says how it ended.
    ///
    /// # Errors
    /// Nobody reads it any more.
    pub(super) fn end(self, text: &str) -> Result<()> {
        match self {
            Self::Bars(bars) => {
                bars.rest();
                writeln!(std::io::stdout(), "{text}")?;
            }
            Self::Lines(mut out, _) => writeln!(out, "{text}")?,
        }
        Ok(())
    }
}

impl Bars {
    pub(super) fn new(name: &str, target: ProgressDrawTarget) -> Self {
        let all = MultiProgress::with_draw_target(target);
        let head = all.add(styled(ProgressBar::new_spinner(), HEAD));
        let pods = all.add(styled(ProgressBar::new(0).with_prefix("pods"), BAR));
        head.enable_steady_tick(TICK);
        Self { all, head, pods, images: None, name: name.to_owned() }
    }

    pub(super) fn show(&mut self, shown: &Shown) {
        let Shown { ready, message, step, counts, pre_pull } = shown;
        let step =
            step.as_ref().map(|step| format!(", step {} of {} to {} pods", step.index, step.of, step.pods));
        let head = format!("{}: {ready}{}", self.name, step.unwrap_or_default());
        let message = if message.is_empty() { String::new() } else { format!(": {message}") };
        self.head.set_message(format!("{head}{message}"));
        self.pods.set_length(counts.total.into());
        self.pods.set_position(counts.updated_ready.into());
        let mut beside = String::new();
        for (number, what) in
            [(counts.in_flight, "in flight"), (counts.failed, "failed"), (counts.blocked, "blocked")]
        {
            if number > 0 {
                let _ = write!(beside, " {number} {what}");
            }
        }
        self.pods.set_message(beside.trim_start().to_owned());
        match pre_pull {
            Some(PrePullCounts { nodes, ready, failed }) => {
                let bar = self.images.get_or_insert_with(|| {
                    self.all.add(styled(ProgressBar::new(0).with_prefix("images"), BAR))
                });
                bar.set_length((*nodes).into());
                bar.set_position((*ready).into());
                bar.set_message(if *failed > 0 { format!("{failed} failed") } else { String::new() });
            }
            None => {
                if let Some(bar) = self.images.take() {
                    self.all.remove(&bar);
                }
            }
        }
    }

    /// What was shown last stays.
    fn rest(self) {
        if let Some(bar) = &self.images {
            bar.abandon();
        }
        self.pods.abandon();
        self.head.abandon();
    }
}

/// A bar of this style; as the library has it where the style is none.
fn styled(bar: ProgressBar, template: &str) -> ProgressBar {
    match ProgressStyle::with_template(template) {
        Ok(style) => bar.with_style(style),
        Err(_) => bar,
    }
}

fn size(number: u32) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;
    use std::sync::{Arc, Mutex};

    const NOW: Timestamp = Timestamp::constant(1_794_355_200, 0);

    fn shown(ready: &str, updated: u32, pre_pull: bool) -> Shown {
        let mut status = json!({
            "observedGeneration": 1,
            "conditions": [{
                "type": "Ready", "status": "False", "reason": ready, "message": "as it goes",
                "lastTransitionTime": "2026-11-11T00:00:00Z",
            }],
            "pods": {"total": 30, "updated": updated + 1, "updatedReady": updated, "inFlight": 2, "failed": 1},
            "step": {"index": 1, "of": 3, "pods": 10, "startTime": "2026-11-11T00:00:00Z"},
        });
        if pre_pull {
            status["prePull"] = json!({"nodes": 4, "ready": 3, "failed": 1});
        }
        Shown::of(&serde_json::from_value(status).unwrap())
    }

    #[test]
    fn a_line_says_all_that_bars_show() {
        let expected =
            "Upgrading: 7/30 pods, step 1/3, 2 in flight, 1 failed, images on 3 of 4 nodes; as it goes";
        assert_eq!(shown("Upgrading", 7, true).line(), expected);
        let unseen = Shown::of(&InPlaceUpgradeStatus::default());
        assert_eq!(unseen.line(), "Pending: 0/0 pods");
    }

    #[test]
    fn bars_are_as_long_as_there_are_pods_and_nodes_and_that_of_images_goes() {
        let mut bars = Bars::new("team-a/web", ProgressDrawTarget::hidden());
        bars.show(&shown("PrePulling", 7, true));
        assert_eq!((bars.pods.position(), bars.pods.length()), (7, Some(30)));
        assert_eq!(bars.pods.message(), "2 in flight 1 failed");
        let images = bars.images.as_ref().unwrap();
        assert_eq!((images.position(), images.length()), (3, Some(4)));
        assert_eq!(bars.head.message(), "team-a/web: PrePulling, step 1 of 3 to 10 pods: as it goes");
        bars.show(&shown("Upgrading", 9, false));
        assert!(bars.images.is_none() && bars.pods.position() == 9);
    }

    /// What was written to it.
    #[derive(Clone, Default)]
    struct Paper(Arc<Mutex<Vec<u8>>>);

    impl Write for Paper {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn where_there_is_no_terminal_each_change_is_one_line_and_no_line_comes_twice() {
        let paper = Paper::default();
        let mut screen = Screen::Lines(Box::new(paper.clone()), String::new());
        for updated in [7, 7, 8] {
            screen.show(&shown("Upgrading", updated, false), NOW).unwrap();
        }
        screen.remark("the connection was lost", NOW).unwrap();
        screen.end("it is done").unwrap();
        let expected = "\
2026-11-11T00:00:00Z Upgrading: 7/30 pods, step 1/3, 2 in flight, 1 failed; as it goes
2026-11-11T00:00:00Z Upgrading: 8/30 pods, step 1/3, 2 in flight, 1 failed; as it goes
2026-11-11T00:00:00Z the connection was lost
it is done
";
        assert_eq!(String::from_utf8(paper.0.lock().unwrap().clone()).unwrap(), expected);
    }
}
