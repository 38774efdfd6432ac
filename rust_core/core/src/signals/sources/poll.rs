//! Source kind `poll`: a document of values that is fetched now and then, from a feed of the register.

use super::{Flow, Kind, Source};
use crate::model::names::SubjectKind;
use crate::model::{Assurance, FeedKind};

pub(super) const KIND: Kind = Kind {
    word: "poll",
    ceiling: |_| (Assurance::Authoritative, ""),
    objection: |subject| match subject {
        SubjectKind::Request => Some("a `poll` source can't speak of one request: nobody knows it beforehand"),
        _ => None,
    },
    read: |reading, assurance| {
        let origin = reading.feed(FeedKind::Poll)?;
        Some(Source {
            kind: "poll",
            assurance,
            label: origin.label().into(),
            settings: vec![("feed", reading.feed_name().into())],
            flow: Flow::Stored { origin, resting: None },
        })
    },
};
