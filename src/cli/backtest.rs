//! `serin backtest`: what the judge would have said of a release that is history.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use serde::Deserialize;

use super::bench::write;
use super::clone::{self, Clone};
use super::failure::{Failure, Outcome};
use super::flags::{LocalFlags, OutputFlag, PrometheusFlags};
use super::output::{Console, Style, Table};
use super::plan::{slo, time};
use super::values::{self, CanaryName};
use super::wiring::{prometheus_settings, runtime};
use super::{history, show};
use crate::analysis::comparison::Rule;
use crate::analysis::{Answer, Labels, Purpose, Query};
use crate::domain::Timestamp;
use crate::ports::Metrics;
use crate::prometheus::Server;
use crate::study::backtest::{self, Act, Layout, Line, Question, Replay};
use crate::study::interval::number;
use crate::study::recorded::{self, Rollout};
use crate::study::svg;

/// Prometheus refuses ranges of more points.
const MAX_POINTS: i64 = 11_000;
/// Largest file that is read.
const MAX_FILE: u64 = 512 << 20;

/// Replay a release of the past: when would Serin have rolled it back, when Flagger?
///
/// Reads the request counters of a past release, from a Prometheus or from a file with the answer to a range query, and
/// gives them to the judge tick by tick. With the name of a canary it reads the engine's own commits instead.
#[derive(Debug, Args)]
#[command(after_long_help = "\
The range query whose answer a file holds, at the interval of the scrapes, beginning some minutes before the release:
  istio_requests_total{reporter=\"destination\",destination_workload=~\"podinfo|podinfo-canary\"}

Examples:
  serin backtest --stable podinfo --candidate podinfo-canary --data range.json
  serin backtest --stable podinfo --candidate podinfo-canary --namespace test --prometheus http://localhost:9090 --from 2026-01-02T03:00:00Z --to 2026-01-02T04:00:00Z --svg replay.svg
  serin backtest podinfo --repo ../apps.git

Exit status 1 when Serin would have rolled the candidate back.")]
pub(super) struct BacktestArgs {
    /// Replay the commits of this canary: <name> or <namespace>/<name>.
    #[arg(conflicts_with_all = ["data", "stable", "candidate"])]
    name: Option<CanaryName>,
    /// Workload of stable, as `destination_workload` has it; several with commas.
    #[arg(long, value_name = "WORKLOAD", env = "SERIN_STABLE", value_delimiter = ',', value_parser = workload)]
    stable: Vec<String>,
    /// Workload of the candidate.
    #[arg(long, value_name = "WORKLOAD", env = "SERIN_CANDIDATE", value_delimiter = ',', value_parser = workload)]
    candidate: Vec<String>,
    /// File with the JSON answer of a range query.
    #[arg(long, value_name = "FILE", env = "SERIN_DATA")]
    data: Option<PathBuf>,
    /// Namespace of the workloads, for the query.
    #[arg(long, value_name = "NAME", env = "SERIN_NAMESPACE", value_parser = workload)]
    namespace: Option<String>,
    /// Whose telemetry counts: destination, source or waypoint.
    #[arg(long, value_name = "REPORTER", env = "SERIN_REPORTER", default_value = "destination", value_parser = workload)]
    reporter: String,
    /// Beginning of the range, some minutes before the release.
    #[arg(long, value_name = "RFC3339", env = "SERIN_FROM", value_parser = values::timestamp, requires = "to")]
    from: Option<Timestamp>,
    /// End of the range.
    #[arg(long, value_name = "RFC3339", env = "SERIN_TO", value_parser = values::timestamp, requires = "from")]
    to: Option<Timestamp>,
    /// Label that tells the workloads apart, for other telemetry than Istio's.
    #[arg(
        long,
        value_name = "LABEL",
        env = "SERIN_LABEL",
        default_value = "destination_workload"
    )]
    label: String,
    /// Label with the response code.
    #[arg(
        long,
        value_name = "LABEL",
        env = "SERIN_CODE_LABEL",
        default_value = "response_code"
    )]
    code_label: String,
    /// Lowest acceptable success rate in per cent.
    #[arg(long, value_name = "PERCENT", env = "SERIN_SLO", default_value = "99", value_parser = slo)]
    slo: f64,
    /// Chance of rolling back a candidate that is no worse than stable.
    #[arg(long, value_name = "NUMBER", env = "SERIN_ALPHA", default_value_t = 0.01, value_parser = alpha)]
    alpha: f64,
    /// Time between two looks: the interval of the scrapes.
    #[arg(long, value_name = "TIME", env = "SERIN_EVERY", default_value = "15s", value_parser = values::interval)]
    every: Duration,
    /// File for the plot.
    #[arg(long, value_name = "FILE", env = "SERIN_SVG")]
    svg: Option<PathBuf>,
    #[command(flatten)]
    prometheus: PrometheusFlags,
    #[command(flatten)]
    local: LocalFlags,
    #[command(flatten)]
    output: OutputFlag,
}

