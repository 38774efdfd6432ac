//! The decision record: everything that the decision rested on, kept compact until it is drained.

pub(crate) mod fold;
pub mod frames;
pub mod id;
pub(crate) mod json;
mod pen;
mod principal;
mod reach;
mod request;
pub mod ring;
pub mod seen;
mod task;
mod veil;

pub use id::DecisionId;
pub(crate) use json::determines;
pub use json::{InfluenceMode, Rendering, render, render_bare};
pub(crate) use reach::reach;
pub(crate) use veil::shown;

use crate::{
    identity::Evidence,
    model::Fact,
    model::{Fingerprint, Inquiry, Question, Request, SpiffeId, Timestamp},
    policy::{PolicyAnswer, Query, SignalIndex, reasoning::Verdict},
    reason::Reason,
    route::{FurtherNote, Resolved, Route},
    snapshot::Snapshot,
    tasks::Admitted,
};
use std::{collections::BTreeSet, sync::Arc};

/// One decision. It holds the snapshot and the whole projection that the engine saw, so that influence and
/// JSON are made when it is drained, and so that it can be replayed.
#[derive(Debug)]
pub struct Record {
    /// UUID version 7.
    pub id: DecisionId,
    /// The decision's own now.
    pub time: Timestamp,
    /// `allowed` or why not.
    pub reason: Reason,
    /// False if the call was denied and let pass all the same (`enforce: false`).
    pub enforced: bool,
    /// One sentence where the reason does not say it all; empty else. Names at most the entity or trust domain
    /// that was asked for.
    pub detail: String,
    /// The configuration in force.
    pub snapshot: Option<Arc<Snapshot>>,
    /// What of the request is recorded.
    pub asked: Asked,
    /// What routes asked for beside method, host, path and arguments; `None` where they ask for nothing more.
    pub further: Option<Box<FurtherNote>>,
    /// The route, if one was found.
    pub route: Option<Arc<Route>>,
    /// What the route made of the request, if it could be read.
    pub resolved: Option<Resolved>,
    /// Who asked.
    pub evidence: Option<Evidence>,
    /// The question put to the policies.
    pub query: Option<Query>,
    /// The grant that was shown, and what became of it.
    pub grant: Option<GrantNote>,
    /// The approval that the call found, or the question that it asked.
    pub approval: Option<ApprovalNote>,
    /// Tools that the caller may use, where it asked for a list of them.
    pub tools: Option<Vec<Box<str>>>,
    /// The client that asked, where it was no request of Envoy.
    pub client: Option<Client>,
    /// What it asked about another workload, if it did.
    pub inquiry: Option<Box<Inquiry>>,
    /// Each signal that a policy in play mentions, and those that the action observes.
    pub facts: Vec<(SignalIndex, Fact)>,
    /// What the policies said.
    pub verdict: Option<Verdict>,
    /// What they say of the answer beside yes or no. Gone once the answer is made: no record has it.
    pub said: Option<Box<PolicyAnswer>>,
    /// Nanoseconds spent, by stage.
    pub spent: Spent,
    /// Decisions before this one whose records the log refused.
    pub refused_before: u64,
}

/// A grant that was shown.
#[derive(Clone, Debug)]
pub enum GrantNote {
    /// It does not count; SHA-256 of the token.
    Refused(Fingerprint),
    /// It counts.
    Admitted(Admitted),
}

/// What is known of the approval of a call.
#[derive(Clone, Debug)]
pub struct ApprovalNote {
    /// The question.
    pub question: Arc<Question>,
    /// How it stood when the call was decided.
    pub state: &'static str,
    /// Who had said yes.
    pub approved_by: BTreeSet<Arc<str>>,
}

/// A client of the admin door.
#[derive(Clone, Debug)]
pub struct Client {
    /// Its SPIFFE ID.
    pub id: SpiffeId,
    /// SHA-256 of its certificate, if it showed one.
    pub certificate: Option<Fingerprint>,
}

