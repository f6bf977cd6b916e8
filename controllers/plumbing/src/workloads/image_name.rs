//! Names of images: their syntax, and what tells a digest from a tag.
//!
//! The grammar is that of
//! [distribution/reference](https://github.com/distribution/reference/blob/v0.6.0/reference.go), which the container
//! runtimes use: `[domain/]path[:tag][@digest]`. Names are compared as they are written: nothing is completed (no
//! `docker.io/library/`, no `:latest`) but where the digest of what runs is looked for in a pod's status.

use std::fmt;

/// Longest repository, domain included, as distribution/reference has it.
const REPOSITORY_MAX_BYTES: usize = 255;
/// Longest tag.
const TAG_MAX_BYTES: usize = 128;
/// Fewest hexadecimal digits of a digest.
const DIGEST_MIN_DIGITS: usize = 32;
/// Tag beside a digest, which alone says what is meant.
const RESTART_TAG: &str = "restart";
/// Where a repository is that names no host.
const DEFAULT_DOMAIN: &str = "docker.io";
/// Where it is there, if it has a single component.
const DEFAULT_NAMESPACE: &str = "library/";

/// The parts of an image's name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ImageName<'a> {
    /// Domain and path.
    pub repository: &'a str,
    /// Tag.
    pub tag: Option<&'a str>,
    /// Digest with its algorithm, such as `sha256:…`.
    pub digest: Option<&'a str>,
}

/// Why a text is no image's name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ImageNameError {
    /// The repository is missing, too long, or has a character that none may have.
    #[error(
        "its repository must be lower-case path components, with a host before the first slash if there is one"
    )]
    Repository,
    /// The tag is empty, too long, or has a character that none may have.
    #[error("its tag must be 1 to 128 of letters, digits, `_`, `.` and `-`, and not begin with `.` or `-`")]
    Tag,
    /// The digest is none.
    #[error("its digest must be an algorithm, a colon and at least 32 hexadecimal digits")]
    Digest,
}

impl<'a> ImageName<'a> {
    /// Reads a name.
    ///
    /// # Errors
    /// The part that is not as the grammar has it.
    pub fn parse(text: &'a str) -> Result<Self, ImageNameError> {
        let (name, digest) = match text.split_once('@') {
            Some((name, digest)) => (name, Some(digest)),
            None => (text, None),
        };
        // A colon before the last slash is that of a port.
        let path = name.rfind('/').map_or(0, |slash| slash + 1);
        let (repository, tag) = match name[path..].split_once(':') {
            Some((last, tag)) => (&name[..path + last.len()], Some(tag)),
            None => (name, None),
        };
        if !is_repository(repository) {
            return Err(ImageNameError::Repository);
        }
        if tag.is_some_and(|tag| !is_tag(tag)) {
            return Err(ImageNameError::Tag);
        }
        if digest.is_some_and(|digest| !is_digest(digest)) {
            return Err(ImageNameError::Digest);
        }
        Ok(Self { repository, tag, digest })
    }

    /// Another name of the image that runs under this one: the kubelet takes a new name for a change, and restarts.
    ///
    /// A tag alone gets the digest that `running` says it stands for. A digest decides by itself, so that a tag beside it
    /// goes, and one comes where none is. `None` where the digest is not known, and of a name without either.
    pub fn flip(&self, running: Option<&str>) -> Option<String> {
        let flipped = match (self.tag, self.digest) {
            (Some(_), None) => {
                let digest = running.filter(|digest| is_digest(digest))?;
                return Some(format!("{self}@{digest}"));
            }
            (Some(_), Some(_)) => Self { tag: None, ..*self },
            (None, Some(_)) => Self { tag: Some(RESTART_TAG), ..*self },
            (None, None) => return None,
        };
        Some(flipped.to_string())
    }

    /// The digest by which the runtime knows what runs under this name, of an `imageID`; `None` where that is of another
    /// repository, whose digest of the same image may be another one, or of none, as of an image that was loaded.
    pub fn digest_in<'b>(&self, image_id: &'b str) -> Option<&'b str> {
        let (name, digest) = image_id.rsplit_once('@')?;
        // As Docker wrote it.
        let name = name.strip_prefix("docker-pullable://").unwrap_or(name);
        let known = ImageName::parse(name).ok()?;
        (is_digest(digest) && completed(known.repository) == completed(self.repository)).then_some(digest)
    }
}

impl fmt::Display for ImageName<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.repository)?;
        if let Some(tag) = self.tag {
            write!(f, ":{tag}")?;
        }
        if let Some(digest) = self.digest {
            write!(f, "@{digest}")?;
        }
        Ok(())
    }
}

