//! Words of Python as the core's values: what can't be read is a bad input, and says so.

use pyo3::{PyResult, exceptions::PyValueError};
use signalwarden_core::{
    error::Error,
    model::{Fingerprint, Origin, SpiffeId},
    reason::Reason,
    record::InfluenceMode,
};

/// A publisher or a feed, as Python writes it.
pub(crate) fn origin(text: &str) -> Result<Origin, Error> {
    Origin::parse(text).map_err(|why| Error::BadInput(format!("the publisher: {why}")))
}

/// A certificate by its digest, as Python writes it.
pub(crate) fn certificate(digest: &str) -> Result<Fingerprint, Error> {
    Fingerprint::parse(digest)
        .ok_or_else(|| Error::BadInput("the digest of a certificate: expected 64 hex digits".to_owned()))
}

/// What Python says of a token that does not count. A reason that no token can have is a mistake of ours.
pub(crate) fn refusal(
    (digest, reason, detail): (String, String, String),
) -> Result<(Fingerprint, Reason, String), Error> {
    let known = Reason::ALL.iter().find(|known| known.code() == reason && **known != Reason::Allowed);
    match (Fingerprint::parse(&digest), known) {
        (Some(digest), Some(reason)) => Ok((digest, *reason, detail)),
        _ => Err(Error::BadInput(format!("a refused token needs its digest and a reason, found `{reason}`"))),
    }
}

/// A client or a principal, as Python writes it.
pub(crate) fn client_id(text: &str) -> Result<SpiffeId, Error> {
    SpiffeId::parse(text).map_err(|why| Error::BadInput(format!("a client or principal: {why}")))
}

/// `decision_log.influence`.
pub(crate) fn influence(word: &str) -> PyResult<InfluenceMode> {
    match word {
        "none" => Ok(InfluenceMode::None),
        "default" => Ok(InfluenceMode::Default),
        "all" => Ok(InfluenceMode::All),
        other => Err(PyValueError::new_err(format!("influence is none, default or all, not `{other}`"))),
    }
}

/// `decision_log.ack`: whether a record is on the disk before its answer leaves.
pub(crate) fn is_synced(word: &str) -> PyResult<bool> {
    match word {
        "accepted" => Ok(false),
        "synced" => Ok(true),
        other => Err(PyValueError::new_err(format!("ack is accepted or synced, not `{other}`"))),
    }
}
