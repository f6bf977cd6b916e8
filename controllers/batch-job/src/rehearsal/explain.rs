//! Finds out why a job is where it is.

use super::advice::{self, Wait};
use super::explanation::{
    Basis, Deadline, Explanation, PodLine, ProfileWord, QueueStanding, QuotaUse, Reported, RetryWait, Said,
    State, Tasks, Waits,
};
use super::{PlannedWrite, Rehearsal, remembered};
use crate::admission::{FitReport, QueueId};
use crate::lock;
use crate::plan::{Attempt, Course, JobState, active_deadline, demand, queue_deadline};
use crate::profiles;
use crate::projections::job::{BATCH_JOB, JobView};
use crate::projections::pod::PodPhase;
use crate::projections::profile::BATCH_TASK_PROFILE;
use crate::queues::placement::Placement;
use crate::resources::{format_amount, parse_amount};
use crate::status::outlook;
use jiff::{SignedDuration, Timestamp};
use springtide_crds::batch_job::{CompleteReason, QueuedReason, StalledReason, StopPolicy};
use springtide_crds::batch_queue::DEFAULT_QUEUE;
use springtide_crds::common::{Condition, ConditionStatus, condition};
use springtide_crds::reason::Reason;
use springtide_plumbing::clock::after;
use springtide_plumbing::key::ObjectKey;
use springtide_plumbing::plan::Write;
use springtide_plumbing::projection::Projection;

/// Pods that are told of one by one.
const PODS_TOLD: usize = 20;

impl Rehearsal {
    /// Why a job is where it is; `None` where there is none of this name. To be asked after [`Rehearsal::run`], or,
    /// where nodes are not seen, after [`Rehearsal::look`].
    pub fn explain(&self, key: &ObjectKey) -> Option<Explanation> {
        let stored = self.world.jobs.iter().find(|job| job.meta().key == *key)?;
        // It may have been deleted in the rehearsal, its time being over.
        let observed = self.observed(key);
        let Some((state, verdict)) = observed.and_then(|observed| Some((observed.state?, observed.verdict)))
        else {
            return Some(untouched(stored));
        };
        let outlook = outlook(&state, verdict.as_ref(), self.now);
        let conditions = &outlook.status.conditions;
        let said = condition(conditions, QueuedReason::CONDITION);
        let queued = said
            .and_then(|said| QueuedReason::all().into_iter().find(|reason| said.is(*reason)))
            .unwrap_or(QueuedReason::Admitted);
        let message = said.map_or("", |said| said.message.as_str());
        let is_over = matches!(queued, QueuedReason::Finished);
        let is_blind = !self.sees_nodes() && !is_over && !advice::is_seen_without_nodes(queued);
        let reported = reported(stored);
        let known = reported.as_ref().filter(|reported| reported.is_current);
        let computed = advice::is_wait(queued).then(|| self.waits(&state, queued, message));
        let (basis, waits) = match (is_blind, known) {
            (false, _) => (Basis::Computed, computed),
            (true, Some(known)) => (Basis::Reported, self.as_reported(&state, known)),
            (true, None) => (Basis::Reported, None),
        };
        // Those that are there: what the rehearsal creates and ends stands among the writes.
        let of_name: Vec<_> =
            self.world.pods.iter().filter(|pod| pod.meta().key.namespace == key.namespace).cloned().collect();
        let pods: Vec<Attempt> =
            Attempt::of_job(stored, &of_name).into_iter().filter(Attempt::is_live).collect();
        let running = pods.iter().filter(|pod| pod.is_running()).count();
        let seen = state_of(outlook.summary, &state);
        let is_unseen = is_blind && pods.is_empty();
        let state_word = match &waits {
            Some(_) if is_unseen && seen == State::Starting => State::Waiting,
            None if is_unseen && seen == State::Starting => State::Unknown,
            Some(_) | None => seen,
        };
        // On its own: the lock of a temporary would be held to the end of the statement.
        let line = lock(&self.reconciler.admission).standing_in_line(&stored.meta().uid);
        let mut summary = Said::of(outlook.summary, &outlook.message);
        if is_unseen {
            summary = as_summarised(stored).unwrap_or(summary);
        }
        Some(Explanation {
            namespace: key.namespace.to_string(),
            name: key.name.to_string(),
            generation: stored.meta().generation,
            state: state_word,
            basis,
            summary,
            stalled: stalled(conditions),
            queue: self.queue_standing(&state),
            profile: profile(&state),
            waits,
            retry: state.dispatch.next_retry.map(|(index, until)| RetryWait {
                index,
                failures: state.tally.failures(index),
                until,
            }),
            line,
            nodes: self.nodes(&state),
            tasks: Tasks {
                completions: state.job.spec.completions,
                parallelism: state.job.spec.parallelism,
                succeeded: state.tally.succeeded,
                failed: state.tally.failed,
                disrupted: stored.status.disrupted.max(state.facts.disrupted),
                live: u32::try_from(pods.len()).unwrap_or(u32::MAX),
                running: u32::try_from(running).unwrap_or(u32::MAX),
                startable: u32::try_from(state.dispatch.startable.len()).unwrap_or(u32::MAX),
            },
            pods: pods.iter().take(PODS_TOLD).map(pod_line).collect(),
            last_failures: state.tally.last_failures.clone(),
            exit_codes: state.tally.exit_codes.clone(),
            result: state.tally.result.clone(),
            deadlines: deadlines(&state, self.now),
            next_writes: self.writes_of(stored),
            reported,
        })
    }

