//! What the cluster is to show, and what to do about what it shows: the pure half of the built-in applier.
//!
//! `read`, `sources` and `assembly` make objects of the files at a commit, `order` says in which order they go, `compare` what
//! differs, `ready` whether a workload runs, `slices` whether the mesh finds it, and `ledger` what to do next. None of them talks to a cluster: `cluster/`
//! carries their answers there and brings back what it saw.

pub mod assembly;
pub mod atom;
pub mod compare;
pub mod desired;

pub mod key;
pub mod ledger;
pub mod live;
pub mod object;
pub mod order;
pub mod read;
pub mod ready;
pub mod slices;
pub mod sources;

pub use assembly::Assembly;
pub use desired::{Desired, Problem, Scopes};
pub use key::{Kind, ObjectKey};
pub use ledger::{Action, Ledger, Mode, Notice, Outcome, Policy};
pub use live::Live;
pub use object::Object;
