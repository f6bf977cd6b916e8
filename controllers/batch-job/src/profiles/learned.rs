//! What the runs of a task have taught, and what follows from it.

use super::histogram::{Histogram, Scale, TEXT_MAX_BYTES};
use super::usage::Usage;
use jiff::Timestamp;
use std::sync::Arc;

/// Samples of a resource from which on it is recommended.
pub const SAMPLES_NEEDED: u32 = 20;
/// Most containers that are learned of; those after them in the template are left alone.
pub const CONTAINERS_MAX: usize = 8;
/// Version of the stored form of histograms.
const FORM: &str = "1";
/// Longest stored form of one container's histograms, in bytes: [`FORM`], and two with their names.
pub const CONTAINER_TEXT_MAX_BYTES: usize = 2 * TEXT_MAX_BYTES + "1;cpu=;memory=".len();
/// Longest stored form of the run times, in bytes.
pub const RUN_TIME_TEXT_MAX_BYTES: usize = TEXT_MAX_BYTES + "1;seconds=".len();

/// Factor on the memory at which a container was killed, and the least that is added to it: what it would have
/// needed is more, and nobody knows how much. Those of the Vertical Pod Autoscaler (`oom-bump-up-ratio`,
/// `oom-min-bump-up-bytes`).
const OOM_PERCENT: i64 = 120;
/// See [`OOM_PERCENT`].
const OOM_MIN_BYTES: i64 = 100 << 20;

/// A resource that is learned.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Learnable {
    /// Thousandths of a core.
    Cpu,
    /// Bytes.
    Memory,
}

impl Learnable {
    /// All of them.
    pub const ALL: [Self; 2] = [Self::Cpu, Self::Memory];

    /// The name of the resource in the API.
    pub fn name(self) -> &'static str {
        match self {
            Self::Cpu => "cpu",
            Self::Memory => "memory",
        }
    }

    /// The resource of this name.
    pub fn of(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|resource| resource.name() == name)
    }

    fn scale(self) -> Scale {
        match self {
            Self::Cpu => Scale::CPU,
            Self::Memory => Scale::MEMORY,
        }
    }

    /// Amounts are multiples of this: whole thousandths of a core, whole mebibytes.
    fn unit(self) -> i64 {
        match self {
            Self::Cpu => 1,
            Self::Memory => 1 << 20,
        }
    }
}

/// One run of a task that says something about the next ones.
#[derive(Clone, Debug, PartialEq)]
pub struct Run {
    /// When it ended.
    pub finished: Timestamp,
    /// How long it took; absent of a run that was killed.
    pub seconds: Option<f64>,
    /// The containers of its template, [`CONTAINERS_MAX`] at most.
    pub containers: Vec<ContainerRun>,
}

/// One container of a run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ContainerRun {
    /// Its name.
    pub name: Arc<str>,
    /// What it used.
    pub usage: Usage,
    /// It was killed when it had this much memory, in bytes; absent where it was not. 0 where nobody knows.
    pub killed_at: Option<i64>,
}

impl ContainerRun {
    fn memory(&self) -> Option<i64> {
        let Some(killed_at) = self.killed_at else { return self.usage.memory };
        let had = killed_at.max(self.usage.memory.unwrap_or(0));
        (had > 0).then(|| (had / 100).saturating_mul(OOM_PERCENT).max(had.saturating_add(OOM_MIN_BYTES)))
    }
}

/// What is known of one container.
#[derive(Clone, Debug, PartialEq)]
pub struct LearnedContainer {
    /// Its name.
    pub name: Arc<str>,
    cpu: Histogram,
    memory: Histogram,
}

impl LearnedContainer {
    /// Nothing is known yet.
    pub fn new(name: Arc<str>) -> Self {
        Self { name, cpu: Histogram::new(Scale::CPU), memory: Histogram::new(Scale::MEMORY) }
    }

    /// What is known of one resource.
    pub fn histogram(&self, resource: Learnable) -> &Histogram {
        match resource {
            Learnable::Cpu => &self.cpu,
            Learnable::Memory => &self.memory,
        }
    }

    fn histogram_mut(&mut self, resource: Learnable) -> &mut Histogram {
        match resource {
            Learnable::Cpu => &mut self.cpu,
            Learnable::Memory => &mut self.memory,
        }
    }

    /// The stored form: `1;cpu=...;memory=...`.
    pub fn encode(&self) -> String {
        let rows = Learnable::ALL.map(|resource| (resource.name(), self.histogram(resource)));
        encode(&rows)
    }

    /// Reads the stored form. A histogram that cannot be read begins anew.
    pub fn decode(name: Arc<str>, text: &str) -> Self {
        let mut container = Self::new(name);
        for resource in Learnable::ALL {
            if let Some(read) = decode(resource.scale(), text, resource.name()) {
                *container.histogram_mut(resource) = read;
            }
        }
        container
    }

    /// What to request: the percentile with its margin, within the bounds, rounded up to whole units. `None`
    /// below [`SAMPLES_NEEDED`].
    pub fn recommended(&self, resource: Learnable, rule: &Rule) -> Option<i64> {
        let histogram = self.histogram(resource);
        if histogram.count() < SAMPLES_NEEDED {
            return None;
        }
        let with_margin =
            histogram.percentile(rule.percentile)? * f64::from(100 + rule.margin_percent) / 100.0;
        let unit = resource.unit();
        // Saturates, far above the bound of amounts.
        let amount = ((with_margin / unit as f64).ceil() as i64)
            .clamp(1, springtide_plumbing::quantity::MAX_AMOUNT / unit)
            * unit;
        let bounds =
            rule.bounds.iter().filter(|bound| bound.resource == resource && *bound.container == *self.name);
        Some(bounds.fold(amount, |amount, bound| bound.hold(amount)))
    }
}

