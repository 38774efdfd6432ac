//! Declared feeds: where values come from that no publisher pushes. What is fetched or received, and how, is
//! Python's; here it is read, checked and described.

use crate::document::{Entry, Fields, Node};
use crate::findings::{Findings, Place, did_you_mean};
use crate::limits;
use crate::model::names::NAME_FORM;
use crate::model::{FeedKind, FeedName, Span};
use serde_json::{Map, Value as Json, json};

/// The feeds of a register, in the order of the file.
#[derive(Clone, Debug, Default)]
pub struct Feeds(Vec<Feed>);

/// One declared feed.
#[derive(Clone, Debug)]
pub struct Feed {
    /// Its name.
    pub name: FeedName,
    /// What it is.
    pub kind: FeedKind,
    /// How often it is asked, where it is.
    pub interval: Option<Span>,
    /// How long its transmitter keeps what it could not deliver: a longer silence is a gap.
    pub retention: Option<Span>,
    /// Where it stands.
    pub place: Place,
    settings: Map<String, Json>,
}

/// A second is the shortest that a document is asked for; a day the longest that one may wait.
const INTERVALS: (Span, Span) = (Span::from_micros(1_000_000), Span::from_micros(86_400_000_000));
/// A transmitter that keeps events for less is no use after a restart; none keeps them for longer than a month.
const RETENTIONS: (Span, Span) = (Span::from_micros(60_000_000), Span::from_micros(31 * 86_400_000_000));
const SECOND: Span = Span::from_micros(1_000_000);
/// Members of a complex subject (`OpenID` Shared Signals Framework 1.0, section 3.2).
pub(super) const MEMBERS: &[&str] = &["user", "device", "session", "application", "tenant", "org_unit", "group"];

impl Feeds {
    /// Reads `feeds:`; what is wrong becomes findings, and the feed is left out.
    pub(super) fn read(file: &str, node: Option<&Node>, findings: &mut Findings) -> Self {
        let entries = node.and_then(|node| node.map(file, "feeds", findings)).unwrap_or_default();
        if entries.len() > limits::MAX_FEEDS {
            let message = format!("`feeds`: at most {} feeds, found {}", limits::MAX_FEEDS, entries.len());
            findings.error(file, node.map_or(Place::default(), |node| node.place), "too_many", message);
            return Self::default();
        }
        Self(entries.iter().filter_map(|entry| feed(file, entry, findings)).collect())
    }

    /// The feed of a name.
    pub fn find(&self, name: &str) -> Option<&Feed> {
        self.0.iter().find(|feed| feed.name.as_str() == name)
    }

    /// Every feed.
    pub fn iter(&self) -> impl Iterator<Item = &Feed> {
        self.0.iter()
    }

    /// A hint at the feed that was meant.
    pub(super) fn hint(&self, written: &str, kind: FeedKind) -> String {
        did_you_mean(written, self.0.iter().filter(|feed| feed.kind == kind).map(|feed| feed.name.as_str()))
    }
}

impl Feed {
    /// The feed as it was declared, defaults filled in, spans in milliseconds.
    pub fn to_json(&self) -> Json {
        let mut fields = Map::new();
        fields.insert("feed".to_owned(), self.name.as_str().into());
        fields.insert("kind".to_owned(), self.kind.as_str().into());
        fields.extend(self.settings.clone());
        fields.insert("line".to_owned(), self.place.line.into());
        Json::Object(fields)
    }
}

fn feed(file: &str, entry: &Entry, findings: &mut Findings) -> Option<Feed> {
    let fields = Fields::of(file, &entry.key, &entry.value, findings)?;
    let mut reader = Reader { file, fields, findings, good: true, settings: Map::new() };
    let name = FeedName::parse(&entry.key);
    if name.is_none() {
        reader.wrong(entry.place, "bad_name", format!("name of a feed: expected {NAME_FORM}, found `{}`", entry.key));
    }
    let kind = reader.fields.require_word("kind", FeedKind::ALL, reader.findings);
    let (interval, retention) = match kind? {
        FeedKind::Poll => (Some(reader.poll()), None),
        FeedKind::Ssf => reader.ssf(),
    };
    let Reader { fields, findings, good, settings, .. } = reader;
    fields.finish(findings);
    good.then_some(Feed { name: name?, kind: kind?, interval, retention, place: entry.place, settings })
}

