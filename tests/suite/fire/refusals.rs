//! Servers that say no and servers that are away: each ends in a state that people can read, nothing moves meanwhile, and the
//! first pass after the obstacle is gone carries on.

use std::net::{Ipv4Addr, TcpListener};
use std::time::Duration;

use serin::git::{Signing, Verification};

use super::rig::{
    CANARY, Loop, disk, propose, repository, settings, steps, waits, wrapped, wrapped_git,
};
use crate::git::rig::Rig;
use crate::git_servers::{self, Sshd};
use crate::signing::keys::{signers, ssh_key};
use crate::support::serin::Start;

const SKIP: &str = "{skip: true}";

/// A loop that has its first step behind it and a proposal before it.
async fn ready(rig: &Rig) -> Loop {
    let mut serin = Loop::new(settings(rig, "copy")).await;
    serin.pass().await;
    assert_eq!(steps(rig), ["initialize"]);
    propose(&rig.someone_named("alexis"), "6.8.0", "6.9.0");
    serin
}

/// A way to refuse, the words that reach people, and how it ends.
type Refusal = (&'static str, fn(&Rig), &'static str, fn(&Rig));

fn without_hooks(rig: &Rig) {
    std::fs::remove_dir_all(rig.remote().join("hooks")).unwrap();
}

const REFUSALS: [Refusal; 5] = [
    (
        "a protected branch",
        |rig| {
            rig.hook(
                "update",
                "echo 'GH006: Protected branch update failed' >&2; exit 1",
            )
        },
        "GH006: Protected branch update failed",
        without_hooks,
    ),
    (
        "a hook",
        |rig| {
            rig.hook(
                "pre-receive",
                "echo 'no deployments on Fridays' >&2; exit 1",
            )
        },
        "no deployments on Fridays\n[remote rejected] (pre-receive hook declined)",
        without_hooks,
    ),
    (
        "required signatures",
        |rig| {
            rig.hook(
                "update",
                "git verify-commit $3 2>/dev/null || { echo 'Commits must have verified signatures.' >&2; exit 1; }",
            );
        },
        "Commits must have verified signatures.",
        without_hooks,
    ),
    (
        "a quota",
        |rig| drop(rig.server(&["config", "receive.maxInputSize", "10"])),
        "unpacker error",
        |rig| drop(rig.server(&["config", "--unset", "receive.maxInputSize"])),
    ),
    (
        "a lock that somebody left",
        |rig| std::fs::write(rig.remote().join("refs/heads/main.lock"), "").unwrap(),
        "failed to update ref",
        |rig| std::fs::remove_file(rig.remote().join("refs/heads/main.lock")).unwrap(),
    ),
];

#[tokio::test]
async fn a_refusal_is_quoted_says_what_would_come_and_ends() {
    for (what, refuse, words, allow) in REFUSALS {
        let rig = repository(SKIP);
        let mut serin = ready(&rig).await;
        refuse(&rig);
        let head = rig.head();
        let pass = serin.pass().await;
        let said = waits(&pass);
        assert!(
            said.starts_with("PushRefused: the remote refused the push: "),
            "{what}: {said}"
        );
        assert!(said.contains(words), "{what}: {said}");
        let planned: Vec<String> = pass.canaries[0]
            .planned
            .iter()
            .map(serin::record::message::what)
            .collect();
        assert_eq!(planned, ["start podinfod=6.9.0"], "{what}");
        assert_eq!(pass.canaries[0].weight().percent(), 0, "{what}");
        assert_eq!(rig.head(), head, "{what}");
        allow(&rig);
        serin.until(&rig, "0% -> 10%").await;
        assert_eq!(
            steps(&rig),
            ["initialize", "start podinfod=6.9.0", "0% -> 10%"],
            "{what}"
        );
    }
}

/// What people do to a branch that an engine works on, what it says, and how they take it back.
#[tokio::test]
async fn a_branch_that_is_rewound_deleted_or_renamed() {
    let rig = repository(SKIP);
    let mut serin = ready(&rig).await;
    serin.until(&rig, "0% -> 10%").await;
    let head = rig.head();

    rig.server(&["update-ref", "refs/heads/main", "main~1"]);
    let said = waits(&serin.pass().await);
    assert!(said.starts_with("the branch was rewritten: "), "{said}");
    assert_eq!(
        rig.server(&["rev-parse", "main"]),
        rig.server(&["rev-parse", &format!("{head}~1")])
    );
    rig.server(&["update-ref", "refs/heads/main", head.as_str()]);

    let mut named = settings(&rig, "named");
    named.branch = Some("main".to_owned());
    let mut named = Loop::new(named).await;
    rig.server(&["branch", "-m", "main", "trunk"]);
    let said = waits(&named.pass().await);
    assert!(said.contains("there is no branch `main`"), "{said}");
    // Who follows the default branch goes on under its new name.
    let pass = serin.pass().await;
    assert_eq!(pass.problem, None);
    rig.server(&["branch", "-m", "trunk", "main"]);
    serin.until(&rig, "10% -> 60%").await;

    let head = rig.head();
    rig.server(&["update-ref", "refs/heads/spare", head.as_str()]);
    rig.server(&["update-ref", "-d", "refs/heads/main"]);
    let said = waits(&serin.pass().await);
    assert!(said.contains("branch that does not exist"), "{said}");
    rig.server(&["update-ref", "refs/heads/main", head.as_str()]);
    serin.until(&rig, "finish").await;
    assert_eq!(steps(&rig).len(), 8);
}

