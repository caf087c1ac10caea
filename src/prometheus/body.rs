//! The body of an answer as series: one pass over the text, straight into what is kept.
//!
//! The types of `prometheus-http-query` buffer every series before they know its sort, which for 200,000 series takes
//! several times as long as the parser itself; the crate builds the requests.

use std::borrow::Cow;
use std::fmt;

use chrono::DateTime;
use serde::de::{
    Deserialize, DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor,
};

use crate::analysis::{AskError, Labels, Series};
use crate::domain::Timestamp;

/// Most warnings that are read: one is enough to refuse the answer.
const MAX_WARNINGS: usize = 10;

/// What the HTTP API wraps around every answer. Warnings make an answer partial; `infos` are advice on style.
#[derive(serde::Deserialize)]
pub(super) struct Envelope {
    pub(super) status: String,
    pub(super) data: Option<Data>,
    #[serde(rename = "errorType")]
    pub(super) error_type: Option<String>,
    pub(super) error: Option<String>,
    #[serde(default)]
    pub(super) warnings: Vec<String>,
}

#[derive(serde::Deserialize)]
pub(super) struct Data {
    #[serde(rename = "resultType")]
    kind: String,
    result: Found,
}

/// Elements of `result`: series, or the two parts of a scalar or string.
#[derive(Default)]
struct Found {
    series: Vec<Series>,
    number: Option<f64>,
    text: Option<String>,
    /// What makes the series unusable, if anything does: said only where series were asked for.
    problem: Option<String>,
}

/// A sample: seconds, and a number in quotes.
struct Sample(f64, f64);

impl Sample {
    fn timed(self) -> Result<(Timestamp, f64), String> {
        Ok((time(self.0)?, self.1))
    }
}

/// Parses a whole body. What Prometheus says of an error is an error here.
///
/// # Errors
/// The body is no answer, a partial one, or of another sort than was asked for.
pub fn parse(body: &[u8], range: bool) -> Result<Vec<Series>, AskError> {
    let envelope: Envelope =
        serde_json::from_slice(body).map_err(|error| AskError::Unusable(error.to_string()))?;
    envelope.series(range)
}

impl Envelope {
    /// The series of a success.
    pub(super) fn series(self, range: bool) -> Result<Vec<Series>, AskError> {
        if !self.warnings.is_empty() {
            let warnings = self.warnings.get(..MAX_WARNINGS).unwrap_or(&self.warnings);
            return Err(AskError::Partial(super::answer::words(
                &warnings.join("; "),
            )));
        }
        match self.data {
            Some(data) if self.status == "success" => {
                data.series(range).map_err(AskError::Unusable)
            }
            _ => Err(AskError::Unusable(
                "it has neither data nor an error".to_owned(),
            )),
        }
    }
}

impl Data {
    fn series(self, range: bool) -> Result<Vec<Series>, String> {
        match (self.kind.as_str(), range) {
            ("vector", false) | ("matrix", true) => match self.result.problem {
                Some(problem) => Err(problem),
                None => Ok(self.result.series),
            },
            ("scalar", false) => {
                let value = self.result.text.as_deref().and_then(number);
                let (Some(seconds), Some(value)) = (self.result.number, value) else {
                    return Err("it has a scalar without a time and a number".to_owned());
                };
                Ok(vec![Series {
                    labels: Labels::default(),
                    samples: vec![(time(seconds)?, value)],
                }])
            }
            ("matrix", false) => Err("it has a range of values where one was asked for".to_owned()),
            ("vector" | "scalar", true) => {
                Err("it has one value where a range was asked for".to_owned())
            }
            ("string", _) => Err("it has a string where numbers were asked for".to_owned()),
            (other, _) => Err(format!(
                "it has a result of the type `{}`, a vector or a matrix was expected",
                other.chars().take(40).collect::<String>()
            )),
        }
    }
}

/// Prometheus gives times as seconds with up to three decimals.
fn time(seconds: f64) -> Result<Timestamp, String> {
    let millis = (seconds * 1000.0).round();
    let at = millis
        .is_finite()
        .then(|| DateTime::from_timestamp_millis(millis as i64))
        .flatten();
    at.ok_or_else(|| format!("it has a sample at the time {seconds:e}"))
}

/// A number in quotes; `NaN`, `+Inf` and `-Inf` are numbers too.
fn number(text: &str) -> Option<f64> {
    text.parse().ok()
}

