//! What of a call no record may show: the values of the parameters and arguments that the settings name.

use super::{IdPiece, Route, Routes, paths::Segment};
use crate::{
    findings::{Findings, Place, did_you_mean},
    model::ResourceId,
};
use serde::Deserialize;
use std::{collections::BTreeSet, sync::Arc};

/// `decision_log.redact` of the settings.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub struct Redaction {
    /// Parameters of paths.
    #[serde(default)]
    path_parameters: BTreeSet<Box<str>>,
    /// Arguments, wherever they stand.
    #[serde(default)]
    args: BTreeSet<Box<str>>,
    /// The types of resources whose ids hold a hidden value, by some route.
    #[serde(skip)]
    types: BTreeSet<Arc<str>>,
}

/// What stands for the path of a call that no route is known of.
const NO_ROUTE: &str = "{path}";

impl Redaction {
    /// Whether nothing is hidden.
    pub fn is_empty(&self) -> bool {
        self.path_parameters.is_empty() && self.args.is_empty()
    }

    /// Prepares it for these routes. A name that none of them has hides nothing: an error, since what it was meant to hide
    /// would be in every record.
    pub(crate) fn of(mut self, routes: &Routes, findings: &mut Findings) -> Self {
        let hiding = routes.all().iter().filter(|route| self.hides_id(route));
        self.types = hiding.map(|route| Arc::clone(&route.resource_type)).collect();
        self.check(routes, findings);
        self
    }

    fn check(&self, routes: &Routes, findings: &mut Findings) {
        let params: BTreeSet<&str> =
            routes.all().iter().flat_map(|route| &route.path.names).map(AsRef::as_ref).collect();
        let args: BTreeSet<&str> =
            routes.all().iter().flat_map(|route| route.args.declared()).map(|(name, ..)| &**name).collect();
        for (key, names, known, what) in [
            ("path_parameters", &self.path_parameters, &params, "a parameter of a path"),
            ("args", &self.args, &args, "an argument"),
        ] {
            for name in names.iter().filter(|name| !known.contains(&***name)) {
                let hint = did_you_mean(name, known.iter().copied());
                let message = format!(
                    "`decision_log.redact.{key}`: expected the name of {what} of some route, found `{name}`{hint}"
                );
                findings.error("signalwarden.yaml", Place::default(), "unknown_redaction", message);
            }
        }
    }

    fn hides_param(&self, route: &Route, name: &str) -> bool {
        let is_arg = || route.args.path.iter().any(|arg| *arg.name == *name);
        self.path_parameters.contains(name) || (self.args.contains(name) && is_arg())
    }

    /// Whether the value of an argument is hidden.
    pub(crate) fn hides_arg(&self, route: &Route, name: &str) -> bool {
        let is_param = || route.args.path.iter().any(|arg| *arg.name == *name);
        self.args.contains(name) || (self.path_parameters.contains(name) && is_param())
    }

    /// What is hidden of the calls of a route, by name.
    pub(crate) fn hidden_of(&self, route: &Route) -> Vec<Arc<str>> {
        let params = route.path.names.iter().filter(|name| self.hides_param(route, name)).cloned();
        let args = route.args.declared().map(|(name, ..)| name).filter(|name| self.hides_arg(route, name)).cloned();
        params.chain(args).collect::<BTreeSet<_>>().into_iter().collect()
    }

    fn hides_id(&self, route: &Route) -> bool {
        route.resource_id.iter().any(|piece| match piece {
            IdPiece::Text(_) => false,
            IdPiece::Param(at) => route.path.names.get(*at).is_some_and(|name| self.hides_param(route, name)),
            IdPiece::Arg(name) => self.hides_arg(route, name),
        })
    }

    /// Whether the id of a resource is hidden: of its type are resources whose ids some route makes of a hidden value.
    pub(crate) fn hides(&self, resource: &ResourceId) -> bool {
        self.types.contains(&resource.kind)
    }

