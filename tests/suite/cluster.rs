//! Serin on a real control plane.

mod drift;
mod world;
