//! The other kinds of routes: sessions, mirrors, matches, gateways, delegation, TCP, gRPC.

use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::Value;
use tokio::io::AsyncReadExt as _;

use crate::bed::Bed;
use crate::chance::fits;
use crate::envoy::{Envoy, Role};
use crate::load::{Answer, Load, Target, Visitor, expect_no_failure};
use crate::pods::{PORT, TCP_PORT};
use crate::rig::free_port;
use crate::site::{APP, Manner, NEW, SERVICE_PORT, Site, app_yaml, moment};

/// From a weight in the cluster until Envoy surely has it.
const ON_THE_WAY: u64 = 500;

/// A Gateway on a loopback port, for the Envoy with this label.
pub(crate) fn gateway_yaml(namespace: &str, label: &str, port: u16) -> String {
    format!(
        "\
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {{name: web, namespace: {namespace}}}
spec:
  selector: {{istio: {label}}}
  servers:
  - {{port: {{number: {port}, name: http, protocol: HTTP}}, bind: 127.0.0.1, hosts: ['*.example.com']}}
"
    )
}

/// Each session stays on the version that first answered it, and the cookie ends with the rollout.
pub(crate) async fn session_affinity(bed: Arc<Bed>) {
    let mut site = Site::new(&bed, "affinity").await;
    let _serin = site.serin();
    site.serves().await;
    let someone = site.someone("dana");
    let route = "hosts: [podinfo], sessionAffinity: {cookie: version, maxAge: 1h}";
    let gated = "[{weight: 30, approval: {}}, {weight: 100, hold: 1s}]";
    let wish = site.wish().candidate(NEW).route(route).ladder(gated);
    site.commit(&someone, "Propose 6.9.0", &wish);
    site.weighs(30).await;
    moment(ON_THE_WAY).await;
    let target = site.target();
    let mut sessions = Vec::new();
    for answer in target.burst(&[Visitor::anybody()], 300).await {
        let cookie = answer.cookies.first().unwrap_or_else(|| panic!("no cookie: {answer:?}"));
        let pair = cookie.split(';').next().unwrap().to_owned();
        sessions.push((pair, answer.workload));
    }
    let hits = sessions.iter().filter(|(_, workload)| workload == "podinfo-canary").count();
    println!("kinds: affinity: {hits} of 300 sessions begin on the candidate at 30 %");
    assert!(fits(hits, 300, 30), "{hits}");
    let mut holders: Vec<(String, String)> = sessions.clone();
    holders.sort();
    holders.dedup();
    for (pair, workload) in &holders {
        let visitor = Visitor::new("holder", &[("cookie", pair.as_bytes())]);
        let answers = target.burst(&[visitor], 200).await;
        expect_no_failure(&answers);
        let elsewhere = answers.iter().filter(|a| a.workload != *workload).count();
        assert_eq!(elsewhere, 0, "{pair} began on {workload}");
    }
    grant(&site, &someone);
    // Evidence for the promotion comes from requests.
    let load = Load::start(&target, 150, vec![Visitor::anybody()]);
    site.promoted(NEW).await;
    moment(ON_THE_WAY).await;
    expect_no_failure(&load.stop().await);
    let answer = target.ask(&Visitor::anybody()).await;
    assert!(answer.cookies.is_empty(), "{answer:?}");
}

