//! Writing for people and for scripts: one locked stdout, aligned tables, JSON and YAML from the same values.

use std::io::{self, IsTerminal, Write};

use clap::ValueEnum;
use serde::Serialize;

use super::failure::{Failure, chain};

/// Which form a command's result takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub(super) enum Format {
    /// For people.
    #[default]
    Text,
    /// One JSON document.
    Json,
    /// One YAML document.
    Yaml,
}

/// When to use colours.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub(super) enum ColorChoice {
    /// On a terminal, unless `NO_COLOR` is set.
    #[default]
    Auto,
    /// Always.
    Always,
    /// Never.
    Never,
}

impl ColorChoice {
    /// Whether to colour what goes to a stream that is, or is not, a terminal.
    pub(super) fn applies(self, is_terminal: bool) -> bool {
        match self {
            Self::Always => true,
            Self::Never => false,
            Self::Auto => is_terminal && !no_color(),
        }
    }
}

/// Whether the user asked all programs to stay colourless, see <https://no-color.org>.
#[expect(
    clippy::disallowed_methods,
    reason = "NO_COLOR is configuration, and this is the command line"
)]
fn no_color() -> bool {
    std::env::var("NO_COLOR").is_ok_and(|value| !value.is_empty())
}

/// Whether the terminal can only print line after line.
#[expect(
    clippy::disallowed_methods,
    reason = "TERM is configuration, and this is the command line"
)]
fn is_dumb() -> bool {
    std::env::var("TERM").is_ok_and(|value| value == "dumb")
}

/// Says on standard error why a command could not do its work.
pub(super) fn complain(choice: ColorChoice, failure: &Failure) {
    let mut stderr = io::stderr();
    let color = choice.applies(stderr.is_terminal());
    let word = if color {
        "\x1b[31merror:\x1b[0m"
    } else {
        "error:"
    };
    // Nobody is left to be told when this cannot be written either.
    writeln!(stderr, "{word} {}", chain(failure)).ok();
}

/// A colour with a meaning.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Style {
    /// As it is.
    Plain,
    /// Headings.
    Bold,
    /// Less important than the rest.
    Dim,
    /// Well.
    Good,
    /// Not well.
    Bad,
    /// Wants attention.
    Notice,
}

impl Style {
    /// The SGR parameter.
    fn code(self) -> &'static str {
        match self {
            Self::Plain => "0",
            Self::Bold => "1",
            Self::Dim => "2",
            Self::Good => "32",
            Self::Bad => "31",
            Self::Notice => "33",
        }
    }
}

/// `text` in a style, if colours are on.
pub(super) fn paint(color: bool, style: Style, text: &str) -> String {
    if color && style != Style::Plain {
        format!("\x1b[{}m{text}\x1b[0m", style.code())
    } else {
        text.to_owned()
    }
}

/// Where a command writes its result.
pub(super) struct Console<'a> {
    out: &'a mut dyn Write,
    err: &'a mut dyn Write,
    color: bool,
    live: bool,
}

impl<'a> Console<'a> {
    /// Writes results to `out` and remarks to `err`; `color` says whether styles show.
    pub(super) fn new(out: &'a mut dyn Write, err: &'a mut dyn Write, color: bool) -> Self {
        Self {
            out,
            err,
            color,
            live: false,
        }
    }

    /// `text` in a style, or as it is where colours are off.
    pub(super) fn paint(&self, style: Style, text: &str) -> String {
        paint(self.color, style, text)
    }

    /// Whether what was written can be drawn over: a terminal whose user has nothing against it.
    pub(super) fn is_live(&self) -> bool {
        self.live
    }

    /// Writes one line.
    pub(super) fn line(&mut self, text: &str) -> Result<(), Failure> {
        writeln!(self.out, "{text}")?;
        Ok(())
    }

    /// Writes a remark that is no part of the result.
    pub(super) fn note(&mut self, text: &str) -> Result<(), Failure> {
        writeln!(self.err, "{text}")?;
        Ok(())
    }

    /// Writes bytes as they are.
    pub(super) fn bytes(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        self.out.write_all(bytes)?;
        Ok(())
    }

    /// Shows what was written so far.
    pub(super) fn flush(&mut self) -> Result<(), Failure> {
        self.out.flush()?;
        Ok(())
    }

    /// Writes a table with aligned columns.
    pub(super) fn table(&mut self, table: &Table) -> Result<(), Failure> {
        for line in table.lines(self.color) {
            self.line(&line)?;
        }
        Ok(())
    }

    /// Writes a value for scripts; `text` is called for people instead.
    pub(super) fn value<T: Serialize>(
        &mut self,
        format: Format,
        value: &T,
        text: impl FnOnce(&mut Self) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        match format {
            Format::Text => text(self),
            Format::Json => {
                let json = serde_json::to_string_pretty(value)
                    .map_err(|error| Failure::Output(io::Error::other(error)))?;
                self.line(&json)
            }
            Format::Yaml => {
                let yaml = serde_yaml::to_string(value)
                    .map_err(|error| Failure::Output(io::Error::other(error)))?;
                self.bytes(yaml.as_bytes())
            }
        }
    }
}

