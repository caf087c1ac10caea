//! Whether requests arrive as the weight says: a VirtualService that was not applied is found by the counts.

/// Factor of evidence from which on a rollout waits.
pub const SUSPICIOUS: f64 = 1000.0;

/// How firmly the weight is believed: as if this many requests had been seen to follow it.
const FIRMNESS: f64 = 100.0;

/// `ln` of the evidence that the candidate's share of the requests is not `weight` (0 to 1): a Beta mixture around the
/// weight against the weight itself. A weight of 0 or 1 says nothing.
pub fn ln_misrouted(candidate: u64, stable: u64, weight: f64) -> f64 {
    if !(weight > 0.0 && weight < 1.0) {
        return 0.0;
    }
    let (a, b) = (FIRMNESS * weight, FIRMNESS * (1.0 - weight));
    let (c, s) = (candidate as f64, stable as f64);
    ln_beta(a + c, b + s) - ln_beta(a, b) - c * weight.ln() - s * (-weight).ln_1p()
}

fn ln_beta(a: f64, b: f64) -> f64 {
    ln_gamma(a) + ln_gamma(b) - ln_gamma(a + b)
}

/// Stirling's series from 10 on, shifted up from below: the error is under 1e-12.
fn ln_gamma(x: f64) -> f64 {
    let mut x = x;
    let mut shift = 0.0;
    while x < 10.0 {
        shift -= x.ln();
        x += 1.0;
    }
    let inverse = 1.0 / x;
    let square = inverse * inverse;
    let series = inverse
        * (1.0 / 12.0
            - square
                * (1.0 / 360.0
                    - square * (1.0 / 1260.0 - square * (1.0 / 1680.0 - square / 1188.0))));
    let half_ln_tau = 0.5 * std::f64::consts::TAU.ln();
    shift + (x - 0.5) * x.ln() - x + half_ln_tau + series
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_gamma_function() {
        for (x, expected) in [
            (1.0, 0.0),
            (2.0, 0.0),
            (0.5, 0.572_364_942_924_700_1),
            (11.0, 15.104_412_573_075_515),
        ] {
            assert!(
                (ln_gamma(x) - expected).abs() < 1e-11,
                "{x}: {}",
                ln_gamma(x)
            );
        }
    }

    #[test]
    fn a_weight_that_was_not_applied_is_found() {
        // Nobody reaches a candidate that should get one in ten, or everybody does.
        assert!(ln_misrouted(0, 200, 0.1) > SUSPICIOUS.ln());
        assert!(ln_misrouted(200, 0, 0.1) > SUSPICIOUS.ln());
        assert!(ln_misrouted(0, 40, 0.1) < SUSPICIOUS.ln());
        for (c, s) in [(20, 180), (28, 172), (1000, 9000), (1060, 8940), (0, 0)] {
            assert!(ln_misrouted(c, s, 0.1) < SUSPICIOUS.ln(), "{c} {s}");
        }
        assert_eq!(ln_misrouted(5, 5, 0.0), 0.0);
        assert_eq!(ln_misrouted(5, 5, 1.0), 0.0);
    }
}
