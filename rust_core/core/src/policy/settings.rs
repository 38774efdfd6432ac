//! What `signalwarden.yaml` says of policy engines.

use serde::Deserialize;

/// Options of the engines.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PolicySettings {
    /// Those of Rego, if the directory gives any.
    #[serde(default)]
    pub rego: Option<RegoSettings>,
}

/// How Rego is asked.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RegoSettings {
    /// The entry point.
    pub query: String,
    /// Actions for which it is asked; `None` for every action of a route.
    #[serde(default)]
    pub actions: Option<Vec<String>>,
    /// What policies see.
    #[serde(default)]
    pub input: RegoInput,
    /// Said by whoever knows that `input: opa_envoy` suspends what the register promises.
    #[serde(default)]
    pub ungoverned: bool,
    /// Path of a `FileDescriptorSet`, by which gRPC bodies are read (`input: opa_envoy`).
    #[serde(default)]
    pub descriptors: Option<String>,
}

/// What Rego policies see as `input`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RegoInput {
    /// The governed projection.
    #[default]
    Governed,
    /// The whole request, as OPA's Envoy plugin shows it.
    OpaEnvoy,
}

/// The entry point where the settings name none.
pub const DEFAULT_QUERY: &str = "data.authz.allow";

impl Default for RegoSettings {
    fn default() -> Self {
        Self {
            query: DEFAULT_QUERY.to_owned(),
            actions: None,
            input: RegoInput::Governed,
            ungoverned: false,
            descriptors: None,
        }
    }
}
