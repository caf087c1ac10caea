//! Mistakes, for people: where, what was found, what is allowed, what was probably meant.

use std::fmt;

use crate::domain::RepoPath;

/// One mistake, or one remark.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Diagnostic {
    /// The file.
    pub file: RepoPath,
    /// Line, from 1.
    pub line: usize,
    /// Column, from 1.
    pub column: usize,
    /// How bad it is.
    pub severity: Severity,
    /// What was found, what was expected, what to do; without a full stop.
    pub message: String,
}

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// The canary cannot be acted on.
    Error,
    /// It can, but probably not as meant.
    Warning,
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let severity = match self.severity {
            Severity::Error => "",
            Severity::Warning => "warning: ",
        };
        // It quotes what somebody wrote, and ends up on terminals and in logs, one line each.
        let message = self.message.replace(char::is_control, "\u{fffd}");
        write!(
            f,
            "{}:{}:{}: {severity}{message}",
            self.file, self.line, self.column
        )
    }
}
