//! A value that is about to be written, made of parts that belong to others: what is rendered with every step is not copied
//! into a tree of JSON first.

use std::borrow::Cow;

use serde_json::{Map, Number, Value};

/// A value to write.
#[derive(Debug, Clone)]
pub enum Part<'a> {
    /// Yes or no.
    Truth(bool),
    /// A whole number.
    Whole(u64),
    /// A text.
    Text(Cow<'a, str>),
    /// Items, in order.
    List(Vec<Self>),
    /// Entries in the order of their keys, each key once; see [`Part::mapping`].
    Mapping(Vec<(Cow<'a, str>, Self)>),
    /// Whatever somebody else wrote.
    Json(Cow<'a, Value>),
}

/// A value as it is laid out.
#[derive(Debug, Clone, Copy)]
pub(super) enum View<'v> {
    Null,
    Truth(bool),
    Whole(u64),
    Number(&'v Number),
    Text(&'v str),
    List(&'v [Part<'v>]),
    Values(&'v [Value]),
    Mapping(&'v [(Cow<'v, str>, Part<'v>)]),
    Object(&'v Map<String, Value>),
}

impl<'a> Part<'a> {
    /// A mapping of these entries. Of two with the same key the later one counts.
    pub fn mapping<K: Into<Cow<'a, str>>>(entries: impl IntoIterator<Item = (K, Self)>) -> Self {
        let entries = entries.into_iter();
        let mut entries: Vec<(Cow<'a, str>, Self)> =
            entries.map(|(key, part)| (key.into(), part)).collect();
        // The order of equal keys is kept; the last of them comes first then, and stays.
        entries.reverse();
        entries.sort_by(|(one, _), (other, _)| one.cmp(other));
        entries.dedup_by(|(later, _), (first, _)| later == first);
        Self::Mapping(entries)
    }

    /// The same as JSON.
    pub fn to_json(&self) -> Value {
        match self {
            Self::Truth(truth) => (*truth).into(),
            Self::Whole(number) => (*number).into(),
            Self::Text(text) => (**text).into(),
            Self::List(items) => items.iter().map(Self::to_json).collect(),
            Self::Mapping(entries) => {
                let entries = entries.iter();
                let entries = entries.map(|(key, part)| ((**key).to_owned(), part.to_json()));
                Value::Object(entries.collect())
            }
            Self::Json(value) => Value::clone(value),
        }
    }

    pub(super) fn view(&self) -> View<'_> {
        match self {
            Self::Truth(truth) => View::Truth(*truth),
            Self::Whole(number) => View::Whole(*number),
            Self::Text(text) => View::Text(text),
            Self::List(items) => View::List(items),
            Self::Mapping(entries) => View::Mapping(entries),
            Self::Json(value) => View::of_json(value),
        }
    }
}

impl<'v> View<'v> {
    pub(super) fn of_json(value: &'v Value) -> Self {
        match value {
            Value::Null => Self::Null,
            Value::Bool(truth) => Self::Truth(*truth),
            Value::Number(number) => Self::Number(number),
            Value::String(text) => Self::Text(text),
            Value::Array(items) => Self::Values(items),
            Value::Object(entries) => Self::Object(entries),
        }
    }

    /// Whether it stands on lines of its own.
    pub(super) fn is_collection(&self) -> bool {
        match self {
            Self::List(items) => !items.is_empty(),
            Self::Values(items) => !items.is_empty(),
            Self::Mapping(entries) => !entries.is_empty(),
            Self::Object(entries) => !entries.is_empty(),
            Self::Null | Self::Truth(_) | Self::Whole(_) | Self::Number(_) | Self::Text(_) => false,
        }
    }
}

impl From<bool> for Part<'_> {
    fn from(truth: bool) -> Self {
        Self::Truth(truth)
    }
}

impl From<u64> for Part<'_> {
    fn from(number: u64) -> Self {
        Self::Whole(number)
    }
}

impl From<u32> for Part<'_> {
    fn from(number: u32) -> Self {
        Self::Whole(number.into())
    }
}

impl From<u16> for Part<'_> {
    fn from(number: u16) -> Self {
        Self::Whole(number.into())
    }
}

impl From<u8> for Part<'_> {
    fn from(number: u8) -> Self {
        Self::Whole(number.into())
    }
}

impl<'a> From<&'a str> for Part<'a> {
    fn from(text: &'a str) -> Self {
        Self::Text(text.into())
    }
}

impl<'a> From<&'a String> for Part<'a> {
    fn from(text: &'a String) -> Self {
        Self::Text(text.into())
    }
}

impl From<String> for Part<'_> {
    fn from(text: String) -> Self {
        Self::Text(text.into())
    }
}

impl<'a> From<&'a Value> for Part<'a> {
    fn from(value: &'a Value) -> Self {
        Self::Json(Cow::Borrowed(value))
    }
}

impl From<Value> for Part<'_> {
    fn from(value: Value) -> Self {
        Self::Json(Cow::Owned(value))
    }
}

impl<'a, P: Into<Self>> FromIterator<P> for Part<'a> {
    fn from_iter<I: IntoIterator<Item = P>>(items: I) -> Self {
        Self::List(items.into_iter().map(Into::into).collect())
    }
}
