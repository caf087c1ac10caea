//! Canonical YAML: the same value gives the same bytes, for ever.

use serde_json::Value;

/// The bytes of `value` as one YAML document behind `header` (comment lines, each ending in a newline).
pub fn to_bytes(header: &str, value: &Value) -> Vec<u8> {
    format!("{header}{value}\n").into_bytes()
}
