//! The demo as its users run it: what it says, how it ends, and that nothing of it
//! is left, however it ends.

use std::fs::{self, File};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use springtide_e2e::binaries::Binaries;
use springtide_e2e::node::leftovers::Footprint;
use springtide_e2e::node::required_or_skipped;
use tempfile::TempDir;
use tokio::sync::Mutex;

/// Bound for every wait: hit only when the event never comes.
const PATIENCE: Duration = Duration::from_secs(600);
/// Demos one after the other: two at once only slow each other down.
static ONE_AT_A_TIME: Mutex<()> = Mutex::const_new(());
/// Environment variable that every process of a demo inherits.
const MARK: &str = "SPRINGTIDE_DEMO_TEST";

/// The account of a user who runs demos: its own state and temporary files.
struct User {
    folder: TempDir,
    node: bool,
}

impl User {
    fn new(node: bool) -> Result<Self> {
        let user = Self { folder: tempfile::tempdir()?, node };
        fs::create_dir(user.path("tmp"))?;
        fs::create_dir(user.path("state"))?;
        Ok(user)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn demo(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_demo"));
        command
            .args(args)
            .env("TMPDIR", self.path("tmp"))
            .env("XDG_STATE_HOME", self.path("state"))
            .env(MARK, self.folder.path());
        if !self.node {
            command.env("SPRINGTIDE_NODE", "off");
        }
        command
    }

    /// Runs a demo in the background.
    fn start(&self, args: &[&str]) -> Result<Demo<'_>> {
        let output = self.path("output");
        let file = File::create(&output)?;
        let child = self.demo(args).stdout(file.try_clone()?).stderr(file).spawn()?;
        Ok(Demo { user: self, child, output })
    }

    fn state(&self) -> Option<Value> {
        let text = fs::read(self.path("state/springtide/demo/state.json")).ok()?;
        serde_json::from_slice(&text).ok()
    }

    /// What is left of this user's demos: of their cluster by its footprint, of
    /// everything else by inherited marks and by folders.
    fn leftovers(&self, footprint: &Footprint) -> Result<Vec<String>> {
        let mut left = footprint.leftovers()?;
        let mark = format!("{MARK}={}", self.folder.path().display());
        for entry in fs::read_dir("/proc")? {
            let process = entry?.path();
            let environment = fs::read(process.join("environ")).unwrap_or_default();
            if environment.split(|byte| *byte == 0).any(|variable| variable == mark.as_bytes()) {
                let name = fs::read_to_string(process.join("comm")).unwrap_or_default();
                left.push(format!("process {} ({})", process.display(), name.trim()));
            }
        }
        for folder in ["tmp", "state"] {
            for entry in fs::read_dir(self.path(folder))? {
                left.push(format!("{}", entry?.path().display()));
            }
        }
        Ok(left)
    }

    /// Ends with the first look that finds nothing; what a guardian removes goes a
    /// moment after its owner.
    fn nothing_left(&self, footprint: &Footprint) -> Result<()> {
        let mut left = Vec::new();
        let gone = eventually(|| {
            left = self.leftovers(footprint)?;
            Ok(left.is_empty().then_some(()))
        });
        gone.with_context(|| format!("left behind:\n{}", left.join("\n")))
    }
}

/// A demo that runs.
struct Demo<'a> {
    user: &'a User,
    child: Child,
    output: PathBuf,
}

