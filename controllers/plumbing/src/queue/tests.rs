use super::*;
use crate::key::ObjectKey;
use futures::FutureExt;
use std::collections::{BTreeMap, HashMap};

pub(super) const HALF: Duration = Duration::from_millis(500);

pub(super) fn queue() -> WorkQueue<u32> {
    WorkQueue::new(7)
}

/// What a worker gets without waiting.
pub(super) fn pop(queue: &WorkQueue<u32>) -> Option<u32> {
    queue.next().now_or_never().flatten().map(|item| item.key)
}

pub(super) fn pop_all(queue: &WorkQueue<u32>) -> Vec<u32> {
    std::iter::from_fn(|| pop(queue)).collect()
}

pub(super) fn add(queue: &WorkQueue<u32>, key: u32) {
    queue.add(key, Priority::Normal, Urgency::Routine);
}

pub(super) fn fail(queue: &WorkQueue<u32>, key: u32) {
    queue.done(&key, Next::Failed { min: Duration::ZERO });
}

/// Advances paused time, and lets every task that is due run.
pub(super) async fn pass(time: Duration) {
    tokio::time::sleep(time).await;
}

#[tokio::test(start_paused = true)]
async fn a_key_is_queued_once_and_in_order() {
    let queue = queue();
    for key in [3, 1, 2, 1, 3] {
        add(&queue, key);
    }
    assert_eq!(queue.len(), 3);
    assert_eq!(pop_all(&queue), [3, 1, 2]);
    assert!(queue.is_empty());
}

#[tokio::test(start_paused = true)]
async fn higher_priorities_go_first_and_lift_a_queued_key_with_its_age() {
    let queue = queue();
    queue.add(1, Priority::Low, Urgency::Routine);
    queue.add(2, Priority::Normal, Urgency::Routine);
    queue.add(3, Priority::High, Urgency::Routine);
    queue.add(1, Priority::High, Urgency::Routine);
    assert_eq!(queue.stats().depth, [2, 1, 0]);
    queue.add(1, Priority::Low, Urgency::Routine);
    assert_eq!(pop_all(&queue), [1, 3, 2]);
}

#[tokio::test(start_paused = true)]
async fn every_eighth_pop_takes_the_oldest_of_a_lower_priority() {
    let queue = queue();
    queue.add(100, Priority::Low, Urgency::Routine);
    queue.add(101, Priority::Normal, Urgency::Routine);
    for key in 0..20 {
        queue.add(key, Priority::High, Urgency::Routine);
    }
    let order = pop_all(&queue);
    assert_eq!(order[7], 100, "the older one, though of the lowest priority");
    assert_eq!(order[15], 101);
    assert_eq!(order.len(), 22);
}

#[tokio::test(start_paused = true)]
async fn events_during_a_run_give_exactly_one_more_run() {
    let queue = queue();
    add(&queue, 1);
    assert_eq!(pop(&queue), Some(1));
    for _ in 0..5 {
        add(&queue, 1);
    }
    assert_eq!(pop(&queue), None, "never twice at once");
    queue.done(&1, Next::Success);
    assert_eq!(pop(&queue), Some(1));
    queue.done(&1, Next::Success);
    assert_eq!(pop(&queue), None);
    assert!(queue.shared.state.lock().unwrap().is_at_rest());
}

#[tokio::test(start_paused = true)]
async fn backoff_doubles_within_its_jitter_and_is_capped() {
    let queue = queue();
    add(&queue, 1);
    for n in 0..14 {
        let item = queue.next().await.unwrap();
        assert_eq!(item.failures, n);
        let start = Instant::now();
        fail(&queue, 1);
        assert_eq!(queue.stats().in_backoff, 1);
        let nominal = (HALF * 2_u32.pow(n)).min(Duration::from_secs(300));
        tokio::time::timeout(nominal.mul_f64(0.74), queue.next()).await.unwrap_err();
        let item = queue.next().await.unwrap();
        assert_eq!(item.key, 1);
        let waited = start.elapsed();
        assert!(waited <= nominal.mul_f64(1.25).min(Duration::from_secs(300)) + Duration::from_millis(1));
        assert!(item.waited <= Duration::from_millis(1), "backoff is not queueing");
        // Back into the loop as it was: running.
        queue.done(&1, Next::Throttled { until: Instant::now() });
    }
    queue.next().await.unwrap();
    queue.done(&1, Next::Success);
    add(&queue, 1);
    assert_eq!(queue.next().await.unwrap().failures, 0, "success clears");
}

