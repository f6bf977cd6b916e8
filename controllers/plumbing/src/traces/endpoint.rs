//! Where a collector is.

use http::Uri;
use std::fmt;
use std::str::FromStr;

/// Where OTLP over HTTP has its traces, below the base URL.
const TRACES: &str = "/v1/traces";

/// The endpoints that a schema takes: nothing, or an `http` URL with a host, and with a port and a path if need be.
pub const ENDPOINT_PATTERN: &str = "^(http://([A-Za-z0-9]([-A-Za-z0-9.]*[A-Za-z0-9])?|\\[[0-9a-fA-F:]+\\])\
                                    (:([1-9][0-9]{0,3}|[1-5][0-9]{4}|6[0-4][0-9]{3}|65[0-4][0-9]{2}|655[0-2][0-9]|6553[0-5]))?\
                                    (/[-A-Za-z0-9._~/]*)?)?$";

/// Base URL of a collector, as in `http://collector.monitoring:4318`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint(Uri);

/// Why a text is no endpoint.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidEndpoint {
    /// No URL at all.
    #[error("must be a URL like http://collector.monitoring:4318: {0}")]
    NoUrl(String),
    /// A URL of another scheme, or without any.
    #[error(
        "must begin with http://, as in http://collector.monitoring:4318: the image has no certificates to trust; an \
         agent beside the manager can send on by TLS"
    )]
    Scheme,
    /// User and password, a query, or a port that is none.
    #[error("must have a host, and no more than a port and a path, as in http://collector.monitoring:4318")]
    Parts,
}

impl Endpoint {
    /// Where spans are posted.
    pub(super) fn traces_url(&self) -> String {
        format!("{}{TRACES}", self.to_string().trim_end_matches('/'))
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for Endpoint {
    type Err = InvalidEndpoint;

    fn from_str(text: &str) -> Result<Self, InvalidEndpoint> {
        let uri: Uri = text.parse().map_err(|error: http::uri::InvalidUri| match text.contains("://") {
            true => InvalidEndpoint::NoUrl(error.to_string()),
            false => InvalidEndpoint::Scheme,
        })?;
        let (scheme, Some(authority)) = (uri.scheme_str(), uri.authority()) else {
            return Err(InvalidEndpoint::Scheme);
        };
        if scheme != Some("http") {
            return Err(InvalidEndpoint::Scheme);
        }
        let whole = match authority.port_u16() {
            Some(port) => format!("{}:{port}", authority.host()),
            None => authority.host().to_owned(),
        };
        if authority.host().is_empty()
            || whole != authority.as_str()
            || uri.query().is_some()
            || text.contains('#')
        {
            return Err(InvalidEndpoint::Parts);
        }
        Ok(Self(uri))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_path_of_traces_stands_below_the_endpoint() {
        for (text, url) in [
            ("http://collector:4318", "http://collector:4318/v1/traces"),
            ("http://collector/", "http://collector/v1/traces"),
            ("http://[fd00::1]:4318/otlp/", "http://[fd00::1]:4318/otlp/v1/traces"),
        ] {
            assert_eq!(text.parse::<Endpoint>().unwrap().traces_url(), url);
        }
    }

    #[test]
    fn what_is_no_endpoint_is_refused_with_what_would_be_one() {
        for (text, refusal) in [
            ("collector:4318", InvalidEndpoint::Scheme),
            ("/collector", InvalidEndpoint::Scheme),
            ("https://collector:4318", InvalidEndpoint::Scheme),
            ("grpc://collector:4317", InvalidEndpoint::Scheme),
            ("http://user:word@collector", InvalidEndpoint::Parts),
            ("http://collector:0x", InvalidEndpoint::Parts),
            ("http://collector:65536", InvalidEndpoint::Parts),
            ("http://collector?a=b", InvalidEndpoint::Parts),
            ("http://collector/#a", InvalidEndpoint::Parts),
        ] {
            let found = text.parse::<Endpoint>().unwrap_err();
            let is_same = found == refusal
                // Whether the parser or we refuse it, the words are of use.
                || (refusal == InvalidEndpoint::Parts && matches!(found, InvalidEndpoint::NoUrl(_)));
            assert!(is_same && found.to_string().contains("http://"), "{text}: {found}");
        }
        assert!(matches!("http://a b".parse::<Endpoint>(), Err(InvalidEndpoint::NoUrl(_))));
    }

    proptest::proptest! {
        #[test]
        fn what_the_schema_takes_is_an_endpoint_or_nothing(
            // The generator takes no anchors.
            text in proptest::string::string_regex(ENDPOINT_PATTERN.trim_matches(['^', '$'])).unwrap(),
        ) {
            let read = text.parse::<Endpoint>();
            proptest::prop_assert!(text.is_empty() || read.is_ok(), "{}: {:?}", text, read);
        }
    }
}
