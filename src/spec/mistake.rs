//! A mistake before it is known which file it is in: parsed files are remembered by content, not by path.

use crate::domain::RepoPath;
use crate::yaml::node::{Node, ParseError, Span};

use super::{Diagnostic, Severity};

/// A place in a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Place {
    /// Line, from 1.
    pub(super) line: usize,
    /// Column, from 1.
    pub(super) column: usize,
}

impl From<Span> for Place {
    fn from(span: Span) -> Self {
        Self {
            line: span.line,
            column: span.column,
        }
    }
}

impl From<&Node> for Place {
    fn from(node: &Node) -> Self {
        node.span.into()
    }
}

/// A mistake or a remark at a place.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Mistake {
    pub(super) place: Place,
    pub(super) severity: Severity,
    pub(super) message: String,
}

impl Mistake {
    pub(super) fn in_file(&self, file: &RepoPath) -> Diagnostic {
        Diagnostic {
            file: file.clone(),
            line: self.place.line,
            column: self.place.column,
            severity: self.severity,
            message: self.message.clone(),
        }
    }
}

impl From<&ParseError> for Mistake {
    fn from(error: &ParseError) -> Self {
        Self {
            place: Place {
                line: error.line,
                column: error.column,
            },
            severity: Severity::Error,
            message: format!("this is not valid YAML: {}", error.message),
        }
    }
}

/// Mistakes as they are found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Mistakes(Vec<Mistake>);

impl Mistakes {
    pub(super) fn error(&mut self, at: impl Into<Place>, message: impl Into<String>) {
        self.push(at.into(), Severity::Error, message.into());
    }

    pub(super) fn warning(&mut self, at: impl Into<Place>, message: impl Into<String>) {
        self.push(at.into(), Severity::Warning, message.into());
    }

    fn push(&mut self, place: Place, severity: Severity, message: String) {
        let mistake = Mistake {
            place,
            severity,
            message,
        };
        // What an alias brings in twice is wrong twice, in one place.
        if !self.0.contains(&mistake) {
            self.0.push(mistake);
        }
    }

    pub(super) fn has_errors(&self) -> bool {
        self.0
            .iter()
            .any(|mistake| mistake.severity == Severity::Error)
    }

    /// All of them, from the top of the file to its end.
    pub(super) fn into_sorted(mut self) -> Vec<Mistake> {
        self.0.sort();
        self.0
    }
}

/// Text of a user inside a message: no line breaks, not too long.
pub(super) fn quoted(text: &str) -> String {
    const LONGEST: usize = 60;
    let printable: String = text
        .chars()
        .take(LONGEST)
        .flat_map(|c| {
            let escaped = c.is_control().then(|| c.escape_default());
            escaped
                .into_iter()
                .flatten()
                .chain((!c.is_control()).then_some(c))
        })
        .collect();
    if text.chars().count() > LONGEST {
        format!("`{printable}…`")
    } else {
        format!("`{printable}`")
    }
}

/// A list for people: `a`, `b`.
pub(super) fn listed<'a>(names: impl IntoIterator<Item = &'a str>) -> String {
    names
        .into_iter()
        .map(|name| format!("`{name}`"))
        .collect::<Vec<_>>()
        .join(", ")
}

/// Most bytes of a character.
const MOST_BYTES: usize = 4;

/// The known name that was probably meant.
pub(super) fn nearest<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let name = name.to_lowercase();
    let farthest = (name.chars().count() / 3).max(1);
    known
        .into_iter()
        .filter(|candidate| {
            let is_ascii = name.is_ascii() && candidate.is_ascii();
            let bytes = if is_ascii { 1 } else { MOST_BYTES };
            candidate.len().abs_diff(name.len()) <= farthest * bytes
        })
        .map(|candidate| {
            let distance = strsim::damerau_levenshtein(&name, &candidate.to_lowercase());
            (distance, candidate)
        })
        .filter(|(distance, _)| *distance <= farthest)
        .min()
        .map(|(_, candidate)| candidate)
}

/// ` (did you mean `x`?)`, or nothing.
pub(super) fn suggestion<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> String {
    nearest(name, known).map_or_else(String::new, |meant| format!(" (did you mean `{meant}`?)"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_name_is_near() {
        let known = ["weight", "hold", "approval", "mirror", "match"];
        for (written, meant) in [
            ("wieght", Some("weight")),
            ("Weight", Some("weight")),
            ("wait", None),
            ("hodl", Some("hold")),
            ("aproval", Some("approval")),
            ("x", None),
            ("banana", None),
        ] {
            assert_eq!(nearest(written, known), meant, "{written}");
        }
    }

    #[test]
    fn quotes_stay_on_one_line() {
        assert_eq!(quoted("a\nb"), "`a\\nb`");
        assert_eq!(quoted(&"x".repeat(200)).chars().count(), 63);
    }
}
