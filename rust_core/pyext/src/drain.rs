//! What the writer of the log takes: lines into memory that it uses again and again, so that a batch costs no pages that
//! the system must find and clear first.

use pyo3::{
    buffer::PyBuffer,
    prelude::*,
    types::{PyByteArray, PyBytes},
};
use signalwarden_core::engine::{Batch, Engine};
use std::{
    mem,
    sync::{Mutex, MutexGuard, PoisonError},
    thread,
    time::{Duration, Instant},
};

/// How often an idle `drain` looks again. Fifty looks a second cost nothing that can be measured, and a
/// record is on its way to disk well within half a second.
const LOOK_AGAIN: Duration = Duration::from_millis(20);
/// Batches' worth of room that is kept: one is exceeded by a line, or by far where alike denials are folded.
const KEPT: usize = 2;

/// Calls until there is something or the time is up. A result that stands for no record is nothing.
fn waiting<T>(wait_ms: u64, mut look: impl FnMut() -> (T, usize)) -> (T, usize) {
    let until = Instant::now() + Duration::from_millis(wait_ms);
    loop {
        let found = look();
        let left = until.saturating_duration_since(Instant::now());
        if found.1 > 0 || left.is_zero() {
            return found;
        }
        thread::sleep(left.min(LOOK_AGAIN));
    }
}

/// Lines in memory of their own.
pub(crate) fn lines(core: &Engine, most: usize, wait_ms: u64) -> (Vec<u8>, usize) {
    waiting(wait_ms, || core.drain(most))
}

/// Room for a batch, kept from one to the next. With records in it, it is one that did not get to its writer.
#[derive(Debug, Default)]
pub(crate) struct Scratch(Mutex<Batch>);

/// Bytes of lines that stand in a writer's memory now, records, and the hashes of the lines.
pub(crate) type Drained<'py> = (usize, usize, Bound<'py, PyBytes>);

impl Scratch {
    /// Lines into `into`, which is made as long as they are. After an error the next call gives the same lines.
    pub(crate) fn drain<'py>(
        &self,
        core: &Engine,
        into: &Bound<'py, PyByteArray>,
        (most, most_bytes): (usize, usize),
        wait_ms: u64,
    ) -> PyResult<Drained<'py>> {
        let py = into.py();
        // Not held while the interpreter is waited for.
        let mut batch = mem::take(&mut *self.lock());
        if batch.records == 0 {
            batch.lines.shrink_to(most_bytes.saturating_mul(KEPT));
            py.detach(|| {
                waiting(wait_ms, || {
                    core.drain_into(&mut batch, most, most_bytes);
                    ((), batch.records)
                });
                if batch.records == 0 {
                    core.rest();
                }
            });
        }
        let copied = copy(&batch.lines, into);
        let drained = (batch.lines.len(), batch.records, PyBytes::new(py, &batch.leaves));
        if copied.is_ok() {
            batch.records = 0;
        }
        *self.lock() = batch;
        copied.map(|()| drained)
    }

    fn lock(&self) -> MutexGuard<'_, Batch> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Takes as many bytes as there are. A bytearray that shrinks a little keeps its room.
fn copy(lines: &[u8], into: &Bound<'_, PyByteArray>) -> PyResult<()> {
    if into.len() != lines.len() {
        into.resize(lines.len())?;
    }
    PyBuffer::<u8>::get(into)?.copy_from_slice(into.py(), lines)
}