/// Reads one feed. Each method puts what it read into `settings`.
struct Reader<'a, 'f> {
    file: &'a str,
    fields: Fields<'a>,
    findings: &'f mut Findings,
    good: bool,
    settings: Map<String, Json>,
}

impl<'a> Reader<'a, '_> {
    fn wrong(&mut self, place: Place, code: &'static str, message: String) {
        self.good = false;
        self.findings.error(self.file, place, code, message);
    }

    fn put(&mut self, key: &str, value: impl Into<Json>) {
        self.settings.insert(key.to_owned(), value.into());
    }

    fn poll(&mut self) -> Span {
        self.endpoint("the feed");
        let interval = self.span("interval", Span::from_micros(30_000_000), INTERVALS);
        let timeout = Span::from_micros(5_000_000).min(interval);
        self.span("timeout", timeout, (Span::from_micros(100_000), interval));
        self.span("jitter", Span::from_micros(interval.as_micros() / 10), (Span::from_micros(0), interval));
        let backoff = Span::from_micros(interval.as_micros().saturating_mul(10)).min(INTERVALS.1);
        self.span("backoff", backoff, (interval, INTERVALS.1));
        self.path("token_file");
        self.path("ca_file");
        interval
    }

    fn ssf(&mut self) -> (Option<Span>, Option<Span>) {
        for key in ["issuer", "audience"] {
            match self.fields.require_text(key, self.findings) {
                Some(text) if !text.is_empty() => self.put(key, text),
                Some(_) => self.wrong(self.fields.place_of(key), "empty_text", format!("`{key}`: found nothing")),
                None => self.good = false,
            }
        }
        if let Some(node) = self.fields.require("keys", self.findings) {
            self.nested("keys", node, |reader| {
                reader.endpoint("keys");
                reader.span("refresh", Span::from_micros(600_000_000), (SECOND, INTERVALS.1));
                reader.path("ca_file");
                None
            });
        } else {
            self.good = false;
        }
        let interval = self.delivery();
        self.members();
        let critical = self.fields.texts("critical_members", self.findings).unwrap_or_default();
        self.put("critical_members", critical.iter().map(|(text, _)| Json::from(*text)).collect::<Vec<_>>());
        let retention = self.span("retention", Span::from_micros(86_400_000_000), RETENTIONS);
        (interval, Some(retention))
    }

    fn delivery(&mut self) -> Option<Span> {
        const WORDS: &[(&str, bool)] = &[("push", false), ("poll", true)];
        let delivery = self.fields.require_word("delivery", WORDS, self.findings);
        self.good &= delivery.is_some();
        let node = self.fields.take("poll");
        let place = self.fields.place_of("poll");
        match (delivery, node) {
            (Some(true), Some(node)) => {
                self.put("delivery", "poll");
                self.nested("poll", node, |reader| {
                    reader.url("url", true);
                    let interval = reader.span("interval", Span::from_micros(30_000_000), INTERVALS);
                    reader.span("timeout", Span::from_micros(10_000_000), (SECOND, INTERVALS.1));
                    reader.path("token_file");
                    reader.path("ca_file");
                    Some(interval)
                })
            }
            (Some(true), None) => {
                self.wrong(place, "missing_key", "`poll` is missing: `delivery: poll` needs its `url`".to_owned());
                None
            }
            (Some(false), Some(_)) => {
                self.wrong(place, "needless_poll", "`poll` belongs to `delivery: poll`, leave it out".to_owned());
                None
            }
            (Some(false), None) => {
                self.put("delivery", "push");
                None
            }
            (None, _) => None,
        }
    }

    fn members(&mut self) {
        let mut members = Map::new();
        if let Some(node) = self.fields.take("members") {
            for entry in node.map(self.file, "members", self.findings).unwrap_or_default() {
                if MEMBERS.contains(&entry.key.as_str()) {
                    match entry.value.text(self.file, &entry.key, self.findings) {
                        Some(text) => drop(members.insert(entry.key.clone(), text.into())),
                        None => self.good = false,
                    }
                } else {
                    let hint = did_you_mean(&entry.key, MEMBERS.iter().copied());
                    let message = format!("`members`: unknown member `{}` of a complex subject{hint}", entry.key);
                    self.wrong(entry.place, "unknown_value", message);
                }
            }
        }
        self.put("members", members);
    }

    /// A map below this one; what is read of it stands below this key.
    fn nested(
        &mut self,
        key: &'static str,
        node: &'a Node,
        read: impl FnOnce(&mut Reader<'a, '_>) -> Option<Span>,
    ) -> Option<Span> {
        let Some(fields) = Fields::of(self.file, key, node, self.findings) else {
            self.good = false;
            return None;
        };
        let mut inner =
            Reader { file: self.file, fields, findings: &mut *self.findings, good: true, settings: Map::new() };
        let span = read(&mut inner);
        let Reader { fields, findings, good, settings, .. } = inner;
        fields.finish(findings);
        self.good &= good;
        self.put(key, settings);
        span
    }

    /// Exactly one of `file` and `url`.
    fn endpoint(&mut self, what: &str) {
        let (has_file, has_url) = (self.path("file"), self.url("url", false));
        if has_file == has_url {
            let message = format!("{what}: expected exactly one of `file` and `url`");
            self.wrong(self.fields.place(), "one_of", message);
        }
    }

    fn path(&mut self, key: &'static str) -> bool {
        if self.fields.take(key).is_none() {
            return false;
        }
        match self.fields.text(key, self.findings) {
            Some(text) if !text.is_empty() && !text.contains('\0') => self.put(key, text),
            Some(_) => self.wrong(self.fields.place_of(key), "empty_text", format!("`{key}`: expected a path")),
            None => self.good = false,
        }
        true
    }

    fn url(&mut self, key: &'static str, required: bool) -> bool {
        let node = if required { self.fields.require(key, self.findings) } else { self.fields.take(key) };
        let Some(node) = node else {
            self.good &= !required;
            return false;
        };
        match node.text(self.file, key, self.findings) {
            Some(text) if is_authenticated_url(text) => self.put(key, text),
            Some(_) => {
                let message = format!(
                    "`{key}`: expected an `https://` address (or `http://` to loopback), which says who answers, found {}",
                    node.describe()
                );
                self.wrong(node.place, "unauthenticated_source", message);
            }
            None => self.good = false,
        }
        true
    }

    fn span(&mut self, key: &'static str, default: Span, (least, most): (Span, Span)) -> Span {
        let mut span = default;
        if let Some(node) = self.fields.take(key) {
            match node.as_text().and_then(Span::parse) {
                Some(written) if (least..=most).contains(&written) => span = written,
                Some(_) => {
                    let message = format!(
                        "`{key}`: expected {} ms to {} ms, found {}",
                        least.as_millis(),
                        most.as_millis(),
                        node.describe()
                    );
                    self.wrong(node.place, "bad_span", message);
                }
                None => {
                    let message = format!("`{key}`: expected a span such as `30s`, `5m`, found {}", node.describe());
                    self.wrong(node.place, "bad_span", message);
                }
            }
        }
        self.settings.insert(format!("{key}_ms"), json!(span.as_millis()));
        span
    }
}

