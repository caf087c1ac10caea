//! Promotion into manifests as people write them: `git diff` shows the image and nothing else.
//!
//! Each folder of `tests/data/manifests` is a repository. The candidates below are promoted in it by the code that the
//! engine uses, committed by the adapter that it uses, and what `git diff` says is kept beside the folder.
//! `UPDATE_DIFFS=1 cargo test --test suite byte_edits` writes it anew; read every line of it then.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde_json::Value;
use serin::domain::{CanaryId, RepoPath, Revision};
use serin::ports::{Draft, Published, Repository, Snapshot};
use serin::spec::promotion::{Files, promotion_edits};
use serin::spec::{Catalog, ParseCache, ValidatedCanary, Workload};
use serin::yaml::node;

use crate::git::rig::{Rig, at};
use crate::git_servers::program;

/// Another tag; another everything.
const CANDIDATES: [&str; 2] = [
    "ghcr.io/stefanprodan/podinfo:6.10",
    "localhost:5000/podinfo:7.0.0@sha256:fedcba9876543210fedcba9876543210fedcba9876543210fedcba9876543210",
];

const SERVICE: &str = "apiVersion: v1\nkind: Service\nmetadata: {name: podinfo, namespace: test}\nspec:\n  selector: {app: podinfo}\n";

fn canary(image: &str) -> String {
    format!(
        "apiVersion: serin.dev/v1alpha1\nkind: Canary\nmetadata: {{name: podinfo, namespace: test}}\nspec:\n  workload: \
         {{deployment: podinfo}}\n  candidate: {{images: {{podinfod: '{image}'}}}}\n  route: {{service: podinfo}}\n  \
         ladder: [{{weight: 50}}]\n"
    )
}

fn corpus() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/manifests")
}

/// Every file below a folder, by its path in it.
fn files_below(folder: &Path, prefix: &str, into: &mut BTreeMap<String, Vec<u8>>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let entry = entry.unwrap();
        let name = format!("{prefix}{}", entry.file_name().to_str().unwrap());
        if entry.file_type().unwrap().is_dir() {
            files_below(&entry.path(), &format!("{name}/"), into);
        } else {
            into.insert(name, std::fs::read(entry.path()).unwrap());
        }
    }
}

/// The files of a snapshot below a folder, by their path in it.
fn below(snapshot: &Snapshot, folder: &str) -> Files {
    let inside = snapshot.files.iter().filter_map(|(path, file)| {
        let path = RepoPath::new(path.as_str().strip_prefix(folder)?)?;
        Some((path, file.clone()))
    });
    inside.collect()
}

/// All values of a file, document by document, each with the way to it.
fn leaves(content: &[u8]) -> BTreeMap<String, Value> {
    fn walk(value: &Value, way: String, into: &mut BTreeMap<String, Value>) {
        match value {
            Value::Object(fields) if !fields.is_empty() => fields
                .iter()
                .for_each(|(key, value)| walk(value, format!("{way}/{key}"), into)),
            Value::Array(items) if !items.is_empty() => items
                .iter()
                .enumerate()
                .for_each(|(index, value)| walk(value, format!("{way}/{index}"), into)),
            leaf => {
                into.insert(way, leaf.clone());
            }
        }
    }
    let mut found = BTreeMap::new();
    let parsed = node::parse(content);
    assert_eq!(parsed.errors, []);
    for document in parsed.documents {
        walk(
            &document.root.to_json(),
            document.index.to_string(),
            &mut found,
        );
    }
    found
}

/// One promotion of one manifest: where it is in the repository, and to what.
struct Promotion {
    case: String,
    folder: String,
    image: &'static str,
    /// What is promised.
    yields: Revision,
    manifest: Value,
    edits: BTreeMap<RepoPath, Vec<u8>>,
}

fn read(files: &Files) -> ValidatedCanary {
    let catalog = Catalog::read(files, &mut ParseCache::default());
    let id = CanaryId::new("test", "podinfo");
    let canary = catalog.canaries.get(&id).cloned().unwrap();
    let canary = canary.unwrap_or_else(|rejected| panic!("{:#?}", rejected.diagnostics));
    std::sync::Arc::unwrap_or_clone(canary)
}

