//! `serin plan`: what a rollout can find out, and how long that takes, before it is begun.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;

use super::bench::write;
use super::failure::{Failure, Outcome};
use super::flags::OutputFlag;
use super::output::{Console, Style, Table};
use super::values::{self, CanaryName};
use super::worktree::{Place, WorkTree};
use crate::analysis::comparison::policy::Policy;
use crate::analysis::comparison::{self};
use crate::spec::{MetricSource, ValidatedCanary};
use crate::study::interval::number;
use crate::study::plan::{self, Outlook, Plan, Question};
use crate::study::serin::{Ladder, Setup};
use crate::study::svg;

/// Rollouts for each candidate: intervals of ± 4 % at worst.
const ROLLOUTS: u64 = 500;

/// Say how long a healthy rollout takes, and what regression is caught when and how surely.
///
/// By simulation through the judge that decides in production: so many rollouts of a service at this load, with 95 %
/// confidence intervals. Ladder, limit and level come from a Canary or from flags.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  serin plan --rps 20
  serin plan --rps 200 --stable 0.1% --slo 99 --ladder 10:1m,30:2m,50:5m
  serin plan --rps 50 --canary podinfo --file clusters/prod --svg plan.svg
  serin plan --rps 20 --regression 1.5%,5% --output json

Exit status 1 when no regression that was looked at is caught nine times in ten.")]
pub(super) struct PlanArgs {
    /// Requests a second, candidate and stable together.
    #[arg(long, value_name = "NUMBER", env = "SERIN_RPS", value_parser = rate)]
    rps: f64,
    /// Share of stable's requests that fail.
    #[arg(long, value_name = "PERCENT", env = "SERIN_STABLE", default_value = "0.1%", value_parser = share)]
    stable: f64,
    /// Lowest acceptable success rate in per cent [default: the Canary's, or 99].
    #[arg(long, value_name = "PERCENT", env = "SERIN_SLO", value_parser = slo)]
    slo: Option<f64>,
    /// Steps as weight:time [default: the Canary's, or 10:1m,20:1m,30:1m,40:1m,50:1m].
    #[arg(long, value_name = "STEPS", env = "SERIN_LADDER", value_delimiter = ',', value_parser = step)]
    ladder: Vec<(u8, Duration)>,
    /// Failing shares of candidates to look at [default: a choice around stable's share and the limit].
    #[arg(long, value_name = "PERCENT", env = "SERIN_REGRESSION", value_delimiter = ',', value_parser = share)]
    regression: Vec<f64>,
    /// File or folder of a Canary to take ladder, limit and level from.
    #[arg(long, value_name = "PATH", env = "SERIN_FILE")]
    file: Option<PathBuf>,
    /// Only this canary of the file or folder.
    #[arg(long, value_name = "NAME", env = "SERIN_CANARY", requires = "file")]
    canary: Option<CanaryName>,
    /// Rollouts to simulate for each candidate.
    #[arg(long, value_name = "COUNT", env = "SERIN_ROLLOUTS", default_value_t = ROLLOUTS, value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    rollouts: u64,
    /// Seed of all randomness.
    #[arg(long, value_name = "NUMBER", env = "SERIN_SEED", default_value_t = 1)]
    seed: u64,
    /// File for the plot.
    #[arg(long, value_name = "FILE", env = "SERIN_SVG")]
    svg: Option<PathBuf>,
    #[command(flatten)]
    output: OutputFlag,
}

/// A rate: a positive number.
fn rate(text: &str) -> Result<f64, String> {
    let rate: f64 = text.parse().map_err(|_| "write a number, like 20 or 0.5")?;
    if rate > 0.0 && rate <= 1e6 {
        Ok(rate)
    } else {
        Err("between 0 and a million requests a second can be simulated".into())
    }
}

/// A share in per cent, with or without the sign.
fn share(text: &str) -> Result<f64, String> {
    let number = text.strip_suffix('%').unwrap_or(text);
    match number.parse::<f64>() {
        Ok(percent) if (0.0..=100.0).contains(&percent) => Ok(percent / 100.0),
        _ => Err("write a share in per cent, like 0.1%".into()),
    }
}

