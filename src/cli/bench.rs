//! `serin bench`: how good the verdicts are, measured.

use std::path::{Path, PathBuf};

use clap::builder::FalseyValueParser;
use clap::{Args, Subcommand, ValueEnum};

use super::failure::{Failure, Outcome};
use super::flags::OutputFlag;
use super::output::{Console, Style, Table};
use crate::study::bench::{self, Settings, Summary};
use crate::study::delay::{self, Delay, Jump};
use crate::study::interval::number;
use crate::study::report::Report;
use crate::study::rule::Rule;
use crate::study::scenario::Suite;
use crate::study::svg;
use crate::study::tries::Try;

/// Rollouts of each cell under each rule, without a flag that says otherwise.
const QUICK: u64 = 100;
const FULL: u64 = 2000;
/// Columns of a plot on the terminal.
const PLOT_WIDTH: usize = 40;

/// Measure how good verdicts are, on simulated rollouts.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  serin bench judgement
  serin bench judgement --full --markdown results.md --svg results.svg")]
pub(super) struct BenchArgs {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    Judgement(JudgementArgs),
}

/// Compare Serin's judge with the rules of Flagger and Argo Rollouts on the same simulated services.
///
/// Healthy and bad releases at many loads, under every rule: how often is a healthy one rolled back, how often a bad
/// one promoted, how much harm is done until then. Serin's column is the comparison that decides in production, not a copy
/// of it; what may hold a rollout besides (routing that does not fit, a stable beyond its limit) is left out.
/// The same seed gives the same figures on every machine.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  serin bench judgement
  serin bench judgement --suite core --rollouts 500 --seed 7
  serin bench judgement --full --markdown results.md --svg results.svg
  serin bench judgement --output json

Exit status 1 when a goal of the project is missed in a full run.")]
struct JudgementArgs {
    /// 100 rollouts of each cell of the core suite, in seconds; the default.
    #[arg(long, env = "SERIN_QUICK", value_parser = FalseyValueParser::new(), conflicts_with = "full")]
    quick: bool,
    /// 2,000 rollouts of each cell of all suites, and the requests to detection: minutes.
    #[arg(long, env = "SERIN_FULL", value_parser = FalseyValueParser::new())]
    full: bool,
    /// Rollouts of each cell under each rule.
    #[arg(long, value_name = "COUNT", env = "SERIN_ROLLOUTS", value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    rollouts: Option<u64>,
    /// Seed of all randomness.
    #[arg(long, value_name = "NUMBER", env = "SERIN_SEED", default_value_t = 1)]
    seed: u64,
    /// Only these cells.
    #[arg(
        long,
        value_name = "SUITE",
        env = "SERIN_SUITE",
        value_enum,
        value_delimiter = ','
    )]
    suite: Vec<SuiteChoice>,
    /// Compare with the judge with one thing changed; `all` for each (see src/study/RESEARCH.md).
    #[arg(long = "try", value_name = "NAME", env = "SERIN_TRIES", value_delimiter = ',', value_parser = tried)]
    tries: Vec<Tried>,
    /// Leave the rules of Flagger and Argo Rollouts out.
    #[arg(long, env = "SERIN_ONLY_SERIN", value_parser = FalseyValueParser::new())]
    only_serin: bool,
    /// Threads to use; as many as there are processors when left out.
    #[arg(long, value_name = "COUNT", env = "SERIN_THREADS")]
    threads: Option<usize>,
    /// File for a picture of the core suite.
    #[arg(long, value_name = "FILE", env = "SERIN_SVG")]
    svg: Option<PathBuf>,
    /// File for all tables as Markdown.
    #[arg(long, value_name = "FILE", env = "SERIN_MARKDOWN")]
    markdown: Option<PathBuf>,
    #[command(flatten)]
    output: OutputFlag,
}

/// What is tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Tried {
    All,
    One(Try),
}

