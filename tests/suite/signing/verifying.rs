//! Heads that need a signature: what counts, what stays in force, what a restart knows, and that nothing of ours is ever
//! built on what was not verified.

use std::collections::BTreeSet;
use std::path::PathBuf;

use serin::domain::CommitId;
use serin::git::{Branch, Settings, Signing, Verification};
use serin::ports::{Head, History, Published, Repository, RepositoryError};

use super::keys::{As, Gnupg, commit, push, signer, signers, ssh_key, with_variable};
use crate::git::rig::{Rig, accepted, path, step, us};

/// A branch whose first commit alexis signed; Serin has a key too.
struct Scene {
    rig: Rig,
    serin: PathBuf,
    alexis: PathBuf,
    mallory: PathBuf,
    list: PathBuf,
    first: CommitId,
}

impl Scene {
    fn new() -> Self {
        let rig = Rig::with(&[("app.yaml", "v: 1\n")]);
        let [serin, alexis, mallory] =
            ["serin-key", "alexis-key", "mallory-key"].map(|name| ssh_key(&rig, name));
        let list = signers(&rig, &[&serin, &alexis]);
        let first = push(&rig, &As::Ssh(&alexis), "app.yaml", "v: 2\n");
        Self {
            rig,
            serin,
            alexis,
            mallory,
            list,
            first,
        }
    }

    fn settings(&self) -> Settings {
        Settings {
            sign: Some(Signing::Ssh {
                key: self.serin.clone(),
            }),
            verify: Some(Verification {
                signers: Some(self.list.clone()),
                ..Verification::default()
            }),
            ..self.rig.settings("copy")
        }
    }

    fn strict(&self) -> Settings {
        let mut settings = self.settings();
        settings.verify.as_mut().unwrap().strict = true;
        settings
    }

    async fn branch(&self) -> Branch {
        Branch::open(self.settings()).await.unwrap()
    }
}

fn good(commit: &CommitId) -> Head {
    Head {
        commit: Some(commit.clone()),
        history: History::Forward,
    }
}

/// The reason why a head is not good, and what is in force.
fn bad(head: Head) -> (String, CommitId, Option<CommitId>) {
    match head.history {
        History::Unverified { head: bad, why } => (why, bad, head.commit),
        History::Forward | History::Rewritten { .. } => panic!("{head:?}"),
    }
}

async fn refused(branch: &mut Branch, last_good: &CommitId) -> String {
    let (why, _, in_force) = bad(branch.fetch().await.unwrap());
    assert_eq!(in_force.as_ref(), Some(last_good), "{why}");
    why
}

#[tokio::test]
async fn an_unsigned_head_changes_nothing() {
    let scene = Scene::new();
    let rig = &scene.rig;
    let mut branch = scene.branch().await;
    assert_eq!(branch.fetch().await.unwrap(), good(&scene.first));
    let ours = accepted(
        branch
            .publish(&scene.first, vec![step("app", 1, "step: 1\n")])
            .await
            .unwrap(),
    );
    assert_eq!(branch.fetch().await.unwrap(), good(&ours));

    let unsigned = push(rig, &As::Nobody, "app.yaml", "v: evil\n");
    let why = refused(&mut branch, &ours).await;
    assert_eq!(
        why,
        format!("commit {} by alexis is not signed", unsigned.short())
    );
    // What is in force can still be read, so that the cluster is kept equal to it.
    let files = branch.snapshot(&ours).await.unwrap().files;
    assert_eq!(&*files[&path("app.yaml")].1, b"v: 2\n");
    assert_eq!(
        refused(&mut branch, &ours).await,
        why,
        "asked again, said again"
    );

    // Nothing of ours on it, nor beside it.
    for base in [&unsigned, &ours] {
        let drafts = vec![step("app", 2, "step: 2\n")];
        match branch.publish(base, drafts).await {
            Err(RepositoryError::Signature(words)) => {
                assert!(words.contains("not verified"), "{words}")
            }
            Ok(published) => assert_eq!(published, Published::LostRace),
            Err(error) => panic!("{error}"),
        }
        assert_eq!(rig.head(), unsigned);
    }

    // Taking it back by force rewrites nothing that was ever in force.
    rig.server(&["update-ref", "refs/heads/main", ours.as_str()]);
    assert_eq!(branch.fetch().await.unwrap(), good(&ours));
    // And a signed commit on top vouches for what is below.
    push(rig, &As::Nobody, "app.yaml", "v: 3\n");
    refused(&mut branch, &ours).await;
    let signed = push(rig, &As::Ssh(&scene.alexis), "app.yaml", "v: 4\n");
    assert_eq!(branch.fetch().await.unwrap(), good(&signed));
}

