//! What Serin answers over HTTP: whether it is well, its metrics, its log level, and webhooks that wake it.
//!
//! Nothing that comes in decides anything: a webhook is a reason to look at the branch earlier, never a fact.

mod health;
mod webhook;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::extract::{ConnectInfo, DefaultBodyLimit, Path, Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use tokio::net::TcpListener;

pub use health::{Beat, Health};
pub use webhook::{Hook, Secret};

use crate::clock::Clock;
use crate::instruments::{Delivery, Instruments};

/// Largest webhook body: a push event with hundreds of commits.
const MAX_BODY: usize = 4 << 20;
/// A request that takes longer is answered with 408.
const DEADLINE: Duration = Duration::from_secs(10);

/// Sets the log level; the error says what is wrong with the directives.
pub type SetLogLevel = Arc<dyn Fn(&str) -> Result<(), String> + Send + Sync>;

/// All that the endpoints show and wake.
#[derive(Clone)]
pub struct Endpoints<K> {
    /// Whether all loops are alive.
    pub health: Arc<Health>,
    /// The metrics.
    pub instruments: Arc<Instruments>,
    /// Webhooks, by the name in their path.
    pub hooks: Arc<Vec<Hook>>,
    /// The log level, when it can be changed.
    pub log_level: Option<SetLogLevel>,
    /// The clock that heartbeats are compared with.
    pub clock: K,
}

impl<K: Clock + Clone + 'static> Endpoints<K> {
    /// Answers until the future is dropped.
    ///
    /// # Errors
    /// The listener fails.
    pub async fn serve(self, listener: TcpListener) -> std::io::Result<()> {
        let router = Router::new()
            .route("/healthz", get(healthz::<K>))
            .route("/readyz", get(readyz::<K>))
            .route("/metrics", get(metrics::<K>))
            .route("/hook/{name}", post(hook::<K>))
            .route("/loglevel", axum::routing::put(log_level::<K>))
            .layer(middleware::from_fn(in_time))
            .layer(DefaultBodyLimit::max(MAX_BODY))
            .with_state(self);
        let service = router.into_make_service_with_connect_info::<SocketAddr>();
        axum::serve(listener, service).await
    }
}

async fn healthz<K: Clock + Clone + 'static>(State(this): State<Endpoints<K>>) -> Response {
    answer(this.health.liveness(this.clock.now()))
}

async fn readyz<K: Clock + Clone + 'static>(State(this): State<Endpoints<K>>) -> Response {
    answer(this.health.readiness(this.clock.now()))
}

fn answer(result: Result<(), Vec<String>>) -> Response {
    match result {
        Ok(()) => (StatusCode::OK, "ok\n").into_response(),
        Err(reasons) => {
            let body = reasons.join("\n") + "\n";
            (StatusCode::SERVICE_UNAVAILABLE, body).into_response()
        }
    }
}

async fn metrics<K: Clock + Clone + 'static>(State(this): State<Endpoints<K>>) -> Response {
    let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    let body = this.instruments.exposition();
    ([(header::CONTENT_TYPE, kind)], body).into_response()
}

async fn hook<K: Clock + Clone + 'static>(
    State(this): State<Endpoints<K>>,
    Path(name): Path<String>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let header = |name: &str| headers.get(name).map(|value| value.as_bytes().to_vec());
    // Each shard of a repository has one of the same name.
    let named = || this.hooks.iter().filter(|hook| hook.name() == name);
    let (delivery, status, words) = match named().next() {
        None => (Delivery::Unknown, StatusCode::NOT_FOUND, "no such hook\n"),
        Some(hook) if hook.is_genuine(&header, &body) => {
            named().for_each(Hook::wake);
            (Delivery::Accepted, StatusCode::ACCEPTED, "looking\n")
        }
        Some(_) => {
            let words = "the signature is missing or wrong\n";
            (Delivery::Refused, StatusCode::FORBIDDEN, words)
        }
    };
    this.instruments.webhook(delivery);
    (status, words).into_response()
}

/// Only from this machine, which in a cluster means this pod: `kubectl port-forward` is the way in.
async fn log_level<K: Clock + Clone + 'static>(
    State(this): State<Endpoints<K>>,
    ConnectInfo(peer): ConnectInfo<SocketAddr>,
    body: String,
) -> Response {
    let Some(set) = this.log_level.filter(|_| peer.ip().is_loopback()) else {
        return (StatusCode::FORBIDDEN, "only from this machine\n").into_response();
    };
    match set(body.trim()) {
        Ok(()) => (StatusCode::OK, "set\n").into_response(),
        Err(why) => (StatusCode::BAD_REQUEST, format!("{why}\n")).into_response(),
    }
}

/// Nothing hangs, whoever sends the body at whatever pace.
async fn in_time(request: Request, next: Next) -> Response {
    match tokio::time::timeout(DEADLINE, next.run(request)).await {
        Ok(response) => response,
        Err(_) => StatusCode::REQUEST_TIMEOUT.into_response(),
    }
}

#[cfg(test)]
mod tests;
