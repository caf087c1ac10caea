//! What people get wrong in the middle of a rollout, on a real branch: it is said where, nothing moves and nothing is lost, and
//! taking it back is enough.

use super::rig::{
    APP, CANARY, FOLDER, Loop, propose, repository, settings, steps, waits, was_never_forced,
};
use crate::git::rig::{Rig, Someone};

const SKIP: &str = "{skip: true}";

/// What somebody commits, and what is said of it.
type Mistake = (&'static str, fn(&Someone), &'static str);

fn spec(who: &Someone, from: &str, to: &str) {
    who.replace(CANARY, from, to);
}

fn state() -> String {
    format!("{FOLDER}/rollout.yaml")
}

fn users(who: &Someone, name: &str) {
    let users = format!("  users: [{{header: x-user, exact: [{name}]}}]\n  workload:");
    spec(who, "  workload:", &users);
}

const MISTAKES: [Mistake; 14] = [
    (
        "no YAML",
        |who| spec(who, "  ladder:", "  ladder: ["),
        "apps/podinfo/canary.yaml:",
    ),
    (
        "a conflict that nobody resolved",
        |who| spec(who, "  ladder:", "<<<<<<< HEAD\n  ladder:"),
        "apps/podinfo/canary.yaml:",
    ),
    (
        "a field that there is not",
        |who| spec(who, "  ladder:", "  leader:"),
        "did you mean `ladder`",
    ),
    (
        "a weight above 100",
        |who| spec(who, "weight: 60", "weight: 160"),
        "160",
    ),
    (
        "a ladder that goes down",
        |who| spec(who, "weight: 60", "weight: 5"),
        "apps/podinfo/canary.yaml:11:14: the weight falls from 10 to 5",
    ),
    (
        "a weight twice",
        |who| spec(who, "weight: 60", "weight: 10"),
        "the weight 10 is repeated",
    ),
    (
        "a user of two lines",
        |who| users(who, "\"a\\nb\""),
        "apps/podinfo/canary.yaml:5:",
    ),
    (
        "a Service that is not there",
        |who| spec(who, "service: podinfo", "service: podinof"),
        "did you mean `podinfo`",
    ),
    (
        "a Deployment that is not there",
        |who| spec(who, "deployment: podinfo", "deployment: podinof"),
        "did you mean `podinfo`",
    ),
    (
        "the same canary twice",
        |who| {
            who.append(
                "apps/podinfo/copy.yaml",
                &super::rig::canary("podinfo", SKIP),
            )
        },
        "is written twice",
    ),
    (
        "a state that is no YAML",
        |who| who.write(&state(), "canary: [\n"),
        "apps/podinfo/podinfo.serin/rollout.yaml:",
    ),
    (
        "a state that is nonsense",
        |who| who.replace(&state(), "\nphase: ", "\nphase: Sideways "),
        "apps/podinfo/podinfo.serin/rollout.yaml:",
    ),
    (
        "a weight in the state that is none",
        |who| who.replace(&state(), "\nweight: 10\n", "\nweight: 600\n"),
        "write a whole number from 0 to 100",
    ),
    (
        "an empty spec",
        |who| {
            who.write(CANARY, "apiVersion: serin.dev/v1alpha1\nkind: Canary\nmetadata: {name: podinfo, namespace: test}\n")
        },
        "apps/podinfo/canary.yaml:",
    ),
];

/// A rollout at 10 %.
async fn at_ten(rig: &Rig) -> Loop {
    let mut serin = Loop::new(settings(rig, "copy")).await;
    serin.pass().await;
    propose(&rig.someone_named("alexis"), "6.8.0", "6.9.0");
    serin.until(rig, "0% -> 10%").await;
    serin
}

#[tokio::test]
async fn a_mistake_in_the_middle_of_a_rollout_stops_it_until_it_is_taken_back() {
    for (what, edit, words) in MISTAKES {
        let rig = repository(SKIP);
        let mut serin = at_ten(&rig).await;
        let before = steps(&rig);
        let someone = rig.someone_named("alexis");
        let mistake = someone.insist(what, &|| edit(&someone));
        for _ in 0..3 {
            let pass = serin.pass().await;
            let mut said = waits(&pass);
            let diagnostics = pass.canaries.iter().flat_map(|canary| &canary.diagnostics);
            for diagnostic in diagnostics.chain(&pass.mistakes) {
                said.push_str(&format!("\n{diagnostic}"));
            }
            assert!(said.contains(words), "{what}: {said}");
            assert_eq!(rig.head(), mistake, "{what}: {said}");
        }
        someone.insist("back", &|| {
            someone.git(&["revert", "--no-commit", "--no-edit", "HEAD"]);
        });
        serin.until(&rig, "10% -> 60%").await;
        assert_eq!(
            steps(&rig).len(),
            before.len() + 1,
            "{what}: {:?}",
            steps(&rig)
        );
        was_never_forced(&rig);
    }
}

