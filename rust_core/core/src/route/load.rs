//! `routes.yaml`, read strictly (DESIGN section 5). Everything that a route must say it must say itself: tier and
//! sensitivity have no default, since a wrong guess at either would guard an action less than was meant.

use super::{
    IdPiece, Route,
    args::Args,
    hosts::HostPattern,
    load_args, load_facts,
    matches::{Further, Grpc, Methods},
    mcp::{self, Mcp},
    paths::Template,
};
use crate::{
    document::{self, Fields, Node},
    findings::{Findings, Place},
    limits,
    model::{
        ActionId, Environment, Sensitivity, Tier,
        names::{BUILT_IN_ACTIONS, is_entity_type},
    },
};
use std::{collections::BTreeMap, sync::Arc};

/// Methods that a slip of the keyboard may have meant.
const USUAL_METHODS: [&str; 9] = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "CONNECT"];

/// All routes that can be read, in the order of the file.
pub(super) fn routes(file: &str, text: &str, findings: &mut Findings) -> Vec<Arc<Route>> {
    let Some(node) = document::parse(file, text, findings) else { return Vec::new() };
    let mut reader = Reader { file, findings };
    reader.file(&node)
}

/// What one reading carries along.
pub(super) struct Reader<'a> {
    pub(super) file: &'a str,
    pub(super) findings: &'a mut Findings,
}

/// The key `match` of a route.
struct Matches {
    host: Option<HostPattern>,
    path: Option<Template>,
    methods: Methods,
    further: Further,
}

