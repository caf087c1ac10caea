//! Entry point of the `serin` binary.
fn main() {}
