//! Paths: the one meaning of a request's path, the templates of routes, and which template is more specific.

use crate::{findings::did_you_mean, limits};
use std::{borrow::Cow, sync::Arc};

/// A path that has one meaning, percent-decoded once.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Reading<'p> {
    /// Every escape decoded.
    pub(super) decoded: Cow<'p, str>,
    /// If an escape stands for a character that could stand for itself (`%40` for `@`): the same with those left as
    /// they are. Servers differ on whether the two are one path, so both must lead to the same route.
    pub(super) literal: Option<String>,
}

/// Reads a path without its query, or says why it has more than one meaning.
pub(super) fn read(path: &str) -> Result<Reading<'_>, &'static str> {
    let bytes = path.as_bytes();
    if bytes.first() != Some(&b'/') {
        return Err("the path does not begin with `/`");
    }
    let mut escaped = false;
    // Length of the segment so far, and how many of it are dots.
    let (mut length, mut dots) = (0, 0);
    for (at, byte) in bytes.iter().enumerate().skip(1) {
        length += 1;
        match byte {
            b'/' if length == 1 => return Err("the path holds `//`"),
            b'/' if is_dot_segment(length - 1, dots) => return Err(DOT_SEGMENT),
            b'/' => (length, dots) = (0, 0),
            b'.' => dots += 1,
            b'%' => {
                escaped = true;
                check_escape(bytes.get(at + 1..).unwrap_or_default())?;
            }
            b'\\' => return Err("the path holds a backslash"),
            b';' => return Err("the path holds `;`"),
            b'#' => return Err("the path holds `#`"),
            0x21..=0x7e => {}
            _ => return Err("the path holds a control character, a space or a character beyond ascii"),
        }
    }
    if is_dot_segment(length, dots) {
        return Err(DOT_SEGMENT);
    }
    if !escaped {
        return Ok(Reading { decoded: Cow::Borrowed(path), literal: None });
    }
    let (decoded, decoded_all) = decode(path, |_| true).ok_or(NOT_UTF8)?;
    debug_assert!(decoded_all, "nothing is left when everything is decoded");
    let (literal, same) = decode(path, |byte| !may_stand_raw(byte)).ok_or(NOT_UTF8)?;
    Ok(Reading { decoded: Cow::Owned(decoded), literal: (!same).then_some(literal) })
}

const fn is_dot_segment(length: usize, dots: usize) -> bool {
    length == dots && (length == 1 || length == 2)
}

const DOT_SEGMENT: &str = "the path holds a `.` or `..` segment";
const NOT_UTF8: &str = "the path is not utf-8 once decoded";

/// Checks what follows a `%`.
fn check_escape(after: &[u8]) -> Result<(), &'static str> {
    let Some(byte) = escape(after) else { return Err("the path holds bad percent-encoding") };
    match byte {
        0 => Err("the path holds an encoded nul"),
        b'/' | b'\\' => Err("the path holds an encoded slash or backslash"),
        b'%' if after.get(2..).and_then(escape).is_some() => Err("the path is encoded twice"),
        _ if is_unreserved(byte) => Err("the path encodes a character that needs no encoding"),
        0x01..=0x1f | 0x7f => Err("the path holds an encoded control character"),
        _ => Ok(()),
    }
}

/// The text before and after the first of an ascii byte. For texts as short as these it is quicker than the
/// searches of the standard library, which prepare themselves for long ones.
pub(super) fn cut(text: &str, byte: u8) -> (&str, Option<&str>) {
    let at = text.bytes().position(|b| b == byte);
    match at.and_then(|at| text.get(..at).zip(text.get(at + 1..))) {
        Some((before, after)) => (before, Some(after)),
        None => (text, None),
    }
}

/// The byte that two hexadecimal digits stand for.
pub(super) fn escape(digits: &[u8]) -> Option<u8> {
    let digit = |at: usize| digits.get(at).and_then(|b| char::from(*b).to_digit(16)).and_then(|d| u8::try_from(d).ok());
    Some(digit(0)? * 16 + digit(1)?)
}

/// Unreserved characters: RFC 3986, section 2.3.
const fn is_unreserved(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~')
}

