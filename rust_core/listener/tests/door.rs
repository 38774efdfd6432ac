//! The door with a client of HTTP/2 on the other side: answers, health, opening and closing.

#![expect(clippy::unwrap_used, reason = "a test that fails says where")]

use bytes::Bytes;
use http::{HeaderMap, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper::{
    body::Incoming,
    client::conn::http2::{SendRequest, handshake},
};
use hyper_util::rt::{TokioExecutor, TokioIo};
use signalwarden_listener::{Address, Chain, Decided, Deciding, Front, Later};
use std::{
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::{net::TcpStream, runtime::Runtime, sync::Notify};

const CHECK: &str = "/envoy.service.auth.v3.Authorization/Check";
const HEALTH: &str = "/grpc.health.v1.Health/Check";
const WATCH: &str = "/grpc.health.v1.Health/Watch";
const SERVING: &[u8] = &[0, 0, 0, 0, 2, 8, 1];
const NOT_SERVING: &[u8] = &[0, 0, 0, 0, 2, 8, 2];

/// Answers with what it was asked, behind a mark.
struct Echo {
    later: Arc<Notify>,
}

impl Deciding for Echo {
    fn check(&self, request: Bytes) -> Decided {
        match &*request {
            b"nothing" => Decided::Nothing,
            b"empty" => Decided::Answer(Vec::new()),
            b"panic" => std::panic::resume_unwind(Box::new("asked for")),
            b"later" => {
                let later = Arc::clone(&self.later);
                Decided::Later(Box::pin(async move {
                    later.notified().await;
                    Some(b"at last".to_vec())
                }))
            }
            asked => Decided::Answer([b"=", asked].concat()),
        }
    }

    fn may_ask(&self, _chain: Arc<Chain>) -> Later<bool> {
        Box::pin(std::future::ready(true))
    }

    fn refused_again(&self) {}
}

struct Stage {
    client: Runtime,
    front: Arc<Front<Echo>>,
    later: Arc<Notify>,
}

fn stage() -> Stage {
    let later = Arc::new(Notify::new());
    let deciding = Echo { later: Arc::clone(&later) };
    let front = Front::bind(deciding, &Address::Tcp("127.0.0.1:0".parse().unwrap()), 1, None).unwrap();
    front.start();
    let client = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    Stage { client, front: Arc::new(front), later }
}

impl Stage {
    fn connect(&self) -> SendRequest<Full<Bytes>> {
        self.client.block_on(async {
            let io = TcpStream::connect(("127.0.0.1", self.front.port())).await.unwrap();
            let (sender, connection) = handshake(TokioExecutor::new(), TokioIo::new(io)).await.unwrap();
            tokio::spawn(connection);
            sender
        })
    }

    /// Message and trailers of a call, or the headers where there is nothing else.
    fn call(&self, sender: &SendRequest<Full<Bytes>>, path: &str, message: &[u8]) -> (Bytes, HeaderMap) {
        self.client.block_on(within(whole(sender.clone(), request(path, message))))
    }
}

async fn within<T>(work: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(10), work).await.unwrap()
}

fn framed(message: &[u8]) -> Bytes {
    let length = u32::try_from(message.len()).unwrap().to_be_bytes();
    [&[0], &length[..], message].concat().into()
}

fn request(path: &str, message: &[u8]) -> Request<Full<Bytes>> {
    let built = Request::post(format!("http://door{path}")).header("content-type", "application/grpc");
    built.body(Full::new(framed(message))).unwrap()
}

async fn whole(mut sender: SendRequest<Full<Bytes>>, request: Request<Full<Bytes>>) -> (Bytes, HeaderMap) {
    sender.ready().await.unwrap();
    let response: Response<Incoming> = sender.send_request(request).await.unwrap();
    let headers = response.headers().clone();
    let body = response.into_body().collect().await.unwrap();
    let trailers = body.trailers().cloned().unwrap_or(headers);
    (body.to_bytes(), trailers)
}

fn status(headers: &HeaderMap) -> &str {
    headers.get("grpc-status").unwrap().to_str().unwrap()
}

#[test]
fn a_check_is_answered_and_ends_well() {
    let stage = stage();
    let sender = stage.connect();
    for asked in ["", "a call", &"x".repeat(300_000)] {
        let (message, trailers) = stage.call(&sender, CHECK, asked.as_bytes());
        assert_eq!(message, framed(format!("={asked}").as_bytes()));
        assert_eq!(status(&trailers), "0");
    }
    assert_eq!(stage.front.counts(), (0, 0, 0));
}

#[test]
fn no_answer_is_never_an_empty_one() {
    let stage = stage();
    let sender = stage.connect();
    for asked in ["nothing", "empty"] {
        let (message, trailers) = stage.call(&sender, CHECK, asked.as_bytes());
        assert!(message.is_empty(), "an empty CheckResponse is a yes to Envoy");
        assert_eq!(status(&trailers), "13");
    }
}

#[test]
fn a_fault_of_whoever_decides_ends_one_call_and_no_other() {
    let stage = stage();
    let sender = stage.connect();
    let mut other = sender.clone();
    let failed = stage.client.block_on(within(async { other.send_request(request(CHECK, b"panic")).await }));
    assert!(failed.is_err());
    let (message, _) = stage.call(&sender, CHECK, b"next");
    assert_eq!(message, framed(b"=next"));
}

#[test]
fn what_is_no_call_is_told_so() {
    let stage = stage();
    let sender = stage.connect();
    let (_, headers) = stage.call(&sender, "/no.Such/Call", b"");
    assert_eq!(status(&headers), "12");
    let mut plain = request(CHECK, b"");
    plain.headers_mut().insert("content-type", "text/plain".parse().unwrap());
    let mut other = sender.clone();
    let response = stage.client.block_on(within(async { other.send_request(plain).await })).unwrap();
    assert_eq!(response.status(), StatusCode::UNSUPPORTED_MEDIA_TYPE);
    let mut late = request(CHECK, b"later");
    late.headers_mut().insert("grpc-timeout", "50m".parse().unwrap());
    let (_, headers) = stage.client.block_on(within(whole(sender.clone(), late)));
    assert_eq!(status(&headers), "4");
    assert_eq!(stage.front.counts(), (0, 1, 0), "the late one had reached its decision");
}

#[test]
fn a_message_that_does_not_come_whole_is_undelivered() {
    let stage = stage();
    let sender = stage.connect();
    let mut half = request(CHECK, b"");
    *half.body_mut() = Full::new(Bytes::from_static(&[0, 0, 0, 0, 100, 1, 2, 3]));
    let (_, headers) = stage.client.block_on(within(whole(sender.clone(), half)));
    assert_eq!(status(&headers), "13");
    let mut large = request(CHECK, b"");
    *large.body_mut() = Full::new([&[0, 0, 64, 0, 1][..], &[7; 1_000]].concat().into());
    let (_, headers) = stage.client.block_on(within(whole(sender.clone(), large)));
    assert_eq!(status(&headers), "8");
    assert_eq!(stage.front.counts(), (2, 0, 0));
    assert_eq!(stage.call(&sender, CHECK, b"next").0, framed(b"=next"));
}

#[test]
fn health_is_asked_and_watched() {
    let stage = stage();
    let sender = stage.connect();
    for known in [Vec::new(), service("envoy.service.auth.v3.Authorization")] {
        assert_eq!(stage.call(&sender, HEALTH, &known).0, SERVING);
    }
    assert_eq!(status(&stage.call(&sender, HEALTH, &service("nope")).1), "5");
    let mut watching = sender.clone();
    let mut stream =
        stage.client.block_on(within(async { watching.send_request(request(WATCH, b"")).await })).unwrap().into_body();
    let mut next = || stage.client.block_on(within(stream.frame())).unwrap().unwrap();
    assert_eq!(next().into_data().unwrap(), SERVING);
    let front = Arc::clone(&stage.front);
    let stopping = std::thread::spawn(move || front.stop(Duration::from_secs(5)));
    assert_eq!(next().into_data().unwrap(), NOT_SERVING);
    assert_eq!(status(&next().into_trailers().unwrap()), "14");
    stopping.join().unwrap();
}

fn service(name: &str) -> Vec<u8> {
    [&[10, u8::try_from(name.len()).unwrap()], name.as_bytes()].concat()
}

#[test]
fn a_door_that_closes_lets_calls_in_flight_end() {
    let stage = stage();
    let sender = stage.connect();
    let asked = stage.client.spawn(whole(sender.clone(), request(CHECK, b"later")));
    std::thread::sleep(Duration::from_millis(100));
    let front = Arc::clone(&stage.front);
    let stopping = std::thread::spawn(move || front.stop(Duration::from_secs(10)));
    std::thread::sleep(Duration::from_millis(100));
    stage.later.notify_one();
    let (message, trailers) = stage.client.block_on(within(asked)).unwrap();
    assert_eq!((message, status(&trailers)), (framed(b"at last"), "0"));
    let start = Instant::now();
    stopping.join().unwrap();
    assert!(start.elapsed() < Duration::from_secs(5), "it does not wait for the whole grace");
    stage.front.stop(Duration::ZERO);
}

#[test]
fn a_door_cuts_off_what_does_not_end_in_its_grace() {
    let stage = stage();
    let sender = stage.connect();
    let asked = stage.client.spawn(async move {
        let mut sender = sender;
        sender.send_request(request(CHECK, b"later")).await.is_err()
    });
    std::thread::sleep(Duration::from_millis(100));
    stage.front.stop(Duration::from_millis(200));
    assert!(stage.client.block_on(within(asked)).unwrap());
}
