//! The door itself: where it listens, whom it lets in, how it opens and closes.

use crate::{
    batch::Together,
    call,
    connection::{Chain, Connection, Stranger, Strangers},
    frames,
    health::{Health, State},
    limits::{
        ACCEPT_AGAIN, CONNECTION_WINDOW, KEEPALIVE, KEEPALIVE_TIMEOUT, MAX_CALLS, MAX_CONNECTIONS, MAX_FRAME,
        MAX_GRACE, MAX_HEADER_LIST, MAX_LOCAL_RESETS, MAX_PENDING_RESETS, MAX_SEND_BUFFER, MAX_STREAMS, STREAM_WINDOW,
    },
    tls,
};
use bytes::Bytes;
use hyper::{server::conn::http2, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use rustls::ServerConfig;
use std::{
    convert::Infallible,
    future::{Future, pending},
    io::{self, ErrorKind},
    net::SocketAddr,
    path::PathBuf,
    pin::{Pin, pin},
    sync::{
        Arc, Mutex, PoisonError, RwLock,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpSocket, TcpStream, UnixListener, UnixStream},
    runtime::Runtime,
    sync::{OwnedSemaphorePermit, Semaphore, watch},
    task::{JoinHandle, JoinSet},
};

/// Connections that wait to be accepted.
const BACKLOG: u32 = 1_024;
/// For a connection that is asked to make room.
const ROOM: Duration = Duration::from_millis(100);
/// For what does not end by itself when the door closes.
const END: Duration = Duration::from_secs(1);
/// Threads for calls that wait for the log: those that wait for the disk share one sync.
const MAX_WAITING: usize = 64;

/// What takes its time.
pub type Later<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// An answer, now or later.
pub enum Decided {
    /// The bytes of a `CheckResponse`.
    Answer(Vec<u8>),
    /// The same, once somebody else has done what it takes.
    Later(Later<Option<Vec<u8>>>),
    /// None at all. The call fails: no bytes are no answer, an empty `CheckResponse` is a yes to Envoy.
    Nothing,
}

/// Whoever decides.
pub trait Deciding: Send + Sync + 'static {
    /// Total: every input gives a `CheckResponse`. May hold its thread for as long as it computes; one that waits says
    /// so to the runtime.
    fn check(&self, request: Bytes) -> Decided;

    /// Whether the client with these certificates may ask, as of now.
    fn may_ask(&self, chain: Arc<Chain>) -> Later<bool>;

    /// A call of a client that was refused a moment ago.
    fn refused_again(&self);
}

/// Where a door listens.
#[derive(Clone, Debug)]
pub enum Address {
    /// With or without TLS.
    Tcp(SocketAddr),
    /// Without: it is kept by its file mode.
    Unix(PathBuf),
}

/// Calls that never reached a decision.
#[derive(Default)]
pub(crate) struct Counts {
    pub(crate) undelivered: AtomicU64,
    pub(crate) unknown: AtomicU64,
    turned_away: AtomicU64,
}

/// What calls and connections share.
pub(crate) struct Shared<D> {
    pub(crate) deciding: D,
    pub(crate) health: Health,
    pub(crate) counts: Counts,
    pub(crate) calls: Semaphore,
    /// Bytes of messages that are being read.
    pub(crate) reading: AtomicUsize,
    /// Counts up whenever whoever may ask may have changed.
    pub(crate) epoch: AtomicU64,
    connections: Arc<Semaphore>,
    strangers: Arc<Strangers>,
    tls: RwLock<Option<Arc<ServerConfig>>>,
}

/// The door. It listens from the start, and answers between `start` and `stop`.
pub struct Front<D: Deciding> {
    shared: Arc<Shared<D>>,
    port: u16,
    running: Mutex<Running>,
}

struct Running {
    runtime: Option<Runtime>,
    listener: Option<Listener>,
    accepting: Option<JoinHandle<()>>,
    stop: watch::Sender<bool>,
}

