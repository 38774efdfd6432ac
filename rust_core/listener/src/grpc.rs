//! gRPC over HTTP/2 as the door speaks it: statuses, the frame of a message, a call's headers (gRPC's
//! `PROTOCOL-HTTP2.md`).

use crate::limits::{MAX_MESSAGE, MAX_TIMEOUT};
use bytes::{BufMut, Bytes, BytesMut};
use http::{HeaderMap, HeaderName, HeaderValue, header::CONTENT_TYPE};
use std::time::Duration;

/// Of each message: a flag, and its length in four bytes.
pub(crate) const PREFIX: usize = 5;
/// What the door sends and takes.
pub(crate) const GRPC: HeaderValue = HeaderValue::from_static("application/grpc");
const STATUS: HeaderName = HeaderName::from_static("grpc-status");
const MESSAGE: HeaderName = HeaderName::from_static("grpc-message");
const TIMEOUT: HeaderName = HeaderName::from_static("grpc-timeout");
const DIGITS: usize = 8;

/// How a call ended, where it did not end well: a code of gRPC's and a sentence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Status {
    /// As in gRPC's `statuscodes.md`.
    pub code: u8,
    /// ASCII without `%`, so that nothing of it has to be escaped.
    pub message: &'static str,
}

impl Status {
    pub(crate) const DEADLINE: Self = Self { code: 4, message: "the deadline has passed" };
    pub(crate) const NOT_FOUND: Self = Self { code: 5, message: "no such service" };
    /// All that a client which may not ask is told.
    pub const REFUSED: Self = Self { code: 7, message: "this client may not ask" };
    pub(crate) const TOO_LARGE: Self = Self { code: 8, message: "expected a message of at most 4 MiB" };
    pub(crate) const TOO_MANY: Self = Self { code: 8, message: "too many calls at once" };
    pub(crate) const UNKNOWN: Self = Self { code: 12, message: "no such method" };
    pub(crate) const COMPRESSED: Self = Self { code: 12, message: "expected a message without compression" };
    pub(crate) const BROKEN: Self = Self { code: 13, message: "expected one whole message" };
    pub(crate) const NO_ANSWER: Self = Self { code: 13, message: "there is no answer" };
    pub(crate) const BAD_TIMEOUT: Self =
        Self { code: 13, message: "expected a grpc-timeout of 1 to 8 digits and a unit" };
    pub(crate) const SLOW: Self = Self { code: 1, message: "the message did not come" };

    /// As trailers, or as headers of an answer that has nothing else.
    pub(crate) fn write(self, headers: &mut HeaderMap) {
        headers.insert(STATUS, HeaderValue::from(u16::from(self.code)));
        headers.insert(MESSAGE, HeaderValue::from_static(self.message));
    }
}

/// The trailers of a call that ended well.
pub(crate) fn good() -> HeaderMap {
    let mut trailers = HeaderMap::with_capacity(1);
    trailers.insert(STATUS, HeaderValue::from_static("0"));
    trailers
}

/// Whether the headers are those of a call of gRPC: `application/grpc`, with whatever stands behind `+` or `;`.
pub(crate) fn is_grpc(headers: &HeaderMap) -> bool {
    headers.get(CONTENT_TYPE).is_some_and(|kind| {
        let kind = kind.as_bytes();
        kind.strip_prefix(GRPC.as_bytes()).is_some_and(|rest| matches!(rest.first(), None | Some(b'+' | b';')))
    })
}

/// The time that a call gives us. None: any. Fails for what is no `grpc-timeout`.
pub(crate) fn timeout(headers: &HeaderMap) -> Result<Option<Duration>, Status> {
    let Some(value) = headers.get(TIMEOUT) else { return Ok(None) };
    let (digits, unit) = value.as_bytes().split_last().map(|(unit, digits)| (digits, *unit)).unwrap_or_default();
    if digits.is_empty() || digits.len() > DIGITS || !digits.iter().all(u8::is_ascii_digit) {
        return Err(Status::BAD_TIMEOUT);
    }
    let count = digits.iter().fold(0_u64, |sum, digit| sum * 10 + u64::from(digit - b'0'));
    let given = match unit {
        b'H' => Duration::from_secs(count * 3_600),
        b'M' => Duration::from_secs(count * 60),
        b'S' => Duration::from_secs(count),
        b'm' => Duration::from_millis(count),
        b'u' => Duration::from_micros(count),
        b'n' => Duration::from_nanos(count),
        _ => return Err(Status::BAD_TIMEOUT),
    };
    Ok((given <= MAX_TIMEOUT).then_some(given))
}

/// A message in its frame.
pub(crate) fn framed(message: &[u8]) -> Bytes {
    let mut frame = BytesMut::with_capacity(PREFIX + message.len());
    frame.put_u8(0);
    frame.put_u32(u32::try_from(message.len()).unwrap_or(u32::MAX));
    frame.put_slice(message);
    frame.freeze()
}

