//! From samples to a verdict: what to ask Prometheus, how to count the answers, what the counts mean.
//!
//! Two questions a tick, not one: [`plan`] says what to ask for all canaries together, [`Evidence`] counts the
//! answers, [`judge`] says what the counts mean. Pure: no HTTP, no sleeping, no retrying, no clock.

mod types;

pub use types::{
    Answer, AskError, Evidence, Finding, Judgement, Ledger, Purpose, Query, Series, Target,
    Verdict, Window,
};
