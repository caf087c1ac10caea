//! The branch: the only place that starts `git`.
