//! What a rollout can find out, in one sentence, at its beginning.

use std::time::Duration;

use crate::analysis::Load;
use crate::analysis::comparison::Rule;
use crate::analysis::comparison::reach::{Step, detectable};
use crate::spec::{MetricSource, Rung, ValidatedCanary, duration};

/// Requests of the candidate that a step waits for, and for how long at most.
const LONGEST_STEP: f64 = 300.0;

/// Says what failing share this rollout can tell from stable's, at the load that was seen; nothing where the versions
/// are not compared.
pub(super) fn sentence(canary: &ValidatedCanary, load: Load) -> String {
    let analysis = &canary.analysis;
    let comparable = canary.ladder.iter().all(|rung| rung.matches.is_empty());
    if !analysis.compare || analysis.skip || !comparable || load.seconds <= 0.0 {
        return String::new();
    }
    if load.requests == 0 {
        return " Prometheus shows no request to stable, so nothing can be said of what this rollout will find."
            .to_owned();
    }
    let per_second = load.requests as f64 / load.seconds;
    // None among a thousand may still be one in two thousand.
    let share = (load.failures as f64 + 0.5) / (load.requests as f64 + 1.0);
    let steps: Vec<Step> = canary
        .ladder
        .iter()
        .filter(|rung| (1..100).contains(&rung.weight.percent()))
        .map(|rung| step(rung, per_second, analysis.counting.step_requests))
        .collect();
    let rule = Rule {
        alpha: analysis.alpha,
        tolerance: analysis.counting.tolerance,
        ..Rule::default()
    };
    let whole: f64 = steps.iter().map(|(_, seconds)| seconds).sum();
    // A float cast saturates.
    let length = duration::written(Duration::from_secs(whole.round() as u64));
    let rate = if per_second >= 10.0 {
        format!("{per_second:.0}")
    } else {
        format!("{per_second:.2}")
    };
    let seen = format!("Stable gets {rate} requests a second");
    match detectable(per_second, share, &steps, &rule) {
        None => format!(
            " {seen}: in the {length} of this ladder even a candidate that always fails may stay unnoticed."
        ),
        Some(least) => {
            let least = least.max(floor(canary));
            format!(
                " {seen}, {} of {} failed: in the {length} of this ladder a candidate that fails {} or more is rolled back nine times in ten.",
                load.failures,
                load.requests,
                percent(least)
            )
        }
    }
}

/// How long a step lasts at least: its hold, and until it had its requests.
fn step(rung: &Rung, per_second: f64, requests: u64) -> Step {
    let weight = f64::from(rung.weight.percent()) / 100.0;
    let filled = requests as f64 / (per_second * weight).max(1e-9);
    (
        weight,
        rung.hold.as_secs_f64().max(filled.min(LONGEST_STEP)),
    )
}

/// The share below which no difference matters.
fn floor(canary: &ValidatedCanary) -> f64 {
    let limits = canary
        .analysis
        .metrics
        .iter()
        .filter_map(|metric| match metric.source {
            MetricSource::SuccessRate { min } => Some(1.0 - min / 100.0),
            MetricSource::Latency { .. } | MetricSource::Custom { .. } => None,
        });
    let limit = limits.fold(None, |least: Option<f64>, limit| {
        Some(least.map_or(limit, |least| least.min(limit)))
    });
    let usual = 0.1 * limit.unwrap_or(0.01);
    canary
        .analysis
        .counting
        .floor
        .map_or(usual, |percent| percent / 100.0)
}

/// Two digits are as exact as it is.
fn percent(share: f64) -> String {
    let percent = share * 100.0;
    let text = if percent >= 10.0 {
        format!("{percent:.0}")
    } else if percent >= 1.0 {
        format!("{percent:.1}")
    } else {
        format!("{percent:.2}")
    };
    let short = match text.contains('.') {
        true => text.trim_end_matches('0').trim_end_matches('.'),
        false => text.as_str(),
    };
    format!("{short}%")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rollout_says_what_it_can_find() {
        let mut canary = crate::spec::fixtures::managed();
        canary.analysis.skip = false;
        let said = |canary: &ValidatedCanary, requests, failures| {
            sentence(
                canary,
                Load {
                    requests,
                    failures,
                    seconds: 600.0,
                },
            )
        };
        insta::assert_snapshot!(said(&canary, 12_000, 12), @" Stable gets 20 requests a second, 12 of 12000 failed: in the 2m of this ladder a candidate that fails 2.2% or more is rolled back nine times in ten.");
        insta::assert_snapshot!(said(&canary, 1_200_000, 0), @" Stable gets 2000 requests a second, 0 of 1200000 failed: in the 2m of this ladder a candidate that fails 0.1% or more is rolled back nine times in ten.");
        insta::assert_snapshot!(said(&canary, 6, 0), @" Stable gets 0.01 requests a second: in the 10m of this ladder even a candidate that always fails may stay unnoticed.");
        insta::assert_snapshot!(said(&canary, 0, 0), @" Prometheus shows no request to stable, so nothing can be said of what this rollout will find.");
        canary.analysis.compare = false;
        assert_eq!(said(&canary, 12_000, 12), "");
    }
}
