//! From the files of a directory to its engine: Cedar, Rego, or both as one.

use super::{
    ActionRule, PolicyEngine, SignalRule,
    both::Both,
    cedar::{CedarEngine, CedarFiles},
    rego::{RegoEngine, RegoFiles},
    settings::{PolicySettings, RegoInput},
};
use crate::findings::{Findings, Place};

/// Name of the file whose content Rego sees as `data`.
const DATA: &str = "data.json";

/// Loads every policy file among `texts` (path, content). Every mistake is a finding. `None` if errors leave nothing to run.
pub fn load(
    texts: &[(&str, &str)],
    settings: &PolicySettings,
    actions: &[ActionRule],
    signals: &[SignalRule],
    findings: &mut Findings,
) -> Option<Box<dyn PolicyEngine>> {
    let text = |name: &str| texts.iter().find(|(file, _)| *file == name).map(|(_, text)| *text);
    let ending = |ending: &str| -> Vec<(&str, &str)> {
        texts.iter().copied().filter(|(file, _)| file.starts_with("policies/") && file.ends_with(ending)).collect()
    };
    let (cedar, rego) = (ending(".cedar"), ending(".rego"));
    let files = CedarFiles { schema: text("entities.cedarschema"), entities: text("entities.json"), policies: &cedar };
    // Entities are those of the directory, whichever engine its policies are for.
    let first = CedarEngine::load(files, actions, signals, findings);
    if rego.is_empty() {
        if settings.rego.is_some() {
            let message = "`policies.rego`: there is no `.rego` file below `policies/`";
            findings.error("signalwarden.yaml", Place::default(), "no_rego", message);
        }
        return first.map(|engine| Box::new(engine) as Box<dyn PolicyEngine>);
    }
    let options = settings.rego.clone().unwrap_or_default();
    let files = RegoFiles { policies: &rego, data: text(DATA), settings: &options };
    let second = RegoEngine::load(files, actions, signals, findings);
    let name = match (cedar.is_empty(), options.input) {
        (true, RegoInput::Governed) => "rego",
        (false, RegoInput::Governed) => "cedar+rego",
        (true, RegoInput::OpaEnvoy) => "opa_envoy",
        (false, RegoInput::OpaEnvoy) => "cedar+opa_envoy",
    };
    Some(Box::new(Both::new(Box::new(first?), Box::new(second?), name)))
}
