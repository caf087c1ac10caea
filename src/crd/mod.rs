//! The `Canary` resource as users write it: wire types, their documentation, and the CRD made from them.
//!
//! Nothing here behaves. What a schema cannot say is checked in `spec`, which turns these types into validated ones.

mod analysis;
mod definition;
mod route;
mod schema;
mod spec;
mod status;

pub use analysis::{
    AnalysisSpec, CompareSpec, CountersSpec, FailureAction, FailuresSpec, InconclusiveAction,
    LatencyCountersSpec, MetricSpec, ReporterSpec, RuleSpec, UnitSpec,
};
pub use definition::{crd_yaml, spec_schema};
pub use route::{L4RouteSpec, RouteSpec, SessionAffinitySpec, UserSpec};
pub use schema::RULES;
pub use spec::{
    Approval, Canary, CanarySpec, CandidateSpec, Climb, Day, FreezeSpec, LadderItem, LadderSpec,
    ReplicasSpec, RungSpec, VersionsSpec, WorkloadSpec,
};
pub use status::{CanaryStatus, MetricStatus};

/// The one served version.
pub const API_VERSION: &str = "serin.dev/v1alpha1";
/// The kind.
pub const KIND: &str = "Canary";
