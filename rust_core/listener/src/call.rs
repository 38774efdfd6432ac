//! One call: which method it names, its message, and its answer.

use crate::{
    body::Reply,
    connection::Connection,
    grpc::{self, GRPC, Message, Status},
    limits::{MAX_MESSAGE, MAX_READING, MAX_READING_HERE, MESSAGE, SMALL_MESSAGE},
    serve::{Decided, Deciding, Shared},
};
use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, StatusCode, header::CONTENT_TYPE};
use http_body::Body as _;
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use std::{
    future::Future,
    sync::atomic::{AtomicUsize, Ordering},
};
use tokio::time::Instant;

const CHECK: &str = "/envoy.service.auth.v3.Authorization/Check";
const HEALTH_CHECK: &str = "/grpc.health.v1.Health/Check";
const HEALTH_WATCH: &str = "/grpc.health.v1.Health/Watch";
const ENCODING: &str = "grpc-encoding";
const ACCEPT_ENCODING: &str = "grpc-accept-encoding";

/// What a call asks for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Asked {
    Check,
    HealthCheck,
    HealthWatch,
}

/// The answer of a call. Total: whatever comes, something is answered.
pub(crate) async fn answer<D: Deciding>(
    shared: &Shared<D>,
    connection: &Connection,
    request: Request<Incoming>,
) -> Response<Reply> {
    if !grpc::is_grpc(request.headers()) {
        return bare(StatusCode::UNSUPPORTED_MEDIA_TYPE);
    }
    if request.method() != Method::POST {
        return bare(StatusCode::METHOD_NOT_ALLOWED);
    }
    let asked = match request.uri().path() {
        CHECK => Asked::Check,
        HEALTH_CHECK => Asked::HealthCheck,
        HEALTH_WATCH => Asked::HealthWatch,
        _ => {
            shared.counts.unknown.fetch_add(1, Ordering::Relaxed);
            return ended(Status::UNKNOWN);
        }
    };
    match answered(shared, connection, asked, request).await {
        Ok(reply) => with(reply),
        Err(status) => ended(status),
    }
}

async fn answered<D: Deciding>(
    shared: &Shared<D>,
    connection: &Connection,
    asked: Asked,
    request: Request<Incoming>,
) -> Result<Reply, Status> {
    let mut reaching = Reaching::of(asked, &shared.counts.undelivered);
    let _place = shared.calls.try_acquire().map_err(|_| Status::TOO_MANY)?;
    let start = Instant::now();
    let deadline = grpc::timeout(request.headers())?.map(|given| start + given);
    if request.headers().get(ENCODING).is_some_and(|encoding| encoding != "identity") {
        return Err(Status::COMPRESSED);
    }
    let message = read(&[&shared.reading, &connection.reading], request.into_body(), start, deadline).await?;
    match asked {
        Asked::HealthCheck => shared.health.check(&message),
        Asked::HealthWatch => shared.health.watch(&message),
        Asked::Check => {
            let may_ask = connection.may_ask(shared).await;
            reaching.is_over = true;
            if !may_ask {
                return Err(Status::REFUSED);
            }
            connection.has_asked();
            let answer = match shared.deciding.check(message) {
                Decided::Answer(answer) => Some(answer),
                Decided::Later(answer) => until(deadline, answer).await.ok_or(Status::DEADLINE)?,
                Decided::Nothing => None,
            };
            let answer = answer.filter(|answer| !answer.is_empty()).ok_or(Status::NO_ANSWER)?;
            Ok(Reply::Once(Some(grpc::framed(&answer))))
        }
    }
}

/// The whole message, in its time.
async fn read(
    reading: &[&AtomicUsize; 2],
    mut body: Incoming,
    start: Instant,
    deadline: Option<Instant>,
) -> Result<Bytes, Status> {
    if deadline.is_some_and(|deadline| deadline <= Instant::now()) {
        return Err(Status::DEADLINE);
    }
    let mut held = Held { reading, bytes: 0, counted: 0 };
    let mut message = Message::default();
    let reading = async {
        while !body.is_end_stream() {
            let Some(frame) = body.frame().await else { break };
            let Ok(frame) = frame else { return Err(Status::SLOW) };
            let Ok(piece) = frame.into_data() else { break };
            if piece.is_empty() {
                continue;
            }
            held.take(piece.len())?;
            message.take(piece)?;
        }
        message.end()
    };
    let last = start + MESSAGE;
    let (by, late) = match deadline {
        Some(deadline) if deadline < last => (deadline, Status::DEADLINE),
        _ => (last, Status::SLOW),
    };
    tokio::time::timeout_at(by, reading).await.unwrap_or(Err(late))
}

async fn until<T>(deadline: Option<Instant>, later: impl Future<Output = T>) -> Option<T> {
    match deadline {
        None => Some(later.await),
        Some(deadline) => tokio::time::timeout_at(deadline, later).await.ok(),
    }
}

/// Counts a check as undelivered that ends before its message is there.
struct Reaching<'a> {
    undelivered: &'a std::sync::atomic::AtomicU64,
    is_over: bool,
}

impl<'a> Reaching<'a> {
    fn of(asked: Asked, undelivered: &'a std::sync::atomic::AtomicU64) -> Self {
        Self { undelivered, is_over: asked != Asked::Check }
    }
}

impl Drop for Reaching<'_> {
    fn drop(&mut self) {
        if !self.is_over {
            self.undelivered.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// What one call holds of what all may, and of what its connection may.
struct Held<'a> {
    reading: &'a [&'a AtomicUsize; 2],
    bytes: usize,
    counted: usize,
}

impl Held<'_> {
    fn take(&mut self, more: usize) -> Result<(), Status> {
        self.bytes += more;
        if self.bytes > grpc::PREFIX + MAX_MESSAGE {
            return Err(Status::TOO_LARGE);
        }
        if self.bytes <= SMALL_MESSAGE {
            return Ok(());
        }
        self.counted += more;
        let [all, here] = self.reading.map(|held| held.fetch_add(more, Ordering::Relaxed) + more);
        if all > MAX_READING || here > MAX_READING_HERE { Err(Status::TOO_MANY) } else { Ok(()) }
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        for held in self.reading {
            held.fetch_sub(self.counted, Ordering::Relaxed);
        }
    }
}

fn with(reply: Reply) -> Response<Reply> {
    let mut response = Response::new(reply);
    response.headers_mut().insert(CONTENT_TYPE, GRPC);
    response
}

/// An answer of headers alone, as gRPC has it ("trailers-only").
fn ended(status: Status) -> Response<Reply> {
    let mut response = with(Reply::Empty);
    status.write(response.headers_mut());
    if status == Status::COMPRESSED {
        response.headers_mut().insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
    }
    response
}

/// What is no call of gRPC is told so in HTTP.
fn bare(code: StatusCode) -> Response<Reply> {
    let mut response = Response::new(Reply::Empty);
    *response.status_mut() = code;
    response
}
