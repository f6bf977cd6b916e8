//! The other end of kube's client, given by a closure.

use axum::body::{Body, Bytes};
use futures::stream;
use http::{Method, Request, Response, Uri};
use http_body_util::BodyExt;
use hyper_util::client::legacy::Client as Http;
use hyper_util::rt::{TokioExecutor, TokioIo};
use kube::Client;
use serde_json::{Value, json};
use std::future::ready;
use std::io::{Error, ErrorKind};
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep};
use tower::BoxError;

/// So many requests only a hot loop makes.
const A_SPIN: usize = 20_000;

/// One request as it went out.
#[derive(Clone, Debug)]
pub(crate) struct Sent {
    pub(crate) method: Method,
    pub(crate) path: String,
    pub(crate) query: String,
    pub(crate) body: Value,
    pub(crate) at: Instant,
}

impl Sent {
    pub(crate) fn is(&self, method: &Method) -> bool {
        self.method == *method
    }

    /// The last part of the path; for a create, the name in the manifest.
    pub(crate) fn name(&self) -> &str {
        match self.body["metadata"]["name"].as_str() {
            Some(name) => name,
            None => self.path.rsplit('/').next().unwrap_or_default(),
        }
    }

    pub(crate) fn namespace(&self) -> &str {
        self.path.split('/').skip_while(|part| *part != "namespaces").nth(1).unwrap_or_default()
    }
}

/// What comes back.
#[derive(Clone, Debug)]
pub(crate) enum Reply {
    /// Code, Retry-After, body.
    Answer(u16, Option<u32>, Value),
    /// The same, as of this priority level.
    OnLevel(&'static str, Box<Reply>),
    /// The same after some time.
    After(Duration, Box<Reply>),
    /// Nothing, ever.
    Silence,
    /// The connection breaks after the request has gone out.
    Reset,
    /// The head says that all is well, then the connection breaks.
    ResetInBody,
    /// The connection is refused.
    Unreachable,
}

impl Reply {
    pub(crate) fn after(self, time: Duration) -> Self {
        Self::After(time, Box::new(self))
    }

    pub(crate) fn on_level(self, uid: &'static str) -> Self {
        Self::OnLevel(uid, Box::new(self))
    }
}

pub(crate) fn answer(code: u16, body: Value) -> Reply {
    Reply::Answer(code, None, body)
}

fn failure(code: u16, reason: &str) -> Value {
    json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code, "reason": reason,
           "message": "scripted"})
}

pub(crate) fn refuse(code: u16, reason: &str) -> Reply {
    answer(code, failure(code, reason))
}

/// Asks to come again after so many seconds.
pub(crate) fn busy(retry_after: u32) -> Reply {
    Reply::Answer(429, Some(retry_after), failure(429, "TooManyRequests"))
}

/// An object of that name, as the server shows it in the given version.
pub(crate) fn object(namespace: &str, name: &str, version: u64) -> Value {
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": {
        "namespace": namespace, "name": name, "uid": format!("uid-{name}"),
        "resourceVersion": version.to_string(),
    }})
}

/// Says yes: the object written, in that version.
pub(crate) fn done(sent: &Sent, version: u64) -> Reply {
    answer(if sent.is(&Method::POST) { 201 } else { 200 }, object(sent.namespace(), sent.name(), version))
}

/// The requests made so far.
#[derive(Clone, Default)]
pub(crate) struct Wire {
    sent: Arc<Mutex<Vec<Sent>>>,
    in_flight: Arc<AtomicUsize>,
    most_in_flight: Arc<AtomicUsize>,
}

impl Wire {
    /// A wire and a client whose requests `reply` answers.
    pub(crate) fn new(reply: impl Fn(&Sent) -> Reply + Send + Sync + 'static) -> (Self, Client) {
        let wire = Self::default();
        let (recorder, reply) = (wire.clone(), Arc::new(reply));
        let service = tower::service_fn(move |request| recorder.clone().serve(request, Arc::clone(&reply)));
        (wire, Client::new(service, "default"))
    }

