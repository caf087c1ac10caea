//! One branch of a Git repository: the only place that starts `git`, `ssh-keygen` and `gpg`, and the only one that knows
//! `gix`.
//!
//! Objects are read and written with `gix` in a bare repository of our own; the wire (asking, fetching, pushing) is the
//! `git` program, so that every credential helper, SSH set-up and proxy that works for `git` works here. There is no
//! work tree and no index. Signatures are made and verified by the programs that people use for it. The outcome of a push is judged by where the branch is afterwards, never by words.
//!
//! Never decides to try again, never knows what a file means.

mod bare;
mod branch;
mod chronicle;
mod command;
mod copy;
mod keyring;
mod authors;
mod lineage;
mod local;
mod locks;
mod message;
mod objects;
mod pack;
mod partial;
mod paths;
mod porcelain;
mod remote;
mod settings;
mod sign;
mod signature;
mod snapshot;
mod verify;
mod write;

pub use bare::{First, create_bare};
pub use branch::Branch;
pub use local::{Local, LogEntry};
pub use remote::{InvalidRemote, Remote};
pub use settings::{Fingerprint, InvalidFingerprint, Settings, Signing, Verification};

/// All that is made of these bytes if `git` printed them, for a test that prints anything.
#[doc(hidden)]
pub fn words_of(output: &[u8]) -> String {
    let mut words = porcelain::server_words(output).join("\n");
    words.push_str(&porcelain::complaint(output));
    let (refs, pushed) = (porcelain::advertised(output), porcelain::pushed(output));
    let trouble = porcelain::trouble(output);
    let ignored = porcelain::ignored_filter(output);
    words.push_str(&format!(
        "{} {} {trouble:?} {ignored}",
        refs.refs.len(),
        pushed.len()
    ));
    words
}
