//! The static test program `springtide-box`, compiled on first use.
//!
//! One call of `rustc`: about two seconds, so there is no build script and no
//! second cargo target. See `e2e/programs/springtide_box.rs` for its verbs.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use sha2::{Digest as _, Sha256};

use springtide_image::{Image, ImageSpec};

/// Name of the program, also inside images.
pub const BOX: &str = "springtide-box";
/// The sandbox image of every pod: `springtide-box pause`.
pub const PAUSE_IMAGE: &str = "localhost/pause:1";
/// The image whose containers run `springtide-box` with the pod's `args`.
pub const BOX_IMAGE: &str = "localhost/springtide-box:1";

/// The root of the program first.
const SOURCES: [(&str, &str); 2] = [
    ("springtide_box.rs", include_str!("../../programs/springtide_box.rs")),
    ("http.rs", include_str!("../../programs/http.rs")),
];
/// Static, as its images hold nothing else; small, as it is imported often.
const FLAGS: &[&str] = &[
    "--edition=2024",
    "--crate-name=springtide_box",
    "-Copt-level=3",
    "-Cpanic=abort",
    "-Cstrip=symbols",
    "-Ctarget-feature=+crt-static",
];

/// Path of the compiled program, compiling it when the cache has none for this
/// source. Any number of processes may ask at once: each compiles into a file
/// of its own, and the last rename wins with the same content.
///
/// # Errors
/// `rustc` (or what `RUSTC` names) is missing or fails; the cache cannot be
/// written.
pub fn box_program() -> Result<PathBuf> {
    let own =
        |variable: &str| std::env::var_os(variable).filter(|value| !value.is_empty()).map(PathBuf::from);
    let cache = own("XDG_CACHE_HOME")
        .or_else(|| own("HOME").map(|home| home.join(".cache")))
        .context("no cache folder: set XDG_CACHE_HOME or HOME")?;
    compiled_in(&cache.join("springtide/programs"))
}

fn compiled_in(cache: &Path) -> Result<PathBuf> {
    let mut hash = Sha256::new();
    for part in SOURCES.map(|(_, text)| text).iter().chain(FLAGS) {
        hash.update(part);
        hash.update([0]);
    }
    let folder = cache.join(&hex::encode(hash.finalize())[..16]);
    let program = folder.join(BOX);
    if program.is_file() {
        return Ok(program);
    }
    std::fs::create_dir_all(&folder).with_context(|| format!("create {}", folder.display()))?;
    let work = tempfile::Builder::new()
        .prefix(".build")
        .tempdir_in(&folder)
        .with_context(|| format!("work folder in {}", folder.display()))?;
    let output = work.path().join(BOX);
    for (name, text) in SOURCES {
        std::fs::write(work.path().join(name), text).with_context(|| format!("write {name}"))?;
    }
    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let result = Command::new(&rustc)
        .args(FLAGS)
        .arg("-o")
        .arg(&output)
        .arg(SOURCES[0].0)
        // Not the workspace's folder: its toolchain file would be read again.
        .current_dir(work.path())
        .output()
        .with_context(|| format!("start {} (set RUSTC to a Rust compiler)", rustc.display()))?;
    ensure!(
        result.status.success(),
        "{} could not compile {BOX}: {}",
        rustc.display(),
        String::from_utf8_lossy(&result.stderr).trim()
    );
    std::fs::rename(&output, &program).with_context(|| format!("put {}", program.display()))?;
    Ok(program)
}

