//! Load triggers and capacity by measured use in the admission.

use super::queues::{cores, cpu, foreign, of};
use super::*;
use crate::loads::{StoredLoads, Usage};
use crate::peaks::Peaks;
use springtide_plumbing::resources::ResourceList;
use springtide_crds::batch_queue::BatchQueueStatus;
use springtide_crds::batch_queue::loads::LoadTrigger;
use springtide_crds::batch_queue::peaks::PeakWindow;
use std::collections::HashMap;

/// BestEffort leaves at three quarters of the processors.
const HOT: &str = "
- name: hot
  highPercent: 75
  lowPercent: 60
  sustainSeconds: 30
  actions: [{tier: BestEffort, action: Drain}]
  drainPodsPerSecond: 1000
  resume: {rampSeconds: 100, jitterSeconds: 0}
";

fn triggers(world: &mut World, queue: &QueueId) {
    let triggers: Vec<LoadTrigger> = serde_yaml::from_str(HOT).unwrap();
    let peaks = Peaks::new(&Uid("q".into()), &[], None).with_triggers(&triggers);
    world.admission.peaks_changed(queue, Some(Arc::new(peaks)), None);
}

/// What a metrics server told, look by look.
#[derive(Default)]
pub(super) struct Server(Usage);

impl Server {
    /// So many thousandths of a core are in use on each node, and by batch work.
    pub(super) fn tells(&mut self, world: &mut World, second: i64, nodes: &[(&str, i64, i64)]) {
        let told = nodes.iter().map(|(name, used, _)| {
            serde_json::from_value(json!({
                "metadata": {"name": name}, "timestamp": at(second),
                "usage": {"cpu": format!("{used}m"), "memory": "1Gi"},
            }))
            .unwrap()
        });
        let batch: HashMap<Arc<str>, ResourceList> =
            nodes.iter().map(|(name, _, batch)| (Arc::from(*name), cpu(*batch))).collect();
        self.0 = self.0.next(told.collect(), &batch, at(second));
        world.admission.usage_changed(Arc::new(self.0.clone()));
    }
}

fn settle(world: &mut World, second: i64, job: &Uid) -> usize {
    let mut made = 0;
    loop {
        world.admission.pass(at(second));
        let before = made;
        while world.make(job, "1", "a").is_some() {
            made += 1;
        }
        if made == before {
            return made;
        }
    }
}

#[test]
fn a_busy_cluster_drains_the_tier_and_fills_again_along_a_ramp() {
    let mut world = World::new(&[("n1", "16")]);
    let queue = world.queue("q", &cores(8, 8));
    triggers(&mut world, &queue);
    let job = world.ask(of(&queue, "j", &shape("1", json!({})), 8));
    let mut server = Server::default();
    server.tells(&mut world, 0, &[("n1", 4000, 0)]);
    assert_eq!(settle(&mut world, 0, &job), 8);
    for second in [15, 30, 45] {
        server.tells(&mut world, second, &[("n1", 13000, 0)]);
        world.admission.pass(at(second));
    }
    let verdict = world.admission.verdict(&job);
    assert!(verdict.drained);
    assert_eq!(verdict.reclaim.map(|reclaim| (reclaim.keep, reclaim.until)), Some((0, None)));
    assert_eq!(world.admission.load_totals(), LoadTotals { on: 1, unmeasured: 0 });
    let pods: Vec<String> = world.pods.keys().cloned().collect();
    for pod in pods {
        world.end(&pod);
    }
    world.ask(of(&queue, "j", &shape("1", json!({})), 8));
    assert_eq!(settle(&mut world, 46, &job), 0);
    let waiting = world.admission.verdict(&job).waiting.unwrap();
    assert_eq!(waiting.reason, QueuedReason::LoadTrigger);
    assert!(waiting.message.contains("load trigger hot: 75 % of cpu"), "{}", waiting.message);
    for second in [60, 75, 90] {
        server.tells(&mut world, second, &[("n1", 3000, 0)]);
        assert_eq!(settle(&mut world, second, &job), 0);
    }
    server.tells(&mut world, 140, &[("n1", 3000, 0)]);
    assert_eq!(settle(&mut world, 140, &job), 4, "half of the ramp is over");
    assert_eq!(world.admission.verdict(&job).waiting.unwrap().reason, QueuedReason::LoadTrigger);
    server.tells(&mut world, 190, &[("n1", 3000, 0)]);
    assert_eq!(settle(&mut world, 190, &job), 4);
}

