//! The strict reader of a map with a fixed set of keys.

use super::{Entry, Node};
use crate::findings::{Findings, Place, did_you_mean};

/// A map that is being read: every key is asked for once, and `finish` names those that nobody asked for.
#[derive(Debug)]
pub struct Fields<'a> {
    file: &'a str,
    place: Place,
    entries: &'a [Entry],
    asked: Vec<&'static str>,
}

impl<'a> Fields<'a> {
    /// Begins to read a map; anything else is a finding `wrong_type`. `what` names it in the message.
    pub fn of(file: &'a str, what: &str, node: &'a Node, findings: &mut Findings) -> Option<Self> {
        let entries = node.map(file, what, findings)?;
        Some(Self { file, place: node.place, entries, asked: Vec::new() })
    }

    /// Where the map begins.
    pub const fn place(&self) -> Place {
        self.place
    }

    /// Whether a key is there. It still has to be asked for.
    pub fn has(&self, key: &str) -> bool {
        self.entries.iter().any(|entry| entry.key == key)
    }

    /// What a key says, if it is there.
    pub fn take(&mut self, key: &'static str) -> Option<&'a Node> {
        self.asked.push(key);
        self.entries.iter().find(|entry| entry.key == key).map(|entry| &entry.value)
    }

    /// What a key says; a finding `missing_key` if it is not there.
    pub fn require(&mut self, key: &'static str, findings: &mut Findings) -> Option<&'a Node> {
        let node = self.take(key);
        if node.is_none() {
            findings.error(self.file, self.place, "missing_key", format!("`{key}` is missing"));
        }
        node
    }

    /// Where a key stands, or the map if it does not.
    pub fn place_of(&self, key: &str) -> Place {
        self.entries.iter().find(|entry| entry.key == key).map_or(self.place, |entry| entry.place)
    }

    /// Text under an optional key.
    pub fn text(&mut self, key: &'static str, findings: &mut Findings) -> Option<&'a str> {
        self.take(key)?.text(self.file, key, findings)
    }

    /// Text under a required key.
    pub fn require_text(&mut self, key: &'static str, findings: &mut Findings) -> Option<&'a str> {
        self.require(key, findings)?.text(self.file, key, findings)
    }

    /// `true` or `false` under an optional key.
    pub fn flag(&mut self, key: &'static str, findings: &mut Findings) -> Option<bool> {
        self.take(key)?.flag(self.file, key, findings)
    }

    /// A whole number under an optional key.
    pub fn int(&mut self, key: &'static str, findings: &mut Findings) -> Option<i64> {
        self.take(key)?.int(self.file, key, findings)
    }

    /// A list of texts under an optional key.
    pub fn texts(&mut self, key: &'static str, findings: &mut Findings) -> Option<Vec<(&'a str, Place)>> {
        self.take(key)?.texts(self.file, key, findings)
    }

    /// One of these words under an optional key.
    pub fn word<T: Copy>(&mut self, key: &'static str, words: &[(&str, T)], findings: &mut Findings) -> Option<T> {
        self.take(key)?.word(self.file, key, words, findings)
    }

    /// One of these words under a required key.
    pub fn require_word<T: Copy>(
        &mut self,
        key: &'static str,
        words: &[(&str, T)],
        findings: &mut Findings,
    ) -> Option<T> {
        self.require(key, findings)?.word(self.file, key, words, findings)
    }

    /// A key whose feature is not built yet: a finding `not_built` if it is there.
    pub fn not_built(&mut self, key: &'static str, findings: &mut Findings) {
        if self.take(key).is_some() {
            let message = format!("`{key}` is not built yet: leave it out");
            findings.error(self.file, self.place_of(key), "not_built", message);
        }
    }

    /// Ends the reading: every key that was not asked for is a finding `unknown_key`.
    pub fn finish(self, findings: &mut Findings) {
        for entry in self.entries {
            if !self.asked.contains(&entry.key.as_str()) {
                let hint = did_you_mean(&entry.key, self.asked.iter().copied());
                findings.error(self.file, entry.place, "unknown_key", format!("unknown key `{}`{hint}", entry.key));
            }
        }
    }
}
