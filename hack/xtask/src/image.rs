//! `cargo xtask image`: one static program as an OCI archive, the same bytes wherever it is built.
//!
//! No container engine takes part. The program is linked against the C library's archive (`crt-static`) and
//! knows no path of the machine: sources, registry and target folder are remapped, and the time that
//! the image bears is that of the commit (`SOURCE_DATE_EPOCH`). It bears the list of the packages it was built
//! from (cargo-auditable), from which the bill of materials beside the image and the licences in it are made.

use std::env;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail, ensure};
use sha2::{Digest as _, Sha256};
use springtide_image::{Image, ImageSpec};

use crate::bill::Bill;
use crate::cargo_tools::CargoTool;
use crate::{ci, repository_root};

const CARGO_AUDITABLE: CargoTool = CargoTool { name: "cargo-auditable", version: "0.7.7" };

/// Name of the image without its tag: the registry's host is the user's choice.
const REPOSITORY: &str = "localhost/springtide";
/// Where the program lies in the image.
const PROGRAM: &str = "/bin/springtide";
/// The target whose C library is linked in.
const TARGET: &str = "x86_64-unknown-linux-gnu";
/// The largest image that is delivered, in bytes.
const LARGEST: usize = 30_000_000;

/// The archive, from the root of the clone.
const ARCHIVE: &str = "target/image/springtide.tar";

/// Flags of `cargo xtask image`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Name of the image with its tag.
    #[arg(long, default_value_t = format!("{REPOSITORY}:{}", env!("CARGO_PKG_VERSION")))]
    reference: String,
    /// The archive to write.
    #[arg(long, default_value = ARCHIVE)]
    output: PathBuf,
    /// Builds a second time from a copy of the sources in another folder, and compares the two images.
    #[arg(long)]
    check: bool,
}

/// Where the image is after `cargo xtask image` without flags.
pub(crate) fn archive() -> PathBuf {
    repository_root().join(ARCHIVE)
}

/// Builds the image, and with `--check` again elsewhere.
pub(crate) fn run(args: &Args) -> Result<()> {
    let root = repository_root();
    let target = root.join("target/image");
    // Once, as somebody may commit while the second one is built.
    let labels = Labels::read()?;
    let program = program(&root, &target)?;
    let bill = Bill::read(&program, TARGET)?;
    let licenses = bill.licenses()?;
    let image = image(&args.reference, &labels, &program, &licenses)?;
    let output = root.join(&args.output);
    if let Some(folder) = output.parent() {
        fs::create_dir_all(folder).with_context(|| format!("make {}", folder.display()))?;
    }
    fs::write(&output, &image.archive).with_context(|| format!("write {}", output.display()))?;
    let megabytes = image.archive.len() / 1_000_000;
    println!("{}@{} ({megabytes} MB) is in {}", image.reference, image.digest, output.display());
    let beside = output.with_extension("cdx.json");
    let document = serde_json::to_string_pretty(&bill.cyclone_dx()?).context("the bill of materials")?;
    fs::write(&beside, document + "\n").with_context(|| format!("write {}", beside.display()))?;
    println!("its bill of materials (CycloneDX) is in {}", beside.display());
    if args.check {
        let again = self::image(&args.reference, &labels, &elsewhere(&root)?, &licenses)?;
        ensure!(
            again.digest == image.digest,
            "built in another folder the image is {}, not {}: something of the place is in it",
            again.digest,
            image.digest
        );
        println!("built from a copy in another folder it is the same");
    }
    Ok(())
}

/// What the image says of the commit it was built from.
struct Labels {
    revision: String,
    created: String,
}

impl Labels {
    fn read() -> Result<Self> {
        Ok(Self { revision: git(&["rev-parse", "HEAD"])?.trim().to_owned(), created: created()? })
    }
}

/// The image around a program.
fn image(reference: &str, labels: &Labels, program: &[u8], licenses: &str) -> Result<Image> {
    ensure_static(program)?;
    let root = repository_root();
    let license = fs::read(root.join("LICENSE")).context("read LICENSE")?;
    let image = ImageSpec::new(reference)
        .file(PROGRAM, program.to_vec())
        .file("/licenses/springtide", license)
        .file("/licenses/packages", licenses.as_bytes().to_vec())
        .entrypoint([PROGRAM])
        .label("org.opencontainers.image.title", "springtide")
        .label("org.opencontainers.image.version", env!("CARGO_PKG_VERSION"))
        .label("org.opencontainers.image.revision", &labels.revision)
        .label("org.opencontainers.image.source", env!("CARGO_PKG_REPOSITORY"))
        .label("org.opencontainers.image.licenses", env!("CARGO_PKG_LICENSE"))
        .created(&labels.created)
        .build()?;
    let bytes = image.archive.len();
    ensure!(bytes <= LARGEST, "the image has {bytes} bytes, of at most {LARGEST}");
    Ok(image)
}

/// RFC 3339 of `SOURCE_DATE_EPOCH`, or of the commit's time.
fn created() -> Result<String> {
    let seconds = match env::var("SOURCE_DATE_EPOCH") {
        Ok(seconds) => seconds,
        Err(_) => git(&["log", "-1", "--format=%ct"])?,
    };
    let seconds: i64 = seconds.trim().parse().context("SOURCE_DATE_EPOCH is no number of seconds")?;
    Ok(jiff::Timestamp::from_second(seconds).context("SOURCE_DATE_EPOCH")?.to_string())
}

