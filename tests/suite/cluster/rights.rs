//! What an account may not do, what admission refuses, and who may have an object.

use serde_json::{Value, json};

use super::world::{World, by, idle, moment};
use crate::git::rig::Rig;
use crate::rig::{Key, control_plane, routes};

/// Everything in the namespaces that it is bound in.
fn all() -> Value {
    json!([{"apiGroups": ["*"], "resources": ["*"], "verbs": ["*"]}])
}

/// What Serin needs to look and to show, everywhere.
fn looks() -> Value {
    json!([
        {"apiGroups": ["*"], "resources": ["*"], "verbs": ["list", "watch"]},
        {"apiGroups": ["serin.dev"], "resources": ["canaries/status"], "verbs": ["patch"]},
        {"apiGroups": ["events.k8s.io"], "resources": ["events"], "verbs": ["create", "patch"]},
    ])
}

fn settings(namespace: &str, name: &str) -> (String, String) {
    let text = format!(
        "apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: {name}, namespace: {namespace}}}\ndata: {{a: b}}\n"
    );
    (format!("apps/{namespace}-{name}.yaml"), text)
}

/// The application, and settings in a namespace beside its own.
fn beside(ns: &str) -> Vec<(String, String)> {
    let mut files = idle(ns);
    files.push(settings(&format!("{ns}-other"), "beside"));
    files
}

async fn make_namespaces(world: &World, names: &[&str]) {
    for name in names {
        let namespace =
            json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}});
        world.kube.put(&namespace).await;
    }
}

