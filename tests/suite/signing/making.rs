//! Our commits, signed: what `git verify-commit` says about every one of them, and what happens when a key cannot sign.

use std::path::Path;
use std::time::Duration;

use serin::git::{Branch, Settings, Signing};
use serin::ports::{Published, Repository, RepositoryError};

use super::keys::{
    Gnupg, SshAgent, public, signers, ssh_key, ssh_key_with, verifies, with_variable,
};
use crate::git::rig::{Rig, accepted, draft, step};

fn signing(rig: &Rig, sign: Signing) -> Settings {
    Settings {
        sign: Some(sign),
        ..rig.settings("copy")
    }
}

/// Three steps in one push, then one more.
async fn publish_steps(settings: Settings) -> Branch {
    let mut branch = Branch::open(settings).await.unwrap();
    let base = branch.fetch().await.unwrap().commit.unwrap();
    let steps = vec![
        step("app", 1, "step: 1\n"),
        step("shop", 2, "step: 1\n"),
        step("app", 3, "step: 2\n"),
    ];
    let last = accepted(branch.publish(&base, steps).await.unwrap());
    accepted(
        branch
            .publish(&last, vec![step("app", 4, "step: 3\n")])
            .await
            .unwrap(),
    );
    branch
}

/// Every commit of ours passes, and nothing else about it has changed.
fn every_step_verifies(rig: &Rig, signers: Option<&Path>, gnupg: Option<&Path>) {
    let steps = rig.server(&["rev-list", "--committer=serin", "main"]);
    assert_eq!(steps.lines().count(), 4);
    for commit in steps.lines() {
        assert!(verifies(rig, commit, signers, gnupg), "{commit}");
    }
    assert_eq!(rig.server(&["fsck", "--strict"]), "");
    assert_eq!(
        rig.server(&[
            "log",
            "-1",
            "--format=%s|%(trailers:key=Serin-Canary,valueonly)"
        ]),
        "canary(test/app): step|test/app"
    );
}

#[tokio::test]
async fn with_an_ssh_key() {
    let rig = Rig::with(&[("app.yaml", "v: 1\n")]);
    let key = ssh_key(&rig, "serin-key");
    publish_steps(signing(&rig, Signing::Ssh { key: key.clone() })).await;
    every_step_verifies(&rig, Some(&signers(&rig, &[&key])), None);
    // By nobody else's key: the check can fail.
    let other = ssh_key(&rig, "other");
    assert!(!verifies(
        &rig,
        "main",
        Some(&signers(&rig, &[&other])),
        None
    ));
}

#[tokio::test]
async fn with_an_ssh_key_that_only_the_agent_has() {
    let rig = Rig::with(&[("app.yaml", "v: 1\n")]);
    let key = ssh_key(&rig, "serin-key");
    let agent = SshAgent::with(&rig, &key);
    let list = signers(&rig, &[&key]);
    std::fs::remove_file(&key).unwrap();
    let sign = signing(&rig, Signing::Ssh { key: public(&key) });
    publish_steps(with_variable(sign, "SSH_AUTH_SOCK", &agent.socket)).await;
    every_step_verifies(&rig, Some(&list), None);
}

#[tokio::test]
async fn with_an_openpgp_key_of_a_keyring() {
    let rig = Rig::with(&[("app.yaml", "v: 1\n")]);
    let gnupg = Gnupg::new(&rig, "gnupg");
    gnupg.key("Other <other@example.com>", "never");
    let key = gnupg.key("Serin <serin@example.com>", "never");
    let sign = signing(&rig, Signing::OpenPgp { key });
    publish_steps(with_variable(sign, "GNUPGHOME", &gnupg.folder)).await;
    every_step_verifies(&rig, None, Some(&gnupg.folder));
    let stranger = Gnupg::new(&rig, "stranger");
    assert!(!verifies(&rig, "main", None, Some(&stranger.folder)));
}

#[tokio::test]
async fn with_an_openpgp_key_of_a_file() {
    let rig = Rig::with(&[("app.yaml", "v: 1\n")]);
    let gnupg = Gnupg::new(&rig, "gnupg");
    let key = gnupg.key("Serin <serin@example.com>", "never");
    let file = rig.path("serin.asc");
    gnupg.export_secret(&file, &key);
    let branch = publish_steps(signing(&rig, Signing::OpenPgpFile { key: file })).await;
    every_step_verifies(&rig, None, Some(&gnupg.folder));
    // The unpacked key is nobody else's to read, and goes with the branch.
    let unpacked = rig.path("copy.sign");
    let mode = std::os::unix::fs::PermissionsExt::mode(
        &std::fs::metadata(&unpacked).unwrap().permissions(),
    );
    assert_eq!(mode & 0o777, 0o700);
    drop(branch);
    assert!(!unpacked.exists());
}

