//! Bodies of `multipart/form-data` (RFC 7578, RFC 2046 section 5.1): each named part with its values, JSON where the part
//! says so. What is no such body is an error.

use super::body::{self, Parsed};
use crate::limits::MAX_FORM_PARTS;
use serde_json::{Map, Value as Json};

/// Parses a body by the boundary that its `content-type` names.
pub(super) fn parse(bytes: &[u8], kind: &str) -> Result<Parsed, String> {
    let kind = MediaType::parse(kind).ok_or("`content-type` has bad parameters")?;
    let Some(boundary) = kind.parameter("boundary") else { return Ok(Parsed::Nothing) };
    let mut values: Map<String, Json> = Map::new();
    let mut reader = Reader::new(bytes, boundary);
    while let Some(part) = reader.next_part()? {
        let Some(name) = part.name().filter(|name| !name.is_empty()) else { continue };
        let value = if part.content_type.contains("application/json") {
            body::value(part.content)?
        } else {
            Json::String(String::from_utf8_lossy(part.content).into_owned())
        };
        if let Json::Array(known) = values.entry(name).or_insert_with(|| Json::Array(Vec::new())) {
            known.push(value);
        }
    }
    Ok(Parsed::Value(Json::Object(values)))
}

/// A type or disposition with its parameters.
struct MediaType {
    name: String,
    parameters: Vec<(String, String)>,
}

impl MediaType {
    fn parse(text: &str) -> Option<Self> {
        let (name, mut rest) = match text.find(';') {
            Some(at) => text.split_at(at),
            None => (text, ""),
        };
        let name = name.trim().to_ascii_lowercase();
        let mut tokens = name.split('/');
        let is_token = |text: &str| !text.is_empty() && text.bytes().all(is_token);
        if !tokens.by_ref().take(2).all(is_token) || tokens.next().is_some() {
            return None;
        }
        let mut parameters: Vec<(String, String)> = Vec::new();
        loop {
            rest = rest.trim_start();
            if rest.is_empty() || rest.trim() == ";" {
                return Some(Self { name, parameters });
            }
            let (key, value, after) = parameter(rest)?;
            // Continued and encoded parameters (RFC 2231) are not read.
            if key.contains('*') || parameters.iter().any(|(known, other)| *known == key && *other != value) {
                return None;
            }
            parameters.push((key, value));
            rest = after;
        }
    }

    fn parameter(&self, name: &str) -> Option<&str> {
        self.parameters.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }
}

/// `; key=value`, and what follows.
fn parameter(text: &str) -> Option<(String, String, &str)> {
    let text = text.strip_prefix(';')?.trim_start();
    let (key, rest) = token(text)?;
    let rest = rest.trim_start().strip_prefix('=')?.trim_start();
    let (value, rest) = match rest.strip_prefix('"') {
        Some(quoted) => quoted_text(quoted)?,
        None => token(rest).map(|(value, rest)| (value.to_owned(), rest))?,
    };
    Some((key.to_ascii_lowercase(), value, rest))
}

fn token(text: &str) -> Option<(&str, &str)> {
    let end = text.bytes().position(|byte| !is_token(byte)).unwrap_or(text.len());
    text.split_at_checked(end).filter(|(token, _)| !token.is_empty())
}

/// What stands before the closing quote. A backslash counts only before a special character: some clients send paths.
fn quoted_text(text: &str) -> Option<(String, &str)> {
    let mut value = String::new();
    let mut letters = text.char_indices().peekable();
    while let Some((at, letter)) = letters.next() {
        match letter {
            '"' => return Some((value, text.get(at + 1..)?)),
            '\r' | '\n' => return None,
            '\\' => match letters.next_if(|(_, next)| is_special(*next)) {
                Some((_, next)) => value.push(next),
                None => value.push('\\'),
            },
            other => value.push(other),
        }
    }
    None
}

fn is_special(letter: char) -> bool {
    matches!(letter, '(' | ')' | '<' | '>' | '@' | ',' | ';' | ':' | '\\' | '"' | '/' | '[' | ']' | '?' | '=')
}

fn is_token(byte: u8) -> bool {
    byte.is_ascii_graphic() && !is_special(char::from(byte))
}

/// One part.
struct Part<'a> {
    disposition: Option<String>,
    content_type: String,
    content: &'a [u8],
}

impl Part<'_> {
    /// The field of the form; `None` if it names none.
    fn name(&self) -> Option<String> {
        let disposition = MediaType::parse(self.disposition.as_deref()?)?;
        (disposition.name == "form-data").then(|| disposition.parameter("name").map(str::to_owned))?
    }
}

/// Reads part after part. The first boundary line decides whether lines end with CRLF or with LF alone.
struct Reader<'a> {
    rest: &'a [u8],
    boundary: Vec<u8>,
    newline: &'static [u8],
    parts: usize,
}

impl<'a> Reader<'a> {
    fn new(bytes: &'a [u8], boundary: &str) -> Self {
        Self { rest: bytes, boundary: format!("--{boundary}").into_bytes(), newline: b"\r\n", parts: 0 }
    }

