//! Arguments from a JSON body, by JSON pointer (RFC 6901). The body is read once, from left to right;
//! what the route does not name is skipped: of it, only that it is JSON counts.

use super::{
    args::{Values, wrong_type},
    mcp::is_other_case,
};
use crate::model::{Body, Request, SignalType, Value};
use serde::Deserialize;
use serde::de::{DeserializeSeed, Deserializer, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::Value as Json;
use std::{fmt, sync::Arc};

/// A member of the body.
#[derive(Clone, Debug)]
pub(super) struct BodyArg {
    pub(super) name: Arc<str>,
    pub(super) kind: SignalType,
    pub(super) optional: bool,
    /// `body`, or `tool` for those of a call of MCP.
    pub(super) group: &'static str,
    /// Tokens of the pointer from the top of the body, unescaped.
    pub(super) pointer: Vec<Box<str>>,
}

/// All arguments that a route takes from the body.
#[derive(Clone, Debug)]
pub(super) struct BodyArgs {
    args: Vec<BodyArg>,
    wanted: Wanted,
}

/// What is wanted at one place of the body and below it.
#[derive(Clone, Debug, Default)]
struct Wanted {
    /// The argument that is this very value.
    arg: Option<usize>,
    children: Vec<Child>,
}

#[derive(Clone, Debug)]
struct Child {
    /// Name of a member, or index of an item.
    token: Box<str>,
    index: Option<usize>,
    wanted: Wanted,
}

/// What became of one argument.
#[derive(Clone, Debug)]
enum Found {
    Absent,
    Value(Value),
    WrongType,
    Repeated,
}

/// Reads a pointer's tokens; the error is the rest of a sentence that begins with the key.
pub(super) fn parse_pointer(text: &str) -> Result<Vec<Box<str>>, String> {
    let expected = || format!("expected a json pointer such as `/amount` (rfc 6901), found `{text}`");
    if text.is_empty() {
        return Ok(Vec::new());
    }
    let tokens = text.strip_prefix('/').ok_or_else(expected)?.split('/');
    tokens
        .map(|token| {
            let tail_is_good = |tail: &str| tail.starts_with(['0', '1']);
            let good = token != "-" && token.split('~').skip(1).all(tail_is_good);
            good.then(|| token.replace("~1", "/").replace("~0", "~").into()).ok_or_else(expected)
        })
        .collect()
}

impl BodyArgs {
    /// Prepares the search. No pointer may lie inside another; `load.rs` sees to that.
    pub(super) fn new(args: Vec<BodyArg>) -> Self {
        let mut wanted = Wanted::default();
        for (at, arg) in args.iter().enumerate() {
            wanted.add(&arg.pointer, at);
        }
        Self { args, wanted }
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &BodyArg> {
        self.args.iter()
    }

    /// Reads all arguments; the error is one sentence, and means `malformed_request`.
    pub(super) fn read(&self, request: &Request, values: &mut Values) -> Result<(), String> {
        let bytes = match &request.body {
            Body::Forwarded { truncated: true, .. } => return Err("the body is cut off".to_owned()),
            Body::Forwarded { bytes, .. } if !bytes.is_empty() => bytes.as_slice(),
            Body::Forwarded { .. } => return self.without_body(),
            Body::NotForwarded if has_no_body(request) => return self.without_body(),
            Body::NotForwarded => return Err("no body was forwarded".to_owned()),
        };
        check_headers(request)?;
        let mut found = vec![Found::Absent; self.args.len()];
        // Of what is skipped no text is looked at, and JSON is UTF-8 all over (RFC 8259, section 8.1).
        let text = std::str::from_utf8(bytes).map_err(|_| "the body is not utf-8".to_owned())?;
        let mut reader = serde_json::Deserializer::from_str(text);
        let read = Search { wanted: &self.wanted, args: &self.args, found: &mut found }.deserialize(&mut reader);
        read.and_then(|()| reader.end()).map_err(|_| "the body is not json".to_owned())?;
        for (arg, found) in self.args.iter().zip(found) {
            match found {
                Found::Value(value) => drop(values.insert(Arc::clone(&arg.name), value)),
                Found::Absent if arg.optional => {}
                Found::Absent => return Err(format!("the {} argument `{}` is missing", arg.group, arg.name)),
                Found::WrongType => return Err(wrong_type(&arg.name, arg.group, &arg.kind)),
                Found::Repeated => {
                    let BodyArg { group, name, .. } = arg;
                    return Err(format!("the {group} argument `{name}` is repeated, or written in another case"));
                }
            }
        }
        Ok(())
    }

    fn without_body(&self) -> Result<(), String> {
        match self.args.iter().find(|arg| !arg.optional) {
            Some(_) => Err("no body was forwarded".to_owned()),
            None => Ok(()),
        }
    }
}

/// Whether the request surely has no body. A length of zero in `size` alone proves nothing, for Envoy asks before the
/// body comes; HTTP/2 and HTTP/3 can send one without announcing it.
fn has_no_body(request: &Request) -> bool {
    let announced_none = match request.headers.all("content-length") {
        [] => !(request.protocol.starts_with("HTTP/2") || request.protocol.starts_with("HTTP/3")),
        lengths => lengths.iter().all(|length| length.value == "0"),
    };
    announced_none && request.headers.all("transfer-encoding").is_empty() && request.size.unwrap_or(0) == 0
}

/// Only a JSON body that is not encoded is read.
pub(super) fn check_headers(request: &Request) -> Result<(), String> {
    let plain = |value: &str| value.trim().is_empty() || value.trim().eq_ignore_ascii_case("identity");
    if !request.headers.all("content-encoding").iter().all(|entry| plain(&entry.value)) {
        return Err("the body is encoded (`content-encoding`)".to_owned());
    }
    if request.headers.one("content-type").is_some_and(is_json) {
        Ok(())
    } else {
        Err("the body is not json by its `content-type`".to_owned())
    }
}

/// `application/json` or `…/…+json`, in UTF-8.
fn is_json(content_type: &str) -> bool {
    let mut parts = content_type.split(';').map(str::trim);
    let media = parts.next().unwrap_or_default().to_ascii_lowercase();
    let is_token =
        |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"!#$&-^_.+".contains(&b));
    let good = match media.split_once('/') {
        Some(("application", "json")) => true,
        Some((kind, sub)) => is_token(kind) && is_token(sub) && sub.len() > "+json".len() && sub.ends_with("+json"),
        None => false,
    };
    good && parts.all(|parameter| {
        let (name, value) = parameter.split_once('=').unwrap_or((parameter, ""));
        !name.trim().eq_ignore_ascii_case("charset") || value.trim().trim_matches('"').eq_ignore_ascii_case("utf-8")
    })
}

impl Wanted {
    fn add(&mut self, pointer: &[Box<str>], arg: usize) {
        let [token, below @ ..] = pointer else {
            self.arg = Some(arg);
            return;
        };
        let at = self.children.iter().position(|child| child.token == *token).unwrap_or_else(|| {
            let index = token.parse().ok().filter(|index: &usize| index.to_string() == **token);
            self.children.push(Child { token: token.clone(), index, wanted: Self::default() });
            self.children.len() - 1
        });
        if let Some(child) = self.children.get_mut(at) {
            child.wanted.add(below, arg);
        }
    }

    fn repeated(&self, found: &mut [Found]) {
        if let Some(slot) = self.arg.and_then(|arg| found.get_mut(arg)) {
            *slot = Found::Repeated;
        }
        for child in &self.children {
            child.wanted.repeated(found);
        }
    }
}

/// The walk down the body along the pointers.
struct Search<'a> {
    wanted: &'a Wanted,
    args: &'a [BodyArg],
    found: &'a mut [Found],
}

