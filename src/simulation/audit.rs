//! Checks a finished history from its bytes and from the truth of the mesh, as an auditor with a clone and a recording
//! of the traffic would. Knows nothing of how the engine decides.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::mesh::World;
use super::remote::{Commit, Tree};
use crate::domain::{BlobId, CanaryId, RepoPath, Timestamp, files};
use crate::manifests;
use crate::record::state_file;
use crate::spec::{Catalog, ParseCache};
use crate::yaml::memory::{self, Reading};
use crate::yaml::node::Node;

/// A version that answers at least this share of requests well is healthy, in the schedules that are audited.
const HEALTHY: f64 = 0.999;
/// A version below it must never get past a rung on which it was judged.
const BAD: f64 = 0.95;

/// What is known besides the history.
#[derive(Debug)]
pub struct Truth<'a> {
    /// The mesh.
    pub world: &'a World,
    /// Every clock was right within what the engine promises to bear, two minutes.
    pub clocks_were_fair: bool,
    /// Whether each commit's files are compared with what spec and state render to.
    pub renders: bool,
}

/// What is wrong with the commits that Serin made; empty when all is well. `parsed` saves work, and may be empty.
pub fn audit(commits: &[Commit], truth: &Truth<'_>, parsed: ParseCache) -> Vec<String> {
    let mut auditor = Auditor {
        truth,
        values: BTreeMap::new(),
        trails: BTreeMap::new(),
        parsed,
        found: Vec::new(),
    };
    for (index, commit) in commits.iter().enumerate() {
        let parent = index.checked_sub(1).and_then(|index| commits.get(index));
        if let Some(id) = &commit.canary {
            auditor.ours(commit, parent, id);
        }
    }
    auditor.found
}

struct Auditor<'a> {
    truth: &'a Truth<'a>,
    values: BTreeMap<BlobId, Arc<Reading>>,
    trails: BTreeMap<String, Trail>,
    parsed: ParseCache,
    found: Vec<String>,
}

/// What the last commit on a canary left.
struct Trail {
    folder: RepoPath,
    sequence: u64,
    weight: u64,
    /// When the commit arrived that decided the present step.
    arrived: Timestamp,
    subject: String,
    /// The files that it left.
    tree: Tree,
    /// When the present step was decided, as the state says.
    since: Option<String>,
}

