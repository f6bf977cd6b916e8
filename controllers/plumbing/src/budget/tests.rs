use super::*;
use std::sync::LazyLock;
use tokio::runtime::{Builder, Runtime};

pub(super) const ROUTES: [Route; 3] = {
    let create = Route { verb: "create", group: "", resource: "pods", subresource: "" };
    let delete = Route { verb: "delete", ..create };
    [create, delete, Route { verb: "patch", subresource: "status", ..create }]
};

static OWNER: LazyLock<ObjectKey> = LazyLock::new(|| ObjectKey::new("ns", "owner"));

/// A current-thread runtime whose time passes when nothing else is left to do.
pub(super) fn runtime() -> Runtime {
    Builder::new_current_thread().enable_time().start_paused(true).build().unwrap()
}

/// A write of the key's own, into its namespace.
pub(super) fn request(key: &ObjectKey, class: WriteClass, route: usize) -> WriteRequest<'_> {
    let namespace = &key.namespace;
    WriteRequest { controller: "c", namespace, class, route: ROUTES[route], owner: key, object: None }
}

fn into(namespace: &str) -> WriteRequest<'_> {
    WriteRequest { namespace, ..request(&OWNER, WriteClass::Spec, 0) }
}

/// How many of so many tries are let through, each ended at once.
fn admitted(budget: &WriteBudget, request: &WriteRequest<'_>, tries: usize) -> usize {
    (0..tries).filter(|_| budget.try_admit(request).is_ok()).count()
}

fn answer(permit: Permit<'_>, route: usize, level: Option<&str>, signal: Signal) -> Option<Duration> {
    permit.report(&Report { route: ROUTES[route], level, signal, sent: Instant::now() })
}

fn window(budget: &WriteBudget, level: &str) -> (u32, u32) {
    let windows = budget.stats(&[]).windows;
    let window = windows.iter().find(|window| *window.priority_level == *level).unwrap();
    (window.in_flight, window.limit)
}

const BUSY: Signal = Signal::TooManyRequests { retry_after: None };

#[tokio::test(start_paused = true)]
async fn an_empty_namespace_delays_no_other_and_drains_no_wide_bucket() {
    let budget = WriteBudget::new(BudgetConfig::default());
    assert_eq!(admitted(&budget, &into("noisy"), 10_000), 200, "the namespace's burst");
    // 10 000 refused writes cost the controller nothing: its other 200 tokens are there.
    assert_eq!(admitted(&budget, &into("quiet"), 150), 150);
    assert_eq!(admitted(&budget, &into("third"), 150), 50, "the controller's burst is spent");
    let refused = budget.try_admit(&into("third")).unwrap_err();
    assert_eq!(refused.limit, Limit::Controller);
}

#[tokio::test(start_paused = true)]
async fn events_have_a_bucket_per_namespace_are_dropped_and_cost_the_others_nothing() {
    let budget = WriteBudget::new(BudgetConfig::default());
    let event = WriteRequest { class: WriteClass::Event, ..into("ns") };
    assert_eq!(admitted(&budget, &event, 1000), 25);
    assert_eq!(budget.try_admit(&event).unwrap_err().limit, Limit::Class);
    let elsewhere = WriteRequest { namespace: "other", ..event };
    assert_eq!(admitted(&budget, &elsewhere, 1000), 25, "another namespace has its own");
    assert_eq!(admitted(&budget, &into("ns"), 1000), 175);
    assert_eq!(budget.state.lock().unwrap().tickets(), 1, "no event waits");
    assert_eq!(budget.stats(&[]).shed, [0, 0, 0, 0, 975 + 1 + 975]);
}

