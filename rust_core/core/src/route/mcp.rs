//! A message of the Model Context Protocol, as far as routes look at it: the method, and of a `tools/call` the tool.
//!
//! The body alone is read where it is there, and it must have one meaning: one JSON-RPC 2.0 request, no batch, no key
//! of it twice. What Envoy's MCP filter says must not differ. It stands in only where no body was forwarded: it takes
//! the last of two keys, and reads numbers as floating point, so arguments are never taken from it.

use super::{Route, body::check_headers, recorded::FurtherNote};
use crate::{
    limits,
    model::{Body, Request},
};
use serde::{
    Deserialize,
    de::{DeserializeSeed, Deserializer, Error as _, IgnoredAny, MapAccess, Visitor},
};
use serde_json::Value as Json;
use std::{cell::OnceCell, fmt};

/// How messages come.
pub(super) const METHOD: &str = "POST";
/// The method that calls a tool.
pub(super) const TOOLS_CALL: &str = "tools/call";
/// The method that asks which tools there are.
pub(super) const TOOLS_LIST: &str = "tools/list";
/// Where the arguments of a tool stand in the body.
pub(super) const ARGUMENTS: [&str; 2] = ["params", "arguments"];
/// Namespaces of the metadata of Envoy's filter, now and before.
pub(super) const NAMESPACES: [&str; 2] = ["envoy.filters.http.mcp", "mcp_proxy"];

/// What a route asks of a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Mcp {
    pub(super) method: Box<str>,
    /// `None` for every tool, and for methods without one.
    pub(super) tool: Option<Box<str>>,
}

impl Mcp {
    pub(super) fn matches(&self, message: &Message) -> bool {
        self.method == message.method && (self.tool.is_none() || self.tool == message.tool)
    }

    pub(super) fn is_compatible(&self, other: &Self) -> bool {
        self.method == other.method && (self.tool.is_none() || other.tool.is_none() || self.tool == other.tool)
    }

    /// Whether every condition of the other is one of these, too.
    pub(super) fn asks_for_all_of(&self, other: &Self) -> bool {
        self.method == other.method && (other.tool.is_none() || self.tool == other.tool)
    }
}

impl fmt::Display for Mcp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "mcp {}", self.method)?;
        self.tool.as_ref().map_or(Ok(()), |tool| write!(f, " {tool}"))
    }
}

/// What a request says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Message {
    method: Box<str>,
    tool: Option<Box<str>>,
}

/// A request whose message is read when the first route asks for it, once.
pub(super) struct Seen<'a> {
    pub(super) request: &'a Request,
    message: OnceCell<Result<Message, String>>,
    /// Of a request that only its record knows: what that holds, and what was asked for beyond it.
    recorded: Option<&'a FurtherNote>,
    unknown: OnceCell<String>,
}

impl<'a> Seen<'a> {
    pub(super) const fn new(request: &'a Request) -> Self {
        Self { request, message: OnceCell::new(), recorded: None, unknown: OnceCell::new() }
    }

    /// A request as its record has it.
    pub(super) const fn recorded(request: &'a Request, recorded: &'a FurtherNote) -> Self {
        Self { request, message: OnceCell::new(), recorded: Some(recorded), unknown: OnceCell::new() }
    }

    /// The message, or one sentence on why there is none: `malformed_request`.
    pub(super) fn message(&self) -> Result<&Message, String> {
        if self.recorded.is_some_and(|recorded| recorded.mcp.is_none()) {
            return Err(self.cannot_tell("a message of mcp"));
        }
        self.message.get_or_init(|| read(self.request)).as_ref().map_err(Clone::clone)
    }

    /// Method and tool of the message, if a route asked for it and it could be read.
    pub(super) fn told(&self) -> Option<(Box<str>, Option<Box<str>>)> {
        let message = self.message.get()?.as_ref().ok()?;
        Some((message.method.clone(), message.tool.clone()))
    }

    /// Whether all is known that a route of this method and path asks for, but for a message of MCP. Of a request itself it
    /// always is; what a record does not hold ends the search.
    pub(super) fn tells(&self, route: &Route) -> Result<(), String> {
        let Some(recorded) = self.recorded else { return Ok(()) };
        let further = &route.further;
        if further.grpc.is_some() && recorded.grpc.is_none() {
            return Err(self.cannot_tell("whether it was a call of grpc"));
        }
        match further.extensions.keys().find(|key| !recorded.extensions.contains_key(key.as_str())) {
            Some(key) => Err(self.cannot_tell(&format!("the extension `{key}`"))),
            None => Ok(()),
        }
    }

    fn cannot_tell(&self, what: &str) -> String {
        self.unknown.get_or_init(|| format!("a route asks for {what}, and the record does not hold it")).clone()
    }

