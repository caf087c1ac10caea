//! Judging by a real Prometheus, and what a broken one does on the wire.

mod incident;
mod native;
mod queries;
mod real;
mod wire;
