//! A small picture that is drawn over and over in the same place of a terminal.

use std::io;

use super::plain::io_error;
use super::words;
use crate::analysis::Finding;
use crate::cli::failure::Failure;
use crate::cli::output::{Console, Style, paint};
use crate::cli::show;
use crate::demo::{Commit, Frame};

/// Cells of the weight's bar.
const BAR: usize = 40;
/// Lines that metrics and commits always take, so that nothing jumps.
const METRICS: usize = 2;
const COMMITS: usize = 5;

/// No cursor, and long lines end at the edge instead of going on below it.
const BEGIN: &str = "\x1b[?25l\x1b[?7l";
const END: &str = "\x1b[?7h\x1b[?25h";

/// Draws the story.
pub(super) struct Live<'c, 'o> {
    console: &'c mut Console<'o>,
    /// Lines of the last picture.
    drawn: usize,
}

impl<'c, 'o> Live<'c, 'o> {
    pub(super) fn new(console: &'c mut Console<'o>) -> Self {
        Self { console, drawn: 0 }
    }

    pub(super) fn see(&mut self, frame: &Frame) -> io::Result<()> {
        let text = over(self.drawn, &picture(frame, true));
        self.drawn = picture(frame, false).len();
        self.console.bytes(text.as_bytes()).map_err(io_error)?;
        self.console.flush().map_err(io_error)
    }

    pub(super) fn end(self) -> Result<(), Failure> {
        if self.drawn > 0 {
            self.console.bytes(END.as_bytes())?;
            self.console.flush()?;
        }
        Ok(())
    }
}

/// What to write so that these lines replace the last `drawn` ones.
pub(super) fn over(drawn: usize, lines: &[String]) -> String {
    let mut text = match drawn {
        0 => BEGIN.to_owned(),
        _ => format!("\x1b[{drawn}A"),
    };
    for line in lines {
        text.push('\r');
        text.push_str(line);
        text.push_str("\x1b[K\n");
    }
    text.push_str("\x1b[J");
    text
}

/// The lines.
pub(super) fn picture(frame: &Frame, color: bool) -> Vec<String> {
    let mut lines = vec![
        format!(
            "{}  {}",
            paint(color, Style::Dim, &frame.at.format("%H:%M:%S").to_string()),
            paint(color, Style::Bold, &frame.title)
        ),
        String::new(),
        row(color, "weight", &bar(frame, color)),
    ];
    let (hers, theirs) = words::who_got_what(&frame.tally);
    lines.push(row(color, words::NAMED, &hers));
    lines.push(row(color, "the others", &theirs));
    lines.push(String::new());
    let findings = frame.findings.iter().take(METRICS);
    lines.extend(findings.map(|finding| metric(finding, color)));
    for _ in frame.findings.len()..METRICS {
        lines.push(row(color, "metric", "-"));
    }
    lines.push(row(color, "waits", &frame.waiting));
    lines.push(String::new());
    lines.extend(frame.commits.iter().map(|made| commit(made, color)));
    lines.extend((frame.commits.len()..COMMITS).map(|_| String::new()));
    lines
}

fn row(color: bool, name: &str, text: &str) -> String {
    let name = paint(color, Style::Dim, &format!("{name:<12}"));
    format!("  {name}  {text}").trim_end().to_owned()
}

fn bar(frame: &Frame, color: bool) -> String {
    let Some(weight) = frame.weight else {
        return paint(color, Style::Bad, "the namespace is gone");
    };
    let filled = (weight / 100.0 * BAR as f64).round() as usize;
    let candidate = paint(color, Style::Good, &"█".repeat(filled));
    let stable = paint(color, Style::Dim, &"░".repeat(BAR.saturating_sub(filled)));
    let versions = match &frame.candidate {
        Some(version) => format!(
            "{weight:>3.0}% {version}, {:.0}% {}",
            100.0 - weight,
            frame.stable
        ),
        None => format!("100% {}", frame.stable),
    };
    format!("{candidate}{stable}  {versions}")
}

fn metric(finding: &Finding, color: bool) -> String {
    let style = show::verdict_style(finding.verdict.as_str());
    row(
        color,
        &finding.metric,
        &paint(color, style, &words::finding(finding)),
    )
}

fn commit(commit: &Commit, color: bool) -> String {
    let id = paint(color, Style::Dim, &commit.id);
    let who = format!("{:<6}", commit.who);
    format!("  {id}    {who}  {}", commit.subject)
}