    fn waits(&self, state: &JobState, reason: QueuedReason, message: &str) -> Waits {
        let uid = &state.job.meta().uid;
        let (resource, until) = {
            let admission = lock(&self.reconciler.admission);
            (admission.short_resource(uid), admission.looked_at_again(uid, reason))
        };
        Waits {
            resource: resource.filter(|_| advice::names_a_resource(reason)),
            until,
            ..advised(self.wait(state, reason), Said::of(reason, message))
        }
    }

    /// What the manager has said that a job waits for.
    fn as_reported(&self, state: &JobState, reported: &Reported) -> Option<Waits> {
        let reason = QueuedReason::all().into_iter().find(|reason| reason.as_str() == reported.reason)?;
        let said = Said::of(reason, &reported.message);
        advice::is_wait(reason).then(|| advised(self.wait(state, reason), said))
    }

    /// Which of its causes a reason has, where it has several.
    fn wait(&self, state: &JobState, reason: QueuedReason) -> Wait {
        let queue = match &state.placement.queue {
            Some(QueueId::Object(key)) => self.reconciler.stores.queues.get(key),
            Some(QueueId::BuiltIn) | None => None,
        };
        match reason {
            QueuedReason::HeadBlocked => {
                let is_behind_head = match self.sees_nodes() {
                    true => lock(&self.reconciler.admission).is_behind_head(&state.job.meta().uid),
                    false => queue.is_some_and(|queue| remembered::is_strict(&queue)),
                };
                if is_behind_head { Wait::For(reason) } else { Wait::KeptRoom }
            }
            QueuedReason::CapacityStale => match queue {
                Some(queue) if remembered::is_without_nodes(&queue) => Wait::NodesNotVisible,
                Some(queue) if remembered::is_metrics_old(&queue) => Wait::MetricsOld,
                Some(_) | None => Wait::For(reason),
            },
            QueuedReason::QuotaExceeded
            | QueuedReason::NoCapacity
            | QueuedReason::NeverFits
            | QueuedReason::ClassBackoff
            | QueuedReason::PeakWindow
            | QueuedReason::LoadTrigger
            | QueuedReason::WouldNotFinish
            | QueuedReason::QueueStopped
            | QueuedReason::QueueNotFound
            | QueuedReason::QueueNameRequired
            | QueuedReason::TierNotAllowed
            | QueuedReason::NameHeld
            | QueuedReason::Admitted
            | QueuedReason::QueueFull
            | QueuedReason::Suspended
            | QueuedReason::Finished => Wait::For(reason),
        }
    }

