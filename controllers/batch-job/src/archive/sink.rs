//! Where lines go.

use springtide_crds::batch_queue::{Archive, ArchiveType};
use springtide_plumbing::outbound::Target;
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_name_the_host_and_not_what_a_path_may_hold() {
        let sink = Sink::Http("https://sink.example.com:8443/secret?token=1".into());
        assert_eq!(sink.to_string(), "sink.example.com");
    }
}
