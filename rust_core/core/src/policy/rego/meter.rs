//! What one evaluation may spend: work and memory, counted, never timed, so that a replay gives the same answer.
//!
//! The interpreter asks a time source after every so many steps; ours does not read a clock but counts the asking. Built-ins
//! charge for what they read and what they make (`functions.rs`).

use crate::limits::{MAX_REGO_BYTES, MAX_REGO_STEPS, REGO_STEPS_BETWEEN_LOOKS};
use regorus::utils::limits::{ExecutionTimerConfig, TimeSource, set_time_source};
use std::{cell::Cell, num::NonZeroU32, sync::LazyLock, time::Duration};

/// What the evaluation that runs in this thread has spent.
#[derive(Clone, Copy, Default)]
struct Spent {
    steps: u64,
    bytes: usize,
    now_ns: i64,
}

thread_local! {
    static SPENT: Cell<Spent> = const { Cell::new(Spent { steps: 0, bytes: 0, now_ns: 0 }) };
}

/// Counts the looks of the interpreter. One for the process; what it counts belongs to the thread.
struct Steps;

impl TimeSource for Steps {
    fn now(&self) -> Option<Duration> {
        Some(Duration::from_nanos(add_steps(REGO_STEPS_BETWEEN_LOOKS)))
    }
}

static STEPS: Steps = Steps;
/// Whether the interpreter has our source: it takes one, once in the life of a process.
static IS_COUNTING: LazyLock<bool> = LazyLock::new(|| set_time_source(&STEPS).is_ok());

/// The budget in the interpreter's terms, where a step is a nanosecond. `None`: somebody else was quicker with a source.
pub(super) fn config() -> Option<ExecutionTimerConfig> {
    let check_interval = NonZeroU32::new(u32::try_from(REGO_STEPS_BETWEEN_LOOKS).ok()?)?;
    IS_COUNTING.then_some(ExecutionTimerConfig { limit: Duration::from_nanos(MAX_REGO_STEPS), check_interval })
}

/// A new evaluation begins in this thread. `now_ns`: the decision's own now.
pub(super) fn begin(now_ns: i64) {
    SPENT.set(Spent { now_ns, ..Spent::default() });
}

/// The decision's own now, in nanoseconds since the Unix epoch.
pub(super) fn now_ns() -> i64 {
    SPENT.get().now_ns
}

fn add_steps(steps: u64) -> u64 {
    let mut spent = SPENT.get();
    spent.steps = spent.steps.saturating_add(steps);
    SPENT.set(spent);
    spent.steps
}

/// Work that a built-in does beside the interpreter's own steps.
pub(super) fn work(steps: u64) -> Result<(), String> {
    if add_steps(steps) > MAX_REGO_STEPS { Err(too_much_work()) } else { Ok(()) }
}

/// Memory that a built-in is about to take. Nothing is given back before the evaluation ends.
pub(super) fn charge(bytes: usize) -> Result<(), String> {
    let mut spent = SPENT.get();
    spent.bytes = spent.bytes.saturating_add(bytes);
    SPENT.set(spent);
    if spent.bytes > MAX_REGO_BYTES {
        return Err(format!("the policy makes more than {MAX_REGO_BYTES} bytes of values in one decision"));
    }
    work(u64::try_from(bytes / BYTES_PER_STEP).unwrap_or(u64::MAX))
}

/// How many bytes are made or read in about the time of one step.
const BYTES_PER_STEP: usize = 256;

/// The sentence about a spent budget of work.
pub(super) fn too_much_work() -> String {
    format!("the policy takes more than {MAX_REGO_STEPS} steps in one decision")
}

/// The steps that the evaluation in this thread has taken so far.
#[cfg(test)]
pub(super) fn steps() -> u64 {
    SPENT.get().steps
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_charge_beyond_the_budget_is_refused_and_a_new_evaluation_starts_afresh() {
        begin(7);
        assert_eq!(now_ns(), 7);
        assert!(charge(MAX_REGO_BYTES / 2).is_ok());
        assert!(charge(MAX_REGO_BYTES).unwrap_err().contains("bytes"));
        begin(8);
        assert!(charge(1).is_ok());
        assert!(work(MAX_REGO_STEPS + 1).unwrap_err().contains("steps"));
    }
}
