//! What a contract declares about several sources and several signals: how sources merge, which values are adverse,
//! which signals must agree before an adverse value counts, and who approves changes. Read here, applied in `merge`.

use crate::document::{Fields, Node};
use crate::findings::{Findings, did_you_mean};
use crate::limits;
use crate::model::{SignalName, SignalType, Value};
use serde_json::{Value as Json, json};

/// How the sources of one signal become one value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Merge {
    /// The first source decides. The others are recorded and do not step in: losing one must not widen.
    First,
    /// All say the same, or the signal is disputed.
    Agree,
    /// The most adverse word counts.
    AnyAdverse,
}

impl Merge {
    /// Every way, with the word that files use.
    pub const ALL: &'static [(&'static str, Self)] =
        &[("first", Self::First), ("agree", Self::Agree), ("any_adverse", Self::AnyAdverse)];

    /// The word that files use.
    pub fn as_str(self) -> &'static str {
        Self::ALL.iter().find(|(_, v)| *v == self).map_or("", |(word, _)| word)
    }
}

/// Which values speak against access.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Adverse {
    /// This one and all above.
    AtLeast(Value),
    /// This one and all below.
    AtMost(Value),
    /// These, the most adverse first.
    OneOf(Vec<Value>),
}

impl Adverse {
    /// Whether a value is adverse.
    pub fn is(&self, value: &Value) -> bool {
        match self {
            Self::AtLeast(bound) => value >= bound,
            Self::AtMost(bound) => value <= bound,
            Self::OneOf(values) => values.contains(value),
        }
    }

    /// The more adverse of two values.
    pub fn worse<'v>(&self, a: &'v Value, b: &'v Value) -> &'v Value {
        let rank = |value: &Value| match self {
            Self::OneOf(values) => values.iter().position(|v| v == value).unwrap_or(values.len()),
            Self::AtLeast(_) | Self::AtMost(_) => 0,
        };
        let b_is_worse = match self {
            Self::AtLeast(_) => b > a,
            Self::AtMost(_) => b < a,
            Self::OneOf(_) => rank(b) < rank(a),
        };
        if b_is_worse { b } else { a }
    }

    /// Whether nothing of this type can be worse than this value: then what others would say does not matter.
    pub fn is_worst(&self, value: &Value, kind: &SignalType) -> bool {
        match self {
            Self::OneOf(values) => values.first() == Some(value),
            Self::AtLeast(_) => kind.every_value().is_some_and(|all| all.iter().max() == Some(value)),
            Self::AtMost(_) => kind.every_value().is_some_and(|all| all.iter().min() == Some(value)),
        }
    }

    fn to_json(&self) -> Json {
        match self {
            Self::AtLeast(bound) => json!({"at_least": bound.to_json()}),
            Self::AtMost(bound) => json!({"at_most": bound.to_json()}),
            Self::OneOf(values) => json!({"one_of": values.iter().map(Value::to_json).collect::<Vec<_>>()}),
        }
    }
}

/// An adverse value counts only in company.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Corroborate {
    /// The other signals of the group.
    pub with: Vec<SignalName>,
    /// So many of the group, the signal itself included, must be adverse.
    pub need: usize,
}

/// Who must sign a change of the contract.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Approver {
    /// An address.
    pub id: String,
    /// Ed25519 public key, base64.
    pub ed25519: String,
}

/// All that a contract declares here.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Combination {
    /// `None` with one source.
    pub merge: Option<Merge>,
    /// Adverse values.
    pub adverse: Option<Adverse>,
    /// Company that an adverse value needs.
    pub corroborate: Option<Corroborate>,
    /// Who approves changes.
    pub approvers: Vec<Approver>,
}

