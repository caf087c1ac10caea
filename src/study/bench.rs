//! The benchmark: many rollouts of every cell under every rule, and how often each rule was right.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use serde::Serialize;

use super::interval::{self, Mean, Share};
use super::rollout::{self, End};
use super::rule::Rule;
use super::scenario::{self, Cell, Suite, Truth};

/// Two ticks: how fast a violent failure has to be rolled back.
pub(super) const SWIFT: i64 = 2 * super::traffic::SCRAPE;

/// What to run.
#[derive(Debug, Clone, PartialEq)]
pub struct Settings {
    /// Where all randomness comes from.
    pub seed: u64,
    /// Rollouts of each cell under each rule.
    pub rollouts: u64,
    /// Which cells.
    pub cells: Vec<Cell>,
    /// Which rules.
    pub rules: Vec<Rule>,
    /// Threads to use.
    pub threads: usize,
}

/// How a rule did in a cell.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Score {
    /// Group of the cell.
    pub suite: Suite,
    /// What happened.
    pub scenario: String,
    /// What would have been right.
    pub truth: Truth,
    /// Whether the SLO was broken without the candidate's doing.
    pub slo_broken_by_stable: bool,
    /// Requests a second.
    pub rps: f64,
    /// Who decided.
    pub rule: Rule,
    /// Ends with traffic back on stable.
    pub rolled_back: Share,
    /// Ends with the candidate as stable.
    pub promoted: Share,
    /// Ends without an answer.
    pub inconclusive: Share,
    /// Rolled back within two ticks.
    pub swift: Share,
    /// Bad answers that were the candidate's fault.
    pub excess: Mean,
    /// Seconds until the end, median.
    pub median_seconds: f64,
    /// Seconds until the end, 90th percentile.
    pub p90_seconds: f64,
}

/// Runs the benchmark. The result depends on the settings but for the number of threads.
pub fn run(settings: &Settings) -> Vec<Score> {
    let jobs: Vec<(&Cell, Rule)> = settings
        .cells
        .iter()
        .flat_map(|cell| settings.rules.iter().map(move |rule| (cell, *rule)))
        .collect();
    in_parallel(settings.threads, &jobs, |(cell, rule)| {
        score(cell, *rule, settings)
    })
}

/// Does independent work on several threads; results in the order of the jobs.
pub fn in_parallel<J: Sync, R: Send>(
    threads: usize,
    jobs: &[J],
    work: impl Fn(&J) -> R + Sync,
) -> Vec<R> {
    let next = AtomicUsize::new(0);
    let done: Mutex<BTreeMap<usize, R>> = Mutex::new(BTreeMap::new());
    std::thread::scope(|scope| {
        for _ in 0..threads.clamp(1, 64) {
            scope.spawn(|| {
                loop {
                    let index = next.fetch_add(1, Ordering::Relaxed);
                    let Some(job) = jobs.get(index) else { break };
                    let result = work(job);
                    let mut done = done.lock().unwrap_or_else(PoisonError::into_inner);
                    done.insert(index, result);
                }
            });
        }
    });
    let done = done.into_inner().unwrap_or_else(PoisonError::into_inner);
    done.into_values().collect()
}

fn score(cell: &Cell, rule: Rule, settings: &Settings) -> Score {
    let records: Vec<rollout::Record> = (0..settings.rollouts)
        .map(|number| rollout::run(rule, cell, settings.seed, number))
        .collect();
    let share = |wanted: &dyn Fn(&rollout::Record) -> bool| {
        let count = records.iter().filter(|record| wanted(record)).count();
        Share::new(count as u64, records.len() as u64)
    };
    let excess: Vec<f64> = records.iter().map(|record| record.excess).collect();
    let mut seconds: Vec<f64> = records.iter().map(|r| r.at as f64 / 1000.0).collect();
    seconds.sort_by(f64::total_cmp);
    Score {
        suite: cell.suite,
        scenario: cell.scenario.name.to_owned(),
        truth: cell.scenario.truth,
        slo_broken_by_stable: cell.scenario.breaks_slo_by_itself(),
        rps: cell.rps,
        rule,
        rolled_back: share(&|record| record.end == End::RolledBack),
        promoted: share(&|record| record.end == End::Promoted),
        inconclusive: share(&|record| record.end == End::Inconclusive),
        swift: share(&|record| record.end == End::RolledBack && record.at <= SWIFT),
        excess: Mean::of(&excess),
        median_seconds: interval::quantile(&seconds, 0.5),
        p90_seconds: interval::quantile(&seconds, 0.9),
    }
}

