//! The index from a request to its route. `matchit` finds one form of path that fits; beside it stand, sorted,
//! the routes that could match such a path, and the first that does is the most specific.

use super::{
    Route,
    forms::{Form, Tree},
    hosts::{HostPattern, HostTable},
    mcp::{self, Seen},
    shadow,
};
use crate::findings::Findings;
use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet},
    fmt,
    sync::Arc,
};

/// All routes, by host.
#[derive(Debug)]
pub(super) struct Table(HostTable<PathTable>);

/// A route, and the parameters of the path.
pub(super) type Found<'t, 'p> = Option<(&'t Arc<Route>, Vec<&'p str>)>;

/// The routes of one host pattern.
struct PathTable {
    routes: Vec<Arc<Route>>,
    /// More than one only where `matchit` refuses two forms side by side (`/a/{x}` and `/a/{*rest}`).
    layers: Vec<matchit::Router<usize>>,
    /// For each form, which routes could match a path of it, the most specific first.
    candidates: Vec<Box<[usize]>>,
}

impl Table {
    /// Builds the index. Two routes that are equally specific for one request are a finding.
    pub(super) fn new(file: &str, routes: &[Arc<Route>], findings: &mut Findings) -> Self {
        let mut hosts: BTreeMap<&HostPattern, Vec<Arc<Route>>> = BTreeMap::new();
        for route in routes {
            hosts.entry(&route.host).or_default().push(Arc::clone(route));
        }
        let tables = hosts.into_iter().map(|(host, routes)| (host.clone(), PathTable::new(file, routes, findings)));
        Self(HostTable::new(tables))
    }

    /// The most specific route that matches, and the path's parameters. `path` is decoded. The error is one sentence, and
    /// means `malformed_request`: a route asked for a message of MCP, and there is not one.
    pub(super) fn find<'t, 'p>(&'t self, host: &str, path: &'p str, seen: &Seen<'_>) -> Result<Found<'t, 'p>, String> {
        let mut params = Vec::with_capacity(4);
        for paths in self.0.matching(host) {
            if let Some(route) = paths.find(path, seen, &mut params)? {
                return Ok(Some((route, params)));
            }
        }
        Ok(None)
    }
}

impl PathTable {
    fn new(file: &str, mut routes: Vec<Arc<Route>>, findings: &mut Findings) -> Self {
        routes.sort_by_cached_key(|route| {
            (Reverse(route.path.rank()), Reverse(route.methods.is_named()), Reverse(route.further.count()), route.place)
        });
        let forms: Vec<Form> = routes
            .iter()
            .flat_map(|route| Form::of(&route.path.segments))
            .collect::<BTreeSet<_>>()
            .into_iter()
            .collect();
        let mut tree = Tree::default();
        for (at, route) in routes.iter().enumerate() {
            tree.add(&Form::exactly(&route.path.segments), at);
        }
        refuse_ties(file, &routes, &tree, findings);
        shadow::warn(file, &routes, &tree, findings);
        let (layers, layer_of) = layers(&forms);
        let candidates = candidates(&forms, &layer_of, &routes, &tree);
        Self { routes, layers, candidates }
    }

    fn find<'t, 'p>(
        &'t self,
        path: &'p str,
        seen: &Seen<'_>,
        params: &mut Vec<&'p str>,
    ) -> Result<Option<&'t Arc<Route>>, String> {
        let form = self.layers.iter().find_map(|layer| layer.at(path).ok()).map(|found| *found.value);
        let candidates = form.and_then(|form| self.candidates.get(form)).into_iter().flatten();
        for route in candidates.filter_map(|at| self.routes.get(*at)) {
            let fits = route.methods.matches(&seen.request.method) && route.path.matches(path, params);
            if fits {
                seen.tells(route)?;
            }
            let fits = fits && route.further.matches(seen.request, path);
            let asked = match &route.further.mcp {
                _ if !fits => false,
                None => true,
                // A stream is asked for with GET, and a session ended with DELETE: neither is a message.
                Some(mcp) => seen.request.method == mcp::METHOD && mcp.matches(seen.message()?),
            };
            if asked {
                return Ok(Some(route));
            }
        }
        Ok(None)
    }
}

/// Every form in the first layer that takes it, and which layer that is.
fn layers(forms: &[Form]) -> (Vec<matchit::Router<usize>>, Vec<usize>) {
    let mut layers: Vec<matchit::Router<usize>> = Vec::new();
    let mut layer_of = Vec::with_capacity(forms.len());
    for (at, form) in forms.iter().enumerate() {
        let key = form.key();
        let layer = layers.iter_mut().position(|layer| layer.insert(key.clone(), at).is_ok()).unwrap_or_else(|| {
            let mut layer = matchit::Router::new();
            // A form alone in its layer conflicts with nothing, and its syntax is ours.
            let inserted = layer.insert(key, at);
            debug_assert!(inserted.is_ok(), "{inserted:?}");
            layers.push(layer);
            layers.len() - 1
        });
        layer_of.push(layer);
    }
    (layers, layer_of)
}

/// For each form, the routes that could match a path of it, in their order.
fn candidates(forms: &[Form], layer_of: &[usize], routes: &[Arc<Route>], tree: &Tree) -> Vec<Box<[usize]>> {
    let known: BTreeMap<&Form, usize> = forms.iter().zip(layer_of.iter().copied()).collect();
    let of_routes: Vec<(Vec<u8>, usize)> = routes
        .iter()
        .map(|route| {
            let form = Form::exactly(&route.path.segments);
            (form.rank(), known.get(&form).copied().unwrap_or_default())
        })
        .collect();
    let of_form = |(form, layer): (&Form, &usize)| {
        let rank = form.rank();
        // Within a layer, `matchit` has tried the more specific forms already.
        let is_left = |(other, other_layer): &(Vec<u8>, usize)| layer != other_layer || *other <= rank;
        tree.overlapping(form).into_iter().filter(|at| of_routes.get(*at).is_some_and(is_left)).collect()
    };
    forms.iter().zip(layer_of).map(of_form).collect()
}

impl fmt::Debug for PathTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.routes.iter().map(|route| &route.label)).finish()
    }
}

/// Two routes of one host that match the same request and are equally specific for it: nobody could say which is meant.
fn refuse_ties(file: &str, routes: &[Arc<Route>], tree: &Tree, findings: &mut Findings) {
    for second in routes {
        let rank = second.path.rank();
        let tie = |first: &&Arc<Route>| {
            first.place < second.place
                && first.methods.tie(&second.methods)
                && first.further.tie(&second.further)
                && first.path.overlaps(&second.path)
                && first.path.rank() == rank
        };
        let near = tree.overlapping(&Form::exactly(&second.path.segments));
        if let Some(first) =
            near.into_iter().filter_map(|at| routes.get(at)).filter(tie).min_by_key(|first| first.place)
        {
            let message = format!(
                "this route and the one in line {} match the same requests, and neither is more specific",
                first.place.line
            );
            findings.error(file, second.place, "equal_routes", message);
        }
    }
}
