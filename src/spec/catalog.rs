//! All canaries of a repository, each by itself and then against one another.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::file::{Facts, mentions};
use super::mistake::suggestion;
use super::parse_cache::ParseCache;
use super::promotion::Files;
use super::tree::{Tree, folder, is_named};
use super::{Diagnostic, Severity, ValidatedCanary, Workload};
use crate::domain::{API_GROUP, CanaryId, RepoPath};
pub(super) use entries::Entries;
use entries::Entry;

mod clashes;
mod entries;

/// All canaries of a repository.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Catalog {
    /// Each canary, validated or with what is wrong with it.
    pub canaries: BTreeMap<CanaryId, Result<Arc<ValidatedCanary>, Rejected>>,
    /// Generated folders of canaries that are no longer written anywhere.
    pub orphans: Vec<Orphan>,
    /// Everything there is to say, about canaries and about files, in the order of files and lines.
    pub diagnostics: Vec<Diagnostic>,
}

/// A canary with mistakes. What was decided for it before stays in force.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rejected {
    /// The canary.
    pub id: CanaryId,
    /// Where it is written.
    pub file: RepoPath,
    /// The folder of its generated files.
    pub folder: RepoPath,
    /// What is wrong; at least one error.
    pub diagnostics: Vec<Diagnostic>,
}

/// A generated folder whose canary is gone.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Orphan {
    /// The canary that its `rollout.yaml` names.
    pub id: CanaryId,
    /// The folder.
    pub folder: RepoPath,
}

impl Catalog {
    /// Reads a tree: every YAML file with the identity of its content.
    pub fn read(tree: &Files, cache: &mut ParseCache) -> Self {
        Self::read_partial(tree, &[], cache)
    }

    /// Reads a tree of which some paths exist but could not be had, each with the reason. A canary is never taken for
    /// removed while it may be in one of them, or in a file that cannot be read.
    pub fn read_partial(
        tree: &Files,
        skipped: &[(String, String)],
        cache: &mut ParseCache,
    ) -> Self {
        let catalog = Self::read_remembering(&Arc::new(tree.clone()), skipped, cache);
        Arc::try_unwrap(catalog).unwrap_or_else(|shared| (*shared).clone())
    }

    /// The same, remembering the outcome: only what differs from the tree of the last call with this memory is parsed, only
    /// canaries that this may concern are validated, and as long as only files of ours changed, the catalog is the one of
    /// before, or of another reader of the same facts.
    pub fn read_remembering(
        tree: &Arc<Files>,
        skipped: &[(String, String)],
        cache: &mut ParseCache,
    ) -> Arc<Self> {
        cache.read(tree);
        if let Some(catalog) = cache.catalog(skipped) {
            return Arc::clone(catalog);
        }
        if let Some(catalog) = cache.shared_catalog(skipped) {
            return catalog;
        }
        let mut unreadable = Unreadable::new(skipped);
        for (path, found) in cache.all_facts() {
            if found.is_broken
                && let Some((_, content)) = tree.get(path)
                && mentions(content, API_GROUP)
            {
                unreadable.files.push((path.clone(), content));
            }
        }
        let (entries, facts) = cache.entries();
        let catalog = Arc::new(Self::assemble(&entries, &facts, &unreadable));
        drop(facts);
        cache.remember(entries);
        cache.share(skipped, &catalog);
        catalog
    }

    fn assemble(
        entries: &Entries,
        facts: &BTreeMap<RepoPath, Arc<Facts>>,
        unreadable: &Unreadable<'_>,
    ) -> Self {
        let mut diagnostics: Vec<Diagnostic> = facts
            .iter()
            .flat_map(|(path, facts)| facts.mistakes.iter().map(|mistake| mistake.in_file(path)))
            .collect();
        let files = entries.files.values();
        diagnostics.extend(files.flat_map(|in_file| in_file.remarks.iter().cloned()));
        let all: Vec<&Entry> = entries.iter().collect();
        let mut blames = clashes::find(&all, facts);
        let mut catalog = Self::default();
        for (index, entry) in all.iter().enumerate() {
            let mut found = entry.diagnostics.clone();
            found.extend(blames.remove(&index).unwrap_or_default());
            diagnostics.extend(found.iter().cloned());
            catalog.take(entry, found);
        }
        diagnostics.extend(catalog.idle_markers(&entries.tree));
        catalog.diagnostics = diagnostics;
        catalog.take_state_files(facts, unreadable);
        catalog.diagnostics.sort();
        catalog.diagnostics.dedup();
        catalog
    }

    fn take(&mut self, entry: &Entry, diagnostics: Vec<Diagnostic>) {
        let is_wrong = diagnostics.iter().any(|d| d.severity == Severity::Error);
        let result = match entry.canary.as_ref().filter(|_| !is_wrong) {
            Some(canary) => Ok(Arc::clone(canary)),
            None => Err(Rejected {
                id: entry.id.clone(),
                file: entry.home.file.clone(),
                folder: entry.home.folder.clone(),
                diagnostics,
            }),
        };
        match self.canaries.get_mut(&entry.id) {
            // The second of two with one name: both were told so, the first keeps the place.
            Some(Err(first)) => {
                if let Err(second) = result {
                    first.diagnostics.extend(second.diagnostics);
                }
            }
            Some(Ok(_)) => {}
            None => {
                self.canaries.insert(entry.id.clone(), result);
            }
        }
    }

