//! Clients of one API server, one per purpose, so that leases and watches never wait behind writes.
//!
//! kube's own retry is off: it re-sends a POST whose answer was lost. Reads are retried here,
//! writes never within a pass.

#![allow(clippy::disallowed_types, reason = "the one place where clients are made")]

mod fenced;

pub use fenced::{FenceLayer, FencedBody, FencedService};
pub use kube::core::Status;

use crate::budget::WriteBudget;
use crate::key::{ObjectKey, Resource, ResourceVersion, Uid};
use crate::lease::Fence;
use crate::metrics::{MeasureRequests, Metrics};
use crate::rights::{NotGranted, Rights, Verb};
use fenced::FenceClosed;
use http::header::{HeaderValue, RETRY_AFTER, USER_AGENT};
use http::{Method, Request, Response, StatusCode};
use http_body_util::BodyExt;
use hyper_util::client::legacy::Client as HttpClient;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use kube::client::{Body, ClientBuilder, ConfigExt};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tower::retry::budget::{Budget as _, TpsBudget};
use tower::{BoxError, ServiceBuilder};

/// A server that does not answer the TCP and TLS handshake in this time is not there.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Deadline of one GET, retries not counted.
const GET_DEADLINE: Duration = Duration::from_secs(30);
/// Attempts of one GET, the first included.
const GET_ATTEMPTS: u32 = 3;
/// Wait before a GET is tried again where the server names no time.
const GET_RETRY_WAIT: Duration = Duration::from_millis(500);
/// The longest wait that the server may name for a GET: somebody waits for the answer, and will ask
/// again by itself.
const LONGEST_GET_WAIT: Duration = Duration::from_secs(30);

/// The header by which API Priority and Fairness names the level that a request was under.
const PRIORITY_LEVEL: &str = "x-kubernetes-pf-prioritylevel-uid";

/// Where the API server is and who we are there.
#[derive(Clone)]
pub struct Connection {
    config: Config,
    measure: Option<MeasureRequests>,
}

