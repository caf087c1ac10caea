//! People with clones, as in the other test binary.

#[path = "../suite/git/rig.rs"]
#[allow(dead_code, reason = "the other test binary uses the rest")]
pub(crate) mod rig;
