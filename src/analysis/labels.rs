//! Labels of a series: names with values, in one piece of memory.

use std::fmt;

/// Labels by name. An answer has hundreds of thousands, so all texts of a series share one allocation.
#[derive(Clone, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Labels {
    /// Names and values one after another, sorted by name.
    text: String,
    /// Where each name and its value end in `text`.
    ends: Vec<(u32, u32)>,
}

/// Room for the labels of one series of Istio's, grouped as the queries group them.
const USUAL: (usize, usize) = (192, 8);

impl Labels {
    /// No labels yet, with room for the usual ones.
    pub fn roomy() -> Self {
        Self {
            text: String::with_capacity(USUAL.0),
            ends: Vec::with_capacity(USUAL.1),
        }
    }

    /// Sets a label. Cheap when names come in order, as Prometheus sends them.
    pub fn set(&mut self, name: &str, value: &str) {
        if self.iter().next_back().is_none_or(|(last, _)| last < name) {
            self.text.push_str(name);
            let middle = self.text.len();
            self.text.push_str(value);
            // A body is bounded far below 4 GiB.
            let end = |at: usize| u32::try_from(at).unwrap_or(u32::MAX);
            self.ends.push((end(middle), end(self.text.len())));
            return;
        }
        let mut all: Vec<(String, String)> = self
            .iter()
            .filter(|(known, _)| *known != name)
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .collect();
        all.push((name.to_owned(), value.to_owned()));
        all.sort();
        *self = Self::roomy();
        for (name, value) in all {
            self.set(&name, &value);
        }
    }

    /// The value of a label.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.iter()
            .find(|(known, _)| *known == name)
            .map(|(_, value)| value)
    }

    /// The value of a label; an absent one is empty, as for Prometheus.
    pub fn value(&self, name: &str) -> &str {
        self.get(name).unwrap_or_default()
    }

    /// The values of several labels.
    pub fn values<const N: usize>(&self, names: [&str; N]) -> [&str; N] {
        names.map(|name| self.value(name))
    }

    /// Removes a label.
    pub fn remove(&mut self, name: &str) {
        let kept = self.iter().filter(|(known, _)| *known != name);
        *self = kept.collect();
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// Names and values, by name.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = (&str, &str)> {
        (0..self.ends.len()).filter_map(|index| {
            let before = index.checked_sub(1).and_then(|index| self.ends.get(index));
            let start = before.map_or(0, |(_, end)| *end as usize);
            let (middle, end) = self.ends.get(index)?;
            let (middle, end) = (*middle as usize, *end as usize);
            Some((self.text.get(start..middle)?, self.text.get(middle..end)?))
        })
    }
}

impl<N: AsRef<str>, V: AsRef<str>> FromIterator<(N, V)> for Labels {
    fn from_iter<I: IntoIterator<Item = (N, V)>>(all: I) -> Self {
        let mut labels = Self::default();
        for (name, value) in all {
            labels.set(name.as_ref(), value.as_ref());
        }
        labels
    }
}

impl fmt::Debug for Labels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.iter()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    proptest! {
        /// They are a map, whatever the order in which labels come.
        #[test]
        fn labels_are_a_map(all in prop::collection::vec(("[a-e]{0,2}", ".{0,4}"), 0..12)) {
            let labels: Labels = all.iter().cloned().collect();
            let mut map: BTreeMap<String, String> = all.into_iter().collect();
            prop_assert!(labels.iter().eq(map.iter().map(|(n, v)| (n.as_str(), v.as_str()))));
            prop_assert_eq!(format!("{labels:?}"), format!("{map:?}"));
            prop_assert_eq!(labels.is_empty(), map.is_empty());
            for name in ["", "a", "bc", "z"] {
                prop_assert_eq!(labels.get(name), map.get(name).map(String::as_str));
            }
            let mut less = labels.clone();
            less.remove("a");
            map.remove("a");
            prop_assert_eq!(less, map.into_iter().collect::<Labels>());
        }
    }
}
