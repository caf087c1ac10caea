//! `rollout.yaml`: the state of a canary in its written form.
//!
//! [`write`] gives canonical bytes, [`read`] takes them back, edited by people or not. The file is converted by hand,
//! field by field, so that no change of a type of ours changes what is in people's repositories.

mod read;
mod write;

use crate::domain::CanaryId;
use crate::progression::{Approval, Attribution, Intervention, Phase, State};
use crate::spec::Diagnostic;

pub use read::read;
pub use write::write;

/// `apiVersion` of the file.
const API_VERSION: &str = "serin.dev/v1alpha1";
/// `kind` of the file.
const KIND: &str = "Rollout";

/// What `rollout.yaml` says.
#[derive(Debug, Clone, PartialEq)]
pub struct StateFile {
    /// The state. A gate that somebody opened by hand is still pending here, because the file does not say who.
    pub state: State,
    /// Whether the file says `approval: granted` without saying by whom: a person wrote that.
    pub granted_by_hand: bool,
}

impl StateFile {
    /// The state to decide from, once it is known what people did.
    ///
    /// A gate opened by hand stays pending for [`Intervention::Approved`], which `decide` records itself. Together with
    /// any other edit it counts as granted by whoever made that edit.
    pub fn into_state(self, intervention: Option<&Intervention>) -> State {
        let by = match intervention {
            Some(
                Intervention::StateEdited { by, .. }
                | Intervention::Resumed { by }
                | Intervention::WeightEdited { by, .. }
                | Intervention::ManifestEdited { by, .. },
            ) if self.granted_by_hand => by.clone(),
            Some(_) | None => return self.state,
        };
        granted(self.state, by)
    }
}

/// The state with its pending gate opened.
fn granted(mut state: State, by: Attribution) -> State {
    if let Phase::Progressing(rollout) | Phase::Draining(rollout, _) = &mut state.phase
        && rollout.approval == Approval::Pending
    {
        rollout.approval = Approval::Granted(by);
    }
    state
}

/// Why a file is not the state of a canary.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unreadable {
    /// It is the state of another canary: somebody copied the folder.
    #[error("this is the state of {0}: a copied folder, ignored")]
    Foreign(CanaryId),
    /// It is nobody's state; all mistakes at once.
    #[error("{}", first(.0))]
    Invalid(Vec<Diagnostic>),
}

fn first(problems: &[Diagnostic]) -> String {
    let more = match problems.len() {
        0 | 1 => String::new(),
        n => format!(" (and {} more)", n - 1),
    };
    problems
        .first()
        .map(|problem| format!("{problem}{more}"))
        .unwrap_or_default()
}

#[cfg(test)]
mod tests;