impl Reader<'_> {
    pub(super) fn error(&mut self, place: Place, code: &'static str, message: impl Into<String>) {
        self.findings.error(self.file, place, code, message);
    }

    fn file(&mut self, node: &Node) -> Vec<Arc<Route>> {
        let Some(mut fields) = Fields::of(self.file, "the file", node, self.findings) else { return Vec::new() };
        let list =
            fields.require("routes", self.findings).and_then(|list| list.list(self.file, "routes", self.findings));
        fields.word("default", &[("deny", ())], self.findings);
        fields.not_built("normalize", self.findings);
        fields.finish(self.findings);
        let list = list.unwrap_or_default();
        if let Some(first_beyond) = list.get(limits::MAX_ROUTES) {
            let message = format!("`routes`: expected at most {} routes, found {}", limits::MAX_ROUTES, list.len());
            self.error(first_beyond.place, "too_many_routes", message);
        }
        list.iter().take(limits::MAX_ROUTES).filter_map(|node| self.route(node)).map(Arc::new).collect()
    }

    fn route(&mut self, node: &Node) -> Option<Route> {
        let mut fields = Fields::of(self.file, "routes", node, self.findings)?;
        let matches = fields.require("match", self.findings).and_then(|node| self.matches(node));
        let path = matches.as_ref().and_then(|matches| matches.path.as_ref());
        let action = fields.require("action", self.findings).and_then(|node| self.action(node));
        let further = matches.as_ref().map(|matches| &matches.further);
        let args = match fields.take("args") {
            Some(node) => load_args::args(self, node, path, further),
            None => Some(Args::default()),
        };
        let resource = fields.require("resource", self.findings);
        let resource = resource.and_then(|node| self.resource(node, path, args.as_ref()));
        let system = fields.take("system").map(|node| self.system(node));
        let tier = fields.require_word("tier", Tier::ALL, self.findings);
        let sensitivity = fields.require_word("sensitivity", Sensitivity::ALL, self.findings);
        let facts = fields.take("facts").map_or_else(|| Some(BTreeMap::new()), |node| load_facts::facts(self, node));
        let environment = fields.take("environment").map(|node| self.environment(node));
        let grant_required = self.grant(&mut fields, tier);
        let enforce = fields.flag("enforce", self.findings).unwrap_or(true);
        if !enforce {
            // Said aloud at every load: a route like this guards nothing.
            let message = "`enforce: false`: what policies deny on this route is recorded, and let pass";
            self.findings.warning(self.file, node.place, "unenforced_route", message);
        }
        fields.finish(self.findings);
        let Matches { host, path, methods, further } = matches?;
        let (resource_type, resource_id) = resource?;
        Some(Route {
            label: format!("{}:{}", self.file, node.place.line).into(),
            action: action?,
            resource_type,
            system: system.flatten(),
            tier: tier?,
            grant_required,
            sensitivity: sensitivity?,
            facts: facts?,
            enforce,
            environment: match environment {
                // What can't be read is no route without one: that would be open to every environment.
                Some(read) => Some(read?),
                None => None,
            },
            place: node.place,
            host: host?,
            path: path?,
            methods: methods_in_order(methods),
            further,
            resource_id,
            args: args?,
        })
    }

    fn matches(&mut self, node: &Node) -> Option<Matches> {
        let mut fields = Fields::of(self.file, "match", node, self.findings)?;
        let host = fields.require("host", self.findings).and_then(|node| self.host(node));
        let methods = fields.take("method").map_or(Some(Methods::Any), |node| self.methods(node));
        let grpc = fields.take("grpc").map(|node| self.grpc(node));
        let path = match (fields.take("path"), &grpc) {
            (Some(node), grpc) => self.path(node, grpc.as_ref().and_then(Option::as_ref)),
            (None, Some(grpc)) => grpc.as_ref().and_then(|grpc| Template::parse(&grpc.path()).ok()),
            (None, None) => {
                fields.require("path", self.findings);
                None
            }
        };
        let extensions = fields.take("extensions").map_or(Some(BTreeMap::new()), |node| self.extensions(node));
        let (grpc_place, mcp_place) = (fields.place_of("grpc"), fields.place_of("mcp"));
        let mcp = fields.take("mcp").map(|node| self.mcp(node));
        fields.finish(self.findings);
        if mcp.is_some() && grpc.is_some() {
            let message = "`match`: a gRPC call is no message of MCP: expected one of `grpc` and `mcp`";
            self.error(grpc_place.max(mcp_place), "one_of", message);
            return None;
        }
        if mcp.is_some() && methods.as_ref().is_some_and(Methods::is_named) && methods != Some(only_post()) {
            let message = "`method`: messages of MCP are sent with `POST`: expected `POST`, or nothing";
            self.error(node.place, "bad_method", message);
            return None;
        }
        let grpc = match grpc {
            Some(read) => Some(read?),
            None => None,
        };
        let mcp = match mcp {
            Some(read) => Some(read?),
            None => None,
        };
        Some(Matches { host, path, methods: methods?, further: Further { grpc, mcp, extensions: extensions? } })
    }

    fn host(&mut self, node: &Node) -> Option<HostPattern> {
        let text = node.text(self.file, "host", self.findings)?;
        let read = HostPattern::parse(text);
        if let Err(expected) = read {
            self.error(node.place, "bad_host", format!("`host`: expected {expected}, found `{text}`"));
        }
        read.ok()
    }

    fn methods(&mut self, node: &Node) -> Option<Methods> {
        let written = match node.as_text() {
            Some(text) => vec![(text, node.place)],
            None => node.texts(self.file, "method", self.findings)?,
        };
        if written.is_empty() {
            self.error(node.place, "bad_method", "`method`: expected at least one method; leave it out for any");
            return None;
        }
        let mut names: Vec<Box<str>> = Vec::new();
        let mut good = true;
        for (text, place) in written {
            if let Err(message) = check_method(text, &names) {
                self.error(place, "bad_method", message);
                good = false;
            }
            names.push(text.into());
        }
        good.then_some(Methods::Named(names))
    }

    fn path(&mut self, node: &Node, grpc: Option<&Grpc>) -> Option<Template> {
        let text = node.text(self.file, "path", self.findings)?;
        let template = match Template::parse(text) {
            Ok(template) => template,
            Err(why) => {
                self.error(node.place, "bad_path", format!("`path`: {why}"));
                return None;
            }
        };
        let call = grpc.and_then(|grpc| Template::parse(&grpc.path()).ok());
        if let Some(call) = call.filter(|call| !call.overlaps(&template)) {
            let message =
                format!("`path`: expected a path of the form `{}`, as `grpc` asks, found `{text}`", call.text);
            self.error(node.place, "bad_path", message);
            return None;
        }
        Some(template)
    }

    fn grpc(&mut self, node: &Node) -> Option<Grpc> {
        let mut fields = Fields::of(self.file, "grpc", node, self.findings)?;
        let service = fields.require("service", self.findings).and_then(|node| self.grpc_name("service", ".", node));
        let method = fields.take("method").map(|node| self.grpc_name("method", "", node));
        fields.finish(self.findings);
        let method = match method {
            Some(read) => Some(read?),
            None => None,
        };
        Some(Grpc { service: service?, method })
    }

    fn mcp(&mut self, node: &Node) -> Option<Mcp> {
        let mut fields = Fields::of(self.file, "mcp", node, self.findings)?;
        let method = fields.require("method", self.findings).and_then(|node| self.mcp_name("method", node));
        let tool_place = fields.place_of("tool");
        let tool = fields.take("tool").map(|node| self.mcp_name("tool", node));
        fields.finish(self.findings);
        let tool = match tool {
            Some(read) => Some(read?),
            None => None,
        };
        let method = method?;
        if tool.is_some() && *method != *mcp::TOOLS_CALL {
            let message = format!("`tool`: only `{}` names a tool, and `method` is `{method}`", mcp::TOOLS_CALL);
            self.error(tool_place, "tool_of_no_call", message);
            return None;
        }
        Some(Mcp { method, tool })
    }

    fn mcp_name(&mut self, key: &str, node: &Node) -> Option<Box<str>> {
        let text = node.text(self.file, key, self.findings)?;
        let length = 1..=limits::MAX_MCP_NAME_BYTES;
        let good = length.contains(&text.len()) && text.bytes().all(|b| b.is_ascii_graphic());
        if !good {
            let example = if key == "method" { mcp::TOOLS_CALL } else { "export_record" };
            let message = format!(
                "`{key}`: expected a name of at most {} visible ascii characters, such as `{example}`, found `{text}`",
                limits::MAX_MCP_NAME_BYTES
            );
            self.error(node.place, "bad_name", message);
        }
        good.then(|| text.into())
    }

    fn grpc_name(&mut self, key: &str, also: &str, node: &Node) -> Option<Box<str>> {
        let text = node.text(self.file, key, self.findings)?;
        let good = text.split(also.chars().next().unwrap_or('/')).all(|part| {
            part.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
                && part.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
        });
        if !good {
            let example = if key == "service" { "payments.v1.Transfers" } else { "Create" };
            let message = format!("`{key}`: expected a protobuf name such as `{example}`, found `{text}`");
            self.error(node.place, "bad_name", message);
        }
        good.then(|| text.into())
    }

    fn extensions(&mut self, node: &Node) -> Option<BTreeMap<String, String>> {
        let entries = node.map(self.file, "extensions", self.findings)?;
        let mut all = Some(BTreeMap::new());
        for entry in entries {
            match entry.value.text(self.file, &entry.key, self.findings) {
                Some(text) => drop(all.as_mut().map(|all| all.insert(entry.key.clone(), text.to_owned()))),
                None => all = None,
            }
        }
        all
    }

    fn action(&mut self, node: &Node) -> Option<ActionId> {
        let text = node.text(self.file, "action", self.findings)?;
        if BUILT_IN_ACTIONS.contains(&text) {
            let message = format!("`action`: `{text}` is built in: expected a name of your own");
            self.error(node.place, "reserved_name", message);
            return None;
        }
        let action = ActionId::parse(text);
        if action.is_none() {
            let message = format!(
                "`action`: expected a name such as `transfer.create` (a lowercase letter, then lowercase letters, \
                 digits, `_`, `.` and `-`), found `{text}`"
            );
            self.error(node.place, "bad_name", message);
        }
        action
    }

    /// Type and id template of a resource. Without a readable path the names in the template are not checked.
    fn resource(
        &mut self,
        node: &Node,
        path: Option<&Template>,
        args: Option<&Args>,
    ) -> Option<(Arc<str>, Vec<IdPiece>)> {
        let mut fields = Fields::of(self.file, "resource", node, self.findings)?;
        let kind = fields.require("type", self.findings);
        let id = fields.require("id", self.findings);
        fields.finish(self.findings);
        let kind = kind.and_then(|node| {
            let text = node.text(self.file, "type", self.findings)?;
            let good = is_entity_type(text);
            if !good {
                let message =
                    format!("`type`: expected an entity type such as `Account` or `Bank::Account`, found `{text}`");
                self.error(node.place, "bad_name", message);
            }
            good.then(|| Arc::from(text))
        });
        let id = id.and_then(|node| {
            let text = node.text(self.file, "id", self.findings)?;
            let read = id_template(text, path, args);
            if let Err(why) = &read {
                self.error(node.place, "bad_resource_id", format!("`id`: {why}"));
            }
            read.ok()
        });
        Some((kind?, id?))
    }

    fn system(&mut self, node: &Node) -> Option<Arc<str>> {
        let text = node.text(self.file, "system", self.findings)?;
        let good = !text.is_empty() && text.len() <= 128 && text.bytes().all(|b| b.is_ascii_graphic());
        if !good {
            let message = format!("`system`: expected a name of at most 128 visible ascii characters, found `{text}`");
            self.error(node.place, "bad_name", message);
        }
        good.then(|| Arc::from(text))
    }

    fn environment(&mut self, node: &Node) -> Option<Environment> {
        let text = node.text(self.file, "environment", self.findings)?;
        let name = Environment::parse(text);
        if name.is_none() {
            let message = format!("`environment`: expected {}, found `{text}`", Environment::FORM);
            self.error(node.place, "bad_name", message);
        }
        name
    }

    fn grant(&mut self, fields: &mut Fields<'_>, tier: Option<Tier>) -> bool {
        let required = fields.word("grant", &[("optional", false), ("required", true)], self.findings) == Some(true);
        if required && tier.is_some_and(|tier| tier != Tier::Approval) {
            let place = fields.place_of("grant");
            self.error(place, "grant_needs_approval", "`grant: required` is for tier `approval` only");
        }
        required
    }
}

