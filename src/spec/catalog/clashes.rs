//! What canaries, and the files of users, may not have in common.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use super::super::file::Facts;
use super::super::names::{canonical_gateway, canonical_host};
use super::super::{Diagnostic, Severity, ValidatedCanary, Workload};
use super::entries::Entry;
use crate::domain::{RepoPath, files};

/// Most other canaries that a message about one names.
const MOST_NAMED: usize = 3;

/// What is said to canaries because of others, by their place among all.
pub(super) type Blames = BTreeMap<usize, Vec<Diagnostic>>;

/// Compares all canaries of a repository, in the order of files.
pub(super) fn find(entries: &[&Entry], facts: &BTreeMap<RepoPath, Arc<Facts>>) -> Blames {
    let mut blames = Blames::new();
    check_folders(entries, facts, &mut blames);
    check_duplicates(entries, &mut blames);
    check_claims(entries, &mut blames);
    blames
}

fn blame(entries: &[&Entry], index: usize, message: String, blames: &mut Blames) {
    let entry = entries[index];
    blames.entry(index).or_default().push(Diagnostic {
        file: entry.home.file.clone(),
        line: entry.place.line,
        column: entry.place.column,
        severity: Severity::Error,
        message,
    });
}

fn written_at(entry: &Entry) -> String {
    format!("{}:{}", entry.home.file, entry.place.line)
}

/// A folder of another name must not hold files of the user's that ours would replace.
fn check_folders(entries: &[&Entry], facts: &BTreeMap<RepoPath, Arc<Facts>>, blames: &mut Blames) {
    let choosing = entries.iter().enumerate();
    for (index, entry) in choosing.filter(|(_, entry)| entry.chooses_folder) {
        let folder = &entry.home.folder;
        let path = |name: &str| folder.join(name);
        let has_state = path(files::ROLLOUT).is_some_and(|path| facts.contains_key(&path));
        let in_the_way = files::ALL
            .iter()
            .filter_map(|name| path(name))
            .find(|path| facts.contains_key(path));
        if let Some(file) = in_the_way.filter(|_| !has_state) {
            let message = format!(
                "`spec.folder` is {folder}, but {file} is there already and not Serin's: choose a folder that is empty"
            );
            blame(entries, index, message, blames);
        }
    }
}

fn check_duplicates(entries: &[&Entry], blames: &mut Blames) {
    let mut by_id: Vec<usize> = (0..entries.len()).collect();
    by_id.sort_by_key(|index| &entries[*index].id);
    let same = |one: &usize, other: &usize| entries[*one].id == entries[*other].id;
    for indices in by_id.chunk_by(same).filter(|indices| indices.len() > 1) {
        for index in indices {
            let others = indices.iter().filter(|other| *other != index);
            let others: Vec<_> = others
                .take(MOST_NAMED)
                .map(|other| written_at(entries[*other]))
                .collect();
            let message = format!(
                "the canary `{}` is written twice: also in {}",
                entries[*index].id,
                others.join(", ")
            );
            blame(entries, *index, message, blames);
        }
    }
}

/// What two canaries may not both have: a host on a gateway, a Service, a Deployment, a folder.
fn check_claims(entries: &[&Entry], blames: &mut Blames) {
    let mut claims: BTreeMap<String, BTreeSet<usize>> = BTreeMap::new();
    for index in suspects(entries) {
        for claim in claims_of(entries[index]) {
            claims.entry(claim).or_default().insert(index);
        }
    }
    // By pair, so that two canaries that share much are told once.
    let mut shared: BTreeMap<(usize, usize), Vec<String>> = BTreeMap::new();
    for (claim, indices) in claims {
        for one in &indices {
            let others = indices.iter().filter(|other| *other != one);
            for other in others.take(MOST_NAMED) {
                // Two documents of one canary were told already.
                if entries[*one].id != entries[*other].id {
                    shared
                        .entry((*one, *other))
                        .or_default()
                        .push(claim.clone());
                }
            }
        }
    }
    for ((one, other), claims) in shared {
        let message = format!(
            "the canary `{}` ({}) already has {}: two canaries cannot steer the same traffic",
            entries[other].id,
            written_at(entries[other]),
            claims.join(", ")
        );
        blame(entries, one, message, blames);
    }
}

/// Those that may share a claim with another; words are only made for them.
fn suspects(entries: &[&Entry]) -> BTreeSet<usize> {
    let all = entries.iter().enumerate();
    let mut claims: Vec<(u64, usize)> = all
        .flat_map(|(index, entry)| entry.claims.iter().map(move |claim| (*claim, index)))
        .collect();
    claims.sort_unstable();
    let shared = claims.chunk_by(|(one, _), (other, _)| one == other);
    let shared = shared.filter(|claims| claims.len() > 1).flatten();
    shared.map(|(_, index)| *index).collect()
}

/// What a canary has, in as few bytes as tell it from what others have.
pub(super) fn fingerprints(entry: &Entry) -> Vec<u64> {
    let claims = claims_of(entry).into_iter();
    let fingerprint = |claim: String| {
        let mut hasher = DefaultHasher::new();
        claim.hash(&mut hasher);
        hasher.finish()
    };
    claims.map(fingerprint).collect()
}

fn claims_of(entry: &Entry) -> BTreeSet<String> {
    let folder = || format!("the folder {}", entry.home.folder);
    let traffic = entry.canary.iter().flat_map(|canary| traffic(canary));
    traffic.chain(entry.is_whole.then(folder)).collect()
}

fn traffic(canary: &ValidatedCanary) -> BTreeSet<String> {
    let namespace = &canary.id.namespace;
    let route = &canary.route;
    let mesh = ["mesh".to_owned()];
    let gateways = if route.gateways.is_empty() {
        &mesh[..]
    } else {
        &route.gateways[..]
    };
    let hosts = route.hosts.iter().flat_map(|host| {
        gateways.iter().map(move |gateway| {
            let host = canonical_host(host, namespace);
            match canonical_gateway(gateway, namespace).as_str() {
                "mesh" => format!("the host `{host}` in the mesh"),
                gateway => format!("the host `{host}` on the gateway `{gateway}`"),
            }
        })
    });
    let deployments = match &canary.workload {
        Workload::Managed(managed) => vec![managed.deployment.clone()],
        Workload::BringYourOwn(versions) => versions
            .stable_deployments
            .iter()
            .chain(&versions.candidate_deployments)
            .cloned()
            .collect(),
    };
    let deployments = deployments
        .into_iter()
        .map(|name| format!("the Deployment `{namespace}/{name}`"));
    let service = format!("the Service `{namespace}/{}`", route.service);
    hosts.chain(deployments).chain([service]).collect()
}
