//! A real `prometheus` on a loopback port, scraping once a second what a [`TrafficSource`] serves.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serin::analysis::{Answer, Purpose, Query};
use serin::clock::{Clock, SystemClock};
use serin::demo::traffic::{Flow, Traffic};
use serin::domain::Timestamp;
use serin::ports::Metrics;
use serin::prometheus::{Server, Settings};
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

/// Longest time that a program may take to answer, also beside a compiler.
const PATIENCE: Duration = Duration::from_secs(60);

/// The namespace of every workload.
pub(crate) const NAMESPACE: &str = "test";

/// Waits as long as it says.
pub(crate) async fn pause(duration: Duration) {
    let now = SystemClock.now();
    SystemClock.sleep_until(now + duration).await;
}

#[derive(Default)]
struct Source {
    traffic: Traffic,
    flows: BTreeMap<String, Flow>,
    gauges: BTreeMap<String, f64>,
    /// Requests sent one by one, by workload, pod and code.
    sent: BTreeMap<(String, String, u16), u64>,
}

/// Counters as Istio's sidecars expose them, growing at rates that a test sets while it runs.
pub(crate) struct TrafficSource {
    address: String,
    namespace: String,
    source: Arc<Mutex<Source>>,
    tasks: Vec<JoinHandle<()>>,
}

impl TrafficSource {
    /// A source without any traffic yet.
    pub(crate) async fn start() -> Self {
        Self::start_in(NAMESPACE).await
    }

    /// The same, for workloads in another namespace.
    pub(crate) async fn start_in(namespace: &str) -> Self {
        let source = Arc::new(Mutex::new(Source::default()));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let shown = Arc::clone(&source);
        let router = axum::Router::new().route(
            "/metrics",
            axum::routing::get(move || {
                let source = shown.lock().unwrap_or_else(PoisonError::into_inner);
                let mut text = source.traffic.exposition();
                for ((workload, pod, code), count) in &source.sent {
                    writeln!(text, "istio_requests_total{{reporter=\"destination\",destination_workload=\"{workload}\",destination_workload_namespace=\"{NAMESPACE}\",response_code=\"{code}\",response_flags=\"-\",pod=\"{pod}\"}} {count}").unwrap();
                }
                for (name, value) in &source.gauges {
                    writeln!(text, "{name} {value}").unwrap();
                }
                std::future::ready(text)
            }),
        );
        let server = tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        let ticking = Arc::clone(&source);
        let ticker = tokio::spawn(async move {
            loop {
                {
                    let mut source = ticking.lock().unwrap_or_else(PoisonError::into_inner);
                    let flows: Vec<Flow> = source.flows.values().cloned().collect();
                    source.traffic.advance(SystemClock.now(), &flows);
                }
                pause(Duration::from_millis(100)).await;
            }
        });
        Self {
            address,
            namespace: namespace.to_owned(),
            source,
            tasks: vec![server, ticker],
        }
    }

    /// From now on `workload` gets `rps` requests a second, of which `error_share` (0 to 1) fail with 503, and the
    /// slowest of the others takes `latency_ms`.
    pub(crate) fn set(&self, workload: &str, rps: f64, error_share: f64, latency_ms: f64) {
        let flow = Flow {
            namespace: self.namespace.clone(),
            workload: workload.to_owned(),
            service: workload.trim_end_matches("-canary").to_owned(),
            version: "v1".to_owned(),
            pods: vec![format!("{workload}-0"), format!("{workload}-1")],
            per_second: rps,
            error_share,
            latency_ms,
        };
        self.with(|source| source.flows.insert(workload.to_owned(), flow));
    }

    /// Sends this many requests to each of the first `pods` pods of `workload`, of which so many fail.
    pub(crate) fn send(&self, workload: &str, pods: u64, requests: u64, failures: u64) {
        self.send_to(workload, workload, pods, (requests, failures));
    }