    fn queue_standing(&self, state: &JobState) -> QueueStanding {
        let Placement { queue, tier, .. } = &state.placement;
        let spec = &state.job.spec;
        let mut quota = Vec::new();
        let mut exists = false;
        let name = match queue {
            Some(QueueId::Object(key)) => {
                if let Some(stored) = self.reconciler.stores.queues.get(key) {
                    exists = true;
                    let used = lock(&self.reconciler.admission).figures(&QueueId::Object(key.clone())).used;
                    let text = |resource: &str, amount: &str| {
                        let amount = parse_amount(resource, amount).unwrap_or_default();
                        format_amount(resource, amount)
                    };
                    quota.extend(stored.spec.quota.iter().map(|row| QuotaUse {
                        resource: row.resource.clone(),
                        used: format_amount(&row.resource, used.get(&row.resource)),
                        nominal: text(&row.resource, row.nominal.as_str()),
                        max: text(&row.resource, row.max.as_ref().unwrap_or(&row.nominal).as_str()),
                    }));
                }
                key.name.to_string()
            }
            Some(QueueId::BuiltIn) => {
                exists = true;
                String::new()
            }
            None => String::new(),
        };
        let found_by = match (spec.queue_name.is_some(), state.fixed_queue().is_some(), queue) {
            (true, _, _) => "spec.queueName",
            (false, true, _) => "the queue that let its first pods start",
            (false, false, Some(QueueId::Object(key))) if *key.name == *DEFAULT_QUEUE => {
                "the BatchQueue called default"
            }
            (false, false, Some(QueueId::Object(_))) => "the controller's rules",
            (false, false, Some(QueueId::BuiltIn)) => "no BatchQueue in the namespace",
            (false, false, None) => "no rule: the job has to name one",
        };
        QueueStanding {
            name,
            found_by: found_by.to_owned(),
            exists,
            tier: *tier,
            priority: spec.priority,
            quota,
        }
    }

    /// Only where something could still start.
    fn nodes(&self, state: &JobState) -> Option<FitReport> {
        if state.dispatch.startable.is_empty() {
            return None;
        }
        let shape = demand(state)?.shape;
        lock(&self.reconciler.admission).fit_report(&shape)
    }

    /// Those on the job, on what belongs to it, and on the profile that it is the first to use.
    fn writes_of(&self, job: &JobView) -> Vec<PlannedWrite> {
        let (key, profile) = (&job.meta().key, job.profile_key());
        let concerns = |write: &Write| {
            if write.resource == BATCH_JOB {
                write.key == *key
            } else if write.resource == BATCH_TASK_PROFILE {
                Some(&write.key) == profile.as_ref()
            } else {
                write.key.namespace == key.namespace && self.describe(write).job == *key.name
            }
        };
        self.writes.iter().filter(|write| concerns(write)).map(|write| self.describe(write)).collect()
    }
}

/// A job of which this controller knows nothing: another one runs it, or it would be deleted now.
fn untouched(job: &JobView) -> Explanation {
    let key = &job.meta().key;
    let foreign = !job.is_ours();
    let summary = if foreign {
        Said {
            reason: "ManagedBy".to_owned(),
            message: format!("spec.managedBy is {}", job.spec.managed_by.as_deref().unwrap_or_default()),
            meaning: "Another controller runs this job; Springtide neither reads nor writes it.".to_owned(),
        }
    } else {
        as_summarised(job).unwrap_or_else(|| Said::of(CompleteReason::Pending, ""))
    };
    let state = match (foreign, job.completed(), job.is_finished()) {
        (true, _, _) => State::Foreign,
        (false, true, _) => State::Completed,
        (false, false, true) => State::Failed,
        (false, false, false) => State::Unknown,
    };
    Explanation {
        namespace: key.namespace.to_string(),
        name: key.name.to_string(),
        generation: job.meta().generation,
        state,
        basis: Basis::Reported,
        summary,
        stalled: None,
        queue: QueueStanding {
            name: job.status.queue.clone().unwrap_or_default(),
            found_by: "the job's status".to_owned(),
            exists: true,
            tier: job.spec.tier,
            priority: job.spec.priority,
            quota: Vec::new(),
        },
        profile: Vec::new(),
        waits: None,
        retry: None,
        line: None,
        nodes: None,
        tasks: Tasks {
            completions: job.spec.completions,
            parallelism: job.spec.parallelism,
            succeeded: job.status.succeeded,
            failed: job.status.failed,
            disrupted: job.status.disrupted,
            ..Tasks::default()
        },
        pods: Vec::new(),
        last_failures: job.status.last_failures.clone(),
        exit_codes: job.status.exit_codes.clone(),
        result: job.status.result.clone(),
        deadlines: Vec::new(),
        next_writes: Vec::new(),
        reported: reported(job),
    }
}

/// What the planner says of it.
fn profile(state: &JobState) -> Vec<ProfileWord> {
    let said = profiles::explain::job(&state.job.spec, &state.fitting);
    said.into_iter().map(ProfileWord::from).collect()
}

