//! Trees that change file by file: what is kept of a reading before is what a reading from nothing finds.

use std::fmt::Write as _;
use std::sync::Arc;

use proptest::prelude::*;
use proptest::sample::select;

use super::super::promotion::Files;
use super::super::{Catalog, ParseCache};
use super::{DEPLOYMENT, SERVICE, SPEC, canary, path, told};
use crate::domain::{BlobId, CanaryId};

/// A tree and what was read of it last.
#[derive(Default)]
struct Repository {
    files: Files,
    cache: ParseCache,
}

impl Repository {
    fn write(&mut self, at: &str, content: Option<&str>) {
        match content {
            Some(content) => {
                let blob = BlobId(content.into());
                let file = (blob, Arc::from(content.as_bytes()));
                self.files.insert(path(at), file);
            }
            None => drop(self.files.remove(&path(at))),
        }
    }

    fn read(&mut self) -> Arc<Catalog> {
        Catalog::read_remembering(&Arc::new(self.files.clone()), &[], &mut self.cache)
    }
}

/// Whether a change lets canaries of a large tree be looked at again: those whose names are given, and no others.
fn check(before: &[(&str, &str)], change: (&str, Option<&str>), concerned: &[&str]) {
    let mut repository = Repository::default();
    for (at, content) in before {
        repository.write(at, Some(content));
    }
    let old = repository.read();
    repository.write(change.0, change.1);
    let new = repository.read();
    assert_eq!(
        *new,
        Catalog::read(&repository.files, &mut ParseCache::default())
    );
    let again = old.canaries.iter().filter(|(id, old)| {
        let same = match (old, new.canaries.get(id)) {
            (Ok(old), Some(Ok(new))) => Arc::ptr_eq(old, new),
            _ => false,
        };
        !same
    });
    let again: Vec<&str> = again.map(|(id, _)| id.name.as_str()).collect();
    assert_eq!(again, concerned, "{}\n{}", change.0, told(&new));
}

/// The usual canary under another name.
fn named(name: &str, text: &str) -> String {
    text.replace("podinfo", name)
        .replace(&format!("{name}d"), "podinfod")
}

#[test]
fn a_canary_is_looked_at_again_when_something_of_its_own_changes() {
    let folders = ["one", "two"].map(|name| {
        let folder = format!("apps/{name}");
        [
            ("canary.yaml", named(name, &canary(SPEC))),
            (
                "app.yaml",
                named(name, &format!("{DEPLOYMENT}---{SERVICE}")),
            ),
            ("kustomization.yaml", "resources: [app.yaml]\n".to_owned()),
        ]
        .map(|(file, content)| (format!("{folder}/{file}"), content))
    });
    let files: Vec<(&str, &str)> = folders
        .iter()
        .flatten()
        .map(|(at, content)| (at.as_str(), content.as_str()))
        .collect();
    let deployment = named("one", DEPLOYMENT);
    for (at, content, concerned) in [
        ("apps/one/app.yaml", None, &["one"][..]),
        (
            "apps/two/canary.yaml",
            Some(named("two", &canary(SPEC)).replace("50", "60")),
            &["two"],
        ),
        (
            "apps/one/kustomization.yaml",
            Some("resources: [app.yaml]\nimages: [{name: x, newTag: '1'}]\n".to_owned()),
            &["one"],
        ),
        (
            "apps/one/kustomization.yaml",
            Some("resources: []\n".to_owned()),
            &["one"],
        ),
        (
            "apps/kustomization.yaml",
            Some("resources: [one]\n".to_owned()),
            &["one"],
        ),
        (
            "apps/kustomization.yaml",
            Some("resources: [one, two]\n".to_owned()),
            &["one", "two"],
        ),
        ("far/app.yaml", Some(deployment.clone()), &["one"]),
        (
            "far/app.yaml",
            Some(deployment.replace("name: one,", "name: two-canary,")),
            &["two"],
        ),
        (
            "far/values.yaml",
            Some("image: a:1 # serin: test/two/podinfod\n".to_owned()),
            &["two"],
        ),
        (
            "far/app.yaml",
            Some(deployment.replace("name: one,", "name: three,")),
            &[],
        ),
        ("apps/one/notes.yaml", Some("a: [\n".to_owned()), &[]),
        (
            "apps/one/one.serin/rollout.yaml",
            Some("apiVersion: serin.dev/v1alpha1\nkind: Rollout\ncanary: test/one\n".to_owned()),
            &[],
        ),
    ] {
        check(&files, (at, content.as_deref()), concerned);
    }
}

