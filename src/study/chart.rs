//! Plots as data, and drawn on a terminal; `svg` draws the same as files. Nothing here knows what a verdict is.

/// One line of a range plot: a value and the interval around it.
#[derive(Debug, Clone, PartialEq)]
pub struct Range {
    /// What it is about.
    pub label: String,
    /// The value.
    pub value: f64,
    /// Lower limit.
    pub low: f64,
    /// Upper limit.
    pub high: f64,
    /// The value in words.
    pub text: String,
    /// Whether to draw attention to it.
    pub is_ours: bool,
}

/// Values with intervals under a heading, on a scale of decades: shares of 0.01 % and of 60 % in one picture.
#[derive(Debug, Clone)]
pub struct RangePlot {
    /// The heading.
    pub title: String,
    /// The rows.
    pub rows: Vec<Range>,
    /// Least and greatest value of the scale; what is outside is drawn at the edge.
    pub scale: (f64, f64),
    /// Writes a value at the scale's marks.
    pub mark: fn(f64) -> String,
}

impl RangePlot {
    /// Where a value is, 0 to 1.
    pub(super) fn position(&self, value: f64) -> f64 {
        let (low, high) = self.scale;
        ((value.max(low) / low).ln() / (high / low).ln()).clamp(0.0, 1.0)
    }

    pub(super) fn decades(&self) -> Vec<f64> {
        let mut marks = Vec::new();
        let mut mark = self.scale.0;
        while mark <= self.scale.1 * 1.000_1 {
            marks.push(mark);
            mark *= 10.0;
        }
        marks
    }

    /// Lines for a terminal of which the plot takes `width` columns.
    pub fn lines(&self, width: usize) -> Vec<String> {
        let label = self
            .rows
            .iter()
            .map(|row| row.label.chars().count())
            .max()
            .unwrap_or_default();
        let column = |value: f64| (self.position(value) * (width - 1) as f64).round() as usize;
        let mut lines = vec![self.title.clone()];
        for row in &self.rows {
            let mut cells = vec![' '; width];
            for cell in cells
                .iter_mut()
                .take(column(row.high) + 1)
                .skip(column(row.low))
            {
                *cell = '─';
            }
            if let Some(cell) = cells.get_mut(column(row.value)) {
                *cell = if row.is_ours { '●' } else { '○' };
            }
            let cells: String = cells.into_iter().collect();
            lines.push(format!("  {:<label$}  {cells}  {}", row.label, row.text));
        }
        let mut axis = vec![' '; width + 8];
        for mark in self.decades() {
            for (offset, letter) in (self.mark)(mark).chars().enumerate() {
                if let Some(cell) = axis.get_mut(column(mark) + offset) {
                    *cell = letter;
                }
            }
        }
        let axis: String = axis.into_iter().collect();
        lines.push(format!("  {:<label$}  {axis}", "").trim_end().to_owned());
        lines
    }
}

/// One curve of a line plot.
#[derive(Debug, Clone, PartialEq)]
pub struct Curve {
    /// What it is.
    pub name: String,
    /// Points from left to right.
    pub points: Vec<(f64, f64)>,
    /// Lower and upper limits at the same places, if there are any.
    pub band: Vec<(f64, f64)>,
    /// The character that draws it on a terminal.
    pub letter: char,
}

/// A vertical line with a word.
#[derive(Debug, Clone, PartialEq)]
pub struct Moment {
    /// Where.
    pub at: f64,
    /// What happened there.
    pub text: String,
}

/// Curves over a common axis.
#[derive(Debug, Clone, PartialEq)]
pub struct LinePlot {
    /// The heading.
    pub title: String,
    /// What is on the horizontal axis.
    pub across: String,
    /// What is on the vertical axis.
    pub up: String,
    /// The curves.
    pub curves: Vec<Curve>,
    /// A horizontal line with a word, such as a threshold.
    pub level: Option<(f64, String)>,
    /// Moments.
    pub moments: Vec<Moment>,
    /// The range of the vertical axis.
    pub range: (f64, f64),
}

impl LinePlot {
    pub(super) fn span(&self) -> (f64, f64) {
        let places = || {
            let points = self.curves.iter().flat_map(|curve| &curve.points);
            points
                .map(|(x, _)| *x)
                .chain(self.moments.iter().map(|moment| moment.at))
        };
        let low = places().fold(f64::INFINITY, f64::min);
        let high = places().fold(f64::NEG_INFINITY, f64::max);
        match (low.is_finite() && high.is_finite(), low < high) {
            (true, true) => (low, high),
            (true, false) => (low - 0.5, low + 0.5),
            (false, _) => (0.0, 1.0),
        }
    }

