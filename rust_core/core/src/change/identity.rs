//! The written form of what is learnt about identities: proofs of tokens, the state of authorities, revocations.

use super::{Change, Kind, VERSION, bad};
use crate::error::Error;
use crate::limits;
use crate::model::{CredentialClass, Fingerprint, Proof, Revoked, SpiffeId, Support, Timestamp};
use serde::{Deserialize, Serialize};
use serde_json::Value as Json;

/// A proof as Python hands it in, and as it is written.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct WrittenProof {
    v: u32,
    #[serde(default = "proof_kind")]
    change: Kind,
    digest: String,
    class: String,
    /// Follows from the class; written for readers.
    #[serde(default, skip_serializing)]
    #[expect(dead_code, reason = "named in the form, so that it is no unknown key")]
    source: String,
    issuer: Box<str>,
    terms: Box<str>,
    principal: Option<String>,
    subject: Box<str>,
    audience: Vec<Box<str>>,
    key_id: Box<str>,
    key_set: Box<str>,
    rests_on: Vec<(Box<str>, Box<str>)>,
    issued_at_us: Option<i64>,
    expires_at_us: i64,
    certificate_sha256: Option<String>,
    token_id: Option<Box<str>>,
    actor: Option<Box<str>>,
    earlier_actors: Vec<Box<str>>,
    interactive: bool,
    transaction: Option<Box<str>>,
    scope: Option<Box<str>>,
    requester: Option<Box<str>>,
    claims: Vec<(Vec<Box<str>>, Json)>,
}

fn proof_kind() -> Kind {
    Kind::ProofAdmitted
}

impl From<&Proof> for WrittenProof {
    fn from(proof: &Proof) -> Self {
        let proof = proof.clone();
        Self {
            v: VERSION,
            change: Kind::ProofAdmitted,
            digest: proof.digest.to_hex(),
            class: proof.class.as_str().to_owned(),
            source: String::new(),
            issuer: proof.issuer,
            terms: proof.terms,
            principal: proof.principal.map(|id| id.to_string()),
            subject: proof.subject,
            audience: proof.audience,
            key_id: proof.key_id,
            key_set: proof.key_set,
            rests_on: proof.rests_on.into_iter().map(|support| (support.authority, support.member)).collect(),
            issued_at_us: proof.issued_at.map(Timestamp::as_micros),
            expires_at_us: proof.expires_at.as_micros(),
            certificate_sha256: proof.certificate.map(Fingerprint::to_hex),
            token_id: proof.token_id,
            actor: proof.actor,
            earlier_actors: proof.earlier_actors,
            interactive: proof.interactive,
            transaction: proof.transaction,
            scope: proof.scope,
            requester: proof.requester,
            claims: proof.claims,
        }
    }
}

impl WrittenProof {
    pub(super) fn into_proof(self) -> Result<Proof, Error> {
        if self.v != VERSION {
            return Err(Error::BadInput(format!("a proof has version {}, this build reads version {VERSION}", self.v)));
        }
        if self.rests_on.is_empty() {
            return Err(Error::BadInput("a proof rests on no key, so nothing could end it".to_owned()));
        }
        let sha256 = |what: &str, text: &str| Fingerprint::parse(text).ok_or_else(|| bad(what, text));
        Ok(Proof {
            digest: sha256("token digest", &self.digest)?,
            class: CredentialClass::parse(&self.class).ok_or_else(|| bad("credential class", &self.class))?,
            issuer: self.issuer,
            terms: self.terms,
            principal: self.principal.map(|id| SpiffeId::parse(&id).map_err(|_| bad("principal", &id))).transpose()?,
            subject: self.subject,
            audience: self.audience,
            key_id: self.key_id,
            key_set: self.key_set,
            rests_on: self.rests_on.into_iter().map(|(authority, member)| Support { authority, member }).collect(),
            issued_at: self.issued_at_us.map(Timestamp::from_micros),
            expires_at: Timestamp::from_micros(self.expires_at_us),
            certificate: self.certificate_sha256.map(|digest| sha256("certificate digest", &digest)).transpose()?,
            token_id: self.token_id,
            actor: self.actor,
            earlier_actors: self.earlier_actors,
            interactive: self.interactive,
            transaction: self.transaction,
            scope: self.scope,
            requester: self.requester,
            claims: self.claims,
        })
    }
}

