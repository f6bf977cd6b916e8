//! The configuration file of `springtide manager`.
//!
//! Every field has a default, and an unknown one is refused. The [schema](schema::schema) derived from these
//! types is the one source of bounds: it is published, and what the file and the flags together say
//! is [checked](ManagerConfiguration::check) against it.

mod archive;
mod bounds;
mod diff;
mod in_place_upgrade;
mod metric_queries;
pub mod schema;
mod scope;
#[cfg(test)]
mod tests;
mod time_share_group;

pub use archive::ArchiveSettings;
pub use bounds::Violation;
pub use diff::{Changes, is_live};
pub use in_place_upgrade::InPlaceUpgradeSettings;
pub use metric_queries::MetricQueriesConfig;
pub use scope::{ScopeConfig, ScopeType};
pub use time_share_group::TimeShareGroupSettings;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use springtide_batch_job::{BuiltInQueue, CohortScope, Settings};
use springtide_plumbing::breaker::Limits;
use springtide_plumbing::budget::BudgetConfig;
use springtide_plumbing::controller::DEFAULT_WORKERS;
use springtide_plumbing::executor::WRITE_DEADLINE;
use springtide_plumbing::guard::Mode;
use springtide_plumbing::lease::LeaseTimes;
use springtide_plumbing::traces::{ENDPOINT_PATTERN, Endpoint, InvalidEndpoint};
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::LevelFilter;

/// Configuration of `springtide manager`, read from the file that `--config` names.
///
/// Of a file that changes while the manager runs, what can change live is applied within seconds, and
/// the log names what waits for a restart. A file that is not valid then changes nothing.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct ManagerConfiguration {
    /// Version of this format.
    pub api_version: ApiVersion,
    /// Kind of this document.
    pub kind: ConfigurationKind,
    /// The controllers of the suite.
    #[serde(default)]
    pub controllers: Controllers,
    /// Where the controllers act.
    #[serde(default)]
    pub scope: ScopeConfig,
    /// Which of several managers writes.
    #[serde(default)]
    pub leader_election: LeaderElection,
    /// How fast the manager may write: token buckets that a write needs all at once.
    #[serde(default)]
    pub write_budget: BudgetConfig,
    /// How much a controller may destroy that nobody asked for, before it destroys nothing more.
    #[serde(default)]
    pub breaker: Limits,
    /// Whom the manager may ask for metrics that objects name as guards of their work.
    #[serde(default)]
    pub metric_queries: MetricQueriesConfig,
    /// Endpoints of the process.
    #[serde(default)]
    pub health: HealthConfig,
    /// The log, one line an event, on stderr.
    #[serde(default)]
    pub logging: Logging,
    /// Traces of what the controllers do.
    #[serde(default)]
    pub tracing: Tracing,
}

/// Version of the format.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
pub enum ApiVersion {
    /// The first one.
    #[default]
    #[serde(rename = "config.springtide.dev/v1alpha1")]
    V1Alpha1,
}

/// Kind of the document.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
pub enum ConfigurationKind {
    /// The only one.
    #[default]
    ManagerConfiguration,
}

/// The controllers of the suite.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
pub struct Controllers {
    /// The controller of BatchJob.
    pub batch_job: ControllerConfig<BatchJobSettings>,
    /// The controller of InPlaceUpgrade.
    pub in_place_upgrade: ControllerConfig<InPlaceUpgradeSettings>,
    /// The controller of TimeShareGroup.
    pub time_share_group: ControllerConfig<TimeShareGroupSettings>,
}

/// One controller.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
#[schemars(bound = "S: Default + Serialize + JsonSchema")]
pub struct ControllerConfig<S> {
    /// Whether the controller runs.
    pub enabled: bool,
    /// Whether the controller's plans are performed, or only made and counted.
    pub mode: Mode,
    /// How many objects the controller works on at once.
    #[schemars(range(min = 1, max = 256))]
    pub workers: usize,
    /// What the controller is bound by beside its objects.
    pub settings: S,
}

impl<S: Default> Default for ControllerConfig<S> {
    fn default() -> Self {
        Self { enabled: true, mode: Mode::default(), workers: DEFAULT_WORKERS, settings: S::default() }
    }
}

