//! Source kind `envoy_metadata`: a value that a filter of Envoy put into the request's dynamic metadata before the
//! check. Whoever controls what the filter writes says it: self-asserted, unless the contract names a filter that
//! writes what it verified, computed or was told, and never what it copies from the request.

use super::{Circumstances, Flow, Kind, ReadRequest, Reading, Source, of_this_request_alone};
use crate::document::{Fields, Kind as Written, Node};
use crate::findings::did_you_mean;
use crate::limits::{MAX_METADATA_KEYS, MAX_METADATA_NAME_BYTES};
use crate::model::{Assurance, SignalType, State, Value};
use std::sync::Arc;

pub(super) const KIND: Kind = Kind { word: "envoy_metadata", ceiling, objection, read };

/// Filters that qualify, by the namespace that is their own, and what they write there (Envoy's API documentation of
/// 1.36). A filter that qualifies can still be configured to say what it was told: that is the operator's to know.
const QUALIFIED: &[(&str, &str)] = &[
    ("envoy.filters.http.jwt_authn", "the payload of a token that it verified"),
    ("envoy.filters.http.basic_auth", "the user whose password it verified"),
    ("envoy.filters.http.ext_authz", "what another authorization server answered"),
    ("envoy.filters.http.ext_proc", "what a processing server answered"),
    ("envoy.filters.http.ratelimit", "what a rate limit service answered"),
    ("envoy.filters.http.rbac", "which of its own rules matched"),
    ("envoy.filters.http.set_metadata", "what Envoy's configuration says"),
];

/// Filters whose metadata is the caller's own words in another place, or whatever a program makes of them.
const COPYING: &[&str] = &[
    "envoy.filters.http.a2a",
    "envoy.filters.http.dynamic_modules",
    "envoy.filters.http.golang",
    "envoy.filters.http.grpc_field_extraction",
    "envoy.filters.http.header_to_metadata",
    "envoy.filters.http.json_to_metadata",
    "envoy.filters.http.lua",
    "envoy.filters.http.mcp",
    "envoy.filters.http.mcp_json_rest_bridge",
    "envoy.filters.http.proto_message_extraction",
    "envoy.filters.http.thrift_to_metadata",
    "envoy.filters.http.wasm",
    "envoy.filters.listener.proxy_protocol",
];

/// Where our own answers to Envoy go: what was decided is no circumstance of the next decision.
const OUR_NAMESPACE: &str = "envoy.filters.http.ext_authz";
const OUR_KEY: &str = "signalwarden";

fn ceiling(fields: &Fields<'_>) -> (Assurance, &'static str) {
    if fields.has("filter") {
        (Assurance::Sourced, "")
    } else {
        (Assurance::SelfAsserted, " unless it names the `filter` that produces it")
    }
}

fn objection(subject: crate::model::names::SubjectKind) -> Option<&'static str> {
    let why = "an `envoy_metadata` source speaks of this request only: its contract's subject is `request`";
    of_this_request_alone(subject, why)
}

fn read(reading: &mut Reading<'_, '_>, assurance: Assurance) -> Option<Source> {
    let namespace = reading.parsed("namespace", "bad_metadata", name);
    let filter = reading.fields.has("filter").then(|| filter(reading, namespace));
    let keys = way(reading, "key", "bad_metadata");
    let (namespace, keys) = (namespace?, keys?);
    if namespace == OUR_NAMESPACE && keys.first().is_some_and(|key| &**key == OUR_KEY) {
        let message = "`key`: what signalwarden itself answered can't be a signal of a later decision";
        reading.error(reading.fields.place_of("key"), "bad_metadata", message);
        return None;
    }
    let mut settings = vec![("namespace", namespace.into()), ("key", keys.iter().map(|key| &**key).collect())];
    if let Some(filter) = filter {
        settings.push(("filter", filter?.into()));
    }
    Some(Source {
        kind: KIND.word,
        assurance,
        label: format!("metadata:{namespace}/{}", keys.join("/")).into(),
        settings,
        flow: Flow::OnRequest(Arc::new(FromMetadata { namespace: namespace.into(), keys })),
    })
}

