//! `x-forwarded-client-cert`, in its full grammar (Envoy's documentation of the HTTP connection manager's headers):
//!
//! ```text
//! header  = element *( "," element )       ; each proxy on the way adds one: only the last is that of our own Envoy
//! element = pair *( ";" pair )
//! pair    = key "=" value                  ; keys without regard to case; By, URI and DNS may be repeated
//! value   = *bare / DQUOTE *( "\" any / other ) DQUOTE
//! ```
//!
//! Several lines of the header are one, joined by `,`. What does not fit is refused wherever it stands, for of a header
//! that can be read in two ways the last element can't be told. Space and tab may stand around `,` and `;` alone. A bare
//! value has no `"`, `,`, `;` or `=`.
//!
//! What no reading can see: Envoy writes URI and DNS names bare, and a name with a `,` in it begins what looks like one
//! more element. Only an authority that signs such a name can make it, and SPIFFE allows neither `,` nor `;` in an ID:
//! let Envoy accept certificates of SPIFFE authorities alone here. With `envoy_peer` beside it, or a certificate in each
//! element, more of it is found: names, digest and certificate must agree.

use super::x509::{Certificate, CertificateRefused};
use crate::limits::{MAX_XFCC_BYTES, MAX_XFCC_ELEMENTS, MAX_XFCC_PAIRS};
use crate::model::{Fingerprint, SpiffeId, SpiffeIdError};
use std::borrow::Cow;
use std::fmt;

/// What one proxy says of the certificate of its peer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Element {
    /// URI SANs of the proxy's own certificate.
    pub by: Vec<String>,
    /// Hex SHA-256 of the peer's certificate.
    pub hash: Option<String>,
    /// Its URI SANs; one empty text where it has none.
    pub uris: Vec<String>,
    /// Its DNS SANs.
    pub dns: Vec<String>,
    /// Its subject.
    pub subject: Option<String>,
    /// The certificate, as URL-encoded PEM.
    pub cert: Option<String>,
    /// Its chain, as URL-encoded PEM.
    pub chain: Option<String>,
}

/// Whom an element names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Named {
    /// The workload.
    pub spiffe_id: SpiffeId,
    /// Digest of its certificate, where the element gives it.
    pub sha256: Option<Fingerprint>,
    /// Its certificate, where the element has it.
    pub certificate: Option<Certificate>,
}

/// Why the header, or its last element, can't be taken at its word.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum XfccRefused {
    /// Longer than [`MAX_XFCC_BYTES`].
    TooLong,
    /// More than [`MAX_XFCC_ELEMENTS`] elements.
    TooManyElements,
    /// More than [`MAX_XFCC_PAIRS`] pairs in one element.
    TooManyPairs,
    /// A control character.
    ControlCharacter,
    /// An element or pair without a key and `=`.
    NoKey,
    /// A quoted value does not end, or something follows it.
    BadQuotes,
    /// A bare value holds what must be quoted.
    NotQuoted,
    /// A key that names one thing stands twice in an element.
    RepeatedKey(&'static str),
    /// An element names more than one URI.
    UriNames(usize),
    /// Its URI is no SPIFFE ID of a workload.
    NoSpiffeId(SpiffeIdError),
    /// Its SPIFFE ID is that of a trust domain.
    NoPath,
    /// Its hash is no SHA-256 in lower-case hex.
    BadHash,
    /// Its certificate is not that of a workload.
    BadCertificate(CertificateRefused),
    /// Its certificate has another digest or name.
    Disagrees,
}

impl fmt::Display for XfccRefused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::TooLong => "the header is longer than is read",
            Self::TooManyElements => "the header has more elements than are read",
            Self::TooManyPairs => "an element of the header has more pairs than are read",
            Self::ControlCharacter => "the header has a control character",
            Self::NoKey => "expected a key and `=` in each pair of the header",
            Self::BadQuotes => "a quoted value of the header does not end where it should",
            Self::NotQuoted => "a value of the header with `=` or a double quote in it is not quoted",
            Self::RepeatedKey(key) => return write!(f, "an element of the header has `{key}` more than once"),
            Self::UriNames(found) => return write!(f, "an element names exactly one URI, found {found}"),
            Self::NoSpiffeId(why) => return write!(f, "the element's URI is no SPIFFE ID: {why}"),
            Self::NoPath => "the element's SPIFFE ID has no path",
            Self::BadHash => "the element's hash is no SHA-256 in lower-case hex",
            Self::BadCertificate(why) => return write!(f, "the element's certificate does not count: {why}"),
            Self::Disagrees => "the element's certificate is not the one that its hash or URI names",
        })
    }
}

/// The last element of the header, whose lines are given in order; `None` if there is no line.
pub fn last_element(values: &[&str]) -> Result<Option<Element>, XfccRefused> {
    if values.iter().map(|value| value.len() + 1).sum::<usize>() > MAX_XFCC_BYTES + 1 {
        return Err(XfccRefused::TooLong);
    }
    let header = match values {
        [] => return Ok(None),
        [only] => Cow::Borrowed(*only),
        several => Cow::Owned(several.join(",")),
    };
    if header.chars().any(|c| c.is_control() && c != '\t') {
        return Err(XfccRefused::ControlCharacter);
    }
    let mut rest = Rest(&header);
    for _ in 0..MAX_XFCC_ELEMENTS {
        let (element, end) = rest.element()?;
        if end == End::Header {
            return Ok(Some(element));
        }
    }
    Err(XfccRefused::TooManyElements)
}

/// What ends a value.
#[derive(Clone, Copy, PartialEq, Eq)]
enum End {
    Pair,
    Element,
    Header,
}

