//! What a question stands for that names an action and a resource, and is no request: every call of a route that it could
//! be about. Which of them it is about nobody says, so whoever allows it must allow them all.

use super::{IdPiece, Resolved, Route, Routes, Unrepeatable, Unresolved, args::Values};
use crate::{
    limits,
    model::{ActionId, ResourceId, SignalType, Value},
};
use serde_json::{Map, Value as Json};
use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

/// The arguments of a question.
#[derive(Clone, Copy, Debug)]
pub struct Given<'a> {
    /// By name; what no route names is not looked at (I1).
    pub args: &'a Map<String, Json>,
    /// Of a record: optional arguments that it is known not to have had. `None`: whatever is not in `args`.
    pub left_out: Option<&'a [String]>,
}

pub(super) fn by_action(all: &[Arc<Route>]) -> HashMap<ActionId, Vec<Arc<Route>>> {
    let mut by_action: HashMap<ActionId, Vec<Arc<Route>>> = HashMap::new();
    for route in all {
        by_action.entry(route.action.clone()).or_default().push(Arc::clone(route));
    }
    by_action
}

impl Routes {
    /// Every call that a question could be about, those left out that differ in nothing that decides. Never empty.
    pub fn asked(
        &self,
        action: &ActionId,
        resource: &ResourceId,
        given: Given<'_>,
    ) -> Result<Vec<Resolved>, Unrepeatable> {
        let routes = self.by_action.get(action).map(Vec::as_slice).unwrap_or_default();
        let mut calls: Vec<Resolved> = Vec::new();
        for route in routes.iter().filter(|route| route.can_name(resource, &BTreeMap::new())) {
            let call = route.asked(resource, given)?;
            if !calls.iter().any(|known| is_alike(known, &call)) {
                calls.push(call);
            }
            if calls.len() > limits::MAX_CALLS_OF_A_QUESTION {
                let most = limits::MAX_CALLS_OF_A_QUESTION;
                let why = format!("the question could be about more than {most} calls that differ");
                return Err(Unresolved::malformed(why).into());
            }
        }
        if calls.is_empty() {
            let why = if routes.is_empty() {
                "no route has this action"
            } else {
                "no route of the action has such a resource"
            };
            return Err(Unresolved::route_unknown(why).into());
        }
        Ok(calls)
    }
}

impl Route {
    /// The call of this route that a question is about. Method, host and path are not told.
    fn asked(self: &Arc<Self>, resource: &ResourceId, given: Given<'_>) -> Result<Resolved, Unrepeatable> {
        let mut args = Values::new();
        for (name, kind, optional) in self.args.declared() {
            match given.args.get(&**name) {
                Some(json) => {
                    let value = kind.read_json(json).ok_or_else(|| given.wrong_type(self, name, kind))?;
                    if self.is_told(name) && kind.read_text(&resource.id).as_ref() != Some(&value) {
                        return Err(self.contradicts());
                    }
                    args.insert(Arc::clone(name), value);
                }
                // Nobody need say twice what the id of the resource is.
                None if self.is_told(name) => {
                    let value = kind.read_text(&resource.id).ok_or_else(|| given.wrong_type(self, name, kind))?;
                    args.insert(Arc::clone(name), value);
                }
                None if optional && given.had_none(name) => {}
                None => return Err(given.missing(self, name)),
            }
        }
        if !self.can_name(resource, &args) {
            return Err(self.contradicts());
        }
        Ok(Resolved {
            route: Arc::clone(self),
            resource: resource.clone(),
            left_out: self.args.left_out(&args),
            args,
            host: String::new(),
            path: String::new(),
        })
    }

    /// Whether the id of the resource is this argument.
    fn is_told(&self, name: &str) -> bool {
        match self.resource_id.as_slice() {
            [IdPiece::Param(at)] => self.args.path.iter().any(|arg| arg.index == *at && *arg.name == *name),
            [IdPiece::Arg(arg)] => **arg == *name,
            _ => false,
        }
    }

    fn contradicts(self: &Arc<Self>) -> Unrepeatable {
        Unresolved::bad_args(self, "the resource is another one than the arguments say".to_owned()).into()
    }

