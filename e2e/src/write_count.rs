//! Requests counted from the API server's audit log: who wrote what, how often.
//!
//! The log is independent of every client: it shows requests that the counted
//! process does not know of itself (retries, other components, a second manager).
//! In blocking mode the server writes a line when its handler ends, which is before
//! it sends the last chunk of the answer. So whoever has read an answer to its end
//! finds the line in the file.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde::Deserialize;
use tabled::builder::Builder;
use tabled::settings::Style;

/// What a request does, as the audit log names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Verb {
    /// POST.
    Create,
    /// PUT.
    Update,
    /// PATCH, server-side apply included.
    Patch,
    /// DELETE of one object.
    Delete,
    /// DELETE of a collection.
    DeleteCollection,
    /// GET of one object.
    Get,
    /// GET of a collection.
    List,
    /// A watch, counted when it starts.
    Watch,
    /// Anything else (HEAD, OPTIONS, verbs of proxies).
    #[serde(other)]
    Other,
}

impl Verb {
    /// Whether it changes objects.
    #[must_use]
    pub fn is_write(self) -> bool {
        match self {
            Self::Create | Self::Update | Self::Patch | Self::Delete | Self::DeleteCollection => true,
            Self::Get | Self::List | Self::Watch | Self::Other => false,
        }
    }

    /// Those that change objects.
    pub const WRITES: [Self; 5] =
        [Self::Create, Self::Update, Self::Patch, Self::Delete, Self::DeleteCollection];

    /// Lower-case name, as in RBAC rules.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Create => "create",
            Self::Update => "update",
            Self::Patch => "patch",
            Self::Delete => "delete",
            Self::DeleteCollection => "deletecollection",
            Self::Get => "get",
            Self::List => "list",
            Self::Watch => "watch",
            Self::Other => "other",
        }
    }
}

/// One request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// Name of the authenticated user; empty where the line has none.
    pub user: String,
    /// The complete User-Agent header; empty where there is none.
    pub user_agent: String,
    /// What it does.
    pub verb: Verb,
    /// API group; empty for the core group.
    pub group: String,
    /// Resource with subresource, as in `pods` or `pods/status`; for a request that
    /// is not about a resource its path.
    pub resource: String,
    /// Namespace; empty for cluster-scoped objects and for requests across namespaces.
    pub namespace: String,
    /// Name of the object; empty for collections and where the server makes the name.
    pub name: String,
    /// HTTP status of the answer.
    pub code: u16,
    /// A write that was only tried (`dryRun=All`).
    pub dry_run: bool,
    /// The query of the URL, as sent: what a list or watch asked for.
    pub query: String,
    /// When the server got it, where the log says so.
    pub received: Option<jiff::Timestamp>,
    /// What a write tells users, where its body was seen (the log has none): the reason of an event, or in
    /// a status that of the summary condition.
    pub says: String,
}

impl Request {
    /// Whether it changes stored objects: not a dry run, and not one of the
    /// resources that only ask a question (reviews, tokens).
    #[must_use]
    pub fn is_write(&self) -> bool {
        let question = matches!(self.group.as_str(), "authentication.k8s.io" | "authorization.k8s.io")
            || self.resource == "serviceaccounts/token";
        self.verb.is_write() && !self.dry_run && !question
    }

    /// The field selector of a list or watch as it stands in the query; empty without one.
    #[must_use]
    pub fn field_selector(&self) -> &str {
        self.query.split('&').find_map(|pair| pair.strip_prefix("fieldSelector=")).unwrap_or_default()
    }

    /// Whether a parameter of the query begins with this, such as `limit=`.
    #[must_use]
    pub fn asks(&self, parameter: &str) -> bool {
        self.query.split('&').any(|pair| pair.starts_with(parameter))
    }

    /// The product in the user agent: what stands before its first slash or space.
    #[must_use]
    pub fn agent(&self) -> &str {
        let end = self.user_agent.find(['/', ' ']);
        &self.user_agent[..end.unwrap_or(self.user_agent.len())]
    }
}

