//! The manager as an image that a real node can run.

use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use springtide_image::{Image, ImageSpec};

use crate::manager::springtide_binary;

/// Name of the image, as the chart asks for it by default.
pub const REFERENCE: &str = concat!("localhost/springtide:", env!("CARGO_PKG_VERSION"));
/// Where the program is in it.
const PROGRAM: &str = "/bin/springtide";

/// The archive that `SPRINGTIDE_IMAGE` names, which is what `make image` builds and what is delivered. Without one
/// an image around the development build: stripped, with the C library's shared objects beside it,
/// as a static one would have every dependency compiled once more.
///
/// # Errors
/// The archive cannot be read; the program does not build; `ldd` or `strip` fails.
pub async fn manager_image() -> Result<Image> {
    if let Some(path) = std::env::var_os("SPRINGTIDE_IMAGE").filter(|path| !path.is_empty()) {
        let archive = std::fs::read(&path).with_context(|| format!("read {}", Path::new(&path).display()))?;
        return Ok(Image { reference: REFERENCE.to_owned(), digest: String::new(), archive });
    }
    let program = springtide_binary().await?;
    let folder = tempfile::tempdir().context("a folder for the stripped program")?;
    let stripped = folder.path().join("springtide");
    let output = run(Command::new("strip").arg("-o").arg(&stripped).arg(program))?;
    ensure!(output.is_empty(), "strip says {output}");
    let mut image = ImageSpec::new(REFERENCE).file(PROGRAM, std::fs::read(&stripped)?).entrypoint([PROGRAM]);
    for library in shared_objects(&run(Command::new("ldd").arg(program))?) {
        let content = std::fs::read(library).with_context(|| format!("read {library}"))?;
        image = image.file(library, content);
    }
    image.build()
}

/// The paths in what `ldd` prints: `name => path (address)`, or the path alone for the loader.
fn shared_objects(text: &str) -> impl Iterator<Item = &str> {
    text.lines().filter_map(|line| line.split_whitespace().find(|word| word.starts_with('/')))
}

fn run(command: &mut Command) -> Result<String> {
    let output = command.output().with_context(|| format!("start {command:?}"))?;
    ensure!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).context("the output is not UTF-8")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_loader_and_the_libraries_are_found_but_not_what_the_kernel_brings() {
        let text = "\tlinux-vdso.so.1 (0x00007ffd)\n\tlibc.so.6 => /lib/libc.so.6 (0x00007f91)\n\
                    \t/lib64/ld-linux-x86-64.so.2 (0x00007f92)\n";
        let found: Vec<_> = shared_objects(text).collect();
        assert_eq!(found, ["/lib/libc.so.6", "/lib64/ld-linux-x86-64.so.2"]);
    }
}
