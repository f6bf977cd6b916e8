//! Parts that were measured in full, each as JSON in `docs/benchmarks/data/<bench>`: a run that was interrupted goes on from
//! them, and who commits them may go on another day. A part is stored with what its figures depend on, and taken again
//! where the commit, whatever is different in `docs`, and the options are the same. The machine may be another: every
//! comparison is within one part.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use jiff::Timestamp;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;

use super::checkout::Checkout;
use super::parts::{Bench, name_of};
use super::report::{IS_OPTIMISED, Report};

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
pub struct Done {
    /// Its name, as `--only` takes it.
    pub part: String,
    /// Its commit, abbreviated.
    pub commit: String,
    /// The machine that it was measured on.
    pub machine: String,
    /// When it had been measured.
    pub end: Timestamp,
    /// Whether that was in a run before this one.
    pub is_taken: bool,
    /// Whether that machine is not the one of this run.
    pub is_elsewhere: bool,
}

/// The parts that are stored, and what those are measured with that this run adds.
pub struct Store {
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
    pub fn open(report: &Report, resumes: bool) -> Result<Self> {
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

    /// An empty one in a folder that is no clone, so that nothing is stored.
    #[cfg(test)]
    pub(super) fn of_nothing(folder: &Path) -> Self {
        let checkout = Checkout::at(folder.to_owned()).unwrap();
        Self { folder: folder.to_owned(), checkout, machine: "2 cores".to_owned(), is_optimised: true }
    }

    /// Stores what was just measured of a part, and says so, or why not.
    pub fn keep<B: Bench>(&self, bench: &mut B, part: B::Part, took: Duration) {
        let end = Timestamp::now();
        // One that was left out has nothing.
        let Some(result) = bench.result(part).transpose() else { return };
        match result.and_then(|result| self.write(bench, part, result, end, took)) {
            Ok(path) => eprintln!("      stored in {}", path.display()),
            Err(why) => eprintln!("      not stored: {why:#}"),
        }
        bench.log().done.push(Done {
            part: name_of(part),
            commit: self.checkout.commit().to_owned(),
            machine: self.machine.clone(),
            end,
            is_taken: false,
            is_elsewhere: false,
        });
    }

    /// Removes what is stored of a part that has failed now, with these files and in full: what cannot be had again is
    /// not to be taken.
    pub fn forget<B: Bench>(&self, bench: &B, part: B::Part) {
        let is_as_stored = self.checkout.is_as_at(self.checkout.commit()).unwrap_or(false);
        let path = self.path(part);
        // Usually there is none.
        if self.is_optimised && bench.is_whole(part) && is_as_stored && std::fs::remove_file(&path).is_ok() {
            eprintln!("      removed {}", path.display());
        }
    }

    /// Gives what is stored of a part to the bench, and says so.
    ///
    /// # Errors
    /// It is to be measured now, for this reason.
    pub fn take<B: Bench>(&self, bench: &mut B, part: B::Part) -> Result<()> {
        let path = self.path(part);
        if !path.exists() {
            bail!("it is not stored");
        }
        let stored = std::fs::read(&path).with_context(|| format!("read {}", path.display()))?;
        let stored: Stored =
            serde_json::from_slice(&stored).with_context(|| format!("understand {}", path.display()))?;
        let Stored { commit, machine, options, end, minutes, result } = stored;
        ensure!(self.checkout.is_as_at(&commit)?, "it was measured at commit {commit}");
        ensure!(options == bench.options(part), "it was measured with options {options}");
        bench.put(part, result).with_context(|| format!("understand {}", path.display()))?;
        let is_elsewhere = machine != self.machine;
        let elsewhere = if is_elsewhere { format!(", on {machine}") } else { String::new() };
        eprintln!(
            "      taken from {}: {end:.0} at {commit}, in {minutes:.0} min{elsewhere}",
            path.display()
        );
        let log = bench.log();
        log.minutes += minutes;
        log.done.push(Done { part: name_of(part), commit, machine, end, is_taken: true, is_elsewhere });
        Ok(())
    }

    fn write<B: Bench>(
        &self,
        bench: &B,
        part: B::Part,
        result: Value,
        end: Timestamp,
        took: Duration,
    ) -> Result<PathBuf> {
        ensure!(self.is_optimised, "{UNOPTIMISED}");
        ensure!(bench.is_whole(part), "it is less than the method asks for");
        // Programs that a part has built, or started, are of the files that were there meanwhile.
        let commit = self.checkout.commit();
        ensure!(self.checkout.is_as_at(commit)?, "files outside of docs are not those of commit {commit}");
        let stored = Stored {
            commit: commit.to_owned(),
            machine: self.machine.clone(),
            options: bench.options(part),
            end,
            minutes: took.as_secs_f64() / 60.0,
            result,
        };
        let path = self.path(part);
        write_at_once(&path, &serde_json::to_vec(&stored)?)
            .with_context(|| format!("write {}", path.display()))?;
        Ok(path)
    }

    fn path(&self, part: impl clap::ValueEnum) -> PathBuf {
        self.folder.join(format!("{}.json", name_of(part)))
    }
}

/// Whoever is interrupted leaves the file whole, as it was or as it will be.
fn write_at_once(path: &Path, content: &[u8]) -> Result<()> {
    let whole = path.with_extension("json.part");
    std::fs::write(&whole, content)?;
    Ok(std::fs::rename(whole, path)?)
}

/// Reads a figure that may be none: JSON has no NaN, and its writer makes null of it.
///
/// # Errors
/// It is neither a number nor null.
pub fn nan_of_null<'de, D: Deserializer<'de>>(deserializer: D) -> Result<f64, D::Error> {
    Ok(Option::<f64>::deserialize(deserializer)?.unwrap_or(f64::NAN))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::parts::Log;
    use crate::bench::parts::tests::{Part, Toy};

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

    /// Measures a part on so many nodes, and keeps it.
    fn keep(store: &Store, nodes: u16, figure: f64) {
        let mut toy = Toy { quick: Some(figure), ..Toy::of(nodes) };
        store.keep(&mut toy, Part::Quick, Duration::from_secs(240));
        assert_eq!(toy.log.done.iter().map(|done| done.is_taken).collect::<Vec<_>>(), [false]);
    }

    /// What a run that resumes finds of the part, or why it measures it.
    fn taken(store: &Store, nodes: u16) -> Result<f64, String> {
        let mut toy = Toy::of(nodes);
        match store.take(&mut toy, Part::Quick) {
            Ok(()) => {
                assert_eq!((toy.log.minutes, toy.log.done.len()), (4.0, 1));
                assert!(toy.log.done[0].is_taken && toy.log.done[0].part == "quick");
                Ok(toy.quick.unwrap())
            }
            Err(why) => {
                assert!(toy.quick.is_none() && toy.log.done.is_empty() && toy.log.minutes == 0.0);
                Err(format!("{why:#}"))
            }
        }
    }

    #[test]
    fn a_part_is_taken_where_all_that_its_figures_depend_on_is_the_same() {
        let folder = tempfile::tempdir().unwrap();
        let store = store(folder.path());
        assert_eq!(taken(&store, 200), Err("it is not stored".to_owned()));
        keep(&store, 200, 1.0);
        assert_eq!(taken(&store, 200), Ok(1.0));
        keep(&store, 200, 2.0);
        assert_eq!(taken(&store, 200), Ok(2.0));
        let why = taken(&store, 100).unwrap_err();
        assert_eq!(why, "it was measured with options {\"nodes\":200}");
    }

    #[test]
    fn a_part_of_another_machine_is_taken_and_says_which_and_one_of_a_build_for_development_is_not_stored() {
        let folder = tempfile::tempdir().unwrap();
        let mut store = store(folder.path());
        store.is_optimised = false;
        keep(&store, 200, 1.0);
        assert_eq!(taken(&store, 200), Err("it is not stored".to_owned()));
        store.is_optimised = true;
        keep(&store, 200, 2.0);

        store.machine = "4 cores".to_owned();
        let mut toy = Toy::of(200);
        store.take(&mut toy, Part::Quick).unwrap();
        assert!(toy.log.is_elsewhere(), "the page names the machine of this run");
        toy.thorough = Some(7.0);
        store.keep(&mut toy, Part::Thorough, Duration::from_secs(600));
        let machines: Vec<&str> = toy.log.done.iter().map(|done| &*done.machine).collect();
        assert_eq!(machines, ["2 cores", "4 cores"]);
        let later = Log { done: toy.log.done.split_off(1), ..Log::default() };
        assert!(!later.is_elsewhere());
    }

    #[test]
    fn a_part_is_of_the_files_that_it_was_measured_with_whatever_docs_tell() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path();
        let mut store = store(root);
        keep(&store, 200, 1.0);
        std::fs::write(root.join("docs/page.md"), "a page\n").unwrap();
        keep(&store, 200, 2.0);
        let first = store.checkout.commit().to_owned();
        commit(root);
        store.checkout = Checkout::at(root.to_owned()).unwrap();
        assert_ne!(store.checkout.commit(), first);
        assert_eq!(taken(&store, 200), Ok(2.0), "a page was committed, and what is stored with it");

        std::fs::write(root.join("code.rs"), "fn main() {}\n").unwrap();
        keep(&store, 200, 3.0);
        let measured_at: Result<f64, String> = Err(format!("it was measured at commit {first}"));
        assert_eq!(taken(&store, 200), measured_at, "another than these files, which were not stored");
        commit(root);
        keep(&store, 200, 4.0);
        assert_eq!(taken(&store, 200), measured_at, "a commit has come while it was measured");
        store.checkout = Checkout::at(root.to_owned()).unwrap();
        keep(&store, 200, 5.0);
        assert_eq!(taken(&store, 200), Ok(5.0));
    }

