//! One stream of events under comparison: failures, slow answers, answers that blame the client.

use std::collections::VecDeque;

use super::comparison::policy::{self, Guarded};
use super::comparison::{Comparison, Pod, Prior, Rule, Tick, combined};
use super::counting::{Delta, RECENT, Tally};
use super::threshold;
use crate::domain::Timestamp;
use crate::spec::Analysis;

/// Share of the level that belongs to requests for which there were none of stable's to compare with.
const ALONE: f64 = 0.1;

/// The evidence of a stream.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Watch {
    test: Comparison,
    /// The candidate's counts of ticks in which stable had no request: only a limit can judge them.
    alone: Pod,
    /// The step that `step` is about, and what candidate and stable had before it.
    step: Option<(Timestamp, Pod, Pod)>,
    /// The last readings with what both had, so that a step that is reported a little late still finds its beginning.
    recent: VecDeque<(Timestamp, Pod, Pod)>,
    candidate: Vec<Pod>,
    stable: Vec<Pod>,
}

impl Watch {
    pub(super) fn new(analysis: &Analysis) -> Self {
        let rule = Rule {
            alpha: analysis.alpha,
            tolerance: analysis.counting.tolerance,
            prior: Prior::Open,
            ..Rule::default()
        };
        Self {
            test: Comparison::new(rule),
            alone: (0, 0),
            step: None,
            recent: VecDeque::with_capacity(RECENT + 1),
            candidate: Vec::new(),
            stable: Vec::new(),
        }
    }

    /// Adds what a reading added; `event` says how many requests of a proxy count, and how many of them are events.
    /// A proxy for which it says nothing is left out.
    pub(super) fn add<T: Tally>(
        &mut self,
        at: Timestamp,
        step: Timestamp,
        delta: &Delta<T>,
        event: impl Fn(&T) -> Option<Pod>,
    ) {
        self.stable.clear();
        self.stable
            .extend(delta.proxies.stable.iter().filter_map(&event));
        if delta.counts {
            self.candidate.clear();
            self.candidate
                .extend(delta.proxies.candidate.iter().filter_map(&event));
            self.test.tick(Tick {
                stable: &self.stable,
                candidate: &self.candidate,
            });
            if self.stable.iter().all(|pod| pod.0 == 0) {
                for pod in &self.candidate {
                    let (requests, events) = self.alone;
                    self.alone = (requests.saturating_add(pod.0), events.saturating_add(pod.1));
                }
            }
        } else {
            self.test.seed(&self.stable);
        }
        if delta.restart {
            self.test.restart();
        }
        self.recent
            .push_back((at, self.test.candidate(), self.test.stable()));
        if self.recent.len() > RECENT {
            self.recent.pop_front();
        }
        // The first reading at or after the step is its beginning.
        if self.step.is_none_or(|(of, ..)| of != step) {
            let mut readings = self.recent.iter();
            self.step = readings
                .find(|(at, ..)| *at >= step)
                .map(|(_, candidate, stable)| (step, *candidate, *stable));
        }
    }

    /// The sequential test.
    pub(super) fn test(&self) -> &Comparison {
        &self.test
    }

    /// Requests and events of the candidate and of stable since the step began; `None` before the first reading.
    pub(super) fn since_step(&self, step: Timestamp) -> Option<(Pod, Pod)> {
        let (_, candidate, stable) = self.step.filter(|(of, ..)| *of == step)?;
        let less = |now: Pod, then: Pod| (now.0 - then.0, now.1 - then.1);
        Some((
            less(self.test.candidate(), candidate),
            less(self.test.stable(), stable),
        ))
    }

    /// `ln E`, without what the guards forbid to act on.
    pub(super) fn ln_evidence(&self, step: Timestamp, floor: f64, limit: Option<f64>) -> Guarded {
        let own = self.test.ln_evidence();
        let alone = limit.filter(|_| self.alone.1 >= policy::MIN_FAILURES);
        let evidence = match alone {
            None => own,
            Some(limit) => {
                let alone = threshold::ln_evidence(self.alone.0, self.alone.1, limit);
                combined(&[(1.0 - ALONE, own), (ALONE, alone)])
            }
        };
        let of_step = self
            .since_step(step)
            .map_or((0, 0), |(candidate, _)| candidate);
        policy::guarded(evidence, self.test.candidate(), of_step, floor)
    }
}
