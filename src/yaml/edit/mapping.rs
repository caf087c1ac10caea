//! Fields of a mapping: changed in place, added at the end, removed with their lines.

use serde_json::{Map, Value};

use super::{EditError, Editor, Place, block, refuse, scalar};
use crate::yaml::node::Node;

type Entry = (Node, Node);

/// First byte behind the `:` of a key; `None` when it is not written as `key:`.
pub(super) fn colon(content: &[u8], key: &Node) -> Option<usize> {
    let rest = content.get(key.span.end..)?;
    let gap = rest.iter().take_while(|byte| **byte == b' ').count();
    (rest.get(gap) == Some(&b':')).then_some(key.span.end + gap + 1)
}

impl Editor<'_> {
    /// Turns the fields of `node` into `fields`.
    pub(super) fn mapping(
        &mut self,
        node: &Node,
        entries: &[Entry],
        fields: &Map<String, Value>,
        place: Place,
    ) -> Result<(), EditError> {
        // What a merge key (`<<`) brings in is written elsewhere; a field of the mapping's own takes precedence.
        let is_own = |(key, _): &&Entry| {
            let inside = key.span.start >= node.span.start && key.span.end <= node.span.end;
            inside && key.aliased == node.aliased
        };
        let own: Vec<&Entry> = entries.iter().filter(is_own).collect();
        let merged = || entries.iter().filter(|entry| !is_own(entry));
        if let Some((key, _)) = merged().find(|(key, _)| !fields.contains_key(&key.json_key())) {
            return Err(refuse(
                key,
                "this field would have to go where a merge key (`<<`) brings it in: change it by hand",
            ));
        }
        let stays = |entry: &Entry| fields.contains_key(&entry.0.json_key());
        if !own.iter().any(|entry| stays(entry)) && merged().next().is_none() {
            return self.replace(node, &Value::Object(fields.clone()), place);
        }
        let mut added = Vec::new();
        for (name, value) in fields {
            let present = own.iter().find(|(key, _)| key.json_key() == *name);
            let brought_in = merged().find(|(key, _)| key.json_key() == *name);
            match (present, brought_in) {
                (Some((key, old)), _) => {
                    let after = colon(self.content, key);
                    self.change(old, value, Place { after })?;
                }
                (None, Some((_, old))) if &old.to_json() == value => {}
                (None, _) => added.push((name.as_str(), value)),
            }
        }
        let is_flow = self.content.get(node.span.start) == Some(&b'{');
        for run in runs(&own, |entry| !stays(entry)) {
            if is_flow {
                let ends: Vec<(usize, usize)> = own
                    .iter()
                    .map(|entry| (entry.0.span.start, self.end_of(entry)))
                    .collect();
                self.remove_between_commas(node, &ends, run)?;
            } else {
                self.remove_fields(&own, run)?;
            }
        }
        match (added.is_empty(), is_flow) {
            (true, _) => Ok(()),
            (false, true) => self.add_in_braces(node, &own, stays, &added),
            (false, false) => {
                self.add_fields(node, &own, &added);
                Ok(())
            }
        }
    }

    fn end_of(&self, (key, value): &Entry) -> usize {
        let colon = colon(self.content, key).unwrap_or(key.span.end);
        value.span.end.max(colon)
    }

    /// Removes the fields `first..=last` of a block mapping, trailing comments included.
    fn remove_fields(
        &mut self,
        own: &[&Entry],
        (first, last): (usize, usize),
    ) -> Result<(), EditError> {
        let (Some(from), Some(to)) = (own.get(first), own.get(last)) else {
            return Ok(());
        };
        let (start, end) = (from.0.span.start, self.end_of(to));
        if self.begins_line(start) {
            let (start, end) = self.lines(start, end);
            self.patch(start, end, "");
            return Ok(());
        }
        // It shares its line with a dash: the next field moves up to it.
        match own.get(last + 1) {
            Some((next, _)) if first == 0 && !self.has_comment(end, next.span.start) => {
                self.patch(start, next.span.start, "");
                Ok(())
            }
            _ => Err(refuse(
                &from.0,
                "this field would have to go, and a comment or a dash is in the way: remove it by hand",
            )),
        }
    }

    fn add_fields(&mut self, node: &Node, own: &[&Entry], added: &[(&str, &Value)]) {
        let indent = own
            .first()
            .map_or(node.span.column, |(key, _)| key.span.column)
            .saturating_sub(1);
        let end = own.last().map_or(node.span.end, |entry| self.end_of(entry));
        let lines: Vec<String> = added
            .iter()
            .flat_map(|(key, value)| block::field(self.layout, indent, key, value))
            .collect();
        self.add_lines(end, &lines);
    }

    fn add_in_braces(
        &mut self,
        node: &Node,
        own: &[&Entry],
        stays: impl Fn(&Entry) -> bool,
        added: &[(&str, &Value)],
    ) -> Result<(), EditError> {
        let last = own
            .iter()
            .rfind(|entry| stays(entry))
            .ok_or_else(|| refuse(node, "fields would have to be added here: do that by hand"))?;
        let at = self.end_of(last);
        let text: String = added
            .iter()
            .map(|(key, value)| format!(", {}: {}", scalar::key(key), scalar::inline(value)))
            .collect();
        self.patch(at, at, text);
        Ok(())
    }

    /// Removes elements `first..=last` of a flow collection, with the comma between them and what stays.
    pub(super) fn remove_between_commas(
        &mut self,
        node: &Node,
        elements: &[(usize, usize)],
        (first, last): (usize, usize),
    ) -> Result<(), EditError> {
        let at = |index: usize| elements.get(index).copied().unwrap_or_default();
        let (start, end) = match first.checked_sub(1) {
            Some(before) => (at(before).1, at(last).1),
            None if last + 1 < elements.len() => (at(first).0, at(last + 1).0),
            None => return Ok(()),
        };
        if self.has_comment(start, at(first).0) || self.has_comment(at(last).1, end) {
            return Err(refuse(
                node,
                "an element would have to go, and a comment is in the way: remove it by hand",
            ));
        }
        self.patch(start, end, "");
        Ok(())
    }
}

/// First and last index of each run of elements for which `goes`.
pub(super) fn runs<T>(elements: &[T], goes: impl Fn(&T) -> bool) -> Vec<(usize, usize)> {
    let mut found: Vec<(usize, usize)> = Vec::new();
    for (index, _) in elements
        .iter()
        .enumerate()
        .filter(|(_, element)| goes(element))
    {
        match found.last_mut() {
            Some((_, last)) if *last + 1 == index => *last = index,
            _ => found.push((index, index)),
        }
    }
    found
}
