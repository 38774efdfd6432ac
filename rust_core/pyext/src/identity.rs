//! Tokens that a check found and nobody knows yet: what Python validates.

use pyo3::{prelude::*, types::PyBytes};
use signalwarden_core::{check, identity::UnknownToken};

/// A call that waits for its tokens to be validated.
#[pyclass(frozen, module = "signalwarden._core")]
pub(crate) struct Pending(pub(crate) check::Pending);

#[pymethods]
impl Pending {
    /// Whom the work is charged to.
    #[getter]
    fn peer(&self) -> &str {
        &self.0.peer
    }

    #[getter]
    fn credentials(&self) -> Vec<Credential> {
        self.0.tokens.iter().cloned().map(Credential).collect()
    }
}

/// A token that was not seen before.
#[pyclass(frozen, module = "signalwarden._core")]
pub(crate) struct Credential(UnknownToken);

#[pymethods]
impl Credential {
    #[getter]
    fn digest(&self) -> String {
        self.0.digest.to_hex()
    }

    /// The sources of identities whose tokens may stand in its header, joined by commas.
    #[getter]
    fn source(&self) -> String {
        self.0.sources.iter().map(|source| source.as_str()).collect::<Vec<_>>().join(",")
    }

    #[getter]
    fn header(&self) -> &str {
        &self.0.header
    }

    #[getter]
    fn token<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
        PyBytes::new(py, self.0.token.as_bytes())
    }

    /// Without the token, which is a secret.
    fn __repr__(&self) -> String {
        format!("Credential(digest={}, header={})", self.0.digest.to_hex(), self.0.header)
    }
}
