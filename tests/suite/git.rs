//! `git::Branch` against real repositories and servers.

mod history;
mod pushing;
mod reading;
mod remotes;
mod rig;
