//! `grpc.health.v1` (gRPC's `health-checking.md`): one state for the server and for its service.

use crate::{
    body::Reply,
    grpc::{self, Status},
    limits::MAX_WATCHERS,
};
use bytes::Bytes;
use prost::Message as _;
use std::{
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};

/// The service that the door serves.
pub(crate) const SERVICE: &str = "envoy.service.auth.v3.Authorization";
/// How streams of health end when the door closes.
pub(crate) const ENDED: Status = Status { code: 14, message: "the server stops" };

const UNKNOWN: i32 = 3;

/// Whether checks are answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    Serving,
    NotServing,
    /// Not serving, and no stream goes on.
    Closing,
}

impl State {
    fn code(self) -> i32 {
        match self {
            Self::Serving => 1,
            Self::NotServing | Self::Closing => 2,
        }
    }
}

#[derive(Clone, PartialEq, prost::Message)]
struct Request {
    #[prost(string, tag = "1")]
    service: String,
}

#[derive(Clone, Copy, PartialEq, prost::Message)]
struct Response {
    #[prost(int32, tag = "1")]
    status: i32,
}

fn response(status: i32) -> Bytes {
    grpc::framed(&Response { status }.encode_to_vec())
}

fn is_known(service: &str) -> bool {
    service.is_empty() || service == SERVICE
}

/// The state, and how many watch it.
pub(crate) struct Health {
    state: watch::Sender<State>,
    watchers: Arc<Semaphore>,
}

impl Health {
    pub(crate) fn new() -> Self {
        Self { state: watch::Sender::new(State::NotServing), watchers: Arc::new(Semaphore::new(MAX_WATCHERS)) }
    }

    pub(crate) fn set(&self, state: State) {
        self.state.send_replace(state);
    }

    /// `Health/Check`.
    pub(crate) fn check(&self, request: &Bytes) -> Result<Reply, Status> {
        let request = Request::decode(&**request).map_err(|_| Status::BROKEN)?;
        if !is_known(&request.service) {
            return Err(Status::NOT_FOUND);
        }
        Ok(Reply::Once(Some(response(self.state.borrow().code()))))
    }

    /// `Health/Watch`. A service that we don't know may be one some day: its stream stays open.
    pub(crate) fn watch(&self, request: &Bytes) -> Result<Reply, Status> {
        let request = Request::decode(&**request).map_err(|_| Status::BROKEN)?;
        let permit = Arc::clone(&self.watchers).try_acquire_owned().map_err(|_| Status::TOO_MANY)?;
        let state = self.state.subscribe();
        Ok(Reply::Watching(Box::new(Watching {
            is_known: is_known(&request.service),
            said: None,
            next: Box::pin(std::future::ready(Some(state))),
            is_closing: false,
            _permit: permit,
        })))
    }
}

type Changed = Pin<Box<dyn Future<Output = Option<watch::Receiver<State>>> + Send>>;

/// One stream of health.
pub(crate) struct Watching {
    is_known: bool,
    said: Option<i32>,
    next: Changed,
    is_closing: bool,
    _permit: OwnedSemaphorePermit,
}

impl Watching {
    /// The next message; None: the stream ends.
    pub(crate) fn poll(&mut self, context: &mut Context<'_>) -> Poll<Option<Bytes>> {
        loop {
            if self.is_closing {
                return Poll::Ready(None);
            }
            let Poll::Ready(changed) = self.next.as_mut().poll(context) else { return Poll::Pending };
            let Some(mut state) = changed else { return Poll::Ready(None) };
            let now = *state.borrow_and_update();
            self.is_closing = now == State::Closing;
            self.next = Box::pin(async move { state.changed().await.ok().map(|()| state) });
            let status = if self.is_known { now.code() } else { UNKNOWN };
            if self.said != Some(status) {
                self.said = Some(status);
                return Poll::Ready(Some(response(status)));
            }
        }
    }
}
