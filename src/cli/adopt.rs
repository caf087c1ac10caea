//! `serin adopt`: a first Canary next to existing manifests.

mod diff;

use std::fs::File;
use std::io::{self, Write};
use std::path::PathBuf;

use clap::Args;
use clap::builder::FalseyValueParser;

use super::failure::{Failure, Outcome};
use super::output::Console;
use super::worktree::{Place, WorkTree};
use crate::domain::{RepoPath, TRACK_LABEL};
use crate::spec::{self, Adoption, Asked, CannotAdopt, LabelEdit};

/// Write a first Canary next to the manifests of a Deployment.
///
/// Finds the Deployment and the Service that selects its pods, and proposes route, ladder and analysis. Says what else of
/// the repository would meet the candidate's pods. Nothing that exists is overwritten.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  serin adopt podinfo
  serin adopt test/podinfo --path clusters/prod --dry-run
  serin adopt podinfo --write

Exit status 1 when the manifests are not fit for it or are adopted already, 2 when it is not clear which are meant.")]
pub(super) struct AdoptArgs {
    /// The Deployment: <name> or <namespace>/<name>.
    deployment: super::values::CanaryName,
    /// Folder to search.
    #[arg(long, value_name = "DIR", env = "SERIN_PATH", default_value = ".")]
    path: PathBuf,
    /// The Service to route, when several select the pods.
    #[arg(long, value_name = "NAME", env = "SERIN_SERVICE")]
    service: Option<String>,
    /// Also add the label that tells stable from candidate to the Deployment's manifest, if it lacks one.
    #[arg(long, env = "SERIN_WRITE", value_parser = FalseyValueParser::new(), conflicts_with = "dry_run")]
    write: bool,
    /// Print what would be written with --write, as a diff, and write nothing.
    #[arg(long, env = "SERIN_DRY_RUN", value_parser = FalseyValueParser::new())]
    dry_run: bool,
}

impl AdoptArgs {
    pub(super) fn execute(&self, console: &mut Console<'_>) -> Result<Outcome, Failure> {
        let place = Place::find(&self.path)?;
        let tree = WorkTree::read(&place.root)?;
        let asked = Asked {
            namespace: self.deployment.namespace.as_deref(),
            name: &self.deployment.name,
            below: place.below.as_ref(),
            service: self.service.as_deref(),
        };
        let adoption = spec::adopt(&tree.files, &asked).map_err(|error| match error {
            CannotAdopt::Unclear(why) => Failure::usage(why),
            CannotAdopt::Unfit(why) => Failure::failed(why),
        })?;
        if self.dry_run {
            show(&tree, &adoption, console)?;
        } else {
            self.write(&tree, &adoption, console)?;
        }
        for remark in &adoption.remarks {
            console.note(&format!("note: {remark}"))?;
        }
        Ok(Outcome::Done)
    }

    fn write(
        &self,
        tree: &WorkTree,
        adoption: &Adoption,
        console: &mut Console<'_>,
    ) -> Result<(), Failure> {
        if let Some((file, text)) = &adoption.canary {
            create(tree, file, text)?;
            let shown = tree.shown(file);
            console.line(&format!("{shown}: the canary {}", adoption.id))?;
        }
        match &adoption.label {
            None => {}
            Some(label) if self.write => self.add_label(tree, label, console)?,
            Some(label) if adoption.canary.is_none() => {
                return Err(Failure::failed(format!(
                    "{} is adopted already; what it lacks is the label `{TRACK_LABEL}: stable` in the pod template of {}, \
                     which --write adds",
                    adoption.id,
                    tree.shown(&label.file)
                )));
            }
            Some(label) => console.note(&format!(
                "note: the pod template in {} lacks the label `{TRACK_LABEL}: stable`, by which Serin tells stable from the \
                 candidate; nothing is rolled out before it is there: `serin adopt {} --write` adds it",
                tree.shown(&label.file),
                self.deployment
            ))?,
        }
        if let Some((file, _)) = &adoption.canary {
            console.note(&format!(
                "next: serin validate {}, then commit and push",
                tree.shown(file)
            ))?;
        }
        Ok(())
    }

    fn add_label(
        &self,
        tree: &WorkTree,
        label: &LabelEdit,
        console: &mut Console<'_>,
    ) -> Result<(), Failure> {
        let shown = tree.shown(&label.file);
        let bytes = label.edited.as_ref().map_err(|why| by_hand(&shown, why))?;
        std::fs::write(tree.root.join(label.file.as_str()), bytes)
            .map_err(|error| failed(&shown, &error))?;
        console.line(&format!("{shown}: the label {TRACK_LABEL}: stable"))?;
        console.note("note: pushing that label restarts stable's pods once")
    }
}

/// Nothing that exists is overwritten, whatever came to be there in the meantime.
fn create(tree: &WorkTree, file: &RepoPath, text: &str) -> Result<(), Failure> {
    let created = File::create_new(tree.root.join(file.as_str()));
    created
        .and_then(|mut created| created.write_all(text.as_bytes()))
        .map_err(|error| failed(&tree.shown(file), &error))
}

fn failed(file: &str, error: &io::Error) -> Failure {
    Failure::failed(format!("failed to write {file}: {error}"))
}

fn by_hand(file: &str, why: &str) -> Failure {
    Failure::failed(format!(
        "{file} cannot be edited safely ({why}): add the label `{TRACK_LABEL}: stable` to its pod template by hand"
    ))
}

fn show(tree: &WorkTree, adoption: &Adoption, console: &mut Console<'_>) -> Result<(), Failure> {
    if let Some((file, text)) = &adoption.canary {
        console.bytes(&diff::unified(file.as_str(), None, text.as_bytes()))?;
    }
    let Some(label) = &adoption.label else {
        return Ok(());
    };
    match (&label.edited, tree.files.get(&label.file)) {
        (Ok(bytes), Some((_, before))) => {
            console.bytes(&diff::unified(label.file.as_str(), Some(before), bytes))
        }
        (Err(why), _) => console.note(&by_hand(&tree.shown(&label.file), why).to_string()),
        (Ok(_), None) => Ok(()),
    }
}

#[cfg(test)]
mod tests;
