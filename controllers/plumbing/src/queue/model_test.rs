//! Random operations against a model that knows the promises, not the mechanism.

use super::tests::{HALF, pass};
use super::*;
use futures::FutureExt;
use proptest::prelude::*;
use std::collections::BTreeMap;

#[derive(Clone, Debug)]
enum Op {
    Add(u32, Priority, Urgency),
    Pop,
    Done(usize, Ending),
    Release(u32),
    Resume(u32),
    Pass(u64),
}

#[derive(Clone, Copy, Debug)]
enum Ending {
    Success,
    Wake(u64),
    Failed(u64),
    Conflict,
    Throttled(u64),
    Gated,
}

fn op() -> impl Strategy<Value = Op> {
    let priority = prop_oneof![Just(Priority::Low), Just(Priority::Normal), Just(Priority::High)];
    let urgency = prop_oneof![3 => Just(Urgency::Routine), 1 => Just(Urgency::BreaksBackoff)];
    let ending = prop_oneof![
        3 => Just(Ending::Success),
        1 => (0..5000_u64).prop_map(Ending::Wake),
        2 => (0..40_000_u64).prop_map(Ending::Failed),
        1 => Just(Ending::Conflict),
        2 => (0..3000_u64).prop_map(Ending::Throttled),
        2 => Just(Ending::Gated),
    ];
    prop_oneof![
        4 => (0..6_u32, priority, urgency).prop_map(|(key, priority, urgency)| Op::Add(key, priority, urgency)),
        4 => Just(Op::Pop),
        4 => (any::<usize>(), ending).prop_map(|(nth, ending)| Op::Done(nth, ending)),
        1 => (0..6_u32).prop_map(Op::Release),
        1 => (0..6_u32).prop_map(Op::Resume),
        2 => (0..4000_u64).prop_map(Op::Pass),
    ]
}

/// What is known of a key without knowing how the queue works.
#[derive(Default)]
struct Model {
    running: bool,
    /// An event that no run has answered yet, or a run that is owed after a pass.
    owed: bool,
    /// An event came during the run; whether it breaks a backoff.
    during: Option<Urgency>,
    released: bool,
    resumed: bool,
    gated: bool,
    wait: Option<Wait>,
    failures: u32,
    conflicts: u32,
}

/// A delay after a pass; of a backoff only the bounds are known.
struct Wait {
    earliest: Instant,
    latest: Instant,
    /// Which events end it.
    ended_by: fn(Urgency) -> bool,
    ended_by_release: bool,
    ended_by_resume: bool,
}

proptest! {
    #[test]
    fn agrees_with_a_simple_model(ops in prop::collection::vec(op(), 1..150), seed: u64) {
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        runtime.block_on(check(ops, seed));
    }
}

async fn check(ops: Vec<Op>, seed: u64) {
    let queue = WorkQueue::<u32>::new(seed);
    let mut model: BTreeMap<u32, Model> = (0..6).map(|key| (key, Model::default())).collect();
    for op in ops {
        match op {
            Op::Add(key, priority, urgency) => {
                queue.add(key, priority, urgency);
                let known = model.get_mut(&key).unwrap();
                known.owed = true;
                if known.running {
                    known.during = known.during.max(Some(urgency));
                }
                known.wait.take_if(|wait| (wait.ended_by)(urgency));
            }
            Op::Pop => match queue.next().now_or_never() {
                Some(item) => begin(&mut model, item.unwrap().key),
                // Nothing is ready: whatever is owed runs, or waits for a reason.
                None => {
                    for (key, known) in &model {
                        let waits = known.gated
                            || known.wait.as_ref().is_some_and(|wait| Instant::now() < wait.latest);
                        assert!(!known.owed || known.running || waits, "key {key} was forgotten");
                    }
                }
            },
            Op::Done(nth, ending) => {
                let running: Vec<u32> =
                    model.iter().filter(|(_, known)| known.running).map(|(key, _)| *key).collect();
                if !running.is_empty() {
                    let key = running[nth % running.len()];
                    finish(&queue, model.get_mut(&key).unwrap(), key, ending);
                }
            }
            Op::Release(key) => {
                release(&queue, model.get_mut(&key).unwrap(), key);
            }
            Op::Resume(key) => {
                queue.resume(&key);
                let known = model.get_mut(&key).unwrap();
                // What waits for anything but budget waits on.
                known.resumed |= known.running;
                known.wait.take_if(|wait| wait.ended_by_resume);
            }
            Op::Pass(ms) => pass(Duration::from_millis(ms)).await,
        }
    }
    // Eventually: everything that is owed runs, and then there is silence.
    for (key, known) in &mut model {
        if known.running {
            finish(&queue, known, *key, Ending::Success);
        }
        release(&queue, known, *key);
    }
    while let Ok(item) = tokio::time::timeout(Duration::from_secs(400), queue.next()).await {
        let key = item.unwrap().key;
        begin(&mut model, key);
        finish(&queue, model.get_mut(&key).unwrap(), key, Ending::Success);
    }
    assert!(model.values().all(|known| !known.owed && !known.running), "a key never ran");
    assert!(queue.shared.state.lock().unwrap().is_at_rest(), "entries of keys at rest are gone");
}

