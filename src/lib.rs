//! Serin: an Istio canary progression engine whose control surface is Git.
//!
//! # Bird's-eye view
//!
//! Data flows one way, and modules are declared in that order: one imports only from those above it.
//!
//! ```text
//!                     pure                         I/O
//! git.fetch ─────────────────────────────────────▶ Snapshot (commit id and files)
//!    spec.read(Snapshot)             → ValidatedCanary | Rejected
//! cluster.observe ───────────────────────────────▶ Sighting
//!    progression.window(canary, state) → Window (what to judge, since when)
//!    analysis.plan(targets)          → [Query]
//! prometheus.ask([Query]) ───────────────────────▶ [Answer]
//!    analysis.absorb, judge          → Judgement
//!    progression.decide(canary, state, observation, now) → (Decision, State)
//!    manifests.render(canary, state) → Manifests<Rendered>
//! git.publish(drafts, base) ─────────────────────▶ Manifests<Committed> | LostRace | Refused
//! cluster.apply(committed) ──────────────────────▶ Manifests<Applied>
//! ```
//!
//! `reconcile` is that page as code, generic over `ports`; `operator` gives it real adapters, `simulation` gives it
//! memory and a clock that jumps.
//!
//! # Invariants
//!
//! - The state is a function of HEAD alone; manifests equal the rendering of spec and state, always.
//! - Nothing that was not committed can be applied: the types do not allow it.
//! - `progression`, `analysis`, `manifests`, `spec` and `record` never do I/O and never read a clock.
//! - A weight rises on a passing verdict or by a person's hand. `progression::violations` checks that before each
//!   commit, and knows nothing of how it was decided.
//! - Missing data is never a pass and never a fail.
//! - A person's change is never overwritten: a lost race means deciding anew on their commit.
//! - One bad canary is data about that canary; it stops nothing else.

pub mod domain;
pub mod clock;
pub mod yaml;
pub mod crd;
pub mod spec;
pub mod analysis;
pub mod study;
pub mod progression;
pub mod manifests;
pub mod record;
pub mod lease;
pub mod applier;
pub mod ports;
pub mod git;
pub mod prometheus;
pub mod cluster;
pub mod reconcile;
pub mod status;
pub mod simulation;
pub mod instruments;
pub mod endpoints;
pub mod operator;
pub mod demo;
pub mod cli;
