//! Decision ids: UUID version 7 (RFC 9562, section 5.7), made from the decision's now and random bits from outside.

use crate::model::Timestamp;
use std::fmt;

/// Random bits that an id takes.
pub const RANDOM_BYTES: usize = 10;
/// Bytes of an id as text.
pub(super) const ID_BYTES: usize = 36;

/// A UUID version 7: sorts by time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DecisionId(u128);

impl DecisionId {
    /// 48 bits of Unix milliseconds, version, 12 random bits, variant, 62 random bits.
    pub fn new(now: Timestamp, random: [u8; RANDOM_BYTES]) -> Self {
        let millis = u128::from(u64::try_from(now.as_micros().max(0) / 1_000).unwrap_or(0)) & 0xffff_ffff_ffff;
        let random = random.iter().fold(0_u128, |bits, byte| bits << 8 | u128::from(*byte));
        let high = (random >> 62) & 0xfff;
        let low = random & 0x3fff_ffff_ffff_ffff;
        Self(millis << 80 | 0x7 << 76 | high << 64 | 0b10 << 62 | low)
    }
}

impl DecisionId {
    /// Its text: `017f22e2-79b0-7cc3-98c4-dc0c0c07398f`.
    pub(super) fn to_ascii(self) -> [u8; ID_BYTES] {
        const DIGITS: [u8; 16] = *b"0123456789abcdef";
        let mut text = *b"00000000-0000-0000-0000-000000000000";
        let mut nibbles = (0..32).rev().map(|nth| usize::try_from(self.0 >> (4 * nth) & 0xf).unwrap_or_default());
        for place in text.iter_mut().filter(|place| **place != b'-') {
            *place = nibbles.next().and_then(|nibble| DIGITS.get(nibble)).copied().unwrap_or(b'0');
        }
        text
    }
}

impl fmt::Display for DecisionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(std::str::from_utf8(&self.to_ascii()).unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_a_uuid_version_7_that_sorts_by_time() {
        let at = |ms: i64, byte| DecisionId::new(Timestamp::from_micros(ms * 1_000), [byte; RANDOM_BYTES]);
        // RFC 9562, appendix A.6: unix_ts_ms 017F22E279B0.
        let id = at(0x017f_22e2_79b0, 0xff).to_string();
        assert_eq!(id, "017f22e2-79b0-7fff-bfff-ffffffffffff");
        assert!(at(1, 0xff) < at(2, 0));
    }
}
