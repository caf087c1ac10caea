//! The benchmark's results: one value for scripts, tables in Markdown for the docs, plots for people.

use std::fmt::Write as _;

use serde::Serialize;

use super::bench::{self, Score, Summary, Worth};
use super::chart::{Range, RangePlot};
use super::delay::{self, Delay};
use super::interval::{Share, number};
use super::rule::Rule;
use super::scenario::{Suite, Truth};

/// Everything that a run of the benchmark found.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Report {
    /// Where all randomness came from.
    pub seed: u64,
    /// Rollouts of each cell under each rule.
    pub rollouts: u64,
    /// The version of the engine.
    pub version: String,
    /// The goals, met or not.
    pub goals: Vec<Goal>,
    /// The core suite by rule and load.
    pub summaries: Vec<Summary>,
    /// What verdicts are worth at some shares of bad releases.
    pub worth: Vec<Worth>,
    /// Requests to detection.
    pub delays: Vec<Delay>,
    /// Every cell under every rule.
    pub scores: Vec<Score>,
}

/// One of the project's goals.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Goal {
    /// What was aimed at.
    pub goal: String,
    /// What was measured, with its confidence interval.
    pub measured: String,
    /// Whether it was reached.
    pub met: bool,
}

impl Report {
    /// Puts scores and delays into one report.
    pub fn new(settings: &bench::Settings, scores: Vec<Score>, delays: Vec<Delay>) -> Self {
        let summaries = bench::summaries(&scores);
        let worth = bench::worth(&summaries, &scores);
        let goals = goals(&summaries, &scores, &delays);
        Self {
            seed: settings.seed,
            rollouts: settings.rollouts,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            goals,
            summaries,
            worth,
            delays,
            scores,
        }
    }

    /// The picture of the core suite: false rollbacks, missed regressions and harm by rule, all loads together.
    pub fn plots(&self) -> Vec<RangePlot> {
        let pooled: Vec<&Summary> = self.summaries.iter().filter(|s| s.rps.is_none()).collect();
        if pooled.is_empty() {
            return Vec::new();
        }
        let shares = |title: &str, part: fn(&Summary) -> Share| RangePlot {
            title: title.to_owned(),
            rows: pooled
                .iter()
                .map(|summary| {
                    let share = part(summary);
                    Range {
                        label: summary.rule.name().to_owned(),
                        value: share.value(),
                        low: share.low,
                        high: share.high,
                        text: share.shown(),
                        is_ours: summary.rule == Rule::Serin,
                    }
                })
                .collect(),
            scale: (1e-5, 1.0),
            mark: |value| format!("{}%", number(value * 100.0)),
        };
        let harm = RangePlot {
            title: "bad answers per bad release until its end".to_owned(),
            rows: pooled
                .iter()
                .map(|summary| Range {
                    label: summary.rule.name().to_owned(),
                    value: summary.excess.value,
                    low: summary.excess.value - summary.excess.margin,
                    high: summary.excess.value + summary.excess.margin,
                    text: summary.excess.shown(),
                    is_ours: summary.rule == Rule::Serin,
                })
                .collect(),
            scale: (10.0, 1e5),
            mark: number,
        };
        vec![
            shares("healthy releases rolled back", |s| s.false_rollback),
            shares("bad releases promoted", |s| s.missed),
            harm,
        ]
    }

    /// The whole report as Markdown tables.
    pub fn markdown(&self) -> String {
        let mut out = String::new();
        if !self.goals.is_empty() {
            out.push_str("### Goals\n\n| Goal | Measured | |\n|---|---|---|\n");
            for goal in &self.goals {
                let met = if goal.met { "met" } else { "**not met**" };
                let _ = writeln!(out, "| {} | {} | {met} |", goal.goal, goal.measured);
            }
        }
        if !self.summaries.is_empty() {
            self.write_summaries(&mut out);
            self.write_worth(&mut out);
        }
        if !self.delays.is_empty() {
            self.write_delays(&mut out);
        }
        for suite in [Suite::Core, Suite::Idle, Suite::Stress] {
            self.write_cells(&mut out, suite);
        }
        out
    }

    fn write_summaries(&self, out: &mut String) {
        out.push_str(
            "\n### Core suite by rule and load\n\n\
             | Rule | Requests/s | False rollback | Same, SLO kept by stable | Missed | Within the limit, promoted | \
             No answer, healthy | No answer, bad | Excess bad answers |\n|---|---|---|---|---|---|---|---|---|\n",
        );
        for s in &self.summaries {
            let rps = s.rps.map_or_else(|| "**all**".to_owned(), number);
            let _ = writeln!(
                out,
                "| {} | {rps} | {} | {} | {} | {} | {} | {} | {} |",
                s.rule.name(),
                s.false_rollback.shown(),
                s.false_rollback_slo_kept.shown(),
                s.missed.shown(),
                s.within_limit_promoted.shown(),
                s.inconclusive_healthy.shown(),
                s.inconclusive_bad.shown(),
                s.excess.shown(),
            );
        }
    }

