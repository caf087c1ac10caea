//! What the views say, as text: who got which version, and what the metrics showed.

use std::collections::BTreeMap;

use crate::analysis::Finding;
use crate::demo::{Tally, versions};

/// The user whom the demo's canary names.
pub(super) const NAMED: &str = "alexis";

/// Requests by version, as shares of all of them.
pub(super) fn shares(counts: &BTreeMap<Option<String>, u64>) -> String {
    let all: u64 = counts.values().sum();
    if all == 0 {
        return "no requests yet".to_owned();
    }
    let parts: Vec<String> = counts
        .iter()
        .rev()
        .map(|(version, count)| {
            let version = version.as_deref().unwrap_or("no answer");
            format!("{version} {}%", percent(*count, all))
        })
        .collect();
    format!("{}  of {all} requests", parts.join(", "))
}

/// Whole per cent where they are whole, one digit where not.
fn percent(count: u64, all: u64) -> String {
    let share = 100.0 * count as f64 / all as f64;
    let text = format!("{share:.1}");
    text.strip_suffix(".0").unwrap_or(&text).to_owned()
}

/// The named user's requests, and everybody else's.
pub(super) fn who_got_what(tally: &Tally) -> (String, String) {
    (
        shares(&versions(tally, |user| user == NAMED)),
        shares(&versions(tally, |user| user != NAMED)),
    )
}

/// One metric in one line.
pub(super) fn finding(finding: &Finding) -> String {
    let verdict = finding.verdict.as_str();
    match &finding.value {
        Some(value) => format!(
            "{value} ({}, {} requests): {verdict}",
            finding.threshold, finding.samples
        ),
        None => format!("nothing yet ({}): {verdict}", finding.threshold),
    }
}
