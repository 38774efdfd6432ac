//! What a policy says of itself: its annotations. One that means nothing here is the author's own, unless it is nearly
//! one of ours.

use super::values::Lines;
use crate::{
    findings::{Findings, Place, did_you_mean, nearest},
    limits,
    policy::Mode,
};
use cedar_policy_core::ast::{Annotation, Policy};
use std::sync::Arc;

/// Annotations that mean something.
const KNOWN: [&str; 5] = ["id", "description", "owner", "mode", "require_approval"];

/// What the annotations come to, beside the id.
pub(super) struct Said {
    /// Whether the policy counts.
    pub(super) mode: Mode,
    /// Whether somebody has to say yes where it decides.
    pub(super) require_approval: Option<Demand>,
}

/// A demand for an approval.
#[derive(Clone, Debug)]
pub(super) struct Demand {
    /// What is asked, for whoever answers.
    pub(super) words: Arc<str>,
    /// Where the annotation stands.
    pub(super) place: Place,
}

/// Reads the annotations of a policy; mistakes become findings.
pub(super) fn read(policy: &Policy, file: &str, lines: &Lines, place: Place, findings: &mut Findings) -> Said {
    for (key, _) in policy.annotations() {
        let key: &str = key.as_ref();
        let meant = if KNOWN.contains(&key) { None } else { nearest(key, KNOWN) };
        if let Some(meant) = meant {
            let message = format!("the annotation `@{key}` is unknown, did you mean `@{meant}`?");
            findings.error(file, place, "unknown_annotation", message);
        }
    }
    let find = |wanted: &str| {
        let (_, annotation) = policy.annotations().find(|(key, _)| key.as_ref() == wanted)?;
        Some((annotation, annotation.loc.as_ref().map_or(place, |loc| lines.place(loc.start()))))
    };
    Said {
        mode: find("mode").map_or(Mode::Enforce, |(annotation, at)| mode(annotation, file, at, findings)),
        require_approval: find("require_approval").and_then(|(annotation, at)| demand(annotation, file, at, findings)),
    }
}

/// What `@mode` says. A word that is not known is an error, and the policy is read as one that counts.
fn mode(annotation: &Annotation, file: &str, at: Place, findings: &mut Findings) -> Mode {
    let word: &str = annotation.as_ref();
    if let Some((_, mode)) = Mode::ALL.iter().find(|(known, _)| *known == word) {
        return *mode;
    }
    let hint = did_you_mean(word, Mode::ALL.iter().map(|(known, _)| *known));
    let found = if word.is_empty() { "nothing".to_owned() } else { format!("`{word}`") };
    let message = format!("the annotation `@mode`: expected `\"enforce\"` or `\"observe\"`, found {found}{hint}");
    findings.error(file, at, "unknown_mode", message);
    Mode::Enforce
}

/// What `@require_approval` says: one line that tells whoever answers what is asked, and why.
fn demand(annotation: &Annotation, file: &str, at: Place, findings: &mut Findings) -> Option<Demand> {
    let words: &str = annotation.as_ref();
    let wrong = if words.trim().is_empty() {
        "found nothing".to_owned()
    } else if words.len() > limits::MAX_GATE_WORDS_BYTES {
        format!("found {} bytes", words.len())
    } else if words.chars().any(char::is_control) {
        "found a character that is none of a line".to_owned()
    } else {
        return Some(Demand { words: words.into(), place: at });
    };
    let most = limits::MAX_GATE_WORDS_BYTES;
    let message = format!(
        "the annotation `@require_approval`: expected one line of at most {most} bytes that says what is to be \
         approved, {wrong}"
    );
    findings.error(file, at, "bad_gate", message);
    None
}
