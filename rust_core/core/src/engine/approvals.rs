//! Approvals of a running core: questions answered, by people or by a rule, and listed.

use super::{Asking, Engine};
use crate::{
    approvals::{ApprovalState, WantedApprovals},
    change::Change,
    check::BuiltIn,
    error::Error,
    limits,
    model::{Answer, Question, ResourceId, SpiffeId, Timestamp},
    policy::BuiltInRequest,
    record::{self, DecisionId, id::RANDOM_BYTES},
};
use serde_json::{Value as Json, json};
use std::collections::BTreeSet;

/// An answer that may be given.
#[derive(Debug)]
pub struct Answered {
    /// The decision that permits it; a no needs none.
    pub decision: Option<DecisionId>,
    /// How the question stands with it.
    pub state: ApprovalState,
    /// What is to be kept.
    pub change: Change,
}

impl Engine {
    /// The change by which a client answers a question. A yes is itself decided by policy (`approval.give`).
    pub fn answer_approval(
        &self,
        id: &str,
        approve: bool,
        comment: &str,
        asking: &Asking<'_>,
    ) -> Result<Answered, Error> {
        if comment.len() > limits::MAX_COMMENT_BYTES {
            return Err(Error::BadInput(format!("expected a comment of at most {} bytes", limits::MAX_COMMENT_BYTES)));
        }
        let running = self.loaded()?;
        let now = self.mark.advance(asking.now, (asking.ticks)());
        let people = |question: &Question| -> Vec<SpiffeId> {
            question.task.as_ref().map(|task| self.tasks.people_of(task)).unwrap_or_default()
        };
        let question = self.approvals.answerable(id, asking.client, &people, approve, now)?;
        let decision = if approve {
            let built_in = about(&question, "approval.give", asking);
            Some(self.decide_built_in(&running, built_in, None, asking, now)?)
        } else {
            None
        };
        let answer = Answer {
            id: question.id.clone(),
            by: asking.client.as_str().into(),
            approve,
            comment: comment.into(),
            at: now,
        };
        let known = self.approvals.standing(&question.id, now);
        let given = known.map_or(0, |(_, by)| by.iter().filter(|by| ***by != *answer.by).count()) + 1;
        let is_enough = given >= usize::try_from(question.need).unwrap_or(usize::MAX);
        let state = match (approve, is_enough) {
            (false, _) => ApprovalState::Denied,
            (true, true) => ApprovalState::Approved,
            (true, false) => ApprovalState::Pending,
        };
        Ok(Answered { decision, state, change: Change::ApprovalAnswered(answer) })
    }

    /// The changes by which a rule (`approval.waive`) answers a question that was just asked; none if no rule does. What
    /// several people must say is not a rule's to say.
    pub fn waive_approval(
        &self,
        id: &str,
        now: Timestamp,
        random: [u8; RANDOM_BYTES],
        ticks: &dyn Fn() -> u64,
    ) -> Result<Vec<Change>, Error> {
        let running = self.loaded()?;
        let now = self.mark.advance(now, ticks());
        let question = self.approvals.question(id)?;
        let action = crate::model::ActionId::parse("approval.waive");
        if question.need > 1 || !action.is_some_and(|action| running.snapshot.policies.can_permit(&action)) {
            return Ok(Vec::new());
        }
        // Whoever asked takes the place of a client.
        let asking = Asking { client: &question.requester, certificate: None, now, random, ticks };
        let built_in = about(&question, "approval.waive", &asking);
        match self.decide_built_in(&running, built_in, None, &asking, now) {
            Ok(decision) => Ok(vec![Change::ApprovalAnswered(Answer {
                id: question.id.clone(),
                by: format!("rule:{decision}").into(),
                approve: true,
                comment: "approved by a rule: the decision says which".into(),
                at: now,
            })]),
            Err(Error::Refused(..)) => Ok(Vec::new()),
            Err(other) => Err(other),
        }
    }

    /// The questions that are wanted, as JSON.
    pub fn list_approvals(&self, wanted: &WantedApprovals<'_>, now: Timestamp) -> Json {
        let snapshot = self.snapshot();
        let recorded = |question: &Question| {
            let snapshot = snapshot.as_deref()?;
            let key = self.ring.digest_key();
            let shown = record::shown(&snapshot.redaction, &snapshot.routes, key, question)?;
            Some(json!({"path": shown.path, "resource": shown.resource, "words": shown.words}))
        };
        self.approvals.list_noting(wanted, self.mark.at_least(now), &recorded)
    }

    /// Keys of kept changes that count no more.
    pub fn expired(&self, most: usize, now: Timestamp) -> Vec<String> {
        let now = self.mark.at_least(now);
        let Some(snapshot) = self.snapshot() else { return Vec::new() };
        let reached = self.mark.reached(now);
        let mut keys = self.tasks.expired(snapshot.tasks.retention(), most, now, reached);
        keys.extend(self.approvals.expired(most, now));
        keys.extend(self.store.vouching().expired(most, now));
        keys.extend(self.set_backs.over(reached));
        keys
    }

    /// Lets go of what these keys name, once they are gone from where they were kept.
    pub fn forget(&self, keys: &[String]) {
        self.tasks.forget(keys);
        self.approvals.forget(keys);
        self.store.vouching().forget(keys);
        self.set_backs.forget(keys);
    }
}

fn about<'a>(question: &Question, action: &'static str, asking: &Asking<'_>) -> BuiltIn<'a> {
    BuiltIn {
        action,
        resource: ResourceId { kind: "Approval".into(), id: question.id.as_str().into() },
        request: BuiltInRequest {
            principal: question.requester.clone(),
            actions: BTreeSet::from([question.action.clone()]),
            resources: BTreeSet::from([question.resource.to_string().into()]),
            sensitivity: None,
            environment: None,
        },
        client: asking.as_client(),
        task: None,
        call: ("POST", format!("/v1/approvals/{}/approve", question.id)),
    }
}
