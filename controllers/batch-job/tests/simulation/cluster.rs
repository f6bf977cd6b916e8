//! What the objects of one namespace do: the rules of the API server, the kubelet and the garbage
//! collector that a plan rests on, and every version as a watch would tell it.

// Its place is named for the other program that includes this file.
#[path = "cluster/api_server.rs"]
mod api_server;

use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};
use springtide_batch_job::projections::job::BATCH_JOB;
use springtide_crds::batch_job;
use springtide_plumbing::key::{Resource, ResourceVersion};
use std::collections::{BTreeMap, BTreeSet, VecDeque};

pub(crate) const NAMESPACE: &str = "ns";
/// The node on which every pod runs.
pub(crate) const NODE: &str = "n1";

/// The exit code that the failure policy of every job here ignores.
pub(crate) const IGNORED: i32 = 7;

/// One event of a watch.
#[derive(Clone, Debug)]
pub(crate) enum Event {
    Applied(Value),
    Deleted(Value),
}

/// Objects of one kind, and the events nobody has been told of yet.
#[derive(Clone, Debug, Default)]
pub(crate) struct Kind {
    pub(crate) objects: BTreeMap<String, Value>,
    pub(crate) events: VecDeque<Event>,
}

/// The truth.
#[derive(Clone, Debug)]
pub(crate) struct Cluster {
    pub(crate) now: Timestamp,
    pub(crate) jobs: Kind,
    pub(crate) pods: Kind,
    /// Pods that a ResourceQuota leaves room for.
    pub(crate) quota: usize,
    /// By how much the clock of the node is ahead.
    pub(crate) node_clock_ahead: SignedDuration,
    /// Creates of pods are refused like this.
    pub(crate) refuse_pods: Option<(u16, &'static str)>,
    /// Creates of pods of this job are answered by a 500.
    pub(crate) broken: Option<&'static str>,
    /// PodGroups by name; `None` where the server does not know the kind.
    pub(crate) pod_groups: Option<BTreeSet<String>>,
    /// Creates of PodGroups of this queue or job are refused like this; above 500 nobody knows what came of them.
    pub(crate) refuse_groups: Option<(&'static str, u16, &'static str)>,
    /// A policy forbids to delete or to change this pod.
    pub(crate) protected: Option<&'static str>,
    version: u64,
    born: u64,
    /// Writes that changed something, as `verb resource name`.
    pub(crate) log: Vec<String>,
    /// Every pod that ever ended, as its last container reported.
    pub(crate) ended: Vec<Ended>,
    pub(crate) violations: Vec<String>,
}

/// How a pod ended, or was lost.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Ended {
    pub(crate) uid: String,
    pub(crate) job: String,
    pub(crate) index: u32,
    pub(crate) attempt: u32,
    pub(crate) how: How,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum How {
    Succeeded,
    Failed,
    /// Whatever it came to does not count.
    Disrupted,
}

pub(crate) fn text<'a>(object: &'a Value, pointer: &str) -> &'a str {
    object.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}

pub(crate) fn is_terminal(pod: &Value) -> bool {
    ["Succeeded", "Failed"].contains(&text(pod, "/status/phase"))
}

pub(crate) fn is_deleting(object: &Value) -> bool {
    object.pointer("/metadata/deletionTimestamp").is_some()
}

/// Deleted before it had a node: it is gone as soon as no finalizer holds it.
fn will_never_run(pod: &Value) -> bool {
    is_deleting(pod) && text(pod, "/spec/nodeName").is_empty()
}

/// Index and attempt by the name of a pod, `<job>-<index>-<attempt>`.
pub(crate) fn attempt(pod: &Value) -> (u32, u32) {
    let mut parts = text(pod, "/metadata/name").rsplit('-');
    let attempt = parts.next().and_then(|part| part.parse().ok()).unwrap();
    (parts.next().and_then(|part| part.parse().ok()).unwrap(), attempt)
}

fn has_finalizers(object: &Value) -> bool {
    object.pointer("/metadata/finalizers").and_then(Value::as_array).is_some_and(|held| !held.is_empty())
}

