//! Bytes of a `CheckRequest` to [`Request`]. Everything an outsider can make large is bounded here, and a
//! request that means two things at once is refused here, so that no later room need ask.
//!
//! Whether a body was forwarded is told by Envoy's header `x-envoy-auth-partial-body`, which it writes for
//! every body that it forwards, an empty one too, and which it never takes from a client. `size` cannot tell:
//! it counts the bytes received so far, so it is 0 for a body that Envoy has not read yet.

use super::messages;
use crate::limits::{MAX_CHECK_REQUEST_BYTES, MAX_DEPTH, MAX_HEADERS, MAX_PATH_BYTES};
use crate::model::{Body, HeaderEntry, Headers, Peer, Request, Timestamp};
use prost::Message;
use prost::encoding::{DecodeContext, WireType, decode_key, decode_varint, skip_field};
use prost_types::value::Kind;
use serde_json::{Number, Value as Json};
use std::collections::BTreeMap;
use std::fmt;

/// Why the bytes are not one request with one meaning.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Malformed {
    /// One sentence, for the record; it never repeats what was sent.
    pub detail: String,
}

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.detail)
    }
}

impl std::error::Error for Malformed {}

/// Says whether the body is whole; Envoy drops a client's own header of this name.
const PARTIAL_BODY: &str = "x-envoy-auth-partial-body";
/// What Envoy writes in place of bytes that are not UTF-8, in `headers` and in `path`.
const NOT_UTF8_MARK: char = '!';
/// Below this size a message cannot hold enough empty headers to matter, so they are not counted beforehand.
const SMALL_REQUEST_BYTES: usize = 64 * 1024;
/// Seconds of the years 1 to 9999, which google.protobuf.Timestamp allows.
const TIMESTAMP_SECONDS: std::ops::RangeInclusive<i64> = -62_135_596_800..=253_402_300_799;
/// Largest whole number that a double holds without doubt.
const MAX_SAFE_INTEGER: f64 = 9_007_199_254_740_992.0;

/// Bytes to the message, within bounds.
pub(super) fn message(bytes: &[u8]) -> Result<messages::CheckRequest, Malformed> {
    if bytes.len() > MAX_CHECK_REQUEST_BYTES {
        return Err(refuse(format!("the request is larger than {MAX_CHECK_REQUEST_BYTES} bytes")));
    }
    if bytes.len() > SMALL_REQUEST_BYTES && count_headers(bytes).is_none_or(|count| count > MAX_HEADERS) {
        return Err(too_many_headers());
    }
    messages::CheckRequest::decode(bytes).map_err(|_| refuse("the bytes are not a `CheckRequest`".to_owned()))
}

/// Reads one `CheckRequest`.
pub fn decode(bytes: &[u8]) -> Result<Request, Malformed> {
    let message = message(bytes)?;
    let attributes = message.attributes.ok_or_else(|| refuse("`attributes` is missing".to_owned()))?;
    let request = attributes.request.ok_or_else(|| refuse("`attributes.request` is missing".to_owned()))?;
    let http = request.http.ok_or_else(|| refuse("`attributes.request.http` is missing".to_owned()))?;
    if http.path.len() > MAX_PATH_BYTES {
        return Err(refuse(format!("`path` is longer than {MAX_PATH_BYTES} bytes")));
    }
    let size = match http.size {
        -1 => None,
        size => Some(u64::try_from(size).map_err(|_| refuse("`size` is negative".to_owned()))?),
    };
    let headers = headers(http.headers, http.header_map)?;
    agree(&headers, ":path", "path", &http.path)?;
    agree(&headers, ":authority", "host", &http.host)?;
    agree(&headers, ":method", "method", &http.method)?;
    Ok(Request {
        id: http.id,
        time: request.time.map(timestamp).transpose()?,
        method: http.method,
        path: http.path,
        host: http.host,
        scheme: http.scheme,
        protocol: http.protocol,
        size,
        body: body(http.body, http.raw_body, size, &headers)?,
        headers,
        extensions: attributes.context_extensions,
        metadata: metadata(attributes.metadata_context)?,
        route_metadata: metadata(attributes.route_metadata_context)?,
        source: attributes.source.map(peer).unwrap_or_default(),
        destination: attributes.destination.map(peer).unwrap_or_default(),
        sni: attributes.tls_session.map(|session| session.sni).unwrap_or_default(),
    })
}

