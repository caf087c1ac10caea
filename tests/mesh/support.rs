//! `serin` as a process, as in the other test binary.

#[path = "../suite/support/serin.rs"]
#[allow(dead_code, reason = "the other test binary uses the rest")]
pub(crate) mod serin;