impl Cluster {
    pub(crate) fn new() -> Self {
        Self {
            now: "2026-11-11T00:00:00Z".parse().unwrap(),
            jobs: Kind::default(),
            pods: Kind::default(),
            quota: usize::MAX,
            node_clock_ahead: SignedDuration::ZERO,
            refuse_pods: None,
            broken: None,
            pod_groups: None,
            refuse_groups: None,
            protected: None,
            version: 1,
            born: 0,
            log: Vec::new(),
            ended: Vec::new(),
            violations: Vec::new(),
        }
    }

    pub(crate) fn version(&self) -> ResourceVersion {
        ResourceVersion(self.version.into())
    }

    /// That of a change to an object which is not kept here.
    pub(crate) fn next_version(&mut self) -> ResourceVersion {
        self.version += 1;
        self.version()
    }

    pub(crate) fn pass_time(&mut self, milliseconds: i64) {
        self.now += SignedDuration::from_millis(milliseconds);
    }

    fn second(&self) -> String {
        Timestamp::from_second(self.now.as_second()).unwrap().to_string()
    }

    /// The second that the node's clock shows.
    fn node_second(&self) -> String {
        Timestamp::from_second((self.now + self.node_clock_ahead).as_second()).unwrap().to_string()
    }

    fn identify(&mut self, object: &mut Value, name: &str) {
        self.born += 1;
        object["metadata"]["namespace"] = json!(NAMESPACE);
        object["metadata"]["name"] = json!(name);
        object["metadata"]["uid"] = json!(format!("uid-{}", self.born));
        object["metadata"]["creationTimestamp"] = json!(self.second());
    }

    fn kind(&mut self, resource: Resource) -> &mut Kind {
        if resource == Resource::POD { &mut self.pods } else { &mut self.jobs }
    }

    /// Stores a version and tells of it.
    fn store(&mut self, resource: Resource, mut object: Value) {
        self.version += 1;
        object["metadata"]["resourceVersion"] = json!(self.version.to_string());
        let name = text(&object, "/metadata/name").to_owned();
        let kind = self.kind(resource);
        kind.events.push_back(Event::Applied(object.clone()));
        kind.objects.insert(name.clone(), object);
        if resource == Resource::POD {
            self.no_index_runs_twice(&name);
        }
    }

    fn remove(&mut self, resource: Resource, name: &str) {
        self.version += 1;
        let version = self.version.to_string();
        let kind = self.kind(resource);
        let Some(mut last) = kind.objects.remove(name) else { return };
        last["metadata"]["resourceVersion"] = json!(version);
        kind.events.push_back(Event::Deleted(last.clone()));
        if resource == Resource::POD {
            if !is_terminal(&last) {
                self.note_end(&last, How::Disrupted);
            }
        } else {
            self.collect_garbage();
        }
    }

    /// The garbage collector: pods whose job is gone are deleted, also those made for it afterwards.
    pub(crate) fn collect_garbage(&mut self) {
        let jobs: Vec<&str> = self.jobs.objects.values().map(|job| text(job, "/metadata/uid")).collect();
        let is_garbage = |pod: &&Value| {
            let owner = text(pod, "/metadata/ownerReferences/0/uid");
            !owner.is_empty() && !jobs.contains(&owner) && !is_deleting(pod)
        };
        let names: Vec<String> = self
            .pods
            .objects
            .values()
            .filter(is_garbage)
            .map(|pod| text(pod, "/metadata/name").to_owned())
            .collect();
        for name in names {
            self.delete_pod(&name, 30);
        }
    }

    /// Of the pods `<job>-<index>-<attempt>` of one incarnation of a job only one may run.
    fn no_index_runs_twice(&mut self, name: &str) {
        let Some((index, _)) = name.rsplit_once('-') else { return };
        let prefix = format!("{index}-");
        let attempts =
            self.pods.objects.range(prefix.clone()..).take_while(|(name, _)| name.starts_with(&prefix));
        let mut running = BTreeMap::new();
        for (name, pod) in attempts.filter(|(_, pod)| !is_terminal(pod) && !will_never_run(pod)) {
            let owner = text(pod, "/metadata/ownerReferences/0/uid");
            if let Some(other) = running.insert(owner, name)
                && !owner.is_empty()
            {
                self.violations.push(format!("{other} and {name} run at once"));
            }
        }
    }

