//! Recorded decisions, made again.

use crate::{configuration::Configuration, errors};
use pyo3::{prelude::*, pybacked::PyBackedBytes, types::PyBytes};
use signalwarden_core::replay;
use std::sync::Arc;

/// A directory that recorded decisions are made again with.
#[pyclass(frozen, module = "signalwarden._core")]
pub(crate) struct Replay {
    core: replay::Replay,
}

#[pymethods]
impl Replay {
    #[new]
    fn new(configuration: &Configuration) -> Self {
        Self { core: replay::Replay::new(Arc::clone(&configuration.snapshot)) }
    }

    #[pyo3(signature = (lines, *, changes = None))]
    fn decide<'py>(
        &self,
        py: Python<'py>,
        lines: PyBackedBytes,
        changes: Option<PyBackedBytes>,
    ) -> PyResult<Bound<'py, PyBytes>> {
        let changes = changes.as_deref().unwrap_or(b"[]");
        let decided = py.detach(|| self.core.decide(&lines, changes));
        decided.map(|decided| PyBytes::new(py, &decided)).map_err(|error| errors::to_python(py, error))
    }

    fn explain<'py>(&self, py: Python<'py>, line: PyBackedBytes) -> Bound<'py, PyBytes> {
        let explained = py.detach(|| self.core.explain(&line));
        PyBytes::new(py, &explained)
    }
}
