//! A bench in parts: which of them are measured, taken from the [`Store`] or fail, and what its page says of that.

use std::fmt::{self, Write as _};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use clap::ValueEnum;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::report::Goal;
use super::stored::{Done, Store};

/// Where the machine is named at the beginning, and is not that of all parts.
const ELSEWHERE: &str = " Parts of it were measured before, on another machine, which is named at the end.";

/// What a bench measures, part by part.
#[allow(
    async_fn_in_trait,
    reason = "parts are measured one after the other in one task, never sent to another"
)]
pub trait Bench {
    /// A part; `--only` takes its name.
    type Part: ValueEnum + Copy;

    /// What is printed when it begins.
    fn title(&self, part: Self::Part) -> String;

    /// Whether no less of it is measured than the method asks for.
    fn is_whole(&self, part: Self::Part) -> bool;

    /// The options that its figures depend on.
    fn options(&self, part: Self::Part) -> Value;

    /// Ends what was started for parts before, and is not for `next`; all of it, where no part comes any more.
    ///
    /// # Errors
    /// It does not end in order.
    fn end_before(&mut self, next: Option<Self::Part>) -> Result<()>;

    /// Measures it, or notes in the log that it is left out.
    ///
    /// # Errors
    /// It fails. What others have measured, and will, is worth a report.
    async fn measure(&mut self, part: Self::Part) -> Result<()>;

    /// Drops what runs: what a part that has failed left behind would be measured by the next one.
    fn give_up(&mut self);

    /// What was measured of it; nothing where it was left out.
    ///
    /// # Errors
    /// It cannot be told as JSON.
    fn result(&self, part: Self::Part) -> Result<Option<Value>>;

    /// The way back of [`Bench::result`].
    ///
    /// # Errors
    /// It is of another form.
    fn put(&mut self, part: Self::Part, result: Value) -> Result<()>;

    /// What became of its parts.
    fn log(&mut self) -> &mut Log;
}

/// A result as [`Bench::result`] gives it.
///
/// # Errors
/// It cannot be told as JSON.
pub fn stored<T: Serialize>(result: Option<&T>) -> Result<Option<Value>> {
    Ok(result.map(serde_json::to_value).transpose()?)
}

/// The way back of [`stored`].
///
/// # Errors
/// It is of another form.
pub fn restored<T: DeserializeOwned>(result: Value) -> Result<Option<T>> {
    Ok(Some(serde_json::from_value(result)?))
}

/// A part's name, as `--only` takes it.
#[must_use]
pub fn name_of(part: impl ValueEnum) -> String {
    part.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default()
}

/// The parts that are asked for, in their order; all where none is.
#[must_use]
pub fn wanted<P: ValueEnum + Copy + PartialEq>(only: &[P]) -> Vec<P> {
    let is_wanted = |part: &&P| only.is_empty() || only.contains(part);
    P::value_variants().iter().filter(is_wanted).copied().collect()
}

/// Measures parts one after the other, each within `bound`; where the bench resumes, those that are stored are taken from
/// there.
pub async fn run<B: Bench>(bench: &mut B, parts: &[B::Part], store: &Store, resumes: bool, bound: Duration) {
    let start = Instant::now();
    for (number, part) in parts.iter().copied().enumerate() {
        end(bench, Some(part));
        let minutes = start.elapsed().as_secs_f64() / 60.0;
        eprintln!("[{}/{}] {} ({minutes:.0} min so far)", number + 1, parts.len(), bench.title(part));
        if resumes {
            match store.take(bench, part) {
                Ok(()) => continue,
                Err(why) => eprintln!("      measured now: {why:#}"),
            }
        }
        let began = Instant::now();
        let done = tokio::time::timeout(bound, bench.measure(part)).await;
        let done = done.with_context(|| format!("not done after {} min", bound.as_secs() / 60));
        match done.and_then(|done| done) {
            Ok(()) => store.keep(bench, part, began.elapsed()),
            Err(error) => {
                eprintln!("      failed: {error:#}");
                let title = bench.title(part);
                bench.log().failures.push((title, format!("{error:#}")));
                store.forget(bench, part);
                bench.give_up();
            }
        }
    }
    end(bench, None);
    bench.log().minutes += start.elapsed().as_secs_f64() / 60.0;
}

