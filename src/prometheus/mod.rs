//! Carries queries to a Prometheus server and brings typed answers back. No threshold, no verdict.
//!
//! Whatever the server or the network does becomes an [`Answer`]: complete series, or a reason why there are none.
//! Secrets are in no error and in no debug output.

mod answer;
mod body;
mod settings;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use prometheus_http_query::{Client, Error};
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use reqwest::redirect::Policy;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use crate::analysis::{Answer, AskError, Query};
use crate::clock::{Clock, SystemClock};
use crate::domain::Timestamp;
use crate::ports::Metrics;

pub use body::parse;
pub use settings::{Auth, ClientCertificate, Secret, Settings, SetupError};

/// Queries on the wire at once. A tick of 1,000 canaries is about 30 queries; Prometheus runs 20 at once by default
/// and has other clients.
const CONCURRENCY: usize = 8;

/// Parameter of the HTTP API for the longest age of a sample that counts as present. Servers that do not know it
/// ignore it.
const LOOKBACK: &str = "lookback_delta";

/// A Prometheus server, or anything that speaks its HTTP API (Mimir, Thanos, VictoriaMetrics).
#[derive(Debug)]
pub struct Server {
    settings: Settings,
    connection: Mutex<Option<Connection>>,
    permits: Arc<Semaphore>,
}

/// A client with the files that it was built from.
#[derive(Clone)]
struct Connection {
    material: settings::Material,
    client: Client,
}

impl std::fmt::Debug for Connection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Connection")
    }
}

impl Server {
    /// A server with these settings. Checks them and reads the files that they name, but sends nothing.
    ///
    /// # Errors
    /// The URL, a header or a certificate file cannot be used.
    pub fn new(settings: Settings) -> Result<Self, SetupError> {
        let server = Self {
            settings: settings.checked()?,
            connection: Mutex::new(None),
            permits: Arc::new(Semaphore::new(CONCURRENCY)),
        };
        server.client()?;
        server.settings.headers()?;
        Ok(server)
    }

    /// The client; a new one when a certificate file has changed.
    fn client(&self) -> Result<Client, SetupError> {
        let material = self.settings.material()?;
        let mut connection = self
            .connection
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = connection.as_ref().filter(|c| c.material == material) {
            return Ok(known.client.clone());
        }
        let client = build(&self.settings, &material)?;
        *connection = Some(Connection {
            material,
            client: client.clone(),
        });
        Ok(client)
    }
}

fn build(settings: &Settings, material: &settings::Material) -> Result<Client, SetupError> {
    // Fails only when a provider is already installed, which is as good.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let mut builder = reqwest::Client::builder()
        .redirect(Policy::none())
        .connect_timeout(settings.deadline)
        .pool_max_idle_per_host(CONCURRENCY)
        .user_agent(concat!("serin/", env!("CARGO_PKG_VERSION")));
    let authorities = material.authorities()?;
    builder = if !settings.is_encrypted() {
        // The machine may have no certificates at all, and needs none.
        builder.tls_certs_only([])
    } else if settings.only_own_ca {
        builder.tls_certs_only(authorities)
    } else {
        builder.tls_certs_merge(authorities)
    };
    if let Some(identity) = material.identity()? {
        builder = builder.identity(identity);
    }
    let http = builder
        .build()
        .map_err(|error| SetupError::Tls(answer::causes(&error)))?;
    Client::from(http, &settings.url).map_err(|error| SetupError::Url(error.to_string()))
}

