//! Whom the manager may ask for metrics.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use springtide_plumbing::metric_query::{Address, QuerySettings, addresses_schema};

/// Whom the manager may ask for metrics that objects name as guards of their work.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
pub struct MetricQueriesConfig {
    /// Base URLs of the Prometheus servers that may be asked, as in `http://prometheus.monitoring:9090`; an object that
    /// names another one is refused. Nobody may be asked when empty.
    #[schemars(schema_with = "addresses_schema")]
    pub allowed_addresses: Vec<Address>,
    /// File of the certificates (PEM) of the authorities that https servers are trusted by; where there is no such file,
    /// those of the system, of which the image has none.
    #[schemars(length(min = 1, max = 1024))]
    pub ca_file: String,
}

impl Default for MetricQueriesConfig {
    fn default() -> Self {
        Self { allowed_addresses: Vec::new(), ca_file: "/etc/springtide-metrics/ca.crt".to_owned() }
    }
}

impl From<&MetricQueriesConfig> for QuerySettings {
    fn from(config: &MetricQueriesConfig) -> Self {
        let MetricQueriesConfig { allowed_addresses, ca_file } = config;
        Self { ca_file: ca_file.into(), allowed: allowed_addresses.clone() }
    }
}
