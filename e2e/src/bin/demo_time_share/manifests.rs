//! What the user has in files: a group of the two services, and batch work for the night.

use jiff::Timestamp;
use springtide_e2e::node::program::BOX_IMAGE;
use springtide_e2e::time_share::node_member::CONTAINER;
use springtide_e2e::time_share::node_stage::GROUP;

use super::{Day, JOB_CPU, JOBS, LEAD, LEAVE, MEMBERS, PEAK, QUEUE, RAMP, TRICKLE, VALLEY};

/// Hours and minutes, as a window has them.
pub(crate) fn time_of_day(at: Timestamp) -> String {
    at.strftime("%H:%M").to_string()
}

/// The group, with the two windows of the day; nobody has the peak outside of them. A first unit goes before all others.
pub(crate) fn group(day: Day) -> String {
    let [first, second] = MEMBERS;
    let member = |name: &str| {
        format!(
            "  - name: {name}
    targetRef: {{apiVersion: apps/v1, kind: Deployment, name: {name}}}
    containers:
    - {{name: {CONTAINER}, peak: {{cpu: {PEAK}}}, valley: {{cpu: {VALLEY}}}}}
    warmUpSeconds: 1
    traffic: {{mode: ServiceLabel, valley: Trickle, trickle: {TRICKLE}, drain: {{minSeconds: 2}}}}
"
        )
    };
    let window = |name: &str, lead: u32, start: Timestamp, end: Timestamp| {
        let [start, end] = [start, end].map(time_of_day);
        format!(
            "    - name: {name}
      member: {name}
      leadSeconds: {lead}
      window: {{start: \"{start}\", end: \"{end}\", timeZone: UTC}}
"
        )
    };
    format!(
        "apiVersion: springtide.dev/v1alpha1
kind: TimeShareGroup
metadata: {{name: {GROUP}}}
spec:
  members:
{}{}  schedule:
    windows:
{}{}  switch:
    steps: [{{percent: 30, holdSeconds: 3}}, {{percent: 100}}]
",
        member(first),
        member(second),
        window(first, LEAD, day.first, day.second),
        // A lead of the second one would reach into the first one's peak.
        window(second, 0, day.second, day.end),
    )
}

/// A queue whose pods are gone when the group needs their room, and come back after its peaks.
pub(crate) fn queue() -> String {
    format!(
        "apiVersion: springtide.dev/v1alpha1
kind: BatchQueue
metadata: {{name: {QUEUE}}}
spec:
  peakWindows:
  - name: peaks
    fromTimeShareGroup: {{name: {GROUP}}}
    actions: [{{tier: BestEffort, action: Drain}}]
    leadSeconds: {LEAVE}
    resume: {{rampSeconds: {RAMP}, jitterSeconds: 0}}
"
    )
}

/// The jobs of that queue, a document each.
pub(crate) fn jobs() -> Vec<String> {
    let job = |number: u32| {
        format!(
            "apiVersion: springtide.dev/v1alpha1
kind: BatchJob
metadata: {{name: job-{number}}}
spec:
  queueName: {QUEUE}
  tier: BestEffort
  interruption: {{graceSeconds: 2}}
  template:
    spec:
      containers:
      - name: main
        image: {BOX_IMAGE}
        args: [sleep, \"100000\"]
        resources: {{requests: {{cpu: {JOB_CPU}}}}}
"
        )
    };
    (0..JOBS).map(job).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use springtide_crds::batch_job::BatchJob;
    use springtide_crds::batch_queue::BatchQueue;
    use springtide_crds::time_share_group::{TimeShareGroup, TrafficMode, ValleyTraffic};

    #[test]
    fn the_group_has_both_members_and_their_windows() {
        let day = Day::next(Timestamp::now()).unwrap();
        let group: TimeShareGroup = serde_yaml::from_str(&group(day)).unwrap();
        let spec = group.spec;
        assert_eq!(spec.members.iter().map(|member| &*member.name).collect::<Vec<_>>(), MEMBERS);
        for member in &spec.members {
            let traffic = &member.traffic;
            assert_eq!((traffic.mode, traffic.valley), (TrafficMode::ServiceLabel, ValleyTraffic::Trickle));
            assert_eq!((traffic.drain.min_seconds, member.warm_up_seconds), (2, 1));
        }
        let windows = &spec.schedule.windows;
        assert_eq!(windows.iter().map(|window| &*window.member).collect::<Vec<_>>(), MEMBERS);
        assert_eq!(windows.iter().map(|window| window.lead_seconds).collect::<Vec<_>>(), [LEAD, 0]);
        assert_eq!(windows[0].window.end, windows[1].window.start, "one peak after the other");
        assert_eq!(spec.switch.steps.iter().map(|step| step.percent).collect::<Vec<_>>(), [30, 100]);
    }

    #[test]
    fn the_queue_follows_the_group_and_has_the_jobs() {
        let queue: BatchQueue = serde_yaml::from_str(&queue()).unwrap();
        let followed = queue.spec.peak_windows[0].from_time_share_group.as_ref();
        assert_eq!(followed.map(|group| &*group.name), Some(GROUP));
        let jobs = jobs();
        assert_eq!(jobs.len(), JOBS as usize);
        for job in jobs {
            let job: BatchJob = serde_yaml::from_str(&job).unwrap();
            assert_eq!(
                (job.spec.queue_name.as_deref(), job.spec.interruption.grace_seconds),
                (Some(QUEUE), 2)
            );
        }
    }
}
