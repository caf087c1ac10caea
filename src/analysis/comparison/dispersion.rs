//! How much stable's own pods differ, beyond chance: bursts, scrapes out of step, noisy neighbours.
//!
//! With three pods or more they are compared with each other in each tick. With fewer, each tick of stable is compared
//! with the tick before it; that also counts what all pods share, and so errs on the side of caution. One burst is an accident
//! and no habit, though: a stable that was released badly for a moment would hide a bad candidate for minutes. The two largest
//! of those differences, where it began and where it ended, are held against nobody but the ticks that they are in.

use super::Pod;

/// How many standard deviations of chance are not held against stable.
const CHANCE: f64 = 1.28;
/// A tick beyond this many standard deviations is a burst, and tempers itself.
const BURST: f64 = 4.0;
/// Pods needed for a comparison among themselves.
const ENOUGH_PODS: usize = 3;

/// Sums over all ticks so far, the seeds included.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub(super) struct Dispersion {
    pub(super) chi: f64,
    pub(super) freedom: f64,
    pub(super) weight: f64,
    before: Option<Pod>,
    /// The largest differences between two ticks.
    largest: [Option<Local>; 2],
}

/// What one tick showed.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Local {
    pub(super) chi: f64,
    freedom: f64,
    /// Mean number of failures of a pod.
    mean: f64,
}

impl Local {
    fn weight(&self) -> f64 {
        self.freedom * self.mean
    }
}

impl Dispersion {
    /// Adds a tick; `None` when it says nothing: no failure, nothing but failures, nothing to compare with.
    pub(super) fn observe(&mut self, stable: &[Pod]) -> Option<Local> {
        let pods = stable.iter().filter(|pod| pod.0 > 0).count();
        let whole = super::total(stable);
        let before = self.before.replace(whole);
        let local = if pods >= ENOUGH_PODS {
            homogeneity(stable, 1.0)
        } else {
            before.and_then(|before| homogeneity(&[before, whole], pods.max(1) as f64))
        }?;
        if pods < ENOUGH_PODS {
            self.note(local);
        }
        self.chi += local.chi;
        self.freedom += local.freedom;
        self.weight += local.weight();
        Some(local)
    }

    fn note(&mut self, local: Local) {
        let chi = |known: &Option<Local>| known.map_or(0.0, |known| known.chi);
        let [first, second] = &mut self.largest;
        if local.chi > chi(first) {
            *second = first.replace(local);
        } else if local.chi > chi(second) {
            *second = Some(local);
        }
    }

    /// Relative variance of a pod's failure rate that chance does not explain.
    pub(super) fn strength(&self, local: Option<&Local>) -> f64 {
        if self.weight <= 0.0 {
            return 0.0;
        }
        let mut lasting = (self.chi, self.freedom, self.weight);
        for burst in self.largest.iter().flatten() {
            lasting.0 -= burst.chi;
            lasting.1 -= burst.freedom;
            lasting.2 -= burst.weight();
        }
        let (chi, freedom, weight) = lasting;
        let beyond = chi - freedom - CHANCE * (2.0 * freedom.max(0.0)).sqrt();
        let lasting = if weight > 1e-9 * self.weight {
            beyond.max(0.0) / weight
        } else {
            0.0
        };
        match local {
            Some(Local { chi, freedom, mean })
                if *chi > freedom + BURST * (2.0 * freedom).sqrt() =>
            {
                lasting.max((chi / freedom - 1.0) / mean)
            }
            _ => lasting,
        }
    }
}

/// Pearson's chi squared over cells with requests. A cell of several pods has the mean of one.
fn homogeneity(cells: &[Pod], pods_a_cell: f64) -> Option<Local> {
    let (n, x) = super::total(cells);
    if x == 0 || x == n {
        return None;
    }
    let share = x as f64 / n as f64;
    let mut chi = 0.0;
    let mut used = 0.0;
    for (requests, failures) in cells.iter().filter(|cell| cell.0 > 0) {
        let expected = *requests as f64 * share;
        chi += (*failures as f64 - expected).powi(2) / (expected * (1.0 - share));
        used += 1.0;
    }
    (used >= 2.0).then(|| Local {
        chi,
        freedom: used - 1.0,
        mean: x as f64 / used / pods_a_cell,
    })
}
