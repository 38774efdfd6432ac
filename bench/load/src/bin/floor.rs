//! `floor`: lets everything through without looking, on HTTP/2 in Rust: what any server of `Authorization/Check` costs.
//!
//! It reads the request, answers with an empty `ok_response`, and prints where it listens as its first line.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a program's output")]

use std::convert::Infallible;
use std::io::Write as _;
use std::process::ExitCode;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, Response, header};
use http_body_util::combinators::WithTrailers;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use signalwarden_load::options::{self, Floor};
use signalwarden_load::target::{Io, Target};
use tokio::net::{TcpListener, UnixListener};

/// gRPC's frame of a `CheckResponse` with a status of OK and an empty `ok_response`.
const ALLOW: &[u8] = &[0, 0, 0, 0, 4, 0x0a, 0, 0x1a, 0];

type Trailers = std::future::Ready<Option<Result<HeaderMap, Infallible>>>;

fn main() -> ExitCode {
    match served() {
        Ok(()) => ExitCode::SUCCESS,
        Err(what) => {
            eprintln!("floor: {what}\nusage: {}", options::FLOOR_USAGE);
            ExitCode::from(2)
        }
    }
}

fn served() -> Result<(), String> {
    let options = options::floor(lexopt::Parser::from_env())?;
    let mut builder = match options.threads {
        1 => tokio::runtime::Builder::new_current_thread(),
        _ => tokio::runtime::Builder::new_multi_thread(),
    };
    let runtime = builder
        .worker_threads(options.threads)
        .enable_all()
        .build()
        .map_err(|error| format!("the runtime can't be made: {error}"))?;
    runtime.block_on(listen(&options))
}

async fn listen(options: &Floor) -> Result<(), String> {
    let failed = |error: std::io::Error| format!("`{}` can't be listened on: {error}", options.listen);
    match &options.listen {
        Target::Tcp(address) => {
            let listener = TcpListener::bind(address).await.map_err(failed)?;
            told(&listener.local_addr().map_err(failed)?.to_string());
            loop {
                let (stream, _) = listener.accept().await.map_err(failed)?;
                stream.set_nodelay(true).map_err(failed)?;
                tokio::spawn(serve(Box::new(stream)));
            }
        }
        Target::Unix(path) => {
            let listener = UnixListener::bind(path).map_err(failed)?;
            told(&options.listen.to_string());
            loop {
                let (stream, _) = listener.accept().await.map_err(failed)?;
                tokio::spawn(serve(Box::new(stream)));
            }
        }
    }
}

fn told(place: &str) {
    println!("{place}");
    let _ = std::io::stdout().flush();
}

async fn serve(stream: Box<dyn Io>) {
    // A connection that breaks is the caller's to notice.
    let _ = http2::Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(stream), service_fn(allow)).await;
}

async fn allow(request: Request<Incoming>) -> Result<Response<WithTrailers<Full<Bytes>, Trailers>>, hyper::Error> {
    request.into_body().collect().await?;
    let trailers =
        HeaderMap::from_iter([(header::HeaderName::from_static("grpc-status"), HeaderValue::from_static("0"))]);
    let body = Full::new(Bytes::from_static(ALLOW)).with_trailers(std::future::ready(Some(Ok(trailers))));
    let mut response = Response::new(body);
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    Ok(response)
}