fn git(arguments: &[&str]) -> Result<String> {
    let output = Command::new("git")
        .args(arguments)
        .current_dir(repository_root())
        .stderr(Stdio::inherit())
        .output()
        .context("start git")?;
    ensure!(output.status.success(), "`git {}` ended with {}", arguments.join(" "), output.status);
    String::from_utf8(output.stdout).context("git's output is not UTF-8")
}

/// Compiles the program of the sources at `root`, in a target folder of its own: other flags than those of
/// development would have all dependencies there compiled anew.
fn program(root: &Path, target: &Path) -> Result<Vec<u8>> {
    let cargo_home = env::var_os("CARGO_HOME")
        .map(PathBuf::from)
        .or_else(|| env::var_os("HOME").map(|home| PathBuf::from(home).join(".cargo")))
        .context("neither CARGO_HOME nor HOME is set")?;
    let mut flags: Vec<OsString> = vec!["-Ctarget-feature=+crt-static".into()];
    // The last one that fits counts, and the target folder lies in the sources.
    for (from, to) in [(&*cargo_home, "/cargo"), (root, "/springtide"), (target, "/target")] {
        let mut flag = OsString::from("--remap-path-prefix=");
        flag.push(from);
        flag.push(format!("={to}"));
        flags.push(flag);
    }
    let status = Command::new(CARGO_AUDITABLE.provide()?)
        .args([
            "auditable",
            "build",
            "--locked",
            "--release",
            "--package=springtide-manager",
            "--bin=springtide",
        ])
        .args(["--target", TARGET])
        .current_dir(root)
        .env("CARGO", ci::cargo_program())
        .env("CARGO_TARGET_DIR", target)
        // Its own separator, as folders may have spaces in their names.
        .env("CARGO_ENCODED_RUSTFLAGS", flags.join(&OsString::from("\x1f")))
        .env("CARGO_PROFILE_RELEASE_STRIP", "symbols")
        .status()
        .context("start cargo")?;
    ensure!(status.success(), "the program does not build");
    let path = target.join(TARGET).join("release/springtide");
    fs::read(&path).with_context(|| format!("read {}", path.display()))
}

/// The program built from a copy of the sources, in a folder whose path has another length.
fn elsewhere(root: &Path) -> Result<Vec<u8>> {
    let copy = root.join("target/image-check/a-copy-of-the-sources");
    if copy.exists() {
        fs::remove_dir_all(&copy).with_context(|| format!("remove {}", copy.display()))?;
    }
    for path in git(&["ls-files", "-z", "--cached", "--others", "--exclude-standard"])?.split_terminator('\0')
    {
        // A file may be deleted and not yet committed so.
        if !root.join(path).is_file() {
            continue;
        }
        let to = copy.join(path);
        if let Some(folder) = to.parent() {
            fs::create_dir_all(folder).with_context(|| format!("make {}", folder.display()))?;
        }
        fs::copy(root.join(path), &to).with_context(|| format!("copy {path}"))?;
    }
    let program = program(&copy, &root.join("target/image-check/another-target-folder"))?;
    println!("the second program is {}", hex::encode(&Sha256::digest(&program)[..8]));
    Ok(program)
}

/// An image from scratch has no dynamic linker.
fn ensure_static(program: &[u8]) -> Result<()> {
    match wants_interpreter(program) {
        Some(false) => Ok(()),
        Some(true) => bail!("the program is not static: it asks for a dynamic linker"),
        None => bail!("the program is no 64-bit ELF file"),
    }
}

/// Whether one of the program headers is a `PT_INTERP` (ELF-64, little-endian; layout of `elf(5)`).
fn wants_interpreter(program: &[u8]) -> Option<bool> {
    const PT_INTERP: u32 = 3;
    let number = |at: usize, size: usize| -> Option<u64> {
        let bytes = program.get(at..at.checked_add(size)?)?;
        Some(bytes.iter().rev().fold(0, |number, byte| number << 8 | u64::from(*byte)))
    };
    if program.get(..6)? != b"\x7fELF\x02\x01" {
        return None;
    }
    let (start, size, count) = (number(0x20, 8)?, number(0x36, 2)?, number(0x38, 2)?);
    for header in 0..count {
        let at = usize::try_from(start.checked_add(header * size)?).ok()?;
        if number(at, 4)? == u64::from(PT_INTERP) {
            return Some(true);
        }
    }
    Some(false)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dynamic_program_is_told_from_a_static_one() {
        // Cargo links its tests against the shared C library.
        let this = fs::read(env::current_exe().unwrap()).unwrap();
        assert_eq!(wants_interpreter(&this), Some(true));
        assert!(ensure_static(&this).unwrap_err().to_string().contains("dynamic linker"));
        // A header without program headers.
        let mut header = b"\x7fELF\x02\x01".to_vec();
        header.resize(64, 0);
        assert_eq!(wants_interpreter(&header), Some(false));
        assert_eq!(wants_interpreter(b"#!/bin/sh"), None);
        // Cut off inside the table.
        header[0x20] = 64;
        header[0x36] = 56;
        header[0x38] = 1;
        assert_eq!(wants_interpreter(&header), None);
    }

    #[test]
    fn the_time_of_an_image_is_that_of_the_commit() {
        assert!(created().unwrap().ends_with('Z'));
    }
}
