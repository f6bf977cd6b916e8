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
