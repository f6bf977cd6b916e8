//! The client.

use crate::wire::{Wire, done};
use http::{Method, Request, Response};
use kube::Client;
use kube::client::{Body, ClientBuilder, DynBody};
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio::time::{Interval, interval};
use tower::layer::layer_fn;
use tower::util::BoxService;
use tower::{BoxError, Service, ServiceExt};

/// What kube puts together by default.
type Stack = BoxService<Request<Body>, Response<Box<DynBody>>, BoxError>;

/// A limit as tower has it: the service is ready once per period.
struct Limit<S> {
    inner: S,
    turns: Interval,
}

impl<S: Service<Request<Body>>> Service<Request<Body>> for Limit<S> {
    type Response = S::Response;
    type Error = S::Error;
    type Future = S::Future;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        match self.turns.poll_tick(context) {
            Poll::Ready(_) => self.inner.poll_ready(context),
            Poll::Pending => Poll::Pending,
        }
    }

    fn call(&mut self, request: Request<Body>) -> S::Future {
        self.inner.call(request)
    }
}

#[tokio::test(start_paused = true)]
async fn a_limit_on_the_client_holds_a_lease_behind_writes() {
    let (wire, inner) = Wire::new(|sent| done(sent, 7));
    let inner = tower::service_fn(move |request| {
        let inner = inner.clone();
        async move { inner.send(request).await }
    });
    let limit = Limit { inner, turns: interval(Duration::from_millis(200)) };
    let client = Client::new(limit, "default");
    let write = |method, path: &str| {
        let request = Request::builder().method(method).uri(path).body(b"{}".to_vec()).unwrap();
        let client = client.clone();
        tokio::spawn(async move { client.request_text(request).await.unwrap() })
    };
    let pods: Vec<_> = (0..10).map(|_| write(Method::POST, "/api/v1/namespaces/ns/pods")).collect();
    tokio::task::yield_now().await;
    let lease = write(Method::PUT, "/apis/coordination.k8s.io/v1/namespaces/ns/leases/l");
    for request in pods.into_iter().chain([lease]) {
        request.await.unwrap();
    }
    let sent = wire.all();
    let waited = sent[10].at - sent[0].at;
    assert!(sent[10].is(&Method::PUT), "the lease overtakes what waits: {:?}", wire.methods());
    assert_eq!(waited, Duration::from_secs(2));
}

/// A server that says twice what one says whose reply got lost behind the commit, as far as a client can
/// tell; and how many POSTs it has got. Not on paused time: a socket is no timer. The client's first
/// waits are some milliseconds.
async fn unsure_server() -> (kube::Config, Arc<AtomicUsize>, JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let posts = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&posts);
    let serving = tokio::spawn(async move {
        loop {
            let (mut connection, _) = listener.accept().await.unwrap();
            let mut request = Vec::new();
            while !request.ends_with(b"{}") {
                assert!(connection.read_buf(&mut request).await.unwrap() > 0);
            }
            assert!(request.starts_with(b"POST "));
            let code =
                if counted.fetch_add(1, SeqCst) < 2 { "503 Service Unavailable" } else { "201 Created" };
            let answer = format!("HTTP/1.1 {code}\r\nconnection: close\r\ncontent-length: 2\r\n\r\n{{}}");
            connection.write_all(answer.as_bytes()).await.unwrap();
        }
    });
    (kube::Config::new(format!("http://{address}").parse().unwrap()), posts, serving)
}

fn create(client: &Client) -> impl Future<Output = kube::Result<String>> {
    client.request_text(Request::post("/api/v1/namespaces/ns/pods").body(b"{}".to_vec()).unwrap())
}

#[tokio::test]
async fn the_default_client_sends_a_post_again() {
    let (config, posts, serving) = unsure_server().await;
    create(&Client::try_from(config).unwrap()).await.unwrap();
    assert_eq!(posts.load(SeqCst), 3, "one create is one POST now");
    serving.abort();
}

#[tokio::test]
async fn a_layer_sees_one_request_where_three_are_sent() {
    let (config, posts, serving) = unsure_server().await;
    let seen = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&seen);
    let count = layer_fn(move |inner: Stack| {
        let counted = Arc::clone(&counted);
        inner.map_request(move |request: Request<Body>| {
            counted.fetch_add(1, SeqCst);
            request
        })
    });
    let client = ClientBuilder::try_from(config).unwrap().with_layer(&count).build();
    create(&client).await.unwrap();
    assert_eq!(
        (seen.load(SeqCst), posts.load(SeqCst)),
        (1, 3),
        "a limit of ours could see every attempt now"
    );
    serving.abort();
}
