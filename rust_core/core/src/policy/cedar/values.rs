//! Our values as Cedar's, and the names that both sides share.

use crate::model::Value;
use cedar_policy_core::{
    ast::{self, Eid, EntityType, EntityUID, Literal, RestrictedExpr},
    evaluator::RestrictedEvaluator,
    extensions::Extensions,
};
use smol_str::SmolStr;
use std::{str::FromStr, sync::LazyLock};

/// Entity type of principals; `entities.cedarschema` must declare it.
pub(super) const WORKLOAD: &str = "Workload";

/// A value as Cedar has it. The error is Cedar's own sentence; a checked value gives none.
pub(super) fn to_cedar(value: &Value) -> Result<ast::Value, String> {
    let text = |s: &str| ast::Value::new(Literal::String(SmolStr::new(s)), None);
    match value {
        Value::Bool(b) => Ok(ast::Value::new(Literal::Bool(*b), None)),
        Value::Long(n) => Ok(ast::Value::new(Literal::Long(*n), None)),
        Value::String(s) => Ok(text(s)),
        Value::Set(members) => Ok(ast::Value::set(members.iter().map(|m| text(m)), None)),
        Value::Decimal(d) => extension(&DECIMAL, &d.to_string()),
        // Cedar's datetime has milliseconds and wants them spelled `.SSSZ`.
        Value::Datetime(at) => {
            let micros = at.to_rfc3339();
            extension(&DATETIME, &format!("{}Z", micros.get(..23).unwrap_or(&micros)))
        }
        Value::Ip(ip) => extension(&IP, &ip.to_string()),
    }
}

/// Names of Cedar's constructors, parsed once: parsing one costs as much as deciding.
static DECIMAL: LazyLock<Option<ast::Name>> = LazyLock::new(|| ast::Name::from_str("decimal").ok());
static DATETIME: LazyLock<Option<ast::Name>> = LazyLock::new(|| ast::Name::from_str("datetime").ok());
static IP: LazyLock<Option<ast::Name>> = LazyLock::new(|| ast::Name::from_str("ip").ok());

/// Milliseconds since the Unix epoch of a `datetime`; `None` of any other value.
pub(super) fn millis_of(value: &ast::Value) -> Option<i64> {
    let name = |text: &str| ast::Name::from_str(text).ok();
    let epoch = RestrictedExpr::call_extension_fn(name("datetime")?, [RestrictedExpr::val("1970-01-01")]);
    let since = RestrictedExpr::call_extension_fn(name("durationSince")?, [value.clone().into(), epoch]);
    let millis = RestrictedExpr::call_extension_fn(name("toMilliseconds")?, [since]);
    let evaluator = RestrictedEvaluator::new(Extensions::all_available());
    match evaluator.interpret(millis.as_borrowed()).ok()?.value_kind() {
        ast::ValueKind::Lit(Literal::Long(millis)) => Some(*millis),
        _ => None,
    }
}

fn extension(function: &LazyLock<Option<ast::Name>>, argument: &str) -> Result<ast::Value, String> {
    let name = LazyLock::force(function).clone().ok_or_else(|| "Cedar does not know the constructor".to_owned())?;
    let call = RestrictedExpr::call_extension_fn(name, [RestrictedExpr::val(argument)]);
    RestrictedEvaluator::new(Extensions::all_available())
        .interpret(call.as_borrowed())
        .map_err(|error| error.to_string())
}

/// `Type::"id"`.
pub(super) fn entity(kind: &EntityType, id: &str) -> EntityUID {
    EntityUID::from_components(kind.clone(), Eid::new(id), None)
}

/// An entity type from its path.
pub(super) fn entity_type(path: &str) -> Option<EntityType> {
    EntityType::from_str(path).ok()
}