fn config_map<'a>(namespace: &'a str, name: &'a str) -> Key<'a> {
    ("v1", "ConfigMap", namespace, name)
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_account_may_not_write_says_so_and_stops_nothing_else() {
    let world = World::new("confined", beside, "").await;
    let ns = world.namespace.clone();
    let other = format!("{ns}-other");
    make_namespaces(&world, &[&ns, &other]).await;
    world.kube.account((&ns, "looks"), None, looks()).await;
    let token = world.kube.account((&ns, "looks"), Some(&ns), all()).await;
    let path = control_plane().kubeconfig_of(&ns, &token);
    let mut start = world.another("confined", &world.config(&by(&path), ""));
    let mut serin = start.start();
    let key = routes(&ns, "podinfo");
    let before = world.kube.until(key, "there", |vs| vs.is_some()).await;
    serin.says("configmaps \"beside\" is forbidden");
    assert!(world.kube.get(config_map(&other, "beside")).await.is_none());
    world.kube.delete(key).await;
    let is_back = |vs: Option<&Value>| vs.is_some_and(|vs| vs["spec"] == before["spec"]);
    world.kube.until(key, "there again", is_back).await;
    // As soon as it may, it does, without a restart or a commit.
    let more =
        json!([{"apiGroups": [""], "resources": ["configmaps"], "verbs": ["create", "patch"]}]);
    world.kube.account((&ns, "looks"), Some(&other), more).await;
    world
        .kube
        .until(config_map(&other, "beside"), "there", |c| c.is_some())
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repository_of_one_namespace_needs_no_right_elsewhere() {
    let world = World::new("within", beside, "").await;
    let ns = world.namespace.clone();
    let other = format!("{ns}-other");
    make_namespaces(&world, &[&ns, &other]).await;
    let token = world.kube.account((&ns, "within"), Some(&ns), all()).await;
    let path = control_plane().kubeconfig_of(&ns, &token);
    let config = world.config(&by(&path), &format!(", namespaces: [{ns}]"));
    let mut start = world.another("within", &config);
    let mut serin = start.start();
    let key = routes(&ns, "podinfo");
    world.kube.until(key, "there", |vs| vs.is_some()).await;
    serin.says("outside of the namespaces");
    world.kube.delete(key).await;
    world
        .kube
        .until(key, "there again", |vs| vs.is_some())
        .await;
    assert!(world.kube.get(config_map(&other, "beside")).await.is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn each_repository_acts_as_its_own_account() {
    let world = World::new("as", beside, "").await;
    let ns = world.namespace.clone();
    let other = format!("{ns}-other");
    make_namespaces(&world, &[&ns, &other]).await;
    let act = json!([{"apiGroups": [""], "resources": ["serviceaccounts"], "resourceNames": ["deployer"], "verbs": ["impersonate"]}]);
    let own = looks();
    world.kube.account((&ns, "serin"), None, own).await;
    let token = world.kube.account((&ns, "serin"), Some(&ns), act).await;
    world
        .kube
        .account((&ns, "deployer"), Some(&ns), all())
        .await;
    let seeing = json!([{"apiGroups": ["*"], "resources": ["*"], "verbs": ["list", "watch"]}]);
    world.kube.account((&ns, "deployer"), None, seeing).await;
    let path = control_plane().kubeconfig_of(&ns, &token);
    let config = world.config(&by(&path), &format!(", impersonate: {ns}/deployer"));
    let mut start = world.another("as", &config);
    let mut serin = start.start();
    let key = routes(&ns, "podinfo");
    world.kube.until(key, "there", |vs| vs.is_some()).await;
    serin.says(&format!(
        "User \"system:serviceaccount:{ns}:deployer\" cannot"
    ));
    let canary = ("serin.dev/v1alpha1", "Canary", ns.as_str(), "podinfo");
    let is_shown = |c: Option<&Value>| c.is_some_and(|c| c["status"]["phase"] == "Idle");
    world.kube.until(canary, "shown", is_shown).await;
    // Everything that belongs to the repository was written as its account, and nothing else was.
    for call in control_plane().audited(&ns, "serin") {
        let of_own = ["canaries", "events"].map(Value::from);
        let resource = &call["objectRef"]["resource"];
        let is_write = !["list", "watch", "get"].contains(&call["verb"].as_str().unwrap());
        let is_acting =
            call["impersonatedUser"]["username"] == format!("system:serviceaccount:{ns}:deployer");
        let status = call["objectRef"]["subresource"] == "status";
        let shows = of_own.contains(resource) && (status || *resource == "events");
        assert!(!is_write || is_acting != shows, "{call:#}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_admission_refuses_is_said_in_its_words() {
    let refused = |ns: &str| {
        let mut files = idle(ns);
        files.push(settings(ns, "refused"));
        files
    };
    let mut world = World::new("admission", refused, "").await;
    let ns = world.namespace.clone();
    let policy = json!({
        "apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingAdmissionPolicy",
        "metadata": {"name": ns},
        "spec": {
            "matchConstraints": {"resourceRules": [{
                "apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE", "UPDATE"], "resources": ["configmaps"],
            }]},
            "validations": [{
                "expression": format!("object.metadata.namespace != '{ns}' || object.metadata.name != 'refused'"),
                "message": "settings of this name are not liked here",
            }],
        },
    });
    let binding = json!({
        "apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingAdmissionPolicyBinding",
        "metadata": {"name": ns}, "spec": {"policyName": ns, "validationActions": ["Deny"]},
    });
    world.kube.put(&policy).await;
    world.kube.put(&binding).await;
    // A policy counts a moment after it was made.
    make_namespaces(&world, &[&ns]).await;
    let probe = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "refused", "namespace": ns}});
    while world.kube.apply("probe", &probe).await.is_ok() {
        world.kube.delete(config_map(&ns, "refused")).await;
        moment(100).await;
    }
    let mut serin = world.serin();
    serin.says("settings of this name are not liked here");
    world
        .kube
        .until(routes(&ns, "podinfo"), "there", |vs| vs.is_some())
        .await;
    world
        .kube
        .delete((
            "admissionregistration.k8s.io/v1",
            "ValidatingAdmissionPolicyBinding",
            "",
            &ns,
        ))
        .await;
    world
        .kube
        .until(config_map(&ns, "refused"), "there", |c| c.is_some())
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_repositories_with_one_canary_the_first_keeps_it() {
    let world = World::new("clash", idle, "").await;
    let ns = world.namespace.clone();
    let files = idle(&ns);
    let files: Vec<(&str, &str)> = files
        .iter()
        .filter(|(path, _)| !path.ends_with("namespace.yaml"))
        .map(|(path, text)| (path.as_str(), text.as_str()))
        .collect();
    let rival = Rig::with(&files);
    let name = |rig: &Rig, name: &str| {
        format!(
            "{{url: '{}', branch: main, poll: 1s, pushInterval: 1s, name: {name}}}",
            rig.remote().display()
        )
    };
    let config = |repositories: &[String]| {
        format!(
            "repositories: [{}]\nprometheus: {{url: '{}'}}\ncluster: {{{}}}\n",
            repositories.join(", "),
            world.prometheus,
            by(&control_plane().admin())
        )
    };
    let one = config(&[name(&world.git, "one")]);
    let serin = world.another("clash", &one).start();
    let key = routes(&ns, "podinfo");
    world.kube.until(key, "there", |vs| vs.is_some()).await;
    let canary = ("serin.dev/v1alpha1", "Canary", ns.as_str(), "podinfo");
    let is_ready = |c: Option<&Value>| c.is_some_and(|c| c["status"]["phase"] == "Idle");
    let shown = world.kube.until(canary, "shown", is_ready).await;
    drop(serin);
    let both = config(&[name(&rival, "two"), name(&world.git, "one")]);
    let mut serin = world.another("clash", &both).start();
    serin.says("it belongs to the repository one");
    serin.says("is in another repository as well");
    moment(3000).await;
    // Nobody fights: the objects are the first one's, and stay as they are.
    let owner = |object: &Value| object["metadata"]["labels"]["serin.dev/repository"].clone();
    let after = world.kube.get(canary).await.unwrap();
    assert_eq!(owner(&after), owner(&shown));
    assert_eq!(
        after["metadata"]["generation"],
        shown["metadata"]["generation"]
    );
    let settled = world.kube.get(key).await.unwrap()["metadata"]["resourceVersion"].clone();
    moment(1500).await;
    let later = world.kube.get(key).await.unwrap();
    assert_eq!(later["metadata"]["resourceVersion"], settled);
    let said = world.kube.list("events.k8s.io/v1", "Event", &ns).await;
    let clashes = said.iter().filter(|event| event["reason"] == "NameClash");
    assert_eq!(clashes.count(), 1, "{said:#?}");
}
