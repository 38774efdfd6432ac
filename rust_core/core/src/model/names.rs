//! Names that users write, parsed once: signals, actions, resources, subjects, tiers.

use super::spiffe::SpiffeId;
use crate::limits;
use std::{fmt, sync::Arc};

/// Name of a signal: a lowercase letter, then lowercase letters, digits and `_`; at most 64 bytes.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SignalName(Arc<str>);

/// Name of an action: as a signal's, with `.` and `-` allowed after the first letter; at most 128 bytes.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ActionId(Arc<str>);

/// Name of a feed: as a signal's.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FeedName(Arc<str>);

/// Name of an environment, such as `prod`: visible ascii, at most 128 bytes.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Environment(Arc<str>);

/// How a name of a signal, a fact or a feed is written, for messages.
pub const NAME_FORM: &str = "a lowercase letter, then lowercase letters, digits and `_`, at most 64";

/// Actions that no route declares: they have a schema and a policy set of their own.
pub const BUILT_IN_ACTIONS: &[&str] = &["task.begin", "task.delegate", "approval.give", "approval.waive"];
/// Those of them that are decided outside of any task.
pub const WITHOUT_A_TASK: &[&str] = &["approval.give", "approval.waive"];

impl SignalName {
    /// Parses a name.
    pub fn parse(text: &str) -> Option<Self> {
        name(text, 64, "_").map(Self)
    }

    /// The name as written.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The name, shared: a clone of it allocates nothing.
    pub fn shared(&self) -> Arc<str> {
        Arc::clone(&self.0)
    }
}

impl FeedName {
    /// Parses a name.
    pub fn parse(text: &str) -> Option<Self> {
        name(text, 64, "_").map(Self)
    }

    /// The name as written.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl ActionId {
    /// Parses a name.
    pub fn parse(text: &str) -> Option<Self> {
        name(text, 128, "_.-").map(Self)
    }

    /// The name as written.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Environment {
    /// How one is written, for messages.
    pub const FORM: &'static str = "a name of at most 128 visible ascii characters";

    /// Parses a name.
    pub fn parse(text: &str) -> Option<Self> {
        let good = !text.is_empty() && text.len() <= 128 && text.bytes().all(|b| b.is_ascii_graphic());
        good.then(|| Self(text.into()))
    }

    /// The name as written.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

fn name(text: &str, longest: usize, also: &str) -> Option<Arc<str>> {
    let good = text.len() <= longest
        && text.starts_with(|c: char| c.is_ascii_lowercase())
        && text.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || also.contains(c));
    good.then(|| Arc::from(text))
}

impl fmt::Display for SignalName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for FeedName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for Environment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for ActionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A resource: a Cedar entity type (`Account`, `Bank::Account`) and an id.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ResourceId {
    /// Entity type, a Cedar path.
    pub kind: Arc<str>,
    /// Entity id, any text.
    pub id: Arc<str>,
}

impl ResourceId {
    /// Reads `Type::"id"`, with `\"` and `\\` escaped in the id and nothing else.
    pub fn parse(text: &str) -> Option<Self> {
        let (kind, rest) = text.split_once("::\"")?;
        let quoted = rest.strip_suffix('"')?;
        let mut id = String::with_capacity(quoted.len());
        let mut chars = quoted.chars();
        while let Some(c) = chars.next() {
            match c {
                '"' => return None,
                '\\' => id.push(chars.next().filter(|c| matches!(c, '"' | '\\'))?),
                c => id.push(c),
            }
        }
        is_entity_type(kind).then(|| Self { kind: kind.into(), id: id.into() })
    }
}

impl fmt::Display for ResourceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Piece by piece, without a copy: this text is made for each decision that reads a resource's signals.
        f.write_str(&self.kind)?;
        f.write_str("::\"")?;
        for piece in self.id.split_inclusive(['\\', '"']) {
            let plain = piece.strip_suffix(['\\', '"']);
            f.write_str(plain.unwrap_or(piece))?;
            if let Some(special) = plain.and_then(|plain| piece.get(plain.len()..)) {
                f.write_str("\\")?;
                f.write_str(special)?;
            }
        }
        f.write_str("\"")
    }
}

/// Whether a text is a Cedar entity type: identifiers joined by `::`.
pub fn is_entity_type(text: &str) -> bool {
    text.split("::").all(|part| {
        part.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
            && part.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
    })
}

/// What kind of thing a signal is about (DESIGN section 2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum SubjectKind {
    /// A workload, by SPIFFE ID.
    Principal,
    /// A resource, `Type::"id"`.
    Resource,
    /// A task, by id.
    Task,
    /// A workflow, by id.
    Workflow,
    /// A device, by id.
    Device,
    /// This request only.
    Request,
    /// The whole installation, `*`.
    Global,
}

