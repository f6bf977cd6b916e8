//! Every pod of every job of a namespace: which ones ran, and how each ended.

use std::collections::BTreeMap;
use std::fmt::Write;

use anyhow::{Result, ensure};
use k8s_openapi::api::core::v1::{ContainerStateTerminated, Pod};
use kube::ResourceExt;

use super::feed::{Feed, Fold};

/// A watch on the pods of jobs in one namespace.
pub type PodFeed = Feed<Pods>;

/// The finalizer of pods whose outcome must not get lost.
pub const TRACKING_FINALIZER: &str = "springtide.dev/job-tracking";

/// How a pod ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct End {
    /// Whether all its containers ended with 0.
    pub succeeded: bool,
    /// Exit code of its first container that failed, or 0.
    pub exit_code: i32,
    /// Reason of that container.
    pub reason: String,
}

/// The life of one pod, in numbers of events: a lower one was seen earlier.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Life {
    /// UID of the pod.
    pub uid: String,
    /// Name of the pod.
    pub name: String,
    /// Name of the job that controls it.
    pub job: String,
    /// UID of that job.
    pub job_uid: String,
    /// Index in the job.
    pub index: u32,
    /// Failures of the index before it.
    pub attempt: u32,
    /// Node it is bound to.
    pub node: Option<String>,
    /// First seen.
    pub created: usize,
    /// First seen with a container that runs or has run.
    pub ran: Option<usize>,
    /// First seen succeeded or failed, and how.
    pub ended: Option<(usize, End)>,
    /// First seen with a deletion timestamp.
    pub deleting: Option<usize>,
    /// Seen to be gone.
    pub gone: Option<usize>,
    /// Whether the scheduler ever found no node for it.
    pub unschedulable: bool,
    /// Whether it ever had the finalizer of strict tracking.
    pub tracked: bool,
    /// Whether it was ever marked as disrupted, by condition DisruptionTarget.
    pub disrupted: bool,
}

impl Life {
    /// Exists and has not ended.
    #[must_use]
    pub fn is_active(&self) -> bool {
        self.ended.is_none() && self.gone.is_none()
    }

    /// Runs now, as far as its status says.
    #[must_use]
    pub fn is_running(&self) -> bool {
        self.is_active() && self.ran.is_some() && self.deleting.is_none()
    }

    /// From when on another pod of its index may be.
    fn over(&self) -> usize {
        let ended = self.ended.as_ref().map(|(at, _)| *at);
        ended.into_iter().chain(self.gone).min().unwrap_or(usize::MAX)
    }
}

/// All pods seen so far, gone ones too.
#[derive(Debug, Default)]
pub struct Pods {
    events: usize,
    lists: usize,
    lives: BTreeMap<String, Life>,
    violations: Vec<String>,
}

impl Pods {
    /// Lives of the pods of a job (of that name), by creation.
    #[must_use]
    pub fn of(&self, job: &str) -> Vec<&Life> {
        let mut lives: Vec<_> = self.lives.values().filter(|life| life.job == job).collect();
        lives.sort_by_key(|life| life.created);
        lives
    }

    /// Lives of all pods.
    pub fn all(&self) -> impl Iterator<Item = &Life> {
        self.lives.values()
    }

    /// How often the watch had to begin anew: what happened in between was not seen.
    #[must_use]
    pub fn gaps(&self) -> usize {
        self.lists.saturating_sub(1)
    }

    /// Most pods of a job that existed and had not ended at one time.
    #[must_use]
    pub fn most_active(&self, job: &str) -> usize {
        most_active(self.all().filter(|life| life.job == job))
    }

    /// Most pods of all jobs together that existed and had not ended at one time.
    #[must_use]
    pub fn most_at_once(&self) -> usize {
        most_active(self.all())
    }

    /// What may never be seen, whatever a test does: two pods of one index at once.
    #[must_use]
    pub fn violations(&self) -> &[String] {
        &self.violations
    }

    /// # Errors
    /// Not each of the indexes below `completions` had exactly one pod that ran, or
    /// it did not succeed, or two were there at once.
    pub fn exactly_one_run(&self, job: &str, completions: u32) -> Result<()> {
        let mut runs: BTreeMap<u32, Vec<&Life>> = BTreeMap::new();
        for life in self.of(job).into_iter().filter(|life| life.ran.is_some()) {
            runs.entry(life.index).or_default().push(life);
        }
        let mut wrong = String::new();
        for index in 0..completions {
            match runs.remove(&index).unwrap_or_default().as_slice() {
                [life] if life.ended.as_ref().is_some_and(|(_, end)| end.succeeded) => {}
                [] => writeln!(wrong, "index {index} never ran")?,
                lives => writeln!(wrong, "index {index}: {lives:?}")?,
            }
        }
        for (index, lives) in runs {
            writeln!(wrong, "index {index} is none of the job's: {lives:?}")?;
        }
        ensure!(self.gaps() == 0, "the oracle has missed events: it relisted {} times", self.gaps());
        ensure!(wrong.is_empty(), "{job} has not exactly one run per index:\n{wrong}");
        ensure!(self.violations.is_empty(), "{}", self.violations.join("\n"));
        Ok(())
    }

