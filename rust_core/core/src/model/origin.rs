//! Who sends stored values: a publisher by its SPIFFE ID, or a feed that is read on our side.

use super::names::FeedName;
use super::spiffe::{SpiffeId, SpiffeIdError};
use std::fmt;

/// Where a stored value came from. Written as a SPIFFE ID, `poll:NAME` or `ssf:NAME`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Origin {
    /// An authenticated publisher.
    Publisher(SpiffeId),
    /// A feed of the register.
    Feed(FeedKind, FeedName),
}

/// The kinds of feeds that the register declares.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum FeedKind {
    /// A document that is fetched now and then.
    Poll,
    /// A stream of security events (shared signals).
    Ssf,
}

impl FeedKind {
    /// Every kind, with the word that files use.
    pub const ALL: &'static [(&'static str, Self)] = &[("poll", Self::Poll), ("ssf", Self::Ssf)];

    /// The word that files use.
    pub fn as_str(self) -> &'static str {
        Self::ALL.iter().find(|(_, kind)| *kind == self).map_or("", |(word, _)| word)
    }
}

impl Origin {
    /// Parses the written form.
    pub fn parse(text: &str) -> Result<Self, SpiffeIdError> {
        for (word, kind) in FeedKind::ALL {
            let name = text.strip_prefix(word).and_then(|rest| rest.strip_prefix(':'));
            if let Some(name) = name.and_then(FeedName::parse) {
                return Ok(Self::Feed(*kind, name));
            }
        }
        SpiffeId::parse(text).map(Self::Publisher)
    }

    /// The source as records name it.
    pub fn label(&self) -> String {
        match self {
            Self::Publisher(id) => format!("push:{id}"),
            Self::Feed(..) => self.to_string(),
        }
    }

    /// Whether this workload itself is the origin.
    pub fn is(&self, principal: &SpiffeId) -> bool {
        matches!(self, Self::Publisher(id) if id == principal)
    }

    /// Whether one value of it may be about every subject: events about a whole tenant are.
    pub const fn may_mean_everyone(&self) -> bool {
        matches!(self, Self::Feed(FeedKind::Ssf, _))
    }
}

impl From<SpiffeId> for Origin {
    fn from(id: SpiffeId) -> Self {
        Self::Publisher(id)
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Publisher(id) => id.fmt(f),
            Self::Feed(kind, name) => write!(f, "{}:{name}", kind.as_str()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_origin_survives_its_written_form() {
        for text in ["spiffe://prod.example/mdm", "poll:zones", "ssf:idp_1"] {
            assert_eq!(Origin::parse(text).unwrap().to_string(), text);
        }
        for bad in ["poll:", "poll:Zones", "push:spiffe://prod.example/mdm", "ssf:a b", "mdm", ""] {
            assert!(Origin::parse(bad).is_err(), "{bad}");
        }
    }
}