/// Why no connection could be set up.
#[derive(Debug, thiserror::Error)]
pub enum ConnectionError {
    /// The kubeconfig cannot be read or lacks the context.
    #[error("kubeconfig: {0}")]
    Kubeconfig(#[from] kube::config::KubeconfigError),
    /// Neither a kubeconfig nor a service account was found.
    #[error("neither kubeconfig nor in-cluster credentials: {0}; pass --kubeconfig or set KUBECONFIG")]
    Infer(#[from] kube::config::InferConfigError),
    /// The credentials do not make a client.
    #[error("client: {0}")]
    Client(#[from] kube::Error),
    /// The user agent has characters that a header cannot hold.
    #[error("user agent: {0}")]
    UserAgent(#[from] http::header::InvalidHeaderValue),
}

impl Connection {
    /// Reads the given kubeconfig, else `KUBECONFIG` and `~/.kube/config`, else the service account of the pod.
    ///
    /// # Errors
    /// When none of them gives a usable configuration.
    pub async fn load(kubeconfig: Option<&Path>, context: Option<&str>) -> Result<Self, ConnectionError> {
        let options =
            KubeConfigOptions { context: context.map(str::to_owned), ..KubeConfigOptions::default() };
        let config = match (kubeconfig, context) {
            (Some(path), _) => Config::from_custom_kubeconfig(Kubeconfig::read_from(path)?, &options).await?,
            (None, Some(_)) => Config::from_kubeconfig(&options).await?,
            (None, None) => Config::infer().await?,
        };
        Ok(Self::from_config(config))
    }

    /// Takes a ready configuration.
    pub fn from_config(mut config: Config) -> Self {
        config.default_retry = false;
        config.connect_timeout = Some(CONNECT_TIMEOUT);
        // A watch may be silent for a minute; its own liveness rule ends it, requests have deadlines.
        config.read_timeout = None;
        Self { config, measure: None }
    }

    /// The same, and the requests of the clients made from it are measured.
    #[must_use]
    pub fn measured(self, metrics: &Metrics) -> Self {
        let host = self.config.cluster_url.authority().map_or("", |authority| authority.as_str());
        let measure = metrics.measure_requests(host);
        Self { measure: Some(measure), ..self }
    }

    /// The namespace of the kubeconfig's context, or of the pod.
    pub fn default_namespace(&self) -> &str {
        &self.config.default_namespace
    }

    /// A client with connections of its own, known to the server's audit log by `user_agent`.
    ///
    /// # Errors
    /// When the credentials do not make a client.
    pub fn client(&self, user_agent: &str) -> Result<Client, ConnectionError> {
        let builder = ClientBuilder::try_from(self.named(user_agent)?)?;
        Ok(match &self.measure {
            Some(measure) => builder.with_layer(measure).build(),
            None => builder.build(),
        })
    }

    /// The same for a writer: what it writes leaves only while the fence is open. kube's own stack has no
    /// place for a layer this near to the connection, so it is put together here, of kube's parts.
    ///
    /// # Errors
    /// When the credentials do not make a client.
    pub fn writer(&self, user_agent: &str, fence: Fence) -> Result<Client, ConnectionError> {
        let config = self.named(user_agent)?;
        let mut connector = HttpConnector::new();
        connector.enforce_http(false);
        connector.set_connect_timeout(Some(CONNECT_TIMEOUT));
        let connector = config.rustls_https_connector_with_connector(connector)?;
        let service = ServiceBuilder::new()
            .layer(config.base_uri_layer())
            .option_layer(config.auth_layer()?)
            .layer(config.extra_headers_layer()?)
            .layer(FenceLayer::new(fence))
            .map_err(BoxError::from)
            .service(HttpClient::builder(TokioExecutor::new()).build(connector));
        let builder = ClientBuilder::new(service, config.default_namespace);
        Ok(match &self.measure {
            Some(measure) => builder.with_layer(measure).build(),
            None => builder.build(),
        })
    }

    fn named(&self, user_agent: &str) -> Result<Config, ConnectionError> {
        let mut config = self.config.clone();
        config.headers.push((USER_AGENT, HeaderValue::from_str(user_agent)?));
        Ok(config)
    }
}

/// A whole answer of the API server.
pub(crate) struct Answer {
    /// HTTP status.
    pub(crate) code: StatusCode,
    /// `Retry-After` in seconds, where the server sent one.
    pub(crate) retry_after: Option<Duration>,
    /// UID of the priority level that the request was under, where the server named one.
    pub(crate) priority_level: Option<String>,
    /// The body.
    pub(crate) body: bytes::Bytes,
}

impl Answer {
    pub(crate) async fn read(response: Response<Body>) -> Result<Self, kube::Error> {
        let retry_after = retry_after(&response);
        let (parts, body) = response.into_parts();
        let priority_level = parts.headers.get(PRIORITY_LEVEL).and_then(|uid| uid.to_str().ok());
        let priority_level = priority_level.map(str::to_owned);
        let body = body.collect().await?.to_bytes();
        Ok(Self { code: parts.status, retry_after, priority_level, body })
    }

    /// The server's Status; a body that is none becomes one with the HTTP code and the text.
    pub(crate) fn status(&self) -> Status {
        let mut status: Status = serde_json::from_slice(&self.body).unwrap_or_else(|_| Status {
            message: String::from_utf8_lossy(&self.body).chars().take(512).collect(),
            reason: self.code.canonical_reason().unwrap_or_default().to_owned(),
            ..Status::default()
        });
        if status.code == 0 {
            status.code = self.code.as_u16();
        }
        status
    }
}

/// Why a request got no answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SendError {
    /// The server was never reached: nothing can have been stored.
    #[error("cannot connect: {0}")]
    NotSent(String),
    /// The fence had closed when it was about to leave.
    #[error("not sent: {0}", FenceClosed)]
    Fenced,
    /// The request may have reached the server; then the connection broke.
    #[error("{0}")]
    Lost(String),
    /// The request may have reached the server, which did not answer within this time.
    #[error("no answer within {} s", .0.as_secs())]
    TimedOut(Duration),
}

/// Sends one request once and reads the whole answer, within `deadline`.
pub(crate) async fn send(
    client: &Client,
    method: Method,
    path_and_query: &str,
    content_type: &'static str,
    body: Vec<u8>,
    deadline: Duration,
) -> Result<Answer, SendError> {
    let request = Request::builder()
        .method(method)
        .uri(path_and_query)
        .header(http::header::CONTENT_TYPE, content_type)
        .header(http::header::ACCEPT, "application/json")
        .body(Body::from(body))
        .map_err(|error| SendError::NotSent(error.to_string()))?;
    let exchange = async {
        let response = client.send(request).await.map_err(classify)?;
        Answer::read(response).await.map_err(|error| SendError::Lost(error.to_string()))
    };
    tokio::time::timeout(deadline, exchange).await.unwrap_or(Err(SendError::TimedOut(deadline)))
}

fn retry_after(response: &Response<Body>) -> Option<Duration> {
    response.headers().get(RETRY_AFTER)?.to_str().ok()?.parse().ok().map(Duration::from_secs)
}

fn classify(error: kube::Error) -> SendError {
    if sources(&error).any(|source| source.is::<FenceClosed>()) {
        return SendError::Fenced;
    }
    match never_connected(&error) {
        Some(why) => SendError::NotSent(why),
        None => SendError::Lost(inner_most(&error)),
    }
}

/// Why no connection came about; `None` for every other failure. It is the one error after which surely
/// nothing was sent.
pub(crate) fn never_connected(error: &kube::Error) -> Option<String> {
    sources(error)
        .find(|source| {
            source.downcast_ref::<hyper_util::client::legacy::Error>().is_some_and(|error| error.is_connect())
        })
        .map(inner_most)
}

/// Why nobody answered: no connection came about, or it ended before the head of a response, as behind a balancer
/// whose servers are down. `None` for every other failure. A request may have been sent.
pub(crate) fn never_answered(error: &kube::Error) -> Option<String> {
    // Later failures are those of a body.
    sources(error).find(|source| source.is::<hyper_util::client::legacy::Error>()).map(inner_most)
}

/// An error and what it came from, outermost first.
fn sources<'a>(
    error: &'a (dyn std::error::Error + 'static),
) -> impl Iterator<Item = &'a (dyn std::error::Error + 'static)> {
    std::iter::successors(Some(error), |error| error.source())
}

