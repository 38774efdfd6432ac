//! Who asks: a verified SPIFFE ID, or a reason why there is none. Nothing here knows what anyone may do (I7).

use crate::model::{Request, Span, SpiffeId, TrustDomain, hex};
use crate::reason::Reason;
use base64::{Engine as _, engine::general_purpose::STANDARD};
use sha2::{Digest, Sha256};
use std::collections::BTreeSet;

/// Establishes the caller's identity from what Envoy verified.
#[derive(Clone, Debug)]
pub struct Identity {
    accepted: BTreeSet<TrustDomain>,
}

/// A verified identity and how it was verified: `context.identity`, and the record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Evidence {
    /// The workload.
    pub principal: SpiffeId,
    /// Which source said so, in the word of the settings.
    pub source: &'static str,
    /// What kind of credential it rests on.
    pub kind: &'static str,
    /// Whether the credential is bound to the connection.
    pub bound: bool,
    /// Age of the credential, where it is known.
    pub age: Option<Span>,
    /// Hex SHA-256 over the DER of the peer's certificate, where Envoy forwards it.
    pub certificate_sha256: Option<String>,
}

/// Why a caller has no identity here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IdentityRefused {
    /// `identity_missing`, `identity_invalid` or `trust_domain_unknown`.
    pub reason: Reason,
    /// One sentence, for the record.
    pub detail: String,
}

impl Identity {
    /// Accepts principals of these trust domains alone.
    pub fn new(trust_domain: TrustDomain, federates_with: impl IntoIterator<Item = TrustDomain>) -> Self {
        Self { accepted: federates_with.into_iter().chain([trust_domain]).collect() }
    }

    /// The caller of a request, by the identity that Envoy verified on the connection (source `envoy_peer`).
    pub fn establish(&self, request: &Request) -> Result<Evidence, IdentityRefused> {
        let peer = &request.source;
        let refused = |reason, detail| Err(IdentityRefused { reason, detail });
        if peer.principal.is_empty() {
            return refused(Reason::IdentityMissing, "the peer of the connection has no verified identity".to_owned());
        }
        let principal = match SpiffeId::parse(&peer.principal) {
            Ok(principal) => principal,
            Err(why) => return refused(Reason::IdentityInvalid, format!("the peer's identity is no SPIFFE ID: {why}")),
        };
        let domain = TrustDomain::parse(principal.trust_domain());
        if !domain.is_ok_and(|domain| self.accepted.contains(&domain)) {
            let detail = format!("the trust domain `{}` is neither ours nor federated", principal.trust_domain());
            return refused(Reason::TrustDomainUnknown, detail);
        }
        Ok(Evidence {
            principal,
            source: "envoy_peer",
            kind: "x509",
            bound: true,
            age: None,
            certificate_sha256: certificate_digest(&peer.certificate),
        })
    }
}

/// Hex SHA-256 over the DER of a URL-encoded PEM certificate; `None` if there is none that can be read.
/// The certificate itself is Envoy's to verify: only its digest is wanted, to bind grants to it.
fn certificate_digest(url_encoded: &str) -> Option<String> {
    if url_encoded.is_empty() {
        return None;
    }
    let pem = percent_decode(url_encoded)?;
    let (_, rest) = pem.split_once("-----BEGIN CERTIFICATE-----")?;
    let (body, _) = rest.split_once("-----END CERTIFICATE-----")?;
    let packed: String = body.chars().filter(|c| !c.is_ascii_whitespace()).collect();
    let der = STANDARD.decode(packed).ok().filter(|der| !der.is_empty())?;
    Some(hex(&Sha256::digest(der)))
}

fn percent_decode(text: &str) -> Option<String> {
    let mut bytes = text.bytes();
    let mut decoded = Vec::with_capacity(text.len());
    let digit = |byte: Option<u8>| char::from(byte?).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    while let Some(byte) = bytes.next() {
        decoded.push(match byte {
            b'%' => digit(bytes.next())? << 4 | digit(bytes.next())?,
            plain => plain,
        });
    }
    String::from_utf8(decoded).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Peer;

    fn establish(principal: &str, certificate: &str) -> Result<Evidence, Reason> {
        let domain = |name| TrustDomain::parse(name).unwrap();
        let identity = Identity::new(domain("prod.example"), [domain("partner.example")]);
        let source = Peer { principal: principal.into(), certificate: certificate.into(), ..Peer::default() };
        identity.establish(&Request { source, ..Request::default() }).map_err(|refused| refused.reason)
    }

    #[test]
    fn a_peer_of_our_own_or_a_federated_trust_domain_is_known() {
        for id in ["spiffe://prod.example/ns/a/sa/b", "spiffe://partner.example/x", "spiffe://prod.example"] {
            let evidence = establish(id, "").unwrap();
            assert_eq!((evidence.principal.as_str(), evidence.kind, evidence.bound), (id, "x509", true));
        }
    }

    #[test]
    fn each_refusal_has_its_reason() {
        assert_eq!(establish("", ""), Err(Reason::IdentityMissing));
        assert_eq!(establish("CN=web", ""), Err(Reason::IdentityInvalid));
        assert_eq!(establish("SPIFFE://prod.example/a", ""), Err(Reason::IdentityInvalid));
        assert_eq!(establish("spiffe://prod.example/a,spiffe://prod.example/b", ""), Err(Reason::IdentityInvalid));
        assert_eq!(establish("spiffe://other.example/a", ""), Err(Reason::TrustDomainUnknown));
        assert_eq!(establish("spiffe://sub.prod.example/a", ""), Err(Reason::TrustDomainUnknown));
    }

    #[test]
    fn a_certificate_is_known_by_the_digest_of_its_der() {
        let digest = |certificate| establish("spiffe://prod.example/a", certificate).unwrap().certificate_sha256;
        let pem = "-----BEGIN%20CERTIFICATE-----%0AaGVs%0AbG8%3D%0A-----END%20CERTIFICATE-----%0A";
        let sha256_of_hello = "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824";
        assert_eq!(digest(pem).as_deref(), Some(sha256_of_hello));
        for unreadable in
            ["", "nothing", "-----BEGIN%20CERTIFICATE-----", "%2", "%zz", "%ff", &pem.replace("aGVs", "!!")]
        {
            assert_eq!(digest(unreadable), None, "{unreadable}");
        }
    }
}