/// What is not read yet.
struct Rest<'a>(&'a str);

impl<'a> Rest<'a> {
    fn element(&mut self) -> Result<(Element, End), XfccRefused> {
        let mut element = Element::default();
        for _ in 0..MAX_XFCC_PAIRS {
            let key = self.key()?;
            let (value, end) = if self.0.starts_with('"') { self.quoted()? } else { self.bare()? };
            element.put(key, value)?;
            if end != End::Pair {
                return Ok((element, end));
            }
        }
        Err(XfccRefused::TooManyPairs)
    }

    fn key(&mut self) -> Result<&'a str, XfccRefused> {
        let text = self.0.trim_start_matches(SPACE);
        let (key, rest) = text.split_once('=').ok_or(XfccRefused::NoKey)?;
        if key.is_empty() || !key.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_')) {
            return Err(XfccRefused::NoKey);
        }
        self.0 = rest;
        Ok(key)
    }

    fn bare(&mut self) -> Result<(Cow<'a, str>, End), XfccRefused> {
        let length = self.0.find([',', ';', '=', '"']).unwrap_or(self.0.len());
        let (value, rest) = self.0.split_at(length);
        self.0 = rest;
        let end = self.end().ok_or(XfccRefused::NotQuoted)?;
        Ok((Cow::Borrowed(value.trim_end_matches(SPACE)), end))
    }

    /// A backslash takes the next character with it. Before `"` and itself it is dropped; elsewhere it is part of the
    /// value, for Envoy writes the subject with the escapes of RFC 2253.
    fn quoted(&mut self) -> Result<(Cow<'a, str>, End), XfccRefused> {
        let text = self.0.strip_prefix('"').ok_or(XfccRefused::BadQuotes)?;
        let (mut escaped, mut length) = (false, None);
        for (at, byte) in text.bytes().enumerate() {
            match byte {
                _ if escaped => escaped = false,
                b'\\' => escaped = true,
                b'"' => {
                    length = Some(at);
                    break;
                }
                _ => {}
            }
        }
        let (value, rest) = length.and_then(|length| text.split_at_checked(length)).ok_or(XfccRefused::BadQuotes)?;
        self.0 = rest.strip_prefix('"').ok_or(XfccRefused::BadQuotes)?.trim_start_matches(SPACE);
        let end = self.end().ok_or(XfccRefused::BadQuotes)?;
        Ok((unescape(value), end))
    }

    fn end(&mut self) -> Option<End> {
        let mut rest = self.0.chars();
        let end = match rest.next() {
            None => End::Header,
            Some(',') => End::Element,
            Some(';') => End::Pair,
            Some(_) => return None,
        };
        self.0 = rest.as_str();
        Some(end)
    }
}

const SPACE: [char; 2] = [' ', '\t'];

fn unescape(value: &str) -> Cow<'_, str> {
    if !value.contains('\\') {
        return Cow::Borrowed(value);
    }
    let mut plain = String::with_capacity(value.len());
    let mut rest = value.chars();
    while let Some(c) = rest.next() {
        match (c, rest.clone().next()) {
            ('\\', Some(next)) => {
                if !matches!(next, '"' | '\\') {
                    plain.push(c);
                }
                plain.push(next);
                rest.next();
            }
            _ => plain.push(c),
        }
    }
    Cow::Owned(plain)
}

impl Element {
    fn put(&mut self, key: &str, value: Cow<'_, str>) -> Result<(), XfccRefused> {
        let is = |name: &str| key.eq_ignore_ascii_case(name);
        let many = match () {
            () if is("By") => Some(&mut self.by),
            () if is("URI") => Some(&mut self.uris),
            () if is("DNS") => Some(&mut self.dns),
            () => None,
        };
        if let Some(names) = many {
            names.push(value.into_owned());
            return Ok(());
        }
        let (name, slot) = match () {
            () if is("Hash") => ("Hash", &mut self.hash),
            () if is("Subject") => ("Subject", &mut self.subject),
            () if is("Cert") => ("Cert", &mut self.cert),
            () if is("Chain") => ("Chain", &mut self.chain),
            // Whatever a later Envoy adds says nothing here; the older `SAN` does not name anyone.
            () => return Ok(()),
        };
        match slot.replace(value.into_owned()) {
            Some(_) => Err(XfccRefused::RepeatedKey(name)),
            None => Ok(()),
        }
    }

    /// Whom it names; `None` if its peer has no URI. All that it says of the certificate must agree.
    pub fn named(&self) -> Result<Option<Named>, XfccRefused> {
        let uri = match self.uris.as_slice() {
            [] => return Ok(None),
            [uri] if uri.is_empty() => return Ok(None),
            [uri] => uri,
            several => return Err(XfccRefused::UriNames(several.len())),
        };
        let spiffe_id = SpiffeId::parse(uri).map_err(XfccRefused::NoSpiffeId)?;
        if spiffe_id.path().is_empty() {
            return Err(XfccRefused::NoPath);
        }
        let hash = self.hash.as_deref().map(|hash| Fingerprint::parse(hash).ok_or(XfccRefused::BadHash)).transpose()?;
        let certificate = self.cert.as_deref().map(Certificate::from_url_encoded_pem).transpose();
        let certificate = certificate.map_err(XfccRefused::BadCertificate)?;
        if let Some(certificate) = &certificate
            && (certificate.spiffe_id != spiffe_id || hash.is_some_and(|hash| hash != certificate.sha256))
        {
            return Err(XfccRefused::Disagrees);
        }
        let sha256 = hash.or(certificate.as_ref().map(|certificate| certificate.sha256));
        Ok(Some(Named { spiffe_id, sha256, certificate }))
    }
}
