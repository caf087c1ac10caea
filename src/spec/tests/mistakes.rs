//! Mistakes in one canary's own document.

use super::{SPEC, canary, check, read, told};

#[test]
fn the_shortest_spec_is_fine() {
    insta::assert_snapshot!(check(SPEC), @r#"
-> test/podinfo fine
"#);
}

#[test]
fn unknown_fields_are_named_with_what_was_meant() {
    insta::assert_snapshot!(check("
workload: {deployment: podinfo, replica: 2}
route: {service: podinfo, host: [x], http: {timout: 5s, newIstioField: 1}, trafficPolicy: {outlierDetecton: {}}}
laddder: []
ladder:
- {weight: 10, hodl: 2m, approval: {by: me}}
- {from: 20, by: 10, two: 50}
analysis: {metrics: [{name: success-rate, min: 99, threshold: 5}], onFailure: rolback, compare: false}
banana: 1
"), @r#"
app/canary.yaml:5:35: unknown field `replica` in `spec.workload` (did you mean `replicas`?); known are `deployment`, `label`, `replicas`
app/canary.yaml:6:29: unknown field `host` in `spec.route` (did you mean `hosts`?); known are `delegate`, `exportTo`, `gateways`, `hosts`, `http`, `port`, `service`, `sessionAffinity`, `tcp`, `tls`, `trafficPolicy`
app/canary.yaml:6:47: unknown field `timout` in `spec.route.http` (did you mean `timeout`?)
app/canary.yaml:6:59: warning: `newIstioField` is no field of Istio's that Serin knows; it is passed through in `spec.route.http`
app/canary.yaml:6:94: unknown field `outlierDetecton` in `spec.route.trafficPolicy` (did you mean `outlierDetection`?)
app/canary.yaml:7:3: unknown field `laddder` in `spec` (did you mean `ladder`?); known are `abort`, `analysis`, `candidate`, `folder`, `freeze`, `ladder`, `paused`, `resume`, `retry`, `rollbackWindow`, `route`, `users`, `versions`, `workload`
app/canary.yaml:9:18: unknown field `hodl` in `spec.ladder[0]` (did you mean `hold`?); known are `approval`, `hold`, `match`, `mirror`, `weight`
app/canary.yaml:9:39: unknown field `by` in `spec.ladder[0].approval`; no fields are allowed here
app/canary.yaml:10:5: `spec.ladder[1]` lacks `to`
app/canary.yaml:10:24: unknown field `two` in `spec.ladder[1]` (did you mean `to`?); known are `by`, `from`, `hold`, `to`
app/canary.yaml:11:54: unknown field `threshold` in `spec.analysis.metrics[0]`; known are `max`, `min`, `minRequests`, `name`, `quantile`, `query`
app/canary.yaml:11:81: `spec.analysis.onFailure` is `rolback`, expected one of `rollback`, `hold` (did you mean `rollback`?)
app/canary.yaml:11:99: `spec.analysis.compare` is `false`, expected a mapping
app/canary.yaml:12:3: unknown field `banana` in `spec`; known are `abort`, `analysis`, `candidate`, `folder`, `freeze`, `ladder`, `paused`, `resume`, `retry`, `rollbackWindow`, `route`, `users`, `versions`, `workload`
-> test/podinfo rejected
"#);
}

#[test]
fn frames_are_checked_too() {
    let text = canary(SPEC)
        .replace("v1alpha1", "v1")
        .replace("namespace: test", "namspace: test")
        + "sepc: {}\n";
    insta::assert_snapshot!(told(&read(&[("c.yaml", &text)])), @r#"
c.yaml:1:13: `apiVersion` is `serin.dev/v1`, expected `serin.dev/v1alpha1`
c.yaml:3:27: unknown field `namspace` in `metadata` (did you mean `namespace`?)
c.yaml:8:1: unknown field `sepc` in the document (did you mean `spec`?)
-> default/podinfo rejected
"#);
    let text = canary(SPEC).replace("kind: Canary", "kind: Canray");
    insta::assert_snapshot!(told(&read(&[("c.yaml", &text)])), @r#"
c.yaml:2:7: `kind` is `Canray`, expected `Canary` (did you mean `Canary`?)
-> test/podinfo rejected
"#);
    for (version, told_of) in [
        (
            "serin.devv/v1alpha1",
            "`apiVersion` is `serin.devv/v1alpha1`, expected `serin.dev/v1alpha1`",
        ),
        (
            "serin.dev",
            "`apiVersion` is `serin.dev`, expected `serin.dev/v1alpha1`",
        ),
        ("", "`apiVersion` is ``, expected `serin.dev/v1alpha1`"),
    ] {
        let text = canary(SPEC).replace("serin.dev/v1alpha1", version) + "# serin.dev\n";
        let told = told(&read(&[("c.yaml", &text)]));
        assert!(told.contains(told_of), "{told}");
        assert!(told.ends_with("-> test/podinfo rejected\n"), "{told}");
    }
    // Somebody else's canary is none of ours.
    let flagger =
        canary(SPEC).replace("serin.dev/v1alpha1", "flagger.app/v1beta1") + "# serin.dev\n";
    assert_eq!(told(&read(&[("c.yaml", &flagger)])), "");
    let text = "apiVersion: serin.dev/v1alpha1\nkind: Canary\nmetadata: {name: x}\n";
    insta::assert_snapshot!(told(&read(&[("c.yaml", text)])), @r#"
c.yaml:1:1: the canary has no `spec`
-> default/x rejected
"#);
    let text = "apiVersion: serin.dev/v1alpha1\nkind: Canary\nmetadata: {}\nspec: {}\n";
    insta::assert_snapshot!(told(&read(&[("c.yaml", text)])), @r#"
c.yaml:3:11: a canary needs a `metadata.name`
"#);
}

#[test]
fn types_are_checked_and_yaml_surprises_explained() {
    insta::assert_snapshot!(check("
workload: {deployment: 12, replicas: -1}
route: {service: yes, port: http, hosts: podinfo, gateways: [1]}
users: [{header: x-user, exact: [123, no, on]}, {header: x, exact: []}]
ladder: {from: ten, by: 10, to: 50, hold: 2 minutes}
paused: 'true'
retry: -1
rollbackWindow: 30
freeze: [{from: 1, to: 2, days: [satur]}]
analysis: {every: 15, metrics: [{name: latency, max: [1]}], compare: {alpha: 0.9}}
"), @r#"
app/canary.yaml:5:26: `spec.workload.deployment` is the number `12`, expected text; put it in quotes
app/canary.yaml:5:40: `spec.workload.replicas` is -1, expected 1 to 100000
app/canary.yaml:6:20: `spec.route.service` is `yes` (which YAML reads as `true`), expected text; put it in quotes
app/canary.yaml:6:31: `spec.route.port` is the text `http`, expected a whole number
app/canary.yaml:6:44: `spec.route.hosts` is the text `podinfo`, expected a list
app/canary.yaml:6:64: `spec.route.gateways[0]` is the number `1`, expected text; put it in quotes
app/canary.yaml:7:36: `spec.users[0].exact[0]` is the number `123`, expected text; put it in quotes
app/canary.yaml:7:41: `spec.users[0].exact[1]` is `no` (which YAML reads as `false`), expected text; put it in quotes
app/canary.yaml:7:45: `spec.users[0].exact[2]` is `on` (which YAML reads as `true`), expected text; put it in quotes
app/canary.yaml:7:70: `spec.users[1].exact` is empty, at least one entry is needed
app/canary.yaml:8:18: `spec.ladder.from` is the text `ten`, expected a whole number
app/canary.yaml:8:45: `spec.ladder.hold` is `2 minutes`, expected a duration such as `90s`, `2m`, `1h30m` or `500ms`
app/canary.yaml:9:11: `spec.paused` is the text `true`, expected `true` or `false`
app/canary.yaml:10:10: `spec.retry` is -1, expected 0 to 1000000000
app/canary.yaml:11:19: `spec.rollbackWindow` is the number `30`, expected a duration such as `90s` or `2m`; give it a unit
app/canary.yaml:12:19: `spec.freeze[0].from` is the number `1`, expected text; put it in quotes
app/canary.yaml:12:26: `spec.freeze[0].to` is the number `2`, expected text; put it in quotes
app/canary.yaml:12:36: `spec.freeze[0].days[0]` is `satur`, expected one of `mon`, `tue`, `wed`, `thu`, `fri`, `sat`, `sun`
app/canary.yaml:13:21: `spec.analysis.every` is the number `15`, expected a duration such as `90s` or `2m`; give it a unit
app/canary.yaml:13:56: `spec.analysis.metrics[0].max` is a list, expected a number or a duration such as `90s` or `2m`
app/canary.yaml:13:80: `spec.analysis.compare.alpha` is 0.9, expected 0.000001 to 0.5
-> test/podinfo rejected
"#);
    insta::assert_snapshot!(check("
workload:
route:
ladder:
"), @r#"
app/canary.yaml:5:3: `spec` needs `workload` (a Deployment that Serin derives the candidate from) or `versions` (two label sets that you deploy yourself)
app/canary.yaml:6:8: `spec.route` is empty, expected a mapping
app/canary.yaml:7:9: `spec.ladder` is empty, expected a list or a mapping with `by`, `from`, `hold`, `to`
-> test/podinfo rejected
"#);
    insta::assert_snapshot!(check("
- workload
"), @r#"
app/canary.yaml:5:3: `spec` is a list, expected a mapping
app/canary.yaml:5:3: `spec` needs `workload` (a Deployment that Serin derives the candidate from) or `versions` (two label sets that you deploy yourself)
-> test/podinfo rejected
"#);
}

#[test]
fn weights_rise_and_stay_within_one_hundred() {
    insta::assert_snapshot!(check("
workload: {deployment: podinfo}
route: {service: podinfo}
ladder:
- {weight: 10}
- {weight: 101}
- {weight: 60}
- {weight: 60, hold: 5m}
- {weight: 30}
- {weight: -1}
- {weight: 12.5}
"), @r#"
app/canary.yaml:9:14: `spec.ladder[1].weight` is 101, expected 0 to 100
app/canary.yaml:11:14: the weight 60 is repeated: a step differs from the one before it in `weight`, `approval`, `mirror` or `match`; to stay longer, raise `hold`
app/canary.yaml:12:14: the weight falls from 60 to 30 here: weights rise along the ladder; going back is what a rollback does
app/canary.yaml:13:14: `spec.ladder[5].weight` is -1, expected 0 to 100
app/canary.yaml:14:14: `spec.ladder[6].weight` is the number `12.5`, expected a whole number
-> test/podinfo rejected
"#);
    insta::assert_snapshot!(check("
workload: {deployment: podinfo}
route: {service: podinfo}
ladder: []
"), @r#"
app/canary.yaml:7:11: `spec.ladder` is empty, at least one entry is needed
-> test/podinfo rejected
"#);
    insta::assert_snapshot!(check("
workload: {deployment: podinfo}
route: {service: podinfo}
ladder: {from: 50, by: 0, to: 10}
"), @r#"
app/canary.yaml:7:11: `from` is 50 and `to` is 10: a climb goes up
app/canary.yaml:7:26: `spec.ladder.by` is 0, expected 1 to 100
-> test/podinfo rejected
"#);
}

#[test]
fn steps_of_one_weight_differ_in_something_else() {
    insta::assert_snapshot!(check("
workload: {deployment: podinfo}
route: {service: podinfo}
ladder:
- {weight: 0, mirror: 10}
- {weight: 0, mirror: 100}
- {weight: 0, match: [{headers: {x-beta: {exact: 'yes'}}}]}
- {weight: 0, approval: {}}
- {weight: 10}
"), @r#"
-> test/podinfo fine
"#);
}

#[test]
fn a_match_that_matches_everybody_is_refused() {
    insta::assert_snapshot!(check("
workload: {deployment: podinfo}
route: {service: podinfo}
ladder:
- {weight: 0, match: [{}]}
- {weight: 1, match: [{name: beta, headers: {}}]}
- {weight: 2, match: []}
- {weight: 3, match: [{header: {x-beta: {exact: y}}}]}
- {weight: 4, match: [{uri: {prefix: /beta}}]}
"), @r#"
app/canary.yaml:8:25: this match would send everybody to the candidate: it has no condition; conditions are `uri`, `scheme`, `method`, `authority`, `headers`, `port`, `sourceLabels`, `gateways`, `queryParams`, `withoutHeaders`, `sourceNamespace`
app/canary.yaml:9:25: this match would send everybody to the candidate: it has no condition; conditions are `uri`, `scheme`, `method`, `authority`, `headers`, `port`, `sourceLabels`, `gateways`, `queryParams`, `withoutHeaders`, `sourceNamespace`
app/canary.yaml:10:24: `match` is empty: leave it out
app/canary.yaml:11:26: unknown field `header` in a match (did you mean `headers`?)
-> test/podinfo rejected
"#);
}

#[test]
fn names_of_users_are_taken_as_they_are_or_refused() {
    let long = "x".repeat(200);
    let longest = "y".repeat(1025);
    insta::assert_snapshot!(check(&format!("
workload: {{deployment: podinfo}}
route: {{service: podinfo}}
ladder: [{{weight: 50}}]
users:
- header: X-User
  exact: ['a.*b', \"o'brien\", 'say \"hi\"', '{long}', 'a|b(c)[d]', 'two words']
- cookie: user
  exact: ['a.*b', 'a;b', 'a b', 'ä']
- header: x-user
  exact: ['', \"a\\nb\", \"a\\tb\", ' a', 'ümit', '{longest}', dup, dup]
")), @r#"
app/canary.yaml:12:21: the name `a;b` contains `;`, which ends the value of a cookie
app/canary.yaml:12:28: warning: the name `a b` has characters that clients usually send encoded in a cookie; it matches only as written
app/canary.yaml:12:35: warning: the name `ä` is not ASCII; it matches only clients that send it as UTF-8
app/canary.yaml:14:13: the name of a user is empty: it would match requests without one
app/canary.yaml:14:17: the name `a\nb` contains a line break, which cannot be sent in a header
app/canary.yaml:14:25: the name `a\tb` contains a tab, which cannot be sent in a header
app/canary.yaml:14:33: the name ` a` begins or ends with a space, which proxies cut off before they match
app/canary.yaml:14:39: warning: the name `ümit` is not ASCII; it matches only clients that send it as UTF-8
app/canary.yaml:14:47: the name `yyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyy…` has 1025 bytes, at most 1024 are allowed
app/canary.yaml:14:1081: warning: the name `dup` is listed twice
-> test/podinfo rejected
"#);
}

#[test]
fn headers_and_cookies_need_names_that_istio_looks_at() {
    insta::assert_snapshot!(check("
workload: {deployment: podinfo}
route: {service: podinfo}
ladder: [{weight: 50}]
users:
- {header: Cookie, exact: [a]}
- {header: 'x user', exact: [a]}
- {header: ':authority', exact: [a]}
- {header: uri, exact: [a]}
- {cookie: 'a=b', exact: [a]}
- {header: x, cookie: y, exact: [a]}
- {exact: [a]}
- {header: ''}
"), @r#"
app/canary.yaml:9:14: the `Cookie` header holds all cookies at once: write `cookie: <name of the cookie>` instead
app/canary.yaml:10:14: `x user` is not the name of a header: letters, digits and `-`, such as `x-user`
app/canary.yaml:11:14: `:authority` is not the name of a header: letters, digits and `-`, such as `x-user`
app/canary.yaml:12:14: Istio ignores a header called `uri` in a match, so everybody would match
app/canary.yaml:13:14: `a=b` is not the name of a cookie: no spaces, no `=`, `;` or `,`
app/canary.yaml:14:25: `spec.users[5].cookie` is `y` (which YAML reads as `true`), expected text; put it in quotes
app/canary.yaml:14:25: give either `header` or `cookie`, not both
app/canary.yaml:15:5: say where the name is found: `header: x-user` or `cookie: user`
app/canary.yaml:16:5: `spec.users[7]` lacks `exact`
app/canary.yaml:16:14: `spec.users[7].header` is empty
-> test/podinfo rejected
"#);
}

#[test]
fn routes_are_serins_to_write() {
    insta::assert_snapshot!(check("
workload: {deployment: podinfo}
route:
  service: podinfo
  hosts: ['http://x.com', 'x:80', x/y, X.com, 'a b', '*.example.com', '*.example.com']
  gateways: [mesh, 'a/b/c', My_Gateway]
  exportTo: ['.', '*', foo, Foo]
  http:
    route: []
    redirect: {}
    mirrorPercentage: {value: 1}
    match: []
    timeout: 5
  sessionAffinity: {cookie: 'a b', maxAge: 10ms}
ladder: [{weight: 50}]
"), @r#"
app/canary.yaml:8:13: `http://x.com` is not a host, expected a name such as `podinfo` or `*.example.com`; leave out the scheme
app/canary.yaml:8:29: `x:80` is not a host, expected a name such as `podinfo` or `*.example.com`; leave out the port
app/canary.yaml:8:37: `x/y` is not a host, expected a name such as `podinfo` or `*.example.com`; leave out the path
app/canary.yaml:8:42: `X.com` is not a host, expected a name such as `podinfo` or `*.example.com`; write it in lower case
app/canary.yaml:8:49: `a b` is not a host, expected a name such as `podinfo` or `*.example.com`
app/canary.yaml:8:73: the host `*.example.com` is listed twice
app/canary.yaml:9:22: `a/b/c` is not a gateway, expected `mesh`, `<name>` or `<namespace>/<name>`
app/canary.yaml:9:31: `My_Gateway` is not a gateway, expected `mesh`, `<name>` or `<namespace>/<name>`
app/canary.yaml:10:31: `Foo` is not allowed in `exportTo`, expected `.`, `*` or a namespace
app/canary.yaml:12:7: `route` is not allowed in `spec.route.http`: Serin writes where requests go; allowed are `name`, `match`, `rewrite`, `timeout`, `retries`, `fault`, `corsPolicy`, `headers`
app/canary.yaml:13:7: `redirect` is not allowed in `spec.route.http`: Serin writes where requests go; allowed are `name`, `match`, `rewrite`, `timeout`, `retries`, `fault`, `corsPolicy`, `headers`
app/canary.yaml:14:7: `mirrorPercentage` is not allowed in `spec.route.http`: Serin writes where requests go; allowed are `name`, `match`, `rewrite`, `timeout`, `retries`, `fault`, `corsPolicy`, `headers`; to mirror, give a step of the ladder `mirror: <per cent>`
app/canary.yaml:15:14: `match` is a list of Istio match requests, and not empty: leave it out to match everything
app/canary.yaml:16:16: `timeout` is the number `5`, expected a duration such as `5s`
app/canary.yaml:17:31: `a b` is not the name of a cookie: no spaces, no `=`, `;` or `,`
app/canary.yaml:17:46: `maxAge` is less than a second
-> test/podinfo rejected
"#);
}

#[test]
fn what_only_http_can_do_needs_http() {
    insta::assert_snapshot!(check("
workload: {deployment: podinfo}
route: {service: podinfo, tcp: {match: [{port: 1, sniHosts: [x]}]}, delegate: true, hosts: [x], sessionAffinity: {cookie: x}}
ladder: [{weight: 50, mirror: 1}]
users: [{header: x, exact: [a]}]
"), @r#"
app/canary.yaml:6:63: `sniHosts` goes with a `tls` route
app/canary.yaml:6:71: Istio delegates HTTP routes only
app/canary.yaml:6:87: a delegate has no `hosts`: the root VirtualService that delegates to it has them
app/canary.yaml:6:99: session affinity needs an HTTP route: it works by a cookie
app/canary.yaml:7:25: `mirror` needs an HTTP route
app/canary.yaml:8:3: named users need an HTTP route: a TCP or TLS route cannot see headers or cookies
-> test/podinfo rejected
"#);
    insta::assert_snapshot!(check("
workload: {deployment: podinfo}
route: {service: podinfo, tls: {}}
ladder: [{weight: 50}]
"), @r#"
app/canary.yaml:6:29: a TLS route needs at least one `match` with `sniHosts`: nothing else of a request can be seen
-> test/podinfo rejected
"#);
    insta::assert_snapshot!(check("
workload: {deployment: podinfo}
route: {service: podinfo, tls: {match: [{sniHosts: []}, {sniHost: [x]}]}}
ladder: [{weight: 50}]
"), @r#"
app/canary.yaml:6:43: a match of a TLS route needs `sniHosts`
app/canary.yaml:6:59: a match of a TLS route needs `sniHosts`
app/canary.yaml:6:60: unknown field `sniHost` in a match (did you mean `sniHosts`?)
-> test/podinfo rejected
"#);
    insta::assert_snapshot!(check("
workload: {deployment: podinfo}
route: {service: podinfo, http: {}, tcp: {}}
ladder: [{weight: 50}]
"), @r#"
app/canary.yaml:6:39: a route is one of `http`, `tcp` and `tls`: give at most one
-> test/podinfo rejected
"#);
}

#[test]
fn workload_and_versions_exclude_each_other() {
    insta::assert_snapshot!(check("
workload: {deployment: podinfo}
versions: {stable: {version: v1}, candidate: {version: v2}}
route: {service: podinfo}
ladder: [{weight: 50}]
"), @r#"
app/canary.yaml:6:3: `workload` and `versions` exclude each other: give one of them
-> test/podinfo rejected
"#);
    insta::assert_snapshot!(check("
route: {service: podinfo}
ladder: [{weight: 50}]
"), @r#"
app/canary.yaml:5:3: `spec` needs `workload` (a Deployment that Serin derives the candidate from) or `versions` (two label sets that you deploy yourself)
-> test/podinfo rejected
"#);
    insta::assert_snapshot!(check("
versions: {stable: {version: v1, zone: a}, candidate: {version: 2, 'bad key': -x}}
candidate: {images: {a: b}}
route: {service: podinfo}
ladder: [{weight: 50}]
"), @r#"
app/canary.yaml:5:67: `spec.versions.candidate.version` is the number `2`, expected text; put it in quotes
app/canary.yaml:5:70: `bad key` is not the key of a label
app/canary.yaml:5:81: the label `bad key` is `-x`, which is not the value of a label
app/canary.yaml:6:3: `candidate` goes with `workload`; with `versions` the proposal is `versions.candidate`
-> test/podinfo rejected
"#);
}

#[test]
fn candidates_are_checked() {
    insta::assert_snapshot!(check("
workload: {deployment: podinfo, label: 'a/b/c'}
candidate: {images: {podinfd: 'x:1', podinfod: 'bad image', sidecar: ''}, patch: []}
route: {service: podinfo}
ladder: [{weight: 50}]
"), @r#"
app/canary.yaml:5:42: `spec.workload.label` is `a/b/c`, expected the key of a label
app/canary.yaml:6:50: the image of `podinfod` is `bad image`, but it has no valid name; write `<name>:<tag>` or `<name>@sha256:<digest>`
app/canary.yaml:6:72: the image of `sidecar` is ``, but it has no valid name; write `<name>:<tag>` or `<name>@sha256:<digest>`
app/canary.yaml:6:84: `spec.candidate.patch` is a list, expected a mapping
-> test/podinfo rejected
"#);
    insta::assert_snapshot!(check("
workload: {deployment: podinfo}
candidate: {images: {podinfd: 'x:1'}}
route: {service: podinfo}
ladder: [{weight: 50}]
"), @r#"
app/canary.yaml:6:24: the Deployment has no container `podinfd` (did you mean `podinfod`?); its containers are `podinfod`
-> test/podinfo rejected
"#);
}

#[test]
fn metrics_have_limits_that_can_be_met() {
    insta::assert_snapshot!(check("
workload: {deployment: podinfo}
route: {service: podinfo}
ladder: [{weight: 50}]
analysis:
  every: 500ms
  onInconclusive: promote
  metrics:
  - {name: success-rate, min: 100}
  - {name: success-rate, min: 0.99}
  - {name: success-rate-2, min: 0, quantile: 1}
  - {name: success-rate-3, max: 1}
  - {name: latency, quantile: 99, max: 500ms}
  - {name: latency-2, max: 300ms}
  - {name: latency-3, max: 500}
  - {name: latency-4, max: 0s}
  - {name: latency-5}
  - {name: sucess-rate, min: 99}
  - {name: queue, query: 'sum({{ namspace }}) + {{ x', max: 1}
  - {name: depth, query: 'sum(x{a=\"b\"})', min: 5, max: 1}
  - {name: d2, query: 'x', max: 5s}
  - {name: d3, query: ' '}
  - {name: 'bad name', query: x, min: 1, minRequests: 0}
"), @r#"
app/canary.yaml:9:12: `spec.analysis.every` is 500ms, expected at least `1s`
app/canary.yaml:10:5: `onInconclusive` acts when `deadline` has passed: set `deadline` too, such as `1h`
app/canary.yaml:12:33: `min` is 100, expected less than 100: no number of requests can show that none ever fails; 99.9 is strict
app/canary.yaml:13:14: a metric called `success-rate` is there already, on line 12
app/canary.yaml:13:33: warning: `min` is 0.99 per cent; if you mean 99, write that
app/canary.yaml:14:35: `min` is 0, expected per cent above 0 and below 100, such as 99
app/canary.yaml:14:38: `quantile` does not go with `success-rate`, which has a `min` in per cent
app/canary.yaml:15:7: `success-rate` needs a `min` in per cent, such as `min: 99`
app/canary.yaml:15:30: `max` does not go with `success-rate`, which has a `min` in per cent
app/canary.yaml:16:33: `quantile` is 99, expected a number between 0 and 1, such as 0.99
app/canary.yaml:17:30: warning: Istio counts latency in buckets and has none at 300ms: it is judged as 250ms, the next one is 500ms; other buckets can be set with the pod annotation `sidecar.istio.io/statsHistogramBuckets`
app/canary.yaml:18:30: `max` of a latency needs a unit: `500ms` or `500s`
app/canary.yaml:19:30: `max` of a latency is at least `1ms`
app/canary.yaml:20:7: `latency` needs a `max`, such as `max: 500ms`
app/canary.yaml:21:14: the metric `sucess-rate` is not built in (did you mean `success-rate`?); built in are `success-rate` and `latency`, others need a `query`
app/canary.yaml:22:28: `{{` without `}}` in the query
app/canary.yaml:22:28: unknown placeholder `{{ namspace }}` in the query (did you mean `namespace`?); known are `namespace`, `workload`, `stable`, `service`, `canary`, `window`
app/canary.yaml:23:50: `min` is 5 and `max` is 1: no value is within both
app/canary.yaml:24:35: `max` of a query is a number, in the unit that the query yields
app/canary.yaml:25:7: a metric needs a limit: `min`, `max`, or both
app/canary.yaml:25:25: the query is empty
app/canary.yaml:26:14: the metric's name is `bad name`, expected letters, digits, `-`, `_` and `.`
app/canary.yaml:26:57: `spec.analysis.metrics[14].minRequests` is 0, expected 1 to 1000000000
-> test/podinfo rejected
"#);
    insta::assert_snapshot!(check("
workload: {deployment: podinfo}
route: {service: podinfo}
ladder: [{weight: 50}]
analysis: {metrics: []}
"), @r#"
app/canary.yaml:8:23: there is nothing to judge by: give a metric, leave `metrics` out for the default, or set `skip: true`
-> test/podinfo rejected
"#);
}

#[test]
fn freezes_are_times_that_exist() {
    insta::assert_snapshot!(check("
workload: {deployment: podinfo}
route: {service: podinfo}
ladder: [{weight: 50}]
freeze:
- {from: 2026-12-24, to: '16:00'}
- {from: '2026-12-27T00:00:00Z', to: '2026-12-24T00:00:00Z'}
- {from: '2026-12-24T00:00:00Z', to: '2026-12-27T00:00:00Z', utcOffset: '+01:00'}
- {days: [sat], from: 16:00, to: 24:00, utcOffset: CET}
- {days: [sat], from: 6:00, to: 08:00}
- {days: [], from: 16:00, to: 08:00}
"), @r#"
app/canary.yaml:9:12: `from` is `2026-12-24`, expected a time such as `2026-12-24T18:00:00Z` (or a time of day, with `days`)
app/canary.yaml:9:28: `to` is `16:00`, expected a time such as `2026-12-24T18:00:00Z` (or a time of day, with `days`)
app/canary.yaml:10:5: the freeze ends before it begins
app/canary.yaml:11:64: `utcOffset` goes with `days`; a time such as `2026-12-24T18:00:00+01:00` carries its own offset
app/canary.yaml:12:36: `to` is `24:00`, expected a time of day such as `16:00`
app/canary.yaml:12:54: `utcOffset` is `CET`, expected an offset such as `+01:00`, `-05:30` or `Z`
app/canary.yaml:13:25: `from` is `6:00`, expected a time of day such as `16:00`
app/canary.yaml:14:12: `spec.freeze[5].days` is empty, at least one entry is needed
-> test/podinfo rejected
"#);
}

#[test]
fn a_canary_stays_in_its_place() {
    for name in ["..", "../x", "a/b", "A", "x y"] {
        let text = canary(SPEC).replace("name: podinfo", &format!("name: '{name}'"));
        let told = told(&read(&[("app/c.yaml", &text)]));
        assert!(
            told.starts_with("app/c.yaml:3:18: `metadata.name` is "),
            "{told}"
        );
        assert!(!told.contains("fine"), "{told}");
    }
    insta::assert_snapshot!(check("
workload: {deployment: podinfo}
route: {service: podinfo}
ladder: [{weight: 50}]
folder: ../x
"), @r#"
app/canary.yaml:8:11: `spec.folder` is `../x`, expected the name of one folder next to this file
-> test/podinfo rejected
"#);
}

#[test]
fn what_an_alias_repeats_is_told_once() {
    insta::assert_snapshot!(check("
workload: {deployment: podinfo}
route: {service: podinfo}
ladder: [{weight: 50, match: [&m {headrs: {a: {exact: b}}}, *m]}]
"), @r#"
app/canary.yaml:7:37: unknown field `headrs` in a match (did you mean `headers`?)
-> test/podinfo rejected
"#);
}
