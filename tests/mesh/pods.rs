//! The backends: one server that answers for every pod of the cluster, on the pod's own address.
//!
//! All of 10.0.0.0/8 is local here, so that one socket accepts connections for every pod. Which pod is meant is the address
//! that was called; a pod that the cluster does not have answers nobody, and who calls it gets a failure. Error rate and
//! latency are settings of a version in a namespace, changed while requests flow. Each pod counts what it answered as Istio's
//! sidecars do, and, beside that, who asked.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::Router;
use axum::extract::connect_info::Connected;
use axum::extract::{ConnectInfo, State};
use axum::http::{HeaderMap, Request, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::serve::{IncomingStream, Listener};
use futures_util::TryStreamExt;
use k8s_openapi::api::core::v1::Pod;
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::{self, Event};
use tokio::net::{TcpListener, TcpStream};

/// Where every pod listens. Services have other ports, so that the client's Envoy can have those.
pub(crate) const PORT: u16 = 9797;
/// Where every pod takes connections that carry no HTTP.
pub(crate) const TCP_PORT: u16 = 9798;
/// Header of an answer: the image's tag.
pub(crate) const VERSION: &str = "x-version";
/// Header of an answer: the Deployment.
pub(crate) const WORKLOAD: &str = "x-workload";
/// Header of a request: who asks. Not what routes look at.
pub(crate) const WHO: &str = "x-who";

/// Upper bounds of Istio's latency buckets in milliseconds, as far as tests reach.
const BOUNDS: [f64; 11] = [
    0.5, 1.0, 5.0, 10.0, 25.0, 50.0, 100.0, 250.0, 500.0, 1000.0, 2500.0,
];
/// How long a connection to a pod that is not known yet waits: its address may be in Envoy before it is here.
const KNOWN_WITHIN: Duration = Duration::from_millis(500);

/// How a version behaves.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(crate) struct Behaviour {
    /// Share of requests that fail with 500, from 0 to 1, exactly.
    pub(crate) failing: f64,
    /// How long an answer takes.
    pub(crate) latency: Duration,
}

/// A pod of the cluster.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Known {
    namespace: String,
    name: String,
    workload: String,
    version: String,
    app: String,
}

/// What a pod counted.
#[derive(Debug, Default)]
struct Counted {
    /// By response code.
    requests: BTreeMap<u16, u64>,
    /// By bucket, and the sum in milliseconds.
    buckets: [u64; BOUNDS.len()],
    sum: f64,
    count: u64,
    /// By who asked.
    people: BTreeMap<String, u64>,
}

#[derive(Default)]
struct Inner {
    known: BTreeMap<IpAddr, Known>,
    counted: BTreeMap<Known, Counted>,
    behaviours: BTreeMap<(String, String), Behaviour>,
    /// Failures that are due: one when it reaches 1.
    due: BTreeMap<(String, String), f64>,
}

/// See the module.
#[derive(Clone)]
pub(crate) struct Pods {
    inner: Arc<Mutex<Inner>>,
    metrics: u16,
}

impl Pods {
    /// Begins to answer.
    pub(crate) async fn serve() -> Self {
        let inner = Arc::new(Mutex::new(Inner::default()));
        let shown = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let pods = Self {
            inner,
            metrics: shown.local_addr().unwrap().port(),
        };
        let exposed = pods.clone();
        let metrics = axum::routing::get(move || std::future::ready(exposed.exposition()));
        let metrics = Router::new().route("/metrics", metrics);
        tokio::spawn(async move { axum::serve(shown, metrics).await });
        let listener = ByCalled(TcpListener::bind(("0.0.0.0", PORT)).await.unwrap());
        let app = Router::new()
            .fallback(answer)
            .with_state(pods.clone())
            .into_make_service_with_connect_info::<Called>();
        tokio::spawn(async move { axum::serve(listener, app).await });
        let listener = TcpListener::bind(("0.0.0.0", TCP_PORT)).await.unwrap();
        tokio::spawn(say_version(pods.clone(), listener));
        pods
    }