impl Grpc {
    /// The template of such a call's path.
    fn path(&self) -> String {
        format!("/{}/{}", self.service, self.method.as_deref().unwrap_or("{method}"))
    }
}

/// Checks one method, given those before it.
fn check_method(text: &str, before: &[Box<str>]) -> Result<(), String> {
    let is_token = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
    if before.iter().any(|known| **known == *text) {
        return Err(format!("`method`: `{text}` stands here twice"));
    }
    let upper = text.to_ascii_uppercase();
    if text.is_empty() || !text.bytes().all(is_token) || upper != text {
        let hint = crate::findings::did_you_mean(&upper, USUAL_METHODS);
        return Err(format!("`method`: expected a method in upper case, such as `POST`, found `{text}`{hint}"));
    }
    // A method of one's own is legal, but one that is nearly a usual one would silently match nothing.
    match crate::findings::nearest(text, USUAL_METHODS) {
        Some(usual) if usual != text && text.len() > 3 => {
            Err(format!("`method`: unknown method `{text}`, did you mean `{usual}`?"))
        }
        _ => Ok(()),
    }
}

fn only_post() -> Methods {
    Methods::Named(vec![mcp::METHOD.into()])
}

fn methods_in_order(methods: Methods) -> Methods {
    match methods {
        Methods::Any => Methods::Any,
        Methods::Named(mut names) => {
            names.sort();
            Methods::Named(names)
        }
    }
}

