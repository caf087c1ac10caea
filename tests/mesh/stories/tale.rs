//! The whole story for a person, told while it happens: `tests/mesh/demo`. With `UPDATE_RECORDING=1` its picture is kept.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::bed::Bed;
use crate::load::{Answer, Load, Visitor};
use crate::picture::{Commit, Event, Run, svg};
use crate::pods::Behaviour;
use crate::rig::{routes, tests};
use crate::site::{NEW, Site, moment};

/// Requests a second, one in twenty of them by Alexis.
const RATE: u32 = 200;

/// What happened so far.
#[derive(Default)]
struct Record {
    commits: Vec<Commit>,
    events: Vec<Event>,
}

/// A named user, a ladder, an edited weight, a bad release, a deleted namespace.
pub(crate) async fn told(bed: Arc<Bed>) {
    let mut site = Site::new(&bed, "apps").await;
    let _serin = site.serin();
    site.serves().await;
    let site = Arc::new(site);
    let mut visitors = vec![Visitor::anybody(); 19];
    visitors.push(Visitor::new("alexis", &[("x-user", b"alexis")]));
    let load = Arc::new(Load::start(&site.target(), RATE, visitors));
    let began = Instant::now();
    let record = Arc::new(Mutex::new(Record::default()));
    let telling = tokio::spawn(tell(
        Arc::clone(&site),
        Arc::clone(&load),
        Arc::clone(&record),
        began,
    ));
    let happens = |what: &str| {
        let event = Event {
            at: Instant::now(),
            what: what.to_owned(),
        };
        println!("{:>6.1}s  {what}", (event.at - began).as_secs_f64());
        let mut record = record.lock().unwrap_or_else(PoisonError::into_inner);
        record.events.push(event);
    };
    moment(3000).await;

    let alexis = site.git.someone("alex");
    let ladder = "[{weight: 0, hold: 4s}, {weight: 10, hold: 6s}, {weight: 60, hold: 6s}, {weight: 100, hold: 5s}]";
    let users = "[{header: x-user, exact: [alexis]}]";
    let wish = site.wish().candidate(NEW).users(users).ladder(ladder);
    site.commit(&alexis, "Propose 6.9.0, and let me try it first", &wish);
    site.weighs(60).await;
    moment(3000).await;
    let key = routes(&site.namespace, "podinfo");
    let mut found = site.kube.get(key).await.unwrap();
    let http = found["spec"]["http"].as_array_mut().unwrap();
    for destination in http.last_mut().unwrap()["route"].as_array_mut().unwrap() {
        let is_canary = destination["destination"]["subset"] == "canary";
        destination["weight"] = json!(if is_canary { 0 } else { 100 });
    }
    happens("somebody edits the weight to 0 with kubectl");
    site.kube.edit(key, &json!({"spec": {"http": http}})).await;
    site.promoted(NEW).await;
    moment(3000).await;

    let failing = Behaviour {
        failing: 0.2,
        ..Behaviour::default()
    };
    bed.pods.behave(&site.namespace, "6.10.0", failing);
    let dana = site.git.someone("dana");
    let wish = site
        .wish()
        .candidate("6.10.0")
        .ladder("[{weight: 10, hold: 30s}, {weight: 100, hold: 5s}]");
    site.commit(&dana, "Propose 6.10.0", &wish);
    site.weighs(10).await;
    site.without_candidate().await;
    moment(4000).await;

    let key = ("v1", "Namespace", "", site.namespace.as_str());
    let uid = |found: Option<&Value>| found.map(|found| found["metadata"]["uid"].clone());
    let before = uid(site.kube.get(key).await.as_ref());
    happens("somebody deletes the namespace");
    site.kube.delete(key).await;
    let is_another = |found: Option<&Value>| found.is_some() && uid(found) != before;
    site.kube.until(key, "there again", is_another).await;
    site.serves().await;
    happens("the namespace is back, as Git says");
    moment(4000).await;
    telling.abort();
    // Whoever tells holds the load as well.
    let _ = telling.await;
    let answers = Arc::into_inner(load).unwrap().stop().await;
    let record = record.lock().unwrap_or_else(PoisonError::into_inner);
    println!("\n{}", site.told("roll back 10% -> 0%"));
    if std::env::var_os("UPDATE_RECORDING").is_some() {
        let run = Run {
            began,
            answers: &answers,
            commits: &record.commits,
            events: &record.events,
        };
        std::fs::write(tests().join("mesh/recording.svg"), svg(&run)).unwrap();
    }
}

/// Says what is new on the branch, and every second what requests got.
async fn tell(site: Arc<Site>, load: Arc<Load>, record: Arc<Mutex<Record>>, began: Instant) {
    let mut head = site.git.head().to_string();
    let mut said = Instant::now();
    loop {
        moment(50).await;
        let range = format!("{head}..main");
        let log = site
            .git
            .server(&["log", "--reverse", "--format=%H\t%an\t%s", &range]);
        for line in log.lines() {
            let mut parts = line.splitn(3, '\t').map(str::to_owned);
            head = parts.next().unwrap();
            // The clone that a person has here is called so.
            let author = parts
                .next()
                .unwrap()
                .replace("alex", "alexis")
                .replace("serin", "Serin");
            let commit = Commit {
                at: Instant::now(),
                author,
                subject: parts
                    .next()
                    .unwrap()
                    .replace(&format!("{}/", site.namespace), "test/"),
            };
            println!(
                "{:>6.1}s  {:<6}  {}",
                (commit.at - began).as_secs_f64(),
                commit.author,
                commit.subject
            );
            let mut record = record.lock().unwrap_or_else(PoisonError::into_inner);
            record.commits.push(commit);
        }
        if said.elapsed() >= Duration::from_secs(1) {
            let last: Vec<Answer> = load
                .so_far()
                .into_iter()
                .filter(|a| a.sent >= said)
                .collect();
            said = Instant::now();
            println!("{:>6.1}s  {}", (said - began).as_secs_f64(), summary(&last));
        }
    }
}

/// One second in a line.
fn summary(answers: &[Answer]) -> String {
    let mut versions = std::collections::BTreeMap::new();
    for answer in answers
        .iter()
        .filter(|a| &*a.who == "anybody" && !a.version.is_empty())
    {
        *versions.entry(answer.version.as_str()).or_insert(0) += 1;
    }
    let failed = answers.iter().filter(|a| a.failed()).count();
    let everybody: Vec<String> = versions
        .iter()
        .map(|(version, count)| format!("{count} x {version}"))
        .collect();
    let hers = answers.iter().rfind(|a| &*a.who == "alexis");
    let hers = hers.map_or("nothing", |a| {
        if a.version.is_empty() {
            "a failure"
        } else {
            &a.version
        }
    });
    format!(
        "          everybody: {}; alexis: {hers}; {failed} failed",
        everybody.join(", ")
    )
}