    /// Marker comments that nobody reads.
    fn idle_markers(&self, tree: &Tree) -> Vec<Diagnostic> {
        let idle = tree.all_markers().filter_map(|(file, marker)| {
            let id = &marker.canary;
            let why = match self.canaries.get(id) {
                None => {
                    let known: Vec<String> =
                        self.canaries.keys().map(ToString::to_string).collect();
                    let meant = suggestion(&id.to_string(), known.iter().map(String::as_str));
                    format!("there is no canary `{id}`{meant}")
                }
                Some(Ok(canary)) if matches!(canary.workload, Workload::BringYourOwn(_)) => {
                    format!("the canary `{id}` has `versions`, and its promotion writes no image")
                }
                Some(_) => return None,
            };
            Some(Diagnostic {
                file: file.clone(),
                line: marker.place.line,
                column: marker.place.column,
                severity: Severity::Warning,
                message: format!("this marker has no effect: {why}"),
            })
        });
        idle.collect()
    }

    /// State files tell of canaries that are no longer written, and of folders that were copied.
    fn take_state_files(
        &mut self,
        facts: &BTreeMap<RepoPath, Arc<Facts>>,
        unreadable: &Unreadable<'_>,
    ) {
        let mut hidden = Vec::new();
        for (path, facts) in facts {
            let Some(id) = &facts.rollout else { continue };
            let Some(here) = path.parent() else { continue };
            let message = match self.canaries.get(id).map(folder_of) {
                Some(folder) if *folder == here => continue,
                Some(folder) => format!(
                    "this is the state of the canary `{id}`, whose folder is {folder}: it is ignored here"
                ),
                None => {
                    if let Some(owner) = self.owner(&here) {
                        format!(
                            "this is the state of a canary `{id}` that is no longer there, in the folder of `{owner}`: \
                             it is ignored"
                        )
                    } else if let Some((file, diagnostics)) =
                        unreadable.may_hold(id, &here, &self.diagnostics)
                    {
                        let rejected = Rejected {
                            id: id.clone(),
                            file,
                            folder: here,
                            diagnostics,
                        };
                        hidden.push(rejected);
                        continue;
                    } else {
                        let id = id.clone();
                        self.orphans.push(Orphan { id, folder: here });
                        continue;
                    }
                }
            };
            self.diagnostics.push(Diagnostic {
                file: path.clone(),
                line: 1,
                column: 1,
                severity: Severity::Warning,
                message,
            });
        }
        for rejected in hidden {
            self.canaries.insert(rejected.id.clone(), Err(rejected));
        }
    }

    /// The canary that has this folder.
    fn owner(&self, folder: &RepoPath) -> Option<&CanaryId> {
        let mut canaries = self.canaries.iter();
        let found = canaries.find(|(_, result)| folder_of(result) == folder);
        found.map(|(id, _)| id)
    }
}

fn folder_of(result: &Result<Arc<ValidatedCanary>, Rejected>) -> &RepoPath {
    match result {
        Ok(canary) => &canary.home.folder,
        Err(rejected) => &rejected.folder,
    }
}

/// Where a canary may be written although nobody can read it.
struct Unreadable<'a> {
    files: Vec<(RepoPath, &'a [u8])>,
    skipped: &'a [(String, String)],
}

impl<'a> Unreadable<'a> {
    fn new(skipped: &'a [(String, String)]) -> Self {
        Self {
            files: Vec::new(),
            skipped,
        }
    }

    /// The file that may hold the canary with this folder, and what is wrong with it.
    fn may_hold(
        &self,
        id: &CanaryId,
        folder: &RepoPath,
        diagnostics: &[Diagnostic],
    ) -> Option<(RepoPath, Vec<Diagnostic>)> {
        if let Some((file, _)) = self.files.iter().find(|(_, text)| mentions(text, &id.name)) {
            let own = diagnostics.iter().filter(|d| d.file == *file).cloned();
            return Some((file.clone(), own.collect()));
        }
        let (path, why) = self.skipped.iter().find(|(path, _)| {
            let beside = path.rsplit_once('/').map_or("", |(folder, _)| folder);
            let is_yaml = path.ends_with(".yaml") || path.ends_with(".yml");
            is_yaml && beside == super::tree::folder(folder)
        })?;
        let file = RepoPath::new(path.as_str()).unwrap_or_else(|| folder.clone());
        let diagnostic = Diagnostic {
            file: file.clone(),
            line: 1,
            column: 1,
            severity: Severity::Error,
            message: format!("the canary `{id}` may be in this file, which was not read: {why}"),
        };
        Some((file, vec![diagnostic]))
    }
}

/// Whether Helm renders this file: it is below `templates` next to a `Chart.yaml`.
pub(super) fn is_template(path: &RepoPath, charts: &BTreeSet<String>) -> bool {
    if !path.as_str().contains("templates/") {
        return false;
    }
    let parts: Vec<&str> = path.as_str().split('/').collect();
    parts.iter().enumerate().any(|(at, part)| {
        *part == "templates" && at + 1 < parts.len() && charts.contains(&parts[..at].join("/"))
    })
}

/// The folders that Serin writes in although they are not named as such.
pub(super) fn generated_folders(facts: &BTreeMap<RepoPath, Arc<Facts>>) -> BTreeSet<RepoPath> {
    let with_state = facts
        .iter()
        .filter(|(path, facts)| facts.rollout.is_some() && !is_named(folder(path)))
        .filter_map(|(path, _)| path.parent());
    let chosen = facts.iter().flat_map(|(path, facts)| {
        let drafts = facts.canaries.iter();
        drafts.filter_map(|draft| path.sibling(draft.folder.as_ref()?))
    });
    let chosen = chosen.filter(|folder| !is_named(folder.as_str()));
    with_state.chain(chosen).collect()
}