/// A name that can stand in a query as it is.
fn workload(text: &str) -> Result<String, String> {
    let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_');
    if text.is_empty() || !text.chars().all(fits) {
        return Err("a name has letters, digits, `-`, `.` and `_`".into());
    }
    Ok(text.to_owned())
}

/// A level of the test.
fn alpha(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(alpha) if (1e-6..=0.5).contains(&alpha) => Ok(alpha),
        _ => Err("write a chance between 0.000001 and 0.5, like 0.01".into()),
    }
}

impl BacktestArgs {
    pub(super) fn execute(&self, console: &mut Console<'_>) -> Result<Outcome, Failure> {
        if let Some(name) = &self.name {
            return self.execute_recorded(name, console);
        }
        if self.stable.is_empty() || self.candidate.is_empty() {
            return Err(Failure::usage(
                "name a canary to replay its commits, or the workloads with --stable and --candidate",
            ));
        }
        let lines = match &self.data {
            Some(path) => read(path)?,
            None => self.ask()?,
        };
        let question = Question {
            lines,
            layout: Layout {
                version: self.label.clone(),
                stable: self.stable.clone(),
                candidate: self.candidate.clone(),
                code: self.code_label.clone(),
            },
            rule: Rule {
                alpha: self.alpha,
                ..Rule::default()
            },
            limit: 1.0 - self.slo,
            every: self.every_ms(),
        };
        let replay = backtest::replay(&question)
            .map_err(|error| Failure::failed(format!("there is nothing to replay: {error}")))?;
        if let Some(path) = &self.svg {
            write(path, &svg::lines(&replay.plot()))?;
        }
        console.value(self.output.output, &replay, |console| {
            print(&replay, console)
        })?;
        Ok(if replay.serin.is_some() {
            Outcome::NotWell
        } else {
            Outcome::Done
        })
    }

    fn every_ms(&self) -> i64 {
        i64::try_from(self.every.as_millis())
            .unwrap_or(i64::MAX)
            .max(1)
    }

    fn query(&self) -> String {
        let namespace = self.namespace.as_ref().map_or_else(String::new, |name| {
            format!(",destination_workload_namespace=\"{name}\"")
        });
        let workloads: Vec<String> = self
            .stable
            .iter()
            .chain(&self.candidate)
            .map(|name| name.replace('.', "[.]"))
            .collect();
        format!(
            "istio_requests_total{{reporter=\"{}\"{namespace},{}=~\"{}\"}}",
            self.reporter,
            self.label,
            workloads.join("|")
        )
    }

    /// Asks a Prometheus for the range.
    fn ask(&self) -> Result<Vec<Line>, Failure> {
        let (Some(from), Some(to)) = (self.from, self.to) else {
            return Err(Failure::usage(
                "say where the counters are: --data FILE, or --prometheus URL with --from and --to",
            ));
        };
        let points = (to - from).num_milliseconds() / self.every_ms();
        if !(1..MAX_POINTS).contains(&points) {
            return Err(Failure::usage(format!(
                "the range has {points} looks, Prometheus answers 1 to {MAX_POINTS}: choose --from, --to or --every anew"
            )));
        }
        let config = self.prometheus.over(None)?;
        let server = Server::new(prometheus_settings(&config)?)
            .map_err(|error| Failure::usage(super::failure::chain(&error)))?;
        let query = Query {
            promql: self.query(),
            at: to,
            range: Some((from, self.every)),
            lookback: Some(2 * self.every),
            purpose: Purpose::Requests(Vec::new()),
        };
        let mut answers = runtime()?.block_on(server.ask(std::slice::from_ref(&query)));
        match answers.pop() {
            Some(Answer::Series(series)) => Ok(series
                .into_iter()
                .map(|one| Line {
                    labels: owned(&one.labels),
                    samples: one
                        .samples
                        .into_iter()
                        .map(|(at, value)| (at.timestamp_millis(), value))
                        .collect(),
                })
                .collect()),
            Some(Answer::Failed(error)) => Err(Failure::failed(error.to_string())),
            None => Err(Failure::failed("Prometheus gave no answer")),
        }
    }

