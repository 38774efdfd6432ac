//! The leaf of an X.509-SVID (SPIFFE X509-SVID sections 2, 3.1, 4.1, 4.3, 5.2), as far as it can be told without its
//! chain: Envoy verified that. Read strictly as DER; a part that decides nothing here is stepped over.

use crate::limits::{MAX_CERTIFICATE_BYTES, MAX_CERTIFICATE_TEXT_BYTES};
use crate::model::{Fingerprint, Span, SpiffeId, SpiffeIdError, Timestamp, hex};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use der::asn1::{AnyRef, BitStringRef, GeneralizedTime, ObjectIdentifier, OctetStringRef, UintRef, UtcTime};
use der::{Decode, Reader, SliceReader, Tag};
use sha2::{Digest, Sha256};
use std::fmt;

/// What a leaf says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Certificate {
    /// Its one URI SAN.
    pub spiffe_id: SpiffeId,
    /// Valid from then on. What stands nearest to a time of issue.
    pub not_before: Timestamp,
    /// Valid up to and including then.
    pub not_after: Timestamp,
    /// Its serial number as lower-case hex, two digits a byte, without leading zero bytes.
    pub serial: String,
    /// SHA-256 of the DER: `x5t#S256` of RFC 8705.
    pub sha256: Fingerprint,
}

/// Why a certificate is not the leaf of an X.509-SVID.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CertificateRefused {
    /// Larger than [`MAX_CERTIFICATE_BYTES`], or its text than [`MAX_CERTIFICATE_TEXT_BYTES`].
    TooLarge,
    /// Not one PEM certificate, URL-encoded.
    NotPem,
    /// Not one DER certificate of X.509, or something follows it.
    NotX509,
    /// An extension that decides stands there twice.
    RepeatedExtension,
    /// It ends before it begins.
    NeverValid,
    /// It may sign others.
    Authority,
    /// Its key usage is missing or not critical.
    NoKeyUsage,
    /// Its key may not sign.
    NoDigitalSignature,
    /// Its key may sign certificates or revocation lists.
    SignsOthers,
    /// Not exactly one URI SAN.
    UriNames(usize),
    /// Its URI SAN is no SPIFFE ID.
    NoSpiffeId(SpiffeIdError),
    /// Its SPIFFE ID is that of a trust domain, not of a workload.
    NoPath,
}

impl fmt::Display for CertificateRefused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::TooLarge => "a certificate is larger than is read",
            Self::NotPem => "expected one PEM certificate, URL-encoded",
            Self::NotX509 => "the certificate is not one of X.509 in DER",
            Self::RepeatedExtension => "an extension of the certificate is repeated",
            Self::NeverValid => "the certificate ends before it begins",
            Self::Authority => "the certificate is that of an authority, not of a workload",
            Self::NoKeyUsage => "the certificate has no critical key usage",
            Self::NoDigitalSignature => "the certificate's key may not make digital signatures",
            Self::SignsOthers => "the certificate's key may sign certificates or revocation lists",
            Self::UriNames(found) => return write!(f, "a certificate has exactly one URI SAN, found {found}"),
            Self::NoSpiffeId(why) => return write!(f, "the certificate's URI SAN is no SPIFFE ID: {why}"),
            Self::NoPath => "the certificate's SPIFFE ID has no path",
        })
    }
}

impl From<der::Error> for CertificateRefused {
    fn from(_: der::Error) -> Self {
        Self::NotX509
    }
}

const KEY_USAGE: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.29.15");
const SUBJECT_ALT_NAME: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.29.17");
const BASIC_CONSTRAINTS: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.29.19");

/// Bits of a key usage (RFC 5280 section 4.2.1.3).
const DIGITAL_SIGNATURE: usize = 0;
const KEY_CERT_SIGN: usize = 5;
const CRL_SIGN: usize = 6;

impl Certificate {
    /// Reads the DER of one certificate. Whether it is valid now is for the caller to say.
    pub fn parse(der: &[u8]) -> Result<Self, CertificateRefused> {
        let leaf = Leaf::read(der)?;
        let spiffe_id = leaf.extensions.names_a_workload()?;
        Ok(Self {
            spiffe_id,
            not_before: leaf.not_before,
            not_after: leaf.not_after,
            serial: hex(leaf.serial),
            sha256: fingerprint(der),
        })
    }

