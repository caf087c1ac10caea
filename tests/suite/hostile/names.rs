//! Names of canaries, users, headers, cookies, metrics and branches that would break out of where they are put.

use std::collections::BTreeMap;
use std::sync::Arc;

use regex::Regex;
use serde_json::{Value, json};
use serin::domain::{BlobId, CanaryId, RepoPath};
use serin::git::Branch;
use serin::manifests;
use serin::ports::Repository;
use serin::progression::State;
use serin::spec::{Catalog, ParseCache, ValidatedCanary};
use serin::yaml::node;

use crate::git::rig::Rig;

const APP: &str = "apiVersion: v1\nkind: Service\nmetadata: {name: web, namespace: test}\nspec: {selector: {app: web}}\n---\napiVersion: apps/v1\nkind: Deployment\nmetadata: {name: web, namespace: test}\nspec: {template: {metadata: {labels: {app: web, serin.dev/track: stable}}, spec: {containers: [{name: app, image: 'a:1'}]}}}\n";

/// The canary of this JSON, next to its application.
fn catalog(canary: &Value) -> Catalog {
    let file = |name: &str, content: String| {
        let bytes: Arc<[u8]> = Arc::from(content.into_bytes());
        (RepoPath::new(name).unwrap(), (BlobId(name.into()), bytes))
    };
    let tree = BTreeMap::from([
        file("app.yaml", APP.to_owned()),
        file("canary.yaml", canary.to_string()),
    ]);
    Catalog::read(&tree, &mut ParseCache::default())
}

fn canary(name: &str) -> Value {
    json!({
        "apiVersion": "serin.dev/v1alpha1",
        "kind": "Canary",
        "metadata": {"name": name, "namespace": "test"},
        "spec": {
            "workload": {"deployment": "web"},
            "candidate": {"images": {"app": "a:2"}},
            "route": {"service": "web"},
            "ladder": [{"weight": 0}, {"weight": 50}],
        },
    })
}

fn sound(catalog: &Catalog) -> Option<&ValidatedCanary> {
    catalog.canaries.values().next()?.as_deref().ok()
}

const BROKEN: [&str; 14] = [
    "..",
    ".",
    "a/b",
    "../../etc/passwd",
    "a\nb",
    "a\u{0}b",
    "a\u{1b}[31m",
    "\u{202e}x",
    "e\u{301}",
    "\u{e9}",
    "A",
    ".git",
    "-",
    "a b",
];

#[test]
fn a_canary_with_a_name_that_is_none_is_refused_and_said_on_one_line() {
    for name in BROKEN {
        let mut broken = canary(name);
        let catalog = self::catalog(&broken);
        assert_eq!(sound(&catalog), None, "{name:?}");
        assert!(!catalog.diagnostics.is_empty(), "{name:?}");
        broken["metadata"] = json!({"name": "web", "namespace": name});
        let by_namespace = self::catalog(&broken);
        assert_eq!(sound(&by_namespace), None, "{name:?}");
        let mut folder = canary("web");
        folder["spec"]["folder"] = json!(name);
        let by_folder = self::catalog(&folder);
        if let Some(canary) = sound(&by_folder) {
            assert_eq!(canary.home.folder.parent(), None, "{name:?}");
            assert!(!matches!(name, ".." | "." | ".git"), "{name:?}");
        }
        for diagnostic in catalog
            .diagnostics
            .iter()
            .chain(&by_namespace.diagnostics)
            .chain(&by_folder.diagnostics)
        {
            let text = diagnostic.to_string();
            assert!(!text.contains(|c: char| c.is_control()), "{text:?}");
        }
    }
}

#[test]
fn images_metrics_and_labels_cannot_carry_lines() {
    for text in [
        "a:1\nSerin-Weight: 0 -> 100",
        "a:1 ",
        "a:\u{2028}1",
        "a:1#",
        "'a:1",
        "a:1\u{0}",
        "a:b:c d",
    ] {
        let mut canary = canary("web");
        canary["spec"]["candidate"]["images"]["app"] = json!(text);
        assert_eq!(sound(&catalog(&canary)), None, "{text:?}");
    }
    for text in ["x\nSerin-Weight: 0 -> 100", "x\u{2028}y", "\u{1b}[31m"] {
        let mut canary = canary("web");
        canary["spec"]["analysis"] = json!({"metrics": [{"name": text, "query": "1", "max": 1}]});
        assert_eq!(sound(&catalog(&canary)), None, "{text:?}");
        canary["spec"].as_object_mut().unwrap().remove("analysis");
        canary["spec"]["workload"]["label"] = json!(text);
        assert_eq!(sound(&catalog(&canary)), None, "{text:?}");
    }
}

