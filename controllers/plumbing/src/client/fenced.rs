//! The last check of the fence, where a write leaves.
//!
//! Behind the executor's check a request still passes the queue of kube's client and that of its
//! connection, each of which a task of its own reads. A process that is stopped in there would send the
//! request when it goes on, however late. So the fence is asked once more when the connection takes the
//! body: to the server, a request whose body does not come is none.

use crate::lease::Fence;
use bytes::Bytes;
use http::{Method, Request};
use http_body::{Frame, SizeHint};
use kube::client::Body;
use std::pin::Pin;
use std::task::{Context, Poll};
use tower::{BoxError, Layer, Service};

/// The fence was closed when a write was about to leave: nothing was sent.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("the fence is closed")]
pub(crate) struct FenceClosed;

/// Holds every write of a client back whose body is asked for when the fence is closed. Reads pass.
/// It belongs right around the HTTP client: what is further in is not checked any more.
#[derive(Clone)]
pub struct FenceLayer(Fence);

impl FenceLayer {
    /// A layer over this fence.
    pub fn new(fence: Fence) -> Self {
        Self(fence)
    }
}

impl<S> Layer<S> for FenceLayer {
    type Service = FencedService<S>;

    fn layer(&self, inner: S) -> Self::Service {
        FencedService { inner, fence: self.0.clone() }
    }
}

/// A client service whose writes are fenced.
#[derive(Clone)]
pub struct FencedService<S> {
    inner: S,
    fence: Fence,
}

impl<S: Service<Request<FencedBody>>> Service<Request<Body>> for FencedService<S> {
    type Response = S::Response;
    type Error = S::Error;
    type Future = S::Future;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<Body>) -> S::Future {
        let fence = (request.method() != Method::GET).then(|| self.fence.clone());
        self.inner.call(request.map(|body| FencedBody { body, fence }))
    }
}

/// A request's body that does not come when the fence is closed.
pub struct FencedBody {
    body: Body,
    /// `None` for a read, and once the body has gone.
    fence: Option<Fence>,
}

impl http_body::Body for FencedBody {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        if self.fence.as_ref().is_some_and(|fence| !fence.is_open()) {
            return Poll::Ready(Some(Err(FenceClosed.into())));
        }
        let frame = Pin::new(&mut self.body).poll_frame(context).map_err(Into::into);
        if frame.is_ready() {
            // It has one frame: what comes after cannot call it back.
            self.fence = None;
        }
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Connection, SendError, send};
    use super::*;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
    use std::time::Duration;
    use tokio::net::TcpListener;

    /// Over a real connection: what arrives there is what counts.
    #[tokio::test]
    async fn a_closed_fence_lets_reads_pass_and_no_write() {
        let served = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&served);
        let serve = async move |body: String| {
            counted.fetch_add(1, SeqCst);
            body
        };
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        tokio::spawn(axum::serve(listener, axum::Router::new().fallback(serve)).into_future());
        let connection = Connection::from_config(kube::Config::new(url.parse().unwrap()));
        let fence = Fence::closed(Arc::new(|| Duration::from_secs(100)));
        let client = connection.writer("test", fence.clone()).unwrap();
        let request = async |method: Method, body: &str| {
            send(
                &client,
                method,
                "/api",
                "application/json",
                body.as_bytes().to_vec(),
                Duration::from_secs(10),
            )
            .await
        };
        for method in [Method::POST, Method::PATCH, Method::DELETE] {
            let refused = request(method, "{}").await;
            assert!(matches!(refused, Err(SendError::Fenced)), "{:?}", refused.err());
        }
        assert_eq!(served.load(SeqCst), 0);
        assert!(request(Method::GET, "").await.unwrap().code.is_success());
        fence.open_until(Duration::from_secs(101));
        for method in [Method::POST, Method::PATCH, Method::DELETE] {
            assert_eq!(request(method, "{}").await.unwrap().body, "{}");
        }
        assert_eq!(served.load(SeqCst), 4);
    }
}