/// A name as it may stand in metadata.
fn name(text: &str) -> Result<&str, String> {
    let good = !text.is_empty() && text.len() <= MAX_METADATA_NAME_BYTES && !text.chars().any(char::is_control);
    if good { Ok(text) } else { Err(format!("expected a name of at most {MAX_METADATA_NAME_BYTES} bytes")) }
}

fn filter<'a>(reading: &mut Reading<'a, '_>, namespace: Option<&str>) -> Option<&'a str> {
    let filter = reading.parsed("filter", "bad_filter", |text| {
        if COPYING.contains(&text) {
            return Err("this filter copies from the request or runs a program, so it never qualifies".to_owned());
        }
        if QUALIFIED.iter().any(|(known, _)| *known == text) {
            return Ok(text);
        }
        let known: Vec<String> = QUALIFIED.iter().map(|(known, _)| format!("`{known}`")).collect();
        let hint = did_you_mean(text, QUALIFIED.iter().map(|(known, _)| *known));
        Err(format!("expected a filter that qualifies, one of {}{hint}", known.join(", ")))
    })?;
    if namespace.is_some_and(|namespace| namespace != filter) {
        let message = format!("`namespace`: with `filter` it is that filter's own, `{filter}`");
        reading.error(reading.fields.place_of("namespace"), "bad_metadata", message);
        return None;
    }
    Some(filter)
}

/// A text, or a list of texts: the way down to a value. What is wrong with it has this code.
pub(super) fn way(reading: &mut Reading<'_, '_>, key: &'static str, code: &'static str) -> Option<Vec<Box<str>>> {
    let node = reading.fields.require(key, reading.findings)?;
    let written: Vec<&Node> = match &node.kind {
        Written::List(items) => items.iter().collect(),
        _ => vec![node],
    };
    if written.is_empty() || written.len() > MAX_METADATA_KEYS {
        let message = format!("`{key}`: expected one to {MAX_METADATA_KEYS} names, found {}", written.len());
        reading.error(node.place, code, message);
        return None;
    }
    let mut keys = Vec::with_capacity(written.len());
    for node in &written {
        let text = node.text(reading.file, key, reading.findings)?;
        match name(text) {
            Ok(text) => keys.push(text.into()),
            Err(expected) => reading.error(node.place, code, format!("`{key}`: {expected}")),
        }
    }
    (keys.len() == written.len()).then_some(keys)
}

#[derive(Debug)]
struct FromMetadata {
    namespace: Box<str>,
    keys: Vec<Box<str>>,
}

