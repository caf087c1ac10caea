//! Desired objects as canonical bytes, from spec and state alone.
//!
//! Never reads a live object, never chooses a weight. Order is a type: [`Manifests<Rendered>`] becomes
//! [`Manifests<Committed>`] with the commit as proof, and only that can be applied.

mod stage;

pub use stage::{Applied, Committed, Manifests, Rendered};