/// Whether a byte that may be encoded could also stand for itself in a path that has one meaning.
const fn may_stand_raw(byte: u8) -> bool {
    byte.is_ascii_graphic() && !matches!(byte, b'#' | b'%' | b';' | b'?' | b'\\' | b'/')
}

/// Decodes the escapes that `which` picks; the flag says whether those were all. `None` if the result is not UTF-8.
/// The escapes were checked before.
fn decode(path: &str, which: impl Fn(u8) -> bool) -> Option<(String, bool)> {
    let mut out = Vec::with_capacity(path.len());
    let mut all = true;
    let mut rest = path.as_bytes();
    while let [first, tail @ ..] = rest {
        rest = tail;
        match (*first == b'%').then(|| escape(tail)).flatten() {
            Some(byte) if which(byte) => {
                out.push(byte);
                rest = tail.get(2..).unwrap_or_default();
            }
            Some(_) => {
                all = false;
                out.push(*first);
            }
            None => out.push(*first),
        }
    }
    String::from_utf8(out).ok().map(|text| (text, all))
}

/// One segment of a template.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Segment {
    /// This text, decoded.
    Literal(Box<str>),
    /// `{name}`, perhaps with text before and after: at least one character in between.
    Param { prefix: Box<str>, suffix: Box<str> },
    /// `{*name}`: all that is left, perhaps nothing.
    Rest,
}

/// The template of a route's path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Template {
    /// As written, for messages.
    pub(super) text: Arc<str>,
    /// Its segments: one for `/`, two for `/a/`.
    pub(super) segments: Vec<Segment>,
    /// Names of the parameters, from left to right.
    pub(super) names: Vec<Arc<str>>,
}

/// How specific one segment is; the larger the more.
type Rank = (u8, usize);

impl Template {
    /// Reads a template; the error is the rest of a sentence that begins with the key.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let Some(rest) = text.strip_prefix('/') else {
            return Err(format!("expected a path that begins with `/`, found `{text}`"));
        };
        if text.len() > limits::MAX_PATH_BYTES {
            return Err(format!("expected at most {} bytes", limits::MAX_PATH_BYTES));
        }
        if text.contains('?') {
            return Err(format!("expected a path without query, found `{text}`"));
        }
        let mut template = Self { text: text.into(), segments: Vec::new(), names: Vec::new() };
        // What a request would look like, to be judged by the rules for requests.
        let mut sample = String::new();
        let mut parts = rest.split('/').peekable();
        while let Some(part) = parts.next() {
            sample.push('/');
            template.read_segment(part, parts.peek().is_none(), &mut sample)?;
        }
        let reading = read(&sample).map_err(|why| format!("`{text}` could match no request: {why}"))?;
        if reading.literal.is_some() {
            return Err(format!("`{text}` encodes a character that can stand for itself: write it plain"));
        }
        Ok(template)
    }

    fn read_segment(&mut self, part: &str, last: bool, sample: &mut String) -> Result<(), String> {
        let text = Arc::clone(&self.text);
        let Some((prefix, rest)) = part.split_once('{') else {
            if part.contains('}') {
                return Err(format!("`}}` without `{{` in `{text}`"));
            }
            sample.push_str(part);
            self.segments.push(Segment::Literal(literal(part)));
            return Ok(());
        };
        let Some((name, suffix)) = rest.split_once('}') else {
            return Err(format!("`{{` without `}}` in `{text}`"));
        };
        if [prefix, name, suffix].iter().any(|piece| piece.contains(['{', '}'])) {
            return Err(format!("expected at most one parameter in each segment of `{text}`"));
        }
        let (name, is_rest) = name.strip_prefix('*').map_or((name, false), |name| (name, true));
        if !is_param_name(name) {
            return Err(format!("expected a parameter name of letters, digits and `_`, found `{name}` in `{text}`"));
        }
        if self.names.iter().any(|known| **known == *name) {
            return Err(format!("the parameter `{name}` stands twice in `{text}`"));
        }
        if is_rest && !(last && prefix.is_empty() && suffix.is_empty()) {
            return Err(format!("expected `{{*{name}}}` to be the whole last segment of `{text}`"));
        }
        self.names.push(name.into());
        if is_rest {
            self.segments.push(Segment::Rest);
        } else {
            sample.push_str(prefix);
            sample.push('x');
            sample.push_str(suffix);
            self.segments.push(Segment::Param { prefix: literal(prefix), suffix: literal(suffix) });
        }
        Ok(())
    }

    /// Which parameter a name is; the error names the nearest one.
    pub(super) fn param(&self, name: &str) -> Result<usize, String> {
        self.names.iter().position(|known| **known == *name).ok_or_else(|| {
            let hint = did_you_mean(name, self.names.iter().map(AsRef::as_ref));
            format!("the path `{}` has no parameter `{name}`{hint}", self.text)
        })
    }

    /// Whether a decoded path is of this form; its parameters go into `params`.
    pub(super) fn matches<'p>(&self, path: &'p str, params: &mut Vec<&'p str>) -> bool {
        params.clear();
        let mut rest = path.strip_prefix('/');
        for segment in &self.segments {
            let Some(text) = rest else { return false };
            if *segment == Segment::Rest {
                params.push(text);
                return true;
            }
            let (part, after) = cut(text, b'/');
            match segment {
                Segment::Literal(wanted) if **wanted == *part => {}
                Segment::Param { prefix, suffix } => {
                    match part.strip_prefix(&**prefix).and_then(|part| part.strip_suffix(&**suffix)) {
                        Some(value) if !value.is_empty() => params.push(value),
                        _ => return false,
                    }
                }
                Segment::Literal(_) | Segment::Rest => return false,
            }
            rest = after;
        }
        rest.is_none()
    }

    /// Whether some path is of both forms.
    pub(super) fn overlaps(&self, other: &Self) -> bool {
        overlap(&self.segments, &other.segments)
    }

    /// How specific the template is. Compared from the left, segment by segment: literal text, then a parameter
    /// with text around it (more text first), then `{name}`, then `{*name}`.
    pub(super) fn rank(&self) -> Vec<Rank> {
        let rank = |segment: &Segment| match segment {
            Segment::Literal(_) => (3, 0),
            Segment::Param { prefix, suffix } if prefix.is_empty() && suffix.is_empty() => (1, 0),
            Segment::Param { prefix, suffix } => (2, prefix.len() + suffix.len()),
            Segment::Rest => (0, 0),
        };
        self.segments.iter().map(rank).collect()
    }
}

