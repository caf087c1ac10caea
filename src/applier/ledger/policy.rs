//! What an operator allows the applier to do.

use std::collections::BTreeMap;

use crate::lease::Share;

/// What is done about objects that people change in the cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Mode {
    /// They become what Git says again.
    #[default]
    Enforce,
    /// They are reported.
    Warn,
    /// They are left alone.
    Off,
}

/// What an operator allows.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Policy {
    /// Value of the label on everything that is applied for this repository.
    pub owner: String,
    /// What is done about drift.
    pub mode: Mode,
    /// Somebody else applies; nothing is written.
    pub external: bool,
    /// Whether objects go that Git no longer has. Those that Serin rendered go in any case.
    pub prune: bool,
    /// Whether Namespaces and definitions go as well.
    pub prune_namespaces: bool,
    /// The other repositories that are applied from the same configuration: their labels and their names.
    pub siblings: BTreeMap<String, String>,
    /// The part of the objects that this engine keeps.
    pub share: Share,
}