    fn note_end(&mut self, pod: &Value, how: How) {
        let (index, attempt) = attempt(pod);
        self.ended.push(Ended {
            uid: text(pod, "/metadata/uid").to_owned(),
            job: text(pod, "/metadata/ownerReferences/0/uid").to_owned(),
            index,
            attempt,
            how,
        });
    }

    // Users.

    /// Creates a job as the API server stores it: with the schema's default status.
    pub(crate) fn submit(&mut self, name: &str, spec: Value) {
        let mut job = json!({"metadata": {"generation": 1}, "spec": spec});
        let crd = json!(batch_job::crd());
        let schema = &crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"];
        job["status"] = schema["properties"]["status"]["default"].clone();
        assert!(job["status"].is_object(), "the schema has a default status");
        self.identify(&mut job, name);
        self.store(BATCH_JOB, job);
    }

    pub(crate) fn edit(&mut self, name: &str, change: impl FnOnce(&mut Value)) {
        let Some(mut job) = self.jobs.objects.get(name).cloned() else { return };
        let before = job["spec"].clone();
        change(&mut job["spec"]);
        if job["spec"] != before {
            let generation = job["metadata"]["generation"].as_i64().unwrap();
            job["metadata"]["generation"] = json!(generation + 1);
            self.store(BATCH_JOB, job);
        }
    }

    /// Somebody else writes the status of a job.
    pub(crate) fn set_status(&mut self, name: &str, status: Value) {
        let Some(mut job) = self.jobs.objects.get(name).cloned() else { return };
        job["status"] = status;
        self.store(BATCH_JOB, job);
    }

    /// Asks for the deletion of a job that waits for its pods, or lets go of them first.
    pub(crate) fn delete_job_later(&mut self, name: &str, finalizer: &str) {
        let second = self.second();
        let Some(mut job) = self.jobs.objects.get(name).cloned() else { return };
        job["metadata"]["deletionTimestamp"] = json!(second);
        job["metadata"]["finalizers"] = json!([finalizer]);
        self.store(BATCH_JOB, job);
    }

    /// Takes the owner of a pod away, as the garbage collector does for an orphaning deletion.
    pub(crate) fn orphan(&mut self, name: &str) {
        self.change_pod(name, |pod| {
            pod["metadata"]["ownerReferences"] = json!([]);
            true
        });
    }

    /// Deletes a job in the background.
    pub(crate) fn delete_job(&mut self, name: &str) {
        self.remove(BATCH_JOB, name);
    }

    /// A pod of somebody else.
    pub(crate) fn intrude(&mut self, name: &str) {
        let mut pod = json!({"metadata": {}, "spec": {"nodeName": NODE}, "status": {"phase": "Running"}});
        self.identify(&mut pod, name);
        self.store(Resource::POD, pod);
    }

    /// DELETE of a pod, as the API server does it.
    pub(crate) fn delete_pod(&mut self, name: &str, grace_seconds: i64) {
        let Some(mut pod) = self.pods.objects.get(name).cloned() else { return };
        let at_once = grace_seconds == 0 || is_terminal(&pod) || text(&pod, "/spec/nodeName").is_empty();
        if at_once && !has_finalizers(&pod) {
            return self.remove(Resource::POD, name);
        }
        if !is_deleting(&pod) {
            let grace = if at_once { 0 } else { grace_seconds };
            let until = self.now.as_second() + grace;
            pod["metadata"]["deletionTimestamp"] = json!(Timestamp::from_second(until).unwrap().to_string());
            self.store(Resource::POD, pod);
        }
    }

    // The scheduler and the kubelet.

    pub(crate) fn start(&mut self, name: &str) {
        self.start_on(name, NODE);
    }

    /// The scheduler chooses this node.
    pub(crate) fn start_on(&mut self, name: &str, node: &str) {
        let second = self.node_second();
        self.change_pod(name, |pod| {
            if text(pod, "/status/phase") != "Pending" || is_deleting(pod) {
                return false;
            }
            pod["spec"]["nodeName"] = json!(node);
            pod["status"] = json!({
                "phase": "Running", "startTime": second,
                "containerStatuses": [{"name": "main", "state": {"running": {"startedAt": second}}}],
            });
            true
        });
    }

