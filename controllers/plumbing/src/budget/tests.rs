use super::*;
use proptest::prelude::*;
use std::sync::LazyLock;
use std::time::Duration;

static OWNER: LazyLock<ObjectKey> = LazyLock::new(|| ObjectKey::new("ns", "owner"));

fn ticket(namespace: &str) -> WriteTicket<'_> {
    WriteTicket { controller: "c", namespace, class: WriteClass::Spec, owner: &OWNER, object: None }
}

fn admitted(budget: &WriteBudget, ticket: &WriteTicket<'_>, tries: usize) -> usize {
    (0..tries).filter(|_| budget.try_admit(ticket).is_ok()).count()
}

#[tokio::test(start_paused = true)]
async fn an_empty_namespace_delays_no_other_and_drains_no_wide_bucket() {
    let budget = WriteBudget::new(BudgetConfig::default());
    assert_eq!(admitted(&budget, &ticket("noisy"), 10_000), 200, "the namespace's burst");
    // 10 000 refused writes cost the controller nothing: its other 200 tokens are there.
    assert_eq!(admitted(&budget, &ticket("quiet"), 150), 150);
    assert_eq!(admitted(&budget, &ticket("third"), 150), 50, "the controller's burst is spent");
    let refused = budget.try_admit(&ticket("third")).unwrap_err();
    assert_eq!(refused.level, Level::Controller);
}

#[tokio::test(start_paused = true)]
async fn an_event_that_is_refused_costs_the_others_nothing() {
    let budget = WriteBudget::new(BudgetConfig::default());
    let event = WriteTicket { class: WriteClass::Event, ..ticket("ns") };
    assert_eq!(admitted(&budget, &event, 1000), 25);
    assert_eq!(budget.try_admit(&event).unwrap_err().level, Level::Class);
    assert_eq!(admitted(&budget, &ticket("ns"), 1000), 175);
}

#[tokio::test(start_paused = true)]
async fn one_object_writes_its_status_once_a_second() {
    let budget = WriteBudget::new(BudgetConfig::default());
    let key = ObjectKey::new("ns", "a");
    let status = WriteTicket { class: WriteClass::Status, object: Some(&key), ..ticket("ns") };
    assert_eq!(admitted(&budget, &status, 2), 2);
    let refused = budget.try_admit(&status).unwrap_err();
    assert_eq!(refused.level, Level::Object);
    tokio::time::sleep_until(refused.until).await;
    assert_eq!(admitted(&budget, &status, 10), 1, "who comes at the time named finds a token");
}

#[tokio::test(start_paused = true)]
async fn buckets_that_are_full_again_are_forgotten() {
    let budget = WriteBudget::new(BudgetConfig::default().scaled(1000.0));
    for number in 0..3000 {
        let _spent = budget.try_admit(&ticket(&format!("ns-{number}"))).unwrap();
    }
    tokio::time::sleep(Duration::from_secs(60)).await;
    admitted(&budget, &ticket("ns"), SWEEP_EVERY as usize);
    assert!(budget.state.lock().unwrap().buckets.len() < 10);
}

#[tokio::test(start_paused = true)]
async fn the_figures_tell_tokens_and_refusals() {
    let budget = WriteBudget::new(BudgetConfig::default());
    let full = budget.stats(&["c", "idle"]);
    assert_eq!((full.process_tokens, full.event_tokens), (600.0, 25.0));
    assert_eq!(full.controller_tokens, [400.0, 400.0]);
    admitted(&budget, &ticket("ns"), 207);
    let stats = budget.stats(&["c", "idle"]);
    assert!((stats.process_tokens - 400.0).abs() < 1e-3);
    assert!((stats.controller_tokens[0] - 200.0).abs() < 1e-3);
    assert_eq!(stats.refusals, [0, 0, 7, 0, 0]);
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert_eq!(budget.stats(&["c"]).controller_tokens, [400.0]);
}

