//! A commit names a user: her requests reach the candidate, and nobody else's do.

use std::sync::Arc;
use std::time::Duration;

use crate::bed::Bed;
use crate::load::{Answer, Load, Visitor, expect_no_failure, table};
use crate::site::{NEW, Site, moment};

/// From a commit to requests that are routed by it.
const LIMIT: Duration = Duration::from_secs(10);
/// Requests of which none may go astray.
const MANY: usize = 10_000;

/// Alexis is added to the users, asks, and is removed again.
pub(crate) async fn comes_and_goes(bed: Arc<Bed>) {
    let mut site = Site::new(&bed, "user").await;
    let _serin = site.serin();
    site.serves().await;
    let someone = site.someone("alex");
    let proposed = site.wish().candidate(NEW).gated();
    site.commit(&someone, "Propose 6.9.0 to nobody", &proposed);
    site.has_candidate(1).await;
    let visitors = [
        Visitor::new("alexis", &[("x-user", b"alexis")]),
        Visitor::anybody(),
        Visitor::new("stefan", &[("x-user", b"stefan")]),
        Visitor::new("alexis-prefix", &[("x-user", b"alex")]),
        Visitor::new("alexis-suffix", &[("x-user", b"alexiss")]),
        Visitor::new("alexis-capital", &[("x-user", b"Alexis")]),
        Visitor::new("alexis-elsewhere", &[("x-other", b"alexis")]),
    ];
    let load = Load::start(&site.target(), 70, visitors.to_vec());
    moment(1000).await;
    let wish = proposed
        .clone()
        .users("[{header: x-user, exact: [alexis]}]");
    let pushed = site.commit(&someone, "Let me try it", &wish);
    let first = load.first(pushed, LIMIT, "routed to the candidate", Answer::is_canary);
    let first = first.await;
    println!(
        "named_user: first request routed {:.0?} after the push",
        first.sent - pushed
    );
    assert_eq!(&*first.who, "alexis");
    // Envoy changes a listener's routes for one worker after the other.
    moment(300).await;
    let answers = site.target().burst(&visitors, MANY).await;
    astray(&answers, &["alexis"]);
    let removed = site.commit(&someone, "Enough", &proposed);
    let back = |answer: &Answer| &*answer.who == "alexis" && !answer.is_canary();
    load.first(removed, LIMIT, "routed back to stable", back)
        .await;
    moment(300).await;
    let answers = site.target().burst(&visitors, 1000).await;
    astray(&answers, &[]);
    let answers = load.stop().await;
    expect_no_failure(&answers);
    // What Prometheus says the candidate's pods were asked by.
    moment(2500).await;
    let query = format!(
        "sum by (who) (max_over_time(app_requests_total{{destination_workload=\"podinfo-canary\",namespace=\"{}\"}}[10m]))",
        site.namespace
    );
    let by_whom = bed.series(&query).await;
    let names: Vec<&str> = by_whom
        .iter()
        .filter_map(|(labels, _)| labels["who"].as_str())
        .collect();
    assert_eq!(names, ["alexis"], "{by_whom:?}");
}

/// Names and headers that would be patterns, quotes or other headers elsewhere.
pub(crate) async fn hostile_names(bed: Arc<Bed>) {
    let long = "x".repeat(200);
    let names = [
        ".*",
        "a|b",
        "^$",
        "al(e)x[is]+",
        "\\d",
        "a\"b",
        "it's",
        "a, b",
        "a: b # c",
        "{{ x }}",
        "%41",
        "*",
        "null",
        "~",
        "1e3",
        "true",
        "a  b",
        "\u{fc}n\u{ef}",
        long.as_str(),
    ];
    let near = [
        "anything",
        "a",
        "b",
        "",
        "alexis",
        "5",
        "ab",
        "its",
        "a,b",
        "a: b",
        "x",
        "A",
        "**",
        "nul",
        "~~",
        "1000",
        "True",
        "a b",
        "un",
        &long[1..],
    ];
    let headers = ["x-user", "X-Upper", "x.dots", "x_under", "x!#$%&'*+^`|~"];
    let mut site = Site::new(&bed, "hostile").await;
    let _serin = site.serin();
    site.serves().await;
    let someone = site.someone("alex");
    let exact = serde_json::to_string(&names).unwrap();
    let users: Vec<String> = headers
        .iter()
        .map(|header| {
            format!(
                "{{header: {}, exact: {exact}}}",
                serde_json::to_string(header).unwrap()
            )
        })
        .chain([r#"{cookie: user, exact: ["a.b", "x*", "al(e)x"]}"#.to_owned()])
        .collect();
    let wish = site
        .wish()
        .candidate(NEW)
        .gated()
        .users(&format!("[{}]", users.join(", ")));
    let pushed = site.commit(&someone, "Let them try it", &wish);
    let probe = Visitor::new("probe", &[("x-user", b".*")]);
    let load = Load::start(&site.target(), 20, vec![probe]);
    load.first(
        pushed,
        3 * LIMIT,
        "routed to the candidate",
        Answer::is_canary,
    )
    .await;
    moment(300).await;
    let mut visitors = Vec::new();
    for header in headers {
        for name in names {
            visitors.push(Visitor::new("named", &[(header, name.as_bytes())]));
        }
        for name in near {
            visitors.push(Visitor::new("near", &[(header, name.as_bytes())]));
        }
    }
    for cookie in [
        "user=a.b",
        "user=x*",
        "a=b; user=al(e)x; c=d",
        "user=a.b; z=user",
    ] {
        visitors.push(Visitor::new("named", &[("cookie", cookie.as_bytes())]));
    }
    for cookie in [
        "user=aXb",
        "user=xx",
        "user=alex",
        "other=a.b",
        "xuser=a.b",
        "a=user=a.b",
        "user=a.bc",
        "user=",
    ] {
        visitors.push(Visitor::new("near", &[("cookie", cookie.as_bytes())]));
    }
    let answers = site.target().burst(&visitors, 3 * visitors.len()).await;
    astray(&answers, &["named"]);
    expect_no_failure(&load.stop().await);
    assert_eq!(bed.client.rejections().await, 0);
}

/// Fails when a request went elsewhere than those users make it go.
fn astray(answers: &[Answer], users: &[&str]) {
    expect_no_failure(answers);
    let wrong = answers
        .iter()
        .filter(|answer| answer.is_canary() != users.contains(&&*answer.who))
        .count();
    assert_eq!(wrong, 0, "of {}: {:#?}", answers.len(), table(answers));
}
