//! Where the candidate is written, and where it is refused.

use std::fmt::Write as _;
use std::sync::Arc;

use insta::assert_snapshot;

use super::super::{Catalog, ParseCache, Workload};
use super::*;
use crate::domain::{CanaryId, Revision};

const SERVICE: &str = "apiVersion: v1\nkind: Service\nmetadata: {name: web, namespace: test}\nspec:\n  selector: {app: web}\n";

fn deployment(name: &str, containers: &str) -> String {
    format!(
        "apiVersion: apps/v1\nkind: Deployment\nmetadata: {{name: {name}, namespace: test}}\nspec:\n  template:\n    \
         metadata: {{labels: {{app: web}}}}\n    spec:\n{containers}"
    )
}

const ONE: &str = "      containers:\n      - name: app\n        image: reg/app:1 # now\n";

fn canary(candidate: &str) -> String {
    format!(
        "apiVersion: serin.dev/v1alpha1\nkind: Canary\nmetadata: {{name: web, namespace: test}}\nspec:\n  workload: \
         {{deployment: web}}\n  candidate: {candidate}\n  route: {{service: web}}\n  ladder: [{{weight: 50}}]\n"
    )
}

fn tree(files: &[(&str, &str)]) -> Files {
    let entry = |(name, content): &(&str, &str)| {
        let blob = BlobId(Revision::of(&(*content).into()).as_str().into());
        let path = RepoPath::new(*name).unwrap();
        (path, (blob, Arc::from(content.as_bytes())))
    };
    files.iter().map(entry).collect()
}

/// What a promotion changes: lines that go and come, by file; before that what is said about the files.
fn promoted(candidate: &str, files: &[(&str, &str)]) -> String {
    let canary = canary(candidate);
    let mut all = vec![("canary.yaml", canary.as_str()), ("service.yaml", SERVICE)];
    all.extend(files);
    let files = tree(&all);
    let catalog = Catalog::read(&files, &mut ParseCache::default());
    let mut out = String::new();
    for diagnostic in &catalog.diagnostics {
        let _ = writeln!(out, "{diagnostic}");
    }
    let Some(Ok(canary)) = catalog.canaries.get(&CanaryId::new("test", "web")) else {
        return out;
    };
    let candidate = canary.proposal.as_ref().unwrap();
    let edits = match promotion_edits(&files, canary, candidate) {
        Ok(edits) => edits,
        Err(diagnostic) => return format!("{out}{diagnostic}\n"),
    };
    let mut after = files.clone();
    for (path, content) in &edits {
        let (_, before) = &files[path];
        let _ = writeln!(out, "{path}");
        let (old, new) = (
            String::from_utf8_lossy(before).into_owned(),
            String::from_utf8_lossy(content).into_owned(),
        );
        let old: Vec<&str> = old.lines().collect();
        let new: Vec<&str> = new.lines().collect();
        let same = |(a, b): &(&&str, &&str)| a == b;
        let head = old.iter().zip(&new).take_while(same).count();
        let tail = old[head..]
            .iter()
            .rev()
            .zip(new[head..].iter().rev())
            .take_while(same)
            .count();
        for line in &old[head..old.len() - tail] {
            let _ = writeln!(out, "-{line}");
        }
        for line in &new[head..new.len() - tail] {
            let _ = writeln!(out, "+{line}");
        }
        let blob = BlobId(("new".to_owned() + path.as_str()).into());
        after.insert(path.clone(), (blob, Arc::from(content.as_slice())));
    }
    // Read anew, stable is what the candidate promised, and nothing is left to roll out.
    let again = Catalog::read(&after, &mut ParseCache::default());
    let again = again.canaries[&canary.id].as_ref().unwrap();
    assert_eq!(again.proposal, None, "{out}");
    assert_eq!(again.stable.revision, candidate.yields, "{out}");
    out
}

const NEW: &str = "{images: {app: 'reg/app:2'}}";