#[tokio::test(start_paused = true)]
async fn one_object_writes_its_status_once_a_second_and_holds_up_no_other() {
    let budget = WriteBudget::new(BudgetConfig::default());
    let keys = ["a", "b"].map(|name| ObjectKey::new("ns", name));
    let status = |key| WriteRequest { object: Some(key), ..request(key, WriteClass::Status, 2) };
    assert_eq!(admitted(&budget, &status(&keys[0]), 2), 2);
    assert_eq!(budget.try_admit(&status(&keys[0])).unwrap_err().limit, Limit::Object);
    assert_eq!(admitted(&budget, &status(&keys[1]), 2), 2);
    tokio::time::sleep(Duration::from_millis(1001)).await;
    assert_eq!(admitted(&budget, &status(&keys[0]), 10), 1);
}

#[tokio::test(start_paused = true)]
async fn buckets_that_are_full_again_are_forgotten() {
    let budget = WriteBudget::new(BudgetConfig::default().scaled(1000.0));
    for number in 0..3000 {
        drop(budget.try_admit(&into(&format!("ns-{number}"))).unwrap());
    }
    tokio::time::sleep(Duration::from_secs(60)).await;
    admitted(&budget, &into("ns"), buckets::SWEEP_EVERY as usize);
    assert!(budget.state.lock().unwrap().buckets.len() < 10);
}

#[tokio::test(start_paused = true)]
async fn the_figures_tell_tokens_and_refusals() {
    let budget = WriteBudget::new(BudgetConfig::default());
    let full = budget.stats(&["c", "idle"]);
    assert_eq!(full.process_tokens, 600.0);
    assert_eq!(full.controller_tokens, [400.0, 400.0]);
    admitted(&budget, &into("ns"), 207);
    let stats = budget.stats(&["c", "idle"]);
    assert!((stats.process_tokens - 400.0).abs() < 1e-3);
    assert!((stats.controller_tokens[0] - 200.0).abs() < 1e-3);
    assert_eq!(stats.throttled, [0, 0, 7, 0, 0, 0, 0]);
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert_eq!(budget.stats(&["idle"]).controller_tokens, [400.0]);
}

#[tokio::test(start_paused = true)]
async fn another_configuration_forgets_nothing_that_was_taken() {
    let budget = WriteBudget::new(BudgetConfig::default());
    assert_eq!(budget.rates(), WriteRates { namespace: 100, controller: 200 });
    assert_eq!(admitted(&budget, &into("ns"), 1000), 200);
    let larger = BucketConfig { rate: 10.0, burst: 230 };
    budget.reconfigure(BudgetConfig { namespace: larger, ..BudgetConfig::default() });
    assert_eq!(budget.rates(), WriteRates { namespace: 10, controller: 200 });
    // Of the 30 that are new, the first goes to whoever was in line.
    assert_eq!(admitted(&budget, &into("ns"), 1000), 30);
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(admitted(&budget, &into("ns"), 1000), 10, "at the new rate");
    let smaller = BucketConfig { rate: 10.0, burst: 1 };
    budget.reconfigure(BudgetConfig { namespace: smaller, ..BudgetConfig::default() });
    tokio::time::sleep(Duration::from_secs(10)).await;
    assert_eq!(
        admitted(&budget, &into("ns"), 1000),
        0,
        "what was taken from the larger one is missing still"
    );
}

#[tokio::test(start_paused = true)]
async fn a_chain_goes_when_there_are_tokens_for_all_of_it_and_takes_one_slot() {
    let config = BudgetConfig { namespace: BucketConfig { rate: 1.0, burst: 4 }, ..BudgetConfig::default() };
    let budget = WriteBudget::new(config);
    let [chained, other] = ["chained", "other"].map(|name| ObjectKey::new("ns", name));
    let write = request(&chained, WriteClass::Spec, 0);
    let permit = budget.try_admit_chain(&write, &[write, write]).unwrap();
    assert_eq!(window(&budget, "common").0, 1);
    drop(permit);
    let refused = budget.try_admit_chain(&write, &[write]).unwrap_err();
    assert_eq!(refused.limit, Limit::Namespace);
    // One token is there, and kept for the chain: others come after it, however many there are.
    assert_eq!(admitted(&budget, &request(&other, WriteClass::Spec, 0), 100), 0);
    tokio::time::sleep(Duration::from_millis(1001)).await;
    assert_eq!(admitted(&budget, &request(&other, WriteClass::Spec, 0), 100), 0);
    drop(budget.try_admit_chain(&write, &[write]).unwrap());
    budget.forgo("c", &other);
    // Longer than the bucket: it goes when that is full, and the next waits for what it took beyond it.
    tokio::time::sleep(Duration::from_secs(20)).await;
    drop(budget.try_admit_chain(&write, &[write; 5]).unwrap());
    tokio::time::sleep(Duration::from_millis(2900)).await;
    assert_eq!(admitted(&budget, &request(&other, WriteClass::Spec, 0), 100), 0);
    tokio::time::sleep(Duration::from_millis(101)).await;
    assert_eq!(admitted(&budget, &request(&other, WriteClass::Spec, 0), 100), 1);
}

