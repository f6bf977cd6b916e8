//! The parts of a URL that a request needs.

use http::Uri;

/// The parts of a URL that a request needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target<'a> {
    is_tls: bool,
    host: &'a str,
    port: u16,
    path: &'a str,
}

impl<'a> Target<'a> {
    /// Reads an http or https URL without user and password; nothing for any other text.
    pub fn parse(url: &'a str) -> Option<Self> {
        let (is_tls, rest) = match url.strip_prefix("https://") {
            Some(rest) => (true, rest),
            None => (false, url.strip_prefix("http://")?),
        };
        let (authority, path) = rest.find(['/', '?']).map_or((rest, "/"), |at| rest.split_at(at));
        let (host, port) = match authority.rfind(':').filter(|at| !authority[*at..].contains(']')) {
            Some(at) => (&authority[..at], authority[at + 1..].parse().ok()?),
            None => (authority, default_port(is_tls)),
        };
        let is_whole = !host.is_empty() && !authority.contains('@') && url.parse::<Uri>().is_ok();
        is_whole.then_some(Self { is_tls, host, port, path })
    }

    /// Whether it is an https URL.
    pub fn is_tls(&self) -> bool {
        self.is_tls
    }

    /// The host as a URL has it: an address of IPv6 in brackets.
    pub fn host(&self) -> &'a str {
        self.host
    }

    /// The host as a resolver has it.
    pub fn name(&self) -> &'a str {
        self.host.trim_start_matches('[').trim_end_matches(']')
    }

    /// The port.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The host, and the port unless it goes without saying: the header `Host`.
    pub fn authority(&self) -> String {
        if self.port == default_port(self.is_tls) {
            self.host.to_owned()
        } else {
            format!("{}:{}", self.host, self.port)
        }
    }

    /// Path and query as a request has them.
    pub fn path(&self) -> String {
        if self.path.starts_with('/') { self.path.to_owned() } else { format!("/{}", self.path) }
    }
}

fn default_port(is_tls: bool) -> u16 {
    if is_tls { 443 } else { 80 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::string::string_regex;
    use springtide_crds::common::{ADDRESS_PATTERN, HTTPS_URL_PATTERN};

    #[test]
    fn a_url_falls_into_its_parts() {
        for (url, host, name, port, path, authority) in [
            (
                "https://sink.example.com",
                "sink.example.com",
                "sink.example.com",
                443,
                "/",
                "sink.example.com",
            ),
            ("https://sink:8443/a/b?c=d:e", "sink", "sink", 8443, "/a/b?c=d:e", "sink:8443"),
            ("https://sink?c=d", "sink", "sink", 443, "/?c=d", "sink"),
            ("https://[2606:4700::1]:9/a", "[2606:4700::1]", "2606:4700::1", 9, "/a", "[2606:4700::1]:9"),
            ("https://[2606:4700::1]", "[2606:4700::1]", "2606:4700::1", 443, "/", "[2606:4700::1]"),
            ("http://prom:9090/p", "prom", "prom", 9090, "/p", "prom:9090"),
            ("http://prom:80", "prom", "prom", 80, "/", "prom"),
            ("http://prom:443", "prom", "prom", 443, "/", "prom:443"),
        ] {
            let target = Target::parse(url).unwrap();
            let parts = (target.host(), target.name(), target.port(), target.path(), target.authority());
            assert_eq!(parts, (host, name, port, path.to_owned(), authority.to_owned()), "{url}");
            assert_eq!(target.is_tls(), url.starts_with("https"), "{url}");
        }
        for url in [
            "sink",
            "ftp://sink",
            "https://",
            "https://user:word@sink/",
            "http://user@sink/",
            "https://sink:70000",
            "https://a b",
        ] {
            assert_eq!(Target::parse(url), None, "{url}");
        }
    }

    proptest::proptest! {
        #[test]
        fn what_a_schema_takes_has_parts(
            // The generator takes no anchors.
            url in string_regex(HTTPS_URL_PATTERN.trim_matches(['^', '$'])).unwrap(),
            address in string_regex(ADDRESS_PATTERN.trim_matches(['^', '$'])).unwrap(),
        ) {
            for url in [url, address] {
                // An authority in brackets may still be no address.
                proptest::prop_assert!(Target::parse(&url).is_some() || url.contains('['), "{}", url);
            }
        }
    }
}
