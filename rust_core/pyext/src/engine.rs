//! The running core for Python.

use crate::{
    changes::{Admission, StoredChange},
    configuration::Configuration,
    drain, errors,
    identity::Pending,
    outside::{Outside, now, random},
    ring,
    tasks::{Answered, Held, Proposal, Told},
    words::{self, certificate, client_id, origin, refusal},
};
use pyo3::{
    exceptions::PyValueError,
    prelude::*,
    pybacked::PyBackedBytes,
    types::{PyByteArray, PyBytes, PyDict},
};
use signalwarden_core::{
    approvals::{ApprovalState, WantedApprovals},
    engine::{self, Asking, Look, Options, Revoking},
    error::Error,
    identity::Validated,
    limits::{MAX_LIVE_SIGNALS, MAX_LOG_MEMORY_BYTES, MAX_LOG_RECORDS},
    model::{Span, SpiffeId, Timestamp},
    record::{Rendering, ring::Ring},
    signals::overriding::Overriding,
    tasks::Wanted,
};
use std::{path::PathBuf, sync::Arc, time::Duration};

/// The running core.
#[pyclass(frozen, module = "signalwarden._core")]
pub(crate) struct Engine {
    pub(crate) core: Arc<engine::Engine>,
    pub(crate) outside: Outside,
    /// Whether a check may wait: for the disk, or for room in the log.
    pub(crate) waits: bool,
    scratch: drain::Scratch,
}

/// A principal, or the reason and a sentence why there is none.
type Proven = (Option<String>, Option<(&'static str, String)>);

impl Engine {
    fn asking<'a>(
        &self,
        client: &'a SpiffeId,
        digest: Option<&str>,
        now_us: i64,
        ticks: &'a dyn Fn() -> u64,
    ) -> Result<Asking<'a>, Error> {
        let certificate = digest.map(certificate).transpose()?;
        Ok(Asking { client, certificate, now: Timestamp::from_micros(now_us), random: self.outside.id_bits(), ticks })
    }
}

