//! What Envoy says of the connection: the peer that it verified, and the last element of `x-forwarded-client-cert`.

use super::settings::{IdentitySettings, IdentitySource};
use super::{Evidence, Unestablished};
use crate::model::{CredentialClass, Fingerprint, Request, SpiffeId, Timestamp};
use crate::reason::Reason;
use base64::{Engine as _, engine::general_purpose::STANDARD};
use sha2::Digest;

/// The identities of the connection, and its certificate.
pub(super) struct Peers {
    pub(super) evidence: Vec<Evidence>,
    /// Digest of the certificate of the connection, where one was forwarded.
    pub(super) certificate: Option<Fingerprint>,
}

/// Reads what the settings name of it.
pub(super) fn established(
    request: &Request,
    settings: &IdentitySettings,
    now: Timestamp,
) -> Result<Peers, Unestablished> {
    let peer = &request.source;
    let _ = now;
    let certificate = certificate_digest(&peer.certificate);
    let mut evidence = Vec::new();
    if settings.takes(IdentitySource::EnvoyPeer) && !peer.principal.is_empty() {
        let principal = SpiffeId::parse(&peer.principal).map_err(|why| {
            Unestablished::refused(Reason::IdentityInvalid, format!("the peer's identity is no SPIFFE ID: {why}"))
        })?;
        evidence.push(Evidence {
            principal,
            source: IdentitySource::EnvoyPeer.as_str(),
            class: CredentialClass::X509Svid,
            bound: true,
            age: None,
            issued_at: None,
            expires_at: None,
            certificate,
            serial: None,
            interactive: false,
            actor: None,
            proofs: Vec::new(),
        });
    }
    Ok(Peers { evidence, certificate })
}

/// SHA-256 over the DER of a URL-encoded PEM certificate; `None` if there is none that can be read.
/// The certificate itself is Envoy's to verify: only its digest is wanted, to bind grants to it.
fn certificate_digest(url_encoded: &str) -> Option<Fingerprint> {
    if url_encoded.is_empty() {
        return None;
    }
    let pem = percent_decode(url_encoded)?;
    let (_, rest) = pem.split_once("-----BEGIN CERTIFICATE-----")?;
    let (body, _) = rest.split_once("-----END CERTIFICATE-----")?;
    let packed: String = body.chars().filter(|c| !c.is_ascii_whitespace()).collect();
    let der = STANDARD.decode(packed).ok().filter(|der| !der.is_empty())?;
    Some(Fingerprint(sha2::Sha256::digest(der).into()))
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