#[test]
fn metrics_that_vanish_hold_the_tier_and_end_nothing() {
    let mut world = World::new(&[("n1", "16")]);
    let queue = world.queue("q", &cores(8, 8));
    triggers(&mut world, &queue);
    let one = shape("1", json!({}));
    let job = world.ask(of(&queue, "j", &one, 2));
    let mut server = Server::default();
    server.tells(&mut world, 0, &[("n1", 4000, 0)]);
    assert_eq!(settle(&mut world, 0, &job), 2);
    world.ask(of(&queue, "j", &one, 4));
    assert_eq!(settle(&mut world, 60, &job), 0);
    let verdict = world.admission.verdict(&job);
    assert_eq!((verdict.drained, verdict.reclaim), (false, None));
    assert_eq!(verdict.waiting.unwrap().reason, QueuedReason::LoadTrigger);
    assert_eq!(world.admission.load_totals(), LoadTotals { on: 0, unmeasured: 1 });
    // Another tier is not concerned.
    let other = world.ask(Demand { tier: Tier::Standard, ..of(&queue, "k", &one, 1) });
    assert_eq!(settle(&mut world, 60, &other), 1);
}

#[test]
fn a_new_process_holds_what_its_predecessor_drained_until_it_knows_the_load() {
    let mut world = World::new(&[("n1", "16")]);
    let queue = world.queue("q", &cores(8, 8));
    triggers(&mut world, &queue);
    let QueueId::Object(key) = &queue else { panic!("{queue:?}") };
    let stored =
        BatchQueueStatus { active_load_triggers: vec!["hot".to_owned()], ..BatchQueueStatus::default() };
    world.admission.loads_stored(key, StoredLoads::of(&stored));
    let job = world.ask(of(&queue, "j", &shape("1", json!({})), 2));
    assert_eq!(settle(&mut world, 1000, &job), 0);
    let mut server = Server::default();
    for second in [1001, 1016, 1031] {
        server.tells(&mut world, second, &[("n1", 1000, 0)]);
        assert_eq!(settle(&mut world, second, &job), 0);
    }
    let later: Vec<i64> = (1046..=1131).step_by(15).collect();
    let made = later.into_iter().map(|second| {
        server.tells(&mut world, second, &[("n1", 1000, 0)]);
        settle(&mut world, second, &job)
    });
    assert_eq!(made.sum::<usize>(), 2);
}

fn measured(world: &mut World, percent: u8) -> QueueId {
    let share = NodeShare { percent, ..NodeShare::default() };
    world.queue("q", &QueueRules { source: CapacitySource::NodeMetrics(share), ..QueueRules::default() })
}

#[test]
fn capacity_by_metrics_is_what_others_neither_request_nor_use() {
    let mut world = World::new(&[("n1", "16"), ("n2", "16")]);
    world.admission.pod_changed(&foreign("web", "n1", "10"));
    let queue = measured(&mut world, 50);
    let mut server = Server::default();
    // Of n1 ten cores are promised and two are used; of n2 nine are used, one of them by batch work.
    server.tells(&mut world, 0, &[("n1", 2000, 0), ("n2", 9000, 1000)]);
    world.admission.pass(at(0));
    let figures = world.admission.figures(&queue);
    assert_eq!(figures.capacity.unwrap().cpu, (6000 + 8000) / 2);
    let job = world.ask(of(&queue, "j", &shape("1", json!({})), 20));
    assert_eq!(settle(&mut world, 0, &job), 7);
    server.tells(&mut world, 15, &[("n1", 2000, 0), ("n2", 17000, 1000)]);
    world.admission.pass(at(15));
    assert_eq!(
        world.admission.figures(&queue).capacity.unwrap().cpu,
        3000,
        "batch work does not count against itself"
    );
    assert_eq!(world.admission.verdict(&job).granted, 7, "what runs goes on");
    assert_eq!(world.admission.verdict(&job).waiting.unwrap().reason, QueuedReason::NoCapacity);
}