/// Whether one name is what [`ImageName::flip`] may have made of the other, whatever digest was running.
pub fn is_flip(name: &str, flipped: &str) -> bool {
    let (Ok(name), Ok(flipped)) = (ImageName::parse(name), ImageName::parse(flipped)) else { return false };
    name.repository == flipped.repository
        && match (name.tag, name.digest) {
            (Some(_), None) => flipped.tag == name.tag && flipped.digest.is_some(),
            (Some(_), Some(_)) => flipped.tag.is_none() && flipped.digest == name.digest,
            (None, Some(_)) => flipped.tag == Some(RESTART_TAG) && flipped.digest == name.digest,
            (None, None) => false,
        }
}

/// Domain and path of a repository, as the runtimes complete it.
fn completed(repository: &str) -> (&str, String) {
    match repository.split_once('/') {
        Some(("index.docker.io", path)) => (DEFAULT_DOMAIN, path.to_owned()),
        Some((domain, path)) if is_host_like(domain) && domain != DEFAULT_DOMAIN => (domain, path.to_owned()),
        Some((_, path)) if repository.starts_with(DEFAULT_DOMAIN) => {
            let prefix = if path.contains('/') { "" } else { DEFAULT_NAMESPACE };
            (DEFAULT_DOMAIN, format!("{prefix}{path}"))
        }
        Some(_) => (DEFAULT_DOMAIN, repository.to_owned()),
        None => (DEFAULT_DOMAIN, format!("{DEFAULT_NAMESPACE}{repository}")),
    }
}

fn is_repository(text: &str) -> bool {
    if text.is_empty() || text.len() > REPOSITORY_MAX_BYTES {
        return false;
    }
    let (domain, path) = match text.split_once('/') {
        // As the runtimes do: what has a dot, a port or a capital letter before the first slash is a host.
        Some((first, rest)) if is_host_like(first) => (Some(first), rest),
        Some(_) | None => (None, text),
    };
    domain.is_none_or(is_domain) && path.split('/').all(is_path_component)
}

fn is_host_like(first: &str) -> bool {
    first == "localhost"
        || first.contains(['.', ':', '['])
        || first.bytes().any(|byte| byte.is_ascii_uppercase())
}

fn is_domain(text: &str) -> bool {
    let (host, port) = match text.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((address, rest)) => {
            let is_address =
                !address.is_empty() && address.bytes().all(|byte| byte.is_ascii_hexdigit() || byte == b':');
            if !is_address {
                return false;
            }
            (None, rest.strip_prefix(':').map_or(if rest.is_empty() { None } else { Some("") }, Some))
        }
        None => match text.split_once(':') {
            Some((host, port)) => (Some(host), Some(port)),
            None => (Some(text), None),
        },
    };
    let is_label = |label: &str| {
        !label.is_empty()
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    host.is_none_or(|host| host.split('.').all(is_label))
        && port.is_none_or(|port| !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit()))
}

/// `[a-z0-9]+` joined by `.`, `_`, `__` or any number of `-`.
fn is_path_component(text: &str) -> bool {
    let is_alphanumeric = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    let is_separator = |separator: &str| {
        matches!(separator, "." | "_" | "__")
            || (!separator.is_empty() && separator.bytes().all(|b| b == b'-'))
    };
    let mut rest = text;
    loop {
        let word = rest.find(|c| !is_alphanumeric(c)).unwrap_or(rest.len());
        if word == 0 {
            return false;
        }
        rest = &rest[word..];
        if rest.is_empty() {
            return true;
        }
        let separator = rest.find(is_alphanumeric).unwrap_or(rest.len());
        if !is_separator(&rest[..separator]) {
            return false;
        }
        rest = &rest[separator..];
    }
}

fn is_tag(text: &str) -> bool {
    let is_word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    text.len() <= TAG_MAX_BYTES
        && text.bytes().next().is_some_and(is_word)
        && text.bytes().all(|byte| is_word(byte) || matches!(byte, b'.' | b'-'))
}

