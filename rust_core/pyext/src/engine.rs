//! The running core for Python: clock, stopwatch and random bits are read here and handed in.

use crate::{configuration::Configuration, errors};
use pyo3::{
    exceptions::PyValueError,
    prelude::*,
    pybacked::PyBackedBytes,
    types::{PyBytes, PyDict},
};
use signalwarden_core::{
    change::Change,
    engine::{self, Options},
    error::Error,
    model::{SpiffeId, Timestamp},
    record::{InfluenceMode, Rendering, id::RANDOM_BYTES},
};
use std::{
    sync::Arc,
    thread,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

/// Records that may wait: a second of a busy server, about 100 MB at the usual size.
const LOG_CAPACITY: usize = 65_536;
/// Their size together.
const LOG_BYTES: usize = 256 * 1024 * 1024;
/// How often an idle `drain` looks again. Fifty looks a second cost nothing that can be measured, and a
/// record is on its way to disk well within half a second.
const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// A change as it is kept.
#[pyclass(frozen, module = "signalwarden._core")]
pub(crate) struct StoredChange {
    #[pyo3(get)]
    key: String,
    #[pyo3(get)]
    replaces: bool,
    payload: Vec<u8>,
}

#[pymethods]
impl StoredChange {
    #[new]
    fn new(key: String, replaces: bool, payload: Vec<u8>) -> Self {
        Self { key, replaces, payload }
    }

    #[getter]
    fn payload<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
        PyBytes::new(py, &self.payload)
    }
}

impl From<&Change> for StoredChange {
    fn from(change: &Change) -> Self {
        Self { key: change.key(), replaces: change.replaces(), payload: change.to_payload() }
    }
}

/// What of a publisher's batch was taken.
#[pyclass(frozen, module = "signalwarden._core")]
pub(crate) struct Admission(signalwarden_core::signals::Admission);

#[pymethods]
impl Admission {
    #[getter]
    fn answer<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
        PyBytes::new(py, &self.0.answer_json())
    }

    #[getter]
    fn accepted(&self) -> usize {
        self.0.accepted
    }

    #[getter]
    fn rejected(&self) -> Vec<(usize, &'static str, String)> {
        self.0.rejected.iter().map(|(at, refusal)| (*at, refusal.reason.code(), refusal.detail.clone())).collect()
    }

    #[getter]
    fn changes(&self) -> Vec<StoredChange> {
        self.0.changes.iter().map(StoredChange::from).collect()
    }
}

/// The running core.
#[pyclass(frozen, module = "signalwarden._core")]
pub(crate) struct Engine {
    core: engine::Engine,
    started: Instant,
}

fn random<const N: usize>() -> PyResult<[u8; N]> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).map_err(|error| PyValueError::new_err(format!("no random bits: {error}")))?;
    Ok(bytes)
}

/// The wall clock. Before 1970 counts as 1970: everything is then from the future, and denies.
fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp::from_micros(i64::try_from(since.as_micros()).unwrap_or(i64::MAX))
}

impl Engine {
    fn ticks(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }

    /// Random bits of a decision's id. Deciding is total (I5), so without randomness the stopwatch must do.
    fn id_bits(&self) -> [u8; RANDOM_BYTES] {
        random().unwrap_or_else(|_| {
            let mut bits = [0; RANDOM_BYTES];
            for (bit, tick) in bits.iter_mut().zip(self.ticks().to_le_bytes()) {
                *bit = tick;
            }
            bits
        })
    }
}

#[pymethods]
impl Engine {
    #[new]
    #[pyo3(signature = (*, log_capacity = LOG_CAPACITY, log_bytes = LOG_BYTES, influence = "default", digest_key = None))]
    fn new(log_capacity: usize, log_bytes: usize, influence: &str, digest_key: Option<Vec<u8>>) -> PyResult<Self> {
        let influence = match influence {
            "none" => InfluenceMode::None,
            "default" => InfluenceMode::Default,
            "all" => InfluenceMode::All,
            other => return Err(PyValueError::new_err(format!("influence is none, default or all, not `{other}`"))),
        };
        let digest_key = digest_key.map_or_else(|| random::<32>().map(Vec::from), Ok)?;
        let options = Options {
            log_capacity,
            log_bytes,
            rendering: Rendering { influence, digest_key },
            seed: u64::from_ne_bytes(random()?),
        };
        Ok(Self { core: engine::Engine::new(options), started: Instant::now() })
    }

