//! A laptop's worth of world around the real engine: a bare repository, a simulated mesh, its telemetry behind a real
//! Prometheus HTTP API, and people who commit.
//!
//! `story` says what happens, `stage` has the parts, `mesh` routes requests by what is in Git, `traffic` counts them as
//! Istio does, `metrics_api` answers queries about that, `claims` checks that the story ended as told.

mod claims;
mod frame;
mod mesh;
pub mod metrics_api;
mod promql;
mod stage;
mod story;
pub mod traffic;

pub use frame::{Audience, Claim, Commit, Frame, News, versions};
pub use mesh::Tally;
pub use stage::{DemoError, REPOSITORY};
pub use story::{Ending, Pace, tell};
