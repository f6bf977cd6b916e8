//! Who may write, and for how long.

use crate::rig::{HOUR, Seen, Setup, create, key, pass, plan, seconds};
use crate::wire::{Reply, Sent, Wire, answer, done, refuse};
use http::Method;
use kube::Client;
use serde_json::{Value, json};
use springtide_plumbing::client::Connection;
use springtide_plumbing::key::ObjectKey;
use springtide_plumbing::lease::{Elector, Leadership, LeaseConfig, LeaseTimes, LeaseView, boot_clock};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::SeqCst};
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

const ME: &str = "me";
/// A moment, for whatever is due at this time to happen.
const MOMENT: Duration = Duration::from_millis(1);

fn lease(holder: &str, version: u64) -> Value {
    json!({
        "apiVersion": "coordination.k8s.io/v1", "kind": "Lease",
        "metadata": {"namespace": "ns", "name": "l", "uid": "u", "resourceVersion": version.to_string()},
        // A holder whose clock is years behind is as good as any.
        "spec": {"holderIdentity": holder, "leaseDurationSeconds": 30, "renewTime": "2001-01-01T00:00:00.000000Z"},
    })
}

/// Stores what is sent, as the next version.
pub(crate) fn stored(sent: &Sent) -> Reply {
    let version = sent.body["metadata"]["resourceVersion"].as_str().map_or(1, |rv| rv.parse().unwrap());
    answer(200, lease(sent.body["spec"]["holderIdentity"].as_str().unwrap(), version + 1))
}

fn is_release(sent: &Sent) -> bool {
    sent.body["spec"]["holderIdentity"] == ""
}

/// An elector alone with its wire, its clock and what the watch shows it.
pub(crate) struct Bench {
    pub(crate) wire: Wire,
    pub(crate) leadership: Leadership,
    shown: watch::Sender<Option<(Arc<LeaseView>, Duration)>>,
    clock: Clock,
    stop: CancellationToken,
    running: JoinHandle<()>,
}

/// Paused time, and how long the machine has slept besides.
#[derive(Clone)]
struct Clock {
    start: Instant,
    slept: Arc<AtomicU64>,
}

impl Clock {
    fn now(&self) -> Duration {
        // Not zero at the start: no boot clock is.
        seconds(1000 + self.slept.load(SeqCst)) + self.start.elapsed()
    }

    fn sleep(&self, seconds: u64) {
        self.slept.fetch_add(seconds, SeqCst);
    }
}

impl Bench {
    fn new(shown: Option<Value>, reply: impl Fn(&Sent) -> Reply + Send + Sync + 'static) -> Self {
        let (wire, client) = Wire::new(reply);
        Self::over(wire, client, shown)
    }

    /// Over a client that others may have too.
    fn over(wire: Wire, client: Client, shown: Option<Value>) -> Self {
        let clock = Clock { start: Instant::now(), slept: Arc::default() };
        let (shown, observed) = watch::channel(shown.map(|lease| view(lease, &clock)));
        let config = LeaseConfig::new(ObjectKey::new("ns", "l"), ME.to_owned());
        let monotonic = clock.clone();
        let (elector, leadership) = Elector::new(client, config, Arc::new(move || monotonic.now()), observed);
        let stop = CancellationToken::new();
        let running = tokio::spawn(elector.run(stop.clone()));
        Self { wire, leadership, shown, clock, stop, running }
    }

    /// One that leads, as of now.
    pub(crate) async fn leading(reply: impl Fn(&Sent) -> Reply + Send + Sync + 'static) -> Self {
        let (wire, client) = Wire::new(reply);
        Self::leading_over(wire, client).await
    }

    /// The same over a client that others may have too.
    pub(crate) async fn leading_over(wire: Wire, client: Client) -> Self {
        let bench = Self::over(wire, client, None);
        pass(MOMENT).await;
        assert_eq!((bench.wire.methods(), bench.leads()), (vec!["POST".to_owned()], (true, true)));
        bench
    }

