//! Builds test binaries with the Go toolchain of this machine.

use std::collections::VecDeque;
use std::io::{BufRead, BufReader, ErrorKind, Read};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::{Context, Result, bail};

use super::cache::{Build, names};
use super::progress::Progress;
use super::table::{Module, Tool};

/// How many of Go's last lines a failure shows.
const TAIL: usize = 30;

/// The real builder.
pub(crate) struct Go {
    /// `hack/tools` of the clone.
    pub(crate) modules: PathBuf,
}

impl Build for Go {
    /// All binaries of a module come from one `go build`: it compiles what
    /// they share once and links them side by side.
    fn build(&self, module: &Module, tools: &[&Tool], into: &Path) -> Result<()> {
        if module.cgo {
            crate::debian::require_for_build()?;
        }
        let mut command = Command::new("go");
        command
            .current_dir(self.modules.join(module.folder))
            // The caller's flags and workspace must not change what is built.
            .env("GOFLAGS", "-mod=readonly")
            .env("GOWORK", "off")
            .env("CGO_ENABLED", if module.cgo { "1" } else { "0" })
            .arg("build")
            .args(module.flags())
            .arg("-o");
        match tools {
            [only] => command.arg(into.join(only.name)),
            _ => command.arg(format!("{}/", into.display())),
        };
        command.args(tools.iter().map(|tool| tool.package));
        run(command, tools, into)
    }
}

fn run(mut command: Command, tools: &[&Tool], into: &Path) -> Result<()> {
    let mut progress = Progress::start();
    let mut child = match command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn() {
        Ok(child) => child,
        Err(error) if error.kind() == ErrorKind::NotFound => bail!(
            "building {} needs Go 1.26 or newer, and there is no `go` on PATH: install it from https://go.dev/dl, \
             or by `apt-get install golang-go` where the distribution has that release; \
             or set SPRINGTIDE_BIN to a folder with the binaries",
            names(tools)
        ),
        Err(error) => return Err(error).context("starting go"),
    };
    let last_lines = child.stderr.take().map(keep_last_lines);
    let mut waiting: Vec<&Tool> = tools.to_vec();
    let status = loop {
        let done = child.try_wait().context("waiting for go")?;
        // Go moves each binary to its place as soon as it is linked.
        waiting.retain(|tool| {
            let there = into.join(tool.name).exists();
            if there {
                progress.built(tool.name);
            }
            !there
        });
        if let Some(status) = done {
            break status;
        }
        progress.doing(format!("building {}", names(&waiting)));
        thread::sleep(Duration::from_millis(200));
    };
    drop(progress);
    if !status.success() {
        let last_lines = last_lines.and_then(|reader| reader.join().ok()).unwrap_or_default();
        bail!(
            "building {} failed ({status}):\n  {command:?}\n{}",
            names(tools),
            last_lines.into_iter().map(|line| format!("  {line}\n")).collect::<String>()
        );
    }
    Ok(())
}

/// Reads `output` to its end, so that Go never waits for a full pipe, and
/// gives the last [`TAIL`] lines.
fn keep_last_lines(output: impl Read + Send + 'static) -> JoinHandle<VecDeque<String>> {
    thread::spawn(move || {
        let mut last = VecDeque::with_capacity(TAIL);
        for line in BufReader::new(output).split(b'\n').map_while(Result::ok) {
            if last.len() == TAIL {
                last.pop_front();
            }
            last.push_back(String::from_utf8_lossy(&line).into_owned());
        }
        last
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_last_lines_of_a_long_output_are_kept() {
        let text: String = (0..100).map(|n| format!("line {n}\n")).collect();
        let last = keep_last_lines(std::io::Cursor::new(text)).join().unwrap();
        assert_eq!(last.len(), TAIL);
        assert_eq!(last.back().unwrap(), "line 99");
    }
}
