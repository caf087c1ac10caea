//! One branch of a Git repository: the only place that starts `git`, and the only one that knows `gix`.
//!
//! Objects are read and written with `gix` in a bare repository of our own; the wire (asking, fetching, pushing) is the
//! `git` program, so that every credential helper, SSH set-up and proxy that works for `git` works here. There is no
//! work tree and no index. The outcome of a push is judged by where the branch is afterwards, never by words.
//!
//! Never decides to try again, never knows what a file means.

mod bare;
mod branch;
mod command;
mod lineage;
mod local;
mod message;
mod objects;
mod pack;
mod paths;
mod porcelain;
mod remote;
mod snapshot;
mod write;

pub use bare::{First, create_bare};
pub use branch::{Branch, Settings};
pub use local::{Local, LogEntry};
pub use remote::{InvalidRemote, Remote};
