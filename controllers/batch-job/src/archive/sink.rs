//! Where lines go.

use http::Uri;
use springtide_crds::batch_queue::{Archive, ArchiveType};
use std::fmt;
use std::sync::Arc;

/// Where lines go. Queues with equal sinks share one, and wait together while it takes nothing.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Sink {
    /// The manager's standard output.
    Stdout,
    /// A URL, as the queue's spec has it.
    Http(Arc<str>),
}

impl Sink {
    /// The sink that a queue asks for, if it asks for one.
    pub fn of(archive: &Archive) -> Option<Self> {
        match (archive.type_, archive.url.as_deref()) {
            // The schema lets no HTTP pass without a URL.
            (ArchiveType::None, _) | (ArchiveType::Http, None) => None,
            (ArchiveType::Stdout, _) => Some(Self::Stdout),
            (ArchiveType::Http, Some(url)) => Some(Self::Http(Arc::from(url))),
        }
    }

    /// What it is, as a label of metrics.
    pub(super) fn kind(&self) -> &'static str {
        match self {
            Self::Stdout => "stdout",
            Self::Http(_) => "http",
        }
    }

    /// How many lines may be on their way to it at once.
    pub(super) fn most_in_flight(&self) -> usize {
        match self {
            Self::Stdout => 1,
            Self::Http(_) => 4,
        }
    }
}

impl fmt::Display for Sink {
    /// The path of a URL may hold what only its owner should know.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Stdout => f.write_str("the manager's standard output"),
            Self::Http(url) => f.write_str(Target::parse(url).map_or("the url", |target| target.host())),
        }
    }
}

/// The parts of a URL that a request needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Target<'a> {
    host: &'a str,
    port: u16,
    path: &'a str,
}

impl<'a> Target<'a> {
    /// Reads an https URL; nothing for any other text.
    pub(super) fn parse(url: &'a str) -> Option<Self> {
        let rest = url.strip_prefix("https://")?;
        let (authority, path) = rest.find(['/', '?']).map_or((rest, "/"), |at| rest.split_at(at));
        let (host, port) = match authority.rfind(':').filter(|at| !authority[*at..].contains(']')) {
            Some(at) => (&authority[..at], authority[at + 1..].parse().ok()?),
            None => (authority, 443),
        };
        let is_whole = !host.is_empty() && !authority.contains('@') && url.parse::<Uri>().is_ok();
        is_whole.then_some(Self { host, port, path })
    }

    /// The host as a URL has it: an address of IPv6 in brackets.
    pub(super) fn host(&self) -> &'a str {
        self.host
    }

    /// The host as a resolver has it.
    pub(super) fn name(&self) -> &'a str {
        self.host.trim_start_matches('[').trim_end_matches(']')
    }

    pub(super) fn port(&self) -> u16 {
        self.port
    }

    /// Path and query as a request has them.
    pub(super) fn path(&self) -> String {
        if self.path.starts_with('/') { self.path.to_owned() } else { format!("/{}", self.path) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use springtide_crds::batch_queue::ARCHIVE_URL_PATTERN;

    #[test]
    fn a_url_falls_into_its_parts() {
        for (url, host, name, port, path) in [
            ("https://sink.example.com", "sink.example.com", "sink.example.com", 443, "/"),
            ("https://sink:8443/a/b?c=d:e", "sink", "sink", 8443, "/a/b?c=d:e"),
            ("https://sink?c=d", "sink", "sink", 443, "/?c=d"),
            ("https://[2606:4700::1]:9/a", "[2606:4700::1]", "2606:4700::1", 9, "/a"),
            ("https://[2606:4700::1]", "[2606:4700::1]", "2606:4700::1", 443, "/"),
        ] {
            let target = Target::parse(url).unwrap();
            let parts = (target.host(), target.name(), target.port(), target.path());
            assert_eq!(parts, (host, name, port, path.to_owned()), "{url}");
        }
        for url in ["http://sink", "https://", "https://user:word@sink/", "https://sink:70000", "https://a b"]
        {
            assert_eq!(Target::parse(url), None, "{url}");
        }
    }

    #[test]
    fn messages_name_the_host_and_not_what_a_path_may_hold() {
        let sink = Sink::Http("https://sink.example.com:8443/secret?token=1".into());
        assert_eq!(sink.to_string(), "sink.example.com");
    }

    proptest::proptest! {
        #[test]
        fn what_the_schema_takes_has_parts(
            // The generator takes no anchors.
            url in proptest::string::string_regex(ARCHIVE_URL_PATTERN.trim_matches(['^', '$'])).unwrap(),
        ) {
            let target = Target::parse(&url);
            // An authority in brackets may still be no address.
            proptest::prop_assert!(target.is_some() || url.contains('['), "{}", url);
        }
    }
}