/// The innermost error names the cause ("connection refused"), the outer ones only where it passed.
fn inner_most(error: &(dyn std::error::Error + 'static)) -> String {
    sources(error).last().unwrap_or(error).to_string()
}

/// What identifies one stored object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// `metadata.uid`.
    pub uid: Uid,
    /// `metadata.resourceVersion`.
    pub resource_version: ResourceVersion,
    /// Whether deletion was asked for.
    pub deleting: bool,
}

impl Identity {
    /// Reads `metadata` of an object; `None` for anything that is no object (a Status, say).
    pub(crate) fn of_json(body: &[u8]) -> Option<Self> {
        #[derive(Deserialize)]
        struct Object {
            metadata: Metadata,
        }
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Metadata {
            uid: Uid,
            resource_version: String,
            #[serde(default)]
            deletion_timestamp: Option<serde::de::IgnoredAny>,
        }
        let Object { metadata } = serde_json::from_slice(body).ok()?;
        Some(Self {
            uid: metadata.uid,
            resource_version: ResourceVersion::parse(&metadata.resource_version)?,
            deleting: metadata.deletion_timestamp.is_some(),
        })
    }
}

/// Why a read failed for good.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// No answer, after all attempts.
    #[error("{0}")]
    NoAnswer(String),
    /// The server refused.
    #[error("{0}")]
    Refused(Box<Status>),
    /// The answer is no Kubernetes object.
    #[error("the answer is not a Kubernetes object")]
    NotAnObject,
    /// The table of rights of whoever asks has no such list.
    #[error(transparent)]
    NotGranted(#[from] NotGranted),
}

/// Consistent single GETs: they settle what the stores cannot (an unknown outcome, a store that lags).
///
/// At most three attempts, and retries are at most a tenth of the reads, so that a sick server is
/// not hit harder for being sick.
#[derive(Clone)]
pub struct Reader {
    client: Client,
    retries: Arc<TpsBudget>,
    /// What pays for retries, and for which controller.
    payer: Option<(Arc<WriteBudget>, &'static str)>,
}

impl Reader {
    /// Reads through the given client.
    pub fn new(client: Client) -> Self {
        // One retry a second is allowed even where hardly anything is read.
        Self { client, retries: Arc::new(TpsBudget::new(Duration::from_secs(10), 1, 0.1)), payer: None }
    }

    /// The same, and each retry takes a token from the write budget of this controller: where there is none
    /// to spare, a read that failed is not tried again.
    #[must_use]
    pub fn charged_to(self, budget: Arc<WriteBudget>, controller: &'static str) -> Self {
        Self { payer: Some((budget, controller)), ..self }
    }

    /// Whether there is room for one more try.
    fn may_retry(&self, namespace: &str) -> bool {
        self.retries.withdraw()
            && self.payer.as_ref().is_none_or(|(budget, controller)| budget.spend(controller, namespace))
    }