/// Whether the transport says who answers: TLS, or our own machine.
fn is_authenticated_url(url: &str) -> bool {
    let good = url.len() <= limits::MAX_URL_BYTES && url.bytes().all(|b| b.is_ascii_graphic()) && !url.contains('@');
    let local = ["http://127.0.0.1", "http://localhost", "http://[::1]"];
    let is_local = || {
        local
            .iter()
            .any(|start| url.strip_prefix(start).is_some_and(|rest| rest.is_empty() || rest.starts_with([':', '/'])))
    };
    good && (url.strip_prefix("https://").is_some_and(|rest| !rest.is_empty() && !rest.starts_with('/')) || is_local())
}

#[cfg(test)]
mod tests {
    use super::is_authenticated_url;

    #[test]
    fn only_an_address_that_says_who_answers_is_taken() {
        for good in ["https://idp.example/jwks", "http://127.0.0.1:8080/x", "http://localhost", "http://[::1]/a"] {
            assert!(is_authenticated_url(good), "{good}");
        }
        for bad in [
            "http://idp.example/",
            "http://127.0.0.1.example/",
            "http://localhost.example",
            "https://",
            "https:///x",
            "https://a@b/",
            "ftp://a",
            "https://a b",
        ] {
            assert!(!is_authenticated_url(bad), "{bad}");
        }
    }
}
