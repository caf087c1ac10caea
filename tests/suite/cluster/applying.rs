//! How objects get into the cluster: their order, what is refused, what goes.

use serde_json::{Value, json};

use super::world::{APP, World, app, idle, moment, namespace_file};
use crate::rig::{deployment, routes};

/// A definition of a kind with one field.
fn definition(plural: &str, kind: &str) -> String {
    format!(
        "\
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {{name: {plural}.birds.example.com}}
spec:
  group: birds.example.com
  scope: Namespaced
  names: {{plural: {plural}, singular: {}, kind: {kind}, listKind: {kind}List}}
  versions:
  - name: v1
    served: true
    storage: true
    schema: {{openAPIV3Schema: {{type: object, properties: {{spec: {{type: object, properties: {{song: {{type: string}}}}}}}}}}}}
",
        kind.to_lowercase()
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn a_definition_and_an_object_of_it_in_one_commit() {
    let files = |ns: &str| {
        let finch = format!(
            "apiVersion: birds.example.com/v1\nkind: Finch\nmetadata: {{name: one, namespace: {ns}}}\nspec: {{song: trill}}\n"
        );
        vec![
            // The object comes first by name: the order is ours, not the files'.
            ("apps/a-finch.yaml".to_owned(), finch),
            ("apps/b-namespace.yaml".to_owned(), namespace_file(ns)),
            (
                "apps/c-definition.yaml".to_owned(),
                definition("finches", "Finch"),
            ),
        ]
    };
    let mut world = World::new("crd", files, "").await;
    let ns = world.namespace.clone();
    let serin = world.serin();
    let key = ("birds.example.com/v1", "Finch", ns.as_str(), "one");
    let definition = (
        "apiextensions.k8s.io/v1",
        "CustomResourceDefinition",
        "",
        "finches.birds.example.com",
    );
    let is_established = |found: Option<&Value>| {
        let conditions = found.and_then(|crd| crd["status"]["conditions"].as_array().cloned());
        conditions
            .into_iter()
            .flatten()
            .any(|c| c["type"] == "Established" && c["status"] == "True")
    };
    world
        .kube
        .until(definition, "established", is_established)
        .await;
    world
        .kube
        .until_known(key, "there", |found| found.is_some())
        .await;
    let log = serin.log();
    assert!(!log.contains("refuses"), "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_cluster_refuses_is_said_in_its_words_and_stops_nothing_else() {
    let files = |ns: &str| {
        let mut files = idle(ns);
        let typo = format!(
            "apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: typo, namespace: {ns}}}\ndatum: {{a: b}}\n"
        );
        let bad_name = format!(
            "apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: No_Name, namespace: {ns}}}\n"
        );
        let unknown = format!(
            "apiVersion: nowhere.example.com/v1\nkind: Ghost\nmetadata: {{name: boo, namespace: {ns}}}\n"
        );
        files.push(("apps/broken/typo.yaml".to_owned(), typo));
        files.push(("apps/broken/name.yaml".to_owned(), bad_name));
        files.push(("apps/broken/unknown.yaml".to_owned(), unknown));
        files.push(("apps/broken/yaml.yaml".to_owned(), "kind: [\n".to_owned()));
        files
    };
    let mut world = World::new("refused", files, "").await;
    let ns = world.namespace.clone();
    let mut serin = world.serin();
    world
        .kube
        .until(routes(&ns, "podinfo"), "there", |vs| vs.is_some())
        .await;
    serin.says(".datum: field not declared in schema");
    serin.says("the cluster knows no kind Ghost in nowhere.example.com/v1");
    serin.says("ConfigMap \"No_Name\" is invalid");
    serin.says("apps/broken/yaml.yaml");
    // An immutable field: the words are the server's, and mending it in Git is all that is needed.
    let someone = world.someone("alex");
    let other = app(&ns).replace(
        "matchLabels: {app: podinfo}",
        "matchLabels: {app: podinfo, track: stable}",
    );
    world.commit(&someone, "another selector", APP, &other);
    serin.says("field is immutable");
    let larger = app(&ns).replace("replicas: 2", "replicas: 3");
    world.commit(&someone, "back, and one more", APP, &larger);
    let has_three = |found: Option<&Value>| found.is_some_and(|d| d["spec"]["replicas"] == 3);
    world
        .kube
        .until(deployment(&ns, "podinfo"), "larger", has_three)
        .await;
}

fn settings(namespace: &str, name: &str) -> (String, String) {
    let text = format!(
        "apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: {name}, namespace: {namespace}}}\ndata: {{a: b}}\n"
    );
    (format!("apps/{name}.yaml"), text)
}

fn three(namespace: &str) -> Vec<(String, String)> {
    vec![
        ("apps/namespace.yaml".to_owned(), namespace_file(namespace)),
        settings(namespace, "one"),
        settings(namespace, "two"),
        settings(namespace, "three"),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn without_pruning_nothing_goes() {
    let mut world = World::new("unpruned", three, "").await;
    let ns = world.namespace.clone();
    let _serin = world.serin();
    let config = |name: &'static str| ("v1", "ConfigMap", ns.as_str(), name);
    world
        .kube
        .until(config("two"), "there", |found| found.is_some())
        .await;
    let someone = world.someone("alex");
    someone.insist("two goes", &|| someone.remove("apps/two.yaml"));
    world.commit(
        &someone,
        "four comes",
        "apps/four.yaml",
        &settings(&ns, "four").1,
    );
    world
        .kube
        .until(config("four"), "there", |found| found.is_some())
        .await;
    moment(1000).await;
    assert!(world.kube.get(config("two")).await.is_some());
}

#[tokio::test(flavor = "multi_thread")]
async fn pruning_takes_what_git_lost_but_never_more() {
    let mut world = World::new("pruned", three, ", prune: true").await;
    let ns = world.namespace.clone();
    let _serin = world.serin();
    let config = |name: &'static str| ("v1", "ConfigMap", ns.as_str(), name);
    world
        .kube
        .until(config("two"), "there", |found| found.is_some())
        .await;
    world
        .kube
        .until(config("three"), "there", |found| found.is_some())
        .await;
    let foreign = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "foreign", "namespace": ns}});
    world.kube.put(&foreign).await;
    world
        .kube
        .edit(
            config("three"),
            &json!({"metadata": {"annotations": {"serin.dev/prune": "disabled"}}}),
        )
        .await;
    let someone = world.someone("alex");
    someone.insist("two, three and the namespace go", &|| {
        for name in ["two", "three", "namespace"] {
            someone.remove(&format!("apps/{name}.yaml"));
        }
    });
    world
        .kube
        .until(config("two"), "gone", |found| found.is_none())
        .await;
    // A tree with a mistake is not the whole truth, and an empty one is none at all.
    someone.insist("a mistake, and one goes", &|| {
        someone.remove("apps/one.yaml");
        someone.write("apps/broken.yaml", "kind: [\n");
    });
    moment(2500).await;
    for name in ["one", "three", "foreign"] {
        assert!(world.kube.get(config(name)).await.is_some(), "{name}");
    }
    assert!(world.kube.get(("v1", "Namespace", "", &ns)).await.is_some());
    someone.insist("everything goes", &|| {
        someone.remove("apps/broken.yaml");
        someone.write("README.md", "nothing here\n");
    });
    moment(2500).await;
    assert!(
        world.kube.get(config("one")).await.is_some(),
        "an empty tree removes nothing"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn kustomizations_are_built_and_what_they_leave_out_is_not_applied() {
    let files = |ns: &str| {
        let overlay = format!(
            "resources: [../base]\nnamespace: {ns}\nnamePrefix: my-\nconfigMapGenerator: [{{name: made, literals: [a=b], options: {{disableNameSuffixHash: true}}}}]\n"
        );
        vec![
            (
                "base/kustomization.yaml".to_owned(),
                "resources: [one.yaml]\n".to_owned(),
            ),
            ("base/one.yaml".to_owned(), settings("ignored", "one").1),
            (
                "base/unlisted.yaml".to_owned(),
                settings("ignored", "unlisted").1,
            ),
            ("prod/kustomization.yaml".to_owned(), overlay),
            ("plain/namespace.yaml".to_owned(), namespace_file(ns)),
        ]
    };
    let mut world = World::new("kustomized", files, "").await;
    let ns = world.namespace.clone();
    let _serin = world.serin();
    let config = |name: &'static str| ("v1", "ConfigMap", ns.as_str(), name);
    world
        .kube
        .until(config("my-one"), "there", |found| found.is_some())
        .await;
    world
        .kube
        .until(config("my-made"), "there", |found| found.is_some())
        .await;
    assert!(world.kube.get(config("my-unlisted")).await.is_none());
    assert!(
        world
            .kube
            .get(("v1", "Namespace", "", "ignored"))
            .await
            .is_none()
    );
}
