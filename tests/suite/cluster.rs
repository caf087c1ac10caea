//! Serin on a real control plane.

mod applying;
mod drift;
mod namespaces;
mod world;
