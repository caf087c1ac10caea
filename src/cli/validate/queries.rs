//! The queries that people wrote, tried out on a Prometheus server.

use super::Found;
use crate::analysis::{Complaint, Target, Trial, Window, Written, trials};
use crate::cli::failure::Failure;
use crate::cli::wiring::runtime;
use crate::cli::worktree::WorkTree;
use crate::clock::{Clock, SystemClock};
use crate::ports::Metrics;
use crate::prometheus::Server;
use crate::spec::ValidatedCanary;
use crate::yaml::node::{self, Node};

/// Asks every query of these canaries once, and says what is wrong with it, where it is written.
pub(super) fn check(
    tree: &WorkTree,
    canaries: &[&ValidatedCanary],
    server: &Server,
) -> Result<Vec<Found>, Failure> {
    let now = SystemClock.now();
    let mut asked: Vec<(&ValidatedCanary, Trial)> = Vec::new();
    for canary in canaries {
        let window = Window {
            rollout: now,
            step: now,
            has_traffic: true,
            weight: None,
            comparable: true,
            strikes: 0,
        };
        let own = trials(&Target::new(canary, window), now);
        asked.extend(own.into_iter().map(|trial| (*canary, trial)));
    }
    let queries: Vec<_> = asked.iter().map(|(_, trial)| trial.query.clone()).collect();
    let answers = runtime()?.block_on(server.ask(&queries));
    let mut found: Vec<Found> = Vec::new();
    for ((canary, trial), answer) in asked.iter().zip(&answers) {
        let complaint = trial.complaint(answer).map_err(|error| {
            Failure::failed(format!("the queries could not be tried out: {error}"))
        })?;
        if let Some(complaint) = complaint {
            let one = placed(tree, canary, trial, complaint);
            // Stable's and the candidate's queries are the same text.
            if !found.contains(&one) {
                found.push(one);
            }
        }
    }
    Ok(found)
}

fn placed(tree: &WorkTree, canary: &ValidatedCanary, trial: &Trial, complaint: Complaint) -> Found {
    let file = &canary.home.file;
    let content = tree.files.get(file).map(|(_, content)| content.clone());
    let content = content.as_deref().unwrap_or_default();
    let documents = node::parse(content).documents;
    let query = documents
        .iter()
        .filter(|document| is_of(&document.root, canary))
        .find_map(|document| written(&document.root, &trial.written));
    let (line, column) = query.map_or((1, 1), |node| {
        let offset = complaint.at.unwrap_or_default();
        inside(content, node, &trial.template, offset)
    });
    Found {
        file: tree.shown(file),
        line,
        column,
        severity: if complaint.is_error {
            "error"
        } else {
            "warning"
        },
        message: complaint.message,
    }
}

fn is_of(root: &Node, canary: &ValidatedCanary) -> bool {
    let text = |path: &[&str]| root.at(path).and_then(Node::as_str);
    let namespace = text(&["metadata", "namespace"]);
    text(&["kind"]) == Some("Canary")
        && text(&["metadata", "name"]) == Some(&canary.id.name)
        && namespace.is_none_or(|namespace| namespace == canary.id.namespace)
}

/// The scalar that a query is written in.
fn written<'a>(root: &'a Node, written: &Written) -> Option<&'a Node> {
    let analysis = root.at(&["spec", "analysis"])?;
    match written {
        Written::Metric(name) => {
            let metrics = analysis.get("metrics")?.items();
            let named = |metric: &&Node| metric.get("name").and_then(Node::as_str) == Some(name);
            metrics.iter().find(named)?.get("query")
        }
        Written::Counters(path) => analysis.get("counters")?.at(path),
    }
}

/// Line and column of a byte of a scalar's text, where its source shows that byte as it is; else of its beginning.
fn inside(content: &[u8], node: &Node, text: &str, offset: usize) -> (usize, usize) {
    let start = (node.span.line, node.span.column);
    let source = content
        .get(node.span.start..node.span.end)
        .and_then(|bytes| std::str::from_utf8(bytes).ok())
        .unwrap_or_default();
    let Some(before) = text.get(..offset) else {
        return start;
    };
    if source.starts_with(['|', '>']) {
        return in_block(source, before, start);
    }
    // A quoted scalar of one line without escapes shows its text behind the quote.
    let quotes = usize::from(source.starts_with(['"', '\'']));
    let shown = source.get(quotes..).unwrap_or_default();
    if !source.contains('\n') && shown.starts_with(text) {
        return (start.0, start.1 + quotes + before.chars().count());
    }
    start
}

/// In a block each line of the text is a line of the source, behind its indentation.
fn in_block(source: &str, before: &str, start: (usize, usize)) -> (usize, usize) {
    let row = before.matches('\n').count();
    let last = before.rsplit('\n').next().unwrap_or_default();
    let mut lines = source.lines().skip(1);
    let indent = |line: &str| line.len() - line.trim_start_matches(' ').len();
    let first = lines.clone().find(|line| !line.trim().is_empty());
    match (first.map(indent), lines.nth(row)) {
        (Some(indent), Some(line)) if line.get(indent..).is_some_and(|l| l.starts_with(last)) => {
            (start.0 + 1 + row, indent + 1 + last.chars().count())
        }
        _ => start,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Marks where a mistake at `%` of the query is found to be written.
    fn shown(yaml: &str, query: &str) -> String {
        let offset = query.find('%').unwrap();
        let text = query.replace('%', "");
        let parsed = node::parse(yaml.as_bytes());
        let scalar = parsed.documents[0].root.get("query").unwrap();
        assert_eq!(scalar.as_str().unwrap().trim_end(), text.trim_end());
        let text = scalar.as_str().unwrap();
        let (line, column) = inside(yaml.as_bytes(), scalar, text, offset);
        let line = yaml.lines().nth(line - 1).unwrap();
        let characters: Vec<char> = line.chars().collect();
        let (before, after) = characters.split_at(column - 1);
        let text = |part: &[char]| part.iter().collect::<String>();
        format!("{}%{}", text(before), text(after))
    }

    #[test]
    fn mistakes_are_placed_inside_of_scalars() {
        assert_eq!(shown("query: sum(up\n", "sum(%up"), "query: sum(%up");
        assert_eq!(shown("query: 'sum(up'\n", "sum(%up"), "query: 'sum(%up'");
        assert_eq!(
            shown("query: \"sum(up\"\n", "sum(%up"),
            "query: \"sum(%up\""
        );
        let block = "query: |\n  sum(\n    ü{}\n  ) +\n";
        assert_eq!(shown(block, "sum(\n  ü%{}\n) +\n"), "    ü%{}");
        assert_eq!(shown(block, "sum(\n  ü{}\n)% +\n"), "  )% +");
        // Where the source does not show the text as it is, the beginning has to do.
        assert_eq!(shown("query: 'a''b'\n", "a'%b"), "query: %'a''b'");
        assert_eq!(shown("query: a\n  b\n", "a %b"), "query: %a");
    }
}