    fn execute_recorded(
        &self,
        name: &CanaryName,
        console: &mut Console<'_>,
    ) -> Result<Outcome, Failure> {
        let clone = Clone::open(&self.local)?;
        let canary = clone::the_one(clone.outlook()?, name)?;
        let mut log = clone.log(&clone::watch(&canary)?, usize::MAX)?;
        log.reverse();
        let entries: Vec<recorded::Entry> = log
            .iter()
            .filter_map(|commit| Some((commit, history::recorded(commit, &canary.id)?)))
            .map(|(commit, step)| recorded::Entry {
                at: show::stamp(commit.committed),
                what: step.what,
                candidate: step.candidate,
                verdict: step.verdict,
                metrics: step.metrics,
            })
            .collect();
        let rollouts = recorded::rollouts(&entries, 1.0 - self.slo);
        console.value(self.output.output, &rollouts, |console| {
            print_recorded(&rollouts, console)
        })?;
        let rolled_back = rollouts
            .iter()
            .any(|rollout| rollout.end.starts_with("roll back"));
        Ok(if rolled_back {
            Outcome::NotWell
        } else {
            Outcome::Done
        })
    }
}

/// The answer of the HTTP API to a range query, as `curl` saves it.
#[derive(Deserialize)]
struct Saved {
    status: String,
    data: Option<Matrix>,
    error: Option<String>,
}

#[derive(Deserialize)]
struct Matrix {
    #[serde(rename = "resultType")]
    kind: String,
    result: Vec<SavedSeries>,
}

#[derive(Deserialize)]
struct SavedSeries {
    metric: BTreeMap<String, String>,
    #[serde(default)]
    values: Vec<(f64, String)>,
}

/// Reads a saved answer.
fn read(path: &Path) -> Result<Vec<Line>, Failure> {
    let shown = path.display();
    let failed = |what: String| Failure::failed(format!("{shown} cannot be replayed: {what}"));
    let size = std::fs::metadata(path)
        .map_err(|error| Failure::usage(format!("failed to read {shown}: {error}")))?
        .len();
    if size > MAX_FILE {
        return Err(failed(format!("it has {size} bytes, more than {MAX_FILE}")));
    }
    let content = std::fs::read(path)
        .map_err(|error| Failure::usage(format!("failed to read {shown}: {error}")))?;
    let saved: Saved = serde_json::from_slice(&content)
        .map_err(|error| failed(format!("it is not the answer to a range query: {error}")))?;
    if saved.status != "success" {
        let error = saved.error.unwrap_or_else(|| "no message".to_owned());
        return Err(failed(format!("Prometheus refused the query: {error}")));
    }
    let matrix = saved
        .data
        .ok_or_else(|| failed("it has no data".to_owned()))?;
    if matrix.kind != "matrix" {
        let kind = matrix.kind;
        return Err(failed(format!(
            "it is a {kind}, a matrix is wanted: ask api/v1/query_range"
        )));
    }
    matrix
        .result
        .into_iter()
        .map(|series| line(series).map_err(failed))
        .collect()
}

fn owned(labels: &Labels) -> BTreeMap<String, String> {
    let owned = |(name, value): (&str, &str)| (name.to_owned(), value.to_owned());
    labels.iter().map(owned).collect()
}

fn line(series: SavedSeries) -> Result<Line, String> {
    let mut samples = Vec::new();
    for (at, value) in series.values {
        let count: f64 = value
            .parse()
            .map_err(|_| format!("`{value}` is not a number"))?;
        samples.push(((at * 1000.0).round() as i64, count));
    }
    samples.sort_by_key(|(at, _)| *at);
    Ok(Line {
        labels: series.metric,
        samples,
    })
}

fn print(replay: &Replay, console: &mut Console<'_>) -> Result<(), Failure> {
    let began =
        chrono::DateTime::from_timestamp_millis(replay.began).map_or_else(String::new, show::stamp);
    let share = |(n, x): (u64, u64)| number(100.0 * x as f64 / n.max(1) as f64);
    console.line(&format!(
        "candidate  first request about {began}, {} requests in {}, {}% failed; {}% of {} on stable",
        replay.candidate.0,
        time(replay.seconds as f64),
        share(replay.candidate),
        share(replay.stable),
        replay.stable.0,
    ))?;
    act("Serin", replay.serin.as_ref(), &replay.at_the_end, console)?;
    let stays = "would not have rolled back";
    act(
        "Flagger, threshold 1",
        replay.flagger_1.as_ref(),
        stays,
        console,
    )?;
    act(
        "Flagger, threshold 5",
        replay.flagger_5.as_ref(),
        stays,
        console,
    )?;
    console.line("")?;
    for line in replay.plot().lines(64, 13) {
        console.line(&line)?;
    }
    Ok(())
}