/// Settings of the controller of BatchJob.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
pub struct BatchJobSettings {
    /// Whether jobs run in namespaces without a BatchQueue: by the built-in queue, on all that the nodes leave.
    /// Disabled, they wait until there is a BatchQueue.
    pub built_in_queue: BuiltInQueue,
    /// Which BatchQueues of the same spec.cohort lend to each other: those of one namespace, or those of all namespaces
    /// that the manager serves.
    pub cohort_scope: CohortScope,
    /// How long a finished job of the built-in queue stays whose spec.ttlSecondsAfterFinished is absent.
    #[schemars(range(min = 0, max = 604_800))]
    pub ttl_seconds_after_finished: u32,
    /// How many finished jobs of the built-in queue are kept in one namespace; the oldest beyond that go before
    /// their time.
    #[schemars(range(min = 0, max = 1500))]
    pub history_limit: usize,
    /// What holds for the archives of finished jobs that BatchQueues ask for.
    pub archive: ArchiveSettings,
    /// How many BatchJobs of one namespace are started and told of; the newest beyond them wait until older ones are
    /// gone. Speed and memory are measured up to the defaults of the maxima.
    #[schemars(range(min = 1, max = 1_000_000))]
    pub max_jobs_per_namespace: usize,
    /// The same of all namespaces together.
    #[schemars(range(min = 1, max = 1_000_000))]
    pub max_jobs_per_cluster: usize,
    /// How many BatchQueues of one namespace work; the newest beyond them are Stalled until older ones are gone.
    #[schemars(range(min = 1, max = 100_000))]
    pub max_queues_per_namespace: usize,
    /// The same of all namespaces together.
    #[schemars(range(min = 1, max = 100_000))]
    pub max_queues_per_cluster: usize,
}

impl Default for BatchJobSettings {
    fn default() -> Self {
        let Settings {
            ttl_seconds,
            history_limit,
            built_in_queue,
            cohort_scope,
            max_per_namespace,
            max_per_cluster,
            max_queues_per_namespace,
            max_queues_per_cluster,
        } = Settings::default();
        Self {
            built_in_queue,
            cohort_scope,
            ttl_seconds_after_finished: ttl_seconds,
            history_limit,
            archive: ArchiveSettings::default(),
            max_jobs_per_namespace: max_per_namespace,
            max_jobs_per_cluster: max_per_cluster,
            max_queues_per_namespace,
            max_queues_per_cluster,
        }
    }
}

impl From<&BatchJobSettings> for Settings {
    fn from(settings: &BatchJobSettings) -> Self {
        Self {
            ttl_seconds: settings.ttl_seconds_after_finished,
            history_limit: settings.history_limit,
            built_in_queue: settings.built_in_queue,
            cohort_scope: settings.cohort_scope,
            max_per_namespace: settings.max_jobs_per_namespace,
            max_per_cluster: settings.max_jobs_per_cluster,
            max_queues_per_namespace: settings.max_queues_per_namespace,
            max_queues_per_cluster: settings.max_queues_per_cluster,
        }
    }
}

/// Which of several managers writes: the one that holds a Lease. The others keep warm.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
pub struct LeaderElection {
    /// Whether there is an election; without one, only where no second manager can exist.
    pub enabled: bool,
    /// Namespace of the Lease. When absent that of the kubeconfig's context, or the pod's own.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String", length(min = 1, max = 63))]
    pub namespace: Option<String>,
    /// How long standbys wait after the last renewal of the Lease that they saw before one of them takes it.
    #[schemars(range(min = 12, max = 3600))]
    pub lease_duration_seconds: u32,
    /// How long after its last renewal of the Lease the manager stops to write. It is less than the duration of the Lease by 10
    /// seconds or more, the longest that a write takes: so none is under way when a successor begins.
    #[schemars(range(min = 2, max = 3600))]
    pub renew_deadline_seconds: u32,
    /// Time between renewals of the Lease; less than the renew deadline.
    #[schemars(range(min = 1, max = 600))]
    pub retry_period_seconds: u32,
}

impl Default for LeaderElection {
    fn default() -> Self {
        let LeaseTimes { duration, renew_deadline, retry_period } = LeaseTimes::default();
        Self {
            enabled: true,
            namespace: None,
            lease_duration_seconds: seconds(duration),
            renew_deadline_seconds: seconds(renew_deadline),
            retry_period_seconds: seconds(retry_period),
        }
    }
}

impl LeaderElection {
    /// The times of the election.
    #[must_use]
    pub fn times(&self) -> LeaseTimes {
        let time = |seconds: u32| Duration::from_secs(seconds.into());
        LeaseTimes {
            duration: time(self.lease_duration_seconds),
            renew_deadline: time(self.renew_deadline_seconds),
            retry_period: time(self.retry_period_seconds),
        }
    }
}

fn seconds(time: Duration) -> u32 {
    u32::try_from(time.as_secs()).unwrap_or(u32::MAX)
}

/// Endpoints of the process.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
pub struct HealthConfig {
    /// IP address and port of /livez, /readyz and /metrics; port 0 takes a free one.
    #[schemars(with = "String", length(min = 1, max = 64))]
    pub address: SocketAddr,
}

impl Default for HealthConfig {
    fn default() -> Self {
        Self { address: (Ipv4Addr::UNSPECIFIED, 8080).into() }
    }
}

/// The filters of the log that the schema takes: levels, each with or without a target. The manager itself takes
/// the filters on spans too that `RUST_LOG` may have.
const FILTER: &str = "^([A-Za-z0-9_:]+=)?(off|error|warn|info|debug|trace)\
                      (,([A-Za-z0-9_:]+=)?(off|error|warn|info|debug|trace))*$";

/// The log.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
pub struct Logging {
    /// How a line of the log looks.
    pub format: LogFormat,
    /// What is logged: off, error, warn, info, debug or trace; or several with the targets that they are for, as in
    /// `info,springtide_plumbing::watch=debug`.
    #[schemars(length(min = 1, max = 1024), regex(pattern = FILTER))]
    pub level: String,
}