    /// The objects of a collection with a label, as the server has them now; of all namespaces when `namespace` is
    /// `None`. Tried once: who looks again by the clock needs no second try.
    ///
    /// # Errors
    /// No answer, a refusal, an answer that is no such list, or a list that `rights` lacks.
    pub async fn list<T: DeserializeOwned>(
        &self,
        rights: Rights,
        resource: Resource,
        namespace: Option<&str>,
        label: &str,
    ) -> Result<Vec<T>, ReadError> {
        #[derive(Deserialize)]
        struct List<T> {
            // Go writes an empty list as null.
            items: Option<Vec<T>>,
        }
        rights.check(Verb::List, resource, "")?;
        let path = format!("{}?labelSelector={label}", resource.collection_path(namespace));
        let answer =
            send(&self.client, Method::GET, &path, "application/json", Vec::new(), GET_DEADLINE).await;
        let answer = answer.map_err(|error| ReadError::NoAnswer(error.to_string()))?;
        if !answer.code.is_success() {
            return Err(ReadError::Refused(Box::new(answer.status())));
        }
        let list: List<T> = serde_json::from_slice(&answer.body).map_err(|_| ReadError::NotAnObject)?;
        Ok(list.items.unwrap_or_default())
    }

    /// The object's identity as the server has it now (quorum read); `None` when it does not exist.
    ///
    /// # Errors
    /// No answer after all attempts, or a refusal other than 404.
    pub async fn identity(&self, resource: Resource, key: &ObjectKey) -> Result<Option<Identity>, ReadError> {
        self.retries.deposit();
        let path = resource.object_path(key);
        let mut attempt = 1;
        loop {
            let answer =
                send(&self.client, Method::GET, &path, "application/json", Vec::new(), GET_DEADLINE).await;
            let (error, wait) = match answer {
                Ok(answer) if answer.code == StatusCode::NOT_FOUND => return Ok(None),
                Ok(answer) if answer.code.is_success() => {
                    return Identity::of_json(&answer.body).map(Some).ok_or(ReadError::NotAnObject);
                }
                Ok(answer)
                    if answer.code == StatusCode::TOO_MANY_REQUESTS || answer.code.is_server_error() =>
                {
                    let wait = answer.retry_after.unwrap_or_default().clamp(GET_RETRY_WAIT, LONGEST_GET_WAIT);
                    (ReadError::Refused(Box::new(answer.status())), wait)
                }
                Ok(answer) => return Err(ReadError::Refused(Box::new(answer.status()))),
                Err(error) => (ReadError::NoAnswer(error.to_string()), GET_RETRY_WAIT),
            };
            if attempt == GET_ATTEMPTS || !self.may_retry(&key.namespace) {
                return Err(error);
            }
            attempt += 1;
            tokio::time::sleep(wait).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identity_is_read_from_objects_and_not_from_statuses() {
        let object =
            br#"{"kind":"Pod","metadata":{"uid":"u","resourceVersion":"7","deletionTimestamp":"x"}}"#;
        assert_eq!(
            Identity::of_json(object),
            Some(Identity { uid: Uid("u".into()), resource_version: ResourceVersion(7), deleting: true })
        );
        assert_eq!(Identity::of_json(br#"{"kind":"Status","metadata":{},"status":"Success"}"#), None);
    }

    #[test]
    fn a_body_that_is_no_status_still_gives_code_and_text() {
        let answer = Answer {
            code: StatusCode::BAD_GATEWAY,
            retry_after: None,
            priority_level: None,
            body: bytes::Bytes::from_static(b"upstream is gone"),
        };
        let status = answer.status();
        assert_eq!((status.code, status.message.as_str()), (502, "upstream is gone"));
    }

    #[tokio::test]
    async fn a_refused_connect_is_known_not_to_be_sent() {
        // Port 1 on loopback: nothing listens there.
        let config = Config::new("http://127.0.0.1:1".parse().unwrap());
        let metrics = Metrics::new(&[]);
        let client = Connection::from_config(config).measured(&metrics).client("test").unwrap();
        let sent =
            send(&client, Method::GET, "/api", "application/json", Vec::new(), Duration::from_secs(5)).await;
        assert!(matches!(sent, Err(SendError::NotSent(_))), "a refused connect reads {:?}", sent.err());
        let counted = r#"rest_client_requests_total{code="<error>",method="GET",host="127.0.0.1:1"} 1"#;
        assert!(metrics.encode().unwrap().contains(counted));
    }
}
