//! From parser events to a tree: aliases and merge keys are resolved, spans made exact, limits kept.

use std::collections::{BTreeMap, BTreeSet};

use granit_parser::{Event, ScalarStyle, StructureStyle, Tag};

use super::node::{Node, NodeValue, ParseError, Span};
use super::read::{MAX_DEPTH, MAX_EXPANDED, Spanned};

/// Turns the events of one document into a tree.
pub(super) struct Builder<'a> {
    source: &'a str,
    events: &'a [Spanned<'a>],
    at: usize,
    /// Index of the anchored event by anchor.
    anchors: BTreeMap<usize, usize>,
    /// Anchors that some alias refers to.
    referenced: BTreeSet<usize>,
    /// Anchors whose node is being built.
    open: Vec<usize>,
    /// Nodes that aliases have expanded to so far.
    pub(super) expanded: usize,
    /// End of the last event consumed outside of aliases; where to look for the indicator of a block scalar.
    before: usize,
    /// Mistakes found while building.
    pub(super) errors: Vec<ParseError>,
    exhausted: bool,
}

/// Where in the tree a node is built.
#[derive(Clone, Copy)]
struct Place {
    depth: usize,
    aliased: bool,
    expanding: bool,
    /// Whether it is a key or value: only there may a block sequence be indented no more than its parent.
    in_mapping: bool,
}

