use super::*;
use crate::fixtures::at;
use proptest::prelude::*;

const NODE: Demand = cpu(10);

const fn cpu(cores: i64) -> Demand {
    Demand { cpu: cores * 1000, memory: cores }
}

const RANK: Rank = Rank { priority: 0, qos: QosClass::Burstable };

/// A node that is full: `a` has six cores, and `b` four.
fn full() -> Allocator {
    let mut node = Allocator::new(NODE);
    for (uid, cores) in [("a", 6), ("b", 4)] {
        assert_eq!(node.offer(uid, cpu(cores), RANK, at(0)), Answer::Allocated);
    }
    node
}

#[test]
fn who_grows_waits_until_the_status_of_the_other_is_smaller() {
    let mut node = full();
    assert_eq!(node.offer("a", cpu(1), RANK, at(1)), Answer::Allocated);
    assert_eq!(node.offer("b", cpu(9), RANK, at(1)), Answer::Deferred, "a still has what it had");
    let pending = node.pod("b").unwrap().pending;
    assert_eq!((pending, node.retry(at(2))), (Some(Pending::Deferred { since: at(1) }), vec![]));
    assert!(node.actuate("a") && !node.actuate("a"));
    assert_eq!(node.retry(at(2)), ["b"]);
    assert_eq!((node.allocated(), node.wake()), (NODE, None));
    let held = *node.pod("b").unwrap();
    assert_eq!((held.allocated, held.in_force), (cpu(9), cpu(4)), "its kubelet has yet to do it");
}

#[test]
fn a_resize_is_allocated_as_a_whole() {
    let mut node = full();
    let other = Demand { cpu: 1000, memory: 7 };
    assert_eq!(
        node.offer("a", other, RANK, at(0)),
        Answer::Deferred,
        "less cpu, and more memory than there is"
    );
    assert_eq!(node.pod("a").unwrap().allocated, cpu(6));
}

#[test]
fn more_than_the_node_has_is_infeasible_until_less_is_asked_for() {
    let mut node = full();
    assert_eq!(node.offer("a", cpu(11), RANK, at(0)), Answer::Infeasible);
    node.remove("b");
    assert!(node.retry(at(600)).is_empty() && node.wake().is_none(), "nobody looks at it again");
    assert_eq!(node.scheduled(), cpu(6), "nor does the scheduler count it");
    assert_eq!(node.offer("a", cpu(10), RANK, at(601)), Answer::Allocated);
}

#[test]
fn a_pod_that_comes_is_admitted_where_there_is_room_and_else_turned_away() {
    let mut node = full();
    assert_eq!(node.offer("c", cpu(1), RANK, at(0)), Answer::Infeasible);
    assert!(node.pod("c").is_none());
    node.offer("a", cpu(5), RANK, at(0));
    assert_eq!(node.offer("c", cpu(1), RANK, at(0)), Answer::Infeasible, "it is not free yet");
    node.actuate("a");
    assert_eq!(node.offer("c", cpu(1), RANK, at(0)), Answer::Allocated);
}

#[test]
fn those_that_wait_are_looked_at_in_the_kubelets_order() {
    let mut node = Allocator::new(cpu(20));
    let high = Rank { priority: 1, ..RANK };
    let guaranteed = Rank { qos: QosClass::Guaranteed, ..RANK };
    for uid in ["late", "old", "guaranteed", "high", "full"] {
        node.offer(uid, cpu(if uid == "full" { 16 } else { 1 }), RANK, at(0));
    }
    for (second, uid, rank) in
        [(1, "old", RANK), (2, "late", RANK), (3, "guaranteed", guaranteed), (4, "high", high)]
    {
        assert_eq!(node.offer(uid, cpu(2), rank, at(second)), Answer::Deferred);
    }
    let mut order = Vec::new();
    for cores in (12..16).rev() {
        node.offer("full", cpu(cores), RANK, at(5));
        node.actuate("full");
        order.extend(node.retry(at(5)));
    }
    assert_eq!(order, ["high", "guaranteed", "old", "late"]);
}