pub(super) fn refuse(detail: String) -> Malformed {
    Malformed { detail }
}

fn too_many_headers() -> Malformed {
    refuse(format!("there are more than {MAX_HEADERS} headers"))
}

fn headers(map: Vec<messages::HeadersEntry>, list: Option<messages::HeaderMap>) -> Result<Headers, Malformed> {
    let list = list.map(|map| map.headers).unwrap_or_default();
    if !map.is_empty() && !list.is_empty() {
        return Err(refuse("both `headers` and `header_map` are set".to_owned()));
    }
    if map.len().max(list.len()) > MAX_HEADERS {
        return Err(too_many_headers());
    }
    if list.is_empty() {
        let headers = Headers::new(map.into_iter().map(|entry| text_header(entry.key, entry.value)).collect());
        let repeated = headers.iter().zip(headers.iter().skip(1)).any(|(one, next)| one.name == next.name);
        return if repeated { Err(refuse("a name occurs twice in `headers`".to_owned())) } else { Ok(headers) };
    }
    list.into_iter().map(raw_header).collect::<Result<Vec<_>, _>>().map(Headers::new)
}

fn text_header(mut name: String, value: String) -> HeaderEntry {
    name.make_ascii_lowercase();
    let is_utf8 = !value.contains(NOT_UTF8_MARK);
    HeaderEntry { name, value, is_utf8 }
}

fn raw_header(header: messages::HeaderValue) -> Result<HeaderEntry, Malformed> {
    if header.raw_value.is_empty() {
        return Ok(text_header(header.key, header.value));
    }
    if !header.value.is_empty() {
        return Err(refuse("an entry of `header_map` has both `value` and `raw_value`".to_owned()));
    }
    let mut name = header.key;
    name.make_ascii_lowercase();
    Ok(match String::from_utf8(header.raw_value) {
        Ok(value) => HeaderEntry { name, value, is_utf8: true },
        Err(error) => {
            HeaderEntry { name, value: String::from_utf8_lossy(error.as_bytes()).into_owned(), is_utf8: false }
        }
    })
}

/// One meaning or none: what policies see must be what the upstream sees.
fn agree(headers: &Headers, pseudo: &str, field: &str, value: &str) -> Result<(), Malformed> {
    if headers.all(pseudo).iter().all(|header| header.value == value) {
        Ok(())
    } else {
        Err(refuse(format!("`{field}` differs from the header `{pseudo}`")))
    }
}

fn body(text: Vec<u8>, raw: Vec<u8>, size: Option<u64>, headers: &Headers) -> Result<Body, Malformed> {
    if !text.is_empty() && !raw.is_empty() {
        return Err(refuse("both `body` and `raw_body` are set".to_owned()));
    }
    let bytes = if raw.is_empty() { text } else { raw };
    let announced = headers.all(PARTIAL_BODY);
    if bytes.is_empty() && announced.is_empty() {
        return Ok(Body::NotForwarded);
    }
    // Any word but "false" counts as cut off: only a body known to be whole may be read as whole.
    let cut = announced.iter().any(|header| header.value != "false");
    let short = size.is_some_and(|size| size > bytes.len() as u64);
    Ok(Body::Forwarded { bytes, truncated: cut || short })
}

fn timestamp(time: prost_types::Timestamp) -> Result<Timestamp, Malformed> {
    if !TIMESTAMP_SECONDS.contains(&time.seconds) || !(0..1_000_000_000).contains(&time.nanos) {
        return Err(refuse("`time` is not a point in time".to_owned()));
    }
    Ok(Timestamp::from_micros(time.seconds * 1_000_000 + i64::from(time.nanos) / 1_000))
}

fn peer(peer: messages::Peer) -> Peer {
    Peer {
        address: peer.address.and_then(|address| address.kind).map(address).unwrap_or_default(),
        principal: peer.principal,
        service: peer.service,
        labels: peer.labels,
        certificate: peer.certificate,
    }
}

