//! How fast the Git side is: every figure is a ratio to `git` itself, or to a small repository, in the same run.
//!
//! `cargo bench --bench git` runs the bounded form; `SERIN_BENCH_FULL=1` makes the large repository 200,000 commits and
//! 2 GB. Names on the command line choose (`cargo bench --bench git -- step growth`). A limit that is missed ends it with
//! status 1. Without cargo's `--bench` everything is tiny and no limit counts: that only shows that it still runs.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::disallowed_methods,
    reason = "a benchmark prints, plays people and servers, and reads the clock"
)]

mod growth;
mod pushing;
mod rig;

use rig::Report;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let is_timed = arguments.iter().any(|argument| argument == "--bench");
    let chosen: Vec<&str> = arguments
        .iter()
        .map(String::as_str)
        .filter(|argument| !argument.starts_with('-'))
        .collect();
    let is_full = std::env::var("SERIN_BENCH_FULL").is_ok_and(|value| value != "0");
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap();
    let mut report = Report::new(is_timed);
    let wanted = |name: &str| chosen.is_empty() || chosen.contains(&name);
    if wanted("step") {
        runtime.block_on(pushing::one_step(&mut report));
    }
    if wanted("thousand") {
        runtime.block_on(pushing::a_thousand(&mut report, false));
    }
    if wanted("signed") {
        runtime.block_on(pushing::a_thousand(&mut report, true));
    }
    if wanted("snapshot") {
        runtime.block_on(growth::one_file_of_many(&mut report));
    }
    if wanted("growth") {
        runtime.block_on(growth::ten_times(&mut report, is_full));
        runtime.block_on(growth::on_a_forge(&mut report, is_full));
    }
    if !report.is_within_limits() {
        std::process::exit(1);
    }
}