/// A line of the log, with the fields that are read.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Line {
    #[serde(rename = "requestURI")]
    request_uri: String,
    verb: Verb,
    #[serde(default)]
    user: User,
    #[serde(default)]
    user_agent: String,
    #[serde(default)]
    object_ref: ObjectRef,
    response_status: Option<Status>,
    request_received_timestamp: Option<jiff::Timestamp>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct User {
    username: String,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct ObjectRef {
    api_group: String,
    resource: String,
    subresource: String,
    namespace: String,
    name: String,
}

#[derive(Deserialize)]
struct Status {
    #[serde(default)]
    code: u16,
}

impl From<Line> for Request {
    fn from(line: Line) -> Self {
        let Line { request_uri, verb, user, user_agent, object_ref, response_status, .. } = line;
        let received = line.request_received_timestamp;
        let (path, query) = request_uri.split_once('?').unwrap_or((request_uri.as_str(), ""));
        let resource = match (&*object_ref.resource, &*object_ref.subresource) {
            ("", _) => path.to_owned(),
            (resource, "") => resource.to_owned(),
            (resource, subresource) => format!("{resource}/{subresource}"),
        };
        Self {
            user: user.username,
            user_agent,
            verb,
            group: object_ref.api_group,
            resource,
            namespace: object_ref.namespace,
            name: object_ref.name,
            code: response_status.map_or(0, |status| status.code),
            dry_run: query.split('&').any(|pair| pair == "dryRun=All"),
            query: query.to_owned(),
            received,
            says: String::new(),
        }
    }
}

/// The audit log of a cluster.
#[derive(Debug, Clone)]
pub struct AuditLog {
    path: PathBuf,
}

/// A place in the log, from which on requests are counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mark {
    offset: u64,
}

impl AuditLog {
    /// The log in a file, which need not exist yet.
    #[must_use]
    pub fn at(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into() }
    }

    /// The file, for another process to read.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The requests since the cluster's start.
    ///
    /// # Errors
    /// As [`AuditLog::since`].
    pub fn all(&self) -> Result<WriteCount> {
        self.since(Mark { offset: 0 })
    }

    /// The present end of the log. Requests whose answer has been read are before it,
    /// requests that are sent from now on behind it.
    ///
    /// # Errors
    /// The log cannot be read.
    pub fn mark(&self) -> Result<Mark> {
        let read = || -> std::io::Result<u64> {
            let mut file = File::open(&self.path)?;
            let mut offset = file.seek(SeekFrom::End(0))?;
            // Back to the end of a line, of which one may still be being written.
            let mut last = [0];
            while offset > 0 {
                file.seek(SeekFrom::Start(offset - 1))?;
                file.read_exact(&mut last)?;
                if last == [b'\n'] {
                    break;
                }
                offset -= 1;
            }
            Ok(offset)
        };
        let offset = read().with_context(|| format!("read the audit log {}", self.path.display()))?;
        Ok(Mark { offset })
    }

    /// The requests since a mark, in the order of their ends (watches: starts).
    ///
    /// # Errors
    /// The log cannot be read, or a line is not an audit event.
    pub fn since(&self, mark: Mark) -> Result<WriteCount> {
        let text = self.complete_lines(mark)?;
        let requests = text
            .split(|byte| *byte == b'\n')
            .filter(|line| !line.is_empty())
            .map(|line| {
                serde_json::from_slice::<Line>(line)
                    .map(Request::from)
                    .with_context(|| format!("not an audit event: {}", String::from_utf8_lossy(line)))
            })
            .collect::<Result<_>>()?;
        Ok(WriteCount { requests })
    }

    /// What stands behind the mark, without a last line that is still being written.
    fn complete_lines(&self, mark: Mark) -> Result<Vec<u8>> {
        let read = || -> std::io::Result<Vec<u8>> {
            let mut file = File::open(&self.path)?;
            file.seek(SeekFrom::Start(mark.offset))?;
            let mut bytes = Vec::new();
            file.read_to_end(&mut bytes)?;
            Ok(bytes)
        };
        let mut bytes = read().with_context(|| format!("read the audit log {}", self.path.display()))?;
        let complete = bytes.iter().rposition(|byte| *byte == b'\n');
        bytes.truncate(complete.map_or(0, |last| last + 1));
        Ok(bytes)
    }
}