impl<'a> Builder<'a> {
    /// A builder for the events of one document of `source`.
    pub(super) fn new(source: &'a str, events: &'a [Spanned<'a>], expanded: usize) -> Self {
        let anchors = events
            .iter()
            .enumerate()
            .filter_map(|(at, (event, _))| Some((event.anchor_id()?, at)))
            .filter(|(id, _)| *id != 0)
            .collect();
        let referenced = events
            .iter()
            .filter_map(|(event, _)| event.alias_id())
            .collect();
        Self {
            source,
            events,
            at: 0,
            anchors,
            referenced,
            open: Vec::new(),
            expanded,
            before: 0,
            errors: Vec::new(),
            exhausted: false,
        }
    }

    /// The root of the document; `None` when nothing of it could be read.
    pub(super) fn document(&mut self) -> Option<Node> {
        while let Some((Event::DocumentStart(..), span)) = self.events.get(self.at) {
            self.before = span.byte_range().map_or(0, |range| range.end);
            self.at += 1;
        }
        self.node(Place {
            depth: 0,
            aliased: false,
            expanding: false,
            in_mapping: false,
        })
    }

    fn error(&mut self, span: Span, message: String) {
        self.errors.push(ParseError {
            line: span.line,
            column: span.column,
            message,
        });
    }

    /// The node at the present event; `None` at the end of a collection, of a document cut short, or past a limit.
    fn node(&mut self, place: Place) -> Option<Node> {
        if self.exhausted {
            return None;
        }
        let (event, raw) = self.events.get(self.at)?;
        let span = position(raw);
        if place.expanding {
            self.expanded += 1;
            if self.expanded > MAX_EXPANDED {
                self.exhausted = true;
                self.error(
                    span,
                    format!("the aliases of this file stand for more than {MAX_EXPANDED} nodes"),
                );
                return None;
            }
        }
        if place.depth > MAX_DEPTH {
            self.exhausted = true;
            self.error(span, format!("nested more than {MAX_DEPTH} levels deep"));
            return None;
        }
        let anchor = event.anchor_id().filter(|id| *id != 0);
        let place = Place {
            aliased: place.aliased || anchor.is_some_and(|id| self.referenced.contains(&id)),
            ..place
        };
        self.open.extend(anchor);
        let node = self.node_of(event, span, place);
        if anchor.is_some() {
            self.open.pop();
        }
        node
    }

    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "which other events there are depends on features of the parser"
    )]
    fn node_of(&mut self, event: &'a Event<'a>, span: Span, place: Place) -> Option<Node> {
        let node = |span: Span, value: NodeValue| Node {
            span,
            value,
            aliased: place.aliased,
        };
        match event {
            Event::Scalar(text, style, _, tag) => {
                let span = match style {
                    ScalarStyle::Literal | ScalarStyle::Folded => self.block_span(span),
                    ScalarStyle::Plain | ScalarStyle::SingleQuoted | ScalarStyle::DoubleQuoted => {
                        span
                    }
                };
                self.at += 1;
                self.before = span.end;
                let absent = *style == ScalarStyle::Plain && span.start == span.end;
                let is_string = is_string(*style, tag.as_deref(), absent);
                // An empty value is reported by the parser as `~`.
                let text = if absent {
                    String::new()
                } else {
                    text.to_string()
                };
                let text = text.into();
                Some(node(span, NodeValue::Scalar { text, is_string }))
            }
            Event::Alias(id) => self.alias(*id, span, place),
            Event::UnresolvedAlias(name) => {
                self.at += 1;
                self.before = span.end;
                self.error(
                    span,
                    format!("no anchor `&{name}` before the alias `*{name}`"),
                );
                None
            }
            Event::SequenceStart(style, ..) => {
                let span = self.sequence_span(*style, span, place);
                self.at += 1;
                let (items, end) = self.sequence(place);
                let span = Span {
                    end: end.max(span.end),
                    ..span
                };
                Some(node(span, NodeValue::Sequence(items)))
            }
            Event::MappingStart(..) => {
                self.at += 1;
                let (entries, end) = self.mapping(place);
                let span = Span {
                    end: end.max(span.end),
                    ..span
                };
                Some(node(span, NodeValue::Mapping(entries)))
            }
            _ => {
                self.at += 1;
                None
            }
        }
    }

    fn sequence(&mut self, place: Place) -> (Vec<Node>, usize) {
        let inside = Place {
            depth: place.depth + 1,
            in_mapping: false,
            ..place
        };
        let mut items = Vec::new();
        while let Some((event, raw)) = self.events.get(self.at) {
            if matches!(event, Event::SequenceEnd) {
                let closing = position(raw);
                self.at += 1;
                return (items, self.end_of_collection(closing));
            }
            match self.node(inside) {
                Some(item) => items.push(item),
                None if self.exhausted => break,
                None => {}
            }
        }
        (items, self.before)
    }

    fn mapping(&mut self, place: Place) -> (Vec<(Node, Node)>, usize) {
        let inside = Place {
            depth: place.depth + 1,
            in_mapping: true,
            ..place
        };
        let mut entries: Vec<(Node, Node)> = Vec::new();
        let mut merges = Vec::new();
        let mut end = None;
        while let Some((event, raw)) = self.events.get(self.at) {
            if matches!(event, Event::MappingEnd) {
                let closing = position(raw);
                self.at += 1;
                end = Some(self.end_of_collection(closing));
                break;
            }
            let key = self.node(inside);
            let value = self.node(inside);
            if self.exhausted {
                break;
            }
            match (key, value) {
                (Some(key), Some(value)) if is_merge(&key) => merges.push((key, value)),
                (Some(key), Some(value)) => entries.push((key, value)),
                _ => {}
            }
        }
        self.check_keys(&entries, &merges);
        for (key, value) in merges.into_iter().take(1) {
            self.merge(&mut entries, &key, value);
        }
        (entries, end.unwrap_or(self.before))
    }

    /// A block collection ends with its last child, a flow collection with its bracket.
    fn end_of_collection(&mut self, closing: Span) -> usize {
        if closing.end > closing.start {
            self.before = closing.end;
        }
        self.before
    }

    fn check_keys(&mut self, entries: &[(Node, Node)], merges: &[(Node, Node)]) {
        let mut seen: BTreeMap<&str, usize> = BTreeMap::new();
        for (key, _) in entries.iter().chain(merges) {
            let Some(text) = key.as_str() else {
                self.error(
                    key.span,
                    "a key must be plain text, not a list or a mapping".into(),
                );
                continue;
            };
            if let Some(first) = seen.get(text) {
                let message = format!("the key `{text}` is given twice, first on line {first}");
                self.error(key.span, message);
            } else {
                seen.insert(text, key.span.line);
            }
        }
    }

    /// Adds what `<<: value` brings in; keys that are there already win, and earlier sources win over later ones.
    fn merge(&mut self, entries: &mut Vec<(Node, Node)>, key: &Node, value: Node) {
        let sources = match value.value {
            NodeValue::Sequence(sources) => sources,
            NodeValue::Mapping(_) | NodeValue::Scalar { .. } => vec![value],
        };
        for source in sources {
            let NodeValue::Mapping(more) = source.value else {
                self.error(
                    key.span,
                    "`<<` takes a mapping, or a list of mappings".into(),
                );
                continue;
            };
            for (name, value) in more {
                if !entries.iter().any(|(k, _)| k.as_str() == name.as_str()) {
                    entries.push((name, value));
                }
            }
        }
    }

    fn alias(&mut self, id: usize, span: Span, place: Place) -> Option<Node> {
        let resume = self.at + 1;
        let target = match self.anchors.get(&id) {
            Some(target) if !self.open.contains(&id) => *target,
            _ => {
                self.at = resume;
                self.error(span, "an alias stands inside its own anchor".into());
                return None;
            }
        };
        let before = self.before;
        self.at = target;
        self.before = self
            .events
            .get(target)
            .and_then(|(_, raw)| raw.byte_range())
            .map_or(0, |range| range.start);
        let node = self.node(Place {
            aliased: true,
            expanding: true,
            ..place
        });
        self.at = resume;
        self.before = before.max(span.end);
        node.map(|node| Node { span, ..node })
    }

    /// The parser reports the content of a block scalar; this adds its header and leaves out empty lines at the end.
    fn block_span(&self, content: Span) -> Span {
        let body = self
            .source
            .get(content.start..content.end)
            .map_or(0, |text| text.trim_end().len());
        let end = content.start + body;
        let from = self.before.min(content.start);
        let gap = self.source.get(from..content.start).unwrap_or_default();
        let Some(header) = indicator(gap, &['|', '>']) else {
            return Span { end, ..content };
        };
        let start = from + header;
        let header_line = gap[header..].split(['\r', '\n']).next().unwrap_or_default();
        let header_text = header_line.split(" #").next().unwrap_or_default();
        let header_end = start + header_text.trim_end().len();
        self.starting_at(
            start,
            Span {
                end: if body == 0 { header_end } else { end },
                ..content
            },
        )
    }

    /// A block sequence starts with its first dash; for one that is not indented the parser reports the first item.
    fn sequence_span(&self, style: StructureStyle, reported: Span, place: Place) -> Span {
        if style != StructureStyle::Block || !place.in_mapping {
            return reported;
        }
        let from = self.before.min(reported.start);
        let gap = self.source.get(from..reported.start).unwrap_or_default();
        match indicator(gap, &['-']) {
            Some(dash) => self.starting_at(from + dash, reported),
            None => reported,
        }
    }

    /// `span` with an earlier start.
    fn starting_at(&self, start: usize, span: Span) -> Span {
        let line_start = self.source[..start].rfind('\n').map_or(0, |at| at + 1);
        let lines_below = self.source[start..span.start].matches('\n').count();
        Span {
            start,
            end: span.end,
            line: span.line.saturating_sub(lines_below),
            column: self.source[line_start..start]
                .trim_start_matches('\u{feff}')
                .chars()
                .count()
                + 1,
        }
    }
}

