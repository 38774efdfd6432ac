//! What the core is handed from outside with each call: the time, a stopwatch, random bits.

use pyo3::{PyResult, exceptions::PyValueError};
use signalwarden_core::{model::Timestamp, record::id::RANDOM_BYTES};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

/// The world of one running core.
#[derive(Clone, Copy)]
pub(crate) struct Outside {
    started: Instant,
}

impl Outside {
    pub(crate) fn new() -> Self {
        Self { started: Instant::now() }
    }

    pub(crate) fn ticks(self) -> u64 {
        u64::try_from(self.started.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }

    /// Random bits of a decision's id. Deciding is total (I5), so without randomness the stopwatch must do.
    pub(crate) fn id_bits(self) -> [u8; RANDOM_BYTES] {
        random().unwrap_or_else(|_| {
            let mut bits = [0; RANDOM_BYTES];
            for (bit, tick) in bits.iter_mut().zip(self.ticks().to_le_bytes()) {
                *bit = tick;
            }
            bits
        })
    }
}

/// The wall clock. Before 1970 counts as 1970: everything is then from the future, and denies.
pub(crate) fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp::from_micros(i64::try_from(since.as_micros()).unwrap_or(i64::MAX))
}

pub(crate) fn random<const N: usize>() -> PyResult<[u8; N]> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).map_err(|error| PyValueError::new_err(format!("no random bits: {error}")))?;
    Ok(bytes)
}
