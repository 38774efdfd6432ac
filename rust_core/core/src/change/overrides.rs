//! The written form of an override.

use super::{Change, Kind, VERSION, bad, whose};
use crate::error::Error;
use crate::model::{Overridden, SignalName, SignalType, SpiffeId, Timestamp};
use serde::{Deserialize, Serialize};
use serde_json::Value as Json;
use std::sync::Arc;

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct WrittenOverride {
    v: u32,
    change: Kind,
    name: String,
    subject_kind: String,
    subject: String,
    /// Beside the value, as of a published one.
    #[serde(rename = "type")]
    kind: String,
    value: Json,
    reason: String,
    by: [String; 2],
    at_us: i64,
    expires_at_us: i64,
}

impl From<&Overridden> for WrittenOverride {
    fn from(word: &Overridden) -> Self {
        Self {
            v: VERSION,
            change: Kind::SignalOverridden,
            name: word.name.to_string(),
            subject_kind: word.subject.kind.as_str().to_owned(),
            subject: word.subject.id.to_string(),
            kind: word.value.type_word().to_owned(),
            value: word.value.to_json(),
            reason: word.reason.to_string(),
            by: word.by.each_ref().map(ToString::to_string),
            at_us: word.at.as_micros(),
            expires_at_us: word.expires_at.as_micros(),
        }
    }
}

impl WrittenOverride {
    pub(super) fn into_change(self) -> Result<Change, Error> {
        let value = SignalType::parse(&self.kind)
            .ok()
            .and_then(|kind| kind.read_json(&self.value))
            .ok_or_else(|| bad("value", &format!("{}: {}", self.kind, self.value)))?;
        let [first, second] = self.by;
        let client = |text: &str| SpiffeId::parse(text).map(|_| Arc::from(text)).map_err(|_| bad("client", text));
        let by = [client(&first)?, client(&second)?];
        if by[0] == by[1] {
            return Err(bad("pair of clients", &first));
        }
        Ok(Change::SignalOverridden(Box::new(Overridden {
            name: SignalName::parse(&self.name).ok_or_else(|| bad("signal name", &self.name))?,
            subject: whose(&self.subject_kind, &self.subject)?,
            value,
            reason: self.reason.into(),
            by,
            at: Timestamp::from_micros(self.at_us),
            expires_at: Timestamp::from_micros(self.expires_at_us),
        })))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Subject, names::SubjectKind};

    fn overridden(subject: Subject) -> Change {
        Change::SignalOverridden(Box::new(Overridden {
            name: SignalName::parse("posture").unwrap(),
            subject,
            value: SignalType::Decimal.read_text("1.25").unwrap(),
            reason: "the feed is dead".into(),
            by: ["spiffe://prod.example/ann".into(), "spiffe://prod.example/bob".into()],
            at: Timestamp::from_micros(1),
            expires_at: Timestamp::from_micros(2),
        }))
    }

    #[test]
    fn an_override_survives_its_written_form_and_replaces_the_one_before() {
        for subject in [
            Subject::parse(SubjectKind::Resource, "Account::\"4 2\"").unwrap(),
            Subject::everyone(SubjectKind::Device).unwrap(),
            Subject::parse(SubjectKind::Global, "*").unwrap(),
        ] {
            let change = overridden(subject);
            assert_eq!(Change::from_payload(&change.to_payload()).unwrap(), change);
            assert!(change.replaces());
        }
        let key = overridden(Subject::parse(SubjectKind::Resource, "Account::\"4 2\"").unwrap()).key();
        assert_eq!(key, "override posture resource Account::\"4 2\"");
    }

    #[test]
    fn one_person_alone_is_no_override_in_the_written_form_either() {
        let payload = overridden(Subject::everyone(SubjectKind::Device).unwrap()).to_payload();
        let alone = String::from_utf8(payload).unwrap().replace("/bob", "/ann");
        let sentence = Change::from_payload(alone.as_bytes()).unwrap_err().to_string();
        assert!(sentence.contains("pair of clients"), "{sentence}");
    }
}
