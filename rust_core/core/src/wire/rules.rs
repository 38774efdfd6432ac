//! The checker of Envoy's rules (DESIGN section 7): reads the bytes of an answer back and names every rule that
//! they break. It shares no check with the encoder, so that a mistake there is not repeated here. Rule names are
//! those of the vectors in `tests/vectors/envoy/checkresponse_rules.json`, where these have one.

use super::messages::append_action::{APPEND_IF_EXISTS_OR_ADD, LAST, OVERWRITE_IF_EXISTS_OR_ADD};
use super::messages::{CheckResponse, DeniedHttpResponse, HeaderValueOption, OkHttpResponse};
use crate::limits::{MAX_ANSWER_BODY_BYTES, MAX_ANSWER_HEADER_BYTES, MAX_ANSWER_HEADERS, MAX_ANSWER_METADATA_BYTES};
use prost::Message;
use std::collections::BTreeSet;

/// Checks one answer. The error names each broken rule: `rule: what is wrong`.
pub fn check(answer: &[u8]) -> Result<(), Vec<String>> {
    let Ok(answer) = CheckResponse::decode(answer) else {
        return Err(vec!["decodes: the bytes are not a `CheckResponse`".to_owned()]);
    };
    let mut broken = Broken(Vec::new());
    arms(&answer, &mut broken);
    if let Some(ok) = &answer.ok_response {
        allowed(ok, &mut broken);
    }
    if let Some(denied) = &answer.denied_response {
        denial(denied, &mut broken);
    }
    if let Some(metadata) = &answer.dynamic_metadata {
        let own = metadata.fields.contains_key("ext_authz_duration");
        broken.unless(!own, "dynamic_metadata", "the key `ext_authz_duration` is Envoy's own");
        broken.unless(
            metadata.encoded_len() <= MAX_ANSWER_METADATA_BYTES,
            "metadata-limit",
            "the dynamic metadata is too large",
        );
    }
    if broken.0.is_empty() { Ok(()) } else { Err(broken.0) }
}

struct Broken(Vec<String>);

impl Broken {
    fn unless(&mut self, holds: bool, rule: &str, sentence: &str) {
        if !holds {
            self.0.push(format!("{rule}: {sentence}"));
        }
    }
}

fn arms(answer: &CheckResponse, broken: &mut Broken) {
    broken.unless(answer.error_response.is_none(), "error_response", "Envoy may allow on `error_response`");
    let Some(status) = &answer.status else {
        return broken.unless(false, "empty-response-is-allow", "`status` is not set");
    };
    broken.unless((0..=16).contains(&status.code), "denied-status-any-code", "`status.code` is no gRPC status");
    let (ok, denied) = (answer.ok_response.is_some(), answer.denied_response.is_some());
    if status.code == 0 {
        broken.unless(ok && !denied, "ok-status-with-denied_response", "an allow carries `ok_response` alone");
    } else {
        broken.unless(denied && !ok, "denied-status-with-ok_response", "a deny carries `denied_response` alone");
    }
}

fn allowed(ok: &OkHttpResponse, broken: &mut Broken) {
    broken.unless(ok.dynamic_metadata.is_none(), "dynamic_metadata", "the deprecated inner metadata hides the outer");
    let (mut set, mut added) = (BTreeSet::new(), BTreeSet::new());
    for option in &ok.headers {
        let name = header(option, broken);
        let overwrites = overwrites(option);
        let ours = name.starts_with("x-signalwarden-");
        broken.unless(overwrites || appends(option), "append-bool-wins", "`append` and `append_action` contradict");
        broken.unless(overwrites || !ours, "append-true-existing-header", "an identity header does not overwrite");
        broken.unless(name != "host", "host", "`host` is set, which moves the request after the decision");
        // Added values pile up, so a name may be added to twice; nothing else goes together.
        let again = !set.insert(name.clone());
        let piles_up = !overwrites && added.contains(&name);
        if !overwrites {
            added.insert(name);
        }
        broken.unless(!again || piles_up, "order", "a request header is set twice");
    }
    for name in &ok.headers_to_remove {
        broken.unless(name_is_valid(name), "headers_to_remove-invalid-name", "a header to remove has no valid name");
        broken.unless(name != "host", "headers_to_remove-pseudo", "Envoy never removes `host`");
        broken.unless(!set.contains(name), "order", "a header is both set and removed");
    }
    let mut set = BTreeSet::new();
    for option in &ok.response_headers_to_add {
        let name = header(option, broken);
        let cookie = name == "set-cookie";
        let right = if cookie { appends(option) } else { overwrites(option) };
        broken.unless(right, "append-bool-wins", "a response header neither overwrites nor is a cookie that is added");
        broken.unless(cookie || set.insert(name), "order", "a response header is set twice");
    }
    query(ok, broken);
    limits(&ok.headers, broken);
    limits(&ok.response_headers_to_add, broken);
    broken.unless(ok.headers_to_remove.len() <= MAX_ANSWER_HEADERS, "header-limit", "too many headers are removed");
}

