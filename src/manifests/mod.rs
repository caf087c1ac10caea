//! Desired objects as canonical bytes, from spec and state alone.
//!
//! Never reads a live object, never chooses a weight. Order is a type: [`Manifests<Rendered>`] becomes
//! [`Manifests<Committed>`] with the commit as proof, and only that can be applied.
//!
//! [`render`] writes the files, [`violations`] checks them with code that did not write them, and [`routed_weight`] and
//! [`differs_only_in_weights`] read what a person made of them.

mod affinity;
mod check;
mod deployment;
mod destination_rule;
#[doc(hidden)]
pub mod fixtures;
mod matching;
#[cfg(test)]
mod properties;
mod render;
#[cfg(test)]
mod snapshots;
mod stage;
mod subsets;
mod users;
mod virtual_service;
mod weights;

pub use check::violations;
pub use render::{Last, render, render_after};
pub use stage::{Applied, Committed, Manifests, Rendered};
pub use users::unmatched_users;
pub use weights::{differs_only_in_weights, routed_weight};
