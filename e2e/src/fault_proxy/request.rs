//! What a request asks for, read from its method, URL and body as the API server reads them.

use http::{HeaderMap, Method, Uri, header};
use serde::Deserialize;
use serde_json::Value;

use crate::write_count::{Request, Verb};

/// Types of the conditions that sum an object up.
const SUMMARIES: [&str; 2] = ["Complete", "Ready"];

/// Reads a request; its `code` is 0 as it has no answer yet.
pub(super) fn read(method: &Method, uri: &Uri, headers: &HeaderMap, body: &[u8], user: &str) -> Request {
    let query = uri.query().unwrap_or_default();
    let place = Place::of(uri.path());
    let has = |parameter: &str| query.split('&').any(|pair| pair == parameter);
    let verb = match *method {
        Method::POST => Verb::Create,
        Method::PUT => Verb::Update,
        Method::PATCH => Verb::Patch,
        Method::DELETE if place.name.is_empty() => Verb::DeleteCollection,
        Method::DELETE => Verb::Delete,
        Method::GET if has("watch=true") || has("watch=1") => Verb::Watch,
        Method::GET if place.name.is_empty() && place.is_resource => Verb::List,
        Method::GET => Verb::Get,
        // Method is an open type of another crate.
        _ => Verb::Other,
    };
    let agent = headers.get(header::USER_AGENT).and_then(|value| value.to_str().ok());
    let new = verb == Verb::Create && place.name.is_empty();
    let name = if new { name_in(body).unwrap_or_default() } else { place.name };
    let says = if verb.is_write() { said_in(body).unwrap_or_default() } else { String::new() };
    Request {
        user: user.to_owned(),
        user_agent: agent.unwrap_or_default().to_owned(),
        verb,
        group: place.group,
        resource: place.resource,
        namespace: place.namespace,
        name,
        code: 0,
        dry_run: has("dryRun=All"),
        query: query.to_owned(),
        received: None,
        says,
    }
}

/// The name that a new object bears, where its body is JSON and says so.
fn name_in(body: &[u8]) -> Option<String> {
    #[derive(Deserialize)]
    struct Object {
        metadata: Metadata,
    }
    #[derive(Deserialize)]
    struct Metadata {
        name: Option<String>,
    }
    serde_json::from_slice::<Object>(body).ok()?.metadata.name
}

/// What a body in JSON tells users: an event by its reason, a status by that of its summary condition. A
/// status comes as the whole object, as a merge patch, or as a JSON patch.
fn said_in(body: &[u8]) -> Option<String> {
    let body: Value = serde_json::from_slice(body).ok()?;
    let operations = body.as_array().into_iter().flatten();
    let patched = operations.filter(|operation| operation["path"] == "/status");
    let status = patched.map(|operation| &operation["value"]).next().unwrap_or(&body["status"]);
    let conditions = status["conditions"].as_array().into_iter().flatten();
    let mut summaries = conditions.filter(|found| SUMMARIES.iter().any(|type_| found["type"] == *type_));
    let reason = summaries.next().map_or(&body["reason"], |summary| &summary["reason"]);
    reason.as_str().map(str::to_owned)
}

/// What a path names (k8s.io/apiserver, `pkg/endpoints/request/requestinfo.go`).
#[derive(Debug, Default, PartialEq, Eq)]
struct Place {
    group: String,
    /// With its subresource; the whole path where it names no resource.
    resource: String,
    namespace: String,
    name: String,
    is_resource: bool,
}

