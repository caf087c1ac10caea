//! The one integration test binary: every file beside this one is a module of it (`tidy` checks that none is forgotten).

mod git;
mod git_servers;
mod istio_schema;
mod prometheus;
mod scenarios;
mod story;
mod support;
mod tidy;