    /// The same to pods with a name of their own, as those of each version have.
    pub(crate) fn send_to(
        &self,
        workload: &str,
        name: &str,
        pods: u64,
        (requests, failures): (u64, u64),
    ) {
        self.with(|source| {
            for pod in 0..pods {
                let mut add = |code, count| {
                    let key = (workload.to_owned(), format!("{name}-{pod}"), code);
                    if count > 0 {
                        *source.sent.entry(key).or_default() += count;
                    }
                };
                add(200, requests - failures);
                add(503, failures);
            }
        });
    }

    /// Lets the proxies of `workload` begin to count at zero, as a restart does.
    pub(crate) fn restart(&self, workload: &str) {
        self.with(|source| source.traffic.remove(&self.namespace, workload));
    }

    /// Sets a gauge that a custom metric may ask for.
    pub(crate) fn gauge(&self, name: &str, value: f64) {
        self.with(|source| source.gauges.insert(name.to_owned(), value));
    }

    fn with<T>(&self, change: impl FnOnce(&mut Source) -> T) -> T {
        change(&mut self.source.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Drop for TrafficSource {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
    }
}

/// A running `prometheus`; ends when dropped.
pub(crate) struct Prometheus {
    /// Base URL.
    pub(crate) url: String,
    child: Child,
    _data: TempDir,
}

impl Prometheus {
    /// Starts the program and waits until it has scraped the source once.
    pub(crate) async fn start(source: &TrafficSource) -> Self {
        Self::scraping(&source.address, &[]).await
    }

    /// The same with what answers at `address`, and with more flags.
    pub(crate) async fn scraping(source: &str, flags: &[&str]) -> Self {
        let data = tempfile::tempdir().unwrap();
        let config = data.path().join("prometheus.yml");
        let text = format!(
            "global: {{scrape_interval: 1s, scrape_timeout: 1s}}\nscrape_configs:\n- job_name: mesh\n  honor_labels: true\n  static_configs: [{{targets: ['{source}']}}]\n"
        );
        std::fs::write(&config, text).unwrap();
        // The port is free when it is chosen, and may be taken a moment later.
        for _ in 0..5 {
            let free = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let address = free.local_addr().unwrap().to_string();
            drop(free);
            let mut server = Self {
                url: format!("http://{address}"),
                child: spawn(&config, data.path(), &address, flags),
                _data: tempfile::tempdir().unwrap(),
            };
            if server.is_scraping().await {
                server._data = data;
                return server;
            }
        }
        panic!("`prometheus` does not stay up; run it by hand to see why");
    }

    /// False when the program has ended.
    async fn is_scraping(&mut self) -> bool {
        let client = Server::new(Settings::new(&self.url)).unwrap();
        let began = SystemClock.now();
        while SystemClock.now() < began + PATIENCE {
            if self.child.try_wait().unwrap().is_some() {
                return false;
            }
            let query = instant("up == 1", SystemClock.now());
            if let [Answer::Series(series)] = client.ask(&[query]).await.as_slice()
                && !series.is_empty()
            {
                return true;
            }
            pause(Duration::from_millis(100)).await;
        }
        panic!(
            "`prometheus` scraped nothing within {} s",
            PATIENCE.as_secs()
        );
    }

    /// Ends the program at once.
    pub(crate) fn kill(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        self.kill();
    }
}

#[expect(clippy::disallowed_methods, reason = "the test owns this program")]
fn spawn(config: &std::path::Path, data: &std::path::Path, address: &str, flags: &[&str]) -> Child {
    Command::new("prometheus")
        .arg(format!("--config.file={}", config.display()))
        .arg(format!("--storage.tsdb.path={}", data.join("data").display()))
        .arg(format!("--web.listen-address={address}"))
        .arg("--log.level=error")
        .args(flags)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap_or_else(|error| {
            panic!("the program `prometheus` cannot be started ({error}): install Debian's package `prometheus`, or put one on PATH")
        })
}

/// A query for one moment.
pub(crate) fn instant(promql: &str, at: Timestamp) -> Query {
    Query {
        promql: promql.to_owned(),
        at,
        range: None,
        lookback: None,
        purpose: Purpose::Custom(Vec::new()),
    }
}
