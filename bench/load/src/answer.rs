//! What came back: of a `CheckResponse` the status and the reason that signalwarden names, and whether that was expected.

use crate::asked::Asked;

/// What one call came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Let through, as expected.
    Allow,
    /// Denied, as expected.
    Deny,
    /// Answered, and not as expected.
    Wrong,
    /// gRPC's status, other than OK.
    Grpc(u32),
    /// A status of HTTP that says neither allow nor deny.
    Http(u16),
    /// No answer: the stream or the connection broke.
    Broken,
}

/// An outcome and the reason that the answer named, if it did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// What it came to.
    pub outcome: Outcome,
    /// signalwarden's reason.
    pub reason: Option<Vec<u8>>,
}

impl Answer {
    /// An answer without a reason.
    pub fn of(outcome: Outcome) -> Self {
        Self { outcome, reason: None }
    }

    /// Judges what was read of an answer by what was asked.
    pub fn judged(asked: &Asked, allow: bool, reason: Option<&[u8]>) -> Self {
        let expected = allow == asked.allow && asked.reason.as_deref().is_none_or(|wanted| reason == Some(wanted));
        let outcome = match (expected, allow) {
            (false, _) => Outcome::Wrong,
            (true, true) => Outcome::Allow,
            (true, false) => Outcome::Deny,
        };
        Self { outcome, reason: reason.map(<[u8]>::to_vec) }
    }
}

/// Judges a gRPC message: the frame of a `CheckResponse`.
pub fn of_message(asked: &Asked, frame: &[u8]) -> Answer {
    let Some((0, message)) = frame.split_first_chunk::<5>().map(|(prefix, rest)| (prefix[0], rest)) else {
        return Answer::of(Outcome::Wrong);
    };
    match allowed(message) {
        Some(allow) => Answer::judged(asked, allow, reason(message)),
        None => Answer::of(Outcome::Wrong),
    }
}

/// Judges an answer of Envoy, which lets through with 200 and denies as the decision point says. The bench's Envoy says
/// 503 where the decision point did not answer.
pub fn of_http(asked: &Asked, status: u16, body: &[u8]) -> Answer {
    match status {
        200 => Answer::judged(asked, true, asked.reason.as_deref()),
        400 | 401 | 403 => Answer::judged(asked, false, problem(body)),
        other => Answer::of(Outcome::Http(other)),
    }
}

/// Field 1 of `CheckResponse` is a status, whose field 1 is the code; 0, or none at all, allows. None: no such message.
fn allowed(message: &[u8]) -> Option<bool> {
    let mut code = 0;
    for field in Fields(message) {
        let (number, value) = field?;
        if let (1, Value::Bytes(status)) = (number, value) {
            for inner in Fields(status) {
                if let (1, Value::Number(read)) = inner? {
                    code = read;
                }
            }
        }
    }
    Some(code == 0)
}

const REASON: &[u8] = b"reason\x12";
/// In the dynamic metadata: the key, then a `Value` (one byte of length) whose field 3 is a string.
fn reason(message: &[u8]) -> Option<&[u8]> {
    let at = message.windows(REASON.len()).position(|window| window == REASON)?;
    let [_, 0x1a, length, rest @ ..] = message.get(at + REASON.len()..)? else { return None };
    rest.get(..usize::from(*length))
}

const PROBLEM: &[u8] = b"\"reason\":\"";
/// In the body of a denial, which is problem+json.
fn problem(body: &[u8]) -> Option<&[u8]> {
    let at = body.windows(PROBLEM.len()).position(|window| window == PROBLEM)?;
    body.get(at + PROBLEM.len()..)?.split(|byte| *byte == b'"').next()
}

enum Value<'a> {
    Number(u64),
    Bytes(&'a [u8]),
    Other,
}

/// Fields of a protobuf message, in their order; `None` once where it is none.
struct Fields<'a>(&'a [u8]);

