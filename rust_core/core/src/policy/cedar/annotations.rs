//! What a policy says of itself: its annotations. One that means nothing here is the author's own, unless it is nearly
//! one of ours.

use crate::{
    findings::{Findings, Lines, Place, did_you_mean, nearest},
    limits,
    policy::Mode,
};
use cedar_policy_core::ast::{Annotation, Effect, Template};
use std::sync::Arc;

/// Annotations that mean something.
const KNOWN: [&str; 7] = ["id", "description", "owner", "mode", "require_approval", "reason", "advice"];

/// What the annotations come to, beside the id.
pub(super) struct Said {
    /// Whether the policy counts.
    pub(super) mode: Mode,
    /// Whether somebody has to say yes where it decides.
    pub(super) require_approval: Option<Demand>,
    /// Why it is there, for the record.
    pub(super) reason: Option<Arc<str>>,
    /// What a caller whom it denies can do.
    pub(super) advice: Option<Arc<str>>,
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
pub(super) fn read(policy: &Template, file: &str, lines: &Lines, place: Place, findings: &mut Findings) -> Said {
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
    let require_approval = find("require_approval").and_then(|(annotation, at)| {
        let words =
            line(annotation, &REQUIRE_APPROVAL).map_err(|message| findings.error(file, at, "bad_gate", message));
        words.ok().map(|words| Demand { words, place: at })
    });
    let mut words = |rule: &Rule| {
        let (annotation, at) = find(rule.name)?;
        line(annotation, rule).map_err(|message| findings.error(file, at, "bad_annotation", message)).ok()
    };
    let (reason, advice) = (words(&REASON), words(&ADVICE));
    if advice.is_some() && (policy.effect() == Effect::Permit || require_approval.is_some()) {
        let message = "the annotation `@advice`: this policy denies nobody, so nobody is told: write it to a forbid";
        findings.warning(file, place, "idle_advice", message);
    }
    let mode = find("mode").map_or(Mode::Enforce, |(annotation, at)| mode(annotation, file, at, findings));
    Said { mode, require_approval, reason, advice }
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

/// What an annotation of one line may be.
struct Rule {
    name: &'static str,
    most_bytes: usize,
    /// What it is expected to say.
    expected: &'static str,
}

/// Tells whoever answers what is asked, and why.
const REQUIRE_APPROVAL: Rule = Rule {
    name: "require_approval",
    most_bytes: limits::MAX_GATE_WORDS_BYTES,
    expected: "that says what is to be approved",
};
const REASON: Rule =
    Rule { name: "reason", most_bytes: limits::MAX_REASON_BYTES, expected: "that says why the policy is there" };
const ADVICE: Rule =
    Rule { name: "advice", most_bytes: limits::MAX_ADVICE_BYTES, expected: "that says what a caller can do" };

/// One line of bounded length, or what is wrong with it.
fn line(annotation: &Annotation, rule: &Rule) -> Result<Arc<str>, String> {
    let words: &str = annotation.as_ref();
    let wrong = if words.trim().is_empty() {
        "found nothing".to_owned()
    } else if words.len() > rule.most_bytes {
        format!("found {} bytes", words.len())
    } else if words.chars().any(char::is_control) {
        "found a character that is none of a line".to_owned()
    } else {
        return Ok(words.into());
    };
    let Rule { name, most_bytes, expected } = rule;
    Err(format!("the annotation `@{name}`: expected one line of at most {most_bytes} bytes {expected}, {wrong}"))
}