#[tokio::test(start_paused = true)]
async fn chains_do_not_wait_for_the_tokens_that_each_other_keeps() {
    let config = BudgetConfig { process: BucketConfig { rate: 1.0, burst: 2 }, ..BudgetConfig::default() };
    let budget = WriteBudget::new(config);
    let keys = ["a", "b", "c"].map(|name| ObjectKey::new(name, "chained"));
    assert_eq!(admitted(&budget, &into("spender"), 2), 2);
    let mut left: Vec<_> = keys.iter().collect();
    for second in 0..=6 {
        left.retain(|key| {
            let write = request(key, WriteClass::Spec, 0);
            budget.try_admit_chain(&write, &[write]).is_err()
        });
        assert_eq!(left.len(), 3 - second / 2, "after {second} s");
        tokio::time::sleep(Duration::from_millis(1001)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_chain_keeps_nothing_while_the_server_wants_to_be_left_alone() {
    let config = BudgetConfig { process: BucketConfig { rate: 1.0, burst: 2 }, ..BudgetConfig::default() };
    let budget = WriteBudget::new(config);
    let chained = ObjectKey::new("ns", "chained");
    let other = request(&OWNER, WriteClass::Spec, 1);
    answer(budget.try_admit(&other).unwrap(), 1, Some("open"), Signal::Answered);
    let refused = Signal::TooManyRequests { retry_after: Some(Duration::from_secs(30)) };
    answer(budget.try_admit(&into("ns")).unwrap(), 0, Some("held"), refused);
    tokio::time::sleep(Duration::from_millis(2001)).await;
    let held = request(&chained, WriteClass::Spec, 0);
    assert_eq!(budget.try_admit_chain(&held, &[held]).unwrap_err().limit, Limit::Hold);
    assert_eq!(admitted(&budget, &other, 10), 2, "both tokens are there for the other level");
}

#[tokio::test(start_paused = true)]
async fn who_wants_something_else_keeps_its_place() {
    let config = BudgetConfig { namespace: BucketConfig { rate: 10.0, burst: 1 }, ..BudgetConfig::default() };
    let budget = WriteBudget::new(config);
    let [spender, first, second] = ["spender", "first", "second"].map(|name| ObjectKey::new("ns", name));
    assert_eq!(admitted(&budget, &request(&spender, WriteClass::Spec, 0), 1), 1);
    assert_eq!(admitted(&budget, &request(&first, WriteClass::Spec, 0), 1), 0);
    assert_eq!(admitted(&budget, &request(&second, WriteClass::Spec, 1), 1), 0);
    assert_eq!(admitted(&budget, &request(&first, WriteClass::Spec, 1), 1), 0);
    tokio::time::sleep(Duration::from_millis(101)).await;
    assert_eq!(admitted(&budget, &request(&second, WriteClass::Spec, 1), 1), 0);
    assert_eq!(admitted(&budget, &request(&first, WriteClass::Spec, 1), 1), 1);
    // Who wants nothing any more is in nobody's way.
    budget.forgo("c", &second);
    assert_eq!(budget.state.lock().unwrap().tickets(), 0);
}

/// So many requests under way on a route, all of whose answers name `level`.
fn fill<'a>(budget: &'a WriteBudget, keys: &'a [ObjectKey], route: usize) -> Vec<Permit<'a>> {
    keys.iter().map_while(|key| budget.try_admit(&request(key, WriteClass::Spec, route)).ok()).collect()
}

fn keys(count: usize) -> Vec<ObjectKey> {
    (0..count).map(|number| ObjectKey::new("ns", format!("k{number}"))).collect()
}

#[tokio::test(start_paused = true)]
async fn the_window_grows_by_one_in_a_round_of_answers_while_half_of_it_is_used() {
    let budget = WriteBudget::new(BudgetConfig::default().scaled(1000.0));
    let keys = keys(100);
    let round = |in_flight: usize| {
        let permits = fill(&budget, &keys[..in_flight], 0);
        for permit in &permits {
            let report =
                Report { route: ROUTES[0], level: None, signal: Signal::Answered, sent: Instant::now() };
            assert_eq!(permit.report(&report), None);
        }
        keys.iter().for_each(|key| budget.forgo("c", key));
        permits.len()
    };
    for _ in 0..100 {
        round(7);
    }
    assert_eq!(window(&budget, "common"), (0, 16), "less than half of it was in use");
    let mut answers = 0_u32;
    while answers < 1900 {
        answers += round(100) as u32;
        // One more after as many answers as it has slots.
        let expected = f64::from(16 * 16 + 2 * answers).sqrt().min(64.0);
        let (_, limit) = window(&budget, "common");
        assert!((expected - f64::from(limit)).abs() < 1.5, "{limit} after {answers} answers");
    }
    assert_eq!(window(&budget, "common"), (0, 64), "the ceiling");
}

#[tokio::test(start_paused = true)]
async fn a_429_halves_the_window_of_its_level_once_and_closes_that_level_alone() {
    let budget = WriteBudget::new(BudgetConfig::default().scaled(1000.0));
    let keys = keys(100);
    answer(
        budget.try_admit(&request(&keys[0], WriteClass::Spec, 0)).unwrap(),
        0,
        Some("a"),
        Signal::Answered,
    );
    answer(
        budget.try_admit(&request(&keys[0], WriteClass::Spec, 1)).unwrap(),
        1,
        Some("b"),
        Signal::Answered,
    );
    let permits = fill(&budget, &keys[..10], 0);
    let sent = Instant::now();
    tokio::time::sleep(Duration::from_millis(10)).await;
    let mut longest = Duration::ZERO;
    for permit in permits {
        let signal = Signal::TooManyRequests { retry_after: Some(Duration::from_secs(7)) };
        let hold = permit.report(&Report { route: ROUTES[0], level: Some("a"), signal, sent }).unwrap();
        assert!((7.0..=8.75).contains(&hold.as_secs_f64()), "{hold:?}");
        longest = longest.max(hold);
    }
    assert_eq!(window(&budget, "a"), (0, 8));
    assert_eq!(budget.try_admit(&request(&keys[0], WriteClass::Spec, 0)).unwrap_err().limit, Limit::Hold);
    assert_eq!(fill(&budget, &keys, 1).len(), 16, "the other level is open");
    tokio::time::sleep(longest - Duration::from_millis(1)).await;
    assert_eq!(fill(&budget, &keys, 0).len(), 0);
    tokio::time::sleep(Duration::from_millis(1)).await;
    let mut probe = fill(&budget, &keys, 0);
    assert_eq!(probe.len(), 1, "one probe");
    // Without Retry-After a second; a probe that is refused halves again.
    let hold = answer(probe.remove(0), 0, Some("a"), BUSY).unwrap();
    assert!((1.0..=1.25).contains(&hold.as_secs_f64()), "{hold:?}");
    assert_eq!(window(&budget, "a").1, 4);
}

#[tokio::test(start_paused = true)]
async fn the_window_has_a_floor_and_an_overload_takes_three_tenths() {
    let budget = WriteBudget::new(BudgetConfig::default().scaled(1000.0));
    let mut sizes = Vec::new();
    for _ in 0..10 {
        tokio::time::sleep(Duration::from_millis(1)).await;
        answer(budget.try_admit(&into("ns")).unwrap(), 0, None, Signal::Overloaded);
        sizes.push(window(&budget, "common").1);
    }
    assert_eq!(sizes, [11, 7, 5, 3, 2, 1, 1, 1, 1, 1]);
}

#[tokio::test(start_paused = true)]
async fn the_window_does_not_grow_while_answers_take_thrice_the_least_of_ten_minutes() {
    let budget = WriteBudget::new(BudgetConfig::default().scaled(1000.0));
    let keys = keys(100);
    let round = async |millis| {
        let permits = fill(&budget, &keys, 0);
        let sent = Instant::now();
        tokio::time::sleep(Duration::from_millis(millis)).await;
        for permit in permits {
            permit.report(&Report { route: ROUTES[0], level: None, signal: Signal::Answered, sent });
        }
        keys.iter().for_each(|key| budget.forgo("c", key));
        window(&budget, "common").1
    };
    for _ in 0..8 {
        round(10).await;
    }
    for _ in 0..8 {
        round(31).await;
    }
    let slow = window(&budget, "common").1;
    assert!(slow > 16);
    assert_eq!(round(31).await, slow);
    for _ in 0..8 {
        round(29).await;
    }
    assert!(round(29).await > slow);
    // What was best ten minutes ago is the best of now no more.
    for _ in 0..8 {
        round(100).await;
    }
    let slow = round(100).await;
    assert_eq!(round(100).await, slow);
    tokio::time::sleep(Duration::from_secs(600)).await;
    round(100).await;
    for _ in 0..4 {
        round(100).await;
    }
    assert!(round(100).await > slow);
}

#[tokio::test(start_paused = true)]
async fn slow_answers_keep_a_window_from_growing_beyond_its_start_but_not_from_coming_back() {
    let budget = WriteBudget::new(BudgetConfig::default().scaled(1000.0));
    let keys = keys(100);
    let round = async |millis, signal| {
        let permits = fill(&budget, &keys, 0);
        let sent = Instant::now();
        tokio::time::sleep(Duration::from_millis(millis)).await;
        for permit in permits {
            permit.report(&Report { route: ROUTES[0], level: None, signal, sent });
        }
        keys.iter().for_each(|key| budget.forgo("c", key));
        tokio::time::sleep(Duration::from_millis(1)).await;
        window(&budget, "common").1
    };
    for _ in 0..8 {
        round(10, Signal::Answered).await;
    }
    for _ in 0..8 {
        round(100, Signal::Overloaded).await;
    }
    assert!(round(100, Signal::Overloaded).await <= 2);
    for _ in 0..40 {
        round(100, Signal::Answered).await;
    }
    assert_eq!(round(100, Signal::Answered).await, 16);
}

#[test]
fn of_a_thousand_namespaces_behind_one_empty_bucket_one_is_asked() {
    use turns::{Lane, Place, Reach, Turns, Verdict};
    let mut line = Turns::default();
    for number in 0..1000_u64 {
        let controller = ["one", "two"][number as usize % 2];
        let lane = Lane { controller, route: ROUTES[0], chain: false };
        let namespace: Arc<str> = format!("ns-{number}").into();
        let key = ObjectKey::new(Arc::clone(&namespace), "key");
        line.insert(Place { class: WriteClass::Spec, namespace, lane, number }, (controller, key));
    }
    let mut asked = |reach| {
        let mut offers = 0;
        line.serve(|_| {
            offers += 1;
            Verdict::Blocked(reach)
        });
        offers
    };
    assert_eq!(asked(Reach::All), 1);
    assert_eq!(asked(Reach::Controller), 2);
    assert_eq!(asked(Reach::Lanes), 2);
    assert_eq!(asked(Reach::Lane), 1000);
    let mut granted = 0;
    line.serve(|_| {
        granted += 1;
        Verdict::Granted
    });
    assert_eq!(granted, 1000, "and nobody is forgotten");
}
