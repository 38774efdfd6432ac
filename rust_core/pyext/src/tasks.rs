//! Decisions that are held until what they change is kept, tasks that wait for their grant, and answers to questions.

use crate::changes::StoredChange;
use pyo3::{prelude::*, types::PyBytes};
use signalwarden_core::{check::Checked, engine};
use std::sync::{Mutex, PoisonError};

/// A decision whose answer must not leave before its changes are durable. `Engine.finish` ends it, once.
#[pyclass(frozen, module = "signalwarden._core")]
pub(crate) struct Held {
    checked: Mutex<Option<Checked>>,
    #[pyo3(get)]
    question: Option<String>,
}

impl Held {
    pub(crate) fn of(checked: Checked) -> Self {
        let question = checked.keeping().question.as_ref().map(ToString::to_string);
        Self { checked: Mutex::new(Some(checked)), question }
    }

    /// The decision; `None` if it was finished before.
    pub(crate) fn take(&self) -> Option<Checked> {
        self.checked.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

#[pymethods]
impl Held {
    #[getter]
    fn changes(&self) -> Vec<StoredChange> {
        let checked = self.checked.lock().unwrap_or_else(PoisonError::into_inner);
        checked.iter().flat_map(|checked| &checked.keeping().changes).map(StoredChange::from).collect()
    }
}

/// A task that policies have permitted, and that waits for its grant.
#[pyclass(frozen, module = "signalwarden._core")]
pub(crate) struct Proposal(pub(crate) engine::Proposal);

#[pymethods]
impl Proposal {
    #[getter]
    fn task_id(&self) -> String {
        self.0.task().id.to_string()
    }

    #[getter]
    fn decision_id(&self) -> String {
        self.0.decision.to_string()
    }

    #[getter]
    fn expires_at_us(&self) -> i64 {
        self.0.task().expires_at.as_micros()
    }

    #[getter]
    fn claims<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
        PyBytes::new(py, self.0.claims().to_string().as_bytes())
    }
}

/// The answer to whether a workload may do something; its record was accepted, or it is no.
#[pyclass(frozen, module = "signalwarden._core")]
pub(crate) struct Told(pub(crate) engine::Told);

#[pymethods]
impl Told {
    #[getter]
    fn allowed(&self) -> bool {
        self.0.is_allowed()
    }

    #[getter]
    fn reason(&self) -> &'static str {
        self.0.reason.code()
    }

    #[getter]
    fn decision_id(&self) -> String {
        self.0.decision.to_string()
    }
}

/// An answer to a question, to be kept.
#[pyclass(frozen, module = "signalwarden._core")]
pub(crate) struct Answered(pub(crate) engine::Answered);

#[pymethods]
impl Answered {
    #[getter]
    fn decision_id(&self) -> Option<String> {
        self.0.decision.map(|id| id.to_string())
    }

    #[getter]
    fn state(&self) -> &'static str {
        self.0.state.as_str()
    }

    #[getter]
    fn changes(&self) -> Vec<StoredChange> {
        vec![StoredChange::from(&self.0.change)]
    }
}
