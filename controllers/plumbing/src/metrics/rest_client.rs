//! Requests to the API server, measured around the client: `rest_client_*`, named as client-go does.

use super::Seconds;
use futures::future::BoxFuture;
use http::{Method, Request, Response};
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use std::sync::Arc;
use std::task::{Context, Poll};
use tokio::time::Instant;
use tower::{Layer, Service};

/// Buckets of request times, in seconds; those of Kubernetes' component-base.
pub(super) const REQUEST_SECONDS: [f64; 12] =
    [0.005, 0.025, 0.1, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 15.0, 30.0, 60.0];
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
pub(super) struct RequestTimeLabels {
    verb: String,
    host: Arc<str>,
}

/// Measures the requests of every client that it is laid around, to one API server.
///
/// The time is that to the head of the answer, so a watch counts with its opening.
#[derive(Clone, Debug)]
pub struct MeasureRequests {
    pub(super) requests: Family<RequestLabels, Counter>,
    pub(super) seconds: Seconds<RequestTimeLabels>,
    pub(super) host: Arc<str>,
}

impl MeasureRequests {
    pub(super) fn start_at_zero(&self) {
        for (method, success) in EXPECTED {
            for code in [success, "429"] {
                drop(self.requests.get_or_create(&self.request_labels(&method, code.to_owned())));
            }
            drop(self.seconds.get_or_create(&self.time_labels(&method)));
        }
    }

    fn request_labels(&self, method: &Method, code: String) -> RequestLabels {
        RequestLabels { code, method: method.to_string(), host: Arc::clone(&self.host) }
    }

    fn time_labels(&self, method: &Method) -> RequestTimeLabels {
        RequestTimeLabels { verb: method.to_string(), host: Arc::clone(&self.host) }
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

impl<S, B, C> Service<Request<B>> for MeasuredRequests<S>
where
    S: Service<Request<B>, Response = Response<C>>,
    S::Future: Send + 'static,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = BoxFuture<'static, Result<Self::Response, Self::Error>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let (measure, method, start) = (self.measure.clone(), request.method().clone(), Instant::now());
        let answer = self.inner.call(request);
        Box::pin(async move {
            let answer = answer.await;
            let code = match &answer {
                Ok(response) => response.status().as_str().to_owned(),
                Err(_) => NO_ANSWER.to_owned(),
            };
            measure.requests.get_or_create(&measure.request_labels(&method, code)).inc();
            measure
                .seconds
                .get_or_create(&measure.time_labels(&method))
                .observe(start.elapsed().as_secs_f64());
            answer
        })
    }
}

#[cfg(test)]
mod tests {
    use crate::metrics::Metrics;
    use http::{Request, Response};
    use tower::{ServiceBuilder, ServiceExt};

    #[tokio::test]
    async fn requests_are_counted_by_answer() {
        let metrics = Metrics::new(&[]);
        let service = ServiceBuilder::new().layer(metrics.measure_requests("api:6443")).service_fn(
            |request: Request<u16>| async move {
                match request.into_body() {
                    0 => Err("reset"),
                    code => Ok(Response::builder().status(code).body(()).unwrap()),
                }
            },
        );
        for (method, code) in [("GET", 200), ("POST", 429), ("POST", 429), ("PATCH", 0)] {
            let request = Request::builder().method(method).body(code).unwrap();
            drop(service.clone().oneshot(request).await);
        }
        let text = metrics.encode().unwrap();
        for line in [
            r#"rest_client_requests_total{code="200",method="GET",host="api:6443"} 1"#,
            r#"rest_client_requests_total{code="429",method="POST",host="api:6443"} 2"#,
            r#"rest_client_requests_total{code="<error>",method="PATCH",host="api:6443"} 1"#,
            r#"rest_client_requests_total{code="200",method="DELETE",host="api:6443"} 0"#,
            r#"rest_client_request_duration_seconds_count{verb="POST",host="api:6443"} 2"#,
        ] {
            assert!(text.contains(line), "{line} is missing in:\n{text}");
        }
    }
}
