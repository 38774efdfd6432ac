//! Source kind `push`: an authenticated publisher sends values over the signals API.

use super::{Flow, Kind, Source};
use crate::model::names::SubjectKind;
use crate::model::{Assurance, Origin, SpiffeId};

pub(super) const KIND: Kind = Kind {
    word: "push",
    ceiling: |_| (Assurance::Authoritative, ""),
    objection: |subject| match subject {
        SubjectKind::Request => Some("a `push` source can't speak of one request: nobody knows it beforehand"),
        _ => None,
    },
    read: |reading, assurance| {
        let publisher = reading.parsed("publisher", "bad_spiffe_id", SpiffeId::parse)?;
        Some(source(publisher, assurance))
    },
};

/// A push source, from parts that are checked already.
pub fn source(publisher: SpiffeId, assurance: Assurance) -> Source {
    let settings = vec![("publisher", publisher.to_string().into())];
    let origin = Origin::Publisher(publisher);
    let label = origin.label().into();
    Source { kind: "push", assurance, label, settings, flow: Flow::Stored { origin, resting: None } }
}
