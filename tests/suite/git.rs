//! `git::Branch` against real repositories and servers.

mod authors;
mod history;
mod partial;
mod pushing;
mod reading;
mod remotes;
pub(crate) mod rig;
