//! Changes as they are kept, and what was taken of a batch.

use pyo3::{prelude::*, types::PyBytes};
use signalwarden_core::{change::Change, error::Error};

/// A change as it is kept.
#[pyclass(frozen, module = "signalwarden._core")]
pub(crate) struct StoredChange {
    #[pyo3(get)]
    key: String,
    #[pyo3(get)]
    replaces: bool,
    pub(crate) payload: Vec<u8>,
}

#[pymethods]
impl StoredChange {
    #[new]
    fn new(key: String, replaces: bool, payload: Vec<u8>) -> Self {
        Self { key, replaces, payload }
    }

    #[getter]
    fn payload<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
        PyBytes::new(py, &self.payload)
    }
}

impl From<&Change> for StoredChange {
    fn from(change: &Change) -> Self {
        Self { key: change.key(), replaces: change.replaces(), payload: change.to_payload() }
    }
}

/// What of a batch was taken.
#[pyclass(frozen, module = "signalwarden._core")]
pub(crate) struct Admission {
    pub(crate) taken: signalwarden_core::signals::Admission,
    pub(crate) error: Option<String>,
}

impl Admission {
    pub(crate) fn of(judged: Result<signalwarden_core::signals::Admission, Error>) -> Self {
        match judged {
            Ok(taken) => Self { taken, error: None },
            Err(error) => {
                Self { taken: signalwarden_core::signals::Admission::default(), error: Some(error.to_string()) }
            }
        }
    }
}

#[pymethods]
impl Admission {
    #[getter]
    fn answer<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
        PyBytes::new(py, &self.taken.answer_json())
    }

    #[getter]
    fn accepted(&self) -> usize {
        self.taken.accepted
    }

    /// Why the body can't be read; then nothing of it was taken.
    #[getter]
    fn error(&self) -> Option<&str> {
        self.error.as_deref()
    }

    #[getter]
    fn rejected(&self) -> Vec<(usize, &'static str, String)> {
        self.taken.rejected.iter().map(|(at, refusal)| (*at, refusal.reason.code(), refusal.detail.clone())).collect()
    }

    #[getter]
    fn changes(&self) -> Vec<StoredChange> {
        self.taken.changes.iter().map(StoredChange::from).collect()
    }
}