/// Names of users are people's own: whatever can be matched exactly is.
#[tokio::test]
async fn names_of_users_reach_the_route_as_they_are() {
    let long = "x".repeat(200);
    for name in [
        "'.*'",
        "\"a|b\"",
        "'(?i)a$'",
        "it's",
        "ü@example.com",
        "名前",
        &long,
    ] {
        let rig = repository(SKIP);
        let mut serin = at_ten(&rig).await;
        let someone = rig.someone_named("alexis");
        someone.insist("users", &|| users(&someone, name));
        serin.until(&rig, "10% -> 60%").await;
        let route = String::from_utf8(rig.file(&format!("{FOLDER}/virtualservice.yaml"))).unwrap();
        let bare = name.trim_matches(['\'', '"']);
        assert!(route.contains("exact: "), "{route}");
        assert!(
            route.contains(bare) || route.contains(&bare.replace('\'', "''")),
            "{name}: {route}"
        );
    }
}

/// Rendered files that somebody edits are rendered again, in a commit of its own; what else is in the edit stays.
#[tokio::test]
async fn a_rendered_file_that_somebody_edits_is_rendered_again() {
    let rig = repository(SKIP);
    let mut serin = at_ten(&rig).await;
    let file = format!("{FOLDER}/virtualservice.yaml");
    let text = || String::from_utf8(rig.file(&file)).unwrap();
    let rendered = text();
    let someone = rig.someone_named("alexis");
    let theirs = someone.insist("by hand", &|| {
        someone.append(&file, "# a note\n");
        someone.append("notes.md", "x\n");
    });
    serin.pass().await;
    let ours = rig.server(&[
        "log",
        "--reverse",
        "--format=%s",
        &format!("{theirs}..main"),
    ]);
    assert!(ours.starts_with("canary(test/podinfo): render"), "{ours}");
    let next = rendered.replace("sequence: \"3\"", "sequence: \"4\"");
    assert_eq!(text(), next);
    assert_ne!(next, rendered);
    assert_eq!(rig.file("notes.md"), b"x\n");
    serin.until(&rig, "finish").await;
}

/// The spec goes in the middle of a rollout: traffic first, then what Serin made, and nothing of the people's.
#[tokio::test]
async fn a_spec_that_is_deleted_takes_its_candidate_along() {
    let rig = repository(SKIP);
    let mut serin = at_ten(&rig).await;
    let app = rig.file(APP);
    let someone = rig.someone_named("alexis");
    let theirs = someone.insist("Remove the canary", &|| someone.remove(CANARY));
    serin.until(&rig, "remove").await;
    let ours = rig.server(&[
        "log",
        "--reverse",
        "--format=%s",
        &format!("{theirs}..main"),
    ]);
    let ours: Vec<&str> = ours.lines().collect();
    assert_eq!(
        ours,
        [
            "canary(test/podinfo): withdraw 10% -> 0%",
            "canary(test/podinfo): remove"
        ]
    );
    let files = rig.server(&["ls-tree", "-r", "--name-only", "main"]);
    assert_eq!(files, APP);
    assert_eq!(rig.file(APP), app);
    assert!(serin.pass().await.canaries.is_empty());
}

/// Nothing to read yet is no error; the first commit is taken up without a restart.
#[tokio::test]
async fn a_repository_without_a_commit_becomes_one_with_a_canary() {
    let rig = Rig::empty();
    rig.server(&["config", "core.logAllRefUpdates", "true"]);
    let mut serin = Loop::new(settings(&rig, "copy")).await;
    for _ in 0..2 {
        let pass = serin.pass().await;
        assert_eq!(pass.problem.unwrap(), "the branch has no commits yet");
        assert_eq!((pass.head, pass.canaries.len()), (None, 0));
    }
    let someone = rig.someone("alexis");
    let (app, canary) = (
        super::rig::app("podinfo"),
        super::rig::canary("podinfo", SKIP),
    );
    someone.commit("first", &[(APP, &app), (CANARY, &canary)]);
    someone.push();
    serin.pass().await;
    assert_eq!(steps(&rig), ["initialize"]);
    propose(&someone, "6.8.0", "6.9.0");
    serin.until(&rig, "finish").await;
}
