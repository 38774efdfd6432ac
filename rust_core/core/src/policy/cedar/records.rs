//! What `entities.json` says of each workload beside its roles: attributes that mean something to us before any policy
//! reads them. One that can't be read is an error: a misspelt end must not be an end that never comes.

use super::{built_in, checks::Vocabulary, entities::FILE, texts::Parsed, values};
use crate::{
    findings::{Findings, Place},
    limits,
    model::{Environment, PrincipalRecord, SpiffeId, Tier, Timestamp},
    policy::Mode,
};
use cedar_policy_core::ast::{
    ActionConstraint, Effect, Entity, EntityReference, Literal, PartialValue, PrincipalOrResourceConstraint, ValueKind,
};
use std::{collections::HashMap, sync::Arc};

/// The records of a directory.
pub(super) type Records = HashMap<SpiffeId, (PrincipalRecord, Place)>;

/// What is wrong with a record, and with which attribute of it; none: with the whole.
pub(super) struct Slip {
    pub(super) attribute: Option<&'static str>,
    pub(super) code: &'static str,
    pub(super) message: String,
}

/// Most of a value that a message quotes, in characters.
const LONGEST_QUOTE: usize = 60;

/// The record of a workload; `None` for entities of other types, and for one that no caller can be.
pub(super) fn read(entity: &Entity) -> Result<Option<(SpiffeId, PrincipalRecord)>, Vec<Slip>> {
    if entity.uid().entity_type().to_string() != values::WORKLOAD {
        return Ok(None);
    }
    let mut attributes = Attributes { entity, slips: Vec::new() };
    let record = PrincipalRecord {
        owner: attributes.owner(),
        environment: attributes.environment(),
        retired_at: attributes.time("retired_at"),
        device: attributes.text("device").map(Arc::from),
        legacy_until: attributes.legacy_until(),
    };
    let mut slips = attributes.slips;
    let id: &str = entity.uid().eid().as_ref();
    match SpiffeId::parse(id) {
        Ok(principal) if slips.is_empty() => return Ok(Some((principal, record))),
        Err(why) if record.restricts() => {
            let message = format!("`{id}` is no SPIFFE ID ({why}), so what is said of it would hold for nobody");
            slips.push(Slip { attribute: None, code: "principal_record", message });
        }
        _ => {}
    }
    if slips.is_empty() { Ok(None) } else { Err(slips) }
}

/// The attributes of one workload, and what is wrong with them.
struct Attributes<'a> {
    entity: &'a Entity,
    slips: Vec<Slip>,
}

impl<'a> Attributes<'a> {
    fn slip(&mut self, attribute: &'static str, message: String) {
        self.slips.push(Slip { attribute: Some(attribute), code: "principal_record", message });
    }

    fn expected(&mut self, attribute: &'static str, expected: &str, found: &PartialValue) {
        let mut found = found.to_string();
        if found.chars().count() > LONGEST_QUOTE {
            found = found.chars().take(LONGEST_QUOTE).chain(['…']).collect();
        }
        self.slip(attribute, format!("`{attribute}`: expected {expected}, found `{found}`"));
    }

    fn text(&mut self, name: &'static str) -> Option<&'a str> {
        let found = self.entity.get(name)?;
        let text = text_of(found);
        if text.is_none() {
            self.expected(name, "text", found);
        }
        text
    }

    fn owner(&mut self) -> Option<Arc<str>> {
        let text = self.text("owner")?;
        let fits = text.len() <= limits::MAX_OWNER_BYTES;
        if !fits {
            self.slip(
                "owner",
                format!("`owner`: expected at most {} bytes, found {}", limits::MAX_OWNER_BYTES, text.len()),
            );
        }
        fits.then(|| Arc::from(text))
    }

    fn environment(&mut self) -> Option<Environment> {
        let text = self.text("environment")?;
        let environment = Environment::parse(text);
        if environment.is_none() {
            self.slip("environment", format!("`environment`: expected {}, found `{text}`", Environment::FORM));
        }
        environment
    }

    fn time(&mut self, name: &'static str) -> Option<Timestamp> {
        let found = self.entity.get(name)?;
        let time = match (text_of(found), found) {
            (Some(text), _) => Timestamp::parse_rfc3339(text),
            (None, PartialValue::Value(value)) => {
                values::millis_of(value).map(|millis| Timestamp::from_micros(millis.saturating_mul(1_000)))
            }
            (None, PartialValue::Residual(_)) => None,
        };
        if time.is_none() {
            self.expected(name, "a time such as `2027-01-31T00:00:00Z`, as text or as a Cedar `datetime`", found);
        }
        time
    }

    /// `legacy_until` alone says that the principal is a legacy one, as `legacy: true` does.
    fn legacy_until(&mut self) -> Option<Timestamp> {
        let said = self.entity.get("legacy");
        let legacy = said.and_then(|found| match found {
            PartialValue::Value(value) => match value.value_kind() {
                ValueKind::Lit(Literal::Bool(legacy)) => Some(*legacy),
                _ => None,
            },
            PartialValue::Residual(_) => None,
        });
        let is_given = self.entity.get("legacy_until").is_some();
        match (said, legacy) {
            (Some(found), None) => self.expected("legacy", "`true` or `false`", found),
            (_, Some(true)) if !is_given => self.slips.push(Slip {
                attribute: Some("legacy"),
                code: "legacy_without_end",
                message: "`legacy: true` needs `legacy_until`: a legacy principal has an end date".to_owned(),
            }),
            (_, Some(false)) if is_given => {
                self.slip("legacy_until", "`legacy_until` contradicts `legacy: false`".to_owned());
            }
            _ => {}
        }
        self.time("legacy_until")
    }
}

fn text_of(value: &PartialValue) -> Option<&str> {
    match value {
        PartialValue::Value(value) => match value.value_kind() {
            ValueKind::Lit(Literal::String(text)) => Some(text.as_str()),
            _ => None,
        },
        PartialValue::Residual(_) => None,
    }
}

/// Permits that name a legacy principal, and an action that none such may call: they promise what is never given.
pub(super) fn warn_of_permits(parsed: &[Parsed], known: &Vocabulary<'_>, records: &Records, findings: &mut Findings) {
    for policy in parsed.iter().filter(|p| p.text.said.mode == Mode::Enforce && p.policy.effect() == Effect::Permit) {
        let constraint = policy.policy.principal_constraint();
        let PrincipalOrResourceConstraint::Eq(EntityReference::EUID(uid)) = constraint.as_inner() else { continue };
        let id: &str = uid.eid().as_ref();
        let is_legacy = uid.entity_type().to_string() == values::WORKLOAD
            && SpiffeId::parse(id).is_ok_and(|id| records.get(&id).is_some_and(|(record, _)| record.is_legacy()));
        // A permit of any action promises none in particular.
        if !is_legacy || matches!(policy.policy.action_constraint(), ActionConstraint::Any) {
            continue;
        }
        let calls = known.matched(policy.policy.action_constraint());
        let calls = calls.iter().filter(|action| !built_in::is_built_in(&action.id));
        let beyond = calls.filter(|action| action.tier != Tier::Coarse);
        let mut beyond: Vec<String> = beyond.map(|action| format!("`{}`", action.id)).collect();
        beyond.sort_unstable();
        if !beyond.is_empty() {
            let message = format!(
                "this policy permits {} to `{id}`, which {FILE} calls a legacy principal: such a one calls actions of \
                 tier coarse alone",
                beyond.join(", ")
            );
            findings.warning(&policy.file, policy.place, "legacy_permit", message);
        }
    }
}