impl Default for Logging {
    fn default() -> Self {
        Self { format: LogFormat::default(), level: "info".to_owned() }
    }
}

/// How log lines look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema, clap::ValueEnum)]
pub enum LogFormat {
    /// One JSON object a line, for collectors.
    #[default]
    Json,
    /// For people.
    Text,
}

/// Traces: every reconcile pass as a span of OpenTelemetry.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
pub struct Tracing {
    /// Base URL of a collector that takes OTLP over HTTP, as in `http://collector.monitoring:4318`; traces go to `/v1/traces`
    /// below it. There are none when it is empty.
    #[schemars(length(min = 0, max = 1024), regex(pattern = ENDPOINT_PATTERN))]
    pub otlp_endpoint: String,
}

impl Tracing {
    /// Where traces go, if anywhere.
    ///
    /// # Errors
    /// The text is no endpoint.
    pub fn endpoint(&self) -> Result<Option<Endpoint>, InvalidEndpoint> {
        if self.otlp_endpoint.is_empty() { Ok(None) } else { self.otlp_endpoint.parse().map(Some) }
    }
}

/// A configuration that is refused. The message names the field and what it may be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidConfiguration {
    /// The text is no document of this format.
    #[error("{path}: {problem}")]
    Malformed {
        /// Path of the field, or what stands for the whole document.
        path: String,
        /// What is wrong, where, and what was expected.
        problem: String,
    },
    /// Values out of bounds, or such as do not go together.
    #[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))]
    OutOfBounds(Vec<Violation>),
}

impl ManagerConfiguration {
    /// Reads the text of a configuration file. Bounds are not checked yet.
    ///
    /// # Errors
    /// It is no YAML, or has a field that is unknown, missing, twice there or of another type.
    pub fn parse(text: &str) -> Result<Self, InvalidConfiguration> {
        serde_path_to_error::deserialize(serde_yaml::Deserializer::from_str(text)).map_err(|error| {
            let path = match error.path().to_string() {
                whole if whole == "." || whole == "?" => "the document".to_owned(),
                path => path,
            };
            // The path is also at the beginning of the parser's own message.
            let problem = error.into_inner().to_string();
            let problem = problem.strip_prefix(&format!("{path}: ")).unwrap_or(&problem).to_owned();
            InvalidConfiguration::Malformed { path, problem }
        })
    }

    /// Holds all values against the bounds of the schema, and against each other.
    ///
    /// # Errors
    /// All violations.
    pub fn check(&self) -> Result<(), InvalidConfiguration> {
        let mut violations = bounds::violations(&schema::schema(), &schema::json(self));
        violations.extend(self.scope.violations());
        violations.extend(self.contradictions());
        if violations.is_empty() { Ok(()) } else { Err(InvalidConfiguration::OutOfBounds(violations)) }
    }

    fn contradictions(&self) -> impl Iterator<Item = Violation> {
        let Self { controllers, leader_election: election, logging, tracing, .. } = self;
        let write_seconds = seconds(WRITE_DEADLINE);
        let rules = [
            (
                !controllers.batch_job.enabled
                    && !controllers.in_place_upgrade.enabled
                    && !controllers.time_share_group.enabled,
                "controllers",
                "are all disabled; enable one".to_owned(),
            ),
            (
                election.renew_deadline_seconds.saturating_add(write_seconds)
                    > election.lease_duration_seconds,
                "leaderElection.renewDeadlineSeconds",
                format!(
                    "must be at least {write_seconds} less than leaseDurationSeconds, {}",
                    election.lease_duration_seconds
                ),
            ),
            (
                election.retry_period_seconds >= election.renew_deadline_seconds,
                "leaderElection.retryPeriodSeconds",
                format!("must be less than renewDeadlineSeconds, {}", election.renew_deadline_seconds),
            ),
        ];
        let level = filter_problem(&logging.level).map(|problem| Violation::new("logging.level", problem));
        let endpoint = tracing.endpoint().err();
        let endpoint = endpoint.map(|problem| Violation::new("tracing.otlpEndpoint", problem.to_string()));
        let broken = rules.into_iter().filter(|(broken, ..)| *broken);
        broken.map(|(_, path, problem)| Violation::new(path, problem)).chain(level).chain(endpoint)
    }
}

/// What is wrong with a filter of the log. A lone word that is no level would be taken for a target, and silence
/// all others.
fn filter_problem(filter: &str) -> Option<String> {
    // Of nothing it would make the level error.
    let is_level = |word: &str| !word.is_empty() && word.parse::<LevelFilter>().is_ok();
    let target =
        filter.split(',').map(str::trim).find(|word| !word.contains(['=', '[', ']', '}']) && !is_level(word));
    match target {
        Some(target) => {
            Some(format!("is no filter: {target:?} is no level; of a target name the level, as in a=info"))
        }
        None => EnvFilter::try_new(filter).err().map(|error| format!("is no filter: {error}")),
    }
}