impl ReadRequest for FromMetadata {
    /// What is of another type counts as absent, like a header that does not read as its type: for the policies
    /// there is no value either way. Numbers of metadata are doubles: whole ones up to 2^53 read as `long`.
    fn read(&self, circumstances: &Circumstances<'_>, kind: &SignalType) -> (State, Option<Value>) {
        let namespace = circumstances.request.metadata.get(&*self.namespace);
        let found = namespace.and_then(|from| self.keys.iter().try_fold(from, |json, key| json.get(&**key)));
        match found.and_then(|json| kind.read_json(json)) {
            Some(value) => (State::Fresh, Some(value)),
            None => (State::Missing, None),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{mistakes, read, register, routes};
    use super::*;
    use crate::model::Request;
    use serde_json::{Value as Json, json};

    const JWT: &str = "{kind: envoy_metadata, namespace: envoy.filters.http.jwt_authn, key: [payload, tenant], \
                       filter: envoy.filters.http.jwt_authn, assurance: sourced}";

    fn read_of(kind: &str, source: &str, metadata: &Json) -> (State, Option<Value>) {
        let metadata = metadata.as_object().unwrap().iter().map(|(name, json)| (name.clone(), json.clone())).collect();
        read(kind, source, &Request { metadata, ..Request::default() }, "2026-11-24T10:00:00Z")
    }

    fn tenant(kind: &str, value: &Json) -> Option<Value> {
        read_of(kind, JWT, &json!({"envoy.filters.http.jwt_authn": {"payload": {"tenant": value}}})).1
    }

    #[test]
    fn a_value_is_found_by_its_way_and_read_as_its_type() {
        assert_eq!(tenant("string", &json!("acme")), Some(Value::String("acme".into())));
        assert_eq!(tenant("long", &json!(3)), Some(Value::Long(3)));
        assert_eq!(tenant("bool", &json!(true)), Some(Value::Bool(true)));
        assert!(tenant("set", &json!(["a", "b"])).is_some());
    }

    #[test]
    fn what_is_absent_or_of_another_type_is_missing() {
        for other in [json!(3.5), json!("3"), json!(null), json!({"a": 3}), json!([3]), json!(1e300), json!(true)] {
            assert_eq!(tenant("long", &other), None, "{other}");
        }
        assert_eq!(tenant("string", &json!(3)), None);
        assert_eq!(tenant("enum[a, b]", &json!("c")), None);
        for metadata in [
            json!({}),
            json!({"envoy.filters.http.jwt_authn": {}}),
            json!({"envoy.filters.http.jwt_authn": {"payload": "tenant"}}),
            json!({"envoy.filters.http.jwt_authn": {"payload": ["tenant"]}}),
            json!({"other": {"payload": {"tenant": "acme"}}}),
            json!({"envoy.filters.http.jwt_authn": {"payload.tenant": "acme"}}),
        ] {
            assert_eq!(read_of("string", JWT, &metadata), (State::Missing, None), "{metadata}");
        }
    }

    #[test]
    fn without_a_filter_it_is_the_callers_own_word() {
        let source = |assurance| format!("{{kind: envoy_metadata, namespace: n, key: k, assurance: {assurance}}}");
        let said = mistakes("long", "request", &source("sourced"));
        assert!(said[0].contains("at best `self_asserted` unless it names the `filter`"), "{said:?}");
        assert_eq!(mistakes("long", "request", &source("self_asserted")), [""; 0]);
        assert_eq!(read_of("long", &source("self_asserted"), &json!({"n": {"k": 7}})).1, Some(Value::Long(7)));
    }

    #[test]
    fn a_filter_that_copies_and_one_that_nobody_knows_never_qualify() {
        let with = |filter: &str, assurance: &str| {
            let source = format!(
                "{{kind: envoy_metadata, namespace: {filter}, key: k, filter: {filter}, assurance: {assurance}}}"
            );
            mistakes("long", "request", &source)
        };
        for filter in COPYING {
            assert!(with(filter, "sourced")[0].contains("never qualifies"), "{filter}");
            assert!(!with(filter, "self_asserted").is_empty());
        }
        for (filter, _) in QUALIFIED {
            assert_eq!(with(filter, "sourced"), [""; 0]);
            assert!(with(filter, "authoritative")[0].starts_with("assurance_too_high"));
        }
        assert!(
            with("envoy.filters.http.jwt_auth", "sourced")[0].contains("did you mean `envoy.filters.http.jwt_authn`")
        );
        let mixed = JWT.replace("namespace: envoy.filters.http.jwt_authn", "namespace: header_to_metadata");
        assert!(mistakes("string", "request", &mixed)[0].contains("that filter's own"));
    }

    #[test]
    fn our_own_answer_is_no_source() {
        let of = |key: &str| {
            let rest = "filter: envoy.filters.http.ext_authz, assurance: sourced";
            let source = format!("{{kind: envoy_metadata, namespace: {OUR_NAMESPACE}, key: {key}, {rest}}}");
            mistakes("string", "request", &source)
        };
        assert!(of("[signalwarden, reason]")[0].contains("itself answered"));
        assert!(of("signalwarden")[0].contains("itself answered"));
        assert_eq!(of("[other, reason]"), [""; 0]);
    }

    #[test]
    fn it_speaks_of_the_request_alone_and_its_label_says_where_from() {
        assert!(mistakes("string", "principal", JWT).iter().any(|said| said.starts_with("source_subject")));
        let (register, _) = register(&routes(&[""]), "string", "request", JWT);
        let source = &register.contracts()[0].sources[0];
        assert_eq!(&*source.label, "metadata:envoy.filters.http.jwt_authn/payload/tenant");
        assert_eq!(source.to_json()["key"], json!(["payload", "tenant"]));
        assert_eq!(source.to_json()["filter"], "envoy.filters.http.jwt_authn");
        for bad in ["[]", "''", "[a, '']", "[a, b, c, d, e, f, g, h, i]", "7"] {
            let source = format!("{{kind: envoy_metadata, namespace: n, key: {bad}, assurance: self_asserted}}");
            assert_eq!(mistakes("long", "request", &source).len(), 1, "{bad}");
        }
    }
}