#[test]
fn images_are_written_where_they_are_set() {
    let manifest = deployment("web", ONE);
    assert_snapshot!(promoted(NEW, &[("web.yaml", &manifest)]), @"
    web.yaml
    -        image: reg/app:1 # now
    +        image: reg/app:2 # now
    ");
    let kustomization =
        "resources: [web.yaml]\nimages:\n- name: reg/app # ours\n  newTag: 1.5 # now\n";
    let unrelated = "images: [{name: reg/app, newTag: '0'}]\n";
    assert_snapshot!(promoted(NEW, &[
        ("web.yaml", &manifest),
        ("kustomization.yaml", kustomization),
        ("other/kustomization.yaml", unrelated),
    ]), @"
    kustomization.yaml
    -  newTag: 1.5 # now
    +  newTag: \"2\" # now
    ");
    assert_snapshot!(promoted("{images: {app: 'new/app@sha256:0123456789abcdef0123456789abcdef'}}", &[
        ("web.yaml", &manifest),
        ("kustomization.yaml", kustomization),
    ]), @"
    kustomization.yaml
    -  newTag: 1.5 # now
    +  digest: sha256:0123456789abcdef0123456789abcdef
    +  newName: new/app
    ");
    // Set to what the manifest says, and still the entry is what counts.
    let same = "resources: [web.yaml]\nimages: [{name: reg/app, newTag: '1'}]\n";
    assert_snapshot!(promoted(NEW, &[("web.yaml", &manifest), ("kustomization.yaml", same)]), @"
    kustomization.yaml
    -images: [{name: reg/app, newTag: '1'}]
    +images: [{name: reg/app, newTag: '2'}]
    ");
}

#[test]
fn of_a_chain_of_kustomizations_the_outermost_counts() {
    let manifest = deployment("web", ONE);
    let base = "resources: [web.yaml]\nimages: [{name: reg/app, newName: mirror/app, newTag: a}]\n";
    let prod = "resources: [../base]\nimages:\n- {name: mirror/app, newTag: b}\n- {name: reg/app, newTag: c}\n";
    assert_snapshot!(promoted("{images: {app: 'mirror/app:2'}}", &[
        ("base/web.yaml", &manifest),
        ("base/kustomization.yaml", base),
        ("prod/kustomization.yaml", prod),
    ]), @r#"
    prod/kustomization.yaml
    -- {name: mirror/app, newTag: b}
    +- {name: mirror/app, newTag: "2"}
    "#);
}

#[test]
fn an_entry_that_sets_more_is_left_to_people() {
    let two = "      initContainers: [{name: setup, image: 'reg/app:1'}]\n";
    let manifest = deployment("web", &format!("{two}{ONE}"));
    let kustomization = "resources: [web.yaml]\nimages: [{name: reg/app, newTag: x}]\n";
    assert_snapshot!(promoted(NEW, &[("web.yaml", &manifest), ("kustomization.yaml", kustomization)]), @"web.yaml:1:1: the image of the container `setup` would become `reg/app:2` instead of `reg/app:x`: it is set together with another's, or not all of its parts are; write it by hand, or mark where each part is written");
    assert_snapshot!(promoted("{images: {app: 'reg/app:2', setup: 'reg/app:2'}}", &[
        ("web.yaml", &manifest),
        ("kustomization.yaml", kustomization),
    ]), @r#"
    kustomization.yaml
    -images: [{name: reg/app, newTag: x}]
    +images: [{name: reg/app, newTag: "2"}]
    "#);
    let worker = deployment("worker", ONE);
    assert_snapshot!(promoted(NEW, &[
        ("web.yaml", &deployment("web", ONE)),
        ("worker.yaml", &worker),
        ("kustomization.yaml", "resources: [web.yaml, worker.yaml]\nimages: [{name: reg/app, newTag: x}]\n"),
    ]), @"
    kustomization.yaml:2:1: warning: `images` sets `reg/app` for the Deployment `worker` as well, which would follow a promotion of the canary `test/web` without a ladder of its own, so it will be left to you: set the image in the manifests, or mark where it is written (`# serin: test/web/<container>`)
    kustomization.yaml:1:1: the entry of `images` for `reg/app` also sets the image of the Deployment `worker`, which would follow without a ladder of its own: promote by hand, or give the two their own entries
    ");
    assert_snapshot!(promoted("{images: {app: reg/app}}", &[
        ("web.yaml", &deployment("web", ONE)),
        ("kustomization.yaml", "resources: [web.yaml]\nimages: [{name: reg/app, newTag: x}]\n"),
    ]), @"web.yaml:1:1: the image of the container `app` would become `reg/app:1` instead of `reg/app`: it is set together with another's, or not all of its parts are; write it by hand, or mark where each part is written");
}

#[test]
fn markers_say_where_else_an_image_is_written() {
    let manifest = deployment("web", ONE);
    let values = "web:\n  image:\n    repository: reg/app # serin: test/web/app:name\n    tag: 1.7   # serin: test/web/app:tag, by Helm\n";
    assert_snapshot!(promoted(NEW, &[("web.yaml", &manifest), ("values.yaml", values)]), @r#"
    values.yaml
    -    tag: 1.7   # serin: test/web/app:tag, by Helm
    +    tag: "2"   # serin: test/web/app:tag, by Helm
    "#);
    assert_snapshot!(promoted("{images: {app: 'new/app:2'}}", &[("web.yaml", &manifest), ("values.yaml", values)]), @r#"
    values.yaml
    -    repository: reg/app # serin: test/web/app:name
    -    tag: 1.7   # serin: test/web/app:tag, by Helm
    +    repository: new/app # serin: test/web/app:name
    +    tag: "2"   # serin: test/web/app:tag, by Helm
    "#);
    let resource = "apiVersion: example.com/v1\nkind: App\nmetadata: {name: web}\nspec:\n  image: 'reg/app:1'\t# serin: test/web/app\n";
    assert_snapshot!(promoted(NEW, &[("web.yaml", &manifest), ("app.yaml", resource)]), @"
    app.yaml
    -  image: 'reg/app:1'	# serin: test/web/app
    +  image: 'reg/app:2'	# serin: test/web/app
    ");
    // Only the name is marked: the tag is still the manifest's.
    let name = "a: reg/app # serin: test/web/app:name\n";
    assert_snapshot!(promoted(NEW, &[("web.yaml", &manifest), ("values.yaml", name)]), @"
    web.yaml
    -        image: reg/app:1 # now
    +        image: reg/app:2 # now
    ");
    let own = deployment("web", &ONE.replace("# now", "# serin: test/web/app"));
    assert_snapshot!(promoted(NEW, &[("web.yaml", &own)]), @"
    web.yaml
    -        image: reg/app:1 # serin: test/web/app
    +        image: reg/app:2 # serin: test/web/app
    ");
}

#[test]
fn markers_that_do_not_fit_are_told() {
    let manifest = deployment("web", ONE);
    let told = |values: &str| promoted(NEW, &[("web.yaml", &manifest), ("values.yaml", values)]);
    assert_snapshot!(told("a: x:1 # serin: test/web/app\nb: x # serin: test/web/app:tag\n"), @"canary.yaml:5:26: the image of the container `app` is marked at values.yaml:1 and the tag at values.yaml:2: leave one marker");
    assert_snapshot!(told("a: x:1 # serin: test/web/ap\n"), @"canary.yaml:5:26: values.yaml:1 marks the image of a container `ap`, which the Deployment does not have");
    assert_snapshot!(told("a: x y # serin: test/web/app\n"), @"canary.yaml:5:26: values.yaml:1 marks the image of the container `app`, which becomes `x y`, but it has no valid name");
    assert_snapshot!(told("a: {b: c} # serin: test/web/app\nd: e # serin: test/web/app:tga\n---\n# serin: podinfo\n"), @"
    values.yaml:1:11: the marker `serin: test/web/app` has to stand directly behind the value that it marks, on the same line, and no alias may refer to that value
    values.yaml:2:6: the marker `serin: test/web/app:tga` has to be `# serin: <namespace>/<canary>/<container>`, with `:name`, `:tag` or `:digest` at its end where only that part of the image is written
    values.yaml:4:1: the marker `serin: podinfo` has to be `# serin: <namespace>/<canary>/<container>`, with `:name`, `:tag` or `:digest` at its end where only that part of the image is written
    web.yaml
    -        image: reg/app:1 # now
    +        image: reg/app:2 # now
    ");
    assert_snapshot!(told("a: x # serin: test/wbe/app\nb: 'c # serin: test/web/app'\n"), @"
    values.yaml:1:6: warning: this marker has no effect: there is no canary `test/wbe` (did you mean `test/web`?)
    web.yaml
    -        image: reg/app:1 # now
    +        image: reg/app:2 # now
    ");
    assert_snapshot!(told("a: [ # none\nb: x # serin: test/web/app\n"), @"
    canary.yaml:5:26: values.yaml:2 marks the image of the container `app`, but that file is not valid YAML
    values.yaml:1:4: this is not valid YAML: unclosed bracket '['
    ");
    assert_snapshot!(
        promoted("{images: {app: 'reg/app@sha256:0123456789abcdef0123456789abcdef'}}", &[
            ("web.yaml", &manifest),
            ("values.yaml", "tag: v1 # serin: test/web/app:tag\n"),
        ]),
        @"web.yaml:1:1: the image of the container `app` would become `reg/app` instead of `reg/app@sha256:0123456789abcdef0123456789abcdef`: it is set together with another's, or not all of its parts are; write it by hand, or mark where each part is written"
    );
}

#[test]
fn a_patch_goes_into_the_manifest() {
    let manifest = deployment(
        "web",
        "      # one app\n      containers:\n        - name: app\n          image: reg/app:1 # now\n          env: # all\n            - name: A\n              value: 'a'\n            - {name: B, value: b}\n        - name: log\n          image: log:1\n      nodeSelector:\n        disk: ssd\n",
    );
    let patch = "{images: {app: 'reg/app:2'}, patch: {spec: {nodeSelector: null, containers: [{name: log, $patch: delete}, {name: app, args: [-v], env: [{name: A, value: 'c'}, {name: B, $patch: delete}, {name: C, value: 'yes'}]}]}}}";
    assert_snapshot!(promoted(patch, &[("web.yaml", &manifest)]), @r#"
    web.yaml
    -          image: reg/app:1 # now
    -          env: # all
    -            - name: A
    -              value: 'a'
    -            - {name: B, value: b}
    -        - name: log
    -          image: log:1
    -      nodeSelector:
    -        disk: ssd
    +          image: reg/app:2 # now
    +          env: # all
    +            - name: A
    +              value: 'c'
    +            - {name: C, value: "yes"}
    +          args:
    +            - -v
    "#);
}

#[test]
fn the_deployment_that_was_read_is_the_one_that_is_written() {
    let other = deployment("web", ONE)
        .replace(", namespace: test", "")
        .replace("apps/v1", "example.com/v1");
    let without = deployment("web", ONE)
        .replace(", namespace: test", "")
        .replace("app:1", "app:0");
    let all = format!("{other}---\n{without}---\n{}", deployment("web", ONE));
    let canary = canary(NEW);
    let files = tree(&[
        ("canary.yaml", &canary),
        ("service.yaml", SERVICE),
        ("web.yaml", &all),
    ]);
    let catalog = Catalog::read(&files, &mut ParseCache::default());
    let canary = catalog.canaries[&CanaryId::new("test", "web")]
        .as_ref()
        .unwrap();
    assert!(
        matches!(&canary.workload, Workload::Managed(managed) if managed.manifest.read()["metadata"]["namespace"] == "test")
    );
    let edits = promotion_edits(&files, canary, canary.proposal.as_ref().unwrap()).unwrap();
    let after = String::from_utf8(edits.into_values().next().unwrap()).unwrap();
    let at = all.rfind("app:1").unwrap();
    assert_eq!(after, format!("{}app:2{}", &all[..at], &all[at + 5..]));
    let twice = format!("{0}---\n{0}", deployment("web", ONE));
    assert_snapshot!(promoted(NEW, &[("web.yaml", &twice)]), @"canary.yaml:5:26: the Deployment `web` is written twice in web.yaml: leave one of them");
}
