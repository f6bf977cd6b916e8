//! One write as one HTTP request.

use crate::key::{ResourceVersion, Uid};
use crate::plan::{Action, Fields, Part, Patch, Write};
use http::Method;
use serde_json::{Map, Value, json};

/// Deadline in the request: the server gives up first, so an answer after it cannot come.
const SERVER_TIMEOUT: &str = "8s";

const JSON: &str = "application/json";
const JSON_PATCH: &str = "application/json-patch+json";
const MERGE_PATCH: &str = "application/merge-patch+json";
const STRATEGIC_PATCH: &str = "application/strategic-merge-patch+json";
/// JSON is YAML.
const APPLY_PATCH: &str = "application/apply-patch+yaml";

/// A write as it goes out.
#[derive(Debug, PartialEq)]
pub(super) struct Request {
    pub(super) method: Method,
    pub(super) path: String,
    pub(super) content_type: &'static str,
    pub(super) body: Vec<u8>,
}

impl Request {
    pub(super) fn of(controller: &str, write: &Write) -> Self {
        Self::of_action(&format!("springtide-{controller}"), write, &write.action, false)
    }

    fn of_action(manager: &str, write: &Write, action: &Action, is_dry: bool) -> Self {
        let object = write.resource.object_path(&write.key);
        let dry = if is_dry { "&dryRun=All" } else { "" };
        let query = format!("timeout={SERVER_TIMEOUT}{dry}&fieldManager=");
        let patch = |part: Part, manager: &str, content_type, body: Value| Self {
            method: Method::PATCH,
            path: match part.as_str() {
                "" => format!("{object}?{query}{manager}"),
                subresource => format!("{object}/{subresource}?{query}{manager}"),
            },
            content_type,
            body: body.to_string().into_bytes(),
        };
        let post = |path: String, body: Value| Self {
            method: Method::POST,
            path: format!("{path}?{query}{manager}"),
            content_type: JSON,
            body: body.to_string().into_bytes(),
        };
        match action {
            Action::Create { manifest } => {
                post(write.resource.collection_path(Some(&write.key.namespace)), manifest.clone())
            }
            Action::Delete { uid, resource_version, grace_seconds } => {
                let mut options = delete_options(uid, *resource_version, *grace_seconds);
                options.insert("apiVersion".to_owned(), "v1".into());
                options.insert("kind".to_owned(), "DeleteOptions".into());
                options.insert("propagationPolicy".to_owned(), "Background".into());
                // Of a delete with a body the server does not look at the query.
                if is_dry {
                    options.insert("dryRun".to_owned(), json!(["All"]));
                }
                Self {
                    method: Method::DELETE,
                    path: format!("{object}?timeout={SERVER_TIMEOUT}"),
                    content_type: JSON,
                    body: Value::Object(options).to_string().into_bytes(),
                }
            }
            Action::Evict { uid, resource_version, grace_seconds } => {
                let eviction = json!({
                    "apiVersion": "policy/v1",
                    "kind": "Eviction",
                    "metadata": {"name": &*write.key.name, "namespace": &*write.key.namespace},
                    "deleteOptions": delete_options(uid, *resource_version, *grace_seconds),
                });
                post(format!("{object}/eviction"), eviction)
            }
            Action::Patch { part, patch: body } => match body {
                Patch::Json { operations } => patch(*part, manager, JSON_PATCH, operations.clone()),
                Patch::Merge(fields) => patch(*part, manager, MERGE_PATCH, conditional(fields)),
                Patch::Strategic(fields) => patch(*part, manager, STRATEGIC_PATCH, conditional(fields)),
            },
            Action::Apply { part, manager, uid, resource_version, fields, force } => {
                let mut body = with_precondition(fields, uid, *resource_version);
                body["metadata"]["name"] = (*write.key.name).into();
                if write.resource.namespaced {
                    body["metadata"]["namespace"] = (*write.key.namespace).into();
                }
                let (api_version, kind) = match part {
                    Part::Main | Part::Status | Part::Resize => {
                        (write.resource.api_version(), write.resource.kind)
                    }
                    Part::Scale => ("autoscaling/v1".to_owned(), "Scale"),
                };
                body["apiVersion"] = api_version.into();
                body["kind"] = kind.into();
                let force = if *force { "&force=true" } else { "" };
                patch(*part, &format!("{manager}{force}"), APPLY_PATCH, body)
            }
            // The server compares a resourceVersion that is written: 409 when it differs. A uid that is
            // written is ignored for custom resources, so that is tested: 422.
            Action::Status { uid, resource_version, status, .. } => {
                let operations = json!([
                    {"op": "test", "path": "/metadata/uid", "value": uid},
                    {"op": "replace", "path": "/metadata/resourceVersion", "value": resource_version.to_string()},
                    {"op": "add", "path": "/status", "value": status},
                ]);
                patch(Part::Status, manager, JSON_PATCH, operations)
            }
            Action::DryRun { of, .. } => Self::of_action(manager, write, of, true),
        }
    }
}

