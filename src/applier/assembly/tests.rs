//! A tree that follows another gives what it gives by itself.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use proptest::prelude::*;

use super::*;
use crate::domain::{BlobId, CommitId, Manifest};

/// Where the files of the trees are.
const PATHS: [&str; 8] = [
    "Chart.yaml",
    "a.yaml",
    "b/a.yaml",
    "b/kustomization.yaml",
    "b/z.yaml",
    "c/kustomization.yaml",
    "c/one.yaml",
    "d.yaml",
];

/// What is in them: objects that meet one another, and all that can be wrong with them.
const CONTENTS: [&str; 13] = [
    "{apiVersion: v1, kind: Service, metadata: {name: a}}",
    "{apiVersion: v1, kind: Service, metadata: {name: a, labels: {other: one}}}",
    "{apiVersion: v1, kind: Service, metadata: {name: a, namespace: test}}\n---\n{apiVersion: v1, kind: Service, metadata: {name: b, namespace: test}}",
    "{apiVersion: v1, kind: Service, metadata: {name: a}}\n---\n{apiVersion: v1, kind: Service, metadata: {name: a}, spec: {}}",
    "{apiVersion: v1, kind: Service, metadata: {name: b, annotations: {serin.dev/apply: disabled}}}",
    "{apiVersion: v1, kind: Service, metadata: {}}",
    "kind: [",
    "replicas: 2",
    "{apiVersion: apiextensions.k8s.io/v1, kind: CustomResourceDefinition, metadata: {name: xs.example.com}, spec: {group: example.com, scope: Cluster, names: {kind: X}}}",
    "{apiVersion: apiextensions.k8s.io/v1, kind: CustomResourceDefinition, metadata: {name: xs.example.com}, spec: {group: example.com, scope: Namespaced, names: {kind: X}}}",
    "{apiVersion: example.com/v1, kind: X, metadata: {name: one}}",
    "resources: [a.yaml, one.yaml]",
    "resources: [z.yaml, one.yaml]\nnamePrefix: x-",
];

#[derive(Debug, Clone)]
struct Step {
    /// Contents by path, and whether they come in a value of their own.
    files: BTreeMap<usize, (usize, bool)>,
    /// Whether the program fails.
    fails: bool,
    is_x_namespaced: Option<bool>,
    is_confined: bool,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let change = (
        0..PATHS.len(),
        prop::option::weighted(0.8, 0..CONTENTS.len()),
        any::<bool>(),
    );
    let rare = prop::bool::weighted(0.1);
    let changes = (
        prop::collection::vec(change, 0..4),
        rare,
        rare,
        prop::option::weighted(0.1, any::<bool>()),
    );
    prop::collection::vec(changes, 1..12).prop_map(|all| {
        let mut files = BTreeMap::new();
        let mut step =
            |(changes, fails, is_confined, is_x_namespaced): (Vec<_>, bool, bool, Option<bool>)| {
                for (path, content, is_new) in changes {
                    match content {
                        Some(content) => files.insert(path, (content, is_new)),
                        None => files.remove(&path),
                    };
                }
                Step {
                    files: files.clone(),
                    fails,
                    is_x_namespaced,
                    is_confined,
                }
            };
        all.into_iter().map(&mut step).collect()
    })
}

struct Trees {
    commit: CommitId,
    contents: Vec<Arc<[u8]>>,
}

impl Trees {
    fn new() -> Self {
        let contents = CONTENTS.iter().map(|text| text.as_bytes().into());
        Self {
            commit: CommitId::new("c0ffee"),
            contents: contents.collect(),
        }
    }

    fn assemble(&self, assembly: &mut Assembly, step: &Step) -> Desired {
        let file = |(path, (content, is_new)): (&usize, &(usize, bool))| {
            let held = &self.contents[*content];
            let held = if *is_new {
                held.to_vec().into()
            } else {
                Arc::clone(held)
            };
            (
                RepoPath::new(PATHS[*path]).unwrap(),
                (BlobId(content.to_string().into()), held),
            )
        };
        let files: Files = Arc::new(step.files.iter().map(file).collect());
        let sources = assembly.sort(&files);
        let build = |inputs: &BTreeSet<RepoPath>| match step.fails {
            true => Err("it failed".to_owned()),
            false => {
                let plain = inputs.iter().filter(|path| !is_kustomization(path));
                let read = plain.flat_map(|path| read(&files[path].1, false).manifests);
                Ok(Arc::new(
                    read.map(|manifest| Manifest::of(&manifest)).collect(),
                ))
            }
        };
        let builds = sources.builds.iter();
        let built = builds
            .map(|(dir, inputs)| (dir.clone(), build(inputs)))
            .collect();
        let scopes = step
            .is_x_namespaced
            .map(|known| (Kind::new("example.com", "X"), known));
        let confined = step.is_confined.then(|| "test".to_owned());
        let source = Source {
            commit: &self.commit,
            files: &files,
            skipped: &[],
        };
        let known = (
            &scopes.into_iter().collect(),
            &confined.into_iter().collect(),
        );
        assembly.assemble(&source, (&sources, &built), known)
    }
}

proptest! {
    #[test]
    fn a_tree_after_others_gives_what_it_gives_alone(steps in steps()) {
        let trees = Trees::new();
        let mut assembly = Assembly::default();
        for step in &steps {
            let after_others = trees.assemble(&mut assembly, step);
            let alone = trees.assemble(&mut Assembly::default(), step);
            prop_assert_eq!(after_others, alone);
        }
    }
}

#[test]
fn what_did_not_change_is_the_same_value() {
    let trees = Trees::new();
    let mut assembly = Assembly::default();
    let step = |files: &[(usize, usize)]| Step {
        files: files
            .iter()
            .map(|(path, content)| (*path, (*content, false)))
            .collect(),
        fails: false,
        is_x_namespaced: None,
        is_confined: false,
    };
    let before = trees.assemble(&mut assembly, &step(&[(1, 0), (7, 2)]));
    let same = trees.assemble(&mut assembly, &step(&[(1, 0), (7, 2)]));
    assert!(Arc::ptr_eq(&before.objects, &same.objects));
    let after = trees.assemble(&mut assembly, &step(&[(1, 1), (7, 2)]));
    let shared = |name: &str, namespace: &str| {
        let key = ObjectKey::namespaced(Kind::new("", "Service"), namespace, name);
        Arc::ptr_eq(&before.objects[&key], &after.objects[&key])
    };
    assert_eq!(
        (
            shared("a", "default"),
            shared("a", "test"),
            shared("b", "test")
        ),
        (false, true, true)
    );
}
