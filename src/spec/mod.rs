//! From files to validated canaries, with all mistakes at once.
//!
//! Reads any tree of multi-document YAML, finds `Canary` objects and the Services, Deployments and kustomizations they
//! refer to, and reports every mistake as `file:line:column`. Pure: files come in as bytes.

mod adopt;
mod canary;
mod catalog;
mod diagnostic;
mod draft;
pub mod duration;
mod file;
#[doc(hidden)]
pub mod fixtures;
mod image;
mod marker;
mod mistake;
mod names;
mod parse_cache;
pub mod patch;
pub mod promotion;
mod resolve;
mod schema;
mod summary;
mod tree;
#[cfg(test)]
mod tests;

pub use adopt::{Adoption, Asked, CannotAdopt, LabelEdit, adopt, overlaps};
pub use canary::{
    Analysis, CanaryReplicas, Candidate, CandidateContent, Controls, Counters, Counting, Freeze,
    Home, ImageSources, Labels, LatencyCounters, ManagedWorkload, Metric, MetricSource, OnFailure,
    OnInconclusive, Protocol, Reporter, Route, Rule, Rung, SessionAffinity, TwoVersions, Unit,
    UserRule, UserSource, ValidatedCanary, Version, Workload,
};
pub use catalog::{Catalog, Orphan, Rejected};
pub use diagnostic::{Diagnostic, Severity};
pub use parse_cache::ParseCache;