fn end<B: Bench>(bench: &mut B, next: Option<B::Part>) {
    if let Err(error) = bench.end_before(next) {
        bench.log().failures.push(("the end of the shared cluster".to_owned(), format!("{error:#}")));
    }
}

/// What became of the parts of a run.
#[derive(Debug, Default)]
pub struct Log {
    /// Parts that are not measured here, and why.
    pub left_out: Vec<(String, String)>,
    /// Parts that have failed, and why.
    pub failures: Vec<(String, String)>,
    /// When each part was measured, in the order in which this run came to them.
    pub done: Vec<Done>,
    /// How long it took, parts of runs before this one too.
    pub minutes: f64,
}

impl Log {
    /// Notes a part that takes a real node, where none is wanted.
    pub fn without_node(&mut self, title: String) {
        self.left_out.push((title, "No real node is wanted (`SPRINGTIDE_NODE=off`).".to_owned()));
    }

    /// Notes what a part has that takes a real node, or that it is left out as none is wanted.
    pub fn on_a_node<T>(&mut self, title: String, measured: Option<T>) -> Option<T> {
        if measured.is_none() {
            self.without_node(title);
        }
        measured
    }

    /// How the program ends after so many parts.
    ///
    /// # Errors
    /// Something has failed.
    pub fn verdict(&self, parts: usize) -> Result<()> {
        match self.failures.len() {
            0 => Ok(()),
            failed => bail!("{failed} failures in {parts} parts"),
        }
    }