#[tokio::test]
async fn wrong_keys_of_openssh() {
    let scene = Scene::new();
    let rig = &scene.rig;
    let mut branch = scene.branch().await;
    branch.fetch().await.unwrap();

    push(rig, &As::Ssh(&scene.mallory), "app.yaml", "v: 3\n");
    let why = refused(&mut branch, &scene.first).await;
    assert!(why.contains("none of the allowed keys"), "{why}");

    // Other content under a good signature.
    let raw = rig.server(&["cat-file", "commit", scene.first.as_str()]);
    let tampered = rig.path("tampered");
    std::fs::write(&tampered, raw.replace("a change", "another change") + "\n").unwrap();
    let id = rig.server(&[
        "hash-object",
        "-t",
        "commit",
        "-w",
        tampered.to_str().unwrap(),
    ]);
    rig.server(&["update-ref", "refs/heads/main", &id]);
    let why = refused(&mut branch, &scene.first).await;
    assert!(why.contains("has a signature of other content"), "{why}");

    // Nonsense in place of a signature.
    let nonsense = raw
        .lines()
        .filter(|line| !line.starts_with(' '))
        .map(|line| match line.starts_with("gpgsig") {
            true => "gpgsig nonsense\n".to_owned(),
            false => format!("{line}\n"),
        });
    std::fs::write(&tampered, nonsense.collect::<String>()).unwrap();
    let id = rig.server(&[
        "hash-object",
        "-t",
        "commit",
        "-w",
        tampered.to_str().unwrap(),
    ]);
    rig.server(&["update-ref", "refs/heads/main", &id]);
    let why = refused(&mut branch, &scene.first).await;
    assert!(why.contains("cannot be verified"), "{why}");

    // A key that was good until 2020, and one that is good for other things.
    let lines = signer(&scene.serin, "")
        + &signer(&scene.alexis, "")
        + &signer(&scene.mallory, "valid-before=\"20200101\"");
    std::fs::write(&scene.list, lines).unwrap();
    push(rig, &As::Ssh(&scene.mallory), "app.yaml", "v: 4\n");
    let why = refused(&mut branch, &scene.first).await;
    assert!(why.contains("outside of its time"), "{why}");
    let lines = signer(&scene.serin, "")
        + &signer(&scene.alexis, "")
        + &signer(&scene.mallory, "namespaces=\"file\"");
    std::fs::write(&scene.list, lines).unwrap();
    let why = refused(&mut branch, &scene.first).await;
    assert!(why.contains("cannot be verified"), "{why}");
}

/// The files with keys are read again when they change, also while the head stays where it is.
#[tokio::test]
async fn keys_come_and_go() {
    let scene = Scene::new();
    let mut branch = scene.branch().await;
    assert_eq!(branch.fetch().await.unwrap(), good(&scene.first));
    // alexis leaves: nothing on the branch is good any more.
    signers(&scene.rig, &[&scene.serin]);
    let (why, head, in_force) = bad(branch.fetch().await.unwrap());
    assert!(why.contains("none of the allowed keys"), "{why}");
    assert_eq!((head, in_force), (scene.first.clone(), None));
    let error = branch
        .publish(&scene.first, vec![step("app", 1, "x: 1\n")])
        .await
        .unwrap_err();
    assert!(matches!(error, RepositoryError::Signature(_)), "{error}");
    signers(&scene.rig, &[&scene.serin, &scene.alexis]);
    assert_eq!(branch.fetch().await.unwrap(), good(&scene.first));
    // A list that is gone is said, and nobody is trusted because of it.
    std::fs::remove_file(&scene.list).unwrap();
    let error = branch.fetch().await.unwrap_err();
    assert!(
        matches!(&error, RepositoryError::Signature(words) if words.contains("allowed_signers")),
        "{error}"
    );
}

