//! Clients, kubectl, namespaces and CRDs of a running cluster.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Output, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use k8s_openapi::api::core::v1::{Namespace, ServiceAccount};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{Api, ObjectMeta, Patch, PatchParams, PostParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::runtime::wait::{await_condition, conditions};
use tokio::io::AsyncWriteExt;

use super::{LocalCluster, READY};

/// The user agent of this library's own requests.
const USER_AGENT: &str = "springtide-e2e";

/// kubectl gives it two folders of its own with a file per object, whose fields are in the order of the alphabet.
const DIFF_WITHOUT_STATUS: &str = r#"#!/bin/sh
sed -i -e '/^status:/,$d' -e '/^  resourceVersion:/d' "$1"/* "$2"/* || exit 2
exec diff -u -N "$1" "$2"
"#;

/// The client configuration of a kubeconfig file.
pub(super) async fn config(kubeconfig: &Path) -> Result<kube::Config> {
    let parsed =
        Kubeconfig::read_from(kubeconfig).with_context(|| format!("read {}", kubeconfig.display()))?;
    let mut config = kube::Config::from_custom_kubeconfig(parsed, &KubeConfigOptions::default())
        .await
        .with_context(|| format!("use {}", kubeconfig.display()))?;
    // A hidden retry would make the audit log disagree with the caller's count.
    config.default_retry = false;
    Ok(config)
}

/// A client that shows `user_agent`.
pub(super) fn client(config: &kube::Config, user_agent: &str) -> Result<kube::Client> {
    let mut config = config.clone();
    let value = http::HeaderValue::from_str(user_agent)
        .with_context(|| format!("{user_agent:?} is not a user agent"))?;
    config.headers.push((http::header::USER_AGENT, value));
    kube::Client::try_from(config).context("make a client")
}

impl LocalCluster {
    /// Client configuration of an administrator, without kube's own retries.
    #[must_use]
    pub fn config(&self) -> kube::Config {
        self.config.clone()
    }

    /// A client of an administrator with connections of its own; `user_agent` is
    /// how the audit log tells it from others. It belongs to the calling runtime.
    ///
    /// # Errors
    /// `user_agent` is not a header value.
    pub fn client(&self, user_agent: &str) -> Result<kube::Client> {
        client(&self.config, user_agent)
    }

    /// Writes a kubeconfig for a user of a group into the state folder.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn kubeconfig_for(&self, user: &str, group: &str) -> Result<std::path::PathBuf> {
        let name = user.replace(|c: char| !c.is_ascii_alphanumeric(), "-");
        let certificate = self.pki.client(&name, user, group)?;
        let path = self.folder.join(format!("{name}.kubeconfig"));
        self.pki.kubeconfig(&path, &format!("https://{}", self.address), &certificate)?;
        Ok(path)
    }

    /// Runs kubectl as administrator and gives its output, whatever its exit status.
    ///
    /// # Errors
    /// It cannot be run.
    pub async fn kubectl(&self, args: &[&str]) -> Result<Output> {
        self.run_kubectl(args, "", &[]).await
    }

    /// Runs kubectl as administrator in a namespace and gives what it prints.
    ///
    /// # Errors
    /// It fails, or does not end.
    pub async fn kubectl_in(&self, namespace: &str, args: &[&str]) -> Result<String> {
        let args = [&["--namespace", namespace], args].concat();
        let output = tokio::time::timeout(READY, self.kubectl(&args)).await;
        let output = output.with_context(|| format!("kubectl {args:?} does not end"))??;
        if !output.status.success() {
            bail!("kubectl {args:?}: {}", String::from_utf8_lossy(&output.stderr));
        }
        Ok(String::from_utf8(output.stdout)?)
    }

    /// What `kubectl diff` with these arguments finds; empty where nothing differs. Status is left alone: it
    /// may change between kubectl's look at an object and its trial of the change.
    ///
    /// # Errors
    /// It cannot be run, or cannot tell.
    pub async fn differences(&self, args: &[&str]) -> Result<String> {
        let program = self.folder.join("diff-without-status");
        std::fs::write(&program, DIFF_WITHOUT_STATUS)
            .and_then(|()| std::fs::set_permissions(&program, Permissions::from_mode(0o755)))
            .with_context(|| format!("write {}", program.display()))?;
        let environment = [("KUBECTL_EXTERNAL_DIFF", program.as_path())];
        let output = self.run_kubectl(&[&["diff"], args].concat(), "", &environment).await?;
        match output.status.code() {
            Some(0 | 1) => Ok(String::from_utf8(output.stdout)?),
            Some(_) | None => bail!("kubectl diff: {}", String::from_utf8_lossy(&output.stderr).trim()),
        }
    }

    /// Applies manifests (YAML or JSON, any number of documents) by server-side apply.
    ///
    /// # Errors
    /// A manifest is refused; the error is kubectl's.
    pub async fn apply(&self, manifests: &str) -> Result<()> {
        let args = ["apply", "--server-side", "-f", "-"];
        let output = self.run_kubectl(&args, manifests, &[]).await?;
        if !output.status.success() {
            bail!("kubectl apply: {}", String::from_utf8_lossy(&output.stderr).trim());
        }
        Ok(())
    }

    async fn run_kubectl(&self, args: &[&str], input: &str, environment: &[(&str, &Path)]) -> Result<Output> {
        let mut child = tokio::process::Command::new(self.binaries.path("kubectl")?)
            .args(args)
            .env("KUBECONFIG", self.kubeconfig_path())
            // The default is in the user's home, and keeps discovery of other clusters.
            .env("KUBECACHEDIR", self.folder.join("kubectl-cache"))
            .envs(environment.iter().copied())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .context("start kubectl")?;
        if let Some(mut stdin) = child.stdin.take() {
            // One that does not read its input says why on stderr.
            let _ = stdin.write_all(input.as_bytes()).await;
        }
        child.wait_with_output().await.context("run kubectl")
    }

    /// Makes a namespace `<prefix>-<random>` in which pods can be created at once.
    ///
    /// # Errors
    /// `prefix` is not a DNS label, or the service account does not come.
    pub async fn create_namespace(&self, prefix: &str) -> Result<String> {
        let namespaces: Api<Namespace> = Api::all(self.client(USER_AGENT)?);
        let namespace = Namespace {
            metadata: ObjectMeta { generate_name: Some(format!("{prefix}-")), ..ObjectMeta::default() },
            ..Namespace::default()
        };
        let created = namespaces
            .create(&PostParams::default(), &namespace)
            .await
            .with_context(|| format!("create a namespace {prefix}-…"))?;
        let name = created.metadata.name.context("a namespace has a name")?;
        self.wait_service_account(&name).await?;
        Ok(name)
    }

    /// Waits for the service account `default` of a namespace, without which no pod
    /// is admitted. Makes it where no controller manager does.
    pub(super) async fn wait_service_account(&self, namespace: &str) -> Result<()> {
        let accounts: Api<ServiceAccount> = Api::namespaced(self.client(USER_AGENT)?, namespace);
        if self.controller_manager.is_none() {
            let account = ServiceAccount {
                metadata: ObjectMeta { name: Some("default".into()), ..ObjectMeta::default() },
                ..ServiceAccount::default()
            };
            return match accounts.create(&PostParams::default(), &account).await {
                Ok(_) => Ok(()),
                Err(kube::Error::Api(status)) if status.code == 409 => Ok(()),
                Err(error) => Err(error).context("create the default service account"),
            };
        }
        let waited = tokio::time::timeout(
            READY,
            await_condition(accounts, "default", |account: Option<&ServiceAccount>| account.is_some()),
        );
        match waited.await {
            Ok(found) => found.map(drop).context("watch the service account"),
            Err(_) => bail!(
                "namespace {namespace} has no default service account after {READY:?}; kube-controller-manager's log ends with:\n{}",
                self.controller_manager.as_ref().map(crate::process::Child::log_tail).unwrap_or_default()
            ),
        }
    }

    /// Installs the CRDs of every Springtide kind and waits until they are served.
    ///
    /// # Errors
    /// The server refuses one, or does not establish it in time.
    pub async fn install_crds(&self) -> Result<()> {
        let crds: Api<CustomResourceDefinition> = Api::all(self.client(USER_AGENT)?);
        let params = PatchParams::apply(USER_AGENT).force();
        for kind in springtide_crds::all() {
            let name = kind.crd.metadata.name.clone().unwrap_or_default();
            crds.patch(&name, &params, &Patch::Apply(&kind.crd))
                .await
                .with_context(|| format!("install the CRD {name}"))?;
            let established = await_condition(crds.clone(), &name, conditions::is_crd_established());
            tokio::time::timeout(Duration::from_secs(60), established)
                .await
                .with_context(|| format!("the CRD {name} was not established within 60 s"))?
                .with_context(|| format!("watch the CRD {name}"))?;
        }
        Ok(())
    }
}
