//! Tokens of a request: found in the headers that the settings name, known by their digest, and held against all that may
//! have changed since they were validated. Validating them is not done here: what was never seen is handed out.

use super::proofs::{Credential, Proofs};
use super::settings::{IdentitySettings, IdentitySource, TokenPlace, accepts};
use super::{Identity, IdentityRefused};
use crate::limits;
use crate::model::{CredentialClass, Fingerprint, Proof, Request, SpiffeId, Timestamp};
use crate::reason::Reason;
use sha2::Digest;
use std::{fmt, sync::Arc};

/// A token that was not seen before: to be validated, and forgotten.
#[derive(Clone, PartialEq, Eq)]
pub struct UnknownToken {
    /// Its SHA-256.
    pub digest: Fingerprint,
    /// The header that held it.
    pub header: String,
    /// Whose tokens may stand there.
    pub sources: Vec<IdentitySource>,
    /// The token.
    pub token: String,
}

impl fmt::Debug for UnknownToken {
    // The token is a secret: nothing that prints may hold it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("UnknownToken")
            .field("digest", &self.digest)
            .field("header", &self.header)
            .finish_non_exhaustive()
    }
}

/// What whoever validates said of tokens that do not count.
#[derive(Clone, Debug, Default)]
pub struct Validated {
    /// Digest, reason and one sentence of each.
    pub refused: Vec<(Fingerprint, Reason, String)>,
}

/// What is known of one token.
pub(super) enum Known {
    /// It counts.
    Good(Arc<Proof>),
    /// It does not.
    Refused(IdentityRefused),
    /// Nobody can tell yet.
    Unknown(UnknownToken),
}

/// What a proof is held against.
pub(super) struct Against<'a> {
    pub(super) identity: &'a Identity,
    pub(super) proofs: &'a Proofs,
    /// Digest of the certificate of the connection.
    pub(super) certificate: Option<Fingerprint>,
    pub(super) now: Timestamp,
}

/// The token that stands in a header, if there is one.
fn token_at<'r>(request: &'r Request, place: &TokenPlace) -> Result<Option<&'r str>, IdentityRefused> {
    let value = match request.headers.all(&place.header) {
        [] => return Ok(None),
        [entry] => entry.value.as_str(),
        _ => {
            let detail = format!("the header `{}` stands there more than once", place.header);
            return Err(IdentityRefused { reason: Reason::IdentityInvalid, detail });
        }
    };
    if place.header != "authorization" {
        return Ok(Some(value.trim()));
    }
    // RFC 9110 section 11.1: the scheme is compared without regard to case. Another scheme is not for us.
    match value.trim().split_once(' ') {
        Some((scheme, token)) if scheme.eq_ignore_ascii_case("bearer") => Ok(Some(token.trim())),
        _ => Ok(None),
    }
}

/// Why a text can't be a signed JWT, before anything of it is decoded (RFC 7515 section 3.1).
fn shapeless(token: &str) -> Option<&'static str> {
    if token.len() > limits::MAX_TOKEN_BYTES {
        return Some("the token is too long");
    }
    let base64url =
        |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'));
    let mut parts = token.split('.');
    let three = (&mut parts).take(3).filter(|part| base64url(part)).count() == 3 && parts.next().is_none();
    (!three).then_some("the token is no signed JWT")
}

