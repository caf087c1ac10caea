//! Serin on a real control plane.

mod agents;
mod applying;
mod drift;
mod failing;
mod faults;
mod install;
mod leases;
mod namespaces;
mod numbers;
mod proxy;
mod recorder;
mod replicas;
mod rights;
mod rollout;
mod shards;
mod shown;
mod world;