/// One message as it comes in, in pieces of any size.
#[derive(Default)]
pub(crate) struct Message {
    /// Usually the whole of it, as it lies in the connection's buffer.
    first: Bytes,
    /// All that came, where it came in pieces.
    rest: BytesMut,
}

impl Message {
    fn held(&self) -> &[u8] {
        if self.rest.is_empty() { &self.first } else { &self.rest }
    }

    /// The next piece. Fails as soon as it can't become one message that we take.
    pub(crate) fn take(&mut self, piece: Bytes) -> Result<(), Status> {
        if self.held().is_empty() {
            self.first = piece;
        } else {
            if self.rest.is_empty() {
                self.rest.extend_from_slice(&self.first);
            }
            self.rest.extend_from_slice(&piece);
        }
        let Some((length, is_compressed)) = self.prefix() else { return Ok(()) };
        if length > MAX_MESSAGE {
            return Err(Status::TOO_LARGE);
        }
        if is_compressed {
            return Err(Status::COMPRESSED);
        }
        if self.held().len() > PREFIX + length { Err(Status::BROKEN) } else { Ok(()) }
    }

    /// The message, once nothing more comes.
    pub(crate) fn end(self) -> Result<Bytes, Status> {
        let Some((length, _)) = self.prefix() else { return Err(Status::BROKEN) };
        if self.held().len() != PREFIX + length {
            return Err(Status::BROKEN);
        }
        let whole = if self.rest.is_empty() { self.first } else { self.rest.freeze() };
        Ok(whole.slice(PREFIX..))
    }

    fn prefix(&self) -> Option<(usize, bool)> {
        let (prefix, _) = self.held().split_first_chunk::<PREFIX>()?;
        let [flag, length @ ..] = *prefix;
        Some((u32::from_be_bytes(length) as usize, flag != 0))
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test that fails says where")]
mod tests {
    use super::*;

    fn headers(name: HeaderName, value: &str) -> HeaderMap {
        HeaderMap::from_iter([(name, HeaderValue::from_str(value).unwrap())])
    }

    #[test]
    fn only_the_content_types_of_grpc_are_taken() {
        for good in ["application/grpc", "application/grpc+proto", "application/grpc;charset=utf-8"] {
            assert!(is_grpc(&headers(CONTENT_TYPE, good)), "{good}");
        }
        for bad in ["application/grpcx", "text/plain", "", "application/grp"] {
            assert!(!is_grpc(&headers(CONTENT_TYPE, bad)), "{bad}");
        }
        assert!(!is_grpc(&HeaderMap::new()));
    }

    #[test]
    fn a_timeout_is_digits_and_a_unit() {
        let given = |text| timeout(&headers(TIMEOUT, text));
        assert_eq!(given("1n"), Ok(Some(Duration::from_nanos(1))));
        assert_eq!(given("250m"), Ok(Some(Duration::from_millis(250))));
        assert_eq!(given("99999999u"), Ok(Some(Duration::from_micros(99_999_999))));
        assert_eq!(given("3S"), Ok(Some(Duration::from_secs(3))));
        assert_eq!(given("60M"), Ok(Some(Duration::from_secs(3_600))));
        assert_eq!(given("99999999H"), Ok(None), "more than an hour is no deadline");
        assert_eq!(timeout(&HeaderMap::new()), Ok(None));
        for bad in ["", "m", "10", "-1m", "1.5S", "123456789m", "1x", " 1m"] {
            assert_eq!(given(bad), Err(Status::BAD_TIMEOUT), "{bad:?}");
        }
    }

    #[test]
    fn a_message_is_the_same_however_it_is_cut() {
        let frame = framed(b"a message of some length");
        for cut in 0..=frame.len() {
            for other in cut..=frame.len() {
                let mut message = Message::default();
                for piece in [frame.slice(..cut), frame.slice(cut..other), frame.slice(other..)] {
                    message.take(piece).unwrap();
                }
                assert_eq!(message.end().unwrap(), "a message of some length");
            }
        }
    }

    #[test]
    fn what_is_not_one_whole_message_is_refused() {
        let taken = |bytes: &[u8]| {
            let mut message = Message::default();
            message.take(Bytes::copy_from_slice(bytes)).and_then(|()| message.end())
        };
        assert_eq!(taken(b""), Err(Status::BROKEN));
        assert_eq!(taken(&[0, 0, 0, 0]), Err(Status::BROKEN));
        assert_eq!(taken(&[0, 0, 0, 0, 3, 1, 2]), Err(Status::BROKEN), "half a message");
        assert_eq!(taken(&[0, 0, 0, 0, 1, 1, 0, 0, 0, 0, 1, 1]), Err(Status::BROKEN), "two of them");
        assert_eq!(taken(&[1, 0, 0, 0, 1, 1]), Err(Status::COMPRESSED));
        assert_eq!(taken(&[0, 0, 64, 0, 1]), Err(Status::TOO_LARGE), "said by its first five bytes");
        assert_eq!(taken(&[0, 0, 0, 0, 0]).unwrap(), "");
    }
}
