//! Serin: an Istio canary progression engine whose control surface is Git.
// Reading order is data-flow order; see `.rustfmt.toml`.
pub mod domain;
pub mod clock;
pub mod yaml;
pub mod crd;
pub mod spec;
pub mod analysis;
pub mod progression;
pub mod manifests;
pub mod record;
pub mod ports;
pub mod git;
pub mod prometheus;
pub mod cluster;
pub mod reconcile;
pub mod simulation;
pub mod operator;
pub mod demo;
pub mod cli;
