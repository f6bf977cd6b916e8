//! The source text of a controller, as far as it is not a test.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use regex::Regex;

/// What evaluates a shared type on behalf of every controller that has it in its API: [`Window`].
///
/// [`Window`]: springtide_crds::common::Window
const SHARED: &str = "controllers/plumbing/src/window";

/// Concatenated source of one controller crate and of what it shares, without tests and comments.
#[derive(Debug, Default)]
pub(super) struct Sources(pub(super) String);

impl Sources {
    /// Reads `controllers/<controller>/src`, and the folder that is shared.
    pub(super) fn read(root: &Path, controller: &str) -> Result<Self> {
        let own = Self::read_folder(&root.join("controllers").join(controller).join("src"))?;
        Ok(Self(own + &Self::read_folder(&root.join(SHARED))?))
    }

    fn read_folder(folder: &Path) -> Result<String> {
        Ok(files(folder)?.into_iter().map(|(_, code)| code).collect())
    }

    /// Whether a field called `name` in the API is read: `.name` in Rust.
    pub(super) fn reads(&self, name: &str) -> bool {
        self.matches(&format!(r"\.{}\b[^(]", identifier(name)))
    }

    /// Whether a field called `name` in the API is mentioned at all.
    pub(super) fn mentions(&self, name: &str) -> bool {
        self.matches(&format!(r"\b{}\b", identifier(name)))
    }

    fn matches(&self, pattern: &str) -> bool {
        // Identifiers need no escape, so the pattern always compiles.
        Regex::new(pattern).is_ok_and(|pattern| pattern.is_match(&self.0))
    }
}

/// The code of a folder, file by file, without tests and comments.
pub(super) fn files(folder: &Path) -> Result<Vec<(PathBuf, String)>> {
    let mut files = Vec::new();
    for entry in walkdir::WalkDir::new(folder).sort_by_file_name() {
        let entry = entry.with_context(|| format!("walk {}", folder.display()))?;
        let path = entry.path().strip_prefix(folder).unwrap_or(entry.path());
        if is_code(path) {
            let text = fs::read_to_string(entry.path())
                .with_context(|| format!("read {}", entry.path().display()))?;
            files.push((path.to_owned(), without_tests(&text)));
        }
    }
    Ok(files)
}

fn is_code(path: &Path) -> bool {
    let is_test = |name: &str| name == "tests" || name == "tests.rs" || name.ends_with("_tests.rs");
    path.extension().is_some_and(|extension| extension == "rs")
        && !path.iter().any(|part| part.to_str().is_some_and(is_test))
}

/// Cuts the text at its test module, which stands last, and drops comments. What else is for tests alone (a module in
/// another file, a field) is one line.
fn without_tests(text: &str) -> String {
    let mut code = String::new();
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        if line.trim() == "#[cfg(test)]" {
            match lines.next() {
                Some(next) if next.trim_end().ends_with([';', ',']) => continue,
                Some(_) | None => break,
            }
        }
        if !line.trim_start().starts_with("//") {
            code += line;
            code.push('\n');
        }
    }
    code
}

/// The Rust identifier of an API field: snake case, `type_` for the keyword.
pub(super) fn identifier(name: &str) -> String {
    let mut identifier = String::new();
    let mut was_upper = false;
    for letter in name.chars() {
        // An abbreviation is one word: `onOOM` is `on_oom`.
        if letter.is_ascii_uppercase() && !was_upper {
            identifier.push('_');
        }
        was_upper = letter.is_ascii_uppercase();
        identifier.push(letter.to_ascii_lowercase());
    }
    if identifier == "type" {
        identifier.push('_');
    }
    identifier
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_field_access_outside_tests_and_comments_is_a_read() {
        let text = "let a = spec.stop_policy;\n// spec.tier\nspec.parallelism();\nconst X: u8 = completions;\n\
                    #[cfg(test)]\nmod tests { fn t() { spec.priority; } }\n";
        let sources = Sources(without_tests(text));
        assert!(sources.reads("stopPolicy"));
        for name in ["tier", "parallelism", "completions", "priority"] {
            assert!(!sources.reads(name), "{name}");
        }
        assert!(sources.mentions("completions"));
        let early = "#[cfg(test)]\nmod tests;\nlet a = spec.tier;\nstruct S {\n#[cfg(test)]\nlooks: u8,\n}\n";
        let early = without_tests(early);
        assert_eq!(early, "let a = spec.tier;\nstruct S {\n}\n");
    }

    #[test]
    fn names_of_the_api_are_snake_case_in_rust() {
        for (name, rust) in [("stopPolicy", "stop_policy"), ("onOOM", "on_oom"), ("type", "type_")] {
            assert_eq!(identifier(name), rust);
        }
    }

    #[test]
    fn test_files_are_no_code() {
        for (path, code) in
            [("plan.rs", true), ("plan/fit.rs", true), ("plan/tests.rs", false), ("fit_tests.rs", false)]
        {
            assert_eq!(is_code(Path::new(path)), code, "{path}");
        }
    }
}