impl Search<'_> {
    /// The same walk one level down.
    fn below<'s>(&'s mut self, wanted: &'s Wanted) -> Search<'s> {
        Search { wanted, args: self.args, found: self.found }
    }
}

impl<'de> DeserializeSeed<'de> for Search<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        let Some(at) = self.wanted.arg else { return deserializer.deserialize_any(self) };
        let json = Json::deserialize(deserializer)?;
        let (Some(arg), Some(slot)) = (self.args.get(at), self.found.get_mut(at)) else {
            return Err(D::Error::custom("no such argument"));
        };
        *slot = arg.kind.read_json(&json).map_or(Found::WrongType, Found::Value);
        Ok(())
    }
}

impl<'de> Visitor<'de> for Search<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("json")
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut map: A) -> Result<(), A::Error> {
        let children = &self.wanted.children;
        let mut seen = vec![false; children.len()];
        while let Some((at, is_exact)) = map.next_key_seed(Key(self.wanted))? {
            match at.and_then(|at| children.get(at).zip(seen.get_mut(at))) {
                None => drop(map.next_value::<IgnoredAny>()?),
                // Which of the two the server would take is its own affair: neither is read.
                Some((child, seen)) if *seen || !is_exact => {
                    *seen = true;
                    child.wanted.repeated(self.found);
                    map.next_value::<IgnoredAny>()?;
                }
                Some((child, seen)) => {
                    *seen = true;
                    map.next_value_seed(self.below(&child.wanted))?;
                }
            }
        }
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut items: A) -> Result<(), A::Error> {
        let children = &self.wanted.children;
        for index in 0.. {
            let more = match children.iter().find(|child| child.index == Some(index)) {
                Some(child) => items.next_element_seed(self.below(&child.wanted))?.is_some(),
                None => items.next_element::<IgnoredAny>()?.is_some(),
            };
            if !more {
                break;
            }
        }
        Ok(())
    }

    // A pointer that leads through a plain value leads nowhere: its argument is absent.
    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_i64<E>(self, _: i64) -> Result<(), E> {
        Ok(())
    }

    fn visit_u64<E>(self, _: u64) -> Result<(), E> {
        Ok(())
    }

    fn visit_f64<E>(self, _: f64) -> Result<(), E> {
        Ok(())
    }

    fn visit_str<E>(self, _: &str) -> Result<(), E> {
        Ok(())
    }
}

/// Reads the key of a member: which child it is, if any, and whether it is written as that is.
struct Key<'a>(&'a Wanted);

impl<'de> DeserializeSeed<'de> for Key<'_> {
    type Value = (Option<usize>, bool);

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for Key<'_> {
    type Value = (Option<usize>, bool);

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key")
    }

    fn visit_str<E>(self, key: &str) -> Result<Self::Value, E> {
        // A key that is the same in another case has two meanings: some servers don't mind the case.
        let Wanted { children, .. } = self.0;
        let other = |child: &Child| is_other_case(key, &child.token);
        Ok(match children.iter().position(|child| *child.token == *key) {
            Some(at) => (Some(at), true),
            None => (children.iter().position(other), false),
        })
    }
}