    async fn serve(
        self,
        request: Request<kube::client::Body>,
        reply: Arc<impl Fn(&Sent) -> Reply>,
    ) -> Result<Response<Body>, BoxError> {
        let (head, body) = request.into_parts();
        let body = body.collect().await?.to_bytes();
        let sent = Sent {
            method: head.method,
            path: head.uri.path().to_owned(),
            query: head.uri.query().unwrap_or_default().to_owned(),
            body: serde_json::from_slice(&body).unwrap_or_default(),
            at: Instant::now(),
        };
        self.sent.lock().unwrap().push(sent.clone());
        let _under_way = UnderWay::new(&self);
        // A loop without a pause would keep paused time from ever going on.
        let mut reply = if self.len() > A_SPIN { Reply::Silence } else { reply(&sent) };
        let mut level = None;
        loop {
            reply = match reply {
                Reply::OnLevel(uid, then) => {
                    level = Some(uid);
                    *then
                }
                Reply::After(time, then) => {
                    sleep(time).await;
                    *then
                }
                Reply::Answer(code, retry_after, body) => {
                    let mut response = Response::builder().status(code);
                    if let Some(seconds) = retry_after {
                        response = response.header("retry-after", seconds);
                    }
                    if let Some(uid) = level {
                        response = response.header("X-Kubernetes-PF-PriorityLevel-UID", uid);
                    }
                    return Ok(response.body(Body::from(body.to_string()))?);
                }
                Reply::Silence => std::future::pending().await,
                Reply::Reset => return Err(Error::from(ErrorKind::ConnectionReset).into()),
                Reply::ResetInBody => {
                    let cut = [Ok(Bytes::from("{\"kind\":")), Err(Error::from(ErrorKind::ConnectionReset))];
                    return Ok(Response::builder().status(201).body(Body::from_stream(stream::iter(cut)))?);
                }
                Reply::Unreachable => return Err(refused_connection().await),
            }
        }
    }

    pub(crate) fn all(&self) -> Vec<Sent> {
        self.sent.lock().unwrap().clone()
    }

    pub(crate) fn len(&self) -> usize {
        self.sent.lock().unwrap().len()
    }

    pub(crate) fn count(&self, method: &Method) -> usize {
        self.all().iter().filter(|sent| sent.is(method)).count()
    }

    /// The methods in the order in which the requests went out.
    pub(crate) fn methods(&self) -> Vec<String> {
        self.all().iter().map(|sent| sent.method.to_string()).collect()
    }

    /// The names in the order in which the requests went out.
    pub(crate) fn names(&self) -> Vec<String> {
        self.all().iter().map(|sent| sent.name().to_owned()).collect()
    }

    /// The time between each request and the one before it.
    pub(crate) fn gaps(&self) -> Vec<Duration> {
        self.all().windows(2).map(|pair| pair[1].at - pair[0].at).collect()
    }

    /// The most requests that were under way at once.
    pub(crate) fn most_in_flight(&self) -> usize {
        self.most_in_flight.load(SeqCst)
    }
}

struct UnderWay<'a>(&'a Wire);

impl<'a> UnderWay<'a> {
    fn new(wire: &'a Wire) -> Self {
        let now = wire.in_flight.fetch_add(1, SeqCst) + 1;
        wire.most_in_flight.fetch_max(now, SeqCst);
        Self(wire)
    }
}

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        self.0.in_flight.fetch_sub(1, SeqCst);
    }
}

/// What hyper says when nobody listens: its error cannot be made by hand.
async fn refused_connection() -> BoxError {
    let connector = tower::service_fn(|_: Uri| {
        ready(Err::<TokioIo<TcpStream>, _>(Error::from(ErrorKind::ConnectionRefused)))
    });
    let http: Http<_, Body> = Http::builder(TokioExecutor::new()).build(connector);
    http.get(Uri::from_static("http://api.test/")).await.unwrap_err().into()
}
