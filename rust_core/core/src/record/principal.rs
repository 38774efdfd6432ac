//! What a record says of who asked: the identity, how it was proven, the tokens that counted, and what the directory says
//! of the principal.

use super::Client;
use crate::{
    identity::Evidence,
    model::{Environment, Fingerprint, PrincipalRecord, Proof, Timestamp},
    snapshot::Snapshot,
};
use serde::Serialize;

#[derive(Serialize)]
pub(super) struct PrincipalPart<'a> {
    id: &'a str,
    source: &'static str,
    kind: &'static str,
    trust_domain: &'a str,
    bound: bool,
    class: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    issued_at: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    expires_at: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    certificate_sha256: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    serial: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    actor: Option<&'a str>,
    /// Only where it is true.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    interactive: bool,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    tokens: Vec<TokenPart<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    owner: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    environment: Option<&'a str>,
    /// Only where it is true.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    legacy: bool,
}

/// A token that counted. Never the token: its digest.
#[derive(Serialize)]
struct TokenPart<'a> {
    sha256: String,
    class: &'static str,
    issuer: &'a str,
    key_id: &'a str,
    key_set: &'a str,
    subject: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    token_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    issued_at: Option<String>,
    expires_at: String,
    bound: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    actor: Option<&'a str>,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    earlier_actors: &'a [Box<str>],
    /// Only where it is true.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    interactive: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    transaction: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    scope: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    requester: Option<&'a str>,
}

impl<'a> PrincipalPart<'a> {
    /// A client of the admin door: it proved to be one there.
    pub(super) fn of_client(client: &'a Client) -> Self {
        Self {
            id: client.id.as_str(),
            source: "client",
            kind: "client",
            trust_domain: client.id.trust_domain(),
            bound: client.certificate.is_some(),
            class: "client",
            issued_at: None,
            expires_at: None,
            certificate_sha256: client.certificate.map(Fingerprint::to_hex),
            serial: None,
            actor: None,
            interactive: false,
            tokens: Vec::new(),
            owner: None,
            environment: None,
            legacy: false,
        }
    }

    pub(super) fn of(evidence: &'a Evidence, snapshot: Option<&'a Snapshot>) -> Self {
        let known = snapshot.and_then(|snapshot| snapshot.policies.record_of(&evidence.principal));
        Self {
            id: evidence.principal.as_str(),
            source: evidence.source,
            kind: evidence.class.kind(),
            trust_domain: evidence.principal.trust_domain(),
            bound: evidence.bound,
            class: evidence.class.as_str(),
            issued_at: evidence.issued_at.map(Timestamp::to_rfc3339),
            expires_at: evidence.expires_at.map(Timestamp::to_rfc3339),
            certificate_sha256: evidence.certificate.map(Fingerprint::to_hex),
            serial: evidence.serial.as_deref(),
            actor: evidence.actor.as_deref(),
            interactive: evidence.interactive,
            tokens: evidence.proofs.iter().map(|proof| TokenPart::of(proof)).collect(),
            owner: known.and_then(|known| known.owner.as_deref()),
            environment: known.and_then(|known| known.environment.as_ref()).map(Environment::as_str),
            legacy: known.is_some_and(PrincipalRecord::is_legacy),
        }
    }
}

impl<'a> TokenPart<'a> {
    fn of(proof: &'a Proof) -> Self {
        Self {
            sha256: proof.digest.to_hex(),
            class: proof.class.as_str(),
            issuer: &proof.issuer,
            key_id: &proof.key_id,
            key_set: &proof.key_set,
            subject: &proof.subject,
            token_id: proof.token_id.as_deref(),
            issued_at: proof.issued_at.map(Timestamp::to_rfc3339),
            expires_at: proof.expires_at.to_rfc3339(),
            bound: proof.certificate.is_some(),
            actor: proof.actor.as_deref(),
            earlier_actors: &proof.earlier_actors,
            interactive: proof.interactive,
            transaction: proof.transaction.as_deref(),
            scope: proof.scope.as_deref(),
            requester: proof.requester.as_deref(),
        }
    }
}
