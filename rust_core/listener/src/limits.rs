//! Every bound of the native front door that an outsider can run into, each with its reason.

use std::time::Duration;

/// A message: as the core's own limit and gRPC's default. A `CheckRequest` without body has about 1 KB.
pub const MAX_MESSAGE: usize = 4 * 1024 * 1024;
/// Messages up to this size are read whatever else is read: `MAX_CALLS` of them are 256 MiB.
pub const SMALL_MESSAGE: usize = 16 * 1024;
/// Bytes of all larger messages that are being read at once. Without it as many calls could hold 64 GiB.
pub const MAX_READING: usize = 256 * 1024 * 1024;
/// Of that, for one connection: four of the largest messages. None takes the others' share.
pub const MAX_READING_HERE: usize = 4 * MAX_MESSAGE;
/// Calls at once on one connection, as at grpcio's door: Envoy opens one connection for each of its workers.
pub const MAX_STREAMS: u32 = 1_024;
/// Calls at once in all; beyond, `RESOURCE_EXHAUSTED` at once instead of an answer that comes after the timeout. One
/// whose message does not come costs some 2 KB; sixteen connections would have to hold all that they may.
pub const MAX_CALLS: usize = 16_384;
/// Decoded size of a call's headers (RFC 9113, section 6.5.2): gRPC's own hard limit. Envoy's are a few hundred bytes.
pub const MAX_HEADER_LIST: u32 = 16 * 1024;
/// Payload of one frame, the least that RFC 9113 allows to ask for.
pub const MAX_FRAME: u32 = 16 * 1024;
/// What a call may send before its message is read.
pub const STREAM_WINDOW: u32 = 256 * 1024;
/// What a connection may send before its messages are read.
pub const CONNECTION_WINDOW: u32 = 4 * 1024 * 1024;
/// Bytes of answers that wait in one call for a client to read them: an answer has about 1 KB.
pub const MAX_SEND_BUFFER: usize = 64 * 1024;
/// Calls that their client took back before they were looked at (CVE-2023-44487); more end the connection.
pub const MAX_PENDING_RESETS: usize = 20;
/// Streams that we had to reset for a client's errors (CVE-2025-8671); more end the connection. Fewer than h2's own
/// 1,024: an honest client makes none.
pub const MAX_LOCAL_RESETS: usize = 256;
/// Frames of a second that ask for nothing: PING, SETTINGS, PRIORITY, `WINDOW_UPDATE`, unknown ones, empty
/// ones (CVE-2019-9512, -9515, -9518). At 4,096 a connection costs some milliseconds a second; Envoy sends a few.
pub const MAX_IDLE_FRAMES: u32 = 4_096;
/// Frames that ask for nothing which each call brings beside: a window's update, an empty end, a reset.
pub const IDLE_FRAMES_PER_CALL: u32 = 4;
/// Connections at once, those of strangers included. Beyond, the oldest that has asked for nothing yet makes room.
pub const MAX_CONNECTIONS: usize = 1_024;
/// Calls of `Health/Watch` at once. Each holds a task of a few hundred bytes, and no thread.
pub const MAX_WATCHERS: usize = 1_024;
/// For the first 24 bytes of a connection.
pub const PREFACE: Duration = Duration::from_secs(10);
/// For a TLS handshake, as at grpcio's door.
pub const HANDSHAKE: Duration = Duration::from_secs(10);
/// For a whole message, from the headers of its call on: far above any timeout that Envoy is given.
pub const MESSAGE: Duration = Duration::from_secs(15);
/// The longest deadline that is taken from a call; one beyond means no deadline.
pub const MAX_TIMEOUT: Duration = Duration::from_secs(3_600);
/// A connection on which nothing comes is asked whether it lives.
pub const KEEPALIVE: Duration = Duration::from_secs(60);
/// What does not answer by then is gone: a peer that vanished is noticed within 80 s.
pub const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(20);
/// A pause where the system has no more file descriptors: what is open goes on, and ends.
pub const ACCEPT_AGAIN: Duration = Duration::from_millis(50);
/// Between the word that a door closes and its closing, for connections that end by themselves.
pub const MAX_GRACE: Duration = Duration::from_secs(600);
/// With TLS a connection is asked to end after this: the next one comes with the client's newest certificate.
pub const MAX_AGE: Duration = Duration::from_secs(60);
