//! The command line of `springtide manager`: where the API server and the configuration file are, and what
//! of the file is overridden.

use crate::config::{LogFormat, ManagerConfiguration};
use anyhow::{Context, Result};
use clap::{Args, FromArgMatches, ValueEnum};
use springtide_plumbing::guard::Mode;
use springtide_plumbing::lease::LeaseTimes;
use springtide_plumbing::traces::Traces;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

/// Options of `springtide manager`. Those that the configuration file has too override it; what neither
/// says has the defaults of the file.
#[derive(Args)]
pub struct ManagerArgs {
    /// Configuration file (YAML); see docs/reference/configuration.md.
    #[arg(long)]
    pub(crate) config: Option<PathBuf>,
    /// Controllers to run, separated by commas, and no others.
    #[arg(long, value_enum, value_delimiter = ',')]
    controllers: Vec<ControllerName>,
    /// Kubeconfig file. Without it: KUBECONFIG, ~/.kube/config, then the pod's service account.
    #[arg(long)]
    pub(crate) kubeconfig: Option<PathBuf>,
    /// Context of the kubeconfig.
    #[arg(long)]
    pub(crate) context: Option<String>,
    /// Controllers that only observe, separated by commas: their plans are made and counted, nothing is
    /// written.
    #[arg(long, value_enum, value_delimiter = ',')]
    observe: Vec<ControllerName>,
    /// A file that stops all writes but those of the Lease for as long as it is there, whatever is in it.
    #[arg(long)]
    pub(crate) brake_file: Option<PathBuf>,
    /// Keys that one controller works on at once.
    #[arg(long)]
    workers: Option<usize>,
    /// Factor on all rates and bursts of the write budget but that of one object's status, 0.01 to 1000.
    #[arg(long, value_parser = budget_factor)]
    write_budget_factor: Option<f64>,
    /// Namespace of the Lease and of the ConfigMaps springtide-brake and springtide-breaker.
    #[arg(long)]
    lease_namespace: Option<String>,
    /// Duration, renew deadline and retry period of the Lease in seconds, for tests: a write takes up to 10 s,
    /// which the bounds of the configuration file leave room for.
    #[arg(long, hide = true, value_parser = lease_times)]
    pub(crate) lease_times: Option<LeaseTimes>,
    /// Runs without leader election: only where no second manager can exist.
    #[arg(long)]
    no_leader_election: bool,
    /// Address of /livez, /readyz and /metrics; port 0 takes a free one.
    #[arg(long)]
    health_address: Option<SocketAddr>,
    /// Name of this process in its Lease and in its user agents; the host name and a random number when absent.
    #[arg(long)]
    pub(crate) identity: Option<String>,
    /// error, warn, info, debug, trace, or a filter as in RUST_LOG.
    #[arg(long, env = "SPRINGTIDE_LOG")]
    log_level: Option<String>,
    /// How log lines look.
    #[arg(long, value_enum)]
    log_format: Option<LogFormat>,
}

/// The controllers of the suite.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum ControllerName {
    /// BatchJob.
    BatchJob,
    /// InPlaceUpgrade.
    InPlaceUpgrade,
    /// TimeShareGroup.
    TimeShareGroup,
}

/// The controllers that are to run.
pub(crate) fn enabled(configuration: &ManagerConfiguration) -> Vec<ControllerName> {
    let controllers = &configuration.controllers;
    let is_enabled = |name: &ControllerName| match name {
        ControllerName::BatchJob => controllers.batch_job.enabled,
        ControllerName::InPlaceUpgrade => controllers.in_place_upgrade.enabled,
        ControllerName::TimeShareGroup => controllers.time_share_group.enabled,
    };
    ControllerName::value_variants().iter().copied().filter(is_enabled).collect()
}

/// Whether a controller's plans are performed.
pub(crate) fn mode(controller: ControllerName, configuration: &ManagerConfiguration) -> Mode {
    match controller {
        ControllerName::BatchJob => configuration.controllers.batch_job.mode,
        ControllerName::InPlaceUpgrade => configuration.controllers.in_place_upgrade.mode,
        ControllerName::TimeShareGroup => configuration.controllers.time_share_group.mode,
    }
}

/// Options with what the configuration file says beside them.
pub struct Configured {
    pub(crate) args: ManagerArgs,
    /// The text of the file; `None` without one.
    pub(crate) text: Option<String>,
    /// What both say together.
    pub configuration: ManagerConfiguration,
}

