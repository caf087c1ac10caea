//! Rollouts as the engine's own commits tell them: what was counted at each step, and what Flagger's rule makes of it.
//!
//! A commit has the candidate's counts, not those of each minute, so Flagger's rule is asked once a commit: whether
//! the success rate that the step showed is at least 99 %.

use serde::Serialize;

use super::flagger::MIN_SUCCESS;
use crate::analysis::flagger::{Strikes, passes};
use crate::analysis::ln_evidence;

/// One commit of ours with a verdict or an end.
#[derive(Debug, Clone, PartialEq)]
pub struct Entry {
    /// When it was made, for people.
    pub at: String,
    /// `10% -> 30%`, `roll back 30% -> 0%`.
    pub what: String,
    /// The candidate, when it names one.
    pub candidate: Option<String>,
    /// The verdict.
    pub verdict: Option<String>,
    /// The lines of its `Serin-Metric` trailers.
    pub metrics: Vec<String>,
}

/// One step as it was judged.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Step {
    /// When it ended.
    pub at: String,
    /// What Serin did.
    pub what: String,
    /// The candidate's requests that the verdict rests on.
    pub requests: u64,
    /// How many failed.
    pub failures: u64,
    /// The share that succeeded, in per cent; `None` without requests.
    pub success: Option<f64>,
    /// Serin's verdict.
    pub verdict: Option<String>,
    /// Evidence that the candidate is beyond the limit, from these counts alone: `ln E`.
    pub ln_evidence: f64,
    /// Failed checks that Flagger would have counted so far.
    pub strikes: u32,
}

/// One rollout.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Rollout {
    /// The candidate.
    pub candidate: String,
    /// How it ended, in the words of its last commit.
    pub end: String,
    /// Its steps with counts, oldest first.
    pub steps: Vec<Step>,
    /// The step at which Flagger with threshold 1 would have rolled back.
    pub flagger_1: Option<String>,
    /// The same with threshold 5.
    pub flagger_5: Option<String>,
}

/// Sorts commits, oldest first, into rollouts. `limit` is the highest acceptable failing share.
pub fn rollouts(entries: &[Entry], limit: f64) -> Vec<Rollout> {
    let mut found: Vec<(Rollout, Strikes, Strikes)> = Vec::new();
    for entry in entries {
        let begins = entry.what.starts_with("start ") || entry.what.starts_with("restart ");
        if begins || found.is_empty() {
            let candidate = entry.candidate.clone().unwrap_or_default();
            found.push((
                Rollout {
                    candidate,
                    end: String::new(),
                    steps: Vec::new(),
                    flagger_1: None,
                    flagger_5: None,
                },
                Strikes::new(1),
                Strikes::new(5),
            ));
        }
        let Some((rollout, one, five)) = found.last_mut() else {
            continue;
        };
        // What follows an end tidies up.
        if !is_end(&rollout.end) {
            rollout.end.clone_from(&entry.what);
        }
        let Some((requests, failures)) = entry.metrics.iter().find_map(|line| counts(line)) else {
            continue;
        };
        let success = (requests > 0).then(|| 100.0 * (1.0 - failures as f64 / requests as f64));
        let strikes = rollout.steps.last().map_or(0, |step| step.strikes);
        let passed = passes(success, Some(MIN_SUCCESS), None);
        for (strikes, slot) in [
            (one, &mut rollout.flagger_1),
            (five, &mut rollout.flagger_5),
        ] {
            strikes.note(passed);
            if strikes.is_out() && slot.is_none() {
                *slot = Some(format!("after {} at {}", entry.what, entry.at));
            }
        }
        rollout.steps.push(Step {
            at: entry.at.clone(),
            what: entry.what.clone(),
            requests,
            failures,
            success,
            verdict: entry.verdict.clone(),
            ln_evidence: ln_evidence(requests, failures, limit),
            strikes: strikes + u32::from(!passed),
        });
    }
    let rollouts = found.into_iter().map(|(rollout, _, _)| rollout);
    rollouts
        .filter(|rollout| !rollout.steps.is_empty())
        .collect()
}

fn is_end(what: &str) -> bool {
    ["promote ", "roll back ", "withdraw "]
        .iter()
        .any(|word| what.starts_with(word))
}

/// Requests and failures of a success rate's line: `success-rate value=99.9% … samples=1240 failures=1 …`.
fn counts(line: &str) -> Option<(u64, u64)> {
    if !line.starts_with("success-rate") {
        return None;
    }
    let field = |key: &str| {
        let value = line.split(' ').find_map(|word| word.strip_prefix(key))?;
        value.parse::<u64>().ok()
    };
    Some((field("samples=")?, field("failures=")?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(what: &str, counts: Option<(u64, u64)>) -> Entry {
        Entry {
            at: "2026-01-02T03:04:05Z".to_owned(),
            what: what.to_owned(),
            candidate: Some("app=2".to_owned()),
            verdict: counts.map(|_| "pass".to_owned()),
            metrics: counts
                .map(|(n, x)| {
                    format!("success-rate value=99% threshold=\">= 99%\" samples={n} failures={x} window=60s")
                })
                .into_iter()
                .collect(),
        }
    }

    #[test]
    fn commits_become_rollouts() {
        let found = rollouts(
            &[
                entry("start app=2", None),
                entry("10% -> 30%", Some((1000, 2))),
                entry("30% -> 60%", Some((400, 5))),
                entry("promote app=2", Some((900, 1))),
                entry("start app=3", None),
                entry("roll back 10% -> 0%", Some((50, 9))),
                entry("follow stable", None),
            ],
            0.01,
        );
        assert_eq!(found.len(), 2);
        let [good, bad] = &found[..] else { panic!() };
        assert_eq!(good.end, "promote app=2");
        let strikes: Vec<u32> = good.steps.iter().map(|step| step.strikes).collect();
        assert_eq!(strikes, [0, 1, 1]);
        insta::assert_snapshot!(good.flagger_1.as_deref().unwrap(), @"after 30% -> 60% at 2026-01-02T03:04:05Z");
        assert_eq!(good.flagger_5, None);
        assert_eq!(bad.end, "roll back 10% -> 0%");
        assert!(bad.steps[0].ln_evidence > 4.6, "{bad:?}");
    }

    #[test]
    fn other_metrics_have_no_counts() {
        assert_eq!(counts("latency value=5ms samples=3 failures=0"), None);
        assert_eq!(counts("success-rate value=none samples=x failures=0"), None);
        assert_eq!(rollouts(&[entry("initialize", None)], 0.01), []);
    }
}