fn manifest(canary: &ValidatedCanary) -> Value {
    match &canary.workload {
        Workload::Managed(managed) => managed.manifest.read(),
        Workload::BringYourOwn(_) => panic!("not managed"),
    }
}

impl Promotion {
    fn of(case: &str, folder: String, image: &'static str, files: &Files) -> Self {
        let canary = read(files);
        let candidate = canary.proposal.as_ref().unwrap();
        let edits = promotion_edits(files, &canary, candidate)
            .unwrap_or_else(|diagnostic| panic!("{case}: {diagnostic}"));
        for (path, after) in &edits {
            only_the_image_differs(case, image, &files[path].1, after);
        }
        Self {
            case: case.to_owned(),
            folder,
            image,
            yields: candidate.yields.clone(),
            manifest: manifest(&canary),
            edits,
        }
    }

    fn draft(&self) -> Draft {
        let changes = self.edits.iter().map(|(path, content)| {
            let path = RepoPath::new(format!("{}{path}", self.folder)).unwrap();
            (path, Some(content.as_slice().into()))
        });
        Draft {
            canary: CanaryId::new("test", "podinfo"),
            message: format!(
                "{}\n\nIt did well.\n\nSerin-Canary: test/podinfo\n",
                self.folder
            ),
            changes: changes.collect(),
            at: at(0),
        }
    }

    /// Read anew, stable is what the candidate promised, nothing is left to roll out, and no other value differs.
    fn check(&self, files: &Files) {
        let case = &self.case;
        let again = read(files);
        assert_eq!(again.proposal, None, "{case}");
        assert_eq!(again.stable.revision, self.yields, "{case}");
        let old = leaves(self.manifest.to_string().as_bytes());
        let new = leaves(manifest(&again).to_string().as_bytes());
        let changed: Vec<_> = new
            .into_iter()
            .filter(|(way, value)| old.get(way) != Some(value))
            .collect();
        assert!(
            matches!(changed.as_slice(), [(way, value)] if way.ends_with("/image") && value == self.image),
            "{case}: {changed:?}"
        );
    }
}

/// After parsing, nothing but fields that hold an image or a part of it differs.
fn only_the_image_differs(case: &str, image: &str, before: &[u8], after: &[u8]) {
    let (old, new) = (leaves(before), leaves(after));
    let ways = old.keys().chain(new.keys());
    for way in ways.filter(|way| old.get(*way) != new.get(*way)) {
        let field = way.rsplit('/').next().unwrap();
        let is_of_image = matches!(
            field,
            "image" | "newName" | "newTag" | "digest" | "tag" | "repository"
        ) || old
            .get(way)
            .is_some_and(|value| value == "ghcr.io/stefanprodan/podinfo:6.8.0");
        assert!(is_of_image, "{case}: {way} changed");
        let value = new.get(way).map(|value| value.as_str().unwrap());
        assert!(
            value.is_none_or(|value| image.contains(value)),
            "{case}: {way} is {value:?}"
        );
    }
}

