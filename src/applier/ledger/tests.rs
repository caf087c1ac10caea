//! The state machine on a cluster of a few lines.