#[tokio::test]
async fn a_revoked_key_of_openssh() {
    let scene = Scene::new();
    let revoked = scene.rig.path("revoked");
    std::fs::copy(super::keys::public(&scene.mallory), &revoked).unwrap();
    signers(&scene.rig, &[&scene.serin, &scene.alexis, &scene.mallory]);
    let mut settings = scene.settings();
    settings.verify.as_mut().unwrap().revoked = Some(revoked);
    let mut branch = Branch::open(settings).await.unwrap();
    assert_eq!(branch.fetch().await.unwrap(), good(&scene.first));
    push(&scene.rig, &As::Ssh(&scene.mallory), "app.yaml", "v: 3\n");
    let why = refused(&mut branch, &scene.first).await;
    assert!(why.contains("revoked"), "{why}");
}

#[tokio::test]
async fn openpgp_keys_good_and_bad() {
    let rig = Rig::with(&[("app.yaml", "v: 1\n")]);
    let gnupg = Gnupg::new(&rig, "gnupg");
    let serin = gnupg.key("Serin <serin@example.com>", "never");
    let alexis = gnupg.key("Alexis <alexis@example.com>", "never");
    let short = gnupg.key("Short <short@example.com>", "seconds=3");
    let mallory = gnupg.key("Mallory <mallory@example.com>", "never");
    let revoked = gnupg.key("Revoked <revoked@example.com>", "never");
    let first = push(&rig, &As::OpenPgp(&gnupg, &alexis), "app.yaml", "v: 2\n");
    let expired = commit(
        &rig,
        &As::OpenPgp(&gnupg, &short),
        "main",
        &[],
        "app.yaml",
        "v: 3\n",
    );
    let by_revoked = commit(
        &rig,
        &As::OpenPgp(&gnupg, &revoked),
        "main",
        &[],
        "app.yaml",
        "v: 4\n",
    );
    let certificate = gnupg
        .folder
        .join(format!("openpgp-revocs.d/{}.rev", revoked.as_str()));
    let text = std::fs::read_to_string(certificate)
        .unwrap()
        .replace(":-----BEGIN", "-----BEGIN");
    std::fs::write(rig.path("revocation"), text).unwrap();
    gnupg.gpg(&["--import", rig.path("revocation").to_str().unwrap()]);
    let keyring = rig.path("keys.asc");
    gnupg.export(&keyring, &[&serin, &alexis, &short, &revoked]);
    let key = rig.path("serin.asc");
    gnupg.export_secret(&key, &serin);

    let settings = Settings {
        sign: Some(Signing::OpenPgpFile { key }),
        verify: Some(Verification {
            keyring: Some(keyring.clone()),
            ..Verification::default()
        }),
        ..rig.settings("copy")
    };
    let mut branch = Branch::open(settings.clone()).await.unwrap();
    assert_eq!(branch.fetch().await.unwrap(), good(&first));
    let ours = accepted(
        branch
            .publish(&first, vec![step("app", 1, "step: 1\n")])
            .await
            .unwrap(),
    );
    assert_eq!(branch.fetch().await.unwrap(), good(&ours));
    push(&rig, &As::OpenPgp(&gnupg, &mallory), "app.yaml", "v: 5\n");
    let why = refused(&mut branch, &ours).await;
    assert!(why.contains("none of the allowed keys"), "{why}");
    while short_is_good(&gnupg) {
        std::thread::sleep(std::time::Duration::from_millis(200));
    }
    for (head, words) in [(&expired, "outside of its time"), (&by_revoked, "revoked")] {
        rig.server(&["update-ref", "refs/heads/main", head.as_str()]);
        let why = refused(&mut branch, &ours).await;
        assert!(why.contains(words), "{why}");
    }
    let raw = rig.server(&["cat-file", "commit", first.as_str()]);
    let tampered = rig.path("tampered");
    std::fs::write(&tampered, raw.replace("a change", "another change") + "\n").unwrap();
    let id = rig.server(&[
        "hash-object",
        "-t",
        "commit",
        "-w",
        tampered.to_str().unwrap(),
    ]);
    rig.server(&["update-ref", "refs/heads/main", &id]);
    let why = refused(&mut branch, &ours).await;
    assert!(why.contains("signature of other content"), "{why}");

    // Only some keys of a keyring; without one, of GnuPG's own.
    drop(branch);
    rig.server(&["update-ref", "refs/heads/main", ours.as_str()]);
    let mut narrow = settings.clone();
    narrow.local = rig.path("narrow");
    narrow.verify.as_mut().unwrap().fingerprints = BTreeSet::from([alexis.clone()]);
    let mut branch = Branch::open(narrow).await.unwrap();
    let why = refused(&mut branch, &first).await;
    assert!(why.contains(serin.as_str()), "{why}");
    let mut own = with_variable(settings, "GNUPGHOME", &gnupg.folder);
    own.local = rig.path("own");
    own.verify = Some(Verification {
        fingerprints: BTreeSet::from([serin]),
        ..Verification::default()
    });
    let mut branch = Branch::open(own).await.unwrap();
    assert_eq!(branch.fetch().await.unwrap(), good(&ours));
    push(&rig, &As::OpenPgp(&gnupg, &alexis), "app.yaml", "v: 6\n");
    refused(&mut branch, &ours).await;
}

