//! Answers to bytes of a `CheckResponse`. An allow is refused if it breaks one of Envoy's rules; a deny always
//! leaves, without whatever in it is not valid. `status` and the arm of `http_response` are written by the same
//! function, so they cannot disagree; `error_response` is never written (INVARIANT I5: Envoy may allow on it).

use super::messages::append_action::{APPEND_IF_EXISTS_OR_ADD, OVERWRITE_IF_EXISTS_OR_ADD};
use super::syntax::{self, HeaderUse};
use super::writer::Writer;
use crate::decide::Permit;
use crate::limits::{
    MAX_ANSWER_BODY_BYTES, MAX_ANSWER_HEADER_BYTES, MAX_ANSWER_HEADERS, MAX_ANSWER_METADATA_BYTES,
    MAX_ANSWER_METADATA_DEPTH,
};
use crate::reason::{GrpcStatus, Reason};
use serde_json::{Map, Value as Json};
use std::fmt;

/// What goes on to the upstream and back to the client when a call is allowed.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct AllowAnswer {
    /// Request headers to set; a client's own value is overwritten.
    pub set_headers: Vec<(String, String)>,
    /// Request headers to add to, where an older Envoy overwrites instead. Never identity headers.
    pub append_headers: Vec<(String, String)>,
    /// Request headers to remove.
    pub remove_headers: Vec<String>,
    /// Response headers to set; `set-cookie` is added to those of the upstream.
    pub response_headers: Vec<(String, String)>,
    /// Query parameters to set, not yet encoded.
    pub query_set: Vec<(String, String)>,
    /// Query parameters to remove, not yet encoded; Envoy compares the encoded form, with case.
    pub query_remove: Vec<String>,
    /// Dynamic metadata, for the access log.
    pub metadata: Map<String, Json>,
}

/// What the client gets when a call is denied.
#[derive(Clone, Debug, PartialEq)]
pub struct DenyAnswer {
    /// Why; gives the gRPC status, and the HTTP status unless there is another.
    pub reason: Reason,
    /// Another HTTP status: 400 to 599, or 300 to 399 for a redirect. Anything else is not taken.
    pub http_status: Option<u16>,
    /// Response headers; those that are not valid are left out.
    pub headers: Vec<(String, String)>,
    /// Response body, cut to its limit.
    pub body: String,
    /// Dynamic metadata, for the access log; what is not valid is left out.
    pub metadata: Map<String, Json>,
}

/// Why an allow cannot leave.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BadAnswer {
    /// One sentence.
    pub detail: String,
}

impl fmt::Display for BadAnswer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.detail)
    }
}

impl std::error::Error for BadAnswer {}

/// Envoy writes this key itself.
pub(super) const ENVOYS_METADATA_KEY: &str = "ext_authz_duration";
/// Enough for an everyday answer.
const USUAL_BYTES: usize = 1024;

/// An allow as Envoy obeys it.
pub fn encode_allow(_: &Permit, answer: &AllowAnswer) -> Result<Vec<u8>, BadAnswer> {
    check(answer)?;
    let mut out = Writer::with_capacity(USUAL_BYTES);
    out.message(1, |_| {}); // status, whose code 0 (OK) protobuf does not write
    out.message(3, |ok| {
        for (name, value) in &answer.set_headers {
            ok.message(2, |option| overwrite(option, name, value));
        }
        for (name, value) in &answer.append_headers {
            ok.message(2, |option| append(option, name, value));
        }
        for name in &answer.remove_headers {
            ok.lower(5, name);
        }
        for (name, value) in &answer.response_headers {
            let write = if name.eq_ignore_ascii_case("set-cookie") { append } else { overwrite };
            ok.message(6, |option| write(option, name, value));
        }
        for (key, value) in &answer.query_set {
            ok.message(7, |parameter| {
                parameter.text(1, &syntax::query_encoded(key));
                parameter.text(2, &syntax::query_encoded(value));
            });
        }
        for key in &answer.query_remove {
            ok.text(8, &syntax::query_encoded(key));
        }
    });
    if answer.metadata.contains_key(ENVOYS_METADATA_KEY) {
        return Err(bad(format!("the metadata key `{ENVOYS_METADATA_KEY}` is Envoy's own")));
    }
    let fits = metadata(&mut out, answer.metadata.iter());
    if fits { Ok(out.into_bytes()) } else { Err(bad("the metadata is too large or too deep".to_owned())) }
}

