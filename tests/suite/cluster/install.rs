//! The chart, installed by real Helm, and the engine under the chart's own account, with its configuration: a right that
//! is missing fails the story, and one that nobody uses fails the comparison.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};

use super::agents::{self, Agent};
use super::rollout::{is_promoted, no_step_twice};
use super::world::{APP, CANARY, LADDER, NEXT, World, canary, idle, moment};
use crate::chart::{chart, helm};
use crate::rig::{Client, control_plane, deployment, routes};
use crate::support::serin::Start;

/// Runs Helm away from the threads that others wait on.
async fn helmed(arguments: &[&str]) -> Result<Value, String> {
    let arguments: Vec<String> = arguments.iter().map(|a| (*a).to_owned()).collect();
    let run = move || helm(&arguments.iter().map(String::as_str).collect::<Vec<_>>());
    tokio::task::spawn_blocking(run).await.unwrap()
}

async fn install(command: &str, values: &Value, namespace: &str) {
    let kubeconfig = control_plane().admin();
    let kubeconfig = kubeconfig.to_str().unwrap();
    helmed(&[
        command,
        &chart(),
        &values.to_string(),
        kubeconfig,
        namespace,
    ])
    .await
    .unwrap();
}

/// The values that somebody needs to write.
fn values(world: &World) -> Value {
    json!({
        "repositories": [{"url": world.git.remote(), "branch": "main", "poll": "1s", "pushInterval": "1s"}],
        "prometheus": {"url": world.prometheus},
    })
}

/// `serin run` with the configuration that the chart made, as the account that it made; where it answers as well.
async fn as_installed(world: &World, namespace: &str) -> (Start, String) {
    let key = ("v1", "ConfigMap", namespace, "serin");
    let map = world.kube.get(key).await.unwrap();
    let text = map["data"]["serin.yaml"].as_str().unwrap();
    let mut config: Value = serde_yaml::from_str(text).unwrap();
    let token = world.kube.token(namespace, "serin").await;
    let path = control_plane().kubeconfig_of(&format!("{namespace}-serin"), &token);
    // A process outside of a pod finds the account's token in a file, and its copies in a folder of its own.
    assert_eq!(config["cluster"]["connect"], "in-cluster");
    config["cluster"]["connect"] = json!("kubeconfig");
    config["cluster"]["kubeconfig"] = json!(path);
    config["cacheDir"] = json!(world.git.path("cache"));
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = port.local_addr().unwrap().to_string();
    drop(port);
    config["listen"] = json!(address);
    let start = world
        .another("installed", &serde_yaml::to_string(&config).unwrap())
        .env("SERIN_IDENTITY", "serin-0");
    (start, address)
}

/// Status and body of a page.
fn page(address: &str, path: &str) -> String {
    use std::io::{Read as _, Write as _};
    let Ok(mut stream) = std::net::TcpStream::connect(address) else {
        return String::new();
    };
    stream
        .set_read_timeout(Some(Duration::from_secs(5)))
        .unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nHost: serin\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    text
}

