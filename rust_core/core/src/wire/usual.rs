//! The everyday answers: the same bytes as `encode.rs` makes of them, without the owned data and the questions that it
//! asks of any answer. What is not everyday is `None` here, and goes that way.

use super::encode::overwrite;
use super::syntax;
use super::writer::Writer;
use crate::decide::Permit;
use crate::limits::{MAX_ANSWER_HEADER_BYTES, MAX_ANSWER_METADATA_BYTES};
use crate::reason::{GrpcStatus, Reason};

/// Enough for an everyday answer.
const USUAL_BYTES: usize = 1024;

/// What the access log learns of a decision: one key of dynamic metadata with these fields.
#[derive(Clone, Copy, Debug)]
pub struct Note<'a> {
    /// The key.
    pub key: &'a str,
    /// Id of the decision.
    pub decision_id: &'a str,
    /// Ids of policies.
    pub determining: &'a [&'a str],
    /// Code of the reason.
    pub reason: &'a str,
    /// Revision of the configuration.
    pub revision: Option<&'a str>,
}

/// An allow that sets request headers and removes others. `headers` are valid by name, each once; `removed` are theirs, in
/// lower case, and none of `headers`.
pub fn encode_usual_allow(
    _: &Permit,
    headers: &[(&'static str, &str)],
    removed: &[&'static str],
    note: &Note<'_>,
) -> Option<Vec<u8>> {
    are_usual(headers)?;
    let mut out = Writer::with_capacity(USUAL_BYTES);
    out.message(1, |_| {}); // status, whose code 0 (OK) protobuf does not write
    out.message(3, |ok| {
        for (name, value) in headers {
            ok.message(2, |option| overwrite(option, name, value));
        }
        for name in removed {
            ok.text(5, name);
        }
    });
    written(&mut out, note)?;
    Some(out.into_bytes())
}

/// A deny with its own response headers, valid by name and each once, and a body. `note.reason` is the code of `reason`.
pub fn encode_usual_deny(
    reason: Reason,
    headers: &[(&'static str, &str)],
    body: &str,
    note: &Note<'_>,
) -> Option<Vec<u8>> {
    are_usual(headers)?;
    if reason.grpc_status() == GrpcStatus::Ok {
        return None;
    }
    let mut out = Writer::with_capacity(USUAL_BYTES);
    out.message(1, |status| {
        status.varint(1, reason.grpc_status() as u64);
        status.text(2, reason.code());
    });
    out.message(2, |denied| {
        denied.message(1, |status| status.varint(1, u64::from(reason.http_status())));
        for (name, value) in headers {
            denied.message(2, |option| overwrite(option, name, value));
        }
        denied.text(3, body);
    });
    written(&mut out, note)?;
    Some(out.into_bytes())
}

fn are_usual(headers: &[(&'static str, &str)]) -> Option<()> {
    let bytes: usize = headers.iter().map(|(name, value)| name.len() + value.len()).sum();
    let valid = |(name, value): &(&str, &str)| !value.is_empty() && syntax::header_value(name, value).is_ok();
    // Half of what is allowed: names that are removed take room, too.
    (bytes <= MAX_ANSWER_HEADER_BYTES / 2 && headers.iter().all(valid)).then_some(())
}

/// Writes the note as `dynamic_metadata`, in the order in which the general way has its fields; `None` if it is too much.
fn written(out: &mut Writer, note: &Note<'_>) -> Option<()> {
    let start = out.len();
    out.message(4, |metadata| {
        field(metadata, note.key, |value| {
            value.message(5, |fields| {
                field(fields, "decision_id", |value| value.text(3, note.decision_id));
                field(fields, "reason", |value| value.text(3, note.reason));
                field(fields, "determining", |value| {
                    value.message(6, |list| {
                        for id in note.determining {
                            list.message(1, |value| value.text(3, id));
                        }
                    });
                });
                field(fields, "revision", |value| match note.revision {
                    Some(revision) => value.text(3, revision),
                    None => value.varint(1, 0),
                });
            });
        });
    });
    (out.len() - start <= MAX_ANSWER_METADATA_BYTES).then_some(())
}

/// An entry of google.protobuf.Struct.
fn field(out: &mut Writer, name: &str, value: impl FnOnce(&mut Writer)) {
    out.message(1, |entry| {
        entry.text(1, name);
        entry.message(2, value);
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::{AllowAnswer, DenyAnswer, encode_allow, encode_deny};
    use proptest::prelude::*;
    use serde_json::{Map, json};

    /// As `encode.rs` is asked for the same.
    fn metadata(note: &Note<'_>) -> Map<String, serde_json::Value> {
        let fields = json!({
            "decision_id": note.decision_id,
            "reason": note.reason,
            "determining": note.determining,
            "revision": note.revision,
        });
        Map::from_iter([(note.key.to_owned(), fields)])
    }

    fn owned(headers: &[(&'static str, &str)]) -> Vec<(String, String)> {
        headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    proptest! {
        #[test]
        fn the_everyday_answers_are_those_of_the_general_way(
            id in ".{0,40}",
            value in "[ -~]{0,300}",
            policies in prop::collection::vec(".{0,70}", 0..9),
            revision in proptest::option::of(".{0,64}"),
            at in 0..Reason::ALL.len(),
            body in "[ -~]{0,300}",
        ) {
            let reason = Reason::ALL[at];
            let determining: Vec<&str> = policies.iter().map(String::as_str).collect();
            let note = Note {
                key: "signalwarden",
                decision_id: &id,
                determining: &determining,
                reason: reason.code(),
                revision: revision.as_deref(),
            };
            let headers = [("x-a", value.as_str()), ("x-b", "b")];
            let removed = ["x-c", "x-d"];
            let general = AllowAnswer {
                set_headers: owned(&headers),
                remove_headers: removed.iter().map(ToString::to_string).collect(),
                metadata: metadata(&note),
                ..AllowAnswer::default()
            };
            let permit = Permit::for_tests();
            if let Some(usual) = encode_usual_allow(&permit, &headers, &removed, &note) {
                prop_assert_eq!(Ok(usual), encode_allow(&permit, &general));
            } else {
                prop_assert!(value.is_empty() || value.starts_with(' ') || value.ends_with(' '));
            }
            let general = DenyAnswer {
                reason,
                http_status: None,
                headers: owned(&headers),
                body: body.clone(),
                metadata: metadata(&note),
            };
            if let Some(usual) = encode_usual_deny(reason, &headers, &body, &note) {
                prop_assert_eq!(usual, encode_deny(&general));
            } else {
                prop_assert!(reason == Reason::Allowed || value.is_empty() || value.starts_with(' ') || value.ends_with(' '));
            }
        }
    }

    #[test]
    fn what_is_too_much_is_left_to_the_general_way() {
        let many = ["x".repeat(MAX_ANSWER_METADATA_BYTES)];
        let determining: Vec<&str> = many.iter().map(String::as_str).collect();
        let note = Note { key: "k", decision_id: "", determining: &determining, reason: "", revision: None };
        assert_eq!(encode_usual_allow(&Permit::for_tests(), &[], &[], &note), None);
        let long = "v".repeat(MAX_ANSWER_HEADER_BYTES);
        let note = Note { determining: &[], ..note };
        assert_eq!(encode_usual_allow(&Permit::for_tests(), &[("x-a", &long)], &[], &note), None);
        assert_eq!(encode_usual_deny(Reason::PolicyDenied, &[("x-a", "a\n")], "", &note), None);
    }
}