#[test]
fn only_other_sizes_smaller_statuses_pods_that_end_and_time_are_news() {
    let mut node = full();
    node.offer("a", cpu(1), RANK, at(0));
    node.offer("b", cpu(9), RANK, at(0));
    node.actuate("a");
    node.miss_news();
    assert_eq!(node.offer("b", cpu(9), RANK, at(1)), Answer::Deferred, "as with other metadata");
    assert!(node.retry(at(1)).is_empty());
    let mut nudged = node.clone();
    assert_eq!(nudged.offer("b", cpu(4), RANK, at(2)), Answer::Allocated, "it is withdrawn");
    assert_eq!(nudged.offer("b", cpu(9), RANK, at(2)), Answer::Allocated, "and looked at anew");
    let mut other = node.clone();
    other.offer("a", cpu(1) - Demand { cpu: 1, memory: 0 }, RANK, at(2));
    assert_eq!(other.retry(at(2)), ["b"]);
    let mut ended = node.clone();
    ended.remove("a");
    assert_eq!(ended.retry(at(2)), ["b"]);
    assert_eq!(node.wake(), Some(at(180)));
    assert!(node.retry(at(179)).is_empty());
    assert_eq!(node.retry(at(180)), ["b"]);
}

#[test]
fn a_withdrawal_is_no_news_for_others() {
    let mut node = Allocator::new(NODE);
    for (uid, cores) in [("a", 6), ("b", 2), ("c", 2)] {
        node.offer(uid, cpu(cores), RANK, at(0));
    }
    node.offer("b", cpu(3), RANK, at(0));
    node.offer("c", cpu(3), RANK, at(0));
    node.offer("a", cpu(5), RANK, at(1));
    node.actuate("a");
    node.miss_news();
    assert_eq!(node.offer("b", cpu(2), RANK, at(2)), Answer::Allocated);
    assert!(node.retry(at(2)).is_empty());
    assert_eq!(node.scheduled(), cpu(10), "what c waits for counts for the scheduler");
}

#[test]
fn the_first_look_of_a_node_is_half_a_minute_after_its_start() {
    let mut node = Allocator::new(NODE);
    node.offer("a", cpu(6), RANK, at(0));
    assert!(node.retry(at(29)).is_empty());
    assert_eq!(node.next_look, Some(at(30)));
    node.retry(at(30));
    assert_eq!((node.next_look, node.wake()), (Some(at(210)), None), "nobody waits");
}

/// Something that happens on a node.
#[derive(Clone, Debug)]
enum Event {
    Offer(usize, Demand, Rank),
    Actuate(usize),
    Remove(usize),
    Retry,
    Pass(i64),
    Miss,
}

fn any_demand() -> impl Strategy<Value = Demand> {
    (0..12_i64, 0..12_i64).prop_map(|(cores, memory)| Demand { cpu: cores * 1000, memory })
}

fn any_event() -> impl Strategy<Value = Event> {
    let qos = prop_oneof![Just(QosClass::Guaranteed), Just(QosClass::Burstable)];
    let rank = (0..2, qos).prop_map(|(priority, qos)| Rank { priority, qos });
    prop_oneof![
        6 => (0..5_usize, any_demand(), rank).prop_map(|(pod, size, rank)| Event::Offer(pod, size, rank)),
        3 => (0..5_usize).prop_map(Event::Actuate),
        1 => (0..5_usize).prop_map(Event::Remove),
        2 => Just(Event::Retry),
        1 => (0..200_i64).prop_map(Event::Pass),
        1 => Just(Event::Miss),
    ]
}

const UIDS: [&str; 5] = ["a", "b", "c", "d", "e"];

/// A node to which things happen, and what was said of its pods.
struct Scene {
    node: Allocator,
    now: Timestamp,
    told: BTreeMap<String, Demand>,
}

impl Scene {
    fn new() -> Self {
        Self { node: Allocator::new(NODE), now: at(0), told: BTreeMap::new() }
    }

    fn happens(&mut self, event: &Event) {
        match event {
            Event::Offer(pod, size, rank) => {
                let answer = self.node.offer(UIDS[*pod], *size, *rank, self.now);
                if answer == Answer::Allocated {
                    self.told.insert(UIDS[*pod].to_owned(), *size);
                }
            }
            Event::Actuate(pod) => {
                self.node.actuate(UIDS[*pod]);
            }
            Event::Remove(pod) => {
                self.node.remove(UIDS[*pod]);
                self.told.remove(UIDS[*pod]);
            }
            Event::Retry => {
                for uid in self.node.retry(self.now) {
                    let size = self.node.pod(&uid).unwrap().allocated;
                    self.told.insert(uid, size);
                }
            }
            Event::Pass(seconds) => self.now = after(self.now, SignedDuration::from_secs(*seconds)),
            Event::Miss => self.node.miss_news(),
        }
    }