/// A success rate in per cent.
pub(super) fn slo(text: &str) -> Result<f64, String> {
    match share(text) {
        Ok(share) if share > 0.0 && share < 1.0 => Ok(share),
        _ => Err("write a success rate in per cent, like 99 or 99.9".into()),
    }
}

/// One step: `10:1m`.
fn step(text: &str) -> Result<(u8, Duration), String> {
    let (weight, hold) = text.split_once(':').unwrap_or((text, "1m"));
    Ok((values::weight(weight)?.percent(), values::duration(hold)?))
}

impl PlanArgs {
    pub(super) fn execute(&self, console: &mut Console<'_>) -> Result<Outcome, Failure> {
        let setup = self.setup()?;
        let limit = setup.policy.limit.unwrap_or(1.0);
        let candidates = if self.regression.is_empty() {
            plan::usual_candidates(self.stable, limit)
        } else {
            self.regression.clone()
        };
        let question = Question {
            setup,
            rps: self.rps,
            stable: self.stable,
            candidates,
            rollouts: self.rollouts,
            seed: self.seed,
            threads: std::thread::available_parallelism().map_or(1, usize::from),
        };
        if question
            .candidates
            .iter()
            .all(|share| *share <= question.stable)
        {
            return Err(Failure::usage(format!(
                "a regression fails more often than stable does, {}%: give a larger --regression, or another --stable",
                number(question.stable * 100.0)
            )));
        }
        let plan = plan::plan(&question);
        if let Some(path) = &self.svg {
            write(path, &svg::lines(&plan.plot()))?;
        }
        console.value(self.output.output, &plan, |console| print(&plan, console))?;
        Ok(if plan.detects.is_none() && !plan.worse.is_empty() {
            Outcome::NotWell
        } else {
            Outcome::Done
        })
    }

    fn setup(&self) -> Result<Setup, Failure> {
        let mut setup = match &self.file {
            Some(path) => of_canary(&self.the_canary(path)?)?,
            None => Setup::default(),
        };
        if let Some(slo) = self.slo {
            setup.policy = Policy::of_limit(1.0 - slo);
        }
        if !self.ladder.is_empty() {
            setup.ladder = Ladder::with_traffic(self.ladder.iter().copied());
        }
        if setup.ladder.steps.is_empty() {
            return Err(Failure::usage(
                "no step of the ladder sends anybody to the candidate, so nothing can be found out",
            ));
        }
        Ok(setup)
    }

    fn the_canary(&self, path: &std::path::Path) -> Result<ValidatedCanary, Failure> {
        let place = Place::find(path)?;
        let catalog = WorkTree::read(&place.root)?.catalog();
        let mut found = Vec::new();
        for (id, entry) in catalog.canaries {
            let file = match &entry {
                Ok(canary) => &canary.home.file,
                Err(rejected) => &rejected.file,
            };
            let wanted = self.canary.as_ref().is_none_or(|name| name.matches(&id));
            if place.covers(file) && wanted {
                found.push((id, entry));
            }
        }
        let shown = path.display();
        match (found.pop(), found.is_empty()) {
            (Some((_, Ok(canary))), true) => Ok(Arc::unwrap_or_clone(canary)),
            (Some((id, Err(_))), true) => Err(Failure::failed(format!(
                "the spec of {id} has mistakes: `serin validate {shown}` lists them"
            ))),
            (Some(_), false) => Err(Failure::usage(format!(
                "there are several canaries in {shown}: choose one with --canary"
            ))),
            (None, _) => Err(Failure::usage(format!(
                "there is no such canary in {shown}"
            ))),
        }
    }
}

