//! As much of PromQL as the demo needs: the queries that Serin asks, and those that its commits hand to people.
//!
//! Selectors with all four matchers, `@`, ranges, `sum|min|max|avg|count by|without`, `increase`, `rate`,
//! `histogram_quantile`, `label_replace` with an empty source, `vector`, `scalar`, `or`, and arithmetic with a number.
//! Everything else is a clear error.

mod evaluate;

use chrono::TimeDelta;
use regex_lite::Regex;

use super::traffic::Labels;
use crate::domain::Timestamp;

pub(super) use evaluate::evaluate;

/// Nesting of a query, so that a hostile one cannot exhaust the stack.
const MAX_DEPTH: usize = 100;

/// The value of an expression.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Value {
    /// One number.
    Scalar(f64),
    /// A number per label set.
    Vector(Vec<(Labels, f64)>),
}

/// A parsed query.
#[derive(Debug)]
pub(super) enum Expr {
    Number(f64),
    Text(String),
    Selector(Selector),
    Call(String, Vec<Self>),
    Aggregate {
        how: String,
        without: bool,
        labels: Vec<String>,
        of: Box<Self>,
    },
    Binary(Operator, Box<Self>, Box<Self>),
}

#[derive(Debug)]
pub(super) struct Selector {
    matchers: Vec<(String, Matcher)>,
    range: Option<TimeDelta>,
    at: Option<Timestamp>,
}

#[derive(Debug)]
enum Matcher {
    Is(String),
    IsNot(String),
    Like(Regex),
    Unlike(Regex),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Operator {
    Or,
    Plus,
    Minus,
    Times,
    Over,
}

/// Parses a query; the error is for people.
pub(super) fn parse(text: &str) -> Result<Expr, String> {
    let mut parser = Parser {
        text,
        at: 0,
        depth: 0,
    };
    let expr = parser.expression(0)?;
    parser.space();
    if parser.at < text.len() {
        return Err(format!(
            "unexpected `{}`",
            parser.rest().chars().take(20).collect::<String>()
        ));
    }
    Ok(expr)
}

struct Parser<'a> {
    text: &'a str,
    at: usize,
    depth: usize,
}