fn overlap(a: &[Segment], b: &[Segment]) -> bool {
    match (a, b) {
        ([], []) => true,
        ([], _) | (_, []) => false,
        ([Segment::Rest, ..], _) | (_, [Segment::Rest, ..]) => true,
        ([one, a @ ..], [two, b @ ..]) => segments_overlap(one, two) && overlap(a, b),
    }
}

fn segments_overlap(one: &Segment, two: &Segment) -> bool {
    match (one, two) {
        (Segment::Literal(one), Segment::Literal(two)) => one == two,
        (Segment::Literal(text), Segment::Param { prefix, suffix })
        | (Segment::Param { prefix, suffix }, Segment::Literal(text)) => {
            text.len() > prefix.len() + suffix.len() && text.starts_with(&**prefix) && text.ends_with(&**suffix)
        }
        (Segment::Param { prefix: p1, suffix: s1 }, Segment::Param { prefix: p2, suffix: s2 }) => {
            (p1.starts_with(&**p2) || p2.starts_with(&**p1)) && (s1.ends_with(&**s2) || s2.ends_with(&**s1))
        }
        (Segment::Rest, _) | (_, Segment::Rest) => true,
    }
}

/// The decoded form of a template's text. Text that does not decode is refused by the sample's reading.
fn literal(text: &str) -> Box<str> {
    decode(text, |_| true).map_or_else(|| text.into(), |(text, _)| text.into())
}