/// As a forge does it whose branch rule requires signatures.
#[tokio::test]
async fn a_server_that_requires_signatures_accepts_ours_and_no_others() {
    let rig = Rig::with(&[("app.yaml", "v: 1\n")]);
    let key = ssh_key(&rig, "serin-key");
    let list = signers(&rig, &[&key]);
    rig.hook(
        "pre-receive",
        &format!(
            "while read old new ref; do for c in $(git rev-list $old..$new); do\n\
             git -c gpg.ssh.allowedSignersFile={} verify-commit $c || {{ echo \"$c needs a signature\" >&2; exit 1; }}\n\
             done; done",
            list.display()
        ),
    );
    let mut branch = Branch::open(rig.settings("plain")).await.unwrap();
    let base = branch.fetch().await.unwrap().commit.unwrap();
    let published = branch
        .publish(&base, vec![step("app", 1, "step: 1\n")])
        .await
        .unwrap();
    assert!(
        matches!(&published, Published::Refused(words) if words.contains("needs a signature")),
        "{published:?}"
    );
    publish_steps(signing(&rig, Signing::Ssh { key })).await;
    every_step_verifies(&rig, Some(&list), None);
}

/// Each commit names the one before, signature included, so they are signed one after the other.
#[tokio::test]
async fn hundreds_of_commits_in_one_push() {
    let rig = Rig::with(&[("app.yaml", "v: 1\n")]);
    let key = ssh_key(&rig, "serin-key");
    let list = signers(&rig, &[&key]);
    let mut branch = Branch::open(signing(&rig, Signing::Ssh { key }))
        .await
        .unwrap();
    let base = branch.fetch().await.unwrap().commit.unwrap();
    let drafts = (0..300)
        .map(|n| {
            draft(
                &format!("c{n}"),
                n,
                &[(&format!("c{n}.serin/rollout.yaml"), Some("step: 1\n"))],
            )
        })
        .collect();
    let Published::Accepted(commits) = branch.publish(&base, drafts).await.unwrap() else {
        panic!("not accepted");
    };
    assert_eq!(commits.len(), 300);
    assert_eq!(rig.server(&["fsck", "--strict"]), "");
    for commit in commits.iter().step_by(30) {
        assert!(
            verifies(&rig, commit.as_str(), Some(&list), None),
            "{commit}"
        );
    }
}

/// A key that needs a person is an error at once, in words, without the passphrase, and nothing is pushed.
#[tokio::test]
async fn keys_that_cannot_sign_are_said_and_nothing_is_pushed() {
    let rig = Rig::with(&[("app.yaml", "v: 1\n")]);
    let before = rig.head();
    let locked = ssh_key_with(&rig, "locked", "correct horse");
    let text = rig.path("text.asc");
    std::fs::write(&text, "no key at all, but s3cret\n").unwrap();
    let gnupg = Gnupg::new(&rig, "gnupg");
    let key = gnupg.key("Serin <serin@example.com>", "never");
    let public_only = rig.path("public.asc");
    gnupg.export(&public_only, &[&key]);
    let two = rig.path("two.asc");
    let other = gnupg.key("Other <other@example.com>", "never");
    let both = gnupg.gpg(&[
        "--armor",
        "--export-secret-keys",
        key.as_str(),
        other.as_str(),
    ]);
    std::fs::write(&two, both + "\n").unwrap();
    let empty = Gnupg::new(&rig, "empty");
    for (sign, words) in [
        (Signing::Ssh { key: locked }, "incorrect passphrase"),
        (
            Signing::Ssh {
                key: rig.path("missing"),
            },
            "No such file",
        ),
        (Signing::OpenPgp { key: key.clone() }, "No secret key"),
        (Signing::OpenPgpFile { key: text }, "cannot be used"),
        (Signing::OpenPgpFile { key: public_only }, "no secret key"),
        (Signing::OpenPgpFile { key: two }, "holds 2 keys"),
        (
            Signing::OpenPgpFile {
                key: rig.path("missing.asc"),
            },
            "No such file",
        ),
    ] {
        let mut settings = with_variable(signing(&rig, sign.clone()), "GNUPGHOME", &empty.folder);
        settings.deadline = Duration::from_secs(30);
        let mut branch = Branch::open(settings).await.unwrap();
        let base = branch.fetch().await.unwrap().commit.unwrap();
        let error = branch
            .publish(&base, vec![step("app", 1, "step: 1\n")])
            .await
            .unwrap_err();
        let text = error.to_string();
        assert!(
            matches!(error, RepositoryError::Signature(_)) && text.contains(words),
            "{sign:?}: {text}"
        );
        assert!(
            !text.contains("correct horse") && !text.contains("s3cret"),
            "{text}"
        );
        assert_eq!(rig.head(), before);
        assert!(!rig.path("copy.sign").exists() || matches!(sign, Signing::OpenPgpFile { .. }));
    }
}
