//! `rate` and `irate` of one counter series as Prometheus 3 computes them, extrapolation included.
//!
//! Written from the documented behaviour and checked against a real server: the rules that the benchmark compares with
//! see what their users see, lost first samples and invented halves included.

/// One scraped value.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Point {
    /// Milliseconds.
    pub at: i64,
    /// Value of the counter.
    pub value: f64,
}

/// How far beyond the average distance of samples a window's edge may be to be reached by extrapolation.
const REACH: f64 = 1.1;

/// The per-second rate over the window that ends at `end` and is `range` milliseconds long; `None` with fewer than two
/// samples. `points` are those inside of the window (left edge excluded), oldest first.
pub fn rate(points: &[Point], end: i64, range: i64) -> Option<f64> {
    let (first, last) = (points.first()?, points.last()?);
    if points.len() < 2 || last.at <= first.at || range <= 0 {
        return None;
    }
    let mut increase = last.value - first.value;
    for pair in points.windows(2) {
        if let [before, after] = pair
            && after.value < before.value
        {
            increase += before.value;
        }
    }
    let seconds = |ms: i64| ms as f64 / 1000.0;
    let sampled = seconds(last.at - first.at);
    let between = sampled / (points.len() - 1) as f64;
    let threshold = between * REACH;
    let mut to_start = seconds(first.at - (end - range));
    let mut to_end = seconds(end - last.at);
    if to_start >= threshold {
        to_start = between / 2.0;
    }
    if increase > 0.0 && first.value >= 0.0 {
        // A counter was not below zero before its first sample.
        to_start = to_start.min(sampled * (first.value / increase));
    }
    if to_end >= threshold {
        to_end = between / 2.0;
    }
    let factor = (sampled + to_start + to_end) / sampled / seconds(range);
    Some(increase * factor)
}

/// The per-second rate between the last two samples of a window; `None` with fewer than two.
pub fn irate(points: &[Point]) -> Option<f64> {
    let [.., before, last] = points else {
        return None;
    };
    if last.at <= before.at {
        return None;
    }
    let step = if last.value < before.value {
        last.value
    } else {
        last.value - before.value
    };
    Some(step / ((last.at - before.at) as f64 / 1000.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn points(list: &[(i64, f64)]) -> Vec<Point> {
        let point = |(at, value): &(i64, f64)| Point {
            at: at * 1000,
            value: *value,
        };
        list.iter().map(point).collect()
    }

    fn check(list: &[(i64, f64)], end: i64, range: i64, expected: f64) {
        let found = rate(&points(list), end * 1000, range * 1000).unwrap();
        assert!((found - expected).abs() < 1e-12, "{list:?}: {found}");
    }

    /// Values that a Prometheus server gave for these samples.
    #[test]
    fn rates_as_a_server_computes_them() {
        let steady = [(15, 1030.0), (30, 1060.0), (45, 1090.0), (60, 1120.0)];
        check(&steady, 67, 60, 1.999_999_999_999_999_8);
        let longer = [&[(0, 1000.0)], &steady[..]].concat();
        check(&longer, 67, 300, 0.496_666_666_666_666_7);
        // A counter that has just begun is not extrapolated below zero.
        check(&[(45, 2.0), (60, 9.0)], 67, 60, 0.204_444_444_444_444_43);
        check(
            &[(45, 7.0), (60, 12.0), (75, 12.0), (90, 30.0)],
            100,
            60,
            0.511_111_111_111_111_1,
        );
        // A reset, and samples that are missing.
        check(
            &[(15, 130.0), (30, 160.0), (45, 20.0), (60, 50.0)],
            67,
            60,
            1.777_777_777_777_777_7,
        );
        check(&[(45, 160.0), (75, 200.0)], 77, 60, 1.333_333_333_333_333_3);
    }

    /// Prometheus 3 cuts the start at half an interval before it looks for the zero point; 2 did the reverse.
    #[test]
    fn the_order_of_prometheus_3() {
        check(
            &[(45, 14.0), (60, 35.0)],
            67,
            60,
            21.0 * (15.0 + 7.5 + 7.0) / 15.0 / 60.0,
        );
        // Here version 2 gives 0.235.
        check(&[(30, 3.0), (45, 7.0), (60, 12.0)], 67, 60, 0.2225);
    }

    #[test]
    fn the_last_two_samples() {
        let found = irate(&points(&[(0, 5.0), (45, 1090.0), (60, 1120.0)]));
        assert_eq!(found, Some(2.0));
        let reset = irate(&points(&[(30, 160.0), (45, 20.0)])).unwrap();
        assert!((reset - 1.333_333_333_333_333_3).abs() < 1e-12);
    }

    #[test]
    fn one_sample_is_no_rate() {
        assert_eq!(rate(&points(&[(60, 5.0)]), 67_000, 60_000), None);
        assert_eq!(rate(&[], 67_000, 60_000), None);
        assert_eq!(irate(&points(&[(60, 5.0)])), None);
        assert_eq!(rate(&points(&[(60, 5.0), (60, 6.0)]), 67_000, 60_000), None);
    }
}