    /// A path as records may show it; `None`: as it is. Where no route is known, nobody knows what in it is a value.
    pub(crate) fn path(&self, route: Option<&Route>, path: &str) -> Option<String> {
        let Some(route) = route else {
            return (!self.is_empty()).then(|| NO_ROUTE.to_owned());
        };
        if !route.path.names.iter().any(|name| self.hides_param(route, name)) {
            return None;
        }
        let written = route.path.text.strip_prefix('/').unwrap_or(&route.path.text).split('/');
        let mut names = route.path.names.iter();
        let mut sent = path.strip_prefix('/').unwrap_or(path).split('/');
        let mut shown = String::new();
        for (segment, written) in route.path.segments.iter().zip(written) {
            let is_param = !matches!(segment, Segment::Literal(_));
            let is_hidden = is_param && names.next().is_some_and(|name| self.hides_param(route, name));
            shown.push('/');
            if *segment == Segment::Rest {
                let rest: Vec<&str> = sent.by_ref().collect();
                shown.push_str(if is_hidden { written.to_owned() } else { rest.join("/") }.as_str());
                break;
            }
            let part = sent.next().unwrap_or_default();
            shown.push_str(if is_hidden { written } else { part });
        }
        Some(shown)
    }
}

impl Routes {
    /// The route of a call of before, of which method, host and path are known alone.
    pub(crate) fn route_of(&self, request: &crate::model::Request) -> Option<Arc<Route>> {
        match self.resolve(request) {
            Ok(resolved) => Some(resolved.route),
            Err(unresolved) => unresolved.route,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn route(path: &str, id: &str, args: &str) -> Arc<Route> {
        let text = format!(
            "routes: [{{match: {{host: h, path: \"{path}\"}}, action: a, resource: {{type: A, id: \"{id}\"}}, args: {args}, \
             tier: coarse, sensitivity: low}}]\ndefault: deny\n"
        );
        let mut findings = Findings::default();
        let routes = Routes::load("routes.yaml", &text, &mut findings);
        assert!(!findings.has_errors(), "{findings:?}");
        Arc::clone(&routes.all()[0])
    }

    fn redaction(params: &[&str], args: &[&str]) -> Redaction {
        let all = |names: &[&str]| names.iter().map(|name| (*name).into()).collect();
        Redaction { path_parameters: all(params), args: all(args), types: BTreeSet::new() }
    }

    #[test]
    fn a_hidden_parameter_stands_as_its_template_and_the_rest_as_it_was_sent() {
        let found = route("/v1/{account}/x-{card}.json/{*more}", "{account}", "{path: {card: string}}");
        let path = "/v1/4%202/x-99.json/a/b%20c";
        assert_eq!(redaction(&[], &[]).path(Some(&found), path), None);
        let shown = |redaction: Redaction| redaction.path(Some(&found), path).unwrap();
        assert_eq!(shown(redaction(&["account"], &[])), "/v1/{account}/x-99.json/a/b%20c");
        assert_eq!(shown(redaction(&[], &["card"])), "/v1/4%202/x-{card}.json/a/b%20c");
        assert_eq!(shown(redaction(&["more", "card"], &[])), "/v1/4%202/x-{card}.json/{*more}");
        assert_eq!(redaction(&["account"], &[]).path(None, path).unwrap(), NO_ROUTE);
        assert_eq!(redaction(&[], &[]).path(None, path), None);
    }

    #[test]
    fn a_resource_is_hidden_by_what_its_id_is_made_of() {
        let found = route("/v1/{account}/{card}", "{account}", "{path: {card: string}, query: {account2: string}}");
        assert!(redaction(&["account"], &[]).hides_id(&found));
        assert!(!redaction(&["card"], &["account2"]).hides_id(&found));
        assert_eq!(redaction(&["card"], &["account2"]).hidden_of(&found), ["account2".into(), "card".into()]);
    }
}
