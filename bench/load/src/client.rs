//! How a call is made: gRPC over HTTP/2, many on a connection; or plain HTTP/1.1, one after the other.

use std::cell::RefCell;

use bytes::{Bytes, BytesMut};
use h2::client::SendRequest;
use http::{HeaderMap, Request, StatusCode, header};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::answer::{Answer, Outcome, of_http, of_message};
use crate::asked::Asked;
use crate::options::Protocol;
use crate::target::{Io, Target};

const CHECK: &str = "http://127.0.0.1/envoy.service.auth.v3.Authorization/Check";
/// Of a stream and of a connection: flow control is not what is measured.
const STREAM_WINDOW: u32 = 1 << 20;
const CONNECTION_WINDOW: u32 = 1 << 24;
/// An answer of Envoy's, its head and its body: far above what any server here says.
const LONGEST_ANSWER: usize = 1 << 20;
const MOST_HEADERS: usize = 64;

/// Connections that calls share.
pub enum Client {
    /// By turns.
    Grpc(Vec<SendRequest<Bytes>>, Box<Request<()>>),
    /// Those that have no call under way.
    Http(RefCell<Vec<Plain>>),
}

/// One connection of HTTP/1.1.
pub struct Plain {
    io: Box<dyn Io>,
    read: BytesMut,
}

impl Client {
    /// Opens all connections.
    pub async fn connect(target: &Target, protocol: Protocol, connections: usize) -> Result<Self, String> {
        match protocol {
            Protocol::Grpc => {
                let mut senders = Vec::with_capacity(connections);
                for _ in 0..connections {
                    senders.push(handshake(target).await?);
                }
                Ok(Self::Grpc(senders, Box::new(head()?)))
            }
            Protocol::Http => {
                let mut idle = Vec::with_capacity(connections);
                for _ in 0..connections {
                    idle.push(Plain { io: target.connect().await?, read: BytesMut::with_capacity(4_096) });
                }
                Ok(Self::Http(RefCell::new(idle)))
            }
        }
    }

    /// How many calls can be under way at once, where connections bound that.
    pub fn at_once(&self) -> Option<usize> {
        match self {
            Self::Grpc(..) => None,
            Self::Http(idle) => Some(idle.borrow().len()),
        }
    }

    /// Makes the call and judges its answer. `turn` chooses the connection.
    pub async fn call(&self, turn: usize, asked: &Asked) -> Answer {
        let answer = match self {
            Self::Grpc(senders, head) => match senders.get(turn % senders.len().max(1)) {
                Some(sender) => {
                    grpc(sender.clone(), head.as_ref().clone(), asked).await.map_err(|error| error.to_string())
                }
                None => return Answer::of(Outcome::Broken),
            },
            Self::Http(idle) => {
                let taken = idle.borrow_mut().pop();
                let Some(mut plain) = taken else { return Answer::of(Outcome::Broken) };
                let answer = plain.call(asked).await;
                if answer.is_ok() {
                    idle.borrow_mut().push(plain);
                }
                answer
            }
        };
        answer.unwrap_or_else(|_| Answer::of(Outcome::Broken))
    }
}

async fn handshake(target: &Target) -> Result<SendRequest<Bytes>, String> {
    let (sender, connection) = h2::client::Builder::new()
        .initial_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .enable_push(false)
        .handshake(target.connect().await?)
        .await
        .map_err(|error| format!("`{target}` does not speak HTTP/2: {error}"))?;
    tokio::task::spawn_local(async move {
        // What breaks a connection breaks its calls, and is counted there.
        let _ = connection.await;
    });
    Ok(sender)
}

fn head() -> Result<Request<()>, String> {
    Request::post(CHECK)
        .header(header::CONTENT_TYPE, "application/grpc")
        .header(header::TE, "trailers")
        .header(header::USER_AGENT, "signalwarden-load")
        .body(())
        .map_err(|error| format!("the request can't be made: {error}"))
}