fn is_digest(text: &str) -> bool {
    let Some((algorithm, digits)) = text.split_once(':') else { return false };
    let is_component = |component: &str| {
        component.bytes().next().is_some_and(|byte| byte.is_ascii_alphabetic())
            && component.bytes().all(|byte| byte.is_ascii_alphanumeric())
    };
    algorithm.split(['+', '.', '-', '_']).all(is_component)
        && digits.len() >= DIGEST_MIN_DIGITS
        && digits.bytes().all(|byte| byte.is_ascii_hexdigit())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const DIGEST: &str = "sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

    #[test]
    fn a_name_is_read_part_by_part() {
        let whole = format!("reg.example:5000/team/app:v1.2-3@{DIGEST}");
        let name = ImageName::parse(&whole).unwrap();
        assert_eq!(name.repository, "reg.example:5000/team/app");
        assert_eq!((name.tag, name.digest), (Some("v1.2-3"), Some(DIGEST)));
        assert_eq!(name.to_string(), whole);
        assert_eq!(ImageName::parse("reg:5000/app").unwrap().tag, None, "that is a port");
        for valid in
            ["app", "app:1", "a/b/c", "localhost/app", "[2001:db8::1]:5000/app", "a__b/c---d:_1", "X/app"]
        {
            assert!(ImageName::parse(valid).is_ok(), "{valid}");
        }
    }

    #[test]
    fn what_the_runtimes_refuse_is_refused_with_the_part_that_is_wrong() {
        use ImageNameError::{Digest, Repository, Tag};
        let long = format!("app:{}", "t".repeat(129));
        for (text, error) in [
            ("", Repository),
            ("App", Repository),
            ("app/", Repository),
            ("/app", Repository),
            ("a//b", Repository),
            ("a..b", Repository),
            ("a___b", Repository),
            ("reg.example:port/app", Repository),
            ("[::1/app", Repository),
            ("[::1]5000/app", Repository),
            ("app v2", Repository),
            ("app:", Tag),
            ("app:.v2", Tag),
            ("app:v 2", Tag),
            ("app:a:b", Tag),
            (&long, Tag),
            ("app@", Digest),
            ("app@sha256:0123", Digest),
            ("app@0123456789abcdef0123456789abcdef", Digest),
            ("app@sha256:0123456789abcdef0123456789abcdeg", Digest),
        ] {
            assert_eq!(ImageName::parse(text), Err(error), "{text}");
        }
    }

    #[test]
    fn a_flip_is_another_name_of_the_same_image() {
        let pinned = format!("reg.example:5000/app:v1@{DIGEST}");
        let alone = format!("reg.example:5000/app@{DIGEST}");
        let restarted = format!("reg.example:5000/app:restart@{DIGEST}");
        for (name, expected) in
            [("reg.example:5000/app:v1", &pinned), (&*pinned, &alone), (&*alone, &restarted)]
        {
            let flipped = ImageName::parse(name).unwrap().flip(Some(DIGEST));
            assert_eq!(flipped.as_ref(), Some(expected), "{name}");
            assert!(is_flip(name, expected) && !is_flip(name, name), "{name}");
        }
        assert!(!is_flip(&pinned, "reg.example:5000/app:v1") && !is_flip(&alone, &pinned));
        assert!(is_flip(&restarted, &alone), "whose tag that is nobody knows: it goes at the next one");
        assert_eq!(ImageName::parse("app:v1").unwrap().flip(None), None);
        assert_eq!(ImageName::parse("app:v1").unwrap().flip(Some("sha256:1")), None);
        assert_eq!(ImageName::parse("app").unwrap().flip(Some(DIGEST)), None, "its tag may move");
        let other = DIGEST.replace('0', "1");
        assert!(is_flip("app:v1", &format!("app:v1@{other}")), "whatever was running");
        assert!(!is_flip("app:v2", &format!("app:v1@{DIGEST}")));
        assert!(!is_flip(&format!("app:v1@{other}"), &format!("app@{DIGEST}")), "that is another image");
        assert!(!is_flip("app:v1", "app@"));
    }

    #[test]
    fn the_digest_of_what_runs_is_that_of_the_same_repository() {
        let digest = |name: &str, image_id: &str| {
            ImageName::parse(name).unwrap().digest_in(image_id).map(str::to_owned)
        };
        let of = |repository: &str| format!("{repository}@{DIGEST}");
        for (name, repository) in [
            ("app:1", "docker.io/library/app"),
            ("app:1", "index.docker.io/library/app"),
            ("docker.io/app:1", "docker.io/library/app"),
            ("team/app:1", "docker.io/team/app"),
            ("reg:5000/app:1", "reg:5000/app"),
            ("reg:5000/app:1", "docker-pullable://reg:5000/app"),
        ] {
            assert_eq!(digest(name, &of(repository)).as_deref(), Some(DIGEST), "{name} {repository}");
        }
        for image_id in [&*of("reg/app"), &*of("docker.io/team/app"), DIGEST, "", "app@sha256:1"] {
            assert_eq!(digest("app:1", image_id), None, "{image_id}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_read_without_a_panic_and_a_name_reads_back_as_itself(text in ".{0,40}|[a-z./:@0-9-]{0,40}") {
            if let Ok(name) = ImageName::parse(&text) {
                prop_assert_eq!(name.to_string(), text);
            }
        }
    }
}
