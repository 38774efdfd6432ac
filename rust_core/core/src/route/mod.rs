//! The route table: from a request to the action, the resource and the arguments that it stands for.
//!
//! `load.rs` reads `routes.yaml`, `table.rs` finds the route, `paths.rs` and `hosts.rs` say what a path and a host
//! mean, `asked.rs` says what a question stands for that is no request, `mcp.rs` reads messages of MCP, `args.rs` and `body.rs` read what a route names, `actions.rs` sums up what all routes declare,
//! `recorded.rs` finds the route of a request that only its record knows, `veil.rs` says what no record may show.

mod actions;
mod args;
mod asked;
mod body;
mod forms;
mod hosts;
mod load;
mod load_args;
mod load_facts;
mod matches;
mod mcp;
mod paths;
mod recorded;
mod shadow;
mod table;
mod veil;

pub use actions::{ActionDecl, ArgDecl};
pub use asked::Given;
pub use recorded::{AsRecorded, FurtherNote, Unrepeatable};
pub use veil::Redaction;

use crate::{
    findings::{Findings, Place},
    model::{ActionId, Environment, Request, ResourceId, Sensitivity, Tier, Value, hex},
    reason::Reason,
};
use sha2::{Digest, Sha256};
use std::{
    collections::{BTreeMap, HashMap},
    fmt,
    sync::Arc,
};

/// All routes of a directory. What matches none is denied: there is no other default.
#[derive(Debug)]
pub struct Routes {
    all: Vec<Arc<Route>>,
    actions: Vec<ActionDecl>,
    table: table::Table,
    asks: recorded::Asks,
    by_action: HashMap<ActionId, Vec<Arc<Route>>>,
}

/// One route.
#[derive(Clone, Debug)]
pub struct Route {
    /// `routes.yaml:LINE`, as records name it.
    pub label: Arc<str>,
    /// What is done.
    pub action: ActionId,
    /// The entity type of what it is done to.
    pub resource_type: Arc<str>,
    /// What the resource belongs to.
    pub system: Option<Arc<str>>,
    /// How closely the action is guarded.
    pub tier: Tier,
    /// Whether a call of tier approval needs a grant, too.
    pub grant_required: bool,
    /// How sensitive it is.
    pub sensitivity: Sensitivity,
    /// What else the file says of it, for signals of kind `route`.
    pub facts: BTreeMap<Arc<str>, Value>,
    /// False: what policies, signals and tier deny is recorded, and let pass.
    pub enforce: bool,
    /// Environment of the resource.
    pub environment: Option<Environment>,
    /// Where the route begins in the file.
    pub place: Place,
    host: hosts::HostPattern,
    path: paths::Template,
    methods: matches::Methods,
    further: matches::Further,
    resource_id: Vec<IdPiece>,
    args: args::Args,
}

/// Facts that every route gives by other keys.
const BUILT_IN_FACTS: [&str; 3] = ["sensitivity", "system", "tier"];

/// A piece of the template of a resource's id.
#[derive(Clone, Debug, PartialEq, Eq)]
enum IdPiece {
    Text(Box<str>),
    Param(usize),
    /// An argument of the tool that is called.
    Arg(Arc<str>),
}

/// What a request stands for.
#[derive(Clone, Debug)]
pub struct Resolved {
    /// The one route.
    pub route: Arc<Route>,
    /// What the action is done to.
    pub resource: ResourceId,
    /// The arguments that the route names.
    pub args: BTreeMap<Arc<str>, Value>,
    /// The host in lower case, without port and final dot.
    pub host: String,
    /// The path as sent, without query.
    pub path: String,
    /// Arguments that the route names and that the request did not have, by name.
    pub left_out: Vec<Arc<str>>,
}

/// Why a request stands for nothing.
#[derive(Clone, Debug)]
pub struct Unresolved {
    /// `RouteUnknown` or `MalformedRequest`.
    pub reason: Reason,
    /// One sentence, for the record.
    pub detail: String,
    /// The route whose arguments could not be read.
    pub route: Option<Arc<Route>>,
}

