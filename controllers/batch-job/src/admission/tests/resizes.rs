//! Online pods that are resized in place: what one gives up is for batch work when it is no longer in force, and not
//! before; what one asks for is its own at once.

use super::queues::of;
use super::*;

/// How far a resize has come, in cores.
#[derive(Clone, Copy, Debug)]
struct Online {
    /// `resources.requests` of the spec.
    asked: i64,
    /// What the kubelet has admitted.
    admitted: i64,
    /// What the containers run with.
    in_force: i64,
    /// Reason of condition PodResizePending; empty where there is none.
    pending: &'static str,
}

/// Where a kubelet says how far it is.
#[derive(Clone, Copy, Debug)]
enum Report {
    /// In the status of the container.
    Container,
    /// The same without what it has admitted, which a server may be told not to serve.
    InForceAlone,
    /// In the status of the pod too, as for one that has resources as a whole.
    Pod,
}

const REPORTS: [Report; 3] = [Report::Container, Report::InForceAlone, Report::Pod];

fn sized(asked: i64, admitted: i64, in_force: i64) -> Online {
    Online { asked, admitted, in_force, pending: "" }
}

fn web(online: Online, report: Report) -> Change<PodView> {
    let cores = |cpu: i64| json!({"cpu": cpu.to_string()});
    let mut container = json!({"name": "c", "resources": {"requests": cores(online.in_force)}});
    let mut spec = json!({"nodeName": "n1", "containers": [{"name": "c", "resources": {"requests": cores(online.asked)}}]});
    let mut status = json!({"phase": "Running"});
    match report {
        Report::Container => container["allocatedResources"] = cores(online.admitted),
        Report::InForceAlone => {}
        Report::Pod => {
            container["allocatedResources"] = cores(online.admitted);
            spec["resources"] = json!({"requests": cores(online.asked)});
            status["allocatedResources"] = cores(online.admitted);
            status["resources"] = json!({"requests": cores(online.in_force)});
        }
    }
    status["containerStatuses"] = json!([container]);
    if !online.pending.is_empty() {
        let pending = json!({"type": "PodResizePending", "status": "True", "reason": online.pending});
        status["conditions"] = json!([pending]);
    }
    apply(json!({
        "metadata": {"name": "web", "namespace": "online", "uid": "web", "resourceVersion": "1"},
        "spec": spec,
        "status": status,
    }))
}

/// A node of eight cores with an online pod, and a job that would take all of it.
struct Play {
    world: World,
    report: Report,
    queue: QueueId,
    job: Uid,
    size: Online,
}

impl Play {
    fn new(report: Report, with_queue: bool, size: Online) -> Self {
        let mut world = World::new(&[("n1", "8")]);
        world.admission.pod_changed(&web(size, report));
        let queue = match with_queue {
            true => world.queue("q", &QueueRules::default()),
            false => QueueId::BuiltIn,
        };
        let job = world.ask(of(&queue, "j", &shape("1", json!({})), 20));
        let mut play = Self { world, report, queue, job, size };
        play.passes();
        play
    }

    /// Passes until nothing more is granted, all at one time.
    fn passes(&mut self) {
        self.world.settle(&[(self.job.clone(), "1", "a")]);
    }

    fn resize(&mut self, size: Online) {
        self.size = size;
        self.world.admission.pod_changed(&web(size, self.report));
        self.passes();
    }

    /// So many of the job's tasks end.
    fn end(&mut self, count: usize) {
        for name in self.world.pods.keys().take(count).cloned().collect::<Vec<_>>() {
            self.world.end(&name);
        }
        self.world.ask(of(&self.queue, "j", &shape("1", json!({})), 20));
        self.passes();
    }

    /// Pods of the job, of which none is only promised.
    fn batch(&self) -> usize {
        let granted = self.world.admission.verdict(&self.job).granted as usize;
        assert_eq!(granted, self.world.pods.len());
        granted
    }

    /// What the queue has, in cores, and what is charged to the node.
    fn books(&self) -> (Option<i64>, i64) {
        let capacity = self.world.admission.figures(&self.queue).capacity.map(|capacity| capacity.cpu / 1000);
        let used = self.world.admission.ledger.nodes().map(|(_, node)| node.used.cpu).sum::<i64>();
        // A process that starts now counts the same.
        let mut again = World::new(&[("n1", "8")]);
        again.admission.pod_changed(&web(self.size, self.report));
        for pod in self.world.pods.keys() {
            again.admission.pod_changed(&self.world.pod(pod, "Running"));
        }
        assert_eq!(again.admission.ledger.nodes().map(|(_, node)| node.used.cpu).sum::<i64>(), used);
        (capacity, used / 1000)
    }
}