    /// Lines for a terminal.
    pub fn lines(&self, width: usize, height: usize) -> Vec<String> {
        let (left, right) = self.span();
        let (bottom, top) = self.range;
        let column = |x: f64| ((x - left) / (right - left) * (width - 1) as f64).round() as usize;
        let row = |y: f64| {
            let share = ((y - bottom) / (top - bottom)).clamp(0.0, 1.0);
            height - 1 - (share * (height - 1) as f64).round() as usize
        };
        let mut cells = vec![vec![' '; width]; height];
        let mut set = |x: usize, y: usize, letter: char| {
            if let Some(cell) = cells.get_mut(y).and_then(|line| line.get_mut(x)) {
                *cell = letter;
            }
        };
        if let Some((level, _)) = &self.level {
            for x in 0..width {
                set(x, row(*level), '╌');
            }
        }
        for moment in &self.moments {
            for y in 0..height {
                set(column(moment.at), y, '┊');
            }
        }
        for curve in &self.curves {
            for (x, y) in sampled(&curve.points, left, right, width)
                .into_iter()
                .enumerate()
            {
                if let Some(y) = y {
                    set(x, row(y), curve.letter);
                }
            }
        }
        let mut lines = vec![self.title.clone()];
        for (index, line) in cells.into_iter().enumerate() {
            let value = top - (top - bottom) * index as f64 / (height - 1).max(1) as f64;
            let text: String = line.into_iter().collect();
            let edge = if index % 3 == 0 {
                super::interval::number(value)
            } else {
                String::new()
            };
            lines.push(format!("{edge:>8} │{}", text.trim_end()));
        }
        lines.push(format!("{:>8} └{}", "", "─".repeat(width)));
        let (low, high) = (
            super::interval::number(left),
            super::interval::number(right),
        );
        let gap = width.saturating_sub(low.len() + high.len());
        lines.push(format!(
            "{:>10}{low}{}{high}  {}",
            "",
            " ".repeat(gap),
            self.across
        ));
        for curve in &self.curves {
            lines.push(format!("{:>10}{} {}", "", curve.letter, curve.name));
        }
        if let Some((_, text)) = &self.level {
            lines.push(format!("{:>10}╌ {text}", ""));
        }
        for moment in &self.moments {
            let at = super::interval::number(moment.at);
            lines.push(format!("{:>10}┊ {at}: {}", "", moment.text));
        }
        lines
    }
}

/// The value of a curve at each column: the last point at or before it.
fn sampled(points: &[(f64, f64)], left: f64, right: f64, width: usize) -> Vec<Option<f64>> {
    let step = (right - left) / (width.max(2) - 1) as f64;
    (0..width)
        .map(|x| {
            let until = left + step * (x as f64 + 0.5);
            let (first, last) = (points.first()?.0, points.last()?.0);
            if until < first || until - step > last {
                return None;
            }
            points
                .iter()
                .rev()
                .find(|(at, _)| *at <= until)
                .map(|(_, y)| *y)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plot() -> RangePlot {
        let row = |label: &str, value: f64, is_ours| Range {
            label: label.to_owned(),
            value,
            low: value * 0.5,
            high: value * 2.0,
            text: format!("{}%", super::super::interval::number(value * 100.0)),
            is_ours,
        };
        RangePlot {
            title: "false rollback".to_owned(),
            rows: vec![
                row("ours", 0.002, true),
                row("a < b", 0.33, false),
                row("none", 0.0, false),
            ],
            scale: (1e-4, 1.0),
            mark: |value| format!("{}%", super::super::interval::number(value * 100.0)),
        }
    }

    #[test]
    fn ranges_on_a_terminal() {
        insta::assert_snapshot!(plot().lines(40).join("\n"), @r"
        false rollback
          ours             ───●───                         0.2%
          a < b                                 ───○───    33%
          none   ○                                         0%
                 0.01%     0.1%      1%       10%       100%
        ");
    }

    fn curves() -> LinePlot {
        LinePlot {
            title: "evidence".to_owned(),
            across: "seconds".to_owned(),
            up: "ln E".to_owned(),
            curves: vec![Curve {
                name: "Serin".to_owned(),
                points: (0..=10)
                    .map(|x| (f64::from(x) * 15.0, f64::from(x) * 0.6))
                    .collect(),
                band: Vec::new(),
                letter: '*',
            }],
            level: Some((4.6, "roll back".to_owned())),
            moments: vec![Moment {
                at: 60.0,
                text: "20%".to_owned(),
            }],
            range: (0.0, 6.0),
        }
    }

    #[test]
    fn curves_on_a_terminal() {
        insta::assert_snapshot!(curves().lines(31, 7).join("\n"), @r"
        evidence
               6 │            ┊                 *
                 │╌╌╌╌╌╌╌╌╌╌╌╌┊╌╌╌╌╌╌╌╌╌╌╌******╌
                 │            ┊     ******
               3 │            ┊  ***
                 │         ******
                 │   ******   ┊
               0 │***         ┊
                 └───────────────────────────────
                  0                           150  seconds
                  * Serin
                  ╌ roll back
                  ┊ 60: 20%
        ");
    }

    #[test]
    fn nothing_to_draw_is_drawn() {
        let mut empty = curves();
        empty.curves.clear();
        empty.moments.clear();
        assert!(!empty.lines(20, 5).is_empty());
    }
}
