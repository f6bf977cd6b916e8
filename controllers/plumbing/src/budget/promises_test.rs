use super::*;
use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::time::Duration;

/// Callers that come again at the time they are told, until they pass.
#[derive(Default)]
struct Callers {
    due: BinaryHeap<Reverse<(Instant, ObjectKey)>>,
    /// How late the next one comes, in milliseconds.
    late: u64,
    /// How often each came, and whether it has passed.
    tries: HashMap<ObjectKey, (u32, bool)>,
}

fn key(namespace: &str, name: &str, number: usize) -> ObjectKey {
    ObjectKey::new(namespace, format!("{name}-{number:05}"))
}

fn ticket(owner: &ObjectKey) -> WriteTicket<'_> {
    WriteTicket { controller: "c", namespace: &owner.namespace, class: WriteClass::Spec, owner, object: None }
}

impl Callers {
    /// So many callers, from now on, at equal distances.
    fn come(&mut self, namespace: &str, name: &str, count: usize, apart: Duration) {
        let mut at = Instant::now();
        for number in 0..count {
            self.due.push(Reverse((at, key(namespace, name, number))));
            at += apart;
        }
    }

    /// Lets them come for so long.
    async fn run(&mut self, budget: &WriteBudget, time: Duration) {
        let end = Instant::now() + time;
        while self.due.peek().is_some_and(|Reverse((at, _))| *at <= end) {
            let Some(Reverse((at, key))) = self.due.pop() else { return };
            tokio::time::sleep_until(at).await;
            let admitted = budget.try_admit(&ticket(&key));
            let (tries, passed) = self.tries.entry(key.clone()).or_default();
            *tries += 1;
            match admitted {
                Ok(_permit) => *passed = true,
                // A timer fires some time after it is due, and a worker may be busy.
                Err(refused) => {
                    self.late = (self.late + 7) % 40;
                    self.due.push(Reverse((refused.until + Duration::from_millis(self.late), key)));
                }
            }
        }
    }

    /// How often each of these came; `None` for one that has not passed.
    fn tries(&self, namespace: &str, name: &str, count: usize) -> Vec<Option<u32>> {
        let of = |number| self.tries.get(&key(namespace, name, number)).copied();
        (0..count).map(|number| of(number).filter(|(_, passed)| *passed).map(|(tries, _)| tries)).collect()
    }
}

