//! What a route asks of a request beside host and path: methods, a gRPC method, extensions of the Envoy route.

use super::mcp::Mcp;
use crate::model::Request;
use std::{cmp::Ordering, collections::BTreeMap, fmt};

/// Which methods a route is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Methods {
    /// All.
    Any,
    /// These.
    Named(Vec<Box<str>>),
}

impl fmt::Display for Methods {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Any => f.write_str("any method"),
            Self::Named(names) => f.write_str(&names.join(", ")),
        }
    }
}

impl Methods {
    pub(super) fn matches(&self, method: &str) -> bool {
        match self {
            Self::Any => true,
            Self::Named(names) => names.iter().any(|name| **name == *method),
        }
    }

    /// A named method is more specific than any.
    pub(super) const fn is_named(&self) -> bool {
        matches!(self, Self::Named(_))
    }

    /// Whether, for some request, both match and neither is the more specific.
    pub(super) fn tie(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Any, Self::Any) => true,
            (Self::Named(one), Self::Named(two)) => one.iter().any(|name| two.contains(name)),
            _ => false,
        }
    }
}

/// A gRPC call: `content-type: application/grpc…` and the path `/service/method`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Grpc {
    pub(super) service: Box<str>,
    /// `None` for every method of the service.
    pub(super) method: Option<Box<str>>,
}

/// Further matches.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Further {
    pub(super) grpc: Option<Grpc>,
    pub(super) mcp: Option<Mcp>,
    pub(super) extensions: BTreeMap<String, String>,
}

impl Further {
    /// Whether a request, of this decoded path, fulfils every condition but that of `mcp`, for which the body is read.
    pub(super) fn matches(&self, request: &Request, path: &str) -> bool {
        self.grpc.as_ref().is_none_or(|grpc| grpc.matches(request, path))
            && self.extensions.iter().all(|(key, value)| request.extensions.get(key) == Some(value))
    }

    /// How many conditions there are: a set of conditions that holds another one is larger.
    pub(super) fn count(&self) -> usize {
        let grpc = self.grpc.as_ref().map_or(0, |grpc| 1 + usize::from(grpc.method.is_some()));
        let mcp = self.mcp.as_ref().map_or(0, |mcp| 1 + usize::from(mcp.tool.is_some()));
        grpc + mcp + self.extensions.len()
    }

    /// Whether, for some request, both match and neither is the more specific:
    /// more specific is what asks for all that the other asks for, and more.
    pub(super) fn tie(&self, other: &Self) -> bool {
        let compatible =
            self.extensions.iter().all(|(key, value)| other.extensions.get(key).is_none_or(|v| v == value))
                && match (&self.grpc, &other.grpc) {
                    (Some(one), Some(two)) => one.is_compatible(two),
                    _ => true,
                }
                && match (&self.mcp, &other.mcp) {
                    (Some(one), Some(two)) => one.is_compatible(two),
                    _ => true,
                };
        let more_specific = match self.count().cmp(&other.count()) {
            Ordering::Greater => self.asks_for_all_of(other),
            Ordering::Less => other.asks_for_all_of(self),
            Ordering::Equal => false,
        };
        compatible && !more_specific
    }

    /// Whether every condition of the other is one of these, too.
    pub(super) fn asks_for_all_of(&self, other: &Self) -> bool {
        other.extensions.iter().all(|(key, value)| self.extensions.get(key) == Some(value))
            && match (&self.grpc, &other.grpc) {
                (_, None) => true,
                (None, Some(_)) => false,
                (Some(one), Some(two)) => {
                    one.service == two.service && (two.method.is_none() || one.method == two.method)
                }
            }
            && match (&self.mcp, &other.mcp) {
                (_, None) => true,
                (None, Some(_)) => false,
                (Some(one), Some(two)) => one.asks_for_all_of(two),
            }
    }
}

impl Grpc {
    fn matches(&self, request: &Request, path: &str) -> bool {
        let Some((service, method)) = path.strip_prefix('/').and_then(|path| path.split_once('/')) else {
            return false;
        };
        is_grpc(request) && *service == *self.service && self.method.as_ref().is_none_or(|wanted| **wanted == *method)
    }

    fn is_compatible(&self, other: &Self) -> bool {
        self.service == other.service
            && (self.method.is_none() || other.method.is_none() || self.method == other.method)
    }
}

/// Whether a request is a call of gRPC, by its `content-type`.
pub(super) fn is_grpc(request: &Request) -> bool {
    let start = request.headers.one("content-type").and_then(|value| value.get(..GRPC.len()));
    start.is_some_and(|start| start.eq_ignore_ascii_case(GRPC))
}

/// Also the start of `application/grpc-web`: Envoy can turn that into the same call after asking us.
pub(super) const GRPC: &str = "application/grpc";
