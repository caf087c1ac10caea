//! Words and styles that several commands use for the same things.

use serde::Serialize;

use super::output::Style;
use crate::domain::Timestamp;
use crate::progression::{Phase, State, WaitingOn};

/// The phase in one word; `Invalid` for a canary whose spec or state cannot be read.
pub(super) fn phase(state: Option<&State>) -> &'static str {
    match state.map(|state| &state.phase) {
        None => "Invalid",
        Some(Phase::Idle) => "Idle",
        Some(Phase::Progressing(_)) => "Progressing",
        Some(Phase::Draining(..)) => "Draining",
        Some(Phase::Failed(_)) => "Failed",
    }
}

/// Whether a canary in this phase is well.
pub(super) fn is_well(phase: &str) -> bool {
    !matches!(phase, "Failed" | "Invalid")
}

/// Why a canary does not move, for scripts and people.
#[derive(Debug, Serialize)]
pub(super) struct Waiting {
    /// A stable word.
    pub(super) reason: &'static str,
    /// A sentence.
    pub(super) message: String,
}

impl Waiting {
    /// The same in words.
    pub(super) fn on(waiting: &WaitingOn) -> Self {
        Self {
            reason: waiting.reason(),
            message: waiting.to_string(),
        }
    }
}

/// How to show that word.
pub(super) fn phase_style(phase: &str) -> Style {
    match phase {
        "Invalid" | "Failed" => Style::Bad,
        "Progressing" => Style::Good,
        "Draining" => Style::Notice,
        _ => Style::Plain,
    }
}

/// How to show a verdict.
pub(super) fn verdict_style(verdict: &str) -> Style {
    match verdict {
        "pass" => Style::Good,
        "fail" => Style::Bad,
        "inconclusive" | "error" => Style::Notice,
        _ => Style::Plain,
    }
}

/// An instant, for people: UTC, to the second.
pub(super) fn time(at: Timestamp) -> String {
    at.format("%Y-%m-%d %H:%M:%SZ").to_string()
}

/// An instant, for scripts: RFC 3339.
pub(super) fn stamp(at: Timestamp) -> String {
    at.to_rfc3339_opts(chrono::SecondsFormat::Secs, true)
}

/// How long ago something was, in its largest unit: `3m`, `2h`, `5d`.
pub(super) fn age(since: Timestamp, now: Timestamp) -> String {
    let seconds = (now - since).num_seconds().max(0);
    match seconds {
        0..120 => format!("{seconds}s"),
        120..7_200 => format!("{}m", seconds / 60),
        7_200..172_800 => format!("{}h", seconds / 3_600),
        _ => format!("{}d", seconds / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use chrono::Duration;

    #[test]
    fn ages_have_two_digits_at_least_where_it_matters() {
        let now = Timestamp::UNIX_EPOCH;
        let age_of = |seconds| age(now - Duration::seconds(seconds), now);
        assert_eq!(age_of(119), "119s");
        assert_eq!(age_of(120), "2m");
        assert_eq!(age_of(7_199), "119m");
        assert_eq!(age_of(7_200), "2h");
        assert_eq!(age_of(172_800), "2d");
        // A clock that is behind the repository's.
        assert_eq!(age_of(-5), "0s");
    }
}
