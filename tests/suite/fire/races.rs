//! Races for the branch, with everybody real: many engines, people between fetch and push, and each way that a server words
//! a lost race. No step twice, none lost, nothing of a person's lost.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use serin::git::Branch;
use serin::ports::{Published, Repository};

use super::rig::{
    APP, CANARY, FOLDER, Loop, app, canary, propose, repository, settings, steps, waits,
    was_never_forced, wrapped_git,
};
use crate::git::rig::{Rig, Someone, accepted, path, step};
use crate::support::serin::Start;

const SKIP: &str = "{skip: true}";

/// Sixteen engines, each with a canary of its own, and a person, all on one branch.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn sixteen_engines_and_a_person() {
    let names: Vec<String> = (0..16).map(|number| format!("app{number}")).collect();
    let mut files = Vec::new();
    for name in &names {
        files.push((format!("apps/{name}/app.yaml"), app(name)));
        let spec = canary(name, SKIP).replace("podinfo:6.8.0", "podinfo:6.9.0");
        files.push((format!("apps/{name}/canary.yaml"), spec));
    }
    let files: Vec<(&str, &str)> = files
        .iter()
        .map(|(p, c)| (p.as_str(), c.as_str()))
        .collect();
    let rig = Arc::new(Rig::with(&files));
    rig.server(&["config", "core.logAllRefUpdates", "true"]);

    let done = Arc::new(AtomicBool::new(false));
    let person = {
        let (rig, done) = (Arc::clone(&rig), Arc::clone(&done));
        std::thread::spawn(move || {
            let dana = rig.someone("dana");
            let mut commits = Vec::new();
            while !done.load(Ordering::Relaxed) {
                let line = format!("# note {}\n", commits.len());
                commits.push(dana.insist("note", &|| dana.append("notes.md", &line)));
                std::thread::sleep(std::time::Duration::from_millis(300));
            }
            commits
        })
    };
    let mut engines = tokio::task::JoinSet::new();
    for name in &names {
        let mut settings = settings(&rig, name);
        settings.path = Some(path(&format!("apps/{name}")));
        engines.spawn(async move {
            let mut serin = Loop::new(settings).await;
            for _ in 0..100 {
                let pass = serin.pass().await;
                if pass
                    .canaries
                    .first()
                    .is_some_and(|canary| !canary.moves.is_empty())
                {
                    return serin.engine.races();
                }
            }
            panic!("never got through");
        });
    }
    let races: u64 = engines.join_all().await.into_iter().sum();
    done.store(true, Ordering::Relaxed);
    let notes = person.join().unwrap();
    assert!(races > 0, "nobody was ever in the way of anybody");

    let log = rig.server(&["log", "--reverse", "--author=Serin", "--format=%s", "main"]);
    for name in &names {
        let prefix = format!("canary(test/{name}): ");
        let own: Vec<&str> = log
            .lines()
            .filter_map(|line| line.strip_prefix(&prefix))
            .collect();
        assert_eq!(own, ["initialize", "start podinfod=6.9.0"], "{name}");
    }
    assert_eq!(log.lines().count(), 16 * 2);
    let all = rig.server(&["rev-list", "main"]);
    assert_eq!(all.lines().count(), 1 + 16 * 2 + notes.len());
    assert!(notes.iter().all(|note| all.contains(note.as_str())));
    let content = String::from_utf8(rig.file("notes.md")).unwrap();
    assert_eq!(content.lines().count(), notes.len());
    assert_eq!(rig.server(&["fsck", "--strict", "--no-dangling"]), "");
    was_never_forced(&rig);
}

/// The same canary twice: two processes, two copies, one branch.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_engines_take_each_step_once() {
    let rig = repository(SKIP);
    let remote = rig.remote().display().to_string();
    let mut both: Vec<_> = ["one", "two"]
        .iter()
        .map(|name| {
            Start::new(rig.folder.path(), name, &remote, "http://127.0.0.1:1")
                .args(&["--poll", "1s", "--push-interval", "0s"])
                .start()
        })
        .collect();
    both[0].says("nothing to roll out");
    propose(&rig.someone_named("alexis"), "6.8.0", "6.9.0");
    for _ in 0..600 {
        if steps(&rig)
            .last()
            .is_some_and(|last| last.starts_with("finish"))
        {
            break;
        }
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
    for process in both {
        assert!(process.stop().success());
    }
    assert_eq!(
        steps(&rig),
        [
            "initialize",
            "start podinfod=6.9.0",
            "0% -> 10%",
            "10% -> 60%",
            "60% -> 100%",
            "promote podinfod=6.9.0",
            "return 100% -> 0%",
            "finish podinfod=6.9.0",
        ]
    );
    was_never_forced(&rig);
}

