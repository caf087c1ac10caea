//! `serin demo`: the whole story on a laptop.

mod live;
mod plain;
mod words;

use std::io;
use std::path::{Path, PathBuf};

use clap::Args;
use clap::builder::FalseyValueParser;

use super::failure::{Failure, Outcome, chain};
use super::output::{Console, Style};
use super::wiring::runtime;
use crate::demo::{self, Audience, DemoError, Ending, Frame, News, Pace};
use crate::domain::Timestamp;
use live::Live;
use plain::Plain;

/// Temporary folders that are tried before giving up.
const MAX_TRIES: u32 = 100;

/// Show the whole story on this machine, with nothing installed but git.
///
/// A bare repository in a folder, simulated traffic behind a real Prometheus HTTP API in this process, the same engine as
/// `serin run`: a named user gets the new version while everybody else does not, the ladder is climbed, a deleted
/// namespace comes back, a bad release is caught and rolled back. The repository stays, to look at with `git log`.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  serin demo
  serin demo --fast --dir demo

Without a terminal, or with NO_COLOR, it prints one line per event.
Exit status 1 when the story did not end as told.")]
pub(super) struct DemoArgs {
    /// Folder for the repository; must be empty or missing [default: a new temporary folder].
    #[arg(long, value_name = "DIR", env = "SERIN_DIR")]
    dir: Option<PathBuf>,
    /// End in under five seconds instead of at readable speed.
    #[arg(long, env = "SERIN_FAST", value_parser = FalseyValueParser::new())]
    fast: bool,
}

impl DemoArgs {
    pub(super) fn execute(&self, console: &mut Console<'_>) -> Result<Outcome, Failure> {
        let folder = self.folder()?;
        let pace = if self.fast {
            Pace::FAST
        } else {
            Pace::READABLE
        };
        let mut audience = if console.is_live() {
            View::Live(Live::new(console))
        } else {
            View::Plain(Plain::new(console))
        };
        let told = runtime()?.block_on(async {
            tokio::select! {
                told = demo::tell(&folder, pace, &mut audience) => Some(told),
                _ = tokio::signal::ctrl_c() => None,
            }
        });
        audience.end()?;
        match told {
            None => Err(Failure::failed(format!(
                "stopped in the middle of the story; what there was of it is in {}",
                folder.display()
            ))),
            Some(Ok(ending)) => finish(&ending, console),
            Some(Err(DemoError::Io(error))) if error.kind() == io::ErrorKind::BrokenPipe => {
                Err(Failure::Output(error))
            }
            Some(Err(error)) => Err(Failure::failed(chain(&error))),
        }
    }

    /// An empty folder with an absolute path.
    fn folder(&self) -> Result<PathBuf, Failure> {
        let folder = match &self.dir {
            Some(dir) => empty(dir)?,
            None => temporary()?,
        };
        let folder = folder
            .canonicalize()
            .map_err(|error| failed(&folder, &error))?;
        if folder.to_str().is_none() {
            return Err(Failure::usage(format!(
                "{} is not UTF-8, which the demo's repository needs: give another --dir",
                folder.display()
            )));
        }
        Ok(folder)
    }
}

fn failed(folder: &Path, error: &io::Error) -> Failure {
    Failure::usage(format!("failed to make {}: {error}", folder.display()))
}

fn empty(dir: &Path) -> Result<PathBuf, Failure> {
    std::fs::create_dir_all(dir).map_err(|error| failed(dir, &error))?;
    let mut entries = std::fs::read_dir(dir).map_err(|error| failed(dir, &error))?;
    if entries.next().is_some() {
        return Err(Failure::usage(format!(
            "{} is not empty: the demo makes its repository in an empty or new folder",
            dir.display()
        )));
    }
    Ok(dir.to_owned())
}

fn temporary() -> Result<PathBuf, Failure> {
    let all = std::env::temp_dir();
    for number in 0..MAX_TRIES {
        let name = format!("serin-demo-{}-{number}", std::process::id());
        let folder = all.join(name);
        match std::fs::create_dir(&folder) {
            Ok(()) => return Ok(folder),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(failed(&folder, &error)),
        }
    }
    Err(Failure::failed(format!(
        "{} is full of folders of the demo: give --dir",
        all.display()
    )))
}

/// How the story is shown.
enum View<'c, 'o> {
    Live(Live<'c, 'o>),
    Plain(Plain<'c, 'o>),
}

impl View<'_, '_> {
    /// Leaves the terminal as it was.
    fn end(self) -> Result<(), Failure> {
        match self {
            Self::Live(live) => live.end(),
            Self::Plain(_) => Ok(()),
        }
    }
}

impl Audience for View<'_, '_> {
    fn hear(&mut self, at: Timestamp, news: &News) -> io::Result<()> {
        match self {
            Self::Live(_) => Ok(()),
            Self::Plain(plain) => plain.hear(at, news),
        }
    }

    fn see(&mut self, frame: &Frame) -> io::Result<()> {
        match self {
            Self::Live(live) => live.see(frame),
            Self::Plain(plain) => plain.see(frame),
        }
    }
}

/// Claims, log, and what to try.
fn finish(ending: &Ending, console: &mut Console<'_>) -> Result<Outcome, Failure> {
    let well = ending.claims.iter().all(|claim| claim.holds);
    console.line("")?;
    for claim in &ending.claims {
        let mark = if claim.holds {
            console.paint(Style::Good, "✓")
        } else {
            console.paint(Style::Bad, "✗ NOT SO:")
        };
        console.line(&format!("{mark} {}", claim.sentence))?;
    }
    console.line("")?;
    let title = console.paint(Style::Bold, "The log that it made, newest first:");
    console.line(&title)?;
    for commit in ending.commits.iter().rev() {
        let line = format!(
            "  {}  {:<6}  {}",
            console.paint(Style::Dim, &commit.id),
            commit.who,
            commit.subject
        );
        console.line(&line)?;
    }
    console.line("")?;
    let title = console.paint(Style::Bold, "The repository stays. Look at it:");
    console.line(&title)?;
    let repository = quoted(&ending.repository.to_string_lossy());
    let serin = std::env::args_os().next().unwrap_or_default();
    let serin = quoted(&serin.to_string_lossy());
    for command in [
        format!("git -C {repository} log"),
        format!("git -C {repository} show ':/60% -> 100%'"),
        format!("{serin} history podinfo --repo {repository} --verbose"),
        format!("{serin} explain podinfo --repo {repository}"),
    ] {
        console.line(&format!("  {command}"))?;
    }
    if well {
        return Ok(Outcome::Done);
    }
    console.note("the story did not end as told: please report this")?;
    Ok(Outcome::NotWell)
}

/// For a shell.
fn quoted(text: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-+:@%".contains(c);
    if !text.is_empty() && text.chars().all(plain) {
        return text.to_owned();
    }
    format!("'{}'", text.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests;