    /// Called for a pod that is new: all earlier pods of its index must be over.
    fn begin(&mut self, new: &Life) {
        let others = self.lives.values().filter(|life| {
            (&life.job_uid, life.index) == (&new.job_uid, new.index) && life.over() > new.created
        });
        self.violations
            .extend(others.map(|other| format!("two pods of one index at once: {other:?} and {new:?}")));
    }
}

impl Fold for Pods {
    type Object = Pod;

    fn apply(&mut self, pod: Pod) {
        self.events += 1;
        let at = self.events;
        let uid = pod.uid().unwrap_or_default();
        if !self.lives.contains_key(&uid) {
            let Some(life) = born(&pod, at) else { return };
            self.begin(&life);
            self.lives.insert(uid.clone(), life);
        }
        let Some(life) = self.lives.get_mut(&uid) else { return };
        if life.ended.is_none() {
            life.ended = end(&pod).map(|end| (at, end));
        }
        life.node = pod.spec.as_ref().and_then(|spec| spec.node_name.clone());
        life.tracked |= pod.finalizers().iter().any(|held| held == TRACKING_FINALIZER);
        if pod.metadata.deletion_timestamp.is_some() {
            life.deleting.get_or_insert(at);
        }
        if has_run(&pod) {
            life.ran.get_or_insert(at);
        }
        life.unschedulable |= condition_reason(&pod, "PodScheduled") == Some("Unschedulable");
        life.disrupted |= has_condition(&pod, "DisruptionTarget");
    }

    fn delete(&mut self, pod: &Pod) {
        self.events += 1;
        let uid = pod.uid().unwrap_or_default();
        if let Some(life) = self.lives.get_mut(&uid) {
            life.gone.get_or_insert(self.events);
        }
    }

    fn relisted(&mut self, present: &[Pod]) {
        self.lists += 1;
        let gone: Vec<String> = self
            .lives
            .values()
            .filter(|life| life.gone.is_none())
            .filter(|life| !present.iter().any(|pod| pod.metadata.uid.as_deref() == Some(&life.uid)))
            .map(|life| life.uid.clone())
            .collect();
        for uid in gone {
            self.events += 1;
            if let Some(life) = self.lives.get_mut(&uid) {
                life.gone = Some(self.events);
            }
        }
    }

    fn describe(&self) -> String {
        let mut text = format!("{} events, {} lists\n", self.events, self.lists);
        for life in self.lives.values().filter(|life| life.gone.is_none()).take(20) {
            text += &format!("{life:?}\n");
        }
        let gone = self.lives.values().filter(|life| life.gone.is_some());
        text + &format!("and {} pods that are gone", gone.count())
    }
}

/// The most of these pods that existed and had not ended at one time. One that was first seen when it had ended counts
/// for that moment.
fn most_active<'a>(lives: impl Iterator<Item = &'a Life>) -> usize {
    let mut changes: Vec<_> = lives.flat_map(|life| [(life.created, false), (life.over(), true)]).collect();
    changes.sort_unstable();
    let (mut now, mut most) = (0, 0);
    for (_, is_over) in changes {
        if is_over {
            now -= 1;
        } else {
            now += 1;
            most = most.max(now);
        }
    }
    most
}

/// A pod of a job, as it was created.
fn born(pod: &Pod, created: usize) -> Option<Life> {
    let owner = pod
        .owner_references()
        .iter()
        .find(|owner| owner.kind == "BatchJob" && owner.controller == Some(true))?;
    let name = pod.name_any();
    let (index, attempt) = name.strip_prefix(&owner.name)?.strip_prefix('-')?.split_once('-')?;
    Some(Life {
        uid: pod.uid()?,
        job: owner.name.clone(),
        job_uid: owner.uid.clone(),
        index: index.parse().ok()?,
        attempt: attempt.parse().ok()?,
        node: None,
        created,
        ran: None,
        ended: None,
        deleting: None,
        gone: None,
        unschedulable: false,
        tracked: false,
        disrupted: false,
        name,
    })
}

/// Whether a container runs or has run. Not the phase alone: a kubelet may report a
/// quick container only when it has ended.
fn has_run(pod: &Pod) -> bool {
    let statuses = pod.status.as_ref().and_then(|status| status.container_statuses.as_ref());
    statuses.into_iter().flatten().filter_map(|status| status.state.as_ref()).any(|state| {
        let ended = state.terminated.as_ref();
        state.running.is_some() || ended.is_some_and(|ended| ended.started_at.is_some())
    })
}

