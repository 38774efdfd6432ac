//! Break-glass at a running core: what two people say in place of a signal, and what of it is in force.

use super::Engine;
use crate::{
    change::Change,
    error::Error,
    model::Timestamp,
    signals::overriding::{self, Overriding},
};
use serde_json::Value as Json;

impl Engine {
    /// The change that overrides a signal of a subject while it is not available.
    pub fn override_signal(&self, asked: &Overriding<'_>, now: Timestamp) -> Result<Change, Error> {
        let running = self.loaded()?;
        let snapshot = &running.snapshot;
        // Two people's word would stand for a signal that moves workflows, and move none: so that nobody counts on it.
        if snapshot.tasks.workflow_signal() == Some(asked.name) {
            return Err(Error::BadInput(format!(
                "`{}` says how workflows stand (`tasks.workflow_signal`) and can't be overridden: a client with the right \
                 `workflows` approves or ends one with `PUT /v1/workflows/{{id}}`",
                asked.name
            )));
        }
        asked.judge(&snapshot.register, &snapshot.overrides, &self.store, self.mark.at_least(now))
    }

    /// The overrides in force, as JSON.
    pub fn overrides(&self, now: Timestamp) -> Json {
        let snapshot = self.snapshot();
        overriding::list(&self.store, snapshot.as_ref().map(|snapshot| &snapshot.register), self.mark.at_least(now))
    }
}
