//! What is kept of a token that was validated once: who, how proven, until when, bound to what. Never the token, which is
//! known by its SHA-256 alone.

use super::spiffe::SpiffeId;
use super::time::Timestamp;
use serde_json::Value as Json;
use std::fmt;

/// SHA-256 of a token, or of a certificate's DER.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Fingerprint(pub [u8; 32]);

impl Fingerprint {
    /// Reads 64 lower-case hex digits.
    pub fn parse(hex: &str) -> Option<Self> {
        if hex.len() != 64 || hex.bytes().any(|b| !matches!(b, b'0'..=b'9' | b'a'..=b'f')) {
            return None;
        }
        let mut bytes = [0; 32];
        for (at, byte) in bytes.iter_mut().enumerate() {
            *byte = u8::from_str_radix(hex.get(2 * at..2 * at + 2)?, 16).ok()?;
        }
        Some(Self(bytes))
    }

    /// As lower-case hex.
    pub fn to_hex(self) -> String {
        super::hex(&self.0)
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.to_hex())
    }
}

/// A class of credentials. Each has a limit of its own on how long it may live.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum CredentialClass {
    /// A certificate (SPIFFE X509-SVID).
    X509Svid,
    /// A JWT of SPIFFE (JWT-SVID).
    JwtSvid,
    /// An access token of OAuth (RFC 9068).
    AccessToken,
    /// A transaction token (draft-ietf-oauth-transaction-tokens).
    TransactionToken,
}

impl CredentialClass {
    /// Every class, by its word.
    pub const ALL: &'static [(&'static str, Self)] = &[
        ("x509_svid", Self::X509Svid),
        ("jwt_svid", Self::JwtSvid),
        ("access_token", Self::AccessToken),
        ("transaction_token", Self::TransactionToken),
    ];

    /// Reads the word.
    pub fn parse(word: &str) -> Option<Self> {
        Self::ALL.iter().find(|(known, _)| *known == word).map(|(_, class)| *class)
    }

    /// The word.
    pub fn as_str(self) -> &'static str {
        Self::ALL.iter().find(|(_, class)| *class == self).map_or("", |(word, _)| word)
    }

    /// `context.identity.kind`.
    pub const fn kind(self) -> &'static str {
        match self {
            Self::X509Svid => "x509",
            Self::JwtSvid => "jwt_svid",
            Self::AccessToken | Self::TransactionToken => "oauth",
        }
    }

    /// The source of identities that takes it, in the word of the settings.
    pub const fn source(self) -> &'static str {
        match self {
            Self::X509Svid => "envoy_peer",
            Self::JwtSvid => "jwt_svid",
            Self::AccessToken | Self::TransactionToken => "oauth",
        }
    }
}

/// A member of an authority that a proof rests on: gone, the proof is void.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Support {
    /// The authority: `keys:<issuer>`, `jwt:<trust domain>`, `status:<address>`.
    pub authority: Box<str>,
    /// The member: a key, the digest of a list.
    pub member: Box<str>,
}

/// The evidence of one validated token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proof {
    /// SHA-256 of the token.
    pub digest: Fingerprint,
    /// What it is.
    pub class: CredentialClass,
    /// Who issued it: the issuer's name, or the trust domain.
    pub issuer: Box<str>,
    /// Digest of the terms that it was validated under.
    pub terms: Box<str>,
    /// Whom it proves to ask; `None` if it only carries claims.
    pub principal: Option<SpiffeId>,
    /// `sub`, as it stands there.
    pub subject: Box<str>,
    /// Whom it was made for.
    pub audience: Vec<Box<str>>,
    /// The key that signed it.
    pub key_id: Box<str>,
    /// Revision of the key set that held the key.
    pub key_set: Box<str>,
    /// What it rests on.
    pub rests_on: Vec<Support>,
    /// When it was issued, if it says so.
    pub issued_at: Option<Timestamp>,
    /// When it ends.
    pub expires_at: Timestamp,
    /// The certificate that it is bound to (RFC 8705), by its digest.
    pub certificate: Option<Fingerprint>,
    /// `jti`.
    pub token_id: Option<Box<str>>,
    /// The current actor (RFC 8693).
    pub actor: Option<Box<str>>,
    /// Those who acted before, newest first. They decide nothing.
    pub earlier_actors: Vec<Box<str>>,
    /// Whether a human stands at its origin, as far as it can be told.
    pub interactive: bool,
    /// `txn` of a transaction token.
    pub transaction: Option<Box<str>>,
    /// `scope`.
    pub scope: Option<Box<str>>,
    /// `req_wl` of a transaction token: who asked for it.
    pub requester: Option<Box<str>>,
    /// The claims that contracts ask for, by their way in the token; `null` where it has none.
    pub claims: Vec<(Vec<Box<str>>, Json)>,
}

impl Proof {
    /// The claim at this way; `None` if it was not asked for when the token was validated.
    pub fn claim(&self, way: &[Box<str>]) -> Option<&Json> {
        self.claims.iter().find(|(known, _)| known == way).map(|(_, value)| value)
    }
}

/// What no longer counts, however long it would live.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Revoked {
    /// One token or certificate, by its digest.
    Digest(Fingerprint),
    /// One token, by its `jti`; of one issuer, or of any.
    TokenId {
        /// `jti`.
        id: Box<str>,
        /// Its issuer; any if `None`.
        issuer: Option<Box<str>>,
    },
    /// Whatever was issued up to a time: to one subject, by one issuer, or all of it.
    IssuedBefore {
        /// A SPIFFE ID, or `sub`.
        subject: Option<Box<str>>,
        /// The issuer's name, or a trust domain.
        issuer: Option<Box<str>>,
        /// Up to then.
        at: Timestamp,
    },
}
