use super::*;
use proptest::prelude::*;
use std::time::Duration;

fn ticket(namespace: &str) -> WriteTicket<'_> {
    WriteTicket { controller: "c", namespace, class: WriteClass::Spec, object: None }
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
async fn the_refused_come_back_one_by_one() {
    let budget = WriteBudget::new(BudgetConfig::default());
    admitted(&budget, &ticket("ns"), 200);
    let mut waiting: Vec<Instant> =
        (0..1000).map(|_| budget.try_admit(&ticket("ns")).unwrap_err().until).collect();
    let mut tries = 0;
    while let Some(at) = waiting.iter().copied().min() {
        waiting.swap_remove(waiting.iter().position(|other| *other == at).unwrap());
        tokio::time::sleep_until(at).await;
        tries += 1;
        waiting.extend(budget.try_admit(&ticket("ns")).err().map(|refused| refused.until));
    }
    assert!(tries <= 2000, "1000 keys needed {tries} tries");
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

#[test]
fn a_bad_figure_is_named() {
    let mut config = BudgetConfig::default();
    config.namespace.rate = 0.0;
    assert_eq!(config.check().unwrap_err().to_string(), "writeBudget.namespace.rate must be 0.001 to 100000");
    assert_eq!(BudgetConfig::default().check(), Ok(()));
    let unknown = serde_json::from_str::<BudgetConfig>(r#"{"proces": {"rate": 1, "burst": 1}}"#);
    assert!(unknown.unwrap_err().to_string().contains("unknown field `proces`"));
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
}