fn tried(text: &str) -> Result<Tried, String> {
    if text == "all" {
        return Ok(Tried::All);
    }
    let names: Vec<&str> = Try::ALL.iter().map(|what| what.name()).collect();
    Try::ALL
        .into_iter()
        .find(|what| what.name() == text)
        .map(Tried::One)
        .ok_or_else(|| format!("there are {}, and all", names.join(", ")))
}

/// Groups of cells.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum SuiteChoice {
    /// The 15 scenarios of the definition at 2 to 1,000 requests a second.
    Core,
    /// Services that hardly anybody calls.
    Idle,
    /// Retries, sticky clients, churn, gaps, drift, latency, single pods, extreme loads.
    Stress,
    /// How many requests a regression takes to be seen.
    Delay,
}

impl BenchArgs {
    pub(super) fn execute(&self, console: &mut Console<'_>) -> Result<Outcome, Failure> {
        match &self.what {
            What::Judgement(args) => args.execute(console),
        }
    }
}

impl JudgementArgs {
    fn execute(&self, console: &mut Console<'_>) -> Result<Outcome, Failure> {
        let report = self.measure();
        if let Some(path) = &self.svg {
            let heading = format!(
                "Verdicts on {} simulated rollouts per cell, seed {}, 95% intervals",
                report.rollouts, report.seed
            );
            write(path, &svg::ranges(&heading, &report.plots()))?;
        }
        if let Some(path) = &self.markdown {
            write(path, &report.markdown())?;
        }
        console.value(self.output.output, &report, |console| {
            print(&report, console)
        })?;
        let missed = self.full && report.goals.iter().any(|goal| !goal.met);
        Ok(if missed {
            Outcome::NotWell
        } else {
            Outcome::Done
        })
    }

    fn measure(&self) -> Report {
        let suites = self.suites();
        let chosen: Vec<Suite> = suites
            .iter()
            .filter_map(|suite| match suite {
                SuiteChoice::Core => Some(Suite::Core),
                SuiteChoice::Idle => Some(Suite::Idle),
                SuiteChoice::Stress => Some(Suite::Stress),
                SuiteChoice::Delay => None,
            })
            .collect();
        let available = std::thread::available_parallelism().map_or(1, usize::from);
        let settings = Settings {
            seed: self.seed,
            rollouts: self
                .rollouts
                .unwrap_or(if self.full { FULL } else { QUICK }),
            cells: bench::cells(&chosen),
            rules: self.rules(),
            threads: self.threads.unwrap_or(available),
        };
        let scores = bench::run(&settings);
        let jumps = if suites.contains(&SuiteChoice::Delay) {
            delay::jumps()
        } else {
            Vec::new()
        };
        let changes = std::iter::once(None).chain(self.tries().into_iter().map(Some));
        let jobs: Vec<(Option<Try>, Jump)> = changes
            .flat_map(|what| jumps.iter().map(move |jump| (what, *jump)))
            .collect();
        let delays: Vec<Delay> = bench::in_parallel(settings.threads, &jobs, |(what, jump)| {
            delay::measure(jump, *what, settings.rollouts, settings.seed)
        });
        Report::new(&settings, scores, delays)
    }

    fn rules(&self) -> Vec<Rule> {
        let mut rules = if self.only_serin {
            vec![Rule::Serin]
        } else {
            Rule::ALL.to_vec()
        };
        rules.extend(self.tries().into_iter().map(Rule::Try));
        rules
    }

    fn tries(&self) -> Vec<Try> {
        let each = |tried: &Tried| match tried {
            Tried::All => Try::ALL.to_vec(),
            Tried::One(what) => vec![*what],
        };
        self.tries.iter().flat_map(each).collect()
    }

    fn suites(&self) -> Vec<SuiteChoice> {
        match (self.suite.is_empty(), self.full) {
            (false, _) => self.suite.clone(),
            (true, true) => SuiteChoice::value_variants().to_vec(),
            (true, false) => vec![SuiteChoice::Core],
        }
    }
}

