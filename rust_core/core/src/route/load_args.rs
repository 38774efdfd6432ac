//! The key `args` of a route.

use super::{
    args::{Args, PathArg, QueryArg},
    body::{BodyArg, BodyArgs, parse_pointer},
    load::Reader,
    matches::Further,
    mcp,
    paths::Template,
};
use crate::{
    document::{Entry, Fields, Kind, Node},
    findings::{Place, did_you_mean},
    limits,
    model::SignalType,
};
use std::{collections::BTreeMap, sync::Arc};

/// What one entry says.
struct Declared {
    name: Arc<str>,
    place: Place,
    kind: SignalType,
    optional: bool,
    /// `None` where the entry names no pointer.
    pointer: Option<Vec<Box<str>>>,
}

/// Reads all arguments. `None` if any is wrong.
pub(super) fn args(
    reader: &mut Reader<'_>,
    node: &Node,
    path: Option<&Template>,
    further: Option<&Further>,
) -> Option<Args> {
    let mut fields = Fields::of(reader.file, "args", node, reader.findings)?;
    let from_path = fields.take("path").map_or(Some(Vec::new()), |node| group(reader, "path", node));
    let from_query = fields.take("query").map_or(Some(Vec::new()), |node| group(reader, "query", node));
    let from_body = fields.take("body").map_or(Some(Vec::new()), |node| group(reader, "body", node));
    let body_place = fields.place_of("body");
    let tool_place = fields.place_of("tool");
    let from_tool = fields.take("tool").map_or(Some(Vec::new()), |node| group(reader, "tool", node));
    fields.finish(reader.findings);
    let mut good = unique(reader, [&from_path, &from_query, &from_body, &from_tool].into_iter().flatten().flatten());
    let is_grpc = further.is_some_and(|further| further.grpc.is_some());
    let is_call = further.is_none_or(|further| further.mcp.as_ref().is_some_and(|mcp| *mcp.method == *mcp::TOOLS_CALL));
    if !is_call && from_tool.as_ref().is_some_and(|tool| !tool.is_empty()) {
        let message = "`tool`: expected a route with `mcp: {method: tools/call}` in its `match`";
        reader.error(tool_place, "tool_of_no_call", message);
        good = false;
    }
    if is_grpc && from_body.as_ref().is_some_and(|body| !body.is_empty()) {
        reader.error(body_place, "body_of_grpc", "`body`: the body of a gRPC call is not json and can't be read");
        good = false;
    }
    let path_args = from_path.and_then(|all| all_or_none(all.into_iter().map(|arg| path_arg(reader, arg, path))));
    let body_args = from_body.zip(from_tool).and_then(|(body, tool)| body_args(reader, body, tool));
    let query = from_query?.into_iter().map(|arg| QueryArg { name: arg.name, kind: arg.kind, optional: arg.optional });
    let args = Args { path: path_args?, query: query.collect(), body: body_args? };
    good.then_some(args)
}

/// Collects, after every item was looked at.
fn all_or_none<T>(items: impl Iterator<Item = Option<T>>) -> Option<Vec<T>> {
    let read: Vec<Option<T>> = items.collect();
    read.into_iter().collect()
}

fn group(reader: &mut Reader<'_>, key: &str, node: &Node) -> Option<Vec<Declared>> {
    let entries = node.map(reader.file, key, reader.findings)?;
    if entries.len() > limits::MAX_ARGUMENTS {
        let message = format!("`{key}`: expected at most {} arguments, found {}", limits::MAX_ARGUMENTS, entries.len());
        reader.error(node.place, "too_many_arguments", message);
        return None;
    }
    all_or_none(entries.iter().map(|entry| declared(reader, key, entry)))
}

fn declared(reader: &mut Reader<'_>, group: &str, entry: &Entry) -> Option<Declared> {
    let name_is_good = is_argument_name(&entry.key);
    if !name_is_good {
        let message = format!(
            "`{group}`: expected an argument name of at most 64 letters, digits, `_`, `-` and `.`, found `{}`",
            entry.key
        );
        reader.error(entry.place, "bad_name", message);
    }
    let (kind, pointer) = if matches!(entry.value.kind, Kind::Map(_)) {
        let mut fields = Fields::of(reader.file, &entry.key, &entry.value, reader.findings)?;
        let kind = fields.require("type", reader.findings);
        let pointer = if matches!(group, "body" | "tool") { fields.take("pointer") } else { None };
        fields.finish(reader.findings);
        let pointer = pointer.map(|node| read_pointer(reader, node));
        (kind.and_then(|node| read_type(reader, "type", node)), pointer)
    } else {
        (read_type(reader, &entry.key, &entry.value), None)
    };
    let pointer = match pointer {
        Some(read) => Some(read?),
        None => None,
    };
    let (kind, optional) = kind?;
    name_is_good.then(|| Declared { name: entry.key.as_str().into(), place: entry.place, kind, optional, pointer })
}