/// The candidate sees a copy of a share of the requests, and answers nobody.
pub(crate) async fn mirror(bed: Arc<Bed>) {
    let mut site = Site::new(&bed, "mirror").await;
    let _serin = site.serin();
    site.serves().await;
    let someone = site.someone("dana");
    let ladder = "[{weight: 0, mirror: 40, approval: {}}, {weight: 100, approval: {}}]";
    site.commit(&someone, "Propose 6.9.0", &site.wish().candidate(NEW).ladder(ladder));
    site.has_candidate(1).await;
    let target = site.target();
    let began = Instant::now();
    while bed.pods.requests(&site.namespace, "podinfo-canary") == 0 {
        target.ask(&Visitor::anybody()).await;
        assert!(began.elapsed() < Duration::from_secs(30), "nothing is mirrored");
    }
    moment(ON_THE_WAY).await;
    let before = bed.pods.requests(&site.namespace, "podinfo-canary");
    let answers = target.burst(&[Visitor::anybody()], 1000).await;
    moment(ON_THE_WAY).await;
    let copies = bed.pods.requests(&site.namespace, "podinfo-canary") - before;
    println!("kinds: mirror: {copies} of 1000 requests were mirrored at 40 %");
    expect_no_failure(&answers);
    assert!(answers.iter().all(|a| !a.is_canary()));
    assert!(fits(usize::try_from(copies).unwrap(), 1000, 40), "{copies}");
    grant(&site, &someone);
    // The next step wants to know how the copies went.
    let load = Load::start(&target, 150, vec![Visitor::anybody()]);
    site.weighs(100).await;
    expect_no_failure(&load.stop().await);
    moment(ON_THE_WAY).await;
    let before = bed.pods.requests(&site.namespace, "podinfo-canary");
    let answers = target.burst(&[Visitor::anybody()], 300).await;
    assert!(answers.iter().all(Answer::is_canary));
    moment(ON_THE_WAY).await;
    let got = bed.pods.requests(&site.namespace, "podinfo-canary") - before;
    assert_eq!(got, 300, "what is answered once came once");
}

/// A match without a weight: those who match reach the candidate, nobody else does.
pub(crate) async fn match_without_weight(bed: Arc<Bed>) {
    let mut site = Site::new(&bed, "ab").await;
    let _serin = site.serin();
    site.serves().await;
    let someone = site.someone("dana");
    let ladder = "[{weight: 0, match: [{headers: {x-beta: {regex: 'y(es)?'}}}, {headers: {cookie: {regex: '^(.*;)?(beta=yes)(;.*)?$'}}}], hold: 1h}]";
    site.commit(&someone, "Propose 6.9.0", &site.wish().candidate(NEW).ladder(ladder));
    let beta = Visitor::new("beta", &[("x-beta", b"yes")]);
    let target = site.target();
    let began = Instant::now();
    while !target.ask(&beta).await.is_canary() {
        assert!(began.elapsed() < Duration::from_secs(30), "nobody is matched");
        moment(20).await;
    }
    moment(ON_THE_WAY).await;
    let visitors = [
        beta,
        Visitor::new("beta", &[("x-beta", b"y")]),
        Visitor::new("beta", &[("cookie", b"a=b;beta=yes")]),
        Visitor::anybody(),
        Visitor::new("no", &[("x-beta", b"no")]),
        Visitor::new("no", &[("cookie", b"beta=no")]),
    ];
    let answers = target.burst(&visitors, 600).await;
    expect_no_failure(&answers);
    assert!(answers.iter().all(|a| a.is_canary() == (&*a.who == "beta")));
}

/// Through a gateway and through the mesh at once.
pub(crate) async fn gateway(bed: Arc<Bed>) {
    let port = free_port();
    let more = |namespace: &str| {
        let gateway = gateway_yaml(namespace, "web", port);
        vec![("apps/podinfo/gateway.yaml".to_owned(), gateway)]
    };
    let mut site = Site::with(&bed, "gateway", Manner::default(), &more).await;
    let _serin = site.serin();
    site.serves().await;
    let web = Envoy::start(bed.plane(), "web", &Role::Gateway("web"), bed.ground.xds);
    web.ready(bed.plane()).await;
    let someone = site.someone("dana");
    let wish = site
        .wish()
        .candidate(NEW)
        .users("[{header: x-user, exact: [dana]}]")
        .route("hosts: [podinfo, shop.example.com], gateways: [mesh, web]")
        .ladder("[{weight: 30, hold: 1h}]");
    site.commit(&someone, "Propose 6.9.0", &wish);
    site.weighs(30).await;
    moment(ON_THE_WAY).await;
    let dana = Visitor::new("dana", &[("x-user", b"dana")]);
    for (what, target) in [
        ("gateway", Target::new(port, "shop.example.com")),
        ("mesh", site.target()),
    ] {
        let answers = target.burst(&[Visitor::anybody()], 600).await;
        expect_no_failure(&answers);
        let hits = answers.iter().filter(|a| a.is_canary()).count();
        println!("kinds: {what}: {hits} of 600 requests at 30 %");
        assert!(fits(hits, 600, 30), "{what}: {hits}");
        let answers = target.burst(std::slice::from_ref(&dana), 100).await;
        assert!(answers.iter().all(Answer::is_canary), "{what}");
    }
    let stranger = Target::new(port, "other.example.com").ask(&Visitor::anybody()).await;
    assert_eq!(stranger.status, 404);
    assert_eq!(web.rejections().await, 0);
}