impl SubjectKind {
    /// Every kind, with the word that files use.
    pub const ALL: &'static [(&'static str, SubjectKind)] = &[
        ("principal", Self::Principal),
        ("resource", Self::Resource),
        ("task", Self::Task),
        ("workflow", Self::Workflow),
        ("device", Self::Device),
        ("request", Self::Request),
        ("global", Self::Global),
    ];

    /// The word that files use.
    pub fn as_str(self) -> &'static str {
        Self::ALL.iter().find(|(_, kind)| *kind == self).map_or("", |(word, _)| word)
    }
}

/// In place of a subject: all of them. No subject but `global`'s has this form.
pub const EVERYONE: &str = "*";

/// The subject of one value: its kind, and its canonical text.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Subject {
    /// What it is.
    pub kind: SubjectKind,
    /// Which one, in the form of DESIGN section 2.
    pub id: Arc<str>,
}

impl Subject {
    /// Parses the text of a subject of a known kind. `Request` has none and never parses.
    pub fn parse(kind: SubjectKind, text: &str) -> Option<Self> {
        if text.len() > limits::MAX_SUBJECT_BYTES {
            return None;
        }
        let good = match kind {
            SubjectKind::Principal => SpiffeId::parse(text).is_ok(),
            SubjectKind::Resource => ResourceId::parse(text).is_some_and(|r| r.to_string() == text),
            SubjectKind::Task | SubjectKind::Workflow | SubjectKind::Device => {
                !text.is_empty() && text != EVERYONE && text.len() <= 256 && text.chars().all(|c| c.is_ascii_graphic())
            }
            SubjectKind::Request => false,
            SubjectKind::Global => text == EVERYONE,
        };
        good.then(|| Self { kind, id: text.into() })
    }

    /// All subjects of a kind, where one value may be about them all.
    pub fn everyone(kind: SubjectKind) -> Option<Self> {
        (!matches!(kind, SubjectKind::Request | SubjectKind::Global)).then(|| Self { kind, id: EVERYONE.into() })
    }

    /// Whether this stands for all subjects of its kind.
    pub fn is_everyone(&self) -> bool {
        self.kind != SubjectKind::Global && *self.id == *EVERYONE
    }
}

/// Order of sensitivity: low < medium < high.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[expect(missing_docs, reason = "the words say it")]
pub enum Sensitivity {
    Low,
    Medium,
    High,
}

/// How closely an action is guarded (DESIGN section 5).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Tier {
    /// Static roles only: no signal is read.
    Coarse,
    /// Signals are read at each request.
    Runtime,
    /// A live grant of a task is needed, too.
    Jit,
    /// An approval of this exact call is needed, too.
    Approval,
}

impl Sensitivity {
    /// Every value, with the word that files use.
    pub const ALL: &'static [(&'static str, Self)] =
        &[("low", Self::Low), ("medium", Self::Medium), ("high", Self::High)];

    /// Reads the word.
    pub fn parse(word: &str) -> Option<Self> {
        Self::ALL.iter().find(|(known, _)| *known == word).map(|(_, v)| *v)
    }

    /// The word that files use.
    pub fn as_str(self) -> &'static str {
        Self::ALL.iter().find(|(_, v)| *v == self).map_or("", |(word, _)| word)
    }
}

impl Tier {
    /// Every value, with the word that files use.
    pub const ALL: &'static [(&'static str, Self)] =
        &[("coarse", Self::Coarse), ("runtime", Self::Runtime), ("jit", Self::Jit), ("approval", Self::Approval)];
    /// The word that files use.
    pub fn as_str(self) -> &'static str {
        Self::ALL.iter().find(|(_, v)| *v == self).map_or("", |(word, _)| word)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_lowercase_and_bounded() {
        assert!(SignalName::parse("device_trust").is_some());
        assert!(ActionId::parse("transfer.create").is_some());
        for bad in ["", "1x", "Device", "a b", "a\"", "ä", &"a".repeat(65)] {
            assert!(SignalName::parse(bad).is_none(), "{bad}");
        }
    }

    #[test]
    fn a_resource_survives_its_own_text() {
        for id in ["42", "a\"b", "a\\b", "", "ü"] {
            let resource = ResourceId { kind: "Bank::Account".into(), id: id.into() };
            assert_eq!(ResourceId::parse(&resource.to_string()), Some(resource));
        }
        for bad in ["Account", "Account::42", "Account::\"a\"b\"", "1A::\"x\"", "A::\"\\n\""] {
            assert_eq!(ResourceId::parse(bad), None, "{bad}");
        }
    }
}
