//! A projection holds what somebody reads: each object of the cluster is kept as one, so a field that nobody reads costs
//! memory for each. Of private fields the compiler says so; of public ones it cannot, and this does.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use anyhow::Result;
use regex::Regex;

use super::{Finding, sources};

/// The module in which controllers keep theirs; those of plumbing stand beside what reads them.
const MODULE: &str = "projections";

/// The public fields of projections that no controller reads.
pub(super) fn findings(root: &Path) -> Result<Vec<Finding>> {
    let finding = |(at, file): (String, &Path)| Finding {
        lint: "projection",
        at,
        problem: format!(
            "no controller reads this field of controllers/{}; leave it out, or make it private where code beside it needs it",
            file.display()
        ),
    };
    let files = sources::files(&root.join("controllers"))?;
    Ok(unread(&files)?.into_iter().map(finding).collect())
}

/// The fields that nobody reads, each as `Struct.field` with its file. A scan of the text: a read is a field access in
/// another file that speaks of the struct, or of what has the name of a field or parameter that holds one. In its own
/// file only methods of public structs read, as what decodes it has fields of the same names.
fn unread(files: &[(PathBuf, String)]) -> Result<Vec<(String, &Path)>> {
    let holders = holders(files)?;
    let word = Regex::new(r"\w+")?;
    let mut seen = Vec::new();
    for (path, code) in files {
        let words: BTreeSet<&str> = word.find_iter(code).map(|found| found.as_str()).collect();
        seen.push((path, words, reads(code)?));
    }
    let mut unread = Vec::new();
    for (path, code) in files.iter().filter(|(path, code)| has_projections(path, code)) {
        let structs = public_structs(code)?;
        let own = reads(&methods(code, &structs)?)?.into_iter().map(str::to_owned).collect::<BTreeSet<_>>();
        for (name, fields) in &structs {
            let names = holders.get(name).into_iter().flatten().chain([name]);
            let names: Vec<&str> = names.copied().collect();
            let is_read = |field: &str| {
                seen.iter().any(|(other, words, reads)| {
                    *other != path && reads.contains(field) && names.iter().any(|name| words.contains(name))
                })
            };
            let left = fields.iter().filter(|field| !own.contains(**field) && !is_read(field));
            unread.extend(left.map(|field| (format!("{name}.{field}"), path.as_path())));
        }
    }
    Ok(unread)
}

fn has_projections(path: &Path, code: &str) -> bool {
    let is_one = |line: &str| line.starts_with("impl") && line.contains("Projection for ");
    let module = path.iter().any(|part| part == MODULE);
    module || code.contains("pub trait Projection") || code.lines().any(is_one)
}

/// Names of the fields and parameters that hold a type, by its name. What dereferences to a type holds it too.
fn holders(files: &[(PathBuf, String)]) -> Result<BTreeMap<&str, BTreeSet<&str>>> {
    let held = Regex::new(r"(?m)^\s+(?:pub(?:\(\w+\))? )?(\w+): ([^=;\n]*),$")?;
    let lent = Regex::new(r"impl Deref for (\w+) \{\s*type Target = (\w+);")?;
    let word = Regex::new(r"\w+")?;
    let mut holders: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for (_, code) in files {
        for (_, [name, of]) in held.captures_iter(code).map(|found| found.extract()) {
            for part in word.find_iter(of) {
                holders.entry(part.as_str()).or_default().insert(name);
            }
        }
    }
    for (_, code) in files {
        for (_, [lender, of]) in lent.captures_iter(code).map(|found| found.extract()) {
            let names = holders.get(lender).cloned().unwrap_or_default();
            holders.entry(of).or_default().extend(names.into_iter().chain([lender]));
        }
    }
    Ok(holders)
}

