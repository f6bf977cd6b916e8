//! The pods of a job: their names, and the manifests made from the job's template.

use crate::growth;
use crate::plan::Start;
use crate::pod_groups::pod_group_key;
use crate::profiles::fitting::Fitting;
use crate::profiles::sampler::PROFILE_LABEL;
use crate::projections::job::JobView;
use crate::projections::pod::TRACKING_FINALIZER;
use crate::queues::{Placement, tier};
use jiff::SignedDuration;
use serde_json::{Map, Value, json};
use springtide_crds::batch_job::{
    CompletionMode, CompletionTracking, FailureRecord, LogTail, NODE_NAME_MAX_LENGTH, NodeAvoidance,
};
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
/// Label of a pod that was made though no node had room for it, so that a node autoscaler sees it.
pub const UNFIT_LABEL: &str = "springtide.dev/unfit";
/// Such a pod waits for a node for so long at least.
pub const UNFIT_DEADLINE: SignedDuration = SignedDuration::from_secs(600);
/// Label and annotation with the index of a pod of an Indexed job, as batch/v1 sets them.
pub const INDEX_LABEL: &str = "batch.kubernetes.io/job-completion-index";
/// Annotation that says which requests are the profile's, and what they rest on.
pub const REQUESTS_ANNOTATION: &str = "springtide.dev/profile-requests";
/// Environment variable with the index, as batch/v1 sets it.
const INDEX_VARIABLE: &str = "JOB_COMPLETION_INDEX";
/// So many nodes on which pods failed are avoided: one that is broken is among them, and a task that fails everywhere
/// does not keep its job off the whole cluster.
const AVOIDED_NODES: usize = 3;
/// Weight of the preference, of at most 100: as much as a template can give to one of its own.
const AVOIDANCE_WEIGHT: u32 = 100;

/// Name of the pod for one attempt at one index. It is the lock that keeps an index from running
/// twice: a disrupted attempt is made again under the same name.
pub fn pod_name(job: &str, index: u32, attempt: u32) -> String {
    format!("{job}-{index}-{attempt}")
}

/// Key of the pod for one attempt at one index.
pub fn pod_key(job: &ObjectKey, index: u32, attempt: u32) -> ObjectKey {
    ObjectKey { namespace: job.namespace.clone(), name: pod_name(&job.name, index, attempt).into() }
}

/// The reference by which an object belongs to a job, and goes with it.
pub(crate) fn owner_reference(job: &JobView) -> Value {
    json!({
        "apiVersion": JobView::RESOURCE.api_version(),
        "kind": JobView::RESOURCE.kind,
        "name": job.meta().key.name,
        "uid": job.meta().uid,
        "controller": true,
        "blockOwnerDeletion": true,
    })
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
    placement: &'a Placement,
    /// The newest failures of the job, newest last.
    failures: &'a [FailureRecord],
    manifest: Value,
}

