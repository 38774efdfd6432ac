//! Hosts: how a request's host is read, which patterns a route may name, and the table from one to the other.

use super::paths::cut;
use std::{borrow::Cow, collections::HashMap, fmt, net::Ipv6Addr};

/// A host without port and final dot, in lower case. `None` if it is not one host name or address:
/// what could be read in two ways matches no route, not even `*`.
pub(super) fn normalise(host: &str) -> Option<Cow<'_, str>> {
    if let Some(rest) = host.strip_prefix('[') {
        let (address, port) = rest.split_once(']')?;
        let good = port.is_empty() || port.strip_prefix(':').is_some_and(is_port);
        let address: Ipv6Addr = address.parse().ok()?;
        return good.then(|| Cow::Owned(format!("[{address}]")));
    }
    let (name, port) = cut(host, b':');
    if port.is_some_and(|port| !is_port(port)) {
        return None;
    }
    let name = name.strip_suffix('.').unwrap_or(name);
    let mut upper = false;
    let mut before = b'.';
    for byte in name.bytes() {
        match byte {
            b'.' if before == b'.' => return None,
            b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.' => {}
            b'A'..=b'Z' => upper = true,
            _ => return None,
        }
        before = byte;
    }
    if before == b'.' {
        return None;
    }
    Some(if upper { Cow::Owned(name.to_ascii_lowercase()) } else { Cow::Borrowed(name) })
}

fn is_port(text: &str) -> bool {
    !text.is_empty() && text.len() <= 5 && text.bytes().all(|b| b.is_ascii_digit()) && text.parse::<u16>().is_ok()
}

/// What a route says of hosts, in the forms of Envoy's virtual hosts.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum HostPattern {
    /// This host.
    Exact(Box<str>),
    /// `*.suffix` (or `*-suffix`): something, then this text, which keeps its first `.` or `-`.
    Suffix(Box<str>),
    /// `prefix.*` (or `prefix-*`): this text, which keeps its last `.` or `-`, then something.
    Prefix(Box<str>),
    /// `*`
    Any,
}

impl fmt::Display for HostPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exact(host) => f.write_str(host),
            Self::Suffix(text) => write!(f, "*{text}"),
            Self::Prefix(text) => write!(f, "{text}*"),
            Self::Any => f.write_str("*"),
        }
    }
}

impl HostPattern {
    /// Reads a pattern; the error says what was expected.
    pub(super) fn parse(text: &str) -> Result<Self, &'static str> {
        const EXPECTED: &str = "a host name, `*.suffix`, `prefix.*` or `*`, without port";
        if text == "*" {
            return Ok(Self::Any);
        }
        let lower = text.to_ascii_lowercase();
        let lower = if lower.starts_with('[') { lower.as_str() } else { lower.strip_suffix('.').unwrap_or(&lower) };
        if lower.contains(':') && !lower.ends_with(']') {
            return Err(EXPECTED);
        }
        // The wildcard stands for something: with a letter in its place the pattern must be a host name.
        let whole = |with_letter: String| normalise(&with_letter).is_some_and(|name| name == with_letter);
        if let Some(rest) = lower.strip_prefix('*') {
            let good = rest.starts_with(['.', '-']) && whole(format!("a{rest}"));
            return if good { Ok(Self::Suffix(rest.into())) } else { Err(EXPECTED) };
        }
        if let Some(rest) = lower.strip_suffix('*') {
            let good = rest.ends_with(['.', '-']) && whole(format!("{rest}a"));
            return if good { Ok(Self::Prefix(rest.into())) } else { Err(EXPECTED) };
        }
        normalise(lower).map(|name| Self::Exact(name.as_ref().into())).ok_or(EXPECTED)
    }
}

/// From a host to what is kept for the patterns that match it.
#[derive(Debug)]
pub(super) struct HostTable<T> {
    exact: HashMap<Box<str>, T>,
    suffixes: Vec<(usize, HashMap<Box<str>, T>)>,
    prefixes: Vec<(usize, HashMap<Box<str>, T>)>,
    any: Option<T>,
}