/// Access that is good for reading only, and plan mode on request: what would be committed is said, nothing is pushed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_may_only_read_says_what_it_would_commit() {
    // A server over HTTP that allows no pushes.
    let rig = repository(SKIP);
    rig.server(&["config", "http.receivepack", "false"]);
    let server = git_servers::http(rig.folder.path(), &rig.home()).await;
    let head = rig.head();
    let url = format!("http://deploy:s3cr%2Ft%40p@{server}/remote.git");
    let start = |name: &str, url: &str| {
        Start::new(rig.folder.path(), name, url, "http://127.0.0.1:1").args(&["--poll", "1s"])
    };
    let mut process = start("http", &url).start();
    process.says("reason=\"PushRefused\"");
    process.says("would commit: initialize");
    assert!(process.stop().success());

    // A key that may run nothing but the reading half.
    let folder = rig.path("ssh");
    std::fs::create_dir(&folder).unwrap();
    let sshd = Sshd::start(&folder);
    let keys = folder.join("authorized_keys");
    let key = std::fs::read_to_string(&keys).unwrap();
    let only = "case $SSH_ORIGINAL_COMMAND in git-upload-pack*) eval $SSH_ORIGINAL_COMMAND;; \
                *) echo ERROR: The key you are authenticating with has been marked as read only. >&2; exit 1;; esac";
    std::fs::write(&keys, format!("command=\"{only}\" {key}")).unwrap();
    let remote = rig.remote().display().to_string();
    let url = format!("ssh://{}@127.0.0.1:{}{remote}", sshd.user, sshd.port);
    let mut process = start("ssh", &url)
        .env("GIT_SSH_COMMAND", &sshd.client)
        .start();
    process.says("marked as read only");
    process.says("would commit: initialize");
    assert!(process.stop().success());

    // On request, where a push would go through.
    let mut process = start("plan", &remote).args(&["--plan"]).start();
    process.says("plan mode: nothing is pushed");
    process.says("would commit: initialize");
    assert!(process.stop().success());
    assert_eq!(rig.head(), head);
    assert_eq!(steps(&rig), Vec::<String>::new());
}

/// A server that is away, a name that does not resolve, a server that is silent: nothing moves, one look is enough after it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_is_away_comes_back() {
    let rig = repository(SKIP);
    let away = rig.path("away.git");
    let mut serin = ready(&rig).await;
    std::fs::rename(rig.remote(), &away).unwrap();
    let said = waits(&serin.pass().await);
    assert!(said.starts_with("not found on the remote: "), "{said}");
    // For an hour.
    for _ in 0..3 {
        serin
            .clock
            .set(serin::clock::Clock::now(&serin.clock) + chrono::TimeDelta::minutes(20));
        assert!(serin.pass().await.problem.is_some());
    }
    std::fs::rename(&away, rig.remote()).unwrap();
    serin.pass().await;
    assert_eq!(
        steps(&rig),
        ["initialize", "start podinfod=6.9.0"],
        "one pass"
    );

    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let silent = format!("http://{}/x.git", listener.local_addr().unwrap());
    for (url, words) in [
        (
            "http://no-such-host.invalid/x.git",
            "Could not resolve host",
        ),
        (silent.as_str(), "did not end within"),
    ] {
        let mut settings = settings(&rig, "nowhere");
        settings.remote = url.parse().unwrap();
        settings.deadline = Duration::from_secs(2);
        let said = waits(&Loop::new(settings).await.pass().await);
        assert!(said.starts_with("the remote cannot be reached: "), "{said}");
        assert!(said.contains(words), "{said}");
    }
}

