//! Whole trees in, catalogs out: what is found, what is refused, and in which words.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Arc;

use super::{Candidate, Catalog, ParseCache, ValidatedCanary};
use crate::domain::{BlobId, RepoPath, Revision};

mod changes;
mod identity;
mod judging;
mod mistakes;
mod repository;
mod robust;

/// A whole canary, with `spec` as given.
fn canary(spec: &str) -> String {
    let mut text = String::from(
        "apiVersion: serin.dev/v1alpha1\nkind: Canary\nmetadata: {name: podinfo, namespace: test}\nspec:\n",
    );
    for line in spec.trim_matches('\n').lines() {
        let _ = writeln!(text, "  {line}");
    }
    text
}

/// The shortest spec that is right.
const SPEC: &str = "
workload: {deployment: podinfo}
route: {service: podinfo}
ladder: [{weight: 50}]
";

const DEPLOYMENT: &str = "
apiVersion: apps/v1
kind: Deployment
metadata: {name: podinfo, namespace: test}
spec:
  template:
    metadata:
      labels: {app: podinfo, serin.dev/track: stable}
    spec:
      containers:
      - {name: podinfod, image: 'ghcr.io/stefanprodan/podinfo:6.8.0'}
";

const SERVICE: &str = "
apiVersion: v1
kind: Service
metadata: {name: podinfo, namespace: test}
spec:
  selector: {app: podinfo}
  ports: [{port: 9898, name: http}]
";

fn path(text: &str) -> RepoPath {
    RepoPath::new(text).unwrap()
}

fn read(files: &[(&str, &str)]) -> Catalog {
    let tree: BTreeMap<_, _> = files
        .iter()
        .map(|(name, content)| {
            let blob = BlobId(Revision::of(&(*content).into()).as_str().into());
            (path(name), (blob, Arc::from(content.as_bytes())))
        })
        .collect();
    Catalog::read(&tree, &mut ParseCache::default())
}

/// The canary of a tree with the usual Deployment and Service.
fn read_spec(spec: &str) -> Catalog {
    read(&[
        ("app/canary.yaml", &canary(spec)),
        ("app/deployment.yaml", DEPLOYMENT),
        ("app/service.yaml", SERVICE),
    ])
}

/// The one canary of a tree, which has no mistakes.
fn sound(catalog: &Catalog) -> &ValidatedCanary {
    let result = catalog.canaries.values().next().unwrap();
    result
        .as_ref()
        .unwrap_or_else(|_| panic!("{}", told(catalog)))
}

fn proposal(catalog: &Catalog) -> &Candidate {
    sound(catalog).proposal.as_ref().unwrap()
}

/// All diagnostics, then what became of each canary and of folders without one.
fn told(catalog: &Catalog) -> String {
    let mut text = String::new();
    for diagnostic in &catalog.diagnostics {
        let _ = writeln!(text, "{diagnostic}");
    }
    for (id, result) in &catalog.canaries {
        let word = if result.is_ok() { "fine" } else { "rejected" };
        let _ = writeln!(text, "-> {id} {word}");
    }
    for orphan in &catalog.orphans {
        let _ = writeln!(text, "-> {} gone, {} is left", orphan.id, orphan.folder);
    }
    text
}

/// What is told of a spec, next to the usual Deployment and Service.
fn check(spec: &str) -> String {
    told(&read_spec(spec))
}
