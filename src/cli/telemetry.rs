//! Logs: to standard error, as text or JSON, as chatty as asked for.

use std::io::{self, IsTerminal};
use std::sync::Arc;

use clap::ValueEnum;
use tracing_subscriber::EnvFilter;

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

/// Starts logging to standard error. Only the first call has an effect. The answer changes the level while it runs.
pub(super) fn init(
    base: Chattiness,
    verbose: u8,
    format: LogFormat,
    color: ColorChoice,
) -> SetLogLevel {
    let filter = EnvFilter::new(directives(base, verbose));
    let builder = tracing_subscriber::fmt()
        .with_writer(io::stderr)
        .with_ansi(color.applies(io::stderr().is_terminal()));
    // A second subscriber is refused, which is right: the first one belongs to whoever embeds us.
    match format {
        LogFormat::Text => {
            let builder = builder.with_target(false).with_env_filter(filter);
            let builder = builder.with_filter_reloading();
            let handle = builder.reload_handle();
            let _ = builder.try_init();
            Arc::new(move |text| set(text, |filter| handle.reload(filter)))
        }
        LogFormat::Json => {
            let builder = builder.json().flatten_event(true).with_env_filter(filter);
            let builder = builder.with_filter_reloading();
            let handle = builder.reload_handle();
            let _ = builder.try_init();
            Arc::new(move |text| set(text, |filter| handle.reload(filter)))
        }
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
