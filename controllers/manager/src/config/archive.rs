//! What holds for archives of finished jobs.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use springtide_batch_job::archive::DeliverySettings;
use springtide_plumbing::outbound::address::cidrs_schema;
use springtide_plumbing::outbound::{AddressPolicy, Cidr};

/// What holds for the archives of finished jobs that BatchQueues ask for.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
pub struct ArchiveSettings {
    /// File of the certificates (PEM) of the authorities that sinks are trusted by; where there is no such file, those of
    /// the system, of which the image has none.
    #[schemars(length(min = 1, max = 1024))]
    pub ca_file: String,
    /// Internal addresses that lines may be posted to, as CIDRs: without, no queue reaches what is loopback, private or
    /// link-local, so neither Services, pods and nodes nor the metadata server of a cloud.
    #[schemars(schema_with = "cidrs_schema")]
    pub allowed_cidrs: Vec<Cidr>,
    /// Addresses that no line is posted to, whatever else holds, as CIDRs: those of Services, pods and nodes where they
    /// are public ones.
    #[schemars(schema_with = "cidrs_schema")]
    pub refused_cidrs: Vec<Cidr>,
}

impl Default for ArchiveSettings {
    fn default() -> Self {
        Self {
            ca_file: "/etc/springtide-archive/ca.crt".to_owned(),
            allowed_cidrs: Vec::new(),
            refused_cidrs: Vec::new(),
        }
    }
}

impl From<&ArchiveSettings> for DeliverySettings {
    fn from(settings: &ArchiveSettings) -> Self {
        let ArchiveSettings { ca_file, allowed_cidrs, refused_cidrs } = settings;
        Self {
            ca_file: ca_file.into(),
            addresses: AddressPolicy { allowed: allowed_cidrs.clone(), refused: refused_cidrs.clone() },
        }
    }
}
