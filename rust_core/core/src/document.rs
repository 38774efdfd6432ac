//! YAML as the configuration files use it: the strict subset, every node with its place, and a reader of maps
//! that lets no unknown key pass. Nothing here knows what a file means.

mod build;
mod fields;

pub use fields::Fields;

use crate::findings::{Findings, Place};
use serde_json::Value as Json;

/// A node of a document and where it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// Where it begins.
    pub place: Place,
    /// What it is.
    pub kind: Kind,
}

/// What a node holds. Plain scalars are read by the core schema of YAML 1.2, quoted ones are text;
/// a float stays text as written, since no format of ours has one.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names say it")]
pub enum Kind {
    Null,
    Bool(bool),
    Int(i64),
    Text(String),
    List(Vec<Node>),
    Map(Vec<Entry>),
}

/// One entry of a map, in the order of the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The key as written, without quotes.
    pub key: String,
    /// Where the key stands.
    pub place: Place,
    /// What it says.
    pub value: Node,
}

/// Reads one file. `None` if it can't be read on: everything else wrong with it is a finding, and reading goes on
/// without the offending part, so that one pass finds all.
pub fn parse(file: &str, text: &str, findings: &mut Findings) -> Option<Node> {
    build::document(file, text, findings)
}

impl Node {
    /// What the node is, in words for people.
    pub fn describe(&self) -> String {
        match &self.kind {
            Kind::Null => "nothing".to_owned(),
            Kind::Bool(b) => format!("`{b}`"),
            Kind::Int(n) => format!("the number `{n}`"),
            Kind::Text(text) if text.chars().count() > LONGEST_QUOTE => {
                format!("`{}…`", text.chars().take(LONGEST_QUOTE).collect::<String>())
            }
            Kind::Text(text) => format!("`{text}`"),
            Kind::List(_) => "a list".to_owned(),
            Kind::Map(_) => "a map".to_owned(),
        }
    }

    /// The text, if it is text.
    pub fn as_text(&self) -> Option<&str> {
        match &self.kind {
            Kind::Text(text) => Some(text),
            _ => None,
        }
    }

    /// The items, if it is a list.
    pub fn as_list(&self) -> Option<&[Node]> {
        match &self.kind {
            Kind::List(items) => Some(items),
            _ => None,
        }
    }

    /// The entries, if it is a map.
    pub fn as_map(&self) -> Option<&[Entry]> {
        match &self.kind {
            Kind::Map(entries) => Some(entries),
            _ => None,
        }
    }

    /// The text, or a finding `wrong_type` about `key`.
    pub fn text(&self, file: &str, key: &str, findings: &mut Findings) -> Option<&str> {
        self.expect(self.as_text(), file, key, "text", findings)
    }

    /// The items, or a finding `wrong_type` about `key`.
    pub fn list(&self, file: &str, key: &str, findings: &mut Findings) -> Option<&[Node]> {
        self.expect(self.as_list(), file, key, "a list", findings)
    }

    /// The entries, or a finding `wrong_type` about `key`. For maps whose keys are names, not a fixed set.
    pub fn map(&self, file: &str, key: &str, findings: &mut Findings) -> Option<&[Entry]> {
        self.expect(self.as_map(), file, key, "a map", findings)
    }

    /// The bool, or a finding `wrong_type` about `key`.
    pub fn flag(&self, file: &str, key: &str, findings: &mut Findings) -> Option<bool> {
        let flag = if let Kind::Bool(b) = self.kind { Some(b) } else { None };
        self.expect(flag, file, key, "`true` or `false`", findings)
    }

    /// The integer, or a finding `wrong_type` about `key`.
    pub fn int(&self, file: &str, key: &str, findings: &mut Findings) -> Option<i64> {
        let int = if let Kind::Int(n) = self.kind { Some(n) } else { None };
        self.expect(int, file, key, "a whole number", findings)
    }

    /// The texts of a list of texts; a finding `wrong_type` for whatever in it is something else.
    pub fn texts(&self, file: &str, key: &str, findings: &mut Findings) -> Option<Vec<(&str, Place)>> {
        let items = self.expect(self.as_list(), file, key, "a list of texts", findings)?;
        let mut all = Some(Vec::with_capacity(items.len()));
        for item in items {
            match item.text(file, key, findings) {
                Some(text) => {
                    if let Some(texts) = all.as_mut() {
                        texts.push((text, item.place));
                    }
                }
                None => all = None,
            }
        }
        all
    }

    /// What one of these words stands for, or a finding (`wrong_type`, `unknown_value`) about `key`.
    pub fn word<T: Copy>(&self, file: &str, key: &str, words: &[(&str, T)], findings: &mut Findings) -> Option<T> {
        let all = words.iter().map(|(word, _)| *word);
        let expected = format!("one of {}", all.clone().map(|word| format!("`{word}`")).collect::<Vec<_>>().join(", "));
        let written = self.expect(self.as_text(), file, key, &expected, findings)?;
        let found = words.iter().find(|(word, _)| *word == written).map(|(_, value)| *value);
        if found.is_none() {
            let hint = crate::findings::did_you_mean(written, all);
            let message = format!("`{key}`: expected {expected}, found {}{hint}", self.describe());
            findings.error(file, self.place, "unknown_value", message);
        }
        found
    }

    fn expect<T>(&self, got: Option<T>, file: &str, key: &str, expected: &str, findings: &mut Findings) -> Option<T> {
        if got.is_none() {
            let quotes = expected == "text" && matches!(self.kind, Kind::Bool(_) | Kind::Int(_));
            let hint = if quotes { "; put it in quotes to make it text" } else { "" };
            let message = format!("`{key}`: expected {expected}, found {}{hint}", self.describe());
            findings.error(file, self.place, "wrong_type", message);
        }
        got
    }

    /// The same as JSON, without places.
    pub fn to_json(&self) -> Json {
        match &self.kind {
            Kind::Null => Json::Null,
            Kind::Bool(b) => Json::Bool(*b),
            Kind::Int(n) => Json::from(*n),
            Kind::Text(text) => Json::String(text.clone()),
            Kind::List(items) => items.iter().map(Node::to_json).collect(),
            Kind::Map(entries) => entries.iter().map(|entry| (entry.key.clone(), entry.value.to_json())).collect(),
        }
    }

    /// Where everything stands, by JSON pointer (RFC 6901): the root by `""`, an entry of a map where its key is.
    pub fn places(&self) -> Vec<(String, Place)> {
        let mut all = vec![(String::new(), self.place)];
        self.collect_places("", &mut all);
        all
    }

    fn collect_places(&self, above: &str, all: &mut Vec<(String, Place)>) {
        match &self.kind {
            Kind::List(items) => {
                for (at, item) in items.iter().enumerate() {
                    let pointer = format!("{above}/{at}");
                    all.push((pointer.clone(), item.place));
                    item.collect_places(&pointer, all);
                }
            }
            Kind::Map(entries) => {
                for entry in entries {
                    let pointer = format!("{above}/{}", entry.key.replace('~', "~0").replace('/', "~1"));
                    all.push((pointer.clone(), entry.place));
                    entry.value.collect_places(&pointer, all);
                }
            }
            Kind::Null | Kind::Bool(_) | Kind::Int(_) | Kind::Text(_) => {}
        }
    }
}

/// How much of a value a message quotes.
const LONGEST_QUOTE: usize = 60;

#[cfg(test)]
mod tests;
