//! The HTTP endpoints of the process: `/livez`, `/readyz`, `/metrics`.

use crate::metrics::{CONTENT_TYPE, Metrics};
use crate::store::StoreView;
use axum::Router;
use axum::extract::{Query, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use std::fmt::Write as _;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// How often the event loop shows that it turns.
const HEARTBEAT: Duration = Duration::from_secs(1);
/// An event loop that has not turned for this long is stuck.
const HEARTBEAT_LOST: Duration = Duration::from_secs(30);

/// What the endpoints answer from.
pub struct Health {
    /// What `/metrics` shows.
    pub metrics: Arc<Metrics>,
    /// Ready when all of them are synced; a standby's are, too.
    pub stores: Arc<[Arc<dyn StoreView>]>,
    /// Names of the controllers that rest on the stores.
    pub controllers: Vec<&'static str>,
}

struct Shared {
    health: Health,
    beat: Mutex<Instant>,
}

/// The endpoints, bound to an address but not yet served.
pub struct HealthServer {
    listener: TcpListener,
    shared: Arc<Shared>,
}

impl HealthServer {
    /// Binds `address`; port 0 takes a free one.
    ///
    /// # Errors
    /// The address cannot be bound.
    pub async fn bind(address: SocketAddr, health: Health) -> std::io::Result<Self> {
        let listener = TcpListener::bind(address).await?;
        Ok(Self { listener, shared: Arc::new(Shared { health, beat: Mutex::new(Instant::now()) }) })
    }

    /// The address bound.
    ///
    /// # Errors
    /// The socket is gone.
    pub fn address(&self) -> std::io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Serves until `stop`.
    ///
    /// # Errors
    /// The listener fails.
    pub async fn serve(self, stop: CancellationToken) -> std::io::Result<()> {
        let router = Router::new()
            .route("/livez", get(livez))
            .route("/readyz", get(readyz))
            .route("/metrics", get(metrics))
            .with_state(self.shared.clone());
        let served = axum::serve(self.listener, router).with_graceful_shutdown(stop.cancelled_owned());
        tokio::select! {
            served = served.into_future() => served,
            () = beat(&self.shared) => Ok(()),
        }
    }
}

/// Never the API server: a cluster that is down must not restart its controllers.
async fn livez(State(shared): State<Arc<Shared>>) -> Response {
    let age = shared.beat.lock().unwrap_or_else(PoisonError::into_inner).elapsed();
    if age < HEARTBEAT_LOST {
        (StatusCode::OK, "ok\n").into_response()
    } else {
        let text = format!("the event loop has not turned for {} s\n", age.as_secs());
        (StatusCode::SERVICE_UNAVAILABLE, text).into_response()
    }
}

#[derive(serde::Deserialize)]
struct Verbose {
    verbose: Option<String>,
}

async fn readyz(State(shared): State<Arc<Shared>>, Query(query): Query<Verbose>) -> Response {
    let stores = &shared.health.stores;
    let ready = stores.iter().all(|store| store.is_synced());
    let mut text = String::new();
    if query.verbose.is_some() || !ready {
        for store in stores.iter() {
            let (mark, state) = if store.is_synced() { ('+', "synced") } else { ('-', "not synced") };
            let _ = writeln!(
                text,
                "[{mark}] store {} {state}, {} objects",
                store.resource(),
                store.object_count()
            );
            // Who has one watch for each namespace learns which of them is missing, and why.
            for part in store.parts() {
                let what = match part.obstacle() {
                    Some(obstacle) => obstacle,
                    None if part.is_synced() => continue,
                    None => "not listed yet".to_owned(),
                };
                let namespace = part.namespace().map_or("all namespaces", |namespace| &**namespace);
                let _ = writeln!(text, "[-] watch {} in {namespace}: {what}", store.resource());
            }
        }
        for controller in &shared.health.controllers {
            let (mark, state) = if ready { ('+', "ready") } else { ('-', "waits for its stores") };
            let _ = writeln!(text, "[{mark}] controller {controller} {state}");
        }
    }
    text.push_str(if ready { "ok\n" } else { "not ready\n" });
    let code = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (code, text).into_response()
}

async fn metrics(State(shared): State<Arc<Shared>>) -> Response {
    match shared.health.metrics.encode() {
        Ok(text) => ([(header::CONTENT_TYPE, CONTENT_TYPE)], text).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}

async fn beat(shared: &Shared) {
    loop {
        *shared.beat.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
        tokio::time::sleep(HEARTBEAT).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::ResourceVersion;
    use crate::projection::{Meta, NoLabels, Projection};
    use crate::store::{Store, StoreWriter, Trouble};
    use crate::watch::Scope;
    use std::collections::BTreeMap;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpStream;

    #[derive(Clone, Debug, serde::Deserialize)]
    struct Node {
        metadata: Meta,
    }

    impl Projection for Node {
        const RESOURCE: crate::key::Resource = crate::key::Resource::NODE;
        type Labels = NoLabels;
        fn meta(&self) -> &Meta {
            &self.metadata
        }
    }

    fn health() -> (Health, StoreWriter<Node>) {
        let (store, writer) = Store::<Node>::new(&[]);
        let metrics = Arc::new(Metrics::new(&["batch-job"]));
        let stores: Arc<[Arc<dyn StoreView>]> = Arc::new([Arc::new(store)]);
        (Health { metrics, stores, controllers: vec!["batch-job"] }, writer)
    }

    /// One request on a connection of its own: the status, the head and the body.
    async fn get(address: SocketAddr, path: &str) -> (u16, String, String) {
        let mut stream = TcpStream::connect(address).await.unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nhost: test\r\nconnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        let code = head.split(' ').nth(1).unwrap().parse().unwrap();
        (code, head.to_owned(), body.to_owned())
    }

    #[tokio::test]
    async fn a_process_is_ready_when_its_stores_are_synced_and_ends_when_told() {
        let (health, mut nodes) = health();
        let server = HealthServer::bind("127.0.0.1:0".parse().unwrap(), health).await.unwrap();
        let address = server.address().unwrap();
        assert_ne!(address.port(), 0);
        let stop = CancellationToken::new();
        let served = tokio::spawn(server.serve(stop.clone()));

        let (code, _, body) = get(address, "/readyz").await;
        assert_eq!(code, 503);
        assert!(body.contains("[-] store nodes not synced"), "{body}");
        assert!(body.contains("[-] controller batch-job waits for its stores"), "{body}");
        assert_eq!(get(address, "/livez").await.0, 200, "alive before it is ready");
        nodes.set_obstacle("answered 403: nodes is forbidden".to_owned());
        let (_, _, body) = get(address, "/readyz").await;
        let line = "[-] watch nodes in all namespaces: answered 403: nodes is forbidden\n";
        assert!(body.contains(line), "{body}");

        nodes.replace(BTreeMap::new(), ResourceVersion(1));
        let (code, _, body) = get(address, "/readyz").await;
        assert_eq!((code, body.as_str()), (200, "ok\n"));
        let (_, _, body) = get(address, "/readyz?verbose").await;
        assert_eq!(body, "[+] store nodes synced, 0 objects\n[+] controller batch-job ready\nok\n");

        let (code, head, body) = get(address, "/metrics").await;
        assert_eq!(code, 200);
        assert!(head.to_lowercase().contains(&format!("content-type: {CONTENT_TYPE}")), "{head}");
        assert!(body.ends_with("# EOF\n"), "{body}");
        assert_eq!(get(address, "/other").await.0, 404);

        stop.cancel();
        served.await.unwrap().unwrap();
        TcpStream::connect(address).await.unwrap_err();
    }

    #[tokio::test]
    async fn a_namespace_that_may_not_be_seen_is_told_and_holds_nobody_up() {
        let (store, writers) = Store::<Node>::within(&Scope::of(["a", "b"]), &[]);
        let [mut a, mut b] = <[_; 2]>::try_from(writers).unwrap();
        let metrics = Arc::new(Metrics::new(&["batch-job"]));
        let health = Health { metrics, stores: Arc::new([Arc::new(store)]), controllers: vec!["batch-job"] };
        let shared = Arc::new(Shared { health, beat: Mutex::new(Instant::now()) });
        let look = async || {
            let verbose = Query(Verbose { verbose: Some(String::new()) });
            let response = readyz(State(Arc::clone(&shared)), verbose).await;
            let code = response.status();
            let body = axum::body::to_bytes(response.into_body(), 4096).await.unwrap();
            (code, String::from_utf8(body.to_vec()).unwrap())
        };
        b.set_trouble(Trouble::Forbidden);
        b.set_obstacle("answered 403".to_owned());
        let (code, text) = look().await;
        assert_eq!(code, StatusCode::SERVICE_UNAVAILABLE);
        assert!(text.contains("[-] watch nodes in a: not listed yet\n"), "{text}");
        a.replace(BTreeMap::new(), ResourceVersion(1));
        let (code, text) = look().await;
        assert_eq!(code, StatusCode::OK);
        assert!(text.contains("[-] watch nodes in b: answered 403\n") && !text.contains(" in a: "), "{text}");
    }

    #[tokio::test(start_paused = true)]
    async fn an_event_loop_that_does_not_turn_is_not_alive() {
        let (health, _nodes) = health();
        let shared = Arc::new(Shared { health, beat: Mutex::new(Instant::now()) });
        let code = async || livez(State(Arc::clone(&shared))).await.status();
        tokio::time::advance(HEARTBEAT_LOST - Duration::from_secs(1)).await;
        assert_eq!(code().await, StatusCode::OK);
        tokio::time::advance(Duration::from_secs(1)).await;
        assert_eq!(code().await, StatusCode::SERVICE_UNAVAILABLE);
        // It turns again.
        tokio::time::timeout(Duration::from_secs(5), beat(&shared)).await.unwrap_err();
        assert_eq!(code().await, StatusCode::OK);
    }
}