    /// What was asked for and is not known.
    pub(super) fn take_unknown(self) -> Option<String> {
        self.unknown.into_inner()
    }
}

/// Reads the message of a request.
fn read(request: &Request) -> Result<Message, String> {
    let told = told(request)?;
    let bytes = match (&request.body, request.whole_body()) {
        (Body::NotForwarded, _) => return told.ok_or_else(|| "no body of json-rpc was forwarded".to_owned()),
        (_, Err(why)) => return Err(format!("no message of json-rpc: {why}")),
        (_, Ok(bytes)) => bytes,
    };
    check_headers(request)?;
    let message = std::str::from_utf8(bytes).map_err(|_| "the body is not utf-8".to_owned()).and_then(parse)?;
    match told {
        Some(told) if told.method != message.method || (told.tool.is_some() && told.tool != message.tool) => {
            Err("the body and what envoy's mcp filter read of it differ".to_owned())
        }
        _ => Ok(message),
    }
}

/// What Envoy's filter says, where that can be used.
fn told(request: &Request) -> Result<Option<Message>, String> {
    let mut all = NAMESPACES.iter().filter_map(|namespace| request.metadata.get(*namespace)).filter_map(usable);
    match (all.next(), all.next()) {
        (Some(one), Some(other)) if one != other => Err("the metadata of two mcp filters differ".to_owned()),
        (told, _) => Ok(told),
    }
}

/// Metadata of a whole message that the filter took for one.
fn usable(metadata: &Json) -> Option<Message> {
    let is_marked = |key: &str| metadata.get(key).is_some_and(|value| *value != Json::Bool(false));
    let is_whole = metadata.get("is_mcp_request") != Some(&Json::Bool(false))
        && !is_marked("passthrough_reason")
        && !is_marked("is_exceeding_limit")
        && metadata.get("jsonrpc").and_then(Json::as_str) == Some("2.0");
    let method = metadata.get("method").and_then(Json::as_str).filter(|_| is_whole)?;
    let tool = metadata.pointer("/params/name").and_then(Json::as_str).filter(|_| method == TOOLS_CALL);
    (method != TOOLS_CALL || tool.is_some()).then(|| Message { method: method.into(), tool: tool.map(Into::into) })
}

/// Reads one JSON-RPC 2.0 request from a whole body.
fn parse(text: &str) -> Result<Message, String> {
    let mut reader = serde_json::Deserializer::from_str(text);
    let read = Envelope::deserialize(&mut reader).and_then(|envelope| reader.end().map(|()| envelope));
    let Envelope { jsonrpc, method, id, params, answers } =
        read.map_err(|error| said(&error).unwrap_or_else(|| "the body is not one message of json-rpc".to_owned()))?;
    if jsonrpc.as_ref().and_then(Json::as_str) != Some("2.0") {
        return Err("the message has no `jsonrpc` of `2.0`".to_owned());
    }
    if answers {
        return Err("the message is an answer, not a request".to_owned());
    }
    if !id.is_none_or(|id| id.is_string() || id.is_number()) {
        return Err("the `id` of the message is neither text nor a number".to_owned());
    }
    let method = match method {
        Some(Json::String(method)) if (1..=limits::MAX_MCP_NAME_BYTES).contains(&method.len()) => method,
        _ => return Err("the message has no `method` that is a short text".to_owned()),
    };
    let Params { name, arguments_are_good } = params.unwrap_or_default();
    if method != TOOLS_CALL {
        return Ok(Message { method: method.into(), tool: None });
    }
    match name {
        Some(Json::String(tool)) if arguments_are_good && (1..=limits::MAX_MCP_NAME_BYTES).contains(&tool.len()) => {
            Ok(Message { method: method.into(), tool: Some(tool.into()) })
        }
        _ if !arguments_are_good => Err("the `arguments` of the call are no object".to_owned()),
        _ => Err("the call has no `name` that is a short text".to_owned()),
    }
}

/// Our own sentence, if it was one of ours that stopped the reading.
fn said(error: &serde_json::Error) -> Option<String> {
    let text = error.to_string();
    text.strip_prefix(OURS).map(|text| text.split(" at line ").next().unwrap_or(text).to_owned())
}

/// Marks sentences of ours among those of the reader.
const OURS: &str = "mcp: ";

/// The members of a message that mean something to us.
#[derive(Default)]
struct Envelope {
    jsonrpc: Option<Json>,
    method: Option<Json>,
    id: Option<Json>,
    params: Option<Params>,
    /// Whether it has a `result` or an `error`.
    answers: bool,
}

/// The members of `params`.
struct Params {
    name: Option<Json>,
    arguments_are_good: bool,
}

impl Default for Params {
    fn default() -> Self {
        Self { name: None, arguments_are_good: true }
    }
}