impl<'a> PodFactory<'a> {
    /// A factory for the pods of `job` in its queue, with the requests that its profile gives them. `failures` are the
    /// newest of the job, newest last.
    pub fn new(
        job: &'a JobView,
        placement: &'a Placement,
        fitting: &Fitting,
        failures: &'a [FailureRecord],
    ) -> Self {
        let template = job.template.unpack();
        let mut labels = template.labels().cloned().unwrap_or_default();
        if let Some(mapping) = &placement.mapping {
            tier::add_labels(&mut labels, mapping);
        }
        labels.insert(JOB_LABEL.to_owned(), json!(job.meta().key.name));
        labels.insert(QUEUE_LABEL.to_owned(), json!(placement.queue_name().unwrap_or_default()));
        labels.insert(TIER_LABEL.to_owned(), json!(job.spec.tier));
        if let Some(profile) = &fitting.profile {
            labels.insert(PROFILE_LABEL.to_owned(), json!(profile));
        }
        let mut metadata = json!({
            "namespace": job.meta().key.namespace,
            "labels": labels,
            "ownerReferences": [owner_reference(job)],
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
        // Before it grows: what is learned is less than what a task needs that has just run out of memory.
        fitting.apply(&mut spec);
        if fitting.fitted.is_some() {
            metadata["annotations"][REQUESTS_ANNOTATION] = json!(fitting.note);
        }
        let manifest = json!({
            "apiVersion": Resource::POD.api_version(),
            "kind": Resource::POD.kind,
            "metadata": metadata,
            "spec": spec,
        });
        Self { job, placement, failures, manifest }
    }

    /// Has the pods refer to the PodGroup of their job.
    #[must_use]
    pub fn in_group(mut self) -> Self {
        self.manifest["spec"]["schedulingGroup"] = json!({"podGroupName": pod_group_key(self.job).name});
        self
    }

    /// The PriorityClass of the pods.
    pub fn priority_class(&self) -> Option<&str> {
        let of_tier =
            self.placement.mapping.as_ref().and_then(|mapping| mapping.priority_class_name.as_deref());
        of_tier.or_else(|| self.manifest["spec"]["priorityClassName"].as_str())
    }

    /// The write that creates the pod for one attempt at one index.
    pub fn create(&self, start: &Start) -> Write {
        let Start { index, attempt, oom_steps } = *start;
        let key = pod_key(&self.job.meta().key, index, attempt);
        let mut manifest = self.manifest.clone();
        manifest["metadata"]["name"] = json!(key.name);
        match self.job.spec.completion_mode {
            CompletionMode::Indexed => self.name_index(&mut manifest, index),
            CompletionMode::NonIndexed => {}
        }
        let retry = &self.job.spec.retry;
        if let Some(spec) = manifest["spec"].as_object_mut() {
            if let Some(on_oom) = &retry.on_oom {
                growth::grow(spec, on_oom, oom_steps);
            }
            // After it has grown: memory may get another name.
            if let Some(mapping) = &self.placement.mapping {
                tier::map_spec(spec, mapping);
            }
        }
        match retry.node_avoidance {
            NodeAvoidance::FailedNodes => avoid_nodes(&mut manifest["spec"], &self.failed_nodes(index)),
            NodeAvoidance::None => {}
        }
        Write { resource: Resource::POD, key, class: WriteClass::Spec, action: Action::Create { manifest } }
    }

    /// The same for a pod that no node has room for.
    pub fn create_unfit(&self, start: &Start) -> Write {
        let mut write = self.create(start);
        if let Action::Create { manifest } = &mut write.action {
            manifest["metadata"]["labels"][UNFIT_LABEL] = json!("true");
        }
        write
    }

    /// The nodes of the last failures, newest first, and those of this index before all others.
    fn failed_nodes(&self, index: u32) -> Vec<&str> {
        let newest_first = self.failures.iter().rev();
        let (own, others): (Vec<_>, Vec<_>) = newest_first.partition(|failure| failure.index == index);
        let mut nodes: Vec<&str> = Vec::new();
        for failure in own.into_iter().chain(others) {
            let node = failure.node.as_str();
            // A name of the greatest length may have been cut, and the API server refuses what is none.
            let is_whole = !node.is_empty() && node.len() < NODE_NAME_MAX_LENGTH;
            if nodes.len() < AVOIDED_NODES && is_whole && !nodes.contains(&node) {
                nodes.push(node);
            }
        }
        nodes
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

/// Adds to a pod spec that it prefers other nodes, beside what it prefers or demands already.
///
/// By the field `metadata.name`, as a node's label `kubernetes.io/hostname` may be another name; a requirement on it
/// takes one value. They hold together, so that a node gets the weight that is none of these.
fn avoid_nodes(spec: &mut Value, nodes: &[&str]) {
    if nodes.is_empty() {
        return;
    }
    let fields: Vec<Value> = nodes
        .iter()
        .map(|node| json!({"key": "metadata.name", "operator": "NotIn", "values": [node]}))
        .collect();
    let term = json!({"weight": AVOIDANCE_WEIGHT, "preference": {"matchFields": fields}});
    // What the template has in these places and is of another type, the API server refuses, and says so.
    let mut place = spec;
    for field in ["affinity", "nodeAffinity"] {
        let Some(object) = place.as_object_mut() else { return };
        place = object.entry(field).or_insert(Value::Null);
        if place.is_null() {
            *place = json!({});
        }
    }
    let Some(affinity) = place.as_object_mut() else { return };
    match affinity.entry("preferredDuringSchedulingIgnoredDuringExecution").or_insert(Value::Null) {
        Value::Array(terms) => terms.push(term),
        empty @ Value::Null => *empty = json!([term]),
        Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Object(_) => {}
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
        created_after(job, &[], index, attempt)
    }

    /// The same after failures, each as its index and node.
    fn created_after(job: &JobView, failures: &[(u32, &str)], index: u32, attempt: u32) -> Value {
        let failures: Vec<FailureRecord> = failures
            .iter()
            .map(|(index, node)| {
                let record = json!({"index": index, "attempt": 0, "exitCode": 1, "node": node});
                serde_json::from_value(record).unwrap()
            })
            .collect();
        let start = Start { index, attempt, oom_steps: 0 };
        manifest(&PodFactory::new(job, &Placement::default(), &Fitting::default(), &failures), &start)
    }

    fn created_in(placement: &Placement, job: &JobView, fitting: &Fitting, start: &Start) -> Value {
        manifest(&PodFactory::new(job, placement, fitting, &[]), start)
    }

    fn manifest(factory: &PodFactory<'_>, start: &Start) -> Value {
        let Action::Create { manifest } = factory.create(start).action else { panic!() };
        manifest
    }

    /// The nodes that a pod prefers to avoid.
    fn avoided(pod: &Value) -> Vec<&str> {
        let terms =
            &pod["spec"]["affinity"]["nodeAffinity"]["preferredDuringSchedulingIgnoredDuringExecution"];
        let Some(term) = terms.as_array().and_then(|terms| terms.last()) else { return Vec::new() };
        let fields = term["preference"]["matchFields"].as_array().unwrap();
        fields.iter().map(|field| field["values"][0].as_str().unwrap()).collect()
    }

    #[test]
    fn a_pod_prefers_other_nodes_than_the_last_three_where_the_job_failed_its_own_index_first() {
        let template = "template: {spec: {containers: [{name: c}]}}";
        let job_of = |retry: &str| job(&format!("{{completions: 9, {retry}, {template}}}"));
        let failing = job_of("retry: {}");
        let long = "n".repeat(NODE_NAME_MAX_LENGTH);
        let failures = [(1, "n1"), (1, "n2"), (2, "n2"), (3, "n3"), (4, ""), (4, &*long), (4, "n4")];
        assert_eq!(avoided(&created_after(&failing, &failures, 1, 2)), ["n2", "n1", "n4"]);
        assert_eq!(avoided(&created_after(&failing, &failures, 8, 0)), ["n4", "n3", "n2"]);
        assert_eq!(created(&failing, 8, 0)["spec"].get("affinity"), None);
        let indifferent = job_of("retry: {nodeAvoidance: None}");
        assert_eq!(created_after(&indifferent, &failures, 1, 2)["spec"].get("affinity"), None);
    }

    #[test]
    fn what_the_template_says_of_nodes_stays_as_it_is() {
        let own = json!({
            "podAffinity": {"x": 1},
            "nodeAffinity": {
                "requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [{"matchFields": []}]},
                "preferredDuringSchedulingIgnoredDuringExecution": [{"weight": 7, "preference": {}}],
            },
        });
        let with = |affinity: &Value| {
            job(&format!("{{template: {{spec: {{containers: [{{name: c}}], affinity: {affinity}}}}}}}"))
        };
        let mut pod = created_after(&with(&own), &[(0, "n1")], 0, 1);
        assert_eq!(avoided(&pod), ["n1"]);
        let preferred = "/spec/affinity/nodeAffinity/preferredDuringSchedulingIgnoredDuringExecution";
        assert_eq!(pod.pointer_mut(preferred).unwrap().as_array_mut().unwrap().pop().unwrap()["weight"], 100);
        assert_eq!(pod["spec"]["affinity"], own);
        assert_eq!(avoided(&created_after(&with(&Value::Null), &[(0, "n1")], 0, 1)), ["n1"]);
        let wrong = json!({"nodeAffinity": "wrong"});
        assert_eq!(created_after(&with(&wrong), &[(0, "n1")], 0, 1)["spec"]["affinity"], wrong);
    }

    #[test]
    fn a_pod_bears_its_queue_and_gets_what_the_tier_says() {
        let mapping =
            "{name: BestEffort, priorityClassName: low, podLabels: {a: tier, springtide.dev/job: x}}";
        let placement = Placement {
            queue: Some(crate::admission::QueueId::Object(ObjectKey::new("ns", "reports"))),
            mapping: Some(std::sync::Arc::new(serde_yaml::from_str(mapping).unwrap())),
            ..Placement::default()
        };
        let job = job("{template: {metadata: {labels: {a: own}}, spec: {containers: [{name: c}]}}}");
        let start = Start { index: 0, attempt: 0, oom_steps: 0 };
        let pod = created_in(&placement, &job, &Fitting::default(), &start);
        assert_eq!(
            pod["metadata"]["labels"],
            json!({
                "a": "tier", "springtide.dev/job": "a", "springtide.dev/queue": "reports",
                "springtide.dev/tier": "BestEffort",
            })
        );
        assert_eq!(pod["spec"]["priorityClassName"], "low");
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
        let fitting = Fitting {
            profile: Some("etl".into()),
            fitted: found,
            samples: 30,
            note: "why".to_owned(),
            ..Fitting::default()
        };
        let start = Start { index: 0, attempt: 0, oom_steps: 0 };
        let pod = created_in(&Placement::default(), &job, &fitting, &start);
        assert_eq!(pod["metadata"]["labels"]["springtide.dev/profile"], "etl");
        assert_eq!(pod["metadata"]["annotations"], json!({"springtide.dev/profile-requests": "why"}));
        assert_eq!(pod["spec"]["containers"][0]["resources"], json!({"requests": {"cpu": "250m"}}));
        let plain = created(&job, 0, 0);
        assert_eq!(plain["metadata"].get("annotations"), None);
        assert_eq!(plain["metadata"]["labels"].get("springtide.dev/profile"), None, "nobody measures it");
        assert_eq!(plain["spec"]["containers"][0].get("resources"), None);
    }

    #[test]
    fn the_longest_names_stay_hostnames() {
        use springtide_crds::batch_job::{MAX_ATTEMPTS, MAX_COMPLETIONS, NAME_MAX_LENGTH};
        let name = pod_name(&"j".repeat(NAME_MAX_LENGTH), MAX_COMPLETIONS - 1, MAX_ATTEMPTS);
        assert_eq!(name.len(), 63);
    }
}
