//! The pods of a job: their names, and the manifests made from the job's template.

use crate::profiles::fitting::Fitting;
use crate::profiles::sampler::PROFILE_LABEL;
use crate::projections::job::JobView;
use crate::projections::pod::TRACKING_FINALIZER;
use serde_json::{Map, Value, json};
use springtide_crds::batch_job::{CompletionMode, CompletionTracking, LogTail};
use springtide_crds::common::Tier;
use springtide_plumbing::key::{ObjectKey, Resource};
use springtide_plumbing::plan::{Action, Write, WriteClass};
use springtide_plumbing::projection::Projection;

/// Label with the job's name.
pub const JOB_LABEL: &str = "springtide.dev/job";
/// Label with the queue that let the pod start; empty for the built-in queue, which has no object.
pub const QUEUE_LABEL: &str = "springtide.dev/queue";
/// Label with the job's tier.
pub const TIER_LABEL: &str = "springtide.dev/tier";
/// Label and annotation with the index of a pod of an Indexed job, as batch/v1 sets them.
pub const INDEX_LABEL: &str = "batch.kubernetes.io/job-completion-index";
/// Annotation that says which requests are the profile's, and what they rest on.
pub const REQUESTS_ANNOTATION: &str = "springtide.dev/profile-requests";
/// Environment variable with the index, as batch/v1 sets it.
const INDEX_VARIABLE: &str = "JOB_COMPLETION_INDEX";

/// Name of the pod for one attempt at one index. It is the lock that keeps an index from running
/// twice: a disrupted attempt is made again under the same name.
pub fn pod_name(job: &str, index: u32, attempt: u32) -> String {
    format!("{job}-{index}-{attempt}")
}

/// Key of the pod for one attempt at one index.
pub fn pod_key(job: &ObjectKey, index: u32, attempt: u32) -> ObjectKey {
    ObjectKey { namespace: job.namespace.clone(), name: pod_name(&job.name, index, attempt).into() }
}

/// Whether the job's pods carry [`TRACKING_FINALIZER`].
pub fn tracking(job: &JobView) -> CompletionTracking {
    job.spec.release.completion_tracking.unwrap_or(match job.spec.tier {
        Tier::BestEffort => CompletionTracking::AtLeastOnce,
        Tier::Standard | Tier::Guaranteed => CompletionTracking::Strict,
    })
}

/// Makes the pods of one job: the template is unpacked and prepared once.
pub struct PodFactory<'a> {
    job: &'a JobView,
    manifest: Value,
}

impl<'a> PodFactory<'a> {
    /// A factory for the pods of `job`, with the requests that its profile gives them.
    pub fn new(job: &'a JobView, fitting: &Fitting) -> Self {
        let template = job.template.unpack();
        let mut labels = template.labels().cloned().unwrap_or_default();
        labels.insert(JOB_LABEL.to_owned(), json!(job.meta().key.name));
        labels.insert(QUEUE_LABEL.to_owned(), json!(""));
        labels.insert(TIER_LABEL.to_owned(), json!(job.spec.tier));
        if let Some(profile) = job.profile_key() {
            labels.insert(PROFILE_LABEL.to_owned(), json!(profile.name));
        }
        let mut metadata = json!({
            "namespace": job.meta().key.namespace,
            "labels": labels,
            "ownerReferences": [{
                "apiVersion": JobView::RESOURCE.api_version(),
                "kind": JobView::RESOURCE.kind,
                "name": job.meta().key.name,
                "uid": job.meta().uid,
                "controller": true,
                "blockOwnerDeletion": true,
            }],
        });
        if let Some(annotations) = template.annotations() {
            metadata["annotations"] = json!(annotations);
        }
        match tracking(job) {
            CompletionTracking::Strict => metadata["finalizers"] = json!([TRACKING_FINALIZER]),
            CompletionTracking::AtLeastOnce => {}
        }
        let mut spec = template.spec().cloned().unwrap_or_default();
        spec.insert("restartPolicy".to_owned(), json!("Never"));
        match job.spec.release.log_tail {
            LogTail::OnFailure => each_container(&mut spec, |container| {
                container.entry("terminationMessagePolicy").or_insert_with(|| json!("FallbackToLogsOnError"));
            }),
            LogTail::Never => {}
        }
        if let Some(fitted) = &fitting.fitted {
            fitted.apply(&mut spec);
            metadata["annotations"][REQUESTS_ANNOTATION] = json!(fitting.note);
        }
        let manifest = json!({
            "apiVersion": Resource::POD.api_version(),
            "kind": Resource::POD.kind,
            "metadata": metadata,
            "spec": spec,
        });
        Self { job, manifest }
    }

    /// The write that creates the pod for one attempt at one index.
    pub fn create(&self, index: u32, attempt: u32) -> Write {
        let key = pod_key(&self.job.meta().key, index, attempt);
        let mut manifest = self.manifest.clone();
        manifest["metadata"]["name"] = json!(key.name);
        match self.job.spec.completion_mode {
            CompletionMode::Indexed => self.name_index(&mut manifest, index),
            CompletionMode::NonIndexed => {}
        }
        Write { resource: Resource::POD, key, class: WriteClass::Spec, action: Action::Create { manifest } }
    }

