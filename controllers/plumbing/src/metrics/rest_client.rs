//! Requests to the API server, measured around the client: `rest_client_*`, named as client-go does.

use super::Histograms;
use bytes::Bytes;
use futures::future::BoxFuture;
use http::{Method, Request, Response, Uri};
use http_body::{Body, Frame};
use http_body_util::BodyExt;
use http_body_util::combinators::MapFrame;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::Histogram;
use std::sync::Arc;
use std::task::{Context, Poll};
use tokio::time::Instant;
use tower::{Layer, Service};

/// Buckets of request times, in seconds; those of Kubernetes' component-base.
pub(super) const REQUEST_SECONDS: [f64; 12] =
    [0.005, 0.025, 0.1, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 15.0, 30.0, 60.0];
/// Buckets of body sizes, in bytes; those of Kubernetes' component-base.
pub(super) const BODY_BYTES: [f64; 11] =
    [64.0, 256.0, 512.0, 1024.0, 4096.0, 16384.0, 65536.0, 262_144.0, 1_048_576.0, 4_194_304.0, 16_777_216.0];
/// The label value of a request without an answer, as client-go writes it.
const NO_ANSWER: &str = "<error>";
/// What is sent, with the code of success; these series, and 429 beside each, start at zero.
const EXPECTED: [(Method, &str); 4] =
    [(Method::GET, "200"), (Method::POST, "201"), (Method::PATCH, "200"), (Method::DELETE, "200")];

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub(super) struct RequestLabels {
    code: String,
    method: String,
    host: Arc<str>,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub(super) struct VerbLabels {
    verb: String,
    host: Arc<str>,
}

/// Measures the requests of every client that it is laid around, to one API server.
///
/// The time is that to the head of the answer, so a watch counts with its opening.
#[derive(Clone, Debug)]
pub struct MeasureRequests {
    pub(super) requests: Family<RequestLabels, Counter>,
    pub(super) seconds: Histograms<VerbLabels>,
    pub(super) request_bytes: Histograms<VerbLabels>,
    pub(super) response_bytes: Histograms<VerbLabels>,
    pub(super) host: Arc<str>,
}

impl MeasureRequests {
    pub(super) fn start_at_zero(&self) {
        for (method, success) in EXPECTED {
            for code in [success, "429"] {
                drop(self.requests.get_or_create(&self.request_labels(&method, code.to_owned())));
            }
            for histogram in [&self.seconds, &self.request_bytes, &self.response_bytes] {
                drop(histogram.get_or_create(&self.verb_labels(&method)));
            }
        }
    }

    fn request_labels(&self, method: &Method, code: String) -> RequestLabels {
        RequestLabels { code, method: method.to_string(), host: Arc::clone(&self.host) }
    }

    fn verb_labels(&self, method: &Method) -> VerbLabels {
        VerbLabels { verb: method.to_string(), host: Arc::clone(&self.host) }
    }
}

impl<S> Layer<S> for MeasureRequests {
    type Service = MeasuredRequests<S>;

    fn layer(&self, inner: S) -> Self::Service {
        MeasuredRequests { inner, measure: self.clone() }
    }
}

/// A client service whose requests are measured.
#[derive(Clone, Debug)]
pub struct MeasuredRequests<S> {
    inner: S,
    measure: MeasureRequests,
}

/// A body whose bytes are counted as they are read.
pub type CountedBody<B> = MapFrame<B, Box<dyn FnMut(Frame<Bytes>) -> Frame<Bytes> + Send>>;

/// Observes how much was read of a body when that is dropped, whether it was read to its end or not.
struct BodySize {
    bytes: usize,
    /// None for a watch, which has no size before it ends.
    size: Option<Histogram>,
}

impl Drop for BodySize {
    fn drop(&mut self) {
        if let Some(size) = &self.size {
            size.observe(self.bytes as f64);
        }
    }
}

impl BodySize {
    fn count<B: Body<Data = Bytes>>(mut self, body: B) -> CountedBody<B> {
        body.map_frame(Box::new(move |frame| {
            // A call, so that the closure takes in the whole: the drop must come with the body's.
            self.add(&frame);
            frame
        }))
    }

    fn add(&mut self, frame: &Frame<Bytes>) {
        self.bytes += frame.data_ref().map_or(0, Bytes::len);
    }
}

fn is_watch(uri: &Uri) -> bool {
    uri.query().is_some_and(|query| query.split('&').any(|pair| pair == "watch=true"))
}

impl<S, B, C> Service<Request<B>> for MeasuredRequests<S>
where
    S: Service<Request<B>, Response = Response<C>>,
    S::Future: Send + 'static,
    B: Body,
    C: Body<Data = Bytes>,
{
    type Response = Response<CountedBody<C>>;
    type Error = S::Error;
    type Future = BoxFuture<'static, Result<Self::Response, Self::Error>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let (measure, method, start) = (self.measure.clone(), request.method().clone(), Instant::now());
        let verb = measure.verb_labels(&method);
        // Exact for whole bodies, and we send no others.
        measure.request_bytes.get_or_create(&verb).observe(request.body().size_hint().lower() as f64);
        let is_watch = is_watch(request.uri());
        let answer = self.inner.call(request);
        Box::pin(async move {
            let answer = answer.await;
            let code = match &answer {
                Ok(response) => response.status().as_str().to_owned(),
                Err(_) => NO_ANSWER.to_owned(),
            };
            measure.requests.get_or_create(&measure.request_labels(&method, code)).inc();
            measure.seconds.get_or_create(&verb).observe(start.elapsed().as_secs_f64());
            let size = (!is_watch).then(|| measure.response_bytes.get_or_create(&verb).clone());
            answer.map(|response| response.map(|body| BodySize { bytes: 0, size }.count(body)))
        })
    }
}