/// Runs `body` with the locked standard output and flushes it.
pub(super) fn with_stdout<T>(
    choice: ColorChoice,
    body: impl FnOnce(&mut Console<'_>) -> Result<T, Failure>,
) -> Result<T, Failure> {
    let stdout = io::stdout();
    let is_terminal = stdout.is_terminal();
    let color = choice.applies(is_terminal);
    let mut out = io::BufWriter::new(stdout.lock());
    let mut err = io::stderr();
    let mut console = Console::new(&mut out, &mut err, color);
    console.live = is_terminal && color && !is_dumb();
    let result = body(&mut console);
    // What was found before a failure is worth reading too; the first error wins.
    let flushed = console.flush();
    let value = result?;
    flushed?;
    Ok(value)
}

/// Rows of cells, shown with aligned columns.
#[derive(Debug, Default)]
pub(super) struct Table {
    header: Vec<&'static str>,
    rows: Vec<Row>,
}

/// One line of a table.
#[derive(Debug)]
enum Row {
    /// Cells, aligned with those above and below.
    Cells(Vec<(Style, String)>),
    /// A line that is no part of the alignment.
    Line(String),
}

impl Table {
    /// An empty table with these headings.
    pub(super) fn new(header: &[&'static str]) -> Self {
        Self {
            header: header.to_vec(),
            rows: Vec::new(),
        }
    }

    /// Adds a row.
    pub(super) fn row(&mut self, cells: Vec<(Style, String)>) {
        self.rows.push(Row::Cells(cells));
    }

    /// Adds a line about the row before it.
    pub(super) fn detail(&mut self, line: String) {
        self.rows.push(Row::Line(line));
    }

    /// The lines, without trailing spaces.
    fn lines(&self, color: bool) -> Vec<String> {
        let header = Row::Cells(
            self.header
                .iter()
                .map(|cell| (Style::Bold, (*cell).to_owned()))
                .collect(),
        );
        let all = (!self.header.is_empty())
            .then_some(&header)
            .into_iter()
            .chain(&self.rows);
        let mut widths: Vec<usize> = Vec::new();
        for row in all.clone() {
            let Row::Cells(cells) = row else { continue };
            for (index, (_, text)) in cells.iter().enumerate() {
                let width = display_width(text);
                match widths.get_mut(index) {
                    Some(known) => *known = width.max(*known),
                    None => widths.push(width),
                }
            }
        }
        all.map(|row| match row {
            Row::Cells(cells) => join(cells, &widths, color),
            Row::Line(line) => line.clone(),
        })
        .collect()
    }
}

/// One line of a table: two spaces between columns, the last column unpadded.
fn join(row: &[(Style, String)], widths: &[usize], color: bool) -> String {
    let mut line = String::new();
    let mut owed = 0;
    for ((style, text), width) in row.iter().zip(widths) {
        if !text.is_empty() {
            line.extend(std::iter::repeat_n(' ', owed));
            owed = 0;
            if color && *style != Style::Plain {
                line.push_str(&format!("\x1b[{}m{text}\x1b[0m", style.code()));
            } else {
                line.push_str(text);
            }
        }
        owed += width.saturating_sub(display_width(text)) + 2;
    }
    line
}

/// Columns that a text takes on a terminal, as far as one can tell without a table of all scripts.
fn display_width(text: &str) -> usize {
    text.chars().count()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(color: bool, body: impl FnOnce(&mut Console<'_>) -> Result<(), Failure>) -> String {
        let mut out = Vec::new();
        body(&mut Console::new(&mut out, &mut io::sink(), color)).unwrap();
        String::from_utf8(out).unwrap()
    }

    fn sample() -> Table {
        let mut table = Table::new(&["CANARY", "PHASE", "WEIGHT"]);
        table.row(vec![
            (Style::Plain, "test/podinfo".into()),
            (Style::Good, "Progressing".into()),
            (Style::Plain, "10%".into()),
        ]);
        table.row(vec![
            (Style::Plain, "a/bé".into()),
            (Style::Plain, String::new()),
            (Style::Plain, "0%".into()),
        ]);
        table
    }

    #[test]
    fn tables_are_aligned_without_trailing_spaces() {
        insta::assert_snapshot!(shown(false, |c| c.table(&sample())), @r"
        CANARY        PHASE        WEIGHT
        test/podinfo  Progressing  10%
        a/bé                       0%
        ");
    }

    #[test]
    fn colours_do_not_change_the_alignment() {
        let coloured = shown(true, |c| c.table(&sample()));
        let plain: String = coloured
            .replace("\x1b[0m", "")
            .replace("\x1b[1m", "")
            .replace("\x1b[32m", "");
        assert!(coloured.contains("\x1b[32mProgressing\x1b[0m"));
        assert_eq!(plain, shown(false, |c| c.table(&sample())));
    }

    #[test]
    fn the_same_value_as_text_json_and_yaml() {
        let value = serde_json::json!({"canary": "test/podinfo", "weight": 10});
        let show = |format| {
            shown(false, |console| {
                console.value(format, &value, |console| console.line("podinfo at 10%"))
            })
        };
        assert_eq!(show(Format::Text), "podinfo at 10%\n");
        assert_eq!(
            show(Format::Json),
            "{\n  \"canary\": \"test/podinfo\",\n  \"weight\": 10\n}\n"
        );
        assert_eq!(show(Format::Yaml), "canary: test/podinfo\nweight: 10\n");
    }

    #[test]
    fn colour_choices() {
        assert!(ColorChoice::Always.applies(false));
        assert!(!ColorChoice::Never.applies(true));
        assert!(!ColorChoice::Auto.applies(false));
    }

    #[test]
    fn a_reader_that_has_gone_is_not_an_error() {
        struct Gone;
        impl Write for Gone {
            fn write(&mut self, _: &[u8]) -> io::Result<usize> {
                Err(io::ErrorKind::BrokenPipe.into())
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let failure = Console::new(&mut Gone, &mut io::sink(), false)
            .line("x")
            .unwrap_err();
        assert!(failure.is_silent());
    }
}
