//! What containerd has, by way of its client `ctr`.

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use springtide_image::Image;

use super::config::NODE;
use super::machine::Machine;
use super::real_node::READY;
use crate::process::tail;

/// The client of a node's containerd. It goes on where that is started again.
#[derive(Clone, Debug)]
pub(super) struct Ctr {
    pub(super) program: PathBuf,
    /// What containerd says.
    pub(super) log: PathBuf,
}

impl Ctr {
    /// Runs it in the namespace of Kubernetes.
    pub(super) fn run(&self, machine: &Machine, arguments: &[&str]) -> Result<String> {
        machine.run(&self.program, &[&["--namespace", "k8s.io"], arguments].concat())
    }

    /// Imports images and waits until the kubelet's side of containerd knows them.
    pub(super) async fn import(&self, machine: &Machine, images: &[Image]) -> Result<()> {
        for (number, image) in images.iter().enumerate() {
            let name = format!("image-{number}.tar");
            let path = machine.node_folder().join(&name);
            fs::write(&path, &image.archive).with_context(|| format!("write {}", path.display()))?;
            let imported = self.run(machine, &["images", "import", &format!("{NODE}/{name}")]);
            fs::remove_file(&path)?;
            imported.with_context(|| format!("import the image {}", image.reference))?;
        }
        // Its own store follows the import by an event.
        let wanted: BTreeSet<&str> = images.iter().map(|image| &*image.reference).collect();
        let deadline = tokio::time::Instant::now() + READY;
        loop {
            let known =
                self.run(machine, &["images", "ls", "-q", r#"labels."io.cri-containerd.image"==managed"#])?;
            let known: BTreeSet<&str> = known.lines().collect();
            let missing: Vec<&&str> = wanted.difference(&known).collect();
            if missing.is_empty() {
                return Ok(());
            }
            ensure!(
                tokio::time::Instant::now() < deadline,
                "containerd does not offer {missing:?} to the kubelet; its log ends with:\n{}",
                tail(&self.log).unwrap_or_default()
            );
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Takes an image away under every name that it has, as the kubelet does that collects what no container needs.
    pub(super) fn remove(&self, machine: &Machine, reference: &str) -> Result<()> {
        let listed = self.run(machine, &["images", "ls"])?;
        // REF TYPE DIGEST and more, below a header.
        let row = |line| {
            let mut fields = str::split_whitespace(line);
            Some((fields.next()?, fields.nth(1)?))
        };
        let rows: Vec<(&str, &str)> = listed.lines().skip(1).filter_map(row).collect();
        let of_image = rows.iter().find(|(name, _)| *name == reference);
        let (_, digest) = of_image.with_context(|| format!("the node has no image {reference}"))?;
        let names = rows.iter().filter(|(_, other)| other == digest).map(|(name, _)| *name);
        let arguments: Vec<&str> = ["images", "rm", "--sync"].into_iter().chain(names).collect();
        self.run(machine, &arguments).map(drop)
    }
}
