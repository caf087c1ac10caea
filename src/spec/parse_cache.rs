//! What is remembered between two readings: facts of files by content, and those of the tree that was read last with its
//! canaries, so that only what differs from it is looked at, and only canaries that this concerns are validated.

use std::borrow::Cow;
use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::catalog::{Catalog, Entries, generated_folders, is_template};
use super::file::{self, Facts, Role};
use super::promotion::Files;
use super::tree::folder;
use crate::domain::{BlobId, RepoPath, files};

/// What makes a folder a chart of Helm's.
const CHART: &str = "Chart.yaml";

/// Facts of files by content, between two readings of a tree.
///
/// A file that did not change is never parsed again. What is not in the present tree is forgotten, unless several
/// readers share the memory: then it is kept up to a limit.
#[derive(Debug, Default)]
pub struct ParseCache {
    facts: Arc<Mutex<Known>>,
    keeping: Keeping,
    present: Present,
    /// The last catalog that was read with this memory. `None` as soon as anything that it rests on has changed.
    catalog: Option<Kept>,
    /// The canaries of the last catalog that was assembled here.
    entries: Option<Entries>,
    /// The files that have changed since for a catalog.
    changed: BTreeSet<RepoPath>,
}

/// A catalog, and the paths that it was read without.
#[derive(Debug)]
struct Kept {
    skipped: Vec<(String, String)>,
    catalog: Arc<Catalog>,
}

/// Which facts stay when no file has them any more.
#[derive(Debug, Clone, Copy, Default)]
enum Keeping {
    /// None.
    #[default]
    Present,
    /// All, up to about this many.
    UpTo(usize),
    /// Nothing is put in: it is somebody else's memory.
    Nothing,
}

type Key = (BlobId, Role);

/// Facts by content; `None` for a file that holds nothing of interest.
#[derive(Debug, Default)]
struct Known {
    facts: BTreeMap<Key, Option<Arc<Facts>>>,
    parsed: u64,
    /// Catalogs that readers of a shared memory assembled lately, the newest last.
    catalogs: VecDeque<(Told, Arc<Catalog>)>,
}

/// All that a catalog was told.
type Told = Vec<(RepoPath, Arc<Facts>)>;

/// Catalogs that several readers keep for one another.
const KEPT_CATALOGS: usize = 16;

/// The tree that was read last.
#[derive(Debug, Default)]
struct Present {
    files: Arc<Files>,
    /// Facts of all files of interest.
    facts: BTreeMap<RepoPath, Arc<Facts>>,
    /// Folders of Helm's charts.
    charts: BTreeSet<String>,
}

impl ParseCache {
    /// A memory for several readers, of at most about this many files.
    pub fn shared(keeps: usize) -> Self {
        Self {
            keeping: Keeping::UpTo(keeps),
            ..Self::default()
        }
    }

    /// Another handle to the same memory.
    pub fn handle(&self) -> Self {
        Self {
            facts: Arc::clone(&self.facts),
            keeping: self.keeping,
            ..Self::default()
        }
    }

    /// A handle for a tree besides the one that this memory is about: what is known is used, nothing is put in.
    pub fn beside(&self) -> Self {
        Self {
            keeping: Keeping::Nothing,
            ..self.handle()
        }
    }

    /// Number of remembered files.
    pub fn len(&self) -> usize {
        self.known().facts.len()
    }

    /// Whether nothing is remembered.
    pub fn is_empty(&self) -> bool {
        self.known().facts.is_empty()
    }