impl Routes {
    /// Reads `routes.yaml`. What is wrong becomes findings, all in one pass; what is left is only good for
    /// checking the other files of the directory.
    pub fn load(file: &str, text: &str, findings: &mut Findings) -> Self {
        let all = load::routes(file, text, findings);
        let actions = actions::merge(file, &all, findings);
        let table = table::Table::new(file, &all, findings);
        let asks = recorded::Asks::of(&all);
        let by_action = asked::by_action(&all);
        Self { all, actions, table, asks, by_action }
    }

    /// Every route, in the order of the file.
    pub fn all(&self) -> &[Arc<Route>] {
        &self.all
    }

    /// Every action that the routes declare, by name.
    pub fn actions(&self) -> &[ActionDecl] {
        &self.actions
    }

    /// The tools that stand beside a route, by name: those that routes of the same host and path name.
    pub fn tools_beside<'a>(&'a self, route: &'a Route) -> impl Iterator<Item = (&'a str, &'a Arc<Route>)> {
        let beside = |other: &&Arc<Route>| other.host == route.host && other.path.text == route.path.text;
        let named = |other: &'a Arc<Route>| Some((other.further.mcp.as_ref()?.tool.as_deref()?, other));
        self.all.iter().filter(beside).filter_map(named)
    }

    /// What a request stands for. It reads host, path, method, what further matches name, and the arguments that
    /// the found route names: nothing else (INVARIANT I1, for the part of the request).
    pub fn resolve(&self, request: &Request) -> Result<Resolved, Unresolved> {
        self.resolve_noting(request, &mut None)
    }

    /// The same; notes what routes ask for beside method, host, path and arguments, for the record.
    pub fn resolve_noting(
        &self,
        request: &Request,
        noted: &mut Option<Box<FurtherNote>>,
    ) -> Result<Resolved, Unresolved> {
        let seen = mcp::Seen::new(request);
        let resolved = self.find(&seen, |found| {
            let args = found.route.args.read(found.params, found.query, request);
            Ok::<_, Unresolved>(found.resolved(args.map_err(|detail| Unresolved::bad_args(found.route, detail))?))
        });
        *noted = self.asks.note(&seen);
        resolved
    }

    /// Finds the route of a request, and goes on with it.
    fn find<T, E: From<Unresolved>>(
        &self,
        seen: &mcp::Seen<'_>,
        then: impl FnOnce(&Found<'_>) -> Result<T, E>,
    ) -> Result<T, E> {
        let request = seen.request;
        let host = hosts::normalise(&request.host)
            .ok_or_else(|| Unresolved::route_unknown("the host is not one host name or address"))?;
        if request.method.bytes().any(|b| b.is_ascii_lowercase()) {
            // Methods are case-sensitive (RFC 9110), but not every server knows: `post` has two meanings.
            return Err(Unresolved::route_unknown("the method is not in upper case").into());
        }
        let (path, query) = paths::cut(&request.path, b'?');
        let reading = paths::read(path).map_err(Unresolved::route_unknown)?;
        let found = self.table.find(&host, &reading.decoded, seen).map_err(Unresolved::malformed)?;
        if let Some(literal) = &reading.literal {
            let other = self.table.find(&host, literal, seen).map_err(Unresolved::malformed)?;
            let other = other.map(|(route, _)| route);
            let same = match (&found, other) {
                (Some((route, _)), Some(other)) => Arc::ptr_eq(route, other),
                (None, None) => true,
                _ => false,
            };
            if !same {
                return Err(Unresolved::route_unknown("the path leads to two routes: decoded, and as it stands").into());
            }
        }
        let Some((route, params)) = found else {
            let nothing = "no route matches host, path, method and the further matches";
            return Err(Unresolved::route_unknown(nothing).into());
        };
        then(&Found { route, params: &params, host: &host, path, query })
    }
}

/// The route of a request, and the parts of the request that it was found by.
struct Found<'f> {
    route: &'f Arc<Route>,
    params: &'f [&'f str],
    host: &'f str,
    path: &'f str,
    query: Option<&'f str>,
}

