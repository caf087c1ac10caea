//! The command line: flags parsed into types, one function per command, exit status.
//!
//! Commands are thin: they read files and repositories, call the layers below, and print. Rules live below.

mod adopt;
mod backtest;
mod bench;
mod clone;
mod cluster_config;
mod completions;
mod config;
mod crd;
mod demo;
mod explain;
mod failure;
mod flags;
mod history;
mod output;
mod plan;
mod prose;
mod reconcile;
mod render;
mod run;
mod show;
mod simulate;
mod status;
mod telemetry;
#[cfg(feature = "otel")]
mod traces;
mod validate;
mod values;
mod wiring;
mod worktree;

use std::ffi::OsString;
use std::process::ExitCode;

use clap::{ArgAction, Args, Parser, Subcommand};

use crate::endpoints::SetLogLevel;
use failure::{Failure, Outcome};
use output::{ColorChoice, Console};
use telemetry::{Chattiness, LogFormat};

/// Istio canary releases that are steered, recorded and undone in Git.
///
/// Serin reads a Canary from a Git repository, renders the Istio VirtualService and DestinationRule for it, asks
/// Prometheus how the new version does, and writes every step back as one commit: `git log` says who, when, what and
/// why, and `git revert` undoes anything.
#[derive(Debug, Parser)]
#[command(
    name = "serin",
    version,
    propagate_version = true,
    max_term_width = 100,
    arg_required_else_help = true,
    after_help = "Exit status: 0 done; 1 the thing asked about is not well (an invalid spec, a failed canary); 2 usage.",
    after_long_help = "\
Exit status:
  0  done
  1  the thing asked about is not well: an invalid spec, a failed canary, a remote that refuses
  2  usage

Every flag can be given as an environment variable, named beside it.

Start with:
  serin demo                      the whole story in under a minute
  serin adopt podinfo             a first Canary next to your manifests
  serin validate . && git push    check before you propose"
)]
pub struct Cli {
    #[command(flatten)]
    global: GlobalFlags,
    #[command(subcommand)]
    command: Command,
}

/// Flags of every command.
#[derive(Debug, Clone, Copy, Args)]
#[command(next_help_heading = "Global options")]
struct GlobalFlags {
    /// Say more: with `history` the evidence, with all commands more of the log (-vv, -vvv).
    #[arg(long, short, global = true, env = "SERIN_VERBOSE", action = ArgAction::Count)]
    verbose: u8,
    /// When to use colours; NO_COLOR is respected.
    #[arg(
        long,
        global = true,
        value_name = "WHEN",
        env = "SERIN_COLOR",
        value_enum,
        default_value_t
    )]
    color: ColorChoice,
    /// Form of the log on standard error.
    #[arg(
        long,
        global = true,
        value_name = "FORMAT",
        env = "SERIN_LOG_FORMAT",
        value_enum,
        default_value_t
    )]
    log_format: LogFormat,
}

/// What to do.
#[derive(Debug, Subcommand)]
enum Command {
    Run(run::RunArgs),
    Reconcile(reconcile::ReconcileArgs),
    Demo(demo::DemoArgs),
    Simulate(simulate::SimulateArgs),
    Render(render::RenderArgs),
    Validate(validate::ValidateArgs),
    Status(status::StatusArgs),
    History(history::HistoryArgs),
    Explain(explain::ExplainArgs),
    Adopt(adopt::AdoptArgs),
    Bench(bench::BenchArgs),
    Backtest(backtest::BacktestArgs),
    Plan(plan::PlanArgs),
    Crd(crd::CrdArgs),
    Completions(completions::CompletionsArgs),
    Man(completions::ManArgs),
}

impl Command {
    /// How much it logs by itself.
    fn chattiness(&self) -> Chattiness {
        match self {
            Self::Run(_) => Chattiness::Normal,
            Self::Reconcile(_)
            | Self::Demo(_)
            | Self::Simulate(_)
            | Self::Render(_)
            | Self::Validate(_)
            | Self::Status(_)
            | Self::History(_)
            | Self::Explain(_)
            | Self::Adopt(_)
            | Self::Bench(_)
            | Self::Backtest(_)
            | Self::Plan(_)
            | Self::Crd(_)
            | Self::Completions(_)
            | Self::Man(_) => Chattiness::Quiet,
        }
    }

    fn execute(
        &self,
        verbose: u8,
        set_log_level: SetLogLevel,
        console: &mut Console<'_>,
    ) -> Result<Outcome, Failure> {
        match self {
            Self::Run(args) => args.execute(set_log_level),
            Self::Reconcile(args) => args.execute(console),
            Self::Demo(args) => args.execute(console),
            Self::Simulate(args) => args.execute(console),
            Self::Render(args) => args.execute(console),
            Self::Validate(args) => args.execute(console),
            Self::Status(args) => args.execute(console),
            Self::History(args) => args.execute(verbose > 0, console),
            Self::Explain(args) => args.execute(console),
            Self::Adopt(args) => args.execute(console),
            Self::Bench(args) => args.execute(console),
            Self::Backtest(args) => args.execute(console),
            Self::Plan(args) => args.execute(console),
            Self::Crd(args) => args.execute(console),
            Self::Completions(args) => args.execute(console),
            Self::Man(args) => args.execute(console),
        }
    }
}

/// Runs the program with these arguments (the first is its name) and says how it ended.
pub fn main(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    let cli = match Cli::try_parse_from(args) {
        Ok(cli) => cli,
        Err(error) => {
            // Help is output, anything else a usage error; a closed pipe matters to neither.
            let _ = error.print();
            return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2));
        }
    };
    let GlobalFlags {
        verbose,
        color,
        log_format,
    } = cli.global;
    let telemetry = telemetry::init(cli.command.chattiness(), verbose, log_format, color);
    let set_log_level = std::sync::Arc::clone(&telemetry.set_log_level);
    let result = output::with_stdout(color, |console| {
        cli.command.execute(verbose, set_log_level, console)
    });
    if let Err(failure) = &result
        && !failure.is_silent()
    {
        output::complain(color, failure);
    }
    failure::exit_code(&result)
}

#[cfg(test)]
mod tests;
