//! The API server, as far as the plans of the controller need it: what it makes of a write.

use super::{Cluster, NAMESPACE, has_finalizers, is_deleting, is_terminal, text, will_never_run};
use serde_json::{Value, json};
use springtide_batch_job::pod_groups::POD_GROUP;
use springtide_plumbing::error::{Refusal, WriteError};
use springtide_plumbing::executor::Done;
use springtide_plumbing::key::Resource;
use springtide_plumbing::plan::{Action, Patch, Write};

impl Cluster {
    /// Carries out one write, with its preconditions.
    pub(crate) fn perform(&mut self, write: &Write) -> Result<Done, WriteError> {
        assert_eq!(&*write.key.namespace, NAMESPACE);
        let name = write.key.name.as_ref();
        let line = format!("{} {} {name}", write.action.verb(), write.resource.plural);
        if write.action.is_noop() {
            return Ok(Done { noop: true, ..Done::default() });
        }
        let result = self.carry_out(write, name);
        self.log.push(match &result {
            Ok(_) => line,
            Err(error) => format!("{line}: {error}"),
        });
        result.map(|()| Done { resource_version: Some(self.version()), ..Done::default() })
    }

    fn carry_out(&mut self, write: &Write, name: &str) -> Result<(), WriteError> {
        let stored = self.kind(write.resource).objects.get(name).cloned();
        if self.protected == Some(name) {
            return Err(refused(403, "a policy protects this pod"));
        }
        match &write.action {
            Action::Create { manifest } if write.resource == POD_GROUP => {
                if let Some((of, code, message)) = self.refuse_groups
                    && ["queue", "job"].iter().any(|label| {
                        text(manifest, &format!("/metadata/labels/springtide.dev~1{label}")) == of
                    })
                {
                    return Err(if code < 500 {
                        refused(code, message)
                    } else {
                        WriteError::Unknown(format!("{code} {message}"))
                    });
                }
                let unknown = refused(404, "the server could not find the requested resource");
                let groups = self.pod_groups.as_mut().ok_or(unknown)?;
                groups.insert(name.to_owned()).then_some(()).ok_or(WriteError::AlreadyExists)
            }
            Action::Create { manifest } => self.create(stored.as_ref(), name, manifest.clone()),
            Action::Delete { uid, resource_version, grace_seconds } => {
                let stored = stored.ok_or(WriteError::Gone)?;
                if text(&stored, "/metadata/uid") != uid.0.as_ref() {
                    return Err(WriteError::Conflict("uid".into()));
                }
                let version = resource_version.map(|version| version.to_string());
                if version.is_some_and(|version| version != text(&stored, "/metadata/resourceVersion")) {
                    return Err(WriteError::Conflict("resourceVersion".into()));
                }
                if write.resource == Resource::POD {
                    self.delete_pod(name, grace_seconds.map_or(30, i64::from));
                } else {
                    self.remove(write.resource, name);
                }
                Ok(())
            }
            Action::Patch { patch: Patch::Json { operations }, .. } => {
                let mut object = stored.ok_or(WriteError::Gone)?;
                patch(&mut object, operations)?;
                let has_ended = is_terminal(&object) || will_never_run(&object);
                let goes = is_deleting(&object) && !has_finalizers(&object) && has_ended;
                self.store(write.resource, object);
                if goes {
                    self.remove(write.resource, name);
                }
                Ok(())
            }
            Action::Status { uid, resource_version, status, .. } => {
                let mut object = stored.ok_or(WriteError::Gone)?;
                if text(&object, "/metadata/uid") != uid.0.as_ref()
                    || text(&object, "/metadata/resourceVersion") != resource_version.to_string()
                {
                    return Err(WriteError::Conflict("resourceVersion".into()));
                }
                object["status"] = status.clone();
                self.store(write.resource, object);
                Ok(())
            }
            other @ (Action::Patch { .. }
            | Action::Apply { .. }
            | Action::Evict { .. }
            | Action::DryRun { .. }) => panic!("{other:?} is none of this controller's"),
        }
    }

    fn create(&mut self, stored: Option<&Value>, name: &str, mut pod: Value) -> Result<(), WriteError> {
        if let Some((code, message)) = self.refuse_pods {
            return Err(refused(code, message));
        }
        if self.broken.is_some_and(|job| text(&pod, "/metadata/ownerReferences/0/name") == job) {
            return Err(WriteError::Unknown("500: failed calling webhook".into()));
        }
        if stored.is_some() {
            return Err(WriteError::AlreadyExists);
        }
        let used = || self.pods.objects.values().filter(|pod| !is_terminal(pod)).count();
        if self.quota < usize::MAX && used() >= self.quota {
            return Err(refused(403, "pods is forbidden: exceeded quota: pods"));
        }
        pod["status"] = json!({"phase": "Pending"});
        self.identify(&mut pod, name);
        self.store(Resource::POD, pod);
        Ok(())
    }
}

fn refused(code: u16, message: &str) -> WriteError {
    WriteError::Refused(Refusal {
        code,
        reason: "Refused".into(),
        message: message.into(),
        fields: Vec::new(),
    })
}

/// `test` and `remove` of RFC 6902, which is all the controller uses.
fn patch(object: &mut Value, operations: &Value) -> Result<(), WriteError> {
    for operation in operations.as_array().unwrap() {
        let path = text(operation, "/path");
        match text(operation, "/op") {
            "test" if object.pointer(path) == Some(&operation["value"]) => {}
            "test" => return Err(WriteError::Conflict(format!("test of {path}"))),
            "remove" => {
                let (list, at) = path.rsplit_once('/').unwrap();
                object.pointer_mut(list).and_then(Value::as_array_mut).unwrap().remove(at.parse().unwrap());
            }
            other => panic!("{other} in a patch"),
        }
    }
    Ok(())
}
