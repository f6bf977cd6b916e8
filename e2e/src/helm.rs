//! The real helm, with state of its own, and what it renders as plain objects.

use std::path::{Path, PathBuf};
use std::process::Output;

use anyhow::{Context, Result, ensure};
use serde::Deserialize as _;
use serde_json::Value;

use crate::binaries::Binaries;
use crate::local_cluster::LocalCluster;
use crate::state_folder::StateFolder;

/// A folder of this checkout.
#[must_use]
pub fn checkout(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(path)
}

/// helm, on a cluster or on none.
pub struct Helm {
    program: PathBuf,
    state: StateFolder,
    kubeconfig: Option<PathBuf>,
}

impl Helm {
    /// One that only renders.
    ///
    /// # Errors
    /// There is no helm among the test binaries.
    pub fn offline() -> Result<Self> {
        Ok(Self {
            program: Binaries::locate()?.path("helm")?,
            state: StateFolder::create("helm")?,
            kubeconfig: None,
        })
    }

    /// One that installs into a cluster, as its administrator.
    ///
    /// # Errors
    /// There is no helm among the test binaries.
    pub fn on(cluster: &LocalCluster) -> Result<Self> {
        Ok(Self { kubeconfig: Some(cluster.kubeconfig_path()), ..Self::offline()? })
    }

    /// Runs it in the root of the checkout and gives its output, whatever its exit status.
    ///
    /// # Errors
    /// It cannot be run.
    pub async fn try_run(&self, args: &[&str]) -> Result<Output> {
        let mut command = tokio::process::Command::new(&self.program);
        self.environment(command.args(args)).output().await.context("run helm")
    }

    /// Runs a script in the root of the checkout, with helm and kubectl on its PATH, and stops it at the first
    /// command that fails.
    ///
    /// # Errors
    /// One does; what was said stands in the error.
    pub async fn shell(&self, script: &str) -> Result<()> {
        let path = std::env::var("PATH").unwrap_or_default();
        let path = format!("{}:{path}", Binaries::locate()?.search_path());
        let mut command = tokio::process::Command::new("bash");
        command.args(["-euo", "pipefail", "-c", script]).env("PATH", path);
        let output = self.environment(&mut command).output().await.context("run bash")?;
        let said = [output.stdout, output.stderr].concat();
        ensure!(output.status.success(), "{script}\n{}", String::from_utf8_lossy(&said));
        Ok(())
    }

    fn environment<'a>(&self, command: &'a mut tokio::process::Command) -> &'a mut tokio::process::Command {
        for name in ["CACHE", "CONFIG", "DATA"] {
            command.env(format!("HELM_{name}_HOME"), self.state.join(name));
        }
        // A user's own cluster is never meant.
        let kubeconfig = self.kubeconfig.clone().unwrap_or_else(|| self.state.join("none"));
        command
            .current_dir(checkout(""))
            .kill_on_drop(true)
            .env("KUBECONFIG", kubeconfig)
            .env("KUBECACHEDIR", self.state.join("kubectl"))
            .env_remove("HELM_NAMESPACE")
    }

    /// Runs it and gives its standard output.
    ///
    /// # Errors
    /// It fails; what it said stands in the error.
    pub async fn run(&self, args: &[&str]) -> Result<String> {
        let output = self.try_run(args).await?;
        ensure!(
            output.status.success(),
            "helm {}: {}{}",
            args.join(" "),
            String::from_utf8_lossy(&output.stderr),
            String::from_utf8_lossy(&output.stdout)
        );
        String::from_utf8(output.stdout).context("helm's output is not UTF-8")
    }
}

/// The objects of a stream of YAML documents; empty documents are none.
///
/// # Errors
/// It is no YAML.
pub fn objects(text: &str) -> Result<Vec<Value>> {
    let read: Vec<Value> =
        serde_yaml::Deserializer::from_str(text).map(Value::deserialize).collect::<Result<_, _>>()?;
    Ok(read.into_iter().filter(|object| !object.is_null()).collect())
}
