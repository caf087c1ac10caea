//! All canaries of a repository, each by itself and then against one another.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::draft::Draft;
use super::file::{Facts, mentions};
use super::mistake::{Mistake, suggestion};
use super::names::{canonical_gateway, canonical_host};
use super::parse_cache::ParseCache;
use super::promotion::Files;
use super::resolve::resolve;
use super::tree::{DEFAULT_NAMESPACE, Tree, is_ours};
use super::{Diagnostic, Home, Severity, ValidatedCanary, Workload};
use crate::domain::{API_GROUP, CanaryId, RepoPath, files};

/// Most other canaries that a message about one names.
const MOST_NAMED: usize = 3;

/// All canaries of a repository.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Catalog {
    /// Each canary, validated or with what is wrong with it.
    pub canaries: BTreeMap<CanaryId, Result<ValidatedCanary, Rejected>>,
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

/// A canary on its way through the checks.
struct Entry<'a> {
    id: CanaryId,
    home: Home,
    draft: &'a Draft,
    canary: Option<ValidatedCanary>,
    diagnostics: Vec<Diagnostic>,
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

    /// The same, remembering the outcome: only what differs from the tree of the last call with this memory is parsed, and
    /// as long as only files of ours changed, the catalog is the one of before, or of another reader of the same facts.
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
        let catalog = Arc::new(Self::assemble(&cache.facts(), &unreadable));
        cache.share(skipped, &catalog);
        catalog
    }

    fn assemble(facts: &BTreeMap<RepoPath, Arc<Facts>>, unreadable: &Unreadable<'_>) -> Self {
        let mut diagnostics: Vec<Diagnostic> = facts
            .iter()
            .flat_map(|(path, facts)| facts.mistakes.iter().map(|mistake| mistake.in_file(path)))
            .collect();
        let ours = generated_folders(facts);
        let tree = Tree::new(facts, &ours);
        let mut entries = Vec::new();
        for (path, facts) in facts.iter().filter(|(path, _)| !is_ours(path, &ours)) {
            for draft in &facts.canaries {
                entries.extend(entry(draft, path, facts, &tree, &mut diagnostics));
            }
        }
        check_folders(&mut entries, facts);
        check_duplicates(&mut entries);
        check_claims(&mut entries);
        let mut catalog = Self::default();
        for entry in entries {
            diagnostics.extend(entry.diagnostics.iter().cloned());
            catalog.take(entry);
        }
        diagnostics.extend(catalog.idle_markers(&tree));
        catalog.diagnostics = diagnostics;
        catalog.take_state_files(facts, unreadable);
        catalog.diagnostics.sort();
        catalog.diagnostics.dedup();
        catalog
    }

    fn take(&mut self, entry: Entry<'_>) {
        let Entry {
            id,
            home,
            canary,
            diagnostics,
            ..
        } = entry;
        let is_wrong = diagnostics.iter().any(|d| d.severity == Severity::Error);
        let result = match canary.filter(|_| !is_wrong) {
            Some(canary) => Ok(canary),
            None => Err(Rejected {
                id: id.clone(),
                file: home.file,
                folder: home.folder,
                diagnostics,
            }),
        };
        match self.canaries.get_mut(&id) {
            // The second of two with one name: both were told so, the first keeps the place.
            Some(Err(first)) => {
                if let Err(second) = result {
                    first.diagnostics.extend(second.diagnostics);
                }
            }
            Some(Ok(_)) => {}
            None => {
                self.canaries.insert(id, result);
            }
        }
    }

    /// Marker comments that nobody reads.
    fn idle_markers(&self, tree: &Tree<'_>) -> Vec<Diagnostic> {
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
        let homes: BTreeMap<CanaryId, RepoPath> = self
            .canaries
            .iter()
            .map(|(id, result)| (id.clone(), folder_of(result).clone()))
            .collect();
        for (path, id) in facts
            .iter()
            .filter_map(|(path, facts)| Some((path, facts.rollout.clone()?)))
        {
            let Some(here) = path.parent() else { continue };
            let message = match homes.get(&id) {
                Some(folder) if *folder == here => continue,
                Some(folder) => format!(
                    "this is the state of the canary `{id}`, whose folder is {folder}: it is ignored here"
                ),
                None => {
                    if let Some((owner, _)) = homes.iter().find(|(_, folder)| **folder == here) {
                        format!(
                            "this is the state of a canary `{id}` that is no longer there, in the folder of `{owner}`: \
                             it is ignored"
                        )
                    } else if let Some((file, diagnostics)) =
                        unreadable.may_hold(&id, &here, &self.diagnostics)
                    {
                        let rejected = Rejected {
                            id: id.clone(),
                            file,
                            folder: here,
                            diagnostics,
                        };
                        self.canaries.insert(id, Err(rejected));
                        continue;
                    } else {
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
    }
}

fn folder_of(result: &Result<ValidatedCanary, Rejected>) -> &RepoPath {
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

/// The folders that Serin writes in, whatever they are called.
pub(super) fn generated_folders(facts: &BTreeMap<RepoPath, Arc<Facts>>) -> BTreeSet<RepoPath> {
    let with_state = facts
        .iter()
        .filter(|(_, facts)| facts.rollout.is_some())
        .filter_map(|(path, _)| path.parent());
    let chosen = facts.iter().flat_map(|(path, facts)| {
        let drafts = facts.canaries.iter();
        drafts.filter_map(|draft| path.sibling(draft.folder.as_ref()?))
    });
    with_state.chain(chosen).collect()
}

fn entry<'a>(
    draft: &'a Draft,
    path: &RepoPath,
    facts: &Facts,
    tree: &Tree<'_>,
    diagnostics: &mut Vec<Diagnostic>,
) -> Option<Entry<'a>> {
    let here = |mistake: &Mistake| mistake.in_file(path);
    let mut own: Vec<Diagnostic> = draft.mistakes.iter().map(here).collect();
    let given = tree.namespaces(path);
    let namespace = match (&draft.namespace, given.len()) {
        (Some(namespace), _) => namespace.clone(),
        (None, 0) => DEFAULT_NAMESPACE.to_owned(),
        (None, 1) => given.into_iter().collect(),
        (None, _) => {
            own.push(Diagnostic {
                file: path.clone(),
                line: draft.place.line,
                column: draft.place.column,
                severity: Severity::Error,
                message: format!(
                    "kustomizations give this canary several namespaces ({}): write `metadata.namespace`",
                    super::mistake::listed(given.iter().copied())
                ),
            });
            given
                .into_iter()
                .next()
                .unwrap_or(DEFAULT_NAMESPACE)
                .to_owned()
        }
    };
    let id = CanaryId::new(printable(&namespace), printable(&draft.name));
    let folder_name = draft
        .folder
        .clone()
        .unwrap_or_else(|| files::folder_name(&id.name));
    let Some(folder) = path.sibling(&folder_name) else {
        // The name is not one for a file; the draft says so.
        diagnostics.extend(own);
        return None;
    };
    let home = Home {
        file: path.clone(),
        folder,
    };
    let mut canary = None;
    if let Some(parts) = &draft.parts {
        let resolved = resolve(draft, parts, &id, &home, tree);
        canary = resolved.canary;
        let found = resolved.mistakes.into_sorted();
        own.extend(found.iter().map(here));
        diagnostics.extend(resolved.remarks);
    } else if own.iter().all(|d| d.severity != Severity::Error) {
        // Its document was cut off by a mistake in the YAML.
        own.extend(facts.mistakes.iter().map(here));
    }
    Some(Entry {
        id,
        home,
        draft,
        canary,
        diagnostics: own,
    })
}

/// A name as it may stand in logs and tables. One with control characters is refused, and still has to be told of.
fn printable(name: &str) -> String {
    name.replace(|c: char| c.is_control(), "\u{fffd}")
}

impl Entry<'_> {
    fn blame(&mut self, message: String) {
        self.diagnostics.push(Diagnostic {
            file: self.home.file.clone(),
            line: self.draft.place.line,
            column: self.draft.place.column,
            severity: Severity::Error,
            message,
        });
    }

    fn written_at(&self) -> String {
        format!("{}:{}", self.home.file, self.draft.place.line)
    }
}

/// A folder of another name must not hold files of the user's that ours would replace.
fn check_folders(entries: &mut [Entry<'_>], facts: &BTreeMap<RepoPath, Arc<Facts>>) {
    for entry in entries
        .iter_mut()
        .filter(|entry| entry.draft.folder.is_some())
    {
        let folder = &entry.home.folder;
        let path = |name: &str| folder.join(name);
        let has_state = path(files::ROLLOUT).is_some_and(|path| facts.contains_key(&path));
        let in_the_way = files::ALL
            .iter()
            .filter_map(|name| path(name))
            .find(|path| facts.contains_key(path));
        if let Some(file) = in_the_way.filter(|_| !has_state) {
            entry.blame(format!(
                "`spec.folder` is {folder}, but {file} is there already and not Serin's: choose a folder that is empty"
            ));
        }
    }
}

fn check_duplicates(entries: &mut [Entry<'_>]) {
    let mut by_id: BTreeMap<CanaryId, Vec<usize>> = BTreeMap::new();
    for (index, entry) in entries.iter().enumerate() {
        by_id.entry(entry.id.clone()).or_default().push(index);
    }
    for (id, indices) in by_id.iter().filter(|(_, indices)| indices.len() > 1) {
        for index in indices {
            let others = indices.iter().filter(|other| *other != index);
            let others: Vec<_> = others
                .take(MOST_NAMED)
                .map(|other| entries[*other].written_at())
                .collect();
            entries[*index].blame(format!(
                "the canary `{id}` is written twice: also in {}",
                others.join(", ")
            ));
        }
    }
}

/// What two canaries may not both have: a host on a gateway, a Service, a Deployment, a folder.
fn check_claims(entries: &mut [Entry<'_>]) {
    let mut claims: BTreeMap<String, BTreeSet<usize>> = BTreeMap::new();
    for (index, entry) in entries.iter().enumerate() {
        let folder = entry
            .draft
            .parts
            .as_ref()
            .map(|_| format!("the folder {}", entry.home.folder));
        for claim in entry.canary.iter().flat_map(claims_of).chain(folder) {
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
        let (id, place) = (entries[other].id.clone(), entries[other].written_at());
        entries[one].blame(format!(
            "the canary `{id}` ({place}) already has {}: two canaries cannot steer the same traffic",
            claims.join(", ")
        ));
    }
}

fn claims_of(canary: &ValidatedCanary) -> BTreeSet<String> {
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
