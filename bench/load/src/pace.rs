//! When each request is to be sent: a constant rate, and a timer fine enough for it.
//!
//! Latency is counted from these moments, whether or not the request could be sent then: a server that stalls is charged
//! for every request that had to wait meanwhile, as its callers would (no coordinated omission).

use std::time::{Duration, Instant};

const NANOS: u128 = 1_000_000_000;

/// The moments of a constant rate.
#[derive(Clone, Copy, Debug)]
pub struct Schedule {
    begin: Instant,
    rate: u32,
}

impl Schedule {
    /// `rate` requests a second, at least 1, from `begin` on.
    pub fn new(begin: Instant, rate: u32) -> Self {
        Self { begin, rate: rate.max(1) }
    }

    /// When request `number` is to be sent. Counted from the beginning each time: no error adds up.
    pub fn at(&self, number: u64) -> Instant {
        let nanos = u128::from(number) * NANOS / u128::from(self.rate);
        self.begin + Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
    }

    /// How many are to be sent before `end`.
    pub fn before(&self, end: Instant) -> u64 {
        let nanos = end.saturating_duration_since(self.begin).as_nanos();
        u64::try_from((nanos * u128::from(self.rate)).div_ceil(NANOS)).unwrap_or(u64::MAX)
    }
}

#[cfg(target_os = "linux")]
pub use fine::Timer;

#[cfg(target_os = "linux")]
mod fine {
    use std::os::fd::OwnedFd;
    use std::time::Instant;

    use rustix::time::{
        Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create, timerfd_settime,
    };
    use tokio::io::unix::AsyncFd;

    /// A timer of the kernel's, in microseconds; tokio's own has milliseconds.
    #[derive(Debug)]
    pub struct Timer(AsyncFd<OwnedFd>);

    impl Timer {
        /// A timer of this thread's runtime.
        #[expect(
            deprecated,
            reason = "its successor is unsafe for types that lie about their descriptor; `OwnedFd` does not"
        )]
        pub fn new() -> Result<Self, String> {
            let failed = |error: std::io::Error| format!("no timer can be made: {error}");
            let flags = TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC;
            let timer = timerfd_create(TimerfdClockId::Monotonic, flags).map_err(|error| failed(error.into()))?;
            AsyncFd::new(timer).map(Self).map_err(failed)
        }

        /// Returns at `when`, or at once if that is past.
        pub async fn until(&self, when: Instant) -> Result<(), String> {
            let failed = |error: std::io::Error| format!("the timer failed: {error}");
            loop {
                let wait = when.saturating_duration_since(Instant::now());
                if wait.is_zero() {
                    return Ok(());
                }
                let it_value = Timespec {
                    tv_sec: i64::try_from(wait.as_secs()).unwrap_or(i64::MAX),
                    tv_nsec: wait.subsec_nanos().into(),
                };
                let once = Itimerspec { it_interval: Timespec { tv_sec: 0, tv_nsec: 0 }, it_value };
                timerfd_settime(&self.0, TimerfdTimerFlags::empty(), &once).map_err(|error| failed(error.into()))?;
                let mut ready = self.0.readable().await.map_err(failed)?;
                let mut fired = [0; 8];
                let _ = rustix::io::read(&self.0, &mut fired);
                ready.clear_ready();
            }
        }
    }
}

#[cfg(not(target_os = "linux"))]
/// Tokio's timer, in milliseconds: where Linux's finer one is missing, latencies are up to one too large.
#[derive(Debug)]
pub struct Timer;

#[cfg(not(target_os = "linux"))]
impl Timer {
    /// A timer of this thread's runtime.
    pub fn new() -> Result<Self, String> {
        Ok(Self)
    }

    /// Returns at `when`, or at once if that is past.
    pub async fn until(&self, when: Instant) -> Result<(), String> {
        tokio::time::sleep_until(when.into()).await;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_evenly_spread_and_no_error_adds_up() {
        let begin = Instant::now();
        let schedule = Schedule::new(begin, 3);
        assert_eq!(schedule.at(0), begin);
        assert_eq!(schedule.at(1), begin + Duration::from_nanos(333_333_333));
        assert_eq!(schedule.at(3_000_000), begin + Duration::from_secs(1_000_000));
    }

    #[test]
    fn a_second_holds_as_many_as_the_rate_says() {
        let begin = Instant::now();
        for rate in [1, 3, 1_000, 77_777] {
            let schedule = Schedule::new(begin, rate);
            let end = begin + Duration::from_secs(1);
            assert_eq!(schedule.before(end), u64::from(rate));
            assert!(schedule.at(schedule.before(end)) >= end && schedule.at(schedule.before(end) - 1) < end);
        }
        assert_eq!(Schedule::new(begin, 10).before(begin), 0);
    }

    #[tokio::test]
    async fn the_timer_does_not_return_early() {
        let timer = Timer::new().unwrap();
        for micros in [0, 50, 1_500] {
            let when = Instant::now() + Duration::from_micros(micros);
            timer.until(when).await.unwrap();
            assert!(Instant::now() >= when);
        }
    }
}