    /// Follows the pods of a cluster from now on.
    pub(crate) fn follow(&self, client: kube::Client) {
        let pods = self.clone();
        tokio::spawn(async move {
            let api = kube::Api::<Pod>::all(client);
            let events = watcher::watcher(api, watcher::Config::default()).default_backoff();
            let mut events = std::pin::pin!(events);
            // Of this cluster: another one has other pods.
            let mut listed = BTreeMap::new();
            let mut ours = BTreeMap::new();
            loop {
                match events.try_next().await {
                    Ok(Some(Event::Init)) => listed.clear(),
                    Ok(Some(Event::InitApply(pod))) => listed.extend(known(&pod)),
                    Ok(Some(Event::InitDone)) => {
                        pods.with(|inner| {
                            inner.known.retain(|ip, pod| ours.get(ip) != Some(pod));
                            inner.known.extend(listed.clone());
                        });
                        ours = std::mem::take(&mut listed);
                    }
                    Ok(Some(Event::Apply(pod))) => {
                        if let Some((ip, pod)) = known(&pod) {
                            ours.insert(ip, pod.clone());
                            pods.with(|inner| inner.known.insert(ip, pod));
                        }
                    }
                    Ok(Some(Event::Delete(pod))) => {
                        if let Some((ip, pod)) = known(&pod) {
                            ours.remove(&ip);
                            pods.with(|inner| {
                                inner.known.remove(&ip);
                                inner.counted.remove(&pod);
                            });
                        }
                    }
                    Ok(None) => return,
                    // It tries again by itself.
                    Err(_) => {}
                }
            }
        });
    }

    /// Where Prometheus finds what the pods counted.
    pub(crate) fn metrics_port(&self) -> u16 {
        self.metrics
    }

    /// From now on a version in a namespace behaves so.
    pub(crate) fn behave(&self, namespace: &str, version: &str, behaviour: Behaviour) {
        let key = (namespace.to_owned(), version.to_owned());
        self.with(|inner| inner.behaviours.insert(key, behaviour));
    }

    /// How many requests the pods of a Deployment got, whether or not anybody waited for an answer.
    pub(crate) fn requests(&self, namespace: &str, workload: &str) -> u64 {
        self.with(|inner| {
            let pods = inner.counted.iter().filter(|(pod, _)| {
                pod.namespace == namespace && pod.workload == workload
            });
            pods.map(|(_, counted)| counted.count).sum()
        })
    }

    fn with<T>(&self, change: impl FnOnce(&mut Inner) -> T) -> T {
        change(&mut self.inner.lock().unwrap_or_else(PoisonError::into_inner))
    }