    /// Reads what Envoy forwards: a PEM certificate, URL-encoded.
    pub fn from_url_encoded_pem(text: &str) -> Result<Self, CertificateRefused> {
        Self::parse(&der_of_url_encoded_pem(text)?)
    }

    /// How long it lives from its beginning to its end.
    pub fn lifetime(&self) -> Span {
        self.not_after.since(self.not_before)
    }
}

/// SHA-256 of a certificate's DER.
pub fn fingerprint(der: &[u8]) -> Fingerprint {
    Fingerprint(Sha256::digest(der).into())
}

/// The DER of a PEM certificate, URL-encoded, that may be any: only what it is called is wanted of it.
pub fn der_of_url_encoded_pem(text: &str) -> Result<Vec<u8>, CertificateRefused> {
    if text.len() > MAX_CERTIFICATE_TEXT_BYTES {
        return Err(CertificateRefused::TooLarge);
    }
    let pem = percent_decode(text).ok_or(CertificateRefused::NotPem)?;
    der_of_pem(&pem).filter(|der| !der.is_empty()).ok_or(CertificateRefused::NotPem)
}

/// One certificate and nothing else: of two nobody can tell which one is meant.
fn der_of_pem(pem: &str) -> Option<Vec<u8>> {
    let body =
        pem.trim_ascii().strip_prefix("-----BEGIN CERTIFICATE-----")?.strip_suffix("-----END CERTIFICATE-----")?;
    let packed: Vec<u8> = body.bytes().filter(|byte| !byte.is_ascii_whitespace()).collect();
    STANDARD.decode(packed).ok()
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

/// What is read of a certificate, before it is judged.
struct Leaf<'a> {
    serial: &'a [u8],
    not_before: Timestamp,
    not_after: Timestamp,
    extensions: Extensions<'a>,
}

impl<'a> Leaf<'a> {
    fn read(der: &'a [u8]) -> Result<Self, CertificateRefused> {
        if der.len() > MAX_CERTIFICATE_BYTES {
            return Err(CertificateRefused::TooLarge);
        }
        let mut reader = SliceReader::new(der)?;
        let leaf = reader.sequence(|certificate| {
            let leaf = certificate.sequence(Self::read_signed)?;
            skip(certificate, Tag::Sequence)?; // the algorithm of the signature
            skip(certificate, Tag::BitString)?; // the signature
            Ok::<_, CertificateRefused>(leaf)
        })?;
        reader.finish()?;
        Ok(leaf)
    }

    /// `TBSCertificate` (RFC 5280 section 4.1).
    fn read_signed(signed: &mut SliceReader<'a>) -> Result<Self, CertificateRefused> {
        let version = AnyRef::decode(signed)?;
        // Only version 3 has extensions, and without them there is no SPIFFE ID.
        if !is_context(&version, 0, true) || version.value() != [2, 1, 2] {
            return Err(CertificateRefused::NotX509);
        }
        let serial = UintRef::decode(signed)?.as_bytes();
        skip(signed, Tag::Sequence)?; // the algorithm of the signature
        skip(signed, Tag::Sequence)?; // the issuer
        let (not_before, not_after) =
            signed.sequence(|validity| Ok::<_, CertificateRefused>((time(validity)?, time(validity)?)))?;
        if not_after < not_before {
            return Err(CertificateRefused::NeverValid);
        }
        skip(signed, Tag::Sequence)?; // the subject
        skip(signed, Tag::Sequence)?; // the key
        let mut extensions = Extensions::default();
        while !signed.is_finished() {
            let part = AnyRef::decode(signed)?;
            if is_context(&part, 3, true) && signed.is_finished() {
                extensions = Extensions::read(part.value())?;
            } else if !is_context(&part, 1, false) && !is_context(&part, 2, false) {
                return Err(CertificateRefused::NotX509);
            }
        }
        Ok(Self { serial, not_before, not_after, extensions })
    }
}

fn is_context(part: &AnyRef<'_>, number: u32, constructed: bool) -> bool {
    part.header().tag() == der::TagNumber(number).context_specific(constructed)
}

fn skip(reader: &mut SliceReader<'_>, expected: Tag) -> Result<(), CertificateRefused> {
    let part = AnyRef::decode(reader)?;
    if part.header().tag() == expected { Ok(()) } else { Err(CertificateRefused::NotX509) }
}