/// Reads `long` or `long?`.
fn read_type(reader: &mut Reader<'_>, key: &str, node: &Node) -> Option<(SignalType, bool)> {
    let written = node.text(reader.file, key, reader.findings)?;
    let (text, optional) = written.strip_suffix('?').map_or((written, false), |text| (text, true));
    match SignalType::parse(text) {
        Ok(kind) => Some((kind, optional)),
        Err(expected) => {
            let known = ["bool", "long", "string", "enum", "set", "decimal", "datetime", "ip"];
            let hint = did_you_mean(text, known);
            reader.error(node.place, "unknown_type", format!("`{key}`: {expected}, found `{written}`{hint}"));
            None
        }
    }
}

fn read_pointer(reader: &mut Reader<'_>, node: &Node) -> Option<Vec<Box<str>>> {
    let text = node.text(reader.file, "pointer", reader.findings)?;
    let read = parse_pointer(text).and_then(|tokens| {
        let good = tokens.len() <= limits::MAX_DEPTH;
        good.then_some(tokens).ok_or_else(|| format!("expected at most {} steps, found `{text}`", limits::MAX_DEPTH))
    });
    if let Err(why) = &read {
        reader.error(node.place, "bad_pointer", format!("`pointer`: {why}"));
    }
    read.ok()
}

/// An argument has one place: no name stands in two groups.
fn unique<'d>(reader: &mut Reader<'_>, all: impl Iterator<Item = &'d Declared>) -> bool {
    let mut known: BTreeMap<&str, Place> = BTreeMap::new();
    let mut good = true;
    for arg in all {
        if let Some(first) = known.insert(&arg.name, arg.place) {
            let message = format!("the argument `{}` is named twice, first in line {}", arg.name, first.line);
            reader.error(arg.place, "duplicate_argument", message);
            good = false;
        }
    }
    good
}

fn path_arg(reader: &mut Reader<'_>, arg: Declared, path: Option<&Template>) -> Option<PathArg> {
    if arg.optional {
        let message = format!("`{}`: a parameter of the path is always there: leave out the `?`", arg.name);
        reader.error(arg.place, "optional_path_argument", message);
        return None;
    }
    match path?.param(&arg.name) {
        Ok(index) => Some(PathArg { name: arg.name, kind: arg.kind, index }),
        Err(why) => {
            reader.error(arg.place, "unknown_parameter", format!("`{}`: {why}", arg.name));
            None
        }
    }
}

/// The inner `None` is a route without arguments from the body.
#[expect(clippy::option_option, reason = "the outer one is the loader's, the inner one the route's")]
fn body_args(reader: &mut Reader<'_>, body: Vec<Declared>, tool: Vec<Declared>) -> Option<Option<BodyArgs>> {
    let mut args: Vec<(BodyArg, Place)> = Vec::new();
    let mut good = true;
    let all = body.into_iter().map(|arg| ("body", arg)).chain(tool.into_iter().map(|arg| ("tool", arg)));
    for (group, arg) in all {
        let mut pointer = arg.pointer.unwrap_or_else(|| vec![arg.name.as_ref().into()]);
        if group == "tool" {
            pointer = mcp::ARGUMENTS.iter().map(|step| (*step).into()).chain(pointer).collect();
        }
        let inside =
            |(other, _): &&(BodyArg, Place)| other.pointer.starts_with(&pointer) || pointer.starts_with(&other.pointer);
        if let Some((other, place)) = args.iter().find(inside) {
            let message = format!(
                "`{}`: its place in the body is that of `{}` in line {}, or inside it",
                arg.name, other.name, place.line
            );
            reader.error(arg.place, "overlapping_pointers", message);
            good = false;
        }
        args.push((BodyArg { name: arg.name, kind: arg.kind, optional: arg.optional, group, pointer }, arg.place));
    }
    let args: Vec<BodyArg> = args.into_iter().map(|(arg, _)| arg).collect();
    good.then(|| (!args.is_empty()).then(|| BodyArgs::new(args)))
}

fn is_argument_name(name: &str) -> bool {
    name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && name.len() <= 64
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.'))
}