/// Where one of `wanted` stands in the text between two nodes, comments, tags and anchors passed over.
fn indicator(gap: &str, wanted: &[char]) -> Option<usize> {
    let mut after_space = true;
    let mut in_comment = false;
    for (at, character) in gap.char_indices() {
        match character {
            '\n' | '\r' => {
                in_comment = false;
                after_space = true;
            }
            _ if in_comment => {}
            _ if after_space && wanted.contains(&character) => return Some(at),
            '#' if after_space => in_comment = true,
            _ => after_space = character == ' ' || character == '\t',
        }
    }
    None
}

fn position(raw: &granit_parser::Span) -> Span {
    let range = raw.byte_range().unwrap_or_default();
    Span {
        start: range.start,
        end: range.end,
        line: raw.start.line(),
        column: raw.start.col() + 1,
    }
}

/// Whether a scalar is a string whatever it reads like. As Kubernetes' own parser, unknown tags make strings.
fn is_string(style: ScalarStyle, tag: Option<&Tag>, absent: bool) -> bool {
    match tag {
        None => style != ScalarStyle::Plain,
        Some(tag) => match tag.core_suffix() {
            Some("int" | "float" | "bool" | "null") => false,
            _ => !absent || tag.is_yaml_core_schema_tag("str"),
        },
    }
}

fn is_merge(key: &Node) -> bool {
    matches!(&key.value, NodeValue::Scalar { text, is_string: false } if text == "<<")
}