#[test]
fn metrics_that_are_too_old_stop_grants_and_nothing_else() {
    let mut world = World::new(&[("n1", "16")]);
    let queue = measured(&mut world, 100);
    let one = shape("1", json!({}));
    let job = world.ask(of(&queue, "j", &one, 2));
    assert_eq!(settle(&mut world, 0, &job), 0, "nothing is known yet");
    assert!(world.admission.figures(&queue).metrics_old);
    let mut server = Server::default();
    server.tells(&mut world, 5, &[("n1", 1000, 0)]);
    assert_eq!(settle(&mut world, 5, &job), 2);
    world.ask(of(&queue, "j", &one, 4));
    world.admission.pass(at(66));
    // What was granted in time is made.
    let before = world.admission.verdict(&job).granted;
    let figures = world.admission.figures(&queue);
    assert!(figures.metrics_old && figures.is_stale);
    assert_eq!(figures.capacity.unwrap().cpu, 15000, "as it was known last");
    assert_eq!((before, world.admission.verdict(&job).reclaim), (2, None));
    let waiting = world.admission.verdict(&job).waiting.unwrap();
    assert_eq!(waiting.reason, QueuedReason::CapacityStale);
    server.tells(&mut world, 70, &[("n1", 1000, 0)]);
    assert_eq!(settle(&mut world, 70, &job), 2);
}

#[test]
fn a_peak_ends_nothing_for_measures_that_lag_or_are_missing() {
    const DEGRADE: &str = "
- name: noon
  window: {start: '00:10', end: '00:20', timeZone: UTC}
  actions: [{tier: Standard, action: Degrade, percent: 50}]
  leadSeconds: 100
";
    let mut world = World::new(&[("n1", "16"), ("n2", "16")]);
    let queue = measured(&mut world, 100);
    let windows: Vec<PeakWindow> = serde_yaml::from_str(DEGRADE).unwrap();
    let peaks = Peaks::new(&Uid("q".into()), &windows, None);
    world.admission.peaks_changed(&queue, Some(Arc::new(peaks)), None);
    let one = shape("1", json!({}));
    let job = world.ask(Demand { tier: Tier::Standard, ..of(&queue, "j", &one, 10) });
    let mut server = Server::default();
    server.tells(&mut world, 0, &[("n1", 1000, 0), ("n2", 1000, 0)]);
    assert_eq!(settle(&mut world, 0, &job), 10);
    server.tells(&mut world, 590, &[("n1", 6000, 5000), ("n2", 6000, 5000)]);
    world.admission.pass(at(590));
    // One node is not told of, and pods that run on the other are not measured yet.
    server.tells(&mut world, 605, &[("n1", 6000, 0)]);
    for second in [605, 606] {
        world.admission.pass(at(second));
        assert_eq!(world.admission.verdict(&job).reclaim, None, "ten of sixteen cores are in use");
    }
    // What is measured bounds what starts: half of ten cores.
    world.ask(Demand { tier: Tier::Standard, ..of(&queue, "j", &one, 11) });
    assert_eq!(settle(&mut world, 607, &job), 0);
    // What others request is theirs.
    world.admission.pod_changed(&foreign("web", "n2", "14"));
    world.admission.pass(at(608));
    assert_eq!(world.admission.verdict(&job).reclaim.map(|reclaim| reclaim.keep), Some(9));
}
