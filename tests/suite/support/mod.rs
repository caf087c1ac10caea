//! Real programs that tests start and stop by themselves, and the world around them.

pub(crate) mod mesh;
pub(crate) mod prometheus;
pub(crate) mod serin;
