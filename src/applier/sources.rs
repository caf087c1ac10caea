//! Which files are applied as they are, and which only through a kustomization.
//!
//! A folder with a `kustomization.yaml` decides for itself and for the folders below it: only what it lists is applied.
//! One that only lists files and folders needs no program, so the folders that Serin writes cost nothing.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::read::is_kustomization;
use crate::domain::{RepoPath, member_path};

/// Deepest chain of kustomizations.
const DEEPEST: usize = 16;

/// Instructions for kustomize.
#[derive(Debug, Default, PartialEq)]
pub struct Kustomization {
    /// Files and folders that it takes in.
    resources: Vec<String>,
    /// Every text in it, among them all other files that it reads.
    mentions: BTreeSet<String>,
    /// Whether it only lists resources.
    is_list: bool,
    /// Whether it is a part that only others can use.
    is_component: bool,
}

impl Kustomization {
    /// From its document.
    pub fn of(document: Value) -> Self {
        let mut found = Self {
            is_component: document["kind"] == "Component",
            ..Self::default()
        };
        let Value::Object(fields) = document else {
            return found;
        };
        found.is_list = fields.keys().all(|key| {
            matches!(
                key.as_str(),
                "apiVersion" | "kind" | "metadata" | "resources"
            )
        });
        for key in ["resources", "bases", "components"] {
            let items = fields.get(key).and_then(Value::as_array);
            let items = items.into_iter().flatten().filter_map(Value::as_str);
            found.resources.extend(items.map(str::to_owned));
        }
        mentions(&Value::Object(fields), &mut found.mentions);
        found
    }
}

fn mentions(value: &Value, found: &mut BTreeSet<String>) {
    match value {
        Value::String(text) => {
            // Generators write `key=file`.
            found.extend(text.split('=').map(str::to_owned));
        }
        Value::Array(items) => items.iter().for_each(|item| mentions(item, found)),
        Value::Object(fields) => fields.values().for_each(|value| mentions(value, found)),
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

/// What is to be applied of a tree.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Sources {
    /// Files that are applied as they are.
    pub plain: BTreeSet<RepoPath>,
    /// Folders that the program has to build (empty for the top), each with the files that it reads.
    pub builds: BTreeMap<String, BTreeSet<RepoPath>>,
}

/// Sorts the files of a tree. `kustomizations` are those among them, parsed.
pub fn sort<'a>(
    files: impl Iterator<Item = &'a RepoPath> + Clone,
    kustomizations: &BTreeMap<String, &Kustomization>,
) -> Sources {
    let all: BTreeSet<&RepoPath> = files.clone().collect();
    let charts: BTreeSet<&str> = files
        .clone()
        .filter(|path| path.file_name() == "Chart.yaml")
        .map(folder)
        .collect();
    let tree = Tree {
        files: &all,
        kustomizations,
    };
    let mut sources = Sources::default();
    for path in files {
        let decided = above(folder(path)).any(|dir| kustomizations.contains_key(dir));
        let in_chart = above(folder(path)).any(|dir| charts.contains(dir));
        if !decided && !in_chart {
            sources.plain.insert(path.clone());
        }
    }
    let taken: BTreeSet<String> = kustomizations
        .iter()
        .flat_map(|(dir, k)| k.resources.iter().filter_map(|r| member_path(dir, r)))
        .collect();
    for (dir, kustomization) in kustomizations {
        if kustomization.is_component || taken.contains(dir) {
            continue;
        }
        match tree.listed(dir, 0) {
            Some(listed) => sources.plain.extend(listed),
            None => {
                let mut inputs = BTreeSet::new();
                tree.inputs(dir, &mut BTreeSet::new(), &mut inputs);
                sources.builds.insert(dir.clone(), inputs);
            }
        }
    }
    sources
}

struct Tree<'a> {
    files: &'a BTreeSet<&'a RepoPath>,
    kustomizations: &'a BTreeMap<String, &'a Kustomization>,
}

impl Tree<'_> {
    fn file(&self, path: &str) -> Option<RepoPath> {
        RepoPath::new(path).filter(|path| self.files.contains(path))
    }

    /// The files of a kustomization that only lists, as do those that it lists; `None` when a program is needed.
    fn listed(&self, dir: &str, depth: usize) -> Option<BTreeSet<RepoPath>> {
        let kustomization = self.kustomizations.get(dir)?;
        if !kustomization.is_list || depth > DEEPEST {
            return None;
        }
        let mut found = BTreeSet::new();
        for resource in &kustomization.resources {
            let member = member_path(dir, resource)?;
            match self.file(&member) {
                Some(file) => {
                    found.insert(file);
                }
                None => found.extend(self.listed(&member, depth + 1)?),
            }
        }
        Some(found)
    }

    /// All files that building this folder reads.
    fn inputs(&self, dir: &str, seen: &mut BTreeSet<String>, into: &mut BTreeSet<RepoPath>) {
        let Some(kustomization) = self.kustomizations.get(dir) else {
            return;
        };
        if !seen.insert(dir.to_owned()) {
            return;
        }
        let own = self.files.iter();
        into.extend(
            own.filter(|path| folder(path) == dir && is_kustomization(path))
                .map(|path| (*path).clone()),
        );
        for mention in &kustomization.mentions {
            let Some(member) = member_path(dir, mention) else {
                continue;
            };
            match self.file(&member) {
                Some(file) => {
                    into.insert(file);
                }
                None => self.inputs(&member, seen, into),
            }
        }
    }
}

