//! Every way in which a server can misbehave ends in a typed answer, and no secret leaves by an error.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use chrono::TimeDelta;
use insta::assert_snapshot;
use serin::analysis::{Answer, AskError, Purpose, Query};
use serin::clock::{Clock, SystemClock};
use serin::domain::Timestamp;
use serin::ports::Metrics;
use serin::prometheus::{Auth, ClientCertificate, Secret, Server, Settings};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::{self, RootCertStore, ServerConfig};

use crate::support::prometheus::pause;

/// What a scripted server does with every request.
#[derive(Debug, Clone)]
enum Script {
    /// Writes these bytes and closes the connection.
    Bytes(String),
    /// Takes the request and never answers.
    Hang,
    /// Writes so many MiB of an answer.
    Huge(usize),
    /// Repeats the request's head in a refusal.
    Echo,
}

/// A server that writes what it is told, and remembers what it was asked.
struct Scripted {
    url: String,
    seen: Arc<Mutex<Vec<String>>>,
    task: JoinHandle<()>,
}

impl Drop for Scripted {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Scripted {
    async fn start(script: Script) -> Self {
        Self::with_tls(script, None).await
    }

    async fn with_tls(script: Script, tls: Option<TlsAcceptor>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let scheme = if tls.is_some() { "https" } else { "http" };
        let url = format!("{scheme}://{}", listener.local_addr().unwrap());
        let seen = Arc::new(Mutex::new(Vec::new()));
        let log = Arc::clone(&seen);
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (script, log, tls) = (script.clone(), Arc::clone(&log), tls.clone());
                tokio::spawn(async move {
                    match tls {
                        None => serve(stream, script, log).await,
                        Some(tls) => {
                            if let Ok(stream) = tls.accept(stream).await {
                                serve(stream, script, log).await;
                            }
                        }
                    }
                });
            }
        });
        Self { url, seen, task }
    }

    fn seen(&self) -> Vec<String> {
        self.seen
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }
}

async fn serve(
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    script: Script,
    log: Arc<Mutex<Vec<String>>>,
) {
    let mut request = Vec::new();
    let mut buffer = [0; 4096];
    let text = loop {
        let Ok(read @ 1..) = stream.read(&mut buffer).await else {
            return;
        };
        request.extend_from_slice(&buffer[..read]);
        let text = String::from_utf8_lossy(&request).into_owned();
        let Some((head, body)) = text.split_once("\r\n\r\n") else {
            continue;
        };
        let length = head
            .lines()
            .find_map(|line| line.strip_prefix("content-length: "));
        if body.len() >= length.map_or(0, |length| length.parse().unwrap()) {
            break text;
        }
    };
    log.lock()
        .unwrap_or_else(PoisonError::into_inner)
        .push(text.clone());
    // The client may be gone before all is written; that is its business.
    match script {
        Script::Hang => pause(Duration::from_secs(3600)).await,
        Script::Bytes(bytes) => {
            let _ = stream.write_all(bytes.as_bytes()).await;
        }
        Script::Echo => {
            let _ = stream
                .write_all(response("401 Unauthorized", "text/plain", &text).as_bytes())
                .await;
        }
        Script::Huge(mebibytes) => {
            let _ = stream
                .write_all(b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n\r\n")
                .await;
            let block = vec![b' '; 1024 * 1024];
            for _ in 0..mebibytes {
                if stream.write_all(&block).await.is_err() {
                    break;
                }
            }
        }
    }
    let _ = stream.shutdown().await;
}

fn response(status: &str, kind: &str, body: &str) -> String {
    format!(
        "HTTP/1.1 {status}\r\ncontent-type: {kind}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
        body.len()
    )
}

fn json(status: &str, body: &str) -> Script {
    Script::Bytes(response(status, "application/json", body))
}

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_timestamp(seconds, 0).unwrap()
}

fn query(range: bool) -> Query {
    Query {
        promql: "up{a=\"b\"}".to_owned(),
        at: at(1_700_000_060),
        range: range.then(|| (at(1_700_000_000), Duration::from_millis(1500))),
        lookback: Some(Duration::from_secs(120)),
        purpose: Purpose::Custom(Vec::new()),
    }
}

fn settings(url: &str) -> Settings {
    let mut settings = Settings::new(url);
    settings.deadline = Duration::from_secs(30);
    settings
}

async fn ask(settings: Settings, range: bool) -> Answer {
    let answers = Server::new(settings).unwrap().ask(&[query(range)]).await;
    answers.into_iter().next().unwrap()
}

/// The error in words, or the series.
fn words(answer: &Answer) -> String {
    match answer {
        Answer::Failed(error) => error.to_string(),
        Answer::Series(series) => format!("{series:?}"),
    }
}

