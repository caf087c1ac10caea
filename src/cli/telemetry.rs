//! Logs: to standard error, as text or JSON, as chatty as asked for.

use std::io::{self, IsTerminal};

use clap::ValueEnum;
use tracing_subscriber::EnvFilter;

use super::output::ColorChoice;

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

/// Starts logging to standard error. Only the first call has an effect.
pub(super) fn init(base: Chattiness, verbose: u8, format: LogFormat, color: ColorChoice) {
    let filter = EnvFilter::new(directives(base, verbose));
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(io::stderr)
        .with_ansi(color.applies(io::stderr().is_terminal()));
    // A second subscriber is refused, which is right: the first one belongs to whoever embeds us.
    let _ = match format {
        LogFormat::Text => builder.with_target(false).try_init(),
        LogFormat::Json => builder.json().flatten_event(true).try_init(),
    };
}

/// Our own events at the level asked for, those of libraries two levels above it.
fn directives(base: Chattiness, verbose: u8) -> &'static str {
    match (base, verbose) {
        (Chattiness::Quiet, 0) => "error,serin=warn",
        (Chattiness::Normal, 0) | (Chattiness::Quiet, 1) => "warn,serin=info",
        (Chattiness::Normal, 1) | (Chattiness::Quiet, 2) => "warn,serin=debug",
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
                "error,serin=warn",
                "warn,serin=info",
                "warn,serin=debug",
                "info,serin=trace",
                "trace"
            ]
        );
        assert_eq!(directives(Chattiness::Normal, 0), "warn,serin=info");
    }
}
