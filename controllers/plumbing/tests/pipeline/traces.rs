//! Passes as spans, from the loop to a collector that decodes what it gets.

use crate::rig::{HOUR, Pod, Rig, Seen, Setup, create, key, plan};
use crate::wire::{Reply, Sent, done, object, refuse};
use axum::Router;
use axum::body::Bytes;
use axum::http::{HeaderMap, StatusCode};
use axum::routing::post;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::KeyValue;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::trace::v1::status::StatusCode as SpanStatus;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, Span};
use prost::Message;
use springtide_plumbing::plan::{Outcome, Plan, Why};
use springtide_plumbing::traces::{Endpoint, Traces};
use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock, Mutex};
use std::time::Duration;
use tracing::Dispatch;
use tracing::subscriber::DefaultGuard;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

/// The attributes that are numbers.
const NUMBERS: [&str; 2] = ["generation", "writes"];

/// A collector as far as it takes traces by OTLP over HTTP.
struct Collector {
    endpoint: Endpoint,
    received: Arc<Mutex<Vec<ResourceSpans>>>,
}

impl Collector {
    async fn start(answer: StatusCode) -> Self {
        let received = Arc::new(Mutex::new(Vec::new()));
        let taken = received.clone();
        let take = move |headers: HeaderMap, body: Bytes| {
            assert_eq!(headers["content-type"], "application/x-protobuf");
            let request = ExportTraceServiceRequest::decode(body).unwrap();
            taken.lock().unwrap().extend(request.resource_spans);
            std::future::ready(answer)
        };
        let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let endpoint = format!("http://{}/otlp", listener.local_addr().unwrap()).parse().unwrap();
        let router = Router::new().route("/otlp/v1/traces", post(take));
        tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        Self { endpoint, received }
    }

    /// The spans by the name of their key, all of one process.
    fn spans(&self, identity: &str) -> BTreeMap<String, Span> {
        let mut spans = BTreeMap::new();
        for of_resource in std::mem::take(&mut *self.received.lock().unwrap()) {
            let resource = attributes(&of_resource.resource.unwrap().attributes);
            assert_eq!(resource["service.name"], "springtide");
            assert_eq!(resource["service.version"], "1.2.3");
            assert_eq!(resource["service.instance.id"], identity);
            for span in of_resource.scope_spans.into_iter().flat_map(|scope| scope.spans) {
                assert_eq!(span.name, "reconcile");
                assert!(
                    span.end_time_unix_nano >= span.start_time_unix_nano && span.start_time_unix_nano > 0
                );
                let key = attributes(&span.attributes)["key"].clone();
                assert!(spans.insert(key.clone(), span).is_none(), "{key} has one pass");
            }
        }
        spans
    }
}

fn attributes(pairs: &[KeyValue]) -> BTreeMap<String, String> {
    let value = |pair: &KeyValue| pair.value.as_ref().and_then(|value| value.value.clone());
    let text = |pair: &KeyValue| match value(pair) {
        Some(Value::IntValue(number)) if NUMBERS.contains(&&*pair.key) => number.to_string(),
        Some(Value::StringValue(text)) if !NUMBERS.contains(&&*pair.key) => text,
        other => panic!("{}: {other:?}", pair.key),
    };
    pairs.iter().map(|pair| (pair.key.clone(), text(pair))).collect()
}

