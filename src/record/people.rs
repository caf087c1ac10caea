//! What people did: HEAD compared with our last commit, classified.

use std::collections::BTreeMap;

use serde_json::Value;

use super::state_file::{self, StateFile};
use crate::domain::{RepoPath, files};
use crate::manifests;
use crate::progression::{Attribution, Intervention, State};
use crate::spec::ValidatedCanary;
use crate::yaml::memory;

/// What people changed in the canary's folder since our last commit; `None` when nothing of substance.
///
/// `ours` and `head` are the generated files as our last commit left them and as HEAD has them, `file` is HEAD's state,
/// `by` the author of the newest foreign commit on the folder. A changed state outweighs a changed route: a revert of
/// a step changes both.
pub fn classify(
    canary: &ValidatedCanary,
    ours: Option<&BTreeMap<RepoPath, Vec<u8>>>,
    head: &BTreeMap<RepoPath, Vec<u8>>,
    file: &StateFile,
    by: &Attribution,
) -> Option<Intervention> {
    let ours = ours?;
    let by = by.clone();
    if let Some(written) = written_state(canary, ours) {
        if file.granted_by_hand && file.state == written {
            return Some(Intervention::Approved { by });
        }
        if file.state != written || file.granted_by_hand {
            let resumed = State {
                held: None,
                ..written.clone()
            };
            return Some(
                if written.held.is_some() && file.state == resumed && !file.granted_by_hand {
                    Intervention::Resumed { by }
                } else {
                    Intervention::StateEdited {
                        ours: Box::new(written),
                        by,
                    }
                },
            );
        }
    }
    let routes = canary.home.folder.join(files::VIRTUAL_SERVICE)?;
    let weight = |files: &BTreeMap<RepoPath, Vec<u8>>| {
        let object = json(files.get(&routes)?)?;
        manifests::routed_weight(&object, canary)
    };
    if let (Some(before), Some(weight)) = (weight(ours), weight(head))
        && before != weight
    {
        return Some(Intervention::WeightEdited { weight, by });
    }
    let changed: Vec<RepoPath> = ours
        .iter()
        .filter(|(path, content)| head.get(*path) != Some(*content))
        .map(|(path, _)| path)
        .chain(head.keys().filter(|path| !ours.contains_key(*path)))
        .cloned()
        .collect();
    (!changed.is_empty()).then_some(Intervention::ManifestEdited { files: changed, by })
}

fn written_state(canary: &ValidatedCanary, ours: &BTreeMap<RepoPath, Vec<u8>>) -> Option<State> {
    let path = canary.home.folder.join(files::ROLLOUT)?;
    state_file::read(&path, ours.get(&path)?, &canary.id)
        .ok()
        .map(|file| file.state)
}

fn json(content: &[u8]) -> Option<Value> {
    memory::read(content).values().first().cloned()
}