/// Calls of the account that the server refused.
fn refused(namespace: &str) -> Vec<String> {
    let calls = control_plane().audited(namespace, "serin");
    assert!(!calls.is_empty(), "nothing was written down");
    calls
        .iter()
        .filter(|call| call["responseStatus"]["code"] == 403)
        .map(|call| format!("{} {}", call["verb"], call["requestURI"]))
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn helm_install_then_nothing_but_commits() {
    let world = World::measured("installed", idle, "").await;
    let ns = world.namespace.clone();
    let system = "serin-system";
    install("install", &values(&world), system).await;
    let (mut start, address) = as_installed(&world, system).await;
    let serin = start.start();
    let key = routes(&ns, "podinfo");
    world.kube.until(key, "there", |vs| vs.is_some()).await;
    for _ in 0..100 {
        if page(&address, "/readyz").starts_with("HTTP/1.1 200") {
            break;
        }
        moment(50).await;
    }
    assert!(page(&address, "/readyz").starts_with("HTTP/1.1 200"));
    assert!(page(&address, "/healthz").starts_with("HTTP/1.1 200"));

    let text = canary(&ns, NEXT, "[{header: x-user, exact: [alexis]}]", LADDER);
    world.commit(&world.someone("alex"), "podinfo 6.9.0", CANARY, &text);
    world
        .kube
        .until(deployment(&ns, "podinfo"), "promoted", is_promoted)
        .await;
    let shown = ("serin.dev/v1alpha1", "Canary", ns.as_str(), "podinfo");
    let is_done =
        |c: Option<&Value>| c.is_some_and(|c| c["status"]["conditions"][0]["reason"] == "Promoted");
    world.kube.until(shown, "promoted", is_done).await;
    assert_eq!(refused(system), [""; 0]);
    let log = serin.log();
    assert!(
        !log.contains("forbidden") && !log.contains("refuses"),
        "{log}"
    );
    let metrics = page(&address, "/metrics");
    assert!(
        metrics.contains("serin_transitions_total") && metrics.contains("serin_leader 1"),
        "{metrics}"
    );

    // An upgrade changes the engine's environment, not the rollouts; an uninstall leaves traffic as it is.
    let before = world.kube.get(key).await.unwrap();
    let mut more = values(&world);
    more["verbose"] = json!(1);
    install("upgrade", &more, system).await;
    drop(serin);
    let kubeconfig = control_plane().admin();
    helmed(&["uninstall", kubeconfig.to_str().unwrap(), system])
        .await
        .unwrap();
    let after = world.kube.get(key).await.unwrap();
    assert_eq!(
        after["metadata"]["resourceVersion"],
        before["metadata"]["resourceVersion"]
    );
    assert!(
        world.kube.get(shown).await.is_some(),
        "canaries outlive the chart"
    );
    let account = ("v1", "ServiceAccount", system, "serin");
    assert!(world.kube.get(account).await.is_none());
    no_step_twice(&world);
}

/// `group/resource verb`.
type Right = String;

fn right(group: &str, resource: &str, verb: &str) -> Right {
    format!("{group}/{resource} {verb}")
}

/// What roles grant.
fn granted<'a>(roles: impl Iterator<Item = &'a Value>) -> BTreeSet<Right> {
    let texts = |rule: &Value, field: &str| -> Vec<String> {
        let list = rule[field].as_array().into_iter().flatten();
        list.map(|text| text.as_str().unwrap().to_owned()).collect()
    };
    let mut rights = BTreeSet::new();
    for rule in roles.flat_map(|role| role["rules"].as_array().unwrap()) {
        for group in texts(rule, "apiGroups") {
            for resource in texts(rule, "resources") {
                for verb in texts(rule, "verbs") {
                    rights.insert(right(&group, &resource, &verb));
                }
            }
        }
    }
    rights
}

/// What an account used. An apply that makes an object needs the right to create it as well.
fn used(namespace: &str) -> BTreeSet<Right> {
    let mut rights = BTreeSet::new();
    for call in control_plane().audited(namespace, "serin") {
        let object = &call["objectRef"];
        let Some(resource) = object["resource"].as_str() else {
            continue;
        };
        let group = object["apiGroup"].as_str().unwrap_or_default();
        let resource = match object["subresource"].as_str() {
            Some(part) => format!("{resource}/{part}"),
            None => resource.to_owned(),
        };
        let verb = call["verb"].as_str().unwrap();
        rights.insert(right(group, &resource, verb));
        if verb == "patch" && call["responseStatus"]["code"] == 201 {
            rights.insert(right(group, &resource, "create"));
        }
    }
    rights
}

/// Roles of the chart, as they are in the cluster.
async fn roles(kube: &Client, namespace: &str) -> Vec<Value> {
    const RBAC: &str = "rbac.authorization.k8s.io/v1";
    let wide = format!("serin-{namespace}");
    let keys = [
        (RBAC, "ClusterRole", "", wide.as_str()),
        (RBAC, "Role", namespace, "serin-leases"),
    ];
    let mut found = Vec::new();
    for key in keys {
        found.push(kube.get(key).await.unwrap());
    }
    found
}

