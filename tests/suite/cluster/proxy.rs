//! A server in front of the real API server, with faults: refusals, silence, watches that break.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::http::{Request, Response};
use futures_util::StreamExt;
use serde_json::json;
use tokio::sync::watch;

use crate::rig::Client;

/// Largest body of a request.
const LARGEST: usize = 8 << 20;

/// What happens to a request.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Fault {
    /// An answer with this status; seconds to come again after, when there are any.
    Answer(u16, Option<u32>),
    /// No answer at all.
    Silence,
    /// A watch ends after this many milliseconds.
    Cut(u64),
    /// A watch is told that its version is too old.
    Expired,
}

/// Which requests a fault meets: by method and by a text in path and query; how often.
struct Rule {
    method: &'static str,
    text: String,
    fault: Fault,
    left: usize,
}

#[derive(Default)]
struct Rules {
    rules: Vec<Rule>,
    /// Method and path with query of every request so far.
    asked: Vec<(String, String)>,
}

/// See the module.
pub(crate) struct Proxy {
    pub(crate) url: String,
    rules: Arc<Mutex<Rules>>,
    down: watch::Sender<bool>,
}

impl Proxy {
    /// Listens on a loopback port. Whoever asks has the rights of this client.
    pub(crate) async fn start(client: &Client) -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let rules = Arc::new(Mutex::new(Rules::default()));
        let (down, is_down) = watch::channel(false);
        let (client, known) = (client.0.clone(), Arc::clone(&rules));
        let router = axum::Router::new().fallback(move |request: Request<Body>| {
            let (client, rules) = (client.clone(), Arc::clone(&known));
            let is_down = is_down.clone();
            async move { answer(client, &rules, is_down, request).await }
        });
        tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        Self { url, rules, down }
    }

    /// The next `times` requests of this method (empty: any) with this text in path or query fail.
    pub(crate) fn fail(&self, method: &'static str, text: &str, fault: Fault, times: usize) {
        let rule = Rule {
            method,
            text: text.to_owned(),
            fault,
            left: times,
        };
        self.rules.lock().unwrap().rules.push(rule);
    }

    /// All faults end.
    pub(crate) fn heal(&self) {
        self.rules.lock().unwrap().rules.clear();
        self.down.send_replace(false);
    }

    /// Nothing answers any more, and what is open breaks.
    pub(crate) fn go_down(&self) {
        self.down.send_replace(true);
    }

    /// How many requests of this method had this text in path or query.
    pub(crate) fn count(&self, method: &str, text: &str) -> usize {
        let rules = self.rules.lock().unwrap();
        let asked = rules.asked.iter();
        asked
            .filter(|(asked, path)| asked == method && path.contains(text))
            .count()
    }
}

impl Rules {
    fn take(&mut self, method: &str, path: &str) -> Option<Fault> {
        self.asked.push((method.to_owned(), path.to_owned()));
        let rule = self.rules.iter_mut().find(|rule| {
            rule.left > 0
                && (rule.method.is_empty() || rule.method == method)
                && path.contains(&rule.text)
        })?;
        rule.left -= 1;
        Some(rule.fault)
    }
}

fn refusal(code: u16, retry_after: Option<u32>) -> Response<Body> {
    let status = json!({
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "code": code,
        "message": format!("the proxy answers {code}"), "reason": "Proxy",
        "details": {"retryAfterSeconds": retry_after},
    });
    let mut answer = Response::builder()
        .status(code)
        .header("content-type", "application/json");
    if let Some(seconds) = retry_after {
        answer = answer.header("retry-after", seconds);
    }
    answer.body(Body::from(status.to_string())).unwrap()
}

async fn answer(
    client: kube::Client,
    rules: &Mutex<Rules>,
    mut is_down: watch::Receiver<bool>,
    request: Request<Body>,
) -> Response<Body> {
    let path = request.uri().path_and_query().unwrap().to_string();
    let fault = rules.lock().unwrap().take(request.method().as_str(), &path);
    if *is_down.borrow() {
        return refusal(503, None);
    }
    let cut = match fault {
        None => None,
        Some(Fault::Answer(code, retry_after)) => return refusal(code, retry_after),
        Some(Fault::Silence) => std::future::pending().await,
        Some(Fault::Cut(milliseconds)) => Some(Duration::from_millis(milliseconds)),
        Some(Fault::Expired) => {
            let status = json!({"type": "ERROR", "object": {
                "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
                "message": "too old resource version", "reason": "Expired", "code": 410,
            }});
            return Response::new(Body::from(format!("{status}\n")));
        }
    };
    let (parts, body) = request.into_parts();
    let body = axum::body::to_bytes(body, LARGEST).await.unwrap();
    let mut passed_on = Request::builder().method(parts.method).uri(&path);
    for name in ["content-type", "accept"] {
        if let Some(value) = parts.headers.get(name) {
            passed_on = passed_on.header(name, value);
        }
    }
    let passed_on = passed_on
        .body(kube::client::Body::from(body.to_vec()))
        .unwrap();
    let Ok(answer) = client.send(passed_on).await else {
        return refusal(502, None);
    };
    let (parts, body) = answer.into_parts();
    let until = async move {
        let broken = is_down.wait_for(|down| *down);
        match cut {
            Some(after) => {
                tokio::select! {
                    _ = broken => {}
                    () = tokio::time::sleep(after) => {}
                }
            }
            None => {
                broken.await.ok();
            }
        }
    };
    let stream = Body::new(body)
        .into_data_stream()
        .take_until(Box::pin(until));
    let stream = stream.map(|chunk| chunk.unwrap_or_else(|_| Bytes::new()));
    let stream = stream.map(Ok::<Bytes, std::convert::Infallible>);
    let mut passed_back = Response::builder().status(parts.status);
    if let Some(value) = parts.headers.get("content-type") {
        passed_back = passed_back.header("content-type", value);
    }
    passed_back.body(Body::from_stream(stream)).unwrap()
}