impl<'a> Parser<'a> {
    fn rest(&self) -> &'a str {
        self.text.get(self.at..).unwrap_or_default()
    }

    fn space(&mut self) {
        loop {
            let rest = self.rest();
            let trimmed = rest.trim_start();
            self.at += rest.len() - trimmed.len();
            if !trimmed.starts_with('#') {
                return;
            }
            self.at += trimmed.find('\n').unwrap_or(trimmed.len());
        }
    }

    fn take(&mut self, token: &str) -> bool {
        self.space();
        let found = self.rest().starts_with(token);
        if found {
            self.at += token.len();
        }
        found
    }

    fn expect(&mut self, token: &str) -> Result<(), String> {
        if self.take(token) {
            return Ok(());
        }
        let found: String = self.rest().chars().take(20).collect();
        Err(format!("expected `{token}`, found `{found}`"))
    }

    fn word(&mut self) -> Option<&'a str> {
        self.space();
        let rest = self.rest();
        let end = rest
            .find(|c: char| !(c.is_ascii_alphanumeric() || c == '_' || c == ':'))
            .unwrap_or(rest.len());
        let word = rest.get(..end)?;
        if word.is_empty() || word.starts_with(|c: char| c.is_ascii_digit()) {
            return None;
        }
        self.at += end;
        Some(word)
    }

    fn expression(&mut self, level: u8) -> Result<Expr, String> {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return Err("the query is nested too deeply".to_owned());
        }
        let expr = self.binary(level);
        self.depth -= 1;
        expr
    }

    /// Levels: 0 `or`, 1 `+ -`, 2 `* /`, 3 a single term.
    fn binary(&mut self, level: u8) -> Result<Expr, String> {
        if level == 3 {
            return self.term();
        }
        let mut left = self.binary(level + 1)?;
        while let Some(operator) = self.operator(level) {
            let right = self.binary(level + 1)?;
            left = Expr::Binary(operator, Box::new(left), Box::new(right));
        }
        Ok(left)
    }

    fn operator(&mut self, level: u8) -> Option<Operator> {
        let before = self.at;
        let found = match level {
            0 => self
                .word()
                .filter(|word| *word == "or")
                .map(|_| Operator::Or),
            1 if self.take("+") => Some(Operator::Plus),
            1 if self.take("-") => Some(Operator::Minus),
            2 if self.take("*") => Some(Operator::Times),
            2 if self.take("/") => Some(Operator::Over),
            _ => None,
        };
        if found.is_none() {
            self.at = before;
        }
        found
    }

    fn term(&mut self) -> Result<Expr, String> {
        if self.take("(") {
            let inner = self.expression(0)?;
            self.expect(")")?;
            return Ok(inner);
        }
        if self.take("-") {
            let of = self.expression(3)?;
            return Ok(Expr::Binary(
                Operator::Times,
                Box::new(Expr::Number(-1.0)),
                Box::new(of),
            ));
        }
        self.space();
        if self.rest().starts_with(['"', '\'']) {
            return self.string().map(Expr::Text);
        }
        if self
            .rest()
            .starts_with(|c: char| c.is_ascii_digit() || c == '.')
        {
            return self.number().map(Expr::Number);
        }
        if self.rest().starts_with('{') {
            return self.selector(None);
        }
        let Some(word) = self.word() else {
            let found: String = self.rest().chars().take(20).collect();
            return Err(format!("expected an expression, found `{found}`"));
        };
        if ["sum", "min", "max", "avg", "count"].contains(&word) {
            return self.aggregate(word);
        }
        if self.take("(") {
            return self.call(word);
        }
        self.selector(Some(word))
    }

    fn call(&mut self, name: &str) -> Result<Expr, String> {
        let mut arguments = Vec::new();
        while !self.take(")") {
            if !arguments.is_empty() {
                self.expect(",")?;
            }
            arguments.push(self.expression(0)?);
        }
        Ok(Expr::Call(name.to_owned(), arguments))
    }

    fn aggregate(&mut self, how: &str) -> Result<Expr, String> {
        let mut grouping = self.grouping()?;
        self.expect("(")?;
        let of = Box::new(self.expression(0)?);
        self.expect(")")?;
        if grouping.is_none() {
            grouping = self.grouping()?;
        }
        let (without, labels) = grouping.unwrap_or_default();
        Ok(Expr::Aggregate {
            how: how.to_owned(),
            without,
            labels,
            of,
        })
    }

    fn grouping(&mut self) -> Result<Option<(bool, Vec<String>)>, String> {
        let before = self.at;
        let without = match self.word() {
            Some("by") => false,
            Some("without") => true,
            _ => {
                self.at = before;
                return Ok(None);
            }
        };
        self.expect("(")?;
        let mut labels = Vec::new();
        while !self.take(")") {
            if !labels.is_empty() {
                self.expect(",")?;
            }
            labels.push(self.word().ok_or("expected a label name")?.to_owned());
        }
        Ok(Some((without, labels)))
    }

    fn selector(&mut self, name: Option<&str>) -> Result<Expr, String> {
        let mut matchers = Vec::new();
        if let Some(name) = name {
            matchers.push(("__name__".to_owned(), Matcher::Is(name.to_owned())));
        }
        if self.take("{") {
            let mut first = true;
            while !self.take("}") {
                if !first {
                    self.expect(",")?;
                    if self.take("}") {
                        break;
                    }
                }
                first = false;
                matchers.push(self.matcher()?);
            }
        }
        let mut range = None;
        if self.take("[") {
            range = Some(self.duration()?);
            self.expect("]")?;
        }
        let mut at = None;
        if self.take("@") {
            self.space();
            let seconds = self.number()?;
            let millis = (seconds * 1000.0) as i64;
            at = Some(
                Timestamp::from_timestamp_millis(millis)
                    .ok_or("the time after `@` is out of range")?,
            );
        }
        Ok(Expr::Selector(Selector {
            matchers,
            range,
            at,
        }))
    }

    fn matcher(&mut self) -> Result<(String, Matcher), String> {
        let label = self.word().ok_or("expected a label name")?.to_owned();
        let operators = ["=~", "!~", "!=", "="];
        let operator = operators.into_iter().find(|operator| self.take(operator));
        self.space();
        let value = self.string()?;
        let regex = || {
            Regex::new(&format!("^(?s:{value})$"))
                .map_err(|error| format!("bad regular expression: {error}"))
        };
        let matcher = match operator {
            Some("=") => Matcher::Is(value),
            Some("!=") => Matcher::IsNot(value),
            Some("=~") => Matcher::Like(regex()?),
            Some(_) => Matcher::Unlike(regex()?),
            None => return Err(format!("expected one of = != =~ !~ after `{label}`")),
        };
        Ok((label, matcher))
    }

    fn string(&mut self) -> Result<String, String> {
        let mut chars = self.rest().char_indices();
        let quote = match chars.next() {
            Some((_, quote @ ('"' | '\''))) => quote,
            _ => return Err("expected a string".to_owned()),
        };
        let mut value = String::new();
        while let Some((index, c)) = chars.next() {
            if c == quote {
                self.at += index + 1;
                return Ok(value);
            }
            match (c, if c == '\\' { chars.next() } else { None }) {
                ('\\', Some((_, 'n'))) => value.push('\n'),
                ('\\', Some((_, 't'))) => value.push('\t'),
                ('\\', Some((_, escaped @ ('\\' | '"' | '\'')))) => value.push(escaped),
                ('\\', _) => return Err("unknown escape sequence in a string".to_owned()),
                (plain, _) => value.push(plain),
            }
        }
        Err("unterminated string".to_owned())
    }

    fn number(&mut self) -> Result<f64, String> {
        let rest = self.rest();
        let mut end = 0;
        let mut previous = ' ';
        for (index, c) in rest.char_indices() {
            let sign = matches!(c, '+' | '-') && matches!(previous, 'e' | 'E');
            if !(c.is_ascii_digit() || matches!(c, '.' | 'e' | 'E') || sign) {
                break;
            }
            end = index + 1;
            previous = c;
        }
        let text = rest.get(..end).unwrap_or_default();
        self.at += end;
        text.parse()
            .map_err(|_| format!("`{text}` is not a number"))
    }

    fn duration(&mut self) -> Result<TimeDelta, String> {
        let mut total = TimeDelta::zero();
        loop {
            self.space();
            if self.rest().starts_with(']') {
                return Ok(total);
            }
            let end = self
                .rest()
                .find(|c: char| !c.is_ascii_digit())
                .unwrap_or_default();
            let digits = self.rest().get(..end).unwrap_or_default();
            let count: i64 = digits
                .parse()
                .map_err(|_| "expected a duration such as 5m")?;
            self.at += end;
            let units = [
                ("ms", 1),
                ("s", 1000),
                ("m", 60_000),
                ("h", 3_600_000),
                ("d", 86_400_000),
            ];
            let unit = units.into_iter().find(|(unit, _)| self.take(unit));
            let (_, millis) = unit.ok_or("expected a unit: ms, s, m, h or d")?;
            let part = count
                .checked_mul(millis)
                .and_then(TimeDelta::try_milliseconds);
            total = part
                .and_then(|part| total.checked_add(&part))
                .ok_or("the duration is too long")?;
        }
    }
}
