//! Requests through Envoy: a bounded open loop, with a record of each.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use tokio::sync::Semaphore;

use crate::pods::{VERSION, WHO, WORKLOAD};

/// Requests that may be without an answer at once; beyond that none are sent, and it is counted.
const IN_FLIGHT: usize = 400;
/// Longest wait for an answer.
const PATIENCE: Duration = Duration::from_secs(15);

/// Somebody who asks.
#[derive(Debug, Clone)]
pub(crate) struct Visitor {
    /// Who it is, for the record.
    pub(crate) who: Arc<str>,
    headers: HeaderMap,
}

impl Visitor {
    /// Nobody in particular.
    pub(crate) fn anybody() -> Self {
        Self::new("anybody", &[])
    }

    /// Somebody whose requests carry these headers.
    pub(crate) fn new(who: &str, headers: &[(&str, &[u8])]) -> Self {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            let name = HeaderName::from_bytes(name.as_bytes()).unwrap();
            map.append(name, HeaderValue::from_bytes(value).unwrap());
        }
        map.insert(WHO, HeaderValue::from_str(who).unwrap());
        Self {
            who: who.into(),
            headers: map,
        }
    }
}

/// One request and what became of it.
#[derive(Debug, Clone)]
pub(crate) struct Answer {
    pub(crate) who: Arc<str>,
    pub(crate) sent: Instant,
    pub(crate) took: Duration,
    /// 0 when there was no answer.
    pub(crate) status: u16,
    /// The image's tag; empty without an answer of a pod.
    pub(crate) version: String,
    /// The Deployment; empty without an answer of a pod.
    pub(crate) workload: String,
    /// Cookies that it sets.
    pub(crate) cookies: Vec<String>,
    /// What else there is to say of a failure.
    pub(crate) words: String,
}

impl Answer {
    /// Whether the candidate's Deployment answered.
    pub(crate) fn is_canary(&self) -> bool {
        self.workload.ends_with("-canary")
    }

    /// Whether it is not what a healthy version answers.
    pub(crate) fn failed(&self) -> bool {
        self.status != 200
    }
}

/// Where requests go.
#[derive(Debug, Clone)]
pub(crate) struct Target {
    client: reqwest::Client,
    url: String,
    host: String,
}

impl Target {
    /// A host behind a port of an Envoy.
    pub(crate) fn new(port: u16, host: &str) -> Self {
        let client = reqwest::Client::builder()
            .timeout(PATIENCE)
            .no_proxy()
            .tcp_nodelay(true)
            .build()
            .unwrap();
        Self {
            client,
            url: format!("http://127.0.0.1:{port}/"),
            host: host.to_owned(),
        }
    }

    /// Sends one request.
    pub(crate) async fn ask(&self, visitor: &Visitor) -> Answer {
        let sent = Instant::now();
        let request = self
            .client
            .get(&self.url)
            .headers(visitor.headers.clone())
            .header("host", &self.host);
        let mut answer = Answer {
            who: Arc::clone(&visitor.who),
            sent,
            took: Duration::ZERO,
            status: 0,
            version: String::new(),
            workload: String::new(),
            cookies: Vec::new(),
            words: String::new(),
        };
        match request.send().await {
            Ok(response) => {
                let header = |name: &str| {
                    let value = response.headers().get(name);
                    let value = value.and_then(|value| value.to_str().ok());
                    value.unwrap_or_default().to_owned()
                };
                answer.status = response.status().as_u16();
                answer.version = header(VERSION);
                answer.workload = header(WORKLOAD);
                let cookies = response.headers().get_all("set-cookie");
                answer.cookies = cookies
                    .iter()
                    .filter_map(|value| value.to_str().ok().map(str::to_owned))
                    .collect();
                match response.text().await {
                    Ok(body) if answer.status != 200 => answer.words = body,
                    Ok(_) => {}
                    Err(error) => {
                        answer.status = 0;
                        answer.words = error.to_string();
                    }
                }
            }
            Err(error) => answer.words = format!("{error:?}"),
        }
        answer.took = sent.elapsed();
        answer
    }

