//! An object as Git has it.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::{Map, Value, json};

use super::atom::Atom;
use super::key::ObjectKey;
use super::order::{self, Tier};
use crate::domain::{
    APPLIED_ANNOTATION, CANARY_ANNOTATION, CanaryId, Manifest, OWNER_LABEL, Revision,
    SEQUENCE_ANNOTATION,
};

/// Says `disabled` on an object that Serin leaves alone altogether.
pub const APPLY_ANNOTATION: &str = "serin.dev/apply";
/// Says `disabled` on an object that follows Git, but keeps what people change in the cluster until then.
pub const REPAIR_ANNOTATION: &str = "serin.dev/repair";
/// Says `disabled` on an object that stays when Git no longer has it.
pub const PRUNE_ANNOTATION: &str = "serin.dev/prune";
/// Says `true` on an object in the cluster that Serin did not make and may take over.
pub const ADOPT_ANNOTATION: &str = "serin.dev/adopt";

/// An object as Git has it.
#[derive(Debug, Clone, PartialEq)]
pub struct Object {
    /// What tells it from others.
    pub key: ObjectKey,
    /// `apiVersion` as written.
    pub api_version: Atom,
    /// The whole manifest, without what only a server writes.
    manifest: Manifest,
    /// Annotations that say `disabled`.
    disabled: Box<[String]>,
    /// Identity of the manifest.
    pub hash: Arc<str>,
    /// The file or folder that it comes from.
    pub source: Arc<str>,
    /// Its place in the order.
    pub tier: Tier,
    /// The commit counter of its canary, on objects that Serin rendered.
    pub sequence: Option<u64>,
    /// The canary that it was rendered for.
    pub canary: Option<Arc<CanaryId>>,
}

impl Object {
    /// An object from a manifest whose namespace is settled.
    pub fn new(key: ObjectKey, mut manifest: Value, source: Arc<str>) -> Self {
        let api_version = Atom::of(text(&manifest, "/apiVersion"));
        strip(&mut manifest);
        if let Some(namespace) = &key.namespace {
            manifest["metadata"]["namespace"] = json!(namespace.as_str());
        }
        if key.kind.is("", "Secret") {
            encode_secret(&mut manifest);
        }
        let sequence = annotation(&manifest, SEQUENCE_ANNOTATION).and_then(|n| n.parse().ok());
        let canary: Option<CanaryId> =
            annotation(&manifest, CANARY_ANNOTATION).and_then(|id| id.parse().ok());
        Self {
            hash: Revision::of(&manifest).as_str().into(),
            tier: order::tier(&key.kind),
            api_version,
            source,
            sequence,
            canary: canary.map(Arc::new),
            disabled: disabled(&manifest),
            manifest: Manifest::of(&manifest),
            key,
        }
    }

    /// The same object with its manifest kept where it is already.
    pub(super) fn packed_as(mut self, packed: &Manifest) -> Self {
        if self.manifest == *packed {
            self.manifest = packed.clone();
        }
        self
    }

    /// The whole manifest, without what only a server writes.
    pub fn manifest(&self) -> Value {
        self.manifest.read()
    }

    /// Whether an opt-out annotation says `disabled`.
    pub fn is_disabled(&self, name: &str) -> bool {
        self.disabled.iter().any(|disabled| disabled == name)
    }

    /// What is sent to the server: the manifest with the marks of whoever applies it.
    pub fn to_apply(&self, owner: &str, bound_to: Option<&str>) -> Value {
        let mut manifest = self.manifest();
        let metadata = entry(&mut manifest, "metadata");
        entry(metadata, "labels")[OWNER_LABEL] = json!(owner);
        entry(metadata, "annotations")[APPLIED_ANNOTATION] = json!(&*self.hash);
        if let Some(version) = bound_to {
            metadata["resourceVersion"] = json!(version);
        }
        manifest
    }
}

/// The annotations of a manifest that say `disabled`.
fn disabled(manifest: &Value) -> Box<[String]> {
    let annotations = manifest.pointer("/metadata/annotations");
    annotations
        .and_then(Value::as_object)
        .into_iter()
        .flatten()
        .filter(|(_, value)| *value == "disabled")
        .map(|(name, _)| name.clone())
        .collect()
}

