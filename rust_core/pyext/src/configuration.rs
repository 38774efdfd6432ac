//! A loaded directory, its findings, and the table of reasons.

use crate::errors;
use pyo3::{prelude::*, pybacked::PyBackedBytes, types::PyBytes};
use signalwarden_core::{
    findings::{self, Severity},
    model::Timestamp,
    reason::{Reason, Standing},
    snapshot::{CoreSettings, Snapshot},
};
use std::sync::Arc;

/// One mistake of a configuration directory.
#[pyclass(frozen, get_all, module = "signalwarden._core")]
#[derive(Clone)]
pub(crate) struct Finding {
    severity: &'static str,
    file: String,
    line: u32,
    column: u32,
    code: &'static str,
    message: String,
}

impl From<findings::Finding> for Finding {
    fn from(finding: findings::Finding) -> Self {
        Self {
            severity: if finding.severity == Severity::Error { "error" } else { "warning" },
            file: finding.file,
            line: finding.place.line,
            column: finding.place.column,
            code: finding.code,
            message: finding.message,
        }
    }
}

#[pymethods]
impl Finding {
    fn __repr__(&self) -> String {
        format!("{}:{}:{}: {}: {}", self.file, self.line, self.column, self.severity, self.message)
    }
}

/// A directory's routes, register, entities and policies.
#[pyclass(frozen, module = "signalwarden._core")]
pub(crate) struct Configuration {
    pub(crate) snapshot: Arc<Snapshot>,
}

#[pymethods]
impl Configuration {
    #[staticmethod]
    #[pyo3(signature = (files, *, settings, now_us))]
    fn load(
        py: Python<'_>,
        files: Vec<(String, PyBackedBytes)>,
        settings: PyBackedBytes,
        now_us: i64,
    ) -> PyResult<Self> {
        let files: Vec<(String, Vec<u8>)> = files.into_iter().map(|(name, bytes)| (name, bytes.to_vec())).collect();
        let settings = CoreSettings::from_json(&settings).map_err(|error| errors::to_python(py, error))?;
        let loaded = py.detach(|| Snapshot::load(&files, &settings, Timestamp::from_micros(now_us)));
        loaded.map(|snapshot| Self { snapshot: Arc::new(snapshot) }).map_err(|error| errors::to_python(py, error))
    }

    #[getter]
    fn revision(&self) -> &str {
        &self.snapshot.revision
    }

    #[getter]
    fn warnings(&self) -> Vec<Finding> {
        self.snapshot.warnings.iter().cloned().map(Finding::from).collect()
    }

    /// The claims of tokens that contracts ask for: issuer, and the way to the claim.
    fn token_claims(&self) -> Vec<(String, Vec<String>)> {
        let claims = self.snapshot.register.claims().into_iter();
        claims.map(|(issuer, way)| (issuer.into(), way.into_iter().map(String::from).collect())).collect()
    }

    fn describe<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
        // A large one takes tenths of a second, in which others decide.
        let described = py.detach(|| self.snapshot.describe().to_string());
        PyBytes::new(py, described.as_bytes())
    }
}

/// The closed table of reasons.
#[pyfunction]
pub(crate) fn reasons() -> Vec<(&'static str, u16, i32, bool, &'static str)> {
    let row = |reason: &Reason| {
        let live = reason.standing() == Standing::Live;
        (reason.code(), reason.http_status(), reason.grpc_status() as i32, live, reason.sentence())
    };
    Reason::ALL.iter().map(row).collect()
}
