//! The arguments that a route names: from the path, the query and, in `body.rs`, the JSON body.
//! Nothing else of these is looked at, so nothing else can influence a decision (I1).

use super::{
    body::{BodyArg, BodyArgs},
    paths::{cut, escape},
};
use crate::model::{Request, SignalType, Value};
use std::{borrow::Cow, collections::BTreeMap, sync::Arc};

/// All arguments of one route.
#[derive(Clone, Debug, Default)]
pub(super) struct Args {
    pub(super) path: Vec<PathArg>,
    pub(super) query: Vec<QueryArg>,
    pub(super) body: Option<BodyArgs>,
}

/// A parameter of the path, read as a type.
#[derive(Clone, Debug)]
pub(super) struct PathArg {
    pub(super) name: Arc<str>,
    pub(super) kind: SignalType,
    /// Which parameter of the template.
    pub(super) index: usize,
}

/// A parameter of the query of the same name.
#[derive(Clone, Debug)]
pub(super) struct QueryArg {
    pub(super) name: Arc<str>,
    pub(super) kind: SignalType,
    pub(super) optional: bool,
}

/// What was read, by name.
pub(super) type Values = BTreeMap<Arc<str>, Value>;

impl Args {
    /// Reads all arguments; the error is one sentence, and means `malformed_request`.
    pub(super) fn read(&self, params: &[&str], query: Option<&str>, request: &Request) -> Result<Values, String> {
        let mut values = Values::new();
        self.read_path(params, &mut values)?;
        self.read_query(query.unwrap_or_default(), &mut values)?;
        if let Some(body) = &self.body {
            body.read(request, &mut values)?;
        }
        Ok(values)
    }

    /// Reads those of the path.
    pub(super) fn read_path(&self, params: &[&str], values: &mut Values) -> Result<(), String> {
        for arg in &self.path {
            let text = params.get(arg.index).copied().unwrap_or_default();
            let value = arg.kind.read_text(text).ok_or_else(|| wrong_type(&arg.name, "path", &arg.kind))?;
            values.insert(Arc::clone(&arg.name), value);
        }
        Ok(())
    }

    /// Arguments that a request may lack, and that this one did. Nothing is allocated where there are none.
    pub(super) fn left_out(&self, values: &Values) -> Vec<Arc<str>> {
        let missing = |(name, _, optional): (&Arc<str>, &SignalType, bool)| {
            (optional && !values.contains_key(name)).then(|| Arc::clone(name))
        };
        self.declared().filter_map(missing).collect()
    }

    /// Whether a tool's argument of this name is always there and can stand in the id of a resource.
    pub(super) fn tool_can_name(&self, name: &str) -> bool {
        let can = |arg: &BodyArg| {
            let is_plain = matches!(arg.kind, SignalType::String | SignalType::Long | SignalType::Enum(_));
            arg.group == "tool" && *arg.name == *name && !arg.optional && is_plain
        };
        self.body.iter().flat_map(BodyArgs::iter).any(can)
    }

    /// Name, type and whether optional, of every argument.
    pub(super) fn declared(&self) -> impl Iterator<Item = (&Arc<str>, &SignalType, bool)> {
        let path = self.path.iter().map(|arg| (&arg.name, &arg.kind, false));
        let query = self.query.iter().map(|arg| (&arg.name, &arg.kind, arg.optional));
        let body = self.body.iter().flat_map(BodyArgs::iter).map(|arg| (&arg.name, &arg.kind, arg.optional));
        path.chain(query).chain(body)
    }

    fn read_query(&self, query: &str, values: &mut Values) -> Result<(), String> {
        if self.query.is_empty() {
            return Ok(());
        }
        let hash = query.bytes().position(|b| b == b'#').unwrap_or(query.len());
        let mut left = Some(query);
        while let Some(text) = left {
            let (pair, after) = cut(text, b'&');
            let end = query.len() - after.map_or(0, |after| after.len() + 1);
            self.read_pair(pair, end > hash, values)?;
            left = after;
        }
        match self.query.iter().find(|arg| !arg.optional && !values.contains_key(&arg.name)) {
            Some(arg) => Err(format!("the query argument `{}` is missing", arg.name)),
            None => Ok(()),
        }
    }

    /// Reads one `name=value` pair. Some servers also split at `;`, and some end the query at `#`: a named argument
    /// that they would read otherwise has two meanings.
    fn read_pair(&self, pair: &str, beyond_hash: bool, values: &mut Values) -> Result<(), String> {
        let (first, others) = cut(pair, b';');
        if let Some(arg) = self.named(first) {
            if others.is_some() || beyond_hash {
                return Err(format!("the query argument `{}` stands beside `;` or `#`", arg.name));
            }
            let value = form_decode(cut(first, b'=').1.unwrap_or_default())
                .and_then(|text| arg.kind.read_text(&text))
                .ok_or_else(|| wrong_type(&arg.name, "query", &arg.kind))?;
            if values.insert(Arc::clone(&arg.name), value).is_some() {
                return Err(format!("the query argument `{}` is repeated", arg.name));
            }
        }
        match others.and_then(|others| others.split(';').find_map(|piece| self.named(piece))) {
            Some(arg) => Err(format!("the query argument `{}` stands beside `;`", arg.name)),
            None => Ok(()),
        }
    }

    /// The argument that a `name=value` pair is for. A name that does not decode is nobody's.
    fn named(&self, pair: &str) -> Option<&QueryArg> {
        let name = form_decode(cut(pair, b'=').0)?;
        self.query.iter().find(|arg| *arg.name == *name)
    }
}

pub(super) fn wrong_type(name: &str, place: &str, kind: &SignalType) -> String {
    format!("the {place} argument `{name}` is not of type {kind}")
}

/// Decodes `application/x-www-form-urlencoded` text; `None` for bad percent-encoding or what is not UTF-8.
fn form_decode(text: &str) -> Option<Cow<'_, str>> {
    if !text.bytes().any(|b| matches!(b, b'%' | b'+')) {
        return Some(Cow::Borrowed(text));
    }
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        rest = tail;
        match first {
            b'+' => out.push(b' '),
            b'%' => {
                out.push(escape(tail)?);
                rest = tail.get(2..).unwrap_or_default();
            }
            byte => out.push(*byte),
        }
    }
    String::from_utf8(out).ok().map(Cow::Owned)
}