impl Combination {
    /// The declaration for descriptions.
    pub(super) fn describe(&self) -> [(&'static str, Json); 4] {
        [
            ("merge", self.merge.map(Merge::as_str).into()),
            ("adverse", self.adverse.as_ref().map(Adverse::to_json).into()),
            (
                "corroborate",
                self.corroborate
                    .as_ref()
                    .map(|c| json!({"with": c.with.iter().map(SignalName::as_str).collect::<Vec<_>>(), "need": c.need}))
                    .into(),
            ),
            ("approvers", self.approvers.iter().map(|a| json!({"id": a.id, "ed25519": a.ed25519})).collect()),
        ]
    }
}

/// Reads the keys of a contract that this room is about. `None`: one of them could not be read, and a finding says so.
pub(super) struct Reader<'r, 'a> {
    pub(super) file: &'r str,
    pub(super) fields: &'r mut Fields<'a>,
    pub(super) findings: &'r mut Findings,
}

impl<'a> Reader<'_, 'a> {
    pub(super) fn read(mut self, kind: Option<&SignalType>, sources: Option<usize>) -> Option<Combination> {
        let merge = self.merge(sources);
        let adverse = self.adverse(kind);
        let corroborate = self.corroborate();
        let approvers = self.approvers();
        let (merge, adverse, corroborate) = (merge?, adverse?, corroborate?);
        if adverse.is_none() {
            let needs = match (merge, &corroborate) {
                (Some(Merge::AnyAdverse), _) => Some("merge"),
                (_, Some(_)) => Some("corroborate"),
                _ => None,
            };
            if let Some(key) = needs {
                let message = format!("`{key}` needs `adverse`: which values speak against access");
                self.findings.error(self.file, self.fields.place_of(key), "missing_adverse", message);
                return None;
            }
        }
        Some(Combination { merge, adverse, corroborate, approvers: approvers? })
    }

    #[expect(clippy::option_option, reason = "two questions: could it be read, and is there one")]
    fn merge(&mut self, sources: Option<usize>) -> Option<Option<Merge>> {
        let node = self.fields.take("merge");
        match (node, sources) {
            (None, Some(2..)) => {
                let message =
                    "`merge` is missing: several sources for one signal need one of `first`, `agree`, `any_adverse`";
                self.findings.error(self.file, self.fields.place_of("sources"), "missing_merge", message);
                None
            }
            (Some(node), Some(0 | 1)) => {
                let message = "`merge`: one source has nothing to merge with, leave it out";
                self.findings.error(self.file, node.place, "needless_merge", message);
                None
            }
            (None, _) => Some(None),
            (Some(node), _) => node.word(self.file, "merge", Merge::ALL, self.findings).map(Some),
        }
    }

    #[expect(clippy::option_option, reason = "two questions: could it be read, and is there one")]
    fn adverse(&mut self, kind: Option<&SignalType>) -> Option<Option<Adverse>> {
        let Some(node) = self.fields.take("adverse") else { return Some(None) };
        let mut fields = Fields::of(self.file, "adverse", node, self.findings)?;
        let (least, most, one_of) = (fields.take("at_least"), fields.take("at_most"), fields.take("one_of"));
        fields.finish(self.findings);
        let kind = kind?;
        let adverse = match (least, most, one_of) {
            (Some(node), None, None) => Adverse::AtLeast(self.bound("at_least", node, kind)?),
            (None, Some(node), None) => Adverse::AtMost(self.bound("at_most", node, kind)?),
            (None, None, Some(node)) => {
                let items = node.list(self.file, "one_of", self.findings)?;
                if items.is_empty() {
                    let message = "`one_of`: expected at least one value, found none";
                    self.findings.error(self.file, node.place, "empty_list", message);
                    return None;
                }
                let values: Vec<Option<Value>> =
                    items.iter().map(|item| value_of(self.file, "one_of", item, kind, self.findings)).collect();
                Adverse::OneOf(values.into_iter().collect::<Option<_>>()?)
            }
            _ => {
                let message = "`adverse`: expected exactly one of `at_least`, `at_most` and `one_of`";
                self.findings.error(self.file, node.place, "one_of", message);
                return None;
            }
        };
        Some(Some(adverse))
    }

    fn bound(&mut self, key: &str, node: &Node, kind: &SignalType) -> Option<Value> {
        if !matches!(kind, SignalType::Long | SignalType::Decimal | SignalType::Datetime) {
            let message = format!("`{key}`: values of type `{kind}` have no order, use `one_of`");
            self.findings.error(self.file, node.place, "wrong_type", message);
            return None;
        }
        value_of(self.file, key, node, kind, self.findings)
    }

