//! The bytes that leave: an allow with what upstream and the access log learn, a denial as a problem document.

use crate::{
    decide::{Denial, Permit},
    limits::MAX_ADVICES,
    policy::{PolicyAnswer, PolicyInfo},
    reason::Reason,
    record::{self, DecisionId, Record},
    wire::{self, AllowAnswer, DenyAnswer, Note},
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
/// RFC 9457.
const CONTENT_TYPE: (&str, &str) = ("content-type", "application/problem+json");
const NO_STORE: (&str, &str) = ("cache-control", "no-store");
const CHALLENGE: &str = "www-authenticate";
/// RFC 9110 section 10.2.3.
const AGAIN: &str = "retry-after";
/// No policy sets or removes a header that begins so.
const RESERVED: &str = "x-signalwarden-";
/// Under Envoy's own namespace of the filter.
const METADATA_KEY: &str = "signalwarden";
const PRINCIPAL: &str = "x-signalwarden-principal";
/// Member of the problem document and of the metadata.
const ADVICE: &str = "advice";
/// Policies named in Envoy's metadata; the record names them all.
const MAX_DETERMINING: usize = 8;
/// When to come back with a call that waits for an approval, in seconds: a person takes longer, and a rule is at once.
const RETRY_AFTER: &str = "5";

pub(super) fn allow(permit: &Permit, record: &Record) -> Result<Vec<u8>, Denial> {
    let id = record.id.to_string();
    // What is let pass although it was denied goes as it came.
    if let Some(said) = record.said.as_ref().filter(|_| record.enforced) {
        return said_allow(permit, record, said);
    }
    let usual = record.evidence.as_ref().and_then(|evidence| {
        noted(record, &id, |note| {
            let headers = [(DECISION_ID, &*id), (PRINCIPAL, evidence.principal.as_str())];
            wire::encode_usual_allow(permit, &headers, REMOVED_BEFORE_UPSTREAM, note)
        })
    });
    if let Some(answer) = usual {
        return Ok(answer);
    }
    let (set_headers, remove_headers) = always(record);
    let answer = AllowAnswer { set_headers, remove_headers, metadata: metadata(record), ..AllowAnswer::default() };
    wire::encode_allow(permit, &answer).map_err(|bad| Denial::new(Reason::EngineError, bad.detail))
}

/// What every allow sets and removes. Without a principal a client's own word for one is removed.
fn always(record: &Record) -> (Vec<(String, String)>, Vec<String>) {
    let mut set = vec![(DECISION_ID.to_owned(), record.id.to_string())];
    let mut removed: Vec<String> = REMOVED_BEFORE_UPSTREAM.iter().map(ToString::to_string).collect();
    match &record.evidence {
        Some(evidence) => set.push((PRINCIPAL.to_owned(), evidence.principal.as_str().to_owned())),
        None => removed.push(PRINCIPAL.to_owned()),
    }
    (set, removed)
}

/// An allow of which a policy says more than yes.
fn said_allow(permit: &Permit, record: &Record, said: &PolicyAnswer) -> Result<Vec<u8>, Denial> {
    let refused = |detail| Denial::new(Reason::EngineError, detail);
    reserved(said).map_or(Ok(()), |name| Err(refused(format!("a policy may not set or remove `{name}`"))))?;
    let (set_headers, remove_headers) = always(record);
    let mut answer = AllowAnswer {
        set_headers,
        remove_headers,
        response_headers: said.response_headers.clone(),
        query_set: last_of_each(&said.query_set),
        query_remove: said.query_remove.clone(),
        metadata: metadata(record),
        ..AllowAnswer::default()
    };
    for (name, value) in &said.headers {
        // The first of a name overwrites what the client sent, the others stand beside it.
        let is_known = answer.set_headers.iter().any(|(known, _)| known.eq_ignore_ascii_case(name));
        let headers = if is_known { &mut answer.append_headers } else { &mut answer.set_headers };
        headers.push((name.clone(), value.clone()));
    }
    answer.remove_headers.extend(said.remove_headers.iter().cloned());
    answer.metadata.extend(said.metadata.clone());
    wire::encode_allow(permit, &answer).map_err(|bad| refused(bad.detail))
}

/// Of several values for one query parameter Envoy takes the last.
fn last_of_each(pairs: &[(String, String)]) -> Vec<(String, String)> {
    let is_last = |at: usize, key: &str| !pairs.iter().skip(at + 1).any(|(other, _)| other == key);
    pairs.iter().enumerate().filter(|(at, (key, _))| is_last(*at, key)).map(|(_, pair)| pair.clone()).collect()
}

/// The header or key of ours that a policy would change, if it would.
fn reserved(said: &PolicyAnswer) -> Option<&str> {
    let set = said.headers.iter().chain(&said.response_headers).map(|(name, _)| name);
    let header = set.chain(&said.remove_headers).find(|name| is_ours(name)).map(String::as_str);
    header.or_else(|| said.metadata.contains_key(METADATA_KEY).then_some(METADATA_KEY))
}

fn is_ours(header: &str) -> bool {
    header.get(..RESERVED.len()).is_some_and(|start| start.eq_ignore_ascii_case(RESERVED))
}

/// A denial whose answer a policy gives.
fn said_deny(record: &Record, said: &PolicyAnswer) -> Vec<u8> {
    let mut headers: Vec<(String, String)> = said.headers.clone();
    headers.retain(|(name, _)| !is_ours(name));
    let has = |wanted: &str| headers.iter().any(|(name, _)| name.eq_ignore_ascii_case(wanted));
    let no_store = (!has(NO_STORE.0)).then(|| (NO_STORE.0.to_owned(), NO_STORE.1.to_owned()));
    headers.extend(no_store);
    headers.push((DECISION_ID.to_owned(), record.id.to_string()));
    let mut all = said.metadata.clone();
    all.extend(metadata(record));
    wire::encode_deny(&DenyAnswer {
        reason: record.reason,
        http_status: said.http_status,
        headers,
        body: said.body.clone().unwrap_or_default(),
        metadata: all,
    })
}

pub(super) fn deny(record: &Record) -> Vec<u8> {
    // Only where policies are what denies: another reason has an answer of its own.
    let by_policy = matches!(record.reason, Reason::NoPolicyPermits | Reason::PolicyDenied);
    if let Some(said) = record.said.as_ref().filter(|_| by_policy) {
        return said_deny(record, said);
    }
    let asked = record.approval.as_ref().filter(|_| record.reason == Reason::ApprovalRequired);
    let advice = advice(record);
    if asked.is_none() && advice.is_empty() {
        let (id, reason) = (record.id.to_string(), record.reason);
        // In the order in which the tree of the general way has them.
        let (code, status, title) = (reason.code(), reason.http_status(), reason.sentence());
        let body = format!(
            r#"{{"type":"about:blank","title":"{title}","status":{status},"reason":"{code}","decision_id":"{id}"}}"#
        );
        let mut headers = vec![CONTENT_TYPE, NO_STORE, (DECISION_ID, &*id)];
        headers.extend(challenge(reason).map(|challenge| (CHALLENGE, challenge)));
        headers.extend((reason == Reason::ApprovalRequired).then_some((AGAIN, RETRY_AFTER)));
        if let Some(answer) = noted(record, &id, |note| wire::encode_usual_deny(reason, &headers, &body, note)) {
            return answer;
        }
    }
    let mut more = Map::new();
    if let Some(note) = asked {
        more.insert("approval_id".to_owned(), json!(note.question.id.as_str()));
        more.insert("expires_at".to_owned(), json!(note.question.expires_at.to_rfc3339()));
        more.insert("asks".to_owned(), json!(note.question.words.join("; ")));
    }
    if !advice.is_empty() {
        more.insert(ADVICE.to_owned(), json!(advice));
    }
    answer_of(record.reason, record.id, metadata(record), more)
}

/// The everyday answer with its note; `None` where the note says more than every day.
fn noted(record: &Record, id: &str, encode: impl FnOnce(&Note<'_>) -> Option<Vec<u8>>) -> Option<Vec<u8>> {
    if !record.enforced || record.tools.is_some() {
        return None;
    }
    encode(&Note {
        key: METADATA_KEY,
        decision_id: id,
        determining: &determining(record),
        reason: record.reason.code(),
        revision: record.snapshot.as_ref().map(|snapshot| &*snapshot.revision),
    })
}

/// A denial without a configuration behind it.
pub(super) fn bare(reason: Reason, id: DecisionId) -> Vec<u8> {
    let fields = json!({"decision_id": id.to_string(), "reason": reason.code()});
    answer_of(reason, id, Map::from_iter([(METADATA_KEY.to_owned(), fields)]), Map::new())
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
    let challenge = challenge(reason).map(|challenge| (CHALLENGE, challenge.to_owned()));
    let again = (reason == Reason::ApprovalRequired).then(|| (AGAIN, RETRY_AFTER.to_owned()));
    wire::encode_deny(&DenyAnswer {
        reason,
        http_status: None,
        headers: [(CONTENT_TYPE.0, CONTENT_TYPE.1.to_owned()), (NO_STORE.0, NO_STORE.1.to_owned()), (DECISION_ID, id)]
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

/// The policies that made the reason what it is.
fn determining_policies(record: &Record) -> impl Iterator<Item = &PolicyInfo> {
    record.snapshot.as_ref().zip(record.verdict.as_ref()).into_iter().flat_map(move |(snapshot, verdict)| {
        let known = snapshot.policies.policies();
        let in_play = verdict.in_play.iter().zip(&verdict.truths);
        in_play
            .filter_map(|(index, truth)| Some((known.get(*index as usize)?, truth)))
            .filter(move |(policy, truth)| record::determines(record.reason, policy, truth))
            .map(|(policy, _)| &**policy)
    })
}

/// The same, by id.
fn determining(record: &Record) -> Vec<&str> {
    determining_policies(record).map(|policy| &*policy.id).take(MAX_DETERMINING).collect()
}

/// What the policies that deny tell a caller to do, each sentence once. It is text of the policies, no signal's value.
fn advice(record: &Record) -> Vec<&str> {
    let mut all: Vec<&str> = Vec::new();
    if record.reason == Reason::PolicyDenied {
        for advice in determining_policies(record).filter_map(|policy| policy.advice.as_deref()) {
            if all.len() < MAX_ADVICES && !all.contains(&advice) {
                all.push(advice);
            }
        }
    }
    all
}

/// For Envoy's access log: namespace `envoy.filters.http.ext_authz`, key `signalwarden`.
fn metadata(record: &Record) -> Map<String, Json> {
    let mut fields = json!({
        "decision_id": record.id.to_string(),
        "reason": record.reason.code(),
        "determining": determining(record),
        "revision": record.snapshot.as_ref().map(|snapshot| &*snapshot.revision),
    });
    if let Some(fields) = fields.as_object_mut() {
        if !record.enforced {
            fields.insert("enforced".to_owned(), Json::Bool(false));
        }
        if let Some(tools) = &record.tools {
            fields.insert("tools".to_owned(), json!(tools));
        }
        let advice = advice(record);
        if !advice.is_empty() {
            fields.insert(ADVICE.to_owned(), json!(advice));
        }
    }
    Map::from_iter([(METADATA_KEY.to_owned(), fields)])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{check::blank, model::Timestamp};

    #[test]
    fn a_denial_is_the_same_on_the_short_way() {
        let id = DecisionId::new(Timestamp::from_micros(1_790_000_000_000_000), [7; 10]);
        for reason in Reason::ALL.iter().filter(|reason| **reason != Reason::Allowed) {
            let mut record = blank(id, Timestamp::from_micros(0));
            record.reason = *reason;
            let general = answer_of(*reason, id, metadata(&record), Map::new());
            assert_eq!(deny(&record), general, "{}", reason.code());
        }
    }

    fn said(headers: &[(&str, &str)]) -> Box<PolicyAnswer> {
        let headers = headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        Box::new(PolicyAnswer { headers, ..PolicyAnswer::default() })
    }

    fn record(reason: Reason, said: Box<PolicyAnswer>) -> Box<Record> {
        let id = DecisionId::new(Timestamp::from_micros(1_790_000_000_000_000), [7; 10]);
        let mut record = blank(id, Timestamp::from_micros(0));
        record.reason = reason;
        record.said = Some(said);
        record
    }

    #[test]
    fn a_policy_touches_no_header_of_ours() {
        let permit = Permit::for_tests();
        for name in ["x-signalwarden-principal", "X-Signalwarden-Decision-Id", "x-signalwarden-new"] {
            let record = record(Reason::Allowed, said(&[(name, "me")]));
            assert_eq!(allow(&permit, &record).unwrap_err().reason, Reason::EngineError, "{name}");
        }
        let mut removes = said(&[]);
        removes.remove_headers.push("x-signalwarden-principal".to_owned());
        assert!(allow(&permit, &record(Reason::Allowed, removes)).is_err());
        assert!(allow(&permit, &record(Reason::Allowed, said(&[("x-team", "payments")]))).is_ok());
    }

    #[test]
    fn a_policy_answers_only_what_policies_deny() {
        let mut says = said(&[("x-why", "closed")]);
        (says.http_status, says.body) = (Some(451), Some("not today".to_owned()));
        let has = |bytes: &[u8], text: &str| bytes.windows(text.len()).any(|part| part == text.as_bytes());
        for reason in [Reason::NoPolicyPermits, Reason::PolicyDenied] {
            let answer = deny(&record(reason, says.clone()));
            assert!(has(&answer, "not today") && has(&answer, "x-why"), "{}", reason.code());
        }
        for reason in [Reason::SignalUnavailable, Reason::EngineError, Reason::GrantRequired] {
            let answer = deny(&record(reason, says.clone()));
            assert!(!has(&answer, "not today") && !has(&answer, "x-why"), "{}", reason.code());
        }
    }
}
