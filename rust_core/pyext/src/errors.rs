//! The one mapping from the core's error to Python's exceptions (`signalwarden.errors`).

use crate::configuration::Finding;
use pyo3::{exceptions::PyRuntimeError, prelude::*};
use signalwarden_core::error::Error;

/// The core's error as the exception that Python code catches.
pub(crate) fn to_python(py: Python<'_>, error: Error) -> PyErr {
    let made = match error {
        Error::Configuration(findings) => {
            let findings: Vec<Finding> = findings.into_iter().map(Finding::from).collect();
            raise(py, "ConfigurationError", |class| class.call1((findings,)))
        }
        Error::BadInput(sentence) => raise(py, "BadInputError", |class| class.call1((sentence,))),
        Error::Refused(refusal, sentence) => {
            let more: std::collections::BTreeMap<_, _> = refusal.more().into_iter().collect();
            raise(py, "CallRefusedError", |class| class.call1((refusal.code(), sentence, more)))
        }
        Error::Internal(sentence) => Ok(PyRuntimeError::new_err(sentence)),
    };
    made.unwrap_or_else(|error| error)
}

/// That the log can't be had.
pub(crate) fn log_error(py: Python<'_>, sentence: &str) -> PyErr {
    raise(py, "LogError", |class| class.call1((sentence,))).unwrap_or_else(|error| error)
}

fn raise<'py>(
    py: Python<'py>,
    class: &str,
    make: impl FnOnce(Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>>,
) -> PyResult<PyErr> {
    let class = py.import("signalwarden.errors")?.getattr(class)?;
    Ok(PyErr::from_value(make(class)?))
}
