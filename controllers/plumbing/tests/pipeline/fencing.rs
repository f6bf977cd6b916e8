//! Pauses of a leader at arbitrary points, beside a standby that takes over: what an expired leader still
//! writes.
//!
//! Each of the two processes has a runtime of its own on paused time. Time goes on in one only while the
//! test runs it, so a process that is not run is one that was stopped: its timers are overdue together
//! when it goes on, and its boot clock has moved. Where it stops is told in polls of its tasks.

use crate::rig::{Pod, Rig, Seen, Setup, create, delete, key, patch, plan, seconds};
use crate::wire::object;
use axum::body::Body;
use http::{Method, Request, Response};
use http_body_util::BodyExt;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde_json::{Value, json};
use springtide_plumbing::client::{FenceLayer, FencedBody};
use springtide_plumbing::key::ObjectKey;
use springtide_plumbing::lease::{Elector, Fence, Leadership, LeaseConfig, LeaseView, Observed};
use springtide_plumbing::plan::{Action, Patch, Plan};
use std::collections::BTreeMap;
use std::future::poll_fn;
use std::sync::{Arc, Mutex};
use std::task::Poll;
use std::time::Duration;
use tokio::runtime::{Builder, Runtime};
use tokio::sync::{oneshot, watch};
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;
use tower::{BoxError, Layer};

/// Pauses past the end of the lease, so that a successor takes over; all that the goal asks for with
/// `SPRINGTIDE_LONG`.
fn expiries() -> usize {
    if std::env::var_os("SPRINGTIDE_LONG").is_some() { 950 } else { 30 }
}

/// Pauses that are tried for each of them at most: about every second one is long enough.
const TRIES_MAX: usize = 4;
const STEP: Duration = Duration::from_millis(100);
const KEYS: usize = 12;

/// A request that the server has got.
struct UnderWay {
    who: usize,
    method: Method,
    path: String,
    body: Value,
    arrived: Duration,
    commits: Duration,
    answer: oneshot::Sender<(u16, Value)>,
}

/// A write that counts against its writer.
#[derive(Debug)]
#[allow(dead_code, reason = "read by whoever reads a failure")]
struct Fault {
    who: usize,
    what: String,
    at: Duration,
}

/// One API server for both: a Lease and some pods.
#[derive(Default)]
struct Server {
    now: Duration,
    random: Option<StdRng>,
    version: u64,
    lease: Option<Value>,
    /// Who holds the Lease, and when it was last renewed.
    held: Option<(usize, Duration)>,
    pods: BTreeMap<String, Value>,
    under_way: Vec<UnderWay>,
    /// Pods and Leases to be shown, in order, to each process.
    frames: [Vec<Frame>; 2],
    /// Stored writes of each process.
    stored: [usize; 2],
    /// Whether somebody else has taken the Lease over.
    has_successor: bool,
    /// Requests that left a process which was no leader any more, or were stored for it, but creates that
    /// had left before.
    faults: Vec<Fault>,
}

#[derive(Clone)]
enum Frame {
    Lease(Value),
    Applied(Value),
    Deleted(Value),
}

impl Server {
    /// Whether `who` may be thought to lead: it holds the Lease, which has not expired.
    fn leads(&self, who: usize) -> bool {
        self.held.is_some_and(|(holder, renewed)| holder == who && self.now < renewed + seconds(30))
    }

    fn arrive(
        &mut self,
        who: usize,
        method: Method,
        path: String,
        body: Value,
    ) -> oneshot::Receiver<(u16, Value)> {
        let lease = path.contains("/leases");
        if !lease && method != Method::GET && !self.leads(who) {
            self.fault(who, format!("{method} {path} left"));
        }
        let random = self.random.as_mut().unwrap();
        // A server gives up after 8 s, as the request asks it to; what it began may be stored still.
        let slow = if method == Method::POST && !lease { 12_000 } else { 7_900 };
        let latency = if random.random_ratio(1, 40) { slow } else { 25 };
        let commits = self.now + Duration::from_millis(random.random_range(0..latency));
        let (answer, receiver) = oneshot::channel();
        self.under_way.push(UnderWay { who, method, path, body, arrived: self.now, commits, answer });
        receiver
    }