/// A person's edit, and the step of ours that follows it.
type Interruption = (&'static str, fn(&Someone), &'static [&'static str]);

/// Each arrives between the fetch and the push of the step from 10 % to 60 %.
const INTERRUPTIONS: [Interruption; 8] = [
    (
        "elsewhere",
        |who| who.append("notes.md", "x\n"),
        &["10% -> 60%"],
    ),
    (
        "beside the spec",
        |who| who.append("apps/podinfo/notes.md", "x\n"),
        &["10% -> 60%"],
    ),
    (
        "a comment in the spec",
        |who| who.append(CANARY, "# why\n"),
        &["10% -> 60%"],
    ),
    (
        "the line that a promotion edits",
        |who| who.replace(APP, "podinfo:6.8.0", "podinfo:6.8.1"),
        &["restart 10% -> 0%"],
    ),
    (
        "another candidate",
        |who| who.replace(CANARY, "podinfo:6.9.0", "podinfo:6.9.1"),
        &["restart 10% -> 0%"],
    ),
    (
        "the same line of the state",
        |who| {
            who.replace(
                &format!("{FOLDER}/rollout.yaml"),
                "\nweight: 10\n",
                "\nweight: 5\n",
            )
        },
        &["adopt 5%"],
    ),
    (
        "the same line of the route",
        |who| {
            let file = format!("{FOLDER}/virtualservice.yaml");
            who.replace(&file, "weight: 90", "weight: 95");
            who.replace(&file, "weight: 10\n", "weight: 5\n");
        },
        &["adopt 5%"],
    ),
    (
        "a pause",
        |who| who.replace(CANARY, "  workload:", "  paused: true\n  workload:"),
        &[],
    ),
];

#[tokio::test]
async fn a_person_between_fetch_and_push_is_never_overwritten() {
    for (what, edit, wanted) in INTERRUPTIONS {
        let rig = Arc::new(repository(SKIP));
        let mut serin = Loop::new(settings(&rig, "copy")).await;
        serin.pass().await;
        propose(&rig.someone_named("alexis"), "6.8.0", "6.9.0");
        serin.until(&rig, "0% -> 10%").await;
        let before = steps(&rig).len();
        let (theirs, commit) = (Arc::clone(&rig), Arc::new(std::sync::Mutex::new(None)));
        let made = Arc::clone(&commit);
        serin.engine.repository.before_push = Some(Box::new(move || {
            let alexis = theirs.someone_named("alexis");
            *made.lock().unwrap() = Some(alexis.insist("in between", &|| edit(&alexis)));
        }));
        let mut pass = serin.pass().await;
        for _ in 0..3 {
            if commit.lock().unwrap().is_some() {
                break;
            }
            pass = serin.pass().await;
        }
        let theirs = commit.lock().unwrap().take().unwrap();
        // The pass that lost the race decided again on their commit.
        assert_eq!(&steps(&rig)[before..], wanted, "{what}: {}", waits(&pass));
        assert_eq!(serin.engine.races(), 1, "{what}");
        let on_top = rig.server(&["rev-list", "--count", &format!("{theirs}..main")]);
        assert_eq!(on_top, wanted.len().to_string(), "{what}");
        // Nothing of what they wrote was changed but generated files, which follow what they say.
        let changed = rig.server(&["diff", "--name-only", theirs.as_str(), "main"]);
        assert!(
            changed.lines().all(|file| file.starts_with(FOLDER)),
            "{what}: {changed}"
        );
        was_never_forced(&rig);
    }
}

/// Words of a server, and whether the branch moves while it says them.
fn proc_receive(rig: &Rig, words: &str, act: &str) {
    rig.server(&["config", "receive.procReceiveRefs", "refs/heads/main"]);
    // A hook that answers instead of `git-receive-pack`, in its protocol: the words go over the wire as a server's own.
    let script = format!(
        r#"{act}
perl -e 'sub line {{ my $t = shift; printf "%04x%s", 4 + length $t, $t }}
sub packet {{ read(STDIN, my $l, 4) == 4 or exit; my $n = hex $l; return "" if $n < 4; read STDIN, my $t, $n - 4; $t }}
$| = 1;
1 while packet ne "";
line "version=1\n"; print "0000";
1 while packet ne "";
line "ng refs/heads/main $ARGV[0]\n"; print "0000";' "{words}""#
    );
    rig.hook("proc-receive", &script);
}

/// By fact, not by words: whatever is said, a moved head is a lost race, an unmoved one is a refusal in these words.
#[tokio::test]
async fn every_wording_of_a_lost_race() {
    let wordings = [
        "fetch first",
        "non-fast-forward",
        "stale info",
        "failed to update ref",
        "cannot lock ref 'refs/heads/main': is at 3f1a but expected 7b2c",
        "incorrect old value provided",
        "reference already exists",
        "cannot lock ref 'refs/heads/main': reference broken",
        "Verweis konnte nicht gesperrt werden",
        "",
    ];
    for words in wordings {
        for moves in [true, false] {
            let rig = Rig::with(&[("app.yaml", "v: 1\n")]);
            let mut branch = rig.branch().await;
            let base = branch.fetch().await.unwrap().commit.unwrap();
            let dana = rig.someone("dana");
            let theirs = dana.commit("theirs", &[("app.yaml", "v: 2\n")]);
            dana.git(&["push", "--quiet", "origin", "HEAD:refs/heads/side"]);
            let act = if moves {
                format!("git update-ref refs/heads/main {theirs}")
            } else {
                String::new()
            };
            proc_receive(&rig, words, &act);
            let published = branch
                .publish(&base, vec![step("app", 1, "step: 1\n")])
                .await
                .unwrap();
            match published {
                Published::LostRace => assert!(moves, "{words}"),
                Published::Refused(said) => {
                    assert!(!moves && said.contains(words), "{words}: {said}");
                }
                Published::Accepted(_) => panic!("{words}: accepted"),
            }
            // With the obstacle gone it goes through, on top of theirs.
            std::fs::remove_file(rig.remote().join("hooks/proc-receive")).unwrap();
            rig.server(&["config", "--unset", "receive.procReceiveRefs"]);
            let head = branch.fetch().await.unwrap().commit.unwrap();
            let ours = branch
                .publish(&head, vec![step("app", 1, "step: 1\n")])
                .await
                .unwrap();
            assert_eq!(accepted(ours), rig.head(), "{words}");
            assert_eq!(
                rig.file("app.yaml"),
                if moves { b"v: 2\n" } else { b"v: 1\n" }
            );
        }
    }
}

/// The wordings that `git` itself finds on the way, each produced by a real race and seen in what it printed.
#[tokio::test]
async fn wordings_that_git_makes_itself() {
    // What is done to the arguments of the push, and the words that then come.
    let lease =
        "for a do shift; case $a in --force-with-lease*) ;; *) set -- \"$@\" \"$a\";; esac; done";
    for (edit, fetched, words) in [
        ("", false, "stale info"),
        ("", true, "stale info"),
        (lease, false, "fetch first"),
        (lease, true, "non-fast-forward"),
    ] {
        let rig = Rig::with(&[("app.yaml", "v: 1\n")]);
        let tools = rig.path("tools");
        std::fs::create_dir(&tools).unwrap();
        let script = format!(
            "case \"$*\" in *' push '*) {edit}\n$git \"$@\" 2>&1 | tee -a {}/said; exit 1;; esac\nexec $git \"$@\"",
            tools.display()
        );
        let mut settings = rig.settings("copy");
        let search = wrapped_git(&tools, &script);
        settings.environment.insert("PATH".to_owned(), search);
        let mut branch = Branch::open(settings).await.unwrap();
        let base = branch.fetch().await.unwrap().commit.unwrap();
        let dana = rig.someone("dana");
        let theirs = dana.insist("theirs", &|| dana.append("app.yaml", "w: 2\n"));
        if fetched {
            assert_eq!(branch.fetch().await.unwrap().commit.as_ref(), Some(&theirs));
        }
        let lost = branch
            .publish(&base, vec![step("app", 1, "step: 1\n")])
            .await
            .unwrap();
        assert_eq!(lost, Published::LostRace, "{words}");
        let said = std::fs::read_to_string(tools.join("said")).unwrap();
        assert!(said.contains(&format!("({words})")), "{words}: {said}");
        assert_eq!(rig.head(), theirs);
    }
}