/// Begins the name of a tool's argument in the id of a resource: `{tool.record}`.
const TOOL_ARGUMENT: &str = "tool.";

/// Reads `acct-{account}`; the error is the rest of a sentence.
fn id_template(text: &str, path: Option<&Template>, args: Option<&Args>) -> Result<Vec<IdPiece>, String> {
    let expected = || format!("expected text with parameters of the path such as `{{account}}`, found `{text}`");
    let mut pieces = Vec::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('{') {
        let (name, after) = after.split_once('}').ok_or_else(expected)?;
        if before.contains('}') {
            return Err(expected());
        }
        if !before.is_empty() {
            pieces.push(IdPiece::Text(before.into()));
        }
        rest = after;
        if let Some(name) = name.strip_prefix(TOOL_ARGUMENT) {
            if args.is_some_and(|args| !args.tool_can_name(name)) {
                return Err(format!("expected a required text or number of `args: {{tool: …}}`, found `{name}`"));
            }
            pieces.push(IdPiece::Arg(name.into()));
            continue;
        }
        let name = name.strip_prefix('*').unwrap_or(name);
        pieces.push(IdPiece::Param(path.map_or(Ok(0), |path| path.param(name))?));
    }
    if rest.contains('}') || text.is_empty() {
        return Err(expected());
    }
    if !rest.is_empty() {
        pieces.push(IdPiece::Text(rest.into()));
    }
    Ok(pieces)
}