/// The folder of a file; empty at the top.
pub fn folder(path: &RepoPath) -> &str {
    path.as_str().rsplit_once('/').map_or("", |(dir, _)| dir)
}

/// A folder and all folders above it, the top included.
fn above(dir: &str) -> impl Iterator<Item = &str> {
    std::iter::successors(Some(dir), |dir| {
        (!dir.is_empty()).then(|| dir.rsplit_once('/').map_or("", |(above, _)| above))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn sorted(files: &[&str], kustomizations: &[(&str, Value)]) -> String {
        let mut paths: Vec<RepoPath> = files.iter().map(|p| RepoPath::new(*p).unwrap()).collect();
        let parsed: Vec<(String, Kustomization)> = kustomizations
            .iter()
            .map(|(dir, document)| ((*dir).to_owned(), Kustomization::of(document.clone())))
            .collect();
        for (dir, _) in &parsed {
            let name = "kustomization.yaml";
            let path = if dir.is_empty() {
                name.to_owned()
            } else {
                format!("{dir}/{name}")
            };
            paths.push(RepoPath::new(path).unwrap());
        }
        let by_dir = parsed.iter().map(|(dir, k)| (dir.clone(), k)).collect();
        let sources = sort(paths.iter(), &by_dir);
        let plain: Vec<&str> = sources.plain.iter().map(RepoPath::as_str).collect();
        let builds: Vec<String> = sources
            .builds
            .iter()
            .map(|(dir, inputs)| {
                let inputs: Vec<&str> = inputs.iter().map(RepoPath::as_str).collect();
                format!("{dir} <- {}", inputs.join(" "))
            })
            .collect();
        format!("plain: {}; builds: {}", plain.join(" "), builds.join(", "))
    }

    #[test]
    fn without_a_kustomization_everything_is_plain_but_charts() {
        let files = [
            "a.yaml",
            "b/c.yaml",
            "chart/Chart.yaml",
            "chart/templates/d.yaml",
        ];
        assert_eq!(sorted(&files, &[]), "plain: a.yaml b/c.yaml; builds: ");
    }

    #[test]
    fn a_list_needs_no_program_and_leaves_out_what_it_does_not_list() {
        let files = [
            "x/a.yaml",
            "x/patch.yaml",
            "x/x.serin/virtualservice.yaml",
            "x/x.serin/rollout.yaml",
        ];
        let list = json!({"resources": ["a.yaml", "x.serin"]});
        let ours = json!({"resources": ["virtualservice.yaml"]});
        assert_eq!(
            sorted(&files, &[("x", list), ("x/x.serin", ours)]),
            "plain: x/a.yaml x/x.serin/virtualservice.yaml; builds: "
        );
    }

    #[test]
    fn our_folder_is_applied_even_when_nothing_lists_it() {
        let files = ["x/a.yaml", "x/x.serin/virtualservice.yaml"];
        let list = json!({"resources": ["a.yaml"]});
        let ours = json!({"resources": ["virtualservice.yaml"]});
        assert_eq!(
            sorted(&files, &[("x", list), ("x/x.serin", ours)]),
            "plain: x/a.yaml x/x.serin/virtualservice.yaml; builds: "
        );
    }

    #[test]
    fn overlays_are_built_with_their_bases() {
        let files = [
            "base/a.yaml",
            "prod/patch.yaml",
            "prod/app.env",
            "other.yaml",
        ];
        let base = json!({"resources": ["a.yaml"]});
        let prod = json!({
            "resources": ["../base"], "namespace": "prod", "patches": [{"path": "patch.yaml"}],
            "configMapGenerator": [{"name": "c", "files": ["env=app.env"]}],
        });
        assert_eq!(
            sorted(&files, &[("base", base), ("prod", prod)]),
            "plain: other.yaml; builds: prod <- base/a.yaml base/kustomization.yaml prod/app.env prod/kustomization.yaml prod/patch.yaml"
        );
    }

    #[test]
    fn circles_and_links_out_of_the_repository_are_left_to_the_program() {
        let one = json!({"resources": ["../b"]});
        let two = json!({"resources": ["../a"]});
        assert_eq!(sorted(&[], &[("a", one), ("b", two)]), "plain: ; builds: ");
        let remote = json!({"resources": ["https://example.com/x.yaml"]});
        assert_eq!(
            sorted(&[], &[("a", remote)]),
            "plain: ; builds: a <- a/kustomization.yaml"
        );
    }
}
