//! Parts that were measured in full, each as JSON in `docs/benchmarks/data/batch`: a run that was interrupted goes on from
//! them, and who commits them may go on another day. A part is stored with what its figures depend on, and taken again
//! where what is measured is as at that commit, and the options are the same. The machine may be another: every
//! comparison is within one part.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use jiff::Timestamp;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Value, json};
use springtide_e2e::bench::checkout::Checkout;
use springtide_e2e::bench::report::{IS_OPTIMISED, Report};

use crate::report::Measured;
use crate::{Options, Part};

/// What figures of such a build are not worth.
const UNOPTIMISED: &str = "an unoptimised build is none for benches";

/// A part that was measured, as its file has it.
#[derive(Serialize, Deserialize)]
struct Stored {
    commit: String,
    machine: String,
    options: Value,
    end: Timestamp,
    minutes: f64,
    result: Value,
}

/// When, at which commit and where a part was measured.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Done {
    /// Its name, as `--only` takes it.
    pub(crate) part: String,
    /// Its commit, abbreviated.
    pub(crate) commit: String,
    /// The machine that it was measured on.
    pub(crate) machine: String,
    /// When it had been measured.
    pub(crate) end: Timestamp,
    /// Whether that was in a run before this one.
    pub(crate) is_taken: bool,
    /// Whether that machine is not the one of this run.
    pub(crate) is_elsewhere: bool,
}

/// The parts that are stored, and what those are measured with that this run adds.
pub(crate) struct Store {
    folder: PathBuf,
    checkout: Checkout,
    machine: String,
    is_optimised: bool,
}

impl Store {
    /// Those beside a report. Says so where the files are not those of a commit, or the build is none for benches, so
    /// that no part will be stored.
    ///
    /// # Errors
    /// That is so, and this run is to resume another; or the folder cannot be made.
    pub(crate) fn open(report: &Report, resumes: bool) -> Result<Self> {
        let (folder, checkout) = (report.folder()?, report.checkout().clone());
        if !checkout.is_as_at(checkout.commit())? {
            let what = "files outside of docs are not those of a commit";
            ensure!(!resumes, "--resume: {what}, so that no part that is stored was measured with them");
            eprintln!("{what}: parts are not stored");
        }
        if !IS_OPTIMISED {
            ensure!(!resumes, "--resume: {UNOPTIMISED}, and parts that are stored are of others");
            eprintln!("{UNOPTIMISED}: parts are not stored");
        }
        Ok(Self { folder, checkout, machine: report.machine().to_owned(), is_optimised: IS_OPTIMISED })
    }

    /// Stores what was just measured of a part, and says so, or why not.
    pub(crate) fn keep(&self, part: Part, options: &Options, measured: &mut Measured, took: Duration) {
        let end = Timestamp::now();
        // One that was left out has nothing.
        let Some(result) = result(part, measured).transpose() else { return };
        match result.and_then(|result| self.write(part, options, result, end, took)) {
            Ok(path) => eprintln!("      stored in {}", path.display()),
            Err(why) => eprintln!("      not stored: {why:#}"),
        }
        let (commit, machine) = (self.checkout.commit().to_owned(), self.machine.clone());
        measured.done.push(Done {
            part: part.name(),
            commit,
            machine,
            end,
            is_taken: false,
            is_elsewhere: false,
        });
    }

    /// Removes what is stored of a part that has failed now, with these files and in full: what cannot be had again is
    /// not to be taken.
    pub(crate) fn forget(&self, part: Part, options: &Options) {
        let is_as_stored = self.checkout.is_as_at(self.checkout.commit()).unwrap_or(false);
        let path = self.path(part);
        // Usually there is none.
        if self.is_optimised && part.is_whole(options) && is_as_stored && std::fs::remove_file(&path).is_ok()
        {
            eprintln!("      removed {}", path.display());
        }
    }

    /// Puts what is stored of a part into `measured`, and says so.
    ///
    /// # Errors
    /// It is to be measured now, for this reason.
    pub(crate) fn take(&self, part: Part, options: &Options, measured: &mut Measured) -> Result<()> {
        let path = self.path(part);
        if !path.exists() {
            bail!("it is not stored");
        }
        let stored = std::fs::read(&path).with_context(|| format!("read {}", path.display()))?;
        let stored: Stored =
            serde_json::from_slice(&stored).with_context(|| format!("understand {}", path.display()))?;
        let Stored { commit, machine, options: stored_options, end, minutes, result } = stored;
        ensure!(self.checkout.is_as_at(&commit)?, "it was measured at commit {commit}");
        ensure!(stored_options == shape(part, options), "it was measured with options {stored_options}");
        put(part, measured, result).with_context(|| format!("understand {}", path.display()))?;
        let is_elsewhere = machine != self.machine;
        let elsewhere = if is_elsewhere { format!(", on {machine}") } else { String::new() };
        eprintln!(
            "      taken from {}: {end:.0} at {commit}, in {minutes:.0} min{elsewhere}",
            path.display()
        );
        measured.minutes += minutes;
        measured.done.push(Done { part: part.name(), commit, machine, end, is_taken: true, is_elsewhere });
        Ok(())
    }