/// Changes of files that say nothing by which the canary calls anything.
#[test]
fn a_canary_is_looked_at_again_when_a_kustomization_brings_it_something() {
    let (spec, objects) = (canary(SPEC), format!("{DEPLOYMENT}---{SERVICE}"));
    let nameless = spec.replace(", namespace: test", "");
    let other = DEPLOYMENT.replace("name: podinfo,", "name: other,");
    let images = "images: [{name: ghcr.io/stefanprodan/podinfo, newTag: '7'}]\n";
    let top = |members: &str| format!("resources: [{members}]\n{images}");
    let podinfo = ["podinfo"].as_slice();

    // Another Deployment whose image one entry of `images` sets as well.
    let mut files = vec![
        ("app/canary.yaml", spec.as_str()),
        ("app/app.yaml", &objects),
    ];
    let both = top("app/app.yaml, more.yaml, copies");
    files.push(("kustomization.yaml", &both));
    check(&files, ("more.yaml", Some(&other)), podinfo);
    check(&files, ("else.yaml", Some(&other)), &[]);

    // The same where a file in the very same bytes stood for it until now.
    let copies = "resources: [b.yaml]\n";
    files.extend([
        ("copies/kustomization.yaml", copies),
        ("copies/b.yaml", &other),
    ]);
    files.push(("a.yaml", &other));
    check(&files, ("a.yaml", None), podinfo);

    // The generated folder, by a way on which nothing else lies.
    let both = top("app/app.yaml, copies");
    let files = [
        ("app/canary.yaml", spec.as_str()),
        ("app/app.yaml", &objects),
        ("kustomization.yaml", &both),
        ("copies/kustomization.yaml", "resources: []\n"),
    ];
    let taken = "resources: [../app/podinfo.serin]\n";
    check(&files, ("copies/kustomization.yaml", Some(taken)), podinfo);

    // The namespace of the canary and of nothing else.
    let files = [
        ("app/canary.yaml", nameless.as_str()),
        ("app.yaml", &objects),
        (
            "app/kustomization.yaml",
            "namespace: test\nresources: [canary.yaml]\n",
        ),
    ];
    let moved = "namespace: prod\nresources: [canary.yaml]\n";
    check(&files, ("app/kustomization.yaml", Some(moved)), podinfo);
}

#[test]
fn of_two_that_clash_the_one_that_stays_is_sound_again() {
    let with_host = |name: &str| {
        let spec = SPEC.replace(
            "{service: podinfo}",
            "{service: podinfo, hosts: [shop.example.com]}",
        );
        named(name, &canary(&spec))
    };
    let mut repository = Repository::default();
    for name in ["one", "two"] {
        let app = named(name, &format!("{DEPLOYMENT}---{SERVICE}"));
        repository.write(&format!("{name}/app.yaml"), Some(&app));
        repository.write(&format!("{name}/canary.yaml"), Some(&with_host(name)));
    }
    let is_sound = |catalog: &Catalog| {
        let result = catalog.canaries.get(&CanaryId::new("test", "one"));
        result.is_some_and(Result::is_ok)
    };
    assert!(!is_sound(&repository.read()));
    repository.write("two/canary.yaml", None);
    assert!(is_sound(&repository.read()));
    repository.write("two/canary.yaml", Some(&with_host("two")));
    assert!(!is_sound(&repository.read()));
}

/// Names that meet: of canaries, of Deployments and Services, of namespaces.
const NAMES: [&str; 3] = ["web", "api", "web-canary"];
const NAMESPACES: [Option<&str>; 4] = [Some("test"), Some("test"), Some("prod"), None];
const FOLDERS: [&str; 4] = ["", "base/", "test/", "test/deep/"];
/// What kustomizations name; half of it is not there.
const MEMBERS: [&str; 10] = [
    "app.yaml",
    "more.yaml",
    "canary.yaml",
    "values.yaml",
    "base",
    "../base",
    "../../base",
    "test",
    "deep",
    "web.serin",
];

fn metadata(name: &str, namespace: Option<&str>) -> String {
    match namespace {
        Some(namespace) => format!("metadata: {{name: {name}, namespace: {namespace}}}\n"),
        None => format!("metadata: {{name: {name}}}\n"),
    }
}