impl<T> HostTable<T> {
    /// Builds the table; each pattern comes once.
    pub(super) fn new(entries: impl IntoIterator<Item = (HostPattern, T)>) -> Self {
        let mut table = Self { exact: HashMap::new(), suffixes: Vec::new(), prefixes: Vec::new(), any: None };
        for (pattern, value) in entries {
            match pattern {
                HostPattern::Exact(name) => drop(table.exact.insert(name, value)),
                HostPattern::Suffix(text) => insert_by_length(&mut table.suffixes, text, value),
                HostPattern::Prefix(text) => insert_by_length(&mut table.prefixes, text, value),
                HostPattern::Any => table.any = Some(value),
            }
        }
        // The longest first: it is the most specific.
        table.suffixes.sort_by_key(|(length, _)| std::cmp::Reverse(*length));
        table.prefixes.sort_by_key(|(length, _)| std::cmp::Reverse(*length));
        table
    }

    /// What is kept for each pattern that matches a normalised host, the most specific first:
    /// exact, longest suffix, longest prefix, `*`.
    pub(super) fn matching<'t, 'h>(&'t self, host: &'h str) -> impl Iterator<Item = &'t T> + use<'t, 'h, T> {
        let suffixes = self.suffixes.iter().filter_map(|(length, texts)| {
            let start = host.len().checked_sub(*length).filter(|start| *start > 0)?;
            texts.get(host.get(start..)?)
        });
        let prefixes = self
            .prefixes
            .iter()
            .filter_map(|(length, texts)| texts.get(host.get(..*length)?).filter(|_| host.len() > *length));
        self.exact.get(host).into_iter().chain(suffixes).chain(prefixes).chain(self.any.as_ref())
    }
}

fn insert_by_length<T>(lengths: &mut Vec<(usize, HashMap<Box<str>, T>)>, text: Box<str>, value: T) {
    match lengths.iter_mut().find(|(length, _)| *length == text.len()) {
        Some((_, texts)) => drop(texts.insert(text, value)),
        None => lengths.push((text.len(), HashMap::from([(text, value)]))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_is_compared_in_lower_case_without_port_and_final_dot() {
        for (written, read) in [
            ("Payments.Prod.Example:8443", "payments.prod.example"),
            ("payments.", "payments"),
            ("payments.:80", "payments"),
            ("10.0.0.1:80", "10.0.0.1"),
            ("[0:0::1]:443", "[::1]"),
            ("[::1]", "[::1]"),
            ("a_b-c", "a_b-c"),
        ] {
            assert_eq!(normalise(written).as_deref(), Some(read), "{written}");
        }
    }

    #[test]
    fn a_host_that_is_no_host_is_none() {
        for bad in [
            "",
            ".",
            "..",
            "a..b",
            ".a",
            "a..",
            "a:",
            "a:99999",
            "a:b",
            "a:80:80",
            "::1",
            "[::1",
            "[::1]x",
            "[::1]:",
            "[fe80::1%25eth0]",
            "user@a",
            "a/b",
            "a b",
            "ä.example",
            "a\0",
            "*",
            "a,b",
        ] {
            assert_eq!(normalise(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn patterns_have_four_forms() {
        assert_eq!(HostPattern::parse("A.example."), Ok(HostPattern::Exact("a.example".into())));
        assert_eq!(HostPattern::parse("*.Example"), Ok(HostPattern::Suffix(".example".into())));
        assert_eq!(HostPattern::parse("*-blue.example"), Ok(HostPattern::Suffix("-blue.example".into())));
        assert_eq!(HostPattern::parse("payments.*"), Ok(HostPattern::Prefix("payments.".into())));
        assert_eq!(HostPattern::parse("*"), Ok(HostPattern::Any));
        assert_eq!(HostPattern::parse("[::1]"), Ok(HostPattern::Exact("[::1]".into())));
        for bad in
            ["", "a.*.b", "*example", "example*", "**", "*.", ".*", "*.*", "a:80", "*.a:80", "a b", "a..b", "*..a"]
        {
            assert!(HostPattern::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn exact_wins_then_the_longest_suffix_then_the_longest_prefix_then_any() {
        let patterns = ["*", "pay.*", "pay.eu.*", "*.example", "*.eu.example", "pay.eu.example"];
        let table = HostTable::new(patterns.iter().map(|p| (HostPattern::parse(p).unwrap(), *p)));
        let found = |host: &'static str| table.matching(host).copied().collect::<Vec<_>>();
        assert_eq!(found("pay.eu.example"), ["pay.eu.example", "*.eu.example", "*.example", "pay.eu.*", "pay.*", "*"]);
        assert_eq!(found("eu.example"), ["*.example", "*"]);
        assert_eq!(found("example"), ["*"]);
        assert_eq!(found("pay.x"), ["pay.*", "*"]);
    }
}
