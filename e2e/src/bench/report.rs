//! A bench's report: a Markdown page, a plot, and the goals as JSON.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use plotters::prelude::*;
use procfs::{CpuInfo, Current, Meminfo};
use serde::Serialize;
use serde_json::json;

use super::checkout::Checkout;

/// A figure of the specification and what was measured for it. Its `id` begins with that of the row.
#[derive(Debug, Clone, Serialize)]
pub struct Goal {
    id: String,
    what: String,
    value: f64,
    unit: String,
    target: String,
    met: bool,
}

impl Goal {
    /// One that is met or not as `met` says.
    #[must_use]
    pub fn new(id: &str, what: &str, value: f64, unit: &str, target: &str, met: bool) -> Self {
        Self {
            id: id.to_owned(),
            what: what.to_owned(),
            value,
            unit: unit.to_owned(),
            target: target.to_owned(),
            met,
        }
    }

    /// One that is met up to `bound`.
    #[must_use]
    pub fn at_most(id: &str, what: &str, value: f64, unit: &str, bound: f64) -> Self {
        Self::new(id, what, value, unit, &format!("<= {bound}"), value <= bound)
    }

    /// One that is met from `bound` on.
    #[must_use]
    pub fn at_least(id: &str, what: &str, value: f64, unit: &str, bound: f64) -> Self {
        Self::new(id, what, value, unit, &format!(">= {bound}"), value >= bound)
    }

    /// One that is met below `bound`.
    #[must_use]
    pub fn below(id: &str, what: &str, value: f64, unit: &str, bound: f64) -> Self {
        Self::new(id, what, value, unit, &format!("< {bound}"), value < bound)
    }

    /// Its identifier.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Whether it is met.
    #[must_use]
    pub fn is_met(&self) -> bool {
        self.met
    }

    /// As a row of a Markdown table: what, value with unit, target, whether it is met.
    #[must_use]
    pub fn row(&self) -> String {
        let met = if self.met { "met" } else { "**not met**" };
        format!("| {} | {} | {:.3} {} | {} | {met} |", self.id, self.what, self.value, self.unit, self.target)
    }
}

/// Whether this build is one for benches.
pub const IS_OPTIMISED: bool = !cfg!(debug_assertions);

/// A report that is being written.
pub struct Report {
    name: &'static str,
    checkout: Checkout,
    machine: String,
}

impl Report {
    /// The report `docs/benchmarks/<name>.md` of this checkout on this machine.
    ///
    /// # Errors
    /// What git or /proc say cannot be read.
    pub fn new(name: &'static str) -> Result<Self> {
        let checkout = Checkout::at(root())?;
        std::fs::create_dir_all(docs())?;
        Ok(Self { name, checkout, machine: machine()? })
    }

    /// The checkout, at the commit that it had when the report was begun.
    #[must_use]
    pub fn checkout(&self) -> &Checkout {
        &self.checkout
    }

    /// The machine: number and model of its cores, and its memory.
    #[must_use]
    pub fn machine(&self) -> &str {
        &self.machine
    }

    /// The folder `docs/benchmarks/data/<name>`, for what a later run is to find: it is committed with the page.
    ///
    /// # Errors
    /// It cannot be made.
    pub fn folder(&self) -> Result<PathBuf> {
        let folder = docs().join("data").join(self.name);
        std::fs::create_dir_all(&folder)?;
        Ok(folder)
    }

    /// The sentence that says where the figures come from.
    #[must_use]
    pub fn origin(&self) -> String {
        let (name, commit, machine) = (self.name, self.checkout.commit(), self.machine());
        let unoptimised = if IS_OPTIMISED { "" } else { " in an unoptimised build" };
        format!("Written by `make bench-{name}` at commit {commit} on {machine}{unoptimised}.")
    }

    /// Where the plot belongs.
    #[must_use]
    pub fn plot(&self) -> PathBuf {
        docs().join(format!("{}.svg", self.name))
    }

    /// Writes all of a run, and prints the page: those of the repository, with the plot, where everything was measured that
    /// the method asks for, else partial ones in the target folder.
    ///
    /// # Errors
    /// A file cannot be written.
    pub fn write(
        &self,
        page: &str,
        goals: &[Goal],
        is_complete: bool,
        plot: impl FnOnce(&Path) -> Result<()>,
    ) -> Result<()> {
        if !is_complete {
            return self.publish_partial(page, goals);
        }
        plot(&self.plot())?;
        self.publish(page, goals)
    }

    /// Writes and prints the page, and writes `target/bench/<name>.json`. The last line printed says which goals
    /// are missed.
    ///
    /// # Errors
    /// A file cannot be written.
    pub fn publish(&self, page: &str, goals: &[Goal]) -> Result<()> {
        let name = self.name;
        std::fs::write(docs().join(format!("{name}.md")), page)?;
        std::fs::write(bench()?.join(format!("{name}.json")), self.document(goals)?)?;
        println!("{page}\n{}", summary(goals));
        Ok(())
    }