fn is_param_name(name: &str) -> bool {
    name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && name.len() <= 64
        && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matched(template: &str, path: &str) -> Option<Vec<String>> {
        let template = Template::parse(template).unwrap();
        let mut params = Vec::new();
        template.matches(path, &mut params).then(|| params.into_iter().map(str::to_owned).collect())
    }

    #[test]
    fn a_path_with_two_meanings_is_refused() {
        for bad in [
            "",
            "*",
            "a",
            "http://h/a",
            "//",
            "//a",
            "/a//b",
            "/a//",
            "/.",
            "/..",
            "/./a",
            "/a/..",
            "/a/../b",
            "/a/.",
            "/%61",
            "/%2e%2e/a",
            "/%2E",
            "/%7e",
            "/%2d",
            "/a%2fb",
            "/a%2Fb",
            "/a%5cb",
            "/a\\b",
            "/a%252fb",
            "/%2541",
            "/a;b",
            "/;",
            "/a/..;/b",
            "/%00",
            "/a\0",
            "/%",
            "/%4",
            "/%zz",
            "/a%2",
            "/a b",
            "/a\tb",
            "/a\nb",
            "/ä",
            "/a#b",
            "/%0d%0a",
            "/%7f",
            "/%ff",
            "/%c3",
            "/%u0041",
            "/a\u{7f}",
        ] {
            assert!(read(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_path_with_one_meaning_is_decoded_once() {
        for (path, decoded, literal) in [
            ("/", "/", None),
            ("/a/", "/a/", None),
            ("/a.b/...", "/a.b/...", None),
            ("/caf%C3%A9", "/café", None),
            ("/100%25", "/100%", None),
            ("/100%25x1", "/100%x1", None),
            ("/a%20b%3Fc%3Bd", "/a b?c;d", None),
            ("/a%40b%20", "/a@b ", Some("/a%40b ")),
        ] {
            let reading = read(path).unwrap();
            assert_eq!((&*reading.decoded, reading.literal.as_deref()), (decoded, literal), "{path}");
        }
    }

    #[test]
    fn parameters_match_something_and_rest_matches_nothing_too() {
        let some = |values: &[&str]| Some(values.iter().map(|v| (*v).to_owned()).collect::<Vec<_>>());
        assert_eq!(matched("/a/{x}", "/a/1"), some(&["1"]));
        assert_eq!(matched("/a/{x}", "/a/"), None);
        assert_eq!(matched("/a/{x}", "/a/1/"), None);
        assert_eq!(matched("/a", "/a/"), None);
        assert_eq!(matched("/a/", "/a"), None);
        assert_eq!(matched("/a/{*r}", "/a/"), some(&[""]));
        assert_eq!(matched("/a/{*r}", "/a/b/c/"), some(&["b/c/"]));
        assert_eq!(matched("/a/{*r}", "/a"), None);
        assert_eq!(matched("/{*r}", "/"), some(&[""]));
        assert_eq!(matched("/i-{x}.png/{y}", "/i-7.png/z"), some(&["7", "z"]));
        assert_eq!(matched("/i-{x}.png", "/i-.png"), None);
        assert_eq!(matched("/caf%C3%A9/@me", "/café/@me"), some(&[]));
    }

    #[test]
    fn a_template_that_could_match_nothing_or_two_things_is_refused() {
        for bad in [
            "", "a", "/a?b", "/a//b", "/../a", "/a;b", "/a b", "/%2F", "/%40", "/{a", "/a}", "/{}", "/{a}{b}",
            "/{a-b}", "/{a}/{a}", "/{*a}/b", "/x{*a}", "/{{a}}", "/{*}", "/{1a}", "/%zz", "/%ff",
        ] {
            assert!(Template::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn literal_text_is_more_specific_than_a_parameter_from_the_left() {
        let order = ["/a/b", "/a/i-{x}.png", "/a/i-{x}", "/a/{x}", "/a/{*r}", "/{x}/b", "/{x}/{y}", "/{*r}"];
        let ranks: Vec<_> = order.iter().map(|text| Template::parse(text).unwrap().rank()).collect();
        assert!(ranks.is_sorted_by(|more, less| more > less));
    }

    #[test]
    fn overlap_is_what_both_can_match() {
        for (a, b, both) in [
            ("/a/{x}", "/{y}/b", true),
            ("/a/{x}", "/b/{x}", false),
            ("/a/{*r}", "/a/", true),
            ("/a/{*r}", "/a", false),
            ("/i-{x}", "/{x}-j", true),
            ("/i-{x}", "/j-{x}", false),
            ("/i-{x}", "/i-", false),
            ("/{*r}", "/a/b/{c}", true),
        ] {
            let (a, b) = (Template::parse(a).unwrap(), Template::parse(b).unwrap());
            assert_eq!((a.overlaps(&b), b.overlaps(&a)), (both, both), "{} {}", a.text, b.text);
        }
    }
}
