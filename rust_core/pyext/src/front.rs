//! The native front door for Python, which owns it: it opens and closes it, and answers what the core can't alone.

use crate::{
    desk::{Asker, Call, Client, Desk, Found, Ticket, Waiting},
    engine::Engine,
    errors,
    outside::{Outside, now},
};
use pyo3::{exceptions::PyOSError, prelude::*};
use signalwarden_core::{
    check::Checked,
    engine::{self, Look},
    error::Error,
    identity::Validated,
};
use signalwarden_listener::{Address, Chain, Decided, Deciding, Front, Later, tls_config};
use std::{
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};
use tokio::{sync::oneshot, task::block_in_place};

/// The core behind the door.
#[derive(Clone)]
struct Core {
    engine: Arc<engine::Engine>,
    outside: Outside,
    waits: bool,
}

impl Core {
    /// Other calls go on in other threads while one waits for the log.
    fn work<T>(&self, work: impl FnOnce() -> T) -> T {
        if self.waits { block_in_place(work) } else { work() }
    }

    fn look(&self, request: &[u8]) -> Look {
        let outside = self.outside;
        self.work(|| self.engine.look(request, now(), outside.id_bits(), &|| outside.ticks()))
    }

    /// The answer where nobody validates and nobody keeps: what is not known, or not kept, denies. `None`: there is none,
    /// which a last look never leaves.
    fn alone(&self, request: &[u8]) -> Option<Vec<u8>> {
        let outside = self.outside;
        let validated = Validated::default();
        let look = self.work(|| self.engine.check(request, &validated, now(), outside.id_bits(), &|| outside.ticks()));
        match look {
            Look::Answer(answer) => Some(answer),
            Look::Held(held) => Some(self.give_up(*held)),
            Look::Pending(_) => None,
        }
    }

    fn give_up(&self, held: Checked) -> Vec<u8> {
        self.work(|| self.engine.finish(held, false)).0
    }
}

/// The core, and the desk for what it can't answer alone.
struct Door {
    core: Core,
    desk: Arc<Desk>,
    refused_again: Arc<AtomicU64>,
}

impl Deciding for Door {
    fn check(&self, request: bytes::Bytes) -> Decided {
        let found = match self.core.look(&request) {
            Look::Answer(answer) => return Decided::Answer(answer),
            Look::Pending(pending) => Found::Pending(pending),
            Look::Held(held) => Found::Held(held),
        };
        let (answer, answered) = oneshot::channel();
        match self.desk.put(Waiting::Call(Call { request: request.clone(), found, answer })) {
            Err(Waiting::Call(Call { found: Found::Held(held), .. })) => Decided::Answer(self.core.give_up(*held)),
            Err(_) => self.core.alone(&request).map_or(Decided::Nothing, Decided::Answer),
            Ok(()) => {
                let core = self.core.clone();
                Decided::Later(Box::pin(async move {
                    match answered.await {
                        Ok(answer) => Some(answer),
                        Err(_) => core.alone(&request),
                    }
                }))
            }
        }
    }

    fn may_ask(&self, chain: Arc<Chain>) -> Later<bool> {
        let (answer, answered) = oneshot::channel();
        // Where there is no place the sender is gone, and nobody says yes.
        let _full = self.desk.put(Waiting::Client(Client { chain, answer }));
        Box::pin(async move { answered.await.unwrap_or(false) })
    }

    fn refused_again(&self) {
        self.refused_again.fetch_add(1, Ordering::Relaxed);
    }
}

/// The native front door.
#[pyclass(frozen, module = "signalwarden._core")]
pub(crate) struct NativeFront {
    front: Front<Door>,
    desk: Arc<Desk>,
    refused_again: Arc<AtomicU64>,
}

/// Our chain, its key and the authorities of clients, each in PEM.
type Pems<'a> = (&'a [u8], &'a [u8], &'a [u8]);

fn config(py: Python<'_>, (chain, key, authorities): Pems<'_>) -> PyResult<Arc<rustls::ServerConfig>> {
    tls_config(chain, key, authorities)
        .map_err(|why| errors::to_python(py, Error::BadInput(format!("TLS can't take them: {why}"))))
}

#[pymethods]
impl NativeFront {
    #[new]
    #[pyo3(signature = (engine, *, host = None, port = 0, path = None, threads, tls = None))]
    fn new(
        py: Python<'_>,
        engine: &Engine,
        host: Option<&str>,
        port: u16,
        path: Option<PathBuf>,
        threads: usize,
        tls: Option<Pems<'_>>,
    ) -> PyResult<Self> {
        let bad = |what: &str| errors::to_python(py, Error::BadInput(what.to_owned()));
        let address = match (host, path) {
            (Some(host), None) => {
                let host: IpAddr = host.parse().map_err(|_| bad("`host`: expected an address in digits"))?;
                Address::Tcp(SocketAddr::new(host, port))
            }
            (None, Some(path)) => Address::Unix(path),
            _ => return Err(bad("expected either `host` or `path`")),
        };
        let tls = tls.map(|pems| config(py, pems)).transpose()?;
        let (desk, refused_again) = (Arc::new(Desk::default()), Arc::new(AtomicU64::new(0)));
        let core = Core { engine: Arc::clone(&engine.core), outside: engine.outside, waits: engine.waits };
        let door = Door { core, desk: Arc::clone(&desk), refused_again: Arc::clone(&refused_again) };
        let front = py.detach(|| Front::bind(door, &address, threads, tls));
        let front = front.map_err(|error| PyOSError::new_err((error.raw_os_error(), error.to_string())))?;
        Ok(Self { front, desk, refused_again })
    }

    #[getter]
    fn port(&self) -> u16 {
        self.front.port()
    }

    fn start(&self, py: Python<'_>) {
        py.detach(|| self.front.start());
    }

    #[pyo3(signature = (*, grace_ms))]
    fn stop(&self, py: Python<'_>, grace_ms: u64) {
        py.detach(|| self.front.stop(Duration::from_millis(grace_ms)));
    }

    #[pyo3(signature = (*, wait_ms))]
    fn take<'py>(&self, py: Python<'py>, wait_ms: u64) -> PyResult<Option<Bound<'py, PyAny>>> {
        let taken = py.detach(|| self.desk.take(Duration::from_millis(wait_ms)));
        Ok(match taken {
            None => None,
            Some(Waiting::Call(call)) => Some(Bound::new(py, Ticket::of(call))?.into_any()),
            Some(Waiting::Client(client)) => Some(Bound::new(py, Asker::of(client))?.into_any()),
        })
    }

    #[pyo3(signature = (chain, key, authorities))]
    fn set_tls(&self, py: Python<'_>, chain: &[u8], key: &[u8], authorities: &[u8]) -> PyResult<()> {
        self.front.set_tls(config(py, (chain, key, authorities))?);
        Ok(())
    }

    fn judge_anew(&self) {
        self.front.judge_anew();
    }

    fn counts(&self) -> (u64, u64, u64, u64) {
        let (undelivered, unknown, turned_away) = self.front.counts();
        (undelivered, unknown, turned_away, self.refused_again.load(Ordering::Relaxed))
    }
}