fn time(reader: &mut SliceReader<'_>) -> Result<Timestamp, CertificateRefused> {
    let since_epoch = match Tag::peek(reader)? {
        Tag::UtcTime => UtcTime::decode(reader)?.to_unix_duration(),
        _ => GeneralizedTime::decode(reader)?.to_unix_duration(),
    };
    let micros = i64::try_from(since_epoch.as_micros()).map_err(|_| CertificateRefused::NotX509)?;
    Ok(Timestamp::from_micros(micros))
}

/// The extensions that decide what a certificate may be taken for.
#[derive(Default)]
struct Extensions<'a> {
    key_usage: Option<(bool, &'a [u8])>,
    names: Option<(bool, &'a [u8])>,
    constraints: Option<(bool, &'a [u8])>,
}

impl<'a> Extensions<'a> {
    fn read(der: &'a [u8]) -> Result<Self, CertificateRefused> {
        let mut found = Self::default();
        let mut reader = SliceReader::new(der)?;
        reader.sequence(|all| {
            while !all.is_finished() {
                all.sequence(|extension| found.read_one(extension))?;
            }
            Ok::<_, CertificateRefused>(())
        })?;
        reader.finish()?;
        Ok(found)
    }

    fn read_one(&mut self, extension: &mut SliceReader<'a>) -> Result<(), CertificateRefused> {
        let id = ObjectIdentifier::decode(extension)?;
        let critical = Tag::peek(extension)? == Tag::Boolean && bool::decode(extension)?;
        let value = <&OctetStringRef>::decode(extension)?.as_bytes();
        let slot = match id {
            KEY_USAGE => &mut self.key_usage,
            SUBJECT_ALT_NAME => &mut self.names,
            BASIC_CONSTRAINTS => &mut self.constraints,
            _ => return Ok(()),
        };
        // RFC 5280 section 4.2: no extension stands there twice. Of two nobody can tell which one others took.
        match slot.replace((critical, value)) {
            Some(_) => Err(CertificateRefused::RepeatedExtension),
            None => Ok(()),
        }
    }

    fn names_a_workload(&self) -> Result<SpiffeId, CertificateRefused> {
        if self.is_authority()? {
            return Err(CertificateRefused::Authority);
        }
        let Some((true, key_usage)) = self.key_usage else { return Err(CertificateRefused::NoKeyUsage) };
        let usage = BitStringRef::from_der(key_usage)?;
        let may = |bit| usage.get(bit).unwrap_or(false);
        if may(KEY_CERT_SIGN) || may(CRL_SIGN) {
            return Err(CertificateRefused::SignsOthers);
        }
        if !may(DIGITAL_SIGNATURE) {
            return Err(CertificateRefused::NoDigitalSignature);
        }
        let id = SpiffeId::parse(self.uri()?).map_err(CertificateRefused::NoSpiffeId)?;
        if id.path().is_empty() { Err(CertificateRefused::NoPath) } else { Ok(id) }
    }

    /// `cA` of the basic constraints; false where they are absent (RFC 5280 section 4.2.1.9).
    fn is_authority(&self) -> Result<bool, CertificateRefused> {
        let Some((_, constraints)) = self.constraints else { return Ok(false) };
        let mut reader = SliceReader::new(constraints)?;
        let authority = reader.sequence(|parts| {
            let authority = !parts.is_finished() && Tag::peek(parts)? == Tag::Boolean && bool::decode(parts)?;
            if !parts.is_finished() {
                UintRef::decode(parts)?; // how long a path it may begin
            }
            Ok::<_, CertificateRefused>(authority)
        })?;
        reader.finish()?;
        Ok(authority)
    }

    /// The one URI among the names.
    fn uri(&self) -> Result<&'a str, CertificateRefused> {
        let Some((_, names)) = self.names else { return Err(CertificateRefused::UriNames(0)) };
        let mut reader = SliceReader::new(names)?;
        let (mut uri, mut count) = (None, 0);
        reader.sequence(|names| {
            while !names.is_finished() {
                let name = AnyRef::decode(names)?;
                if is_context(&name, 6, true) {
                    return Err(CertificateRefused::NotX509);
                }
                if is_context(&name, 6, false) {
                    (uri, count) = (Some(name.value()), count + 1);
                }
            }
            Ok(())
        })?;
        reader.finish()?;
        match uri {
            Some(uri) if count == 1 => std::str::from_utf8(uri).map_err(|_| CertificateRefused::NotX509),
            _ => Err(CertificateRefused::UriNames(count)),
        }
    }
}
