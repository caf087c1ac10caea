//! From samples to a verdict: what to ask Prometheus, how to count the answers, what the counts mean.
//!
//! Two questions a tick, not one: [`plan`] says what to ask for all canaries together, [`absorb`] counts the answers
//! into a [`Ledger`], [`judge`] says what the counts mean. Pure: no HTTP, no sleeping, no retrying, no clock.
//!
//! Counts are exact. Raw counters are read and their differences added up per series, with resets, for candidate and
//! stable alike; nothing is extrapolated. A baseline is the first reading at or after the moment it is for, so that no
//! request from before counts (but for those of the last scrape interval before it).

pub mod comparison;
mod beside;
mod compared;
mod counting;
mod custom;
mod evidence;
pub mod flagger;
mod judge;
mod labels;
mod plan;
mod promql;
mod reading;
mod text;
mod threshold;
mod trial;
mod types;
mod watch;

#[cfg(test)]
mod tests;

pub use counting::{Fault, Sides};
pub use custom::BAD_LOOKS;
pub use evidence::{Counts, Evidence, Ledger, reading_due};
pub use judge::{is_due, judge, next_look};
pub use labels::Labels;
pub use plan::{clock_query, plan};
pub use reading::absorb;
pub use threshold::{BETA, MIN_FAILURES, ln_evidence, requests_needed};
pub use trial::{Complaint, Trial, Written, trials};
pub use types::{
    Allows, Answer, AskError, CUSTOM_LABEL, Compared, Counted, Finding, Judgement, Kind, Load,
    Part, Purpose, Query, Series, Target, Verdict, Window,
};