impl<'de> Deserialize<'de> for Found {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Elements;
        impl<'de> Visitor<'de> for Elements {
            type Value = Found;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list of series, or a time and a value")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Found, A::Error> {
                let mut found = Found::default();
                while let Some(element) = list.next_element()? {
                    match element {
                        Element::Series(Ok(series)) => found.series.push(series),
                        Element::Series(Err(problem)) => {
                            found.problem.get_or_insert(problem);
                        }
                        Element::Number(number) => found.number = Some(number),
                        Element::Text(text) => found.text = Some(text),
                    }
                }
                Ok(found)
            }
        }
        deserializer.deserialize_seq(Elements)
    }
}

enum Element {
    Series(Result<Series, String>),
    Number(f64),
    Text(String),
}

impl<'de> Deserialize<'de> for Element {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Any;
        impl<'de> Visitor<'de> for Any {
            type Value = Element;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a series with `metric` and `value` or `values`")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut fields: A) -> Result<Element, A::Error> {
                let mut series = Series {
                    labels: Labels::default(),
                    samples: Vec::new(),
                };
                let mut problem = None;
                while let Some(key) = fields.next_key::<Field>()? {
                    match key {
                        Field::Metric => series.labels = fields.next_value_seed(Metric)?,
                        Field::Value => match fields.next_value::<Sample>()?.timed() {
                            Ok(sample) => series.samples = vec![sample],
                            Err(words) => problem = Some(words),
                        },
                        Field::Values => {
                            let list: Vec<Sample> = fields.next_value()?;
                            match list.into_iter().map(Sample::timed).collect() {
                                Ok(samples) => series.samples = samples,
                                Err(words) => problem = Some(words),
                            }
                        }
                        Field::Histogram => {
                            let words = "it has native histograms where numbers were asked for; take \
                                         numbers out of them with histogram_count and histogram_fraction";
                            problem = Some(words.to_owned());
                            fields.next_value::<IgnoredAny>()?;
                        }
                        Field::Other => {
                            fields.next_value::<IgnoredAny>()?;
                        }
                    }
                }
                if !series.samples.is_sorted_by_key(|(at, _)| *at) {
                    series.samples.sort_by_key(|(at, _)| *at);
                }
                Ok(Element::Series(problem.map_or(Ok(series), Err)))
            }

            fn visit_f64<E>(self, number: f64) -> Result<Element, E> {
                Ok(Element::Number(number))
            }

            fn visit_u64<E>(self, number: u64) -> Result<Element, E> {
                Ok(Element::Number(number as f64))
            }

            fn visit_i64<E>(self, number: i64) -> Result<Element, E> {
                Ok(Element::Number(number as f64))
            }

            fn visit_str<E>(self, text: &str) -> Result<Element, E> {
                Ok(Element::Text(text.to_owned()))
            }
        }
        deserializer.deserialize_any(Any)
    }
}

/// Reads labels into one piece of memory.
struct Metric;

impl<'de> DeserializeSeed<'de> for Metric {
    type Value = Labels;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Labels, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Metric {
    type Value = Labels;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("labels")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Labels, A::Error> {
        let mut labels = Labels::roomy();
        while let Some(Text(name)) = map.next_key()? {
            let Text(value) = map.next_value()?;
            labels.set(&name, &value);
        }
        Ok(labels)
    }
}

/// A text that is copied only where it has escapes.
#[derive(serde::Deserialize)]
struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

#[derive(serde::Deserialize)]
#[serde(field_identifier, rename_all = "lowercase")]
enum Field {
    Metric,
    Value,
    Values,
    #[serde(alias = "histograms")]
    Histogram,
    #[serde(other)]
    Other,
}

impl<'de> Deserialize<'de> for Sample {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Pair;
        impl<'de> Visitor<'de> for Pair {
            type Value = Sample;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a time and a number in quotes")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut pair: A) -> Result<Sample, A::Error> {
                use serde::de::Error;
                let short = || A::Error::invalid_length(2, &"a time and a number in quotes");
                let at: f64 = pair.next_element()?.ok_or_else(short)?;
                let Quoted(value) = pair.next_element()?.ok_or_else(short)?;
                if pair.next_element::<IgnoredAny>()?.is_some() {
                    return Err(A::Error::invalid_length(
                        3,
                        &"a time and a number in quotes",
                    ));
                }
                Ok(Sample(at, value))
            }
        }
        deserializer.deserialize_seq(Pair)
    }
}

