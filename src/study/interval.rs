//! 95 % confidence intervals of shares and means: no figure of a simulation stands alone.

use serde::Serialize;

/// Standard deviations of 95 %.
const Z: f64 = 1.959_963_984_540_054;

/// A share of counted things with its confidence interval.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Share {
    /// How many.
    pub count: u64,
    /// Of how many.
    pub of: u64,
    /// Lower limit of the share.
    pub low: f64,
    /// Upper limit of the share.
    pub high: f64,
}

impl Share {
    /// Wilson's interval: right for shares near 0 as well, where most of ours are.
    pub fn new(count: u64, of: u64) -> Self {
        if of == 0 {
            return Self {
                count,
                of,
                low: 0.0,
                high: 1.0,
            };
        }
        let (x, n) = (count as f64, of as f64);
        let p = x / n;
        let scale = 1.0 + Z * Z / n;
        let center = (p + Z * Z / (2.0 * n)) / scale;
        let half = Z / scale * (p * (1.0 - p) / n + Z * Z / (4.0 * n * n)).sqrt();
        Self {
            count,
            of,
            low: if count == 0 { 0.0 } else { center - half },
            high: if count == of { 1.0 } else { center + half },
        }
    }

    /// The share; 0 of nothing.
    pub fn value(&self) -> f64 {
        if self.of == 0 {
            0.0
        } else {
            self.count as f64 / self.of as f64
        }
    }

    /// Both together.
    pub fn plus(&self, other: &Self) -> Self {
        Self::new(self.count + other.count, self.of + other.of)
    }

    /// `0.15% [0.13, 0.19]`.
    pub fn shown(&self) -> String {
        if self.of == 0 {
            return "-".to_owned();
        }
        let percent = |share: f64| number(share * 100.0);
        format!(
            "{}% [{}, {}]",
            percent(self.value()),
            percent(self.low),
            percent(self.high)
        )
    }
}

/// A mean with its confidence interval.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize)]
pub struct Mean {
    /// The mean.
    pub value: f64,
    /// Half the width of its 95 % interval.
    pub margin: f64,
}

impl Mean {
    /// Of these values.
    pub fn of(values: &[f64]) -> Self {
        let n = values.len() as f64;
        if values.is_empty() {
            return Self::default();
        }
        let value = values.iter().sum::<f64>() / n;
        let variance = values.iter().map(|v| (v - value).powi(2)).sum::<f64>() / (n - 1.0).max(1.0);
        Self {
            value,
            margin: Z * (variance / n).sqrt(),
        }
    }

    /// The mean of several independent means.
    pub fn pooled(means: &[Self]) -> Self {
        let n = means.len().max(1) as f64;
        Self {
            value: means.iter().map(|mean| mean.value).sum::<f64>() / n,
            margin: means
                .iter()
                .map(|mean| mean.margin.powi(2))
                .sum::<f64>()
                .sqrt()
                / n,
        }
    }

    /// `12.4 ± 0.3`.
    pub fn shown(&self) -> String {
        format!("{} ± {}", number(self.value), number(self.margin))
    }
}

/// Three significant digits at most, and no more than needed.
pub fn number(value: f64) -> String {
    let size = value.abs();
    let digits = match size {
        _ if size >= 100.0 => 0,
        _ if size >= 10.0 => 1,
        _ if size >= 1.0 => 2,
        _ if size >= 0.1 => 2,
        _ => 3,
    };
    let text = format!("{value:.digits$}");
    let text = if text.contains('.') {
        text.trim_end_matches('0').trim_end_matches('.').to_owned()
    } else {
        text
    };
    if text == "-0" { "0".to_owned() } else { text }
}

/// The value below which this part of the sorted values is.
pub fn quantile(sorted: &[f64], part: f64) -> f64 {
    let last = sorted.len().saturating_sub(1);
    let index = (part * last as f64).round() as usize;
    sorted.get(index.min(last)).copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_near_zero_have_sensible_limits() {
        let none = Share::new(0, 36_000);
        assert_eq!(none.low, 0.0);
        assert!((none.high - 1.067e-4).abs() < 1e-6, "{}", none.high);
        // The published figure: 98 of 64,000 is 0.15 % with 0.13 to 0.19.
        assert_eq!(Share::new(98, 64_000).shown(), "0.15% [0.13, 0.19]");
        assert_eq!(Share::new(5, 5).high, 1.0);
        assert_eq!(Share::new(0, 0).shown(), "-");
        assert_eq!(Share::new(1, 4).plus(&Share::new(2, 6)), Share::new(3, 10));
    }

    #[test]
    fn means() {
        let mean = Mean::of(&[1.0, 2.0, 3.0, 4.0]);
        assert_eq!(mean.value, 2.5);
        assert!((mean.margin - 1.265).abs() < 1e-3, "{}", mean.margin);
        let pooled = Mean::pooled(&[mean, mean]);
        assert!((pooled.margin - mean.margin / 2_f64.sqrt()).abs() < 1e-12);
        assert_eq!(Mean::of(&[]), Mean::default());
    }

    #[test]
    fn numbers_are_short() {
        let shown = [168_914.2, 21.04, 5.0, 0.153, 0.019, 0.0, -0.0001].map(number);
        assert_eq!(shown, ["168914", "21", "5", "0.15", "0.019", "0", "0"]);
        let sorted = [1.0, 2.0, 3.0];
        assert_eq!(quantile(&sorted, 0.5), 2.0);
        assert_eq!(quantile(&[], 0.5), 0.0);
    }
}