    /// Number of files that were looked into so far.
    pub fn parsed(&self) -> u64 {
        self.known().parsed
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.facts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The catalog of the tree that was read last, if nothing has changed that it rests on.
    pub(super) fn catalog(&self, skipped: &[(String, String)]) -> Option<&Arc<Catalog>> {
        let kept = self.catalog.as_ref()?;
        (kept.skipped == skipped).then_some(&kept.catalog)
    }

    /// Remembers it.
    pub(super) fn keep(&mut self, skipped: &[(String, String)], catalog: &Arc<Catalog>) {
        self.catalog = Some(Kept {
            skipped: skipped.to_vec(),
            catalog: Arc::clone(catalog),
        });
    }

    /// The catalog that another reader of this memory assembled from the very same facts.
    pub(super) fn shared_catalog(&mut self, skipped: &[(String, String)]) -> Option<Arc<Catalog>> {
        let told = self.all_told(skipped)?;
        let known = self.known();
        let mut latest = known.catalogs.iter().rev();
        let found = latest.find(|(known, _)| are_same(known, &told));
        let catalog = Arc::clone(&found?.1);
        drop(known);
        self.keep(skipped, &catalog);
        Some(catalog)
    }

    /// Remembers it for the others, too.
    pub(super) fn share(&mut self, skipped: &[(String, String)], catalog: &Arc<Catalog>) {
        self.keep(skipped, catalog);
        if let Some(told) = self.all_told(skipped) {
            let mut known = self.known();
            if known.catalogs.len() >= KEPT_CATALOGS {
                known.catalogs.pop_front();
            }
            known.catalogs.push_back((told, Arc::clone(catalog)));
        }
    }

    /// What a catalog of the present tree is told; `None` where facts are not all that it rests on, or nobody else reads.
    fn all_told(&self, skipped: &[(String, String)]) -> Option<Told> {
        let Present { facts, charts, .. } = &self.present;
        if !matches!(self.keeping, Keeping::UpTo(_)) || !skipped.is_empty() || !charts.is_empty() {
            return None;
        }
        if facts.values().any(|facts| facts.is_broken) {
            return None;
        }
        let told = |path| Some((RepoPath::clone(path), told(facts, path)?));
        Some(facts.keys().filter_map(told).collect())
    }

    /// Facts of all files of the tree that was read last.
    pub(super) fn all_facts(&self) -> &BTreeMap<RepoPath, Arc<Facts>> {
        &self.present.facts
    }

    /// The same without the sources that Helm has yet to render.
    pub(super) fn facts(&self) -> Cow<'_, BTreeMap<RepoPath, Arc<Facts>>> {
        let Present { facts, charts, .. } = &self.present;
        if charts.is_empty() {
            return Cow::Borrowed(facts);
        }
        let rendered = facts.iter().filter(|(path, _)| !is_template(path, charts));
        Cow::Owned(
            rendered
                .map(|(path, facts)| (path.clone(), Arc::clone(facts)))
                .collect(),
        )
    }

    /// All canaries of the tree that was read last, and the facts that they come from. What no change since the last time
    /// concerns is as it was.
    pub(super) fn entries(&mut self) -> (Entries, Cow<'_, BTreeMap<RepoPath, Arc<Facts>>>) {
        let (known, changed) = (self.entries.take(), std::mem::take(&mut self.changed));
        let facts = self.facts();
        let ours = generated_folders(&facts);
        let updated = known.and_then(|known| known.update(&facts, &changed, &ours));
        let entries = updated.unwrap_or_else(|| Entries::new(&facts, ours));
        (entries, facts)
    }

    /// Remembers them.
    pub(super) fn remember(&mut self, entries: Entries) {
        self.entries = Some(entries);
    }

    /// Reads a tree: what differs from the one before.
    pub(super) fn read(&mut self, tree: &Arc<Files>) {
        let Present {
            files: old,
            mut facts,
            mut charts,
        } = std::mem::take(&mut self.present);
        let changed = changed(&old, tree);
        for path in changed.iter().filter(|path| path.file_name() == CHART) {
            let chart = folder(path).to_owned();
            let is_new = match tree.contains_key(*path) {
                true => charts.insert(chart),
                false => charts.remove(&chart),
            };
            if is_new {
                self.catalog = None;
                self.entries = None;
            }
        }
        let before: Vec<_> = changed.iter().map(|path| told(&facts, path)).collect();
        for path in &changed {
            let file = tree.get(*path);
            match file.and_then(|(blob, content)| self.look(path, blob, content)) {
                Some(found) => facts.insert((*path).clone(), found),
                None => facts.remove(*path),
            };
        }
        for (path, before) in changed.iter().zip(before) {
            if !is_same(before.as_deref(), told(&facts, path).as_deref()) {
                self.catalog = None;
                if self.entries.is_some() {
                    self.changed.insert((*path).clone());
                }
            }
        }
        self.forget(&old, &changed);
        self.present = Present {
            files: Arc::clone(tree),
            facts,
            charts,
        };
    }

    /// Facts of a file; `None` when it holds nothing of interest.
    fn look(&self, path: &RepoPath, blob: &BlobId, content: &[u8]) -> Option<Arc<Facts>> {
        let key = (blob.clone(), Role::of(path.file_name()));
        let mut known = self.known();
        if let Some(facts) = known.facts.get(&key) {
            return facts.clone();
        }
        let facts = file::read(content, key.1).map(Arc::new);
        known.parsed += 1;
        if !matches!(self.keeping, Keeping::Nothing) {
            known.facts.insert(key, facts.clone());
        }
        facts
    }

