//! The facts of one request: each signal read once, with its state.

use super::sources::{Circumstances, Flow};
use super::store::{Cells, Store};
use crate::model::names::SubjectKind;
use crate::model::{Fact, Request, ResourceId, SpiffeId, State, Subject, Timestamp};
use crate::route::Route;
use std::borrow::Borrow;
use std::sync::Arc;

/// Who asks, and for what: where the subjects of stored signals come from.
#[derive(Clone, Copy, Debug)]
pub struct Asker<'a> {
    /// The verified identity.
    pub principal: &'a SpiffeId,
    /// What the route says is asked for.
    pub resource: &'a ResourceId,
    /// The principal's entity attribute `device`.
    pub device: Option<&'a str>,
    /// The route that the request took.
    pub route: &'a Route,
}

/// Subjects whose signals are stored. Signals of tasks and workflows are missing until grants are built,
/// for nothing but a validated grant may name one.
const STORED: [SubjectKind; 4] =
    [SubjectKind::Principal, SubjectKind::Resource, SubjectKind::Device, SubjectKind::Global];

/// Gathers one fact for each bound contract, in their order.
// INVARIANT I1: what is read here is what the register names, of this request's own subjects, and nothing else.
pub fn gather<C: Borrow<Cells>>(
    store: &Store,
    cells: &[C],
    asker: &Asker<'_>,
    request: &Request,
    now: Timestamp,
) -> Vec<Fact> {
    let circumstances = Circumstances { request, route: asker.route, now, principal: asker.principal };
    let mut facts: Vec<Fact> = Vec::with_capacity(cells.len());
    let mut subjects: [Option<Subject>; STORED.len()] = Default::default();
    for cells in cells.iter().map(Borrow::borrow) {
        let kind = cells.contract().subject;
        let known = STORED.iter().zip(&mut subjects).find(|(stored, _)| **stored == kind);
        facts.push(match known {
            Some((_, subject)) => {
                if subject.is_none() {
                    *subject = subject_of(store, kind, asker);
                }
                cells.missing(subject.clone())
            }
            None if kind == SubjectKind::Request => on_request(store, cells, &circumstances),
            None => cells.missing(None),
        });
    }
    for (kind, subject) in STORED.iter().zip(&subjects) {
        let Some(subject) = subject else { continue };
        store.with_row(subject, |row| {
            for (cells, fact) in cells.iter().map(Borrow::borrow).zip(&mut facts) {
                if cells.contract().subject == *kind {
                    cells.read_row(store, row, Some(asker.principal), now, fact);
                }
            }
        });
    }
    facts
}

/// How a request finds a subject (DESIGN section 2).
fn subject_of(store: &Store, kind: SubjectKind, asker: &Asker<'_>) -> Option<Subject> {
    let id: Arc<str> = match kind {
        SubjectKind::Principal => asker.principal.shared(),
        SubjectKind::Resource => asker.resource.to_string().into(),
        SubjectKind::Device => asker.device?.into(),
        SubjectKind::Global => return Some(store.global().clone()),
        SubjectKind::Request => return Some(store.of_request().clone()),
        SubjectKind::Task | SubjectKind::Workflow => return None,
    };
    Some(Subject { kind, id })
}

fn on_request(store: &Store, cells: &Cells, circumstances: &Circumstances<'_>) -> Fact {
    let mut fact = cells.missing(Some(store.of_request().clone()));
    let contract = cells.contract();
    for source in &contract.sources {
        if let Flow::OnRequest(reader) = &source.flow {
            (fact.state, fact.value) = reader.read(circumstances, &contract.kind);
            fact.assurance = source.assurance;
            fact.source = (fact.state != State::Missing).then(|| Arc::clone(&source.label));
            break;
        }
    }
    fact
}
