//! What stands in `.cedar` files: policies, and templates that links make policies of.

use super::{
    annotations::{self, Said},
    schema::label,
    sentence,
};
use crate::{
    findings::{Findings, Lines, Place},
    limits,
};
use cedar_policy_core::{
    ast::{Policy, PolicyID, Template},
    parser::{Loc, parse_policyset},
};
use std::{collections::HashMap, sync::Arc};

/// A policy or a template, as written.
pub(super) struct Text {
    /// Its number among all of them.
    pub(super) at: usize,
    /// Cedar's word for either: a policy is a template without slots.
    pub(super) template: Arc<Template>,
    /// Its `@id`, else `file:line`.
    pub(super) id: Arc<str>,
    pub(super) said: Said,
    pub(super) file: Arc<str>,
    pub(super) lines: Arc<Lines>,
    pub(super) place: Place,
}

/// One policy: a text without slots, or what a link makes of a template.
pub(super) struct Parsed {
    pub(super) policy: Policy,
    pub(super) text: Arc<Text>,
    pub(super) id: Arc<str>,
    /// Where the policy stands, or the link.
    pub(super) file: Arc<str>,
    pub(super) place: Place,
    pub(super) is_link: bool,
}

/// Which ids are taken, and where.
pub(super) type Taken = HashMap<Arc<str>, (Arc<str>, Place)>;

/// Parses every file; syntax mistakes become findings, policies of other files are still read.
pub(super) fn parse(files: &[(&str, &str)], findings: &mut Findings) -> (Vec<Arc<Text>>, Taken) {
    let mut all: Vec<Arc<Text>> = Vec::new();
    let mut taken = Taken::new();
    for (file, text) in files {
        if text.len() > limits::MAX_FILE_BYTES {
            let message = format!("larger than {} bytes", limits::MAX_FILE_BYTES);
            findings.error(file, Place::default(), "too_large", message);
            continue;
        }
        let lines = Arc::new(Lines::of(text));
        let set = match parse_policyset(text) {
            Ok(set) => set,
            Err(errors) => {
                for error in errors.iter() {
                    findings.error(file, label(&lines, error), "syntax", sentence(error));
                }
                continue;
            }
        };
        let file: Arc<str> = Arc::from(*file);
        let mut templates: Vec<&Template> = set.all_templates().collect();
        templates.sort_by_key(|template| template.loc().map_or(0, Loc::start));
        for template in templates {
            let place = template.loc().map_or_else(Place::default, |loc| lines.place(loc.start()));
            let id: Arc<str> = template
                .annotations()
                .find(|(key, value)| key.as_ref() == "id" && !value.as_ref().is_empty())
                .map_or_else(|| format!("{file}:{}", place.line).into(), |(_, value)| Arc::from(value.as_ref()));
            let said = annotations::read(template, &file, &lines, place, findings);
            if !take(&mut taken, &id, (&file, place), findings) {
                continue;
            }
            // Cedar's own id is not shown to anybody; ours is, so both are the same.
            let template = Arc::new(template.new_id(PolicyID::from_string(&*id)));
            let (file, lines) = (Arc::clone(&file), Arc::clone(&lines));
            all.push(Arc::new(Text { at: all.len(), template, id, said, file, lines, place }));
        }
    }
    (all, taken)
}

/// Takes an id for a policy, a template or a link; false, with a finding, if it is taken already.
pub(super) fn take(
    taken: &mut Taken,
    id: &Arc<str>,
    (file, place): (&Arc<str>, Place),
    findings: &mut Findings,
) -> bool {
    if let Some((other, at)) = taken.get(id) {
        let message = format!("the policy id `{id}` is taken already, at {other}:{}", at.line);
        findings.error(file, place, "duplicate_id", message);
        return false;
    }
    taken.insert(Arc::clone(id), (Arc::clone(file), place));
    true
}

/// The texts that are policies as they stand.
pub(super) fn policies(texts: &[Arc<Text>]) -> Vec<Parsed> {
    let policy = |text: &Arc<Text>| {
        Some(Parsed {
            policy: Template::try_as_policy(Arc::clone(&text.template)).ok()?,
            text: Arc::clone(text),
            id: Arc::clone(&text.id),
            file: Arc::clone(&text.file),
            place: text.place,
            is_link: false,
        })
    };
    texts.iter().filter_map(policy).collect()
}
