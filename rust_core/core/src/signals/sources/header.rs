//! Source kind `header`: the caller says it of itself, in a request header. Never more than self-asserted.

use super::{Circumstances, Flow, Kind, ReadRequest, Source, of_this_request_alone};
use crate::model::{Assurance, SignalType, State, Value};
use std::sync::Arc;

pub(super) const KIND: Kind = Kind {
    word: "header",
    ceiling: |_| (Assurance::SelfAsserted, ""),
    objection: |subject| {
        let why = "a `header` source speaks of this request only: its contract's subject is `request`";
        of_this_request_alone(subject, why)
    },
    read: |reading, _| {
        let name = reading.parsed("header", "bad_header", header_name)?;
        Some(source(name))
    },
};

/// Headers that are no claim about the circumstances, and why.
const NOT_SIGNALS: &[(&str, &str)] = &[
    ("authorization", "it is a credential: identity is established elsewhere"),
    ("proxy-authorization", "it is a credential: identity is established elsewhere"),
    ("cookie", "it is a credential: identity is established elsewhere"),
    ("x-forwarded-client-cert", "it carries identity, which is established elsewhere"),
];

/// A lowercase header name (RFC 9110 token) that may carry a signal.
fn header_name(name: &str) -> Result<&str, String> {
    let is_token = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b"!#$%&'*+-.^_`|~".contains(&b);
    if name.is_empty() || !name.bytes().all(is_token) {
        return Err("expected the name of a header in lower case".to_owned());
    }
    if name.starts_with("x-signalwarden-") {
        return Err("a header that signalwarden itself sets or reads can't be a signal".to_owned());
    }
    match NOT_SIGNALS.iter().find(|(known, _)| *known == name) {
        Some((_, why)) => Err(format!("this header can't be a signal, {why}")),
        None => Ok(name),
    }
}

#[derive(Debug)]
struct FromHeader {
    name: Arc<str>,
}

/// A header source, from a name that is checked already: lowercase, and not ours.
pub fn source(name: &str) -> Source {
    Source {
        kind: "header",
        assurance: Assurance::SelfAsserted,
        label: format!("header:{name}").into(),
        settings: vec![("header", name.into())],
        flow: Flow::OnRequest(Arc::new(FromHeader { name: name.into() })),
    }
}

impl ReadRequest for FromHeader {
    fn read(&self, circumstances: &Circumstances<'_>, kind: &SignalType) -> (State, Option<Value>) {
        let [first, rest @ ..] = circumstances.request.headers.all(&self.name) else {
            return (State::Missing, None);
        };
        // Two different words for one thing: whichever we took, the caller could have meant the other.
        if rest.iter().any(|entry| entry.value != first.value || entry.is_utf8 != first.is_utf8) {
            return (State::Disputed, None);
        }
        match kind.read_text(&first.value).filter(|_| first.is_utf8) {
            Some(value) => (State::Fresh, Some(value)),
            None => (State::Missing, None),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{HeaderEntry, Headers, Request};
    use crate::signals::sources::testing;

    fn read(kind: &str, values: &[(&str, bool)]) -> (State, Option<Value>) {
        let entry = |(value, is_utf8): &(&str, bool)| HeaderEntry {
            name: "x-risk".to_owned(),
            value: (*value).to_owned(),
            is_utf8: *is_utf8,
        };
        let request = Request { headers: Headers::new(values.iter().map(entry).collect()), ..Request::default() };
        let source = "{kind: header, header: x-risk, assurance: self_asserted}";
        testing::read(kind, source, &request, "2026-11-24T10:00:00Z")
    }

    #[test]
    fn a_header_that_occurs_once_and_reads_as_its_type_is_fresh() {
        assert_eq!(read("long", &[("7", true)]), (State::Fresh, Some(Value::Long(7))));
        assert_eq!(read("bool", &[("true", true)]), (State::Fresh, Some(Value::Bool(true))));
    }

    #[test]
    fn a_header_that_is_absent_unreadable_or_not_text_is_missing() {
        assert_eq!(read("long", &[]), (State::Missing, None));
        assert_eq!(read("long", &[("seven", true)]), (State::Missing, None));
        assert_eq!(read("string", &[("!", false)]), (State::Missing, None));
        assert_eq!(read("long", &[("7,8", true)]), (State::Missing, None));
    }

    #[test]
    fn a_header_repeated_with_another_value_is_disputed() {
        assert_eq!(read("long", &[("7", true), ("8", true)]), (State::Disputed, None));
        assert_eq!(read("long", &[("7", true), ("7", false)]), (State::Disputed, None));
        assert_eq!(read("long", &[("7", true), ("7", true)]), (State::Fresh, Some(Value::Long(7))));
    }
}