/// Writes a file that was asked for.
pub(super) fn write(path: &Path, content: &str) -> Result<(), Failure> {
    std::fs::write(path, content)
        .map_err(|error| Failure::failed(format!("failed to write {}: {error}", path.display())))
}

fn print(report: &Report, console: &mut Console<'_>) -> Result<(), Failure> {
    if !report.summaries.is_empty() {
        console.table(&summary_table(&report.summaries))?;
        for plot in report.plots() {
            console.line("")?;
            for line in plot.lines(PLOT_WIDTH) {
                console.line(&line)?;
            }
        }
    }
    let others: Vec<_> = report
        .scores
        .iter()
        .filter(|score| score.suite != Suite::Core)
        .collect();
    if !others.is_empty() {
        console.line("")?;
        let mut table = Table::new(&[
            "SCENARIO",
            "RPS",
            "RULE",
            "ROLLED BACK",
            "PROMOTED",
            "NO ANSWER",
            "MEDIAN",
        ]);
        for score in others {
            let style = if score.rule == Rule::Serin {
                Style::Bold
            } else {
                Style::Plain
            };
            table.row(vec![
                (Style::Plain, score.scenario.clone()),
                (Style::Plain, number(score.rps)),
                (style, score.rule.name().to_owned()),
                (Style::Plain, score.rolled_back.shown()),
                (Style::Plain, score.promoted.shown()),
                (Style::Plain, score.inconclusive.shown()),
                (Style::Plain, format!("{}s", number(score.median_seconds))),
            ]);
        }
        console.table(&table)?;
    }
    if !report.delays.is_empty() {
        console.line("")?;
        let mut table = Table::new(&[
            "",
            "REGRESSION",
            "BOUND",
            "BARE TEST",
            "RATIO",
            "WITH SAFEGUARDS",
            "RATIO",
        ]);
        for delay in &report.delays {
            table.row(vec![
                (Style::Plain, delay.what.map_or("", Try::name).to_owned()),
                (Style::Plain, delay::name(&delay.jump)),
                (Style::Plain, number(delay.bound)),
                (Style::Plain, delay.bare.shown()),
                (Style::Plain, format!("{:.2}", delay.bare_ratio())),
                (Style::Plain, delay.guarded.shown()),
                (Style::Plain, format!("{:.2}", delay.guarded_ratio())),
            ]);
        }
        console.table(&table)?;
    }
    console.line("")?;
    for goal in &report.goals {
        let (style, word) = if goal.met {
            (Style::Good, "met    ")
        } else {
            (Style::Bad, "not met")
        };
        let word = console.paint(style, word);
        console.line(&format!("{word}  {}: {}", goal.goal, goal.measured))?;
    }
    console.line(&format!(
        "{} rollouts of each cell under each rule, seed {}, intervals of 95%",
        report.rollouts, report.seed
    ))
}

fn summary_table(summaries: &[Summary]) -> Table {
    let mut table = Table::new(&[
        "RULE",
        "RPS",
        "FALSE ROLLBACK",
        "MISSED",
        "NO ANSWER",
        "EXCESS BAD ANSWERS",
    ]);
    for summary in summaries {
        let style = if summary.rule == Rule::Serin {
            Style::Bold
        } else {
            Style::Plain
        };
        let no_answer = summary.inconclusive_healthy.plus(&summary.inconclusive_bad);
        table.row(vec![
            (style, summary.rule.name().to_owned()),
            (
                Style::Plain,
                summary.rps.map_or_else(|| "all".to_owned(), number),
            ),
            (Style::Plain, summary.false_rollback.shown()),
            (Style::Plain, summary.missed.shown()),
            (Style::Plain, no_answer.shown()),
            (Style::Plain, summary.excess.shown()),
        ]);
    }
    table
}
