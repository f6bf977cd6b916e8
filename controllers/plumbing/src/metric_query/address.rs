//! Where a Prometheus is.

use crate::outbound::Target;
use schemars::{Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};
use springtide_crds::common::ADDRESS_PATTERN;
use std::fmt;
use std::str::FromStr;

/// Longest address that a schema takes.
const MAX_LENGTH: usize = 256;
/// Most addresses that a list has.
const MAX_ITEMS: usize = 64;

/// Base URL of a Prometheus, as in `http://prometheus.monitoring:9090`, in one form of the several that mean the same:
/// the host in small letters, without a port that goes without saying, without a slash at the end.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Deserialize, Serialize)]
#[serde(try_from = "String", into = "String")]
pub struct Address(String);

/// Why a text is no address.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no address such as http://prometheus.monitoring:9090")]
pub struct InvalidAddress(String);

impl Address {
    /// The URL of a path of the API, which begins with a slash.
    pub(super) fn url(&self, path: &str) -> String {
        format!("{}{path}", self.0)
    }
}

impl FromStr for Address {
    type Err = InvalidAddress;

    fn from_str(text: &str) -> Result<Self, InvalidAddress> {
        let invalid = || InvalidAddress(text.chars().take(MAX_LENGTH).collect());
        let target = Target::parse(text)
            .filter(|_| text.len() <= MAX_LENGTH && !text.contains(['?', '#']))
            .ok_or_else(invalid)?;
        let scheme = if target.is_tls() { "https" } else { "http" };
        let path = target.path();
        let path = path.trim_end_matches('/');
        Ok(Self(format!("{scheme}://{}{path}", target.authority().to_ascii_lowercase())))
    }
}

impl TryFrom<String> for Address {
    type Error = InvalidAddress;

    fn try_from(text: String) -> Result<Self, InvalidAddress> {
        text.parse()
    }
}

impl From<Address> for String {
    fn from(address: Address) -> Self {
        address.0
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The schema of a list of [`Address`]es.
pub fn addresses_schema(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "array",
        "minItems": 0,
        "maxItems": MAX_ITEMS,
        "items": {"type": "string", "minLength": 1, "maxLength": MAX_LENGTH, "pattern": ADDRESS_PATTERN},
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> Address {
        text.parse().unwrap()
    }

    #[test]
    fn what_means_the_same_is_the_same() {
        for (text, same) in [
            ("http://prom:9090", "http://prom:9090"),
            ("http://Prom.Monitoring:9090/", "http://prom.monitoring:9090"),
            ("http://prom:80", "http://prom"),
            ("https://prom:443/", "https://prom"),
            ("https://prom:80", "https://prom:80"),
            ("http://thanos/query//", "http://thanos/query"),
            ("http://thanos/Query", "http://thanos/Query"),
            ("http://[FD00::1]:9090", "http://[fd00::1]:9090"),
        ] {
            assert_eq!(address(text).to_string(), same);
            assert_eq!(address(same), address(text));
        }
        assert_ne!(address("http://prom"), address("https://prom"));
        assert_ne!(address("http://prom"), address("http://prom/query"));
        assert_eq!(address("http://prom/a/").url("/api/v1/query"), "http://prom/a/api/v1/query");
    }

    #[test]
    fn what_is_no_address_is_refused_by_name() {
        for text in [
            "prom:9090",
            "ftp://prom",
            "http://",
            "http://user:word@prom",
            "http://prom?a=b",
            "http://prom/#a",
            "",
        ] {
            let error = text.parse::<Address>().unwrap_err().to_string();
            assert!(error.contains(text) && error.contains("http://prometheus"), "{error}");
        }
        let long = format!("http://prom/{}", "a".repeat(300));
        assert!(long.parse::<Address>().unwrap_err().to_string().len() < 400);
    }

    proptest::proptest! {
        #[test]
        fn what_the_schema_takes_is_an_address_and_is_read_back(
            // The generator takes no anchors.
            text in proptest::string::string_regex(ADDRESS_PATTERN.trim_matches(['^', '$'])).unwrap(),
        ) {
            match text.parse::<Address>() {
                Ok(address) => proptest::prop_assert_eq!(address.to_string().parse(), Ok(address)),
                // An authority in brackets may still be no address.
                Err(error) => proptest::prop_assert!(text.contains('[') || text.len() > MAX_LENGTH, "{}", error),
            }
        }
    }
}