async fn said(script: Script) -> String {
    let server = Scripted::start(script).await;
    words(&ask(settings(&server.url), false).await)
}

const ONE: &str = r#"{"status":"success","data":{"resultType":"vector","result":[{"metric":{"a":"b"},"value":[1700000060.125,"4.5"]}]}}"#;

#[tokio::test]
async fn answers_of_every_shape() {
    let vector = said(json("200 OK", ONE)).await;
    assert_snapshot!(vector, @r#"[Series { labels: {"a": "b"}, samples: [(2023-11-14T22:14:20.125Z, 4.5)] }]"#);
    let scalar =
        r#"{"status":"success","data":{"resultType":"scalar","result":[1700000060,"NaN"]}}"#;
    assert_snapshot!(said(json("200 OK", scalar)).await, @"[Series { labels: {}, samples: [(2023-11-14T22:14:20Z, NaN)] }]");
    let text = r#"{"status":"success","data":{"resultType":"string","result":[1700000060,"x"]}}"#;
    assert!(
        said(json("200 OK", text))
            .await
            .starts_with("Prometheus gave an unusable answer")
    );
    let matrix = r#"{"status":"success","data":{"resultType":"matrix","result":[{"metric":{},"values":[[1700000001.5,"2"],[1700000000,"+Inf"]]}]}}"#;
    assert_snapshot!(said(json("200 OK", matrix)).await, @"Prometheus gave an unusable answer: it has a range of values where one was asked for");

    let server = Scripted::start(json("200 OK", matrix)).await;
    assert_snapshot!(words(&ask(settings(&server.url), true).await), @"[Series { labels: {}, samples: [(2023-11-14T22:13:20Z, inf), (2023-11-14T22:13:21.500Z, 2.0)] }]");
    let asked = server.seen().concat();
    assert!(
        asked.starts_with("POST /api/v1/query_range HTTP/1.1"),
        "{asked}"
    );
    assert!(
        asked.ends_with(
            "query=up%7Ba%3D%22b%22%7D&start=1700000000&end=1700000060&step=1.5&timeout=30000ms&lookback_delta=120s"
        ),
        "{asked}"
    );

    let server = Scripted::start(json("200 OK", ONE)).await;
    let behind_a_path = format!("{}/select/0/prometheus/", server.url);
    ask(settings(&behind_a_path), false).await;
    let asked = server.seen().concat();
    assert!(
        asked.starts_with("POST /select/0/prometheus/api/v1/query HTTP/1.1"),
        "{asked}"
    );
    assert!(
        asked.ends_with(
            "query=up%7Ba%3D%22b%22%7D&time=1700000060&timeout=30000ms&lookback_delta=120s"
        ),
        "{asked}"
    );
}

#[tokio::test]
async fn refusals_of_every_kind() {
    let bad = r#"{"status":"error","errorType":"bad_data","error":"parse error: unclosed left parenthesis"}"#;
    assert_snapshot!(said(json("400 Bad Request", bad)).await, @"Prometheus rejected the PromQL: parse error: unclosed left parenthesis");
    let execution =
        r#"{"status":"error","errorType":"execution","error":"many-to-many matching not allowed"}"#;
    assert_snapshot!(said(json("422 Unprocessable Entity", execution)).await, @"Prometheus refused the query: execution: many-to-many matching not allowed");
    let timeout = r#"{"status":"error","errorType":"timeout","error":"query timed out"}"#;
    assert_snapshot!(said(json("503 Service Unavailable", timeout)).await, @"Prometheus did not answer within 30 s");
    assert_snapshot!(said(Script::Bytes(response("500 Internal Server Error", "text/plain", "out of\nmemory"))).await, @"Prometheus refused the query: HTTP 500 Internal Server Error: out of memory");
    assert_snapshot!(said(Script::Bytes(response("503 Service Unavailable", "text/plain", ""))).await, @"Prometheus refused the query: HTTP 503 Service Unavailable");
    let moved = "HTTP/1.1 302 Found\r\nlocation: http://elsewhere.example/login\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
    assert_snapshot!(said(Script::Bytes(moved.to_owned())).await, @"Prometheus refused the query: HTTP 302 Found: redirects are not followed, point the URL at the server itself");
    let warned = ONE.replace(
        "\"success\",",
        "\"success\",\"warnings\":[\"a store is down\",\"another too\"],",
    );
    assert_snapshot!(said(json("200 OK", &warned)).await, @"Prometheus gave a partial answer: a store is down; another too");
    let advice = ONE.replace(
        "\"success\",",
        "\"success\",\"infos\":[\"metric might not be a counter\"],\"warnings\":[],",
    );
    assert!(said(json("200 OK", &advice)).await.starts_with("[Series"));
}

#[tokio::test]
async fn answers_that_cannot_be_read() {
    let html = "<!doctype html><title>Sign in</title>";
    assert_snapshot!(said(Script::Bytes(response("200 OK", "text/html", html))).await, @"Prometheus gave an unusable answer: expected value at line 1 column 1; it begins with `<!doctype html><title>Sign in</title>`");
    let cut = response("200 OK", "application/json", ONE).replace("connection: close", "x: y");
    let cut: String = cut.chars().take(cut.len() - 20).collect();
    assert_snapshot!(said(Script::Bytes(cut)).await, @"Prometheus gave an unusable answer: it broke off after 94 bytes");
    assert_snapshot!(said(json("200 OK", r#"{"status":"success"}"#)).await, @"Prometheus gave an unusable answer: it has neither data nor an error");
    let half = ONE.get(..50).unwrap();
    assert!(
        said(json("200 OK", half))
            .await
            .starts_with("Prometheus gave an unusable answer: EOF")
    );
    let histogram = r#"{"status":"success","data":{"resultType":"vector","result":[{"metric":{},"histogram":[1,{"count":"1","sum":"1"}]}]}}"#;
    assert!(
        said(json("200 OK", histogram))
            .await
            .starts_with("Prometheus gave an unusable answer")
    );
    let not_a_number = ONE.replace("4.5", "four");
    assert!(
        said(json("200 OK", &not_a_number))
            .await
            .starts_with("Prometheus gave an unusable answer")
    );
    assert_snapshot!(said(Script::Huge(100)).await, @"Prometheus gave an unusable answer: it is larger than 64 MiB");
    assert!(
        said(Script::Bytes("SSH-2.0-OpenSSH_9.2\r\n".to_owned()))
            .await
            .starts_with("Prometheus cannot be reached")
    );
    assert!(
        said(Script::Bytes(String::new()))
            .await
            .starts_with("Prometheus cannot be reached")
    );
}

/// A clock that is off would take samples for those of another time. Who is measured already is judged on within two
/// scrapes; what begins to be measured is dated better.
#[tokio::test]
async fn a_server_whose_clock_is_off_is_not_believed() {
    let dated = async |purpose: Purpose, ahead: i64| {
        let date = SystemClock.now() + TimeDelta::seconds(ahead);
        let date = date.format("%a, %d %b %Y %H:%M:%S GMT");
        let text = response("200 OK", "application/json", ONE);
        let text = text.replacen("\r\n", &format!("\r\ndate: {date}\r\n"), 1);
        let server = Scripted::start(Script::Bytes(text)).await;
        let query = Query {
            purpose,
            ..query(false)
        };
        let asked = Server::new(settings(&server.url)).unwrap();
        words(&asked.ask(&[query]).await.remove(0))
    };
    let counters = || Purpose::Requests(Vec::new());
    for (ahead, words) in [(125, "s ahead"), (-125, "s behind")] {
        let said = dated(counters(), ahead).await;
        assert!(said.starts_with("the clock of Prometheus is 12"), "{said}");
        assert!(said.contains(words), "{said}");
    }
    for ahead in [0, 25, -25] {
        assert!(dated(counters(), ahead).await.starts_with("[Series"));
        let exactly = dated(Purpose::Clock, ahead).await;
        assert_eq!(exactly.starts_with("[Series"), ahead == 0, "{exactly}");
    }
    assert!(dated(Purpose::Clock, -4).await.starts_with("[Series"));
}

#[tokio::test]
async fn a_server_that_hangs_costs_one_deadline_for_all_queries() {
    let server = Scripted::start(Script::Hang).await;
    let mut settings = Settings::new(&server.url);
    settings.deadline = Duration::from_millis(500);
    let queries = vec![query(false); 40];
    let asked = Server::new(settings.clone()).unwrap();
    let answers = tokio::time::timeout(Duration::from_secs(20), asked.ask(&queries))
        .await
        .unwrap();
    assert_eq!(
        answers,
        vec![Answer::Failed(AskError::Deadline(settings.deadline)); 40]
    );
    // Only so many at once reach a server that does not answer.
    assert!(server.seen().len() <= 8, "{}", server.seen().len());

    drop(server);
    let closed = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", closed.local_addr().unwrap());
    drop(closed);
    let answer = words(&ask(self::settings(&url), false).await);
    assert!(
        answer.starts_with("Prometheus cannot be reached: "),
        "{answer}"
    );
    assert!(answer.contains("onnection refused"), "{answer}");
}

#[tokio::test]
async fn answers_come_in_the_order_of_the_queries() {
    let server = Scripted::start(json("200 OK", ONE)).await;
    let asked = Server::new(settings(&server.url)).unwrap();
    let queries = [query(false), query(true), query(false)];
    let answers = asked.ask(&queries).await;
    let good: Vec<bool> = answers
        .iter()
        .map(|a| matches!(a, Answer::Series(_)))
        .collect();
    assert_eq!(good, [true, false, true]);
    assert_eq!(asked.ask(&[]).await, []);
}

#[tokio::test]
async fn credentials_are_sent_and_never_shown() {
    let folder = tempfile::tempdir().unwrap();
    let token = folder.path().join("token");
    std::fs::write(&token, "first-token\n").unwrap();
    let auths = [
        (
            Auth::Bearer(Secret::new("static-token")),
            "authorization: Bearer static-token",
        ),
        (
            Auth::BearerFile(token.clone()),
            "authorization: Bearer first-token",
        ),
        (
            Auth::Basic {
                user: "anna".to_owned(),
                password: Secret::new("pass:word"),
            },
            "authorization: Basic YW5uYTpwYXNzOndvcmQ=",
        ),
    ];
    for (auth, header) in auths {
        let server = Scripted::start(Script::Echo).await;
        let mut settings = settings(&server.url);
        settings.auth = auth;
        settings.headers = vec![("X-Scope-OrgID".to_owned(), Secret::new("tenant-7"))];
        let shown = format!("{settings:?}");
        let asked = Server::new(settings).unwrap();
        let answer = words(&asked.ask(&[query(false)]).await[0]);
        let request = server.seen().concat();
        assert!(request.contains(header), "{request}");
        assert!(request.contains("x-scope-orgid: tenant-7"), "{request}");
        assert!(answer.contains("HTTP 401 Unauthorized"), "{answer}");
        for secret in [
            "static-token",
            "first-token",
            "pass:word",
            "YW5uYTpwYXNzOndvcmQ",
            "tenant-7",
        ] {
            for text in [&answer, &shown, &format!("{asked:?}")] {
                assert!(!text.contains(secret), "{text}");
            }
        }
    }
    // A token that was replaced is used from the next tick on; one that is gone is said, and asks nobody.
    let server = Scripted::start(json("200 OK", ONE)).await;
    let mut settings = settings(&server.url);
    settings.auth = Auth::BearerFile(token.clone());
    let asked = Server::new(settings).unwrap();
    std::fs::write(&token, "second-token").unwrap();
    asked.ask(&[query(false)]).await;
    std::fs::remove_file(&token).unwrap();
    let answer = words(&asked.ask(&[query(false)]).await[0]);
    assert!(answer.contains("failed to read a bearer token"), "{answer}");
    let seen = server.seen();
    assert_eq!(seen.len(), 1);
    assert!(seen[0].contains("Bearer second-token"), "{}", seen[0]);
}

fn pem(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/data/tls")
        .join(name)
}

/// TLS for 127.0.0.1 that asks for a certificate of our test authority.
fn mutual_tls() -> TlsAcceptor {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut roots = RootCertStore::empty();
    roots
        .add(CertificateDer::from_pem_file(pem("ca.pem")).unwrap())
        .unwrap();
    let verifier = rustls::server::WebPkiClientVerifier::builder_with_provider(
        Arc::new(roots),
        Arc::clone(&provider),
    );
    let chain = vec![CertificateDer::from_pem_file(pem("server.pem")).unwrap()];
    let key = PrivateKeyDer::from_pem_file(pem("server.key")).unwrap();
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_client_cert_verifier(verifier.build().unwrap())
        .with_single_cert(chain, key)
        .unwrap();
    TlsAcceptor::from(Arc::new(config))
}

#[tokio::test]
async fn certificates_prove_both_sides() {
    let server = Scripted::with_tls(json("200 OK", ONE), Some(mutual_tls())).await;
    let mut settings = settings(&server.url);
    let answer = words(&ask(settings.clone(), false).await);
    assert!(
        answer.starts_with("Prometheus cannot be reached"),
        "{answer}"
    );

    settings.ca = Some(pem("ca.pem"));
    settings.only_own_ca = true;
    let answer = words(&ask(settings.clone(), false).await);
    assert!(
        answer.starts_with("Prometheus cannot be reached"),
        "no client certificate: {answer}"
    );

    settings.certificate = Some(ClientCertificate {
        certificate: pem("client.pem"),
        key: pem("client.key"),
    });
    assert!(words(&ask(settings.clone(), false).await).starts_with("[Series"));
    settings.only_own_ca = false;
    assert!(words(&ask(settings.clone(), false).await).starts_with("[Series"));

    settings.ca = Some(pem("client.key"));
    let error = Server::new(settings.clone()).unwrap_err().to_string();
    assert!(
        error.contains("holds no usable certificate authority"),
        "{error}"
    );
    settings.ca = Some(pem("nowhere.pem"));
    let error = Server::new(settings).unwrap_err().to_string();
    assert!(
        error.contains("failed to read certificate authorities"),
        "{error}"
    );
}