/// One object of every kind that the chart grants for repositories.
fn every_kind(ns: &str) -> Vec<(String, String)> {
    let of = |version: &str, kind: &str, more: &str| {
        format!(
            "apiVersion: {version}\nkind: {kind}\nmetadata: {{name: one, namespace: {ns}}}\n{more}\n"
        )
    };
    let pods = "selector: {matchLabels: {app: one}}, template: {metadata: {labels: {app: one}}, spec: {containers: [{name: c, image: i}]}}";
    let job = "template: {spec: {restartPolicy: Never, containers: [{name: c, image: i}]}}";
    let one = "spec: {a: {b: c}}";
    let list = [
        of("v1", "ConfigMap", "data: {a: b}"),
        of("v1", "ServiceAccount", ""),
        of("apps/v1", "DaemonSet", &format!("spec: {{{pods}}}")),
        of(
            "apps/v1",
            "StatefulSet",
            &format!("spec: {{serviceName: one, {pods}}}"),
        ),
        of(
            "autoscaling/v2",
            "HorizontalPodAutoscaler",
            "spec: {maxReplicas: 2, scaleTargetRef: {apiVersion: apps/v1, kind: Deployment, name: one}}",
        ),
        of(
            "batch/v1",
            "CronJob",
            &format!("spec: {{schedule: '0 0 1 1 *', jobTemplate: {{spec: {{{job}}}}}}}"),
        ),
        of("batch/v1", "Job", &format!("spec: {{{job}}}")),
        of("networking.istio.io/v1", "Gateway", one),
        of("networking.istio.io/v1", "ServiceEntry", one),
        of(
            "networking.k8s.io/v1",
            "Ingress",
            "spec: {defaultBackend: {service: {name: one, port: {number: 80}}}}",
        ),
        of(
            "networking.k8s.io/v1",
            "NetworkPolicy",
            "spec: {podSelector: {}}",
        ),
        of(
            "policy/v1",
            "PodDisruptionBudget",
            "spec: {minAvailable: 1, selector: {matchLabels: {app: one}}}",
        ),
        of("security.istio.io/v1", "AuthorizationPolicy", one),
    ];
    let name = ns.replace('-', "");
    let definition = format!(
        "apiVersion: apiextensions.k8s.io/v1\nkind: CustomResourceDefinition\nmetadata: {{name: x{name}s.example.com}}\n\
         spec: {{group: example.com, scope: Namespaced, names: {{plural: x{name}s, singular: x{name}, kind: X{name}, listKind: X{name}List}}, \
         versions: [{{name: v1, served: true, storage: true, schema: {{openAPIV3Schema: {{type: object}}}}}}]}}\n"
    );
    let mut files = idle(ns);
    let all = list.iter().enumerate();
    files.extend(all.map(|(index, text)| (format!("apps/kinds/{index}.yaml"), text.clone())));
    files.push(("apps/kinds/definition.yaml".to_owned(), definition));
    files
}

async fn stubs(kube: &Client) {
    for (group, kind, plural) in [
        ("networking.istio.io", "Gateway", "gateways"),
        ("networking.istio.io", "ServiceEntry", "serviceentries"),
        (
            "security.istio.io",
            "AuthorizationPolicy",
            "authorizationpolicies",
        ),
    ] {
        kube.define(group, "v1", kind, plural).await;
    }
}

fn compare(granted: &BTreeSet<Right>, used: &BTreeSet<Right>) {
    let missing: Vec<&Right> = used.difference(granted).collect();
    let unused: Vec<&Right> = granted.difference(used).collect();
    assert!(
        missing.is_empty() && unused.is_empty(),
        "used and not granted: {missing:#?}\ngranted and never used: {unused:#?}"
    );
}

/// A candidate that never becomes ready, so that its pods are asked why.
const STUCK: &str = "{images: {podinfod: 'ghcr.io/stefanprodan/podinfo:6.9.0'}, patch: {metadata: {annotations: {test/waiting: ImagePullBackOff}}}}";

