//! Whose commit made something what it is, on histories that people really make.

use std::sync::Arc;

use serin::domain::CommitId;
use serin::git::Branch;
use serin::ports::{Fit, Question, Repository, Touch};

use super::rig::{Rig, path, publish, step};

/// Where is the line `text` of `app.yaml` from?
fn question(text: &'static str) -> Question {
    let has = move |files: &std::collections::BTreeMap<_, Arc<[u8]>>| {
        let content = files.get(&path("app.yaml"));
        content.is_some_and(|content| String::from_utf8_lossy(content).contains(text))
    };
    let fits = move |touch: &Touch| {
        if has(&touch.after) && !touch.before.iter().any(has) {
            Fit::Yes
        } else {
            Fit::No
        }
    };
    Question {
        paths: vec![path("app.yaml"), path("deploy/app.yaml")],
        from: None,
        until: None,
        fits: Arc::new(fits),
    }
}

async fn author(branch: &mut Branch, question: Question) -> Option<(String, String)> {
    let head = branch.fetch().await.unwrap().commit.unwrap();
    let mut found = branch.authors(&head, vec![question]).await.unwrap();
    let found = found.remove(0)?;
    Some((found.author.name, found.subject))
}

fn by(name: &str, subject: &str) -> Option<(String, String)> {
    Some((name.to_owned(), subject.to_owned()))
}

#[tokio::test]
async fn the_commit_that_changed_it_and_not_the_newest_one() {
    let rig = Rig::with(&[("app.yaml", "image: 1\n"), ("deploy/app.yaml", "x\n")]);
    let mut branch = rig.branch().await;
    let alexis = rig.someone_named("alexis");
    alexis.commit("propose", &[("app.yaml", "image: 2\n")]);
    let propose = alexis.git(&["rev-parse", "HEAD"]);
    alexis.push();
    publish(&mut branch, step("app", 1, "step: 1\n")).await;
    let bob = rig.someone("bob");
    bob.commit("comment", &[("app.yaml", "# mine\nimage: 2\n")]);
    bob.commit("other", &[("deploy/app.yaml", "y\n")]);
    bob.push();

    assert_eq!(
        author(&mut branch, question("image: 2")).await,
        by("alexis", "propose")
    );
    assert_eq!(
        author(&mut branch, question("# mine")).await,
        by("bob", "comment")
    );
    assert_eq!(
        author(&mut branch, question("image: 1")).await,
        by("alexis", "first")
    );
    assert_eq!(author(&mut branch, question("image: 3")).await, None);
    let until = Question {
        until: Some(CommitId::new(propose.clone())),
        ..question("image: 2")
    };
    assert_eq!(author(&mut branch, until).await, None, "behind the end");
    let from = Question {
        from: Some(CommitId::new(propose)),
        ..question("# mine")
    };
    assert_eq!(
        author(&mut branch, from).await,
        None,
        "before the beginning"
    );
}

/// A pull request belongs to whoever wrote it, not to whoever merged it, even where both sides touched the file.
#[tokio::test]
async fn what_was_merged_is_the_work_of_its_author() {
    let rig = Rig::with(&[
        ("app.yaml", "image: 1\n\n\n\n\ntimeout: 1\n"),
        ("deploy/app.yaml", "x\n"),
    ]);
    let mut branch = rig.branch().await;
    let alexis = rig.someone_named("alexis");
    alexis.git(&["checkout", "--quiet", "-b", "request"]);
    alexis.commit("propose", &[("app.yaml", "image: 2\n\n\n\n\ntimeout: 1\n")]);
    alexis.git(&["push", "--quiet", "origin", "request"]);
    let bob = rig.someone("bob");
    bob.commit(
        "patience",
        &[("app.yaml", "image: 1\n\n\n\n\ntimeout: 2\n")],
    );
    bob.git(&["fetch", "--quiet", "origin", "request"]);
    bob.git(&[
        "merge",
        "--quiet",
        "--no-ff",
        "-m",
        "Merge the request",
        "FETCH_HEAD",
    ]);
    bob.push();

    assert_eq!(
        author(&mut branch, question("image: 2")).await,
        by("alexis", "propose")
    );
    assert_eq!(
        author(&mut branch, question("timeout: 2")).await,
        by("bob", "patience")
    );

    // What a merge brings in that neither side has is the work of whoever merged.
    alexis.commit("more", &[("deploy/app.yaml", "y\n")]);
    alexis.git(&["push", "--quiet", "origin", "request"]);
    bob.git(&["fetch", "--quiet", "origin", "request"]);
    bob.git(&["merge", "--quiet", "--no-ff", "--no-commit", "FETCH_HEAD"]);
    bob.commit("Merge with a surprise", &[("app.yaml", "image: 3\n")]);
    bob.push();
    assert_eq!(
        author(&mut branch, question("image: 3")).await,
        by("bob", "Merge with a surprise")
    );
}

/// What Serin wrote itself, as with a promotion, is nobody's doing.
#[tokio::test]
async fn commits_of_ours_are_no_answer() {
    let rig = Rig::with(&[("app.yaml", "image: 1\n")]);
    let mut branch = rig.branch().await;
    let mut promotion = step("app", 1, "step: 1\n");
    promotion
        .changes
        .insert(path("app.yaml"), Some(Arc::from(*b"image: 2\n")));
    publish(&mut branch, promotion).await;
    assert_eq!(author(&mut branch, question("image: 2")).await, None);
}

/// However long the history is, the search ends.
#[tokio::test]
async fn a_search_is_bounded() {
    let rig = Rig::with(&[("app.yaml", "image: 1\n")]);
    let mut branch = rig.branch().await;
    let alexis = rig.someone_named("alexis");
    for number in 0..70 {
        let text = format!("image: 1\nnumber: {number}\n");
        alexis.commit(&format!("edit {number}"), &[("app.yaml", &text)]);
    }
    alexis.push();
    assert_eq!(
        author(&mut branch, question("number: 69")).await,
        by("alexis", "edit 69")
    );
    assert_eq!(
        author(&mut branch, question("number: 10")).await,
        by("alexis", "edit 10")
    );
    assert_eq!(
        author(&mut branch, question("image: 1")).await,
        None,
        "70 commits ago"
    );
}
