//! Who asks: evidence of a verified SPIFFE ID, or a reason why there is none. Nothing here knows what anyone may do (I7).
//!
//! `peer.rs` reads what Envoy says of the connection (`x509.rs` a certificate, `xfcc.rs` the header), `tokens.rs` the
//! tokens of a request; `proofs.rs` holds what was learnt of tokens beside the configuration.

mod peer;
mod proofs;
mod settings;
mod tokens;
pub mod x509;
pub mod xfcc;

pub use proofs::Proofs;
pub use settings::{ClassLimits, IdentitySettings, IdentitySource, IssuerTerms, Limit, TokenPlace};
pub use tokens::{UnknownToken, Validated};

use crate::model::{CredentialClass, Fingerprint, Proof, Request, Span, SpiffeId, Timestamp, TrustDomain};
use crate::reason::Reason;
use proofs::Credential;
use settings::accepts;
use std::{collections::BTreeSet, sync::Arc};
use tokens::{Against, Known};

/// Establishes the caller's identity, by the settings of one configuration.
#[derive(Clone, Debug)]
pub struct Identity {
    accepted: BTreeSet<TrustDomain>,
    settings: IdentitySettings,
    /// Claims that contracts ask for, by issuer.
    claims: Vec<(Box<str>, Vec<Box<str>>)>,
}

/// A verified identity and how it was verified: `context.identity`, and the record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Evidence {
    /// The workload.
    pub principal: SpiffeId,
    /// Which source said so, in the word of the settings.
    pub source: &'static str,
    /// What kind of credential it rests on.
    pub class: CredentialClass,
    /// Whether the credential is bound to the connection.
    pub bound: bool,
    /// Age of the credential, where it is known.
    pub age: Option<Span>,
    /// When the credential was issued, where it is known.
    pub issued_at: Option<Timestamp>,
    /// When the credential ends, where it is known.
    pub expires_at: Option<Timestamp>,
    /// SHA-256 over the DER of the peer's certificate, where Envoy forwards it.
    pub certificate: Option<Fingerprint>,
    /// Serial number of that certificate, in hex.
    pub serial: Option<String>,
    /// Whether a human stands at its origin, as far as it can be told.
    pub interactive: bool,
    /// The current actor, where another acts for the principal.
    pub actor: Option<Arc<str>>,
    /// Every token of the request that counts, this identity's own included.
    pub proofs: Vec<Arc<Proof>>,
}

/// Why a caller has no identity here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IdentityRefused {
    /// `identity_missing`, `identity_invalid`, `trust_domain_unknown`, or what is wrong with a token.
    pub reason: Reason,
    /// One sentence, for the record.
    pub detail: String,
}

/// Why nobody is known yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unestablished {
    /// And will not be.
    Refused(IdentityRefused),
    /// Tokens were not seen before.
    Pending(Vec<UnknownToken>),
}

impl Unestablished {
    fn refused(reason: Reason, detail: impl Into<String>) -> Self {
        Self::Refused(IdentityRefused { reason, detail: detail.into() })
    }
}

impl From<IdentityRefused> for Unestablished {
    fn from(refused: IdentityRefused) -> Self {
        Self::Refused(refused)
    }
}

impl Identity {
    /// Accepts principals of these trust domains alone. `claims`: what contracts ask for, as issuer and way. One sentence
    /// if the settings can't be so.
    pub fn new(
        trust_domain: TrustDomain,
        federates_with: impl IntoIterator<Item = TrustDomain>,
        settings: IdentitySettings,
        claims: Vec<(Box<str>, Vec<Box<str>>)>,
    ) -> Result<Self, String> {
        if let Some(objection) = settings.objection() {
            return Err(objection);
        }
        Ok(Self { accepted: federates_with.into_iter().chain([trust_domain]).collect(), settings, claims })
    }

    /// Whether the settings name anyone whose tokens count.
    pub fn takes_tokens(&self) -> bool {
        !self.settings.tokens.is_empty()
    }

    /// Whether principals of this trust domain are accepted, whatever proves them.
    pub fn accepts(&self, trust_domain: &str) -> bool {
        accepts(&self.accepted, trust_domain)
    }

    /// Whether the settings say how tokens of this issuer are validated.
    pub fn validates(&self, issuer: &str) -> bool {
        let of_svids = || self.settings.issuers.iter().any(|terms| terms.issuer.is_none());
        self.issuers().any(|known| known == issuer) || (accepts(&self.accepted, issuer) && of_svids())
    }

    /// The issuers that the settings name.
    pub fn issuers(&self) -> impl Iterator<Item = &str> {
        self.settings.issuers.iter().filter_map(|terms| terms.issuer.as_deref())
    }

    fn asked_for(&self, issuer: &str) -> impl Iterator<Item = &Vec<Box<str>>> {
        self.claims.iter().filter(move |(of, _)| **of == *issuer).map(|(_, way)| way)
    }

