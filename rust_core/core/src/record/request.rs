//! What a record says of what was asked: the call, what its route made of it, and what a built-in action asks for.

use super::{Record, pen::Pen, veil::Veil};
use crate::{
    model::{ActionId, Environment, hex},
    policy::{BuiltInRequest, Query},
    route::FurtherNote,
};
use std::sync::Arc;

/// Appends the key and the object.
pub(super) fn write(pen: &mut Pen<'_>, record: &Record, veil: Option<&Veil<'_>>) {
    let asked = record.query.as_ref().and_then(|query| Some((query, query.built_in.as_ref()?)));
    let built_in = asked.map(|(_, built_in)| built_in);
    pen.text(r#","request":{"method":"#, &record.asked.method).text(r#","host":"#, &record.asked.host);
    let is_call = built_in.is_none() && record.inquiry.is_none();
    let shown = veil.filter(|_| is_call).and_then(|veil| veil.path(&record.asked.path));
    pen.text(r#","path":"#, shown.as_deref().unwrap_or(&record.asked.path));
    if record.inquiry.is_some() {
        pen.raw(r#","door":"authzen""#);
        pen.maybe_text(r#","client":"#, record.client.as_ref().map(|client| client.id.as_str()));
    }
    write_resolved(pen, record, veil, asked);
    if let Some(note) = record.further.as_deref() {
        write_further(pen, note);
    }
    if let Some(built_in) = built_in {
        write_built_in(pen, built_in, veil);
    }
    pen.maybe_text(r#","envoy_id":"#, Some(&*record.asked.envoy_id).filter(|id| !id.is_empty()));
    if let Some((trace, span)) = &record.asked.trace {
        pen.text(r#","trace_id":"#, trace).text(r#","span_id":"#, span);
        pen.text(r#","trace_flags":"#, &hex(&[record.asked.trace_flags]));
    }
    pen.raw("}");
}

/// What the route made of the call, and what the route says.
fn write_resolved(
    pen: &mut Pen<'_>,
    record: &Record,
    veil: Option<&Veil<'_>>,
    asked: Option<(&Query, &BuiltInRequest)>,
) {
    let (route, resolved) = (record.route.as_deref(), record.resolved.as_ref());
    let (query, built_in) = asked.unzip();
    let inquiry = record.inquiry.as_deref();
    if let Some(resolved) = resolved {
        let mut start = r#","args":{"#;
        for (name, value) in &resolved.args {
            pen.text(start, name);
            match veil.and_then(|veil| veil.arg(name, value)) {
                Some(hidden) => pen.text(":", &hidden),
                None => pen.value(":", value),
            };
            start = ",";
        }
        if !resolved.args.is_empty() {
            pen.raw("}");
        }
        if !resolved.left_out.is_empty() {
            pen.part(r#","args_left_out":"#, &resolved.left_out);
        }
    }
    let redacted = veil.map(|veil| veil.names(built_in.map(|built_in| &built_in.resources)));
    if let Some(redacted) = redacted.filter(|names| !names.is_empty()) {
        pen.part(r#","redacted":"#, &redacted);
    }
    let named = inquiry.and_then(|inquiry| inquiry.action.as_ref());
    let action = route.map(|route| &route.action).or(query.map(|query| &query.action)).or(named);
    pen.maybe_text(r#","action":"#, action.map(ActionId::as_str));
    let named = inquiry.and_then(|inquiry| inquiry.resource.as_ref());
    if let Some(resource) = resolved.map(|resolved| &resolved.resource).or(query.map(|query| &query.resource)).or(named)
    {
        let hidden = veil.and_then(|veil| veil.resource(resource));
        pen.text(r#","resource":"#, &hidden.unwrap_or_else(|| resource.to_string()));
    }
    pen.maybe_text(r#","system":"#, route.and_then(|route| route.system.as_deref()));
    let environment = match route {
        Some(route) => route.environment.as_ref(),
        None => built_in.and_then(|built_in| built_in.environment.as_ref()),
    };
    pen.maybe_text(r#","environment":"#, environment.map(Environment::as_str));
    if let Some(route) = route {
        pen.text(r#","route":"#, &route.label).word(r#","tier":"#, route.tier.as_str());
    }
    let sensitivity = route.map(|route| route.sensitivity).or_else(|| built_in?.sensitivity);
    if let Some(sensitivity) = sensitivity {
        pen.word(r#","sensitivity":"#, sensitivity.as_str());
    }
}

/// What routes of the directory ask for beside method, host, path and arguments.
fn write_further(pen: &mut Pen<'_>, note: &FurtherNote) {
    if let Some(grpc) = note.grpc {
        pen.flag(r#","grpc":"#, grpc);
    }
    if !note.extensions.is_empty() {
        pen.part(r#","extensions":"#, &note.extensions);
    }
    if let Some((method, tool)) = &note.mcp {
        pen.text(r#","mcp":{"method":"#, method).maybe_text(r#","tool":"#, tool.as_deref()).raw("}");
    }
}

/// What a built-in action asks for, in the words of `context.request`.
fn write_built_in(pen: &mut Pen<'_>, asked: &BuiltInRequest, veil: Option<&Veil<'_>>) {
    let shown =
        |text: &'_ Arc<str>| veil.map_or_else(|| text.to_string(), |veil| veil.resource_text(text).into_owned());
    pen.text(r#","for":"#, asked.principal.as_str());
    pen.part(r#","actions":"#, &asked.actions.iter().map(ActionId::as_str).collect::<Vec<_>>());
    pen.part(r#","resources":"#, &asked.resources.iter().map(shown).collect::<Vec<_>>());
}
