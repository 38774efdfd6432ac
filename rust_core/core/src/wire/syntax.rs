//! What header names, header values and query parameters may look like (RFC 9110; Envoy's `validate_mutations`
//! answers 500 to anything else). Names are checked without regard to case and written in lower case.

use std::borrow::Cow;

/// Where a header is to be changed.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum HeaderUse {
    Request,
    Response,
}

/// Headers that frame the message or belong to the connection: to change one is to change what a request is.
const FRAMING: [&str; 9] = [
    "connection",
    "content-length",
    "keep-alive",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "x-envoy-auth-partial-body",
];
/// Request headers of ours: whoever reads them takes them for the truth.
const OURS: &str = "x-signalwarden-";
/// Response headers of a denial that may occur more than once.
const REPEATABLE: [&str; 2] = ["set-cookie", "www-authenticate"];

pub(super) fn header_name(name: &str, used: HeaderUse) -> Result<(), String> {
    if name.is_empty() || !name.bytes().all(is_token) {
        return Err(format!("{} is not a header name", shown(name)));
    }
    let host = used == HeaderUse::Request && name.eq_ignore_ascii_case("host");
    if host || FRAMING.iter().any(|framing| framing.eq_ignore_ascii_case(name)) {
        return Err(format!("the header {} is not to be changed: it frames the message", shown(name)));
    }
    Ok(())
}

pub(super) fn header_value(name: &str, value: &str) -> Result<(), String> {
    if value.bytes().any(is_control) {
        return Err(format!("the value of header {} holds a control character", shown(name)));
    }
    if value.starts_with([' ', '\t']) || value.ends_with([' ', '\t']) {
        return Err(format!("the value of header {} begins or ends with a space", shown(name)));
    }
    Ok(())
}

/// A value that [`header_value`] takes: control characters become spaces, outer spaces go.
pub(super) fn repaired_value(value: &str) -> Cow<'_, str> {
    if header_value("", value).is_ok() {
        return Cow::Borrowed(value);
    }
    let text: String = value.chars().map(|c| if c.is_ascii() && is_control(c as u8) { ' ' } else { c }).collect();
    Cow::Owned(text.trim_matches([' ', '\t']).to_owned())
}

pub(super) fn is_ours(name: &str) -> bool {
    name.as_bytes().get(..OURS.len()).is_some_and(|start| start.eq_ignore_ascii_case(OURS.as_bytes()))
}

pub(super) fn may_repeat(name: &str) -> bool {
    REPEATABLE.iter().any(|repeatable| repeatable.eq_ignore_ascii_case(name))
}

/// Percent-encodes all that Envoy does not take as it is: letters, digits, `-`, `.` and `_` stay.
pub(super) fn query_encoded(text: &str) -> Cow<'_, str> {
    const HEX: [char; 16] = ['0', '1', '2', '3', '4', '5', '6', '7', '8', '9', 'A', 'B', 'C', 'D', 'E', 'F'];
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_');
    if text.bytes().all(plain) {
        return Cow::Borrowed(text);
    }
    let mut encoded = String::with_capacity(text.len() * 3);
    for byte in text.bytes() {
        if plain(byte) {
            encoded.push(char::from(byte));
        } else {
            let digit = |nibble: u8| HEX.get(usize::from(nibble)).copied().unwrap_or('0');
            encoded.extend(['%', digit(byte >> 4), digit(byte & 15)]);
        }
    }
    Cow::Owned(encoded)
}

/// The beginning of a text, at most so many bytes, never half a character.
pub(super) fn cut(text: &str, bytes: usize) -> &str {
    let end = (0..=bytes.min(text.len())).rev().find(|end| text.is_char_boundary(*end));
    text.get(..end.unwrap_or_default()).unwrap_or_default()
}

/// A name for a message: escaped, and not longer than a line bears.
pub(super) fn shown(name: &str) -> String {
    let short: String = name.chars().take(64).flat_map(char::escape_debug).collect();
    format!("`{short}`")
}

/// RFC 9110, section 5.6.2: tchar, as a table: every byte of every name of every answer is looked up.
const TOKEN: [bool; 256] = {
    let mut table = [false; 256];
    let mut byte = 0;
    while byte < 128 {
        #[expect(clippy::indexing_slicing, clippy::cast_possible_truncation, reason = "constant, below 128")]
        {
            table[byte] = (byte as u8).is_ascii_alphanumeric()
                || matches!(
                    byte as u8,
                    b'!' | b'#'
                        | b'$'
                        | b'%'
                        | b'&'
                        | b'\''
                        | b'*'
                        | b'+'
                        | b'-'
                        | b'.'
                        | b'^'
                        | b'_'
                        | b'`'
                        | b'|'
                        | b'~'
                );
        }
        byte += 1;
    }
    table
};

fn is_token(byte: u8) -> bool {
    TOKEN.get(usize::from(byte)).copied().unwrap_or(false)
}

/// What a field value must not hold: CR, LF, NUL and the other control characters, but for the tab.
fn is_control(byte: u8) -> bool {
    byte.is_ascii_control() && byte != b'\t'
}
