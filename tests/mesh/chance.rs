//! Whether a share of requests is what a weight promises, by chance alone.

/// How improbable a count has to be, on either side together, before it is no chance: the 99.9 % interval.
const IMPROBABLE: f64 = 0.001;

/// Whether `hits` of `all` requests lie in the binomial 99.9 % interval of a share in per cent. Exact, no approximation.
pub(crate) fn fits(hits: usize, all: usize, per_cent: i64) -> bool {
    let share = f64::from(i32::try_from(per_cent).unwrap()) / 100.0;
    if share <= 0.0 {
        return hits == 0;
    }
    if share >= 1.0 {
        return hits == all;
    }
    let below: f64 = (0..=hits).map(|k| probability(k, all, share)).sum();
    let above: f64 = (hits..=all).map(|k| probability(k, all, share)).sum();
    below >= IMPROBABLE / 2.0 && above >= IMPROBABLE / 2.0
}

/// Probability of exactly `hits` of `all`.
fn probability(hits: usize, all: usize, share: f64) -> f64 {
    let misses = all - hits;
    let choose = log_factorial(all) - log_factorial(hits) - log_factorial(misses);
    let count = |n: usize| f64::from(u32::try_from(n).unwrap());
    (choose + count(hits) * share.ln() + count(misses) * (1.0 - share).ln()).exp()
}

fn log_factorial(n: usize) -> f64 {
    (2..=n)
        .map(|k| f64::from(u32::try_from(k).unwrap()).ln())
        .sum()
}

/// How many times there are, their middle and the worst but one in a hundred, as cells of a table.
pub(crate) fn spread(mut times: Vec<std::time::Duration>) -> String {
    times.sort();
    let at = |share: f64| {
        let index = (f64::from(u32::try_from(times.len() - 1).unwrap()) * share).round();
        times[index as usize]
    };
    format!(
        "{} | {} ms | {} ms",
        times.len(),
        at(0.5).as_millis(),
        at(0.99).as_millis()
    )
}

/// What would make the judgement above worthless.
pub(crate) fn check() {
    // Of 1,000 requests at 10 % between 70 and 132 are no surprise: from tables of the binomial distribution.
    assert!(fits(100, 1000, 10) && fits(71, 1000, 10) && fits(131, 1000, 10));
    assert!(!fits(65, 1000, 10) && !fits(137, 1000, 10) && !fits(900, 1000, 10));
    assert!(fits(0, 50, 0) && !fits(1, 50, 0) && fits(50, 50, 100) && !fits(49, 50, 100));
}
