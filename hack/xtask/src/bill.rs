//! What a program is made of: the bill of materials (CycloneDX) and the licences, from the list of packages that
//! cargo-auditable has put into the program itself.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail, ensure};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::{ci, repository_root};

/// The largest list that is read out of a program, in bytes.
const LARGEST_LIST: usize = 8 << 20;
/// How the files begin in which packages have their licences.
const LICENSE_FILES: [&str; 5] = ["license", "licence", "copying", "notice", "unlicense"];

/// The packages that a program was built from.
#[derive(Debug)]
pub(crate) struct Bill {
    packages: Vec<Package>,
    facts: BTreeMap<(String, String), Facts>,
}

/// A package, as cargo-auditable lists it.
#[derive(Debug, Deserialize)]
struct Package {
    name: String,
    version: String,
    source: String,
    #[serde(default)]
    kind: Kind,
    #[serde(default)]
    dependencies: Vec<usize>,
    #[serde(default)]
    root: bool,
}

#[derive(Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
enum Kind {
    /// It is in the program.
    #[default]
    Runtime,
    /// It took part in the build.
    Build,
}

/// What cargo knows of a package beside.
#[derive(Debug, Deserialize)]
struct Facts {
    name: String,
    version: String,
    license: Option<String>,
    manifest_path: PathBuf,
}

impl Package {
    /// Package URL of what is in the registry; our own packages have none.
    fn purl(&self) -> Option<String> {
        (self.source == "crates.io").then(|| format!("pkg:cargo/{}@{}", self.name, self.version))
    }

    fn reference(&self) -> String {
        self.purl().unwrap_or_else(|| format!("{}@{}", self.name, self.version))
    }
}

impl Bill {
    /// Reads the list in a program.
    pub(crate) fn read(program: &[u8], target: &str) -> Result<Self> {
        #[derive(Deserialize)]
        struct List {
            packages: Vec<Package>,
        }
        let list = auditable_info::json_from_slice(program, LARGEST_LIST)
            .map_err(|error| anyhow::anyhow!("the program bears no list of its packages: {error}"))?;
        let List { packages } = serde_json::from_str(&list).context("the list of packages")?;
        let bill = Self { packages, facts: facts(target)? };
        ensure!(bill.packages.iter().filter(|package| package.root).count() == 1, "the list has no root");
        Ok(bill)
    }

    /// The licence of a package as an SPDX expression.
    fn license(&self, package: &Package) -> Result<String> {
        let facts = self.facts.get(&(package.name.clone(), package.version.clone()));
        match facts.and_then(|facts| facts.license.as_deref()) {
            // As older manifests write OR.
            Some(license) => Ok(license.replace('/', " OR ")),
            None => bail!("{} {} states no licence", package.name, package.version),
        }
    }

    /// The CycloneDX document. It has neither time nor serial number, so that one program has one.
    pub(crate) fn cyclone_dx(&self) -> Result<Value> {
        let component = |package: &Package| -> Result<Value> {
            let mut component = json!({
                "type": if package.root { "application" } else { "library" },
                "bom-ref": package.reference(),
                "name": package.name,
                "version": package.version,
                // What only took part in the build is not in the program.
                "scope": if package.kind == Kind::Build { "excluded" } else { "required" },
                "licenses": [{"expression": self.license(package)?}],
            });
            if let Some(purl) = package.purl() {
                component["purl"] = json!(purl);
            }
            Ok(component)
        };
        let root = self.packages.iter().find(|package| package.root).context("no root")?;
        let components: Vec<Value> =
            self.packages.iter().filter(|package| !package.root).map(component).collect::<Result<_>>()?;
        let dependencies = self.packages.iter().map(|package| {
            let on = package.dependencies.iter().filter_map(|at| self.packages.get(*at));
            json!({"ref": package.reference(), "dependsOn": on.map(Package::reference).collect::<Vec<_>>()})
        });
        Ok(json!({
            "bomFormat": "CycloneDX",
            "specVersion": "1.5",
            "version": 1,
            "metadata": {"component": component(root)?},
            "components": components,
            "dependencies": dependencies.collect::<Vec<_>>(),
        }))
    }

    /// The licences of what is in the program but for our own: a list, and below it every text once.
    pub(crate) fn licenses(&self) -> Result<String> {
        let mut page = String::from("The program holds these packages:\n\n");
        let mut texts: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        let foreign = |package: &&Package| package.kind == Kind::Runtime && package.purl().is_some();
        for package in self.packages.iter().filter(foreign) {
            let Package { name, version, .. } = package;
            writeln!(page, "{name} {version}: {}", self.license(package)?)?;
            let facts = self.facts.get(&(name.clone(), version.clone())).context("cargo knows it not")?;
            let folder = facts.manifest_path.parent().context("a manifest without folder")?;
            for text in license_texts(folder)? {
                texts.entry(text).or_default().insert(format!("{name} {version}"));
            }
        }
        for (text, packages) in texts {
            let names = Vec::from_iter(packages).join(", ");
            writeln!(page, "\n{}\n{names}\n\n{}", "-".repeat(72), text.trim_end())?;
        }
        Ok(page)
    }
}