    /// Whether all parts that were asked for are there.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.failures.is_empty() && self.left_out.is_empty()
    }

    /// Whether some parts were measured on another machine than the one of this run.
    #[must_use]
    pub fn is_elsewhere(&self) -> bool {
        self.done.iter().any(|done| done.is_elsewhere)
    }

    /// Writes the beginning of a page: its title, where the figures come from, the plot (a Markdown image), if there is
    /// one, what is not there, and the goals.
    ///
    /// # Errors
    /// Never, as a page is a text.
    pub fn open(
        &self,
        page: &mut String,
        title: &str,
        origin: &str,
        plot: Option<&str>,
        goals: &[Goal],
    ) -> fmt::Result {
        let elsewhere = if self.is_elsewhere() { ELSEWHERE } else { "" };
        writeln!(page, "# {title}\n\n{origin} It took {:.0} minutes.{elsewhere}\n", self.minutes)?;
        if let Some(plot) = plot {
            writeln!(page, "{plot}\n")?;
        }
        for (part, why) in self.failures.iter().chain(&self.left_out) {
            writeln!(page, "**Not measured**: {part}. {why}\n")?;
        }
        writeln!(page, "## Goals\n\n| goal | figure | measured | target | |\n|---|---|---|---|---|")?;
        for goal in goals {
            writeln!(page, "{}", goal.row())?;
        }
        Ok(())
    }

    /// That parts are independent, and when and where each was measured if that was not in one go.
    #[must_use]
    pub fn independence(&self) -> String {
        let independent = "Parts are independent runs, each with its raw limit, if it has one, beside it";
        if self.done.iter().all(|done| !done.is_taken) {
            return format!("{independent}.");
        }
        let differ = self.is_elsewhere();
        let when = |Done { part, commit, machine, end, .. }: &Done| {
            let machine = if differ { format!(" on {machine}") } else { String::new() };
            format!("{part} until {} UTC{machine} (commit {commit})", end.strftime("%Y-%m-%d %H:%M"))
        };
        let times: Vec<String> = self.done.iter().map(when).collect();
        let within = if differ { " Every comparison is within one part, and so on one machine." } else { "" };
        format!(
            "{independent}; they were not measured in one go, but {}, with nothing changed between outside of `docs`.{within}",
            times.join("; ")
        )
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use serde_json::json;

    #[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
    pub(in crate::bench) enum Part {
        Quick,
        Thorough,
    }

    /// A bench whose second part fails where nobody has measured it.
    pub(in crate::bench) struct Toy {
        pub(in crate::bench) nodes: u16,
        pub(in crate::bench) quick: Option<f64>,
        pub(in crate::bench) thorough: Option<f64>,
        pub(in crate::bench) log: Log,
    }

    impl Toy {
        pub(in crate::bench) fn of(nodes: u16) -> Self {
            Self { nodes, quick: None, thorough: None, log: Log::default() }
        }
    }

    impl Bench for Toy {
        type Part = Part;

        fn title(&self, part: Part) -> String {
            format!("{part:?} on {} nodes", self.nodes)
        }

        fn is_whole(&self, _: Part) -> bool {
            self.nodes == 200
        }

        fn options(&self, _: Part) -> Value {
            json!({"nodes": self.nodes})
        }

        fn end_before(&mut self, next: Option<Part>) -> Result<()> {
            match next {
                Some(Part::Quick | Part::Thorough) => Ok(()),
                None => bail!("it does not end"),
            }
        }

        async fn measure(&mut self, part: Part) -> Result<()> {
            match part {
                Part::Quick => self.quick = Some(1.0),
                Part::Thorough => bail!("the machine is on fire"),
            }
            Ok(())
        }

        fn give_up(&mut self) {
            self.nodes = 0;
        }

        fn result(&self, part: Part) -> Result<Option<Value>> {
            match part {
                Part::Quick => stored(self.quick.as_ref()),
                Part::Thorough => stored(self.thorough.as_ref()),
            }
        }

        fn put(&mut self, part: Part, result: Value) -> Result<()> {
            match part {
                Part::Quick => self.quick = restored(result)?,
                Part::Thorough => self.thorough = restored(result)?,
            }
            Ok(())
        }

        fn log(&mut self) -> &mut Log {
            &mut self.log
        }
    }

    #[tokio::test]
    async fn a_part_that_fails_is_named_and_the_others_count() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::of_nothing(folder.path());
        let mut toy = Toy::of(200);
        run(&mut toy, &wanted::<Part>(&[]), &store, true, Duration::from_secs(60)).await;
        assert_eq!((toy.quick, toy.thorough, toy.nodes), (Some(1.0), None, 0));
        let failures: Vec<String> =
            toy.log.failures.iter().map(|(part, why)| format!("{part}: {why}")).collect();
        assert_eq!(
            failures,
            [
                "Thorough on 200 nodes: the machine is on fire",
                "the end of the shared cluster: it does not end"
            ]
        );
        assert_eq!(toy.log.done.iter().map(|done| &*done.part).collect::<Vec<_>>(), ["quick"]);
        assert!(!toy.log.is_complete());
        assert_eq!(toy.log.verdict(2).unwrap_err().to_string(), "2 failures in 2 parts");
        assert_eq!(wanted(&[Part::Thorough]), [Part::Thorough]);
    }

    #[test]
    fn a_page_begins_with_what_is_not_there() {
        let mut log = Log { minutes: 61.4, ..Log::default() };
        log.failures.push(("a part".to_owned(), "it has ended".to_owned()));
        assert_eq!(log.on_a_node("a third".to_owned(), Some(1)), Some(1));
        assert_eq!(log.on_a_node("another".to_owned(), None::<u8>), None);
        let mut page = String::new();
        let goals = [Goal::at_most("A1", "seconds", 1.0, "s", 2.0)];
        log.open(&mut page, "Title", "Written by a test.", None, &goals).unwrap();
        let expected = "# Title\n\nWritten by a test. It took 61 minutes.\n\n**Not measured**: a part. it has ended\n\n\
                        **Not measured**: another. No real node is wanted (`SPRINGTIDE_NODE=off`).\n\n## Goals\n";
        assert!(page.starts_with(expected), "{page}");
        assert!(page.ends_with("| A1 | seconds | 1.000 s | <= 2 | met |\n"), "{page}");
        let mut page = String::new();
        Log::default().open(&mut page, "Title", "Origin.", Some("![Bars](x.svg)"), &[]).unwrap();
        assert!(page.contains("\n![Bars](x.svg)\n\n## Goals"), "{page}");
    }
}
