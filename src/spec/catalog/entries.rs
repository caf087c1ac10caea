//! The canaries of a repository as its files say them, each looked at again when a change may concern it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::super::draft::Draft;
use super::super::file::Facts;
use super::super::mistake::{Mistake, Place, listed};
use super::super::resolve::resolve;
use super::super::tree::{Change, DEFAULT_NAMESPACE, Tree, is_ours};
use super::super::{Diagnostic, Home, Severity, ValidatedCanary};
use super::clashes;
use crate::domain::{CanaryId, RepoPath, files};

/// A canary before it is compared with others.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) id: CanaryId,
    pub(super) home: Home,
    /// Where its name is written.
    pub(super) place: Place,
    /// Whether its folder has a name of the user's choice.
    pub(super) chooses_folder: bool,
    /// Whether its document could be read.
    pub(super) is_whole: bool,
    pub(super) canary: Option<Arc<ValidatedCanary>>,
    /// What no other may have, too; see [`clashes::fingerprints`].
    pub(super) claims: Vec<u64>,
    pub(super) diagnostics: Vec<Diagnostic>,
}

/// The canaries of one file.
#[derive(Debug, Default)]
pub(super) struct InFile {
    pub(super) entries: Vec<Entry>,
    /// What is to be said besides: about other files, and about canaries that cannot have a folder.
    pub(super) remarks: Vec<Diagnostic>,
}

/// All canaries, with the objects that they were validated against.
#[derive(Debug)]
pub(in crate::spec) struct Entries {
    /// Folders of ours that are not named as such.
    ours: BTreeSet<RepoPath>,
    pub(super) tree: Tree,
    pub(super) files: BTreeMap<RepoPath, InFile>,
}

impl Entries {
    /// Reads all.
    pub(in crate::spec) fn new(
        facts: &BTreeMap<RepoPath, Arc<Facts>>,
        ours: BTreeSet<RepoPath>,
    ) -> Self {
        let tree = Tree::new(facts, &ours);
        let users = facts.iter().filter(|(path, _)| !is_ours(path, &ours));
        let files = users
            .filter_map(|(path, facts)| Some((path.clone(), InFile::read(path, facts, &tree)?)));
        Self {
            files: files.collect(),
            ours,
            tree,
        }
    }

    /// Reads what changed, and all that the change may concern. `None` where nothing of before counts: the folders in which
    /// we write are others.
    pub(in crate::spec) fn update(
        mut self,
        facts: &BTreeMap<RepoPath, Arc<Facts>>,
        changed: &BTreeSet<RepoPath>,
        ours: &BTreeSet<RepoPath>,
    ) -> Option<Self> {
        if self.ours != *ours {
            return None;
        }
        let changes: Vec<Change<'_>> = changed
            .iter()
            .map(|path| (path, facts.get(path).map(Arc::as_ref)))
            .collect();
        let touched = self.tree.update(&changes, ours);
        let concerned = self.files.iter().filter(|(path, in_file)| {
            touched.has(path)
                || in_file.entries.iter().any(|entry| match &entry.canary {
                    Some(canary) => touched.concerns(canary),
                    // What it lacks may be there now, under whatever name.
                    None => true,
                })
        });
        let mut again: BTreeSet<RepoPath> = concerned.map(|(path, _)| path.clone()).collect();
        again.extend(changed.iter().cloned());
        for path in again {
            let users = facts.get(&path).filter(|_| !is_ours(&path, ours));
            match users.and_then(|facts| InFile::read(&path, facts, &self.tree)) {
                Some(in_file) => drop(self.files.insert(path, in_file)),
                None => drop(self.files.remove(&path)),
            }
        }
        Some(self)
    }

    /// Every canary, in the order of files.
    pub(super) fn iter(&self) -> impl Iterator<Item = &Entry> {
        self.files.values().flat_map(|in_file| &in_file.entries)
    }
}

impl InFile {
    /// Validates the canaries of a file; `None` when it has none.
    fn read(path: &RepoPath, facts: &Facts, tree: &Tree) -> Option<Self> {
        if facts.canaries.is_empty() {
            return None;
        }
        let mut in_file = Self::default();
        for draft in &facts.canaries {
            in_file.take(draft, path, facts, tree);
        }
        Some(in_file)
    }

    fn take(&mut self, draft: &Draft, path: &RepoPath, facts: &Facts, tree: &Tree) {
        let here = |mistake: &Mistake| mistake.in_file(path);
        let mut own: Vec<Diagnostic> = draft.mistakes.iter().map(here).collect();
        let namespace = match &draft.namespace {
            Some(namespace) => namespace.clone(),
            None => namespace(draft, path, tree, &mut own),
        };
        let id = CanaryId::new(printable(&namespace), printable(&draft.name));
        let folder_name = draft
            .folder
            .clone()
            .unwrap_or_else(|| files::folder_name(&id.name));
        let Some(folder) = path.sibling(&folder_name) else {
            // The name is not one for a file; the draft says so.
            self.remarks.extend(own);
            return;
        };
        let home = Home {
            file: path.clone(),
            folder,
        };
        let mut canary = None;
        if let Some(parts) = &draft.parts {
            let resolved = resolve(draft, parts, &id, &home, tree);
            canary = resolved.canary.map(Arc::new);
            let found = resolved.mistakes.into_sorted();
            own.extend(found.iter().map(here));
            self.remarks.extend(resolved.remarks);
        } else if own.iter().all(|d| d.severity != Severity::Error) {
            // Its document was cut off by a mistake in the YAML.
            own.extend(facts.mistakes.iter().map(here));
        }
        let mut entry = Entry {
            id,
            home,
            place: draft.place,
            chooses_folder: draft.folder.is_some(),
            is_whole: draft.parts.is_some(),
            canary,
            claims: Vec::new(),
            diagnostics: own,
        };
        entry.claims = clashes::fingerprints(&entry);
        self.entries.push(entry);
    }
}

/// The namespace that kustomizations give a canary which names none.
fn namespace(draft: &Draft, path: &RepoPath, tree: &Tree, own: &mut Vec<Diagnostic>) -> String {
    let given = tree.namespaces(path);
    if given.len() > 1 {
        own.push(Diagnostic {
            file: path.clone(),
            line: draft.place.line,
            column: draft.place.column,
            severity: Severity::Error,
            message: format!(
                "kustomizations give this canary several namespaces ({}): write `metadata.namespace`",
                listed(given.keys().map(String::as_str))
            ),
        });
    }
    let first = given.into_keys().next();
    first.unwrap_or_else(|| DEFAULT_NAMESPACE.to_owned())
}

/// A name as it may stand in logs and tables. One with control characters is refused, and still has to be told of.
fn printable(name: &str) -> String {
    name.replace(|c: char| c.is_control(), "\u{fffd}")
}