impl Metrics for Server {
    #[tracing::instrument(name = "prometheus.ask", level = "debug", skip_all, fields(queries = queries.len()))]
    async fn ask(&self, queries: &[Query]) -> Vec<Answer> {
        if queries.is_empty() {
            return Vec::new();
        }
        let ready = self
            .client()
            .and_then(|client| Ok((client, self.settings.headers()?)));
        let (client, headers) = match ready {
            Ok(ready) => ready,
            Err(error) => {
                let failed = Answer::Failed(AskError::Unreachable(error.to_string()));
                return vec![failed; queries.len()];
            }
        };
        let deadline = self.settings.deadline;
        let lost = Answer::Failed(AskError::Unusable("the query was given up".to_owned()));
        let mut answers = vec![lost; queries.len()];
        let mut tasks = JoinSet::new();
        let end = tokio::time::Instant::now() + deadline;
        for (index, query) in queries.iter().cloned().enumerate() {
            let (client, headers) = (client.clone(), headers.clone());
            let permits = Arc::clone(&self.permits);
            tasks.spawn(async move {
                // The deadline covers the wait for a permit, so that the whole batch ends within it.
                let work = async {
                    let _permit = permits.acquire().await;
                    // Permits come free when the first queries are given up; then it is too late for the others too.
                    if tokio::time::Instant::now() >= end {
                        return Err(AskError::Deadline(deadline));
                    }
                    one(&client, &query, headers, deadline).await
                };
                let answer = tokio::time::timeout_at(end, work).await;
                (index, answer.unwrap_or(Err(AskError::Deadline(deadline))))
            });
        }
        while let Some(joined) = tasks.join_next().await {
            let Ok((index, answer)) = joined else {
                continue;
            };
            if let Some(slot) = answers.get_mut(index) {
                *slot = match answer {
                    Ok(series) => Answer::Series(series),
                    Err(error) => Answer::Failed(self.settings.scrubbed(error)),
                };
            }
        }
        answers
    }
}

async fn one(
    client: &Client,
    query: &Query,
    headers: HeaderMap,
    deadline: Duration,
) -> Result<Vec<crate::analysis::Series>, AskError> {
    let millis = i64::try_from(deadline.as_millis()).unwrap_or(i64::MAX);
    let headers = headers
        .into_iter()
        .filter_map(|(name, value)| Some((name?, value)));
    let at = query.at.timestamp();
    let sent = SystemClock.now();
    let response = match query.range {
        None => {
            let mut builder = client.query(&query.promql).at(at).timeout(millis);
            if let Some(age) = query.lookback {
                builder = builder.query(LOOKBACK, format!("{}s", age.as_secs()));
            }
            let with = |builder: prometheus_http_query::InstantQueryBuilder,
                        (name, value): (HeaderName, HeaderValue)| {
                builder.header(name, value)
            };
            headers.fold(builder, with).post_raw().await
        }
        Some((start, step)) => {
            let (start, step) = (start.timestamp(), step.as_secs_f64());
            let mut builder = client
                .query_range(&query.promql, start, at, step)
                .timeout(millis);
            if let Some(age) = query.lookback {
                builder = builder.query(LOOKBACK, format!("{}s", age.as_secs()));
            }
            let with = |builder: prometheus_http_query::RangeQueryBuilder,
                        (name, value): (HeaderName, HeaderValue)| {
                builder.header(name, value)
            };
            headers.fold(builder, with).post_raw().await
        }
    };
    let response = response.map_err(|error| unreachable(error, deadline))?;
    let date = response.headers().get(reqwest::header::DATE);
    let ahead = answer::clock_of(date).map(|server| ahead_of(server, sent, SystemClock.now()));
    if let Some(seconds) = ahead.filter(|it| it.abs() > query.purpose.clock_tolerance())
        && response.status().is_success()
    {
        return Err(AskError::Clock(seconds));
    }
    answer::read(response, query.range.is_some(), deadline).await
}

/// Whole seconds that a server's clock is ahead of ours at least, when it dated its answer between these two moments.
fn ahead_of(server: Timestamp, sent: Timestamp, received: Timestamp) -> i64 {
    (server - server.clamp(sent, received.max(sent))).num_seconds()
}

fn unreachable(error: Error, deadline: Duration) -> AskError {
    let Error::Client(client) = &error else {
        return AskError::Unreachable(error.to_string());
    };
    let words = match client.inner() {
        Some(inner) if inner.is_timeout() => return AskError::Deadline(deadline),
        Some(inner) => answer::causes(inner),
        None => client.to_string(),
    };
    AskError::Unreachable(words)
}
