//! A client whose requests are recorded and answered by a closure.

use axum::body::{Body, Bytes};
use futures::{StreamExt, stream};
use http::{Request, Response, StatusCode};
use kube::Client;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::{Arc, Mutex};
use tokio::time::Instant;

/// One request as it went out.
#[derive(Clone, Debug)]
pub(crate) struct Sent {
    pub(crate) path: String,
    pub(crate) query: BTreeMap<String, String>,
    pub(crate) at: Instant,
}

impl Sent {
    pub(crate) fn is_watch(&self) -> bool {
        self.query.contains_key("watch")
    }

    pub(crate) fn parameter(&self, name: &str) -> Option<&str> {
        self.query.get(name).map(String::as_str)
    }
}

#[derive(Clone, Default)]
pub(crate) struct Requests(Arc<Mutex<Vec<Sent>>>);

impl Requests {
    pub(crate) fn all(&self) -> Vec<Sent> {
        self.0.lock().unwrap().clone()
    }
}

/// A client that is answered by `answer`, and the requests it makes.
pub(crate) fn client(answer: impl Fn(&Sent) -> Response<Body> + Send + Sync + 'static) -> (Client, Requests) {
    client_that_may_hang(move |sent| Some(answer(sent)))
}

/// The same; a request that `answer` has nothing for is never answered.
pub(crate) fn client_that_may_hang(
    answer: impl Fn(&Sent) -> Option<Response<Body>> + Send + Sync + 'static,
) -> (Client, Requests) {
    let requests = Requests::default();
    let recorded = requests.clone();
    let service = tower::service_fn(move |request: Request<kube::client::Body>| {
        let sent = Sent {
            path: request.uri().path().to_owned(),
            query: parameters(request.uri().query().unwrap_or_default()),
            at: Instant::now(),
        };
        let response = answer(&sent);
        recorded.0.lock().unwrap().push(sent);
        async move {
            match response {
                Some(response) => Ok::<_, Infallible>(response),
                None => std::future::pending().await,
            }
        }
    });
    (Client::new(service, "default"), requests)
}

fn parameters(query: &str) -> BTreeMap<String, String> {
    let decode = |text: &str| text.replace("%3D", "=").replace("%2C", ",").replace("%2F", "/");
    query
        .split('&')
        .filter_map(|pair| pair.split_once('='))
        .map(|(name, value)| (name.to_owned(), decode(value)))
        .collect()
}

pub(crate) fn answer(code: u16, body: impl Into<Body>) -> Response<Body> {
    Response::builder().status(StatusCode::from_u16(code).unwrap()).body(body.into()).unwrap()
}

pub(crate) fn status(code: u16, reason: &str) -> Value {
    json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code, "reason": reason,
           "message": "scripted"})
}

pub(crate) fn refuse(code: u16, reason: &str) -> Response<Body> {
    answer(code, status(code, reason).to_string())
}

pub(crate) fn object(name: &str, rv: u32) -> Value {
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": {
        "namespace": "ns", "name": name, "uid": format!("uid-{name}"), "resourceVersion": rv.to_string(),
    }})
}

pub(crate) fn list(objects: &[Value], rv: u32) -> Response<Body> {
    let list = json!({"apiVersion": "v1", "kind": "PodList",
                      "metadata": {"resourceVersion": rv.to_string()}, "items": objects});
    answer(200, list.to_string())
}

pub(crate) fn event(kind: &str, object: Value) -> String {
    format!("{}\n", json!({"type": kind, "object": object}))
}

pub(crate) fn bookmark(rv: u32, end: bool) -> String {
    let annotations = if end { json!({"k8s.io/initial-events-end": "true"}) } else { json!({}) };
    event(
        "BOOKMARK",
        json!({"apiVersion": "v1", "kind": "Pod",
               "metadata": {"resourceVersion": rv.to_string(), "annotations": annotations}}),
    )
}

/// A watch that sends these lines and stays open.
pub(crate) fn held_open(lines: &[String]) -> Response<Body> {
    let lines = stream::iter([Ok::<_, Infallible>(Bytes::from(lines.concat()))]);
    answer(200, Body::from_stream(lines.chain(stream::pending())))
}

/// A watch that sends these lines and ends.
pub(crate) fn ending(lines: &[String]) -> Response<Body> {
    answer(200, lines.concat())
}
