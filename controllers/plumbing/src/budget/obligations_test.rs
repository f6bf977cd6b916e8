//! The proof obligations of the write budget, each a test of its name, on virtual time. That leases
//! never wait is shown where the elector is, beside a controller under pressure (`tests/pipeline`).

use super::line::UNCLAIMED;
use super::simulation_test::{End, Reply, Simulation, answered};
use super::tests::{ROUTES, request, runtime};
use super::turns::{LOWER_SHARE, QUANTUM};
use super::*;
use proptest::prelude::*;
use proptest::test_runner::TestRunner;

/// Only the process is short, and lets so many through, one at a time.
fn one_at_a_time(rate: f64) -> BudgetConfig {
    let wide = BucketConfig { rate: 100_000.0, burst: 100_000 };
    BudgetConfig {
        process: BucketConfig { rate, burst: 1 },
        controller: wide,
        namespace: wide,
        ..BudgetConfig::default()
    }
}

fn jain(shares: &[f64]) -> f64 {
    let squares: f64 = shares.iter().map(|share| share * share).sum();
    shares.iter().sum::<f64>().powi(2) / (shares.len() as f64 * squares)
}

/// The most writes of a chain.
const LONGEST: u32 = 4;

/// The classes of the writes of a chain. Events go out alone.
fn asked() -> impl Strategy<Value = Vec<WriteClass>> {
    let class = prop::sample::select(&WriteClass::ALL[..4]);
    prop_oneof![
        4 => prop::collection::vec(class, 1..=LONGEST as usize),
        1 => Just(vec![WriteClass::Event]),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    /// 1. Whatever callers do and whenever they claim what the pump has granted them, in any interval.
    #[test]
    fn no_bucket_passes_more_than_burst_and_rate_times_t(
        steps in prop::collection::vec((0_u64..400, 0_usize..3, 0_usize..12, asked(), any::<bool>()), 1..400),
    ) {
        runtime().block_on(async {
            let config = BudgetConfig {
                process: BucketConfig { rate: 40.0, burst: 12 },
                controller: BucketConfig { rate: 30.0, burst: 10 },
                namespace: BucketConfig { rate: 20.0, burst: 5 },
                events: BucketConfig { rate: 2.0, burst: 3 },
                object_status: BucketConfig { rate: 1.0, burst: LONGEST },
            };
            let budget = Arc::new(WriteBudget::new(config.clone()));
            let granted = Arc::new(Mutex::new(Vec::new()));
            let into = granted.clone();
            budget.on_grant("c", move |key: &ObjectKey| into.lock().unwrap().push(key.clone()));
            let pump = budget.clone();
            tokio::spawn(async move { pump.run(CancellationToken::new()).await });
            let start = Instant::now();
            let mut wanted: HashMap<ObjectKey, Vec<WriteClass>> = HashMap::new();
            let mut passed: Vec<(f64, ObjectKey, WriteClass)> = Vec::new();
            for (quarter_millis, namespace, key, classes, claims) in steps {
                // Between whole milliseconds too, though the pump wakes at those alone.
                tokio::time::advance(Duration::from_micros(250 * (quarter_millis % 4))).await;
                tokio::time::sleep(Duration::from_millis(quarter_millis / 4)).await;
                let key = ObjectKey::new(["a", "b", "c"][namespace], format!("k{key}"));
                wanted.insert(key.clone(), classes);
                let woken = if claims { std::mem::take(&mut *granted.lock().unwrap()) } else { Vec::new() };
                for key in woken.into_iter().chain([key]) {
                    let requests: Vec<_> = wanted[&key]
                        .iter()
                        .map(|class| WriteRequest {
                            object: (*class == WriteClass::Status).then_some(&key),
                            ..request(&key, *class, 0)
                        })
                        .collect();
                    if budget.try_admit_chain(&requests[0], &requests[1..]).is_ok() {
                        let at = start.elapsed().as_secs_f64();
                        passed.extend(wanted[&key].iter().map(|class| (at, key.clone(), *class)));
                    }
                }
            }
            let within = |bucket: BucketConfig, keep: &dyn Fn(&ObjectKey, WriteClass) -> bool| {
                let kept = passed.iter().filter(|(_, key, class)| keep(key, *class));
                let times: Vec<f64> = kept.map(|(at, ..)| *at).collect();
                for (first, from) in times.iter().enumerate() {
                    for (last, to) in times.iter().enumerate().skip(first) {
                        let bound = f64::from(bucket.burst) + bucket.rate * (to - from) + 1e-6;
                        assert!((last - first + 1) as f64 <= bound);
                    }
                }
            };
            within(config.process, &|_, _| true);
            within(config.controller, &|_, _| true);
            for namespace in ["a", "b", "c"] {
                within(config.namespace, &|of, _| &*of.namespace == namespace);
                within(config.events, &|of, class| {
                    &*of.namespace == namespace && class == WriteClass::Event
                });
            }
            for key in wanted.keys() {
                within(config.object_status, &|of, class| of == key && class == WriteClass::Status);
            }
        });
    }

    /// 3. However many keys the other namespaces have, and whenever they came.
    #[test]
    fn a_namespace_is_served_within_active_namespaces_times_quantum_grants(
        keys in prop::collection::vec((1_usize..12, 0_u64..3000), 2..9),
    ) {
        runtime().block_on(async {
            let workers = keys.iter().map(|(keys, _)| keys).sum::<usize>();
            let (simulation, _tasks) =
                Simulation::start(one_at_a_time(50.0), workers, |_, _| answered(Duration::ZERO));
            let bound = keys.len() * QUANTUM as usize;
            let mut order: Vec<_> = keys.iter().enumerate().collect();
            order.sort_by_key(|(_, (_, at))| *at);
            for (namespace, (keys, at)) in order {
                tokio::time::sleep_until(simulation.start + Duration::from_millis(*at)).await;
                for key in 0..*keys {
                    simulation.want(&namespace.to_string(), WriteClass::Spec, key, 100_000);
                }
            }
            tokio::time::sleep(Duration::from_secs(10)).await;
            let sent = simulation.sent();
            assert!(sent.len() >= 500, "{} grants", sent.len());
            for (namespace, (_, at)) in keys.iter().enumerate() {
                let mut others = 0;
                for (when, key, _) in sent.iter().filter(|(when, ..)| *when > Duration::from_millis(*at)) {
                    others = if *key.namespace == namespace.to_string() { 0 } else { others + 1 };
                    assert!(others <= bound, "{namespace} has waited for {others} others at {when:?}");
                }
            }
        });
    }

    /// 5. Each class below the highest that waits, whichever they are.
    #[test]
    fn a_lower_class_gets_a_sixteenth_of_the_grants_while_a_higher_one_waits(
        classes in prop::sample::subsequence(&WriteClass::ALL[..4], 2..=4),
        namespaces in 1_usize..4,
    ) {
        runtime().block_on(async {
            let workers = 4 * namespaces * classes.len();
            let (simulation, _tasks) =
                Simulation::start(one_at_a_time(100.0), workers, |_, _| answered(Duration::ZERO));
            for class in &classes {
                for number in 0..4 * namespaces {
                    simulation.want(&(number % namespaces).to_string(), *class, number, 100_000);
                }
            }
            tokio::time::sleep(Duration::from_secs(6)).await;
            let sent = simulation.sent();
            let rounds = 32;
            let counted = &sent[LOWER_SHARE as usize..][..rounds * LOWER_SHARE as usize];
            for lower in &classes[1..] {
                let got = counted.iter().filter(|(_, _, class)| class == lower).count();
                assert!(got.abs_diff(rounds) <= 1, "{} got {got} of {}", lower.as_str(), counted.len());
            }
        });
    }

    /// 6. Requests that are cut off, workers that panic, server errors, chains longer than a bucket: all work
    /// is done in the time that the buckets need for it, by the pump's wake-ups alone, and nothing is kept in
    /// the end.
    #[test]
    fn no_wake_up_is_lost_and_no_permit_leaks(
        keys in prop::collection::vec((0_usize..4, 0_usize..4, 1_u32..12, 1_usize..5), 1..40),
        ends in prop::collection::vec((0_u64..300, 0_usize..12), 1..60),
        workers in 1_usize..20,
    ) {
        runtime().block_on(async {
            let config = BudgetConfig {
                process: BucketConfig { rate: 30.0, burst: 5 },
                namespace: BucketConfig { rate: 10.0, burst: 2 },
                ..BudgetConfig::default()
            };
            let count = std::sync::atomic::AtomicUsize::new(0);
            let (simulation, _tasks) = Simulation::start(config, workers, move |_, since| {
                let number = count.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
                let (millis, end) = ends[number % ends.len()];
                let after = Duration::from_millis(millis);
                // The server and the workers come to their senses in the end.
                let end = match end {
                    _ if since > Duration::from_secs(300) => End::Told(Signal::Answered),
                    0 => End::CutOff,
                    1 => End::Panics,
                    2 => End::Told(Signal::TooManyRequests { retry_after: None }),
                    3 => End::Told(Signal::Overloaded),
                    4 => End::Told(Signal::Unclear),
                    _ => End::Told(Signal::Answered),
                };
                Reply { after, end }
            });
            for (key, (namespace, class, chains, length)) in keys.iter().enumerate() {
                simulation.want_chains(&namespace.to_string(), WriteClass::ALL[*class], key, *chains, *length);
            }
            tokio::time::sleep(Duration::from_secs(1500)).await;
            assert_eq!(simulation.left(), 0, "work was lost");
            let state = simulation.budget.state.lock().unwrap();
            assert_eq!(state.tickets(), 0, "nobody is in line");
            assert!(state.buckets.kept().is_empty(), "tokens are kept for nobody");
            let in_flight = state.levels.figures().into_iter().map(|(_, in_flight, _)| in_flight);
            assert_eq!(in_flight.sum::<u32>(), 0, "permits have leaked");
        });
    }

}

/// Obligation 8: whatever the latency of the server is. A case is minutes of hundreds of writes a second, so how many
/// there are is a matter of this test alone.
#[test]
fn thirty_seconds_after_a_429_storm_the_rate_is_at_least_nine_tenths_of_the_former() {
    let long = std::env::var("SPRINGTIDE_LONG").is_ok_and(|long| long == "1");
    let cases = if long { 40 } else { 4 };
    let config = ProptestConfig { cases, ..ProptestConfig::with_source_file(file!()) };
    let outcome = TestRunner::new(config).run(&(5_u64..240, 1_u64..6), |(latency, retry_after)| {
        weather_a_storm(latency, retry_after);
        Ok(())
    });
    outcome.unwrap();
}

fn weather_a_storm(latency: u64, retry_after: u64) {
    runtime().block_on(async {
        // Once the bursts are used up.
        let (from, until) = (Duration::from_secs(50), Duration::from_secs(110));
        let retry_after = Some(Duration::from_secs(retry_after));
        let (simulation, _tasks) = Simulation::start(BudgetConfig::default(), 64, move |_, since| {
            let storm = from <= since && since < until;
            let refused = Signal::TooManyRequests { retry_after };
            let signal = if storm { refused } else { Signal::Answered };
            Reply { after: Duration::from_millis(latency), end: End::Told(signal) }
        });
        for key in 0..200 {
            simulation.want(&(key % 8).to_string(), WriteClass::Spec, key, 100_000);
        }
        let count = async |from: Duration, time: Duration| {
            tokio::time::sleep_until(simulation.start + from).await;
            let before = simulation.answered();
            tokio::time::sleep(time).await;
            simulation.answered() - before
        };
        let ten = Duration::from_secs(10);
        let before = count(from - ten, ten).await;
        let storm = count(from + Duration::from_secs(1), Duration::from_secs(50)).await;
        let after = count(until + Duration::from_secs(30), ten).await;
        assert_eq!(storm, 0);
        assert!(after * 10 >= before * 9, "{before} writes in 10 s before the storm, {after} after it");
    });
}

#[derive(Clone, Copy, Debug)]
enum Op {
    Admit {
        key: usize,
        route: usize,
    },
    /// The first write of a chain has succeeded, and the next one of another route is to follow it.
    Next {
        nth: usize,
        route: usize,
    },
    End {
        nth: usize,
        signal: Signal,
    },
    CutOff {
        nth: usize,
    },
    Pass {
        millis: u64,
    },
}

fn op() -> impl Strategy<Value = Op> {
    let signal = prop_oneof![
        6 => Just(Signal::Answered),
        2 => (0_u64..4).prop_map(|seconds| Signal::TooManyRequests {
            retry_after: (seconds > 0).then(|| Duration::from_secs(seconds)),
        }),
        1 => Just(Signal::Overloaded),
        1 => Just(Signal::Unclear),
    ];
    prop_oneof![
        8 => (0_usize..60, 0_usize..3).prop_map(|(key, route)| Op::Admit { key, route }),
        3 => (any::<usize>(), 0_usize..3).prop_map(|(nth, route)| Op::Next { nth, route }),
        5 => (any::<usize>(), signal).prop_map(|(nth, signal)| Op::End { nth, signal }),
        1 => any::<usize>().prop_map(|nth| Op::CutOff { nth }),
        2 => (0_u64..700).prop_map(|millis| Op::Pass { millis }),
    ]
}

/// The level of each route; the answers to the last one name none.
const LEVELS: [Option<&str>; 3] = [Some("level-a"), Some("level-b"), None];

/// A request under way.
struct Request<'a> {
    permit: Permit<'a>,
    route: usize,
    sent: Instant,
    number: usize,
}