    /// Lets the node do all it has to until nothing moves.
    fn settle(&mut self) {
        for _ in 0..2 * UIDS.len() {
            for pod in 0..UIDS.len() {
                self.happens(&Event::Actuate(pod));
            }
            self.happens(&Event::Pass(RETRY_EVERY.as_secs()));
            self.happens(&Event::Retry);
        }
    }
}

proptest! {
    #[test]
    fn pods_never_hold_more_than_the_node_has(events in proptest::collection::vec(any_event(), 0..60)) {
        let mut scene = Scene::new();
        for event in &events {
            scene.happens(event);
            let node = &scene.node;
            prop_assert!(node.allocated().fits(node.claimed()) && node.claimed().fits(NODE));
            for pod in node.pods.values() {
                let is_so = match pod.pending {
                    None => pod.asked == pod.allocated,
                    Some(Pending::Deferred { since }) => pod.asked.fits(NODE) && since <= scene.now,
                    Some(Pending::Infeasible) => !pod.asked.fits(NODE),
                };
                prop_assert!(is_so, "{pod:?}");
            }
        }
    }

    #[test]
    fn who_waits_gets_its_size_when_there_is_room(events in proptest::collection::vec(any_event(), 0..60)) {
        let mut scene = Scene::new();
        events.iter().for_each(|event| scene.happens(event));
        scene.settle();
        let node = &scene.node;
        for pod in node.pods.values() {
            prop_assert_eq!(pod.in_force, pod.allocated);
            if pod.deferred_since().is_some() {
                prop_assert!(!pod.asked.fits(NODE - (node.claimed() - pod.held())), "{:?}", pod);
            }
        }
        let waits = node.pods.values().any(|pod| pod.deferred_since().is_some());
        prop_assert_eq!(node.wake().is_some(), waits);
    }

    #[test]
    fn each_allocation_is_told_once(events in proptest::collection::vec(any_event(), 0..60)) {
        let mut scene = Scene::new();
        events.iter().for_each(|event| scene.happens(event));
        scene.happens(&Event::Retry);
        let allocated: BTreeMap<_, _> =
            scene.node.pods.iter().map(|(uid, pod)| (uid.clone(), pod.allocated)).collect();
        prop_assert_eq!(&scene.told, &allocated);
        prop_assert!(scene.node.retry(scene.now).is_empty());
    }

    #[test]
    fn who_asks_for_less_gets_it_at_once(
        events in proptest::collection::vec(any_event(), 0..60), pod in 0..5_usize, less in any_demand(),
    ) {
        let mut scene = Scene::new();
        events.iter().for_each(|event| scene.happens(event));
        let Some(has) = scene.node.pod(UIDS[pod]).map(|pod| pod.allocated) else { return Ok(()) };
        let less = Demand { cpu: less.cpu.min(has.cpu), memory: less.memory.min(has.memory) };
        prop_assert_eq!(scene.node.offer(UIDS[pod], less, RANK, scene.now), Answer::Allocated);
    }

    #[test]
    fn pods_change_places_on_a_full_node_in_any_order_of_requests_and_statuses(
        order in Just((0..12_usize).collect::<Vec<_>>()).prop_shuffle(),
    ) {
        let mut node = Allocator::new(cpu(12));
        let name = |pod: usize| format!("{}{}", if pod.is_multiple_of(2) { "shrinks" } else { "grows" }, pod / 2);
        let large = |pod: usize, is_after: bool| cpu(if pod.is_multiple_of(2) == is_after { 1 } else { 3 });
        for pod in 0..6 {
            prop_assert_eq!(node.offer(&name(pod), large(pod, false), RANK, at(0)), Answer::Allocated);
        }
        // The first six are requests, the others are statuses of the same pods.
        for step in order.into_iter().chain(0..12) {
            match step {
                0..6 => { node.offer(&name(step), large(step, true), RANK, at(1)); }
                _ => { node.actuate(&name(step - 6)); }
            }
            node.retry(at(1));
            prop_assert!(node.claimed().fits(cpu(12)));
        }
        for pod in 0..6 {
            node.actuate(&name(pod));
            let holding = node.pod(&name(pod)).unwrap();
            prop_assert_eq!((holding.in_force, holding.pending), (large(pod, true), None));
        }
    }
}
