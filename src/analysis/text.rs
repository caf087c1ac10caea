//! Numbers and findings in words.

use std::collections::BTreeSet;
use std::fmt;
use std::time::Duration;

use super::evidence::{Bound, Buckets, Counts};
use super::types::{Finding, Verdict};

/// A share in per cent, without needless zeros.
pub(super) fn percent(value: f64) -> String {
    format!("{}%", number(value))
}

/// The share of requests that succeeded, rounded down, so that it never looks better than a limit that it misses.
pub(super) fn success(counts: Counts) -> String {
    if counts.requests == 0 {
        return "0%".to_owned();
    }
    let good = u128::from(counts.requests.saturating_sub(counts.failures));
    let hundredths = good * 10_000 / u128::from(counts.requests);
    // At most 10,000.
    percent(hundredths as f64 / 100.0)
}

/// A number with up to four decimals, without needless zeros.
pub(super) fn number(value: f64) -> String {
    if value != 0.0 && (value.abs() < 0.0001 || value.abs() >= 1e15) {
        return format!("{value:e}");
    }
    let text = format!("{value:.4}");
    let text = text.trim_end_matches('0').trim_end_matches('.');
    if text == "-0" {
        "0".to_owned()
    } else {
        text.to_owned()
    }
}

/// A whole number with commas between thousands.
pub(super) fn thousands(value: u64) -> Thousands {
    Thousands(value)
}

/// Writes itself with commas between thousands, without a text of its own.
pub(super) struct Thousands(u64);

impl fmt::Display for Thousands {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut divisor = 1_u64;
        while self.0 / divisor >= 1000 {
            divisor *= 1000;
        }
        write!(f, "{}", self.0 / divisor)?;
        while divisor > 1 {
            divisor /= 1000;
            write!(f, ",{:03}", self.0 / divisor % 1000)?;
        }
        Ok(())
    }
}

/// A latency in microseconds as milliseconds or seconds.
pub(super) fn latency(micros: u64) -> String {
    if micros >= 10_000_000 && micros.is_multiple_of(1_000_000) {
        return format!("{}s", micros / 1_000_000);
    }
    format!("{}ms", number(micros as f64 / 1000.0))
}

/// A length of time in the form of the spec: `90s`, `5m`, `2h30m`.
pub(super) fn length(duration: Duration) -> String {
    let all = duration.as_secs();
    let (hours, minutes, seconds) = (all / 3600, all / 60 % 60, all % 60);
    match (hours, minutes, seconds) {
        (0, 0..=1, _) => format!("{all}s"),
        (0, _, 0) => format!("{minutes}m"),
        (0, _, _) => format!("{minutes}m{seconds}s"),
        (_, 0, _) => format!("{hours}h"),
        _ => format!("{hours}h{minutes}m"),
    }
}

/// `p99`, `p99.9`.
pub(super) fn quantile(quantile: f64) -> String {
    format!("p{}", number(quantile * 100.0))
}

/// Limits of a custom metric: `<= 100`, `>= 5`, `5 to 100`.
pub(super) fn limits(min: Option<f64>, max: Option<f64>) -> String {
    match (min, max) {
        (Some(min), Some(max)) => format!("{} to {}", number(min), number(max)),
        (Some(min), None) => format!(">= {}", number(min)),
        (None, Some(max)) => format!("<= {}", number(max)),
        (None, None) => "any number".to_owned(),
    }
}

/// An estimate of a quantile by linear interpolation, as `histogram_quantile` gives it.
pub(super) fn quantile_of(
    buckets: &Buckets,
    bounds: &BTreeSet<Bound>,
    quantile: f64,
) -> Option<String> {
    let count = |bound: &Bound| buckets.0.get(bound).copied().unwrap_or_default();
    let all = count(&Bound::ALL);
    if all == 0 {
        return None;
    }
    let rank = quantile * all as f64;
    let mut below: Option<(Bound, u64)> = None;
    for bound in bounds {
        let here = count(bound);
        if here as f64 >= rank {
            return Some(match below {
                _ if *bound == Bound::ALL => format!("> {}", latency(below?.0.0)),
                None => format!("<= {}", latency(bound.0)),
                Some((low, before)) => {
                    let share = (rank - before as f64) / (here - before).max(1) as f64;
                    let micros = low.0 as f64 + share * (bound.0 - low.0) as f64;
                    // Whole milliseconds: the estimate is no better than its bucket.
                    format!("{}ms", number((micros / 1000.0).round()))
                }
            });
        }
        below = Some((*bound, here));
    }
    None
}

