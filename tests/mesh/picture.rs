//! A picture of a real run: who answered, what failed, and the commits in between. Every point is counted from requests.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::{Duration, Instant};

use crate::load::Answer;

/// A commit, as the branch got it.
#[derive(Debug, Clone)]
pub(crate) struct Commit {
    pub(crate) at: Instant,
    pub(crate) author: String,
    pub(crate) subject: String,
}

/// Something that happened outside of Git.
#[derive(Debug, Clone)]
pub(crate) struct Event {
    pub(crate) at: Instant,
    pub(crate) what: String,
}

const WIDTH: f64 = 1000.0;
const LEFT: f64 = 70.0;
const RIGHT: f64 = 20.0;
/// Upper edge and height of the two charts.
const SHARES: (f64, f64) = (56.0, 200.0);
const SUCCESS: (f64, f64) = (292.0, 70.0);
const LINE: f64 = 17.0;
/// Of the versions, in the order in which they appear.
const COLOURS: [&str; 4] = ["#9db2c9", "#2f7ed8", "#e07b39", "#6a51a3"];
/// Requests are counted by this.
const BUCKET: Duration = Duration::from_millis(500);

/// What the run is drawn from.
pub(crate) struct Run<'a> {
    pub(crate) began: Instant,
    pub(crate) answers: &'a [Answer],
    pub(crate) commits: &'a [Commit],
    pub(crate) events: &'a [Event],
}

#[derive(Default, Clone)]
struct Bucket {
    by_version: BTreeMap<usize, usize>,
    failed: usize,
    all: usize,
}

/// The picture, as SVG.
pub(crate) fn svg(run: &Run<'_>) -> String {
    let mut versions: Vec<&str> = Vec::new();
    let mut buckets: Vec<Bucket> = Vec::new();
    for answer in run.answers.iter().filter(|a| a.sent >= run.began) {
        let index = (answer.sent - run.began).as_millis() / BUCKET.as_millis();
        let index = usize::try_from(index).unwrap();
        if buckets.len() <= index {
            buckets.resize(index + 1, Bucket::default());
        }
        let bucket = &mut buckets[index];
        bucket.all += 1;
        bucket.failed += usize::from(answer.failed());
        if !answer.version.is_empty() {
            let known = versions.iter().position(|known| *known == answer.version);
            let known = known.unwrap_or_else(|| {
                versions.push(&answer.version);
                versions.len() - 1
            });
            *bucket.by_version.entry(known).or_default() += 1;
        }
    }
    // The last one is cut.
    buckets.pop();
    let marks = marks(run);
    let rows = marks.len().div_ceil(2);
    let height = SUCCESS.0 + SUCCESS.1 + 46.0 + LINE * number(rows);
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" font-family=\"ui-monospace, Menlo, Consolas, monospace\" font-size=\"12\" xml:space=\"preserve\">\n\
         <rect width=\"{WIDTH}\" height=\"{height}\" rx=\"8\" fill=\"#ffffff\"/>\n"
    );
    let scale = (WIDTH - LEFT - RIGHT) / number(buckets.len());
    areas(&mut out, &buckets, versions.len(), scale);
    success(&mut out, &buckets, scale);
    legend(&mut out, &versions);
    axis(&mut out, buckets.len(), scale);
    for (index, mark) in marks.iter().enumerate() {
        let x = LEFT + scale * mark.0 / BUCKET.as_secs_f64();
        let colour = if mark.2 { "#444444" } else { "#c2185b" };
        let bottom = SUCCESS.0 + SUCCESS.1;
        // Numbers of commits that follow at once stand one below the other.
        let y = 20.0 + 12.0 * number(index % 3);
        writeln!(
            out,
            "<line x1=\"{x:.1}\" y1=\"{:.1}\" x2=\"{x:.1}\" y2=\"{bottom}\" stroke=\"{colour}\" stroke-width=\"0.7\" stroke-dasharray=\"3 3\"/>\
             <text x=\"{x:.1}\" y=\"{y}\" text-anchor=\"middle\" fill=\"{colour}\" font-size=\"10\">{}</text>",
            y + 3.0,
            index + 1
        )
        .unwrap();
        let (column, row) = (index / rows, index % rows);
        let (x, y) = (
            20.0 + 490.0 * number(column),
            bottom + 44.0 + LINE * number(row),
        );
        writeln!(
            out,
            "<text x=\"{x}\" y=\"{y}\" fill=\"{colour}\">{:>2} {:>5.1}s {}</text>",
            index + 1,
            mark.0,
            escaped(&mark.1)
        )
        .unwrap();
    }
    out += "</svg>\n";
    out
}

