//! Where an object is shown as it goes on: bars on a terminal, elsewhere a line whenever something has changed.

use anyhow::Result;
use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};
use jiff::Timestamp;
use std::io::{IsTerminal, Write};
use std::time::Duration;

/// Between two drawings of what turns.
const TICK: Duration = Duration::from_millis(200);
/// Most characters of a name in front of a bar.
const NAME_MAX: usize = 20;
const HEAD: &str = "{spinner} {wide_msg}";

/// What is shown of an object.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Shown {
    /// All of it in one line.
    pub(super) line: String,
    /// What stands above the bars.
    pub(super) head: String,
    /// The bars, each of a name of its own.
    pub(super) bars: Vec<Bar>,
}

/// Something of which there are so many.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Bar {
    pub(super) name: String,
    pub(super) position: u32,
    pub(super) length: u32,
    /// What is said behind it.
    pub(super) beside: String,
}

impl Bar {
    /// A bar with these figures behind it, as far as they are not 0.
    pub(super) fn of(name: impl Into<String>, position: u32, length: u32, beside: &[(u32, &str)]) -> Self {
        let beside = beside.iter().filter(|(number, _)| *number > 0);
        let beside: Vec<String> = beside.map(|(number, what)| format!("{number} {what}")).collect();
        Self { name: name.into(), position, length, beside: beside.join(" ") }
    }
}

/// Where it is shown.
pub(super) enum Screen {
    /// On a terminal.
    Bars(Bars),
    /// Anywhere else: the last line is not said twice.
    Lines(Box<dyn Write + Send>, String),
}

/// The bars of a terminal.
pub(super) struct Bars {
    all: MultiProgress,
    head: ProgressBar,
    bars: Vec<(String, ProgressBar)>,
    name: String,
}

impl Screen {
    /// On standard output, of an object of this name.
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
                if *last != shown.line {
                    writeln!(out, "{now:.0} {}", shown.line)?;
                    last.clone_from(&shown.line);
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
    fn new(name: &str, target: ProgressDrawTarget) -> Self {
        let all = MultiProgress::with_draw_target(target);
        let head = all.add(styled(ProgressBar::new_spinner(), HEAD));
        head.enable_steady_tick(TICK);
        Self { all, head, bars: Vec::new(), name: name.to_owned() }
    }

    fn show(&mut self, shown: &Shown) {
        self.head.set_message(format!("{}: {}", self.name, shown.head));
        let (all, bars) = (&self.all, &mut self.bars);
        bars.retain(|(name, bar)| {
            let is_shown = shown.bars.iter().any(|own| own.name == *name);
            if !is_shown {
                all.remove(bar);
            }
            is_shown
        });
        let width = shown.bars.iter().map(|bar| bar.name.chars().count().min(NAME_MAX)).max().unwrap_or(0);
        let template = format!("{{prefix:{width}}} [{{bar:30}}] {{pos}}/{{len}} {{msg}}");
        for Bar { name, position, length, beside } in &shown.bars {
            let bar = match bars.iter().find(|(known, _)| known == name) {
                Some((_, bar)) => bar.clone(),
                None => {
                    let prefix: String = name.chars().take(NAME_MAX).collect();
                    let bar = all.add(styled(ProgressBar::new(0).with_prefix(prefix), &template));
                    bars.push((name.clone(), bar.clone()));
                    bar
                }
            };
            bar.set_length((*length).into());
            bar.set_position((*position).into());
            bar.set_message(beside.clone());
        }
    }

    /// What was shown last stays.
    fn rest(self) {
        self.bars.iter().for_each(|(_, bar)| bar.abandon());
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

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::{Arc, Mutex};

    const NOW: Timestamp = Timestamp::constant(1_794_355_200, 0);

    fn shown(line: &str, bars: Vec<Bar>) -> Shown {
        Shown { line: line.to_owned(), head: "Upgrading".to_owned(), bars }
    }

    #[test]
    fn bars_come_and_go_with_what_is_shown() {
        let mut bars = Bars::new("team-a/web", ProgressDrawTarget::hidden());
        let pods =
            |position| Bar::of("pods", position, 30, &[(2, "in flight"), (0, "failed"), (1, "blocked")]);
        bars.show(&shown("", vec![pods(7), Bar::of("images", 3, 4, &[])]));
        assert_eq!(bars.head.message(), "team-a/web: Upgrading");
        let (_, of_pods) = &bars.bars[0];
        assert_eq!((of_pods.position(), of_pods.length()), (7, Some(30)));
        assert_eq!(of_pods.message(), "2 in flight 1 blocked");
        assert_eq!(bars.bars[1].1.length(), Some(4));
        bars.show(&shown("", vec![pods(9)]));
        assert_eq!((bars.bars.len(), bars.bars[0].1.position()), (1, 9));
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
        for line in ["7 of 30", "7 of 30", "8 of 30"] {
            screen.show(&shown(line, Vec::new()), NOW).unwrap();
        }
        screen.remark("the connection was lost", NOW).unwrap();
        screen.end("it is done").unwrap();
        let expected = "\
2026-11-11T00:00:00Z 7 of 30
2026-11-11T00:00:00Z 8 of 30
2026-11-11T00:00:00Z the connection was lost
it is done
";
        assert_eq!(String::from_utf8(paper.0.lock().unwrap().clone()).unwrap(), expected);
    }
}