fn deployment() -> impl Strategy<Value = String> {
    let labels = select(vec![
        "track: stable",
        "track: v2",
        "serin.dev/track: stable",
    ]);
    let image = select(vec!["a:1", "a:2", "b:1"]);
    (select(&NAMES[..]), select(&NAMESPACES[..]), labels, image).prop_map(|(name, namespace, label, image)| {
        let app = name.trim_end_matches("-canary");
        format!(
            "apiVersion: apps/v1\nkind: Deployment\n{}spec: {{template: {{metadata: {{labels: {{app: {app}, {label}}}}}, \
             spec: {{containers: [{{name: app, image: '{image}'}}]}}}}}}\n",
            metadata(name, namespace)
        )
    })
}

fn service() -> impl Strategy<Value = String> {
    let ports = select(vec![
        "[{port: 80}]",
        "[{port: 80, name: a}, {port: 81, name: b}]",
    ]);
    let app = select(vec!["web", "web", "api"]);
    (select(&NAMES[..2]), select(&NAMESPACES[..]), app, ports).prop_map(|(name, namespace, app, ports)| {
        let ports = if app == name { "[{port: 80}]" } else { ports };
        format!(
            "apiVersion: v1\nkind: Service\n{}spec: {{selector: {{app: {app}}}, ports: {ports}}}\n",
            metadata(name, namespace)
        )
    })
}

fn written_canary() -> impl Strategy<Value = String> {
    let workload = select(vec![
        "workload: {deployment: NAME}",
        "workload: {deployment: NAME}",
        "workload: {deployment: web}",
        "workload: {deployment: NAME}, candidate: {images: {app: 'a:9'}}",
        "versions: {stable: {track: stable}, candidate: {track: v2}}",
    ]);
    let route = select(vec!["", "", ", hosts: [shop.example.com]", ", port: 80"]);
    let rest = select(vec![
        "",
        "",
        "folder: chosen, ",
        "ladder: [{weight: 500}], ",
    ]);
    (select(&NAMES[..2]), select(&NAMESPACES[..]), workload, route, rest).prop_map(
        |(name, namespace, workload, route, rest)| {
            let ladder = if rest.contains("ladder") { "" } else { ", ladder: [{weight: 50}]" };
            format!(
                "apiVersion: serin.dev/v1alpha1\nkind: Canary\n{}spec: {{{rest}{}, route: {{service: {name}{route}}}{ladder}}}\n",
                metadata(name, namespace),
                workload.replace("NAME", name)
            )
        },
    )
}

fn kustomization() -> impl Strategy<Value = String> {
    let members = prop::collection::vec(select(&MEMBERS[..]), 0..4);
    let images = prop::option::of(select(vec!["a", "b"]));
    (select(&NAMESPACES[..]), members, images).prop_map(|(namespace, members, image)| {
        let mut text = format!("resources: [{}]\n", members.join(", "));
        if let Some(namespace) = namespace {
            let _ = writeln!(text, "namespace: {namespace}");
        }
        if let Some(image) = image {
            let _ = writeln!(text, "images: [{{name: {image}, newTag: '7'}}]");
        }
        text
    })
}

fn values() -> impl Strategy<Value = String> {
    (select(&NAMES[..2]), select(vec!["app", "app", "other"]))
        .prop_map(|(name, container)| format!("image: c:3 # serin: test/{name}/{container}\n"))
}

fn state() -> impl Strategy<Value = String> {
    (select(&NAMES[..2]), select(vec!["test", "default"])).prop_map(|(name, namespace)| {
        format!("apiVersion: serin.dev/v1alpha1\nkind: Rollout\ncanary: {namespace}/{name}\n")
    })
}

fn several(document: impl Strategy<Value = String> + 'static) -> BoxedStrategy<String> {
    let documents = prop::collection::vec(document, 1..3);
    documents.prop_map(|all| all.join("---\n")).boxed()
}