    fn fault(&mut self, who: usize, what: String) {
        self.faults.push(Fault { who, what, at: self.now });
    }

    /// Stores what is due.
    fn advance(&mut self, to: Duration) {
        while let Some(next) = (0..self.under_way.len()).min_by_key(|n| self.under_way[*n].commits)
            && self.under_way[next].commits <= to
        {
            let request = self.under_way.swap_remove(next);
            self.now = self.now.max(request.commits);
            let (code, body) = self.commit(&request);
            let _ = request.answer.send((code, body));
        }
        self.now = to;
    }

    fn commit(&mut self, request: &UnderWay) -> (u16, Value) {
        let refusal = |code: u16, reason: &str| {
            (code, json!({"kind": "Status", "status": "Failure", "code": code, "reason": reason}))
        };
        let name = request.path.split(['?', '/']).rev().nth(usize::from(request.path.contains('?')));
        let name = name.unwrap_or_default().to_owned();
        if request.path.contains("/leases") {
            return self.commit_lease(request, refusal);
        }
        let name = request.body["metadata"]["name"].as_str().map_or(name, str::to_owned);
        let stored = self.pods.get(&name).cloned();
        let mut next = match (&request.method, stored) {
            (&Method::POST, Some(_)) => return refusal(409, "AlreadyExists"),
            (&Method::POST, None) => object("ns", &name, 0),
            (_, None) => return refusal(404, "NotFound"),
            (&Method::GET, Some(pod)) => return (200, pod),
            (_, Some(pod)) => pod,
        };
        let version = next["metadata"]["resourceVersion"].clone();
        let expected = match request.method {
            Method::PATCH => request.body[2]["value"].clone(),
            Method::DELETE => request.body["preconditions"]["resourceVersion"].clone(),
            _ => version.clone(),
        };
        if expected != version {
            return refusal(409, "Conflict");
        }
        let under_way_create = request.method == Method::POST && request.arrived + seconds(12) > self.now;
        if !self.leads(request.who) && !under_way_create {
            self.fault(request.who, format!("{} {name} was stored", request.method));
        }
        self.version += 1;
        self.stored[request.who] += 1;
        next["metadata"]["resourceVersion"] = self.version.to_string().into();
        let frame = if request.method == Method::DELETE {
            self.pods.remove(&name);
            Frame::Deleted(next.clone())
        } else {
            self.pods.insert(name, next.clone());
            Frame::Applied(next.clone())
        };
        self.show(&frame);
        (if request.method == Method::POST { 201 } else { 200 }, next)
    }

    fn commit_lease(
        &mut self,
        request: &UnderWay,
        refusal: impl Fn(u16, &str) -> (u16, Value),
    ) -> (u16, Value) {
        match (&request.method, &self.lease) {
            (&Method::GET, Some(lease)) => return (200, lease.clone()),
            (&Method::GET, None) => return refusal(404, "NotFound"),
            (&Method::POST, Some(_)) => return refusal(409, "AlreadyExists"),
            (_, stored) => {
                let seen = &request.body["metadata"]["resourceVersion"];
                if stored.as_ref().is_some_and(|lease| lease["metadata"]["resourceVersion"] != *seen) {
                    return refusal(409, "Conflict");
                }
            }
        }
        self.version += 1;
        let mut lease = request.body.clone();
        lease["metadata"]["uid"] = "lease".into();
        lease["metadata"]["resourceVersion"] = self.version.to_string().into();
        self.has_successor |= self.held.is_some_and(|(holder, _)| holder != request.who);
        self.held = Some((request.who, self.now));
        self.lease = Some(lease.clone());
        self.show(&Frame::Lease(lease.clone()));
        (200, lease)
    }

