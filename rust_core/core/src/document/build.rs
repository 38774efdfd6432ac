//! From the events of the YAML parser to nodes; what our files may not contain is refused here.

use super::{Entry, Kind, Node};
use crate::{
    findings::{Findings, Place},
    limits,
};
use saphyr_parser::{Event, Marker, Parser, ScalarStyle, Span, Tag};
use std::borrow::Cow;
use std::collections::BTreeMap;

pub(super) fn document(file: &str, text: &str, findings: &mut Findings) -> Option<Node> {
    if text.len() > limits::MAX_FILE_BYTES {
        let message = format!("the file is larger than {} bytes", limits::MAX_FILE_BYTES);
        findings.error(file, Place::default(), "file_too_large", message);
        return None;
    }
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut builder = Builder { file, findings, open: Vec::new(), root: None, documents: 0 };
    let mut parser = Parser::new_from_str(text);
    while let Some(event) = parser.next_event() {
        match event {
            Ok((event, span)) => builder.take(event, span).ok()?,
            Err(error) => {
                builder.error(place(error.marker()), "yaml_syntax", format!("not readable as yaml: {}", error.info()));
                return None;
            }
        }
    }
    Some(builder.root.unwrap_or(Node { place: Place { line: 1, column: 1 }, kind: Kind::Null }))
}

/// Reading can't go on; the finding is made.
struct Stop;

struct Builder<'a> {
    file: &'a str,
    findings: &'a mut Findings,
    open: Vec<Open>,
    root: Option<Node>,
    documents: usize,
}

/// A list or map that has begun and not ended.
enum Open {
    List { place: Place, items: Vec<Node> },
    Map { place: Place, entries: Vec<Entry>, known: BTreeMap<String, Place>, key: Awaiting },
}

/// What a map waits for.
enum Awaiting {
    Key,
    /// The value of this key.
    Value(String, Place),
    /// A value that is read and dropped, because its key was refused.
    Dropped,
}

impl Builder<'_> {
    fn take(&mut self, event: Event<'_>, span: Span) -> Result<(), Stop> {
        let place = place(&span.start);
        match event {
            Event::Nothing | Event::StreamStart | Event::StreamEnd | Event::DocumentEnd => Ok(()),
            Event::DocumentStart(_) => self.begin_document(place),
            Event::Alias(_) => {
                self.error(place, "yaml_alias", "aliases (`*name`) are not allowed: write the value out");
                self.put(Node { place, kind: Kind::Null }, None);
                Ok(())
            }
            Event::Scalar(text, style, anchor, tag) => {
                self.refuse_extras(place, anchor, tag.as_ref());
                let kind =
                    if style == ScalarStyle::Plain { plain(&text) } else { Kind::Text(text.clone().into_owned()) };
                self.put(Node { place, kind }, Some((text.into_owned(), style)));
                Ok(())
            }
            Event::SequenceStart(anchor, tag) => {
                self.refuse_extras(place, anchor, tag.as_ref());
                self.begin(Open::List { place, items: Vec::new() }, place)
            }
            Event::MappingStart(anchor, tag) => {
                self.refuse_extras(place, anchor, tag.as_ref());
                let known = BTreeMap::new();
                self.begin(Open::Map { place, entries: Vec::new(), known, key: Awaiting::Key }, place)
            }
            Event::SequenceEnd | Event::MappingEnd => {
                let node = match self.open.pop() {
                    Some(Open::List { place, items }) => Node { place, kind: Kind::List(items) },
                    Some(Open::Map { place, entries, .. }) => Node { place, kind: Kind::Map(entries) },
                    None => return Err(Stop),
                };
                self.put(node, None);
                Ok(())
            }
        }
    }

    fn begin_document(&mut self, place: Place) -> Result<(), Stop> {
        self.documents += 1;
        if self.documents == 1 {
            return Ok(());
        }
        self.error(place, "yaml_documents", "a second document begins here: expected one document in a file");
        Err(Stop)
    }

    fn begin(&mut self, open: Open, place: Place) -> Result<(), Stop> {
        if self.open.len() >= limits::MAX_YAML_DEPTH {
            let message = format!("nested deeper than {} levels", limits::MAX_YAML_DEPTH);
            self.error(place, "yaml_depth", message);
            return Err(Stop);
        }
        self.open.push(open);
        Ok(())
    }

    fn refuse_extras(&mut self, place: Place, anchor: usize, tag: Option<&Cow<'_, Tag>>) {
        if anchor > 0 {
            self.error(place, "yaml_anchor", "anchors (`&name`) are not allowed: write the value out");
        }
        if let Some(tag) = tag {
            let message = format!("tags are not allowed, found `{}{}`", tag.handle, tag.suffix);
            self.error(place, "yaml_tag", message);
        }
    }

    /// Puts a finished node where it belongs. `scalar` is a scalar as written, for keys.
    fn put(&mut self, node: Node, scalar: Option<(String, ScalarStyle)>) {
        match self.open.last_mut() {
            None => self.root = Some(node),
            Some(Open::List { items, .. }) => items.push(node),
            Some(Open::Map { entries, key, .. }) => match std::mem::replace(key, Awaiting::Key) {
                Awaiting::Value(key, place) => entries.push(Entry { key, place, value: node }),
                Awaiting::Dropped => {}
                Awaiting::Key => {
                    let next = self.key(&node, scalar);
                    if let Some(Open::Map { key, .. }) = self.open.last_mut() {
                        *key = next;
                    }
                }
            },
        }
    }

    fn key(&mut self, node: &Node, scalar: Option<(String, ScalarStyle)>) -> Awaiting {
        let Some((text, style)) = scalar.filter(|_| node.kind != Kind::Null) else {
            self.error(node.place, "yaml_key", format!("expected text as a key, found {}", node.describe()));
            return Awaiting::Dropped;
        };
        if text == "<<" && style == ScalarStyle::Plain {
            self.error(node.place, "yaml_merge", "merge keys (`<<`) are not allowed: write the entries out");
            return Awaiting::Dropped;
        }
        let Some(Open::Map { known, .. }) = self.open.last_mut() else { return Awaiting::Dropped };
        if let Some(first) = known.get(&text) {
            let message = format!("`{text}` stands here twice, first in line {}", first.line);
            self.error(node.place, "duplicate_key", message);
            return Awaiting::Dropped;
        }
        known.insert(text.clone(), node.place);
        Awaiting::Value(text, node.place)
    }

    fn error(&mut self, place: Place, code: &'static str, message: impl Into<String>) {
        self.findings.error(self.file, place, code, message);
    }
}

fn place(marker: &Marker) -> Place {
    let number = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
    Place { line: number(marker.line()), column: number(marker.col().saturating_add(1)) }
}

/// A plain scalar by the core schema (YAML 1.2.2, section 10.3.2), floats left as text.
fn plain(text: &str) -> Kind {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => Kind::Null,
        "true" | "True" | "TRUE" => Kind::Bool(true),
        "false" | "False" | "FALSE" => Kind::Bool(false),
        _ => integer(text).map_or_else(|| Kind::Text(text.to_owned()), Kind::Int),
    }
}

fn integer(text: &str) -> Option<i64> {
    let radix = |digits: &str, radix: u32| {
        let good = !digits.is_empty() && digits.chars().all(|c| c.is_digit(radix));
        good.then(|| i64::from_str_radix(digits, radix).ok()).flatten()
    };
    if let Some(digits) = text.strip_prefix("0o") {
        return radix(digits, 8);
    }
    if let Some(digits) = text.strip_prefix("0x") {
        return radix(digits, 16);
    }
    text.parse().ok()
}