fn address(kind: messages::AddressKind) -> String {
    match kind {
        messages::AddressKind::Socket(socket) => {
            let host = if socket.address.contains(':') { format!("[{}]", socket.address) } else { socket.address };
            match socket.port {
                Some(messages::Port::Number(port)) => format!("{host}:{port}"),
                Some(messages::Port::Name(port)) => format!("{host}:{port}"),
                None => format!("{host}:0"),
            }
        }
        messages::AddressKind::Pipe(pipe) => pipe.path,
        messages::AddressKind::Internal(address) => {
            format!("envoy://{}/{}", address.server_listener_name, address.endpoint_id)
        }
    }
}

fn metadata(metadata: Option<messages::Metadata>) -> Result<BTreeMap<String, Json>, Malformed> {
    let Some(metadata) = metadata else { return Ok(BTreeMap::new()) };
    metadata.filter_metadata.into_iter().map(|(name, fields)| Ok((name, object(fields, MAX_DEPTH)?))).collect()
}

pub(super) fn object(fields: prost_types::Struct, depth: usize) -> Result<Json, Malformed> {
    let depth = deeper(depth)?;
    let fields = fields.fields.into_iter().map(|(name, value)| Ok((name, json(value, depth)?)));
    fields.collect::<Result<serde_json::Map<_, _>, _>>().map(Json::Object)
}

fn deeper(depth: usize) -> Result<usize, Malformed> {
    depth.checked_sub(1).ok_or_else(|| refuse(format!("metadata nests deeper than {MAX_DEPTH} levels")))
}

fn json(value: prost_types::Value, depth: usize) -> Result<Json, Malformed> {
    Ok(match value.kind {
        None | Some(Kind::NullValue(_)) => Json::Null,
        Some(Kind::BoolValue(value)) => Json::Bool(value),
        Some(Kind::StringValue(value)) => Json::String(value),
        Some(Kind::NumberValue(value)) => Json::Number(number(value)?),
        Some(Kind::StructValue(value)) => object(value, depth)?,
        Some(Kind::ListValue(list)) => {
            let depth = deeper(depth)?;
            Json::Array(list.values.into_iter().map(|value| json(value, depth)).collect::<Result<_, _>>()?)
        }
    })
}

/// A whole number stays one, as in protobuf's own JSON, so that 4 is not read as 4.0.
#[expect(clippy::cast_possible_truncation, reason = "whole and within 2^53")]
fn number(value: f64) -> Result<Number, Malformed> {
    if value.fract() == 0.0 && value.abs() <= MAX_SAFE_INTEGER {
        return Ok(Number::from(value as i64));
    }
    Number::from_f64(value).ok_or_else(|| refuse("metadata holds a number that is not finite".to_owned()))
}

/// Counts the headers of a large message without building one, so that two bytes on the wire cannot take
/// fifty in memory. `None` for bytes that are no message.
fn count_headers(bytes: &[u8]) -> Option<usize> {
    let mut count = 0;
    each_field(bytes, |tag, attributes| {
        if tag != 1 {
            return Some(());
        }
        each_field(attributes, |tag, request| {
            if tag != 4 {
                return Some(());
            }
            each_field(request, |tag, http| {
                if tag != 2 {
                    return Some(());
                }
                each_field(http, |tag, field| {
                    match tag {
                        3 => count += 1,
                        13 => each_field(field, |tag, _| {
                            count += usize::from(tag == 1);
                            Some(())
                        })?,
                        _ => {}
                    }
                    Some(())
                })
            })
        })
    })?;
    Some(count)
}

/// Calls `visit` with each length-delimited field of one message.
fn each_field<'a>(mut bytes: &'a [u8], mut visit: impl FnMut(u32, &'a [u8]) -> Option<()>) -> Option<()> {
    while !bytes.is_empty() {
        let (tag, wire_type) = decode_key(&mut bytes).ok()?;
        if wire_type == WireType::LengthDelimited {
            let length = usize::try_from(decode_varint(&mut bytes).ok()?).ok()?;
            let (field, rest) = bytes.split_at_checked(length)?;
            visit(tag, field)?;
            bytes = rest;
        } else {
            skip_field(wire_type, tag, &mut bytes, DecodeContext::default()).ok()?;
        }
    }
    Some(())
}