    fn show(&mut self, frame: &Frame) {
        for frames in &mut self.frames {
            frames.push(frame.clone());
        }
    }
}

/// One manager: elector, fence, controller and executor, joined as in the real one.
struct Process {
    who: usize,
    runtime: Runtime,
    server: Arc<Mutex<Server>>,
    rig: Rig,
    shown: watch::Sender<Observed>,
    start: Instant,
}

impl Process {
    fn start(who: usize, server: Arc<Mutex<Server>>) -> Self {
        let runtime =
            Builder::new_current_thread().enable_time().start_paused(true).event_interval(1).build().unwrap();
        let inside = runtime.enter();
        let start = Instant::now();
        let client = |fence| client(who, Arc::clone(&server), fence);
        let (shown, observed) = watch::channel(None);
        let config = LeaseConfig::new(ObjectKey::new("ns", "l"), format!("process-{who}"));
        let clock = Arc::new(move || seconds(1000) + start.elapsed());
        let (elector, leadership) = Elector::new(client(None), config, clock, observed);
        let Leadership { mut leading, fence } = leadership;
        tokio::spawn(elector.run(CancellationToken::new()));
        let setup = Setup { fence: fence.clone(), ..Setup::new(decide) };
        let rig = setup.start_over(crate::wire::Wire::default(), client(Some(fence)));
        let leads = rig.leading.clone();
        leads.send_replace(false);
        tokio::spawn(async move {
            while leading.changed().await.is_ok() {
                leads.send_replace(*leading.borrow_and_update());
            }
        });
        drop(inside);
        Self { who, runtime, server, rig, shown, start }
    }

    /// Shows what the watches have brought meanwhile.
    fn see(&mut self) {
        let _inside = self.runtime.enter();
        let frames = std::mem::take(&mut self.server.lock().unwrap().frames[self.who]);
        for frame in frames {
            match frame {
                Frame::Lease(lease) => {
                    let seen = (Arc::new(read::<LeaseView>(lease)), seconds(1000) + self.start.elapsed());
                    self.shown.send_replace(Some(seen));
                }
                Frame::Applied(pod) => self.rig.pods.apply(read::<Pod>(pod)),
                Frame::Deleted(pod) => self.rig.pods.delete(read::<Pod>(pod)),
            }
        }
    }

    /// Asks for a pass over every key.
    fn ask(&self) {
        let _inside = self.runtime.enter();
        for number in 0..KEYS {
            self.rig.event(&key(&format!("k{number}")));
        }
    }

    /// Runs for that long.
    fn run(&mut self, time: Duration) {
        self.see();
        self.runtime.block_on(async { sleep(time).await });
    }

    /// Runs so many polls, in no time.
    fn run_polls(&self, polls: usize) {
        let mut left = polls;
        // One poll of a task lies between two of this future; tokio's own yield would let all of them run.
        self.runtime.block_on(poll_fn(|context| {
            if left == 0 {
                return Poll::Ready(());
            }
            left -= 1;
            context.waker().wake_by_ref();
            Poll::Pending
        }));
    }

    /// Goes on after it was stopped for that long.
    fn wake(&self, after: Duration) {
        self.runtime.block_on(tokio::time::advance(after));
    }
}

fn read<T: serde::de::DeserializeOwned>(object: Value) -> T {
    serde_json::from_value(object).unwrap()
}

/// Makes what is missing; of the rest, now patches, now deletes, on the version seen.
fn decide(seen: &Seen) -> Plan {
    let Some(pod) = &seen.pod else { return plan(vec![vec![create(&seen.key)]]) };
    let version = pod.version();
    let mut write = if seen.passes % 5 == 4 { delete(&seen.key) } else { patch(&seen.key) };
    match &mut write.action {
        Action::Delete { resource_version, .. } => *resource_version = Some(version),
        Action::Patch { patch: Patch::Json { operations }, .. } => {
            let same =
                json!({"op": "test", "path": "/metadata/resourceVersion", "value": version.to_string()});
            // Something new each time: nobody is to be suspected of undoing it.
            operations[1]["value"] = version.to_string().into();
            operations.as_array_mut().unwrap().push(same);
        }
        Action::Create { .. }
        | Action::Patch { .. }
        | Action::Apply { .. }
        | Action::Evict { .. }
        | Action::Status { .. }
        | Action::DryRun { .. } => {}
    }
    plan(vec![vec![write]])
}

