//! The commit that is measured, and whether files are still those of a commit.

use std::path::PathBuf;
use std::process::{Command, Output};

use anyhow::{Context, Result};

/// All files but those of `docs`, which are reports: one that is written changes nothing.
const FILES: [&str; 3] = ["--", ".", ":!docs"];
/// Of these those that are neither measured nor what that runs on, but how it is measured and told: whoever changes how a
/// figure is taken removes what is stored of it, and all others stay.
const BUT_HOW: [&str; 3] = [":!e2e/src/bin", ":!e2e/src/bench", ":!e2e/tests"];

/// A clone with its files, and the commit that it was at.
#[derive(Debug, Clone)]
pub struct Checkout {
    root: PathBuf,
    commit: String,
}

impl Checkout {
    /// The one in `root`, at its commit of now. Where git knows of none, that is empty.
    ///
    /// # Errors
    /// Git cannot be run.
    pub fn at(root: PathBuf) -> Result<Self> {
        let mut checkout = Self { root, commit: String::new() };
        let read = checkout.git(&["rev-parse", "--short", "HEAD"])?;
        if read.status.success() {
            checkout.commit = String::from_utf8_lossy(&read.stdout).trim().to_owned();
        }
        Ok(checkout)
    }

    /// The commit, abbreviated.
    #[must_use]
    pub fn commit(&self) -> &str {
        &self.commit
    }

    /// Whether what is measured now is what `commit` has, and all files are those of the commit of now, with nothing beside
    /// them that git does not ignore; those of `docs` may be others. Of a commit that this clone does not have they are
    /// not.
    ///
    /// # Errors
    /// Git cannot be run.
    pub fn is_as_at(&self, commit: &str) -> Result<bool> {
        let status = ["status", "--porcelain", "--untracked-files=normal"];
        let changed = self.git(&[&status[..], &FILES[..]].concat())?;
        let diff = ["diff", "--quiet", commit, "HEAD"];
        let same = self.git(&[&diff[..], &FILES[..], &BUT_HOW[..]].concat())?;
        Ok(changed.status.success() && changed.stdout.is_empty() && same.status.success())
    }

    /// Runs git in it.
    ///
    /// # Errors
    /// It cannot be run. What it cannot do is in its status.
    pub fn git(&self, args: &[&str]) -> Result<Output> {
        Command::new("git").arg("-C").arg(&self.root).args(args).output().context("run git")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    fn commit(root: &Path, message: &str) -> Checkout {
        let checkout = Checkout::at(root.to_owned()).unwrap();
        let author =
            ["-c", "user.name=test", "-c", "user.email=test@localhost", "-c", "commit.gpgsign=false"];
        let commit = [&author[..], &["commit", "--quiet", "--message", message][..]].concat();
        for args in [&["init", "--quiet"][..], &["add", "--all"][..], &commit[..]] {
            let done = checkout.git(args).unwrap();
            assert!(done.status.success(), "{args:?}: {}", String::from_utf8_lossy(&done.stderr));
        }
        Checkout::at(root.to_owned()).unwrap()
    }

    #[test]
    fn files_are_those_of_a_commit_until_one_outside_of_docs_is_another() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path();
        let write = |path: &str, text: &str| std::fs::write(root.join(path), text).unwrap();
        std::fs::create_dir(root.join("docs")).unwrap();
        write("docs/page.md", "1");
        write("code.rs", "1");
        write(".gitignore", "/target\n");
        let first = commit(root, "first");
        let is_as_at = |commit: &str| first.is_as_at(commit).unwrap();
        assert!(!first.commit().is_empty() && is_as_at(first.commit()));

        write("docs/page.md", "2");
        write("target", "built");
        assert!(is_as_at(first.commit()), "neither is what is measured");
        let docs = commit(root, "docs");
        assert_ne!(docs.commit(), first.commit());
        assert!(is_as_at(first.commit()) && is_as_at(docs.commit()));

        write("code.rs", "2");
        assert!(!is_as_at(first.commit()) && !is_as_at(docs.commit()));
        let code = commit(root, "code");
        assert!(!is_as_at(first.commit()) && !is_as_at(docs.commit()) && is_as_at(code.commit()));

        std::fs::create_dir_all(root.join("e2e/src/bin")).unwrap();
        write("e2e/src/bin/report.rs", "1");
        assert!(!is_as_at(code.commit()), "it may be how the figures of now are taken");
        let told = commit(root, "told");
        assert!(is_as_at(code.commit()) && is_as_at(told.commit()), "what is measured is the same");

        write("more.rs", "1");
        assert!(!is_as_at(told.commit()), "a build may take up what nobody has added yet");
        std::fs::remove_file(root.join("more.rs")).unwrap();
        assert!(!is_as_at("") && !is_as_at("0123456789abcdef0123456789abcdef01234567"));
    }
}
