//! Adoption of whole trees: what is written, what is refused, and in which words.

use insta::assert_snapshot;

use super::*;

const DEPLOYMENT: &str = "\
apiVersion: apps/v1
kind: Deployment
metadata: {name: podinfo, namespace: test}
spec:
  selector: {matchLabels: {app: podinfo}}
  template:
    metadata:
      labels:
        app: podinfo # found by the Service
    spec:
      containers:
      - {name: podinfod, image: 'ghcr.io/stefanprodan/podinfo:6.8.0'}
      - {name: proxy, image: proxy@sha256:0123456789012345678901234567890123456789012345678901234567890123}
";
const SERVICE: &str = "\
apiVersion: v1
kind: Service
metadata: {name: podinfo, namespace: test}
spec:
  selector: {app: podinfo}
  ports: [{port: 9999, name: tcp-metrics}, {port: 9898, name: http}]
";

fn path(text: &str) -> RepoPath {
    RepoPath::new(text).unwrap()
}

fn files(all: &[(&str, &str)]) -> Files {
    all.iter()
        .map(|(name, content)| {
            let blob = BlobId((*name).into());
            (path(name), (blob, Arc::from(content.as_bytes())))
        })
        .collect()
}

fn asked(name: &str) -> Asked<'_> {
    let (namespace, name) = match name.split_once('/') {
        Some((namespace, name)) => (Some(namespace), name),
        None => (None, name),
    };
    Asked {
        namespace,
        name,
        ..Asked::default()
    }
}

fn adopted(all: &[(&str, &str)], name: &str) -> Adoption {
    adopt(&files(all), &asked(name)).unwrap_or_else(|error| panic!("{error}"))
}

fn refused(all: &[(&str, &str)], name: &str) -> String {
    match adopt(&files(all), &asked(name)) {
        Ok(adoption) => panic!("{adoption:?}"),
        Err(error) => error.to_string(),
    }
}

/// The usual two files.
fn usual() -> Vec<(&'static str, &'static str)> {
    vec![
        ("app/deploy.yaml", DEPLOYMENT),
        ("app/service.yaml", SERVICE),
    ]
}

