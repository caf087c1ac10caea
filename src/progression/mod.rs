//! The heart: where a rollout stands, what was seen, what happens next.
//!
//! [`decide`] is pure and total: every state and observation has an answer, no input is an error. It never sees a
//! clock, Git, Prometheus or Kubernetes; what those know arrives in the [`Observation`]. `invariants` checks its
//! results with code that did not produce them.

mod begin;
mod climb;
mod decide;
mod freeze;
mod invariants;
mod people;
mod reach;
mod replicas;
mod state;
mod waiting;
mod window;

pub use begin::is_starting;
pub use decide::{decide, decide_removal};
pub use freeze::ends as freeze_ends;
pub use invariants::violations;
pub use replicas::replicas;
pub use window::{outlook, window};

pub use state::{
    Approval, Aspect, Attribution, Cause, Decision, DrainCause, Failure, Hold, HoldReason,
    Intervention, Observation, Phase, Previous, Readiness, Rejection, Rollout, State, Transition,
    TransitionKind, VerdictNote, WaitingOn,
};
