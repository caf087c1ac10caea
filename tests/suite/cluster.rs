//! Serin on a real control plane.

mod applying;
mod drift;
mod namespaces;
mod numbers;
mod replicas;
mod rollout;
mod shards;
mod world;
