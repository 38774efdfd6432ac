//! What a policy may say of the answer beside yes or no. Whether Envoy takes it is the encoder's to check.

use serde_json::{Map, Value as Json};

/// Headers and the like that a policy asks for. Texts are as the policy gave them, not yet encoded.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PolicyAnswer {
    /// An allow: request headers to set before upstream. A denial: headers of the response.
    pub headers: Vec<(String, String)>,
    /// An allow: request headers to remove before upstream.
    pub remove_headers: Vec<String>,
    /// An allow: headers of the response.
    pub response_headers: Vec<(String, String)>,
    /// A denial: the status of the response.
    pub http_status: Option<u16>,
    /// A denial: the body of the response.
    pub body: Option<String>,
    /// An allow: query parameters to set.
    pub query_set: Vec<(String, String)>,
    /// An allow: query parameters to remove.
    pub query_remove: Vec<String>,
    /// Dynamic metadata for the access log.
    pub metadata: Map<String, Json>,
}