impl<D: Deciding> Front<D> {
    /// A door at an address, with as many threads as it may keep busy. With `tls`, no connection without.
    pub fn bind(deciding: D, address: &Address, threads: usize, tls: Option<Arc<ServerConfig>>) -> io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(threads.max(1))
            .max_blocking_threads(MAX_WAITING)
            .thread_name("check")
            .enable_all()
            .build()?;
        let (listener, port) = {
            let _inside = runtime.enter();
            Listener::bind(address)?
        };
        let shared = Arc::new(Shared {
            deciding,
            health: Health::new(),
            counts: Counts::default(),
            calls: Semaphore::new(MAX_CALLS),
            reading: AtomicUsize::new(0),
            epoch: AtomicU64::new(0),
            connections: Arc::new(Semaphore::new(MAX_CONNECTIONS)),
            strangers: Arc::default(),
            tls: RwLock::new(tls),
        });
        let running = Running {
            runtime: Some(runtime),
            listener: Some(listener),
            accepting: None,
            stop: watch::Sender::new(false),
        };
        Ok(Self { shared, port, running: Mutex::new(running) })
    }

    fn running(&self) -> std::sync::MutexGuard<'_, Running> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The port that the system chose; 0 for a Unix socket.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Answers from now on.
    pub fn start(&self) {
        let mut running = self.running();
        let (Some(listener), stop) = (running.listener.take(), running.stop.subscribe()) else { return };
        running.accepting =
            running.runtime.as_ref().map(|runtime| runtime.spawn(accept(listener, Arc::clone(&self.shared), stop)));
        self.shared.health.set(State::Serving);
    }

    /// Says that it does not serve, lets what is asked end for `grace`, then ends. May be called twice.
    pub fn stop(&self, grace: Duration) {
        self.shared.health.set(State::Closing);
        let (runtime, accepting) = {
            let mut running = self.running();
            running.stop.send_replace(true);
            running.listener = None;
            (running.runtime.take(), running.accepting.take())
        };
        let Some(runtime) = runtime else { return };
        if let Some(accepting) = accepting {
            // Whoever has not ended by then is cut off below.
            let _ended = runtime.block_on(async { tokio::time::timeout(grace.min(MAX_GRACE), accepting).await });
        }
        runtime.shutdown_timeout(END);
    }

    /// What new handshakes show and take from now on.
    pub fn set_tls(&self, config: Arc<ServerConfig>) {
        *self.shared.tls.write().unwrap_or_else(PoisonError::into_inner) = Some(config);
    }

    /// Whoever may ask may have changed: each client is judged anew at its next call.
    pub fn judge_anew(&self) {
        self.shared.epoch.fetch_add(1, Ordering::AcqRel);
    }

    /// Calls whose message never came, calls of unknown methods, and connections for which there was no room.
    pub fn counts(&self) -> (u64, u64, u64) {
        let Counts { undelivered, unknown, turned_away } = &self.shared.counts;
        let [undelivered, unknown, turned_away] =
            [undelivered, unknown, turned_away].map(|count| count.load(Ordering::Relaxed));
        (undelivered, unknown, turned_away)
    }
}

enum Listener {
    Tcp(TcpListener),
    Unix(UnixListener),
}

enum Accepted {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl Listener {
    fn bind(address: &Address) -> io::Result<(Self, u16)> {
        match address {
            Address::Tcp(address) => {
                let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
                // A port whose last connections still linger can be had again; one that somebody listens on can't.
                socket.set_reuseaddr(true)?;
                socket.bind(*address)?;
                let listener = socket.listen(BACKLOG)?;
                let port = listener.local_addr()?.port();
                Ok((Self::Tcp(listener), port))
            }
            Address::Unix(path) => Ok((Self::Unix(UnixListener::bind(path)?), 0)),
        }
    }

    async fn accept(&self) -> io::Result<Accepted> {
        match self {
            Self::Tcp(listener) => {
                let (stream, _) = listener.accept().await?;
                stream.set_nodelay(true)?;
                Ok(Accepted::Tcp(stream))
            }
            Self::Unix(listener) => Ok(Accepted::Unix(listener.accept().await?.0)),
        }
    }
}

/// Lets connections in until it is told to stop, and returns when the last has ended.
async fn accept<D: Deciding>(listener: Listener, shared: Arc<Shared<D>>, mut stop: watch::Receiver<bool>) {
    let mut open = JoinSet::new();
    let mut number = 0_u64;
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            _ = stop.wait_for(|stop| *stop) => break,
        };
        while open.try_join_next().is_some() {}
        let io = match accepted {
            Ok(io) => io,
            // The client has gone already.
            Err(error) if matches!(error.kind(), ErrorKind::ConnectionAborted | ErrorKind::InvalidInput) => continue,
            Err(_) => {
                // No descriptors or no memory are left, until something ends.
                tokio::time::sleep(ACCEPT_AGAIN).await;
                continue;
            }
        };
        let Some(place) = room(&shared).await else {
            shared.counts.turned_away.fetch_add(1, Ordering::Relaxed);
            continue;
        };
        number += 1;
        let stranger = shared.strangers.admit(number);
        open.spawn(enter(io, Arc::clone(&shared), stranger, place, stop.clone()));
    }
    drop(listener);
    while open.join_next().await.is_some() {}
}