    fn write(
        &self,
        part: Part,
        options: &Options,
        result: Value,
        end: Timestamp,
        took: Duration,
    ) -> Result<PathBuf> {
        ensure!(self.is_optimised, "{UNOPTIMISED}");
        ensure!(part.is_whole(options), "it is less than the method asks for");
        // Programs that a part has built, or started, are of the files that were there meanwhile.
        let commit = self.checkout.commit();
        ensure!(self.checkout.is_as_at(commit)?, "files outside of docs are not those of commit {commit}");
        let stored = Stored {
            commit: commit.to_owned(),
            machine: self.machine.clone(),
            options: shape(part, options),
            end,
            minutes: took.as_secs_f64() / 60.0,
            result,
        };
        let path = self.path(part);
        write_at_once(&path, &serde_json::to_vec(&stored)?)
            .with_context(|| format!("write {}", path.display()))?;
        Ok(path)
    }

    fn path(&self, part: Part) -> PathBuf {
        self.folder.join(format!("{}.json", part.name()))
    }
}

/// Whether some of these parts were measured on another machine than the one of this run.
pub(crate) fn are_elsewhere(done: &[Done]) -> bool {
    done.iter().any(|done| done.is_elsewhere)
}

/// Whoever is interrupted leaves the file whole, as it was or as it will be.
fn write_at_once(path: &Path, content: &[u8]) -> Result<()> {
    let whole = path.with_extension("json.part");
    std::fs::write(&whole, content)?;
    Ok(std::fs::rename(whole, path)?)
}

/// The options that the figures of a part depend on.
fn shape(part: Part, options: &Options) -> Value {
    let Options { nodes, comparison, latency_seconds, load_minutes, flood_jobs, .. } = options;
    match part {
        Part::Throughput => json!({"nodes": nodes, "comparison": comparison}),
        Part::Latency => json!({"nodes": nodes, "seconds": latency_seconds}),
        Part::Load => json!({"nodes": nodes, "minutes": load_minutes}),
        Part::Flood => json!({"nodes": nodes, "jobs": flood_jobs}),
        Part::Pending | Part::Drain | Part::Follows | Part::Queue => json!({"nodes": nodes}),
        Part::Containers | Part::Online | Part::Writes | Part::Decision | Part::Walk => json!({}),
    }
}

/// What was measured of a part; nothing where it was left out.
pub(crate) fn result(part: Part, measured: &Measured) -> Result<Option<Value>> {
    fn of<T: Serialize>(result: Option<&T>) -> Result<Option<Value>> {
        Ok(result.map(serde_json::to_value).transpose()?)
    }
    match part {
        Part::Throughput => of(measured.comparison.as_ref()),
        Part::Latency => of(measured.latency.as_ref()),
        Part::Pending => of(measured.pending.as_ref()),
        Part::Load => of(measured.load.as_ref()),
        Part::Drain => of(measured.drain.as_ref()),
        Part::Follows => of(measured.follows.as_ref()),
        Part::Queue => of(measured.queue.as_ref()),
        Part::Flood => of(measured.flood.as_ref()),
        Part::Containers => of(measured.containers.as_ref()),
        Part::Online => of(measured.online.as_ref()),
        Part::Writes => of(measured.writes.as_ref()),
        Part::Decision => of(measured.decision.as_ref()),
        Part::Walk => of(measured.walk.as_ref()),
    }
}

/// The way back of [`result`].
pub(crate) fn put(part: Part, measured: &mut Measured, result: Value) -> Result<()> {
    fn of<T: DeserializeOwned>(result: Value) -> Result<Option<T>> {
        Ok(Some(serde_json::from_value(result)?))
    }
    match part {
        Part::Throughput => measured.comparison = of(result)?,
        Part::Latency => measured.latency = of(result)?,
        Part::Pending => measured.pending = of(result)?,
        Part::Load => measured.load = of(result)?,
        Part::Drain => measured.drain = of(result)?,
        Part::Follows => measured.follows = of(result)?,
        Part::Queue => measured.queue = of(result)?,
        Part::Flood => measured.flood = of(result)?,
        Part::Containers => measured.containers = of(result)?,
        Part::Online => measured.online = of(result)?,
        Part::Writes => measured.writes = of(result)?,
        Part::Decision => measured.decision = of(result)?,
        Part::Walk => measured.walk = of(result)?,
    }
    Ok(())
}

