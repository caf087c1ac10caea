//! Signed commits and verified heads with real keys: `git`, `ssh-keygen`, `gpg` and their agents.

pub(crate) mod keys;
mod making;
mod verifying;
