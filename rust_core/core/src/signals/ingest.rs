//! A publisher's batch (`POST /v1/signals`) on its way in: read, judged entry by entry, answered.

use super::judge::{Pending, Publication, shortened};
use super::refusal::{Refusal, RefusalReason};
use super::register::Register;
use super::store::Store;
use crate::change::Change;
use crate::error::Error;
use crate::findings::did_you_mean;
use crate::limits;
use crate::model::{Origin, Timestamp};
use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::{Value as Json, json};
use std::fmt;

/// What of a batch was taken. Nothing is changed yet: the changes are kept first, then applied.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Admission {
    /// How many entries were accepted, those included that were known already.
    pub accepted: usize,
    /// The refused entries, by index.
    pub rejected: Vec<(usize, Refusal)>,
    /// What to keep and apply, in this order.
    pub changes: Vec<Change>,
}

impl Admission {
    /// The answer to the publisher.
    pub fn answer_json(&self) -> Vec<u8> {
        let rejected: Vec<Json> = self
            .rejected
            .iter()
            .map(|(index, refusal)| json!({"index": index, "reason": refusal.reason.code(), "detail": refusal.detail}))
            .collect();
        json!({"accepted": self.accepted, "rejected": rejected}).to_string().into_bytes()
    }
}

/// Judges the body of one call. Later entries see earlier ones; a refused one leaves no trace.
pub fn judge_batch(
    body: &[u8],
    origin: &Origin,
    register: &Register,
    store: &Store,
    now: Timestamp,
) -> Result<Admission, Error> {
    judge_next(body, origin, register, store, &mut Pending::new(), now)
}

/// The same for one of several calls that are kept together: it sees what the calls before it brought.
pub fn judge_next(
    body: &[u8],
    origin: &Origin,
    register: &Register,
    store: &Store,
    pending: &mut Pending,
    now: Timestamp,
) -> Result<Admission, Error> {
    let entries = read_body(body)?;
    let mut admission = Admission::default();
    for (index, entry) in entries.into_iter().enumerate() {
        let judged = read_entry(entry).and_then(|publication| {
            let judged = store.judge(register, pending, &publication, origin, now);
            judged.map_err(|refusal| {
                let contract = register.find(&publication.name);
                Refusal { signal: contract.map(|contract| contract.name.clone()), ..refusal }
            })
        });
        match judged {
            Ok(change) => {
                admission.accepted += 1;
                if let Some(Change::SignalPublished(published)) = &change {
                    pending.note(store, published);
                }
                admission.changes.extend(change);
            }
            Err(refusal) => admission.rejected.push((index, refusal)),
        }
    }
    Ok(admission)
}

/// The entries of `{"signals": […]}`.
fn read_body(body: &[u8]) -> Result<Vec<Raw>, Error> {
    let bad = |sentence: String| Error::BadInput(sentence);
    if body.len() > limits::MAX_PUBLISH_BYTES {
        return Err(bad(format!("the body is larger than {} bytes", limits::MAX_PUBLISH_BYTES)));
    }
    let raw: Raw = serde_json::from_slice(body).map_err(|e| bad(format!("the body is not JSON: {e}")))?;
    let shape = r#"expected `{"signals": [...]}`"#;
    let Raw::Object(fields) = raw else {
        return Err(bad(format!("the body is not an object: {shape}")));
    };
    let mut entries = None;
    for (key, value) in fields {
        if key != "signals" {
            let hint = did_you_mean(&key, ["signals"]);
            return Err(bad(format!("unknown key `{}` in the body{hint}: {shape}", shortened(&key))));
        }
        let Raw::List(list) = value else {
            return Err(bad(format!("`signals` is not a list: {shape}")));
        };
        if entries.replace(list).is_some() {
            return Err(bad("`signals` stands twice in the body".to_owned()));
        }
    }
    let entries = entries.ok_or_else(|| bad(format!("`signals` is missing in the body: {shape}")))?;
    if entries.len() > limits::MAX_BATCH {
        return Err(bad(format!("a call takes at most {} signals, this one has {}", limits::MAX_BATCH, entries.len())));
    }
    Ok(entries)
}

const KEYS: [&str; 4] = ["name", "subject", "value", "observed_at"];

/// One entry: exactly the four keys, each once.
fn read_entry(entry: Raw) -> Result<Publication, Refusal> {
    let malformed = |detail: String| Refusal::new(RefusalReason::Malformed, detail);
    let Raw::Object(fields) = entry else {
        return Err(malformed("expected an object".to_owned()));
    };
    let mut values: [Option<Json>; KEYS.len()] = Default::default();
    for (key, value) in fields {
        let Some((_, place)) = KEYS.iter().zip(&mut values).find(|(known, _)| **known == key) else {
            let hint = did_you_mean(&key, KEYS);
            return Err(malformed(format!("unknown key `{}`{hint}", shortened(&key))));
        };
        if place.replace(value.into_json()).is_some() {
            return Err(malformed(format!("`{key}` stands twice")));
        }
    }
    if let Some((key, _)) = KEYS.iter().zip(&values).find(|(_, value)| value.is_none()) {
        return Err(malformed(format!("`{key}` is missing")));
    }
    let [name, subject, value, observed_at] = values.map(Option::unwrap_or_default);
    let text = |key: &str, value: Json| match value {
        Json::String(text) => Ok(text),
        _ => Err(malformed(format!("`{key}`: expected text"))),
    };
    let observed_at = text("observed_at", observed_at)?;
    Ok(Publication {
        name: text("name", name)?,
        subject: text("subject", subject)?,
        value,
        observed_at: Timestamp::parse_rfc3339(&observed_at).ok_or_else(|| {
            let found = shortened(&observed_at);
            malformed(format!("`observed_at`: expected a time such as `2026-11-24T10:00:00Z`, found `{found}`"))
        })?,
    })
}

/// JSON that keeps what `serde_json::Value` drops: a key that stands twice. Of two meanings we take none.
enum Raw {
    Object(Vec<(String, Raw)>),
    List(Vec<Raw>),
    Scalar(Json),
}

impl Raw {
    /// No type of ours is an object, so what a repeated key loses here decides nothing.
    fn into_json(self) -> Json {
        match self {
            Self::Object(fields) => fields.into_iter().map(|(key, value)| (key, value.into_json())).collect(),
            Self::List(items) => items.into_iter().map(Self::into_json).collect(),
            Self::Scalar(scalar) => scalar,
        }
    }
}

impl<'de> Deserialize<'de> for Raw {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(RawVisitor)
    }
}

struct RawVisitor;

impl<'de> Visitor<'de> for RawVisitor {
    type Value = Raw;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E>(self) -> Result<Raw, E> {
        Ok(Raw::Scalar(Json::Null))
    }

    fn visit_bool<E>(self, value: bool) -> Result<Raw, E> {
        Ok(Raw::Scalar(value.into()))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Raw, E> {
        Ok(Raw::Scalar(value.into()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Raw, E> {
        Ok(Raw::Scalar(value.into()))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Raw, E> {
        Ok(Raw::Scalar(value.into()))
    }

    fn visit_str<E>(self, value: &str) -> Result<Raw, E> {
        Ok(Raw::Scalar(value.into()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Raw, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = items.next_element()? {
            list.push(item);
        }
        Ok(Raw::List(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Raw, A::Error> {
        let mut fields = Vec::new();
        while let Some(entry) = entries.next_entry()? {
            fields.push(entry);
        }
        Ok(Raw::Object(fields))
    }
}
