//! `springtide copy-noop`: writes a program that does nothing, for containers of images that shall be pulled and not run.
//!
//! An image need not hold anything that ends by itself, and a container of it runs what a volume holds as well. The
//! program is the smallest that the kernel takes: an ELF header, one segment, and the system call `exit_group(0)`
//! (ELF-64 Object File Format; System V ABI, AMD64 and AArch64 supplements). It needs no loader and no library, so it runs
//! in an empty image, by any user and on a read-only root.

use anyhow::{Context, Result};
use clap::Args;
use std::fs::{self, File};
use std::io::Write as _;
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

/// Name of the program in its folder.
const NAME: &str = "noop";

/// Options of `springtide copy-noop`.
#[derive(Args)]
pub(crate) struct CopyNoopArgs {
    /// Folder that gets the program `noop`.
    folder: PathBuf,
}

/// Writes the program, for everybody to run.
///
/// # Errors
/// The file cannot be written.
pub(crate) fn run(args: &CopyNoopArgs) -> Result<()> {
    let file = args.folder.join(NAME);
    write(&file).with_context(|| format!("write {}", file.display()))
}

fn write(path: &Path) -> Result<()> {
    let mut file = File::options().write(true).create(true).truncate(true).mode(MODE).open(path)?;
    file.write_all(&program())?;
    // Whatever the umask is: the other containers may run as another user.
    fs::set_permissions(path, fs::Permissions::from_mode(MODE))?;
    Ok(())
}

/// Everybody may run it.
const MODE: u32 = 0o755;
/// Bytes of an ELF header and of a program header.
const HEADER: u16 = 64;
const SEGMENT: u16 = 56;
/// Where the file is in memory: as linkers put programs of fixed address, above what the kernel keeps free.
const ADDRESS: u64 = 0x40_0000;

/// `e_machine`, and `exit_group(0)` by its number there.
#[cfg(target_arch = "x86_64")]
const MACHINE: (u16, &[u8]) = (
    62,
    &[
        0x31, 0xff, // xor edi, edi
        0xb8, 231, 0, 0, 0, // mov eax, 231
        0x0f, 0x05, // syscall
    ],
);
#[cfg(target_arch = "aarch64")]
const MACHINE: (u16, &[u8]) = (
    183,
    &[
        0x00, 0x00, 0x80, 0xd2, // mov x0, #0
        0xc8, 0x0b, 0x80, 0xd2, // mov x8, #94
        0x01, 0x00, 0x00, 0xd4, // svc #0
    ],
);

fn program() -> Vec<u8> {
    let (machine, code) = MACHINE;
    let begin = u64::from(HEADER + SEGMENT);
    let length = begin + code.len() as u64;
    let mut elf = Vec::new();
    // e_ident: the magic, 64 bits, little-endian, version 1.
    elf.extend(b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0");
    // e_type (an executable of fixed address), e_machine.
    [2, machine].iter().for_each(|half| elf.extend(half.to_le_bytes()));
    elf.extend(1_u32.to_le_bytes());
    // e_entry, e_phoff; there are no sections.
    [ADDRESS + begin, u64::from(HEADER), 0].iter().for_each(|long| elf.extend(long.to_le_bytes()));
    elf.extend(0_u32.to_le_bytes());
    // e_ehsize, e_phentsize, e_phnum, and three of sections.
    [HEADER, SEGMENT, 1, 0, 0, 0].iter().for_each(|half| elf.extend(half.to_le_bytes()));
    // p_type (to be loaded), p_flags (read and run).
    [1_u32, 5].iter().for_each(|word| elf.extend(word.to_le_bytes()));
    // p_offset, p_vaddr, p_paddr, p_filesz, p_memsz, p_align: the whole file.
    [0, ADDRESS, ADDRESS, length, length, 0x1_0000].iter().for_each(|long| elf.extend(long.to_le_bytes()));
    elf.extend(code);
    elf
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    #[test]
    fn the_program_runs_without_anything_and_ends_well() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join(NAME);
        // One that is there already is replaced, with its rights.
        fs::write(&file, vec![0; 4096]).unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
        run(&CopyNoopArgs { folder: folder.path().to_owned() }).unwrap();
        assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o755);
        assert_eq!(fs::read(&file).unwrap(), program());
        let output = Command::new(&file).arg("whatever").env_clear().output().unwrap();
        assert_eq!(output.status.code(), Some(0));
        assert!(output.stdout.is_empty() && output.stderr.is_empty());
        let error = run(&CopyNoopArgs { folder: folder.path().join("no/folder") }).unwrap_err();
        assert!(format!("{error:#}").contains("no/folder/noop"), "{error:#}");
    }
}