    /// Whether a call of this route could be about the resource, with these arguments as far as they are known.
    fn can_name(&self, resource: &ResourceId, args: &Values) -> bool {
        if self.resource_type != resource.kind {
            return false;
        }
        let pieces: Vec<Option<Box<str>>> = self.resource_id.iter().map(|piece| self.known(piece, args)).collect();
        fits(&pieces, &resource.id)
    }

    /// The text of a piece of the id; `None`: it could be any.
    fn known(&self, piece: &IdPiece, args: &Values) -> Option<Box<str>> {
        let value = match piece {
            IdPiece::Text(text) => return Some(text.clone()),
            IdPiece::Param(at) => args.get(&self.args.path.iter().find(|arg| arg.index == *at)?.name),
            IdPiece::Arg(name) => args.get(name),
        };
        match value? {
            Value::String(text) => Some((&**text).into()),
            Value::Long(number) => Some(number.to_string().into()),
            // Of the ways to write one value, the one that we write.
            other => {
                let json = other.to_json();
                Some(json.as_str().map_or_else(|| json.to_string(), str::to_owned).into())
            }
        }
    }
}

impl Given<'_> {
    fn had_none(&self, name: &str) -> bool {
        self.left_out.is_none_or(|names| names.iter().any(|left_out| *left_out == *name))
    }

    fn wrong_type(&self, route: &Arc<Route>, name: &str, kind: &SignalType) -> Unrepeatable {
        match self.left_out {
            None => Unresolved::bad_args(route, format!("the argument `{name}` is not of type {kind}")).into(),
            Some(_) => Unrepeatable::Unknown(format!(
                "the argument `{name}` was recorded as another type than the route now reads it as, which is {kind}"
            )),
        }
    }

    fn missing(&self, route: &Arc<Route>, name: &str) -> Unrepeatable {
        if self.had_none(name) {
            Unresolved::bad_args(route, format!("the argument `{name}` is missing")).into()
        } else {
            let why = format!("the route names the argument `{name}`, and the record does not hold it");
            Unrepeatable::Unknown(why)
        }
    }
}

/// Whether two calls differ in nothing that decides.
fn is_alike(one: &Resolved, other: &Resolved) -> bool {
    let means = |call: &Resolved| {
        let route = &call.route;
        (route.tier, route.sensitivity, route.enforce, route.grant_required)
    };
    let (left, right) = (&one.route, &other.route);
    means(one) == means(other)
        && left.system == right.system
        && left.environment == right.environment
        && left.facts == right.facts
        && one.args == other.args
}