/// One sentence for a verdict: the metrics that it comes from.
pub(super) fn of_verdict(findings: &[Finding], verdict: Verdict) -> String {
    let concerned = findings.iter().filter(|finding| finding.verdict == verdict);
    let parts: Vec<String> = concerned
        .map(|finding| match (verdict, &finding.value) {
            (Verdict::Pass, Some(value)) => {
                format!("{} {value} ({})", finding.metric, finding.threshold)
            }
            _ => format!("{}: {}", finding.metric, finding.sentence),
        })
        .collect();
    if parts.is_empty() {
        return "there is no metric to judge by".to_owned();
    }
    parts.join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_never_look_better_than_they_are() {
        let success = |requests, failures| {
            success(Counts {
                requests,
                failures,
                rejections: 0,
            })
        };
        assert_eq!(success(100_000, 1_001), "98.99%");
        assert_eq!(success(1204, 5), "99.58%");
        assert_eq!(success(300, 0), "100%");
        assert_eq!(success(50, 50), "0%");
        assert_eq!(success(1_000_000, 1), "99.99%");
    }

    #[test]
    fn numbers_are_short() {
        for (value, text) in [
            (99.0, "99"),
            (99.95, "99.95"),
            (0.0, "0"),
            (-0.0, "0"),
            (1e-7, "1e-7"),
            (-2.5, "-2.5"),
        ] {
            assert_eq!(number(value), text);
        }
        assert_eq!(
            [0, 999, 1000, 8_000, 1_004_067, u64::MAX].map(|n| thousands(n).to_string()),
            [
                "0",
                "999",
                "1,000",
                "8,000",
                "1,004,067",
                "18,446,744,073,709,551,615"
            ]
        );
        assert_eq!(latency(500_000), "500ms");
        assert_eq!(latency(500), "0.5ms");
        assert_eq!(latency(30_000_000), "30s");
        assert_eq!(quantile(0.99), "p99");
        assert_eq!(quantile(0.999), "p99.9");
        for (seconds, text) in [
            (0, "0s"),
            (90, "90s"),
            (120, "2m"),
            (150, "2m30s"),
            (3600, "1h"),
            (9000, "2h30m"),
        ] {
            assert_eq!(length(Duration::from_secs(seconds)), text);
        }
    }

    #[test]
    fn quantiles_are_estimated_as_dashboards_do() {
        let of = |counts: &[(u64, u64)], quantile| {
            let buckets: Vec<(Bound, u64)> = counts
                .iter()
                .map(|(ms, n)| {
                    (
                        if *ms == 0 {
                            Bound::ALL
                        } else {
                            Bound(ms * 1000)
                        },
                        *n,
                    )
                })
                .collect();
            let bounds = buckets.iter().map(|(bound, _)| *bound).collect();
            quantile_of(&Buckets(buckets.into_iter().collect()), &bounds, quantile)
        };
        // The two examples of Prometheus' interpolation that mislead: 667 ms and 940 ms.
        assert_eq!(
            of(&[(500, 985), (1000, 1000), (0, 1000)], 0.99).unwrap(),
            "667ms"
        );
        assert_eq!(
            of(&[(500, 11), (1000, 12), (0, 12)], 0.99).unwrap(),
            "940ms"
        );
        assert_eq!(
            of(&[(500, 10), (1000, 10), (0, 12)], 0.99).unwrap(),
            "> 1000ms"
        );
        assert_eq!(of(&[(50, 100), (0, 100)], 0.99).unwrap(), "<= 50ms");
        assert_eq!(of(&[(500, 0), (0, 0)], 0.99), None);
    }
}