#[tokio::test(start_paused = true)]
async fn a_backoff_doubles_from_the_floor_of_its_class() {
    for (floor, nominals) in
        [(30, [30.0, 60.0, 120.0, 240.0, 300.0]), (300, [300.0; 5]), (u64::MAX, [300.0; 5])]
    {
        let queue = queue();
        add(&queue, 1);
        pop(&queue);
        for nominal in nominals {
            let failed = Instant::now();
            queue.done(&1, Next::Failed { min: Duration::from_secs(floor) });
            queue.next().await.unwrap();
            let waited = failed.elapsed().as_secs_f64();
            assert!((nominal * 0.75..=nominal * 1.25).contains(&waited), "{waited} is not about {nominal} s");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn events_do_not_shorten_a_backoff_but_a_new_generation_does() {
    let queue = queue();
    add(&queue, 1);
    for _ in 0..6 {
        queue.next().await.unwrap();
        fail(&queue, 1);
    }
    // The sixth failure: 16 s ± 25 %. Events come all the time, protective ones too.
    let start = Instant::now();
    for _ in 0..100 {
        add(&queue, 1);
        queue.add(1, Priority::High, Urgency::Routine);
        assert_eq!(pop(&queue), None);
        pass(Duration::from_millis(119)).await;
    }
    assert!(start.elapsed() < Duration::from_secs(12));
    queue.add(1, Priority::High, Urgency::BreaksBackoff);
    let item = queue.next().now_or_never().flatten().unwrap();
    assert_eq!((item.priority, item.failures), (Priority::High, 6));
    // The count goes on: a spec that is changed once a second must not become a hot loop.
    fail(&queue, 1);
    tokio::time::timeout(Duration::from_secs(23), queue.next()).await.unwrap_err();
}

#[tokio::test(start_paused = true)]
async fn events_during_a_failing_run_wait_for_its_backoff_unless_they_break_it() {
    let queue = queue();
    for (urgency, at_once) in [(Urgency::Routine, None), (Urgency::BreaksBackoff, Some(1))] {
        add(&queue, 1);
        pop(&queue);
        add(&queue, 1);
        queue.add(1, Priority::Normal, urgency);
        fail(&queue, 1);
        assert_eq!(pop(&queue), at_once);
        if at_once.is_none() {
            queue.next().await.unwrap();
        }
        queue.done(&1, Next::Success);
        assert_eq!(pop(&queue), None, "backoff and event are one run");
    }
}

#[tokio::test(start_paused = true)]
async fn conflicts_run_again_at_once_and_back_off_from_the_fifth_on() {
    let queue = queue();
    add(&queue, 1);
    for _ in 0..4 {
        assert_eq!(pop(&queue), Some(1));
        queue.done(&1, Next::Conflict);
    }
    assert_eq!(pop(&queue), Some(1));
    queue.done(&1, Next::Conflict);
    assert_eq!(pop(&queue), None);
    assert_eq!(queue.stats().in_backoff, 1);
    assert_eq!(queue.stats().retries, 5);
    assert_eq!(queue.next().await.unwrap().failures, 0);
}

#[tokio::test(start_paused = true)]
async fn the_last_plan_decides_the_wake_time() {
    let queue = queue();
    let start = Instant::now();
    add(&queue, 1);
    pop(&queue);
    queue.done(&1, Next::WakeAt(start + Duration::from_secs(10)));
    // An event runs it earlier, and that plan wants to be woken later.
    pass(Duration::from_secs(5)).await;
    add(&queue, 1);
    pop(&queue);
    queue.done(&1, Next::WakeAt(start + Duration::from_secs(20)));
    let item = queue.next().await.unwrap();
    assert_eq!((item.key, item.priority), (1, Priority::Normal));
    assert_eq!(start.elapsed().as_secs(), 20);
    // A plan without a wake time takes the old one back.
    queue.done(&1, Next::WakeAt(start + Duration::from_secs(30)));
    add(&queue, 1);
    pop(&queue);
    queue.done(&1, Next::Success);
    tokio::time::timeout(Duration::from_secs(100), queue.next()).await.unwrap_err();
    assert!(queue.shared.state.lock().unwrap().next_timer().is_none());
}

#[tokio::test(start_paused = true)]
async fn throttled_keys_come_back_in_order_before_younger_ones_and_events_do_not_hurry_them() {
    let queue = queue();
    for key in 0..5 {
        add(&queue, key);
    }
    let until = Instant::now() + Duration::from_secs(1);
    for key in 0..5 {
        assert_eq!(pop(&queue), Some(key));
    }
    // Refused in another order than taken.
    for key in [4, 0, 3, 1, 2] {
        queue.done(&key, Next::Throttled { until });
    }
    for key in 5..8 {
        add(&queue, key);
    }
    queue.add(2, Priority::Normal, Urgency::BreaksBackoff);
    assert_eq!(queue.stats().throttled, 5);
    assert_eq!(pop(&queue), Some(5), "others run meanwhile");
    pass(Duration::from_secs(1)).await;
    assert_eq!(pop_all(&queue), [0, 1, 2, 3, 4, 6, 7]);
}

#[tokio::test(start_paused = true)]
async fn keys_that_are_refused_for_ever_do_not_starve_younger_ones() {
    let queue = queue();
    for key in 0..10 {
        add(&queue, key);
    }
    add(&queue, 99);
    // One worker; ten keys older than 99 come back at once, each time.
    let mut pops = 0;
    loop {
        pops += 1;
        match pop(&queue) {
            Some(99) => break,
            Some(key) => queue.done(&key, Next::Throttled { until: Instant::now() }),
            None => panic!("all are ready"),
        }
        assert!(pops < 100);
    }
    assert_eq!(pops, 41, "each of the ten kept its place three times");
}

#[tokio::test(start_paused = true)]
async fn a_gated_key_waits_for_its_release_even_if_they_cross() {
    let queue = queue();
    add(&queue, 1);
    add(&queue, 2);
    pop(&queue);
    queue.done(&1, Next::Gated);
    queue.add(1, Priority::Normal, Urgency::BreaksBackoff);
    assert_eq!(queue.stats().gated, 1);
    queue.release(&1);
    assert_eq!(pop(&queue), Some(1), "back before the younger one");
    // The gate opens after the worker looked and before it reports.
    queue.release(&1);
    queue.done(&1, Next::Gated);
    assert_eq!(pop_all(&queue), [1, 2]);
    queue.done(&1, Next::Success);
    queue.done(&2, Next::Success);
}

#[tokio::test(start_paused = true)]
async fn a_gate_that_opens_without_an_event_wakes_its_key_once() {
    let queue = queue();
    for next in [Next::Success, Next::WakeAt(Instant::now() + HALF)] {
        add(&queue, 1);
        pop(&queue);
        queue.done(&1, next);
        queue.release(&1);
        queue.release(&1);
        assert_eq!(pop(&queue), Some(1), "at rest after {next:?}");
        // It opens before the pass that closed it has ended.
        queue.release(&1);
        queue.done(&1, next);
        assert_eq!(pop(&queue), Some(1), "released before {next:?}");
        // The event comes first, as it does in all ordinary cases: it and the release are one cause.
        add(&queue, 1);
        queue.release(&1);
        queue.done(&1, next);
        assert_eq!(pop(&queue), Some(1));
        queue.done(&1, Next::Success);
        assert_eq!(pop(&queue), None);
    }
    for throttled in [false, true] {
        add(&queue, 1);
        pop(&queue);
        let failed = Next::Failed { min: Duration::ZERO };
        queue.done(&1, if throttled { Next::Throttled { until: Instant::now() + HALF } } else { failed });
        queue.release(&1);
        assert_eq!(pop(&queue), None, "an open gate ends no backoff");
        pass(2 * HALF).await;
        assert_eq!(pop(&queue), Some(1));
        queue.done(&1, Next::Success);
    }
}

#[tokio::test(start_paused = true)]
async fn nothing_is_handed_out_after_close() {
    let queue = queue();
    let waiting = tokio::spawn({
        let queue = queue.clone();
        async move { queue.next().await }
    });
    pass(HALF).await;
    queue.close();
    add(&queue, 1);
    assert_eq!(waiting.await.unwrap(), None);
    assert_eq!(queue.next().await, None);
}

#[tokio::test(start_paused = true)]
async fn a_dropped_waiter_loses_no_wake_up() {
    let queue = queue();
    let other = tokio::spawn({
        let queue = queue.clone();
        async move { queue.next().await }
    });
    let mut dropped = Box::pin(queue.next());
    assert!(dropped.as_mut().now_or_never().is_none());
    tokio::task::yield_now().await;
    add(&queue, 1);
    drop(dropped);
    assert_eq!(other.await.unwrap().map(|item| item.key), Some(1));
}

#[tokio::test(start_paused = true)]
async fn an_earlier_timer_wakes_those_who_sleep_for_a_later_one() {
    let queue = queue();
    let start = Instant::now();
    for (key, seconds) in [(1, 100), (2, 10)] {
        add(&queue, key);
        pop(&queue);
        if key == 2 {
            // Two workers sleep until second 100 when the timer of second 10 is set.
            let workers: Vec<_> = (0..2)
                .map(|_| {
                    let queue = queue.clone();
                    tokio::spawn(async move { (queue.next().await.unwrap().key, start.elapsed().as_secs()) })
                })
                .collect();
            pass(Duration::from_secs(1)).await;
            queue.done(&2, Next::WakeAt(start + Duration::from_secs(seconds)));
            let mut seen = Vec::new();
            for worker in workers {
                seen.push(worker.await.unwrap());
            }
            seen.sort_unstable();
            assert_eq!(seen, [(1, 100), (2, 10)]);
        } else {
            queue.done(&key, Next::WakeAt(start + Duration::from_secs(seconds)));
        }
    }
}

/// The case in which kube-runtime's scheduler ran 5 of 40 keys: few workers, and every key wants to
/// run again as soon as it has run.
#[tokio::test(start_paused = true)]
async fn forty_busy_keys_all_run_on_five_workers() {
    let queue = WorkQueue::new(1);
    let runs = Arc::new(Mutex::new(BTreeMap::<ObjectKey, u32>::new()));
    for key in 0..40 {
        queue.add(ObjectKey::new("ns", key.to_string()), Priority::Normal, Urgency::Routine);
    }
    let workers: Vec<_> = (0..5)
        .map(|_| {
            let (queue, runs) = (queue.clone(), Arc::clone(&runs));
            tokio::spawn(async move {
                while let Some(item) = queue.next().await {
                    queue.add(item.key.clone(), Priority::Normal, Urgency::Routine);
                    tokio::time::sleep(Duration::from_millis(10)).await;
                    *runs.lock().unwrap().entry(item.key.clone()).or_default() += 1;
                    queue.done(&item.key, Next::Success);
                }
            })
        })
        .collect();
    pass(Duration::from_secs(2)).await;
    queue.close();
    for worker in workers {
        worker.await.unwrap();
    }
    let runs = runs.lock().unwrap();
    let (least, most) = (runs.values().min().unwrap(), runs.values().max().unwrap());
    assert_eq!(runs.len(), 40);
    assert!(most - least <= 1, "between {least} and {most} runs");
}

#[tokio::test(start_paused = true)]
async fn low_keys_run_under_an_endless_flood_of_high_ones() {
    let queue = queue();
    for key in 0..50 {
        queue.add(key, Priority::Low, Urgency::Routine);
    }
    let mut low = Vec::new();
    for flood in 1000..1500 {
        queue.add(flood, Priority::High, Urgency::Routine);
        let key = pop(&queue).unwrap();
        if key < 1000 {
            low.push(key);
        }
        queue.done(&key, Next::Success);
    }
    assert_eq!(low, (0..50).collect::<Vec<_>>());
}

#[tokio::test]
async fn real_threads_never_run_a_key_twice_at_once_and_miss_none() {
    let queue = queue();
    let running = Arc::new(Mutex::new(HashMap::<u32, u32>::new()));
    let (done, mut finished) = tokio::sync::mpsc::unbounded_channel();
    let workers: Vec<_> = (0..8)
        .map(|_| {
            let (queue, running, done) = (queue.clone(), Arc::clone(&running), done.clone());
            tokio::task::spawn_blocking(move || {
                tokio::runtime::Handle::current().block_on(async {
                    while let Some(item) = queue.next().await {
                        assert!(running.lock().unwrap().insert(item.key, 1).is_none(), "twice at once");
                        tokio::task::yield_now().await;
                        running.lock().unwrap().remove(&item.key);
                        queue.done(&item.key, Next::Success);
                        done.send(item.key).unwrap();
                    }
                });
            })
        })
        .collect();
    for round in 0..2000 {
        add(&queue, round % 13);
        if round % 50 == 0 {
            tokio::task::yield_now().await;
        }
    }
    // Every key runs after its last event; a lost wake-up would hang here.
    for key in 100..200 {
        add(&queue, key);
        while finished.recv().await.unwrap() != key {}
    }
    queue.close();
    for worker in workers {
        worker.await.unwrap();
    }
}