/// A place for one more connection, if need be that of one that has asked for nothing.
async fn room<D: Deciding>(shared: &Shared<D>) -> Option<OwnedSemaphorePermit> {
    let places = || Arc::clone(&shared.connections);
    if let Ok(place) = places().try_acquire_owned() {
        return Some(place);
    }
    if !shared.strangers.make_room() {
        return None;
    }
    tokio::time::timeout(ROOM, places().acquire_owned()).await.ok()?.ok()
}

async fn enter<D: Deciding>(
    io: Accepted,
    shared: Arc<Shared<D>>,
    stranger: Stranger,
    _place: OwnedSemaphorePermit,
    stop: watch::Receiver<bool>,
) {
    let leave = Arc::clone(&stranger.leave);
    let config = shared.tls.read().unwrap_or_else(PoisonError::into_inner).clone();
    let staying = async move {
        match (io, config) {
            (Accepted::Tcp(io), None) => speak(io, &shared, Connection::new(stranger, None), stop).await,
            (Accepted::Unix(io), _) => speak(io, &shared, Connection::new(stranger, None), stop).await,
            (Accepted::Tcp(io), Some(config)) => {
                if let Ok(io) = tls::shaken(io, config).await {
                    let chain = tls::chain(&io);
                    speak(io, &shared, Connection::new(stranger, Some(chain)), stop).await;
                }
            }
        }
    };
    tokio::select! {
        biased;
        () = staying => {}
        () = leave.notified() => {}
    }
}

/// HTTP/2 on a connection, until one of both ends it.
async fn speak<D: Deciding, T: AsyncRead + AsyncWrite + Unpin + Send + 'static>(
    io: T,
    shared: &Arc<Shared<D>>,
    connection: Connection,
    mut stop: watch::Receiver<bool>,
) {
    // A door that closes waits for nobody who has not even said hello.
    let io = tokio::select! {
        io = frames::opened(io) => io,
        _ = stop.wait_for(|stop| *stop) => return,
    };
    let Ok(io) = io else { return };
    let max_age = connection.max_age();
    let connection = Arc::new(connection);
    let service = service_fn(|request| {
        let (shared, connection) = (Arc::clone(shared), Arc::clone(&connection));
        async move { Ok::<_, Infallible>(call::answer(&shared, &connection, request).await) }
    });
    let mut speaking = pin!(builder().serve_connection(TokioIo::new(io), service));
    let aged = async {
        match max_age {
            Some(age) => tokio::time::sleep(age).await,
            None => pending().await,
        }
    };
    tokio::select! {
        biased;
        _ = speaking.as_mut() => return,
        _ = stop.wait_for(|stop| *stop) => {}
        () = aged => {}
    }
    speaking.as_mut().graceful_shutdown();
    // Calls in flight end; whoever does not is cut off when the door has closed, or by keepalive.
    let _ended = speaking.await;
}

fn builder() -> http2::Builder<Together> {
    let mut builder = http2::Builder::new(Together::default());
    builder
        .timer(TokioTimer::new())
        .auto_date_header(false)
        .max_concurrent_streams(MAX_STREAMS)
        .max_header_list_size(MAX_HEADER_LIST)
        .max_frame_size(MAX_FRAME)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_send_buf_size(MAX_SEND_BUFFER)
        .max_pending_accept_reset_streams(MAX_PENDING_RESETS)
        .max_local_error_reset_streams(MAX_LOCAL_RESETS)
        .keep_alive_interval(KEEPALIVE)
        .keep_alive_timeout(KEEPALIVE_TIMEOUT);
    builder
}
