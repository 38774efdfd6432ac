//! What a connection's first bytes and frames tell before the protocol's own library sees them: that the preface comes
//! in time, and that frames which ask for nothing do not come without end.

use crate::limits::{IDLE_FRAMES_PER_CALL, MAX_IDLE_FRAMES, PREFACE};
use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
    time::{Duration, Instant},
};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};

/// How HTTP/2 opens (RFC 9113, section 3.4).
const OPENING: [u8; 24] = *b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// Of each frame: length, type, flags, stream (RFC 9113, section 4.1).
const HEAD: usize = 9;
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const SECOND: Duration = Duration::from_secs(1);
const END_STREAM: u8 = 1;

/// Reads the preface; whoever does not send it in time, or sends something else, is no client.
pub(crate) async fn opened<T: AsyncRead + AsyncWrite + Unpin>(mut io: T) -> io::Result<Guarded<T>> {
    let mut opening = [0; OPENING.len()];
    let read = tokio::time::timeout(PREFACE, io.read_exact(&mut opening)).await;
    read.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
    if opening != OPENING {
        return Err(io::Error::from(io::ErrorKind::InvalidData));
    }
    Ok(Guarded { io, replayed: 0, frames: Frames::new(Instant::now()) })
}

/// A connection whose frames are counted as they are read.
pub(crate) struct Guarded<T> {
    io: T,
    /// How much of the opening the reader has had again.
    replayed: usize,
    frames: Frames,
}

impl<T: AsyncRead + Unpin> AsyncRead for Guarded<T> {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if let Some(left) = OPENING.get(self.replayed..).filter(|left| !left.is_empty()) {
            let piece = left.get(..into.remaining().min(left.len())).unwrap_or(left);
            into.put_slice(piece);
            self.replayed += piece.len();
            return Poll::Ready(Ok(()));
        }
        let before = into.filled().len();
        let polled = Pin::new(&mut self.io).poll_read(context, into);
        if matches!(polled, Poll::Ready(Ok(()))) {
            let came = into.filled().get(before..).unwrap_or_default();
            if !self.frames.pass(came, Instant::now) {
                return Poll::Ready(Err(io::Error::other("more frames that ask for nothing than a client sends")));
            }
        }
        polled
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Guarded<T> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, from: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(context, from)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        from: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write_vectored(context, from)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(context)
    }
}

/// Walks from frame to frame; of a frame it looks at the head alone.
struct Frames {
    /// Of a head that came in pieces.
    head: [u8; HEAD],
    have: usize,
    /// Bytes of a payload that are still to come.
    left: usize,
    since: Instant,
    idle: u32,
    calls: u32,
}

impl Frames {
    fn new(now: Instant) -> Self {
        Self { head: [0; HEAD], have: 0, left: 0, since: now, idle: 0, calls: 0 }
    }

    /// False: this connection has sent too many that ask for nothing. The clock is read only where it matters.
    fn pass(&mut self, mut came: &[u8], clock: impl Fn() -> Instant) -> bool {
        while !came.is_empty() {
            let skipped = self.left.min(came.len());
            self.left -= skipped;
            came = came.get(skipped..).unwrap_or_default();
            if came.is_empty() {
                break;
            }
            for byte in came.iter().take(HEAD - self.have) {
                if let Some(place) = self.head.get_mut(self.have) {
                    *place = *byte;
                }
                self.have += 1;
                came = came.get(1..).unwrap_or_default();
            }
            if self.have == HEAD && !self.count(&clock) {
                return false;
            }
        }
        true
    }

    fn count(&mut self, clock: &impl Fn() -> Instant) -> bool {
        let [high, middle, low, kind, flags, ..] = self.head;
        let length = u32::from_be_bytes([0, high, middle, low]);
        self.have = 0;
        self.left = length as usize;
        let asks = match kind {
            HEADERS => {
                self.calls = self.calls.saturating_add(1);
                true
            }
            DATA => length > 0 || flags & END_STREAM != 0,
            _ => false,
        };
        if asks {
            return true;
        }
        self.idle += 1;
        if self.idle <= MAX_IDLE_FRAMES.saturating_add(self.calls.saturating_mul(IDLE_FRAMES_PER_CALL)) {
            return true;
        }
        let now = clock();
        if now.duration_since(self.since) < SECOND {
            return false;
        }
        (self.since, self.idle, self.calls) = (now, 0, 0);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(kind: u8, flags: u8, payload: usize) -> Vec<u8> {
        let length = u32::try_from(payload).unwrap_or_default().to_be_bytes();
        let mut frame = length.iter().skip(1).copied().collect::<Vec<_>>();
        frame.extend([kind, flags, 0, 0, 0, 1]);
        frame.resize(HEAD + payload, 7);
        frame
    }

    fn passes(frames: &[Vec<u8>], piece: usize, seconds_each: f64) -> bool {
        let start = Instant::now();
        let mut counted = Frames::new(start);
        let mut at = 0.0;
        let all: Vec<_> = frames.concat();
        all.chunks(piece).all(|came| {
            at += seconds_each;
            counted.pass(came, || start + Duration::from_secs_f64(at))
        })
    }

    #[test]
    fn pings_without_end_end_the_connection() {
        for kind in [4, 6, 2, 8, 99, 9] {
            let flood = vec![frame(kind, 0, 8); 5_000];
            for piece in [1, 7, 17, 4_096] {
                assert!(!passes(&flood, piece, 0.0), "type {kind} in pieces of {piece}");
            }
        }
        assert!(!passes(&vec![frame(DATA, 0, 0); 5_000], 64, 0.0), "empty ones");
    }

    #[test]
    fn a_busy_client_is_let_through() {
        let call =
            [frame(HEADERS, 4, 100), frame(DATA, 1, 700), frame(8, 0, 4), frame(8, 0, 4), frame(3, 0, 4)].concat();
        assert!(passes(&vec![call; 50_000], 4_096, 0.0));
        assert!(passes(&vec![frame(6, 0, 8); 20_000], 17, 0.001), "a thousand pings a second");
    }

    #[test]
    fn the_payload_of_a_frame_is_never_taken_for_a_head() {
        let large = frame(DATA, 0, 16_384);
        assert!(passes(&vec![large; 2_000], 1_000, 0.0));
    }
}
