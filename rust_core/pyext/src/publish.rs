//! The messages of `signalwarden.v1.Signals/Publish` for a door that hands bytes through.

use crate::errors;
use pyo3::{prelude::*, pybacked::PyBackedBytes, types::PyBytes};
use signalwarden_core::wire;

/// A `PublishRequest` as the body of `POST /v1/signals`.
#[pyfunction]
pub(crate) fn publish_to_json(py: Python<'_>, request: PyBackedBytes) -> PyResult<Bound<'_, PyBytes>> {
    let body = py.detach(|| wire::publish_to_json(&request)).map_err(|error| errors::to_python(py, error))?;
    Ok(PyBytes::new(py, &body))
}

/// The JSON answer of that call as a `PublishResponse`.
#[pyfunction]
pub(crate) fn publish_answer(py: Python<'_>, answer: PyBackedBytes) -> PyResult<Bound<'_, PyBytes>> {
    let message = py.detach(|| wire::publish_answer(&answer)).map_err(|error| errors::to_python(py, error))?;
    Ok(PyBytes::new(py, &message))
}
