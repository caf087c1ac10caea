//! `serin history`: who moved a canary, when, from where to where, and why.

use clap::Args;
use serde::Serialize;

use super::clone::{self, Clone};
use super::failure::{Failure, Outcome};
use super::flags::{LocalFlags, OutputFlag};
use super::output::{Console, Style, Table};
use super::show;
use super::values::CanaryName;
use crate::domain::{CanaryId, CommitId, RepoPath, files};
use crate::git::LogEntry;
use crate::ports::Watch;
use crate::record::message::{self, Recorded};

/// Show who moved a canary, when, from which weight to which and why, from Git alone.
///
/// One line per commit, newest first: Serin's steps and people's commits to the same files. With --verbose the
/// evidence of each step too.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  serin history podinfo
  serin history test/podinfo --verbose --repo ../apps.git
  serin history podinfo --limit 5 --output json")]
pub(super) struct HistoryArgs {
    /// The canary: <name> or <namespace>/<name>.
    name: CanaryName,
    /// Show at most this many commits.
    #[arg(long, short = 'n', value_name = "COUNT", env = "SERIN_LIMIT")]
    limit: Option<usize>,
    #[command(flatten)]
    local: LocalFlags,
    #[command(flatten)]
    output: OutputFlag,
}

/// One commit, for scripts.
#[derive(Debug, Serialize)]
struct Entry {
    commit: String,
    at: String,
    author: String,
    /// Whether it is one of Serin's steps, and not a person's commit.
    step: bool,
    what: String,
    why: String,
    /// A rule, or a person and the commit.
    cause: Option<String>,
    candidate: Option<String>,
    weight: Option<Moved>,
    verdict: Option<String>,
    metrics: Vec<String>,
}

/// A weight before and after, in per cent.
#[derive(Debug, Serialize)]
struct Moved {
    from: u8,
    to: u8,
}

impl HistoryArgs {
    pub(super) fn execute(
        &self,
        verbose: bool,
        console: &mut Console<'_>,
    ) -> Result<Outcome, Failure> {
        let clone = Clone::open(&self.local)?;
        let watch = self.watch(&clone)?;
        let commits = clone.log(&watch, self.limit.unwrap_or(usize::MAX))?;
        if commits.is_empty() {
            let name = &watch.canary;
            return Err(Failure::usage(format!("no commit is about {name}")));
        }
        let entries: Vec<Entry> = commits
            .iter()
            .map(|commit| Entry::of(commit, &watch.canary))
            .collect();
        console.value(self.output.output, &entries, |console| {
            console.table(&table(&entries, verbose))
        })?;
        Ok(Outcome::Done)
    }

    /// What to look for. A canary that is gone is found in our commits by its whole name.
    fn watch(&self, clone: &Clone) -> Result<Watch, Failure> {
        let outlook = clone.outlook()?;
        let known = outlook.iter().any(|canary| self.name.matches(&canary.id));
        if let Some(namespace) = &self.name.namespace
            && !known
        {
            let folder = RepoPath::new(files::folder_name(&self.name.name));
            return Ok(Watch {
                canary: CanaryId::new(namespace.clone(), self.name.name.clone()),
                folder: folder.ok_or_else(|| {
                    Failure::usage(format!("{} is not the name of a canary", self.name))
                })?,
                inputs: Vec::new(),
            });
        }
        clone::watch(&clone::the_one(outlook, &self.name)?)
    }
}

/// What a commit of ours says about a canary; `None` for other people's commits and other canaries.
pub(super) fn recorded(commit: &LogEntry, canary: &CanaryId) -> Option<Recorded> {
    let trailers: Vec<String> = commit
        .trailers
        .iter()
        .map(|(key, value)| format!("{key}: {value}"))
        .collect();
    let whole = format!(
        "{}\n\n{}\n\n{}\n",
        commit.subject,
        commit.body,
        trailers.join("\n")
    );
    message::parse(&whole).filter(|recorded| recorded.canary == canary.to_string())
}

impl Entry {
    fn of(commit: &LogEntry, canary: &CanaryId) -> Self {
        let (step, recorded) = match recorded(commit, canary) {
            Some(recorded) => (true, recorded),
            None => (
                false,
                Recorded {
                    what: commit.subject.clone(),
                    sentence: commit.body.lines().next().unwrap_or_default().to_owned(),
                    ..Recorded::default()
                },
            ),
        };
        Self {
            commit: commit.id.to_string(),
            at: show::stamp(commit.committed),
            author: commit.author.to_string(),
            step,
            what: recorded.what,
            why: recorded.sentence,
            cause: recorded.cause,
            candidate: recorded.candidate,
            weight: recorded.weight.map(|(from, to)| Moved { from, to }),
            verdict: recorded.verdict,
            metrics: recorded.metrics,
        }
    }

    /// Who wrote the commit, and for whom when it follows a person's.
    fn who(&self) -> String {
        let name = |person: &str| person.split(" <").next().unwrap_or(person).to_owned();
        let cause = self.cause.as_deref().unwrap_or_default();
        match cause.strip_prefix("person: ") {
            Some(person) => format!("{} for {}", name(&self.author), name(person)),
            None => name(&self.author),
        }
    }

    /// The lines of `--verbose`.
    fn details(&self) -> Vec<String> {
        let mut lines = Vec::new();
        let mut line = |key: &str, value: Option<&str>| {
            if let Some(value) = value {
                lines.push(format!("    {key:<10}{value}"));
            }
        };
        line("cause", self.cause.as_deref());
        line("candidate", self.candidate.as_deref());
        line("verdict", self.verdict.as_deref());
        for metric in &self.metrics {
            line("metric", Some(metric));
        }
        lines
    }
}

fn table(entries: &[Entry], verbose: bool) -> Table {
    let mut table = Table::new(&["WHEN", "COMMIT", "WHO", "WHAT", "WHY"]);
    for entry in entries {
        let what = if entry.step {
            Style::Bold
        } else {
            Style::Plain
        };
        let short = CommitId::new(entry.commit.clone()).short().to_owned();
        table.row(vec![
            (Style::Plain, entry.at.replace('T', " ")),
            (Style::Dim, short),
            (Style::Plain, entry.who()),
            (what, entry.what.clone()),
            (Style::Plain, entry.why.clone()),
        ]);
        if verbose {
            for line in entry.details() {
                table.detail(line);
            }
        }
    }
    table
}