/// The parts of a request that identify it in a log. The query is left out: what of it counts is in `args`,
/// and the rest may hold secrets.
#[derive(Debug, Default)]
pub struct Asked {
    /// HTTP method.
    pub method: String,
    /// Host as sent.
    pub host: String,
    /// Path without query.
    pub path: String,
    /// Envoy's request id.
    pub envoy_id: String,
    /// W3C trace context: trace id and span id.
    pub trace: Option<(String, String)>,
    /// Its flags; 0 without one.
    pub trace_flags: u8,
}

/// Nanoseconds by stage.
#[derive(Clone, Copy, Debug, Default)]
pub struct Spent {
    /// Bytes to request.
    pub decode: u64,
    /// Route to verdict: the next four, and the decision itself.
    pub evaluate: u64,
    /// Request to route.
    pub route: u64,
    /// Route to principal and grant.
    pub identify: u64,
    /// From there to the policies in play and their signals.
    pub gather: u64,
    /// From there to the verdict.
    pub policies: u64,
    /// Answer to bytes.
    pub encode: u64,
    /// All of it.
    pub total: u64,
}

impl Asked {
    /// What is recorded of a request.
    pub fn of(request: &Request) -> Self {
        let (trace, trace_flags) = request.headers.one("traceparent").and_then(trace).unzip();
        Self {
            method: request.method.clone(),
            host: request.host.clone(),
            path: request.path.split('?').next().unwrap_or_default().to_owned(),
            envoy_id: request.id.clone(),
            trace,
            trace_flags: trace_flags.unwrap_or(0),
        }
    }
}

/// `00-<trace id>-<span id>-<flags>` (W3C Trace Context, section 3.2).
fn trace(header: &str) -> Option<((String, String), u8)> {
    let mut parts = header.split('-');
    let (_, trace, span, flags) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
    let hex = |text: &str, length: usize| {
        text.len() == length && text.bytes().all(|b| b.is_ascii_digit() || matches!(b, b'a'..=b'f'))
    };
    let flags = hex(flags, 2).then(|| u8::from_str_radix(flags, 16).ok())??;
    (hex(trace, 32) && hex(span, 16)).then(|| ((trace.to_owned(), span.to_owned()), flags))
}

impl Record {
    /// Roughly how many bytes the record holds on to beside the shared snapshot: the ring's measure.
    pub fn weight(&self) -> usize {
        const FIXED: usize = 1024;
        const PER_FACT: usize = 256;
        let asked = &self.asked;
        let args: usize = self.resolved.iter().flat_map(|r| &r.args).map(|(name, v)| name.len() + weight_of(v)).sum();
        let facts: usize = self.facts.iter().map(|(_, f)| PER_FACT + f.value.as_ref().map_or(0, weight_of)).sum();
        FIXED
            + 3 * (asked.method.len() + asked.host.len() + asked.path.len())
            + asked.envoy_id.len()
            + self.detail.len()
            + self.inquiry.as_ref().map_or(0, |inquiry| inquiry.weight())
            + 2 * args
            + facts
            + self.query.iter().filter_map(|query| query.whole.as_deref()).map(weight_of_json).sum::<usize>()
    }
}

fn weight_of_json(value: &serde_json::Value) -> usize {
    use serde_json::Value as Json;
    const NODE: usize = 32;
    match value {
        Json::String(text) => NODE + text.len(),
        Json::Array(values) => NODE + values.iter().map(weight_of_json).sum::<usize>(),
        Json::Object(fields) => {
            NODE + fields.iter().map(|(name, value)| 2 * NODE + name.len() + weight_of_json(value)).sum::<usize>()
        }
        _ => NODE,
    }
}

fn weight_of(value: &crate::model::Value) -> usize {
    use crate::model::Value;
    match value {
        Value::String(text) => 32 + text.len(),
        Value::Set(members) => members.iter().map(|m| 48 + m.len()).sum(),
        _ => 32,
    }
}

#[cfg(test)]
mod tests {
    use super::trace;

    #[test]
    fn only_a_well_formed_traceparent_is_recorded() {
        let good = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        let ((_, span), flags) = trace(good).unwrap();
        assert_eq!((span.as_str(), flags), ("00f067aa0ba902b7", 1));
        for bad in ["", "00", "00-xyz-00f067aa0ba902b7-01", &good.to_uppercase(), &good.replace("01", "\"1")] {
            assert_eq!(trace(bad), None, "{bad}");
        }
    }
}
