//! The telemetry of a simulated mesh: counters as Istio's sidecars expose them, with their values over time.
//!
//! Nothing is random: a share of 5 % is every twentieth request, so that a demo tells the same story each time.

use std::collections::{BTreeMap, VecDeque};
use std::fmt::Write as _;

use chrono::TimeDelta;

use crate::domain::Timestamp;

/// Labels of a series by name; `__name__` is the metric's.
pub type Labels = BTreeMap<String, String>;

/// Upper bounds of Istio's default latency buckets, in milliseconds.
pub const BOUNDS_MS: [f64; 18] = [
    0.5,
    1.0,
    5.0,
    10.0,
    25.0,
    50.0,
    100.0,
    250.0,
    500.0,
    1000.0,
    2500.0,
    5000.0,
    10_000.0,
    30_000.0,
    60_000.0,
    300_000.0,
    600_000.0,
    1_800_000.0,
];

/// How long values are kept, and how many at most for one series: two hours at one a second.
const RETENTION: TimeDelta = TimeDelta::hours(2);
const MAX_SAMPLES: usize = 7_200;

/// Requests that reach one workload.
#[derive(Debug, Clone, PartialEq)]
pub struct Flow {
    /// Namespace of the workload.
    pub namespace: String,
    /// Value of `destination_workload`: the name of its Deployment.
    pub workload: String,
    /// The Kubernetes Service that was called.
    pub service: String,
    /// Value of `destination_version`.
    pub version: String,
    /// Names of its pods, which share the requests; at least one, else nothing is counted.
    pub pods: Vec<String>,
    /// Requests a second.
    pub per_second: f64,
    /// Share of them that is answered with 503, from 0 to 1.
    pub error_share: f64,
    /// No successful answer takes longer than this, the fastest take half of it; in milliseconds.
    pub latency_ms: f64,
}

/// Counters of all workloads over time.
#[derive(Debug, Default)]
pub struct Traffic {
    /// Where the samples of a series are; one that ended leaves its place empty.
    series: BTreeMap<Labels, usize>,
    samples: Vec<VecDeque<(Timestamp, f64)>>,
    /// The series of a pod's answers of one kind, bucket by bucket and then the counter: their labels are written once.
    of_pods: BTreeMap<PodKey, Vec<usize>>,
    /// Fractions of requests and errors that are owed, and requests so far, by workload.
    owed: BTreeMap<(String, String), Owed>,
    now: Option<Timestamp>,
}

/// Namespace, workload, service, version and pod, and whether the answers are failures.
type PodKey = ([String; 5], bool);

#[derive(Debug, Clone, Copy, Default)]
struct Owed {
    requests: f64,
    errors: f64,
    served: u64,
}

/// Requests that one pod answered in one way.
#[derive(Debug, Clone, Copy, Default)]
struct Answers {
    total: f64,
    /// Per bound, those that took no longer.
    within: [f64; BOUNDS_MS.len()],
}

impl Traffic {
    /// No traffic yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Lets the time since the last call pass with these flows, and takes one sample of every counter at `now`.
    ///
    /// The first call, and one that does not go forward in time, counts nothing.
    pub fn advance(&mut self, now: Timestamp, flows: &[Flow]) {
        let passed = self.now.map_or(TimeDelta::zero(), |last| now - last);
        if self.now.is_some() && passed <= TimeDelta::zero() {
            return;
        }
        self.now = Some(now);
        // A virtual day at once would still be one sample.
        let seconds = passed.num_milliseconds() as f64 / 1000.0;
        let mut added: BTreeMap<usize, f64> = BTreeMap::new();
        for flow in flows {
            self.flow(flow, seconds, &mut added);
        }
        for (place, count) in added {
            if let Some(samples) = self.samples.get_mut(place) {
                let before = samples.back().map_or(0.0, |(_, value)| *value);
                samples.push_back((now, before + count));
            }
        }
        for samples in &mut self.samples {
            // A counter that nothing was added to is scraped all the same.
            if let Some((at, value)) = samples.back().copied()
                && at < now
            {
                samples.push_back((now, value));
            }
            while samples.len() > MAX_SAMPLES
                || samples.front().is_some_and(|(at, _)| *at < now - RETENTION)
            {
                samples.pop_front();
            }
        }
    }