/// No bucket keeps more or less than what was promised.
fn assert_balanced(budget: &WriteBudget) {
    let state = budget.state.lock().unwrap();
    for (key, bucket) in &state.buckets {
        assert_eq!(bucket.kept, state.promises.count(key), "{key:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn the_refused_pass_in_their_turn_however_many_newcomers_there_are() {
    let budget = WriteBudget::new(BudgetConfig::default());
    let mut callers = Callers::default();
    callers.come("ns", "old", 1200, Duration::ZERO);
    // Twice as many as the bucket gives.
    callers.come("ns", "young", 12_000, Duration::from_millis(5));
    callers.run(&budget, Duration::from_secs(11)).await;
    let tries = callers.tries("ns", "old", 1200);
    assert_eq!(tries[..200], [Some(1); 200]);
    assert_eq!(tries[200..], [Some(2); 1000]);
    assert_balanced(&budget);
    // Whoever came later passes too, in the order in which all of them came.
    callers.run(&budget, Duration::from_secs(30)).await;
    assert!(callers.tries("ns", "young", 2500).iter().all(|tries| *tries == Some(2)));
}

#[tokio::test(start_paused = true)]
async fn who_waits_for_two_buckets_loses_its_turn_in_neither() {
    let budget = WriteBudget::new(BudgetConfig::default());
    let mut callers = Callers::default();
    for namespace in ["a", "b", "c"] {
        callers.come(namespace, "old", 1000, Duration::ZERO);
        callers.come(namespace, "young", 6_000, Duration::from_millis(9));
    }
    callers.run(&budget, Duration::from_secs(20)).await;
    for namespace in ["a", "b", "c"] {
        let tries = callers.tries(namespace, "old", 1000);
        assert!(tries.iter().all(|tries| tries.is_some_and(|tries| tries <= 3)), "{tries:?}");
    }
    assert_balanced(&budget);
}

#[tokio::test(start_paused = true)]
async fn the_line_of_one_namespace_is_no_line_for_the_others() {
    let budget = WriteBudget::new(BudgetConfig::default());
    let mut callers = Callers::default();
    callers.come("noisy", "n", 10_000, Duration::ZERO);
    callers.come("quiet", "q", 50, Duration::from_millis(100));
    callers.run(&budget, Duration::from_secs(10)).await;
    assert_eq!(callers.tries("quiet", "q", 50), [Some(1); 50]);
}

#[tokio::test(start_paused = true)]
async fn a_token_is_kept_for_a_second_and_no_longer() {
    let budget = WriteBudget::new(BudgetConfig {
        namespace: BucketConfig { rate: 10.0, burst: 1 },
        ..BudgetConfig::default()
    });
    let [first, told, newcomer] = ["first", "told", "newcomer"].map(|name| key("ns", name, 0));
    let _spent = budget.try_admit(&ticket(&first)).unwrap();
    let until = budget.try_admit(&ticket(&told)).unwrap_err().until;
    // Coming too early changes nothing.
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert_eq!(budget.try_admit(&ticket(&told)).unwrap_err().until, until);

    tokio::time::sleep_until(until + Duration::from_millis(900)).await;
    let refused = budget.try_admit(&ticket(&newcomer)).unwrap_err();
    assert!(refused.until > Instant::now(), "the one token that is there is kept");
    let _spent = budget.try_admit(&ticket(&told)).unwrap();

    let until = budget.try_admit(&ticket(&told)).unwrap_err().until;
    assert!(until > refused.until, "who has passed is behind all who wait");
    tokio::time::sleep_until(until + Duration::from_secs(1)).await;
    let _spent = budget.try_admit(&ticket(&first)).unwrap();
    assert_balanced(&budget);
    assert_eq!(budget.state.lock().unwrap().promises.count(&BucketKey::Namespace("c", "ns".into())), 0);
}

proptest::proptest! {
    /// Whatever comes when: who was told a time and comes then, or soon after, passes, if the buckets
    /// that it needs are the same; and nothing stays kept for those who never come again.
    #[test]
    fn a_promise_holds(
        steps in proptest::collection::vec((0_u64..300, 0_usize..2, 0_usize..12), 1..300),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .unwrap();
        runtime.block_on(async {
            // Only the buckets of the namespaces are ever empty.
            let budget = WriteBudget::new(BudgetConfig {
                namespace: BucketConfig { rate: 5.0, burst: 20 },
                ..BudgetConfig::default()
            });
            let mut told: HashMap<ObjectKey, Instant> = HashMap::new();
            for (millis, namespace, caller) in steps {
                for _ in 0..4 {
                    tokio::time::advance(Duration::from_millis(millis / 4)).await;
                    let owner = key(["a", "b"][namespace], "k", caller);
                    let now = Instant::now();
                    let in_time = told.get(&owner)
                        .is_some_and(|until| (*until..*until + Duration::from_secs(1)).contains(&now));
                    match budget.try_admit(&ticket(&owner)) {
                        Ok(_permit) => drop(told.remove(&owner)),
                        Err(refused) => {
                            assert!(!in_time, "a promise was broken");
                            assert!(refused.until > now);
                            told.insert(owner, refused.until);
                        }
                    }
                    assert_balanced(&budget);
                }
            }
            let last = told.values().copied().max().unwrap_or(Instant::now()).max(Instant::now());
            tokio::time::sleep_until(last + Duration::from_secs(1)).await;
            let _spent = budget.try_admit(&ticket(&key("a", "k", 0))).unwrap();
            assert!(budget.state.lock().unwrap().buckets.values().all(|bucket| bucket.kept == 0));
        });
    }
}
