//! The command line as a whole: consistent, documented, reachable by environment.

use clap::{CommandFactory, Parser};

use super::Cli;

fn commands() -> Vec<clap::Command> {
    let mut root = Cli::command();
    root.build();
    let mut all = vec![root.clone()];
    all.extend(root.get_subcommands().cloned());
    all
}

/// The commands and those below them.
fn nested_commands() -> Vec<clap::Command> {
    let mut all = commands();
    let below = all
        .iter()
        .skip(1)
        .flat_map(|command| command.get_subcommands().cloned());
    let below: Vec<clap::Command> = below
        .filter(|command| command.get_name() != "help")
        .collect();
    all.extend(below);
    all
}

#[test]
fn the_definition_is_consistent() {
    Cli::command().debug_assert();
}

#[test]
fn every_flag_has_an_environment_variable() {
    let mut checked = 0;
    for command in nested_commands() {
        for arg in command.get_arguments() {
            let id = arg.get_id().as_str();
            if arg.is_positional() || matches!(id, "help" | "version") {
                continue;
            }
            let expected = format!("SERIN_{}", id.to_uppercase());
            let env = arg.get_env().and_then(|env| env.to_str()).unwrap_or("none");
            assert_eq!(env, expected, "{} --{id}", command.get_name());
            checked += 1;
        }
    }
    assert!(checked > 30, "only {checked} flags were seen");
}

#[test]
fn everything_has_a_help_text() {
    for command in nested_commands() {
        let name = command.get_name();
        assert!(command.get_about().is_some(), "{name}");
        for arg in command.get_arguments() {
            let id = arg.get_id();
            let help = arg.get_help().map(ToString::to_string).unwrap_or_default();
            assert!(!help.is_empty(), "{name} {id}");
        }
    }
}

#[test]
fn every_command_shows_an_example() {
    for command in commands().into_iter().skip(1) {
        let name = command.get_name();
        if name == "help" {
            continue;
        }
        let after = command
            .get_after_long_help()
            .map(ToString::to_string)
            .unwrap_or_default();
        assert!(after.contains(&format!("serin {name}")), "{name}: {after}");
    }
}

#[test]
fn the_examples_parse() {
    for command in commands().into_iter().skip(1) {
        let Some(after) = command.get_after_long_help() else {
            continue;
        };
        for line in after.to_string().lines() {
            let Some(example) = line.trim_start().strip_prefix("serin ") else {
                continue;
            };
            // Two spaces end the command and begin its explanation.
            let example = example.split("  ").next().unwrap_or_default();
            let example = example.split([';', '|', '>']).next().unwrap_or_default();
            let args = std::iter::once("serin").chain(example.split_whitespace());
            let parsed = Cli::try_parse_from(args);
            assert!(parsed.is_ok(), "serin {example}: {:?}", parsed.err());
        }
    }
}

#[test]
fn values_are_checked_when_they_are_parsed() {
    for bad in [
        "serin reconcile --repo a --prometheus http://p --now yesterday",
        "serin reconcile --repo a --path ../b",
        "serin render canary.yaml --weight 101",
        "serin render canary.yaml --weight 10 --step 2",
        "serin run --cluster mars",
        "serin validate --output xml .",
        "serin frobnicate",
    ] {
        let parsed = Cli::try_parse_from(bad.split_whitespace());
        let Err(error) = parsed else {
            panic!("accepted: {bad}");
        };
        assert_eq!(error.exit_code(), 2, "{bad}");
    }
}