impl Demo<'_> {
    fn output(&self) -> String {
        fs::read_to_string(&self.output).unwrap_or_default()
    }

    /// Waits until the demo has shown `text`.
    fn shows(&mut self, text: &str) -> Result<()> {
        eventually(|| {
            if self.output().contains(text) {
                return Ok(Some(()));
            }
            if let Some(status) = self.child.try_wait()? {
                bail!("the demo has ended ({status}) without {text:?}:\n{}", self.output());
            }
            Ok(None)
        })
        .with_context(|| format!("waiting for {text:?} in:\n{}", self.output()))
    }

    /// The footprint of its cluster, once that is up; everything is recognised by it then.
    fn footprint(&mut self) -> Result<Footprint> {
        self.shows("Watch the jobs")?;
        let state = self.user.state().context("the state of the demo")?;
        let footprint: Footprint = serde_json::from_value(state["cluster"]["footprint"].clone())?;
        let running = self.user.leftovers(&footprint)?.join("\n");
        for part in ["(etcd)", "(kube-apiserver)", "(springtide)", "(demo)", "folder", "tmp", "state"] {
            ensure!(running.contains(part), "{part} is not recognised in:\n{running}");
        }
        if self.user.node {
            for part in ["(kubelet)", "(containerd)", "mounts", "namespace", "control group"] {
                ensure!(running.contains(part), "{part} is not recognised in:\n{running}");
            }
        }
        Ok(footprint)
    }

    fn signal(&self, signal: Signal) -> Result<()> {
        Ok(kill(Pid::from_raw(i32::try_from(self.child.id())?), signal)?)
    }

    /// Its exit status, once it has ended.
    fn end(&mut self) -> Result<ExitStatus> {
        let ended = eventually(|| Ok(self.child.try_wait()?));
        ended.with_context(|| format!("waiting for the end of the demo:\n{}", self.output()))
    }
}

impl Drop for Demo<'_> {
    fn drop(&mut self) {
        // A failed test must not leave a demo behind; one that has ended is only reaped.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn eventually<T>(mut event: impl FnMut() -> Result<Option<T>>) -> Result<T> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(happened) = event()? {
            return Ok(happened);
        }
        ensure!(Instant::now() < deadline, "it did not happen within {PATIENCE:?}");
        thread::sleep(Duration::from_millis(100));
    }
}

/// Everything that a program has written.
fn text(output: &Output) -> String {
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    format!("{out}{err}")
}

const JOBS: [&str; 11] = [
    "hello",
    "indexed",
    "failure-policy",
    "out-of-memory",
    "more-than-fits",
    "per-index",
    "success-policy",
    "gang",
    "recurring",
    "deadlines",
    "release",
];

fn all_is_well(output: &str) {
    assert!(output.contains("All 11 jobs ended as expected"), "{output}");
    for job in JOBS {
        assert!(output.contains(&format!("ok      {job}: ")), "{job} in:\n{output}");
    }
    for outcome in [
        "outcome   exit 0 Completed \"hello from springtide\"",
        "outcome   exit 42 Error \"no such customer\"",
        "outcome   exit 137 OOMKilled",
    ] {
        assert!(output.contains(outcome), "{outcome} in:\n{output}");
    }
    assert!(output.contains(" 0 are left."), "{output}");
}

#[tokio::test]
async fn on_a_real_node_every_job_ends_as_expected_and_nothing_is_left() -> Result<()> {
    let _one = ONE_AT_A_TIME.lock().await;
    if !required_or_skipped().await? {
        return Ok(());
    }
    let user = User::new(true)?;
    let mut demo = user.start(&[])?;
    let footprint = demo.footprint()?;
    let status = demo.end()?;
    let output = demo.output();
    assert!(status.success(), "{status}:\n{output}");
    all_is_well(&output);
    assert!(output.contains("$ kubectl apply -f 'config/samples/batchjob-*.yaml'"), "{output}");
    assert!(!output.contains("KWOK"), "{output}");
    user.nothing_left(&footprint)
}