/// The routes are a delegate of somebody's own VirtualService.
pub(crate) async fn delegation(bed: Arc<Bed>) {
    let more = |namespace: &str| {
        let root = format!(
            "\
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {{name: root, namespace: {namespace}}}
spec:
  hosts: [podinfo]
  http:
  - {{match: [{{uri: {{prefix: /}}}}], delegate: {{name: podinfo, namespace: {namespace}}}}}
"
        );
        let mut wish = crate::site::Wish::idle(namespace);
        "delegate: true".clone_into(&mut wish.route);
        vec![
            ("apps/podinfo/root.yaml".to_owned(), root),
            (crate::site::CANARY.to_owned(), wish.yaml()),
        ]
    };
    let mut site = Site::with(&bed, "delegation", Manner::default(), &more).await;
    let _serin = site.serin();
    site.serves().await;
    let someone = site.someone("dana");
    let wish = site
        .wish()
        .candidate(NEW)
        .users("[{header: x-user, exact: [dana]}]")
        .route("delegate: true")
        .ladder("[{weight: 30, hold: 1h}]");
    site.commit(&someone, "Propose 6.9.0", &wish);
    site.weighs(30).await;
    moment(ON_THE_WAY).await;
    let answers = site.target().burst(&[Visitor::anybody()], 600).await;
    expect_no_failure(&answers);
    let hits = answers.iter().filter(|a| a.is_canary()).count();
    println!("kinds: delegation: {hits} of 600 requests at 30 %");
    assert!(fits(hits, 600, 30), "{hits}");
    let dana = Visitor::new("dana", &[("x-user", b"dana")]);
    let answers = site.target().burst(&[dana], 100).await;
    assert!(answers.iter().all(Answer::is_canary));
}

/// Connections instead of requests.
pub(crate) async fn tcp(bed: Arc<Bed>) {
    let port = free_port();
    let more = |namespace: &str| {
        let service = format!("{{name: http, port: {SERVICE_PORT}, targetPort: {PORT}}}");
        let other = format!("{{name: tcp-words, port: {port}, targetPort: {TCP_PORT}}}");
        let app = app_yaml(namespace, "podinfo").replace(&service, &other);
        let canary = tcp_canary(namespace, port, "null");
        vec![
            (APP.to_owned(), app),
            (crate::site::CANARY.to_owned(), canary),
        ]
    };
    let mut site = Site::with(&bed, "tcp", Manner::default(), &more).await;
    let _serin = site.serin();
    let someone = site.someone("dana");
    let proposed = tcp_canary(
        &site.namespace,
        port,
        &format!("{{images: {{podinfod: 'ghcr.io/stefanprodan/podinfo:{NEW}'}}}}"),
    );
    someone.insist("Propose 6.9.0", &|| someone.write(crate::site::CANARY, &proposed));
    let weighs = |found: Option<&Value>| {
        found.is_some_and(|found| {
            let route = found["spec"]["tcp"][0]["route"].as_array();
            let mut route = route.into_iter().flatten();
            route.any(|one| one["destination"]["subset"] == "canary" && one["weight"] == 30)
        })
    };
    let key = crate::rig::routes(&site.namespace, "podinfo");
    site.kube.until(key, "at 30 %", weighs).await;
    moment(2 * ON_THE_WAY).await;
    let (mut hits, all) = (0, 400);
    for _ in 0..all {
        let stream = tokio::net::TcpStream::connect(("127.0.0.1", port)).await;
        let mut words = String::new();
        stream.unwrap().read_to_string(&mut words).await.unwrap();
        assert!(words.starts_with("podinfo"), "`{words}`");
        hits += usize::from(words == "podinfo-canary");
    }
    println!("kinds: tcp: {hits} of {all} connections at 30 %");
    assert!(fits(hits, all, 30), "{hits}");
}

