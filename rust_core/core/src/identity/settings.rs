//! What the settings say of identities: where they may come from, whose tokens count, and how long each class of
//! credential may live. Read from the JSON that Python makes of `signalwarden.yaml`, which it has checked before.

use crate::limits;
use crate::model::{CredentialClass, Span, SpiffeId, TrustDomain};
use serde::Deserialize;

/// Where an identity may come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum IdentitySource {
    /// The peer that Envoy verified.
    EnvoyPeer,
    /// The last element of `x-forwarded-client-cert`.
    Xfcc,
    /// A JWT-SVID.
    JwtSvid,
    /// A token of OAuth.
    Oauth,
}

impl IdentitySource {
    /// The word of the settings.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::EnvoyPeer => "envoy_peer",
            Self::Xfcc => "xfcc",
            Self::JwtSvid => "jwt_svid",
            Self::Oauth => "oauth",
        }
    }
}

/// `identity` of the settings.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct IdentitySettings {
    /// In order: of several that agree the first is the one that is recorded.
    pub sources: Vec<IdentitySource>,
    /// Whether an X.509 identity counts only with its certificate.
    pub require_certificate: bool,
    /// The Envoys whose element of `x-forwarded-client-cert` counts; empty: whichever is the last.
    pub xfcc_by: Vec<String>,
    /// Which headers hold tokens.
    pub tokens: Vec<TokenPlace>,
    /// Whose tokens count.
    pub issuers: Vec<IssuerTerms>,
    /// Trust domains that nobody is known of without a live bundle.
    pub bundled: Vec<String>,
    /// How long credentials may live.
    pub limits: ClassLimits,
}

/// A header that holds a token.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TokenPlace {
    /// Its name in lower case. `authorization` has the scheme `Bearer`, any other the bare token.
    pub header: String,
    /// Whose tokens may stand there.
    pub sources: Vec<IdentitySource>,
}

/// What a proof of an issuer's token is held against at each use.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct IssuerTerms {
    /// Class of its tokens, as a word.
    pub class: String,
    /// Its name; `None` for JWT-SVIDs of any accepted trust domain.
    pub issuer: Option<String>,
    /// One of these must be among the token's.
    pub audience: Vec<String>,
    /// Digest of all its settings.
    pub terms: String,
}

/// One limit for each class.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClassLimits {
    /// Certificates.
    pub x509_svid: Limit,
    /// JWT-SVIDs.
    pub jwt_svid: Limit,
    /// Access tokens.
    pub access_token: Limit,
    /// Transaction tokens.
    pub transaction_token: Limit,
}

/// How long, and how old.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Limit {
    /// From issue to expiry, in microseconds.
    pub max_lifetime_us: Option<i64>,
    /// Since issue, in microseconds.
    pub max_age_us: Option<i64>,
}

impl Limit {
    pub(super) fn max_lifetime(self) -> Option<Span> {
        self.max_lifetime_us.map(Span::from_micros)
    }

    pub(super) fn max_age(self) -> Option<Span> {
        self.max_age_us.map(Span::from_micros)
    }
}

impl ClassLimits {
    pub(super) fn of(&self, class: CredentialClass) -> Limit {
        match class {
            CredentialClass::X509Svid => self.x509_svid,
            CredentialClass::JwtSvid => self.jwt_svid,
            CredentialClass::AccessToken => self.access_token,
            CredentialClass::TransactionToken => self.transaction_token,
        }
    }
}

impl Default for IdentitySettings {
    /// The peer that Envoy verified, and nothing else; no limits, which are the settings' own.
    fn default() -> Self {
        let none = Limit::default();
        Self {
            sources: vec![IdentitySource::EnvoyPeer],
            require_certificate: false,
            xfcc_by: Vec::new(),
            tokens: Vec::new(),
            issuers: Vec::new(),
            bundled: Vec::new(),
            limits: ClassLimits { x509_svid: none, jwt_svid: none, access_token: none, transaction_token: none },
        }
    }
}

impl IdentitySettings {
    /// What can't be so although each key can; one sentence.
    pub(super) fn objection(&self) -> Option<String> {
        if self.tokens.len() > limits::MAX_TOKEN_HEADERS {
            let (most, found) = (limits::MAX_TOKEN_HEADERS, self.tokens.len());
            return Some(format!("tokens are looked for in at most {most} headers, found {found}"));
        }
        if let Some(bad) = self.xfcc_by.iter().find(|id| SpiffeId::parse(id).is_err()) {
            return Some(format!("`xfcc.by`: expected SPIFFE IDs, found `{bad}`"));
        }
        let unknown = self.issuers.iter().find(|issuer| CredentialClass::parse(&issuer.class).is_none());
        unknown.map(|issuer| format!("no class of credentials is called `{}`", issuer.class))
    }

    pub(super) fn takes(&self, source: IdentitySource) -> bool {
        self.sources.contains(&source)
    }

    pub(super) fn needs_bundle(&self, domain: &str) -> bool {
        self.bundled.iter().any(|name| name == domain)
    }

    /// The terms of an issuer for a class of tokens.
    pub(super) fn terms(&self, class: CredentialClass, issuer: &str) -> Option<&IssuerTerms> {
        let matches = |terms: &&IssuerTerms| {
            terms.class == class.as_str() && terms.issuer.as_ref().is_none_or(|name| name == issuer)
        };
        self.issuers.iter().find(matches)
    }
}

/// Whether a name is a trust domain of a set.
pub(super) fn accepts(accepted: &std::collections::BTreeSet<TrustDomain>, name: &str) -> bool {
    TrustDomain::parse(name).is_ok_and(|domain| accepted.contains(&domain))
}