/// How amounts follow from what is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// The share of runs, in percent, that get along with it.
    pub percentile: u32,
    /// What is added, in percent.
    pub margin_percent: u32,
    /// Half life of a sample's weight, in seconds.
    pub half_life_seconds: u32,
    /// What amounts are kept within.
    pub bounds: Vec<Bound>,
}

/// What the amounts of one container and resource are kept within.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bound {
    /// Name of the container.
    pub container: Arc<str>,
    /// The resource.
    pub resource: Learnable,
    /// The least.
    pub min: Option<i64>,
    /// The most; it wins over the least.
    pub max: Option<i64>,
}

impl Bound {
    fn hold(&self, amount: i64) -> i64 {
        amount.max(self.min.unwrap_or(i64::MIN)).min(self.max.unwrap_or(i64::MAX))
    }
}

/// A run whose containers are others than those that were learned of.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("container {learned} of the profile is not among those of a new task ({})", .found.join(", "))]
pub struct ContainerMismatch {
    /// The learned container that the run lacks.
    pub learned: Arc<str>,
    /// Those that the run has.
    pub found: Vec<Arc<str>>,
}

/// All that is known of a task.
#[derive(Clone, Debug, PartialEq)]
pub struct Learned {
    /// Runs that were taken in.
    pub samples: u32,
    /// Runs in which a container was killed for want of memory.
    pub oom_kills: u32,
    /// When the last of them ended.
    pub last_sample: Option<Timestamp>,
    /// By container, in the order in which they were met.
    pub containers: Vec<LearnedContainer>,
    /// How long runs took.
    pub run_time: Histogram,
}

impl Default for Learned {
    fn default() -> Self {
        Self {
            samples: 0,
            oom_kills: 0,
            last_sample: None,
            containers: Vec::new(),
            run_time: Histogram::new(Scale::SECONDS),
        }
    }
}

impl Learned {
    /// Takes in a run.
    ///
    /// # Errors
    /// A container is known that the run does not have: it is another task, and nothing is taken in.
    pub fn record(&mut self, run: &Run, half_life_seconds: u32) -> Result<(), ContainerMismatch> {
        let has = |name: &Arc<str>| run.containers.iter().any(|container| container.name == *name);
        if let Some(missing) = self.containers.iter().find(|learned| !has(&learned.name)) {
            let found = run.containers.iter().map(|container| Arc::clone(&container.name)).collect();
            return Err(ContainerMismatch { learned: Arc::clone(&missing.name), found });
        }
        let at = run.finished.as_second();
        if let Some(seconds) = run.seconds {
            self.run_time.add(seconds, at, half_life_seconds);
        }
        for container in &run.containers {
            let known = self.containers.iter().position(|learned| learned.name == container.name);
            let known = match known {
                Some(known) => known,
                None if self.containers.len() < CONTAINERS_MAX => {
                    self.containers.push(LearnedContainer::new(Arc::clone(&container.name)));
                    self.containers.len() - 1
                }
                None => continue,
            };
            let learned = &mut self.containers[known];
            if let Some(cpu) = container.usage.cpu {
                learned.cpu.add(cpu as f64, at, half_life_seconds);
            }
            if let Some(memory) = container.memory() {
                learned.memory.add(memory as f64, at, half_life_seconds);
            }
        }
        self.samples = self.samples.saturating_add(1);
        if run.containers.iter().any(|container| container.killed_at.is_some()) {
            self.oom_kills = self.oom_kills.saturating_add(1);
        }
        self.last_sample = self.last_sample.max(Some(run.finished));
        Ok(())
    }

    /// A percentile of the run times in whole seconds, rounded up; `None` while no run has succeeded.
    pub fn run_seconds(&self, percentile: u32) -> Option<u32> {
        // Saturates.
        self.run_time.percentile(percentile).map(|seconds| seconds.ceil() as u32)
    }

    /// The stored form of the run times.
    pub fn encode_run_time(&self) -> String {
        encode(&[("seconds", &self.run_time)])
    }

    /// Reads the stored form of the run times; what cannot be read begins anew.
    pub fn decode_run_time(text: &str) -> Histogram {
        decode(Scale::SECONDS, text, "seconds").unwrap_or_else(|| Histogram::new(Scale::SECONDS))
    }
}

/// `1;name=...;name=...`, without those that have no samples; empty where none has.
fn encode(rows: &[(&str, &Histogram)]) -> String {
    let mut text = String::new();
    for (name, histogram) in rows {
        let row = histogram.encode();
        if row.is_empty() {
            continue;
        }
        if text.is_empty() {
            text.push_str(FORM);
        }
        text.extend([";", name, "=", &row]);
    }
    text
}

fn decode(scale: Scale, text: &str, name: &str) -> Option<Histogram> {
    let (form, rows) = text.split_once(';')?;
    let mut rows = rows.split(';').filter_map(|row| row.split_once('=')).filter(|_| form == FORM);
    let (_, row) = rows.find(|(known, _)| *known == name)?;
    Histogram::decode(scale, row)
}

#[cfg(test)]
mod tests;