/// Reads the evidence of a validated token, which need not say that it is a change.
pub fn read_proof(payload: &[u8]) -> Result<Proof, Error> {
    super::read::<WrittenProof>(payload, "proof_admitted")?.into_proof()
}

/// The state of an authority, whole.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct WrittenAuthority {
    pub(super) v: u32,
    pub(super) change: Kind,
    pub(super) authority: String,
    pub(super) members: Vec<String>,
}

/// A revocation.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct WrittenRevocation {
    v: u32,
    change: Kind,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    digest: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    token_id: Option<Box<str>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    subject: Option<Box<str>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    issuer: Option<Box<str>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    issued_before_us: Option<i64>,
}

impl From<&Revoked> for WrittenRevocation {
    fn from(revoked: &Revoked) -> Self {
        let none = Self {
            v: VERSION,
            change: Kind::Revoked,
            digest: None,
            token_id: None,
            subject: None,
            issuer: None,
            issued_before_us: None,
        };
        match revoked.clone() {
            Revoked::Digest(digest) => Self { digest: Some(digest.to_hex()), ..none },
            Revoked::TokenId { id, issuer } => Self { token_id: Some(id), issuer, ..none },
            Revoked::IssuedBefore { subject, issuer, at } => {
                Self { subject, issuer, issued_before_us: Some(at.as_micros()), ..none }
            }
        }
    }
}

impl WrittenRevocation {
    pub(super) fn into_change(self) -> Result<Change, Error> {
        let revoked = match (self.digest, self.token_id, self.issued_before_us) {
            (Some(digest), None, None) if self.subject.is_none() && self.issuer.is_none() => {
                Revoked::Digest(Fingerprint::parse(&digest).ok_or_else(|| bad("digest", &digest))?)
            }
            (None, Some(id), None) if self.subject.is_none() => Revoked::TokenId { id, issuer: self.issuer },
            (None, None, Some(at)) => {
                Revoked::IssuedBefore { subject: self.subject, issuer: self.issuer, at: Timestamp::from_micros(at) }
            }
            _ => return Err(bad("revocation", "neither a digest, a token's id nor a time")),
        };
        Ok(Change::Revoked(revoked))
    }
}

/// The change that revokes what a caller names; the caller's mistake in one sentence.
pub fn revocation(
    digest: Option<&str>,
    token_id: Option<&str>,
    subject: Option<&str>,
    issuer: Option<&str>,
    issued_before: Option<Timestamp>,
    now: Timestamp,
) -> Result<Change, Error> {
    let bounded = |what: &str, text: &str| {
        if text.is_empty() || text.len() > limits::MAX_CLAIM_BYTES || text.chars().any(char::is_control) {
            return Err(Error::BadInput(format!(
                "`{what}`: expected 1 to {} bytes without control characters",
                limits::MAX_CLAIM_BYTES
            )));
        }
        Ok(Box::<str>::from(text))
    };
    let issuer = issuer.map(|issuer| bounded("issuer", issuer)).transpose()?;
    let revoked = match (digest, token_id, subject, issued_before) {
        (Some(digest), None, None, None) if issuer.is_none() => Revoked::Digest(
            Fingerprint::parse(digest)
                .ok_or_else(|| Error::BadInput("`digest`: expected 64 lower-case hex digits".to_owned()))?,
        ),
        (None, Some(id), None, None) => Revoked::TokenId { id: bounded("jti", id)?, issuer },
        (None, None, subject, at) if subject.is_some() || at.is_some() => Revoked::IssuedBefore {
            subject: subject.map(|subject| bounded("subject", subject)).transpose()?,
            issuer,
            // What is issued from now on is another credential: whoever asks for the future would lock it out.
            at: at.unwrap_or(now).min(now),
        },
        _ => {
            let expected = "expected one of `jti`, `digest`, `subject` and `issued_before`; `issuer` only beside \
                            `jti`, `subject` or `issued_before`, and those two may stand together";
            return Err(Error::BadInput(expected.to_owned()));
        }
    };
    Ok(Change::Revoked(revoked))
}
