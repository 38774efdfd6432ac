//! What Envoy says of the connection: the peer that it verified, and the last element of `x-forwarded-client-cert`.

use super::settings::{IdentitySettings, IdentitySource};
use super::x509::{self, Certificate};
use super::xfcc::{self, Element};
use super::{Evidence, Unestablished};
use crate::limits::MAX_CLOCK_SKEW_MICROS;
use crate::model::{CredentialClass, Fingerprint, Request, Span, SpiffeId, Timestamp};
use crate::reason::Reason;

/// The identities of the connection, and its certificate.
pub(super) struct Peers {
    pub(super) evidence: Vec<Evidence>,
    /// Digest of the caller's certificate, where one was forwarded.
    pub(super) certificate: Option<Fingerprint>,
}

/// Reads what the settings name of it.
pub(super) fn established(
    request: &Request,
    settings: &IdentitySettings,
    now: Timestamp,
) -> Result<Peers, Unestablished> {
    let reading = Reading { settings, now };
    let peer = if settings.takes(IdentitySource::EnvoyPeer) { reading.envoy_peer(request)? } else { None };
    let element = if settings.takes(IdentitySource::Xfcc) { reading.xfcc(request)? } else { None };
    let of = |evidence: &Option<Evidence>| evidence.as_ref().and_then(|found| found.certificate);
    let certificate = match (of(&peer), of(&element)) {
        // INVARIANT: the caller has one certificate, and tokens are bound to that one.
        (Some(one), Some(other)) if one != other => {
            return Err(invalid("`envoy_peer` and `xfcc` name different certificates"));
        }
        (Some(known), _) | (None, Some(known)) => Some(known),
        // Behind another proxy the certificate of the connection is that proxy's, not the caller's.
        (None, None) if settings.takes(IdentitySource::Xfcc) => None,
        (None, None) => {
            x509::der_of_url_encoded_pem(&request.source.certificate).ok().map(|der| x509::fingerprint(&der))
        }
    };
    Ok(Peers { evidence: peer.into_iter().chain(element).collect(), certificate })
}

fn invalid(detail: impl Into<String>) -> Unestablished {
    Unestablished::refused(Reason::IdentityInvalid, detail)
}

struct Reading<'a> {
    settings: &'a IdentitySettings,
    now: Timestamp,
}

impl Reading<'_> {
    /// The peer of the connection. Envoy writes the first URI SAN, else a DNS name, else the subject: only the
    /// certificate itself tells that there is one URI and no more.
    fn envoy_peer(&self, request: &Request) -> Result<Option<Evidence>, Unestablished> {
        let peer = &request.source;
        if peer.principal.is_empty() {
            return Ok(None);
        }
        let principal = SpiffeId::parse(&peer.principal)
            .map_err(|why| invalid(format!("the peer's identity is no SPIFFE ID: {why}")))?;
        let certificate = if peer.certificate.is_empty() {
            None
        } else {
            let certificate = Certificate::from_url_encoded_pem(&peer.certificate)
                .map_err(|why| invalid(format!("the peer's certificate does not count: {why}")))?;
            if certificate.spiffe_id != principal {
                return Err(invalid("the peer's certificate names another workload"));
            }
            Some(certificate)
        };
        let sha256 = certificate.as_ref().map(|certificate| certificate.sha256);
        self.evidence(IdentitySource::EnvoyPeer, principal, sha256, certificate.as_ref()).map(Some)
    }

    /// Whom the last element of the header names, which is our own Envoy's, or that of the proxy that we trust.
    fn xfcc(&self, request: &Request) -> Result<Option<Evidence>, Unestablished> {
        let refused = |why: &dyn std::fmt::Display| invalid(format!("`x-forwarded-client-cert`: {why}"));
        let lines = request.headers.all("x-forwarded-client-cert");
        if lines.iter().any(|line| !line.is_utf8) {
            return Err(refused(&"the header is no text"));
        }
        let lines: Vec<&str> = lines.iter().map(|line| line.value.as_str()).collect();
        let Some(element) = xfcc::last_element(&lines).map_err(|why| refused(&why))? else { return Ok(None) };
        let Some(named) = element.named().map_err(|why| refused(&why))? else { return Ok(None) };
        if !self.is_of_ours(&element) {
            return Err(refused(&"the last element is not of a proxy that the settings name"));
        }
        self.evidence(IdentitySource::Xfcc, named.spiffe_id, named.sha256, named.certificate.as_ref()).map(Some)
    }

    fn is_of_ours(&self, element: &Element) -> bool {
        let ours = &self.settings.xfcc_by;
        ours.is_empty() || (!element.by.is_empty() && element.by.iter().all(|by| ours.contains(by)))
    }

    fn evidence(
        &self,
        source: IdentitySource,
        principal: SpiffeId,
        sha256: Option<Fingerprint>,
        certificate: Option<&Certificate>,
    ) -> Result<Evidence, Unestablished> {
        match certificate {
            Some(certificate) => self.in_time(certificate)?,
            None if self.settings.require_certificate => {
                let detail = "the caller's certificate was not forwarded, and the settings require it";
                return Err(Unestablished::refused(Reason::IdentityMissing, detail));
            }
            None => {}
        }
        let issued_at = certificate.map(|certificate| certificate.not_before);
        Ok(Evidence {
            principal,
            source: source.as_str(),
            class: CredentialClass::X509Svid,
            bound: true,
            age: issued_at.map(|issued| self.now.since(issued)),
            issued_at,
            expires_at: certificate.map(|certificate| certificate.not_after),
            certificate: sha256,
            serial: certificate.map(|certificate| certificate.serial.clone()),
            interactive: false,
            actor: None,
            proofs: Vec::new(),
        })
    }

    /// Validity, and the limits of its class. Envoy looks at the first when the connection begins, and connections may
    /// outlive certificates.
    fn in_time(&self, certificate: &Certificate) -> Result<(), Unestablished> {
        if certificate.not_before > self.now.plus(Span::from_micros(MAX_CLOCK_SKEW_MICROS)) {
            return Err(invalid("the caller's certificate is not valid yet"));
        }
        if self.now > certificate.not_after {
            return Err(invalid("the caller's certificate has expired"));
        }
        let limit = self.settings.limits.of(CredentialClass::X509Svid);
        let too_long = |detail: &str| Err(Unestablished::refused(Reason::TokenTooLongLived, detail));
        if limit.max_lifetime().is_some_and(|most| certificate.lifetime() > most) {
            return too_long("the caller's certificate lives longer than its class may");
        }
        if limit.max_age().is_some_and(|most| self.now.since(certificate.not_before) > most) {
            return too_long("the caller's certificate is older than its class may be");
        }
        Ok(())
    }
}
