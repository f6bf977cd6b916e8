//! The commands for people, run as people run them.

use std::path::Path;
use std::process::{Output, Stdio};

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use tokio::io::AsyncWriteExt;
use tokio::process::{Child, Command};

use crate::local_cluster::LocalCluster;
use crate::manager::{USER_AGENT, springtide_binary};
use crate::oracle::feed::PATIENCE;
use crate::write_count::WriteCount;

/// Exit code where all is well, as `docs/cli.md` has it.
pub const FINE: i32 = 0;
/// Exit code of an error.
pub const ERROR: i32 = 1;
/// Exit code where something waits.
pub const NOT_READY: i32 = 2;
/// Exit code where something needs a person.
pub const STALLED: i32 = 3;
/// Exit code of a run that was rolled back.
pub const ROLLED_BACK: i32 = 4;
/// Exit code of a command that SIGINT has ended.
pub const INTERRUPTED: i32 = 130;

/// Starts a command in a namespace. It ends with the test at the latest.
///
/// # Errors
/// The program cannot be built or started.
pub async fn start(kubeconfig: &Path, namespace: &str, args: &[&str]) -> Result<Child> {
    let child = Command::new(springtide_binary().await?)
        .args(args)
        .args(["--namespace", namespace, "--kubeconfig"])
        .arg(kubeconfig)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()?;
    Ok(child)
}

/// Waits for the end of a command.
///
/// # Errors
/// It does not come to that.
pub async fn ended(child: Child) -> Result<Output> {
    tokio::time::timeout(PATIENCE, child.wait_with_output()).await?.context("run springtide")
}

/// Runs a command in a namespace, with this on its standard input.
///
/// # Errors
/// It cannot be started, or does not end.
pub async fn springtide(kubeconfig: &Path, namespace: &str, args: &[&str], input: &str) -> Result<Output> {
    let mut child = start(kubeconfig, namespace, args).await?;
    if let Some(mut stdin) = child.stdin.take() {
        // One that does not read its input says why on stderr.
        let _ = stdin.write_all(input.as_bytes()).await;
    }
    ended(child).await
}

/// What a command has said, standard output first.
#[must_use]
pub fn said(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// The JSON of a command that ends with this code.
///
/// # Errors
/// It ends with another one, or says something else.
pub async fn answer(
    kubeconfig: &Path,
    namespace: &str,
    args: &[&str],
    input: &str,
    code: i32,
) -> Result<Value> {
    let args = [args, &["-o", "json"]].concat();
    let output = springtide(kubeconfig, namespace, &args, input).await?;
    ensure!(output.status.code() == Some(code), "{args:?} ended with {}: {}", output.status, said(&output));
    serde_json::from_slice(&output.stdout).with_context(|| format!("{args:?}: {}", said(&output)))
}

/// All requests of a command, of whichever test: most are on no namespace.
///
/// # Errors
/// The audit log cannot be read.
pub fn asked(cluster: &LocalCluster, command: &str) -> Result<WriteCount> {
    let ours = |agent: &str| agent.starts_with(USER_AGENT) && agent.split(' ').nth(1) == Some(command);
    Ok(cluster.audit_log()?.all()?.filter(|request| ours(&request.user_agent)))
}

/// Gives a user the role `view` of a namespace, with the rights to view these kinds of ours, and a kubeconfig.
///
/// # Errors
/// The roles are refused, or do not come to be of effect.
pub async fn viewer(cluster: &LocalCluster, namespace: &str, kinds: &[&str]) -> Result<std::path::PathBuf> {
    for kind in kinds {
        let path = crate::helm::checkout("config/rbac").join(format!("{kind}-viewer-role.yaml"));
        let role = std::fs::read_to_string(&path).with_context(|| format!("{}", path.display()))?;
        cluster.apply(&role).await?;
    }
    let binding = serde_json::json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding",
        "metadata": {"name": "viewer", "namespace": namespace},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "view"},
        "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": "viewer"}],
    });
    cluster.apply(&binding.to_string()).await?;
    let kubeconfig = cluster.kubeconfig_for("viewer", "viewers")?;
    let path = kubeconfig.to_str().context("a path")?;
    // What is added to a role is collected by a controller.
    crate::polling::until(PATIENCE, "the role view comes to have our kinds", async || {
        let ours = kinds.iter().map(|kind| format!("{kind}s.springtide.dev"));
        for kind in ours.chain(["pods".to_owned()]) {
            let args = ["--kubeconfig", path, "--namespace", namespace, "auth", "can-i", "list", &kind];
            if !cluster.kubectl(&args).await?.status.success() {
                return Ok(None);
            }
        }
        Ok(Some(()))
    })
    .await?;
    Ok(kubeconfig)
}
