//! Links: policies that are made of templates, one for each entry of the `links.yaml` files beside them.

use super::texts::{self, Parsed, Taken, Text};
use crate::{
    document::{self, Fields, Node},
    findings::{Findings, Place, did_you_mean},
    limits,
};
use cedar_policy_core::ast::{EntityUID, PolicyID, SlotId, Template};
use std::{
    collections::{HashMap, HashSet},
    str::FromStr,
    sync::Arc,
};

/// What a file of links is called; with a dot before it, it may have a name of its own.
const NAME: &str = "links.yaml";

/// Whether a file below `policies/` is one of links.
pub fn is_links(file: &str) -> bool {
    let name = file.rsplit('/').next().unwrap_or(file);
    name.strip_suffix(NAME).is_some_and(|before| before.is_empty() || before.ends_with('.'))
}

/// Every policy: texts that are policies as they stand, in order, then what links make of templates.
pub(super) fn policies(
    texts: &[Arc<Text>],
    mut taken: Taken,
    files: &[(&str, &str)],
    findings: &mut Findings,
) -> Vec<Parsed> {
    let mut all = texts::policies(texts);
    let templates: HashMap<&str, &Arc<Text>> =
        texts.iter().filter(|text| !text.template.is_static()).map(|text| (&*text.id, text)).collect();
    let mut linked: HashSet<usize> = HashSet::new();
    let before = findings.errors();
    for (file, content) in files {
        let Some(root) = document::parse(file, content, findings) else { continue };
        let Some(mut fields) = Fields::of(file, "the file", &root, findings) else { continue };
        let entries = fields.require("links", findings).and_then(|node| node.list(file, "links", findings));
        let entries = entries.unwrap_or_default();
        let place = fields.place_of("links");
        fields.finish(findings);
        if entries.len() > limits::MAX_LINKS {
            let message = format!("`links`: at most {} links in one file, found {}", limits::MAX_LINKS, entries.len());
            findings.error(file, place, "too_many", message);
            continue;
        }
        let reader = Reader { file: Arc::from(*file), templates: &templates };
        for entry in entries {
            if let Some(parsed) = reader.link(entry, &mut linked, &mut taken, findings) {
                all.push(parsed);
            }
        }
    }
    // A file that can't be read may hold what is missed.
    let links_are_whole = findings.errors() == before;
    let unlinked = |text: &&Arc<Text>| links_are_whole && !text.template.is_static() && !linked.contains(&text.at);
    for text in texts.iter().filter(unlinked) {
        let message = format!("no link names the template `{}`, so it is no policy: link it, or remove it", text.id);
        findings.warning(&text.file, text.place, "unlinked_template", message);
    }
    all
}

/// A key of a link, its slot, and what it says, if it is there and good.
type Given = (&'static str, SlotId, Option<(Place, Option<EntityUID>)>);

/// One file of links.
struct Reader<'a> {
    file: Arc<str>,
    templates: &'a HashMap<&'a str, &'a Arc<Text>>,
}

impl Reader<'_> {
    /// One entry. Every mistake in it is a finding.
    fn link(
        &self,
        node: &Node,
        linked: &mut HashSet<usize>,
        taken: &mut Taken,
        findings: &mut Findings,
    ) -> Option<Parsed> {
        let mut fields = Fields::of(&self.file, "links", node, findings)?;
        let before = findings.errors();
        let name = fields.require_text("template", findings);
        let id = self.id(&mut fields, findings);
        let slots = [("principal", SlotId::principal()), ("resource", SlotId::resource())];
        let given = slots.map(|(key, slot)| {
            let written = fields.take(key);
            (key, slot, written.map(|node| (node.place, self.entity(key, node, findings))))
        });
        let at_template = fields.place_of("template");
        fields.finish(findings);
        let text = name.and_then(|name| self.template(name, at_template, findings));
        if let Some(text) = text {
            // Named is meant, whatever else is wrong.
            linked.insert(text.at);
            self.check_slots(text, node.place, &given, findings);
        }
        let (text, id) = (text?, id?);
        let is_free = texts::take(taken, &id, (&self.file, node.place), findings);
        if !is_free || findings.errors() != before {
            return None;
        }
        let bound = given.into_iter().filter_map(|(_, slot, written)| Some((slot, written?.1?))).collect();
        Some(Parsed {
            policy: Template::link(Arc::clone(&text.template), PolicyID::from_string(&*id), bound).ok()?,
            text: Arc::clone(text),
            id,
            file: Arc::clone(&self.file),
            place: node.place,
            is_link: true,
        })
    }

    fn id(&self, fields: &mut Fields<'_>, findings: &mut Findings) -> Option<Arc<str>> {
        let id = fields.require_text("id", findings)?;
        if id.is_empty() {
            findings.error(&self.file, fields.place_of("id"), "empty_text", "`id`: expected a name for the link");
            return None;
        }
        Some(id.into())
    }

    fn template(&self, name: &str, place: Place, findings: &mut Findings) -> Option<&Arc<Text>> {
        let found = self.templates.get(name).copied();
        if found.is_none() {
            let meant = did_you_mean(name, self.templates.keys().copied());
            let message = format!("`template`: no template below `policies/` has the id `{name}`{meant}");
            findings.error(&self.file, place, "unknown_template", message);
        }
        found
    }

    /// `Type::"id"`.
    fn entity(&self, key: &'static str, node: &Node, findings: &mut Findings) -> Option<EntityUID> {
        let text = node.text(&self.file, key, findings)?;
        if let Ok(uid) = EntityUID::from_str(text) {
            // Without the place in its own text, which is none in the file.
            return Some(EntityUID::from_components(uid.entity_type().clone(), uid.eid().clone(), None));
        }
        let message = format!("`{key}`: expected an entity such as `Account::\"42\"`, found {}", node.describe());
        findings.error(&self.file, node.place, "bad_entity", message);
        None
    }

    /// A link fills the slots that its template has, all of them and no others.
    fn check_slots(&self, text: &Text, place: Place, given: &[Given], findings: &mut Findings) {
        for (key, slot, written) in given {
            let is_asked = text.template.slots().any(|known| known.id == *slot);
            let (at, message) = match written {
                None if is_asked => {
                    (place, format!("`{key}` is missing: the template `{}` has the slot `{slot}`", text.id))
                }
                Some((at, _)) if !is_asked => {
                    (*at, format!("`{key}`: the template `{}` has no slot `{slot}`: leave the key out", text.id))
                }
                _ => continue,
            };
            findings.error(&self.file, at, "link_slot", message);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_of_links_is_known_by_its_name() {
        for file in ["policies/links.yaml", "policies/a/links.yaml", "policies/a/agents.links.yaml"] {
            assert!(is_links(file), "{file}");
        }
        for file in ["policies/uplinks.yaml", "policies/links.yml", "policies/links.yaml/p.cedar", "policies/links"] {
            assert!(!is_links(file), "{file}");
        }
    }
}