    fn swap(&self, py: Python<'_>, configuration: &Configuration) {
        let snapshot = Arc::clone(&configuration.snapshot);
        py.detach(|| self.core.swap(snapshot));
    }

    #[getter]
    fn revision(&self) -> Option<String> {
        self.core.snapshot().map(|snapshot| snapshot.revision.to_string())
    }

    fn check<'py>(&self, py: Python<'py>, request: PyBackedBytes) -> Bound<'py, PyBytes> {
        let answer = py.detach(|| self.core.check(&request, now(), self.id_bits(), &|| self.ticks()));
        PyBytes::new(py, &answer)
    }

    fn close(&self) {
        self.core.close();
    }

    #[pyo3(signature = (request, *, now_us))]
    fn decide<'py>(
        &self,
        py: Python<'py>,
        request: PyBackedBytes,
        now_us: i64,
    ) -> (Bound<'py, PyBytes>, Bound<'py, PyBytes>) {
        let now = Timestamp::from_micros(now_us);
        let (record, answer) = py.detach(|| self.core.decide(&request, now, self.id_bits(), &|| self.ticks()));
        (PyBytes::new(py, &answer), PyBytes::new(py, &record))
    }

    #[pyo3(signature = (body, *, publisher, now_us))]
    fn admit(&self, py: Python<'_>, body: PyBackedBytes, publisher: &str, now_us: i64) -> PyResult<Admission> {
        let admitted = py.detach(|| {
            let publisher =
                SpiffeId::parse(publisher).map_err(|why| Error::BadInput(format!("the publisher: {why}")))?;
            self.core.admit(&body, &publisher, Timestamp::from_micros(now_us))
        });
        admitted.map(Admission).map_err(|error| errors::to_python(py, error))
    }

    #[pyo3(signature = (changes, *, now_us))]
    fn apply(&self, py: Python<'_>, changes: Vec<PyRef<'_, StoredChange>>, now_us: i64) -> PyResult<()> {
        let payloads: Vec<Vec<u8>> = changes.iter().map(|change| change.payload.clone()).collect();
        py.detach(|| self.core.apply(&payloads, Timestamp::from_micros(now_us)))
            .map_err(|error| errors::to_python(py, error))
    }

    fn note(&self, line: PyBackedBytes) -> bool {
        self.core.note(line.to_vec())
    }

    #[pyo3(signature = (*, max_records, wait_ms))]
    fn drain<'py>(&self, py: Python<'py>, max_records: usize, wait_ms: u64) -> (Bound<'py, PyBytes>, usize) {
        let (lines, count) = py.detach(|| {
            let until = Instant::now() + Duration::from_millis(wait_ms);
            loop {
                let drained = self.core.drain(max_records);
                let left = until.saturating_duration_since(Instant::now());
                if drained.1 > 0 || left.is_zero() {
                    return drained;
                }
                thread::sleep(left.min(LOOK_AGAIN));
            }
        });
        (PyBytes::new(py, &lines), count)
    }

    fn queued(&self) -> usize {
        self.core.queued()
    }

    #[pyo3(signature = (*, subject, limit, now_us))]
    fn signals<'py>(&self, py: Python<'py>, subject: Option<String>, limit: usize, now_us: i64) -> Bound<'py, PyBytes> {
        let listing = py.detach(|| {
            let listing = self.core.signals(subject.as_deref(), limit, Timestamp::from_micros(now_us));
            listing.map_or_else(
                || r#"{"signals":[],"truncated":false}"#.to_owned(),
                |listing| listing.to_json().to_string(),
            )
        });
        PyBytes::new(py, listing.as_bytes())
    }

    fn counters<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let counters = PyDict::new(py);
        for (name, count) in self.core.counters() {
            counters.set_item(name, count)?;
        }
        Ok(counters)
    }

    #[pyo3(signature = (*, now_us))]
    fn time_mark(&self, now_us: i64) -> StoredChange {
        StoredChange::from(&self.core.time_mark(Timestamp::from_micros(now_us), self.ticks()))
    }
}