#[test]
fn what_an_online_pod_gives_up_is_for_batch_work_when_it_is_no_longer_in_force_and_not_before() {
    for (report, with_queue) in REPORTS.iter().flat_map(|report| [(*report, false), (*report, true)]) {
        let context = |step: Online| format!("{report:?}, with a queue: {with_queue}, {step:?}");
        let mut play = Play::new(report, with_queue, sized(6, 6, 6));
        assert_eq!(play.batch(), 2);
        // Asked for; admitted; and as much as is in force on the way, as containers shrink one by one.
        let steps = [(sized(2, 6, 6), 2), (sized(2, 2, 6), 2), (sized(2, 2, 5), 3), (sized(2, 2, 2), 6)];
        for (step, expected) in steps {
            play.resize(step);
            assert_eq!(play.batch(), expected, "{}", context(step));
            let (capacity, used) = play.books();
            assert_eq!(used, 8, "{}", context(step));
            assert_eq!(capacity, with_queue.then_some(8 - step.in_force), "{}", context(step));
            play.world.nothing_overcommitted();
        }
        // Nothing else is to come of it.
        play.resize(sized(2, 2, 2));
        assert_eq!(play.batch(), 6);
    }
}

#[test]
fn what_an_online_pod_asks_for_is_no_longer_for_batch_work_before_anybody_has_carried_it_out() {
    for (report, with_queue) in REPORTS.iter().flat_map(|report| [(*report, false), (*report, true)]) {
        let context = format!("{report:?}, with a queue: {with_queue}");
        let mut play = Play::new(report, with_queue, sized(2, 2, 2));
        assert_eq!(play.batch(), 6);
        // The kubelet has no room for it yet. What runs is left alone, and nothing takes the place of what ends.
        play.resize(Online { pending: "Deferred", ..sized(5, 2, 2) });
        assert_eq!((play.batch(), play.books().1), (6, 11), "{context}");
        assert_eq!(play.world.admission.verdict(&play.job).reclaim, None, "{context}");
        for left in [5, 4, 3] {
            play.end(1);
            assert_eq!(play.batch(), left, "{context}");
        }
        // Admitted, and then in force: no difference to others.
        for step in [sized(5, 5, 2), sized(5, 5, 5)] {
            play.resize(step);
            assert_eq!((play.batch(), play.books().1), (3, 8), "{context}, {step:?}");
        }
        play.end(1);
        assert_eq!(play.batch(), 3, "{context}: what ends now has a successor");
        play.world.nothing_overcommitted();
    }
}

#[test]
fn what_no_node_can_ever_carry_out_keeps_nothing_from_batch_work() {
    for report in REPORTS {
        let mut play = Play::new(report, false, sized(2, 2, 2));
        play.resize(Online { pending: "Infeasible", ..sized(20, 2, 2) });
        play.end(2);
        assert_eq!(play.batch(), 6, "{report:?}");
        // The same wish for less is one that somebody waits for.
        play.resize(Online { pending: "Deferred", ..sized(7, 2, 2) });
        play.end(2);
        assert_eq!(play.batch(), 4, "{report:?}");
        // It is given up before it was carried out.
        play.resize(sized(2, 2, 2));
        assert_eq!(play.batch(), 6, "{report:?}");
    }
}

#[test]
fn a_resize_that_turns_around_half_way_holds_the_most_of_both_ways() {
    for report in REPORTS {
        let mut play = Play::new(report, false, sized(6, 6, 6));
        play.resize(sized(2, 2, 6));
        assert_eq!(play.batch(), 2, "{report:?}");
        // It wants to grow again, while the old size is in force still.
        play.resize(sized(4, 2, 6));
        assert_eq!(play.batch(), 2, "{report:?}");
        play.resize(sized(4, 2, 2));
        assert_eq!(play.batch(), 4, "{report:?}: what it asks for is its own");
        play.resize(sized(4, 4, 4));
        assert_eq!(play.batch(), 4, "{report:?}");
        play.world.nothing_overcommitted();
    }
}
