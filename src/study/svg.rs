//! Plots as SVG files: plain shapes and text, no scripts, readable on light and dark pages.

use std::fmt::Write as _;

use super::chart::{Curve, LinePlot, RangePlot};
use super::interval::number;

const COLOURS: [&str; 6] = [
    "#0b7285", "#c92a2a", "#e8590c", "#868e96", "#5f3dc4", "#2b8a3e",
];
const GREY: &str = "#868e96";

/// Where the text of a line stands relative to its place.
#[derive(Clone, Copy)]
enum Anchor {
    Start,
    Middle,
    End,
}

/// A document being written.
struct Document(String);

impl Document {
    fn new(width: f64, height: f64, heading: &str) -> Self {
        let mut document = Self(format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" width=\"{width}\" height=\"{height}\" \
             font-family=\"system-ui, sans-serif\" font-size=\"12\">\n\
             <rect width=\"100%\" height=\"100%\" fill=\"#ffffff\"/>\n"
        ));
        document.text((12.0, 24.0), Anchor::Start, true, heading);
        document
    }

    fn text(&mut self, (x, y): (f64, f64), anchor: Anchor, is_bold: bool, words: &str) {
        let anchor = match anchor {
            Anchor::Start => "start",
            Anchor::Middle => "middle",
            Anchor::End => "end",
        };
        let weight = if is_bold { 600 } else { 400 };
        let words = words
            .replace('&', "&amp;")
            .replace('<', "&lt;")
            .replace('>', "&gt;");
        let _ = writeln!(
            self.0,
            "<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\" font-weight=\"{weight}\" fill=\"#212529\">{words}</text>"
        );
    }

    fn line(&mut self, from: (f64, f64), to: (f64, f64), style: &str) {
        let _ = writeln!(
            self.0,
            "<line x1=\"{:.1}\" y1=\"{:.1}\" x2=\"{:.1}\" y2=\"{:.1}\" {style}/>",
            from.0, from.1, to.0, to.1
        );
    }

    fn finished(mut self) -> String {
        self.0.push_str("</svg>\n");
        self.0
    }
}

/// Range plots one below the other, as one document.
pub fn ranges(heading: &str, plots: &[RangePlot]) -> String {
    const ROW: f64 = 20.0;
    const GAP: f64 = 64.0;
    let heights = plots.iter().map(|plot| plot.rows.len() as f64 * ROW + GAP);
    let mut document = Document::new(820.0, 40.0 + heights.sum::<f64>(), heading);
    let mut top = 64.0;
    for plot in plots {
        draw_ranges(&mut document, plot, top, ROW);
        top += plot.rows.len() as f64 * ROW + GAP;
    }
    document.finished()
}

fn draw_ranges(document: &mut Document, plot: &RangePlot, top: f64, row: f64) {
    let (left, width) = (190.0, 420.0);
    let x = |value: f64| left + width * plot.position(value);
    let bottom = top + plot.rows.len() as f64 * row;
    document.text((12.0, top - 12.0), Anchor::Start, true, &plot.title);
    for mark in plot.decades() {
        document.line((x(mark), top), (x(mark), bottom), "stroke=\"#dee2e6\"");
        let place = (x(mark), bottom + 15.0);
        document.text(place, Anchor::Middle, false, &(plot.mark)(mark));
    }
    for (index, one) in plot.rows.iter().enumerate() {
        let y = top + (index as f64 + 0.5) * row;
        let colour = if one.is_ours { COLOURS[0] } else { GREY };
        document.text((left - 10.0, y + 4.0), Anchor::End, one.is_ours, &one.label);
        let style = format!("stroke=\"{colour}\" stroke-width=\"2\"");
        document.line((x(one.low), y), (x(one.high), y), &style);
        let _ = writeln!(
            document.0,
            "<circle cx=\"{:.1}\" cy=\"{y:.1}\" r=\"4\" fill=\"{colour}\"/>",
            x(one.value)
        );
        let place = (left + width + 14.0, y + 4.0);
        document.text(place, Anchor::Start, one.is_ours, &one.text);
    }
}

/// The rectangle that curves are drawn in, and its scales.
struct Frame {
    across: (f64, f64),
    up: (f64, f64),
}

impl Frame {
    const LEFT: f64 = 70.0;
    const TOP: f64 = 50.0;
    const WIDTH: f64 = 700.0;
    const HEIGHT: f64 = 280.0;
    const RIGHT: f64 = Self::LEFT + Self::WIDTH;
    const BOTTOM: f64 = Self::TOP + Self::HEIGHT;

    fn x(&self, value: f64) -> f64 {
        Self::LEFT + Self::WIDTH * (value - self.across.0) / (self.across.1 - self.across.0)
    }

    fn y(&self, value: f64) -> f64 {
        let share = ((value - self.up.0) / (self.up.1 - self.up.0)).clamp(0.0, 1.0);
        Self::TOP + Self::HEIGHT * (1.0 - share)
    }

    fn points(&self, points: impl Iterator<Item = (f64, f64)>) -> String {
        let list: Vec<String> = points
            .map(|(at, value)| format!("{:.1},{:.1}", self.x(at), self.y(value)))
            .collect();
        list.join(" ")
    }
}

