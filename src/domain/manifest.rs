//! Manifests in little space.

use std::sync::Arc;

use serde_json::Value;

/// A manifest in little space: as a tree of maps it takes twenty times the memory of its text, and it is looked at only
/// when it, or what is made of it, changes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Manifest(Arc<str>);

impl Manifest {
    /// Packs a manifest.
    pub fn of(value: &Value) -> Self {
        Self(value.to_string().into())
    }

    /// The manifest as it was packed.
    pub fn read(&self) -> Value {
        // It was written by `of`, which writes nothing else.
        serde_json::from_str(&self.0).unwrap_or_default()
    }
}
