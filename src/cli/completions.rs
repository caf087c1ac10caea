//! Shell completions and manual pages, generated from the definition of the command line.

use std::path::PathBuf;

use clap::{Args, CommandFactory};
use clap_complete::Shell;

use super::Cli;
use super::failure::{Failure, Outcome};
use super::output::Console;

/// Print a shell's completion script.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  serin completions bash > /etc/bash_completion.d/serin
  serin completions zsh > ~/.zfunc/_serin
  serin completions fish > ~/.config/fish/completions/serin.fish")]
pub(super) struct CompletionsArgs {
    /// The shell.
    shell: Shell,
}

impl CompletionsArgs {
    pub(super) fn execute(&self, console: &mut Console<'_>) -> Result<Outcome, Failure> {
        // The generator panics when it cannot write, so it writes to memory.
        let mut script = Vec::new();
        clap_complete::generate(self.shell, &mut Cli::command(), "serin", &mut script);
        console.bytes(&script)?;
        Ok(Outcome::Done)
    }
}

/// Print the manual page, or write one page per command into a folder.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  serin man | man -l -
  serin man ~/.local/share/man/man1")]
pub(super) struct ManArgs {
    /// Folder to write serin.1, serin-run.1, … into; made when missing. Without it, serin.1 is printed.
    dir: Option<PathBuf>,
}

impl ManArgs {
    pub(super) fn execute(&self, console: &mut Console<'_>) -> Result<Outcome, Failure> {
        let root = Cli::command().disable_help_subcommand(true);
        match &self.dir {
            None => {
                let mut page = Vec::new();
                clap_mangen::Man::new(root).render(&mut page)?;
                console.bytes(&page)?;
            }
            Some(dir) => {
                let failed = |error: std::io::Error| {
                    Failure::failed(format!(
                        "failed to write manual pages into {}: {error}",
                        dir.display()
                    ))
                };
                std::fs::create_dir_all(dir).map_err(failed)?;
                clap_mangen::generate_to(root, dir).map_err(failed)?;
            }
        }
        Ok(Outcome::Done)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_per_command() {
        let dir = tempfile::tempdir().unwrap();
        let target = dir.path().join("man1");
        let args = ManArgs {
            dir: Some(target.clone()),
        };
        let mut out = Vec::new();
        let outcome = args
            .execute(&mut Console::new(&mut out, &mut std::io::sink(), false))
            .unwrap();
        assert_eq!(outcome, Outcome::Done);
        assert!(out.is_empty());
        let page = std::fs::read_to_string(target.join("serin-reconcile.1")).unwrap();
        assert!(page.contains("SERIN_PROMETHEUS"), "{page}");
        let pages = std::fs::read_dir(&target).unwrap().count();
        let commands = |command: &clap::Command| command.get_subcommands().count();
        let nested: usize = Cli::command().get_subcommands().map(commands).sum();
        assert_eq!(pages, commands(&Cli::command()) + nested + 1);
    }

    #[test]
    fn completions_know_the_commands() {
        for shell in [
            Shell::Bash,
            Shell::Zsh,
            Shell::Fish,
            Shell::Elvish,
            Shell::PowerShell,
        ] {
            let mut out = Vec::new();
            CompletionsArgs { shell }
                .execute(&mut Console::new(&mut out, &mut std::io::sink(), false))
                .unwrap();
            let script = String::from_utf8(out).unwrap();
            assert!(
                script.contains("reconcile") && script.contains("prometheus"),
                "{shell}"
            );
        }
    }
}
