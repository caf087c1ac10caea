//! `serin validate`: every mistake at once.

mod queries;

use std::collections::BTreeMap;
use std::path::PathBuf;

use clap::Args;
use clap::builder::FalseyValueParser;
use serde::Serialize;

use super::failure::{Failure, Outcome};
use super::flags::{OutputFlag, PrometheusFlags};
use super::output::{Console, Style};
use super::wiring::prometheus_settings;
use super::worktree::{Place, WorkTree};
use crate::domain::RepoPath;
use crate::prometheus::Server;
use crate::spec::{Severity, overlaps};

/// Report every mistake in the canaries below these paths, as file:line:column: message.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  serin validate .
  serin validate clusters/prod --strict
  serin validate . --output json
  serin validate . --prometheus http://prometheus:9090

With a Prometheus, the queries that you wrote are asked once each: mistakes in their PromQL are found, results that are no
number or no counters, too many series.

Exit status 0 when all is well, 1 when there are mistakes, 2 when there is nothing at such a path.")]
pub(super) struct ValidateArgs {
    /// Folders or files; Services and Deployments are looked up in the repository around them.
    #[arg(required = true, value_name = "PATH")]
    paths: Vec<PathBuf>,
    /// Exit with 1 for warnings too.
    #[arg(long, env = "SERIN_STRICT", value_parser = FalseyValueParser::new())]
    strict: bool,
    #[command(flatten)]
    prometheus: PrometheusFlags,
    #[command(flatten)]
    output: OutputFlag,
}

/// A mistake, for scripts.
#[derive(Debug, PartialEq, Serialize)]
struct Found {
    file: String,
    line: usize,
    column: usize,
    severity: &'static str,
    message: String,
}

/// The whole result, for scripts.
#[derive(Debug, Default, Serialize)]
struct Report {
    canaries: usize,
    errors: usize,
    warnings: usize,
    diagnostics: Vec<Found>,
}

impl ValidateArgs {
    pub(super) fn execute(&self, console: &mut Console<'_>) -> Result<Outcome, Failure> {
        let mut report = Report::default();
        let server = self.server()?;
        for (root, places) in by_repository(&self.paths)? {
            let tree = WorkTree::read(&root)?;
            // A wrong folder must not read as a good one in somebody's CI.
            if let Some(empty) = places.iter().find(|place| place.is_empty(&tree)) {
                return Err(Failure::usage(format!(
                    "there is no YAML file in {}",
                    empty.shown().display()
                )));
            }
            report.add(&tree, &places, server.as_ref())?;
        }
        let failed = report.errors > 0 || (self.strict && report.warnings > 0);
        console.value(self.output.output, &report, |console| report.print(console))?;
        Ok(if failed {
            Outcome::NotWell
        } else {
            Outcome::Done
        })
    }
}

impl ValidateArgs {
    /// The server to try queries out on, if there is one.
    fn server(&self) -> Result<Option<Server>, Failure> {
        if self.prometheus.prometheus.is_none() {
            return Ok(None);
        }
        let settings = prometheus_settings(&self.prometheus.over(None)?)?;
        let server = Server::new(settings).map_err(|error| Failure::usage(error.to_string()))?;
        Ok(Some(server))
    }
}

/// What was asked about, repository by repository: each is read once.
fn by_repository(paths: &[PathBuf]) -> Result<BTreeMap<PathBuf, Vec<Place>>, Failure> {
    let mut found: BTreeMap<PathBuf, Vec<Place>> = BTreeMap::new();
    for path in paths {
        let place = Place::find(path)?;
        found.entry(place.root.clone()).or_default().push(place);
    }
    Ok(found)
}

impl Report {
    fn add(
        &mut self,
        tree: &WorkTree,
        places: &[Place],
        server: Option<&Server>,
    ) -> Result<(), Failure> {
        let catalog = tree.catalog();
        let covered = |file: &RepoPath| places.iter().any(|place| place.covers(file));
        let homes = catalog.canaries.values().map(|entry| match entry {
            Ok(canary) => &canary.home.file,
            Err(rejected) => &rejected.file,
        });
        self.canaries += homes.filter(|file| covered(file)).count();
        if let Some(server) = server {
            let sound = catalog
                .canaries
                .values()
                .filter_map(|entry| entry.as_deref().ok());
            let sound: Vec<_> = sound.filter(|canary| covered(&canary.home.file)).collect();
            for found in queries::check(tree, &sound, server)? {
                match found.severity {
                    "error" => self.errors += 1,
                    _ => self.warnings += 1,
                }
                self.diagnostics.push(found);
            }
        }
        let overlaps = overlaps(&tree.files, &catalog);
        for diagnostic in catalog.diagnostics.into_iter().chain(overlaps) {
            if !covered(&diagnostic.file) {
                continue;
            }
            let severity = match diagnostic.severity {
                Severity::Error => {
                    self.errors += 1;
                    "error"
                }
                Severity::Warning => {
                    self.warnings += 1;
                    "warning"
                }
            };
            self.diagnostics.push(Found {
                file: tree.shown(&diagnostic.file),
                line: diagnostic.line,
                column: diagnostic.column,
                severity,
                message: diagnostic.message,
            });
        }
        self.diagnostics
            .sort_by(|a, b| (&a.file, a.line, a.column).cmp(&(&b.file, b.line, b.column)));
        Ok(())
    }

    fn print(&self, console: &mut Console<'_>) -> Result<(), Failure> {
        for found in &self.diagnostics {
            let word = match found.severity {
                "warning" => console.paint(Style::Notice, "warning: "),
                _ => String::new(),
            };
            console.line(&format!(
                "{}:{}:{}: {word}{}",
                found.file, found.line, found.column, found.message
            ))?;
        }
        console.note(&self.summary())
    }

    fn summary(&self) -> String {
        let count = |number: usize, one: &str, many: &str| match number {
            0 => format!("no {many}"),
            1 => format!("1 {one}"),
            more => format!("{more} {many}"),
        };
        format!(
            "{}: {}, {}",
            count(self.canaries, "canary", "canaries"),
            count(self.errors, "error", "errors"),
            count(self.warnings, "warning", "warnings")
        )
    }
}