fn release(queue: &WorkQueue<u32>, known: &mut Model, key: u32) {
    queue.release(&key);
    known.gated = false;
    known.released |= known.running;
    // Also a key at rest or asleep; what waits for anything else waits on.
    known.owed |= !known.running;
    known.wait.take_if(|wait| wait.ended_by_release);
}

fn begin(model: &mut BTreeMap<u32, Model>, key: u32) {
    let known = model.get_mut(&key).unwrap();
    assert!(!known.running, "key {key} runs twice at once");
    assert!(known.owed, "key {key} runs without a cause");
    assert!(!known.gated, "key {key} runs through a closed gate");
    if let Some(wait) = &known.wait {
        assert!(Instant::now() >= wait.earliest, "key {key} runs too early");
    }
    let Model { failures, conflicts, .. } = *known;
    *known = Model { running: true, failures, conflicts, ..Model::default() };
}

fn finish(queue: &WorkQueue<u32>, known: &mut Model, key: u32, ending: Ending) {
    let now = Instant::now();
    let in_ms = |ms| now + Duration::from_millis(ms);
    let Model { during, released, resumed, failures, conflicts, .. } = *known;
    *known = Model { owed: true, failures, conflicts, ..Model::default() };
    let backoff = |failures: u32, min: Duration| {
        let nominal = (HALF.max(min) * 2_u32.pow((failures - 1).min(12))).min(Duration::from_secs(300));
        (during != Some(Urgency::BreaksBackoff)).then(|| Wait {
            earliest: now + nominal.mul_f64(0.75),
            latest: now + nominal.mul_f64(1.25) + Duration::from_millis(1),
            ended_by: |urgency| urgency == Urgency::BreaksBackoff,
            ended_by_release: false,
            ended_by_resume: false,
        })
    };
    let next = match ending {
        Ending::Success => {
            *known = Model { owed: during.is_some() || released, ..Model::default() };
            Next::Success
        }
        Ending::Wake(ms) => {
            let at = in_ms(ms);
            let wait = Wait {
                earliest: at,
                latest: at,
                ended_by: |_| true,
                ended_by_release: true,
                ended_by_resume: false,
            };
            let asleep = during.is_none() && !released;
            *known = Model { owed: true, wait: asleep.then_some(wait), ..Model::default() };
            Next::WakeAt(at)
        }
        Ending::Failed(ms) => {
            let min = Duration::from_millis(ms);
            known.failures += 1;
            known.conflicts = 0;
            known.wait = backoff(known.failures, min);
            Next::Failed { min }
        }
        Ending::Conflict => {
            known.conflicts += 1;
            if known.conflicts >= 5 {
                known.wait = backoff(known.conflicts - 4, Duration::ZERO);
            }
            Next::Conflict
        }
        Ending::Throttled(ms) => {
            let at = in_ms(ms);
            known.wait = (!resumed).then_some(Wait {
                earliest: at,
                latest: at,
                ended_by: |_| false,
                ended_by_release: false,
                ended_by_resume: true,
            });
            Next::Throttled { until: at }
        }
        Ending::Gated => {
            known.gated = !released;
            Next::Gated
        }
    };
    queue.done(&key, next);
}