/// The token of a place, and what is known of it.
pub(super) fn look_up(
    request: &Request,
    place: &TokenPlace,
    against: &Against<'_>,
    validated: Option<&Validated>,
) -> Option<Known> {
    let refused = |reason, detail: &str| Some(Known::Refused(IdentityRefused { reason, detail: detail.to_owned() }));
    let token = match token_at(request, place) {
        Ok(token) => token?,
        Err(refused) => return Some(Known::Refused(refused)),
    };
    if let Some(why) = shapeless(token) {
        return refused(Reason::TokenInvalid, why);
    }
    let digest = Fingerprint(sha2::Sha256::digest(token).into());
    if let Some(proof) = against.proofs.find(&digest)
        && place.sources.iter().any(|source| source.as_str() == proof.class.source())
        && against.still_supported(&proof)
    {
        return Some(match against.objection(&proof) {
            Some(refused) => Known::Refused(refused),
            None => Known::Good(proof),
        });
    }
    let Some(validated) = validated else {
        let (header, sources) = (place.header.clone(), place.sources.clone());
        return Some(Known::Unknown(UnknownToken { digest, header, sources, token: token.to_owned() }));
    };
    match validated.refused.iter().find(|(of, ..)| *of == digest) {
        Some((_, reason, detail)) => refused(*reason, detail),
        // INVARIANT: what is still unknown after it was to be validated denies.
        None => refused(Reason::TokenInvalid, "the token was not validated"),
    }
}

impl Against<'_> {
    /// Whether what a proof was validated under still stands. If not, it is as if it had never been seen.
    fn still_supported(&self, proof: &Proof) -> bool {
        let Some(terms) = self.settings().terms(proof.class, &proof.issuer) else { return false };
        *terms.terms == *proof.terms
            && terms.audience.iter().any(|name| proof.audience.iter().any(|of| **of == **name))
            && self.identity.asked_for(&proof.issuer).all(|way| proof.claim(way).is_some())
            && self.proofs.hold_all(&proof.rests_on)
    }

    /// Why a proof that stands does not count for this call.
    pub(super) fn objection(&self, proof: &Proof) -> Option<IdentityRefused> {
        let refused = |reason, detail: &str| Some(IdentityRefused { reason, detail: detail.to_owned() });
        if self.now >= proof.expires_at {
            return refused(Reason::TokenExpired, "the token has expired");
        }
        if let Some(why) = self.too_long_lived(proof) {
            return refused(Reason::TokenTooLongLived, why);
        }
        if proof
            .issued_at
            .is_some_and(|issued| issued.as_micros() > self.now.as_micros() + limits::MAX_CLOCK_SKEW_MICROS)
        {
            return refused(Reason::TokenInvalid, "the token was issued in the future");
        }
        if proof.certificate.is_some() && proof.certificate != self.certificate {
            return refused(Reason::TokenInvalid, "the token is bound to another certificate than the connection's");
        }
        let revoked = self.proofs.is_revoked(&Credential {
            digest: Some(proof.digest),
            token_id: proof.token_id.as_deref(),
            subjects: [Some(&*proof.subject), proof.principal.as_ref().map(SpiffeId::as_str)],
            issuer: &proof.issuer,
            issued_at: proof.issued_at,
        });
        if revoked {
            return refused(Reason::TokenInvalid, "the token has been revoked");
        }
        let domain = proof.principal.as_ref().map(SpiffeId::trust_domain);
        let domain = domain.or((proof.class == CredentialClass::JwtSvid).then_some(&*proof.issuer));
        if domain.is_some_and(|domain| !accepts(&self.identity.accepted, domain)) {
            return refused(Reason::TrustDomainUnknown, "the trust domain of the token is neither ours nor federated");
        }
        None
    }

    fn too_long_lived(&self, proof: &Proof) -> Option<&'static str> {
        let limit = self.settings().limits.of(proof.class);
        // Without a time of issue it lives at least from now to its end.
        let lifetime = proof.expires_at.since(proof.issued_at.unwrap_or(self.now));
        if limit.max_lifetime().is_some_and(|most| lifetime > most) {
            return Some("the token lives longer than its class may");
        }
        let max_age = limit.max_age()?;
        let too_old = proof.issued_at.is_none_or(|issued| self.now.since(issued) > max_age);
        too_old.then_some("the token is older than its class may be, or does not say when it was issued")
    }

    fn settings(&self) -> &IdentitySettings {
        &self.identity.settings
    }
}