#[cfg(test)]
mod tests {
    use crate::metrics::Metrics;
    use bytes::Bytes;
    use http::{Request, Response};
    use http_body_util::{BodyExt, Full};
    use tower::{ServiceBuilder, ServiceExt};

    fn holds(metrics: &Metrics, lines: &[&str]) {
        let text = metrics.encode().unwrap();
        for line in lines {
            assert!(text.contains(line), "{line} is missing in:\n{text}");
        }
    }

    #[tokio::test]
    async fn requests_are_counted_by_answer() {
        let metrics = Metrics::new(&[]);
        let service = ServiceBuilder::new().layer(metrics.measure_requests("api:6443")).service_fn(
            |request: Request<Full<Bytes>>| async move {
                match request.headers()["want"].to_str().unwrap() {
                    "reset" => Err("reset"),
                    code => Ok(Response::builder().status(code).body(Full::<Bytes>::default()).unwrap()),
                }
            },
        );
        for (method, want) in [("GET", "200"), ("POST", "429"), ("POST", "429"), ("PATCH", "reset")] {
            let request =
                Request::builder().method(method).header("want", want).body(Full::default()).unwrap();
            drop(service.clone().oneshot(request).await);
        }
        holds(
            &metrics,
            &[
                r#"rest_client_requests_total{code="200",method="GET",host="api:6443"} 1"#,
                r#"rest_client_requests_total{code="429",method="POST",host="api:6443"} 2"#,
                r#"rest_client_requests_total{code="<error>",method="PATCH",host="api:6443"} 1"#,
                r#"rest_client_requests_total{code="200",method="DELETE",host="api:6443"} 0"#,
                r#"rest_client_request_duration_seconds_count{verb="POST",host="api:6443"} 2"#,
            ],
        );
    }

    #[tokio::test]
    async fn bodies_are_measured_as_they_are_read_but_those_of_watches() {
        let metrics = Metrics::new(&[]);
        let service = ServiceBuilder::new().layer(metrics.measure_requests("a")).service_fn(
            |_: Request<Full<Bytes>>| async move {
                Ok::<_, &str>(Response::new(Full::from(vec![b'x'; 300])))
            },
        );
        let ask = async |method: &str, uri: &str, body: &'static str| {
            let request = Request::builder().method(method).uri(uri).body(Full::from(body)).unwrap();
            service.clone().oneshot(request).await.unwrap().into_body()
        };
        assert_eq!(
            ask("POST", "/api/v1/pods", "0123456789").await.collect().await.unwrap().to_bytes().len(),
            300
        );
        // Nobody reads this one.
        drop(ask("PATCH", "/api/v1/pods/a", "").await);
        drop(ask("GET", "/api/v1/pods?watch=true&resourceVersion=1", "").await.collect().await.unwrap());
        holds(
            &metrics,
            &[
                r#"rest_client_request_size_bytes_sum{verb="POST",host="a"} 10.0"#,
                r#"rest_client_response_size_bytes_sum{verb="POST",host="a"} 300.0"#,
                r#"rest_client_response_size_bytes_bucket{le="512.0",verb="POST",host="a"} 1"#,
                r#"rest_client_response_size_bytes_bucket{le="256.0",verb="POST",host="a"} 0"#,
                r#"rest_client_response_size_bytes_count{verb="PATCH",host="a"} 1"#,
                r#"rest_client_response_size_bytes_sum{verb="PATCH",host="a"} 0.0"#,
                r#"rest_client_response_size_bytes_count{verb="GET",host="a"} 0"#,
                r#"rest_client_request_size_bytes_count{verb="GET",host="a"} 1"#,
            ],
        );
    }
}