/// The object at `key`, made when there is none.
fn entry<'a>(parent: &'a mut Value, key: &str) -> &'a mut Value {
    let entry = &mut parent[key];
    if !entry.is_object() {
        *entry = Value::Object(Map::new());
    }
    entry
}

/// A text in a manifest; empty when it is missing.
pub(super) fn text<'a>(manifest: &'a Value, pointer: &str) -> &'a str {
    manifest
        .pointer(pointer)
        .and_then(Value::as_str)
        .unwrap_or_default()
}

/// An annotation of a manifest.
pub(super) fn annotation<'a>(manifest: &'a Value, name: &str) -> Option<&'a str> {
    manifest
        .get("metadata")?
        .get("annotations")?
        .get(name)?
        .as_str()
}

/// What a server writes has no place in Git; people commit it with `kubectl get -o yaml` all the same.
fn strip(manifest: &mut Value) {
    if let Some(fields) = manifest.as_object_mut() {
        fields.remove("status");
    }
    if let Some(metadata) = manifest.get_mut("metadata").and_then(Value::as_object_mut) {
        for field in [
            "creationTimestamp",
            "generation",
            "managedFields",
            "resourceVersion",
            "selfLink",
            "uid",
        ] {
            metadata.remove(field);
        }
    }
    drop_nulls(manifest);
}

/// A `null` in a manifest means that the field is not set.
fn drop_nulls(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            fields.retain(|_, value| !value.is_null());
            fields.values_mut().for_each(drop_nulls);
        }
        Value::Array(items) => items.iter_mut().for_each(drop_nulls),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

/// The server folds `stringData` into `data` and never shows it again, so we do the same before comparing.
fn encode_secret(manifest: &mut Value) {
    let Some(Value::Object(plain)) = manifest
        .as_object_mut()
        .and_then(|fields| fields.remove("stringData"))
    else {
        return;
    };
    let encoded: BTreeMap<String, Value> = plain
        .iter()
        .filter_map(|(key, value)| Some((key.clone(), json!(base64(value.as_str()?.as_bytes())))))
        .collect();
    let data = entry(manifest, "data");
    for (key, value) in encoded {
        data[&key] = value;
    }
}

fn base64(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut out = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let byte = |index: usize| u32::from(chunk.get(index).copied().unwrap_or_default());
        let group = byte(0) << 16 | byte(1) << 8 | byte(2);
        for position in 0..4 {
            if position > chunk.len() {
                out.push('=');
                continue;
            }
            let index = (group >> (18 - 6 * position)) & 63;
            let index = usize::try_from(index).unwrap_or_default();
            out.push(char::from(ALPHABET[index]));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::applier::key::Kind;

    #[test]
    fn secrets_are_written_as_the_server_shows_them() {
        for (plain, encoded) in [
            ("", ""),
            ("a", "YQ=="),
            ("ab", "YWI="),
            ("abc", "YWJj"),
            ("hunter2", "aHVudGVyMg=="),
        ] {
            assert_eq!(base64(plain.as_bytes()), encoded, "{plain}");
        }
        let manifest = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "a"}, "stringData": {"k": "abc"}, "data": {"l": "eA=="}});
        let key = ObjectKey::namespaced(Kind::new("", "Secret"), "test", "a");
        let object = Object::new(key, manifest, "a.yaml".into());
        assert_eq!(object.manifest()["data"], json!({"k": "YWJj", "l": "eA=="}));
        assert_eq!(object.manifest().get("stringData"), None);
    }

    #[test]
    fn what_a_server_writes_is_no_part_of_an_object() {
        let bare = json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "a", "namespace": "test"}});
        let dumped = json!({
            "apiVersion": "v1", "kind": "Service", "status": {"loadBalancer": {}},
            "metadata": {"name": "a", "uid": "1", "resourceVersion": "7", "creationTimestamp": null, "labels": null},
        });
        let key = || ObjectKey::namespaced(Kind::new("", "Service"), "test", "a");
        assert_eq!(
            Object::new(key(), dumped, "a.yaml".into()).hash,
            Object::new(key(), bare, "a.yaml".into()).hash
        );
    }
}
