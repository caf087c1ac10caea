//! How fast the engine is.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a benchmark prints"
)]

use serin::simulation;
fn main() {
    let n: u64 = std::env::args()
        .nth(1)
        .and_then(|a| a.parse().ok())
        .unwrap_or(200);
    for seed in 0..n {
        let outcome = simulation::run(&simulation::random(seed).unwrap());
        if !outcome.violations.is_empty() {
            println!("{seed}: {:?}", outcome.violations);
        }
    }
}
