//! What a connection is known by: whether it has asked for anything yet, and whose it is.

use crate::{
    limits::MAX_AGE,
    serve::{Deciding, Shared},
};
use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};
use tokio::sync::Notify;

/// How long it counts that a client may ask: what changes without a word of ours, as an authority that runs out, is
/// noticed by then.
const VERDICT: Duration = Duration::from_secs(1);

/// The certificates that a client showed in its handshake, its own first, in DER.
pub type Chain = Vec<Vec<u8>>;

/// One open connection.
pub(crate) struct Connection {
    stranger: Stranger,
    has_asked: AtomicBool,
    /// Bytes of its larger messages that are being read.
    pub(crate) reading: AtomicUsize,
    peer: Option<Peer>,
}

/// The client of a connection with mutual TLS.
struct Peer {
    chain: Arc<Chain>,
    /// Whether it may ask, since when, and by which state of what was known.
    verdict: tokio::sync::Mutex<Option<(bool, Instant, u64)>>,
}

impl Connection {
    pub(crate) fn new(stranger: Stranger, chain: Option<Chain>) -> Self {
        let peer = chain.map(|chain| Peer { chain: Arc::new(chain), verdict: tokio::sync::Mutex::const_new(None) });
        Self { stranger, has_asked: AtomicBool::new(false), reading: AtomicUsize::new(0), peer }
    }

    /// A client that may ask has asked: it is no stranger from now on.
    pub(crate) fn has_asked(&self) {
        if !self.has_asked.load(Ordering::Relaxed) && !self.has_asked.swap(true, Ordering::Relaxed) {
            self.stranger.forget();
        }
    }

    /// Whether its client may ask, as of now: a connection outlives its handshake.
    pub(crate) async fn may_ask<D: Deciding>(&self, shared: &Shared<D>) -> bool {
        let Some(peer) = &self.peer else { return true };
        let mut verdict = peer.verdict.lock().await;
        let epoch = shared.epoch.load(Ordering::Acquire);
        if let Some((may, since, by)) = *verdict
            && by == epoch
            && since.elapsed() < VERDICT
        {
            if !may {
                shared.deciding.refused_again();
            }
            return may;
        }
        let may = shared.deciding.may_ask(Arc::clone(&peer.chain)).await;
        *verdict = Some((may, Instant::now(), epoch));
        may
    }

    /// How old it may get.
    pub(crate) fn max_age(&self) -> Option<Duration> {
        self.peer.is_some().then_some(MAX_AGE)
    }
}

/// Connections that have not asked for anything yet, the oldest first.
#[derive(Default)]
pub(crate) struct Strangers(Mutex<BTreeMap<u64, Arc<Notify>>>);

impl Strangers {
    fn locked(&self) -> std::sync::MutexGuard<'_, BTreeMap<u64, Arc<Notify>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The newest.
    pub(crate) fn admit(self: &Arc<Self>, number: u64) -> Stranger {
        let leave = Arc::new(Notify::new());
        self.locked().insert(number, Arc::clone(&leave));
        Stranger { all: Arc::clone(self), number, leave }
    }

    /// Asks the oldest to leave. False: there is none.
    pub(crate) fn make_room(&self) -> bool {
        let oldest = self.locked().pop_first();
        oldest.is_some_and(|(_, leave)| {
            leave.notify_one();
            true
        })
    }
}

/// One of them.
pub(crate) struct Stranger {
    all: Arc<Strangers>,
    number: u64,
    /// Told when it is to leave.
    pub(crate) leave: Arc<Notify>,
}

impl Stranger {
    fn forget(&self) {
        self.all.locked().remove(&self.number);
    }
}

impl Drop for Stranger {
    fn drop(&mut self) {
        self.forget();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_that_has_asked_for_nothing_makes_room() {
        let strangers = Arc::new(Strangers::default());
        let first = Connection::new(strangers.admit(1), None);
        let second = Connection::new(strangers.admit(2), None);
        let third = Connection::new(strangers.admit(3), None);
        first.has_asked();
        drop(second);
        assert!(strangers.make_room());
        assert!(!strangers.make_room(), "one that has asked stays");
        drop((first, third));
    }
}