/// A line plot as a document.
pub fn lines(plot: &LinePlot) -> String {
    let frame = Frame {
        across: plot.span(),
        up: plot.range,
    };
    let height = Frame::BOTTOM + 60.0 + 18.0 * plot.curves.len() as f64;
    let mut document = Document::new(820.0, height, &plot.title);
    draw_axes(&mut document, plot, &frame);
    if let Some((level, name)) = &plot.level {
        let y = frame.y(*level);
        let style = "stroke=\"#c92a2a\" stroke-dasharray=\"5 4\"";
        document.line((Frame::LEFT, y), (Frame::RIGHT, y), style);
        document.text((Frame::RIGHT, y - 5.0), Anchor::End, false, name);
    }
    for (index, moment) in plot.moments.iter().enumerate() {
        let x = frame.x(moment.at);
        let style = format!("stroke=\"{GREY}\" stroke-dasharray=\"2 3\"");
        document.line((x, Frame::TOP), (x, Frame::BOTTOM), &style);
        // Neighbouring words stand on lines of their own.
        let y = Frame::TOP + 12.0 + 14.0 * (index % 8) as f64;
        let (place, anchor) = if x > Frame::RIGHT - 160.0 {
            (x - 4.0, Anchor::End)
        } else {
            (x + 4.0, Anchor::Start)
        };
        document.text((place, y), anchor, false, &moment.text);
    }
    for (index, curve) in plot.curves.iter().enumerate() {
        draw_curve(&mut document, curve, index, &frame);
    }
    document.finished()
}

fn draw_axes(document: &mut Document, plot: &LinePlot, frame: &Frame) {
    for quarter in 0..=4 {
        let part = f64::from(quarter) / 4.0;
        let value = frame.up.0 + (frame.up.1 - frame.up.0) * part;
        let place = frame.across.0 + (frame.across.1 - frame.across.0) * part;
        let y = frame.y(value);
        document.line((Frame::LEFT, y), (Frame::RIGHT, y), "stroke=\"#dee2e6\"");
        let beside = (Frame::LEFT - 8.0, y + 4.0);
        document.text(beside, Anchor::End, false, &number(value));
        let below = (frame.x(place), Frame::BOTTOM + 18.0);
        document.text(below, Anchor::Middle, false, &number(place));
    }
    let below = (Frame::RIGHT, Frame::BOTTOM + 34.0);
    document.text(below, Anchor::End, false, &plot.across);
    let above = (Frame::LEFT - 8.0, Frame::TOP - 10.0);
    document.text(above, Anchor::Start, false, &plot.up);
}

fn draw_curve(document: &mut Document, curve: &Curve, index: usize, frame: &Frame) {
    let colour = COLOURS.get(index % COLOURS.len()).copied().unwrap_or(GREY);
    let places = || curve.points.iter().map(|(at, _)| *at);
    if !curve.band.is_empty() {
        let lower = places().zip(curve.band.iter().map(|(low, _)| *low));
        let upper = places().zip(curve.band.iter().map(|(_, high)| *high));
        let back: Vec<(f64, f64)> = upper.collect();
        let around = frame.points(lower.chain(back.into_iter().rev()));
        let _ = writeln!(
            document.0,
            "<polygon points=\"{around}\" fill=\"{colour}\" opacity=\"0.15\"/>"
        );
    }
    let points = frame.points(curve.points.iter().copied());
    let _ = writeln!(
        document.0,
        "<polyline points=\"{points}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\"/>"
    );
    let y = Frame::BOTTOM + 52.0 + 18.0 * index as f64;
    let style = format!("stroke=\"{colour}\" stroke-width=\"4\"");
    document.line(
        (Frame::LEFT, y - 4.0),
        (Frame::LEFT + 18.0, y - 4.0),
        &style,
    );
    document.text((Frame::LEFT + 26.0, y), Anchor::Start, false, &curve.name);
}

#[cfg(test)]
mod tests {
    use super::super::chart::{Moment, Range};
    use super::*;

    fn is_well_formed(svg: &str) {
        assert!(
            svg.starts_with("<svg ") && svg.ends_with("</svg>\n"),
            "{svg}"
        );
        assert!(!svg.contains("NaN") && !svg.contains("inf"), "{svg}");
        assert_eq!(svg.matches("<text").count(), svg.matches("</text>").count());
    }

    #[test]
    fn ranges_with_awkward_names() {
        let plot = RangePlot {
            title: "a & b".to_owned(),
            rows: vec![Range {
                label: "a < b".to_owned(),
                value: 0.0,
                low: 0.0,
                high: 2.0,
                text: "0%".to_owned(),
                is_ours: true,
            }],
            scale: (1e-4, 1.0),
            mark: number,
        };
        let svg = ranges("x > y", &[plot.clone(), plot]);
        is_well_formed(&svg);
        assert!(svg.contains("a &lt; b") && svg.contains("a &amp; b") && svg.contains("x &gt; y"));
        assert_eq!(svg.matches("<circle").count(), 2);
    }

    #[test]
    fn curves_and_nothing_at_all() {
        let mut plot = LinePlot {
            title: "evidence".to_owned(),
            across: "seconds".to_owned(),
            up: "ln E".to_owned(),
            curves: vec![Curve {
                name: "Serin".to_owned(),
                points: vec![(0.0, 0.0), (15.0, 9.0)],
                band: vec![(0.0, 1.0), (4.0, 9.0)],
                letter: '*',
            }],
            level: Some((4.6, "roll back".to_owned())),
            moments: vec![Moment {
                at: 15.0,
                text: "20%".to_owned(),
            }],
            range: (0.0, 6.0),
        };
        let svg = lines(&plot);
        is_well_formed(&svg);
        assert!(svg.contains("<polyline") && svg.contains("<polygon"));
        plot.curves.clear();
        plot.moments.clear();
        is_well_formed(&lines(&plot));
    }
}
