//! What a record says of what was asked: the call, what its route made of it, and what a built-in action asks for.

use super::{Record, veil::Veil};
use crate::{
    model::{ActionId, Environment, Sensitivity, Value},
    route::FurtherNote,
};
use serde::Serialize;
use serde_json::{Map, Value as Json};
use std::{borrow::Cow, collections::BTreeMap, sync::Arc};

#[derive(Serialize)]
pub(super) struct RequestPart<'a> {
    method: &'a str,
    host: &'a str,
    path: Cow<'a, str>,
    #[serde(skip_serializing_if = "Map::is_empty")]
    args: Map<String, Json>,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    args_left_out: &'a [Arc<str>],
    /// What is hidden, by name.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    redacted: Vec<Arc<str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    action: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    resource: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    system: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    environment: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    route: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tier: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    sensitivity: Option<&'static str>,
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    further: Option<FurtherPart<'a>>,
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    built_in: Option<BuiltInPart<'a>>,
    #[serde(skip_serializing_if = "str::is_empty")]
    envoy_id: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    trace_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    span_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    trace_flags: Option<String>,
}

/// What routes of the directory ask for beside method, host, path and arguments.
#[derive(Serialize)]
struct FurtherPart<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    grpc: Option<bool>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    extensions: &'a BTreeMap<Box<str>, Option<Box<str>>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    mcp: Option<McpPart<'a>>,
}

#[derive(Serialize)]
struct McpPart<'a> {
    method: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    tool: Option<&'a str>,
}

/// What a built-in action asks for, in the words of `context.request`.
#[derive(Serialize)]
struct BuiltInPart<'a> {
    #[serde(rename = "for")]
    principal: &'a str,
    actions: Vec<&'a str>,
    resources: Vec<Cow<'a, str>>,
}

impl<'a> RequestPart<'a> {
    pub(super) fn of(record: &'a Record, veil: Option<&Veil<'_>>) -> Self {
        let route = record.route.as_deref();
        let resolved = record.resolved.as_ref();
        let asked = record.query.as_ref().and_then(|query| Some((query, query.built_in.as_ref()?)));
        let built_in = asked.map(|(_, built_in)| built_in);
        let action = route.map(|r| &r.action).or(asked.map(|(query, _)| &query.action));
        let resource = resolved.map(|r| &r.resource).or(asked.map(|(query, _)| &query.resource));
        let environment = route.map_or_else(|| built_in?.environment.as_ref(), |route| route.environment.as_ref());
        let sensitivity = route.map(|route| route.sensitivity).or_else(|| built_in?.sensitivity);
        let trace = record.asked.trace.as_ref();
        let arg =
            |name: &str, value: &Value| veil.and_then(|veil| veil.arg(name, value)).unwrap_or_else(|| value.to_json());
        let resource_text = |text: &'a str| veil.map_or(Cow::Borrowed(text), |veil| veil.resource_text(text));
        Self {
            method: &record.asked.method,
            host: &record.asked.host,
            path: match veil.filter(|_| built_in.is_none()).and_then(|veil| veil.path(&record.asked.path)) {
                Some(shown) => shown.into(),
                None => record.asked.path.as_str().into(),
            },
            args: resolved
                .into_iter()
                .flat_map(|r| &r.args)
                .map(|(name, v)| (name.to_string(), arg(name, v)))
                .collect(),
            redacted: veil.map(|veil| veil.names(built_in.map(|built_in| &built_in.resources))).unwrap_or_default(),
            args_left_out: resolved.map_or(&[], |resolved| &resolved.left_out),
            action: action.map(ActionId::as_str),
            resource: resource.map(|r| veil.and_then(|veil| veil.resource(r)).unwrap_or_else(|| r.to_string())),
            system: route.and_then(|r| r.system.as_deref()),
            environment: environment.map(Environment::as_str),
            route: route.map(|r| &*r.label),
            tier: route.map(|r| r.tier.as_str()),
            sensitivity: sensitivity.map(Sensitivity::as_str),
            further: record.further.as_deref().map(FurtherPart::of),
            built_in: built_in.map(|built_in| BuiltInPart {
                principal: built_in.principal.as_str(),
                actions: built_in.actions.iter().map(ActionId::as_str).collect(),
                resources: built_in.resources.iter().map(|text| resource_text(text)).collect(),
            }),
            envoy_id: &record.asked.envoy_id,
            trace_id: trace.map(|(trace, _)| trace.as_str()),
            span_id: trace.map(|(_, span)| span.as_str()),
            trace_flags: trace.map(|_| format!("{:02x}", record.asked.trace_flags)),
        }
    }
}

impl<'a> FurtherPart<'a> {
    fn of(note: &'a FurtherNote) -> Self {
        Self {
            grpc: note.grpc,
            extensions: &note.extensions,
            mcp: note.mcp.as_ref().map(|(method, tool)| McpPart { method, tool: tool.as_deref() }),
        }
    }
}