/// A rule over a load of the core suite, or over all of them.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Summary {
    /// Who decided.
    pub rule: Rule,
    /// Requests a second; `None` for all loads together.
    pub rps: Option<f64>,
    /// Healthy candidates that were rolled back.
    pub false_rollback: Share,
    /// The same without the cell in which stable breaks the SLO too.
    pub false_rollback_slo_kept: Share,
    /// Bad candidates that were promoted.
    pub missed: Share,
    /// Healthy candidates without an answer.
    pub inconclusive_healthy: Share,
    /// Bad candidates without an answer.
    pub inconclusive_bad: Share,
    /// Candidates that are worse but within the limit, promoted.
    pub within_limit_promoted: Share,
    /// Bad answers until the end of a rollout of a bad candidate.
    pub excess: Mean,
}

/// The rules that there are scores of, in the order of the tables.
pub fn rules(scores: &[Score]) -> Vec<Rule> {
    let mut rules: Vec<Rule> = scores.iter().map(|score| score.rule).collect();
    rules.sort();
    rules.dedup();
    rules
}

/// The core suite by rule and load, the loads together last.
pub fn summaries(scores: &[Score]) -> Vec<Summary> {
    let core = || scores.iter().filter(|score| score.suite == Suite::Core);
    let mut loads: Vec<f64> = core().map(|score| score.rps).collect();
    loads.sort_by(f64::total_cmp);
    loads.dedup();
    let mut found = Vec::new();
    for rule in rules(scores) {
        let of_rule: Vec<&Score> = core().filter(|score| score.rule == rule).collect();
        if of_rule.is_empty() {
            continue;
        }
        for rps in loads.iter().copied().map(Some).chain([None]) {
            let chosen: Vec<&Score> = of_rule
                .iter()
                .copied()
                .filter(|score| rps.is_none_or(|rps| score.rps == rps))
                .collect();
            found.push(summary(rule, rps, &chosen));
        }
    }
    found
}

fn summary(rule: Rule, rps: Option<f64>, scores: &[&Score]) -> Summary {
    let sum = |wanted: &dyn Fn(&Score) -> bool, part: fn(&Score) -> Share| {
        scores
            .iter()
            .filter(|score| wanted(score))
            .fold(Share::new(0, 0), |all, score| all.plus(&part(score)))
    };
    let is = |truth: Truth| move |score: &Score| score.truth == truth;
    let kept = |score: &Score| score.truth == Truth::Healthy && !score.slo_broken_by_stable;
    let excess: Vec<Mean> = scores
        .iter()
        .filter(|score| score.truth == Truth::Bad)
        .map(|score| score.excess)
        .collect();
    Summary {
        rule,
        rps,
        false_rollback: sum(&is(Truth::Healthy), |score| score.rolled_back),
        false_rollback_slo_kept: sum(&kept, |score| score.rolled_back),
        missed: sum(&is(Truth::Bad), |score| score.promoted),
        inconclusive_healthy: sum(&is(Truth::Healthy), |score| score.inconclusive),
        inconclusive_bad: sum(&is(Truth::Bad), |score| score.inconclusive),
        within_limit_promoted: sum(&is(Truth::WithinLimit), |score| score.promoted),
        excess: Mean::pooled(&excess),
    }
}

