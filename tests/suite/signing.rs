//! Signed commits and verified heads with real keys: `git`, `ssh-keygen`, `gpg` and their agents.

mod keys;
mod making;
mod verifying;
