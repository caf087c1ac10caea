//! The cluster, or the absence of one.