/// A hang in each phase costs one deadline and is told; the next pass goes on.
#[tokio::test]
async fn a_hang_in_every_phase() {
    for (verb, step) in [
        ("ls-remote", "start"),
        ("fetch", "start"),
        ("push", "start"),
    ] {
        let rig = repository(SKIP);
        let tools = rig.path("tools");
        std::fs::create_dir(&tools).unwrap();
        let script = format!(
            "[ $3 = {verb} ] && [ -e {0}/hang ] && {{ sleep 60; exit 1; }}\nexec $git \"$@\"",
            tools.display()
        );
        let mut settings = settings(&rig, "copy");
        let search = wrapped_git(&tools, &script);
        settings.environment.insert("PATH".to_owned(), search);
        settings.deadline = Duration::from_secs(3);
        let mut serin = Loop::new(settings).await;
        serin.pass().await;
        propose(&rig.someone_named("alexis"), "6.8.0", "6.9.0");
        std::fs::write(tools.join("hang"), "").unwrap();
        let said = waits(&serin.pass().await);
        assert!(
            said.contains(&format!("git {verb} did not end within 3 s")),
            "{said}"
        );
        assert_eq!(steps(&rig), ["initialize"]);
        std::fs::remove_file(tools.join("hang")).unwrap();
        serin.until(&rig, step).await;
        assert_eq!(steps(&rig).len(), 2, "{verb}");
    }
}

/// So does a program that signs or verifies and never ends.
#[tokio::test]
async fn a_hang_of_a_program_that_signs_or_verifies() {
    for (program, words) in [
        ("ssh-keygen", "ssh-keygen did not end within 3 s"),
        ("git", "git verify-commit did not end within 3 s"),
    ] {
        let rig = repository(SKIP);
        let key = ssh_key(&rig, "serin-key");
        let allowed = signers(&rig, &[&key]);
        let tools = rig.path("tools");
        std::fs::create_dir(&tools).unwrap();
        let hang = format!("[ -e {}/hang ] && {{ sleep 60; exit 1; }}", tools.display());
        let when = match program {
            "git" => format!("case \"$*\" in *' verify-commit '*) {hang};; esac"),
            _ => hang,
        };
        let search = wrapped(&tools, program, &format!("{when}\nexec $real \"$@\""));
        let mut settings = settings(&rig, "copy");
        settings.environment.insert("PATH".to_owned(), search);
        settings.sign = Some(Signing::Ssh { key });
        if program == "git" {
            settings.verify = Some(Verification {
                signers: Some(allowed),
                ..Verification::default()
            });
            // What is there before anything is signed.
            rig.server(&["update-ref", "-d", "refs/heads/main"]);
            signed_first(&rig);
        }
        settings.deadline = Duration::from_secs(3);
        let mut serin = Loop::new(settings).await;
        std::fs::write(tools.join("hang"), "").unwrap();
        let said = waits(&serin.pass().await);
        assert!(said.contains(words), "{said}");
        assert_eq!(steps(&rig), Vec::<String>::new());
        std::fs::remove_file(tools.join("hang")).unwrap();
        serin.until(&rig, "initialize").await;
    }
}

/// The files of the repository once more, in a first commit that is signed.
fn signed_first(rig: &Rig) {
    let alexis = rig.someone_named("alexis");
    let key = format!("user.signingKey={}", rig.path("serin-key").display());
    alexis.git(&["checkout", "--quiet", "--orphan", "signed"]);
    alexis.git(&[
        "-c",
        "gpg.format=ssh",
        "-c",
        &key,
        "commit",
        "--quiet",
        "-S",
        "-m",
        "first",
    ]);
    alexis.push();
}

/// The disk of our copy takes no more, in the process itself and in the `git` that it starts.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_on_our_side() {
    let rig = repository(SKIP);
    let tools = rig.path("tools");
    std::fs::create_dir(&tools).unwrap();
    let library = disk(&tools);
    let full = tools.join("full");
    let cache = rig.path("serin-cache");
    let script = format!(
        "export LD_PRELOAD={} DISK_FOLDER={} DISK_FULL={}\nexec $git \"$@\"",
        library.display(),
        cache.display(),
        full.display()
    );
    let path = wrapped_git(&tools, &script);
    let remote = rig.remote().display().to_string();
    let mut process = Start::new(rig.folder.path(), "serin", &remote, "http://127.0.0.1:1")
        .args(&["--poll", "1s", "--push-interval", "0s"])
        .env("PATH", path)
        .env("LD_PRELOAD", &library)
        .env("DISK_FOLDER", &cache)
        .env("DISK_FULL", &full)
        .start();
    process.says("nothing to roll out");
    std::fs::write(&full, "").unwrap();
    let alexis = rig.someone_named("alexis");
    propose(&alexis, "6.8.0", "6.9.0");
    process.says("No space left on device");
    process.says("the local copy is unusable");
    assert_eq!(steps(&rig), ["initialize"]);
    assert!(process.ended().is_none());
    std::fs::remove_file(&full).unwrap();
    process.says("the branch can be used again");
    for _ in 0..600 {
        if steps(&rig).iter().any(|step| step.starts_with("0% -> 10%")) {
            break;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    assert!(process.stop().success());
    let steps = steps(&rig);
    assert_eq!(
        steps[..3],
        ["initialize", "start podinfod=6.9.0", "0% -> 10%"]
    );
    assert!(rig.file(CANARY).windows(5).any(|five| five == b"6.9.0"));
}