fn short_is_good(gnupg: &Gnupg) -> bool {
    !gnupg
        .gpg(&["--with-colons", "--list-keys", "short@example.com"])
        .contains("pub:e:")
}

/// Keys that GnuPG knows for other reasons are no allowed ones.
#[tokio::test]
async fn each_kind_of_key_only_where_it_is_allowed() {
    let scene = Scene::new();
    let gnupg = Gnupg::new(&scene.rig, "gnupg");
    let key = gnupg.key("Alexis <alexis@example.com>", "never");
    let settings = with_variable(scene.settings(), "GNUPGHOME", &gnupg.folder);
    let mut branch = Branch::open(settings).await.unwrap();
    branch.fetch().await.unwrap();
    push(&scene.rig, &As::OpenPgp(&gnupg, &key), "app.yaml", "v: 3\n");
    let why = refused(&mut branch, &scene.first).await;
    assert!(why.contains(key.as_str()), "{why}");
}

#[tokio::test]
async fn a_restart_does_not_ask_the_head_whom_to_trust() {
    let scene = Scene::new();
    let rig = &scene.rig;
    let mut branch = scene.branch().await;
    branch.fetch().await.unwrap();
    let ours = accepted(
        branch
            .publish(&scene.first, vec![step("app", 1, "step: 1\n")])
            .await
            .unwrap(),
    );
    drop(branch);
    // On an old commit, so that the first parents of the head lead past what was in force.
    let side = commit(
        rig,
        &As::Nobody,
        scene.first.as_str(),
        &[],
        "app.yaml",
        "v: evil\n",
    );
    rig.server(&["update-ref", "refs/heads/main", side.as_str()]);
    let mut branch = scene.branch().await;
    refused(&mut branch, &ours).await;
    assert_eq!(
        &*branch.snapshot(&ours).await.unwrap().files[&path("app.serin/rollout.yaml")].1,
        b"step: 1\n"
    );
    // Without our copy the newest signed one of the branch is in force.
    drop(branch);
    std::fs::remove_dir_all(rig.path("copy")).unwrap();
    let mut branch = scene.branch().await;
    refused(&mut branch, &scene.first).await;
    rig.server(&["update-ref", "refs/heads/main", ours.as_str()]);
    assert_eq!(branch.fetch().await.unwrap(), good(&ours));
}

#[tokio::test]
async fn nothing_signed_is_nothing_in_force() {
    let scene = Scene::new();
    scene
        .rig
        .server(&["update-ref", "refs/heads/main", "main~1"]);
    let mut branch = scene.branch().await;
    let (why, head, in_force) = bad(branch.fetch().await.unwrap());
    assert!(why.contains("is not signed"), "{why}");
    assert_eq!((head, in_force), (scene.rig.head(), None));
}

