//! Elements of a list: matched by what they are called, changed in place, added and removed with their lines.

use serde_json::Value;

use super::mapping::runs;
use super::{EditError, Editor, Place, block, refuse, scalar};
use crate::yaml::node::Node;

/// Fields that tell elements apart, see the merge keys of the Kubernetes API.
const KEYS: [&str; 6] = [
    "name",
    "mountPath",
    "devicePath",
    "containerPort",
    "ip",
    "topologyKey",
];
/// Most pairs of elements that are compared; longer lists are matched by position.
const MOST_PAIRS: usize = 1_000_000;

/// Which new element stands for which old one.
#[derive(Debug, PartialEq, Eq)]
struct Match {
    /// For each old element the new one that it becomes; `None`: it goes.
    becomes: Vec<Option<usize>>,
    /// New elements, each with the old one that stays before it, if any.
    added: Vec<(usize, Option<usize>)>,
}

impl Match {
    fn of(old: &[Value], new: &[Value]) -> Self {
        let mut becomes = vec![None; old.len()];
        if old.len().saturating_mul(new.len()) <= MOST_PAIRS {
            for (one, other) in alignment(old, new) {
                becomes[one] = Some(other);
            }
        }
        // Between two that stay, what goes and what comes are the same elements, changed.
        let mut next = 0;
        let mut gap = Vec::new();
        for index in 0..=old.len() {
            let kept = becomes.get(index).copied().flatten();
            if kept.is_none() && index < old.len() {
                gap.push(index);
                continue;
            }
            let until = kept.unwrap_or(new.len());
            for (one, other) in gap.drain(..).zip(next..until) {
                becomes[one] = Some(other);
            }
            next = until + 1;
        }
        let mut added = Vec::new();
        let mut before = None;
        for index in 0..new.len() {
            match becomes.iter().position(|to| *to == Some(index)) {
                Some(kept) => before = Some(kept),
                None => added.push((index, before)),
            }
        }
        Self { becomes, added }
    }
}

/// How much two elements are the same: equal, of one name, or not at all.
fn likeness(one: &Value, other: &Value) -> u32 {
    let name = |value: &Value| {
        let key = KEYS.iter().find(|key| value.get(*key).is_some())?;
        Some((*key, value[*key].clone(), value["protocol"].clone()))
    };
    match (one == other, name(one), name(other)) {
        (true, ..) => 2,
        (false, Some(one), Some(other)) if one == other => 1,
        (false, ..) => 0,
    }
}

/// The pairs, in order, with the greatest likeness together; of several ways the one that moves least.
fn alignment(old: &[Value], new: &[Value]) -> Vec<(usize, usize)> {
    let likeness = |one: usize, other: usize| match likeness(&old[one], &new[other]) {
        0 => 0,
        likeness => likeness * 2 + u32::from(one == other),
    };
    let width = new.len() + 1;
    let mut best = vec![0_u32; (old.len() + 1) * width];
    for one in (0..old.len()).rev() {
        for other in (0..new.len()).rev() {
            let likeness = likeness(one, other);
            let paired = if likeness > 0 {
                likeness + best[(one + 1) * width + other + 1]
            } else {
                0
            };
            best[one * width + other] = paired
                .max(best[(one + 1) * width + other])
                .max(best[one * width + other + 1]);
        }
    }
    let mut pairs = Vec::new();
    let (mut one, mut other) = (0, 0);
    while one < old.len() && other < new.len() {
        let here = best[one * width + other];
        let likeness = likeness(one, other);
        if likeness > 0 && here == likeness + best[(one + 1) * width + other + 1] {
            pairs.push((one, other));
            (one, other) = (one + 1, other + 1);
        } else if here == best[(one + 1) * width + other] {
            one += 1;
        } else {
            other += 1;
        }
    }
    pairs
}

