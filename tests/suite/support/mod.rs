//! Real programs that tests start and stop by themselves.

pub(crate) mod prometheus;