/// A row of the table: requests that are alike.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Row {
    /// [`Request::agent`].
    pub agent: String,
    /// What they do.
    pub verb: Verb,
    /// Resource with subresource.
    pub resource: String,
    /// Hundreds of the HTTP status: 2 for success, 4 for refused requests.
    pub code_class: u16,
}

/// Requests, to be narrowed down and counted. Its `Display` is a table.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct WriteCount {
    requests: Vec<Request>,
}

impl WriteCount {
    /// Those for which `keep` says yes.
    #[must_use]
    pub fn filter(&self, keep: impl Fn(&Request) -> bool) -> Self {
        let kept = self.requests.iter().filter(|request| keep(request));
        Self { requests: kept.cloned().collect() }
    }

    /// Those of a user.
    #[must_use]
    pub fn by_user(&self, user: &str) -> Self {
        self.filter(|request| request.user == user)
    }

    /// Those of clients whose user agent starts with `prefix`.
    #[must_use]
    pub fn by_agent(&self, prefix: &str) -> Self {
        self.filter(|request| request.user_agent.starts_with(prefix))
    }

    /// Those on objects in a namespace.
    #[must_use]
    pub fn in_namespace(&self, namespace: &str) -> Self {
        self.filter(|request| request.namespace == namespace)
    }

    /// Those on a resource; `pods` includes `pods/status` and the other subresources,
    /// `pods/status` is that one alone.
    #[must_use]
    pub fn of_resource(&self, resource: &str) -> Self {
        self.filter(|request| {
            let rest = request.resource.strip_prefix(resource);
            rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        })
    }

    /// Those with a verb.
    #[must_use]
    pub fn of_verb(&self, verb: Verb) -> Self {
        self.filter(|request| request.verb == verb)
    }

    /// Writes ([`Request::is_write`]), refused ones too: they cost the server as much.
    #[must_use]
    pub fn writes(&self) -> Self {
        self.filter(Request::is_write)
    }

    /// Gets, lists and watches.
    #[must_use]
    pub fn reads(&self) -> Self {
        self.filter(|request| !request.verb.is_write())
    }

    /// Without leases, which are renewed for ever.
    #[must_use]
    pub fn without_leases(&self) -> Self {
        self.filter(|request| request.group != "coordination.k8s.io")
    }

    /// Answered with a status of 200 to 299.
    #[must_use]
    pub fn successful(&self) -> Self {
        self.filter(|request| request.code / 100 == 2)
    }

    /// Number of requests.
    #[must_use]
    pub fn len(&self) -> usize {
        self.requests.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.requests.is_empty()
    }

    /// The requests themselves.
    #[must_use]
    pub fn requests(&self) -> &[Request] {
        &self.requests
    }

    /// Numbers of requests that are alike.
    #[must_use]
    pub fn rows(&self) -> BTreeMap<Row, usize> {
        let mut rows = BTreeMap::new();
        for request in &self.requests {
            let row = Row {
                agent: request.agent().to_owned(),
                verb: request.verb,
                resource: request.resource.clone(),
                code_class: request.code / 100,
            };
            *rows.entry(row).or_default() += 1;
        }
        rows
    }
}