fn act(
    name: &str,
    act: Option<&Act>,
    otherwise: &str,
    console: &mut Console<'_>,
) -> Result<(), Failure> {
    let text = match act {
        Some(act) => format!(
            "rolls back after {} and {} failures: {}",
            time(act.seconds as f64),
            act.failures,
            act.sentence
        ),
        None => otherwise.to_owned(),
    };
    let name = console.paint(Style::Bold, &format!("{name:<22}"));
    console.line(&format!("{name} {text}"))
}

fn print_recorded(rollouts: &[Rollout], console: &mut Console<'_>) -> Result<(), Failure> {
    if rollouts.is_empty() {
        return console.line("no commit of this canary has counts of requests");
    }
    for rollout in rollouts {
        let title = console.paint(Style::Bold, &rollout.candidate);
        console.line(&format!("{title}: {}", rollout.end))?;
        let mut table = Table::new(&[
            "WHEN",
            "WHAT",
            "REQUESTS",
            "FAILED",
            "SUCCESS",
            "VERDICT",
            "FLAGGER'S FAILED CHECKS",
        ]);
        for step in &rollout.steps {
            let success = step
                .success
                .map_or_else(|| "-".to_owned(), |rate| format!("{rate:.2}%"));
            table.row(vec![
                (Style::Plain, step.at.replace('T', " ")),
                (Style::Bold, step.what.clone()),
                (Style::Plain, step.requests.to_string()),
                (Style::Plain, step.failures.to_string()),
                (Style::Plain, success),
                (Style::Plain, step.verdict.clone().unwrap_or_default()),
                (Style::Plain, step.strikes.to_string()),
            ]);
        }
        console.table(&table)?;
        for (name, when) in [
            ("Flagger, threshold 1", &rollout.flagger_1),
            ("Flagger, threshold 5", &rollout.flagger_5),
        ] {
            let text = when.as_ref().map_or_else(
                || "would not have rolled back".to_owned(),
                |when| format!("would have rolled back {when}"),
            );
            console.line(&format!("{name:<22} {text}"))?;
        }
        console.line("")?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn saved_answers_and_what_is_none() {
        let dir = tempfile::tempdir().unwrap();
        let check = |content: &str| {
            let path = dir.path().join("range.json");
            std::fs::write(&path, content).unwrap();
            read(&path).map_err(|error| {
                let text = error.to_string();
                text.split_once("replayed: ")
                    .map_or(text.clone(), |(_, why)| why.to_owned())
            })
        };
        let good = check(
            r#"{"status":"success","data":{"resultType":"matrix","result":[{"metric":{"a":"b"},"values":[[15.5,"2"],[0.5,"1"]]}]}}"#,
        );
        let good = good.unwrap();
        assert_eq!(good[0].samples, [(500, 1.0), (15_500, 2.0)]);
        let error = |content: &str| check(content).unwrap_err();
        insta::assert_snapshot!(error(r#"{"status":"error","error":"parse error"}"#), @"Prometheus refused the query: parse error");
        insta::assert_snapshot!(error(r#"{"status":"success"}"#), @"it has no data");
        insta::assert_snapshot!(error(r#"{"status":"success","data":{"resultType":"vector","result":[]}}"#), @"it is a vector, a matrix is wanted: ask api/v1/query_range");
        insta::assert_snapshot!(error("{"), @"it is not the answer to a range query: EOF while parsing an object at line 1 column 1");
        insta::assert_snapshot!(error(r#"{"status":"success","data":{"resultType":"matrix","result":[{"metric":{},"values":[[1,"many"]]}]}}"#), @"`many` is not a number");
    }

    #[test]
    fn names_cannot_break_a_query() {
        assert!(workload("podinfo-canary.v2").is_ok());
        for bad in ["", "a\"b", "a|b", "a b", "é"] {
            assert!(workload(bad).is_err(), "{bad}");
        }
        assert!(alpha("0").is_err() && alpha("NaN").is_err() && alpha("0.05").is_ok());
    }
}
