//! What happened in the cluster, for people.

use crate::applier::key::ObjectKey;
use crate::domain::{CanaryId, Timestamp};

/// Something that happened, for people.
#[derive(Debug, Clone, PartialEq)]
pub enum Notice {
    /// An object that was changed or deleted is what Git says again.
    Repaired(Repaired),
    /// An object was changed or deleted, and stays so.
    Drifted(Drifted),
    /// The cluster refuses an object.
    Refused {
        /// Which.
        object: ObjectKey,
        /// The server's words.
        words: String,
    },
    /// An object is being deleted for a long time.
    Stuck {
        /// Which.
        object: ObjectKey,
        /// On what.
        words: String,
    },
    /// Part of the tree cannot be applied.
    Unreadable {
        /// File or folder.
        source: String,
        /// Why.
        words: String,
    },
    /// Git no longer has an object, and it is gone from the cluster.
    Pruned(ObjectKey),
}

/// A difference that was seen.
#[derive(Debug, Clone, PartialEq)]
pub struct Drifted {
    /// The object.
    pub object: ObjectKey,
    /// Its canary.
    pub canary: Option<CanaryId>,
    /// What differed; empty when the object was deleted.
    pub differences: Vec<String>,
    /// Field manager of whoever wrote last, when the object still said.
    pub by: Option<String>,
    /// `apiVersion` of the object.
    pub api_version: String,
    /// When it was seen.
    pub seen: Timestamp,
}

/// A difference that was mended.
#[derive(Debug, Clone, PartialEq)]
pub struct Repaired {
    /// What it was.
    pub drift: Drifted,
    /// Identity of the object as it is now.
    pub uid: String,
    /// When it was mended.
    pub at: Timestamp,
}