    /// The caller of a request. `validated`: what was said of tokens that were unknown before; then none is any more.
    pub fn establish(
        &self,
        request: &Request,
        proofs: &Proofs,
        validated: Option<&Validated>,
        now: Timestamp,
    ) -> Result<Evidence, Unestablished> {
        let peers = peer::established(request, &self.settings, now)?;
        let against = Against { identity: self, proofs, certificate: peers.certificate, now };
        let tokens = self.tokens(request, &against, validated)?;
        let mut all: Vec<Evidence> = peers.evidence;
        all.extend(tokens.iter().filter_map(|proof| of_proof(proof, &against)));
        let order = |evidence: &Evidence| self.settings.sources.iter().position(|s| s.as_str() == evidence.source);
        all.sort_by_key(order);
        let mut all = all.into_iter();
        let Some(mut first) = all.next() else {
            let detail = if tokens.is_empty() {
                "the peer of the connection has no verified identity"
            } else {
                "no token of the request proves who asks"
            };
            return Err(Unestablished::refused(Reason::IdentityMissing, detail));
        };
        let others = all.as_slice();
        if let Some(other) = others.iter().find(|other| other.principal != first.principal) {
            let detail = format!("`{}` and `{}` name different workloads", first.source, other.source);
            return Err(Unestablished::refused(Reason::IdentityInvalid, detail));
        }
        // INVARIANT: whichever of them is recorded, each must count.
        for evidence in std::iter::once(&first).chain(others) {
            self.may_ask(evidence, proofs)?;
        }
        first.proofs = tokens;
        Ok(first)
    }

    /// Every token of the request, each good. The first that is not refuses the call; what is unknown comes after.
    fn tokens(
        &self,
        request: &Request,
        against: &Against<'_>,
        validated: Option<&Validated>,
    ) -> Result<Vec<Arc<Proof>>, Unestablished> {
        let mut good: Vec<Arc<Proof>> = Vec::new();
        let mut unknown = Vec::new();
        for place in &self.settings.tokens {
            match tokens::look_up(request, place, against, validated) {
                None => {}
                Some(Known::Good(proof)) if good.iter().any(|other| other.digest == proof.digest) => {}
                Some(Known::Good(proof)) => good.push(proof),
                Some(Known::Refused(refused)) => return Err(refused.into()),
                Some(Known::Unknown(token)) => unknown.push(token),
            }
        }
        if unknown.is_empty() { Ok(good) } else { Err(Unestablished::Pending(unknown)) }
    }

    /// The principal of a token that was validated, at a door that has no request: the same look as a check takes, but
    /// for its terms, which are that door's own.
    pub fn proven(
        &self,
        proof: &Proof,
        proofs: &Proofs,
        certificate: Option<Fingerprint>,
        now: Timestamp,
    ) -> Result<SpiffeId, IdentityRefused> {
        let refused = |detail: &str| IdentityRefused { reason: Reason::TokenInvalid, detail: detail.to_owned() };
        let against = Against { identity: self, proofs, certificate, now };
        if !proofs.hold_all(&proof.rests_on) {
            return Err(refused("what the token was validated by is gone"));
        }
        if let Some(objection) = against.objection(proof) {
            return Err(objection);
        }
        proof.principal.clone().ok_or_else(|| refused("the token proves no principal"))
    }

    /// Whether a workload counts for which a client of ours vouches: its credential is not shown.
    pub fn vouched(&self, subject: &SpiffeId, proofs: &Proofs) -> Result<(), IdentityRefused> {
        self.may_belong(subject, proofs)?;
        // INVARIANT: what can't be said to be issued later is revoked.
        if proofs.is_revoked(&Credential::of_certificate(subject, None, None)) {
            let detail =
                "what was issued to the subject up to a time has been revoked, and a question shows no credential";
            return Err(IdentityRefused { reason: Reason::IdentityInvalid, detail: detail.to_owned() });
        }
        Ok(())
    }

    /// Trust domain, its bundle, and revocations: what holds for every kind of credential.
    fn may_ask(&self, evidence: &Evidence, proofs: &Proofs) -> Result<(), IdentityRefused> {
        self.may_belong(&evidence.principal, proofs)?;
        if evidence.class != CredentialClass::X509Svid {
            return Ok(()); // a token's own revocations were looked at
        }
        let certificate = Credential::of_certificate(&evidence.principal, evidence.certificate, evidence.issued_at);
        if proofs.is_revoked(&certificate) {
            let detail = "the certificate has been revoked".to_owned();
            return Err(IdentityRefused { reason: Reason::IdentityInvalid, detail });
        }
        Ok(())
    }

    /// Trust domain, and its bundle.
    fn may_belong(&self, principal: &SpiffeId, proofs: &Proofs) -> Result<(), IdentityRefused> {
        let domain = principal.trust_domain();
        let refused = |reason, detail| Err(IdentityRefused { reason, detail });
        if !accepts(&self.accepted, domain) {
            let detail = format!("the trust domain `{domain}` is neither ours nor federated");
            return refused(Reason::TrustDomainUnknown, detail);
        }
        if self.settings.needs_bundle(domain) && !proofs.holds(&format!("trust:{domain}"), "bundle") {
            return refused(
                Reason::TrustDomainUnknown,
                format!("there is no live bundle of the trust domain `{domain}`"),
            );
        }
        Ok(())
    }
}

/// What a proof says of who asks; `None` if it only carries claims.
fn of_proof(proof: &Proof, against: &Against<'_>) -> Option<Evidence> {
    Some(Evidence {
        principal: proof.principal.clone()?,
        source: proof.class.source(),
        class: proof.class,
        bound: proof.certificate.is_some(),
        age: proof.issued_at.map(|issued| against.now.since(issued)),
        issued_at: proof.issued_at,
        expires_at: Some(proof.expires_at),
        certificate: against.certificate,
        serial: None,
        interactive: proof.interactive,
        actor: proof.actor.as_deref().map(Arc::from),
        proofs: Vec::new(),
    })
}