/// Whether a text is made of these pieces in their order; `None` stands for any text.
fn fits(pieces: &[Option<Box<str>>], text: &str) -> bool {
    // A piece that must be somewhere is best where it is first found: what is left of the text is longest then.
    let (mut rest, mut floats) = (text, false);
    for (at, piece) in pieces.iter().enumerate() {
        let Some(piece) = piece else {
            floats = true;
            continue;
        };
        let is_last = at + 1 == pieces.len();
        let after = match (floats, is_last) {
            (false, _) => rest.strip_prefix(&**piece),
            (true, true) => return rest.ends_with(&**piece),
            (true, false) => rest.find(&**piece).and_then(|found| rest.get(found + piece.len()..)),
        };
        let Some(after) = after else { return false };
        (rest, floats) = (after, false);
    }
    floats || rest.is_empty()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::findings::Findings;
    use serde_json::json;

    const TEXT: &str = r#"
routes:
  - {match: {host: a, method: POST, path: "/v1/accounts/{account}/transfers"}, action: transfer.create, resource: {type: Account, id: "{account}"}, args: {path: {account: string}, query: {dry_run: "bool?"}, body: {amount: {pointer: /amount, type: long}}}, tier: runtime, sensitivity: high}
  - {match: {host: b, path: "/v1/{shop}/{cart}"}, action: cart.read, resource: {type: Cart, id: "{shop}-{cart}"}, args: {path: {shop: string}}, tier: runtime, sensitivity: low}
  - {match: {host: c, path: "/v1/{cart}"}, action: cart.read, resource: {type: Cart, id: "{cart}"}, tier: runtime, sensitivity: low, system: c}
  - {match: {host: d, path: "/v1/{cart}"}, action: cart.read, resource: {type: Cart, id: "{cart}"}, tier: runtime, sensitivity: low, system: c}
  - {match: {host: e, path: "/v1/all"}, action: cart.read, resource: {type: Shop, id: all}, tier: runtime, sensitivity: low}
default: deny
"#;

    fn asked(action: &str, kind: &str, id: &str, args: &Json) -> Result<Vec<Resolved>, String> {
        let mut findings = Findings::default();
        let routes = Routes::load("routes.yaml", TEXT, &mut findings);
        assert!(!findings.has_errors(), "{findings:?}");
        let resource = ResourceId { kind: kind.into(), id: id.into() };
        let given = Given { args: args.as_object().unwrap(), left_out: None };
        routes.asked(&ActionId::parse(action).unwrap(), &resource, given).map_err(|why| match why {
            Unrepeatable::Unresolved(unresolved) => unresolved.to_string(),
            Unrepeatable::Unknown(why) => panic!("{why}"),
        })
    }

    #[test]
    fn arguments_are_those_that_the_route_names_and_the_id_need_not_be_said_twice() {
        let calls = asked("transfer.create", "Account", "42", &json!({"amount": 7, "colour": "red"})).unwrap();
        let args: Vec<&str> = calls[0].args.keys().map(|name| &**name).collect();
        assert_eq!((calls.len(), args), (1, vec!["account", "amount"]));
        assert_eq!(calls[0].left_out, ["dry_run".into()]);
    }

    #[test]
    fn an_argument_that_is_missing_or_of_another_type_or_contradicts_the_resource_is_malformed() {
        for (args, why) in [
            (json!({}), "the argument `amount` is missing"),
            (json!({"amount": "7"}), "the argument `amount` is not of type long"),
            (json!({"amount": 7, "dry_run": null}), "the argument `dry_run` is not of type bool"),
            (json!({"amount": 7, "account": "43"}), "the resource is another one than the arguments say"),
        ] {
            assert_eq!(
                asked("transfer.create", "Account", "42", &args).unwrap_err(),
                format!("malformed_request: {why}")
            );
        }
    }

    #[test]
    fn a_question_stands_for_every_call_that_differs_and_could_be_meant() {
        let systems = |calls: Vec<Resolved>| -> Vec<Option<Arc<str>>> {
            calls.into_iter().map(|call| call.route.system.clone()).collect()
        };
        assert_eq!(
            systems(asked("cart.read", "Cart", "a-b", &json!({"shop": "a"})).unwrap()),
            [None, Some("c".into())]
        );
        assert_eq!(systems(asked("cart.read", "Cart", "plain", &json!({})).unwrap()), [Some("c".into())]);
        assert_eq!(systems(asked("cart.read", "Shop", "all", &json!({})).unwrap()), [None]);
    }

    #[test]
    fn what_no_route_has_is_unknown() {
        for (action, kind, id) in
            [("cart.write", "Cart", "1"), ("cart.read", "Account", "1"), ("cart.read", "Shop", "other")]
        {
            assert!(asked(action, kind, id, &json!({})).unwrap_err().starts_with("route_unknown: "));
        }
    }

    #[test]
    fn a_text_fits_its_pieces() {
        let pieces = |texts: &[&str]| -> Vec<Option<Box<str>>> {
            texts.iter().map(|text| (*text != "*").then(|| (*text).into())).collect()
        };
        for (texts, text, expected) in [
            (&["*"][..], "", true),
            (&["a"], "a", true),
            (&["a"], "ab", false),
            (&["*", "-", "*"], "a-b-c", true),
            (&["*", "-", "*"], "ab", false),
            (&["x", "*", "x"], "x", false),
            (&["x", "*", "x"], "xx", true),
            (&["*", "-x"], "a-x-x", true),
            (&["*", "-x"], "a-x-y", false),
            (&[], "", true),
            (&[], "a", false),
        ] {
            assert_eq!(fits(&pieces(texts), text), expected, "{texts:?} {text}");
        }
    }
}
