//! An object as Git has it, and how objects are named.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use serde_json::{Map, Value, json};

use super::order::{self, Tier};
use crate::domain::{
    APPLIED_ANNOTATION, CANARY_ANNOTATION, CanaryId, OWNER_LABEL, Revision, SEQUENCE_ANNOTATION,
};
use crate::lease::Share;

/// Says `disabled` on an object that Serin leaves alone altogether.
pub const APPLY_ANNOTATION: &str = "serin.dev/apply";
/// Says `disabled` on an object that follows Git, but keeps what people change in the cluster until then.
pub const REPAIR_ANNOTATION: &str = "serin.dev/repair";
/// Says `disabled` on an object that stays when Git no longer has it.
pub const PRUNE_ANNOTATION: &str = "serin.dev/prune";
/// Says `true` on an object in the cluster that Serin did not make and may take over.
pub const ADOPT_ANNOTATION: &str = "serin.dev/adopt";

/// A kind of objects, whatever its version.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Kind {
    /// API group; empty for the core.
    pub group: String,
    /// The kind.
    pub kind: String,
}

impl Kind {
    /// A kind by its two names.
    pub fn new(group: impl Into<String>, kind: impl Into<String>) -> Self {
        Self {
            group: group.into(),
            kind: kind.into(),
        }
    }

    /// The kind that `apiVersion` and `kind` name.
    pub fn of(api_version: &str, kind: &str) -> Self {
        let group = api_version.split_once('/').map_or("", |(group, _)| group);
        Self::new(group, kind)
    }

    /// Whether this is the kind `kind` of the group `group`.
    pub fn is(&self, group: &str, kind: &str) -> bool {
        self.group == group && self.kind == kind
    }
}

/// What tells an object from all others in a cluster.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct ObjectKey {
    /// Its kind.
    pub kind: Kind,
    /// Its namespace; `None` for objects of the whole cluster.
    pub namespace: Option<String>,
    /// Its name.
    pub name: String,
}

impl ObjectKey {
    /// A namespaced object.
    pub fn namespaced(kind: Kind, namespace: &str, name: &str) -> Self {
        Self {
            kind,
            namespace: Some(namespace.to_owned()),
            name: name.to_owned(),
        }
    }

    /// The Namespace of this name.
    pub fn of_namespace(name: &str) -> Self {
        Self {
            kind: Kind::new("", "Namespace"),
            namespace: None,
            name: name.to_owned(),
        }
    }

    /// Whether an engine with this share of the namespaces keeps it.
    pub fn is_of(&self, share: Share) -> bool {
        match &self.namespace {
            Some(namespace) => share.has(namespace),
            None if self.is_namespace() => share.has(&self.name),
            None => share.is_first(),
        }
    }

    /// Whether this is a Namespace.
    pub fn is_namespace(&self) -> bool {
        self.kind.is("", "Namespace")
    }
}

impl fmt::Display for ObjectKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.namespace {
            Some(namespace) => write!(f, "{} {namespace}/{}", self.kind.kind, self.name),
            None => write!(f, "{} {}", self.kind.kind, self.name),
        }
    }
}

/// An object as Git has it.
#[derive(Debug, Clone, PartialEq)]
pub struct Object {
    /// What tells it from others.
    pub key: ObjectKey,
    /// `apiVersion` as written.
    pub api_version: String,
    /// The whole manifest, without what only a server writes.
    pub manifest: Arc<Value>,
    /// Identity of the manifest.
    pub hash: String,
    /// The file or folder that it comes from.
    pub source: String,
    /// Its place in the order.
    pub tier: Tier,
    /// The commit counter of its canary, on objects that Serin rendered.
    pub sequence: Option<u64>,
    /// The canary that it was rendered for.
    pub canary: Option<CanaryId>,
}

impl Object {
    /// An object from a manifest whose namespace is settled.
    pub fn new(key: ObjectKey, mut manifest: Value, source: &str) -> Self {
        let api_version = text(&manifest, "/apiVersion").to_owned();
        strip(&mut manifest);
        if let Some(namespace) = &key.namespace {
            manifest["metadata"]["namespace"] = json!(namespace);
        }
        if key.kind.is("", "Secret") {
            encode_secret(&mut manifest);
        }
        let sequence = annotation(&manifest, SEQUENCE_ANNOTATION).and_then(|n| n.parse().ok());
        let canary = annotation(&manifest, CANARY_ANNOTATION).and_then(|id| id.parse().ok());
        Self {
            hash: Revision::of(&manifest).as_str().to_owned(),
            tier: order::tier(&key.kind),
            api_version,
            source: source.to_owned(),
            sequence,
            canary,
            manifest: Arc::new(manifest),
            key,
        }
    }

    /// Whether an opt-out annotation says `disabled`.
    pub fn is_disabled(&self, name: &str) -> bool {
        annotation(&self.manifest, name) == Some("disabled")
    }

    /// What is sent to the server: the manifest with the marks of whoever applies it.
    pub fn to_apply(&self, owner: &str, bound_to: Option<&str>) -> Value {
        let mut manifest = (*self.manifest).clone();
        let metadata = entry(&mut manifest, "metadata");
        entry(metadata, "labels")[OWNER_LABEL] = json!(owner);
        entry(metadata, "annotations")[APPLIED_ANNOTATION] = json!(self.hash);
        if let Some(version) = bound_to {
            metadata["resourceVersion"] = json!(version);
        }
        manifest
    }
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
        let object = Object::new(key, manifest, "a.yaml");
        assert_eq!(object.manifest["data"], json!({"k": "YWJj", "l": "eA=="}));
        assert_eq!(object.manifest.get("stringData"), None);
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
            Object::new(key(), dumped, "a.yaml").hash,
            Object::new(key(), bare, "a.yaml").hash
        );
    }
}
