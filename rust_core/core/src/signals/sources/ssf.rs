//! Source kind `ssf`: security events of a transmitter (`OpenID` Shared Signals, CAEP), from a feed of the register.
//! Which event gives which value is declared here; the events themselves are read and verified in Python.

use super::super::combine::value_of;
use super::super::feeds::MEMBERS;
use super::{Flow, Kind, Reading, Source};
use crate::document::{Entry, Fields, Node};
use crate::findings::did_you_mean;
use crate::limits;
use crate::model::names::SubjectKind;
use crate::model::{Assurance, FeedKind, Value};
use serde_json::{Map, Value as Json, json};

pub(super) const KIND: Kind = Kind {
    word: "ssf",
    // The transmitter is the owner of what it says of its own sessions and devices.
    ceiling: |_| (Assurance::Authoritative, ""),
    objection: |subject| match subject {
        SubjectKind::Request => Some("an `ssf` source can't speak of one request: nobody knows it beforehand"),
        _ => None,
    },
    read,
};

/// Start of the URI of a CAEP event type (`OpenID` CAEP 1.0, section 3).
const CAEP: &str = "https://schemas.openid.net/secevent/caep/event-type/";
/// The event types of CAEP 1.0.
const CAEP_EVENTS: &[&str] = &[
    "session-revoked",
    "token-claims-change",
    "credential-change",
    "assurance-level-change",
    "device-compliance-change",
    "session-established",
    "session-presented",
    "risk-level-change",
];

fn read(reading: &mut Reading<'_, '_>, assurance: Assurance) -> Option<Source> {
    let origin = reading.feed(FeedKind::Ssf);
    let resting = resting(reading);
    let subject = subject(reading);
    let events = events(reading);
    let (origin, resting) = (origin?, resting?);
    let mut settings = vec![("feed", Json::from(reading.feed_name())), ("subject", subject?), ("events", events?)];
    if let Some(value) = &resting {
        settings.push(("while_live", value.to_json()));
    }
    Some(Source {
        kind: "ssf",
        assurance,
        label: origin.label().into(),
        settings,
        flow: Flow::Stored { origin, resting },
    })
}

/// The value of a subject without events, while the stream is live.
#[expect(clippy::option_option, reason = "two questions: could it be read, and is there one")]
fn resting(reading: &mut Reading<'_, '_>) -> Option<Option<Value>> {
    match reading.fields.take("while_live") {
        None => Some(None),
        Some(node) => value(reading, "while_live", node).map(Some),
    }
}

/// A value of the contract's type, or a finding.
fn value(reading: &mut Reading<'_, '_>, key: &str, node: &Node) -> Option<Value> {
    value_of(reading.file, key, node, reading.declared.kind?, reading.findings)
}

/// Which part of the event's subject is ours, and how it becomes one: `{member: device, as: "{id}"}`.
fn subject(reading: &mut Reading<'_, '_>) -> Option<Json> {
    let usual = match reading.declared.subject? {
        SubjectKind::Device => "device",
        SubjectKind::Task | SubjectKind::Workflow => "session",
        SubjectKind::Resource => "application",
        SubjectKind::Principal | SubjectKind::Global | SubjectKind::Request => "user",
    };
    let (mut member, mut template) = (usual, "{id}");
    if let Some(node) = reading.fields.take("subject") {
        let mut fields = Fields::of(reading.file, "subject", node, reading.findings)?;
        let named = fields.text("member", reading.findings);
        let written = fields.text("as", reading.findings);
        let place = fields.place_of("as");
        let member_place = fields.place_of("member");
        fields.finish(reading.findings);
        member = named.unwrap_or(member);
        template = written.unwrap_or(template);
        if !MEMBERS.contains(&member) {
            let hint = did_you_mean(member, MEMBERS.iter().copied());
            let message = format!("`member`: expected one of {}, found `{member}`{hint}", MEMBERS.join(", "));
            reading.findings.error(reading.file, member_place, "unknown_value", message);
            return None;
        }
        if template.matches("{id}").count() != 1 || template.replace("{id}", "").contains(['{', '}']) {
            let message = format!("`as`: expected a text with `{{id}}` in it once, found `{template}`");
            reading.findings.error(reading.file, place, "bad_template", message);
            return None;
        }
    }
    Some(json!({"member": member, "as": template}))
}