fn state_of(summary: CompleteReason, state: &JobState) -> State {
    match summary {
        CompleteReason::Pending | CompleteReason::Queued => State::Waiting,
        // All that is left to start waits for the end of a pause.
        CompleteReason::Admitted
            if state.live() == 0
                && state.dispatch.startable.is_empty()
                && state.dispatch.next_retry.is_some() =>
        {
            State::Waiting
        }
        CompleteReason::Admitted => State::Starting,
        CompleteReason::Running => State::Running,
        CompleteReason::Suspended => State::Stopped,
        CompleteReason::Draining | CompleteReason::Finishing => State::Ending,
        CompleteReason::Completed | CompleteReason::SuccessPolicyMet => State::Completed,
        CompleteReason::Failed(_) => State::Failed,
    }
}

fn stalled(conditions: &[Condition]) -> Option<Said> {
    let stalled = condition(conditions, StalledReason::CONDITION)?;
    let reason = StalledReason::all().into_iter().find(|reason| stalled.is(*reason))?;
    (stalled.status == ConditionStatus::True).then(|| Said::of(reason, &stalled.message))
}

fn reported(job: &JobView) -> Option<Reported> {
    let said = job.condition(QueuedReason::CONDITION)?;
    Some(Reported {
        reason: said.reason.clone(),
        message: said.message.clone(),
        since: job.status.since(QueuedReason::CONDITION)?,
        is_current: said.observed_generation == job.meta().generation,
    })
}

/// A wait with what ends it, and what helps.
fn advised(wait: Wait, said: Said) -> Waits {
    Waits {
        said,
        resource: None,
        wakes: advice::wakes(wait).to_owned(),
        until: None,
        remedies: advice::remedies(wait).iter().map(|remedy| (*remedy).to_owned()).collect(),
    }
}

fn as_summarised(job: &JobView) -> Option<Said> {
    let said = job.condition(CompleteReason::CONDITION)?;
    let reason = CompleteReason::all().into_iter().find(|reason| said.is(*reason))?;
    Some(Said::of(reason, &said.message))
}

fn pod_line(pod: &Attempt) -> PodLine {
    let view = &pod.view;
    let phase = match view.phase {
        _ if view.meta().is_deleting() => "Terminating",
        PodPhase::Pending => "Pending",
        PodPhase::Running => "Running",
        PodPhase::Succeeded => "Succeeded",
        PodPhase::Failed => "Failed",
        PodPhase::Unknown => "Unknown",
    };
    let obstacle = view.task.as_deref().and_then(|task| task.obstacle.as_deref());
    PodLine {
        name: view.meta().key.name.to_string(),
        phase: phase.to_owned(),
        node: view.node.as_deref().unwrap_or_default().to_owned(),
        created_time: view.meta().creation_time,
        obstacle: obstacle.unwrap_or_default().to_owned(),
    }
}

fn deadlines(state: &JobState, now: Timestamp) -> Vec<Deadline> {
    let job = &state.job;
    let deadline =
        |field: &str, what: &str, time| Deadline { field: field.to_owned(), what: what.to_owned(), time };
    let mut deadlines = Vec::new();
    match &state.course {
        Course::Finished => {
            let ttl = job.spec.ttl_seconds_after_finished.or(state.placement.ttl_seconds);
            let ttl = SignedDuration::from_secs(ttl.unwrap_or(state.settings.ttl_seconds).into());
            deadlines.extend(
                job.status.completion_time.as_ref().map(|ended| {
                    deadline("ttlSecondsAfterFinished", "the job is deleted", after(ended.0, ttl))
                }),
            );
        }
        Course::Deleting | Course::Failing { .. } | Course::Completing(_) => {}
        Course::Stopped(_) | Course::Stuck { .. } | Course::Open => {
            let held = job.spec.stop_policy != StopPolicy::None;
            let queue = queue_deadline(job, &state.pods, &state.tally, now).filter(|_| !held);
            deadlines.extend(
                queue.map(|at| deadline("queueDeadlineSeconds", "the job fails, unless it has started", at)),
            );
            deadlines.extend(
                active_deadline(job, &state.tally)
                    .map(|at| deadline("activeDeadlineSeconds", "the job fails, unless it has ended", at)),
            );
        }
    }
    deadlines
}
