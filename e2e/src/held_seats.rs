//! A tenant that keeps the seats of a priority level, so that the API server refuses all others there.

use std::convert::Infallible;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use bytes::Bytes;
use futures::stream::{self, Pending};
use http::header::{CONTENT_LENGTH, CONTENT_TYPE};
use http::{Method, Request, StatusCode};
use http_body_util::StreamBody;
use http_body_util::combinators::BoxBody;
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use kube::client::ConfigExt;
use kube::config::{KubeConfigOptions, Kubeconfig};
use tokio::task::JoinSet;

/// So much body is promised. Go's server reads up to 256 kB of a body that nobody wanted before it answers.
const BODY_BYTES: u32 = 1 << 20;
/// More seats than the level of a test has.
const SEATS_MAX: usize = 32;
/// After so long the next request is sent: this one has most likely got its seat.
const ANSWER: Duration = Duration::from_millis(200);

/// How long [`HeldSeats::take_all`] may take.
pub const TAKEN_WITHIN: Duration = ANSWER.saturating_mul(SEATS_MAX as u32);

/// Requests that the server waits for in vain: it has read their heads and reads their bodies, which do not
/// come, and each keeps a seat meanwhile. Dropping this breaks them off.
#[derive(Debug)]
pub struct HeldSeats {
    requests: JoinSet<Result<StatusCode>>,
}

impl HeldSeats {
    /// Sends creates of ConfigMaps into `namespace`, as the user of `kubeconfig`, until the server refuses
    /// one for want of a seat. Their level must refuse and not queue.
    ///
    /// # Errors
    /// There are more than 32 seats, or a request is answered otherwise.
    pub async fn take_all(kubeconfig: &Path, namespace: &str) -> Result<Self> {
        let parsed = Kubeconfig::read_from(kubeconfig).context("read the tenant's kubeconfig")?;
        let config = kube::Config::from_custom_kubeconfig(parsed, &KubeConfigOptions::default()).await?;
        let connector = config.rustls_https_connector().context("the tenant's TLS")?;
        let client = Client::builder(TokioExecutor::new()).build(connector);
        let url = format!(
            "{}/api/v1/namespaces/{namespace}/configmaps",
            config.cluster_url.to_string().trim_end_matches('/')
        );
        let mut held = Self { requests: JoinSet::new() };
        for _ in 0..SEATS_MAX {
            let body: Pending<Result<_, Infallible>> = stream::pending();
            let request = Request::builder()
                .method(Method::POST)
                .uri(&url)
                .header(CONTENT_TYPE, "application/json")
                .header(CONTENT_LENGTH, BODY_BYTES)
                .body(BoxBody::<Bytes, Infallible>::new(StreamBody::new(body)))?;
            let answer = client.request(request);
            held.requests.spawn(async move { Ok(answer.await?.status()) });
            match tokio::time::timeout(ANSWER, held.requests.join_next()).await {
                Err(_) | Ok(None) => {}
                Ok(Some(answer)) => match answer?? {
                    StatusCode::TOO_MANY_REQUESTS => return Ok(held),
                    status => bail!("a request without its body was answered with {status}"),
                },
            }
        }
        bail!("the level has more than {SEATS_MAX} seats")
    }

    /// Whether all of them are still held.
    ///
    /// # Errors
    /// A request has ended.
    pub fn verify(&mut self) -> Result<()> {
        let ended = self.requests.try_join_next();
        ensure!(ended.is_none(), "a request has lost its seat: {ended:?}");
        Ok(())
    }
}