impl Place {
    fn of(path: &str) -> Self {
        let parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty()).collect();
        let (group, rest) = match parts.as_slice() {
            ["api", _version, rest @ ..] => ("", rest),
            ["apis", group, _version, rest @ ..] => (*group, rest),
            _ => ("", [].as_slice()),
        };
        let (namespace, rest) = match rest {
            // Subresources of the namespace itself.
            ["namespaces", namespace, "status" | "finalize"] => (*namespace, rest),
            ["namespaces", namespace, below @ ..] if !below.is_empty() => (*namespace, below),
            ["namespaces", namespace] => (*namespace, rest),
            _ => ("", rest),
        };
        let (resource, name) = match rest {
            [] => return Self { resource: path.to_owned(), ..Self::default() },
            [resource] => ((*resource).to_owned(), ""),
            [resource, name] => ((*resource).to_owned(), *name),
            [resource, name, subresource, ..] => (format!("{resource}/{subresource}"), *name),
        };
        Self {
            group: group.to_owned(),
            resource,
            namespace: namespace.to_owned(),
            name: name.to_owned(),
            is_resource: true,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(method: &str, url: &str, body: &str) -> (Verb, String, String, String, String) {
        let uri: Uri = url.parse().unwrap();
        let mut headers = HeaderMap::new();
        headers.insert(header::USER_AGENT, "springtide/1 test".parse().unwrap());
        let method = Method::from_bytes(method.as_bytes()).unwrap();
        let read = read(&method, &uri, &headers, body.as_bytes(), "admin");
        assert_eq!((read.user.as_str(), read.user_agent.as_str()), ("admin", "springtide/1 test"));
        (read.verb, read.group, read.resource, read.namespace, read.name)
    }

    #[test]
    fn paths_are_read_as_the_api_server_reads_them() {
        let cases = [
            ("GET", "/api/v1/pods?limit=5", "", (Verb::List, "", "pods", "", "")),
            ("GET", "/api/v1/pods?watch=true&x=1", "", (Verb::Watch, "", "pods", "", "")),
            ("GET", "/api/v1/namespaces/a/pods/p", "", (Verb::Get, "", "pods", "a", "p")),
            (
                "POST",
                "/api/v1/namespaces/a/pods",
                r#"{"metadata":{"name":"q"}}"#,
                (Verb::Create, "", "pods", "a", "q"),
            ),
            ("POST", "/api/v1/namespaces/a/pods", "k8s\0", (Verb::Create, "", "pods", "a", "")),
            (
                "POST",
                "/api/v1/namespaces/a/pods/p/eviction",
                "",
                (Verb::Create, "", "pods/eviction", "a", "p"),
            ),
            (
                "PUT",
                "/apis/coordination.k8s.io/v1/namespaces/a/leases/l",
                "",
                (Verb::Update, "coordination.k8s.io", "leases", "a", "l"),
            ),
            (
                "PATCH",
                "/apis/springtide.dev/v1alpha1/namespaces/a/batchjobs/j/status?fieldManager=x",
                "",
                (Verb::Patch, "springtide.dev", "batchjobs/status", "a", "j"),
            ),
            ("DELETE", "/api/v1/namespaces/a", "", (Verb::Delete, "", "namespaces", "a", "a")),
            ("PUT", "/api/v1/namespaces/a/finalize", "", (Verb::Update, "", "namespaces/finalize", "a", "a")),
            ("DELETE", "/api/v1/namespaces/a/pods", "", (Verb::DeleteCollection, "", "pods", "a", "")),
            ("GET", "/readyz?verbose", "", (Verb::Get, "", "/readyz", "", "")),
            ("GET", "/apis/apps/v1", "", (Verb::Get, "", "/apis/apps/v1", "", "")),
            ("OPTIONS", "/api/v1/nodes/n", "", (Verb::Other, "", "nodes", "", "n")),
        ];
        for (method, url, body, (verb, group, resource, namespace, name)) in cases {
            let expected = (verb, group.into(), resource.into(), namespace.into(), name.into());
            assert_eq!(asked(method, url, body), expected, "{method} {url}");
        }
    }
    #[test]
    fn a_write_is_told_apart_by_what_it_tells_users() {
        let status = r#"{"conditions":[{"type":"A","reason":"No"},{"type":"Complete","reason":"Running"}]}"#;
        let cases = [
            (r#"{"metadata":{"name":"job.f1"},"reason":"PodFailed"}"#.to_owned(), "PodFailed"),
            (
                format!(r#"[{{"op":"test","path":"/a"}},{{"op":"add","path":"/status","value":{status}}}]"#),
                "Running",
            ),
            (format!(r#"{{"status":{status}}}"#), "Running"),
            (r#"{"status":{"phase":"Failed"}}"#.to_owned(), ""),
            ("k8s\0".to_owned(), ""),
        ];
        for (body, says) in cases {
            assert_eq!(said_in(body.as_bytes()).unwrap_or_default(), says, "{body}");
        }
    }
}
