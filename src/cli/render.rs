//! `serin render`: the manifests of a spec.

use std::path::PathBuf;

use clap::Args;

use super::failure::{Failure, Outcome};
use super::output::Console;
use super::values::{self, CanaryName};
use super::worktree::{Place, WorkTree};
use crate::domain::{Timestamp, Weight, files};
use crate::manifests;
use crate::progression::{Phase, Rollout, State};
use crate::record::state_file;
use crate::spec::{Diagnostic, ValidatedCanary};

/// Print the VirtualService and DestinationRule of a spec, at its committed or a given weight.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Service and Deployment are looked up in the repository around the file.

Examples:
  serin render apps/podinfo/canary.yaml
  serin render apps/podinfo/canary.yaml --weight 60
  serin render apps/podinfo/canary.yaml --step 2 | kubectl diff -f -")]
pub(super) struct RenderArgs {
    /// Files with Canary documents.
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// Weight of the candidate instead of the committed one.
    #[arg(
        long,
        value_name = "PERCENT",
        env = "SERIN_WEIGHT",
        value_parser = values::weight,
        conflicts_with = "step"
    )]
    weight: Option<Weight>,
    /// Step of the ladder, from 1, instead of the committed one.
    #[arg(long, value_name = "STEP", env = "SERIN_STEP", value_parser = clap::value_parser!(u16).range(1..))]
    step: Option<u16>,
    /// Only this canary of the files.
    #[arg(long, value_name = "NAME", env = "SERIN_CANARY")]
    canary: Option<CanaryName>,
}

impl RenderArgs {
    pub(super) fn execute(&self, console: &mut Console<'_>) -> Result<Outcome, Failure> {
        let mut outcome = Outcome::Done;
        let mut printed = 0;
        for path in &self.files {
            let place = Place::find(path)?;
            let tree = WorkTree::read(&place.root)?;
            let catalog = tree.catalog();
            let mut here = 0;
            for (id, entry) in &catalog.canaries {
                let file = match entry {
                    Ok(canary) => &canary.home.file,
                    Err(rejected) => &rejected.file,
                };
                let wanted = self.canary.as_ref().is_none_or(|name| name.matches(id));
                if !place.covers(file) || !wanted {
                    continue;
                }
                here += 1;
                let canary = match entry {
                    Ok(canary) => canary,
                    Err(rejected) => {
                        complain(&rejected.diagnostics, &tree, console)?;
                        outcome = Outcome::NotWell;
                        continue;
                    }
                };
                self.print(canary, &tree, &mut printed, console)?;
            }
            if here == 0 {
                let which = match &self.canary {
                    Some(name) => format!("canary {name}"),
                    None => "Canary".to_owned(),
                };
                return Err(Failure::usage(format!(
                    "there is no {which} in {}",
                    path.display()
                )));
            }
        }
        Ok(outcome)
    }

    fn print(
        &self,
        canary: &ValidatedCanary,
        tree: &WorkTree,
        printed: &mut usize,
        console: &mut Console<'_>,
    ) -> Result<(), Failure> {
        let state = self.state(canary, committed(canary, tree)?)?;
        let rendered = manifests::render(canary, &state);
        for name in [files::DESTINATION_RULE, files::VIRTUAL_SERVICE] {
            let path = canary.home.folder.join(name);
            let Some(Some(content)) = path.and_then(|path| rendered.files.get(&path)) else {
                continue;
            };
            if *printed > 0 {
                console.line("---")?;
            }
            *printed += 1;
            console.bytes(content)?;
        }
        Ok(())
    }

    /// The committed state, moved to where the flags say.
    fn state(&self, canary: &ValidatedCanary, state: State) -> Result<State, Failure> {
        if self.weight.is_none() && self.step.is_none() {
            return Ok(state);
        }
        let Some(mut rollout) = state.rollout().cloned().or_else(|| fresh(canary)) else {
            return Err(Failure::usage(format!(
                "{} proposes nothing that differs from stable, so there is no other weight to render",
                canary.id
            )));
        };
        if let Some(weight) = self.weight {
            rollout.weight = weight;
        }
        if let Some(step) = self.step {
            let rung = canary.ladder.get(usize::from(step) - 1).ok_or_else(|| {
                Failure::usage(format!(
                    "the ladder of {} has {} steps, there is no step {step}",
                    canary.id,
                    canary.ladder.len()
                ))
            })?;
            rollout.step = step;
            rollout.weight = rung.weight;
            rollout.mirror = rung.mirror;
            rollout.matches.clone_from(&rung.matches);
        }
        Ok(State {
            phase: Phase::Progressing(rollout),
            ..state
        })
    }
}

/// A rollout of the proposal that has just begun.
fn fresh(canary: &ValidatedCanary) -> Option<Rollout> {
    let candidate = canary.proposal.clone()?;
    let ladder = canary.ladder_revision.clone();
    // No time is rendered; any will do.
    Some(Rollout::new(candidate, ladder, Timestamp::UNIX_EPOCH))
}

/// The state that is committed next to the canary; the very first one when there is none.
fn committed(canary: &ValidatedCanary, tree: &WorkTree) -> Result<State, Failure> {
    let path = canary.home.folder.join(files::ROLLOUT);
    let file = path.and_then(|path| tree.files.get_key_value(&path));
    let Some((path, (_, content))) = file else {
        return Ok(State::initial(canary.stable.clone()));
    };
    match state_file::read(path, content, &canary.id) {
        Ok(file) => Ok(file.state),
        // A copied folder says nothing about this canary.
        Err(state_file::Unreadable::Foreign(_)) => Ok(State::initial(canary.stable.clone())),
        Err(state_file::Unreadable::Invalid(problems)) => Err(Failure::failed(
            problems
                .iter()
                .map(ToString::to_string)
                .collect::<Vec<_>>()
                .join("\n"),
        )),
    }
}

fn complain(
    diagnostics: &[Diagnostic],
    tree: &WorkTree,
    console: &mut Console<'_>,
) -> Result<(), Failure> {
    for found in diagnostics {
        console.note(&format!(
            "{}:{}:{}: {}",
            tree.shown(&found.file),
            found.line,
            found.column,
            found.message
        ))?;
    }
    Ok(())
}
