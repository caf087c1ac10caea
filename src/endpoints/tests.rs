//! The endpoints over a real socket.

use std::net::Ipv4Addr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::Notify;

use super::*;
use crate::clock::ManualClock;
use crate::domain::Timestamp;

struct Served {
    address: SocketAddr,
    health: Arc<Health>,
    instruments: Arc<Instruments>,
    woken: Arc<Notify>,
    clock: Arc<ManualClock>,
}

async fn serve() -> Served {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let served = Served {
        address: listener.local_addr().unwrap(),
        health: Arc::new(Health::new()),
        instruments: Arc::new(Instruments::new()),
        woken: Arc::new(Notify::new()),
        clock: Arc::new(ManualClock::new(Timestamp::UNIX_EPOCH)),
    };
    let secret = Secret::new(b"It's a Secret to Everybody\n").unwrap();
    let endpoints = Endpoints {
        health: Arc::clone(&served.health),
        instruments: Arc::clone(&served.instruments),
        hooks: Arc::new(vec![Hook::new("apps", secret, Arc::clone(&served.woken))]),
        log_level: Some(Arc::new(|level| {
            if level == "debug" {
                Ok(())
            } else {
                Err(format!("`{level}` is no level"))
            }
        })),
        clock: Arc::clone(&served.clock),
    };
    tokio::spawn(endpoints.serve(listener));
    served
}

impl Served {
    /// Status and body of the answer to one request.
    async fn ask(&self, method: &str, path: &str, headers: &str, body: &str) -> (u16, String) {
        let mut stream = tokio::net::TcpStream::connect(self.address).await.unwrap();
        let length = body.len();
        let request = format!(
            "{method} {path} HTTP/1.1\r\nHost: serin\r\nConnection: close\r\nContent-Length: {length}\r\n{headers}\r\n{body}"
        );
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        let status = answer.split(' ').nth(1).unwrap().parse().unwrap();
        let body = answer.split_once("\r\n\r\n").unwrap().1.to_owned();
        (status, body)
    }

    async fn is_woken(&self) -> bool {
        let soon = Duration::from_millis(50);
        tokio::time::timeout(soon, self.woken.notified())
            .await
            .is_ok()
    }
}

#[tokio::test]
async fn health_tells_a_hanging_loop_from_a_remote_that_is_away() {
    let served = serve().await;
    let get = |path: &'static str| served.ask("GET", path, "", "");
    served
        .health
        .watch("apps", Duration::from_secs(60), served.clock.now());
    assert_eq!(get("/healthz").await.0, 200);
    assert_eq!(
        get("/readyz").await,
        (503, "apps: the branch has not been read yet\n".to_owned())
    );
    served.health.beat("apps", Beat::Alive, served.clock.now());
    assert_eq!(get("/readyz").await.0, 503);
    served
        .health
        .beat("apps", Beat::WentRound, served.clock.now());
    assert_eq!(get("/readyz").await, (200, "ok\n".to_owned()));

    served
        .clock
        .set(Timestamp::UNIX_EPOCH + chrono::TimeDelta::seconds(61));
    assert_eq!(
        get("/healthz").await,
        (503, "apps: no pass has ended for 61 s\n".to_owned())
    );
    // The remote goes away, the loop does not: neither dead nor unready.
    served.health.beat("apps", Beat::Alive, served.clock.now());
    assert_eq!(get("/healthz").await.0, 200);
    assert_eq!(get("/readyz").await.0, 200);
}

#[tokio::test]
async fn a_webhook_wakes_when_it_is_genuine() {
    let served = serve().await;
    // GitHub's own test vector.
    let signed = "X-Hub-Signature-256: sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17\r\n";
    let hook =
        |headers: &'static str, body: &'static str| served.ask("POST", "/hook/apps", headers, body);
    assert_eq!(hook(signed, "Hello, World!").await.0, 202);
    assert!(served.is_woken().await);
    let token = "X-Gitlab-Token: It's a Secret to Everybody\r\n";
    assert_eq!(hook(token, "{}").await.0, 202);
    assert!(served.is_woken().await);

    for (headers, body) in [
        (signed, "Hello, World?"),
        ("", "Hello, World!"),
        ("X-Hub-Signature-256: sha256=\r\n", "Hello, World!"),
        ("X-Hub-Signature-256: sha256=75\r\n", "Hello, World!"),
        ("X-Hub-Signature-256: sha256=zz\r\n", "Hello, World!"),
        ("X-Gitlab-Token: It's a Secret\r\n", "{}"),
        ("X-Gitlab-Token: \r\n", "{}"),
        // A wrong signature is not mended by a right token.
        (
            "X-Hub-Signature-256: sha256=75\r\nX-Gitlab-Token: It's a Secret to Everybody\r\n",
            "{}",
        ),
    ] {
        let (status, words) = hook(headers, body).await;
        assert_eq!(
            (status, words.as_str()),
            (403, "the signature is missing or wrong\n")
        );
    }
    assert!(!served.is_woken().await);
    assert_eq!(
        served
            .ask("POST", "/hook/other", signed, "Hello, World!")
            .await
            .0,
        404
    );
    let exposition = served.ask("GET", "/metrics", "", "").await.1;
    for expected in [
        "serin_webhook_deliveries_total{outcome=\"accepted\"} 2",
        "serin_webhook_deliveries_total{outcome=\"refused\"} 8",
        "serin_webhook_deliveries_total{outcome=\"unknown\"} 1",
    ] {
        assert!(exposition.contains(expected), "{expected}\n{exposition}");
    }
}

#[tokio::test]
async fn the_log_level_is_set_while_it_runs() {
    let served = serve().await;
    assert_eq!(served.ask("PUT", "/loglevel", "", "debug\n").await.0, 200);
    assert_eq!(
        served.ask("PUT", "/loglevel", "", "loud").await,
        (400, "`loud` is no level\n".to_owned())
    );
}

#[test]
fn a_secret_is_not_shown_and_not_empty() {
    assert_eq!(
        format!("{:?}", Secret::new(b"hush\n").unwrap()),
        "Secret(…)"
    );
    assert_eq!(Secret::new(b"\r\n"), None);
    assert_eq!(Secret::new(b""), None);
}