    /// As [`Report::publish`], of a run that did not measure everything: page and goals are written as
    /// `<name>-partial` to `target/bench`, and those of whole runs stay.
    ///
    /// # Errors
    /// A file cannot be written.
    pub fn publish_partial(&self, page: &str, goals: &[Goal]) -> Result<()> {
        let (name, bench) = (self.name, bench()?);
        std::fs::write(bench.join(format!("{name}-partial.md")), page)?;
        std::fs::write(bench.join(format!("{name}-partial.json")), self.document(goals)?)?;
        println!("{page}\n{}", summary(goals));
        Ok(())
    }

    fn document(&self, goals: &[Goal]) -> Result<String> {
        let (commit, machine) = (self.checkout.commit(), &self.machine);
        let document = json!({"commit": commit, "machine": machine, "goals": goals});
        Ok(serde_json::to_string_pretty(&document)?)
    }
}

/// How many of the goals are met, and which are not.
fn summary(goals: &[Goal]) -> String {
    let missed: Vec<&str> = goals.iter().filter(|goal| !goal.met).map(|goal| &*goal.id).collect();
    let (met, all) = (goals.len() - missed.len(), goals.len());
    match missed.as_slice() {
        [] => format!("{met} of {all} goals met"),
        missed => format!("{met} of {all} goals met; missed: {}", missed.join(", ")),
    }
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn docs() -> PathBuf {
    root().join("docs/benchmarks")
}

fn bench() -> Result<PathBuf> {
    let bench = root().join("target/bench");
    std::fs::create_dir_all(&bench)?;
    Ok(bench)
}

/// The value below which the share `q` of sorted values lies; NaN of none.
#[must_use]
pub fn quantile(sorted: &[f64], q: f64) -> f64 {
    let last = sorted.len().saturating_sub(1);
    sorted.get((last as f64 * q).round() as usize).copied().unwrap_or(f64::NAN)
}

/// Draws bars, each with its label.
///
/// # Errors
/// The file cannot be written.
pub fn bars(path: &Path, caption: &str, bars: &[(String, f64)]) -> Result<()> {
    let highest = bars.iter().map(|(_, value)| *value).fold(0.0, f64::max);
    let area = SVGBackend::new(path, (640, 360)).into_drawing_area();
    area.fill(&WHITE)?;
    let count = bars.len() as i32;
    let mut chart = ChartBuilder::on(&area)
        .caption(caption, ("sans-serif", 18))
        .margin(12)
        .x_label_area_size(32)
        .y_label_area_size(48)
        .build_cartesian_2d((0..count).into_segmented(), 0.0..highest * 1.15)?;
    chart
        .configure_mesh()
        .disable_x_mesh()
        .x_labels(bars.len())
        .x_label_formatter(&|at| match at {
            SegmentValue::CenterOf(index) => {
                bars.get(*index as usize).map(|(label, _)| label.clone()).unwrap_or_default()
            }
            SegmentValue::Exact(_) | SegmentValue::Last => String::new(),
        })
        .draw()?;
    chart.draw_series(bars.iter().enumerate().map(|(index, (_, rate))| {
        let index = index as i32;
        let mut bar = Rectangle::new(
            [(SegmentValue::Exact(index), 0.0), (SegmentValue::Exact(index + 1), *rate)],
            RGBColor(46, 111, 149).filled(),
        );
        bar.set_margin(0, 0, 30, 30);
        bar
    }))?;
    area.present()?;
    Ok(())
}

/// Draws lines from the origin on, each with its label; the axis below is called `below`.
///
/// # Errors
/// The file cannot be written.
pub fn lines(path: &Path, caption: &str, below: &str, lines: &[(String, Vec<(f64, f64)>)]) -> Result<()> {
    const COLOURS: [RGBColor; 4] =
        [RGBColor(46, 111, 149), RGBColor(196, 98, 45), RGBColor(92, 138, 60), RGBColor(120, 81, 143)];
    let points = || lines.iter().flat_map(|(_, points)| points);
    let furthest = points().map(|(x, _)| *x).fold(1.0, f64::max);
    let highest = points().map(|(_, y)| *y).fold(1.0, f64::max);
    let area = SVGBackend::new(path, (640, 360)).into_drawing_area();
    area.fill(&WHITE)?;
    let mut chart = ChartBuilder::on(&area)
        .caption(caption, ("sans-serif", 18))
        .margin(12)
        .x_label_area_size(40)
        .y_label_area_size(56)
        .build_cartesian_2d(0.0..furthest, 0.0..highest * 1.05)?;
    chart.configure_mesh().x_desc(below).draw()?;
    for ((label, points), colour) in lines.iter().zip(COLOURS.into_iter().cycle()) {
        chart
            .draw_series(std::iter::once(PathElement::new(points.clone(), colour.stroke_width(2))))?
            .label(label)
            .legend(move |(x, y)| PathElement::new(vec![(x, y), (x + 18, y)], colour.stroke_width(2)));
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::LowerRight)
        .background_style(WHITE.mix(0.8))
        .border_style(BLACK)
        .draw()?;
    area.present()?;
    Ok(())
}

fn machine() -> Result<String> {
    let processors = CpuInfo::current().context("read which processors there are")?;
    let model = processors.model_name(0).unwrap_or("unknown CPU");
    let cores = std::thread::available_parallelism()?;
    let memory = Meminfo::current().context("read how much memory there is")?.mem_total;
    Ok(format!("{cores} cores ({model}), {} GiB", memory >> 30))
}
