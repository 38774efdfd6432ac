//! The ring of records as a mapped file, and the thread that makes it durable for all who wait at once.

use signalwarden_core::record::{
    Rendering,
    frames::Region,
    ring::{Ring, Room, Syncing},
};
use signalwarden_mapped::Mapped;
use std::{
    io,
    path::Path,
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::Duration,
};

/// How long an answer waits for the disk. Envoy's own timeout for a check is 200 ms unless told otherwise, so beyond
/// this nobody waits for the answer.
const SYNC_WAIT: Duration = Duration::from_secs(2);
/// After a sync that failed: a disk that fails at once must not keep a core busy.
const AFTER_FAILURE: Duration = Duration::from_millis(50);

/// A mapped file as the core's region.
#[derive(Debug)]
struct File(Arc<Mapped>);

impl Region for File {
    fn words(&self) -> &[AtomicU64] {
        self.0.words()
    }

    fn release(&self) {
        self.0.unlock();
    }

    fn rest(&self) {
        self.0.rest();
    }
}

/// Opens the ring's file. `in_memory`: records, and their bytes, that may wait there beside it. The error is the end of a
/// sentence.
pub(crate) fn open(
    path: &Path,
    bytes: usize,
    in_memory: (usize, usize),
    is_synced: bool,
    patience: Duration,
    rendering: Rendering,
) -> Result<Ring, String> {
    let mapped = Arc::new(Mapped::open(path, bytes).map_err(|error| error.to_string())?);
    let syncing = is_synced.then(|| GroupCommit::start(Arc::clone(&mapped))).transpose();
    let syncing = syncing.map_err(|error| error.to_string())?;
    let room = Room {
        capacity: in_memory.0,
        max_bytes: in_memory.1,
        region: Some(Box::new(File(mapped))),
        syncing: syncing.map(|syncing| Box::new(syncing) as Box<dyn Syncing>),
        patience,
    };
    Ring::open(room, rendering).map_err(str::to_owned)
}

/// One sync for all who wait: while it is under way the next ones gather. A thread of its own makes it, so that a disk
/// that hangs holds no answer beyond its bound.
#[derive(Debug)]
struct GroupCommit(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    progress: Mutex<Progress>,
    wanted: Condvar,
    done: Condvar,
    reached: AtomicU64,
}

#[derive(Debug, Default)]
struct Progress {
    wanted: u64,
    /// Up to where the last sync that failed would have come.
    failed: u64,
    is_closed: bool,
}

impl GroupCommit {
    fn start(mapped: Arc<Mapped>) -> io::Result<Self> {
        let shared = Arc::new(Shared::default());
        let own = Arc::clone(&shared);
        thread::Builder::new().name("ring-sync".to_owned()).spawn(move || own.run(&mapped))?;
        Ok(Self(shared))
    }
}

impl Drop for GroupCommit {
    fn drop(&mut self) {
        // It is not waited for: it may hang in the disk. The map lives until it ends.
        self.0.lock().is_closed = true;
        self.0.wanted.notify_all();
    }
}

impl Shared {
    fn run(&self, mapped: &Mapped) {
        let mut progress = self.lock();
        loop {
            let is_idle = |progress: &mut Progress| !progress.is_closed && progress.wanted <= self.reached();
            progress = self.wanted.wait_while(progress, is_idle).unwrap_or_else(PoisonError::into_inner);
            if progress.is_closed {
                return;
            }
            let target = progress.wanted;
            drop(progress);
            // Every frame up to the target was written before it was asked for.
            let outcome = mapped.sync();
            progress = self.lock();
            match outcome {
                Ok(()) => self.reached.store(target, Ordering::Release),
                Err(_) => progress.failed = target,
            }
            self.done.notify_all();
            if outcome.is_err() {
                drop(progress);
                thread::sleep(AFTER_FAILURE);
                progress = self.lock();
            }
        }
    }

    fn reached(&self) -> u64 {
        self.reached.load(Ordering::Acquire)
    }

    fn lock(&self) -> MutexGuard<'_, Progress> {
        self.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn ask(&self, end: u64) -> MutexGuard<'_, Progress> {
        let mut progress = self.lock();
        if progress.wanted < end {
            progress.wanted = end;
            self.wanted.notify_one();
        }
        progress
    }
}

impl Syncing for GroupCommit {
    fn wait_for(&self, end: u64) -> bool {
        let shared = &*self.0;
        let progress = shared.ask(end);
        let is_open = |progress: &mut Progress| shared.reached() < end && progress.failed < end && !progress.is_closed;
        let waited = shared.done.wait_timeout_while(progress, SYNC_WAIT, is_open);
        drop(waited);
        shared.reached() >= end
    }

    fn ask_for(&self, end: u64) {
        drop(self.0.ask(end));
    }

    fn reached(&self) -> u64 {
        self.0.reached()
    }
}