/// The setup that a Canary asks for.
fn of_canary(canary: &ValidatedCanary) -> Result<Setup, Failure> {
    let analysis = &canary.analysis;
    if analysis.skip || !analysis.compare {
        return Err(Failure::usage(format!(
            "{} does not compare candidate and stable, so there is nothing to plan",
            canary.id
        )));
    }
    let limit = analysis
        .metrics
        .iter()
        .find_map(|metric| match metric.source {
            MetricSource::SuccessRate { min } => Some(1.0 - min / 100.0),
            MetricSource::Latency { .. } | MetricSource::Custom { .. } => None,
        });
    let steps = canary
        .ladder
        .iter()
        .map(|rung| (rung.weight.percent(), rung.hold));
    Ok(Setup {
        rule: comparison::Rule {
            alpha: analysis.alpha,
            ..comparison::Rule::default()
        },
        policy: limit.map_or_else(|| Setup::default().policy, Policy::of_limit),
        ladder: Ladder::with_traffic(steps),
        every: analysis.every,
    })
}

fn print(plan: &Plan, console: &mut Console<'_>) -> Result<(), Failure> {
    let steps: Vec<String> = plan
        .ladder
        .iter()
        .map(|(weight, seconds)| format!("{weight}% for {}", time(*seconds as f64)))
        .collect();
    console.line(&format!("ladder   {}", steps.join(", ")))?;
    let healthy = &plan.healthy;
    console.line(&format!(
        "healthy  {} in the middle, {} for the slowest tenth; rolled back by mistake {}; without an answer {}",
        time(healthy.median_seconds),
        time(healthy.p90_seconds),
        healthy.rolled_back.shown(),
        healthy.inconclusive.shown(),
    ))?;
    let detects = match plan.detects {
        Some(share) => format!(
            "{}% failures and more are rolled back at least nine times in ten",
            number(share * 100.0)
        ),
        None => {
            "none of these is rolled back nine times in ten: give the ladder more time or traffic"
                .to_owned()
        }
    };
    console.line(&format!("detects  {detects}"))?;
    console.line("")?;
    let mut table = Table::new(&[
        "CANDIDATE FAILS",
        "ROLLED BACK",
        "AFTER",
        "SLOWEST TENTH",
        "PROMOTED",
        "NO ANSWER",
        "BAD ANSWERS",
    ]);
    for outlook in &plan.worse {
        table.row(row(outlook));
    }
    if !plan.worse.is_empty() {
        console.table(&table)?;
        console.line("")?;
        for line in plan.plot().lines(60, 13) {
            console.line(&line)?;
        }
        console.line("")?;
    }
    console.line(&format!(
        "{} simulated rollouts each, seed {}, intervals of 95%",
        plan.rollouts, plan.seed
    ))
}

fn row(outlook: &Outlook) -> Vec<(Style, String)> {
    let caught = outlook.rolled_back.count > 0;
    let style = if outlook.rolled_back.value() >= 0.9 {
        Style::Good
    } else {
        Style::Notice
    };
    let after = |seconds: f64| if caught { time(seconds) } else { String::new() };
    vec![
        (
            Style::Bold,
            format!("{}%", number(outlook.candidate * 100.0)),
        ),
        (style, outlook.rolled_back.shown()),
        (Style::Plain, after(outlook.median_seconds)),
        (Style::Plain, after(outlook.p90_seconds)),
        (Style::Plain, outlook.promoted.shown()),
        (Style::Plain, outlook.inconclusive.shown()),
        (Style::Plain, outlook.excess.shown()),
    ]
}

/// Seconds as people say them.
pub(super) fn time(seconds: f64) -> String {
    let whole = seconds.round() as u64;
    match (whole / 60, whole % 60) {
        (0, seconds) => format!("{seconds}s"),
        (minutes, 0) => format!("{minutes}m"),
        (minutes, seconds) => format!("{minutes}m{seconds}s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_of_flags() {
        assert_eq!(share("0.5%"), Ok(0.005));
        assert!((slo("99.9%").unwrap() - 0.999).abs() < 1e-12);
        assert_eq!(step("30:2m"), Ok((30, Duration::from_secs(120))));
        assert_eq!(step("30%"), Ok((30, Duration::from_secs(60))));
        for bad in ["101", "-1", "x", "NaN"] {
            assert!(share(bad).is_err(), "{bad}");
        }
        assert!(slo("100").is_err() && rate("0").is_err() && rate("inf").is_err());
        assert!(step("10:soon").is_err());
        assert_eq!([45.0, 60.0, 61.2].map(time), ["45s", "1m", "1m1s"]);
    }
}
