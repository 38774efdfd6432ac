//! What stands against a principal before any policy: that nobody lists it, that it is retired, of another environment,
//! or one that has nothing but a long-lived secret. What is said of it is a `PrincipalRecord`; it comes with the policies.

use crate::{
    findings::Findings,
    model::{PrincipalRecord, Tier, Timestamp},
    policy::Listed,
    reason::Reason,
    route::Route,
};
use serde_json::Value as Json;

/// File of the records, for findings.
const FILE: &str = "entities.json";

/// `principals` of the settings.
#[derive(Clone, Copy, Debug, Default)]
pub struct Principals {
    require_record: bool,
}

/// Why a principal goes no further, whatever policies say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NotAdmitted {
    /// `entity_unknown`, `principal_retired`, `environment_mismatch` or `credential_refused`.
    pub reason: Reason,
    /// One sentence, for the record.
    pub detail: String,
}

impl Principals {
    /// With `require_record` a principal that is not listed is denied.
    pub const fn new(require_record: bool) -> Self {
        Self { require_record }
    }

    /// Lets a principal go on to a route, by what is said of it; `None`: it is not listed.
    pub fn admit(self, record: Option<&PrincipalRecord>, route: &Route, now: Timestamp) -> Result<(), NotAdmitted> {
        let refused = |reason, detail| Err(NotAdmitted { reason, detail });
        let Some(record) = record else {
            return if self.require_record {
                let detail =
                    format!("the principal is not listed in {FILE}, and `principals.require_record` asks for it");
                refused(Reason::EntityUnknown, detail)
            } else {
                Ok(())
            };
        };
        if let Some(at) = record.retired_at.filter(|at| now >= *at) {
            return refused(Reason::PrincipalRetired, format!("the principal was retired at {at}"));
        }
        if let (Some(theirs), Some(ours)) = (&record.environment, &route.environment)
            && theirs != ours
        {
            let detail = format!("the principal's environment is `{theirs}`, the route's is `{ours}`");
            return refused(Reason::EnvironmentMismatch, detail);
        }
        match record.legacy_until {
            Some(end) if now >= end => {
                refused(Reason::CredentialRefused, format!("the legacy principal was borne until {end}"))
            }
            Some(_) if route.tier != Tier::Coarse => {
                let tier = route.tier.as_str();
                let detail = format!("a legacy principal calls coarse routes alone, and the route's tier is {tier}");
                refused(Reason::CredentialRefused, detail)
            }
            _ => Ok(()),
        }
    }
}

/// Legacy principals whose end has come: somebody should remove them, or wonder why their calls fail.
pub(crate) fn warn(records: &[Listed<'_>], now: Timestamp, findings: &mut Findings) {
    for listed in records {
        if let Some(end) = listed.record.legacy_until.filter(|end| now >= *end) {
            let principal = listed.principal.as_str();
            let message =
                format!("the legacy principal `{principal}` was borne until {end}: each of its calls is denied");
            findings.warning(FILE, listed.place, "legacy_ended", message);
        }
    }
}

/// A record for people and tools.
pub(crate) fn describe(listed: &Listed<'_>) -> Json {
    let record = listed.record;
    let said = [
        ("owner", record.owner.as_deref().map(str::to_owned)),
        ("environment", record.environment.as_ref().map(ToString::to_string)),
        ("retired_at", record.retired_at.map(Timestamp::to_rfc3339)),
        ("legacy_until", record.legacy_until.map(Timestamp::to_rfc3339)),
    ];
    // What is not said is left out: there may be tens of thousands of these.
    let said = said.into_iter().filter_map(|(name, value)| Some((name.to_owned(), Json::String(value?))));
    let name = ("principal".to_owned(), Json::String(listed.principal.as_str().to_owned()));
    Json::Object(std::iter::once(name).chain(said).collect())
}