    /// Ends the series of a workload's pods: they were deleted.
    pub fn remove(&mut self, namespace: &str, workload: &str) {
        let is = |labels: &Labels, name: &str, value: &str| {
            labels.get(name).is_some_and(|found| found == value)
        };
        let samples = &mut self.samples;
        self.series.retain(|labels, place| {
            let goes = is(labels, "destination_workload_namespace", namespace)
                && is(labels, "destination_workload", workload);
            if goes && let Some(samples) = samples.get_mut(*place) {
                samples.clear();
            }
            !goes
        });
        self.of_pods
            .retain(|([of, name, ..], _), _| !(of == namespace && name == workload));
        self.owed
            .remove(&(namespace.to_owned(), workload.to_owned()));
    }

    fn flow(&mut self, flow: &Flow, seconds: f64, added: &mut BTreeMap<usize, f64>) {
        let key = (flow.namespace.clone(), flow.workload.clone());
        let owed = self.owed.entry(key).or_default();
        owed.requests += flow.per_second.max(0.0) * seconds;
        let requests = owed.requests.floor();
        owed.requests -= requests;
        if flow.pods.is_empty() {
            return;
        }
        let pods = flow.pods.len() as u64;
        let mut answers: BTreeMap<(u64, bool), Answers> = BTreeMap::new();
        for _ in 0..requests as u64 {
            owed.errors += flow.error_share.clamp(0.0, 1.0);
            // Half a millionth: twenty times 0.05 is a little less than one.
            let failed = owed.errors >= 1.0 - 5e-7;
            if failed {
                owed.errors -= 1.0;
            }
            let turn = owed.served;
            owed.served += 1;
            // Ten latencies in turn, from half of the limit up to it, for each pod alike.
            let latency = flow.latency_ms * (0.5 + 0.5 * ((turn / pods % 10) + 1) as f64 / 10.0);
            let counts = answers.entry((turn % pods, failed)).or_default();
            counts.total += 1.0;
            for (bound, count) in BOUNDS_MS.iter().zip(&mut counts.within) {
                *count += if latency <= *bound { 1.0 } else { 0.0 };
            }
        }
        for ((pod, failed), counts) in answers {
            let Some(pod) = flow.pods.get(pod as usize) else {
                continue;
            };
            let totals = [counts.total; 2];
            let counts = counts.within.into_iter().chain(totals);
            for (place, count) in self.places(flow, pod, failed).iter().zip(counts) {
                *added.entry(*place).or_default() += count;
            }
        }
    }

    /// The series of a pod's answers: the buckets, that of all, the counter of requests.
    fn places(&mut self, flow: &Flow, pod: &str, failed: bool) -> &[usize] {
        let Flow {
            namespace,
            workload,
            service,
            version,
            ..
        } = flow;
        let key = [namespace, workload, service, version].map(String::clone);
        let [namespace, workload, service, version] = key;
        let key = (
            [namespace, workload, service, version, pod.to_owned()],
            failed,
        );
        let (series, samples) = (&mut self.series, &mut self.samples);
        self.of_pods.entry(key).or_insert_with(|| {
            let labels = labels(flow, pod, if failed { "503" } else { "200" });
            let bounds = BOUNDS_MS.iter().map(f64::to_string);
            let bounds = bounds.chain(std::iter::once("+Inf".to_owned()));
            let mut all: Vec<Labels> = bounds.map(|bound| bucket(&labels, &bound)).collect();
            all.push(named(&labels, "istio_requests_total"));
            let mut place = |labels| {
                *series.entry(labels).or_insert_with(|| {
                    samples.push(VecDeque::new());
                    samples.len() - 1
                })
            };
            all.into_iter().map(&mut place).collect()
        })
    }

    /// All series with their samples in time order.
    pub fn series(&self) -> impl Iterator<Item = (&Labels, &VecDeque<(Timestamp, f64)>)> {
        let of = |(labels, place): (_, &usize)| Some((labels, self.samples.get(*place)?));
        self.series.iter().filter_map(of)
    }