    /// The container ends by itself.
    pub(crate) fn finish(&mut self, name: &str, code: i32) {
        let second = self.node_second();
        let mut how = How::Succeeded;
        let changed = self.change_pod(name, |pod| {
            if text(pod, "/status/phase") != "Running" {
                return false;
            }
            if code != 0 {
                let disrupted = is_deleting(pod) || code == IGNORED;
                how = if disrupted { How::Disrupted } else { How::Failed };
            }
            end(pod, code, &second);
            true
        });
        if let Some(pod) = changed {
            self.note_end(&pod, how);
        }
    }

    /// The container exceeds its memory limit.
    pub(crate) fn run_out_of_memory(&mut self, name: &str) {
        self.finish(name, 137);
        self.change_pod(name, |pod| {
            pod["status"]["containerStatuses"][0]["state"]["terminated"]["reason"] = json!("OOMKilled");
            true
        });
    }

    /// The kubelet ends a running pod for want of memory on the node.
    pub(crate) fn evict(&mut self, name: &str) {
        let second = self.node_second();
        let changed = self.change_pod(name, |pod| {
            if text(pod, "/status/phase") != "Running" {
                return false;
            }
            end(pod, 137, &second);
            pod["status"]["reason"] = json!("Evicted");
            true
        });
        if let Some(pod) = changed {
            self.note_end(&pod, How::Disrupted);
        }
    }

    /// PodGC finds that the node of pods is gone: those that have not ended have failed, and all of them are deleted
    /// without grace. Pods that had failed before are left: whether somebody has seen that by then is anybody's guess,
    /// and so is whether it counts.
    pub(crate) fn lose_pods_of(&mut self, node: &str) {
        let is_lost =
            |pod: &&Value| text(pod, "/spec/nodeName") == node && text(pod, "/status/phase") != "Failed";
        let lost = self.pods.objects.values().filter(is_lost);
        let lost: Vec<String> = lost.map(|pod| text(pod, "/metadata/name").to_owned()).collect();
        for name in lost {
            let failed = self.change_pod(&name, |pod| {
                if is_terminal(pod) {
                    return false;
                }
                pod["status"]["phase"] = json!("Failed");
                let reason = "DeletionByPodGC";
                pod["status"]["conditions"] =
                    json!([{"type": "DisruptionTarget", "status": "True", "reason": reason}]);
                true
            });
            if let Some(pod) = failed {
                self.note_end(&pod, How::Disrupted);
            }
            self.delete_pod(&name, 0);
        }
    }

    /// The kubelet carries out the deletion of a pod: its containers end, then the object goes.
    pub(crate) fn reap(&mut self, name: &str) {
        let Some(pod) = self.pods.objects.get(name).filter(|pod| is_deleting(pod)) else { return };
        if text(pod, "/status/phase") == "Running" {
            self.finish(name, 143);
        } else if !is_terminal(pod) {
            let second = self.node_second();
            if let Some(pod) = self.change_pod(name, |pod| {
                end(pod, 143, &second);
                true
            }) {
                self.note_end(&pod, How::Disrupted);
            }
        }
        self.delete_pod(name, 0);
    }

    pub(crate) fn change_pod(
        &mut self,
        name: &str,
        change: impl FnOnce(&mut Value) -> bool,
    ) -> Option<Value> {
        let mut pod = self.pods.objects.get(name).cloned()?;
        change(&mut pod).then(|| {
            self.store(Resource::POD, pod.clone());
            pod
        })
    }
}

fn end(pod: &mut Value, code: i32, second: &str) {
    let started = text(pod, "/status/containerStatuses/0/state/running/startedAt").to_owned();
    let reason = if code == 0 { "Completed" } else { "Error" };
    let mut terminated = json!({"exitCode": code, "reason": reason, "finishedAt": second});
    if !started.is_empty() {
        terminated["startedAt"] = json!(started);
    }
    pod["status"]["phase"] = json!(if code == 0 { "Succeeded" } else { "Failed" });
    pod["status"]["containerStatuses"] = json!([{"name": "main", "state": {"terminated": terminated}}]);
}
