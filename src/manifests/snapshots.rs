//! What the main shapes look like, in full.
#![expect(clippy::too_many_lines, reason = "snapshots show whole files")]

use std::sync::Arc;

use insta::assert_snapshot;
use serde_json::json;

use super::fixtures::{affinity, idle, progressing, rich_http, rollout, state};
use super::render;
use crate::domain::{RepoPath, Revision, files};
use crate::progression::{DrainCause, Phase, State};
use crate::spec::fixtures::{bring_your_own, managed, weight};
use crate::spec::{Protocol, ValidatedCanary, Workload};

/// One file of the folder, without its header; `absent` when it must not exist.
fn file(name: &str, canary: &ValidatedCanary, state: &State) -> String {
    let rendered = render(canary, state);
    let path = canary.home.folder.join(name).unwrap();
    match &rendered.files[&path] {
        None => "absent".to_owned(),
        Some(bytes) => {
            let text = std::str::from_utf8(bytes).unwrap();
            let body = text.split_inclusive('\n').skip(2);
            body.collect()
        }
    }
}

/// The routes of the VirtualService.
fn routes(canary: &ValidatedCanary, state: &State) -> String {
    let text = file(files::VIRTUAL_SERVICE, canary, state);
    let at = text.find("spec:\n").unwrap();
    text[at..].to_owned()
}