    fn write_worth(&self, out: &mut String) {
        out.push_str(
            "\n### What a verdict is worth, by share of bad releases\n\n\
             | Rule | Bad releases | Healthy rolled back, of 1,000 releases | Bad promoted, of 1,000 | \
             Rollbacks that were right |\n|---|---|---|---|---|\n",
        );
        for worth in &self.worth {
            let _ = writeln!(
                out,
                "| {} | {}% | {} | {} | {}% |",
                worth.rule.name(),
                number(worth.prevalence * 100.0),
                number(worth.wrong_rollbacks),
                number(worth.missed),
                number(worth.right_rollbacks * 100.0),
            );
        }
    }

    fn write_delays(&self, out: &mut String) {
        out.push_str(
            "\n### Requests to detection\n\n\
             | Regression | Bound | Bare test | p90 | of the bound | With all safeguards | of the bound |\n\
             |---|---|---|---|---|---|---|\n",
        );
        for delay in &self.delays {
            let _ = writeln!(
                out,
                "| {}{} | {} | {} | {} | {:.2} | {} | {:.2} |",
                delay
                    .what
                    .map_or_else(String::new, |what| format!("{}: ", what.name())),
                delay::name(&delay.jump),
                number(delay.bound),
                delay.bare.shown(),
                number(delay.bare_p90),
                delay.bare_ratio(),
                delay.guarded.shown(),
                delay.guarded_ratio(),
            );
        }
    }

    fn write_cells(&self, out: &mut String, suite: Suite) {
        let mut scores: Vec<&Score> = self.scores.iter().filter(|s| s.suite == suite).collect();
        if scores.is_empty() {
            return;
        }
        scores.sort_by_key(|score| score.truth);
        let rules = bench::rules(&self.scores);
        let _ = write!(
            out,
            "\n### Cells of the {} suite\n\nRolled back / promoted / no answer in %, then the median seconds to the end.\n\n\
             | Scenario | Requests/s |",
            suite.as_str()
        );
        for rule in &rules {
            let _ = write!(out, " {} |", rule.name());
        }
        let _ = writeln!(out, "\n|---|---|{}", "---|".repeat(rules.len()));
        let cells: Vec<&Score> = scores
            .iter()
            .copied()
            .filter(|score| Some(&score.rule) == rules.first())
            .collect();
        for cell in cells {
            let _ = write!(out, "| {} | {} |", cell.scenario, number(cell.rps));
            for rule in &rules {
                let found = scores.iter().find(|score| {
                    score.rule == *rule && score.scenario == cell.scenario && score.rps == cell.rps
                });
                if let Some(score) = found {
                    let [a, b, c] = [score.rolled_back, score.promoted, score.inconclusive]
                        .map(|share| number(share.value() * 100.0));
                    let _ = write!(
                        out,
                        " {a} / {b} / {c}, {} s |",
                        number(score.median_seconds)
                    );
                }
            }
            out.push('\n');
        }
    }
}

/// The goals that the scores can answer for; those about other cells are left out.
fn goals(summaries: &[Summary], scores: &[Score], delays: &[Delay]) -> Vec<Goal> {
    let mut goals = Vec::new();
    let ours = || scores.iter().filter(|score| score.rule == Rule::Serin);
    let core = || ours().filter(|score| score.suite == Suite::Core);
    let pooled = |rule: Rule| {
        summaries
            .iter()
            .find(|summary| summary.rule == rule && summary.rps.is_none())
    };
    let mut add = |goal: &str, measured: String, met: bool| {
        goals.push(Goal {
            goal: goal.to_owned(),
            measured,
            met,
        });
    };
    if let Some(serin) = pooled(Rule::Serin) {
        let share = serin.false_rollback;
        if share.of > 0 {
            add(
                "false rollback <= 0.2% pooled",
                share.shown(),
                share.value() <= 0.002,
            );
        }
        let worst = core()
            .filter(|score| score.truth == Truth::Healthy)
            .max_by(|a, b| a.rolled_back.value().total_cmp(&b.rolled_back.value()));
        if let Some(worst) = worst {
            add(
                "false rollback <= 1% in the worst cell",
                format!(
                    "{} ({} at {} requests/s)",
                    worst.rolled_back.shown(),
                    worst.scenario,
                    number(worst.rps)
                ),
                worst.rolled_back.value() <= 0.01,
            );
        }
        let missed = summaries
            .iter()
            .filter(|s| s.rule == Rule::Serin && s.rps.is_some_and(|rps| rps >= 20.0))
            .fold(Share::new(0, 0), |all, summary| all.plus(&summary.missed));
        add(
            "missed <= 0.05% at >= 20 requests/s",
            missed.shown(),
            missed.value() <= 0.0005,
        );
        let violent: Vec<&Score> = core()
            .filter(|s| matches!(s.scenario.as_str(), "bad 0.1 -> 20%" | "bad 0.1 -> 100%"))
            .filter(|score| score.rps >= 20.0)
            .collect();
        let (typical, nearly_all) = swiftness(&violent);
        add(
            "failures of 20% and more rolled back within two ticks (>= 20 requests/s): median of every cell",
            typical.0,
            typical.1,
        );
        add("the same, 99.9% of all of them", nearly_all.0, nearly_all.1);
        if let Some(flagger) = pooled(Rule::Flagger1) {
            let ratio = serin.excess.value / flagger.excess.value;
            let margin = ratio
                * ((serin.excess.margin / serin.excess.value).powi(2)
                    + (flagger.excess.margin / flagger.excess.value).powi(2))
                .sqrt();
            add(
                "excess bad answers <= 1/4 of Flagger's default",
                format!("{ratio:.3} ± {margin:.3} of it"),
                ratio <= 0.25,
            );
        }
    }
    let own = || delays.iter().filter(|delay| delay.what.is_none());
    let worst = |ratio: fn(&Delay) -> f64| own().map(ratio).fold(f64::NAN, f64::max);
    if !delays.is_empty() {
        let bare = worst(Delay::bare_ratio);
        add(
            "bare test <= 1.4 x the information bound",
            format!("at worst {bare:.2}"),
            bare <= 1.4,
        );
        let guarded = worst(Delay::guarded_ratio);
        add(
            "with all safeguards <= 2 x",
            format!("at worst {guarded:.2}"),
            guarded <= 2.0,
        );
    }
    let missing = ours()
        .filter(|score| score.scenario.starts_with("nothing fails"))
        .fold(Share::new(0, 0), |all, score| all.plus(&score.rolled_back));
    if missing.of > 0 {
        add(
            "no rollback from missing data",
            missing.shown(),
            missing.count == 0,
        );
    }
    goals
}

