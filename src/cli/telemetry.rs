//! Logs: to standard error, as text or JSON, as chatty as asked for.

use std::io::{self, IsTerminal};
use std::sync::Arc;

use clap::ValueEnum;
use tracing_subscriber::layer::{Layer as _, SubscriberExt as _};
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, fmt, reload};

use super::output::ColorChoice;
use crate::endpoints::SetLogLevel;

/// Form of the log lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub(super) enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object per line.
    Json,
}

/// How much a command logs when nobody asks for more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Chattiness {
    /// The result is on standard output; only warnings go to the log.
    Quiet,
    /// The log is the result.
    Normal,
}

/// What was started: it ends with this value, and sends what is still to be sent.
pub(super) struct Telemetry {
    /// Changes the level of the log while it runs.
    pub(super) set_log_level: SetLogLevel,
    #[cfg(feature = "otel")]
    _traces: Option<super::traces::Traces>,
}

/// Starts logging to standard error. Only the first call has an effect.
pub(super) fn init(
    base: Chattiness,
    verbose: u8,
    format: LogFormat,
    color: ColorChoice,
) -> Telemetry {
    let (filter, handle) = reload::Layer::new(EnvFilter::new(directives(base, verbose)));
    let log = fmt::layer()
        .with_writer(io::stderr)
        .with_ansi(color.applies(io::stderr().is_terminal()));
    let log = match format {
        LogFormat::Text => log.with_target(false).with_filter(filter).boxed(),
        LogFormat::Json => log.json().flatten_event(true).with_filter(filter).boxed(),
    };
    let subscriber = tracing_subscriber::registry().with(log);
    let set_log_level: SetLogLevel =
        Arc::new(move |text| set(text, |filter| handle.reload(filter)));
    // A second subscriber is refused, which is right: the first one belongs to whoever embeds us.
    #[cfg(feature = "otel")]
    {
        let (layer, traces) = super::traces::start();
        let _ = subscriber.with(layer).try_init();
        Telemetry {
            set_log_level,
            _traces: traces,
        }
    }
    #[cfg(not(feature = "otel"))]
    {
        let _ = subscriber.try_init();
        Telemetry { set_log_level }
    }
}

/// Puts directives such as `debug` or `warn,serin=trace` in force.
fn set<E: std::fmt::Display>(
    text: &str,
    reload: impl FnOnce(EnvFilter) -> Result<(), E>,
) -> Result<(), String> {
    let filter = EnvFilter::builder().parse(text).map_err(|error| {
        format!(
            "`{text}` is no log level: {error}; write one such as `debug` or `warn,serin=trace`"
        )
    })?;
    reload(filter).map_err(|error| error.to_string())
}

/// Our own events at the level asked for, those of libraries two levels above it.
/// The client of the cluster logs every refusal itself; it is told by whoever asked, with the object that it is about.
fn directives(base: Chattiness, verbose: u8) -> &'static str {
    match (base, verbose) {
        (Chattiness::Quiet, 0) => "error,kube_client=off,serin=warn",
        (Chattiness::Normal, 0) | (Chattiness::Quiet, 1) => "warn,kube_client=off,serin=info",
        (Chattiness::Normal, 1) | (Chattiness::Quiet, 2) => "warn,kube_client=off,serin=debug",
        (Chattiness::Normal, 2) | (Chattiness::Quiet, 3) => "info,serin=trace",
        (Chattiness::Normal | Chattiness::Quiet, 3..) => "trace",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn more_v_says_more() {
        let levels: Vec<_> = (0..=4).map(|v| directives(Chattiness::Quiet, v)).collect();
        assert_eq!(
            levels,
            [
                "error,kube_client=off,serin=warn",
                "warn,kube_client=off,serin=info",
                "warn,kube_client=off,serin=debug",
                "info,serin=trace",
                "trace"
            ]
        );
        assert_eq!(
            directives(Chattiness::Normal, 0),
            "warn,kube_client=off,serin=info"
        );
    }
}
