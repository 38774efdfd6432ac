//! Questions of other enforcement points, answered by a running core: the admin door asks for them.

use super::{Asking, Engine};
use crate::{check, decide::Permit, error::Error, model::Inquiry, reason::Reason, record::DecisionId};
use std::sync::atomic::Ordering;

/// The answer to a question.
#[derive(Debug)]
pub struct Told {
    permit: Option<Permit>,
    /// `allowed` or why not; beside a yes why it would be a no, were the route enforced.
    pub reason: Reason,
    /// The decision's id.
    pub decision: DecisionId,
}

impl Told {
    /// Yes or no.
    pub const fn is_allowed(&self) -> bool {
        self.permit.is_some()
    }
}

impl Engine {
    /// Whether a workload may do something, for a client that was authenticated and may ask about it. The decision has its
    /// record. The error is about the form of the question.
    pub fn inquire(&self, question: &[u8], asking: &Asking<'_>) -> Result<Told, Error> {
        let inquiry = Inquiry::from_json(question).map_err(Error::BadInput)?;
        let now = self.mark.advance(asking.now, (asking.ticks)());
        let decision = DecisionId::new(now, asking.random);
        let client = asking.as_client();
        let running = self.running.load_full().filter(|_| !self.closed.load(Ordering::Acquire));
        let (record, permit, panicked) = if let Some(running) = &running {
            check::inquire(&self.ground(running, None, now, decision, asking.ticks), inquiry, client)
        } else {
            let why = "no configuration is loaded, or the server is stopping";
            (check::unanswered(inquiry, client, why, decision, now), None, false)
        };
        if panicked {
            self.counts.panics.fetch_add(1, Ordering::Relaxed);
        }
        let (reason, enforced) = (record.reason, record.enforced);
        // INVARIANT I4: no record, no allow.
        let told = if self.ring.accept(record) {
            Told { permit, reason, decision }
        } else {
            Told { permit: None, reason: Reason::LogUnavailable, decision }
        };
        self.count(told.reason, enforced || !told.is_allowed());
        Ok(told)
    }
}