impl Auditor<'_> {
    fn ours(&mut self, commit: &Commit, parent: Option<&Commit>, id: &str) {
        let what = commit
            .subject()
            .split_once("): ")
            .map_or("", |(_, what)| what);
        self.foreign_files(commit, parent, what);
        let touched = commit
            .touched
            .iter()
            .find(|p| p.file_name() == files::ROLLOUT);
        let known = self
            .trails
            .get(id)
            .and_then(|t| t.folder.join(files::ROLLOUT));
        let Some(path) = touched.cloned().or(known) else {
            self.blame(commit, "no state file");
            return;
        };
        let Some(after) = self.reading(commit, &path) else {
            self.trails.remove(id);
            return;
        };
        let before = parent.and_then(|parent| self.reading(parent, &path));
        let (before, after) = (before.as_deref().and_then(root), root(&after));
        let Some(after) = after else {
            return self.blame(commit, "an empty state file");
        };
        if let Some(trail) = self.trails.get(id)
            && touched.is_some()
            && number(after, "sequence") <= trail.sequence
        {
            let (old, subject) = (trail.sequence, trail.subject.clone());
            let new = number(after, "sequence");
            self.blame(commit, &format!("sequence {new} after {old} of {subject}"));
        }
        self.weights(commit, &path, after);
        if is_advance(what) {
            self.advance(commit, parent, id, (before, after));
        } else if let Some(trail) = self.trails.get(id)
            && number(after, "weight") > trail.weight
            && !what.starts_with("adopt ")
        {
            self.blame(commit, "raised the weight without being a step");
        }
        if what.starts_with("roll back ") {
            self.rollback(commit, &path);
        }
        if what.starts_with("promote ") && number(after, "weight") > 0 {
            self.promotion(commit, &path);
        }
        if self.truth.renders {
            self.rendered(commit, id, &path);
        }
        let Some(folder) = path.parent() else { return };
        let since = text(after, &["since"]).map(str::to_owned);
        let same_step = self.trails.get(id).filter(|trail| trail.since == since);
        let trail = Trail {
            folder,
            sequence: number(after, "sequence"),
            weight: number(after, "weight"),
            arrived: same_step.map_or(commit.arrived, |trail| trail.arrived),
            subject: commit.subject().to_owned(),
            tree: Arc::clone(&commit.tree),
            since,
        };
        self.trails.insert(id.to_owned(), trail);
    }

    /// Outside of its folder Serin writes the images or labels of a promotion, and not one line more.
    fn foreign_files(&mut self, commit: &Commit, parent: Option<&Commit>, what: &str) {
        for path in &commit.touched {
            if path
                .parent()
                .is_some_and(|p| p.as_str().ends_with(".serin"))
            {
                continue;
            }
            let text = |commit: &Commit| {
                let file = commit.tree.get(path)?;
                Some(super::text_of(&file.content).into_owned())
            };
            let before = parent.and_then(text).unwrap_or_default();
            let after = text(commit).unwrap_or_default();
            let (before, after): (Vec<&str>, Vec<&str>) =
                (before.lines().collect(), after.lines().collect());
            let changed = before
                .iter()
                .zip(&after)
                .filter(|(one, other)| one != other);
            let fits = before.len() == after.len() && changed.count() <= 2;
            if !what.starts_with("promote ") || !fits {
                self.blame(commit, &format!("rewrote {path}, which belongs to people"));
            }
        }
    }

    /// One rung, from the state that its parent has, on a verdict that its parent's traffic supports.
    fn advance(
        &mut self,
        commit: &Commit,
        parent: Option<&Commit>,
        id: &str,
        (before, after): (Option<&Node>, &Node),
    ) {
        let Some(before) = before else {
            return self.blame(commit, "a step from nothing");
        };
        let (old, new) = (number(before, "step"), number(after, "step"));
        if new != old + 1 {
            self.blame(commit, &format!("step {new} after {old}"));
        }
        let candidate = ["candidate", "revision"];
        if text(before, &candidate) != text(after, &candidate) {
            self.blame(commit, "a step of another candidate");
        }
        if before
            .get("held")
            .is_some_and(|held| !held.entries().is_empty())
        {
            self.blame(commit, "a step while held");
        }
        if number(before, "weight") == 0 {
            return;
        }
        if text(before, &["since"]) == text(after, &["since"]) {
            self.blame(commit, "a step that keeps the time of the one before");
        }
        // A step needs no sign of harm, a promotion a pass; nothing else lets a weight rise.
        let verdicts = ["Serin-Verdict: pass", "Serin-Verdict: inconclusive"];
        if !commit.message.lines().any(|line| verdicts.contains(&line)) {
            self.blame(
                commit,
                "a step from a rung with traffic without a verdict that allows it",
            );
        }
        let (Some(trail), Some(parent), Ok(canary)) = (self.trails.get(id), parent, id.parse())
        else {
            return;
        };
        let (since, folder) = (trail.arrived, trail.folder.clone());
        let edited = files::ALL
            .iter()
            .filter_map(|name| folder.join(name))
            .any(|path| {
                let blob = |tree: &Tree| tree.get(&path).map(|file| file.blob.clone());
                blob(&trail.tree) != blob(&parent.tree)
            });
        if edited {
            self.blame(commit, "a step over somebody's edit");
        }
        if !self.truth.clocks_were_fair {
            return;
        }
        if !self
            .truth
            .world
            .answered_between(&canary, since, commit.arrived)
        {
            self.blame(commit, "a step without an answer of Prometheus");
        }
        if let Some(success) = self.success(parent, &folder).filter(|s| *s < BAD) {
            let words = format!("a step of a version with {success} success");
            self.blame(commit, &words);
        }
    }

    /// Whoever serves requests becomes stable on a pass, and does well.
    fn promotion(&mut self, commit: &Commit, path: &RepoPath) {
        if !commit
            .message
            .lines()
            .any(|line| line == "Serin-Verdict: pass")
        {
            self.blame(commit, "a promotion without a passing verdict");
        }
        let Some(folder) = path.parent() else { return };
        let is_bad = self.success(commit, &folder).is_some_and(|s| s < BAD);
        if self.truth.clocks_were_fair && is_bad {
            self.blame(commit, "a promotion of a bad version");
        }
    }

    /// Nobody healthy is rolled back for its figures.
    fn rollback(&mut self, commit: &Commit, path: &RepoPath) {
        let failed = commit
            .message
            .lines()
            .any(|line| line == "Serin-Verdict: fail");
        let Some(folder) = path.parent() else { return };
        let is_healthy = self.success(commit, &folder).is_some_and(|s| s >= HEALTHY);
        if failed && self.truth.clocks_were_fair && is_healthy {
            self.blame(commit, "a healthy version failed");
        }
    }

    /// How the candidate of this commit really does, where its manifest is in the folder.
    fn success(&self, commit: &Commit, folder: &RepoPath) -> Option<f64> {
        let file = commit.tree.get(&folder.join(files::DEPLOYMENT)?)?;
        let text = super::text_of(&file.content);
        Some(self.truth.world.success(&text))
    }

    /// The VirtualService of a commit must say the weight that its state says, and weights must sum to 100.
    fn weights(&mut self, commit: &Commit, rollout: &RepoPath, state: &Node) {
        let service = rollout.sibling(files::VIRTUAL_SERVICE);
        let Some(object) = service.and_then(|path| self.reading(commit, &path)) else {
            return self.blame(commit, "no VirtualService");
        };
        let object = object.first();
        let routes = object["spec"]["http"].as_array();
        let Some(last) = routes.and_then(|routes| routes.last()) else {
            return self.blame(commit, "no route");
        };
        let destinations = last["route"].as_array().map_or(&[][..], Vec::as_slice);
        let weight = |subset: &str| -> u64 {
            let of = destinations
                .iter()
                .filter(|route| route["destination"]["subset"] == subset);
            of.filter_map(|route| route["weight"].as_u64()).sum()
        };
        if destinations.len() > 1 && weight("stable") + weight("canary") != 100 {
            self.blame(commit, "weights do not sum to 100");
        }
        let wanted = number(state, "weight");
        if weight("canary") != wanted {
            let words = format!("the state says {wanted}, the route {}", weight("canary"));
            self.blame(commit, &words);
        }
    }

    /// What was committed is what spec and state of that commit render to.
    fn rendered(&mut self, commit: &Commit, id: &str, path: &RepoPath) {
        let is_yaml = |path: &RepoPath| path.as_str().ends_with(".yaml");
        let tree: BTreeMap<_, _> = commit
            .tree
            .iter()
            .filter(|(path, _)| is_yaml(path))
            .map(|(path, file)| (path.clone(), (file.blob.clone(), Arc::clone(&file.content))))
            .collect();
        let catalog = Catalog::read_remembering(&Arc::new(tree), &[], &mut self.parsed);
        let Ok(id) = id.parse::<CanaryId>() else {
            return;
        };
        let Some(Ok(canary)) = catalog.canaries.get(&id) else {
            return;
        };
        let state = commit
            .tree
            .get(path)
            .and_then(|file| state_file::read(path, &file.content, &id).ok());
        let Some(state) = state else {
            return self.blame(commit, "a state that cannot be read back");
        };
        let wanted = manifests::render(canary, &state.state).files;
        let differs = wanted.iter().find(|(path, content)| {
            commit.tree.get(*path).map(|file| &*file.content) != content.as_deref()
        });
        if let Some((path, _)) = differs {
            self.blame(commit, &format!("{path} is not what its state renders to"));
        }
    }

    fn reading(&mut self, commit: &Commit, path: &RepoPath) -> Option<Arc<Reading>> {
        let file = commit.tree.get(path)?;
        if let Some(known) = self.values.get(&file.blob) {
            return Some(Arc::clone(known));
        }
        let reading = memory::read(&file.content);
        self.values.insert(file.blob.clone(), Arc::clone(&reading));
        Some(reading)
    }

    fn blame(&mut self, commit: &Commit, words: &str) {
        self.found.push(format!("{}: {words}", commit.subject()));
    }
}

/// The mapping of a state file.
fn root(reading: &Reading) -> Option<&Node> {
    reading
        .parsed
        .documents
        .first()
        .map(|document| &document.root)
}

/// The text at the end of a path of keys.
fn text<'n>(state: &'n Node, path: &[&str]) -> Option<&'n str> {
    state.at(path)?.as_str()
}

/// A whole number; 0 where there is none.
fn number(state: &Node, key: &str) -> u64 {
    let found = state.get(key).and_then(|node| node.to_json().as_u64());
    found.unwrap_or_default()
}

/// `10% -> 60%`: the only subject that starts with a digit.
fn is_advance(what: &str) -> bool {
    what.starts_with(|c: char| c.is_ascii_digit())
}
