//! The bytes that leave: an allow with what upstream and the access log learn, a denial as a problem document.

use crate::{
    decide::{Denial, Permit},
    reason::Reason,
    record::{self, DecisionId, Record},
    wire::{self, AllowAnswer, DenyAnswer},
};
use serde_json::{Map, Value as Json, json};

/// Headers that go no further on an allow: ours, and those by which an upstream may understand another method
/// or path than the one that was decided on.
const REMOVED_BEFORE_UPSTREAM: &[&str] = &[
    "x-signalwarden-grant",
    "x-signalwarden-approval",
    "x-http-method",
    "x-http-method-override",
    "x-method-override",
    "x-original-method",
    "x-original-uri",
    "x-original-url",
    "x-rewrite-url",
    "x-rewrite-uri",
];
const DECISION_ID: &str = "x-signalwarden-decision-id";
const PRINCIPAL: &str = "x-signalwarden-principal";
/// Policies named in Envoy's metadata; the record names them all.
const MAX_DETERMINING: usize = 8;
/// When to come back with a call that waits for an approval, in seconds: a person takes longer, and a rule is at once.
const RETRY_AFTER: &str = "5";

pub(super) fn allow(permit: &Permit, record: &Record) -> Result<Vec<u8>, Denial> {
    let principal = record.evidence.as_ref().map(|e| e.principal.as_str().to_owned()).unwrap_or_default();
    let answer = AllowAnswer {
        set_headers: vec![(DECISION_ID.to_owned(), record.id.to_string()), (PRINCIPAL.to_owned(), principal)],
        remove_headers: REMOVED_BEFORE_UPSTREAM.iter().map(ToString::to_string).collect(),
        metadata: metadata(record),
        ..AllowAnswer::default()
    };
    wire::encode_allow(permit, &answer).map_err(|bad| Denial::new(Reason::EngineError, bad.detail))
}

pub(super) fn deny(record: &Record) -> Vec<u8> {
    let asked = record.approval.as_ref().filter(|_| record.reason == Reason::ApprovalRequired);
    let mut more = Map::new();
    if let Some(note) = asked {
        more.insert("approval_id".to_owned(), json!(note.question.id.as_str()));
        more.insert("expires_at".to_owned(), json!(note.question.expires_at.to_rfc3339()));
        more.insert("asks".to_owned(), json!(note.question.words.join("; ")));
    }
    answer_of(record.reason, record.id, metadata(record), more)
}

/// A denial without a configuration behind it.
pub(super) fn bare(reason: Reason, id: DecisionId) -> Vec<u8> {
    let fields = json!({"decision_id": id.to_string(), "reason": reason.code()});
    answer_of(reason, id, Map::from_iter([("signalwarden".to_owned(), fields)]), Map::new())
}

/// `application/problem+json` (RFC 9457), without any signal's value.
fn answer_of(reason: Reason, id: DecisionId, metadata: Map<String, Json>, more: Map<String, Json>) -> Vec<u8> {
    let id = id.to_string();
    let mut body = json!({
        "type": "about:blank",
        "title": reason.sentence(),
        "status": reason.http_status(),
        "reason": reason.code(),
        "decision_id": &id,
    });
    if let Some(fields) = body.as_object_mut() {
        fields.extend(more);
    }
    let challenge = challenge(reason).map(|challenge| ("www-authenticate", challenge.to_owned()));
    // RFC 9110 section 10.2.3.
    let again = (reason == Reason::ApprovalRequired).then(|| ("retry-after", RETRY_AFTER.to_owned()));
    wire::encode_deny(&DenyAnswer {
        reason,
        http_status: None,
        headers: [
            ("content-type", "application/problem+json".to_owned()),
            ("cache-control", "no-store".to_owned()),
            (DECISION_ID, id),
        ]
        .into_iter()
        .chain(challenge)
        .chain(again)
        .map(|(name, value)| (name.to_owned(), value))
        .collect(),
        body: body.to_string(),
        metadata,
    })
}

/// How to come back after a 401 (RFC 9110 section 11.6.1, RFC 6750 section 3).
fn challenge(reason: Reason) -> Option<&'static str> {
    match reason {
        Reason::TokenInvalid | Reason::TokenExpired | Reason::TokenTooLongLived => {
            Some(r#"Bearer error="invalid_token""#)
        }
        reason if reason.http_status() == 401 => Some("Bearer"),
        _ => None,
    }
}

/// For Envoy's access log: namespace `envoy.filters.http.ext_authz`, key `signalwarden`.
fn metadata(record: &Record) -> Map<String, Json> {
    let determining: Vec<&str> = match (&record.snapshot, &record.verdict) {
        (Some(snapshot), Some(verdict)) => verdict
            .in_play
            .iter()
            .zip(&verdict.truths)
            .filter_map(|(index, truth)| Some((snapshot.policies.policies().get(*index as usize)?, truth)))
            .filter(|(policy, truth)| record::determines(record.reason, policy, truth))
            .map(|(policy, _)| &*policy.id)
            .take(MAX_DETERMINING)
            .collect(),
        _ => Vec::new(),
    };
    let mut fields = json!({
        "decision_id": record.id.to_string(),
        "reason": record.reason.code(),
        "determining": determining,
        "revision": record.snapshot.as_ref().map(|snapshot| &*snapshot.revision),
    });
    if let Some(fields) = fields.as_object_mut() {
        if !record.enforced {
            fields.insert("enforced".to_owned(), Json::Bool(false));
        }
        if let Some(tools) = &record.tools {
            fields.insert("tools".to_owned(), json!(tools));
        }
    }
    Map::from_iter([("signalwarden".to_owned(), fields)])
}
