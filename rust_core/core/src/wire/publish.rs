//! `signalwarden.v1.Signals/Publish` on the wire: a batch of signals in, an acknowledgement out. The messages say the
//! same as the JSON of `POST /v1/signals`, and become it: one judge reads both.

use crate::{error::Error, limits, model::Timestamp};
use prost::Message;
use serde::Deserialize;
use serde_json::{Map, Value as Json};

#[derive(Clone, PartialEq, Message)]
struct PublishRequest {
    #[prost(message, repeated, tag = "1")]
    signals: Vec<Signal>,
}

#[derive(Clone, PartialEq, Message)]
struct Signal {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(string, tag = "2")]
    subject: String,
    #[prost(oneof = "Value", tags = "3, 4, 5, 6")]
    value: Option<Value>,
    #[prost(message, optional, tag = "7")]
    observed_at: Option<prost_types::Timestamp>,
}

#[derive(Clone, PartialEq, prost::Oneof)]
enum Value {
    #[prost(bool, tag = "3")]
    Bool(bool),
    #[prost(sint64, tag = "4")]
    Long(i64),
    /// Strings, words of an enum, decimals, datetimes and addresses, as JSON has them.
    #[prost(string, tag = "5")]
    Text(String),
    #[prost(message, tag = "6")]
    Set(StringSet),
}

#[derive(Clone, PartialEq, Message)]
struct StringSet {
    #[prost(string, repeated, tag = "1")]
    members: Vec<String>,
}

#[derive(Clone, PartialEq, Message)]
struct PublishResponse {
    #[prost(uint32, tag = "1")]
    accepted: u32,
    #[prost(message, repeated, tag = "2")]
    rejected: Vec<Rejection>,
}

#[derive(Clone, PartialEq, Message, Deserialize)]
struct Rejection {
    #[prost(uint32, tag = "1")]
    index: u32,
    #[prost(string, tag = "2")]
    reason: String,
    #[prost(string, tag = "3")]
    detail: String,
}

/// The body of `POST /v1/signals` that says the same as a `PublishRequest`. A field that is not set is left out,
/// so that the judge says which one is missing.
pub fn publish_to_json(message: &[u8]) -> Result<Vec<u8>, Error> {
    if message.len() > limits::MAX_PUBLISH_BYTES {
        return Err(Error::BadInput(format!("the message is larger than {} bytes", limits::MAX_PUBLISH_BYTES)));
    }
    let request = PublishRequest::decode(message)
        .map_err(|_| Error::BadInput("the message is not a `signalwarden.v1.PublishRequest`".to_owned()))?;
    if request.signals.len() > limits::MAX_BATCH {
        let (most, sent) = (limits::MAX_BATCH, request.signals.len());
        return Err(Error::BadInput(format!("a call takes at most {most} signals, this one has {sent}")));
    }
    let signals: Vec<Json> = request.signals.into_iter().map(Signal::into_json).collect();
    Ok(Json::Object(Map::from_iter([("signals".to_owned(), signals.into())])).to_string().into_bytes())
}

impl Signal {
    fn into_json(self) -> Json {
        let mut entry = Map::new();
        entry.insert("name".to_owned(), self.name.into());
        entry.insert("subject".to_owned(), self.subject.into());
        let value = self.value.map(|value| match value {
            Value::Bool(b) => Json::Bool(b),
            Value::Long(n) => n.into(),
            Value::Text(text) => text.into(),
            Value::Set(set) => set.members.into(),
        });
        entry.extend(value.map(|value| ("value".to_owned(), value)));
        let observed_at = self.observed_at.and_then(|at| {
            // Nanoseconds outside of a second are no time (google.protobuf.Timestamp).
            let nanos = u32::try_from(at.nanos).ok().filter(|nanos| *nanos < 1_000_000_000)?;
            let micros = at.seconds.checked_mul(1_000_000)?.checked_add(i64::from(nanos / 1_000))?;
            Some(Timestamp::from_micros(micros).to_rfc3339())
        });
        entry.extend(observed_at.map(|at| ("observed_at".to_owned(), at.into())));
        Json::Object(entry)
    }
}

/// The `PublishResponse` that says the same as the JSON answer of `POST /v1/signals`.
pub fn publish_answer(answer: &[u8]) -> Result<Vec<u8>, Error> {
    #[derive(Deserialize)]
    struct Answer {
        accepted: u32,
        rejected: Vec<Rejection>,
    }
    let answer: Answer =
        serde_json::from_slice(answer).map_err(|e| Error::BadInput(format!("no answer to a publisher: {e}")))?;
    Ok(PublishResponse { accepted: answer.accepted, rejected: answer.rejected }.encode_to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn signal(value: Option<Value>, observed_at: Option<(i64, i32)>) -> Signal {
        Signal {
            name: "trust".to_owned(),
            subject: "spiffe://prod.example/agent".to_owned(),
            value,
            observed_at: observed_at.map(|(seconds, nanos)| prost_types::Timestamp { seconds, nanos }),
        }
    }

    fn body(signals: Vec<Signal>) -> Json {
        serde_json::from_slice(&publish_to_json(&PublishRequest { signals }.encode_to_vec()).unwrap()).unwrap()
    }

    #[test]
    fn each_kind_of_value_becomes_its_json() {
        let values = [
            (Value::Bool(false), json!(false)),
            (Value::Long(-4), json!(-4)),
            (Value::Text("1.25".to_owned()), json!("1.25")),
            (Value::Set(StringSet { members: vec!["a".to_owned()] }), json!(["a"])),
        ];
        for (value, expected) in values {
            let body = body(vec![signal(Some(value), Some((1_795_600_000, 1_500_000)))]);
            assert_eq!(body["signals"][0]["value"], expected);
            assert_eq!(body["signals"][0]["observed_at"], "2026-11-25T09:46:40.001500Z");
        }
    }

    #[test]
    fn what_is_not_set_or_no_time_is_left_out() {
        for at in [None, Some((0, -1)), Some((i64::MAX, 0))] {
            let body = body(vec![signal(None, at)]);
            let keys: Vec<&String> = body["signals"][0].as_object().unwrap().keys().collect();
            assert_eq!(keys, ["name", "subject"]);
        }
    }

    #[test]
    fn what_is_no_message_is_refused_in_one_sentence() {
        for bytes in [&b"\xff\xff"[..], &vec![0; limits::MAX_PUBLISH_BYTES + 1]] {
            assert!(publish_to_json(bytes).unwrap_err().to_string().contains("message"));
        }
        let many = PublishRequest { signals: vec![Signal::default(); limits::MAX_BATCH + 1] };
        assert!(publish_to_json(&many.encode_to_vec()).unwrap_err().to_string().contains("at most"));
    }

    #[test]
    fn an_answer_keeps_every_rejection() {
        let answer = json!({"accepted": 2, "rejected": [{"index": 1, "reason": "older", "detail": "d"}]});
        let bytes = publish_answer(answer.to_string().as_bytes()).unwrap();
        let read = PublishResponse::decode(&*bytes).unwrap();
        assert_eq!((read.accepted, read.rejected.len(), read.rejected[0].reason.as_str()), (2, 1, "older"));
        assert!(publish_answer(b"{}").is_err());
    }
}
