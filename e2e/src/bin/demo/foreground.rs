//! The process in the foreground: starts the one that holds the cluster, applies
//! the samples as a user would, shows what happens, judges it.

use std::path::Path;
use std::process::{ExitCode, ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail, ensure};
use futures::StreamExt;
use kube::config::{KubeConfigOptions, Kubeconfig};
use springtide_e2e::binaries::Binaries;
use springtide_e2e::manager::springtide_binary;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::signal::unix::{SignalKind, signal};

use super::Options;
use super::clean::wait_until_gone;
use super::home::{Cluster, Home, repository};
use super::live::{Capacity, Live, changes};
use super::scenario;
use super::server::{Event, KEEP};
use super::steps::Steps;
use super::summary::{Summary, read_back};
use super::table::Screen;

/// Of requests of this process, for the audit log.
const USER_AGENT: &str = "springtide-demo";
/// What a shell reports for a program that Ctrl-C ended (128 + SIGINT).
const INTERRUPTED: u8 = 130;
/// Bound for the orderly end of the cluster, which takes seconds.
const END: Duration = Duration::from_secs(180);

/// Runs the demo from beginning to end.
///
/// # Errors
/// Something of it does not work at all. Expected outcomes that are missing, and
/// Ctrl-C, are exit codes.
pub(crate) async fn run(options: &Options) -> Result<ExitCode> {
    let home = Home::of_user()?;
    home.ensure_free()?;
    let expected = scenario::jobs()?;
    let mut steps = Steps::new();
    steps.begin("Build the `springtide` binary, if it is not fresh");
    springtide_binary().await?;

    let mut server = Server::start(&home)?;
    let mut cluster = None;
    let played = tokio::select! {
        played = play(&mut server, &mut cluster, &expected, options, &mut steps) => played.map(Some),
        interrupted = interrupted() => interrupted.map(|()| None),
    };
    match (&played, &cluster) {
        (Ok(Some(_)), Some(cluster)) if options.keep => {
            server.keep().await?;
            steps.end();
            print_next(cluster)?;
        }
        _ => {
            if matches!(played, Ok(None)) {
                println!("\nInterrupted.");
            }
            steps.begin("Remove everything");
            server.end().await?;
            if let Some(cluster) = cluster {
                wait_until_gone(&cluster.footprint)?;
            }
            steps.note("No process, container, mount, namespace, control group or folder of it is left.");
            steps.end();
        }
    }
    let Some(summary) = played? else { return Ok(ExitCode::from(INTERRUPTED)) };
    let seconds = steps.seconds();
    if summary.missing.is_empty() {
        println!("\nAll {} jobs ended as expected; {seconds:.0} s in all.", expected.len());
        return Ok(ExitCode::SUCCESS);
    }
    eprintln!("\nThe demo failed after {seconds:.0} s. Missing:");
    for missing in summary.missing {
        eprintln!("  - {missing}");
    }
    Ok(ExitCode::FAILURE)
}

/// Everything between the start of the cluster and its end.
async fn play(
    server: &mut Server,
    cluster: &mut Option<Cluster>,
    expected: &[scenario::Expected],
    options: &Options,
    steps: &mut Steps,
) -> Result<Summary> {
    let cluster = cluster.insert(server.ready(steps).await?);
    let client = client(&cluster.kubeconfig).await?;
    let capacity = Capacity::of_nodes(&client).await?;

    steps.begin("Apply the samples");
    steps.note(&format!("$ kubectl apply -f '{}'", cluster.samples));
    let mut live = Live::default();
    let mut changes = changes(&client);
    steps.note(&kubectl(&cluster.kubeconfig, &["apply", "-f", &cluster.samples]).await?);

    steps.begin(&format!("Watch the jobs until each has ended, for at most {} s", options.bound));
    let mut screen = Screen::new();
    let mut tick = tokio::time::interval(screen.period());
    let bound = tokio::time::sleep(Duration::from_secs(options.bound));
    tokio::pin!(bound);
    while !live.is_over(expected) {
        tokio::select! {
            Some(change) = changes.next() => match change {
                Ok(change) => live.see(change)?,
                Err(error) => screen.remark(&format!("   the watch broke and starts again: {error}")),
            },
            _ = tick.tick() => screen.show(&live, expected, capacity)?,
            failed = server.failure() => return Err(failed),
            () = &mut bound => break,
        }
    }
    screen.show(&live, expected, capacity)?;
    drop(screen);

    steps.begin("Ask the API server and its audit log what came of it");
    let summary = read_back(&client, cluster, expected, live.peak(), capacity).await?;
    println!("\n{}", summary.text);
    Ok(summary)
}

/// Returns with SIGINT or SIGTERM.
async fn interrupted() -> Result<()> {
    let mut interrupt = signal(SignalKind::interrupt()).context("handle Ctrl-C")?;
    let mut terminate = signal(SignalKind::terminate()).context("handle SIGTERM")?;
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
    Ok(())
}

async fn client(kubeconfig: &Path) -> Result<kube::Client> {
    let parsed = Kubeconfig::read_from(kubeconfig).context("read the kubeconfig")?;
    let options = KubeConfigOptions::default();
    let mut config =
        kube::Config::from_custom_kubeconfig(parsed, &options).await.context("use the kubeconfig")?;
    config.headers.push((http::header::USER_AGENT, http::HeaderValue::from_static(USER_AGENT)));
    kube::Client::try_from(config).context("make a client")
}