#[test]
fn a_whole_canary() {
    let adoption = adopted(&usual(), "podinfo");
    assert_eq!(adoption.id.to_string(), "test/podinfo");
    let (path, text) = adoption.canary.unwrap();
    assert_eq!(path.as_str(), "app/canary.yaml");
    assert_snapshot!(text, @"
    # New versions of podinfo are proposed here: change the image below and push. Serin commits each step beside this file.
    # `serin validate .` checks it; `serin render app/canary.yaml` shows what it generates.
    apiVersion: serin.dev/v1alpha1
    kind: Canary
    metadata:
      name: podinfo
      namespace: test
    spec:
      workload:
        deployment: podinfo
      candidate: # what serves now is the same: nothing to roll out yet
        images:
          podinfod: ghcr.io/stefanprodan/podinfo:6.8.0
          # proxy: proxy@sha256:0123456789012345678901234567890123456789012345678901234567890123
      route:
        service: podinfo
        port: 9898 # the Service has others
        # Names that callers use (the Service's when left out), gateways (calls from inside the mesh when left out), and
        # Istio's own fields for every route that is generated:
        # hosts: [podinfo, podinfo.example.com]
        # gateways: [mesh, my-gateway]
        # http: {timeout: 5s}
      # These people get the candidate before everybody else, and keep it until it is stable or gone.
      # users:
      # - {header: x-user, exact: [alexis]}
      ladder: # each step is one commit; the next one needs a passing verdict after `hold`
      - {weight: 0, hold: 1m} # only the people above; `approval: {}` instead of `hold` waits for somebody's word
      - {weight: 10, hold: 5m}
      - {weight: 30, hold: 5m}
      - {weight: 60, hold: 10m}
      - {weight: 100, hold: 5m}
      analysis: # one that fails takes the traffic back to stable at once
        metrics:
        - {name: success-rate, min: 99} # per cent, from Istio's standard metrics
        - {name: latency, quantile: 0.99, max: 500ms}
    ");
    assert_eq!(adoption.remarks, Vec::<String>::new());
}

#[test]
fn the_label_is_one_line_more() {
    for line_break in ["\n", "\r\n"] {
        let text = DEPLOYMENT.replace('\n', line_break);
        let all = [
            ("app/deploy.yaml", text.as_str()),
            ("app/service.yaml", SERVICE),
        ];
        let label = adopted(&all, "podinfo").label.unwrap();
        let edited = String::from_utf8(label.edited.unwrap()).unwrap();
        let wanted = format!("        serin.dev/track: stable{line_break}");
        assert_eq!(edited.replacen(&wanted, "", 1), text);
        assert!(edited.contains(&wanted), "{edited:?}");
    }
    let labelled = DEPLOYMENT.replace(
        "app: podinfo #",
        "serin.dev/track: v1\n        app: podinfo #",
    );
    let all = [
        ("app/deploy.yaml", labelled.as_str()),
        ("app/service.yaml", SERVICE),
    ];
    assert_eq!(adopted(&all, "podinfo").label, None);
}

#[test]
fn labels_that_are_shared_stay_what_they_are_elsewhere() {
    let shared = DEPLOYMENT
        .replace(
            "spec:\n  selector: {matchLabels: {app: podinfo}}",
            "spec:\n  selector: {matchLabels: &own {app: podinfo}}",
        )
        .replace(
            "labels:\n        app: podinfo # found by the Service",
            "labels: *own",
        );
    let all = [
        ("app/deploy.yaml", shared.as_str()),
        ("app/service.yaml", SERVICE),
    ];
    let adoption = adopted(&all, "podinfo");
    assert!(adoption.canary.is_some());
    let edited = adoption.label.unwrap().edited.unwrap();
    let wanted = shared.replace(
        "labels: *own",
        "labels: {app: podinfo, serin.dev/track: stable}",
    );
    assert_eq!(String::from_utf8(edited).unwrap(), wanted);
}

#[test]
fn names_that_are_not_there() {
    let mut all = usual();
    all.push((
        "db.yaml",
        "apiVersion: apps/v1\nkind: StatefulSet\nmetadata: {name: db}\n",
    ));
    assert_snapshot!(refused(&all, "podinof"), @"there is no Deployment `podinof` here (did you mean `podinfo`?)");
    assert_snapshot!(refused(&all, "backend"), @"there is no Deployment `backend` here; there are `podinfo`");
    assert_snapshot!(refused(&all, "prod/podinfo"), @"there is no Deployment `podinfo` in namespace `prod` here; there is test/podinfo in app/deploy.yaml");
    assert_snapshot!(refused(&all, "db"), @"`db` is a StatefulSet, not a Deployment: Serin rolls out Deployments");
    assert_snapshot!(refused(&[("app/service.yaml", SERVICE)], "podinfo"), @"there is no Deployment `podinfo` here, and no other");
    let below = path("other");
    let asked = Asked {
        below: Some(&below),
        ..asked("podinfo")
    };
    assert_snapshot!(adopt(&files(&all), &asked).unwrap_err(), @"there is no Deployment `podinfo` below other; there is test/podinfo in app/deploy.yaml");
}

#[test]
fn several_are_told_apart() {
    let prod = DEPLOYMENT.replace("namespace: test", "namespace: prod");
    let service = SERVICE.replace("namespace: test", "namespace: prod");
    let mut all = usual();
    all.push(("prod/deploy.yaml", &prod));
    all.push(("prod/service.yaml", &service));
    assert_snapshot!(refused(&all, "podinfo"), @"there are several Deployments `podinfo`: test/podinfo in app/deploy.yaml, prod/podinfo in prod/deploy.yaml; give <namespace>/<name>, or --path to say where to look");
    let adoption = adopted(&all, "prod/podinfo");
    assert_eq!(adoption.id.to_string(), "prod/podinfo");
    assert_eq!(adoption.canary.unwrap().0.as_str(), "prod/canary.yaml");
    let below = path("app");
    let asked = Asked {
        below: Some(&below),
        ..asked("podinfo")
    };
    assert_eq!(
        adopt(&files(&all), &asked).unwrap().id.to_string(),
        "test/podinfo"
    );
}

#[test]
fn services_that_do_not_fit() {
    let one = |service: &str| {
        let text = service.to_owned();
        refused(
            &[("app/deploy.yaml", DEPLOYMENT), ("app/service.yaml", &text)],
            "podinfo",
        )
    };
    assert_snapshot!(one(&SERVICE.replace("selector: {app: podinfo}", "selector: {app: podinf}")), @"no Service selects the pods of `podinfo`, which are labelled `app=podinfo`; the Service `podinfo` (app/service.yaml) selects `app=podinf`: Istio routes to Services, so write one that selects them");
    assert_snapshot!(one(&SERVICE.replace("namespace: test", "namespace: other")), @"no Service selects the pods of `podinfo`, which are labelled `app=podinfo`: Istio routes to Services, so write one that selects them");
    assert_snapshot!(one(&SERVICE.replace("selector: {app", "selector: {serin.dev/track: stable, app")), @"no Service selects the pods of `podinfo`, which are labelled `app=podinfo`; the Service `podinfo` (app/service.yaml) selects `app=podinfo`, `serin.dev/track=stable`: Istio routes to Services, so write one that selects them");
    assert_snapshot!(one(&SERVICE.replace("name: http", "name: tcp-http")), @"Istio takes no port of the Service `podinfo` in app/service.yaml for HTTP: 9999 (tcp-metrics), 9898 (tcp-http); name one `http-…` or `grpc-…`, or write the canary by hand with `route.tcp` or `route.tls` and metrics of your own");
    let two = format!(
        "{}---\n{}",
        SERVICE.replace("name: podinfo", "name: one"),
        SERVICE.replace("name: podinfo", "name: two")
    );
    assert_snapshot!(one(&two), @"several Services select the pods of `podinfo`: `one`, `two`; say which one with --service");
    let all = [
        ("app/deploy.yaml", DEPLOYMENT),
        ("app/service.yaml", two.as_str()),
    ];
    let with = |service| Asked {
        service: Some(service),
        ..asked("podinfo")
    };
    let (_, text) = adopt(&files(&all), &with("two")).unwrap().canary.unwrap();
    assert!(text.contains("    service: two\n"), "{text}");
    assert_snapshot!(adopt(&files(&all), &with("tow")).unwrap_err(), @"there is no Service `tow` near the Deployment `podinfo` (did you mean `two`?)");
}

#[test]
fn labels_that_do_not_fit() {
    let one = |from: &str, to: &str| {
        let text = DEPLOYMENT.replace(from, to);
        refused(
            &[("app/deploy.yaml", &text), ("app/service.yaml", SERVICE)],
            "podinfo",
        )
    };
    assert_snapshot!(one("app: podinfo #", "serin.dev/track: canary\n        app: podinfo #"), @"the pods of the Deployment `podinfo` in app/deploy.yaml are labelled `serin.dev/track: canary`, which is the candidate's label: give them another value, such as `stable`");
    assert_snapshot!(one("matchLabels: {app: podinfo}", "matchLabels: {app: other}"), @"the selector of the Deployment `podinfo` in app/deploy.yaml wants `app=other`, which its own pod template is not labelled with: Kubernetes refuses such a Deployment");
    assert_snapshot!(one("      labels:\n        app: podinfo # found by the Service", "      annotations: {}"), @"the pod template of the Deployment `podinfo` in app/deploy.yaml has no labels, so no Service can select its pods: give it some, and a Service that selects them");
}

#[test]
fn it_is_done_once() {
    let mut all = usual();
    let adoption = adopted(&all, "podinfo");
    let (_, canary) = adoption.canary.unwrap();
    all.push(("app/canary.yaml", &canary));
    // The label is what is left to do.
    let again = adopted(&all, "podinfo");
    assert_eq!(again.canary, None);
    let labelled = again.label.unwrap().edited.unwrap();
    let labelled = String::from_utf8(labelled).unwrap();
    all[0].1 = &labelled;
    assert_snapshot!(refused(&all, "podinfo"), @"test/podinfo is adopted already: its canary is in app/canary.yaml");
    let broken = canary.replace("ladder:", "lader:");
    all[2].1 = &broken;
    assert_snapshot!(refused(&all, "podinfo"), @"there is a Canary test/podinfo in app/canary.yaml already, and it has mistakes: app/canary.yaml:9:3: `spec` lacks `ladder`");
}

#[test]
fn nothing_is_overwritten() {
    let mut all = usual();
    all.push(("app/canary.yaml", "kind: Other\n"));
    let (path, _) = adopted(&all, "podinfo").canary.unwrap();
    assert_eq!(path.as_str(), "app/podinfo-canary.yaml");
    all.push(("app/podinfo-canary.yaml", "kind: Other\n"));
    assert_snapshot!(refused(&all, "podinfo"), @"`canary.yaml` and `podinfo-canary.yaml` are both there already, beside app/deploy.yaml: nothing is overwritten");
}

#[test]
fn namespaces_come_from_kustomizations() {
    let base = DEPLOYMENT.replace(", namespace: test", "");
    let service = SERVICE.replace(", namespace: test", "");
    let mut all = vec![
        ("base/deploy.yaml", base.as_str()),
        ("base/service.yaml", service.as_str()),
        (
            "base/kustomization.yaml",
            "resources: [deploy.yaml, service.yaml]\n",
        ),
    ];
    let none = adopted(&all, "podinfo");
    assert_eq!(none.id.to_string(), "default/podinfo");
    assert!(!none.canary.unwrap().1.contains("namespace:"));
    all.push(("prod/kustomization.yaml", "namespace: prod\nresources: [../base]\nimages: [{name: ghcr.io/stefanprodan/podinfo, newTag: 6.8.1}]\n"));
    let one = adopted(&all, "podinfo");
    assert_eq!(one.id.to_string(), "prod/podinfo");
    let (path, text) = one.canary.unwrap();
    assert_eq!(path.as_str(), "base/canary.yaml");
    assert!(
        text.contains("podinfo:6.8.1\n") && text.contains("  namespace: prod\n"),
        "{text}"
    );
    assert_snapshot!(one.remarks.join("\n"), @"base/kustomization.yaml lists what is applied: after Serin's first commit add `podinfo.serin` to its `resources`, else the routes and `podinfo-canary` stay in Git");
    all.push((
        "stage/kustomization.yaml",
        "namespace: stage\nresources: [../base]\n",
    ));
    assert_snapshot!(refused(&all, "podinfo"), @"kustomizations bring the Deployment `podinfo` into several namespaces: say which, as in `serin adopt prod/podinfo`; there are `prod`, `stage`");
    let two = adopted(&all, "stage/podinfo");
    let (path, text) = two.canary.unwrap();
    assert_eq!(path.as_str(), "stage/canary.yaml");
    assert!(text.contains("  namespace: stage\n"), "{text}");
}

/// What may lie beside a Deployment and a Service.
const MORE: &str = "\
apiVersion: policy/v1
kind: PodDisruptionBudget
metadata: {name: podinfo, namespace: test}
spec: {minAvailable: 1, selector: {matchLabels: {app: podinfo}}}
---
apiVersion: autoscaling/v2
kind: HorizontalPodAutoscaler
metadata: {name: podinfo, namespace: test}
spec: {scaleTargetRef: {kind: Deployment, name: podinfo}}
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: strict, namespace: test}
spec: {podSelector: {matchLabels: {app: podinfo, serin.dev/track: stable}}}
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: wide, namespace: test}
spec: {podSelector: {}}
---
apiVersion: v1
kind: Service
metadata: {name: podinfo-headless, namespace: test}
spec: {clusterIP: None, selector: {app: podinfo}}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: mine, namespace: test}
spec: {hosts: [podinfo.test.svc.cluster.local], http: []}
---
apiVersion: networking.istio.io/v1beta1
kind: DestinationRule
metadata: {name: mine, namespace: other}
spec: {host: podinfo}
---
apiVersion: flagger.app/v1beta1
kind: Canary
metadata: {name: podinfo, namespace: test}
spec:
  targetRef: {apiVersion: apps/v1, kind: Deployment, name: podinfo}
  analysis: {interval: 30s, threshold: 5}