fn events(reading: &mut Reading<'_, '_>) -> Option<Json> {
    let node = reading.fields.require("events", reading.findings)?;
    let entries = node.map(reading.file, "events", reading.findings)?;
    if entries.is_empty() || entries.len() > limits::MAX_EVENTS {
        let message =
            format!("`events`: expected 1 to {} types of events, found {}", limits::MAX_EVENTS, entries.len());
        reading.findings.error(reading.file, node.place, "empty_list", message);
        return None;
    }
    let mut events = Map::new();
    let mut good = true;
    for entry in entries {
        match event(reading, entry) {
            Some((uri, rule)) => good &= events.insert(uri, rule).is_none(),
            None => good = false,
        }
    }
    good.then_some(Json::Object(events))
}

/// `{value: V}`, or `{claim: NAME, values: {word: V}}`.
fn event(reading: &mut Reading<'_, '_>, entry: &Entry) -> Option<(String, Json)> {
    let uri = if CAEP_EVENTS.contains(&entry.key.as_str()) {
        format!("{CAEP}{}", entry.key)
    } else if entry.key.starts_with("https://") {
        entry.key.clone()
    } else {
        let hint = did_you_mean(&entry.key, CAEP_EVENTS.iter().copied());
        let message =
            format!("`events`: expected a CAEP event type or a full `https://` one, found `{}`{hint}", entry.key);
        reading.findings.error(reading.file, entry.place, "unknown_value", message);
        return None;
    };
    let mut fields = Fields::of(reading.file, &entry.key, &entry.value, reading.findings)?;
    let (fixed, claim, values) = (fields.take("value"), fields.take("claim"), fields.take("values"));
    fields.finish(reading.findings);
    let rule = match (fixed, claim) {
        (Some(node), None) if values.is_none() => json!({"value": value(reading, "value", node)?.to_json()}),
        (None, Some(node)) => {
            let path = claim_path(reading, node)?;
            match values {
                Some(values) => json!({"claim": path, "values": choices(reading, values)?}),
                None => json!({"claim": path}),
            }
        }
        _ => {
            let message = format!("`{}`: expected `value`, or `claim` with or without `values`", entry.key);
            reading.findings.error(reading.file, entry.place, "one_of", message);
            return None;
        }
    };
    Some((uri, rule))
}

/// The claim of an event, or a path of claims to it.
fn claim_path(reading: &mut Reading<'_, '_>, node: &Node) -> Option<Vec<String>> {
    let path: Vec<String> = if let Some(text) = node.as_text() {
        vec![text.to_owned()]
    } else {
        let texts = node.texts(reading.file, "claim", reading.findings)?;
        texts.into_iter().map(|(text, _)| text.to_owned()).collect()
    };
    if path.is_empty() || path.len() > limits::MAX_DEPTH || path.iter().any(String::is_empty) {
        reading.findings.error(reading.file, node.place, "empty_text", "`claim`: expected the name of a claim");
        return None;
    }
    Some(path)
}

/// What a claim's words mean.
fn choices(reading: &mut Reading<'_, '_>, node: &Node) -> Option<Json> {
    let entries = node.map(reading.file, "values", reading.findings)?;
    let mut choices = Map::new();
    for entry in entries {
        let value = value(reading, &entry.key, &entry.value)?;
        choices.insert(entry.key.clone(), value.to_json());
    }
    if choices.is_empty() {
        reading.findings.error(reading.file, node.place, "empty_list", "`values`: expected at least one word");
        return None;
    }
    Some(Json::Object(choices))
}