impl Configured {
    /// Name of this process: in its Lease, its user agents and its traces.
    pub(crate) fn identity(&mut self) -> &str {
        self.args.identity.get_or_insert_with(identity)
    }

    /// The way of traces to a collector, if one is configured.
    ///
    /// # Errors
    /// The environment asks for what the exporter cannot do.
    pub fn traces(&mut self) -> Result<Option<Traces>> {
        let Some(endpoint) = self.configuration.tracing.endpoint()? else { return Ok(None) };
        let traces = Traces::to(&endpoint, self.identity(), env!("CARGO_PKG_VERSION"));
        traces
            .map(Some)
            .context("tracing.otlpEndpoint: the variables OTEL_* of the environment do not go with it")
    }
}

/// A name that no other process bears: two managers on one host must not take each other for themselves.
fn identity() -> String {
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    format!("{}-{:08x}", host.trim(), rand::random::<u32>())
}

impl ManagerArgs {
    /// Reads the configuration file, if there is one.
    ///
    /// # Errors
    /// It cannot be read, it is no configuration, or a value is out of bounds; the error names the field.
    pub fn read(self) -> Result<Configured> {
        let text = self.read_file()?;
        let configuration = self.configuration(text.as_deref())?;
        Ok(Configured { args: self, text, configuration })
    }

    /// What stands on a command line behind `springtide manager`.
    ///
    /// # Errors
    /// It is no such line.
    pub fn of_line<'a>(words: impl IntoIterator<Item = &'a str>) -> Result<Self, clap::Error> {
        let command = Self::augment_args(clap::Command::new("manager"));
        Self::from_arg_matches(&command.try_get_matches_from(["manager"].into_iter().chain(words))?)
    }

    /// The text of the configuration file; `None` without one.
    ///
    /// # Errors
    /// It cannot be read.
    pub(crate) fn read_file(&self) -> Result<Option<String>> {
        let Some(path) = &self.config else { return Ok(None) };
        let text = std::fs::read_to_string(path).with_context(|| format!("--config {}", path.display()))?;
        Ok(Some(text))
    }

    /// What the text of the file and these options say together.
    ///
    /// # Errors
    /// The text is no configuration, or a value is out of bounds; the error names the field.
    pub(crate) fn configuration(&self, text: Option<&str>) -> Result<ManagerConfiguration> {
        let mut configuration =
            text.map_or_else(|| Ok(ManagerConfiguration::default()), ManagerConfiguration::parse);
        if let Ok(configuration) = &mut configuration {
            self.override_in(configuration);
        }
        let configuration = configuration.and_then(|read| read.check().map(|()| read));
        configuration.map_err(anyhow::Error::from).with_context(|| match &self.config {
            Some(path) => format!("--config {}", path.display()),
            None => "the options".to_owned(),
        })
    }

    fn override_in(&self, configuration: &mut ManagerConfiguration) {
        let ManagerConfiguration { controllers, leader_election, write_budget, health, logging, .. } =
            configuration;
        if !self.controllers.is_empty() {
            controllers.batch_job.enabled = self.controllers.contains(&ControllerName::BatchJob);
            controllers.in_place_upgrade.enabled = self.controllers.contains(&ControllerName::InPlaceUpgrade);
            controllers.time_share_group.enabled = self.controllers.contains(&ControllerName::TimeShareGroup);
        }
        if self.observe.contains(&ControllerName::BatchJob) {
            controllers.batch_job.mode = Mode::Observe;
        }
        if self.observe.contains(&ControllerName::InPlaceUpgrade) {
            controllers.in_place_upgrade.mode = Mode::Observe;
        }
        if self.observe.contains(&ControllerName::TimeShareGroup) {
            controllers.time_share_group.mode = Mode::Observe;
        }
        if let Some(workers) = self.workers {
            controllers.batch_job.workers = workers;
            controllers.in_place_upgrade.workers = workers;
            controllers.time_share_group.workers = workers;
        }
        if let Some(factor) = self.write_budget_factor {
            *write_budget = std::mem::take(write_budget).scaled(factor);
        }
        if let Some(namespace) = &self.lease_namespace {
            leader_election.namespace = Some(namespace.clone());
        }
        leader_election.enabled &= !self.no_leader_election;
        if let Some(address) = self.health_address {
            health.address = address;
        }
        if let Some(level) = &self.log_level {
            logging.level.clone_from(level);
        }
        if let Some(format) = self.log_format {
            logging.format = format;
        }
    }
}

