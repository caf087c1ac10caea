//! Canaries among the other files of a repository.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::super::{Catalog, ParseCache, Workload};
use super::{DEPLOYMENT, SERVICE, SPEC, canary, path, read, sound, told};
use crate::domain::{BlobId, CanaryId};

fn with(extra: &[(&str, &str)]) -> Catalog {
    let spec = canary(SPEC);
    let mut files = vec![
        ("app/canary.yaml", spec.as_str()),
        ("app/deployment.yaml", DEPLOYMENT),
        ("app/service.yaml", SERVICE),
    ];
    files.retain(|(name, _)| extra.iter().all(|(other, _)| other != name));
    files.extend(extra.iter().filter(|(_, content)| !content.is_empty()));
    read(&files)
}

#[test]
fn one_file_holds_everything_between_other_peoples_objects() {
    let all = format!(
        "# a comment\n---\napiVersion: v1\nkind: ConfigMap\nmetadata: {{name: x}}\n---{DEPLOYMENT}---\n---{SERVICE}---\n{}",
        canary(SPEC)
    );
    let catalog = read(&[("all.yaml", &all)]);
    insta::assert_snapshot!(told(&catalog), @r#"
-> test/podinfo fine
"#);
    let canary = sound(&catalog);
    assert_eq!(canary.home.folder, path("podinfo.serin"));
    assert_eq!(canary.home.file, path("all.yaml"));
}

#[test]
fn what_is_not_in_the_tree_is_named_with_the_nearest() {
    insta::assert_snapshot!(told(&with(&[
        ("app/deployment.yaml", &DEPLOYMENT.replace("name: podinfo,", "name: podinfos,")),
        ("app/service.yaml", &SERVICE.replace("namespace: test", "namespace: prod")),
    ])), @r#"
app/canary.yaml:5:26: there is no Deployment `podinfo` in namespace `test` in this repository (did you mean `podinfos`?)
app/canary.yaml:6:20: there is no Service `podinfo` in namespace `test` in this repository; there is one in namespace `prod` (app/service.yaml)
-> test/podinfo rejected
"#);
    insta::assert_snapshot!(told(&with(&[
        ("app/deployment.yaml", ""),
        ("app/service.yaml", &SERVICE.replace("ports:", "ports: [")),
    ])), @r#"
app/canary.yaml:5:26: there is no Deployment `podinfo` in namespace `test` in this repository
app/canary.yaml:6:20: there is no Service `podinfo` in namespace `test` in this repository; there is one in app/service.yaml, which is not valid YAML
app/service.yaml:7:10: this is not valid YAML: unclosed bracket '['
-> test/podinfo rejected
"#);
}

#[test]
fn the_service_has_to_select_both_versions() {
    insta::assert_snapshot!(told(&with(&[
        ("app/service.yaml", &SERVICE.replace("{app: podinfo}", "{app: podinfo, serin.dev/track: stable}")),
    ])), @r#"
app/canary.yaml:5:26: the selector of the Service `podinfo` contains `serin.dev/track`, the label that tells stable from candidate: it would leave one of them out
-> test/podinfo rejected
"#);
    insta::assert_snapshot!(told(&with(&[
        ("app/service.yaml", &SERVICE.replace("{app: podinfo}", "{app: other}")),
    ])), @r#"
app/canary.yaml:5:26: the Service `podinfo` selects `app=other`, which the pods of the Deployment `podinfo` are not labelled with: it has to select both versions
-> test/podinfo rejected
"#);
    insta::assert_snapshot!(told(&with(&[
        ("app/service.yaml", &SERVICE.replace("selector: {app: podinfo}", "type: ExternalName")),
    ])), @r#"
app/canary.yaml:6:20: the Service `podinfo` has no selector: it has to select the pods of both versions
-> test/podinfo rejected
"#);
}

#[test]
fn the_port_has_to_exist() {
    let spec = SPEC.replace("service: podinfo", "service: podinfo, port: 80");
    insta::assert_snapshot!(told(&with(&[("app/canary.yaml", &canary(&spec))])), @r#"
app/canary.yaml:6:35: the Service `podinfo` has no port 80; its ports are: 9898 (http)
-> test/podinfo rejected
"#);
    insta::assert_snapshot!(told(&with(&[
        ("app/service.yaml", &SERVICE.replace("[{port: 9898, name: http}]", "[{port: 80}, {port: 9898, name: http}]")),
    ])), @r#"
app/canary.yaml:6:20: the Service `podinfo` has several ports (80, 9898 (http)): say which with `port`
-> test/podinfo rejected
"#);
}

#[test]
fn a_missing_track_label_is_waited_for_and_a_wrong_one_refused() {
    let without = with(&[(
        "app/deployment.yaml",
        &DEPLOYMENT.replace(", serin.dev/track: stable", ""),
    )]);
    let Workload::Managed(managed) = &sound(&without).workload else {
        panic!("managed");
    };
    assert_eq!(managed.stable_value, None);
    assert_eq!(managed.label_key, "serin.dev/track");
    insta::assert_snapshot!(told(&with(&[
        ("app/deployment.yaml", &DEPLOYMENT.replace("track: stable", "track: canary")),
    ])), @r#"
app/canary.yaml:5:26: stable's pods (app/deployment.yaml) are labelled `serin.dev/track: canary`, which is the candidate's: give them another value, such as `stable`
-> test/podinfo rejected
"#);
}

#[test]
fn a_deployment_of_the_users_is_never_overwritten() {
    insta::assert_snapshot!(told(&with(&[
        ("app/other.yaml", &DEPLOYMENT.replace("name: podinfo,", "name: podinfo-canary,")),
    ])), @r#"
app/canary.yaml:5:26: Serin would write a Deployment `podinfo-canary`, but app/other.yaml holds one already
-> test/podinfo rejected
"#);
    // Serin's own is no obstacle.
    let ours = DEPLOYMENT.replace("name: podinfo,", "name: podinfo-canary,");
    assert!(told(&with(&[("app/podinfo.serin/deployment.yaml", &ours)])).ends_with("fine\n"));
}

#[test]
fn two_canaries_do_not_share() {
    let second = canary(SPEC).replace("name: podinfo,", "name: second,");
    insta::assert_snapshot!(told(&with(&[("app/second.yaml", &second)])), @r#"
app/canary.yaml:3:18: the canary `test/second` (app/second.yaml:3) already has the Deployment `test/podinfo`, the Service `test/podinfo`, the host `podinfo.test.svc.cluster.local` in the mesh: two canaries cannot steer the same traffic
app/second.yaml:3:18: the canary `test/podinfo` (app/canary.yaml:3) already has the Deployment `test/podinfo`, the Service `test/podinfo`, the host `podinfo.test.svc.cluster.local` in the mesh: two canaries cannot steer the same traffic
-> test/podinfo rejected
-> test/second rejected
"#);
}

#[test]
fn hosts_are_compared_as_the_mesh_knows_them() {
    let other = |hosts: &str, gateways: &str| {
        let spec = format!(
            "workload: {{deployment: other}}\nroute: {{service: other, hosts: [{hosts}], gateways: [{gateways}]}}\nladder: [{{weight: 50}}]"
        );
        let spec = canary(&spec).replace("name: podinfo,", "name: other,");
        let deployment = DEPLOYMENT.replace("podinfo", "other");
        let service = SERVICE.replace("podinfo", "other");
        told(&with(&[(
            "app/other.yaml",
            &format!("{spec}---{deployment}---{service}"),
        )]))
    };
    assert!(
        other("podinfo.test.svc.cluster.local", "mesh")
            .contains("the host `podinfo.test.svc.cluster.local` in the mesh")
    );
    assert!(other("podinfo.test.svc", "mesh").contains("already has"));
    assert_eq!(
        other("podinfo", "public"),
        "-> test/other fine\n-> test/podinfo fine\n"
    );
    assert_eq!(
        other("podinfo.example.com", "mesh"),
        "-> test/other fine\n-> test/podinfo fine\n"
    );
}

#[test]
fn one_canary_written_twice_is_wrong_in_both_places() {
    insta::assert_snapshot!(told(&with(&[("copy/canary.yaml", &canary(SPEC))])), @r#"
app/canary.yaml:3:18: the canary `test/podinfo` is written twice: also in copy/canary.yaml:3
copy/canary.yaml:3:18: the canary `test/podinfo` is written twice: also in app/canary.yaml:3
-> test/podinfo rejected
"#);
}

#[test]
fn unparseable_files_stop_nobody_else() {
    insta::assert_snapshot!(told(&with(&[
        ("broken/deployment.yaml", "kind: Deployment\nmetadata: {name: x\n"),
        ("broken/canary.yaml", &canary(SPEC).replace("name: podinfo,", "name: broken,").replace("ladder: [", "ladder: [[")),
        ("broken/latin1.yaml", "kind: Service # \u{7}\n"),
        ("chart/templates/deployment.yaml", "kind: Deployment\n{{- if .Values.x }}\nmetadata: {name: {{ .Values.name }}}\n"),
    ])), @r#"
broken/canary.yaml:7:11: this is not valid YAML: unclosed bracket '['
broken/deployment.yaml:2:11: this is not valid YAML: unclosed bracket '{'
broken/latin1.yaml:1:17: this is not valid YAML: control character 0x07 is not allowed in YAML
-> test/broken rejected
-> test/podinfo fine
"#);
}

#[test]
fn a_mistake_in_one_document_spares_the_next() {
    let two = format!(
        "{}---\n{}---{}---{}",
        canary(SPEC)
            .replace("name: podinfo,", "name: broken,")
            .replace("ladder:", "ladder: ladder:"),
        canary(&SPEC.replace("podinfo", "fine")).replace("name: podinfo,", "name: fine,"),
        DEPLOYMENT.replace("podinfo", "fine"),
        SERVICE.replace("podinfo", "fine"),
    );
    insta::assert_snapshot!(told(&read(&[("two.yaml", &two)])), @r#"
two.yaml:7:17: this is not valid YAML: mapping values are not allowed in this context
-> test/broken rejected
-> test/fine fine
"#);
}

#[test]
fn charts_are_left_to_helm() {
    let template = canary(SPEC).replace("podinfo", "'{{ .Release.Name }}'");
    assert_eq!(
        told(&read(&[
            ("charts/x/Chart.yaml", "name: x\n"),
            ("charts/x/templates/canary.yaml", &template),
            (
                "charts/x/templates/sub/service.yaml",
                "{{ if x }}\nkind: Service\n"
            ),
        ])),
        ""
    );
}

#[test]
fn namespaces_come_from_kustomizations() {
    let bare = |text: &str| text.replace(", namespace: test", "");
    let base = [
        ("base/canary.yaml", bare(&canary(SPEC))),
        ("base/deployment.yaml", bare(DEPLOYMENT)),
        ("base/service.yaml", bare(SERVICE)),
        (
            "base/kustomization.yaml",
            "resources: [canary.yaml, ./deployment.yaml, service.yaml]\n".to_owned(),
        ),
    ];
    let overlay = |dir: &str, namespace: &str| {
        (
            format!("{dir}/kustomization.yaml"),
            format!("kind: Kustomization\nnamespace: {namespace}\nresources: [../base]\n"),
        )
    };
    let (prod, staging) = (overlay("prod", "prod"), overlay("staging", "staging"));
    let mut files: Vec<(&str, &str)> = base.iter().map(|(n, c)| (*n, c.as_str())).collect();
    insta::assert_snapshot!(told(&read(&files)), @r#"
-> default/podinfo fine
"#);
    files.push((&prod.0, &prod.1));
    insta::assert_snapshot!(told(&read(&files)), @r#"
-> prod/podinfo fine
"#);
    files.push((&staging.0, &staging.1));
    insta::assert_snapshot!(told(&read(&files)), @r#"
base/canary.yaml:3:18: kustomizations give this canary several namespaces (`prod`, `staging`): write `metadata.namespace`
-> prod/podinfo rejected
"#);
}

#[test]
fn manifests_without_namespace_next_to_the_canary_are_meant_for_it() {
    let bare = DEPLOYMENT.replace(", namespace: test", "");
    let far = bare.replace("6.8.0", "1.0.0");
    let catalog = with(&[
        ("app/deployment.yaml", &bare),
        ("far/deployment.yaml", &far),
    ]);
    assert_eq!(sound(&catalog).stable.summary, "podinfod=6.8.0");
    let catalog = with(&[("app/deployment.yaml", ""), ("far/deployment.yaml", &far)]);
    insta::assert_snapshot!(told(&catalog), @r#"
app/canary.yaml:5:26: there is no Deployment `podinfo` in namespace `test` in this repository; there is one in namespace `default` (far/deployment.yaml)
-> test/podinfo rejected
"#);
}

#[test]
fn of_two_manifests_of_one_name_the_nearer_is_meant() {
    let far = DEPLOYMENT.replace("6.8.0", "1.0.0");
    let catalog = with(&[("other/deployment.yaml", &far)]);
    assert_eq!(sound(&catalog).stable.summary, "podinfod=6.8.0");
    insta::assert_snapshot!(told(&with(&[("app/again.yaml", &far)])), @r#"
app/canary.yaml:5:26: the Deployment `podinfo` is in app/again.yaml and in app/deployment.yaml: it cannot be told which one is meant
-> test/podinfo rejected
"#);
}

#[test]
fn images_of_kustomizations_count_and_are_warned_about() {
    let kustomization = "resources: [deployment.yaml, service.yaml, podinfo.serin]\nimages:\n- {name: ghcr.io/stefanprodan/podinfo, newTag: 6.8.1}\n";
    let catalog = with(&[("app/kustomization.yaml", kustomization)]);
    assert_eq!(sound(&catalog).stable.summary, "podinfod=6.8.1");
    insta::assert_snapshot!(told(&catalog), @r#"
app/kustomization.yaml:2:1: warning: `images` also sets the image of the canary's Deployment in app/podinfo.serin, so `kustomize build` gives the candidate stable's image: take that folder in from a kustomization without `images`
-> test/podinfo fine
"#);
    let apart = kustomization.replace(", podinfo.serin", "");
    assert_eq!(
        told(&with(&[("app/kustomization.yaml", &apart)])),
        "-> test/podinfo fine\n"
    );
}

#[test]
fn a_folder_with_files_of_the_users_is_not_taken() {
    let spec = canary(&format!("{SPEC}\nfolder: base\n"));
    insta::assert_snapshot!(told(&with(&[
        ("app/canary.yaml", &spec),
        ("app/base/kustomization.yaml", "resources: []\n"),
    ])), @r#"
app/canary.yaml:3:18: `spec.folder` is app/base, but app/base/kustomization.yaml is there already and not Serin's: choose a folder that is empty
-> test/podinfo rejected
"#);
    assert_eq!(
        told(&with(&[("app/canary.yaml", &spec)])),
        "-> test/podinfo fine\n"
    );
}

const STATE: &str = "apiVersion: serin.dev/v1alpha1\nkind: Rollout\ncanary: test/podinfo\n";

#[test]
fn a_removed_canary_leaves_its_folder() {
    let folder = [
        ("app/podinfo.serin/rollout.yaml", STATE),
        ("app/canary.yaml", ""),
    ];
    insta::assert_snapshot!(told(&with(&folder)), @r#"
-> test/podinfo gone, app/podinfo.serin is left
"#);
    // It is still there, in its folder.
    assert_eq!(told(&with(&folder[..1])), "-> test/podinfo fine\n");
}

#[test]
fn a_canary_is_not_removed_while_it_may_be_in_a_file_that_nobody_can_read() {
    let broken = canary(SPEC).replace("metadata:", "metadata: {{");
    let folder = ("app/podinfo.serin/rollout.yaml", STATE);
    insta::assert_snapshot!(told(&with(&[folder, ("app/canary.yaml", &broken)])), @r#"
app/canary.yaml:3:12: this is not valid YAML: unclosed bracket '{'
-> test/podinfo rejected
"#);

    let tree = BTreeMap::from([(
        path(folder.0),
        (BlobId("1".into()), Arc::from(STATE.as_bytes())),
    )]);
    let skipped = [("app/canary.yaml".to_owned(), "it is a link".to_owned())];
    let catalog = Catalog::read_partial(&tree, &skipped, &mut ParseCache::default());
    assert_eq!(catalog.orphans, []);
    let rejected = catalog.canaries[&CanaryId::new("test", "podinfo")]
        .as_ref()
        .unwrap_err();
    assert_eq!(
        rejected.diagnostics[0].to_string(),
        "app/canary.yaml:1:1: the canary `test/podinfo` may be in this file, which was not read: it is a link"
    );
    let elsewhere = [("lib/x.yaml".to_owned(), "it is a link".to_owned())];
    let catalog = Catalog::read_partial(&tree, &elsewhere, &mut ParseCache::default());
    assert_eq!(catalog.orphans.len(), 1);
}

#[test]
fn a_copied_folder_is_ignored_and_said() {
    insta::assert_snapshot!(told(&with(&[
        ("app/podinfo.serin/rollout.yaml", STATE),
        ("copy/podinfo.serin/rollout.yaml", STATE),
    ])), @r#"
copy/podinfo.serin/rollout.yaml:1:1: warning: this is the state of the canary `test/podinfo`, whose folder is app/podinfo.serin: it is ignored here
-> test/podinfo fine
"#);
    let renamed =
        canary(&format!("{SPEC}\nfolder: podinfo.serin\n")).replace("name: podinfo,", "name: new,");
    insta::assert_snapshot!(told(&with(&[
        ("app/canary.yaml", &renamed),
        ("app/podinfo.serin/rollout.yaml", STATE),
    ])), @r#"
app/podinfo.serin/rollout.yaml:1:1: warning: this is the state of a canary `test/podinfo` that is no longer there, in the folder of `test/new`: it is ignored
-> test/new fine
"#);
}

#[test]
fn an_empty_tree_is_an_empty_catalog() {
    assert_eq!(read(&[]), Catalog::default());
    assert_eq!(
        read(&[("x.yaml", ""), ("y.yaml", "# nothing\n---\n")]),
        Catalog::default()
    );
}

/// The folders of two environments may be alike to the last byte: a promotion in one of them writes nothing in the other.
#[test]
fn of_files_in_the_very_same_bytes_each_canary_means_its_own() {
    let app = format!("{DEPLOYMENT}---{SERVICE}").replace(", namespace: test", "");
    let of = |namespace: &str| {
        let namespace = format!("namespace: {namespace}");
        canary(SPEC).replace("namespace: test", &namespace)
    };
    let (prod, staging) = (of("prod"), of("staging"));
    let alike = read(&[
        ("prod/app.yaml", app.as_str()),
        ("prod/canary.yaml", &prod),
        ("staging/app.yaml", &app),
        ("staging/canary.yaml", &staging),
    ]);
    let file_of = |catalog: &Catalog, namespace: &str| {
        let id = CanaryId::new(namespace, "podinfo");
        let Ok(canary) = &catalog.canaries[&id] else {
            panic!("{}", told(catalog));
        };
        let Workload::Managed(managed) = &canary.workload else {
            panic!("managed");
        };
        managed.file.clone()
    };
    assert_eq!(file_of(&alike, "prod"), path("prod/app.yaml"));
    assert_eq!(file_of(&alike, "staging"), path("staging/app.yaml"));

    // Also where the file says the namespace, and where a copy lies deeper.
    let app = format!("{DEPLOYMENT}---{SERVICE}");
    let spec = canary(SPEC);
    let copied = read(&[
        ("prod/app.yaml", app.as_str()),
        ("staging/app.yaml", &app),
        ("staging/a/app.yaml", &app),
        ("staging/canary.yaml", &spec),
    ]);
    assert_eq!(file_of(&copied, "test"), path("staging/app.yaml"));
}