/// What is known of a level without knowing how the budget works.
#[derive(Clone, Copy, Default)]
struct Held {
    until: Option<Instant>,
    probe: Option<usize>,
}

/// Runs operations; `check` sees each level and its hold right after a request was admitted on it.
async fn run(ops: Vec<Op>, check: impl Fn(&WriteBudget, usize, &Held)) {
    let budget = WriteBudget::new(BudgetConfig::default().scaled(1000.0));
    let key = ObjectKey::new("ns", "first");
    for (route, level) in LEVELS.iter().enumerate() {
        let permit = budget.try_admit(&request(&key, WriteClass::Spec, route)).unwrap();
        let (signal, sent) = (Signal::Answered, Instant::now());
        assert_eq!(permit.report(&Report { route: ROUTES[route], level: *level, signal, sent }), None);
    }
    let mut held = [Held::default(); LEVELS.len()];
    let mut under_way: Vec<Request<'_>> = Vec::new();
    for (number, op) in ops.into_iter().enumerate() {
        let now = Instant::now();
        match op {
            Op::Admit { key, route } => {
                let key = ObjectKey::new("ns", format!("k{key}"));
                let Ok(permit) = budget.try_admit(&request(&key, WriteClass::Spec, route)) else { continue };
                check(&budget, route, &held[route]);
                let held = &mut held[route];
                held.probe = held.until.map(|_| number).or(held.probe);
                under_way.push(Request { permit, route, sent: now, number });
            }
            Op::End { nth, signal } if !under_way.is_empty() => {
                let Request { permit, route, sent, number } = under_way.remove(nth % under_way.len());
                let report = Report { route: ROUTES[route], level: LEVELS[route], signal, sent };
                let hold = permit.report(&report);
                let held = &mut held[route];
                match (signal, held.probe == Some(number)) {
                    (Signal::TooManyRequests { .. }, _) => {
                        *held = Held { until: Some(now + hold.unwrap()), probe: None };
                    }
                    (Signal::Answered | Signal::Overloaded, true) => *held = Held::default(),
                    (Signal::Unclear, true) => held.probe = None,
                    (Signal::Answered | Signal::Overloaded | Signal::Unclear, false) => {}
                }
            }
            Op::Next { nth, route } if !under_way.is_empty() => {
                let nth = nth % under_way.len();
                let Request { permit, route: before, sent, number } = &under_way[nth];
                let (signal, level) = (Signal::Answered, LEVELS[*before]);
                assert_eq!(
                    permit.report(&Report { route: ROUTES[*before], level, signal, sent: *sent }),
                    None
                );
                if held[*before].probe == Some(*number) {
                    held[*before] = Held::default();
                }
                // Only an open level takes what it has not reserved a probe for.
                let is_held = held[route].until.is_some();
                assert_eq!(permit.held(ROUTES[route]).is_some(), is_held, "{:?}", held[route].until);
                match is_held {
                    true => drop(under_way.remove(nth)),
                    false => (under_way[nth].route, under_way[nth].sent) = (route, now),
                }
            }
            Op::CutOff { nth } if !under_way.is_empty() => {
                let Request { permit, route, number, .. } = under_way.remove(nth % under_way.len());
                drop(permit);
                held[route].probe.take_if(|probe| *probe == number);
            }
            Op::Next { .. } | Op::End { .. } | Op::CutOff { .. } => {}
            Op::Pass { millis } => tokio::time::advance(Duration::from_millis(millis)).await,
        }
    }
}