    #[test]
    fn what_is_shorter_or_left_out_or_has_failed_or_is_not_understood_is_not_taken() {
        let folder = tempfile::tempdir().unwrap();
        let store = store(folder.path());
        keep(&store, 100, 1.0);
        let mut toy = Toy::of(200);
        store.keep(&mut toy, Part::Quick, Duration::ZERO);
        assert!(toy.log.done.is_empty());
        assert_eq!(std::fs::read_dir(&store.folder).unwrap().count(), 0);
        taken(&store, 100).unwrap_err();

        keep(&store, 200, 1.0);
        store.forget(&Toy::of(100), Part::Quick);
        assert_eq!(taken(&store, 200), Ok(1.0), "a shorter one has failed");
        store.forget(&toy, Part::Quick);
        assert_eq!(taken(&store, 200), Err("it is not stored".to_owned()), "it has failed since");

        keep(&store, 200, 1.5);
        let path = store.path(Part::Quick);
        let text = std::fs::read_to_string(&path).unwrap();
        for text in [&text[..text.len() / 2], &*text.replace("1.5", "\"many\"")] {
            std::fs::write(&path, text).unwrap();
            let why = taken(&store, 200).unwrap_err();
            assert!(why.starts_with("understand ") && why.contains("quick.json"), "{why}");
        }
    }
}
