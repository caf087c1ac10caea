//! A laptop's worth of world: a simulated mesh's telemetry behind a real Prometheus HTTP API.

pub mod metrics_api;
mod promql;
pub mod traffic;
