//! Glue to Python, nothing else: `signalwarden._core`. The interpreter is released wherever the core works.

#![expect(clippy::needless_pass_by_value, reason = "arguments are extracted from Python objects")]

mod changes;
mod configuration;
mod desk;
mod document;
mod drain;
mod engine;
mod errors;
mod front;
mod identity;
mod leaves;
mod outside;
mod publish;
mod rehearsal;
mod replay;
mod ring;
mod tasks;
mod words;

use pyo3::prelude::*;

/// The decision core, in Rust.
#[pymodule]
mod _core {
    #[pymodule_export]
    use crate::changes::{Admission, StoredChange};
    #[pymodule_export]
    use crate::configuration::{Configuration, Finding, reasons};
    #[pymodule_export]
    use crate::desk::{Asker, Ticket};
    #[pymodule_export]
    use crate::document::{Document, format_cedar, nearest_name, parse_yaml};
    #[pymodule_export]
    use crate::engine::Engine;
    #[pymodule_export]
    use crate::front::NativeFront;
    #[pymodule_export]
    use crate::identity::{Credential, Pending};
    #[pymodule_export]
    use crate::leaves::tree_root;
    #[pymodule_export]
    use crate::publish::{publish_answer, publish_to_json};
    #[pymodule_export]
    use crate::rehearsal::{policy_parts, rehearse};
    #[pymodule_export]
    use crate::replay::Replay;
    #[pymodule_export]
    use crate::tasks::{Answered, Held, Proposal, Told};
    use pyo3::prelude::*;

    #[pymodule_init]
    fn init(module: &Bound<'_, PyModule>) -> PyResult<()> {
        // Debug assertions are on in the dev profile alone; benches say which build they measured.
        module.add("BUILD_PROFILE", if cfg!(debug_assertions) { "dev" } else { "release" })?;
        module.add("__version__", env!("CARGO_PKG_VERSION"))
    }
}