";

#[test]
fn what_else_meets_the_candidate_is_told() {
    let counted = DEPLOYMENT.replacen("spec:\n", "spec:\n  replicas: 2\n", 1);
    let all = [
        ("app/deploy.yaml", counted.as_str()),
        ("app/service.yaml", SERVICE),
        ("app/more.yaml", MORE),
    ];
    assert_snapshot!(adopted(&all, "podinfo").remarks.join("\n"), @"
    the Service `podinfo-headless` (app/more.yaml) selects the candidate's pods too: its requests are shared by pods, not by the weight, unless it is one of `route.hosts` or its selector says `serin.dev/track: stable`
    the PodDisruptionBudget `podinfo` (app/more.yaml) counts the candidate's pods too: add `serin.dev/track: stable` to its selector if it is to guard stable alone
    Flagger's Canary `podinfo` (app/more.yaml) steers this Deployment too: remove it first; to judge by its rule, write `rule: flagger`, `threshold: 5` and `every: 30s` into `analysis`
    the NetworkPolicy `strict` (app/more.yaml) applies to stable's pods and not to the candidate's: leave `serin.dev/track` out of its selector
    the VirtualService `mine` (app/more.yaml) is about the host podinfo already, and Istio merges no two: move what it says into `route`, and remove it in the same commit
    the HorizontalPodAutoscaler `podinfo` (app/more.yaml) scales stable only: the candidate gets the share of stable's replicas that its weight needs
    the manifest of podinfo says how many `replicas` it has, and so does the HorizontalPodAutoscaler: remove the field from the manifest, else whoever applies Git takes back what the autoscaler does
    ");
}

/// What the objects beside a canary are warned of, with its `route` as given.
fn warned(route: &str, more: &str) -> String {
    let canary = format!(
        "apiVersion: serin.dev/v1alpha1\nkind: Canary\nmetadata: {{name: podinfo, namespace: test}}\nspec:\n  \
         workload: {{deployment: podinfo}}\n  candidate: {{images: {{podinfod: 'podinfo:6.9.0'}}}}\n  \
         route: {{service: podinfo, port: 9898{route}}}\n  ladder: [{{weight: 50}}]\n"
    );
    let counted = DEPLOYMENT.replacen("spec:\n", "spec:\n  replicas: 2\n", 1);
    let files = files(&[
        ("app/canary.yaml", &canary),
        ("app/deploy.yaml", &counted),
        ("app/more.yaml", more),
        ("app/service.yaml", SERVICE),
    ]);
    let catalog = Catalog::read(&files, &mut ParseCache::default());
    assert!(catalog.canaries.values().all(Result::is_ok), "{catalog:?}");
    let lines = overlaps(&files, &catalog)
        .into_iter()
        .map(|found| found.to_string());
    lines.collect::<Vec<_>>().join("\n")
}

#[test]
fn what_came_after_the_canary_is_warned_of_where_it_is_written() {
    assert_snapshot!(warned("", MORE), @"
    app/more.yaml:1:1: warning: the canary `test/podinfo`: the PodDisruptionBudget `podinfo` (app/more.yaml) counts the candidate's pods too: add `serin.dev/track: stable` to its selector if it is to guard stable alone
    app/more.yaml:6:1: warning: the canary `test/podinfo`: the manifest of podinfo says how many `replicas` it has, and so does the HorizontalPodAutoscaler: remove the field from the manifest, else whoever applies Git takes back what the autoscaler does
    app/more.yaml:11:1: warning: the canary `test/podinfo`: the NetworkPolicy `strict` (app/more.yaml) applies to stable's pods and not to the candidate's: leave `serin.dev/track` out of its selector
    app/more.yaml:21:1: warning: the canary `test/podinfo`: the Service `podinfo-headless` (app/more.yaml) selects the candidate's pods too: its requests are shared by pods, not by the weight, unless it is one of `route.hosts` or its selector says `serin.dev/track: stable`
    app/more.yaml:26:1: warning: the canary `test/podinfo`: the VirtualService `mine` (app/more.yaml) is about the host podinfo already, and Istio merges no two: move what it says into `route`, and remove it in the same commit
    app/more.yaml:36:1: warning: the canary `test/podinfo`: Flagger's Canary `podinfo` (app/more.yaml) steers this Deployment too: remove it first; to judge by its rule, write `rule: flagger`, `threshold: 5` and `every: 30s` into `analysis`
    ");
}

#[test]
fn what_the_spec_knows_of_is_no_surprise() {
    let (_, service) = MORE.split_once("name: wide").unwrap();
    let (service, routes) = service.split_once("kind: VirtualService").unwrap();
    let service = format!(
        "apiVersion: v1\n{}",
        &service[service.find("kind: Service").unwrap()..]
    );
    assert_eq!(warned(", hosts: [podinfo, podinfo-headless]", &service), "");
    let routes = format!("apiVersion: networking.istio.io/v1\nkind: VirtualService{routes}");
    let routes = routes.split_once("\n---").unwrap().0;
    assert_ne!(warned("", routes), "");
    assert_eq!(warned(", delegate: true", routes), "");
    assert_eq!(
        warned(
            ", gateways: [istio-system/public], hosts: [podinfo]",
            routes
        ),
        ""
    );
}

#[test]
fn templates_and_generated_files_are_nobody_s_deployment() {
    let generated = DEPLOYMENT.replace("image: 'ghcr", "image: 'other");
    let all = [
        ("app/deploy.yaml", DEPLOYMENT),
        ("app/service.yaml", SERVICE),
        ("app/podinfo.serin/deployment.yaml", generated.as_str()),
        ("chart/Chart.yaml", "name: c\n"),
        ("chart/templates/deploy.yaml", generated.as_str()),
    ];
    assert!(adopted(&all, "podinfo").canary.is_some());
}
