//! The wire: HTTP with a password, SSH with a key, servers that are not there or never answer.

use std::time::Duration;

use serin::git::{Branch, Remote, Settings};
use serin::ports::{Repository, RepositoryError};

use super::rig::{Rig, publish, step};
use crate::git_servers::{self, Sshd};

const PASSWORD: &str = "s3cr/t@p";
const ENCODED: &str = "s3cr%2Ft%40p";

fn settings(rig: &Rig, url: &str) -> Settings {
    Settings {
        remote: url.parse::<Remote>().unwrap(),
        ..rig.settings("copy")
    }
}

fn shows_no_secret(text: &str) {
    for secret in [PASSWORD, ENCODED, "wrong-password", "deploy"] {
        assert!(!text.contains(secret), "{secret} in {text}");
    }
}

#[tokio::test]
async fn a_file_url() {
    let rig = Rig::with(&[("app.yaml", "v: 1\n")]);
    let url = format!("file://{}", rig.remote().display());
    let mut branch = Branch::open(settings(&rig, &url)).await.unwrap();
    assert_eq!(
        publish(&mut branch, step("app", 1, "step: 1\n")).await,
        rig.head()
    );
}

#[tokio::test]
async fn http_with_a_password() {
    let rig = Rig::with(&[("app.yaml", "v: 1\n")]);
    let server = git_servers::http(rig.folder.path(), &rig.home()).await;
    let url = format!("http://deploy:{ENCODED}@{server}/remote.git");
    let mut branch = Branch::open(settings(&rig, &url)).await.unwrap();
    assert_eq!(
        publish(&mut branch, step("app", 1, "step: 1\n")).await,
        rig.head()
    );
    shows_no_secret(&format!("{branch:?}"));

    // What the server says goes out; the password does not, even when the server prints it.
    rig.hook(
        "pre-receive",
        &format!("echo 'no, {PASSWORD} ({ENCODED})' >&2; exit 1"),
    );
    let base = branch.fetch().await.unwrap().commit.unwrap();
    let refused = branch
        .publish(&base, vec![step("app", 2, "step: 2\n")])
        .await
        .unwrap();
    let refused = format!("{refused:?}");
    assert!(refused.contains("no, *** (***)"), "{refused}");

    // Nothing of it is on disk either.
    let stored = git_servers::program("grep", &rig.home())
        .args(["-r", "-l", "-e", PASSWORD, "-e", ENCODED])
        .args([rig.path("copy"), rig.home()])
        .output()
        .unwrap();
    assert_eq!(
        stored.status.code(),
        Some(1),
        "{}",
        String::from_utf8_lossy(&stored.stdout)
    );
}

#[tokio::test]
async fn http_that_says_no() {
    let rig = Rig::with(&[("app.yaml", "v: 1\n")]);
    let server = git_servers::http(rig.folder.path(), &rig.home()).await;
    for (url, wanted) in [
        (
            format!("http://deploy:wrong-password@{server}/remote.git"),
            "remote-denied",
        ),
        (format!("http://{server}/remote.git"), "remote-denied"),
        (
            format!("http://deploy:{ENCODED}@{server}/nowhere.git"),
            "remote-missing",
        ),
        (
            format!("http://deploy:{ENCODED}@127.0.0.1:1/remote.git"),
            "remote-unreachable",
        ),
        ("/nowhere/at/all.git".to_owned(), "remote-missing"),
        ("file:///nowhere/at/all.git".to_owned(), "remote-missing"),
    ] {
        let mut branch = Branch::open(settings(&rig, &url)).await.unwrap();
        let error = branch.fetch().await.unwrap_err();
        assert_eq!(error.category(), wanted, "{error}");
        shows_no_secret(&format!("{error} {error:?} {branch:?}"));
    }
}

#[tokio::test]
async fn ssh_with_a_key() {
    let rig = Rig::with(&[("app.yaml", "v: 1\n")]);
    let folder = rig.path("ssh");
    std::fs::create_dir(&folder).unwrap();
    let sshd = Sshd::start(&folder);
    let url = format!(
        "ssh://{}@127.0.0.1:{}{}",
        sshd.user,
        sshd.port,
        rig.remote().display()
    );
    let with_ssh = |copy: &str, client: &str| {
        let mut settings = settings(&rig, &url);
        settings.local = rig.path(copy);
        settings
            .environment
            .insert("GIT_SSH_COMMAND".to_owned(), client.to_owned());
        settings
    };
    let mut branch = Branch::open(with_ssh("copy", &sshd.client)).await.unwrap();
    assert_eq!(
        publish(&mut branch, step("app", 1, "step: 1\n")).await,
        rig.head()
    );

    let stranger = "ssh -F /dev/null -o BatchMode=yes -o IdentityFile=none -o IdentitiesOnly=yes -o UserKnownHostsFile=/dev/null";
    for client in [
        format!("{stranger} -o StrictHostKeyChecking=yes"),
        format!("{stranger} -o StrictHostKeyChecking=no"),
    ] {
        let mut branch = Branch::open(with_ssh("other", &client)).await.unwrap();
        let error = branch.fetch().await.unwrap_err();
        assert!(matches!(error, RepositoryError::Denied(_)), "{error}");
    }

    drop(sshd);
    let error = branch.fetch().await.unwrap_err();
    assert!(matches!(error, RepositoryError::Unreachable(_)), "{error}");
}

/// A server that hangs costs one deadline, leaves no process behind, and nobody sees the password among the arguments.
#[tokio::test]
async fn a_server_that_never_answers() {
    let rig = Rig::with(&[("app.yaml", "v: 1\n")]);
    let (_listener, server) = git_servers::silent();
    let url = format!("http://deploy:{ENCODED}@{server}/hanging.git");
    let mut settings = settings(&rig, &url);
    settings.deadline = Duration::from_millis(800);
    let mut branch = Branch::open(settings).await.unwrap();
    let fetching = tokio::spawn(async move { branch.fetch().await });
    let address = server.to_string();
    let mut seen = Vec::new();
    for _ in 0..100 {
        seen = processes(&address);
        if !seen.is_empty() {
            break;
        }
        tokio::task::yield_now().await;
        std::thread::sleep(Duration::from_millis(5));
    }
    assert!(!seen.is_empty(), "git names the server");
    for arguments in &seen {
        shows_no_secret(arguments);
    }
    let error = fetching.await.unwrap().unwrap_err();
    assert!(
        matches!(&error, RepositoryError::Unreachable(what) if what.ends_with("git ls-remote did not end within 0.8 s")),
        "{error}"
    );
    shows_no_secret(&error.to_string());
    for _ in 0..100 {
        if processes(&address).is_empty() {
            return;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    panic!("left behind: {:?}", processes(&address));
}

/// Command lines of running processes that hold a text.
fn processes(text: &str) -> Vec<String> {
    let entries = std::fs::read_dir("/proc").unwrap().filter_map(Result::ok);
    entries
        .filter_map(|entry| std::fs::read(entry.path().join("cmdline")).ok())
        .map(|line| String::from_utf8_lossy(&line).replace('\0', " "))
        .filter(|line| line.contains(text))
        .collect()
}