/// The public structs of a file with their public fields.
fn public_structs(code: &str) -> Result<Vec<(&str, Vec<&str>)>> {
    let whole = Regex::new(r"(?ms)^pub struct (\w+)[^\n;(]*\{\n(.*?)^\}")?;
    let field = Regex::new(r"(?m)^    pub (\w+):")?;
    let fields = |body| field.captures_iter(body).map(|found| found.extract::<1>().1[0]).collect();
    Ok(whole
        .captures_iter(code)
        .map(|found| found.extract())
        .map(|(_, [name, body])| (name, fields(body)))
        .collect())
}

/// The methods of these structs, without what implements a trait and without lines that compare two of them: whether one
/// has changed is no reason to have a field.
fn methods(code: &str, structs: &[(&str, Vec<&str>)]) -> Result<String> {
    let block = Regex::new(r"(?ms)^impl(?:<[^>\n]*>)? (\w+)(?:<\w+>)? \{\n(.*?)^\}")?;
    let blocks = block.captures_iter(code).map(|found| found.extract());
    let of_structs = blocks.filter(|(_, [name, _])| structs.iter().any(|(known, _)| known == name));
    let lines = of_structs.flat_map(|(_, [_, body])| body.lines());
    Ok(lines.filter(|line| !line.contains("other.")).fold(String::new(), |all, line| all + line + "\n"))
}

/// Names of the fields that are read: neither called nor set.
fn reads(code: &str) -> Result<BTreeSet<&str>> {
    let access = Regex::new(r"\.([a-z]\w*)")?;
    let is_read = |after: &str| {
        let after = after.trim_start();
        let is_set = after.starts_with('=') && !after.starts_with("==") && !after.starts_with("=>");
        !is_set && !after.starts_with(['(', ':'])
    };
    let found = access.captures_iter(code).filter_map(|found| found.get(1));
    // Two dots are a range.
    let accesses = found.filter(|name| !code[..name.start()].ends_with(".."));
    Ok(accesses.filter(|name| is_read(&code[name.end()..])).map(|name| name.as_str()).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    const VIEW: &str = "
pub struct PodView {
    pub node: Option<Node>,
    pub phase: Phase,
    pub unread: bool,
    meta: Meta,
}
impl PodView {
    pub fn is_same(&self, other: &Self) -> bool {
        self.unread == other.unread
    }
    pub fn ended(&self) -> bool {
        self.phase == Phase::Ended
    }
}
impl Projection for PodView {
    fn bytes(&self) -> usize {
        size_of::<Self>() + self.unread.len()
    }
}
impl From<Wire> for PodView {
    fn from(wire: Wire) -> Self {
        Self { unread: wire.unread }
    }
}
";

    fn found(reader: &str) -> Vec<String> {
        let files = [("pod.rs", VIEW), ("ledger.rs", reader)];
        let files = files.map(|(path, code)| (PathBuf::from(path), code.to_owned()));
        let found = unread(&files).unwrap();
        assert!(found.iter().all(|(_, file)| *file == Path::new("pod.rs")));
        found.into_iter().map(|(at, _)| at).collect()
    }

    #[test]
    fn a_field_that_is_compared_decoded_and_counted_is_not_read() {
        assert_eq!(found("fn f(pod: &PodView) { pod.node.is_some(); }"), ["PodView.unread"]);
        let calls = "fn f(pod: &PodView) { pod.node; pod.unread(); pod.unread = true; 0..unread }";
        assert_eq!(found(calls), ["PodView.unread"]);
        assert_eq!(found("fn f(pod: &PodView) { if pod.unread == pod.node {} }"), Vec::<String>::new());
    }

    #[test]
    fn a_read_in_a_file_that_speaks_of_no_such_struct_is_one_of_something_else() {
        let elsewhere = "fn f(node: &NodeView) { node.node; node.unread; }";
        assert_eq!(found(elsewhere), ["PodView.node", "PodView.unread"]);
        let held = "pub struct Seen {\n    pub pods: Vec<Arc<PodView>>,\n}\nfn f(seen: &Seen) { seen.pods[0].node; \
                    seen.pods[0].unread }";
        assert_eq!(found(held), Vec::<String>::new());
    }
}