    /// Forgets what these paths had and no path has any more; a shared memory forgets all once it has grown too large.
    fn forget(&self, old: &Files, changed: &[&RepoPath]) {
        let mut known = self.known();
        match self.keeping {
            Keeping::Present => {
                for path in changed {
                    let Some((blob, _)) = old.get(*path) else {
                        continue;
                    };
                    let key = (blob.clone(), Role::of(path.file_name()));
                    let is_used = known.facts.get(&key).is_some_and(|facts| {
                        let count = facts.as_ref().map(Arc::strong_count);
                        count.is_some_and(|count| count > 1)
                    });
                    if !is_used {
                        known.facts.remove(&key);
                    }
                }
            }
            Keeping::UpTo(most) if known.facts.len() > most => known.facts.clear(),
            Keeping::UpTo(_) | Keeping::Nothing => {}
        }
    }
}

/// The paths at which two trees differ.
fn changed<'t>(old: &'t Files, new: &'t Files) -> Vec<&'t RepoPath> {
    let mut found = Vec::new();
    if std::ptr::eq(old, new) {
        return found;
    }
    let (mut left, mut right) = (old.iter().peekable(), new.iter().peekable());
    loop {
        let order = match (left.peek(), right.peek()) {
            (None, None) => return found,
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
            (Some((a, _)), Some((b, _))) => a.cmp(b),
        };
        let a = if order.is_le() { left.next() } else { None };
        let b = if order.is_ge() { right.next() } else { None };
        match (a, b) {
            (Some((path, (one, bytes))), Some((_, (other, other_bytes)))) => {
                if !Arc::ptr_eq(bytes, other_bytes) && one != other {
                    found.push(path);
                }
            }
            (Some((path, _)), None) | (None, Some((path, _))) => found.push(path),
            (None, None) => {}
        }
    }
}

/// What a catalog is told of a file: everything but what Serin writes into its own folders with every step.
fn told(facts: &BTreeMap<RepoPath, Arc<Facts>>, path: &RepoPath) -> Option<Arc<Facts>> {
    let found = facts.get(path)?;
    let is_generated = path.file_name() != files::ROLLOUT
        && found.is_generated()
        && path
            .sibling(files::ROLLOUT)
            .and_then(|state| facts.get(&state))
            .is_some_and(|state| state.rollout.is_some());
    (!is_generated).then(|| Arc::clone(found))
}

/// Whether two catalogs were told the same.
fn are_same(one: &Told, other: &Told) -> bool {
    let mut pairs = one.iter().zip(other);
    one.len() == other.len()
        && pairs.all(|((path, facts), (other_path, others))| {
            path == other_path && (Arc::ptr_eq(facts, others) || facts == others)
        })
}

