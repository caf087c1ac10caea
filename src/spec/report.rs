//! What `serin validate` says about a tree.

use std::fmt;

use super::{Catalog, Diagnostic, Severity};
use crate::domain::RepoPath;

/// The mistakes of a tree, and how many there are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// Everything there is to say, in the order of files and lines.
    pub diagnostics: Vec<Diagnostic>,
    /// Number of canaries, broken ones included.
    pub canaries: usize,
    /// Number of errors.
    pub errors: usize,
    /// Number of warnings.
    pub warnings: usize,
}

/// Reports on the files and folders in `below`; on the whole tree when there are none.
///
/// The whole tree is read all the same, because a canary needs its Service and Deployment, wherever they are.
pub fn report(catalog: &Catalog, below: &[RepoPath]) -> Report {
    let inside =
        |file: &RepoPath| below.is_empty() || below.iter().any(|path| file.is_within(path));
    let diagnostics: Vec<Diagnostic> = catalog
        .diagnostics
        .iter()
        .filter(|diagnostic| inside(&diagnostic.file))
        .cloned()
        .collect();
    let count = |severity| {
        diagnostics
            .iter()
            .filter(|d| d.severity == severity)
            .count()
    };
    Report {
        canaries: catalog
            .canaries
            .values()
            .filter(|result| match result {
                Ok(canary) => inside(&canary.home.file),
                Err(rejected) => inside(&rejected.file),
            })
            .count(),
        errors: count(Severity::Error),
        warnings: count(Severity::Warning),
        diagnostics,
    }
}

/// One line per diagnostic, and the numbers.
impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for diagnostic in &self.diagnostics {
            writeln!(f, "{diagnostic}")?;
        }
        let plural = |count: usize, one: &str, many: &str| match count {
            1 => format!("1 {one}"),
            _ => format!("{count} {many}"),
        };
        write!(
            f,
            "{}: {}, {}",
            plural(self.canaries, "canary", "canaries"),
            plural(self.errors, "error", "errors"),
            plural(self.warnings, "warning", "warnings")
        )
    }
}