fn delete_options(
    uid: &Uid,
    resource_version: Option<ResourceVersion>,
    grace_seconds: Option<u32>,
) -> Map<String, Value> {
    let mut options = Map::new();
    let mut preconditions = json!({"uid": uid});
    if let Some(version) = resource_version {
        preconditions["resourceVersion"] = version.to_string().into();
    }
    options.insert("preconditions".to_owned(), preconditions);
    if let Some(seconds) = grace_seconds {
        options.insert("gracePeriodSeconds".to_owned(), seconds.into());
    }
    options
}

fn conditional(Fields { uid, resource_version, fields }: &Fields) -> Value {
    with_precondition(fields, uid, *resource_version)
}

/// The fields with the precondition in their `metadata`: 409 where the version differs; where the UID does, 422, as it
/// cannot change, or 409 from `scale`.
fn with_precondition(fields: &Value, uid: &Uid, resource_version: Option<ResourceVersion>) -> Value {
    let object = |value: Option<&Value>| value.and_then(Value::as_object).cloned().unwrap_or_default();
    let mut metadata = object(fields.get("metadata"));
    metadata.insert("uid".to_owned(), (*uid.0).into());
    if let Some(version) = resource_version {
        metadata.insert("resourceVersion".to_owned(), version.to_string().into());
    }
    let mut body = object(Some(fields));
    body.insert("metadata".to_owned(), metadata.into());
    body.into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::{ObjectKey, Resource};
    use crate::plan::WriteClass;

    const DEPLOYMENT: Resource = Resource {
        group: "apps",
        version: "v1",
        kind: "Deployment",
        plural: "deployments",
        namespaced: true,
    };

    fn sent(resource: Resource, action: Action) -> (Request, Value) {
        let write = Write { resource, key: ObjectKey::new("ns", "p"), class: WriteClass::Spec, action };
        let request = Request::of("batch-job", &write);
        let body = serde_json::from_slice(&request.body).unwrap();
        (request, body)
    }

    fn uid() -> Uid {
        Uid("u".into())
    }

    fn fields(fields: Value) -> Fields {
        Fields { uid: uid(), resource_version: Some(ResourceVersion(7)), fields }
    }

    fn apply(part: Part, force: bool) -> Action {
        let (manager, fields) = ("springtide-a-partition", json!({"spec": {"replicas": 3}}));
        Action::Apply { part, manager, uid: uid(), resource_version: None, fields, force }
    }

    #[test]
    fn every_write_carries_its_precondition_and_the_servers_deadline() {
        let resource_version = Some(ResourceVersion(7));
        let delete = Action::Delete { uid: uid(), resource_version, grace_seconds: Some(5) };
        let (_, body) = sent(Resource::POD, delete);
        assert_eq!(body["preconditions"], json!({"uid": "u", "resourceVersion": "7"}));
        assert_eq!(
            (&body["gracePeriodSeconds"], &body["propagationPolicy"]),
            (&json!(5), &json!("Background"))
        );

        let (status, stored) = (json!({"active": 1}), json!({}));
        let status = Action::Status { uid: uid(), resource_version: ResourceVersion(7), status, stored };
        let (request, body) = sent(Resource::POD, status);
        assert!(request.path.starts_with("/api/v1/namespaces/ns/pods/p/status?timeout=8s"));
        assert_eq!(body[0], json!({"op": "test", "path": "/metadata/uid", "value": "u"}));
        assert_eq!(body[1]["value"], "7");

        let (request, _) = sent(Resource::POD, Action::Create { manifest: json!({"kind": "Pod"}) });
        assert_eq!(request.path, "/api/v1/namespaces/ns/pods?timeout=8s&fieldManager=springtide-batch-job");
    }

    #[test]
    fn a_merge_has_its_precondition_beside_what_it_sets() {
        let set = json!({"metadata": {"labels": {"a": "b"}}, "spec": {"paused": true}});
        let conditional = json!({
            "metadata": {"labels": {"a": "b"}, "uid": "u", "resourceVersion": "7"}, "spec": {"paused": true},
        });
        for (patch, content_type) in [
            (Patch::Merge(fields(set.clone())), "application/merge-patch+json"),
            (Patch::Strategic(fields(set)), "application/strategic-merge-patch+json"),
        ] {
            for (part, path) in [
                (Part::Main, "pods/p?"),
                (Part::Status, "pods/p/status?"),
                (Part::Resize, "pods/p/resize?"),
                (Part::Scale, "pods/p/scale?"),
            ] {
                let (request, body) = sent(Resource::POD, Action::Patch { part, patch: patch.clone() });
                assert_eq!((request.method, request.content_type), (Method::PATCH, content_type));
                assert!(request.path.contains(path), "{}", request.path);
                assert_eq!(body, conditional);
            }
        }
        let (_, body) = sent(
            Resource::POD,
            Action::Patch { part: Part::Main, patch: Patch::Merge(fields(json!("no object"))) },
        );
        assert_eq!(body, json!({"metadata": {"uid": "u", "resourceVersion": "7"}}));
    }

    #[test]
    fn an_apply_names_manager_object_and_force() {
        let (request, body) = sent(DEPLOYMENT, apply(Part::Main, false));
        assert_eq!(request.content_type, "application/apply-patch+yaml");
        assert_eq!(
            request.path,
            "/apis/apps/v1/namespaces/ns/deployments/p?timeout=8s&fieldManager=springtide-a-partition"
        );
        let object = json!({"name": "p", "namespace": "ns", "uid": "u"});
        let whole = json!({
            "apiVersion": "apps/v1", "kind": "Deployment", "metadata": object, "spec": {"replicas": 3},
        });
        assert_eq!(body, whole);
        let (request, body) = sent(DEPLOYMENT, apply(Part::Scale, true));
        assert!(
            request.path.contains("/p/scale?") && request.path.ends_with("&force=true"),
            "{}",
            request.path
        );
        assert_eq!((&body["apiVersion"], &body["kind"]), (&json!("autoscaling/v1"), &json!("Scale")));
    }

    #[test]
    fn an_eviction_is_of_one_incarnation() {
        let resource_version = Some(ResourceVersion(7));
        let (request, body) =
            sent(Resource::POD, Action::Evict { uid: uid(), resource_version, grace_seconds: Some(3) });
        assert_eq!(request.method, Method::POST);
        assert!(request.path.starts_with("/api/v1/namespaces/ns/pods/p/eviction?"), "{}", request.path);
        let options = json!({"preconditions": {"uid": "u", "resourceVersion": "7"}, "gracePeriodSeconds": 3});
        let eviction = json!({
            "apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": "p", "namespace": "ns"},
            "deleteOptions": options,
        });
        assert_eq!(body, eviction);
    }

    #[test]
    fn a_dry_run_is_the_same_request_that_stores_nothing() {
        let patch =
            Action::Patch { part: Part::Resize, patch: Patch::Strategic(fields(json!({"spec": {}}))) };
        let evict = Action::Evict { uid: uid(), resource_version: None, grace_seconds: None };
        for action in [patch, apply(Part::Main, true), evict, Action::Create { manifest: json!({}) }] {
            let (real, real_body) = sent(DEPLOYMENT, action.clone());
            let (dry, dry_body) = sent(DEPLOYMENT, action.dry_run("q"));
            assert_eq!(dry.path, real.path.replace("timeout=8s", "timeout=8s&dryRun=All"));
            assert_eq!((dry.method, dry.content_type, dry_body), (real.method, real.content_type, real_body));
        }
        let delete = Action::Delete { uid: uid(), resource_version: None, grace_seconds: None };
        let (_, body) = sent(Resource::POD, delete.dry_run("q"));
        assert_eq!(body["dryRun"], json!(["All"]));
    }
}