/// A deny as Envoy obeys it, whatever is asked for. It cannot turn into an allow: the gRPC status is never 0.
pub fn encode_deny(answer: &DenyAnswer) -> Vec<u8> {
    let reason = if answer.reason.grpc_status() == GrpcStatus::Ok { Reason::EngineError } else { answer.reason };
    let http_status = answer.http_status.filter(|status| (300..=599).contains(status)).unwrap_or(reason.http_status());
    let mut out = Writer::with_capacity(USUAL_BYTES + answer.body.len().min(MAX_ANSWER_BODY_BYTES));
    out.message(1, |status| {
        status.varint(1, reason.grpc_status() as u64);
        status.text(2, reason.code());
    });
    out.message(2, |denied| {
        denied.message(1, |status| status.varint(1, u64::from(http_status)));
        deny_headers(denied, &answer.headers);
        denied.text(3, syntax::cut(&answer.body, MAX_ANSWER_BODY_BYTES));
    });
    let wanted = || answer.metadata.iter().filter(|(key, _)| *key != ENVOYS_METADATA_KEY);
    if !metadata(&mut out, wanted()) {
        // The plain fields carry the decision's id and reason; one that is too much must not take them along.
        metadata(&mut out, wanted().filter(|(_, value)| small(value)));
    }
    out.into_bytes()
}

fn bad(detail: String) -> BadAnswer {
    BadAnswer { detail }
}

fn check(answer: &AllowAnswer) -> Result<(), BadAnswer> {
    let set = answer.set_headers.len() + answer.append_headers.len();
    let counts = [set, answer.remove_headers.len(), answer.response_headers.len()];
    if counts.iter().any(|count| *count > MAX_ANSWER_HEADERS) {
        return Err(bad(format!("the answer changes more than {MAX_ANSWER_HEADERS} headers")));
    }
    if answer.query_set.len() + answer.query_remove.len() > MAX_ANSWER_HEADERS {
        return Err(bad(format!("the answer changes more than {MAX_ANSWER_HEADERS} query parameters")));
    }
    let pairs = [&answer.set_headers, &answer.append_headers, &answer.response_headers];
    let pairs = pairs.into_iter().flatten().map(|(name, value)| name.len() + value.len());
    let removed = answer.remove_headers.iter().map(String::len);
    let query = answer.query_set.iter().map(|(key, value)| 3 * (key.len() + value.len()));
    let query = query.chain(answer.query_remove.iter().map(|key| 3 * key.len()));
    if pairs.chain(removed).chain(query).fold(0, usize::saturating_add) > MAX_ANSWER_HEADER_BYTES {
        return Err(bad(format!("the headers of the answer take more than {MAX_ANSWER_HEADER_BYTES} bytes")));
    }
    for (name, value) in answer.set_headers.iter().chain(&answer.append_headers) {
        syntax::header_name(name, HeaderUse::Request).and_then(|()| syntax::header_value(name, value)).map_err(bad)?;
    }
    for (name, value) in &answer.response_headers {
        syntax::header_name(name, HeaderUse::Response).and_then(|()| syntax::header_value(name, value)).map_err(bad)?;
    }
    for name in &answer.remove_headers {
        syntax::header_name(name, HeaderUse::Request).map_err(bad)?;
    }
    if answer.append_headers.iter().any(|(name, _)| syntax::is_ours(name)) {
        return Err(bad("an identity header is appended, so a client's own value could stay beside it".to_owned()));
    }
    if answer.query_set.iter().map(|(key, _)| key).chain(&answer.query_remove).any(String::is_empty) {
        return Err(bad("a query parameter has no name".to_owned()));
    }
    contradictions(answer)
}

/// Envoy applies all sets, then all removals, and of repeated sets the last: one name, one wish.
fn contradictions(answer: &AllowAnswer) -> Result<(), BadAnswer> {
    let names = |pairs: &[(String, String)], at: usize, name: &str| {
        pairs.iter().skip(at).any(|(other, _)| other.eq_ignore_ascii_case(name))
    };
    for (at, (name, _)) in answer.set_headers.iter().enumerate() {
        if names(&answer.set_headers, at + 1, name) || names(&answer.append_headers, 0, name) {
            return Err(bad(format!("the header {} is set twice", syntax::shown(name))));
        }
    }
    for name in &answer.remove_headers {
        if names(&answer.set_headers, 0, name) || names(&answer.append_headers, 0, name) {
            return Err(bad(format!("the header {} is both set and removed", syntax::shown(name))));
        }
    }
    for (at, (name, _)) in answer.response_headers.iter().enumerate() {
        if !name.eq_ignore_ascii_case("set-cookie") && names(&answer.response_headers, at + 1, name) {
            return Err(bad(format!("the response header {} is set twice", syntax::shown(name))));
        }
    }
    for (at, (key, _)) in answer.query_set.iter().enumerate() {
        if answer.query_set.iter().skip(at + 1).any(|(other, _)| other == key) || answer.query_remove.contains(key) {
            return Err(bad(format!("the query parameter {} is named twice", syntax::shown(key))));
        }
    }
    Ok(())
}

