//! TBD.
use crate::domain::RepoPath;
use std::collections::BTreeMap;
pub fn violations(
    _c: &crate::spec::ValidatedCanary,
    _s: &crate::progression::State,
    _f: &BTreeMap<RepoPath, Option<Vec<u8>>>,
) -> Vec<String> {
    Vec::new()
}
