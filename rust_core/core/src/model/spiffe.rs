//! Strict SPIFFE IDs (SPIFFE ID specification, sections 2.1 to 2.4). Upper case is rejected, never folded.

use crate::limits;
use std::{fmt, sync::Arc};

/// A SPIFFE ID: `spiffe://trust-domain/path`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SpiffeId {
    text: Arc<str>,
    domain_end: usize,
}

/// A trust domain name, such as `prod.example`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TrustDomain(Arc<str>);

/// Why a text is no SPIFFE ID.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SpiffeIdError {
    /// Nothing was given.
    Empty,
    /// Longer than 2048 bytes, or the trust domain longer than 255.
    TooLong,
    /// Not `spiffe://` in lower case.
    WrongScheme,
    /// The trust domain is empty.
    MissingTrustDomain,
    /// A character of the trust domain is outside `a-z 0-9 . - _`.
    BadTrustDomain,
    /// An empty path segment, or a trailing slash.
    EmptySegment,
    /// A `.` or `..` segment.
    DotSegment,
    /// A character of the path is outside `A-Z a-z 0-9 . - _`.
    BadPath,
}

impl fmt::Display for SpiffeIdError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Empty => "a SPIFFE ID is expected, nothing was given",
            Self::TooLong => "a SPIFFE ID has at most 2048 bytes, its trust domain at most 255",
            Self::WrongScheme => "a SPIFFE ID starts with `spiffe://` in lower case",
            Self::MissingTrustDomain => "the trust domain is missing",
            Self::BadTrustDomain => "a trust domain has only a-z, 0-9, `.`, `-` and `_`",
            Self::EmptySegment => "a path segment is empty",
            Self::DotSegment => "a path segment is `.` or `..`",
            Self::BadPath => "a path segment has only letters, digits, `.`, `-` and `_`",
        })
    }
}

impl SpiffeId {
    const SCHEME: &'static str = "spiffe://";

    /// Parses strictly; nothing is repaired.
    pub fn parse(text: &str) -> Result<Self, SpiffeIdError> {
        if text.is_empty() {
            return Err(SpiffeIdError::Empty);
        }
        if text.len() > limits::MAX_SPIFFE_ID_BYTES {
            return Err(SpiffeIdError::TooLong);
        }
        let rest = text.strip_prefix(Self::SCHEME).ok_or(SpiffeIdError::WrongScheme)?;
        let (domain, path) = rest.find('/').map_or((rest, ""), |at| rest.split_at(at));
        TrustDomain::parse(domain)?;
        for segment in path.split('/').skip(1) {
            match segment {
                "" => return Err(SpiffeIdError::EmptySegment),
                "." | ".." => return Err(SpiffeIdError::DotSegment),
                _ if segment.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_')) => {}
                _ => return Err(SpiffeIdError::BadPath),
            }
        }
        Ok(Self { text: text.into(), domain_end: Self::SCHEME.len() + domain.len() })
    }

    /// The whole ID.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The whole ID, shared: a clone of it allocates nothing.
    pub fn shared(&self) -> Arc<str> {
        Arc::clone(&self.text)
    }

    /// The trust domain's name.
    pub fn trust_domain(&self) -> &str {
        self.text.get(Self::SCHEME.len()..self.domain_end).unwrap_or_default()
    }

    /// The path, empty or starting with `/`.
    pub fn path(&self) -> &str {
        self.text.get(self.domain_end..).unwrap_or_default()
    }
}

impl TrustDomain {
    /// Parses a name such as `prod.example`; not an ID.
    pub fn parse(text: &str) -> Result<Self, SpiffeIdError> {
        if text.is_empty() {
            return Err(SpiffeIdError::MissingTrustDomain);
        }
        if text.len() > limits::MAX_TRUST_DOMAIN_BYTES {
            return Err(SpiffeIdError::TooLong);
        }
        let good =
            text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'.' | b'-' | b'_'));
        if good { Ok(Self(text.into())) } else { Err(SpiffeIdError::BadTrustDomain) }
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for SpiffeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}
