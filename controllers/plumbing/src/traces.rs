//! Traces: each reconcile pass as an OpenTelemetry span, sent to a collector by OTLP over HTTP.
//!
//! The loop alone makes the [span](crate::controller). Where nobody takes it, it is disabled and costs
//! a load of an atomic. Spans that have ended wait in a queue of a bounded length for a thread of their own, which sends
//! them in batches: a pass never waits for it, and while the queue is full further spans are dropped.

mod endpoint;
mod sender;

pub use endpoint::{ENDPOINT_PATTERN, Endpoint, InvalidEndpoint};

use crate::controller::PASS_SPAN;
use opentelemetry::KeyValue;
use opentelemetry::trace::TracerProvider;
use opentelemetry_otlp::{Protocol, SpanExporter, WithExportConfig, WithHttpConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::SdkTracerProvider;
use sender::Sender;
use std::time::Duration;
use tracing::{Level, Metadata, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::filter::{FilterFn, LevelFilter};
use tracing_subscriber::registry::LookupSpan;

/// Name of the service and of the scope in every span.
const NAME: &str = "springtide";
/// How long the end of a process may wait for its last spans to be sent.
pub const END_BOUND: Duration = Duration::from_secs(1);

/// Sends spans to a collector.
pub struct Traces {
    provider: SdkTracerProvider,
}

impl Traces {
    /// Begins to send what its [layers](Self::layer) take. Nothing is sent before the first span has ended, so
    /// the collector need not be there. `identity` is the name of this process, `version` that of the program.
    ///
    /// Headers, sampling, batches and further attributes of the resource are set by the variables of the environment
    /// that OpenTelemetry has for them.
    ///
    /// # Errors
    /// These variables ask for what the exporter cannot do.
    pub fn to(
        endpoint: &Endpoint,
        identity: &str,
        version: &'static str,
    ) -> Result<Self, opentelemetry_otlp::ExporterBuildError> {
        let exporter = SpanExporter::builder()
            .with_http()
            .with_http_client(Sender::new(endpoint.clone()))
            .with_protocol(Protocol::HttpBinary)
            .with_endpoint(endpoint.traces_url())
            .build()?;
        let resource = Resource::builder().with_service_name(NAME).with_attributes([
            KeyValue::new("service.version", version),
            KeyValue::new("service.instance.id", identity.to_owned()),
        ]);
        let provider = SdkTracerProvider::builder()
            .with_batch_exporter(exporter)
            .with_resource(resource.build())
            .build();
        Ok(Self { provider })
    }

    /// Takes the spans of passes from `tracing`, and nothing else.
    pub fn layer<S>(&self) -> impl Layer<S> + Send + Sync + 'static + use<S>
    where
        S: Subscriber + for<'span> LookupSpan<'span> + Send + Sync,
    {
        tracing_opentelemetry::layer()
            .with_tracer(self.provider.tracer(NAME))
            .with_location(false)
            .with_threads(false)
            .with_target(false)
            .with_level(false)
            .with_tracked_inactivity(false)
            .with_filter(FilterFn::new(is_pass).with_max_level_hint(LevelFilter::DEBUG))
    }

    /// Sends the last spans, for so long at most; what has not gone out then is lost.
    pub async fn end(self, bound: Duration) {
        let provider = self.provider;
        let ending = tokio::task::spawn_blocking(move || provider.shutdown_with_timeout(bound));
        // What cannot be sent was said by the sender.
        let _ = ending.await;
    }
}

fn is_pass(metadata: &Metadata<'_>) -> bool {
    metadata.is_span() && metadata.name() == PASS_SPAN && *metadata.level() <= Level::DEBUG
}
