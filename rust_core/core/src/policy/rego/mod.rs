//! Rego: stands in until the engine is here.

use super::{ActionRule, EntityUnknown, PolicyEngine, PolicyInfo, Query, SignalRule, Slice, settings::RegoSettings};
use crate::{
    findings::{Findings, Place},
    model::{PrincipalRecord, SpiffeId},
};
use std::sync::Arc;

/// The files that this engine reads.
#[derive(Clone, Copy, Debug)]
pub struct RegoFiles<'a> {
    /// Path and text of each `policies/**/*.rego`.
    pub policies: &'a [(&'a str, &'a str)],
    /// `data.json`.
    pub data: Option<&'a str>,
    /// How it is asked.
    pub settings: &'a RegoSettings,
}

/// The compiled policies.
pub struct RegoEngine;

impl RegoEngine {
    /// Loads and checks everything; every mistake is a finding.
    pub fn load(
        files: RegoFiles<'_>,
        _actions: &[ActionRule],
        _signals: &[SignalRule],
        findings: &mut Findings,
    ) -> Option<Self> {
        for (file, _) in files.policies {
            findings.error(file, Place::default(), "not_built", "rego policies are not built yet");
        }
        None
    }
}

impl PolicyEngine for RegoEngine {
    fn name(&self) -> &'static str {
        "rego"
    }

    fn policies(&self) -> &[Arc<PolicyInfo>] {
        &[]
    }

    fn record_of(&self, _: &SpiffeId) -> Option<&PrincipalRecord> {
        None
    }

    fn slice<'e>(&'e self, query: &Query) -> Result<Box<dyn Slice + 'e>, EntityUnknown> {
        Err(EntityUnknown { entity: query.principal.as_str().to_owned(), policy: "".into() })
    }
}