/// Everything there is to do with one installation: all kinds are made, a candidate comes and goes, drift is repaired
/// twice, a replica starts and stops.
async fn use_everything(world: &World, system: &str) {
    let ns = &world.namespace;
    let (mut start, _) = as_installed(world, system).await;
    let mut serin = start.start();
    let key = routes(ns, "podinfo");
    world.kube.until(key, "there", |vs| vs.is_some()).await;
    for (version, kind) in [
        ("networking.istio.io/v1", "ServiceEntry"),
        ("security.istio.io/v1", "AuthorizationPolicy"),
        ("batch/v1", "Job"),
        ("policy/v1", "PodDisruptionBudget"),
    ] {
        world
            .kube
            .until((version, kind, ns, "one"), "there", |o| o.is_some())
            .await;
    }
    for _ in 0..2 {
        world.kube.delete(key).await;
        world
            .kube
            .until(key, "there again", |vs| vs.is_some())
            .await;
    }
    let someone = world.someone("alex");
    let text = canary(ns, STUCK, "[]", LADDER);
    world.commit(&someone, "stuck", CANARY, &text);
    serin.says("waiting for the candidate to become ready");
    let candidate = deployment(ns, "podinfo-canary");
    world.kube.until(candidate, "there", |d| d.is_some()).await;
    serin.says("ImagePullBackOff");
    let text = canary(ns, NEXT, "[]", "[{weight: 0, hold: 1h}, {weight: 100}]");
    world.commit(&someone, "one that starts", CANARY, &text);
    serin.says("soaking until");
    let text = canary(ns, "null", "[]", LADDER);
    world.commit(&someone, "no candidate", CANARY, &text);
    world.kube.until(candidate, "gone", |d| d.is_none()).await;
    // Everything but the application leaves Git.
    someone.insist("only the application stays", &|| {
        let kept = [APP, super::world::NAMESPACE];
        let all = someone.git(&["ls-files", "apps/kinds", CANARY]);
        for path in all.lines().filter(|path| !kept.contains(path)) {
            someone.remove(path);
        }
    });
    world.kube.until(key, "gone", |vs| vs.is_none()).await;
    // It outlives the routes by some seconds, and what holds it goes after it.
    let rule = ("networking.istio.io/v1", "DestinationRule", key.2, key.3);
    world.kube.until(rule, "gone", |dr| dr.is_none()).await;
    moment(3000).await;
    let stopped = tokio::task::spawn_blocking(|| serin.stop()).await.unwrap();
    assert!(stopped.success(), "{stopped}");
    assert_eq!(refused(system), [""; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_chart_grants_what_is_used_and_nothing_else() {
    let world = World::new("rights", every_kind, "").await;
    stubs(&world.kube).await;
    let system = format!("{}-system", world.namespace);
    let mut values = values(&world);
    values["crds"] = json!({"install": false});
    install("install", &values, &system).await;
    use_everything(&world, &system).await;
    compare(
        &granted(roles(&world.kube, &system).await.iter()),
        &used(&system),
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_with_pruning() {
    let files = |ns: &str| {
        let mut files = every_kind(ns);
        let secret = format!(
            "apiVersion: v1\nkind: Secret\nmetadata: {{name: one, namespace: {ns}}}\nstringData: {{a: b}}\n"
        );
        let doomed = format!("apiVersion: v1\nkind: Namespace\nmetadata: {{name: {ns}-doomed}}\n");
        let service = format!(
            "apiVersion: v1\nkind: Service\nmetadata: {{name: one, namespace: {ns}}}\nspec: {{ports: [{{port: 80}}]}}\n"
        );
        files.push(("apps/kinds/secret.yaml".to_owned(), secret));
        files.push(("apps/kinds/namespace.yaml".to_owned(), doomed));
        files.push(("apps/kinds/service.yaml".to_owned(), service));
        files
    };
    let world = World::new("prunes", files, "").await;
    stubs(&world.kube).await;
    let system = format!("{}-system", world.namespace);
    let mut values = values(&world);
    values["crds"] = json!({"install": false});
    values["cluster"] = json!({"prune": true, "pruneNamespaces": true});
    install("install", &values, &system).await;
    // Roles can be removed without the rights that they grant: these two say that they came from this branch.
    let account = ("v1", "ServiceAccount", system.as_str(), "serin");
    world.kube.until(account, "there", |a| a.is_some()).await;
    let namespace =
        json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": world.namespace}});
    world.kube.put(&namespace).await;
    let probe = ("v1", "Namespace", "", world.namespace.as_str());
    let kube = world.kube.clone();
    let labelled = tokio::spawn({
        let namespace = world.namespace.clone();
        async move {
            let label = "serin.dev/repository";
            let probe = ("v1", "Namespace", "", namespace.as_str());
            let is_marked =
                |n: Option<&Value>| n.is_some_and(|n| n["metadata"]["labels"][label].is_string());
            let found = kube.until(probe, "applied", is_marked).await;
            let labels = json!({label: found["metadata"]["labels"][label]});
            const RBAC: &str = "rbac.authorization.k8s.io";
            let metadata = json!({"name": "one", "namespace": namespace, "labels": labels});
            kube.put(&json!({"apiVersion": format!("{RBAC}/v1"), "kind": "Role", "metadata": metadata, "rules": []})).await;
            kube.put(&json!({
                "apiVersion": format!("{RBAC}/v1"), "kind": "RoleBinding", "metadata": metadata,
                "roleRef": {"apiGroup": RBAC, "kind": "Role", "name": "one"}, "subjects": [],
            }))
            .await;
        }
    });
    use_everything(&world, &system).await;
    labelled.await.unwrap();
    assert!(world.kube.get(probe).await.is_some());
    compare(
        &granted(roles(&world.kube, &system).await.iter()),
        &used(&system),
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_when_somebody_else_applies() {
    let world = World::new("looks-on", idle, "").await;
    let ns = world.namespace.clone();
    agents::define(&world.kube).await;
    let system = format!("{ns}-system");
    let mut values = values(&world);
    values["crds"] = json!({"install": false});
    values["cluster"] = json!({"applier": "external"});
    let poke = |kind: &str| json!({"kind": kind, "namespace": system, "name": "apps"});
    values["repositories"][0]["poke"] = json!([
        poke("GitRepository"),
        poke("Kustomization"),
        poke("Application")
    ]);
    install("install", &values, &system).await;
    for object in agents::set_up(&system) {
        world.kube.put(&object).await;
    }
    let _agent = Agent::start(&world, "kustomize-controller", Duration::ZERO);
    let (mut start, _) = as_installed(&world, &system).await;
    let mut serin = start.start();
    let key = routes(&ns, "podinfo");
    world.kube.until(key, "there", |vs| vs.is_some()).await;
    let someone = world.someone("alex");
    let candidate = deployment(&ns, "podinfo-canary");
    let text = canary(&ns, STUCK, "[]", LADDER);
    world.commit(&someone, "stuck", CANARY, &text);
    serin.says("ImagePullBackOff");
    // Twice, so that events of the same words count up.
    for round in 0..2 {
        let text = canary(&ns, "null", "[]", LADDER);
        world.commit(&someone, "no candidate", CANARY, &text);
        world.kube.until(candidate, "gone", |d| d.is_none()).await;
        let text = canary(
            &ns,
            NEXT,
            "[]",
            "[{weight: 0, approval: {}}, {weight: 100, hold: 1s}]",
        );
        world.commit(&someone, "podinfo 6.9.0", CANARY, &text);
        let waits = |events: &[Value]| {
            let waiting = events.iter().filter(|e| e["reason"] == "ApprovalPending");
            waiting
                .map(|e| e["series"]["count"].as_u64().unwrap_or(1))
                .sum::<u64>()
                > round
        };
        while !waits(&world.kube.list("events.k8s.io/v1", "Event", &ns).await) {
            moment(100).await;
        }
    }
    moment(1500).await;
    let stopped = tokio::task::spawn_blocking(|| serin.stop()).await.unwrap();
    assert!(stopped.success(), "{stopped}");
    assert_eq!(refused(&system), [""; 0]);
    compare(
        &granted(roles(&world.kube, &system).await.iter()),
        &used(&system),
    );
}

/// What a new user copies from the README is what the test above does.
#[test]
fn the_readme_installs_the_chart_like_this() {
    let readme = Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md");
    let readme = std::fs::read_to_string(readme).unwrap();
    assert!(
        readme.contains("helm install serin charts/serin --namespace serin-system"),
        "{readme}"
    );
}