/// Reads a figure that may be none: JSON has no NaN, and its writer makes null of it.
pub(crate) fn nan_of_null<'de, D: Deserializer<'de>>(deserializer: D) -> Result<f64, D::Error> {
    Ok(Option::<f64>::deserialize(deserializer)?.unwrap_or(f64::NAN))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::generator::Lives;
    use crate::pending::Pending;
    use clap::{Parser, ValueEnum};

    fn options(args: &[&str]) -> Options {
        Options::parse_from(["bench-batch"].iter().chain(args))
    }

    /// A clone with one commit in `root`, and a store among its files.
    fn store(root: &Path) -> Store {
        let folder = root.join("docs/data");
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::write(root.join("README.md"), "A page.\n").unwrap();
        commit(root);
        let checkout = Checkout::at(root.to_owned()).unwrap();
        assert_ne!(checkout.commit(), "");
        Store { folder, checkout, machine: "2 cores".to_owned(), is_optimised: true }
    }

    fn commit(root: &Path) {
        let author = ["-c", "user.name=test", "-c", "user.email=test@localhost"];
        let commit = ["-c", "commit.gpgsign=false", "commit", "--quiet", "--message", "test"];
        let commit = [&author[..], &commit[..]].concat();
        for args in [&["init", "--quiet"][..], &["add", "--all"][..], &commit[..]] {
            let done = Checkout::at(root.to_owned()).unwrap().git(args).unwrap();
            assert!(done.status.success(), "{args:?}: {}", String::from_utf8_lossy(&done.stderr));
        }
    }

    /// Of three runs, which differ in this figure.
    fn pending(pods: usize) -> [Pending; 3] {
        [0, 1, 2].map(|number| Pending {
            tasks: 250,
            pod_seconds: 7.5,
            unschedulable: number,
            pods,
            seconds: 80.0,
            metric: None,
        })
    }

    /// Measures a part of which `pods` tells, and keeps it.
    fn keep(store: &Store, args: &[&str], pods: usize) {
        let options = options(args);
        let mut measured = Measured::new(&options);
        measured.pending = Some(pending(pods));
        store.keep(Part::Pending, &options, &mut measured, Duration::from_secs(240));
        assert_eq!(measured.done.iter().map(|done| done.is_taken).collect::<Vec<_>>(), [false]);
    }

    /// What a run that resumes finds of the part, or why it measures it.
    fn taken(store: &Store, args: &[&str]) -> Result<usize, String> {
        let options = options(args);
        let mut measured = Measured::new(&options);
        match store.take(Part::Pending, &options, &mut measured) {
            Ok(()) => {
                assert_eq!((measured.minutes, measured.done.len()), (4.0, 1));
                assert!(measured.done[0].is_taken && measured.done[0].part == "pending");
                Ok(measured.pending.unwrap()[2].pods)
            }
            Err(why) => {
                assert!(measured.pending.is_none() && measured.done.is_empty() && measured.minutes == 0.0);
                Err(format!("{why:#}"))
            }
        }
    }

    #[test]
    fn a_part_is_taken_where_all_that_its_figures_depend_on_is_the_same() {
        let folder = tempfile::tempdir().unwrap();
        let store = store(folder.path());
        assert_eq!(taken(&store, &["--resume"]), Err("it is not stored".to_owned()));
        keep(&store, &["--only", "pending"], 1);
        assert_eq!(taken(&store, &["--resume"]), Ok(1));
        keep(&store, &["--load-minutes", "1"], 2);
        assert_eq!(taken(&store, &["--resume", "--flood-jobs", "1000"]), Ok(2), "of other parts are these");

        let why = taken(&store, &["--resume", "--nodes", "100"]).unwrap_err();
        assert_eq!(why, "it was measured with options {\"nodes\":200}");
    }

    #[test]
    fn a_part_of_another_machine_is_taken_and_says_which_and_one_of_a_build_for_development_is_not_stored() {
        let folder = tempfile::tempdir().unwrap();
        let mut store = store(folder.path());
        store.is_optimised = false;
        keep(&store, &[], 1);
        assert_eq!(taken(&store, &[]), Err("it is not stored".to_owned()));
        store.is_optimised = true;
        keep(&store, &[], 2);

        store.machine = "4 cores".to_owned();
        let options = options(&["--resume"]);
        let mut measured = Measured::new(&options);
        store.take(Part::Pending, &options, &mut measured).unwrap();
        assert!(are_elsewhere(&measured.done), "the page names the machine of this run");
        measured.load = Some(crate::load::tests::load());
        store.keep(Part::Load, &options, &mut measured, Duration::from_secs(600));
        let machines: Vec<&str> = measured.done.iter().map(|done| &*done.machine).collect();
        assert_eq!(machines, ["2 cores", "4 cores"]);
        assert!(!are_elsewhere(&measured.done[1..]));
    }

    #[test]
    fn a_part_is_of_the_files_that_it_was_measured_with_whatever_docs_tell() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path();
        let mut store = store(root);
        keep(&store, &[], 1);
        std::fs::write(root.join("docs/batch.md"), "a page\n").unwrap();
        keep(&store, &[], 2);
        let first = store.checkout.commit().to_owned();
        commit(root);
        store.checkout = Checkout::at(root.to_owned()).unwrap();
        assert_ne!(store.checkout.commit(), first);
        assert_eq!(taken(&store, &[]), Ok(2), "a page was committed, and what is stored with it");

        std::fs::write(root.join("code.rs"), "fn main() {}\n").unwrap();
        keep(&store, &[], 3);
        let measured_at: Result<usize, String> = Err(format!("it was measured at commit {first}"));
        assert_eq!(taken(&store, &[]), measured_at, "another than these files, which were not stored");
        commit(root);
        keep(&store, &[], 4);
        assert_eq!(taken(&store, &[]), measured_at, "a commit has come while it was measured");
        store.checkout = Checkout::at(root.to_owned()).unwrap();
        keep(&store, &[], 5);
        assert_eq!(taken(&store, &[]), Ok(5));
    }

    #[test]
    fn what_is_shorter_or_left_out_or_has_failed_or_is_not_understood_is_not_taken() {
        let folder = tempfile::tempdir().unwrap();
        let store = store(folder.path());
        keep(&store, &["--nodes", "100"], 1);
        let (options, shorter) = (options(&[]), options(&["--nodes", "100"]));
        let mut measured = Measured::new(&options);
        store.keep(Part::Online, &options, &mut measured, Duration::ZERO);
        assert!(measured.done.is_empty());
        assert_eq!(std::fs::read_dir(&store.folder).unwrap().count(), 0);
        taken(&store, &["--nodes", "100"]).unwrap_err();

        keep(&store, &[], 1);
        store.forget(Part::Pending, &shorter);
        assert_eq!(taken(&store, &[]), Ok(1), "a shorter one has failed");
        store.forget(Part::Pending, &options);
        assert_eq!(taken(&store, &[]), Err("it is not stored".to_owned()), "it has failed since");

        keep(&store, &[], 1);
        let path = store.path(Part::Pending);
        let text = std::fs::read_to_string(&path).unwrap();
        for text in [&text[..text.len() / 2], &*text.replace("unschedulable", "unplaced")] {
            std::fs::write(&path, text).unwrap();
            let why = taken(&store, &[]).unwrap_err();
            assert!(why.starts_with("understand ") && why.contains("pending.json"), "{why}");
        }
    }

    #[test]
    fn each_part_has_a_file_and_its_own_options() {
        let shapes = |args: &[&str]| -> Vec<Value> {
            Part::value_variants().iter().map(|part| shape(*part, &options(args))).collect()
        };
        let names: Vec<String> = Part::value_variants().iter().map(|part| part.name()).collect();
        let method = shapes(&[]);
        let cases: [(&[&str], &[&str]); 7] = [
            (&["--workers", "16"], &["throughput"]),
            (&["--jobs", "20000"], &["throughput"]),
            (&["--latency-seconds", "61"], &["latency"]),
            (&["--load-minutes", "11"], &["load"]),
            (&["--flood-jobs", "60000"], &["flood"]),
            (
                &["--nodes", "100"],
                &["throughput", "latency", "pending", "load", "drain", "follows", "queue", "flood"],
            ),
            (&["--resume"], &[]),
        ];
        for (args, parts) in cases {
            let shapes = shapes(args);
            let others = names.iter().zip(method.iter().zip(&shapes)).filter(|(_, (one, two))| one != two);
            assert_eq!(others.map(|(name, _)| &**name).collect::<Vec<_>>(), parts, "{args:?}");
        }
    }

    #[test]
    fn a_figure_that_is_none_is_none_when_it_is_read() {
        let lives = Lives { in_flight: 8, rate: 0.0, p50: f64::NAN, p99: f64::NAN };
        let text = serde_json::to_string(&lives).unwrap();
        let read: Lives = serde_json::from_str(&text).unwrap();
        assert_eq!((read.in_flight, read.rate), (8, 0.0));
        assert!(read.p50.is_nan() && read.p99.is_nan(), "{text}");
        serde_json::from_str::<Lives>(&text.replace("p99", "p95")).map(drop).unwrap_err();
    }
}