proptest! {
    /// 2. Whatever the answers are.
    #[test]
    fn no_more_is_in_flight_than_the_window_has_slots(ops in prop::collection::vec(op(), 1..600)) {
        runtime().block_on(run(ops, |budget, route, _| {
            let windows = budget.stats(&[]).windows;
            let level = LEVELS[route].unwrap_or("common");
            let window = windows.iter().find(|window| *window.priority_level == *level).unwrap();
            assert!(window.in_flight <= window.limit && (1..=64).contains(&window.limit), "{window:?}");
        }));
    }

    /// 7. None until the hold is over, then one; and no level pays for another.
    #[test]
    fn at_most_one_request_per_level_goes_out_during_a_hold(ops in prop::collection::vec(op(), 1..600)) {
        runtime().block_on(run(ops, |_, route, held| {
            if let Some(until) = held.until {
                assert!(Instant::now() >= until, "sent during a hold of {:?}", LEVELS[route]);
                assert_eq!(held.probe, None, "a second probe of {:?}", LEVELS[route]);
            }
        }));
    }
}

#[tokio::test(start_paused = true)]
async fn a_namespace_with_a_hundred_times_the_demand_of_twenty_others_gets_no_more_than_they() {
    // Each of the others wants twice its share.
    let (simulation, _tasks) =
        Simulation::start(one_at_a_time(84.0), 64, |_, _| answered(Duration::from_millis(20)));
    simulation.budget.reconfigure(one_at_a_time(84.0));
    let namespaces: Vec<_> = (0..21).map(|number| format!("ns-{number}")).collect();
    for second in 0..60 {
        for (number, namespace) in namespaces.iter().enumerate() {
            for key in 0..if number == 0 { 800 } else { 8 } {
                simulation.want(namespace, WriteClass::Spec, second * 1000 + key, 1);
            }
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    let sent = simulation.sent();
    let share = |namespace: &String| sent.iter().filter(|(_, key, _)| *key.namespace == **namespace).count();
    let shares: Vec<f64> = namespaces.iter().map(|namespace| share(namespace) as f64).collect();
    assert!(jain(&shares) >= 0.95, "Jain's index is {:.3}: {shares:?}", jain(&shares));
    assert!(sent.len() >= 60 * 80, "{} writes in a minute", sent.len());
}

#[tokio::test(start_paused = true)]
async fn a_grant_that_nobody_claims_goes_to_the_next() {
    let budget = WriteBudget::new(one_at_a_time(10.0));
    let woken = Arc::new(Mutex::new(Vec::new()));
    let into = woken.clone();
    budget.on_grant("c", move |key: &ObjectKey| into.lock().unwrap().push(key.clone()));
    let [first, gone, next] = ["first", "gone", "next"].map(|name| ObjectKey::new("ns", name));
    drop(budget.try_admit(&request(&first, WriteClass::Spec, 0)).unwrap());
    for key in [&gone, &next] {
        budget.try_admit(&request(key, WriteClass::Spec, 0)).unwrap_err();
    }
    let stop = CancellationToken::new();
    let pump = budget.run(stop.clone());
    let test = async {
        tokio::time::sleep(Duration::from_millis(110)).await;
        assert_eq!(*woken.lock().unwrap(), std::slice::from_ref(&gone));
        tokio::time::sleep(UNCLAIMED).await;
        assert_eq!(*woken.lock().unwrap(), [gone, next.clone()]);
        drop(budget.try_admit(&request(&next, WriteClass::Spec, 0)).unwrap());
        stop.cancel();
    };
    tokio::join!(pump, test);
}
