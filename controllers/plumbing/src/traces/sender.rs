//! The way to the collector.

use super::Endpoint;
use crate::outbound::with_causes;
use async_trait::async_trait;
use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Full, Limited};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use opentelemetry_http::{HttpClient, HttpError};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::runtime::Runtime;

/// How long a batch may take to be sent and answered: the default of OTLP.
const DEADLINE: Duration = Duration::from_secs(10);
/// The most bytes of an answer that are read; it says how many spans were refused, and why.
const MAX_ANSWER_BYTES: usize = 65_536;

/// Sends batches, and says once when they do not arrive, and once when they do again.
#[derive(Debug)]
pub(super) struct Sender {
    endpoint: Endpoint,
    /// Apart from the manager's: a name that is not resolved holds a thread until it is, and would hold the end of
    /// the process.
    runtime: OnceLock<Runtime>,
    news: News,
}

impl Sender {
    pub(super) fn new(endpoint: Endpoint) -> Self {
        Self { endpoint, runtime: OnceLock::new(), news: News::default() }
    }

    fn runtime(&self) -> Result<&Runtime, HttpError> {
        if let Some(runtime) = self.runtime.get() {
            return Ok(runtime);
        }
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        Ok(self.runtime.get_or_init(|| runtime))
    }

    fn tell(&self, sent: &Result<Response<Bytes>, HttpError>) {
        let problem = match sent {
            Ok(response) if response.status().is_success() => None,
            Ok(response) => Some(format!("answered {}", response.status())),
            Err(error) => Some(with_causes(error.as_ref())),
        };
        if !self.news.is_new(problem.is_none()) {
            return;
        }
        let endpoint = &self.endpoint;
        match problem {
            Some(error) => tracing::warn!(
                %endpoint, error, "traces do not reach the collector (tracing.otlpEndpoint); until they do they are lost, \
                 and nothing else is"
            ),
            None => tracing::info!(%endpoint, "traces reach the collector again"),
        }
    }
}

#[async_trait]
impl HttpClient for Sender {
    /// Called by the thread of the batches alone, which has nothing else to do and no runtime of its own.
    async fn send_bytes(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let runtime = self.runtime()?;
        let sent = runtime.block_on(async {
            tokio::time::timeout(DEADLINE, send(request))
                .await
                .unwrap_or_else(|_| Err(format!("no answer within {} seconds", DEADLINE.as_secs()).into()))
        });
        self.tell(&sent);
        sent
    }
}

/// Over a connection of its own: between batches nobody would notice the end of an old one.
async fn send(request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
    let client: Client<HttpConnector, Full<Bytes>> =
        Client::builder(TokioExecutor::new()).pool_max_idle_per_host(0).build(HttpConnector::new());
    let (head, body) = client.request(request.map(Full::new)).await?.into_parts();
    let body = Limited::new(body, MAX_ANSWER_BYTES).collect().await?.to_bytes();
    Ok(Response::from_parts(head, body))
}

/// Whether what came out now differs from what came out before; at first all is taken to be well.
#[derive(Debug, Default)]
struct News {
    fails: AtomicBool,
}

impl News {
    fn is_new(&self, succeeded: bool) -> bool {
        self.fails.swap(!succeeded, Ordering::Relaxed) == succeeded
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::FutureExt;

    #[test]
    fn only_a_change_is_news() {
        let news = News::default();
        let said: Vec<bool> =
            [true, true, false, false, true, true, false].map(|succeeded| news.is_new(succeeded)).into();
        assert_eq!(said, [false, false, true, false, true, false, true]);
    }

    /// A port that was free a moment ago and that nobody listens at.
    fn nobody() -> Endpoint {
        let port = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap().local_addr().unwrap().port();
        format!("http://127.0.0.1:{port}").parse().unwrap()
    }

    #[test]
    fn a_collector_that_is_not_there_is_an_error_with_its_cause() {
        let sender = Sender::new(nobody());
        let request = Request::post(sender.endpoint.traces_url()).body(Bytes::new()).unwrap();
        // It blocks, so it has ended when it is polled once.
        let error = sender.send_bytes(request).now_or_never().unwrap().unwrap_err();
        assert!(with_causes(error.as_ref()).contains("refused"), "{error:?}");
        assert!(sender.news.fails.load(Ordering::Relaxed));
    }
}
