//! The high-water mark of time.

use crate::{limits, model::Timestamp};
use std::sync::atomic::{AtomicI64, Ordering};

/// Time that never runs backwards: ages and expiries use the larger of now and this mark. The mark follows the
/// clock no further than a stopwatch vouches for, plus `MAX_TIME_STEP_MICROS`: however many decisions a bad
/// reading of the clock meets, it leaves one step behind, and does not age the world for good.
#[derive(Debug)]
pub(super) struct TimeMark {
    mark: AtomicI64,
    /// What the clock said when the stopwatch was at zero, by the first reading.
    origin: AtomicI64,
    /// The latest time that ever counted and that the mark did not follow.
    beyond: AtomicI64,
}

/// Nothing seen yet.
const UNSET: i64 = i64::MIN;

impl Default for TimeMark {
    fn default() -> Self {
        Self { mark: AtomicI64::new(UNSET), origin: AtomicI64::new(UNSET), beyond: AtomicI64::new(UNSET) }
    }
}

impl TimeMark {
    /// The time that counts, having seen `now` with the stopwatch at so many nanoseconds.
    pub(super) fn advance(&self, now: Timestamp, ticks: u64) -> Timestamp {
        let elapsed = i64::try_from(ticks / 1_000).unwrap_or(i64::MAX);
        let now = now.as_micros();
        let mut origin = self.origin.load(Ordering::Relaxed);
        if origin == UNSET {
            let first = now.saturating_sub(elapsed);
            origin = match self.origin.compare_exchange(UNSET, first, Ordering::Relaxed, Ordering::Relaxed) {
                Ok(_) => first,
                Err(other) => other,
            };
        }
        let vouched = origin.saturating_add(elapsed).saturating_add(limits::MAX_TIME_STEP_MICROS);
        let before = self.mark.fetch_max(now.min(vouched), Ordering::Relaxed);
        if now > vouched {
            self.beyond.fetch_max(now, Ordering::Relaxed);
        }
        Timestamp::from_micros(now.max(before))
    }

    /// The time that counts, without advancing anything.
    pub(super) fn at_least(&self, now: Timestamp) -> Timestamp {
        Timestamp::from_micros(now.as_micros().max(self.mark.load(Ordering::Relaxed)))
    }

    /// The mark itself; `now` if nothing was seen yet.
    pub(super) fn reached(&self, now: Timestamp) -> Timestamp {
        let mark = self.mark.load(Ordering::Relaxed);
        if mark == UNSET { now } else { Timestamp::from_micros(mark) }
    }

    /// Takes a kept mark back. One that lies ahead of the clock by more than a step is cut to a step; `fell_back` tells.
    pub(super) fn restore(&self, at: Timestamp, now: Timestamp) {
        let bound = now.as_micros().saturating_add(limits::MAX_TIME_STEP_MICROS);
        self.mark.fetch_max(at.as_micros().min(bound), Ordering::Relaxed);
        if at.as_micros() > bound {
            self.beyond.fetch_max(at.as_micros(), Ordering::Relaxed);
        }
    }

    /// The time that counted once, if it lies ahead of what counts now by more than a step: time ran back after all, and
    /// what had ended would count again.
    pub(super) fn fell_back(&self, now: Timestamp) -> Option<Timestamp> {
        let beyond = self.beyond.load(Ordering::Relaxed);
        let bound = self.at_least(now).as_micros().saturating_add(limits::MAX_TIME_STEP_MICROS);
        (beyond > bound).then(|| Timestamp::from_micros(beyond))
    }

    /// What counted up to then has been seen to.
    pub(super) fn settle(&self, from: Timestamp) {
        let up_to = |beyond: i64| (beyond <= from.as_micros()).then_some(UNSET);
        // It fails where a later time was seen meanwhile: that one is still to be seen to.
        let _ = self.beyond.fetch_update(Ordering::Relaxed, Ordering::Relaxed, up_to);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn at(micros: i64) -> Timestamp {
        Timestamp::from_micros(micros)
    }

    #[test]
    fn time_never_runs_backwards_and_a_leap_leaves_one_step_behind_however_often_it_is_seen() {
        let mark = TimeMark::default();
        assert_eq!(mark.advance(at(1_000), 0), at(1_000));
        assert_eq!(mark.advance(at(400), 0), at(1_000));
        let leap = 1_000 + 24 * limits::MAX_TIME_STEP_MICROS;
        for _ in 0..100 {
            assert_eq!(mark.advance(at(leap), 0), at(leap), "the clock's own reading counts while it lasts");
        }
        assert_eq!(mark.advance(at(2_000), 0), at(1_000 + limits::MAX_TIME_STEP_MICROS));
        assert_eq!(mark.reached(at(2_000)), at(1_000 + limits::MAX_TIME_STEP_MICROS));
        assert_eq!(mark.fell_back(at(leap)), None, "the clock still says so");
        assert_eq!(mark.fell_back(at(2_000)), Some(at(leap)));
        mark.settle(at(leap - 1));
        assert_eq!(mark.fell_back(at(2_000)), Some(at(leap)));
        mark.settle(at(leap));
        assert_eq!(mark.fell_back(at(2_000)), None);
    }

    #[test]
    fn time_that_passes_moves_the_mark_along() {
        let mark = TimeMark::default();
        mark.advance(at(0), 0);
        let day = 24 * limits::MAX_TIME_STEP_MICROS;
        mark.advance(at(day), u64::try_from(day).unwrap() * 1_000);
        assert_eq!(mark.reached(at(0)), at(day));
    }

    #[test]
    fn a_kept_mark_outlives_a_clock_that_was_set_back() {
        let mark = TimeMark::default();
        mark.restore(at(5_000), at(1_000));
        assert_eq!(mark.advance(at(1_000), 0), at(5_000));
        assert_eq!(mark.fell_back(at(1_000)), None);
    }

    #[test]
    fn a_kept_mark_that_is_cut_is_told() {
        let mark = TimeMark::default();
        let kept = 1_000 + 3 * limits::MAX_TIME_STEP_MICROS;
        mark.restore(at(kept), at(1_000));
        assert_eq!(mark.reached(at(1_000)), at(1_000 + limits::MAX_TIME_STEP_MICROS));
        assert_eq!(mark.fell_back(at(1_000)), Some(at(kept)));
    }
}
