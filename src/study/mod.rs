//! Experiments with verdicts: the benchmark of judgement, planning, and replays of what really happened.
//!
//! [`traffic`] invents services, [`scenario`] says which, the rules ([`serin`], [`flagger`], [`argo`]) steer rollouts
//! of them, [`bench`] counts how often each was right. Serin's rule is no copy: it is the judge that decides in
//! production. Pure: a seed in, figures out; no I/O, no clock.

pub mod argo;
pub mod backtest;
pub mod bench;
pub mod chart;
pub mod count;
pub mod delay;
#[cfg(test)]
mod engine;
pub mod flagger;
pub mod interval;
pub mod plan;
pub mod promql;
pub mod random;
pub mod recorded;
pub mod report;
pub mod rollout;
pub mod rule;
pub mod scenario;
pub mod serin;
pub mod svg;
pub mod traffic;
pub mod tries;
