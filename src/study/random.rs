//! Random numbers that are the same everywhere: a seed gives the same rollouts on every machine and in every version.
//!
//! Counts are drawn whole (Poisson, binomial), never request by request, so that the cost of a draw does not grow with
//! the traffic.

/// A source of random numbers: xoshiro256++ by Blackman and Vigna, seeded through splitmix64.
#[derive(Debug, Clone)]
pub struct Random {
    state: [u64; 4],
}

/// Spreads a seed over 64 bits.
fn splitmix(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut z = *state;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

impl Random {
    /// The source that belongs to a seed and a path of numbers below it, such as cell and rollout.
    pub fn new(seed: u64, path: &[u64]) -> Self {
        let mut mixed = seed;
        let mut root = splitmix(&mut mixed);
        for part in path {
            mixed = root ^ part.wrapping_mul(0xd6e8_feb8_6659_fd93);
            root = splitmix(&mut mixed);
        }
        let mut state = [0; 4];
        for word in &mut state {
            *word = splitmix(&mut root);
        }
        Self { state }
    }

    /// 64 random bits.
    pub fn bits(&mut self) -> u64 {
        let [a, b, c, d] = self.state;
        let result = a.wrapping_add(d).rotate_left(23).wrapping_add(a);
        let (c2, d2) = (c ^ a, d ^ b);
        self.state = [a ^ d2, b ^ c2, c2 ^ (b << 17), d2.rotate_left(45)];
        result
    }

    /// Evenly from 0 (inclusive) to 1 (exclusive).
    pub fn unit(&mut self) -> f64 {
        (self.bits() >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// Evenly from `0..end`; 0 for an empty range.
    pub fn below(&mut self, end: u64) -> u64 {
        // The bias of the multiplication is below 2^-40 for every range that is used here.
        ((u128::from(self.bits()) * u128::from(end)) >> 64) as u64
    }

    /// True with this probability.
    pub fn chance(&mut self, probability: f64) -> bool {
        self.unit() < probability
    }

    /// Exponential with mean 1: the gamma distribution whose coefficient of variation is 1.
    pub fn exponential(&mut self) -> f64 {
        -(1.0 - self.unit()).ln()
    }

    /// A Poisson count with this mean.
    pub fn poisson(&mut self, mean: f64) -> u64 {
        if mean <= 0.0 {
            return 0;
        }
        if mean < 12.0 {
            return self.poisson_by_inversion(mean);
        }
        self.poisson_by_rejection(mean)
    }

    fn poisson_by_inversion(&mut self, mean: f64) -> u64 {
        let mut left = self.unit();
        let mut term = (-mean).exp();
        let mut count = 0;
        // A mean of 12 reaches 200 with a chance below 1e-130; rounding must not make this endless.
        while left >= term && count < 200 {
            left -= term;
            count += 1;
            term *= mean / count as f64;
        }
        count
    }

    /// Transformed rejection, Hörmann 1993 (PTRS).
    fn poisson_by_rejection(&mut self, mean: f64) -> u64 {
        let b = 0.931 + 2.53 * mean.sqrt();
        let a = -0.059 + 0.024_83 * b;
        let inverse_alpha = 1.1239 + 1.1328 / (b - 3.4);
        let v_r = 0.9277 - 3.6224 / (b - 2.0);
        loop {
            let u = self.unit() - 0.5;
            let v = self.unit();
            let us = 0.5 - u.abs();
            let k = ((2.0 * a / us + b) * u + mean + 0.43).floor();
            if us >= 0.07 && v <= v_r {
                return k as u64;
            }
            if k < 0.0 || (us < 0.013 && v > us) {
                continue;
            }
            let left = (v * inverse_alpha / (a / (us * us) + b)).ln();
            if left <= k * mean.ln() - mean - ln_factorial(k) {
                return k as u64;
            }
        }
    }

    /// How many of `n` happen, each with this probability.
    pub fn binomial(&mut self, n: u64, probability: f64) -> u64 {
        if n == 0 || probability <= 0.0 {
            return 0;
        }
        if probability >= 1.0 {
            return n;
        }
        if probability > 0.5 {
            return n - self.binomial(n, 1.0 - probability);
        }
        if (n as f64) * probability < 12.0 {
            return self.binomial_by_inversion(n, probability);
        }
        self.binomial_by_rejection(n, probability)
    }

    fn binomial_by_inversion(&mut self, n: u64, p: f64) -> u64 {
        let odds = p / (1.0 - p);
        let mut left = self.unit();
        let mut term = ((-p).ln_1p() * n as f64).exp();
        let mut count = 0;
        while left >= term && count < n.min(200) {
            left -= term;
            count += 1;
            term *= odds * (n - count + 1) as f64 / count as f64;
        }
        count
    }

    /// Transformed rejection, Hörmann 1993 (BTRS).
    fn binomial_by_rejection(&mut self, trials: u64, p: f64) -> u64 {
        let n = trials as f64;
        let deviation = (n * p * (1.0 - p)).sqrt();
        let b = 1.15 + 2.53 * deviation;
        let a = -0.0873 + 0.0248 * b + 0.01 * p;
        let c = n * p + 0.5;
        let v_r = 0.92 - 4.2 / b;
        let alpha = (2.83 + 5.1 / b) * deviation;
        let ln_odds = (p / (1.0 - p)).ln();
        let mode = ((n + 1.0) * p).floor();
        let at_mode = ln_factorial(mode) + ln_factorial(n - mode);
        loop {
            let u = self.unit() - 0.5;
            let v = self.unit();
            let us = 0.5 - u.abs();
            let k = ((2.0 * a / us + b) * u + c).floor();
            if k < 0.0 || k > n {
                continue;
            }
            if us >= 0.07 && v <= v_r {
                return k as u64;
            }
            let left = (v * alpha / (a / (us * us) + b)).ln();
            let ratio = at_mode - ln_factorial(k) - ln_factorial(n - k) + (k - mode) * ln_odds;
            if left <= ratio {
                return k as u64;
            }
        }
    }
}

/// `ln k!`, by Stirling's series from 16 on (error below 1e-13 there).
pub(super) fn ln_factorial(k: f64) -> f64 {
    if k < 16.0 {
        let mut product = 1.0;
        let mut factor = 2.0;
        while factor <= k {
            product *= factor;
            factor += 1.0;
        }
        return f64::ln(product);
    }
    let x = k + 1.0;
    let square = x * x;
    (x - 0.5) * x.ln() - x
        + 0.5 * std::f64::consts::TAU.ln()
        + (1.0 / 12.0 - (1.0 / 360.0 - 1.0 / (1260.0 * square)) / square) / x
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_is_a_promise() {
        let mut random = Random::new(1, &[2, 3]);
        let first: Vec<u64> = (0..3).map(|_| random.bits()).collect();
        assert_eq!(
            first,
            (0..3)
                .scan(Random::new(1, &[2, 3]), |r, _| Some(r.bits()))
                .collect::<Vec<_>>()
        );
        assert_ne!(first[0], Random::new(1, &[3, 2]).bits());
        assert_ne!(first[0], Random::new(2, &[2, 3]).bits());
        // Published vector of xoshiro256++ for the state 1, 2, 3, 4.
        let mut known = Random {
            state: [1, 2, 3, 4],
        };
        let got: Vec<u64> = (0..4).map(|_| known.bits()).collect();
        assert_eq!(
            got,
            [
                41_943_041,
                58_720_359,
                3_588_806_011_781_223,
                3_591_011_842_654_386
            ]
        );
    }

    /// Mean and variance within five standard errors, by both algorithms.
    fn check(expected: f64, variance: f64, mut draw: impl FnMut() -> u64) {
        let n = 40_000;
        let values: Vec<f64> = (0..n).map(|_| draw() as f64).collect();
        let mean = values.iter().sum::<f64>() / f64::from(n);
        let spread = values.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / f64::from(n);
        let error = (variance / f64::from(n)).sqrt();
        assert!(
            (mean - expected).abs() < 5.0 * error,
            "mean {mean}, expected {expected}"
        );
        assert!(
            (spread / variance - 1.0).abs() < 0.06,
            "variance {spread}, expected {variance}"
        );
    }

    #[test]
    fn counts_have_the_right_mean_and_variance() {
        let mut random = Random::new(7, &[]);
        for mean in [0.03, 1.0, 11.9, 12.1, 300.0, 40_000.0] {
            check(mean, mean, || random.poisson(mean));
        }
        for (n, p) in [
            (5, 0.3),
            (1000, 0.001),
            (1000, 0.02),
            (30, 0.9),
            (70_000, 0.1),
            (100, 0.5),
        ] {
            let mean = n as f64 * p;
            check(mean, mean * (1.0 - p), || random.binomial(n, p));
        }
    }

    #[test]
    fn counts_follow_the_whole_distribution() {
        // Chi-square of the rejection samplers against the exact mass, 30 to 40 classes: 99.9% limit is about 73.
        let mut random = Random::new(11, &[]);
        let draws = 60_000;
        let mut seen = [0.0; 60];
        for _ in 0..draws {
            seen[(random.binomial(60, 0.4) as usize).min(59)] += 1.0;
        }
        let mass = |k: f64| {
            (ln_factorial(60.0) - ln_factorial(k) - ln_factorial(60.0 - k)
                + k * 0.4_f64.ln()
                + (60.0 - k) * 0.6_f64.ln())
            .exp()
        };
        let chi: f64 = (0..60)
            .map(|k| (seen[k], f64::from(draws) * mass(k as f64)))
            .filter(|(_, expected)| *expected > 5.0)
            .map(|(got, expected)| (got - expected).powi(2) / expected)
            .sum();
        assert!(chi < 73.0, "{chi}");
    }

    #[test]
    fn edges() {
        let mut random = Random::new(3, &[]);
        assert_eq!(random.poisson(0.0), 0);
        assert_eq!(random.binomial(0, 0.5), 0);
        assert_eq!(random.binomial(9, 1.0), 9);
        assert_eq!(random.binomial(9, 0.0), 0);
        assert_eq!(random.below(1), 0);
        assert!((0..1000).all(|_| random.below(15) < 15));
        assert!((ln_factorial(20.0) - 42.335_616_460_753_485).abs() < 1e-12);
        assert!((ln_factorial(5.0) - 120_f64.ln()).abs() < 1e-15);
    }
}
