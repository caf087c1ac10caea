//! Fuzzing without a nightly compiler: inputs from `tests/data/fuzz/<target>`, mutated with an eye on their structure.
//!
//! In the test suite each target runs for a moment, from a fixed seed. To let one run on:
//!
//! ```text
//! FUZZ_SECONDS=600 cargo test --test suite fuzz::spec -- --nocapture
//! ```
//!
//! That starts from another seed each time (`FUZZ_SEED=…` from that one). An input that breaks something is written into
//! the corpus of its target, where it stays as a test once it is mended.

mod judging;
mod mutate;
mod targets;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use mutate::Mutator;

/// Executions of each target in the test suite, beside the corpus itself.
const EXECUTIONS: u64 = 400;
/// Longest execution. Anything beyond is a finding: somebody else's file must not hold up everybody.
const LONGEST: Duration = Duration::from_secs(10);
/// Largest input.
const LARGEST: usize = 64 * 1024;

fn folder(target: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("tests/data/fuzz")
        .join(target)
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

/// Runs `check`, which panics on what must not be, on the corpus and on mutations of it.
fn fuzz(target: &str, check: impl Fn(&[u8])) {
    let mut paths: Vec<PathBuf> = std::fs::read_dir(folder(target))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    paths.sort();
    let corpus: Vec<Vec<u8>> = paths
        .iter()
        .map(|path| std::fs::read(path).unwrap())
        .collect();
    assert!(!corpus.is_empty(), "no corpus for {target}");
    for (path, input) in paths.iter().zip(&corpus) {
        if let Err(problem) = attempt(&check, input) {
            panic!("{}: {problem}", path.display());
        }
    }
    let long = number("FUZZ_SECONDS").map(Duration::from_secs);
    let seed = number("FUZZ_SEED").unwrap_or_else(|| match long {
        Some(_) => std::time::UNIX_EPOCH.elapsed().unwrap().as_nanos() as u64,
        None => 1,
    });
    let mut mutator = Mutator::new(seed, corpus);
    let start = Instant::now();
    let mut executions = 0_u64;
    while long.map_or(executions < EXECUTIONS, |limit| start.elapsed() < limit) {
        let mut input = mutator.next();
        input.truncate(LARGEST);
        executions += 1;
        if let Err(problem) = attempt(&check, &input) {
            let name = format!("found-{seed}-{executions}");
            let path = folder(target).join(&name);
            std::fs::write(&path, &input).unwrap();
            panic!("{target}: {problem}\nThe input is in {}", path.display());
        }
    }
    if long.is_some() {
        eprintln!("{target}: {executions} executions from seed {seed}, nothing found");
    }
}

/// One execution, its panic caught and its time taken.
fn attempt(check: &impl Fn(&[u8]), input: &[u8]) -> Result<(), String> {
    let start = Instant::now();
    let outcome = catch_unwind(AssertUnwindSafe(|| check(input)));
    let took = start.elapsed();
    match outcome {
        Ok(()) if took <= LONGEST => Ok(()),
        Ok(()) => Err(format!("it takes {took:?}")),
        Err(panic) => {
            let text = panic
                .downcast_ref::<String>()
                .cloned()
                .or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
            Err(text.unwrap_or_else(|| "a panic without a text".to_owned()))
        }
    }
}

#[test]
fn spec() {
    fuzz("spec", targets::spec);
}

#[test]
fn rollout() {
    fuzz("rollout", targets::rollout);
}

#[test]
fn edit() {
    fuzz("edit", targets::edit);
}

#[test]
fn porcelain() {
    fuzz("porcelain", targets::porcelain);
}

#[test]
fn message() {
    fuzz("message", targets::message);
}

#[test]
fn prometheus() {
    let server = targets::Prometheus::start();
    fuzz("prometheus", |input| server.answer(input));
}

#[test]
fn judge() {
    fuzz("judge", judging::judging);
}

/// The harness has to see what is wrong.
#[test]
fn a_panic_and_a_text_are_seen() {
    let problem = attempt(&|input: &[u8]| assert!(input.is_empty(), "not empty"), b"x");
    assert_eq!(problem, Err("not empty".to_owned()));
    assert_eq!(attempt(&|_: &[u8]| (), b"x"), Ok(()));
    let mut mutator = Mutator::new(
        7,
        vec![b"a: 1\nb:\n- c\n- d: e\n".to_vec(), b"x: y\n".to_vec()],
    );
    let inputs: std::collections::BTreeSet<Vec<u8>> = (0..200).map(|_| mutator.next()).collect();
    assert!(inputs.len() > 150, "{}", inputs.len());
}