#[test]
fn headers_say_where_to_edit() {
    let canary = managed();
    let mut state = progressing(&canary, 2, 10);
    state.sequence = 1;
    let rendered = render(&canary, &state);
    let mut headers: Vec<String> = Vec::new();
    for content in rendered.files.values().flatten() {
        let text = std::str::from_utf8(content).unwrap();
        let header = text.lines().take_while(|line| line.starts_with('#'));
        headers.push(header.collect::<Vec<_>>().join("\n"));
    }
    let [deployment, rule, kustomization, service] = headers.as_slice() else {
        panic!("{headers:?}");
    };
    assert!(deployment == rule && rule == service, "{headers:?}");
    assert_snapshot!(kustomization, @r"
    # Written by Serin for the Canary test/podinfo: edit apps/podinfo/canary.yaml instead.
    # Weights edited in the VirtualService are adopted and hold the rollout, any other edit here is undone.
    # +argocd:skip-file-rendering
    ");
    assert!(kustomization.starts_with(rule), "{headers:?}");
}

#[test]
fn a_managed_canary_in_full() {
    let canary = managed();
    let state = progressing(&canary, 2, 10);
    assert_snapshot!(file(files::VIRTUAL_SERVICE, &canary, &state), @r#"
    apiVersion: networking.istio.io/v1
    kind: VirtualService
    metadata:
      name: podinfo
      namespace: test
      labels:
        app.kubernetes.io/managed-by: serin
      annotations:
        serin.dev/canary: test/podinfo
        serin.dev/sequence: "7"
    spec:
      hosts:
      - podinfo
      http:
      - name: serin-users
        match:
        - headers:
            x-user:
              exact: alexis
        - headers:
            x-user:
              exact: stefan
        - headers:
            cookie:
              regex: ^(.*;\s*)?user=alexis(;.*)?$
        route:
        - destination:
            host: podinfo
            port:
              number: 9898
            subset: canary
          weight: 100
      - name: serin-weights
        route:
        - destination:
            host: podinfo
            port:
              number: 9898
            subset: stable
          weight: 90
        - destination:
            host: podinfo
            port:
              number: 9898
            subset: canary
          weight: 10
    "#);
    assert_snapshot!(file(files::DESTINATION_RULE, &canary, &state), @r#"
    apiVersion: networking.istio.io/v1
    kind: DestinationRule
    metadata:
      name: podinfo
      namespace: test
      labels:
        app.kubernetes.io/managed-by: serin
      annotations:
        serin.dev/canary: test/podinfo
    spec:
      host: podinfo
      subsets:
      - name: stable
        labels:
          serin.dev/track: stable
      - name: canary
        labels:
          serin.dev/track: canary
    "#);
    assert_snapshot!(file(files::DEPLOYMENT, &canary, &state), @r#"
    apiVersion: apps/v1
    kind: Deployment
    metadata:
      name: podinfo-canary
      namespace: test
      labels:
        app: podinfo
        app.kubernetes.io/managed-by: serin
        serin.dev/track: canary
      annotations:
        serin.dev/canary: test/podinfo
        team: web
    spec:
      minReadySeconds: 3
      replicas: 3
      selector:
        matchLabels:
          app: podinfo
          serin.dev/track: canary
      template:
        metadata:
          labels:
            app: podinfo
            serin.dev/track: canary
        spec:
          containers:
          - name: podinfod
            image: podinfo:6.9.0
    "#);
    assert_snapshot!(file(files::KUSTOMIZATION, &canary, &state), @r"
    # +argocd:skip-file-rendering
    apiVersion: kustomize.config.k8s.io/v1beta1
    kind: Kustomization
    resources:
    - deployment.yaml
    - destinationrule.yaml
    - virtualservice.yaml
    ");
}

#[test]
fn nothing_of_a_candidate_is_left_when_idle() {
    let canary = managed();
    let state = idle(&canary);
    assert_eq!(file(files::DEPLOYMENT, &canary, &state), "absent");
    assert_snapshot!(routes(&canary, &state), @r"
    spec:
      hosts:
      - podinfo
      http:
      - name: serin-weights
        route:
        - destination:
            host: podinfo
            port:
              number: 9898
            subset: stable
          weight: 100
        - destination:
            host: podinfo
            port:
              number: 9898
            subset: canary
          weight: 0
    ");
    assert_snapshot!(file(files::KUSTOMIZATION, &canary, &state), @r"
    # +argocd:skip-file-rendering
    apiVersion: kustomize.config.k8s.io/v1beta1
    kind: Kustomization
    resources:
    - destinationrule.yaml
    - virtualservice.yaml
    ");
}

#[test]
fn a_drain_keeps_the_pods_and_sends_nobody() {
    let canary = managed();
    let state = state(
        &canary,
        Phase::Draining(rollout(&canary, 3, 0), DrainCause::Withdrawn),
    );
    assert!(file(files::DEPLOYMENT, &canary, &state).contains("replicas: 5\n"));
    assert_eq!(routes(&canary, &state), routes(&canary, &idle(&canary)));
}

#[test]
fn without_a_label_only_what_is_safe_is_rendered() {
    let mut canary = managed();
    if let Workload::Managed(workload) = &mut canary.workload {
        workload.stable_value = None;
    }
    let state = progressing(&canary, 2, 10);
    assert_eq!(file(files::DEPLOYMENT, &canary, &state), "absent");
    assert_snapshot!(routes(&canary, &state), @r"
    spec:
      hosts:
      - podinfo
      http:
      - name: serin-weights
        route:
        - destination:
            host: podinfo
            port:
              number: 9898
          weight: 100
    ");
    assert!(!file(files::DESTINATION_RULE, &canary, &state).contains("subsets"));
}

#[test]
fn two_versions_that_users_deploy() {
    let mut canary = bring_your_own();
    let state = progressing(&canary, 2, 10);
    assert_eq!(file(files::DEPLOYMENT, &canary, &state), "absent");
    assert_snapshot!(file(files::DESTINATION_RULE, &canary, &state), @r#"
    apiVersion: networking.istio.io/v1
    kind: DestinationRule
    metadata:
      name: reviews
      namespace: bookinfo
      labels:
        app.kubernetes.io/managed-by: serin
      annotations:
        serin.dev/canary: bookinfo/reviews
    spec:
      host: reviews
      subsets:
      - name: stable
        labels:
          version: v1
      - name: canary
        labels:
          version: v2
    "#);
    canary.proposal = None;
    assert_snapshot!(routes(&canary, &idle(&canary)), @r"
    spec:
      hosts:
      - reviews
      http:
      - name: serin-weights
        route:
        - destination:
            host: reviews
            port:
              number: 9080
            subset: stable
          weight: 100
    ");
}

#[test]
fn every_route_inherits_the_base_route() {
    let mut canary = managed();
    let mut fields = rich_http();
    for gone in ["corsPolicy", "fault", "rewrite", "headers", "retries"] {
        fields.as_object_mut().unwrap().remove(gone);
    }
    canary.route.protocol = Protocol::Http(fields.as_object().cloned().unwrap());
    let mut mirroring = rollout(&canary, 1, 0);
    mirroring.mirror = Some(weight(25));
    mirroring.matches = vec![json!({"queryParams": {"beta": {"exact": "1"}}})];
    let state = state(&canary, Phase::Progressing(mirroring));
    assert_snapshot!(routes(&canary, &state), @r#"
    spec:
      hosts:
      - podinfo
      http:
      - name: serin-users
        match:
        - headers:
            x-user:
              exact: alexis
          uri:
            prefix: /api
        - headers:
            x-user:
              exact: alexis
          ignoreUriCase: true
          uri:
            exact: /health
        - headers:
            x-user:
              exact: stefan
          ignoreUriCase: true
          uri:
            exact: /health
        - headers:
            cookie:
              regex: ^(.*;\s*)?user=alexis(;.*)?$
            x-user:
              prefix: al
          uri:
            prefix: /api
        - headers:
            cookie:
              regex: ^(.*;\s*)?user=alexis(;.*)?$
          ignoreUriCase: true
          uri:
            exact: /health
        mirror:
          host: recorder
        mirrorPercentage:
          value: 5.0
        route:
        - destination:
            host: podinfo
            port:
              number: 9898
            subset: canary
          weight: 100
        timeout: 5s
      - name: serin-matches
        match:
        - headers:
            x-user:
              prefix: al
          queryParams:
            beta:
              exact: "1"
          uri:
            prefix: /api
        - ignoreUriCase: true
          queryParams:
            beta:
              exact: "1"
          uri:
            exact: /health
        mirror:
          host: recorder
        mirrorPercentage:
          value: 5.0
        route:
        - destination:
            host: podinfo
            port:
              number: 9898
            subset: canary
          weight: 100
        timeout: 5s
      - name: serin-weights
        match:
        - headers:
            x-user:
              prefix: al
          uri:
            prefix: /api
        - ignoreUriCase: true
          uri:
            exact: /health
        mirrors:
        - destination:
            host: recorder
          percentage:
            value: 5.0
        - destination:
            host: podinfo
            port:
              number: 9898
            subset: canary
          percentage:
            value: 25
        route:
        - destination:
            host: podinfo
            port:
              number: 9898
            subset: stable
          weight: 100
        - destination:
            host: podinfo
            port:
              number: 9898
            subset: canary
          weight: 0
        timeout: 5s
    "#);
}

#[test]
fn sessions_stay_where_they_are() {
    let mut canary = managed();
    canary.users.clear();
    canary.route.port = None;
    canary.route.session_affinity = Some(affinity());
    let mut rollout = rollout(&canary, 2, 10);
    Arc::make_mut(&mut rollout.candidate).revision = Revision::recorded("0a1b2c");
    let progressing = state(&canary, Phase::Progressing(rollout.clone()));
    assert_snapshot!(routes(&canary, &progressing), @r"
    spec:
      hosts:
      - podinfo
      http:
      - name: serin-sticky-canary
        match:
        - headers:
            cookie:
              regex: ^(.*;\s*)?serin-session=canary-0a1b2c(;.*)?$
        route:
        - destination:
            host: podinfo
            subset: canary
          weight: 100
      - name: serin-sticky-stable
        match:
        - headers:
            cookie:
              regex: ^(.*;\s*)?serin-session=stable-0a1b2c(;.*)?$
        route:
        - destination:
            host: podinfo
            subset: stable
          weight: 100
      - name: serin-weights
        route:
        - destination:
            host: podinfo
            subset: stable
          headers:
            response:
              add:
                Set-Cookie: serin-session=stable-0a1b2c; Path=/; Max-Age=86400; HttpOnly
          weight: 90
        - destination:
            host: podinfo
            subset: canary
          headers:
            response:
              add:
                Set-Cookie: serin-session=canary-0a1b2c; Path=/; Max-Age=86400; HttpOnly
          weight: 10
    ");

    rollout.weight = weight(100);
    let full = routes(&canary, &state(&canary, Phase::Progressing(rollout)));
    assert!(!full.contains("name: serin-sticky-stable"), "{full}");
    assert!(full.contains("name: serin-sticky-canary"), "{full}");

    assert_snapshot!(routes(&canary, &idle(&canary)), @r"
    spec:
      hosts:
      - podinfo
      http:
      - name: serin-forget
        match:
        - headers:
            cookie:
              regex: ^(.*;\s*)?serin-session=[^;]*(;.*)?$
        route:
        - destination:
            host: podinfo
            subset: stable
          headers:
            response:
              add:
                Set-Cookie: serin-session=; Path=/; Max-Age=0; HttpOnly
          weight: 100
      - name: serin-weights
        route:
        - destination:
            host: podinfo
            subset: stable
          weight: 100
        - destination:
            host: podinfo
            subset: canary
          weight: 0
    ");
}

#[test]
fn tcp_and_tls_have_one_route() {
    let mut canary = managed();
    canary.route.protocol = Protocol::Tcp(Vec::new());
    assert_snapshot!(routes(&canary, &progressing(&canary, 3, 60)), @r"
    spec:
      hosts:
      - podinfo
      tcp:
      - route:
        - destination:
            host: podinfo
            port:
              number: 9898
            subset: stable
          weight: 40
        - destination:
            host: podinfo
            port:
              number: 9898
            subset: canary
          weight: 60
    ");
    canary.route.protocol = Protocol::Tls(vec![json!({"sniHosts": ["podinfo.example.com"]})]);
    assert_snapshot!(routes(&canary, &progressing(&canary, 3, 60)), @r"
    spec:
      hosts:
      - podinfo
      tls:
      - match:
        - sniHosts:
          - podinfo.example.com
        route:
        - destination:
            host: podinfo
            port:
              number: 9898
            subset: stable
          weight: 40
        - destination:
            host: podinfo
            port:
              number: 9898
            subset: canary
          weight: 60
    ");
}

#[test]
fn a_delegate_has_neither_hosts_nor_gateways() {
    let mut canary = managed();
    canary.route.gateways = vec!["mesh".to_owned()];
    canary.route.delegate = true;
    canary.users.clear();
    canary.route.port = None;
    assert_snapshot!(routes(&canary, &idle(&canary)), @r"
    spec:
      http:
      - name: serin-weights
        route:
        - destination:
            host: podinfo
            subset: stable
          weight: 100
        - destination:
            host: podinfo
            subset: canary
          weight: 0
    ");
}

/// The header names the file: a path that could end its line is none.
#[test]
fn a_header_ends_where_its_line_ends() {
    for path in ["apps/a\nkind: b.yaml", "apps/a\rkind: b.yaml"] {
        assert_eq!(RepoPath::new(path), None);
    }
    let mut canary = managed();
    canary.home.file = RepoPath::new("apps/a\u{2028}kind: b.yaml").unwrap();
    let rendered = render(&canary, &idle(&canary));
    for content in rendered.files.values().flatten() {
        let parsed = crate::yaml::node::parse(content);
        assert!(parsed.errors.is_empty(), "{:?}", parsed.errors);
    }
}