/// What a rule's verdicts are worth where this share of the releases is bad.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Worth {
    /// Who decided.
    pub rule: Rule,
    /// Share of bad releases.
    pub prevalence: f64,
    /// Healthy releases rolled back, of 1,000 releases.
    pub wrong_rollbacks: f64,
    /// Bad releases promoted, of 1,000 releases.
    pub missed: f64,
    /// Share of rollbacks that were right.
    pub right_rollbacks: f64,
}

/// Shares of bad releases that the worth of a verdict is given for.
pub const PREVALENCES: [f64; 3] = [0.01, 0.05, 0.20];

/// What verdicts are worth, by rule and prevalence, all loads together.
pub fn worth(summaries: &[Summary], scores: &[Score]) -> Vec<Worth> {
    let mut found = Vec::new();
    for summary in summaries.iter().filter(|summary| summary.rps.is_none()) {
        let caught = scores
            .iter()
            .filter(|s| s.suite == Suite::Core && s.rule == summary.rule && s.truth == Truth::Bad)
            .fold(Share::new(0, 0), |all, score| all.plus(&score.rolled_back));
        for prevalence in PREVALENCES {
            let wrong = 1000.0 * (1.0 - prevalence) * summary.false_rollback.value();
            let right = 1000.0 * prevalence * caught.value();
            found.push(Worth {
                rule: summary.rule,
                prevalence,
                wrong_rollbacks: wrong,
                missed: 1000.0 * prevalence * summary.missed.value(),
                right_rollbacks: if wrong + right > 0.0 {
                    right / (wrong + right)
                } else {
                    1.0
                },
            });
        }
    }
    found
}

/// Cells of these suites.
pub fn cells(suites: &[Suite]) -> Vec<Cell> {
    suites
        .iter()
        .flat_map(|suite| match suite {
            Suite::Core => scenario::core(),
            Suite::Idle => scenario::idle(),
            Suite::Stress => scenario::stress(),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(threads: usize) -> Settings {
        let mut cells = cells(&[Suite::Core]);
        cells.retain(|cell| cell.rps == 200.0);
        Settings {
            seed: 1,
            rollouts: 40,
            cells,
            rules: vec![Rule::Serin, Rule::Flagger1],
            threads,
        }
    }

    /// The tiny version of the benchmark: 40 rollouts of each core cell at 200 requests a second. The thresholds are
    /// far from what is measured; they fail when a rule breaks, not when it is unlucky.
    #[test]
    fn verdicts_are_worth_what_is_claimed() {
        let scores = run(&settings(2));
        let summaries = summaries(&scores);
        let of = |rule| {
            let found = summaries.iter().find(|s| s.rule == rule && s.rps.is_none());
            found.unwrap().clone()
        };
        let (serin, flagger) = (of(Rule::Serin), of(Rule::Flagger1));
        assert_eq!(serin.false_rollback.of, 8 * 40);
        assert!(serin.false_rollback.count <= 6, "{serin:?}");
        assert_eq!(serin.missed.count, 0, "{serin:?}");
        assert!(serin.inconclusive_healthy.count <= 3, "{serin:?}");
        assert!(flagger.false_rollback.value() > 0.25, "{flagger:?}");
        assert!(serin.excess.value < 0.5 * flagger.excess.value, "{serin:?}");
        for score in scores.iter().filter(|score| score.rule == Rule::Serin) {
            if ["bad 0.1 -> 20%", "bad 0.1 -> 100%"].contains(&score.scenario.as_str()) {
                assert_eq!(score.swift.count, 40, "{score:?}");
            }
        }
        let worth = worth(&summaries, &scores);
        assert_eq!(worth.len(), 2 * PREVALENCES.len());
        assert!(
            worth
                .iter()
                .all(|w| (0.0..=1.0).contains(&w.right_rollbacks))
        );
    }

    #[test]
    fn threads_change_nothing() {
        let mut few = settings(1);
        few.cells.truncate(3);
        few.rollouts = 5;
        let one = run(&few);
        few.threads = 3;
        assert_eq!(run(&few), one);
        assert_eq!(one.len(), 6);
    }
}
