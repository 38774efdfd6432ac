//! A recorded decision made again: the question of `case.rs` with the facts of `facts.rs`, by the functions of `check`.

use super::{
    Changes, Ended, Replay, Unknowable,
    case::{self, Case, NoCase},
    facts::{self, Gathered},
    read::Recorded,
};
use crate::{
    check,
    decide::{self, Need},
    policy::{
        PolicyInfo, Slice,
        reasoning::{self, Truth, Verdict},
    },
    reason::Reason,
    record,
    snapshot::Snapshot,
};
use serde::Serialize;

/// A decision made again, with what it was made from, as far as it got.
pub(super) struct Again<'a> {
    pub(super) ended: Ended,
    pub(super) asked: Option<Asking<'a>>,
}

/// A question put to policies, which can be put again with other facts.
pub(super) struct Asking<'a> {
    pub(super) case: Case,
    pub(super) gathered: Gathered<'a>,
}

impl<'a> Again<'a> {
    pub(super) fn of(replay: &'a Replay, recorded: &'a Recorded<'a>, changes: &Changes) -> Result<Self, Unknowable> {
        let case = match case::of(replay, recorded) {
            Ok(case) => case,
            Err(NoCase::Ended(ended)) => return Ok(Self { ended, asked: None }),
            Err(NoCase::Unknowable(why)) => return Err(why),
        };
        let snapshot = &replay.running.snapshot;
        let Ok(slice) = snapshot.policies.slice(&case.query) else {
            return Ok(Self { ended: Ended::now(Reason::EntityUnknown), asked: None });
        };
        if case.is_question
            && let Err(denial) = check::may_be_asked(&*slice)
        {
            return Ok(Self { ended: Ended::now(denial.reason), asked: None });
        }
        let gathered = facts::gather(replay, recorded, &case, &*slice, changes)?;
        let ended = conclude(replay, recorded, &case, &*slice, &gathered);
        Ok(Self { ended, asked: Some(Asking { case, gathered }) })
    }
}

/// Asks the policies, and what the route's tier asks for beside them.
pub(super) fn conclude(
    replay: &Replay,
    recorded: &Recorded<'_>,
    case: &Case,
    slice: &dyn Slice,
    gathered: &Gathered<'_>,
) -> Ended {
    let verdict = reasoning::evaluate(slice, &replay.running.snapshot.rules, &gathered.facts);
    let reason = reason_of(recorded, case, &verdict);
    let let_pass = case.route.as_ref().is_some_and(|route| decide::is_let_pass(route, reason));
    Ended { reason, enforced: !let_pass, as_it_was: None, verdict: Some(verdict) }
}

fn reason_of(recorded: &Recorded<'_>, case: &Case, verdict: &Verdict) -> Reason {
    let Some(route) = &case.route else { return verdict.reason };
    match decide::conclude(route, verdict.reason, !verdict.gates.is_empty()) {
        Err(denial) => denial.reason,
        Ok(Need::Nothing) => Reason::Allowed,
        Ok(Need::Approval) if !route.enforce => Reason::ApprovalRequired,
        Ok(Need::Approval) => answered(recorded),
    }
}

/// What somebody's yes came to. Who said what to this very call is taken as recorded; a call of which nobody was asked would
/// have been asked about.
fn answered(recorded: &Recorded<'_>) -> Reason {
    match (recorded.reason, recorded.approval.as_ref().map(|approval| &*approval.state)) {
        (
            was @ (Reason::ApprovalRequired
            | Reason::ApprovalDenied
            | Reason::ApprovalExpired
            | Reason::ApprovalMismatch
            | Reason::BodyIncomplete),
            _,
        ) => was,
        (_, Some("approved")) => Reason::Allowed,
        (_, Some("denied")) => Reason::ApprovalDenied,
        (_, Some("expired")) => Reason::ApprovalExpired,
        (_, Some("used")) => Reason::ApprovalMismatch,
        _ => Reason::ApprovalRequired,
    }
}

/// A policy that made the reason what it is.
#[derive(Serialize)]
pub(super) struct Determining<'a> {
    id: &'a str,
    effect: &'static str,
    file: &'a str,
    line: u32,
    applies: &'static str,
}

pub(super) fn determining<'a>(snapshot: &'a Snapshot, ended: &Ended) -> Vec<Determining<'a>> {
    let policies = snapshot.policies.policies();
    let Some(verdict) = &ended.verdict else { return Vec::new() };
    let in_play = verdict.in_play.iter().zip(&verdict.truths);
    let known = in_play.filter_map(|(index, truth)| Some((&**policies.get(*index as usize)?, truth)));
    known
        .filter(|(info, truth)| record::determines(ended.reason, info, truth))
        .map(|(info, truth): (&'a PolicyInfo, &Truth)| Determining {
            id: &info.id,
            effect: info.effect.as_str(),
            file: &info.file,
            line: info.place.line,
            applies: if *truth == Truth::Certain { "certain" } else { "may" },
        })
        .collect()
}