/// What a look found, as Python sees it.
fn to_look(py: Python<'_>, look: Look) -> PyResult<Bound<'_, PyAny>> {
    match look {
        Look::Answer(answer) => Ok(PyBytes::new(py, &answer).into_any()),
        Look::Pending(pending) => Ok(Bound::new(py, Pending(pending))?.into_any()),
        Look::Held(held) => Ok(Bound::new(py, Held::of(*held))?.into_any()),
    }
}

#[pymethods]
impl Engine {
    #[new]
    #[pyo3(signature = (
        *, log_capacity = MAX_LOG_RECORDS, log_bytes = MAX_LOG_MEMORY_BYTES, influence = "default", digest_key = None,
        max_live = MAX_LIVE_SIGNALS, ring = None, ring_bytes = 0, ack = "accepted", patience_ms = 0, fold_denials = false
    ))]
    #[expect(clippy::too_many_arguments, reason = "each is a setting, by keyword")]
    fn new(
        py: Python<'_>,
        log_capacity: usize,
        log_bytes: usize,
        influence: &str,
        digest_key: Option<Vec<u8>>,
        max_live: usize,
        ring: Option<PathBuf>,
        ring_bytes: usize,
        ack: &str,
        patience_ms: u64,
        fold_denials: bool,
    ) -> PyResult<Self> {
        let influence = words::influence(influence)?;
        let digest_key = digest_key.map_or_else(|| random::<32>().map(Vec::from), Ok)?;
        let is_synced = words::is_synced(ack)?;
        let rendering = Rendering { influence, digest_key };
        let ring = match ring {
            None => Ring::in_memory(log_capacity, log_bytes, rendering),
            Some(path) => {
                let patience = Duration::from_millis(patience_ms);
                let opened = py.detach(|| {
                    ring::open(&path, ring_bytes, (log_capacity, log_bytes), is_synced, patience, rendering)
                });
                let sentence =
                    |why| format!("the ring of the decision log, `{}`, can't be used: {why}", path.display());
                opened.map_err(|why| errors::log_error(py, &sentence(why)))?
            }
        };
        let options = Options { ring, fold_denials, seed: u64::from_ne_bytes(random()?), max_live };
        let waits = is_synced || patience_ms > 0;
        Ok(Self {
            core: Arc::new(engine::Engine::new(options)),
            outside: Outside::new(),
            waits,
            scratch: drain::Scratch::default(),
        })
    }

    fn swap(&self, py: Python<'_>, configuration: &Configuration) {
        let snapshot = Arc::clone(&configuration.snapshot);
        py.detach(|| self.core.swap(snapshot));
    }

    #[getter]
    fn revision(&self) -> Option<String> {
        self.core.snapshot().map(|snapshot| snapshot.revision.to_string())
    }

    fn check<'py>(&self, py: Python<'py>, request: PyBackedBytes) -> PyResult<Bound<'py, PyAny>> {
        let look = py.detach(|| self.core.look(&request, now(), self.outside.id_bits(), &|| self.outside.ticks()));
        to_look(py, look)
    }

    #[pyo3(signature = (held, *, kept))]
    fn finish<'py>(
        &self,
        py: Python<'py>,
        held: &Held,
        kept: bool,
    ) -> PyResult<(Bound<'py, PyBytes>, Vec<StoredChange>)> {
        let Some(checked) = held.take() else {
            return Err(PyValueError::new_err("the decision was finished before"));
        };
        let (answer, undo) = py.detach(|| self.core.finish(checked, kept));
        Ok((PyBytes::new(py, &answer), undo.iter().map(StoredChange::from).collect()))
    }

    #[pyo3(signature = (asked, *, client, certificate, now_us))]
    fn propose_task(
        &self,
        py: Python<'_>,
        asked: PyBackedBytes,
        client: &str,
        certificate: Option<&str>,
        now_us: i64,
    ) -> PyResult<Proposal> {
        let proposed = py.detach(|| {
            let client = client_id(client)?;
            let ticks = || self.outside.ticks();
            let asking = self.asking(&client, certificate, now_us, &ticks)?;
            self.core.propose_task(&asked, &asking, self.outside.id_bits())
        });
        proposed.map(Proposal).map_err(|error| errors::to_python(py, error))
    }

    #[pyo3(signature = (question, *, client, certificate, now_us))]
    fn inquire(
        &self,
        py: Python<'_>,
        question: PyBackedBytes,
        client: &str,
        certificate: Option<&str>,
        now_us: i64,
    ) -> PyResult<Told> {
        let told = py.detach(|| {
            let client = client_id(client)?;
            let ticks = || self.outside.ticks();
            self.core.inquire(&question, &self.asking(&client, certificate, now_us, &ticks)?)
        });
        told.map(Told).map_err(|error| errors::to_python(py, error))
    }

    #[pyo3(signature = (proposal, *, grant, now_us))]
    fn issue_task(
        &self,
        py: Python<'_>,
        proposal: &Proposal,
        grant: PyBackedBytes,
        now_us: i64,
    ) -> PyResult<StoredChange> {
        let change = self.core.issue_task(&proposal.0, &grant, Timestamp::from_micros(now_us));
        change.map(|change| StoredChange::from(&change)).map_err(|error| errors::to_python(py, error))
    }

    #[pyo3(signature = (task_id, *, how, client, operator, now_us))]
    fn end_task(
        &self,
        py: Python<'_>,
        task_id: &str,
        how: &str,
        client: &str,
        operator: bool,
        now_us: i64,
    ) -> PyResult<StoredChange> {
        let change = client_id(client)
            .and_then(|client| self.core.end_task(task_id, how, &client, operator, Timestamp::from_micros(now_us)));
        change.map(|change| StoredChange::from(&change)).map_err(|error| errors::to_python(py, error))
    }

    #[pyo3(signature = (principal, *, at_us, why, now_us))]
    fn end_tasks_of(
        &self,
        py: Python<'_>,
        principal: &str,
        at_us: i64,
        why: &str,
        now_us: i64,
    ) -> PyResult<StoredChange> {
        let (at, now) = (Timestamp::from_micros(at_us), Timestamp::from_micros(now_us));
        let change = client_id(principal).and_then(|principal| self.core.end_tasks_of(&principal, at, why, now));
        change.map(|change| StoredChange::from(&change)).map_err(|error| errors::to_python(py, error))
    }

    #[pyo3(signature = (*, task_id = None, principal = None, ended = false, limit, now_us))]
    fn tasks<'py>(
        &self,
        py: Python<'py>,
        task_id: Option<&str>,
        principal: Option<&str>,
        ended: bool,
        limit: usize,
        now_us: i64,
    ) -> Bound<'py, PyBytes> {
        let wanted = Wanted { id: task_id, principal, ended, most: limit };
        let listed = py.detach(|| self.core.list_tasks(&wanted, Timestamp::from_micros(now_us)).to_string());
        PyBytes::new(py, listed.as_bytes())
    }

    #[pyo3(signature = (workflow, *, state, client, now_us))]
    fn move_workflow(
        &self,
        py: Python<'_>,
        workflow: &str,
        state: &str,
        client: &str,
        now_us: i64,
    ) -> PyResult<StoredChange> {
        let change = client_id(client)
            .and_then(|client| self.core.move_workflow(workflow, state, &client, Timestamp::from_micros(now_us)));
        change.map(|change| StoredChange::from(&change)).map_err(|error| errors::to_python(py, error))
    }

    #[pyo3(signature = (*, limit))]
    fn workflows<'py>(&self, py: Python<'py>, limit: usize) -> Bound<'py, PyBytes> {
        let listed = py.detach(|| self.core.list_workflows(limit).to_string());
        PyBytes::new(py, listed.as_bytes())
    }

    #[pyo3(signature = (*, approval_id = None, state = None, limit, now_us))]
    fn approvals<'py>(
        &self,
        py: Python<'py>,
        approval_id: Option<&str>,
        state: Option<&str>,
        limit: usize,
        now_us: i64,
    ) -> PyResult<Bound<'py, PyBytes>> {
        let known = state.map(|word| {
            let found = ApprovalState::ALL.iter().find(|(known, _)| *known == word).map(|(_, state)| *state);
            found.ok_or_else(|| {
                let words: Vec<_> = ApprovalState::ALL.iter().map(|(word, _)| format!("`{word}`")).collect();
                Error::BadInput(format!("`state`: expected one of {}, found `{word}`", words.join(", ")))
            })
        });
        let state = known.transpose().map_err(|error| errors::to_python(py, error))?;
        let wanted = WantedApprovals { id: approval_id, state, most: limit };
        let listed = py.detach(|| self.core.list_approvals(&wanted, Timestamp::from_micros(now_us)).to_string());
        Ok(PyBytes::new(py, listed.as_bytes()))
    }

    #[pyo3(signature = (approval_id, *, approve, client, comment, now_us))]
    fn answer_approval(
        &self,
        py: Python<'_>,
        approval_id: &str,
        approve: bool,
        client: &str,
        comment: &str,
        now_us: i64,
    ) -> PyResult<Answered> {
        let answered = py.detach(|| {
            let client = client_id(client)?;
            let ticks = || self.outside.ticks();
            let asking = self.asking(&client, None, now_us, &ticks)?;
            self.core.answer_approval(approval_id, approve, comment, &asking)
        });
        answered.map(Answered).map_err(|error| errors::to_python(py, error))
    }

    #[pyo3(signature = (approval_id, *, now_us))]
    fn waive_approval(&self, py: Python<'_>, approval_id: &str, now_us: i64) -> PyResult<Vec<StoredChange>> {
        let waived = py.detach(|| {
            self.core.waive_approval(approval_id, Timestamp::from_micros(now_us), self.outside.id_bits(), &|| {
                self.outside.ticks()
            })
        });
        let changes = waived.map_err(|error| errors::to_python(py, error))?;
        Ok(changes.iter().map(StoredChange::from).collect())
    }

    #[pyo3(name = "override", signature = (name, *, subject, value, reason, by, ttl_us, now_us))]
    #[expect(clippy::too_many_arguments, reason = "each is a part of what two people say, by keyword")]
    fn override_signal(
        &self,
        py: Python<'_>,
        name: &str,
        subject: &str,
        value: PyBackedBytes,
        reason: &str,
        by: (String, String),
        ttl_us: i64,
        now_us: i64,
    ) -> PyResult<StoredChange> {
        let change = py.detach(|| {
            let (first, second) = (client_id(&by.0)?, client_id(&by.1)?);
            let ttl = Span::from_micros(ttl_us);
            let asked = Overriding { name, subject, value: &value, reason, by: [&first, &second], ttl };
            self.core.override_signal(&asked, Timestamp::from_micros(now_us))
        });
        change.map(|change| StoredChange::from(&change)).map_err(|error| errors::to_python(py, error))
    }

    fn overrides<'py>(&self, py: Python<'py>, now_us: i64) -> Bound<'py, PyBytes> {
        let listed = py.detach(|| self.core.overrides(Timestamp::from_micros(now_us)).to_string());
        PyBytes::new(py, listed.as_bytes())
    }

    #[pyo3(signature = (*, limit, now_us))]
    fn expired(&self, py: Python<'_>, limit: usize, now_us: i64) -> Vec<String> {
        py.detach(|| self.core.expired(limit, Timestamp::from_micros(now_us)))
    }

    fn forget(&self, py: Python<'_>, keys: Vec<String>) {
        py.detach(|| self.core.forget(&keys));
    }

    #[pyo3(signature = (request, *, proofs, refused))]
    fn validated<'py>(
        &self,
        py: Python<'py>,
        request: PyBackedBytes,
        proofs: Vec<PyBackedBytes>,
        refused: Vec<(String, String, String)>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let checked = py.detach(|| {
            let refused = refused.into_iter().map(refusal).collect::<Result<Vec<_>, _>>()?;
            self.core.admit_proofs(proofs.iter().map(|proof| &**proof))?;
            Ok(self
                .core
                .check(&request, &Validated { refused }, now(), self.outside.id_bits(), &|| self.outside.ticks()))
        });
        checked.map_err(|error| errors::to_python(py, error)).and_then(|look| to_look(py, look))
    }

    #[pyo3(signature = (name, *, members))]
    fn set_authority(&self, py: Python<'_>, name: &str, members: Vec<String>) -> bool {
        py.detach(|| self.core.set_authority(name, members))
    }

    fn authorities<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
        PyBytes::new(py, self.core.authorities().to_string().as_bytes())
    }

    #[pyo3(signature = (*, digest = None, jti = None, subject = None, issuer = None, issued_before_us = None, now_us))]
    #[expect(clippy::too_many_arguments, reason = "each is a way to name what is revoked, by keyword")]
    fn revoke(
        &self,
        py: Python<'_>,
        digest: Option<&str>,
        jti: Option<&str>,
        subject: Option<&str>,
        issuer: Option<&str>,
        issued_before_us: Option<i64>,
        now_us: i64,
    ) -> PyResult<StoredChange> {
        let issued_before = issued_before_us.map(Timestamp::from_micros);
        let what = Revoking { digest, token_id: jti, subject, issuer, issued_before };
        let change = self.core.revoke(&what, Timestamp::from_micros(now_us));
        change.map(|change| StoredChange::from(&change)).map_err(|error| errors::to_python(py, error))
    }

    #[pyo3(signature = (*, limit))]
    fn revocations<'py>(&self, py: Python<'py>, limit: usize) -> Bound<'py, PyBytes> {
        let listed = py.detach(|| self.core.revocations(limit).to_string());
        PyBytes::new(py, listed.as_bytes())
    }

    #[pyo3(signature = (proof, *, certificate_sha256, now_us))]
    fn prove(
        &self,
        py: Python<'_>,
        proof: PyBackedBytes,
        certificate_sha256: Option<&str>,
        now_us: i64,
    ) -> PyResult<Proven> {
        let certificate = certificate_sha256.map(certificate).transpose();
        let proven = certificate
            .and_then(|certificate| self.core.prove(&proof, certificate, Timestamp::from_micros(now_us)))
            .map_err(|error| errors::to_python(py, error))?;
        Ok(match proven {
            Ok(principal) => (Some(principal.to_string()), None),
            Err(refused) => (None, Some((refused.reason.code(), refused.detail))),
        })
    }

    #[pyo3(signature = (*, subject, digest, issued_at_us))]
    fn is_certificate_revoked(&self, py: Python<'_>, subject: &str, digest: &str, issued_at_us: i64) -> PyResult<bool> {
        let bad = |why| errors::to_python(py, Error::BadInput(format!("the SPIFFE ID of a certificate: {why}")));
        let subject = SpiffeId::parse(subject).map_err(bad)?;
        let digest = certificate(digest).map_err(|error| errors::to_python(py, error))?;
        Ok(self.core.is_certificate_revoked(&subject, digest, Timestamp::from_micros(issued_at_us)))
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
        let (record, answer) =
            py.detach(|| self.core.decide(&request, now, self.outside.id_bits(), &|| self.outside.ticks()));
        (PyBytes::new(py, &answer), PyBytes::new(py, &record))
    }

    #[pyo3(signature = (body, *, publisher, now_us))]
    fn admit(&self, py: Python<'_>, body: PyBackedBytes, publisher: &str, now_us: i64) -> PyResult<Admission> {
        let admitted = py.detach(|| self.core.admit(&body, &origin(publisher)?, Timestamp::from_micros(now_us)));
        admitted.map(|taken| Admission { taken, error: None }).map_err(|error| errors::to_python(py, error))
    }

    #[pyo3(signature = (batches, *, now_us))]
    fn admit_all(
        &self,
        py: Python<'_>,
        batches: Vec<(PyBackedBytes, String)>,
        now_us: i64,
    ) -> PyResult<Vec<Admission>> {
        let judged = py.detach(|| {
            let origins = batches.iter().map(|(_, publisher)| origin(publisher)).collect::<Result<Vec<_>, _>>()?;
            let batches = batches.iter().zip(&origins).map(|((body, _), origin)| (&**body, origin));
            Ok(self.core.admit_all(batches, Timestamp::from_micros(now_us)))
        });
        let judged = judged.map_err(|error| errors::to_python(py, error))?;
        Ok(judged.into_iter().map(Admission::of).collect())
    }

    #[pyo3(signature = (publisher, *, signal, enabled, now_us))]
    fn switch_publisher(
        &self,
        py: Python<'_>,
        publisher: &str,
        signal: Option<&str>,
        enabled: bool,
        now_us: i64,
    ) -> PyResult<StoredChange> {
        let change = self.core.switch_publisher(publisher, signal, enabled, Timestamp::from_micros(now_us));
        change.map(|change| StoredChange::from(&change)).map_err(|error| errors::to_python(py, error))
    }

    #[pyo3(signature = (feed, *, event, at_us, now_us, detail = ""))]
    fn stream(
        &self,
        py: Python<'_>,
        feed: &str,
        event: &str,
        at_us: i64,
        now_us: i64,
        detail: &str,
    ) -> PyResult<StoredChange> {
        let (at, now) = (Timestamp::from_micros(at_us), Timestamp::from_micros(now_us));
        let change = self.core.move_stream(feed, event, at, detail, now);
        change.map(|change| StoredChange::from(&change)).map_err(|error| errors::to_python(py, error))
    }

    fn feeds<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
        PyBytes::new(py, self.core.feeds().to_string().as_bytes())
    }

    #[pyo3(signature = (*, now_us, scan))]
    fn signal_stats<'py>(&self, py: Python<'py>, now_us: i64, scan: bool) -> Bound<'py, PyBytes> {
        let stats = py.detach(|| self.core.signal_stats(Timestamp::from_micros(now_us), scan).to_string());
        PyBytes::new(py, stats.as_bytes())
    }

    fn measures<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
        let measures = py.detach(|| self.core.measures().to_string());
        PyBytes::new(py, measures.as_bytes())
    }

    fn publishers<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
        let publishers = py.detach(|| self.core.publishers().to_string());
        PyBytes::new(py, publishers.as_bytes())
    }

    fn switched_off(&self) -> Vec<(String, Option<String>)> {
        self.core.switched_off()
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
        let (lines, count) = py.detach(|| drain::lines(&self.core, max_records, wait_ms));
        (PyBytes::new(py, &lines), count)
    }

    #[pyo3(signature = (into, *, max_records, max_bytes, wait_ms))]
    fn drain_into<'py>(
        &self,
        into: &Bound<'py, PyByteArray>,
        max_records: usize,
        max_bytes: usize,
        wait_ms: u64,
    ) -> PyResult<drain::Drained<'py>> {
        self.scratch.drain(&self.core, into, (max_records, max_bytes), wait_ms)
    }

    fn settle(&self, py: Python<'_>, count: usize) {
        py.detach(|| self.core.settle(count));
    }

    fn recovered<'py>(&self, py: Python<'py>) -> Vec<Bound<'py, PyBytes>> {
        let lines = py.detach(|| self.core.recovered());
        lines.iter().map(|line| PyBytes::new(py, line)).collect()
    }

    fn pass_over(&self, py: Python<'_>, known: Vec<usize>) {
        py.detach(|| self.core.pass_over(&known));
    }

    #[getter]
    fn has_lost_records(&self) -> bool {
        self.core.has_lost_records()
    }

    fn release(&self, py: Python<'_>) {
        py.detach(|| self.core.release_log());
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
    fn set_back(&self, now_us: i64) -> Vec<StoredChange> {
        let changes = self.core.set_back(Timestamp::from_micros(now_us), self.outside.ticks());
        changes.iter().map(StoredChange::from).collect()
    }

    #[pyo3(signature = (*, now_us))]
    fn time_mark(&self, now_us: i64) -> StoredChange {
        StoredChange::from(&self.core.time_mark(Timestamp::from_micros(now_us), self.outside.ticks()))
    }
}
