//! What Serin writes about itself: `rollout.yaml` and commit messages; and reading both back.
//!
//! `state_file` turns a state into canonical bytes and back, `message` writes a commit message with trailers and reads
//! them, `people` compares HEAD with our last commit and classifies what people changed, `authorship` tells which commit did. Pure.

pub mod authorship;
mod fields;
pub mod message;
pub mod people;
pub mod state_file;
#[cfg(test)]
mod properties;
