//! The tree of the log that is being written: what would be a thousand hashes a second, one by one, in Python.

use pyo3::{exceptions::PyValueError, prelude::*, pybacked::PyBackedBytes, types::PyBytes};
use signalwarden_core::leaves::root;

/// The root over hashes of one level that stand one after the other.
#[pyfunction]
pub(crate) fn tree_root(py: Python<'_>, hashes: PyBackedBytes) -> PyResult<Bound<'_, PyBytes>> {
    let found = py.detach(|| root(&hashes));
    found.map(|root| PyBytes::new(py, &root)).ok_or_else(|| PyValueError::new_err("these are no whole hashes"))
}