/// The texts of the licences in a package's folder, in the order of the files' names.
fn license_texts(folder: &Path) -> Result<Vec<String>> {
    let entries = fs::read_dir(folder).with_context(|| format!("list {}", folder.display()))?;
    let mut files = entries.map(|entry| Ok(entry?.path())).collect::<Result<Vec<PathBuf>>>()?;
    files.sort();
    let is_license = |path: &PathBuf| {
        let name = path.file_name().map(|name| name.to_string_lossy().to_lowercase()).unwrap_or_default();
        path.is_file() && LICENSE_FILES.iter().any(|begin| name.starts_with(begin))
    };
    let read = |path: &PathBuf| {
        let bytes = fs::read(path).with_context(|| format!("read {}", path.display()))?;
        Ok(String::from_utf8_lossy(&bytes).replace("\r\n", "\n"))
    };
    files.iter().filter(|path| is_license(path)).map(read).collect()
}

fn facts(target: &str) -> Result<BTreeMap<(String, String), Facts>> {
    #[derive(Deserialize)]
    struct Metadata {
        packages: Vec<Facts>,
    }
    let output = Command::new(ci::cargo_program())
        .args(["metadata", "--locked", "--format-version", "1", "--filter-platform", target])
        .current_dir(repository_root())
        .stderr(Stdio::inherit())
        .output()
        .context("start cargo")?;
    ensure!(output.status.success(), "`cargo metadata` ended with {}", output.status);
    let metadata: Metadata = serde_json::from_slice(&output.stdout).context("what cargo knows")?;
    let by_name =
        metadata.packages.into_iter().map(|facts| ((facts.name.clone(), facts.version.clone()), facts));
    Ok(by_name.collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    const TARGET: &str = "x86_64-unknown-linux-gnu";

    fn bill(packages: Value) -> Bill {
        Bill { packages: serde_json::from_value(packages).unwrap(), facts: facts(TARGET).unwrap() }
    }

    /// The version of a package that cargo has locked.
    fn version(name: &str) -> String {
        let facts = facts(TARGET).unwrap();
        facts.keys().find(|(known, _)| known == name).unwrap().1.clone()
    }

    #[test]
    fn every_package_is_in_the_bill_with_its_licence_and_what_it_rests_on() {
        let bill = bill(json!([
            {"name": "anyhow", "version": version("anyhow"), "source": "crates.io"},
            {"name": "cc", "version": version("cc"), "source": "crates.io", "kind": "build"},
            {
                "name": "springtide-manager", "version": env!("CARGO_PKG_VERSION"), "source": "local",
                "dependencies": [0], "root": true,
            },
        ]));
        let document = bill.cyclone_dx().unwrap();
        let anyhow = format!("pkg:cargo/anyhow@{}", version("anyhow"));
        assert_eq!(document["metadata"]["component"]["name"], "springtide-manager");
        assert_eq!(document["metadata"]["component"]["licenses"][0]["expression"], "Apache-2.0");
        assert_eq!(document["components"][0]["purl"], anyhow.as_str());
        assert_eq!(document["components"][0]["licenses"][0]["expression"], "MIT OR Apache-2.0");
        assert_eq!(document["components"][1]["scope"], "excluded");
        assert_eq!(document["dependencies"][2]["dependsOn"], json!([anyhow]));
        let licenses = bill.licenses().unwrap();
        assert!(licenses.contains("\nanyhow ") && !licenses.contains("\ncc "), "{licenses}");
        assert!(licenses.contains("Permission is hereby granted"), "{licenses}");
    }

    #[test]
    fn a_package_without_a_licence_and_a_program_without_a_list_are_errors() {
        let unknown = bill(json!([
            {"name": "nobody-knows-it", "version": "1.0.0", "source": "crates.io"},
            {"name": "springtide-manager", "version": "0", "source": "local", "root": true},
        ]));
        let error = unknown.cyclone_dx().unwrap_err().to_string();
        assert_eq!(error, "nobody-knows-it 1.0.0 states no licence");
        // Cargo alone puts no list into the programs of tests.
        let this = fs::read(std::env::current_exe().unwrap()).unwrap();
        let error = Bill::read(&this, TARGET).unwrap_err().to_string();
        assert!(error.contains("no list of its packages"), "{error}");
    }
}