/// Whether a server that does not mind the case could read one key as another. Go's `encoding/json` also takes `ſ` for `s`,
/// and the sign of kelvin for `k` (CVE-2026-27896).
pub(super) fn is_other_case(key: &str, name: &str) -> bool {
    let fold = |c: char| match c {
        '\u{17f}' => 's',
        '\u{212a}' => 'k',
        c => c.to_ascii_lowercase(),
    };
    key.chars().map(fold).eq(name.chars().map(fold))
}

/// Keys are compared whatever their case, too: some servers read `Method` as `method`.
fn key_of(key: &str, known: &[&'static str]) -> Result<Option<&'static str>, String> {
    match known.iter().find(|name| is_other_case(key, name)) {
        Some(name) if *name == key => Ok(Some(name)),
        Some(name) => Err(format!("{OURS}the key `{name}` is written in another case")),
        None => Ok(None),
    }
}

fn once<T>(slot: &mut Option<T>, value: T, key: &str) -> Result<(), String> {
    if slot.replace(value).is_some() { Err(format!("{OURS}the key `{key}` stands twice")) } else { Ok(()) }
}

impl<'de> Deserialize<'de> for Envelope {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(EnvelopeVisitor)
    }
}

struct EnvelopeVisitor;

impl<'de> Visitor<'de> for EnvelopeVisitor {
    type Value = Envelope;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("one message of json-rpc")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Envelope, A::Error> {
        const KNOWN: [&str; 6] = ["jsonrpc", "method", "id", "params", "result", "error"];
        let mut found = Envelope::default();
        while let Some(key) = map.next_key_seed(Key(&KNOWN))? {
            let kept = match key {
                Some("jsonrpc") => once(&mut found.jsonrpc, map.next_value_seed(Scalar)?, "jsonrpc"),
                Some("method") => once(&mut found.method, map.next_value_seed(Scalar)?, "method"),
                Some("id") => once(&mut found.id, map.next_value_seed(Scalar)?, "id"),
                Some("params") => once(&mut found.params, map.next_value()?, "params"),
                other => {
                    map.next_value::<IgnoredAny>()?;
                    found.answers |= other.is_some();
                    Ok(())
                }
            };
            kept.map_err(A::Error::custom)?;
        }
        Ok(found)
    }
}

impl<'de> Deserialize<'de> for Params {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(ParamsVisitor)
    }
}

struct ParamsVisitor;

impl<'de> Visitor<'de> for ParamsVisitor {
    type Value = Params;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("parameters by name")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Params, A::Error> {
        let (mut name, mut arguments) = (None, None);
        while let Some(key) = map.next_key_seed(Key(&["name", "arguments"]))? {
            let kept = match key {
                Some("name") => once(&mut name, map.next_value_seed(Scalar)?, "name"),
                Some(_) => once(&mut arguments, map.next_value_seed(Scalar)?, "arguments"),
                None => map.next_value::<IgnoredAny>().map(|_| Ok(()))?,
            };
            kept.map_err(A::Error::custom)?;
        }
        Ok(Params { name, arguments_are_good: arguments.is_none_or(|arguments: Json| arguments.is_object()) })
    }
}

/// Reads the key of a member: which of the known ones it is, if any.
struct Key<'a>(&'a [&'static str]);

impl<'de> DeserializeSeed<'de> for Key<'_> {
    type Value = Option<&'static str>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for Key<'_> {
    type Value = Option<&'static str>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key")
    }

    fn visit_str<E: serde::de::Error>(self, key: &str) -> Result<Self::Value, E> {
        key_of(key, self.0).map_err(E::custom)
    }
}

/// Reads a value without what is in it: a map is an empty map, a list an empty list.
struct Scalar;

impl<'de> DeserializeSeed<'de> for Scalar {
    type Value = Json;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Json, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Scalar {
    type Value = Json;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("json")
    }

    fn visit_str<E>(self, text: &str) -> Result<Json, E> {
        Ok(Json::String(text.to_owned()))
    }

    fn visit_bool<E>(self, value: bool) -> Result<Json, E> {
        Ok(Json::Bool(value))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Json, E> {
        Ok(Json::from(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Json, E> {
        Ok(Json::from(value))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Json, E> {
        Ok(Json::from(value))
    }

    fn visit_unit<E>(self) -> Result<Json, E> {
        Ok(Json::Null)
    }

    fn visit_seq<A: serde::de::SeqAccess<'de>>(self, mut items: A) -> Result<Json, A::Error> {
        while items.next_element::<IgnoredAny>()?.is_some() {}
        Ok(Json::Array(Vec::new()))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Json, A::Error> {
        while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(Json::Object(serde_json::Map::new()))
    }
}