fn of_span(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

/// The planner of the test: two writes, nothing to do, a write that is refused, a panic.
fn by_name(seen: &Seen) -> Plan {
    match &*seen.key.name {
        "new" => {
            let why = vec![Why { reason: "Creating", message: "Two pods are missing.".to_owned() }];
            Plan { why, ..plan(vec![vec![create(&key("new-0")), create(&key("new-1"))]]) }
        }
        "bad" => plan(vec![vec![create(&key("bad-0"))]]),
        "broken" => panic!("as planned"),
        _ => Plan::idle(Outcome::Converged),
    }
}

fn reply(sent: &Sent) -> Reply {
    if sent.name() == "bad-0" { refuse(422, "Invalid") } else { done(sent, 10) }
}

/// Lets each key have a pass, and all passes end.
async fn one_pass_each(mut rig: Rig, names: &[&str]) {
    for name in names {
        rig.event(&key(name));
    }
    while names.iter().any(|name| rig.passes(&key(name)) == 0) {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    rig.shutdown.cancel();
    (&mut rig.running).await.unwrap();
}

/// Sends the passes of this thread's controllers to a collector.
fn subscribe(traces: &Traces) -> DefaultGuard {
    // While there is a single subscriber, `tracing` asks the thread that meets a span first: that of another test has
    // none, and the span would be off here too. Of two, each is asked for itself.
    static ANOTHER: LazyLock<Dispatch> = LazyLock::new(|| Dispatch::new(tracing_subscriber::registry()));
    LazyLock::force(&ANOTHER);
    let subscribed = tracing_subscriber::registry().with(traces.layer()).set_default();
    tracing::callsite::rebuild_interest_cache();
    subscribed
}

#[tokio::test]
async fn a_collector_gets_a_span_of_each_pass_that_says_what_came_of_it() {
    let collector = Collector::start(StatusCode::OK).await;
    let traces = Traces::to(&collector.endpoint, "pod-a", "1.2.3").unwrap();
    let subscribed = subscribe(&traces);
    let mut rig = Setup::new(by_name).start(reply);
    let mut pod = object("ns", "quiet", 5);
    pod["metadata"]["generation"] = 3.into();
    rig.pods.apply(serde_json::from_value::<Pod>(pod).unwrap());
    one_pass_each(rig, &["new", "quiet", "bad", "broken"]).await;
    // It is for spans of passes alone.
    tracing::error_span!("other").in_scope(|| tracing::error!("no span"));
    drop(subscribed);
    traces.end(HOUR).await;

    let spans = collector.spans("pod-a");
    assert_eq!(
        spans.keys().map(String::as_str).collect::<Vec<_>>(),
        ["ns/bad", "ns/broken", "ns/new", "ns/quiet"]
    );
    let found = |name: &str| {
        let span = &spans[name];
        let status = span.status.clone().unwrap_or_default();
        (attributes(&span.attributes), status.code(), status.message)
    };
    let quiet = of_span(&[
        ("controller", "scripted"),
        ("key", "ns/quiet"),
        ("generation", "3"),
        ("outcome", "Converged"),
        ("writes", "0"),
        ("result", "success"),
    ]);
    assert_eq!(found("ns/quiet"), (quiet, SpanStatus::Unset, String::new()));
    let new = of_span(&[
        ("controller", "scripted"),
        ("key", "ns/new"),
        ("outcome", "Progressing"),
        ("reason", "Creating"),
        ("writes", "2"),
        ("result", "success"),
    ]);
    assert_eq!(found("ns/new"), (new, SpanStatus::Unset, String::new()));
    let (bad, status, message) = found("ns/bad");
    assert_eq!((&*bad["result"], &*bad["writes"], status), ("error", "0", SpanStatus::Error));
    assert!(message.contains("422") || message.contains("Invalid"), "{message}");
    let (broken, status, message) = found("ns/broken");
    assert_eq!((&*broken["result"], status, &*message), ("error", SpanStatus::Error, "as planned"));
    assert!(!broken.contains_key("outcome"), "it had no plan: {broken:?}");
}

#[tokio::test]
async fn a_collector_that_refuses_or_is_not_there_keeps_no_pass_from_its_work() {
    let refusing = Collector::start(StatusCode::BAD_REQUEST).await;
    let listener = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let nobody = format!("http://{}", listener.local_addr().unwrap()).parse().unwrap();
    drop(listener);
    for endpoint in [&refusing.endpoint, &nobody] {
        let traces = Traces::to(endpoint, "pod-a", "1.2.3").unwrap();
        let subscribed = subscribe(&traces);
        let rig = Setup::new(by_name).start(reply);
        let wire = rig.wire.clone();
        one_pass_each(rig, &["new", "quiet"]).await;
        assert_eq!(wire.names(), ["new-0", "new-1"]);
        drop(subscribed);
        traces.end(HOUR).await;
    }
    // It was asked, and what it refused is not sent for ever.
    assert_eq!(refusing.spans("pod-a").len(), 2);
}