    /// The last value of every counter in Prometheus' text format, for a real one to scrape.
    pub fn exposition(&self) -> String {
        let mut text = String::new();
        let mut last_name = "";
        for (labels, samples) in self.series() {
            let (Some(name), Some((_, value))) = (labels.get("__name__"), samples.back()) else {
                continue;
            };
            if name != last_name {
                // Writing to a string cannot fail.
                let _ = writeln!(text, "# TYPE {name} untyped");
                last_name = name;
            }
            let inner: Vec<String> = labels
                .iter()
                .filter(|(key, _)| *key != "__name__")
                .map(|(key, value)| format!("{key}={value:?}"))
                .collect();
            let _ = writeln!(text, "{name}{{{}}} {value}", inner.join(","));
        }
        text
    }
}

fn labels(flow: &Flow, pod: &str, code: &str) -> Labels {
    let host = format!("{}.{}.svc.cluster.local", flow.service, flow.namespace);
    let all = [
        ("reporter", "destination"),
        ("source_workload", "client"),
        ("source_workload_namespace", &flow.namespace),
        ("destination_workload", &flow.workload),
        ("destination_workload_namespace", &flow.namespace),
        ("destination_service", &host),
        ("destination_service_name", &flow.service),
        ("destination_service_namespace", &flow.namespace),
        ("destination_version", &flow.version),
        ("request_protocol", "http"),
        ("response_code", code),
        ("response_flags", "-"),
        ("connection_security_policy", "mutual_tls"),
        ("pod", pod),
        ("namespace", &flow.namespace),
    ];
    all.map(|(name, value)| (name.to_owned(), value.to_owned()))
        .into()
}

fn named(labels: &Labels, name: &str) -> Labels {
    let mut labels = labels.clone();
    labels.insert("__name__".to_owned(), name.to_owned());
    labels
}

fn bucket(labels: &Labels, le: &str) -> Labels {
    let mut labels = named(labels, "istio_request_duration_milliseconds_bucket");
    labels.insert("le".to_owned(), le.to_owned());
    labels
}

#[cfg(test)]
mod tests {
    use super::*;
    use chrono::DateTime;

    fn flow(per_second: f64, error_share: f64) -> Flow {
        Flow {
            namespace: "test".to_owned(),
            workload: "app".to_owned(),
            service: "app".to_owned(),
            version: "v1".to_owned(),
            pods: vec!["app-a".to_owned(), "app-b".to_owned()],
            per_second,
            error_share,
            latency_ms: 100.0,
        }
    }

    fn at(second: i64) -> Timestamp {
        DateTime::from_timestamp(second, 0).unwrap()
    }

    fn total(traffic: &Traffic, name: &str, label: (&str, &str)) -> f64 {
        let matching = traffic.series().filter(|(labels, _)| {
            labels["__name__"] == name && labels.get(label.0).is_some_and(|v| v == label.1)
        });
        matching.map(|(_, samples)| samples.back().unwrap().1).sum()
    }

    #[test]
    fn rates_and_shares_are_exact() {
        let mut traffic = Traffic::new();
        for second in 0..=200 {
            traffic.advance(at(second), &[flow(2.5, 0.05)]);
        }
        assert_eq!(
            total(&traffic, "istio_requests_total", ("response_code", "503")),
            25.0
        );
        assert_eq!(
            total(&traffic, "istio_requests_total", ("response_code", "200")),
            475.0
        );
        let buckets = "istio_request_duration_milliseconds_bucket";
        assert_eq!(total(&traffic, buckets, ("le", "+Inf")), 500.0);
        assert_eq!(total(&traffic, buckets, ("le", "100")), 500.0);
        assert_eq!(total(&traffic, buckets, ("le", "50")), 0.0);
    }

    #[test]
    fn old_samples_go_and_deleted_pods_end() {
        let mut traffic = Traffic::new();
        for minute in 0..=300 {
            traffic.advance(at(minute * 60), &[flow(1.0, 0.0)]);
        }
        assert!(traffic.series().all(|(_, samples)| samples.len() <= 121));
        // Time that does not go forward counts nothing.
        let before = total(&traffic, "istio_requests_total", ("response_code", "200"));
        traffic.advance(at(0), &[flow(1.0, 0.0)]);
        assert_eq!(
            total(&traffic, "istio_requests_total", ("response_code", "200")),
            before
        );
        traffic.remove("test", "app");
        assert_eq!(traffic.series().count(), 0);
    }
}