proptest! {
    /// No bucket passes more than burst + rate * t in any interval, whatever the callers do.
    #[test]
    fn no_interval_passes_more_than_burst_and_rate(
        steps in prop::collection::vec((0_u64..50, 0_usize..3, any::<bool>()), 1..400),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .unwrap();
        runtime.block_on(async {
            let config = BudgetConfig {
                process: BucketConfig { rate: 40.0, burst: 12 },
                controller: BucketConfig { rate: 30.0, burst: 10 },
                namespace: BucketConfig { rate: 20.0, burst: 5 },
                ..BudgetConfig::default()
            };
            let budget = WriteBudget::new(config.clone());
            let start = Instant::now();
            let mut passed: Vec<(f64, &str, &str)> = Vec::new();
            for (millis, namespace, other) in steps {
                tokio::time::advance(Duration::from_millis(millis)).await;
                let namespace = ["a", "b", "c"][namespace];
                let controller = if other { "d" } else { "c" };
                let ticket = WriteTicket { controller, ..ticket(namespace) };
                if budget.try_admit(&ticket).is_ok() {
                    passed.push((start.elapsed().as_secs_f64(), controller, namespace));
                }
            }
            let within = |bucket: BucketConfig, times: Vec<f64>| {
                for (first, from) in times.iter().enumerate() {
                    for (last, to) in times.iter().enumerate().skip(first) {
                        let bound = f64::from(bucket.burst) + bucket.rate * (to - from) + 1e-6;
                        assert!((last - first + 1) as f64 <= bound);
                    }
                }
            };
            let times = |keep: &dyn Fn(&str, &str) -> bool| -> Vec<f64> {
                passed.iter().filter(|(_, c, n)| keep(c, n)).map(|(at, ..)| *at).collect()
            };
            within(config.process, times(&|_, _| true));
            for controller in ["c", "d"] {
                within(config.controller, times(&|c, _| c == controller));
                for namespace in ["a", "b", "c"] {
                    within(config.namespace, times(&|c, n| c == controller && n == namespace));
                }
            }
        });
    }

    /// A refusal takes nothing from any bucket, an admission one token of each that the write needs.
    #[test]
    fn a_refusal_takes_from_no_bucket(
        steps in prop::collection::vec((0_u64..200, 0_usize..3, 0_usize..5, 0_usize..3), 1..300),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .unwrap();
        runtime.block_on(async {
            let budget = WriteBudget::new(BudgetConfig {
                process: BucketConfig { rate: 10.0, burst: 12 },
                controller: BucketConfig { rate: 6.0, burst: 8 },
                namespace: BucketConfig { rate: 3.0, burst: 4 },
                events: BucketConfig { rate: 1.0, burst: 2 },
                ..BudgetConfig::default()
            });
            let objects = ["x", "y", "z"].map(|name| ObjectKey::new("ns", name));
            for (millis, namespace, class, object) in steps {
                tokio::time::advance(Duration::from_millis(millis)).await;
                let class = WriteClass::ALL[class];
                let ticket = WriteTicket {
                    class,
                    object: (class == WriteClass::Status).then_some(&objects[object]),
                    ..ticket(["a", "b", "c"][namespace])
                };
                let tokens = || -> Vec<f64> {
                    let (state, now) = (budget.state.lock().unwrap(), Instant::now());
                    let of = |(key, config): &(BucketKey, BucketConfig)| {
                        state.buckets.get(key).map_or(f64::from(config.burst), |bucket| bucket.tokens(config, now))
                    };
                    budget.needed(&ticket).iter().map(of).collect()
                };
                let before = tokens();
                let taken = match budget.try_admit(&ticket) {
                    Ok(_permit) => 1.0,
                    Err(refused) => {
                        assert!(refused.until > Instant::now());
                        assert!(before.iter().any(|tokens| *tokens < 1.0), "refused with room everywhere");
                        0.0
                    }
                };
                for (before, after) in before.iter().zip(tokens()) {
                    assert!((before - taken - after).abs() < 1e-6, "{before} - {taken} is not {after}");
                }
            }
        });
    }
}