/// Commits and events by time: seconds, words, whether it is a commit.
fn marks(run: &Run<'_>) -> Vec<(f64, String, bool)> {
    let since = |at: Instant| at.saturating_duration_since(run.began).as_secs_f64();
    let commits = run.commits.iter().map(|commit| {
        let words = format!("{:<6} {}", commit.author, commit.subject);
        (since(commit.at), words, true)
    });
    let events = run.events.iter();
    let events = events.map(|event| (since(event.at), event.what.clone(), false));
    let mut marks: Vec<(f64, String, bool)> = commits.chain(events).collect();
    marks.sort_by(|one, other| one.0.total_cmp(&other.0));
    marks
}

/// Shares of the versions, one on top of the other.
fn areas(out: &mut String, buckets: &[Bucket], versions: usize, scale: f64) {
    let (top, height) = SHARES;
    let mut base = vec![0.0; buckets.len()];
    for version in 0..versions {
        let mut upper = Vec::new();
        let mut lower = Vec::new();
        for (index, bucket) in buckets.iter().enumerate() {
            let count = bucket.by_version.get(&version).copied().unwrap_or(0);
            let share = number(count) / number(bucket.all.max(1));
            let x = LEFT + scale * (number(index) + 0.5);
            lower.push(format!("{x:.1},{:.1}", top + height * (1.0 - base[index])));
            base[index] += share;
            upper.push(format!("{x:.1},{:.1}", top + height * (1.0 - base[index])));
        }
        lower.reverse();
        writeln!(
            out,
            "<polygon fill=\"{}\" points=\"{} {}\"/>",
            COLOURS[version % COLOURS.len()],
            upper.join(" "),
            lower.join(" ")
        )
        .unwrap();
    }
    frame(out, SHARES, "requests", "100%");
}

/// Share of requests that did not fail.
fn success(out: &mut String, buckets: &[Bucket], scale: f64) {
    let (top, height) = SUCCESS;
    let points: Vec<String> = buckets
        .iter()
        .enumerate()
        .map(|(index, bucket)| {
            let share = 1.0 - number(bucket.failed) / number(bucket.all.max(1));
            let x = LEFT + scale * (number(index) + 0.5);
            format!("{x:.1},{:.1}", top + height * (1.0 - share))
        })
        .collect();
    writeln!(
        out,
        "<polyline fill=\"none\" stroke=\"#2e7d32\" stroke-width=\"1.5\" points=\"{}\"/>",
        points.join(" ")
    )
    .unwrap();
    frame(out, SUCCESS, "success", "100%");
}

fn frame(out: &mut String, (top, height): (f64, f64), name: &str, most: &str) {
    writeln!(
        out,
        "<rect x=\"{LEFT}\" y=\"{top}\" width=\"{}\" height=\"{height}\" fill=\"none\" stroke=\"#bbbbbb\"/>\
         <text x=\"{x}\" y=\"{}\" text-anchor=\"end\" fill=\"#444444\">{most}</text>\
         <text x=\"{x}\" y=\"{}\" text-anchor=\"end\" fill=\"#444444\">{name}</text>\
         <text x=\"{x}\" y=\"{}\" text-anchor=\"end\" fill=\"#444444\">0%</text>",
        WIDTH - LEFT - RIGHT,
        top + 10.0,
        top + height / 2.0 + 4.0,
        top + height,
        x = LEFT - 6.0,
    )
    .unwrap();
}

fn legend(out: &mut String, versions: &[&str]) {
    let (top, height) = SHARES;
    for (index, version) in versions.iter().enumerate() {
        let x = LEFT + 90.0 * number(index);
        writeln!(
            out,
            "<rect x=\"{x}\" y=\"{}\" width=\"12\" height=\"12\" fill=\"{}\"/><text x=\"{}\" y=\"{}\" fill=\"#222222\">{}</text>",
            top + height + 10.0,
            COLOURS[index % COLOURS.len()],
            x + 17.0,
            top + height + 20.0,
            escaped(version)
        )
        .unwrap();
    }
}

/// Ten seconds and more.
fn axis(out: &mut String, buckets: usize, scale: f64) {
    let seconds = number(buckets) * BUCKET.as_secs_f64();
    let mut at = 0.0;
    while at <= seconds {
        let x = LEFT + scale * at / BUCKET.as_secs_f64();
        let y = SUCCESS.0 + SUCCESS.1 + 15.0;
        writeln!(
            out,
            "<text x=\"{x:.1}\" y=\"{y}\" text-anchor=\"middle\" fill=\"#444444\" font-size=\"10\">{at:.0}s</text>"
        )
        .unwrap();
        at += 10.0;
    }
}

fn number(count: usize) -> f64 {
    f64::from(u32::try_from(count).unwrap())
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
}
