//! Checks a finished history from its bytes alone, as an auditor with a clone would.

use std::collections::BTreeMap;

use super::branch::Commit;
use crate::domain::{RepoPath, files};
use crate::yaml::node;
use serde_json::Value;

/// What is wrong with the commits that Serin made; empty when all is well.
pub fn audit(commits: &[Commit]) -> Vec<String> {
    let mut found = Vec::new();
    let mut last: BTreeMap<RepoPath, (u64, String)> = BTreeMap::new();
    for commit in commits
        .iter()
        .filter(|commit| commit.message.contains("\nSerin-Canary: "))
    {
        let states = commit
            .tree
            .iter()
            .filter(|(path, _)| path.file_name() == files::ROLLOUT);
        for (path, file) in states {
            if !commit.touched.contains(path) {
                continue;
            }
            let state = json(&file.content);
            let sequence = state["sequence"].as_u64().unwrap_or_default();
            if let Some((before, subject)) = last.get(path)
                && sequence <= *before
            {
                found.push(format!(
                    "{}: sequence {sequence} after {before} of {subject}",
                    commit.subject()
                ));
            }
            last.insert(path.clone(), (sequence, commit.subject().to_owned()));
            found.extend(weights(commit, path, &state));
        }
    }
    found
}

/// The VirtualService of a commit must say the weight that its state says, and weights must sum to 100.
fn weights(commit: &Commit, rollout: &RepoPath, state: &Value) -> Vec<String> {
    let Some(routes) = rollout
        .sibling(files::VIRTUAL_SERVICE)
        .and_then(|path| commit.tree.get(&path))
    else {
        return vec![format!("{}: no VirtualService", commit.subject())];
    };
    let object = json(&routes.content);
    let wanted = state["weight"].as_u64().unwrap_or_default();
    let routes = object["spec"]["http"]
        .as_array()
        .cloned()
        .unwrap_or_default();
    let Some(last) = routes.last() else {
        return vec![format!("{}: no route", commit.subject())];
    };
    let destinations = last["route"].as_array().cloned().unwrap_or_default();
    let weight = |subset: &str| -> u64 {
        let of = destinations
            .iter()
            .filter(|route| route["destination"]["subset"] == subset);
        of.filter_map(|route| route["weight"].as_u64()).sum()
    };
    let mut found = Vec::new();
    if destinations.len() > 1 && weight("stable") + weight("canary") != 100 {
        found.push(format!("{}: weights do not sum to 100", commit.subject()));
    }
    if weight("canary") != wanted {
        found.push(format!(
            "{}: the state says {wanted}, the route {}",
            commit.subject(),
            weight("canary")
        ));
    }
    found
}

fn json(content: &[u8]) -> Value {
    node::parse(content)
        .documents
        .first()
        .map_or(Value::Null, |document| document.root.to_json())
}
