//! What is asked: the file of requests, each with the answer that it must get.
//!
//! One JSON object a line: `expect` is `allow` or `deny`; `grpc` a serialised `CheckRequest` in base64; `http` the text of a
//! request of HTTP/1.1 to Envoy; `reason` is optional, and then the answer must name it, too.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::{BufMut, Bytes, BytesMut};
use serde_json::Value;

/// One request, as bytes that are sent as they stand.
#[derive(Clone, Debug)]
pub struct Asked {
    /// Whether it is to be let through.
    pub allow: bool,
    /// What the answer must give as its reason, where that is known.
    pub reason: Option<Vec<u8>>,
    /// gRPC's frame of the `CheckRequest`: no compression, length, message.
    pub message: Bytes,
    /// The request of HTTP/1.1, without a body.
    pub head: Bytes,
}

/// Requests of a file, in its order; there is at least one.
pub fn read(text: &str) -> Result<Vec<Asked>, String> {
    let asked: Vec<Asked> = text
        .lines()
        .enumerate()
        .filter(|(_, line)| !line.trim().is_empty())
        .map(|(number, line)| one(line).map_err(|what| format!("line {} of the requests: {what}", number + 1)))
        .collect::<Result<_, _>>()?;
    if asked.is_empty() { Err("the file of requests has none".to_owned()) } else { Ok(asked) }
}

fn one(line: &str) -> Result<Asked, String> {
    let value: Value = serde_json::from_str(line).map_err(|error| format!("no JSON: {error}"))?;
    let text = |key: &str| value.get(key).and_then(Value::as_str);
    let allow = match text("expect") {
        Some("allow") => true,
        Some("deny") => false,
        _ => return Err("`expect` is neither `allow` nor `deny`".to_owned()),
    };
    let request = STANDARD
        .decode(text("grpc").ok_or("`grpc` is missing")?)
        .map_err(|error| format!("`grpc` is no base64: {error}"))?;
    Ok(Asked {
        allow,
        reason: text("reason").map(|reason| reason.as_bytes().to_vec()),
        message: framed(&request)?,
        head: Bytes::copy_from_slice(text("http").unwrap_or_default().as_bytes()),
    })
}

fn framed(request: &[u8]) -> Result<Bytes, String> {
    let length = u32::try_from(request.len()).map_err(|_| "the request is larger than gRPC can say".to_owned())?;
    let mut frame = BytesMut::with_capacity(request.len() + 5);
    frame.put_u8(0);
    frame.put_u32(length);
    frame.put_slice(request);
    Ok(frame.freeze())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_becomes_bytes_that_are_ready_to_be_sent() {
        let asked =
            read("{\"expect\":\"deny\",\"grpc\":\"AQID\",\"http\":\"GET / HTTP/1.1\",\"reason\":\"x\"}\n\n").unwrap();
        assert_eq!(asked.len(), 1);
        assert!(!asked[0].allow);
        assert_eq!(&asked[0].message[..], [0, 0, 0, 0, 3, 1, 2, 3]);
        assert_eq!(asked[0].reason.as_deref(), Some(&b"x"[..]));
        assert_eq!(&asked[0].head[..], b"GET / HTTP/1.1");
    }

    #[test]
    fn a_bad_line_is_named() {
        let good = "{\"expect\":\"allow\",\"grpc\":\"\"}\n";
        for (bad, what) in [
            ("{\"expect\":\"maybe\",\"grpc\":\"\"}", "`expect`"),
            ("{\"expect\":\"deny\"}", "`grpc` is missing"),
            ("{\"expect\":\"deny\",\"grpc\":\"!\"}", "no base64"),
            ("{", "no JSON"),
        ] {
            let said = read(&format!("{good}{bad}")).unwrap_err();
            assert!(said.starts_with("line 2") && said.contains(what), "{said}");
        }
        assert!(read("\n").is_err());
    }
}
