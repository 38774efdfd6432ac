//! The route of a request that only its record knows. The same table finds it as at first; what the record does not
//! hold is never guessed.

use super::{
    Found, Resolved, Route, Routes, Unresolved,
    args::Values,
    mcp::{self, Seen},
};
use crate::model::{HeaderEntry, Headers, Request, Value};
use serde_json::{Map, Value as Json, json};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

/// What routes ask for beside method, host, path and arguments, and what a request had of it. Only what some route of
/// the directory asks for is noted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FurtherNote {
    /// Whether it was a call of gRPC by its `content-type`.
    pub grpc: Option<bool>,
    /// Extensions of the Envoy route by key; `None`: it had no such extension.
    pub extensions: BTreeMap<Box<str>, Option<Box<str>>>,
    /// Method and tool of its message of MCP, if it was looked at and could be read.
    pub mcp: Option<(Box<str>, Option<Box<str>>)>,
}

/// What some route of a directory asks for.
#[derive(Debug, Default)]
pub(super) struct Asks {
    grpc: bool,
    mcp: bool,
    extensions: BTreeSet<Box<str>>,
}

impl Asks {
    pub(super) fn of(routes: &[Arc<Route>]) -> Self {
        let further = || routes.iter().map(|route| &route.further);
        Self {
            grpc: further().any(|further| further.grpc.is_some()),
            mcp: further().any(|further| further.mcp.is_some()),
            extensions: further()
                .flat_map(|further| further.extensions.keys())
                .map(|key| key.as_str().into())
                .collect(),
        }
    }

    /// `None` where no route asks for anything, which is the common case.
    pub(super) fn note(&self, seen: &Seen<'_>) -> Option<Box<FurtherNote>> {
        if !self.grpc && !self.mcp && self.extensions.is_empty() {
            return None;
        }
        let value = |key: &str| seen.request.extensions.get(key).map(|value| value.as_str().into());
        Some(Box::new(FurtherNote {
            grpc: self.grpc.then(|| super::matches::is_grpc(seen.request)),
            extensions: self.extensions.iter().map(|key| (key.clone(), value(key))).collect(),
            mcp: seen.told(),
        }))
    }
}

/// A request as its record has it.
#[derive(Clone, Copy, Debug)]
pub struct AsRecorded<'a> {
    /// HTTP method.
    pub method: &'a str,
    /// Host as sent.
    pub host: &'a str,
    /// Path without query.
    pub path: &'a str,
    /// Arguments that its route named.
    pub args: &'a Map<String, Json>,
    /// Arguments that its route named and that it did not have.
    pub left_out: &'a [String],
    /// What further matches looked at.
    pub further: &'a FurtherNote,
}

/// Why a recorded request stands for nothing now.
#[derive(Debug)]
pub enum Unrepeatable {
    /// It stands for nothing in this directory.
    Unresolved(Unresolved),
    /// The record does not say enough to tell; one sentence.
    Unknown(String),
}

impl From<Unresolved> for Unrepeatable {
    fn from(unresolved: Unresolved) -> Self {
        Self::Unresolved(unresolved)
    }
}

impl Routes {
    /// What a recorded request stands for now. An argument is known by its name: where in the request a route looks for
    /// it is not recorded, and not compared.
    pub fn resolve_recorded(&self, recorded: &AsRecorded<'_>) -> Result<Resolved, Unrepeatable> {
        let request = recorded.as_request();
        let seen = Seen::recorded(&request, recorded.further);
        let resolved = self.find(&seen, |found| Ok(found.resolved(recorded.args_of(found)?)));
        match seen.take_unknown() {
            Some(why) => Err(Unrepeatable::Unknown(why)),
            None => resolved,
        }
    }
}

impl AsRecorded<'_> {
    /// The request as far as the table of routes looks at it.
    fn as_request(&self) -> Request {
        let content_type =
            HeaderEntry { name: "content-type".to_owned(), value: super::matches::GRPC.to_owned(), is_utf8: true };
        let is_grpc = self.further.grpc == Some(true);
        let mut request = Request {
            method: self.method.to_owned(),
            host: self.host.to_owned(),
            path: self.path.to_owned(),
            headers: Headers::new(is_grpc.then_some(content_type).into_iter().collect()),
            extensions: self
                .further
                .extensions
                .iter()
                .filter_map(|(key, value)| Some((key.to_string(), value.as_ref()?.to_string())))
                .collect(),
            ..Request::default()
        };
        if let Some((method, tool)) = &self.further.mcp {
            let params = tool.as_ref().map_or_else(|| json!({}), |tool| json!({"name": tool}));
            let told = json!({"jsonrpc": "2.0", "method": method, "params": params});
            request.metadata.insert(mcp::NAMESPACES[0].to_owned(), told);
        }
        request
    }

    fn args_of(&self, found: &Found<'_>) -> Result<Values, Unrepeatable> {
        let args = &found.route.args;
        let mut values = Values::new();
        args.read_path(found.params, &mut values).map_err(|detail| Unresolved::bad_args(found.route, detail))?;
        for (name, kind, optional) in args.declared() {
            if values.contains_key(name) {
                continue;
            }
            let was_left_out = || self.left_out.iter().any(|left_out| *left_out == **name);
            match self.args.get(&**name) {
                Some(json) => {
                    let value: Option<Value> = kind.read_json(json);
                    let value = value.ok_or_else(|| {
                        Unrepeatable::Unknown(format!(
                            "the argument `{name}` was recorded as another type than the route now reads it as, which \
                             is {kind}"
                        ))
                    })?;
                    values.insert(Arc::clone(name), value);
                }
                None if was_left_out() && optional => {}
                None if was_left_out() => {
                    let detail = format!("the argument `{name}` is missing");
                    return Err(Unresolved::bad_args(found.route, detail).into());
                }
                None => {
                    let why = format!("the route names the argument `{name}`, and the record does not hold it");
                    return Err(Unrepeatable::Unknown(why));
                }
            }
        }
        Ok(values)
    }
}