async fn grpc(sender: SendRequest<Bytes>, head: Request<()>, asked: &Asked) -> Result<Answer, h2::Error> {
    let (response, mut sending) = sender.ready().await?.send_request(head, false)?;
    sending.send_data(asked.message.clone(), true)?;
    let (parts, mut body) = response.await?.into_parts();
    if parts.status != StatusCode::OK {
        return Ok(Answer::of(Outcome::Http(parts.status.as_u16())));
    }
    let mut message = Bytes::new();
    while let Some(chunk) = body.data().await {
        let chunk = chunk?;
        body.flow_control().release_capacity(chunk.len())?;
        message = if message.is_empty() { chunk } else { [message, chunk].concat().into() };
    }
    // An answer without a message has its status among the headers.
    let trailers = body.trailers().await?;
    Ok(match status(trailers.as_ref().unwrap_or(&parts.headers)) {
        Some(0) => of_message(asked, &message),
        Some(status) => Answer::of(Outcome::Grpc(status)),
        None => Answer::of(Outcome::Wrong),
    })
}

fn status(headers: &HeaderMap) -> Option<u32> {
    headers.get("grpc-status")?.to_str().ok()?.parse().ok()
}

impl Plain {
    async fn call(&mut self, asked: &Asked) -> Result<Answer, String> {
        let broken = |error: std::io::Error| error.to_string();
        self.io.write_all(&asked.head).await.map_err(broken)?;
        loop {
            if let Some((status, head, body)) = lengths(&self.read)?
                && self.read.len() >= head + body
            {
                let answer = self.read.split_to(head + body);
                return Ok(of_http(asked, status, answer.get(head..).unwrap_or_default()));
            }
            if self.read.len() > LONGEST_ANSWER {
                return Err("an answer is longer than any server here gives".to_owned());
            }
            if self.io.read_buf(&mut self.read).await.map_err(broken)? == 0 {
                return Err("the connection was closed".to_owned());
            }
        }
    }
}

/// Status and the lengths of head and body, once the head is there.
fn lengths(read: &[u8]) -> Result<Option<(u16, usize, usize)>, String> {
    let mut headers = [httparse::EMPTY_HEADER; MOST_HEADERS];
    let mut response = httparse::Response::new(&mut headers);
    let head = match response.parse(read) {
        Ok(httparse::Status::Complete(head)) => head,
        Ok(httparse::Status::Partial) => return Ok(None),
        Err(error) => return Err(format!("no answer of HTTP/1.1: {error}")),
    };
    let length = response.headers.iter().find(|header| header.name.eq_ignore_ascii_case("content-length"));
    let body = match length {
        Some(length) => std::str::from_utf8(length.value)
            .ok()
            .and_then(|text| text.parse().ok())
            .filter(|body| *body <= LONGEST_ANSWER)
            .ok_or("an answer's length can't be so")?,
        None => 0,
    };
    Ok(Some((response.code.unwrap_or_default(), head, body)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_measured_once_its_head_is_there() {
        let text = b"HTTP/1.1 403 Forbidden\r\nContent-Length: 3\r\n\r\nabc";
        assert_eq!(lengths(&text[..20]).unwrap(), None);
        assert_eq!(lengths(text).unwrap(), Some((403, text.len() - 3, 3)));
        assert_eq!(lengths(b"HTTP/1.1 200 OK\r\n\r\n").unwrap(), Some((200, 19, 0)));
    }

    #[test]
    fn what_is_no_answer_is_an_error() {
        assert!(lengths(b"nonsense\r\n\r\n").is_err());
        assert!(lengths(b"HTTP/1.1 200 OK\r\ncontent-length: x\r\n\r\n").is_err());
        assert!(lengths(b"HTTP/1.1 200 OK\r\ncontent-length: 99999999999\r\n\r\n").is_err());
    }
}