/// A client whose requests leave the process when their bodies are taken.
fn client(who: usize, server: Arc<Mutex<Server>>, fence: Option<Fence>) -> kube::Client {
    let fence = fence.unwrap_or_else(Fence::always_open);
    let service = tower::service_fn(move |request: Request<FencedBody>| {
        let server = Arc::clone(&server);
        async move {
            let (head, body) = request.into_parts();
            // As between hyper's client and the task of its connection.
            tokio::task::yield_now().await;
            let body = body.collect().await?.to_bytes();
            let body = serde_json::from_slice(&body).unwrap_or_default();
            let answer = server.lock().unwrap().arrive(who, head.method, head.uri.to_string(), body);
            let (code, body) = answer.await?;
            Ok::<_, BoxError>(Response::builder().status(code).body(Body::from(body.to_string()))?)
        }
    });
    kube::Client::new(FenceLayer::new(fence).layer(service), "default")
}

/// One pause; gives what the server has seen.
fn pause(seed: u64) -> Arc<Mutex<Server>> {
    let mut random = StdRng::seed_from_u64(seed);
    let server = Arc::new(Mutex::new(Server {
        random: Some(StdRng::seed_from_u64(random.random())),
        version: 1,
        ..Server::default()
    }));
    let mut leader = Process::start(0, Arc::clone(&server));
    let mut now = Duration::ZERO;
    let until = |now: &mut Duration, end: Duration, step: Duration, processes: &mut [&mut Process]| {
        while *now < end {
            *now += step;
            let ask = now.as_millis().is_multiple_of(1_000);
            for process in processes.iter_mut() {
                if ask {
                    process.ask();
                }
                process.run(step);
            }
            server.lock().unwrap().advance(*now);
        }
    };
    until(&mut now, STEP, STEP, &mut [&mut leader]);
    let mut standby = Process::start(1, Arc::clone(&server));
    standby.see();
    standby.wake(now);
    let stop = Duration::from_millis(100 * random.random_range(10..90));
    until(&mut now, stop, STEP, &mut [&mut leader, &mut standby]);

    leader.see();
    leader.ask();
    leader.run_polls(random.random_range(0..60));
    let stopped = now;
    let length = Duration::from_millis(random.random_range(10_000..60_000));
    until(&mut now, stopped + length, 5 * STEP, &mut [&mut standby]);
    leader.wake(now - stopped);
    // Its watches learn of what happened when its sockets are read, after some of its other tasks have run.
    leader.run_polls(random.random_range(0..60));
    let end = now + seconds(12);
    until(&mut now, end, STEP, &mut [&mut leader, &mut standby]);
    server
}

#[test]
fn a_leader_that_was_stopped_past_its_lease_stores_nothing_more() {
    let (mut pauses, mut expired, mut stored) = (0, 0, [0, 0]);
    while expired < expiries() {
        assert!(
            pauses < TRIES_MAX * expiries(),
            "a successor took over in {expired} of {pauses} pauses only"
        );
        let seed = u64::try_from(pauses).unwrap();
        let server = pause(seed);
        let server = server.lock().unwrap();
        assert!(server.faults.is_empty(), "seed {seed}: {:#?}", server.faults);
        pauses += 1;
        expired += usize::from(server.has_successor);
        stored[0] += server.stored[0];
        stored[1] += server.stored[1];
    }
    assert!(stored.iter().all(|stored| *stored > pauses), "{stored:?} writes in {pauses} pauses");
    println!("{pauses} pauses, a successor in {expired} of them, {stored:?} writes");
}
