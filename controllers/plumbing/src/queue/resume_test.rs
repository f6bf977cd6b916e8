use super::tests::{add, fail, pop, pop_all, queue};
use super::*;

#[tokio::test(start_paused = true)]
async fn a_grant_brings_back_a_throttled_key_at_once_even_when_it_comes_during_the_run() {
    let queue = queue();
    let until = Instant::now() + Duration::from_secs(3600);
    for key in 1..=3 {
        add(&queue, key);
    }
    assert_eq!(pop_all(&queue), [1, 2, 3]);
    queue.done(&1, Next::Throttled { until });
    queue.resume(&2);
    queue.done(&2, Next::Throttled { until });
    assert_eq!(pop_all(&queue), [2], "granted before its pass had ended");
    add(&queue, 4);
    queue.resume(&1);
    assert_eq!(pop_all(&queue), [1, 4], "at its place");
    // It is of no use to what waits for something else, or for nothing.
    fail(&queue, 3);
    queue.done(&1, Next::Success);
    queue.done(&4, Next::Gated);
    for key in [1, 3, 4] {
        queue.resume(&key);
    }
    assert_eq!(pop(&queue), None);
    // A run that needed no grant leaves none behind.
    queue.release(&4);
    assert_eq!(pop_all(&queue), [4]);
    queue.done(&4, Next::Throttled { until });
    assert_eq!(pop(&queue), None);
}