    #[expect(clippy::option_option, reason = "two questions: could it be read, and is there one")]
    fn corroborate(&mut self) -> Option<Option<Corroborate>> {
        let Some(node) = self.fields.take("corroborate") else { return Some(None) };
        let mut fields = Fields::of(self.file, "corroborate", node, self.findings)?;
        let names = fields.require("with", self.findings).and_then(|n| n.texts(self.file, "with", self.findings));
        let need = fields.require("need", self.findings).and_then(|n| n.int(self.file, "need", self.findings));
        let place = fields.place_of("need");
        fields.finish(self.findings);
        let (names, need) = (names?, need?);
        let mut with: Vec<SignalName> = Vec::with_capacity(names.len());
        for (name, place) in names {
            match SignalName::parse(name) {
                Some(name) if !with.contains(&name) => with.push(name),
                _ => {
                    let message = format!("`with`: expected names of other signals, each once, found `{name}`");
                    self.findings.error(self.file, place, "bad_name", message);
                    return None;
                }
            }
        }
        let group = with.len() + 1;
        let need = usize::try_from(need).ok().filter(|need| (2..=group).contains(need));
        if with.is_empty() || with.len() > limits::MAX_CORROBORATION || need.is_none() {
            let message = format!(
                "`corroborate`: expected 1 to {} other signals, and a `need` of 2 to {group}",
                limits::MAX_CORROBORATION
            );
            self.findings.error(self.file, place, "bad_need", message);
        }
        Some(Some(Corroborate { with, need: need? }))
    }

    fn approvers(&mut self) -> Option<Vec<Approver>> {
        let Some(node) = self.fields.take("approvers") else { return Some(Vec::new()) };
        let items = node.list(self.file, "approvers", self.findings)?;
        if items.is_empty() || items.len() > limits::MAX_APPROVERS {
            let message = format!("`approvers`: expected 1 to {}, found {}", limits::MAX_APPROVERS, items.len());
            self.findings.error(self.file, node.place, "empty_list", message);
            return None;
        }
        let read: Vec<Option<Approver>> = items.iter().map(|item| self.approver(item)).collect();
        let approvers: Vec<Approver> = read.into_iter().collect::<Option<_>>()?;
        for (at, approver) in approvers.iter().enumerate() {
            if approvers.iter().take(at).any(|other| other.id == approver.id || other.ed25519 == approver.ed25519) {
                let message = format!("`approvers`: `{}` or its key stands twice", approver.id);
                self.findings.error(self.file, node.place, "duplicate", message);
                return None;
            }
        }
        Some(approvers)
    }

    fn approver(&mut self, item: &'a Node) -> Option<Approver> {
        let mut fields = Fields::of(self.file, "approvers", item, self.findings)?;
        let id = fields.require_text("id", self.findings);
        let key = fields.require_text("ed25519", self.findings);
        let place = fields.place_of("ed25519");
        fields.finish(self.findings);
        let (id, key) = (id?, key?);
        // 32 bytes are 43 characters and one `=` (RFC 4648, section 4).
        let digits = key.strip_suffix('=').unwrap_or_default();
        let good = digits.len() == 43 && digits.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'/'));
        if !good || id.is_empty() {
            let message =
                "`approvers`: expected an `id`, and the 32 bytes of an Ed25519 public key in base64 as `ed25519`";
            self.findings.error(self.file, place, "bad_key", message);
            return None;
        }
        Some(Approver { id: id.to_owned(), ed25519: key.to_owned() })
    }
}

/// A value of a contract's type, or a finding `wrong_type` about `key`.
pub(super) fn value_of(
    file: &str,
    key: &str,
    node: &Node,
    kind: &SignalType,
    findings: &mut Findings,
) -> Option<Value> {
    let value = kind.read_json(&node.to_json());
    if value.is_none() {
        let message = format!("`{key}`: expected a value of the contract's type `{kind}`, found {}", node.describe());
        findings.error(file, node.place, "wrong_type", message);
    }
    value
}

/// A hint at the signal that was meant.
pub(super) fn hint<'n>(written: &str, names: impl IntoIterator<Item = &'n str>) -> String {
    did_you_mean(written, names)
}
