//! A proxy that shows one kind late: what its watches send arrives some seconds after
//! everything else, as from an API server that lags behind.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result};
use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{Response, StatusCode, header};
use futures::{StreamExt, stream};
use http_body_util::BodyExt;
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::task::AbortHandle;
use tokio::time::Instant;

use crate::local_cluster::LocalCluster;

/// The largest request body that is passed on: the API server's own limit.
const BODY_MAX_BYTES: usize = 3 << 20;
/// Chunks of a watch that may be on their way, above what a test's events come to.
const DELAYED_MAX: usize = 1 << 16;

/// A running proxy on loopback, in plain HTTP. It belongs to the runtime that
/// started it; dropping it ends it.
#[derive(Debug)]
pub struct LateWatch {
    kubeconfig: PathBuf,
    task: AbortHandle,
}

impl Drop for LateWatch {
    fn drop(&mut self) {
        self.task.abort();
    }
}

#[derive(Clone)]
struct Late {
    client: kube::Client,
    /// Path of the collection whose watches are late.
    path: &'static str,
    delay: Duration,
}

impl LateWatch {
    /// Starts a proxy to `cluster`, with the rights of an administrator. Watches on
    /// `path`, such as `/api/v1/pods`, are `delay` late; all else passes at once.
    ///
    /// # Errors
    /// It cannot listen.
    pub async fn start(cluster: &LocalCluster, path: &'static str, delay: Duration) -> Result<Self> {
        // The client's own bound for silence would break a quiet watch.
        let mut config = cluster.config();
        config.read_timeout = None;
        let client = kube::Client::try_from(config).context("the proxy's client")?;
        let listener = TcpListener::bind(SocketAddr::from(([127, 0, 0, 1], 0))).await?;
        let address = listener.local_addr()?;
        let kubeconfig = cluster.folder().join(format!("late-{}.kubeconfig", address.port()));
        let config = serde_json::json!({
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "late", "cluster": {"server": format!("http://{address}")}}],
            "contexts": [{"name": "late", "context": {"cluster": "late"}}],
            "current-context": "late",
        });
        std::fs::write(&kubeconfig, config.to_string()).context("write the proxy's kubeconfig")?;
        let router = Router::new().fallback(forward).with_state(Late { client, path, delay });
        let task = tokio::spawn(async move {
            if let Err(error) = axum::serve(listener, router).await {
                tracing::error!(%error, "the proxy ended");
            }
        });
        Ok(Self { kubeconfig, task: task.abort_handle() })
    }

    /// A kubeconfig that leads through the proxy.
    #[must_use]
    pub fn kubeconfig(&self) -> &std::path::Path {
        &self.kubeconfig
    }
}

async fn forward(State(late): State<Late>, request: Request) -> Response<Body> {
    match pass_on(&late, request).await {
        Ok(response) => response,
        Err(error) => {
            let mut response = Response::new(Body::from(format!("{error:#}")));
            *response.status_mut() = StatusCode::BAD_GATEWAY;
            response
        }
    }
}

async fn pass_on(late: &Late, request: Request) -> Result<Response<Body>> {
    let (mut head, body) = request.into_parts();
    // The client has an address and a connection of its own.
    head.headers.remove(header::HOST);
    head.headers.remove(header::CONNECTION);
    let query = head.uri.query().unwrap_or_default();
    let is_late = head.uri.path() == late.path
        && query.split('&').any(|pair| pair == "watch=true" || pair == "watch=1");
    let body = axum::body::to_bytes(body, BODY_MAX_BYTES).await.context("the request's body")?;
    let request = http::Request::from_parts(head, kube::client::Body::from(body.to_vec()));
    let response = late.client.send(request).await.context("the API server does not answer")?;
    let (head, body) = response.into_parts();
    let body = if is_late { Body::from_stream(delayed(body, late.delay)) } else { Body::new(body) };
    Ok(Response::from_parts(head, body))
}

/// The chunks of a body, each so much later than it came; they do not wait for each other.
fn delayed(
    body: kube::client::Body,
    delay: Duration,
) -> impl futures::Stream<Item = Result<bytes::Bytes, kube::Error>> {
    let (sender, receiver) = mpsc::channel(DELAYED_MAX);
    let mut chunks = body.into_data_stream();
    tokio::spawn(async move {
        while let Some(chunk) = chunks.next().await {
            if sender.send((Instant::now() + delay, chunk)).await.is_err() {
                // The reader has gone.
                return;
            }
        }
    });
    stream::unfold(receiver, |mut receiver| async move {
        let (due, chunk) = receiver.recv().await?;
        tokio::time::sleep_until(due).await;
        Some((chunk, receiver))
    })
}
