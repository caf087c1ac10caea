//! Traces over OTLP: a span for each pass, and within it one for each thing that the pass waits for.
//!
//! Where they go is said by the variables that OpenTelemetry defines, `OTEL_EXPORTER_OTLP_ENDPOINT` above all. Without one
//! nothing is collected.

use opentelemetry::trace::TracerProvider as _;
use opentelemetry_otlp::SpanExporter;
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::SdkTracerProvider;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::Layer;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::registry::LookupSpan;

/// Where to send traces; either will do.
const ENDPOINTS: [&str; 2] = [
    "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT",
    "OTEL_EXPORTER_OTLP_ENDPOINT",
];

/// Collects spans and sends them, from a thread of its own.
pub(super) struct Traces(SdkTracerProvider);

impl Drop for Traces {
    fn drop(&mut self) {
        // What cannot be sent within a few seconds is lost: the process is about to end.
        let _ = self.0.shutdown();
    }
}

/// The layer that hears of spans, if they are to be sent anywhere, and what keeps it going.
pub(super) fn start<S>() -> (Option<Box<dyn Layer<S> + Send + Sync>>, Option<Traces>)
where
    S: tracing::Subscriber + for<'a> LookupSpan<'a> + Send + Sync,
{
    if !is_asked_for() {
        return (None, None);
    }
    // Whoever was first chose; ours is the only one here.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let exporter = match SpanExporter::builder().with_http().build() {
        Ok(exporter) => exporter,
        Err(error) => {
            tracing::warn!(%error, "no traces are sent");
            return (None, None);
        }
    };
    let provider = SdkTracerProvider::builder()
        .with_batch_exporter(exporter)
        .with_resource(Resource::builder().with_service_name("serin").build())
        .build();
    let ours = Targets::new().with_target("serin", LevelFilter::DEBUG);
    let layer = tracing_opentelemetry::layer()
        .with_tracer(provider.tracer("serin"))
        .with_filter(ours);
    (Some(layer.boxed()), Some(Traces(provider)))
}

fn is_asked_for() -> bool {
    ENDPOINTS
        .iter()
        .any(|name| std::env::var_os(name).is_some_and(|value| !value.is_empty()))
}