impl Editor<'_> {
    /// Turns the elements of `node` into `values`.
    pub(super) fn sequence(
        &mut self,
        node: &Node,
        items: &[Node],
        values: &[Value],
        place: Place,
    ) -> Result<(), EditError> {
        let old: Vec<Value> = items.iter().map(Node::to_json).collect();
        let matched = Match::of(&old, values);
        if matched.becomes.iter().all(Option::is_none) {
            return self.replace(node, &Value::Array(values.to_vec()), place);
        }
        let is_flow = self.content.get(node.span.start) == Some(&b'[');
        let dashes = if is_flow {
            Vec::new()
        } else {
            self.dashes(node, items)
        };
        for (index, item) in items.iter().enumerate() {
            if let Some(value) = matched.becomes[index].and_then(|to| values.get(to)) {
                let after = dashes.get(index).map(|dash| dash + 1);
                self.change(item, value, Place { after })?;
            }
        }
        let goes = runs(&matched.becomes, Option::is_none);
        if goes.is_empty() && matched.added.is_empty() {
            return Ok(());
        }
        if is_flow {
            let spans: Vec<_> = items.iter().map(|i| (i.span.start, i.span.end)).collect();
            for run in goes {
                self.remove_between_commas(node, &spans, run)?;
            }
            self.add_in_brackets(items, values, &matched);
            return Ok(());
        }
        if dashes.len() != items.len() {
            return Err(refuse(
                node,
                "elements of this list would have to come or go, and it is written in a way that is hard to follow: \
                 change it by hand",
            ));
        }
        for run in goes {
            self.remove_elements(items, &dashes, run)?;
        }
        self.add_elements(node, items, &dashes, values, &matched)
    }

    /// Where the dash of each element is; fewer when one is not found where it should be.
    fn dashes(&self, node: &Node, items: &[Node]) -> Vec<usize> {
        let column = node.span.start - self.line_start(node.span.start);
        let mut found = vec![node.span.start];
        for pair in items.windows(2) {
            let [before, item] = pair else { break };
            let mut at = self.next_line(before.span.end.max(before.span.start));
            let dash = loop {
                let Some(line) = at.filter(|line| line + column <= item.span.start) else {
                    break None;
                };
                let is_dash = self.content.get(line + column) == Some(&b'-');
                if is_dash && self.begins_line(line + column) {
                    break Some(line + column);
                }
                at = self.next_line(line);
            };
            match dash {
                Some(dash) => found.push(dash),
                None => break,
            }
        }
        found.retain(|dash| self.content.get(*dash) == Some(&b'-'));
        found
    }

    fn remove_elements(
        &mut self,
        items: &[Node],
        dashes: &[usize],
        (first, last): (usize, usize),
    ) -> Result<(), EditError> {
        let start = dashes[first];
        let end = items[last].span.end.max(dashes[last] + 1);
        if self.begins_line(start) {
            let (start, end) = self.lines(start, end);
            self.patch(start, end, "");
            return Ok(());
        }
        match dashes.get(last + 1) {
            Some(next) if !self.has_comment(end, *next) => {
                self.patch(start, *next, "");
                Ok(())
            }
            _ => Err(refuse(
                &items[first],
                "this element would have to go, and a comment or a dash is in the way: remove it by hand",
            )),
        }
    }

    fn add_elements(
        &mut self,
        node: &Node,
        items: &[Node],
        dashes: &[usize],
        values: &[Value],
        matched: &Match,
    ) -> Result<(), EditError> {
        let indent = node.span.column.saturating_sub(1);
        let gap = match (dashes.first(), items.first()) {
            (Some(dash), Some(item)) => {
                let between = self.content.get(dash + 1..item.span.start);
                between
                    .filter(|gap| gap.iter().all(|byte| *byte == b' '))
                    .map_or(1, |gap| gap.len().clamp(1, 8))
            }
            _ => 1,
        };
        for (before, group) in grouped(&matched.added) {
            let lines: Vec<String> = group
                .iter()
                .flat_map(|index| block::element(self.layout, indent, gap, &values[*index]))
                .collect();
            match before {
                Some(before) => {
                    let end = items[before].span.end.max(dashes[before] + 1);
                    self.add_lines(end, &lines);
                }
                None if self.begins_line(dashes[0]) => {
                    let at = self.line_start(dashes[0]);
                    let end = self.next_line(dashes[0]).unwrap_or(at);
                    let line_break = self.line_break(end);
                    let text: String = lines
                        .iter()
                        .flat_map(|line| [line.as_str(), line_break])
                        .collect();
                    self.patch(at, at, text);
                }
                None => {
                    return Err(refuse(
                        node,
                        "an element would have to be added at the front of this list: do that by hand",
                    ));
                }
            }
        }
        Ok(())
    }

    fn add_in_brackets(&mut self, items: &[Node], values: &[Value], matched: &Match) {
        for (before, group) in grouped(&matched.added) {
            let texts: Vec<String> = group.iter().map(|i| scalar::inline(&values[*i])).collect();
            let first_kept = matched.becomes.iter().position(Option::is_some);
            match (before, first_kept) {
                (Some(before), _) => {
                    let at = items[before].span.end;
                    self.patch(at, at, format!(", {}", texts.join(", ")));
                }
                (None, Some(kept)) => {
                    let at = items[kept].span.start;
                    self.patch(at, at, format!("{}, ", texts.join(", ")));
                }
                (None, None) => {}
            }
        }
    }
}

/// New elements that come behind the same old one, together.
fn grouped(added: &[(usize, Option<usize>)]) -> Vec<(Option<usize>, Vec<usize>)> {
    let mut groups: Vec<(Option<usize>, Vec<usize>)> = Vec::new();
    for (index, before) in added {
        match groups.last_mut() {
            Some((same, group)) if same == before => group.push(*index),
            _ => groups.push((*before, vec![*index])),
        }
    }
    groups
}
