//! Texts for Python: YAML of its own file, in the same dialect, with the same places; Cedar, formatted.

use crate::{configuration::Finding, errors};
use pyo3::{prelude::*, types::PyBytes};
use signalwarden_core::{document, error::Error, findings, findings::Findings, policy::cedar};
use std::collections::HashMap;

/// A YAML file as JSON, with the place of each value.
#[pyclass(frozen, module = "signalwarden._core")]
pub(crate) struct Document {
    json: Option<Vec<u8>>,
    #[pyo3(get)]
    places: HashMap<String, (u32, u32)>,
    findings: Vec<findings::Finding>,
}

#[pymethods]
impl Document {
    #[getter]
    fn json<'py>(&self, py: Python<'py>) -> Option<Bound<'py, PyBytes>> {
        self.json.as_deref().map(|json| PyBytes::new(py, json))
    }

    #[getter]
    fn findings(&self) -> Vec<Finding> {
        self.findings.iter().cloned().map(Finding::from).collect()
    }
}

/// Reads YAML text.
#[pyfunction]
pub(crate) fn parse_yaml(file: &str, text: &str) -> Document {
    let mut findings = Findings::default();
    let node = document::parse(file, text, &mut findings);
    let places = node.iter().flat_map(document::Node::places);
    Document {
        json: node.as_ref().map(|node| node.to_json().to_string().into_bytes()),
        places: places.map(|(pointer, place)| (pointer, (place.line, place.column))).collect(),
        findings: findings.into_sorted(),
    }
}

/// The known name that was probably meant.
#[pyfunction]
pub(crate) fn nearest_name(written: &str, known: Vec<String>) -> Option<String> {
    findings::nearest(written, known.iter().map(String::as_str)).map(str::to_owned)
}

/// The text of a policy file as Cedar's formatter writes it.
#[pyfunction]
pub(crate) fn format_cedar(py: Python<'_>, file: &str, text: &str) -> PyResult<String> {
    let formatted = py.detach(|| cedar::format(file, text));
    formatted.map_err(|findings| errors::to_python(py, Error::Configuration(findings)))
}
