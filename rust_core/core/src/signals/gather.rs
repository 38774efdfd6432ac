//! The facts of one request: each signal read once, with its state.

use super::derived::Derived;
use super::merge;
use super::overriding;
use super::sources::Circumstances;
use super::store::{Cells, Reading, Store};
use crate::model::fact::{Member, Stand};
use crate::model::names::SubjectKind;
use crate::model::{Fact, Proof, Request, ResourceId, SpiffeId, Subject, TaskFacts, Timestamp};
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
    /// The route that the request took; `None`: it is no request of Envoy.
    pub route: Option<&'a Route>,
    /// The tokens of the request that count.
    pub proofs: &'a [Arc<Proof>],
    /// What was counted of callers before.
    pub derived: &'a Derived,
    /// The task of its grant, which was looked at and is good.
    pub task: Option<&'a TaskFacts>,
}

/// Subjects whose signals are stored. Nothing but a grant that counts names a task or a workflow.
const STORED: [SubjectKind; 6] = [
    SubjectKind::Principal,
    SubjectKind::Resource,
    SubjectKind::Device,
    SubjectKind::Task,
    SubjectKind::Workflow,
    SubjectKind::Global,
];

/// Gathers one fact for each bound contract, in their order, which is that of their names.
// INVARIANT I1: what is read here is what the register names, of this request's own subjects, and nothing else.
pub fn gather<C: Borrow<Cells>>(
    store: &Store,
    cells: &[C],
    asker: &Asker<'_>,
    request: &Request,
    now: Timestamp,
) -> Vec<Fact> {
    let vouched = store.vouching().load();
    let principal = asker.principal;
    let Asker { route, proofs, derived, task, .. } = *asker;
    let circumstances = Circumstances { request, route, now, principal, proofs, derived, task };
    let chain = task.map_or(&[][..], |task| &task.chain);
    let reading = Reading {
        store,
        vouched: &vouched,
        principal: Some(principal),
        chain,
        circumstances: Some(&circumstances),
        now,
    };
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
            None if kind == SubjectKind::Request => cells.read_row(&reading, None, Some(store.of_request().clone())),
            None => cells.missing(None),
        });
    }
    for (kind, subject) in STORED.iter().zip(&subjects) {
        let Some(subject) = subject else { continue };
        store.with_row(subject, |row| {
            for (cells, fact) in cells.iter().map(Borrow::borrow).zip(&mut facts) {
                if cells.contract().subject == *kind {
                    *fact = cells.read_row(&reading, row, Some(subject.clone()));
                }
            }
        });
    }
    overriding::stand_in(&reading, cells, &mut facts);
    keep_company(cells, &mut facts);
    facts
}

/// What is known of one stored signal and subject, whoever asks. Without overrides: those stand in a decision alone.
pub fn read_of(store: &Store, cells: &Cells, subject: &Subject, now: Timestamp) -> Fact {
    let vouched = store.vouching().load();
    let reading = Reading { store, vouched: &vouched, principal: None, chain: &[], circumstances: None, now };
    let mut fact = cells.missing(Some(subject.clone()));
    store.with_row(subject, |row| fact = cells.read_row(&reading, row, Some(subject.clone())));
    fact
}

/// Notes beside each adverse value that counts only in company who else speaks against access. The others of its
/// group are among these contracts: whoever asks for one asks for all (`Running::wanted`).
pub(crate) fn keep_company<C: Borrow<Cells>>(cells: &[C], facts: &mut [Fact]) {
    for (at, cells_of) in cells.iter().map(Borrow::borrow).enumerate() {
        let contract = cells_of.contract();
        let Some(corroborate) = &contract.combination.corroborate else { continue };
        let members = corroborate.with.iter().map(|name| {
            let found = cells.binary_search_by(|other| other.borrow().contract().name.cmp(name)).ok();
            let fact = found.and_then(|at| facts.get(at));
            match found.and_then(|at| cells.get(at)) {
                Some(other) => merge::member(other.borrow().contract(), fact),
                // Not gathered: it could say anything.
                None => Member { name: name.clone(), stand: Stand::Unknown, revocable: false },
            }
        });
        let members: Vec<Member> = members.collect();
        if let Some(fact) = facts.get_mut(at) {
            fact.company = merge::company(contract, fact, members);
        }
    }
}

/// How a request finds a subject (DESIGN section 2).
pub(crate) fn subject_of(store: &Store, kind: SubjectKind, asker: &Asker<'_>) -> Option<Subject> {
    let id: Arc<str> = match kind {
        SubjectKind::Principal => asker.principal.shared(),
        SubjectKind::Resource => asker.resource.to_string().into(),
        SubjectKind::Device => asker.device?.into(),
        SubjectKind::Global => return Some(store.global().clone()),
        SubjectKind::Request => return Some(store.of_request().clone()),
        SubjectKind::Task => Arc::clone(&asker.task?.task),
        SubjectKind::Workflow => Arc::clone(asker.task?.workflow.as_ref()?),
    };
    Some(Subject { kind, id })
}
