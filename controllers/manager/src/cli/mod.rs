//! The commands for people, beside the manager itself.
//!
//! Those that only read ([`explain`], [`status`], [`plan`]) say all that they have to say in one value, which is
//! printed as text, JSON or YAML; what could not be read for want of rights is part of it. [`watch`] says it as it comes.
//! A verb has its options here, and what it says of a kind in that kind's room: [`batch`], [`upgrade`],
//! [`timeshare`].

mod batch;
pub(crate) mod explain;
mod following;
mod manifest;
pub(crate) mod noop;
pub(crate) mod plan;
mod read;
pub(crate) mod release;
mod screen;
pub(crate) mod status;
mod text;
mod timeshare;
mod upgrade;
pub(crate) mod watch;
mod writes;

use anyhow::{Context, Result, bail};
use clap::{Args, ValueEnum};
use jiff::Timestamp;
use serde::Serialize;
use springtide_manager::config::ManagerConfiguration;
use std::path::PathBuf;
use std::process::ExitCode;

/// Version of the JSON and YAML that the commands print.
pub(crate) const API_VERSION: &str = "cli.springtide.dev/v1alpha1";

/// Where the API server is, and which namespace is meant: the options of kubectl.
#[derive(Args)]
pub(crate) struct ConnectionArgs {
    /// Namespace; that of the kubeconfig's context when absent.
    #[arg(short, long)]
    pub(crate) namespace: Option<String>,
    /// Kubeconfig file. Without it: KUBECONFIG, ~/.kube/config, then the pod's service account.
    #[arg(long)]
    pub(crate) kubeconfig: Option<PathBuf>,
    /// Context of the kubeconfig.
    #[arg(long)]
    pub(crate) context: Option<String>,
}

/// For which manager something is computed, and when.
#[derive(Args)]
pub(crate) struct RehearsalArgs {
    /// Computes as if it were this time (RFC 3339), and nothing else had happened until then.
    #[arg(long, value_name = "TIME")]
    at: Option<Timestamp>,
    /// The manager's configuration file, where it changes the built-in queue, how long finished jobs stay, or by which
    /// image images are pulled ahead.
    #[arg(long, value_name = "FILE")]
    manager_config: Option<PathBuf>,
}

impl RehearsalArgs {
    fn time(&self) -> Timestamp {
        self.at.unwrap_or_else(Timestamp::now)
    }

    /// The manager's configuration, where a file of it is named.
    fn configuration(&self) -> Result<Option<ManagerConfiguration>> {
        let Some(path) = &self.manager_config else { return Ok(None) };
        let name = || format!("--manager-config {}", path.display());
        let text = std::fs::read_to_string(path).with_context(name)?;
        ManagerConfiguration::parse(&text).with_context(name).map(Some)
    }
}

/// How an answer is printed.
#[derive(Args)]
pub(crate) struct OutputArgs {
    /// How the answer is printed.
    #[arg(short, long, value_enum, default_value_t = Format::Text)]
    output: Format,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    /// For people; not for programs, as it may change with any release.
    Text,
    /// JSON.
    Json,
    /// YAML.
    Yaml,
}

impl OutputArgs {
    fn render<T: Serialize>(&self, answer: &T, text: impl FnOnce() -> String) -> Result<String> {
        Ok(match self.output {
            Format::Text => text(),
            Format::Json => serde_json::to_string_pretty(answer)? + "\n",
            Format::Yaml => serde_yaml::to_string(answer)?,
        })
    }
}

/// How things stand, as the exit code of a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Verdict {
    /// All is well.
    Fine,
    /// Something waits, or goes on.
    NotReady,
    /// Something needs a person.
    Stalled,
}

impl From<Verdict> for ExitCode {
    fn from(verdict: Verdict) -> Self {
        match verdict {
            Verdict::Fine => Self::SUCCESS,
            Verdict::NotReady => Self::from(2),
            Verdict::Stalled => Self::from(3),
        }
    }
}

/// The kinds that a command may be asked about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TargetKind {
    BatchJob,
    BatchQueue,
    InPlaceUpgrade,
    TimeShareGroup,
}

/// One object, as a command line names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Target {
    pub(crate) kind: TargetKind,
    pub(crate) name: String,
}

/// One object, or all of a kind, as a command line names them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Subject {
    pub(crate) kind: TargetKind,
    pub(crate) name: Option<String>,
}

impl std::str::FromStr for TargetKind {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        let word = text.to_ascii_lowercase();
        Ok(match word.strip_suffix(".springtide.dev").unwrap_or(&word) {
            "bj" | "batchjob" | "batchjobs" => Self::BatchJob,
            "bq" | "batchqueue" | "batchqueues" => Self::BatchQueue,
            "ipu" | "inplaceupgrade" | "inplaceupgrades" => Self::InPlaceUpgrade,
            "tsg" | "timesharegroup" | "timesharegroups" => Self::TimeShareGroup,
            _ => bail!(
                "{text} is neither batchjob (bj), batchqueue (bq), inplaceupgrade (ipu) nor timesharegroup (tsg)"
            ),
        })
    }
}

impl std::str::FromStr for Target {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        let Some((kind, name)) = text.split_once('/').filter(|(_, name)| !name.is_empty()) else {
            bail!("KIND/NAME is asked for, such as bj/hello, bq/default, ipu/web or tsg/double11")
        };
        Ok(Self { kind: kind.parse()?, name: name.to_owned() })
    }
}

impl std::str::FromStr for Subject {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        if !text.contains('/') {
            return Ok(Self { kind: text.parse()?, name: None });
        }
        let Target { kind, name } = text.parse()?;
        Ok(Self { kind, name: Some(name) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn objects_are_named_as_kubectl_has_it() {
        for text in ["bj/a", "batchjob/a", "BatchJobs/a", "batchjobs.springtide.dev/a"] {
            let target: Target = text.parse().unwrap();
            assert_eq!((target.kind, target.name.as_str()), (TargetKind::BatchJob, "a"));
        }
        assert_eq!("bq/default".parse::<Target>().unwrap().kind, TargetKind::BatchQueue);
        for text in ["ipu/web", "InPlaceUpgrade/web", "inplaceupgrades.springtide.dev/web"] {
            assert_eq!(text.parse::<Target>().unwrap().kind, TargetKind::InPlaceUpgrade);
        }
        for text in ["tsg/double11", "TimeShareGroup/double11", "timesharegroups.springtide.dev/double11"] {
            assert_eq!(text.parse::<Target>().unwrap().kind, TargetKind::TimeShareGroup);
        }
        for text in ["a", "bj/", "job/a"] {
            text.parse::<Target>().unwrap_err();
        }
    }

    #[test]
    fn a_kind_alone_names_all_of_it() {
        let all: Subject = "ipu".parse().unwrap();
        assert_eq!(all, Subject { kind: TargetKind::InPlaceUpgrade, name: None });
        let one: Subject = "bq/default".parse().unwrap();
        assert_eq!(one, Subject { kind: TargetKind::BatchQueue, name: Some("default".to_owned()) });
        for text in ["", "jobs", "ipu/", "a/b"] {
            text.parse::<Subject>().unwrap_err();
        }
    }
}
