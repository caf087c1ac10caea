//! Traces: the real `serin` sends them where `OTEL_EXPORTER_OTLP_ENDPOINT` says. Needs the feature `otel`.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::Uri;

use crate::git::rig::Rig;
use crate::support::serin::Start;

/// What a collector was sent, by path.
type Received = Arc<Mutex<Vec<(String, Vec<u8>)>>>;

/// A collector that keeps what it is sent. Names in protobuf are plain bytes, so nothing has to be decoded.
async fn collector() -> (String, Received) {
    let received = Received::default();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let take = |State(received): State<Received>, uri: Uri, body: Bytes| async move {
        received
            .lock()
            .unwrap()
            .push((uri.path().to_owned(), body.to_vec()));
    };
    let router = Router::new()
        .fallback(take)
        .with_state(Arc::clone(&received));
    tokio::spawn(async move { axum::serve(listener, router).await });
    (format!("http://{address}"), received)
}

#[tokio::test(flavor = "multi_thread")]
async fn every_pass_is_a_trace_with_what_it_waited_for() {
    let (endpoint, received) = collector().await;
    let git = Rig::with(&[
        (
            "app.yaml",
            include_str!("../../src/simulation/base/app.yaml"),
        ),
        (
            "canary.yaml",
            include_str!("../../src/simulation/base/canary.yaml"),
        ),
    ]);
    let remote = git.remote().display().to_string();
    let serin = Start::new(&git.path(""), "serin", &remote, "http://127.0.0.1:9")
        .env("OTEL_EXPORTER_OTLP_ENDPOINT", &endpoint)
        .start();
    let is_done = || {
        git.server(&["log", "--format=%s", "main"])
            .contains("initialize")
    };
    for _ in 0..1200 {
        if is_done() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    // What was collected is sent before it ends.
    let status = tokio::task::spawn_blocking(move || serin.stop())
        .await
        .unwrap();
    assert!(status.success());
    let received = received.lock().unwrap();
    let sent = |text: &str| {
        received.iter().any(|(path, body)| {
            path == "/v1/traces" && body.windows(text.len()).any(|part| part == text.as_bytes())
        })
    };
    for name in [
        "pass",
        "git.fetch",
        "git.snapshot",
        "git.lineage",
        "git.publish",
        "serin",
    ] {
        assert!(sent(name), "no span `{name}`");
    }
}