/// The deprecated `append: false` wins wherever it is known, `append_action` where it is not: both overwrite,
/// so a client's own value cannot survive.
pub(super) fn overwrite(option: &mut Writer, name: &str, value: &str) {
    header(option, name, value);
    option.message(2, |_| {}); // BoolValue false
    option.varint(3, OVERWRITE_IF_EXISTS_OR_ADD.unsigned_abs().into());
    keep_empty(option, value);
}

/// Without the deprecated bool: `append: true` drops the header where the request has none of that name.
fn append(option: &mut Writer, name: &str, value: &str) {
    header(option, name, value);
    const { assert!(APPEND_IF_EXISTS_OR_ADD == 0, "protobuf does not write the default") };
    keep_empty(option, value);
}

fn header(option: &mut Writer, name: &str, value: &str) {
    option.message(1, |header| {
        header.lower(1, name);
        header.text(2, value);
    });
}

fn keep_empty(option: &mut Writer, value: &str) {
    if value.is_empty() {
        option.varint(4, 1);
    }
}

fn deny_headers(denied: &mut Writer, headers: &[(String, String)]) {
    let mut room = MAX_ANSWER_HEADER_BYTES;
    let mut written: Vec<&str> = Vec::new();
    for (name, value) in headers {
        let value = syntax::repaired_value(value);
        let size = name.len() + value.len();
        let repeats = written.iter().any(|other| other.eq_ignore_ascii_case(name)) && !syntax::may_repeat(name);
        let valid = syntax::header_name(name, HeaderUse::Response).is_ok();
        if !valid || repeats || size > room || written.len() == MAX_ANSWER_HEADERS {
            continue;
        }
        room -= size;
        written.push(name);
        denied.message(2, |option| overwrite(option, name, &value));
    }
}

/// What metadata may still take: levels below this one, and the length that the whole answer may reach.
#[derive(Clone, Copy)]
struct Room {
    levels: usize,
    end: usize,
}

impl Room {
    fn below(self) -> Option<Self> {
        self.levels.checked_sub(1).map(|levels| Self { levels, ..self })
    }
}

/// Writes the fields as `dynamic_metadata`; if they are too many bytes or too deep, writes nothing and says so.
fn metadata<'a>(out: &mut Writer, fields: impl Iterator<Item = (&'a String, &'a Json)>) -> bool {
    let mut fields = fields.peekable();
    if fields.peek().is_none() {
        return true;
    }
    let start = out.len();
    let room = Room { levels: MAX_ANSWER_METADATA_DEPTH, end: start + MAX_ANSWER_METADATA_BYTES };
    let fits = out.message(4, |object| write_fields(object, fields, room)) && out.len() <= room.end;
    if !fits {
        out.truncate(start);
    }
    fits
}

fn write_fields<'a>(out: &mut Writer, fields: impl Iterator<Item = (&'a String, &'a Json)>, room: Room) -> bool {
    let Some(room) = room.below() else { return false };
    for (name, value) in fields {
        let fits = out.message(1, |entry| {
            entry.text(1, name);
            entry.message(2, |out| write_value(out, value, room))
        });
        if !fits {
            return false;
        }
    }
    true
}

fn write_value(out: &mut Writer, value: &Json, room: Room) -> bool {
    match value {
        Json::Null => out.varint(1, 0),
        Json::Number(number) => out.double(2, number.as_f64().unwrap_or_default()),
        Json::String(text) => out.text(3, text),
        Json::Bool(value) => out.varint(4, u64::from(*value)),
        Json::Object(fields) => return out.message(5, |out| write_fields(out, fields.iter(), room)),
        Json::Array(values) => {
            let Some(room) = room.below() else { return false };
            return out
                .message(6, |list| values.iter().all(|value| list.message(1, |out| write_value(out, value, room))));
        }
    }
    // Asked at each value, so that writing stops soon after the room is used up.
    out.len() <= room.end
}

/// Whether a value is short enough to stay when the metadata as a whole is not.
fn small(value: &Json) -> bool {
    match value {
        Json::Null | Json::Bool(_) | Json::Number(_) => true,
        Json::String(text) => text.len() <= 256,
        Json::Array(_) | Json::Object(_) => false,
    }
}