    /// Sends so many requests, some at once, the visitors taking turns.
    pub(crate) async fn burst(&self, visitors: &[Visitor], count: usize) -> Vec<Answer> {
        let next = Arc::new(AtomicUsize::new(0));
        let mut tasks = Vec::new();
        for _ in 0..32 {
            let (target, next, visitors) = (self.clone(), Arc::clone(&next), visitors.to_owned());
            tasks.push(tokio::spawn(async move {
                let mut answers = Vec::new();
                loop {
                    let index = next.fetch_add(1, Ordering::Relaxed);
                    if index >= count {
                        return answers;
                    }
                    answers.push(target.ask(&visitors[index % visitors.len()]).await);
                }
            }));
        }
        let mut answers = Vec::new();
        for task in tasks {
            answers.extend(task.await.unwrap());
        }
        answers
    }
}

/// Requests at a steady pace, whether or not earlier ones are answered.
pub(crate) struct Load {
    answers: Arc<Mutex<Vec<Answer>>>,
    withheld: Arc<AtomicUsize>,
    stop: Arc<AtomicBool>,
    task: Option<tokio::task::JoinHandle<()>>,
}

impl Load {
    /// Starts it; the visitors take turns.
    pub(crate) fn start(target: &Target, per_second: u32, visitors: Vec<Visitor>) -> Self {
        let answers = Arc::new(Mutex::new(Vec::new()));
        let withheld = Arc::new(AtomicUsize::new(0));
        let stop = Arc::new(AtomicBool::new(false));
        let places = Arc::new(Semaphore::new(IN_FLIGHT));
        let task = {
            let (answers, withheld, stop) = (
                Arc::clone(&answers),
                Arc::clone(&withheld),
                Arc::clone(&stop),
            );
            let target = target.clone();
            let mut pace = tokio::time::interval(Duration::from_secs(1) / per_second);
            tokio::spawn(async move {
                for visitor in visitors.iter().cycle() {
                    pace.tick().await;
                    if stop.load(Ordering::Relaxed) {
                        break;
                    }
                    let Ok(place) = Arc::clone(&places).try_acquire_owned() else {
                        withheld.fetch_add(1, Ordering::Relaxed);
                        continue;
                    };
                    let (target, visitor) = (target.clone(), visitor.clone());
                    let answers = Arc::clone(&answers);
                    tokio::spawn(async move {
                        let answer = target.ask(&visitor).await;
                        answers
                            .lock()
                            .unwrap_or_else(PoisonError::into_inner)
                            .push(answer);
                        drop(place);
                    });
                }
                // The last answers are still under way.
                let all = u32::try_from(IN_FLIGHT).unwrap();
                let _all = places.acquire_many(all).await;
            })
        };
        Self {
            answers,
            withheld,
            stop,
            task: Some(task),
        }
    }

    /// What was answered so far.
    pub(crate) fn so_far(&self) -> Vec<Answer> {
        let answers = self.answers.lock();
        answers.unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The first answer of this kind, sent after a moment; waits for it.
    pub(crate) async fn first(
        &self,
        after: Instant,
        within: Duration,
        what: &str,
        is_it: impl Fn(&Answer) -> bool,
    ) -> Answer {
        let began = Instant::now();
        loop {
            {
                let answers = self.answers.lock();
                let answers = answers.unwrap_or_else(PoisonError::into_inner);
                let found = answers.iter().filter(|a| a.sent >= after && is_it(a));
                if let Some(found) = found.min_by_key(|answer| answer.sent) {
                    return found.clone();
                }
            }
            assert!(began.elapsed() < within, "no request was ever {what}");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Ends it, and answers with the whole record, in the order in which requests were sent.
    pub(crate) async fn stop(mut self) -> Vec<Answer> {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(task) = self.task.take() {
            task.await.unwrap();
        }
        let mut answers = self.so_far();
        answers.sort_by_key(|answer| answer.sent);
        answers
    }

    /// Requests that were not sent because too many had no answer.
    pub(crate) fn withheld(&self) -> usize {
        self.withheld.load(Ordering::Relaxed)
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

/// Fails when some request failed, and says which.
pub(crate) fn expect_no_failure(answers: &[Answer]) {
    let failed: Vec<&Answer> = answers.iter().filter(|answer| answer.failed()).collect();
    assert!(
        failed.is_empty(),
        "{} of {} requests failed: {:#?}",
        failed.len(),
        answers.len(),
        failed.iter().take(5).collect::<Vec<_>>()
    );
}

/// Requests by who sent them and which Deployment answered.
pub(crate) fn table(answers: &[Answer]) -> BTreeMap<(String, String), usize> {
    let mut count = BTreeMap::new();
    for answer in answers {
        let key = (answer.who.to_string(), answer.workload.clone());
        *count.entry(key).or_insert(0) += 1;
    }
    count
}