fn lease_times(text: &str) -> Result<LeaseTimes, String> {
    let times: Option<Vec<_>> =
        text.split(',').map(|part| Duration::try_from_secs_f64(part.parse().ok()?).ok()).collect();
    match times.as_deref() {
        Some(&[duration, renew_deadline, retry_period])
            if duration > renew_deadline && renew_deadline > retry_period && !retry_period.is_zero() =>
        {
            Ok(LeaseTimes { duration, renew_deadline, retry_period })
        }
        Some(_) | None => Err("three falling numbers of seconds, as in 30,20,5".to_owned()),
    }
}

fn budget_factor(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(factor) if (0.01..=1000.0).contains(&factor) => Ok(factor),
        Ok(_) | Err(_) => Err("a number from 0.01 to 1000".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    const FILE: &str = "
        apiVersion: config.springtide.dev/v1alpha1
        kind: ManagerConfiguration
        controllers: {batchJob: {workers: 3}}
        leaderElection: {namespace: of-the-file}
        logging: {level: warn}
    ";

    fn configuration(args: &[&str], text: Option<&str>) -> Result<ManagerConfiguration> {
        ManagerArgs::of_line(args.iter().copied())?.configuration(text)
    }

    #[test]
    fn options_override_the_file_and_the_file_the_defaults() {
        let args =
            ["--lease-namespace", "of-the-line", "--health-address", "127.0.0.1:0", "--log-level", "debug"];
        let configured = configuration(&args, Some(FILE)).unwrap();
        let defaults = ManagerConfiguration::default();
        assert_eq!(configured.controllers.batch_job.workers, 3);
        assert_eq!(configured.leader_election.namespace.as_deref(), Some("of-the-line"));
        assert!(configured.leader_election.enabled);
        assert_eq!(configured.health.address.to_string(), "127.0.0.1:0");
        assert_eq!(configured.logging.level, "debug");
        assert_eq!(configured.write_budget, defaults.write_budget);
        assert_eq!(configuration(&["--log-level", "info"], None).unwrap(), defaults);

        let configured =
            configuration(&["--no-leader-election", "--write-budget-factor", "2"], None).unwrap();
        assert!(!configured.leader_election.enabled);
        assert_eq!(configured.write_budget.process.burst, 2 * defaults.write_budget.process.burst);
    }

    #[test]
    fn what_an_option_says_is_held_against_the_same_bounds() {
        let error = configuration(&["--workers", "0", "--config", "a.yaml"], Some(FILE)).unwrap_err();
        let text = "--config a.yaml: controllers.batchJob.workers must be 1 to 256, is 0; \
                    controllers.inPlaceUpgrade.workers must be 1 to 256, is 0; \
                    controllers.timeShareGroup.workers must be 1 to 256, is 0";
        assert_eq!(format!("{error:#}"), text);
        let error = configuration(&["--log-level", "a=loud"], None).unwrap_err();
        assert!(format!("{error:#}").starts_with("the options: logging.level is no filter"), "{error:#}");
        configuration(&["--write-budget-factor", "0"], None).unwrap_err();
    }

    #[test]
    fn the_controllers_that_are_named_run_and_no_others() {
        let all = enabled(&ManagerConfiguration::default());
        assert_eq!(all, ControllerName::value_variants());
        let twice = configuration(&["--controllers", "batch-job,batch-job"], None).unwrap();
        assert_eq!(enabled(&twice), [ControllerName::BatchJob]);
        assert_eq!(mode(ControllerName::BatchJob, &twice), Mode::Act);
        let observes = configuration(&["--observe", "batch-job"], None).unwrap();
        assert_eq!(mode(ControllerName::BatchJob, &observes), Mode::Observe);
        let disabled = FILE
            .replace("workers: 3", "enabled: false")
            .replace("}}", "}, inPlaceUpgrade: {enabled: false}, timeShareGroup: {enabled: false}}");
        configuration(&[], Some(&disabled)).unwrap_err();
        let named = configuration(&["--controllers", "batch-job"], Some(&disabled)).unwrap();
        assert_eq!(enabled(&named), [ControllerName::BatchJob]);
    }
}