    /// Tells a pod of an Indexed job its number: in its labels, environment and hostname.
    fn name_index(&self, manifest: &mut Value, index: u32) {
        let number = index.to_string();
        manifest["metadata"]["labels"][INDEX_LABEL] = json!(number);
        manifest["metadata"]["annotations"][INDEX_LABEL] = json!(number);
        let Some(spec) = manifest["spec"].as_object_mut() else { return };
        // Together with the template's `subdomain` and a headless Service this is a stable DNS name.
        spec.entry("hostname").or_insert_with(|| json!(format!("{}-{index}", self.job.meta().key.name)));
        each_container(spec, |container| {
            let variables = container.entry("env").or_insert_with(|| json!([]));
            let Some(variables) = variables.as_array_mut() else { return };
            if !variables.iter().any(|variable| variable["name"] == INDEX_VARIABLE) {
                // First, so that the template's own variables may refer to it.
                variables.insert(0, json!({"name": INDEX_VARIABLE, "value": number}));
            }
        });
    }
}

fn each_container(spec: &mut Map<String, Value>, mut change: impl FnMut(&mut Map<String, Value>)) {
    for list in ["initContainers", "containers"] {
        let containers = spec.get_mut(list).and_then(Value::as_array_mut);
        containers.into_iter().flatten().filter_map(Value::as_object_mut).for_each(&mut change);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn job(spec: &str) -> JobView {
        let text = format!("metadata: {{namespace: ns, name: a, uid: u1}}\nspec: {spec}");
        serde_yaml::from_str(&text).unwrap()
    }

    fn created(job: &JobView, index: u32, attempt: u32) -> Value {
        fitted(job, &Fitting::default(), index, attempt)
    }

    fn fitted(job: &JobView, fitting: &Fitting, index: u32, attempt: u32) -> Value {
        let Action::Create { manifest } = PodFactory::new(job, fitting).create(index, attempt).action else {
            panic!()
        };
        manifest
    }

    #[test]
    fn an_indexed_pod_knows_its_number_and_keeps_its_template() {
        let job = job(
            "{tier: Standard, completionMode: Indexed, completions: 9, template: {metadata: {labels: {app: x}, \
             annotations: {note: y}}, spec: {subdomain: s, initContainers: [{name: i}], containers: \
             [{name: c, terminationMessagePolicy: File, env: [{name: A, value: b}]}]}}}",
        );
        let pod = created(&job, 7, 2);
        assert_eq!(
            pod["metadata"],
            json!({
                "namespace": "ns", "name": "a-7-2", "finalizers": ["springtide.dev/job-tracking"],
                "labels": {
                    "app": "x", "springtide.dev/job": "a", "springtide.dev/queue": "",
                    "springtide.dev/tier": "Standard", "batch.kubernetes.io/job-completion-index": "7",
                },
                "annotations": {"note": "y", "batch.kubernetes.io/job-completion-index": "7"},
                "ownerReferences": [{
                    "apiVersion": "springtide.dev/v1alpha1", "kind": "BatchJob", "name": "a", "uid": "u1",
                    "controller": true, "blockOwnerDeletion": true,
                }],
            })
        );
        let index = json!({"name": "JOB_COMPLETION_INDEX", "value": "7"});
        assert_eq!(
            pod["spec"],
            json!({
                "restartPolicy": "Never", "hostname": "a-7", "subdomain": "s",
                "initContainers": [
                    {"name": "i", "terminationMessagePolicy": "FallbackToLogsOnError", "env": [index.clone()]},
                ],
                "containers": [
                    {"name": "c", "terminationMessagePolicy": "File", "env": [index, {"name": "A", "value": "b"}]},
                ],
            })
        );
    }

    #[test]
    fn tasks_without_a_number_get_no_trace_of_one() {
        let job =
            job("{release: {logTail: Never}, template: {spec: {hostname: h, containers: [{name: c}]}}}");
        let pod = created(&job, 0, 0);
        assert_eq!(pod["metadata"].get("finalizers"), None, "BestEffort tracks AtLeastOnce");
        assert_eq!(pod["metadata"].get("annotations"), None);
        assert_eq!(
            pod["spec"],
            json!({"restartPolicy": "Never", "hostname": "h", "containers": [{"name": "c"}]})
        );
    }

    #[test]
    fn a_pod_with_a_profile_bears_its_name_and_what_it_got() {
        use crate::profiles::fitting::Fitted;
        use crate::projections::profile::Recommended;
        use springtide_crds::batch_task_profile::ProfileMode;
        use std::sync::Arc;
        let job = job("{profile: {key: etl, mode: Auto}, template: {spec: {containers: [{name: c}]}}}");
        let rows = [Recommended { container: "c".into(), cpu: Some(250), memory: None }];
        let found = Fitted::new(&job.template.unpack(), &rows, ProfileMode::Auto).map(Arc::new);
        let fitting = Fitting { fitted: found, samples: 30, note: "why".to_owned() };
        let pod = fitted(&job, &fitting, 0, 0);
        assert_eq!(pod["metadata"]["labels"]["springtide.dev/profile"], "etl");
        assert_eq!(pod["metadata"]["annotations"], json!({"springtide.dev/profile-requests": "why"}));
        assert_eq!(pod["spec"]["containers"][0]["resources"], json!({"requests": {"cpu": "250m"}}));
        let plain = created(&job, 0, 0);
        assert_eq!(plain["metadata"].get("annotations"), None);
        assert_eq!(plain["spec"]["containers"][0].get("resources"), None);
    }

    #[test]
    fn the_longest_names_stay_hostnames() {
        use springtide_crds::batch_job::{MAX_ATTEMPTS, MAX_COMPLETIONS, NAME_MAX_LENGTH};
        let name = pod_name(&"j".repeat(NAME_MAX_LENGTH), MAX_COMPLETIONS - 1, MAX_ATTEMPTS);
        assert_eq!(name.len(), 63);
    }
}