const USERS: [&str; 18] = [
    "alexis",
    ".*",
    "a|b",
    "(?i)a",
    "^a$",
    "a\\",
    "\\Qa\\E",
    "[^x]",
    "a{1,9}",
    "\"quoted\"",
    "it's",
    "a: b # c",
    "- x",
    "{{ .Values.x }}",
    "$(id)",
    "ü@example.com",
    "a,b",
    "%0d%0aX-Admin: 1",
];

/// All request matches of the rendered VirtualService.
fn rendered_matches(canary: &ValidatedCanary) -> Vec<Value> {
    let mut state = State::initial(canary.stable.clone());
    let proposal = canary.proposal.clone().unwrap();
    state.phase = serin::progression::Phase::Progressing(serin::progression::Rollout {
        candidate: proposal.into(),
        step: 1,
        weight: serin::domain::Weight::ZERO,
        mirror: None,
        matches: Vec::new(),
        started: crate::git::rig::at(0),
        since: crate::git::rig::at(0),
        ladder: canary.ladder_revision.clone(),
        approval: serin::progression::Approval::NotNeeded,
        stable_replicas: None,
    });
    let files = manifests::render(canary, &state).files;
    let (_, bytes) = files
        .iter()
        .find(|(path, _)| path.file_name() == "virtualservice.yaml")
        .unwrap();
    let parsed = node::parse(bytes.as_ref().unwrap());
    assert_eq!(parsed.errors, []);
    assert_eq!(parsed.documents.len(), 1);
    let service = parsed.documents[0].root.to_json();
    let routes = service["spec"]["http"].as_array().unwrap();
    routes
        .iter()
        .flat_map(|route| route["match"].as_array().cloned().unwrap_or_default())
        .collect()
}

#[test]
fn a_users_name_matches_that_user_and_nobody_else() {
    for name in USERS {
        let mut header = canary("web");
        header["spec"]["users"] = json!([{"header": "x-user", "exact": [name]}]);
        let read = catalog(&header);
        let matches = rendered_matches(sound(&read).unwrap());
        assert_eq!(matches, [json!({"headers": {"x-user": {"exact": name}}})]);

        let mut cookie = canary("web");
        cookie["spec"]["users"] = json!([{"cookie": "user.$id", "exact": [name]}]);
        let read = catalog(&cookie);
        let matches = rendered_matches(sound(&read).unwrap());
        let regex = matches[0]["headers"]["cookie"]["regex"].as_str().unwrap();
        let regex = Regex::new(regex).unwrap();
        for other in USERS {
            let cookies = format!("a=b; user.$id={other}; c=d");
            assert_eq!(
                regex.is_match(&cookies),
                other == name,
                "{name:?} {other:?}"
            );
        }
        assert!(!regex.is_match(&format!("userx$id={name}")), "{name:?}");
    }
    for name in ["a\nb", "a\r\nX: 1", "\u{0}", ""] {
        for rule in [
            json!({"header": "x-user", "exact": [name]}),
            json!({"cookie": "user", "exact": [name]}),
        ] {
            let mut broken = canary("web");
            broken["spec"]["users"] = json!([rule]);
            assert_eq!(sound(&catalog(&broken)), None, "{rule}");
        }
    }
    for header in ["x user", "x:y", "x\ny", "", "cookie", "x;y", "\"x\"", "ü"] {
        let mut broken = canary("web");
        broken["spec"]["users"] = json!([{"header": header, "exact": ["a"]}]);
        assert_eq!(sound(&catalog(&broken)), None, "{header:?}");
    }
}

#[test]
fn the_id_of_a_canary_is_its_namespace_and_name() {
    let read = catalog(&canary("web"));
    assert!(read.canaries[&CanaryId::new("test", "web")].is_ok());
}

#[tokio::test]
async fn branches_with_hostile_names_are_errors_and_start_nothing() {
    let rig = Rig::with(&[("a.yaml", "a: 1\n")]);
    let touched = rig.path("touched");
    let command = format!("--upload-pack=touch {}", touched.display());
    for (number, name) in [
        command.as_str(),
        "-x",
        "../main",
        "a..b",
        "a b",
        "a\nb",
        "refs/heads/main:refs/heads/x",
        "main\u{0}",
        "*",
        "@{u}",
        "",
    ]
    .into_iter()
    .enumerate()
    {
        let mut settings = rig.settings(&format!("copy{number}"));
        settings.branch = Some(name.to_owned());
        let head = match Branch::open(settings).await {
            Ok(mut branch) => branch.fetch().await.ok().and_then(|head| head.commit),
            Err(_) => None,
        };
        assert_eq!(head, None, "{name:?}");
        assert!(!touched.exists(), "{name:?}");
    }
    let refs = rig.server(&["for-each-ref", "--format=%(refname)"]);
    assert_eq!(refs, "refs/heads/main");
}