#[tokio::test]
async fn one_that_is_kept_can_be_used_until_it_is_cleaned_up() -> Result<()> {
    let _one = ONE_AT_A_TIME.lock().await;
    let user = User::new(false)?;
    let mut demo = user.start(&["--keep"])?;
    let footprint = demo.footprint()?;
    let status = demo.end()?;
    let output = demo.output();
    assert!(status.success(), "{status}:\n{output}");
    all_is_well(&output);
    assert!(output.contains("No real node here (SPRINGTIDE_NODE=off)"), "{output}");

    let kubeconfig = output.lines().find_map(|line| line.trim().strip_prefix("export KUBECONFIG="));
    let kubeconfig = Path::new(kubeconfig.context("a line with the kubeconfig")?);
    let kubectl = |args: &[&str]| -> Result<String> {
        let output = Command::new(Binaries::locate()?.path("kubectl")?)
            .args(args)
            .env("KUBECONFIG", kubeconfig)
            .env("KUBECACHEDIR", user.path("kubectl-cache"))
            .output()?;
        ensure!(output.status.success(), "kubectl {}: {}", args.join(" "), text(&output));
        Ok(String::from_utf8(output.stdout)?)
    };
    let listed = kubectl(&["get", "bj", "-A"])?;
    assert!(JOBS.iter().all(|job| listed.contains(job)), "{listed}");
    // The manager stays as well: another job ends.
    let apply =
        output.lines().find_map(|line| line.trim().strip_prefix("$ kubectl apply -f '")?.strip_suffix('\''));
    let hello = apply.context("a line with the samples")?.replace('*', "hello");
    kubectl(&["delete", "bj", "hello"])?;
    kubectl(&["apply", "-f", &hello])?;
    let bound = format!("--timeout={}s", PATIENCE.as_secs());
    kubectl(&["wait", "--for=condition=Complete", "bj/hello", &bound])?;

    let second = user.demo(&["--keep"]).output()?;
    assert_eq!(second.status.code(), Some(1), "{}", text(&second));
    let refusal = text(&second);
    assert!(refusal.contains("runs already") && refusal.contains("make clean-local"), "{refusal}");
    assert!(refusal.contains(&kubeconfig.display().to_string()), "{refusal}");
    kubectl(&["get", "bj", "hello"]).context("the refused demo has ended the first one")?;

    let cleaned = user.demo(&["clean"]).output()?;
    assert!(cleaned.status.success(), "{}", text(&cleaned));
    let removed = text(&cleaned);
    for part in ["(etcd)", "(springtide)", "folder "] {
        assert!(removed.contains(part), "{part} in:\n{removed}");
    }
    user.nothing_left(&footprint)?;
    let again = user.demo(&["clean"]).output()?;
    assert!(again.status.success() && text(&again).contains("No demo is running"), "{}", text(&again));
    Ok(())
}

#[tokio::test]
async fn a_missing_outcome_is_named_and_is_a_failure() -> Result<()> {
    let _one = ONE_AT_A_TIME.lock().await;
    let user = User::new(false)?;
    // Twelve tasks of three seconds, four at a time, take longer on any machine.
    let mut demo = user.start(&["--bound", "1"])?;
    let footprint = demo.footprint()?;
    let status = demo.end()?;
    let output = demo.output();
    assert_eq!(status.code(), Some(1), "{output}");
    let (_, missing) = output.split_once("Missing:").context("a list of what is missing")?;
    assert!(missing.contains("- indexed: should end as Completed, 12 of 12 succeeded"), "{output}");
    assert!(missing.contains("- more-than-fits: "), "{output}");
    assert!(!output.contains("ended as expected"), "{output}");
    user.nothing_left(&footprint)
}

#[tokio::test]
async fn interrupted_it_removes_everything_too() -> Result<()> {
    let _one = ONE_AT_A_TIME.lock().await;
    let user = User::new(required_or_skipped().await?)?;
    let mut demo = user.start(&[])?;
    let footprint = demo.footprint()?;
    // Containers run.
    demo.shows("Running")?;
    demo.signal(Signal::SIGINT)?;
    let status = demo.end()?;
    let output = demo.output();
    assert_eq!(status.code(), Some(130), "{output}");
    assert!(output.contains("Interrupted.") && output.contains("of it is left."), "{output}");
    user.nothing_left(&footprint)
}

#[tokio::test]
async fn killed_it_leaves_nothing_either() -> Result<()> {
    let _one = ONE_AT_A_TIME.lock().await;
    let user = User::new(false)?;
    let mut demo = user.start(&["--keep"])?;
    let footprint = demo.footprint()?;
    demo.signal(Signal::SIGKILL)?;
    let status = demo.end()?;
    assert_eq!(status.signal(), Some(9), "{status}");
    user.nothing_left(&footprint)
}
