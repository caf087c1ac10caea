//! The end-to-end suite: what Serin claims about requests, on a real mesh.
//!
//! One control plane, istiod, Envoy and Prometheus in a network namespace of their own, real requests, `serin run` as a process,
//! and Git repositories that people push to. Each story has a namespace and a repository of its own; those that disturb nobody
//! run side by side, the others alone.
//!
//! ```text
//! cargo test --test mesh                      every story of the suite
//! cargo test --test mesh -- ladder rollback   the stories whose names hold one of these words
//! cargo test --test mesh -- --list            their names
//! ```

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stderr,
    clippy::print_stdout,
    clippy::disallowed_methods,
    clippy::too_many_lines,
    reason = "tests fail by panicking, start programs and wait for them"
)]

mod bed;
mod chance;
mod enclosure;
mod envoy;
mod git;
mod load;
mod marks;
mod picture;
mod pods;
mod results;
mod site;
mod stories;
mod support;

#[path = "../suite/git_servers.rs"]
#[allow(dead_code, reason = "the other test binary uses the rest")]
mod git_servers;
#[path = "../suite/rig.rs"]
#[allow(
    dead_code,
    unused_imports,
    reason = "the other test binary uses the rest"
)]
mod rig;

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bed::Bed;
use stories::{Story, When};

/// Stories at once: they wait most of the time, and two cores have to do.
const AT_ONCE: usize = 3;
/// Longest time for one story. Each takes well under a minute; the rest is for machines that compile beside it.
const LONGEST: Duration = Duration::from_secs(240);
/// The same for what kills programs, twice.
const LONGEST_ALONE: Duration = Duration::from_secs(400);
/// The same for stories that measure.
const LONGEST_ASKED: Duration = Duration::from_secs(1500);

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments
        .iter()
        .map(String::as_str)
        .filter(|word| !word.starts_with('-'))
        .collect();
    let is_chosen = |story: &Story| {
        let named = words.iter().any(|word| story.name.contains(word));
        named || (words.is_empty() && story.when != When::Asked)
    };
    let chosen: Vec<Story> = stories::all().into_iter().filter(is_chosen).collect();
    if arguments.iter().any(|word| word == "--list") {
        for story in &chosen {
            println!("{}: test", story.name);
        }
        return ExitCode::SUCCESS;
    }
    if chosen.is_empty() {
        println!("mesh: no story has such a name");
        return ExitCode::SUCCESS;
    }
    if let Err(why) = enclosure::enter() {
        eprintln!("mesh: {why}");
        return ExitCode::FAILURE;
    }
    // Programs are built and started before there is a runtime: both block.
    let began = Instant::now();
    let ground = bed::Ground::prepare();
    println!(
        "mesh: control plane and istiod up after {:.1?}",
        began.elapsed()
    );
    // People wait for `git` while requests flow: more threads than cores.
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(16)
        .enable_all()
        .build()
        .unwrap();
    let failed = runtime.block_on(async {
        let bed = Arc::new(Bed::new(ground).await);
        println!("mesh: everything up after {:.1?}", began.elapsed());
        tell(&bed, chosen).await
    });
    println!("mesh: done after {:.1?}", began.elapsed());
    if failed.is_empty() {
        return ExitCode::SUCCESS;
    }
    println!("mesh: failed: {}", failed.join(", "));
    ExitCode::FAILURE
}

/// Runs stories and answers with the names of those that failed.
async fn tell(bed: &Arc<Bed>, chosen: Vec<Story>) -> Vec<&'static str> {
    let (alone, together): (Vec<Story>, Vec<Story>) = chosen
        .into_iter()
        .partition(|story| story.when != When::Together);
    let places = Arc::new(tokio::sync::Semaphore::new(AT_ONCE));
    let mut running = BTreeMap::new();
    for story in together {
        let (bed, places) = (Arc::clone(bed), Arc::clone(&places));
        let name = story.name;
        let task = tokio::spawn(async move {
            let _place = places.acquire_owned().await.unwrap();
            perform(&story, bed).await
        });
        running.insert(name, task);
    }
    let mut failed = Vec::new();
    for (name, task) in running {
        if !task.await.unwrap_or(false) {
            failed.push(name);
        }
    }
    for story in alone {
        if !perform(&story, Arc::clone(bed)).await {
            failed.push(story.name);
        }
    }
    failed
}

/// Runs one story; false when it failed.
async fn perform(story: &Story, bed: Arc<Bed>) -> bool {
    let began = Instant::now();
    let task = tokio::spawn((story.run)(bed));
    let abort = task.abort_handle();
    let longest = match story.when {
        When::Together => LONGEST,
        When::Alone => LONGEST_ALONE,
        When::Asked => LONGEST_ASKED,
    };
    let how = match tokio::time::timeout(longest, task).await {
        Ok(Ok(())) => "ok",
        Ok(Err(_)) => "FAILED",
        Err(_) => {
            abort.abort();
            "FAILED: took too long"
        }
    };
    println!("story {}: {how} ({:.1?})", story.name, began.elapsed());
    how == "ok"
}