/// How fast violent failures are rolled back, in words and whether it is fast enough: the median of the slowest cell, and the
/// share of all.
fn swiftness(violent: &[&Score]) -> ((String, bool), (String, bool)) {
    let slowest = |seconds: fn(&Score) -> f64| {
        let of_cells = violent.iter().map(|score| seconds(score));
        of_cells.fold(f64::NAN, f64::max)
    };
    let median = slowest(|score| score.median_seconds);
    let p90 = slowest(|score| score.p90_seconds);
    let words = format!(
        "at worst {} s, nine in ten within {} s",
        number(median),
        number(p90)
    );
    let swift = violent
        .iter()
        .fold(Share::new(0, 0), |all, score| all.plus(&score.swift));
    (
        (words, median <= bench::SWIFT as f64),
        (swift.shown(), swift.value() >= 0.999),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report() -> Report {
        let mut cells = bench::cells(&[Suite::Core, Suite::Stress]);
        cells.retain(|cell| {
            (cell.scenario.name == "bad 0.1 -> 100%" || cell.scenario.name.starts_with("nothing"))
                && (cell.rps == 20.0)
        });
        let settings = bench::Settings {
            seed: 1,
            rollouts: 4,
            cells,
            rules: vec![Rule::Serin, Rule::Flagger1],
            threads: 1,
        };
        let scores = bench::run(&settings);
        Report::new(&settings, scores, Vec::new())
    }

    #[test]
    fn the_report_as_markdown() {
        let markdown = report().markdown();
        for line in markdown.lines() {
            let columns = line.matches('|').count();
            assert!(columns == 0 || columns > 3, "{line}");
        }
        let cells: Vec<&str> = markdown
            .lines()
            .filter(|line| line.starts_with("| nothing fails") || line.starts_with("| bad "))
            .collect();
        insta::assert_snapshot!(cells.join("\n"), @r"
        | bad 0.1 -> 100% | 20 | 100 / 0 / 0, 15 s | 100 / 0 / 0, 120 s |
        | nothing fails, scrapes and Prometheus lost | 20 | 0 / 100 / 0, 405 s | 100 / 0 / 0, 360 s |
        | nothing fails, pods come and go | 20 | 0 / 100 / 0, 300 s | 0 / 100 / 0, 300 s |
        ");
        let goals: Vec<&str> = markdown
            .lines()
            .filter(|line| line.ends_with("met |") || line.ends_with("met** |"))
            .map(|line| line.split(" | ").next().unwrap_or_default())
            .collect();
        insta::assert_snapshot!(goals.join("\n"), @r"
        | missed <= 0.05% at >= 20 requests/s
        | failures of 20% and more rolled back within two ticks (>= 20 requests/s): median of every cell
        | the same, 99.9% of all of them
        | excess bad answers <= 1/4 of Flagger's default
        | no rollback from missing data
        ");
    }

    #[test]
    fn the_report_as_json_and_plots() {
        let report = report();
        let json = serde_json::to_value(&report).unwrap();
        assert_eq!(json["scores"][0]["rule"], "serin");
        assert_eq!(json["summaries"][1]["rps"], serde_json::Value::Null);
        let plots = report.plots();
        assert_eq!(plots.len(), 3);
        assert!(plots.iter().all(|plot| plot.rows.len() == 2));
    }
}