#[tokio::test]
async fn each_manifest_of_the_corpus_is_promoted_byte_by_byte() {
    let mut cases: Vec<String> = std::fs::read_dir(corpus())
        .unwrap()
        .map(|entry| entry.unwrap())
        .filter(|entry| entry.file_type().unwrap().is_dir())
        .map(|entry| entry.file_name().into_string().unwrap())
        .collect();
    cases.sort();
    assert!(cases.len() >= 25, "only {} cases were found", cases.len());
    let rig = Rig::empty();
    let someone = rig.someone("alexis");
    for case in &cases {
        for (number, image) in CANDIDATES.iter().enumerate() {
            let folder = format!("{case}/{number}/");
            someone.write(&format!("{folder}canary.yaml"), canary(image));
            someone.write(&format!("{folder}service.yaml"), SERVICE);
            let mut files = BTreeMap::new();
            files_below(&corpus().join(case), "", &mut files);
            for (name, content) in files {
                someone.write(&format!("{folder}{name}"), content);
            }
        }
    }
    someone.commit("as people write them", &[]);
    someone.push();
    let mut branch = rig.branch().await;
    let before = branch.fetch().await.unwrap().commit.unwrap();
    let snapshot = branch.snapshot(&before).await.unwrap();
    assert_eq!(snapshot.skipped, []);
    let mut promotions = Vec::new();
    for case in &cases {
        for (number, image) in CANDIDATES.into_iter().enumerate() {
            let folder = format!("{case}/{number}/");
            let files = below(&snapshot, &folder);
            promotions.push(Promotion::of(case, folder, image, &files));
        }
    }
    let drafts = promotions.iter().map(Promotion::draft).collect();
    let published = branch.publish(&before, drafts).await.unwrap();
    let Published::Accepted(commits) = published else {
        panic!("{published:?}");
    };
    let after = commits.last().unwrap();
    branch.fetch().await.unwrap();
    let snapshot = branch.snapshot(after).await.unwrap();
    for promotion in &promotions {
        promotion.check(&below(&snapshot, &promotion.folder));
    }
    compare(&cases, &diffs(&rig, &format!("{before}..{after}")));
}

/// What each commit changes, by case, without the ids of blobs and the lines that `git` takes for names of functions.
fn diffs(rig: &Rig, range: &str) -> BTreeMap<String, String> {
    let log = program("git", &rig.home())
        .arg("--git-dir")
        .arg(rig.remote())
        .args([
            "log",
            "--patch",
            "--reverse",
            "--no-color",
            "--no-prefix",
            "--unified=0",
        ])
        .args(["--format=%x00%s", range])
        .output()
        .unwrap();
    assert!(log.status.success());
    let log = String::from_utf8(log.stdout).unwrap();
    let mut diffs: BTreeMap<String, String> = BTreeMap::new();
    for commit in log.split('\0').skip(1) {
        let case = commit.split('/').next().unwrap();
        let diff = diffs.entry(case.to_owned()).or_default();
        for line in commit.split('\n').filter(|line| !line.is_empty()) {
            if line.starts_with("index ") || line.starts_with("diff --git") {
                continue;
            }
            let range = line
                .strip_prefix("@@ ")
                .and_then(|rest| rest.split_once(" @@"));
            let line = match range {
                Some((range, _)) => format!("@@ {range} @@"),
                None => line.replace('\r', "^M"),
            };
            diff.push_str(&shortened(&line));
            diff.push('\n');
        }
    }
    diffs
}

/// Compares with what is kept, or keeps it.
fn compare(cases: &[String], diffs: &BTreeMap<String, String>) {
    let update = std::env::var_os("UPDATE_DIFFS").is_some();
    let mut wrong = Vec::new();
    for case in cases {
        let diff = &diffs[case];
        let golden = corpus().join(format!("{case}.diff"));
        if update {
            std::fs::write(&golden, diff).unwrap();
        } else if std::fs::read_to_string(&golden).unwrap_or_default() != *diff {
            wrong.push(format!("--- {case}\n{diff}"));
        }
    }
    assert!(
        wrong.is_empty(),
        "diffs differ; if that is meant: UPDATE_DIFFS=1 cargo test --test suite byte_edits, then read them\n{}",
        wrong.join("\n")
    );
    let orphans: Vec<String> = std::fs::read_dir(corpus())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter_map(|name| name.strip_suffix(".diff").map(str::to_owned))
        .filter(|name| !cases.contains(name))
        .collect();
    assert_eq!(orphans, Vec::<String>::new());
}

/// A line of thousands of the same letter, for people.
fn shortened(line: &str) -> String {
    let long = "x".repeat(100);
    match (line.find(&long), line.rfind(&long)) {
        (Some(from), Some(to)) if to > from => {
            format!("{}x…x{}", &line[..from], &line[to + long.len()..])
        }
        _ => line.to_owned(),
    }
}
