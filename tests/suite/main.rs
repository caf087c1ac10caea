//! The one integration test binary: every file beside this one is a module of it (`tidy` checks that none is forgotten).

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stderr,
    clippy::disallowed_methods,
    clippy::too_many_lines,
    reason = "tests fail by panicking, start programs and wait for them"
)]

mod breaks;
mod byte_edits;
mod chart;
mod cluster;
mod demo;
mod fire;
mod fuzz;
mod git;
mod git_servers;
mod hostile;
mod istio_schema;
#[cfg(feature = "otel")]
mod otel;
mod prometheus;
mod rig;
mod scenarios;
mod signing;
mod story;
mod study;
mod support;
mod tidy;
