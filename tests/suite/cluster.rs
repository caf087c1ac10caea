//! Serin on a real control plane.

mod applying;
mod drift;
mod namespaces;
mod rollout;
mod world;