/// Both sides of a merge count, and the merge itself.
#[tokio::test]
async fn strict_means_every_commit() {
    let scene = Scene::new();
    let (rig, alexis) = (&scene.rig, As::Ssh(&scene.alexis));
    let mut branch = Branch::open(scene.strict()).await.unwrap();
    assert_eq!(branch.fetch().await.unwrap(), good(&scene.first));

    let below = push(rig, &As::Nobody, "app.yaml", "v: 3\n");
    push(rig, &alexis, "app.yaml", "v: 4\n");
    let why = refused(&mut branch, &scene.first).await;
    assert_eq!(
        why,
        format!("commit {} by alexis is not signed", below.short())
    );
    rig.server(&["update-ref", "refs/heads/main", scene.first.as_str()]);
    assert_eq!(branch.fetch().await.unwrap(), good(&scene.first));

    let side = commit(rig, &As::Nobody, "main", &[], "side.yaml", "a: 1\n");
    let left = push(rig, &alexis, "app.yaml", "v: 5\n");
    let merge = commit(rig, &alexis, left.as_str(), &[&side], "side.yaml", "a: 1\n");
    rig.server(&["update-ref", "refs/heads/main", merge.as_str()]);
    let why = refused(&mut branch, &scene.first).await;
    assert!(why.contains(side.short()), "{why}");
    // The same with a signature on the side, then without one on the merge.
    let side = commit(
        rig,
        &alexis,
        scene.first.as_str(),
        &[],
        "side.yaml",
        "a: 1\n",
    );
    let merge = commit(
        rig,
        &As::Nobody,
        left.as_str(),
        &[&side],
        "side.yaml",
        "a: 1\n",
    );
    rig.server(&["update-ref", "refs/heads/main", merge.as_str()]);
    let why = refused(&mut branch, &scene.first).await;
    assert!(why.contains(merge.short()), "{why}");
    let merge = commit(rig, &alexis, left.as_str(), &[&side], "side.yaml", "a: 1\n");
    rig.server(&["update-ref", "refs/heads/main", merge.as_str()]);
    assert_eq!(branch.fetch().await.unwrap(), good(&merge));

    // A restart goes on from there: what came in between is not forgotten.
    drop(branch);
    let between = push(rig, &As::Nobody, "app.yaml", "v: 6\n");
    push(rig, &alexis, "app.yaml", "v: 7\n");
    let mut branch = Branch::open(scene.strict()).await.unwrap();
    let why = refused(&mut branch, &merge).await;
    assert!(why.contains(between.short()), "{why}");
}

/// Our own commit would be the next bad head: it is not pushed.
#[tokio::test]
async fn our_own_commits_are_verified_before_they_are_pushed() {
    let scene = Scene::new();
    let not_at_all = Settings {
        sign: None,
        ..scene.settings()
    };
    let not_allowed = Settings {
        sign: Some(Signing::Ssh {
            key: scene.mallory.clone(),
        }),
        ..scene.settings()
    };
    for (settings, words) in [
        (not_at_all, "is not signed"),
        (not_allowed, "none of the allowed keys"),
    ] {
        let mut branch = Branch::open(settings).await.unwrap();
        let base = branch.fetch().await.unwrap().commit.unwrap();
        let error = branch
            .publish(&base, vec![step("app", 1, "step: 1\n")])
            .await
            .unwrap_err()
            .to_string();
        assert!(
            error.contains(words) && error.contains(&us().name),
            "{error}"
        );
        assert_eq!(scene.rig.head(), scene.first);
        assert_eq!(branch.fetch().await.unwrap(), good(&scene.first));
    }
}

/// Somebody's unsigned commit wins the race: ours is not built on it in the next try.
#[tokio::test]
async fn a_race_against_a_bad_head() {
    let scene = Scene::new();
    let mut branch = scene.branch().await;
    branch.fetch().await.unwrap();
    let unsigned = push(&scene.rig, &As::Nobody, "app.yaml", "v: 3\n");
    let drafts = vec![step("app", 1, "step: 1\n")];
    assert_eq!(
        branch.publish(&scene.first, drafts.clone()).await.unwrap(),
        Published::LostRace
    );
    refused(&mut branch, &scene.first).await;
    assert!(branch.publish(&unsigned, drafts).await.is_err());
    assert_eq!(scene.rig.head(), unsigned);
}
