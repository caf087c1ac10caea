//! Serin on a real control plane.

mod applying;
mod drift;
mod namespaces;
mod numbers;
mod rollout;
mod world;