/// A number in quotes.
struct Quoted(f64);

impl<'de> Deserialize<'de> for Quoted {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Text;
        impl Visitor<'_> for Text {
            type Value = Quoted;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a number in quotes")
            }

            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Quoted, E> {
                number(text)
                    .map(Quoted)
                    .ok_or_else(|| E::invalid_value(serde::de::Unexpected::Str(text), &self))
            }
        }
        deserializer.deserialize_str(Text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const GOOD: &str = r#"{"status":"success","data":{"resultType":"vector","result":[{"metric":{"pod":"a"},"value":[1700000000,"5"]},{"metric":{},"value":[1700000000.5,"NaN"]}]}}"#;

    fn said(body: &str) -> String {
        match parse(body.as_bytes(), false) {
            Ok(series) => format!("{} series", series.len()),
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn answers_of_every_sort() {
        assert_eq!(said(GOOD), "2 series");
        let of = |data: &str| said(&format!("{{\"status\":\"success\",\"data\":{data}}}"));
        let lines = [
            of(r#"{"resultType":"scalar","result":[1700000000,"3"]}"#),
            of(r#"{"resultType":"scalar","result":[1700000000]}"#),
            of(r#"{"resultType":"string","result":[1700000000,"three"]}"#),
            of(r#"{"resultType":"matrix","result":[{"metric":{},"values":[[1,"2"]]}]}"#),
            of(r#"{"resultType":"vector","result":[{"metric":{},"histogram":[1,{"count":"2"}]}]}"#),
            of(r#"{"resultType":"vector","result":[{"metric":{},"value":[1e300,"2"]}]}"#),
            of(r#"{"resultType":"vector","result":[{"metric":{},"value":[1]}]}"#),
            of(r#"{"resultType":"vector","result":[{"metric":{},"value":[1,"2","3"]}]}"#),
            of(r#"{"resultType":"vector","result":[{"metric":{},"value":[1,"two"]}]}"#),
            of(r#"{"resultType":"vector","result":[{"metric":{"a":1},"value":[1,"2"]}]}"#),
            of(r#"{"resultType":"tensor","result":[]}"#),
            of("null"),
            said(
                r#"{"status":"success","warnings":["a store is down"],"data":{"resultType":"vector","result":[]}}"#,
            ),
            said("[]"),
        ];
        insta::assert_snapshot!(lines.join("\n"), @r#"
        1 series
        Prometheus gave an unusable answer: it has a scalar without a time and a number
        Prometheus gave an unusable answer: it has a string where numbers were asked for
        Prometheus gave an unusable answer: it has a range of values where one was asked for
        Prometheus gave an unusable answer: it has native histograms where numbers were asked for; take numbers out of them with histogram_count and histogram_fraction
        Prometheus gave an unusable answer: it has a sample at the time 1e300
        Prometheus gave an unusable answer: invalid length 2, expected a time and a number in quotes at line 1 column 84
        Prometheus gave an unusable answer: invalid length 3, expected a time and a number in quotes at line 1 column 92
        Prometheus gave an unusable answer: invalid value: string "two", expected a number in quotes at line 1 column 89
        Prometheus gave an unusable answer: invalid type: integer `1`, expected a string at line 1 column 76
        Prometheus gave an unusable answer: it has a result of the type `tensor`, a vector or a matrix was expected
        Prometheus gave an unusable answer: it has neither data nor an error
        Prometheus gave a partial answer: a store is down
        Prometheus gave an unusable answer: invalid length 0, expected struct Envelope with 5 elements at line 1 column 2
        "#);
    }

    proptest! {
        /// A body that breaks off, or in which bytes were changed, is an answer or an error, never a panic.
        #[test]
        fn broken_bodies_have_an_answer(cut in 0usize..300, at in 0usize..300, byte in any::<u8>()) {
            let mut body = GOOD.as_bytes().to_vec();
            if let Some(place) = body.get_mut(at) {
                *place = byte;
            }
            body.truncate(cut.max(1));
            let is_short = body.len() < GOOD.len();
            prop_assert!(!is_short || parse(&body, false).is_err());
        }
    }
}
