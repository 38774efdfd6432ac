//! Decisions that are never sent: what tests of policies are made of.

use crate::{changes::StoredChange, configuration::Configuration, engine::Engine};
use pyo3::{prelude::*, pybacked::PyBackedBytes, types::PyBytes};
use signalwarden_core::model::Timestamp;

/// `CheckResponse`, record, changes, reach.
type Rehearsed<'py> = (Bound<'py, PyBytes>, Bound<'py, PyBytes>, Vec<StoredChange>, Bound<'py, PyBytes>);

/// Decides offline at a given time, and says what the decision changes and what it reached.
#[pyfunction]
#[pyo3(signature = (engine, request, *, now_us))]
pub(crate) fn rehearse(py: Python<'_>, engine: Py<Engine>, request: PyBackedBytes, now_us: i64) -> Rehearsed<'_> {
    let (now, engine) = (Timestamp::from_micros(now_us), engine.get());
    let rehearsed =
        py.detach(|| engine.core.rehearse(&request, now, engine.outside.id_bits(), &|| engine.outside.ticks()));
    let changes = rehearsed.changes.iter().map(StoredChange::from).collect();
    let reach = PyBytes::new(py, rehearsed.reach.to_string().as_bytes());
    (PyBytes::new(py, &rehearsed.answer), PyBytes::new(py, &rehearsed.record), changes, reach)
}

/// What each policy of a directory consists of.
#[pyfunction]
pub(crate) fn policy_parts(py: Python<'_>, configuration: Py<Configuration>) -> Bound<'_, PyBytes> {
    let configuration = configuration.get();
    let parts = py.detach(|| configuration.snapshot.makeups().to_string());
    PyBytes::new(py, parts.as_bytes())
}
