//! What a record shows in place of what the settings hide: a path's template, and keyed digests of arguments and of ids of
//! resources.

use super::Record;
use crate::{
    model::{Question, Request, ResourceId, Value, hex},
    reason::Reason,
    route::{Redaction, Route, Routes},
};
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use std::{borrow::Cow, sync::Arc};

/// Stands in for text that may name what is hidden.
pub(super) const WITHHELD: &str = "withheld: it may name what the settings hide";

/// `hmac-sha256:<hex>` over texts: equal ones can be recognised, none can be guessed without the key.
pub(super) fn keyed(key: &[u8], texts: &[&str]) -> String {
    let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(key) else { return "withheld".to_owned() };
    for (at, text) in texts.iter().enumerate() {
        if at > 0 {
            mac.update(b"\0");
        }
        mac.update(text.as_bytes());
    }
    format!("hmac-sha256:{}", hex(&mac.finalize().into_bytes()))
}

fn digested(key: &[u8], resource: &ResourceId) -> String {
    let id = keyed(key, &["resource", &resource.kind, &resource.id]);
    ResourceId { kind: Arc::clone(&resource.kind), id: id.into() }.to_string()
}

/// What is hidden of one record.
pub(super) struct Veil<'a> {
    redaction: &'a Redaction,
    /// Whether there is a path of a call.
    has_path: bool,
    route: Option<&'a Route>,
    reason: Reason,
    key: &'a [u8],
    /// The call's resource as it is, and as it is shown, if that differs.
    resource: Option<(String, String)>,
}

impl<'a> Veil<'a> {
    /// `None` where the settings hide nothing.
    pub(super) fn of(record: &'a Record, key: &'a [u8]) -> Option<Self> {
        let redaction = record.snapshot.as_deref().map(|snapshot| &snapshot.redaction)?;
        if redaction.is_empty() {
            return None;
        }
        let inquiry = record.inquiry.as_deref();
        let resource = record.resolved.as_ref().map(|resolved| &resolved.resource);
        let resource = resource.or(inquiry.and_then(|inquiry| inquiry.resource.as_ref()));
        let resource = resource.filter(|found| redaction.hides(found));
        Some(Self {
            redaction,
            has_path: inquiry.is_none(),
            route: record.route.as_deref(),
            reason: record.reason,
            key,
            resource: resource.map(|resource| (resource.to_string(), digested(key, resource))),
        })
    }

    /// What is hidden of this call, by name: `path` where no route says what in it is a value, `resources` of a built-in
    /// action that names some (`asked_for`).
    pub(super) fn names<'t>(&self, asked_for: Option<impl IntoIterator<Item = &'t Arc<str>>>) -> Vec<Arc<str>> {
        match (self.route, asked_for) {
            (Some(route), _) => self.redaction.hidden_of(route),
            (None, None) if !self.has_path && self.resource.is_none() => Vec::new(),
            (None, None) if !self.has_path => vec!["resource".into()],
            (None, None) => vec!["path".into()],
            (None, Some(texts)) => {
                let is_hidden = |text: &Arc<str>| matches!(self.resource_text(text), Cow::Owned(_));
                if texts.into_iter().any(is_hidden) { vec!["resources".into()] } else { Vec::new() }
            }
        }
    }

    /// The path; `None`: as it is.
    pub(super) fn path(&self, path: &str) -> Option<String> {
        self.redaction.path(self.route, path)
    }

    /// An argument; `None`: as it is.
    pub(super) fn arg(&self, name: &str, value: &Value) -> Option<String> {
        let is_hidden = self.route.is_some_and(|route| self.redaction.hides_arg(route, name));
        is_hidden.then(|| keyed(self.key, &["arg", name, &value.to_json().to_string()]))
    }

    /// A resource; `None`: as it is.
    pub(super) fn resource(&self, resource: &ResourceId) -> Option<String> {
        self.redaction.hides(resource).then(|| digested(self.key, resource))
    }

    /// The same as text: `Type::"id"`, or `Type::*`, which names none.
    pub(super) fn resource_text<'t>(&self, text: &'t str) -> Cow<'t, str> {
        ResourceId::parse(text).and_then(|resource| self.resource(&resource)).map_or(Cow::Borrowed(text), Cow::Owned)
    }

    /// A text that may name the call's resource.
    pub(super) fn text<'t>(&self, text: &'t str) -> Cow<'t, str> {
        match &self.resource {
            Some((plain, shown)) if text.contains(plain.as_str()) => text.replace(plain.as_str(), shown).into(),
            _ => text.into(),
        }
    }

    /// The detail of the decision. An engine writes what it names in its own way.
    pub(super) fn detail<'t>(&self, text: &'t str) -> Cow<'t, str> {
        let may_quote = matches!(self.reason, Reason::EntityUnknown | Reason::EngineError) && !text.is_empty();
        if may_quote && self.hides_any() { WITHHELD.into() } else { self.text(text) }
    }

    /// Whether anything of this call is hidden, so that an engine's error could quote it.
    pub(super) fn hides_any(&self) -> bool {
        self.resource.is_some() || self.route.is_none_or(|route| !self.redaction.hidden_of(route).is_empty())
    }
}

/// What records may show of a question, beside what is no value of its call.
pub(crate) struct Shown {
    /// The path, without query.
    pub(crate) path: String,
    /// The resource.
    pub(crate) resource: String,
    /// Why it is asked.
    pub(crate) words: Vec<String>,
}

/// What records may show of a question; `None`: all.
pub(crate) fn shown(redaction: &Redaction, routes: &Routes, key: &[u8], question: &Question) -> Option<Shown> {
    if redaction.is_empty() {
        return None;
    }
    let path = question.path.split('?').next().unwrap_or_default();
    let request = Request {
        method: question.method.to_string(),
        host: question.host.to_string(),
        path: path.to_owned(),
        ..Request::default()
    };
    let route = routes.route_of(&request);
    let plain = question.resource.to_string();
    let resource = if redaction.hides(&question.resource) { digested(key, &question.resource) } else { plain.clone() };
    Some(Shown {
        path: redaction.path(route.as_deref(), path).unwrap_or_else(|| path.to_owned()),
        words: question.words.iter().map(|word| word.replace(&plain, &resource)).collect(),
        resource,
    })
}
