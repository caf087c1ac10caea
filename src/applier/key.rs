//! How objects are named.

use std::cmp::Ordering;
use std::fmt;
use std::ops::Deref;
use std::sync::Arc;

use super::atom::Atom;
use crate::lease::Share;

/// A kind of objects, whatever its version.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Kind {
    /// API group; empty for the core.
    pub group: Atom,
    /// The kind.
    pub kind: Atom,
}

impl Kind {
    /// A kind by its two names.
    pub fn new(group: &str, kind: &str) -> Self {
        Self {
            group: Atom::of(group),
            kind: Atom::of(kind),
        }
    }

    /// The kind that `apiVersion` and `kind` name.
    pub fn of(api_version: &str, kind: &str) -> Self {
        let group = api_version.split_once('/').map_or("", |(group, _)| group);
        Self::new(group, kind)
    }

    /// Whether this is the kind `kind` of the group `group`.
    pub fn is(&self, group: &str, kind: &str) -> bool {
        self.group == *group && self.kind == *kind
    }
}

/// What tells an object from all others in a cluster. It is in many places at once, and costs there what a pointer costs.
#[derive(Clone, PartialEq, Eq)]
pub struct ObjectKey(Arc<Place>);

/// What an [`ObjectKey`] says.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// Its kind.
    pub kind: Kind,
    /// Its namespace; `None` for objects of the whole cluster.
    pub namespace: Option<Atom>,
    /// Its name.
    pub name: Box<str>,
}

impl ObjectKey {
    /// An object; without a namespace one of the whole cluster.
    pub fn new(kind: Kind, namespace: Option<&str>, name: &str) -> Self {
        Self(Arc::new(Place {
            kind,
            namespace: namespace.map(Atom::of),
            name: name.into(),
        }))
    }

    /// A namespaced object.
    pub fn namespaced(kind: Kind, namespace: &str, name: &str) -> Self {
        Self::new(kind, Some(namespace), name)
    }

    /// The Namespace of this name.
    pub fn of_namespace(name: &str) -> Self {
        Self::new(Kind::new("", "Namespace"), None, name)
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

    /// Whether both are one value in memory: then they are equal, and it costs nothing to see that.
    pub(super) fn is_shared_with(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Deref for ObjectKey {
    type Target = Place;

    fn deref(&self) -> &Place {
        &self.0
    }
}

impl Ord for ObjectKey {
    fn cmp(&self, other: &Self) -> Ordering {
        match self.is_shared_with(other) {
            true => Ordering::Equal,
            false => self.0.cmp(&other.0),
        }
    }
}

impl PartialOrd for ObjectKey {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl fmt::Debug for ObjectKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
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