fn query(ok: &OkHttpResponse, broken: &mut Broken) {
    let mut set = BTreeSet::new();
    for parameter in &ok.query_parameters_to_set {
        let encoded = !parameter.key.is_empty() && is_encoded(&parameter.key) && is_encoded(&parameter.value);
        broken.unless(encoded, "query-set-not-urlencoded", "a query parameter is not encoded");
        broken.unless(set.insert(&parameter.key), "query-set-overwrite", "a query parameter is set twice");
    }
    for key in &ok.query_parameters_to_remove {
        broken.unless(!key.is_empty() && is_encoded(key), "query-set-not-urlencoded", "a query key is not encoded");
        broken.unless(!set.contains(key), "order", "a query parameter is both set and removed");
    }
    let count = ok.query_parameters_to_set.len() + ok.query_parameters_to_remove.len();
    broken.unless(count <= MAX_ANSWER_HEADERS, "header-limit", "too many query parameters are changed");
}

fn denial(denied: &DeniedHttpResponse, broken: &mut Broken) {
    let code = denied.status.as_ref().map_or(0, |status| status.code);
    broken.unless((300..=599).contains(&code), "denied-http-status-unchecked", "the HTTP status does not deny");
    broken.unless(denied.body.len() <= MAX_ANSWER_BODY_BYTES, "denied-body-truncate", "the body is too large");
    let mut set = BTreeSet::new();
    for option in &denied.headers {
        let name = header(option, broken);
        let repeatable = matches!(name.as_str(), "set-cookie" | "www-authenticate");
        broken.unless(overwrites(option), "denied-append-headers-dropped", "a header of a deny is not set");
        broken.unless(set.insert(name) || repeatable, "order", "a header of a deny is set twice");
    }
    limits(&denied.headers, broken);
}

/// Checks name and value of one header; gives the name.
fn header(option: &HeaderValueOption, broken: &mut Broken) -> String {
    let Some(header) = &option.header else {
        broken.unless(false, "validate-header-name", "a header is not set");
        return String::new();
    };
    broken.unless(name_is_valid(&header.key), "validate-header-name", "a header name is not a lowercase token");
    broken.unless(header.raw_value.is_empty(), "validate-header-value", "a header value is in `raw_value`");
    broken.unless(value_is_valid(&header.value), "validate-header-value", "a header value is not valid");
    let kept = !header.value.is_empty() || option.keep_empty_value;
    broken.unless(kept, "validate-header-value", "an empty value is not marked as one to keep");
    let known = (0..=LAST).contains(&option.append_action);
    broken.unless(known, "append_action-enum-invalid", "`append_action` is not known");
    header.key.clone()
}

fn overwrites(option: &HeaderValueOption) -> bool {
    option.append.as_ref().is_some_and(|append| !append.value) && option.append_action == OVERWRITE_IF_EXISTS_OR_ADD
}

fn appends(option: &HeaderValueOption) -> bool {
    option.append.is_none() && option.append_action == APPEND_IF_EXISTS_OR_ADD
}

fn limits(headers: &[HeaderValueOption], broken: &mut Broken) {
    let bytes: usize = headers.iter().filter_map(|o| o.header.as_ref()).map(|h| h.key.len() + h.value.len()).sum();
    broken.unless(headers.len() <= MAX_ANSWER_HEADERS, "header-limit", "there are too many headers");
    broken.unless(bytes <= MAX_ANSWER_HEADER_BYTES, "header-limit", "the headers are too large");
}

fn name_is_valid(name: &str) -> bool {
    let token = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "!#$%&'*+-.^_`|~".contains(c);
    !name.is_empty() && name.chars().all(token)
}

fn value_is_valid(value: &str) -> bool {
    value.chars().all(|c| c == '\t' || (c >= ' ' && c != '\u{7f}')) && value.trim_matches([' ', '\t']) == value
}

/// As Envoy's `queryParameterIsUrlEncoded`: letters, digits, `*`, `-`, `.`, `_` and whole `%XX`.
fn is_encoded(text: &str) -> bool {
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        let hex = |byte: Option<u8>| byte.is_some_and(|byte| byte.is_ascii_hexdigit());
        let whole = if byte == b'%' {
            hex(bytes.next()) && hex(bytes.next())
        } else {
            byte.is_ascii_alphanumeric() || b"*-._".contains(&byte)
        };
        if !whole {
            return false;
        }
    }
    true
}
