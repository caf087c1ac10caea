//! From files to validated canaries, with all mistakes at once.
//!
//! Reads any tree of multi-document YAML, finds `Canary` objects and the Services, Deployments and kustomizations they
//! refer to, and reports every mistake as `file:line:column`. Pure: files come in as bytes.

mod canary;
mod diagnostic;
pub mod duration;
#[doc(hidden)]
pub mod fixtures;
pub mod patch;
pub mod promotion;

pub use canary::{
    Analysis, CanaryReplicas, Candidate, CandidateContent, Controls, Freeze, Home, Labels,
    ManagedWorkload, Metric, MetricSource, OnFailure, OnInconclusive, Protocol, Reporter, Route,
    Rung, SessionAffinity, TwoVersions, UserRule, UserSource, ValidatedCanary, Version, Workload,
};
pub use diagnostic::{Diagnostic, Severity};