fn tcp_canary(namespace: &str, port: u16, candidate: &str) -> String {
    format!(
        "\
apiVersion: serin.dev/v1alpha1
kind: Canary
metadata: {{name: podinfo, namespace: {namespace}}}
spec:
  workload: {{deployment: podinfo, label: track}}
  candidate: {candidate}
  route: {{service: podinfo, port: {port}, tcp: {{}}}}
  ladder: [{{weight: 30, hold: 1h}}]
  analysis: {{skip: true}}
"
    )
}

/// What istiod makes of a Service that speaks gRPC: the weights, and HTTP/2 to the pods.
pub(crate) async fn grpc(bed: Arc<Bed>) {
    let more = |namespace: &str| {
        let app = app_yaml(namespace, "podinfo").replace("name: http,", "name: grpc,");
        vec![(APP.to_owned(), app)]
    };
    let mut site = Site::with(&bed, "grpc", Manner::default(), &more).await;
    let _serin = site.serin();
    let someone = site.someone("dana");
    let wish = site
        .wish()
        .candidate(NEW)
        .users("[{header: x-user, exact: [dana]}]")
        .ladder("[{weight: 30, hold: 1h}]");
    site.commit(&someone, "Propose 6.9.0", &wish);
    site.weighs(30).await;
    moment(2 * ON_THE_WAY).await;
    let dump = bed.client.configuration().await.to_string();
    let host = format!("podinfo.{}.svc.cluster.local", site.namespace);
    let cluster = |subset: &str| format!("outbound|{SERVICE_PORT}|{subset}|{host}");
    for (subset, weight) in [("canary", 30), ("stable", 70)] {
        let name = cluster(subset);
        let weighted = format!("{{\"name\":\"{name}\",\"weight\":{weight}}}");
        assert!(dump.contains(&weighted), "{weighted} is not in Envoy");
        let all: Value = serde_json::from_str(&dump).unwrap();
        let found = find(&all, &|value| value["name"] == name.as_str() && value.get("type").is_some());
        let found = found.unwrap_or_else(|| panic!("no cluster {name}"));
        assert!(found.to_string().contains("http2_protocol_options"), "{found:#}");
    }
}

/// The first object that is so, anywhere.
fn find<'a>(value: &'a Value, is_it: &dyn Fn(&Value) -> bool) -> Option<&'a Value> {
    match value {
        Value::Object(fields) => {
            if is_it(value) {
                return Some(value);
            }
            fields.values().find_map(|inner| find(inner, is_it))
        }
        Value::Array(items) => items.iter().find_map(|inner| find(inner, is_it)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => None,
    }
}

/// Opens the gate of the present step.
fn grant(site: &Site, someone: &crate::git::rig::Someone) {
    let state = "apps/podinfo/podinfo.serin/rollout.yaml";
    let began = Instant::now();
    while !String::from_utf8(site.git.file(state)).unwrap().contains("approval: pending") {
        assert!(began.elapsed() < Duration::from_secs(20), "there is no gate");
        std::thread::sleep(Duration::from_millis(20));
    }
    someone.insist("Go on", &|| someone.replace(state, "approval: pending", "approval: granted"));
}