impl<'a> Iterator for Fields<'a> {
    type Item = Option<(u64, Value<'a>)>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let read = self.field();
        if read.is_none() {
            self.0 = &[];
        }
        Some(read)
    }
}

impl<'a> Fields<'a> {
    fn field(&mut self) -> Option<(u64, Value<'a>)> {
        let key = self.varint()?;
        let value = match key & 7 {
            0 => Value::Number(self.varint()?),
            1 => self.take(8).map(|_| Value::Other)?,
            2 => {
                let length = usize::try_from(self.varint()?).ok()?;
                Value::Bytes(self.take(length)?)
            }
            5 => self.take(4).map(|_| Value::Other)?,
            _ => return None,
        };
        Some((key >> 3, value))
    }

    fn varint(&mut self) -> Option<u64> {
        let mut number = 0;
        for shift in (0..64).step_by(7) {
            let (byte, rest) = self.0.split_first()?;
            self.0 = rest;
            number |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Some(number);
            }
        }
        None
    }

    fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(taken)
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    fn asked(allow: bool, reason: Option<&str>) -> Asked {
        let reason = reason.map(|reason| reason.as_bytes().to_vec());
        Asked { allow, reason, message: Bytes::new(), head: Bytes::new() }
    }

    fn frame(message: &[u8]) -> Vec<u8> {
        let length = u32::try_from(message.len()).unwrap().to_be_bytes();
        [&[0][..], &length, message].concat()
    }

    #[test]
    fn a_status_of_zero_or_none_at_all_lets_through() {
        for message in [&b""[..], b"\x0a\x00\x1a\x00", b"\x0a\x02\x08\x00"] {
            assert_eq!(of_message(&asked(true, None), &frame(message)).outcome, Outcome::Allow, "{message:?}");
            assert_eq!(of_message(&asked(false, None), &frame(message)).outcome, Outcome::Wrong, "{message:?}");
        }
    }

    #[test]
    fn any_other_status_denies() {
        let denial = frame(b"\x0a\x02\x08\x07\x12\x02\x0a\x00");
        assert_eq!(of_message(&asked(false, None), &denial).outcome, Outcome::Deny);
        assert_eq!(of_message(&asked(true, None), &denial).outcome, Outcome::Wrong);
    }

    #[test]
    fn a_reason_that_is_asked_for_must_be_named() {
        let named = frame(b"\x0a\x02\x08\x07\x22\x10\x0a\x06reason\x12\x06\x1a\x04late");
        let answer = of_message(&asked(false, Some("late")), &named);
        assert_eq!((answer.outcome, answer.reason.as_deref()), (Outcome::Deny, Some(&b"late"[..])));
        assert_eq!(of_message(&asked(false, Some("early")), &named).outcome, Outcome::Wrong);
        assert_eq!(of_message(&asked(false, Some("late")), &frame(b"\x0a\x02\x08\x07")).outcome, Outcome::Wrong);
    }

    #[test]
    fn what_is_no_message_is_wrong() {
        for bytes in [&b""[..], b"\x00\x00", b"\x01\x00\x00\x00\x00", b"\x00\x00\x00\x00\x02\x0a\x09"] {
            assert_eq!(of_message(&asked(true, None), bytes).outcome, Outcome::Wrong, "{bytes:?}");
        }
    }

    #[test]
    fn envoy_lets_through_denies_or_says_that_nobody_answered() {
        assert_eq!(of_http(&asked(true, Some("allowed")), 200, b"").outcome, Outcome::Allow);
        let body = b"{\"type\":\"x\",\"reason\":\"policy_denied\"}";
        assert_eq!(of_http(&asked(false, Some("policy_denied")), 403, body).outcome, Outcome::Deny);
        assert_eq!(of_http(&asked(false, Some("policy_denied")), 403, b"").outcome, Outcome::Wrong);
        assert_eq!(of_http(&asked(true, None), 503, b"").outcome, Outcome::Http(503));
    }
}