    fn next_part(&mut self) -> Result<Option<Part<'a>>, String> {
        let mut is_due = false;
        loop {
            let line = self.line();
            if !line.ends_with(b"\n") {
                return if self.is_final(line) { Ok(None) } else { Err("the multipart body breaks off".to_owned()) };
            }
            if self.is_delimiter(line) {
                self.parts += 1;
                if self.parts > MAX_FORM_PARTS {
                    return Err(format!("the multipart body has more than {MAX_FORM_PARTS} parts"));
                }
                return self.part().map(Some);
            }
            if self.is_final(line) {
                return Ok(None);
            }
            if self.parts == 0 && !is_due {
                continue; // what stands before the first boundary
            }
            if is_due || line != self.newline {
                return Err("the multipart body has a line where a boundary was expected".to_owned());
            }
            is_due = true;
        }
    }

    /// The next line with its end; without one at the end of all.
    fn line(&mut self) -> &'a [u8] {
        let end = self.rest.iter().position(|byte| *byte == b'\n').map_or(self.rest.len(), |at| at + 1);
        let (line, rest) = self.rest.split_at_checked(end).unwrap_or((self.rest, &[]));
        self.rest = rest;
        line
    }

    fn is_delimiter(&mut self, line: &[u8]) -> bool {
        let Some(rest) = line.strip_prefix(self.boundary.as_slice()) else { return false };
        let rest = past_blanks(rest);
        if self.parts == 0 && rest == b"\n" {
            self.newline = b"\n";
        }
        rest == self.newline
    }

    fn is_final(&self, line: &[u8]) -> bool {
        let rest = line.strip_prefix(self.boundary.as_slice()).and_then(|rest| rest.strip_prefix(b"--"));
        rest.map(past_blanks).is_some_and(|rest| rest.is_empty() || rest == self.newline)
    }

    fn part(&mut self) -> Result<Part<'a>, String> {
        let mut part = Part { disposition: None, content_type: String::new(), content: &[] };
        let mut lines: Vec<String> = Vec::new();
        loop {
            let line = self.line();
            let Some(text) = line.strip_suffix(b"\n") else {
                return Err("the multipart body breaks off within a part's headers".to_owned());
            };
            let text = text.strip_suffix(b"\r").unwrap_or(text);
            if text.is_empty() {
                break;
            }
            let text = String::from_utf8_lossy(text);
            match lines.last_mut() {
                Some(last) if text.starts_with([' ', '\t']) => {
                    last.push(' ');
                    last.push_str(text.trim());
                }
                _ => lines.push(text.into_owned()),
            }
        }
        for line in &lines {
            let (name, value) = line.split_once(':').ok_or("a part of the multipart body has a bad header")?;
            if name.is_empty() || !name.bytes().all(is_token) {
                return Err("a part of the multipart body has a bad header".to_owned());
            }
            let value = value.trim();
            match name.to_ascii_lowercase().as_str() {
                "content-disposition" if part.disposition.is_none() => part.disposition = Some(value.to_owned()),
                "content-type" if part.content_type.is_empty() => value.clone_into(&mut part.content_type),
                "content-transfer-encoding" if value.eq_ignore_ascii_case("quoted-printable") => {
                    return Err("a part of the multipart body is quoted-printable, which is not read".to_owned());
                }
                _ => {}
            }
        }
        part.content = self.content()?;
        Ok(part)
    }

    /// All up to the next boundary.
    fn content(&mut self) -> Result<&'a [u8], String> {
        if self.rest.strip_prefix(self.boundary.as_slice()).is_some_and(ends_boundary) {
            return Ok(&[]);
        }
        let mut delimiter = self.newline.to_vec();
        delimiter.extend_from_slice(&self.boundary);
        let mut from = 0;
        while let Some(found) = self.rest.get(from..).and_then(|rest| find(rest, &delimiter)) {
            let at = from + found;
            let after = at + delimiter.len();
            if self.rest.get(after..).is_some_and(ends_boundary)
                && let Some((content, rest)) = self.rest.split_at_checked(at)
            {
                self.rest = rest;
                return Ok(content);
            }
            from = after;
        }
        Err("the multipart body breaks off".to_owned())
    }
}

/// Whether what follows ends a boundary, and is not more of a longer line.
fn ends_boundary(rest: &[u8]) -> bool {
    matches!(rest, [] | [b' ' | b'\t' | b'\r' | b'\n', ..] | [b'-', b'-', ..])
}

fn find(text: &[u8], wanted: &[u8]) -> Option<usize> {
    // The first byte is looked for quickly; what follows it is rarely alike.
    let first = *wanted.first()?;
    let mut from = 0;
    loop {
        let at = from + text.get(from..)?.iter().position(|byte| *byte == first)?;
        if text.get(at..)?.starts_with(wanted) {
            return Some(at);
        }
        from = at + 1;
    }
}

/// Without the blanks that may stand between a boundary and the end of its line.
fn past_blanks(text: &[u8]) -> &[u8] {
    let start = text.iter().position(|byte| !matches!(byte, b' ' | b'\t')).unwrap_or(text.len());
    text.get(start..).unwrap_or_default()
}