    /// The watch shows the Lease.
    fn show(&self, lease: Value) {
        self.shown.send_replace(Some(view(lease, &self.clock)));
    }

    /// Whether workers may take keys, and whether a write may leave.
    pub(crate) fn leads(&self) -> (bool, bool) {
        (*self.leadership.leading.borrow(), self.leadership.fence.is_open())
    }

    /// The versions that the requests were to replace.
    fn versions(&self) -> Vec<Value> {
        self.wire.all().into_iter().map(|sent| sent.body["metadata"]["resourceVersion"].clone()).collect()
    }
}

fn view(lease: Value, clock: &Clock) -> (Arc<LeaseView>, Duration) {
    (Arc::new(serde_json::from_value(lease).unwrap()), clock.now())
}

#[tokio::test(start_paused = true)]
async fn a_lease_that_is_missing_released_or_our_own_is_taken_at_once() {
    for (shown, method) in [(None, "POST"), (Some(lease("", 7)), "PUT"), (Some(lease(ME, 7)), "PUT")] {
        let bench = Bench::new(shown, stored);
        assert_eq!(bench.leads(), (false, false));
        pass(MOMENT).await;
        assert_eq!((bench.wire.methods(), bench.leads()), (vec![method.to_owned()], (true, true)));
        let sent = &bench.wire.all()[0].body;
        assert_eq!(sent["spec"]["holderIdentity"], ME);
        assert_eq!(sent["spec"]["leaseDurationSeconds"], 30);
        assert_eq!(
            sent["metadata"]["resourceVersion"],
            if method == "PUT" { json!("7") } else { json!(null) }
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_held_lease_is_taken_only_when_no_change_was_seen_for_its_duration() {
    let bench = Bench::new(Some(lease("other", 1)), stored);
    for version in 2..120 {
        // Later than the other should, but before it expires.
        pass(seconds(29)).await;
        bench.show(lease("other", version));
    }
    pass(seconds(30) - MOMENT).await;
    assert_eq!((bench.wire.len(), bench.leads()), (0, (false, false)));
    pass(2 * MOMENT).await;
    assert_eq!((bench.versions(), bench.leads()), (vec![json!("119")], (true, true)));
}

#[tokio::test(start_paused = true)]
async fn a_lease_that_another_takes_first_is_left_to_it() {
    let bench = Bench::new(Some(lease("other", 1)), |_| refuse(409, "Conflict"));
    pass(seconds(30) + MOMENT).await;
    bench.show(lease("third", 2));
    pass(seconds(29)).await;
    assert_eq!((bench.wire.len(), bench.leads()), (1, (false, false)));
}

#[tokio::test(start_paused = true)]
async fn a_standby_that_cannot_write_or_whose_watch_lags_does_not_hammer() {
    for reply in [refuse(409, "Conflict"), refuse(403, "Forbidden"), refuse(500, "x"), Reply::Unreachable] {
        let bench = Bench::new(None, move |_| reply.clone());
        pass(seconds(600)).await;
        assert!((60..=121).contains(&bench.wire.len()), "{} requests", bench.wire.len());
        assert_eq!(bench.leads(), (false, false));
    }
}

#[tokio::test(start_paused = true)]
async fn a_leader_renews_every_5_seconds() {
    let bench = Bench::leading(stored).await;
    pass(HOUR).await;
    assert_eq!(bench.wire.len(), 1 + 720, "0.2 writes/s");
    assert!(bench.wire.gaps().iter().all(|gap| *gap == seconds(5)));
    let versions: Vec<_> = (2..=721).map(|version| json!(version.to_string())).collect();
    assert_eq!(bench.versions()[1..], versions, "each renewal replaces the one before");
    assert_eq!(bench.leads(), (true, true));
}

#[tokio::test(start_paused = true)]
async fn the_fence_closes_20_seconds_after_the_start_of_the_last_renewal() {
    for dead in [Reply::Silence, Reply::Reset, Reply::Unreachable, refuse(500, "x"), refuse(429, "x")] {
        let (reply, start) = (dead.clone(), Instant::now());
        // The last renewal that succeeds starts at 10 s and is answered at 13 s.
        let bench = Bench::leading(move |sent| match (sent.at - start).as_secs() {
            0..10 => stored(sent),
            10 => stored(sent).after(seconds(3)),
            _ => reply.clone(),
        })
        .await;
        sleep_until(start + seconds(30) - MOMENT).await;
        assert_eq!(bench.leads(), (true, true), "{dead:?}");
        assert!(bench.wire.len() >= 5, "{dead:?}: it has not tried again in time");
        sleep_until(start + seconds(30)).await;
        assert!(!bench.leadership.fence.is_open(), "{dead:?}");
        pass(seconds(10)).await;
        assert_eq!(bench.leads(), (false, false), "{dead:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_leader_that_lost_the_server_for_long_leads_again_when_it_is_back() {
    let start = Instant::now();
    let bench = Bench::leading(move |sent| match (sent.at - start).as_secs() {
        5..100 => Reply::Unreachable,
        _ => stored(sent),
    })
    .await;
    bench.show(lease(ME, 2));
    pass(seconds(90)).await;
    assert_eq!(bench.leads(), (false, false));
    pass(seconds(20)).await;
    assert_eq!(bench.leads(), (true, true));
}

/// The version that a request replaces; 0 for none.
fn replaces(sent: &Sent) -> u64 {
    sent.body["metadata"]["resourceVersion"].as_str().map_or(0, |version| version.parse().unwrap())
}

#[tokio::test(start_paused = true)]
async fn a_renewal_whose_answer_is_lost_keeps_leadership() {
    for lost in [Reply::Silence, Reply::Reset, Reply::ResetInBody, refuse(500, "x"), refuse(504, "Timeout")] {
        let (reply, tries) = (lost.clone(), AtomicU64::new(0));
        // The renewal that replaces version 3 is stored as version 4, and the answer is lost.
        let bench = Bench::leading(move |sent| match (&sent.method, replaces(sent)) {
            (&Method::GET, _) => answer(200, lease(ME, 4)),
            (_, 3) if tries.fetch_add(1, SeqCst) == 0 => reply.clone(),
            (_, 3) => refuse(409, "Conflict"),
            _ => stored(sent),
        })
        .await;
        for _ in 0..60 {
            pass(seconds(1)).await;
            assert_eq!(bench.leads(), (true, true), "{lost:?}");
        }
        assert_eq!(bench.wire.methods()[1..6], ["PUT", "PUT", "PUT", "GET", "PUT"], "{lost:?}");
        assert_eq!(bench.versions()[5], "4", "{lost:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_lease_that_changes_under_us_all_the_time_is_not_renewed_in_a_spin() {
    let bench = Bench::leading(|sent| match sent.method {
        Method::POST => stored(sent),
        Method::GET => answer(200, lease(ME, 9)),
        _ => refuse(409, "Conflict"),
    })
    .await;
    pass(seconds(19)).await;
    assert!(bench.wire.len() < 50, "{} requests", bench.wire.len());
}

#[tokio::test(start_paused = true)]
async fn another_holder_ends_leadership_at_once() {
    // Found out by a renewal.
    let start = Instant::now();
    let bench = Bench::leading(move |sent| match sent.method {
        Method::POST if sent.at == start => stored(sent),
        Method::GET => answer(200, lease("other", 9)),
        _ => refuse(409, "Conflict"),
    })
    .await;
    pass(seconds(5)).await;
    assert_eq!(bench.leads(), (false, false));
    assert_eq!(bench.wire.methods()[..3], ["POST", "PUT", "GET"]);
    // Shown by the watch.
    let bench = Bench::leading(stored).await;
    bench.show(lease("before", 1));
    pass(seconds(7)).await;
    assert_eq!(bench.leads(), (true, true), "what is older than our own version says nothing");
    bench.show(lease("other", 9));
    pass(MOMENT).await;
    assert_eq!(bench.leads(), (false, false));
    pass(seconds(29)).await;
    assert_eq!(bench.wire.len(), 2, "no renewal of what is not ours");
}

#[tokio::test(start_paused = true)]
async fn a_lease_that_somebody_deleted_is_lost_and_made_again() {
    let bench = Bench::leading(|sent| match sent.method {
        Method::POST => stored(sent),
        _ => refuse(404, "NotFound"),
    })
    .await;
    pass(seconds(5)).await;
    assert_eq!(bench.wire.methods(), ["POST", "PUT", "GET", "POST"]);
    assert_eq!(bench.leads(), (true, true));
}

#[tokio::test(start_paused = true)]
async fn a_graceful_end_releases_the_lease_when_nobody_writes_any_more() {
    let fence = Arc::new(std::sync::OnceLock::<Leadership>::new());
    let seen = Arc::clone(&fence);
    let mut bench = Bench::leading(move |sent| {
        if is_release(sent) {
            let leadership = seen.get().unwrap();
            assert!(!leadership.fence.is_open() && !*leadership.leading.borrow(), "released while it leads");
        }
        stored(sent)
    })
    .await;
    fence.set(bench.leadership.clone()).ok().unwrap();
    pass(seconds(12)).await;
    bench.stop.cancel();
    timeout(seconds(10), &mut bench.running).await.unwrap().unwrap();
    let last = bench.wire.all().pop().unwrap();
    assert!(is_release(&last));
    assert_eq!(last.body["spec"]["leaseDurationSeconds"], 1);
    assert_eq!(replaces(&last), 4, "exactly what it holds");
}

#[tokio::test(start_paused = true)]
async fn a_lease_that_is_being_taken_at_the_end_is_released_too() {
    let mut bench = Bench::new(None, |sent| stored(sent).after(seconds(2)));
    pass(seconds(1)).await;
    bench.stop.cancel();
    timeout(seconds(10), &mut bench.running).await.unwrap().unwrap();
    assert_eq!(bench.wire.methods(), ["POST", "PUT"]);
    assert!(is_release(&bench.wire.all()[1]));
}

#[tokio::test(start_paused = true)]
async fn an_end_waits_for_a_sick_server_only_so_long() {
    for leads in [true, false] {
        let mut bench = Bench::new(None, move |sent| match sent.method {
            Method::POST if leads => stored(sent),
            _ => Reply::Silence,
        });
        pass(seconds(6)).await;
        bench.stop.cancel();
        timeout(seconds(15), &mut bench.running).await.unwrap().unwrap();
        assert_eq!(bench.leads(), (false, false));
    }
}

#[tokio::test(start_paused = true)]
async fn a_machine_that_slept_finds_its_fence_closed() {
    let bench = Bench::leading(stored).await;
    pass(seconds(12)).await;
    bench.clock.sleep(17);
    assert_eq!(bench.leads(), (true, true));
    bench.clock.sleep(60);
    assert!(!bench.leadership.fence.is_open());
    let before = bench.wire.len();
    // Meanwhile another has it, as the watch then shows.
    bench.show(lease("other", 9));
    pass(seconds(6)).await;
    assert_eq!((bench.leads(), bench.wire.len()), ((false, false), before));
}

/// Clients as the manager builds them, and one server for both. Not paused: a socket is no timer.
#[tokio::test]
async fn leases_renew_while_every_worker_waits_for_a_server_that_answers_no_write() {
    /// Two of each worker: as many as the in-flight window has slots.
    const WRITES: usize = 8 * 2;
    let (writes, renewals) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let (write, renewal) = (writes.clone(), renewals.clone());
    let serve = async move |request: axum::extract::Request| {
        if !request.uri().path().contains("/leases") {
            write.fetch_add(1, SeqCst);
            std::future::pending::<()>().await;
        }
        let body = axum::body::to_bytes(request.into_body(), 10_000).await.unwrap();
        let sent: Value = serde_json::from_slice(&body).unwrap();
        let version = sent["metadata"]["resourceVersion"].as_str().map_or(1, |rv| rv.parse().unwrap());
        renewal.fetch_add(1, SeqCst);
        lease(ME, version + 1).to_string()
    };
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(axum::serve(listener, axum::Router::new().fallback(serve)).into_future());
    let connection = Connection::from_config(kube::Config::new(url.parse().unwrap()));

    let config = LeaseConfig {
        times: LeaseTimes { retry_period: Duration::from_millis(20), ..LeaseTimes::default() },
        ..LeaseConfig::new(ObjectKey::new("ns", "l"), ME.to_owned())
    };
    let (_shown, observed) = watch::channel(None);
    let (elector, leadership) =
        Elector::new(connection.client("lease").unwrap(), config, boot_clock(), observed);
    tokio::spawn(elector.run(CancellationToken::new()));
    let until = async |condition: &dyn Fn() -> bool| {
        let reached = async {
            while !condition() {
                pass(MOMENT).await;
            }
        };
        timeout(seconds(60), reached).await.unwrap();
    };
    until(&|| leadership.fence.is_open()).await;

    let make =
        |seen: &Seen| plan(vec![(0..2).map(|n| create(&key(&format!("{}-{n}", seen.key.name)))).collect()]);
    let setup = Setup { fence: leadership.fence.clone(), ..Setup::new(make) };
    let (wire, _) = Wire::new(|_| Reply::Silence);
    let rig = setup.start_over(wire, connection.writer("writes", leadership.fence.clone()).unwrap());
    for n in 0..500 {
        rig.event(&key(&n.to_string()));
    }
    until(&|| writes.load(SeqCst) == WRITES).await;
    let before = renewals.load(SeqCst);
    until(&|| renewals.load(SeqCst) >= before + 50).await;
    // Not one of them was given up meanwhile: each worker waits still.
    assert_eq!((rig.queue.stats().running, writes.load(SeqCst)), (8, WRITES));
    assert!(*leadership.leading.borrow() && leadership.fence.is_open());
}

#[tokio::test(start_paused = true)]
async fn nothing_leaves_through_a_closed_fence() {
    let election = Bench::leading(stored).await;
    let fence = election.leadership.fence.clone();
    let clock = election.clock.clone();
    // The machine sleeps between plan and write.
    let make = move |seen: &Seen| {
        clock.sleep(3600);
        plan(vec![vec![create(&seen.key)]])
    };
    let rig = Setup { fence, ..Setup::new(make) }.start(|sent| done(sent, 10));
    rig.event(&key("a"));
    pass(Duration::from_millis(10)).await;
    assert_eq!((rig.passes(&key("a")), rig.wire.len()), (1, 0));
    let metrics = rig.metrics.encode().unwrap();
    assert!(metrics.contains("springtide_fence_refusals_total{controller=\"scripted\"} 1"));
}

#[tokio::test(start_paused = true)]
async fn a_fence_that_closes_within_a_stage_stops_what_has_not_left() {
    let election = Bench::leading(stored).await;
    let fence = election.leadership.fence.clone();
    let make = |_: &Seen| {
        let stage = |name: &str| (0..40).map(|n| create(&key(&format!("{name}-{n:02}")))).collect();
        plan(vec![stage("first"), stage("second")])
    };
    let rig = Setup { fence, ..Setup::new(make) }.start(|sent| done(sent, 10).after(seconds(1)));
    rig.event(&key("a"));
    pass(Duration::from_millis(500)).await;
    assert_eq!(rig.wire.len(), 16);
    election.clock.sleep(3600);
    pass(Duration::from_millis(1500)).await;
    assert_eq!(rig.wire.len(), 16);
    assert_eq!(rig.passes(&key("a")), 1);
}