/// Runs kubectl as a user would, from the root of the repository, and gives its output.
async fn kubectl(kubeconfig: &Path, args: &[&str]) -> Result<String> {
    let output = Command::new(Binaries::locate()?.path("kubectl")?)
        .args(args)
        .env("KUBECONFIG", kubeconfig)
        // Its default, in the user's home, is for the user's clusters.
        .env("KUBECACHEDIR", kubeconfig.with_file_name("kubectl-cache"))
        .current_dir(repository())
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output()
        .await
        .context("run kubectl")?;
    let stderr = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "kubectl {}: {}", args.join(" "), stderr.trim());
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// What to do with a cluster that stays.
fn print_next(cluster: &Cluster) -> Result<()> {
    let Cluster { kubeconfig, samples, node, .. } = cluster;
    println!("\nThe cluster and the manager stay. In a shell at the root of the repository:\n");
    println!("  export KUBECONFIG={}", kubeconfig.display());
    let on_path = std::env::var_os("PATH")
        .is_some_and(|path| std::env::split_paths(&path).any(|folder| folder.join("kubectl").is_file()));
    if !on_path {
        println!("  export PATH=\"$PATH:{}\"", Binaries::locate()?.search_path());
    }
    println!();
    for (command, what) in [
        ("kubectl get bj -A".to_owned(), "the jobs; their pods are gone"),
        ("kubectl describe bj failure-policy".to_owned(), "exit code 42, kept in the status"),
        (format!("kubectl describe node {node}"), "what the node offers"),
        (format!("kubectl delete -f '{samples}'"), "start anew ..."),
        (format!("kubectl apply -f '{samples}'"), "... and run them again"),
        ("kubectl get bj --watch".to_owned(), "as they go on"),
        ("make clean-local".to_owned(), "end it and remove everything"),
    ] {
        println!("  {command:<60} # {what}");
    }
    Ok(())
}

/// The process that holds the cluster.
struct Server {
    child: Child,
    input: ChildStdin,
    events: Lines<BufReader<ChildStdout>>,
    home: Home,
}

impl Server {
    fn start(home: &Home) -> Result<Self> {
        let program = std::env::current_exe().context("find this program")?;
        let mut child = Command::new(&program)
            .arg("serve")
            // It may live long: nothing of the place where it was started shall be pinned.
            .current_dir("/")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| format!("start {}", program.display()))?;
        let (Some(input), Some(output)) = (child.stdin.take(), child.stdout.take()) else {
            bail!("the process that holds the cluster has no pipes");
        };
        Ok(Self { child, input, events: BufReader::new(output).lines(), home: home.clone() })
    }

    /// Can be dropped and called again.
    async fn event(&mut self) -> Result<Event> {
        let line = self.events.next_line().await.context("listen to `demo serve`")?;
        let Some(line) = line else {
            let log = std::fs::read_to_string(self.home.log()).unwrap_or_default();
            bail!("`demo serve` has ended; its log {} says:\n{}", self.home.log().display(), log.trim());
        };
        serde_json::from_str(&line).with_context(|| format!("`demo serve` said {line:?}"))
    }

    /// Shows what it does until all is ready.
    async fn ready(&mut self, steps: &mut Steps) -> Result<Cluster> {
        loop {
            match self.event().await? {
                Event::Note(text) => steps.note(&text),
                Event::Step(title) => steps.begin(&title),
                Event::Ready(cluster) => return Ok(*cluster),
                Event::Failed(error) => bail!("{error}"),
            }
        }
    }

    /// Returns when it ends though it should not. Can be dropped and called again.
    async fn failure(&mut self) -> anyhow::Error {
        loop {
            match self.event().await {
                Err(error) => return error,
                Ok(Event::Failed(error)) => return anyhow!(error),
                Ok(Event::Note(_) | Event::Step(_) | Event::Ready(_)) => {}
            }
        }
    }

    /// Has it outlive this process.
    async fn keep(mut self) -> Result<()> {
        let said = async {
            self.input.write_all(format!("{KEEP}\n").as_bytes()).await?;
            self.input.flush().await
        };
        said.await.context("tell `demo serve` to stay")
    }

    /// Has it end everything, and waits for that.
    async fn end(mut self) -> Result<()> {
        drop(self.input);
        let ended = tokio::time::timeout(END, async {
            // What it says while it ends has been asked for by nobody, but a full pipe would stop it.
            while let Ok(Some(_)) = self.events.next_line().await {}
            self.child.wait().await
        });
        let status: ExitStatus = match ended.await {
            Ok(status) => status.context("wait for `demo serve`")?,
            Err(_) => {
                // What it leaves is removed by its guardian.
                self.child.kill().await.context("kill `demo serve`")?;
                bail!(
                    "the cluster did not end within {END:?} and was killed; see {}",
                    self.home.log().display()
                );
            }
        };
        ensure!(status.success(), "`demo serve` ended with {status}; see {}", self.home.log().display());
        Ok(())
    }
}
