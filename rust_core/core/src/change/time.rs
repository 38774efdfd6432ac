//! The written form of what is learnt about time.

use super::{Change, Kind, VERSION};
use crate::model::Timestamp;
use serde::{Deserialize, Serialize};

/// A set-back is kept beside others: each ends what was given out before it, and nothing that was given out since.
pub(super) fn key(from: Timestamp) -> String {
    format!("set_back {}", from.as_micros())
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct WrittenMark {
    v: u32,
    change: Kind,
    at_us: i64,
}

impl WrittenMark {
    pub(super) const fn new(at: Timestamp) -> Self {
        Self { v: VERSION, change: Kind::TimeMark, at_us: at.as_micros() }
    }

    pub(super) const fn into_change(self) -> Change {
        Change::TimeMark { at: Timestamp::from_micros(self.at_us) }
    }
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct WrittenSetBack {
    v: u32,
    change: Kind,
    from_us: i64,
    at_us: i64,
}

impl WrittenSetBack {
    pub(super) const fn new(from: Timestamp, at: Timestamp) -> Self {
        Self { v: VERSION, change: Kind::TimeSetBack, from_us: from.as_micros(), at_us: at.as_micros() }
    }

    pub(super) const fn into_change(self) -> Change {
        Change::TimeSetBack { from: Timestamp::from_micros(self.from_us), at: Timestamp::from_micros(self.at_us) }
    }
}