/// Whether a catalog has no reason to look again. In a file that cannot be read any byte counts: it may name a canary.
fn is_same(one: Option<&Facts>, other: Option<&Facts>) -> bool {
    let is_broken = |facts: Option<&Facts>| facts.is_some_and(|facts| facts.is_broken);
    !is_broken(one) && !is_broken(other) && one == other
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn path(text: &str) -> RepoPath {
        RepoPath::new(text).unwrap()
    }

    fn tree(files: &[(&str, &str)]) -> Arc<Files> {
        let files = files.iter().map(|(at, content)| {
            let blob = BlobId((*content).into());
            (path(at), (blob, Arc::from(content.as_bytes())))
        });
        Arc::new(files.collect())
    }

    const APP: &str = "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: x}\n";

    #[test]
    fn a_file_is_parsed_once_and_forgotten_when_it_is_gone() {
        let mut cache = ParseCache::default();
        cache.read(&tree(&[("a.yaml", APP), ("b.yaml", "kind: ConfigMap\n")]));
        assert_eq!(
            (cache.parsed(), cache.len(), cache.facts().len()),
            (2, 2, 1)
        );
        // The same content elsewhere, and once more at the same place.
        cache.read(&tree(&[("a.yaml", APP), ("c/d.yaml", APP)]));
        assert_eq!(
            (cache.parsed(), cache.len(), cache.facts().len()),
            (2, 1, 2)
        );
        let mut beside = cache.beside();
        beside.read(&tree(&[("a.yaml", APP), ("e.yaml", "kind: Service\n")]));
        assert_eq!((cache.parsed(), cache.len()), (3, 1), "nothing is put in");
        drop(beside);
        cache.read(&tree(&[]));
        assert_eq!((cache.len(), cache.facts().len()), (0, 0));
    }

    #[test]
    fn several_readers_keep_up_to_a_limit() {
        let one = ParseCache::shared(1);
        let (mut first, mut second) = (one.handle(), one.handle());
        first.read(&tree(&[("a.yaml", APP)]));
        first.read(&tree(&[]));
        second.read(&tree(&[("b.yaml", APP)]));
        assert_eq!((one.parsed(), one.len()), (1, 1));
        second.read(&tree(&[("b.yaml", APP), ("c.yaml", "kind: Service\n")]));
        assert!(one.is_empty());
    }

    /// What files of a repository may say, each of which matters to a catalog in its own way.
    const CONTENTS: [&str; 14] = [
        "kind: ConfigMap\n",
        "apiVersion: v1\nkind: Service\nmetadata: {name: web, namespace: test}\nspec: {selector: {app: web}}\n",
        "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: web, namespace: test}\nspec: {template: {metadata: {labels: {app: web, serin.dev/track: stable}}, spec: {containers: [{name: app, image: 'a:1'}]}}}\n",
        "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: web}\nspec: {template: {metadata: {labels: {app: web, serin.dev/track: stable}}, spec: {containers: [{name: app, image: 'a:1'}]}}}\n",
        "apiVersion: serin.dev/v1alpha1\nkind: Canary\nmetadata: {name: web, namespace: test}\nspec: {workload: {deployment: web}, candidate: {images: {app: 'a:2'}}, route: {service: web}, ladder: [{weight: 50}]}\n",
        "apiVersion: serin.dev/v1alpha1\nkind: Canary\nmetadata: {name: web, namespace: test}\nspec: {workload: {deployment: web}, candidate: {images: {app: 'a:2'}}, route: {service: web}, ladder: [{weight: 500}]}\n",
        "apiVersion: serin.dev/v1alpha1\nkind: Canary\nmetadata: {name: web, namespace: test}\nspec: [\n",
        "# serin.dev web\na: [\n",
        "# serin.dev other\na: [\n",
        "namespace: test\nresources: [app.yaml]\n",
        "images: [{name: a, newTag: '3'}]\nresources: [app.yaml, canary.yaml, web.serin]\n",
        "apiVersion: serin.dev/v1alpha1\nkind: Rollout\ncanary: test/web\n",
        "apiVersion: serin.dev/v1alpha1\nkind: Rollout\ncanary: test/web\nweight: 5\n",
        "apiVersion: serin.dev/v1alpha1\nkind: Rollout\ncanary: test/gone\n",
    ];
    const PATHS: [&str; 12] = [
        "app.yaml",
        "canary.yaml",
        "kustomization.yaml",
        "web.serin/rollout.yaml",
        "web.serin/deployment.yaml",
        "web.serin/kustomization.yaml",
        "other.serin/rollout.yaml",
        "chart/Chart.yaml",
        "chart/templates/app.yaml",
        "chart/templates/canary.yaml",
        "chart/app.yaml",
        "chart/web.serin/rollout.yaml",
    ];
    const SKIPPED: [&[(&str, &str)]; 3] = [
        &[],
        &[("lfs.yaml", "Git LFS pointer")],
        &[("chart/link.yaml", "symbolic link")],
    ];

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(150))]

        /// What is remembered saves work and changes nothing.
        #[test]
        fn a_catalog_that_remembers_is_the_one_that_does_not(
            edits in prop::collection::vec(
                (0..PATHS.len(), prop::option::weighted(0.8, 0..CONTENTS.len()), 0..SKIPPED.len()),
                1..30,
            ),
        ) {
            let mut cache = ParseCache::default();
            let shared = ParseCache::shared(100);
            let mut files = Files::new();
            for (at, content, without) in edits {
                let at = path(PATHS[at]);
                match content {
                    Some(content) => {
                        let blob = BlobId(content.to_string().into());
                        files.insert(at, (blob, Arc::from(CONTENTS[content].as_bytes())));
                    }
                    None => drop(files.remove(&at)),
                }
                let own = |(path, why): &(&str, &str)| ((*path).to_owned(), (*why).to_owned());
                let skipped: Vec<_> = SKIPPED[without].iter().map(own).collect();
                let tree = Arc::new(files.clone());
                let remembered = Catalog::read_remembering(&tree, &skipped, &mut cache);
                let fresh = Catalog::read_partial(&files, &skipped, &mut ParseCache::default());
                prop_assert_eq!(&*remembered, &fresh);
                // Another reader that begins here, of a memory that others filled.
                let told = Catalog::read_remembering(&tree, &skipped, &mut shared.handle());
                prop_assert_eq!(&*told, &fresh);
                let contents: BTreeSet<_> = files.values().map(|(blob, _)| blob).collect();
                prop_assert!(cache.len() <= 3 * contents.len(), "at most once for each role");
            }
        }
    }
}
