//! What the native front door hands over to Python: calls that need tokens validated or changes kept, and clients that
//! ask whether they may ask. A bounded queue; what finds no place in it denies.

use crate::{identity::Pending, tasks::Held};
use pyo3::{prelude::*, types::PyBytes};
use signalwarden_core::{check, check::Checked};
use signalwarden_listener::Chain;
use std::{
    collections::VecDeque,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};
use tokio::sync::oneshot;

/// Calls that wait for Python. At 1,024 the last of them waits about as long as Envoy's timeout, at a thousand new
/// tokens a second.
const MAX_WAITING: usize = 1_024;

/// What a first look found that the core can't answer alone.
pub(crate) enum Found {
    Pending(check::Pending),
    Held(Box<Checked>),
}

pub(crate) struct Call {
    pub(crate) request: bytes::Bytes,
    pub(crate) found: Found,
    pub(crate) answer: oneshot::Sender<Vec<u8>>,
}

pub(crate) struct Client {
    pub(crate) chain: Arc<Chain>,
    pub(crate) answer: oneshot::Sender<bool>,
}

pub(crate) enum Waiting {
    Call(Call),
    Client(Client),
}

/// The queue.
#[derive(Default)]
pub(crate) struct Desk {
    waiting: Mutex<VecDeque<Waiting>>,
    came: Condvar,
}

impl Desk {
    fn locked(&self) -> MutexGuard<'_, VecDeque<Waiting>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Gives it back if there is no place.
    pub(crate) fn put(&self, waiting: Waiting) -> Result<(), Waiting> {
        let mut queue = self.locked();
        if queue.len() >= MAX_WAITING {
            return Err(waiting);
        }
        queue.push_back(waiting);
        drop(queue);
        self.came.notify_one();
        Ok(())
    }

    /// The next, or none within the time. A call whose client has gone is decided all the same: it has its record.
    pub(crate) fn take(&self, wait: Duration) -> Option<Waiting> {
        let until = Instant::now() + wait;
        let mut queue = self.locked();
        loop {
            if let Some(next) = queue.pop_front() {
                return Some(next);
            }
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return None;
            }
            queue = self.came.wait_timeout(queue, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

/// A call that waits for its answer. One that is dropped without is denied by the core.
#[pyclass(frozen, module = "signalwarden._core")]
pub(crate) struct Ticket {
    request: bytes::Bytes,
    found: Mutex<Option<Found>>,
    answer: Mutex<Option<oneshot::Sender<Vec<u8>>>>,
}

impl Ticket {
    pub(crate) fn of(call: Call) -> Self {
        Self { request: call.request, found: Mutex::new(Some(call.found)), answer: Mutex::new(Some(call.answer)) }
    }
}

#[pymethods]
impl Ticket {
    #[getter]
    fn request<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
        PyBytes::new(py, &self.request)
    }

    fn found<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyAny>>> {
        let found = self.found.lock().unwrap_or_else(PoisonError::into_inner).take();
        Ok(match found {
            None => None,
            Some(Found::Pending(pending)) => Some(Bound::new(py, Pending(pending))?.into_any()),
            Some(Found::Held(held)) => Some(Bound::new(py, Held::of(*held))?.into_any()),
        })
    }

    fn answer(&self, answer: &[u8]) -> bool {
        let waiting = self.answer.lock().unwrap_or_else(PoisonError::into_inner).take();
        waiting.is_some_and(|waiting| waiting.send(answer.to_vec()).is_ok())
    }
}

/// A client that wants to know whether it may ask. One that is dropped without an answer may not.
#[pyclass(frozen, module = "signalwarden._core")]
pub(crate) struct Asker {
    chain: Arc<Chain>,
    answer: Mutex<Option<oneshot::Sender<bool>>>,
}

impl Asker {
    pub(crate) fn of(client: Client) -> Self {
        Self { chain: client.chain, answer: Mutex::new(Some(client.answer)) }
    }
}

#[pymethods]
impl Asker {
    #[getter]
    fn chain<'py>(&self, py: Python<'py>) -> Vec<Bound<'py, PyBytes>> {
        self.chain.iter().map(|certificate| PyBytes::new(py, certificate)).collect()
    }

    fn answer(&self, may_ask: bool) -> bool {
        let waiting = self.answer.lock().unwrap_or_else(PoisonError::into_inner).take();
        waiting.is_some_and(|waiting| waiting.send(may_ask).is_ok())
    }
}