    async fn at(&self, address: IpAddr) -> Option<Known> {
        let mut waited = Duration::ZERO;
        loop {
            let found = self.with(|inner| inner.known.get(&address).cloned());
            if found.is_some() || waited >= KNOWN_WITHIN {
                return found;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
            waited += Duration::from_millis(10);
        }
    }

    /// Whether the next request of a version fails, and how long it takes.
    fn next(&self, pod: &Known) -> (bool, Duration) {
        let key = (pod.namespace.clone(), pod.version.clone());
        self.with(|inner| {
            let behaviour = inner.behaviours.get(&key).copied().unwrap_or_default();
            let due = inner.due.entry(key).or_insert(0.0);
            *due += behaviour.failing;
            let fails = *due >= 1.0 - 1e-9;
            if fails {
                *due -= 1.0;
            }
            (fails, behaviour.latency)
        })
    }

    fn count(&self, pod: &Known, code: u16, took: Duration, headers: &HeaderMap) {
        let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
        let milliseconds = took.as_secs_f64() * 1000.0;
        self.with(|inner| {
            let counted = inner.counted.entry(pod.clone()).or_default();
            *counted.requests.entry(code).or_default() += 1;
            for (bucket, bound) in counted.buckets.iter_mut().zip(BOUNDS) {
                *bucket += u64::from(milliseconds <= bound);
            }
            counted.sum += milliseconds;
            counted.count += 1;
            if let Some(who) = text(WHO) {
                *counted.people.entry(who.to_owned()).or_default() += 1;
            }
        });
    }

    /// What all pods counted, as Prometheus reads it.
    fn exposition(&self) -> String {
        let mut text = String::new();
        self.with(|inner| {
            for (pod, counted) in &inner.counted {
                pod.expose(counted, &mut text);
            }
        });
        text
    }
}

impl Known {
    fn expose(&self, counted: &Counted, text: &mut String) {
        let Self {
            namespace,
            name,
            workload,
            version,
            app,
        } = self;
        // As the destination's sidecar says it.
        let labels = format!(
            "reporter=\"destination\",destination_workload=\"{workload}\",destination_workload_namespace=\"{namespace}\",\
             destination_app=\"{app}\",destination_version=\"{version}\",destination_service_name=\"{app}\",\
             destination_service_namespace=\"{namespace}\",destination_service=\"{app}.{namespace}.svc.cluster.local\",\
             request_protocol=\"http\",response_flags=\"-\",pod=\"{name}\",namespace=\"{namespace}\""
        );
        let mut line = |name: &str, more: &str, value: f64| {
            writeln!(text, "{name}{{{labels}{more}}} {value}").unwrap();
        };
        for (code, count) in &counted.requests {
            let more = format!(",response_code=\"{code}\"");
            line("istio_requests_total", &more, number(*count));
        }
        let name = "istio_request_duration_milliseconds";
        let code = ",response_code=\"200\"";
        for (bound, count) in BOUNDS.iter().zip(counted.buckets) {
            let more = format!("{code},le=\"{bound}\"");
            line(&format!("{name}_bucket"), &more, number(count));
        }
        let more = format!("{code},le=\"+Inf\"");
        line(&format!("{name}_bucket"), &more, number(counted.count));
        line(&format!("{name}_sum"), code, counted.sum);
        line(&format!("{name}_count"), code, number(counted.count));
        for (who, count) in &counted.people {
            let more = format!(",who=\"{who}\"");
            line("app_requests_total", &more, number(*count));
        }
    }
}

fn number(count: u64) -> f64 {
    f64::from(u32::try_from(count).unwrap())
}

/// The address of a pod, and what it is.
fn known(pod: &Pod) -> Option<(IpAddr, Known)> {
    let status = pod.status.as_ref()?;
    let address = status.pod_ip.as_ref()?.parse().ok()?;
    let container = pod.spec.as_ref()?.containers.first()?;
    let version = container.image.as_ref()?.rsplit(':').next()?.to_owned();
    let name = pod.metadata.name.clone()?;
    let owner = pod.metadata.owner_references.as_ref()?.first()?;
    // The ReplicaSet is named after its Deployment.
    let workload = owner.name.rsplit_once('-')?.0.to_owned();
    let labels = pod.metadata.labels.as_ref()?;
    let known = Known {
        namespace: pod.metadata.namespace.clone()?,
        name,
        workload,
        version,
        app: labels.get("app")?.clone(),
    };
    Some((address, known))
}

/// Accepts connections and remembers which address was called.
struct ByCalled(TcpListener);

impl Listener for ByCalled {
    type Io = TcpStream;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (TcpStream, SocketAddr) {
        loop {
            let accepted = self.0.accept().await;
            if let Ok((stream, _)) = accepted
                && let Ok(called) = stream.local_addr()
            {
                // An answer is several writes.
                let _ = stream.set_nodelay(true);
                return (stream, called);
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    fn local_addr(&self) -> std::io::Result<SocketAddr> {
        self.0.local_addr()
    }
}

/// The address that was called.
#[derive(Debug, Clone, Copy)]
struct Called(SocketAddr);

impl Connected<IncomingStream<'_, ByCalled>> for Called {
    fn connect_info(stream: IncomingStream<'_, ByCalled>) -> Self {
        Self(*stream.remote_addr())
    }
}

/// Answers one request as the pod that was called.
async fn answer(
    State(pods): State<Pods>,
    ConnectInfo(Called(address)): ConnectInfo<Called>,
    request: Request<axum::body::Body>,
) -> Response {
    let began = std::time::Instant::now();
    let Some(pod) = pods.at(address.ip()).await else {
        return (StatusCode::SERVICE_UNAVAILABLE, "no pod has this address").into_response();
    };
    let (fails, latency) = pods.next(&pod);
    if !latency.is_zero() {
        tokio::time::sleep(latency).await;
    }
    let code = if fails {
        StatusCode::INTERNAL_SERVER_ERROR
    } else {
        StatusCode::OK
    };
    pods.count(&pod, code.as_u16(), began.elapsed(), request.headers());
    let headers = [
        (VERSION, pod.version.clone()),
        (WORKLOAD, pod.workload.clone()),
    ];
    (code, headers, format!("{} of {}\n", pod.version, pod.name)).into_response()
}

/// Says its Deployment to whoever connects, and hangs up.
async fn say_version(pods: Pods, listener: TcpListener) {
    use tokio::io::AsyncWriteExt as _;
    loop {
        let Ok((mut stream, _)) = listener.accept().await else {
            continue;
        };
        let pods = pods.clone();
        tokio::spawn(async move {
            let called = stream.local_addr().unwrap();
            if let Some(pod) = pods.at(called.ip()).await {
                // Who hangs up first does not want to know.
                let _ = stream.write_all(pod.workload.as_bytes()).await;
                let _ = stream.shutdown().await;
            }
        });
    }
}
