//! How calls of one connection are run: those that arrived together one after the other, so that their answers leave
//! together. A runtime would go back to the connection after each of them, and a write to a socket costs as much as a
//! third of a check.

use hyper::rt::Executor;
use std::{
    future::Future,
    panic::{AssertUnwindSafe, catch_unwind},
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Waker},
};

/// Calls that are run before the connection may write: the first of them waits for the others, and each takes some 50 µs.
const MOST_TOGETHER: usize = 8;

type Call = Pin<Box<dyn Future<Output = ()> + Send>>;

/// The calls of one connection that have arrived and were not yet begun.
#[derive(Clone, Default)]
pub(crate) struct Together(Arc<Mutex<Vec<Call>>>);

impl<F> Executor<F> for Together
where
    F: Future + Send + 'static,
    F::Output: Send,
{
    fn execute(&self, call: F) {
        let mut waiting = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        waiting.push(Box::pin(async move { drop(call.await) }));
        // Whoever is first begins them all, once the connection has read what there is.
        if waiting.len() == 1 {
            tokio::spawn(begin(Arc::clone(&self.0)));
        }
    }
}

async fn begin(waiting: Arc<Mutex<Vec<Call>>>) {
    // Whatever comes after this finds nobody waiting, and is begun by a task of its own.
    let calls = std::mem::take(&mut *waiting.lock().unwrap_or_else(PoisonError::into_inner));
    for (at, call) in calls.into_iter().enumerate() {
        if at > 0 && at % MOST_TOGETHER == 0 {
            tokio::task::yield_now().await;
        }
        begun(call);
    }
}

/// Nearly every call ends at once. One that waits for something is a task of its own, which looks again by itself; so is
/// nobody's panic another call's end.
fn begun(mut call: Call) {
    let polled = catch_unwind(AssertUnwindSafe(|| call.as_mut().poll(&mut Context::from_waker(Waker::noop()))));
    if polled.is_ok_and(|polled| polled.is_pending()) {
        tokio::spawn(call);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;
    use tokio::{sync::mpsc, time::timeout};

    const LONG: Duration = Duration::from_secs(10);

    #[tokio::test]
    async fn calls_that_came_together_run_in_their_order_and_none_is_lost() {
        let (together, (said, mut heard)) = (Together::default(), mpsc::unbounded_channel());
        for round in [0, 100] {
            for at in round..round + 3 * MOST_TOGETHER {
                let said = said.clone();
                together.execute(async move { assert!(said.send(at).is_ok()) });
            }
            for at in round..round + 3 * MOST_TOGETHER {
                assert_eq!(timeout(LONG, heard.recv()).await, Ok(Some(at)));
            }
        }
    }

    #[tokio::test]
    async fn a_call_that_waits_or_panics_keeps_nobody_waiting() {
        let (together, (said, mut heard)) = (Together::default(), mpsc::unbounded_channel());
        let (open, gate) = tokio::sync::oneshot::channel::<()>();
        let (first, last) = (said.clone(), said);
        together.execute(async move {
            let _ = gate.await;
            assert!(first.send("waited").is_ok());
        });
        together.execute(async { std::panic::resume_unwind(Box::new("planted")) });
        together.execute(async move { assert!(last.send("at once").is_ok()) });
        assert_eq!(timeout(LONG, heard.recv()).await, Ok(Some("at once")));
        assert!(open.send(()).is_ok());
        assert_eq!(timeout(LONG, heard.recv()).await, Ok(Some("waited")));
    }
}