fn end(pod: &Pod) -> Option<End> {
    let status = pod.status.as_ref()?;
    let succeeded = match status.phase.as_deref() {
        Some("Succeeded") => true,
        Some("Failed") => false,
        Some(_) | None => return None,
    };
    let ends: Vec<&ContainerStateTerminated> = status
        .container_statuses
        .iter()
        .flatten()
        .filter_map(|status| status.state.as_ref()?.terminated.as_ref())
        .collect();
    let decisive = ends.iter().find(|end| end.exit_code != 0).or(ends.first());
    Some(End {
        succeeded,
        exit_code: decisive.map_or(0, |end| end.exit_code),
        reason: decisive.and_then(|end| end.reason.clone()).unwrap_or_default(),
    })
}

fn has_condition(pod: &Pod, type_: &str) -> bool {
    let conditions = pod.status.as_ref().and_then(|status| status.conditions.as_ref());
    conditions.into_iter().flatten().any(|found| found.type_ == type_ && found.status == "True")
}

fn condition_reason<'a>(pod: &'a Pod, type_: &str) -> Option<&'a str> {
    let conditions = pod.status.as_ref()?.conditions.as_ref()?;
    conditions.iter().find(|condition| condition.type_ == type_)?.reason.as_deref()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn pod(uid: &str, name: &str, phase: &str, code: Option<i32>) -> Pod {
        let state = match code {
            Some(code) => json!({"terminated": {"exitCode": code, "startedAt": "2026-01-01T00:00:00Z"}}),
            None if phase == "Running" => json!({"running": {}}),
            None => json!({"waiting": {}}),
        };
        serde_json::from_value(json!({
            "metadata": {"name": name, "uid": uid, "ownerReferences": [{
                "apiVersion": "springtide.dev/v1alpha1", "kind": "BatchJob", "controller": true,
                "name": "a-job", "uid": "owner",
            }]},
            "spec": {"containers": []},
            "status": {"phase": phase, "containerStatuses": [{
                "name": "main", "image": "", "imageID": "", "ready": false, "restartCount": 0, "state": state,
            }]},
        }))
        .unwrap()
    }

    /// A pod that runs and ends.
    fn life(pods: &mut Pods, uid: &str, name: &str, code: i32) {
        pods.apply(pod(uid, name, "Pending", None));
        pods.apply(pod(uid, name, "Running", None));
        pods.apply(pod(uid, name, if code == 0 { "Succeeded" } else { "Failed" }, Some(code)));
    }

    fn runs(pods: &Pods, completions: u32) -> String {
        pods.exactly_one_run("a-job", completions).err().map(|error| error.to_string()).unwrap_or_default()
    }

    #[test]
    fn one_run_of_each_index_is_told_from_none_and_two() {
        let mut pods = Pods::default();
        life(&mut pods, "1", "a-job-0-0", 0);
        life(&mut pods, "2", "a-job-1-0", 0);
        assert_eq!(runs(&pods, 2), "");
        assert!(runs(&pods, 3).contains("index 2 never ran"), "{}", runs(&pods, 3));
        assert!(runs(&pods, 1).contains("index 1 is none of the job's"));
        pods.delete(&pod("1", "a-job-0-0", "Succeeded", Some(0)));
        life(&mut pods, "3", "a-job-0-0", 0);
        assert!(runs(&pods, 2).contains("index 0: ["), "{}", runs(&pods, 2));
        assert!(pods.violations().is_empty(), "one after the other");
    }

    #[test]
    fn a_pod_that_failed_or_never_ran_is_no_run() {
        let mut pods = Pods::default();
        life(&mut pods, "1", "a-job-0-0", 7);
        assert!(runs(&pods, 1).contains("exit_code: 7"), "{}", runs(&pods, 1));
        let mut pods = Pods::default();
        pods.apply(pod("1", "a-job-0-0", "Pending", None));
        pods.delete(&pod("1", "a-job-0-0", "Pending", None));
        life(&mut pods, "2", "a-job-0-0", 0);
        assert_eq!(runs(&pods, 1), "");
    }

    #[test]
    fn two_pods_of_an_index_at_once_are_a_violation() {
        let mut pods = Pods::default();
        pods.apply(pod("1", "a-job-4-0", "Running", None));
        pods.apply(pod("2", "a-job-5-0", "Running", None));
        assert!(pods.violations().is_empty());
        assert_eq!(pods.most_active("a-job"), 2);
        pods.apply(pod("3", "a-job-4-1", "Pending", None));
        assert_eq!(pods.violations().len(), 1);
        assert_eq!(pods.most_active("a-job"), 3);
    }

    #[test]
    fn a_relist_buries_the_missing_and_counts_as_a_gap() {
        let mut pods = Pods::default();
        pods.relisted(&[]);
        life(&mut pods, "1", "a-job-0-0", 0);
        assert_eq!(pods.gaps(), 0);
        pods.relisted(&[]);
        assert!(pods.of("a-job")[0].gone.is_some());
        assert!(runs(&pods, 1).contains("missed events"));
    }
}