impl fmt::Display for WriteCount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut table = Builder::default();
        table.push_record(["agent", "verb", "resource", "status", "requests"]);
        for (row, count) in self.rows() {
            let Row { agent, verb, resource, code_class } = row;
            table.push_record([
                agent,
                verb.name().to_owned(),
                resource,
                format!("{code_class}xx"),
                count.to_string(),
            ]);
        }
        write!(f, "{}", table.build().with(Style::markdown()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    const STATUS: &str = r#"{"kind":"Event","apiVersion":"audit.k8s.io/v1","level":"Metadata","auditID":"1","stage":"ResponseComplete","requestReceivedTimestamp":"2026-11-11T00:00:00.000001Z","requestURI":"/api/v1/namespaces/a/pods/p/status?fieldManager=x","verb":"patch","user":{"username":"admin"},"sourceIPs":["127.0.0.1"],"userAgent":"kwok/v0.8.0 (linux/amd64)","objectRef":{"resource":"pods","namespace":"a","name":"p","apiVersion":"v1","subresource":"status"},"responseStatus":{"metadata":{},"code":200}}"#;
    const DRY: &str = r#"{"stage":"ResponseComplete","requestURI":"/api/v1/namespaces/a/pods?dryRun=All","verb":"create","user":{},"userAgent":"springtide","objectRef":{"resource":"pods","namespace":"a","apiVersion":"v1"},"responseStatus":{"code":201}}"#;
    const LEASE: &str = r#"{"stage":"ResponseComplete","requestURI":"/apis/coordination.k8s.io/v1/namespaces/k/leases/l","verb":"update","user":{},"userAgent":"kwok/v0.8.0","objectRef":{"resource":"leases","namespace":"k","name":"l","apiGroup":"coordination.k8s.io"},"responseStatus":{"code":409}}"#;
    const WATCH: &str = r#"{"stage":"ResponseStarted","requestURI":"/api/v1/pods?watch=true","verb":"watch","user":{},"userAgent":"springtide","objectRef":{"resource":"pods"},"responseStatus":{"code":200}}"#;
    const PATH: &str = r#"{"stage":"ResponseComplete","requestURI":"/version?timeout=1s","verb":"get","user":{},"responseStatus":{"code":200}}"#;

    fn log(folder: &tempfile::TempDir, text: &str) -> AuditLog {
        let path = folder.path().join("audit.log");
        let mut file = File::options().create(true).append(true).open(&path).unwrap();
        file.write_all(text.as_bytes()).unwrap();
        AuditLog::at(path)
    }

    #[test]
    fn requests_are_told_apart() {
        let folder = tempfile::tempdir().unwrap();
        let text = [STATUS, DRY, LEASE, WATCH, PATH].join("\n") + "\n";
        let log = log(&folder, &text);
        let all = log.all().unwrap();
        assert_eq!(all.len(), 5);
        assert_eq!(all.writes().len(), 2, "a dry run writes nothing");
        assert_eq!(all.writes().without_leases().len(), 1);
        assert_eq!(all.writes().successful().of_resource("pods").len(), 1);
        assert_eq!(all.of_resource("pods").len(), 3);
        assert_eq!(all.of_resource("pods/status").len(), 1);
        assert_eq!(all.of_resource("pod").len(), 0);
        assert_eq!(all.reads().of_verb(Verb::Watch).len(), 1);
        assert_eq!(all.by_agent("kwok").in_namespace("a").len(), 1);
        assert_eq!(all.by_user("admin").requests()[0].query, "fieldManager=x");
        assert_eq!(all.requests()[4].resource, "/version");
        let received = all.by_user("admin").requests()[0].received.map(|at| at.to_string());
        assert_eq!(received.as_deref(), Some("2026-11-11T00:00:00.000001Z"));
        let table = all.writes().to_string();
        assert!(table.contains("| kwok  | patch"), "{table}");
        assert!(table.contains("4xx"), "{table}");
    }

    #[test]
    fn a_line_still_being_written_waits_for_its_end() {
        let folder = tempfile::tempdir().unwrap();
        let (first, second) = STATUS.split_at(100);
        let log_file = log(&folder, &format!("{WATCH}\n{first}"));
        let mark = log_file.mark().unwrap();
        assert_eq!(log_file.all().unwrap().len(), 1);
        assert!(log_file.since(mark).unwrap().is_empty());
        log(&folder, &format!("{second}\n"));
        assert_eq!(log_file.since(mark).unwrap().of_verb(Verb::Patch).len(), 1);
    }

    #[test]
    fn a_foreign_line_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let log = log(&folder, "panic: boom\n");
        let error = log.all().unwrap_err().to_string();
        assert!(error.contains("not an audit event: panic: boom"), "{error}");
    }
}