/// The images every node starts with: [`PAUSE_IMAGE`] and [`BOX_IMAGE`].
///
/// # Errors
/// As [`box_program`].
pub fn base_images() -> Result<Vec<Image>> {
    let program = box_program()?;
    let content = std::fs::read(&program).with_context(|| format!("read {}", program.display()))?;
    let path = format!("/bin/{BOX}");
    let pause = ImageSpec::new(PAUSE_IMAGE).file(&path, content.clone()).entrypoint([&*path, "pause"]);
    let tasks = ImageSpec::new(BOX_IMAGE).file(&path, content).entrypoint([&*path]);
    [pause, tasks].iter().map(ImageSpec::build).collect()
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};

    use super::*;

    fn run(program: &Path, arguments: &[&str], message: &Path) -> Option<i32> {
        Command::new(program).args(arguments).env("TERMINATION_LOG", message).output().unwrap().status.code()
    }

    #[test]
    fn parallel_callers_get_one_working_program() {
        let cache = tempfile::tempdir().unwrap();
        let programs: Vec<PathBuf> = std::thread::scope(|scope| {
            let calls: Vec<_> = (0..4).map(|_| scope.spawn(|| compiled_in(cache.path()))).collect();
            calls.into_iter().map(|call| call.join().unwrap().unwrap()).collect()
        });
        assert!(programs.iter().all(|program| *program == programs[0]));
        let beside: Vec<_> = std::fs::read_dir(programs[0].parent().unwrap())
            .unwrap()
            .map(|entry| entry.unwrap().file_name())
            .collect();
        assert_eq!(beside, [BOX], "no work folder stays");

        let (program, message) = (&programs[0], cache.path().join("message"));
        assert_eq!(run(program, &["exit", "42", "disk is full"], &message), Some(42));
        assert_eq!(std::fs::read_to_string(&message).unwrap(), "disk is full");
        assert_eq!(run(program, &["sleep", "0.01"], &message), Some(0));
        assert_eq!(run(program, &["alloc", "3Mi", "grows"], &message), Some(0));
        assert_eq!(std::fs::read_to_string(&message).unwrap(), "grows");
        assert_eq!(run(program, &["burn", "1Mi", "0.01", "burns"], &message), Some(0));
        assert_eq!(std::fs::read_to_string(&message).unwrap(), "burns");
        for wrong in [
            &["exit", "256"][..],
            &["alloc", "1Ti"],
            &["sleep", "-1"],
            &["note", "a", "b", "c"],
            &["burn", "1Mi"],
            &[],
        ] {
            assert_eq!(run(program, wrong, &message), Some(64), "{wrong:?}");
        }
    }

    #[test]
    fn a_sleeper_ends_on_sigterm_like_under_a_shell() {
        let folder = tempfile::tempdir().unwrap();
        let message = folder.path().join("message");
        let mut sleeper = Command::new(box_program().unwrap())
            .args(["sleep", "60", "started"])
            .env("TERMINATION_LOG", &message)
            .spawn()
            .unwrap();
        // The message is written when the signal can be taken.
        while !std::fs::read(&message).is_ok_and(|text| text == b"started") {
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
        let pid = nix::unistd::Pid::from_raw(i32::try_from(sleeper.id()).unwrap());
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM).unwrap();
        let status = sleeper.wait().unwrap();
        assert_eq!(status.code(), Some(143));
    }

    #[test]
    fn a_server_answers_every_request_and_who_asks_prints_how_long_each_took() {
        // A port that was free a moment ago.
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let program = box_program().unwrap();
        let mut server = Command::new(&program).args(["serve", &port.to_string(), "1000"]).spawn().unwrap();
        let address = format!("127.0.0.1:{port}");
        while std::net::TcpStream::connect(&address).is_err() {
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
        let asked = Command::new(&program).args(["ask", &address, "80", "1"]).output().unwrap();
        server.kill().unwrap();
        server.wait().unwrap();
        let text = String::from_utf8(asked.stdout).unwrap();
        let latencies: Vec<u64> = text.lines().map(|line| line.parse().unwrap()).collect();
        assert_eq!((asked.status.code(), latencies.len()), (Some(0), 80));
        assert!(latencies.iter().all(|latency| *latency > 0));
        let nobody = Command::new(&program).args(["ask", &address, "8", "1"]).output().unwrap();
        assert_eq!(nobody.status.code(), Some(1));
    }

    #[test]
    fn a_server_that_leaves_loses_no_request_on_the_connections_that_it_has() {
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let program = box_program().unwrap();
        let mut server = Command::new(&program).args(["http", &port.to_string(), "v1"]).spawn().unwrap();
        let address = format!("127.0.0.1:{port}");
        while std::net::TcpStream::connect(&address).is_err() {
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
        let load = || {
            let folder = tempfile::tempdir().unwrap();
            let message = folder.path().join("message");
            let asked = Command::new(&program)
                .args(["load", &address, "320", "1"])
                .env("TERMINATION_LOG", &message)
                .output()
                .unwrap();
            assert_eq!(asked.status.code(), Some(0));
            let told: serde_json::Value = serde_json::from_slice(&asked.stdout).unwrap();
            assert_eq!(
                told,
                serde_json::from_slice::<serde_json::Value>(&std::fs::read(&message).unwrap()).unwrap()
            );
            told
        };
        let told = load();
        for (half, connections) in [("new", 160), ("kept", 8)] {
            let half = &told[half];
            assert_eq!((&half["answered"], &half["failed"]), (&160.into(), &0.into()), "{half}");
            assert_eq!(
                (&half["connections"], &half["texts"]["v1"]),
                (&connections.into(), &160.into()),
                "{half}"
            );
            let micros = ["p50Micros", "p99Micros", "slowestMicros"].map(|name| half[name].as_u64().unwrap());
            assert!(micros[0] > 0 && micros.is_sorted(), "{half}");
        }

        // A client that has asked before is told that its connection ends, and may go in peace.
        let mut kept = std::net::TcpStream::connect(&address).unwrap();
        let mut ask = || {
            kept.write_all(b"GET / HTTP/1.1\r\n\r\n").unwrap();
            let mut answer = vec![0; 1024];
            let count = kept.read(&mut answer).unwrap();
            String::from_utf8(answer[..count].to_vec()).unwrap()
        };
        assert!(!ask().contains("close"));
        let pid = nix::unistd::Pid::from_raw(i32::try_from(server.id()).unwrap());
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM).unwrap();
        while !ask().contains("Connection: close") {
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
        assert_eq!(server.wait().unwrap().code(), Some(0));
        let told = load();
        assert_eq!((&told["new"]["failed"], &told["kept"]["answered"]), (&160.into(), &0.into()), "{told}");
    }

    #[test]
    fn connections_that_a_server_closes_after_some_answers_lose_no_request() {
        let folder = tempfile::tempdir().unwrap();
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let program = box_program().unwrap();
        let file = folder.path().join("lines");
        let mut server = Command::new(&program)
            .args(["http", &port.to_string(), "v1", file.to_str().unwrap(), "5"])
            .spawn()
            .unwrap();
        let address = format!("127.0.0.1:{port}");
        while std::net::TcpStream::connect(&address).is_err() {
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
        let asked = Command::new(&program)
            .args(["load", &address, "320", "1"])
            .env("TERMINATION_LOG", folder.path().join("message"))
            .output()
            .unwrap();
        server.kill().unwrap();
        server.wait().unwrap();
        let told: serde_json::Value = serde_json::from_slice(&asked.stdout).unwrap();
        let kept = &told["kept"];
        // Of eight clients each has 20 answers.
        assert_eq!((&kept["answered"], &kept["failed"]), (&160.into(), &0.into()), "{kept}");
        assert_eq!(kept["connections"], 32, "{kept}");
    }

    #[test]
    fn a_server_tells_who_has_written_into_its_file() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("lines");
        let file = file.to_str().unwrap();
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let program = box_program().unwrap();
        assert_eq!(run(&program, &["note", file, "before"], Path::new(file)), Some(0));
        let mut server =
            Command::new(&program).args(["http", &port.to_string(), "v1", file]).spawn().unwrap();
        let address = format!("127.0.0.1:{port}");
        while std::net::TcpStream::connect(&address).is_err() {
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
        let get = |path: &str| {
            let output = Command::new(&program).args(["get", &address, path]).output().unwrap();
            (output.status.code(), String::from_utf8(output.stdout).unwrap())
        };
        assert_eq!(get("/"), (Some(0), "v1\n".to_owned()));
        // It listens a moment before it writes.
        while get("/lines").1 != "before\nv1\n" {
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
        assert_eq!(run(&program, &["note", file, "after", "0.01"], Path::new(file)), Some(0));
        assert_eq!(get("/lines").1, "before\nv1\nafter\n");
        server.kill().unwrap();
        server.wait().unwrap();
        assert_eq!(get("/").0, Some(1));
    }

    #[test]
    fn base_images_have_their_names() {
        let references: Vec<_> = base_images().unwrap().into_iter().map(|image| image.reference).collect();
        assert_eq!(references, [PAUSE_IMAGE, BOX_IMAGE]);
    }
}