/// A file with what may be in it, mostly as it should be.
fn file() -> impl Strategy<Value = (String, String)> {
    let objects = || several(prop_oneof![deployment(), service()]);
    let kinds = prop_oneof![
        5 => (select(vec!["app.yaml", "more.yaml"]), objects()),
        5 => (select(vec!["canary.yaml", "second.yaml"]), several(written_canary())),
        3 => (select(vec!["kustomization.yaml", "kustomization.yml", "web.serin/kustomization.yaml"]), kustomization().boxed()),
        1 => (Just("values.yaml"), values().boxed()),
        2 => (select(vec!["web.serin/rollout.yaml", "api.serin/rollout.yaml", "chosen/rollout.yaml"]), state().boxed()),
        1 => (select(vec!["web.serin/deployment.yaml", "chosen/deployment.yaml", "chosen/app.yaml"]), objects()),
        1 => (Just("Chart.yaml"), Just("name: x\n".to_owned()).boxed()),
        1 => (Just("templates/app.yaml"), objects()),
    ];
    let breaks = select(vec![
        "",
        "",
        "",
        "",
        "",
        "",
        "",
        "",
        "x: [\n",
        "---\na: b: c\n",
    ]);
    (select(&FOLDERS[..]), kinds, breaks).prop_map(|(folder, (name, content), broken)| {
        (format!("{folder}{name}"), format!("{content}{broken}"))
    })
}

/// Where everything is right, and every edit can break something.
fn beginning() -> Vec<(&'static str, String)> {
    let app = |name: &str| {
        let deployment = |name: &str, track| {
            format!(
                "apiVersion: apps/v1\nkind: Deployment\nmetadata: {{name: {name}}}\nspec: {{template: {{metadata: \
                 {{labels: {{app: {name}, track: {track}}}}}, spec: {{containers: [{{name: app, image: 'a:1'}}]}}}}}}\n"
            )
        };
        format!(
            "{}---\n{}---\napiVersion: v1\nkind: Service\nmetadata: {{name: {name}}}\nspec: {{selector: {{app: {name}}}, ports: [{{port: 80}}]}}\n",
            deployment(name, "stable"),
            deployment(name, "v2").replacen(
                &format!("name: {name}"),
                &format!("name: {name}-v2"),
                1
            ),
        )
    };
    let canary = |name: &str, namespace: &str, workload: &str| {
        format!(
            "apiVersion: serin.dev/v1alpha1\nkind: Canary\nmetadata: {{name: {name}, namespace: {namespace}}}\nspec: \
             {{{workload}, route: {{service: {name}}}, ladder: [{{weight: 50}}]}}\n"
        )
    };
    vec![
        ("base/app.yaml", app("web")),
        (
            "base/kustomization.yaml",
            "resources: [app.yaml]\n".to_owned(),
        ),
        (
            "test/kustomization.yaml",
            "namespace: test\nresources: [../base]\nimages: [{name: a, newTag: '2'}]\n".to_owned(),
        ),
        (
            "test/canary.yaml",
            canary("web", "test", "workload: {deployment: web}"),
        ),
        (
            "test/web.serin/rollout.yaml",
            "apiVersion: serin.dev/v1alpha1\nkind: Rollout\ncanary: test/web\n".to_owned(),
        ),
        ("test/deep/app.yaml", app("api")),
        (
            "test/deep/canary.yaml",
            canary(
                "api",
                "prod",
                "versions: {stable: {track: stable}, candidate: {track: v2}}",
            ),
        ),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    /// Whatever is written, broken, mended, moved and deleted, in whatever order.
    #[test]
    fn changes_give_what_a_reading_from_nothing_gives(
        commits in prop::collection::vec(
            prop::collection::vec((file(), prop::bool::weighted(0.75)), 1..4),
            1..25,
        ),
    ) {
        let mut repository = Repository::default();
        for (at, content) in beginning() {
            repository.write(at, Some(&content));
        }
        let sound = repository.read();
        prop_assert!(sound.canaries.len() == 2 && sound.canaries.values().all(Result::is_ok), "{}", told(&sound));
        // Two that take catalogs from one another, and look at what the other has missed.
        let shared = ParseCache::shared(1_000);
        let mut readers = [shared.handle(), shared.handle()];
        for (at, commit) in commits.iter().enumerate() {
            for ((at, content), is_there) in commit {
                repository.write(at, is_there.then_some(content));
            }
            let remembered = repository.read();
            let fresh = Catalog::read(&repository.files, &mut ParseCache::default());
            prop_assert_eq!(told(&remembered), told(&fresh));
            prop_assert_eq!(&*remembered, &fresh);
            let tree = Arc::new(repository.files.clone());
            for reader in &mut readers[at % 3 % 2..] {
                let shared = Catalog::read_remembering(&tree, &[], reader);
                prop_assert_eq!(&*shared, &fresh);
            }
        }
    }
}