impl Found<'_> {
    fn resolved(&self, args: BTreeMap<Arc<str>, Value>) -> Resolved {
        Resolved {
            route: Arc::clone(self.route),
            resource: self.route.resource(self.params, &args),
            left_out: self.route.args.left_out(&args),
            args,
            host: self.host.to_owned(),
            path: self.path.to_owned(),
        }
    }
}

impl Route {
    /// Method, host and path as written: `POST pay.*/v1/accounts/{account}`; with a method and tool of MCP,
    /// `POST tools.*/mcp (mcp tools/call export_record)`.
    pub fn describe_match(&self) -> String {
        let mcp = self.further.mcp.as_ref().map_or_else(String::new, |mcp| format!(" ({mcp})"));
        format!("{} {}{}{mcp}", self.methods, self.host, self.path.text)
    }

    /// Whether a call of this route asks which tools there are.
    pub fn lists_tools(&self) -> bool {
        self.further.mcp.as_ref().is_some_and(|mcp| *mcp.method == *mcp::TOOLS_LIST)
    }

    /// What a call of this route's tool is done to, where that does not depend on the call.
    pub fn fixed_resource(&self) -> Option<ResourceId> {
        let is_fixed = self.resource_id.iter().all(|piece| matches!(piece, IdPiece::Text(_)));
        is_fixed.then(|| self.resource(&[], &BTreeMap::new()))
    }

    /// Hex SHA-256 over all that the route says, its place in the file left out.
    pub fn digest(&self) -> String {
        let said = (&self.methods, &self.host, &self.path.text, &self.further, &self.resource_id, &self.args);
        let means = (&self.action, &self.resource_type, &self.system, self.tier, self.sensitivity);
        let adds = (self.enforce, &self.facts, &self.environment, self.grant_required);
        hex(&Sha256::digest(format!("{said:?} {means:?} {adds:?}")))
    }

    /// A static fact of this route: `sensitivity`, `system`, `tier`, or one of its `facts`.
    pub fn fact(&self, name: &str) -> Option<Value> {
        match name {
            "sensitivity" => Some(Value::String(self.sensitivity.as_str().into())),
            "tier" => Some(Value::String(self.tier.as_str().into())),
            "system" => self.system.clone().map(Value::String),
            name => self.facts.get(name).cloned(),
        }
    }

    /// Every static fact of this route, by name.
    fn all_facts(&self) -> impl Iterator<Item = (Arc<str>, Value)> {
        let built_in = BUILT_IN_FACTS.iter().filter_map(|name| Some(((*name).into(), self.fact(name)?)));
        built_in.chain(self.facts.iter().map(|(name, value)| (Arc::clone(name), value.clone())))
    }

    fn resource(&self, params: &[&str], args: &BTreeMap<Arc<str>, Value>) -> ResourceId {
        let text = |piece: &'_ IdPiece| -> String {
            match piece {
                IdPiece::Text(text) => text.to_string(),
                IdPiece::Param(at) => params.get(*at).copied().unwrap_or_default().to_owned(),
                IdPiece::Arg(name) => match args.get(name) {
                    Some(Value::String(text)) => text.to_string(),
                    Some(Value::Long(number)) => number.to_string(),
                    _ => String::new(),
                },
            }
        };
        let id: Arc<str> = match self.resource_id.as_slice() {
            [IdPiece::Text(text)] => text.as_ref().into(),
            [IdPiece::Param(at)] => params.get(*at).copied().unwrap_or_default().into(),
            pieces => pieces.iter().map(text).collect::<String>().into(),
        };
        ResourceId { kind: Arc::clone(&self.resource_type), id }
    }
}

impl Unresolved {
    fn bad_args(route: &Arc<Route>, detail: String) -> Self {
        Self { reason: Reason::MalformedRequest, detail, route: Some(Arc::clone(route)) }
    }

    fn malformed(detail: String) -> Self {
        Self { reason: Reason::MalformedRequest, detail, route: None }
    }

    fn route_unknown(detail: &str) -> Self {
        Self { reason: Reason::RouteUnknown, detail: detail.to_owned(), route: None }
    }
}

impl fmt::Display for Unresolved {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.reason.code(), self.detail)
    }
}
