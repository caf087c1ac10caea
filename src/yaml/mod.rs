//! YAML as people write it: parsed with positions, edited byte by byte, emitted canonically.
//!
//! Knows nothing of canaries. Reading is bounded: depth, aliases and size have limits, so that no file can exhaust us.

pub mod comments;
pub mod edit;
pub mod emit;
pub mod memory;
pub mod node;
pub mod parts;
mod build;
mod layout;
mod quick;
mod read;
mod resolve;
