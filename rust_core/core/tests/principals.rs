//! Principals through the core's door: what the directory says of one stands against it before any policy, and what
//! can't be read of it does not load.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, missing_docs)]

mod stage;

use proptest::prelude::*;
use serde_json::{Value as Json, json};
use signalwarden_core::{
    error::Error,
    findings::{Finding, Severity},
    identity::Validated,
    model::{Peer, Request, Timestamp},
    record::InfluenceMode,
    snapshot::{CoreSettings, Snapshot},
    wire,
};
use std::sync::Arc;

const NOW: Timestamp = Timestamp::from_micros(1_800_000_000_000_000);
const BEFORE: Timestamp = Timestamp::from_micros(NOW.as_micros() - 1);
const AFTER: Timestamp = Timestamp::from_micros(NOW.as_micros() + 1);
const AGENT: &str = "spiffe://prod.example/agent";
const SCHEMA: &str = "entity Workload = { owner?: String, environment?: String, retired_at?: String, device?: String, \
                      legacy?: Bool, legacy_until?: String }; entity Account;";
const ROUTES: &str = r#"
routes:
  - {match: {host: "*", path: "/coarse"}, action: coarse, resource: {type: Account, id: "1"}, tier: coarse, sensitivity: low, environment: prod}
  - {match: {host: "*", path: "/runtime"}, action: runtime, resource: {type: Account, id: "1"}, tier: runtime, sensitivity: low}
  - {match: {host: "*", path: "/jit"}, action: jit, resource: {type: Account, id: "1"}, tier: jit, sensitivity: low}
  - {match: {host: "*", path: "/free"}, action: free, resource: {type: Account, id: "1"}, tier: runtime, sensitivity: low, environment: prod, enforce: false}
"#;
const POLICIES: &str = "@id(\"all\") permit(principal, action, resource);";

struct Directory {
    schema: &'static str,
    policies: String,
    entities: String,
    require_record: bool,
}

impl Directory {
    /// One workload with these attributes.
    fn of(attributes: &Json) -> Self {
        let entity = json!({"uid": {"type": "Workload", "id": AGENT}, "attrs": attributes, "parents": []});
        Self {
            schema: SCHEMA,
            policies: POLICIES.to_owned(),
            entities: json!([entity]).to_string(),
            require_record: false,
        }
    }

    fn load(&self) -> Result<Snapshot, Vec<Finding>> {
        let file = |name: &str, text: &str| (name.to_owned(), text.as_bytes().to_vec());
        let files = [
            file("routes.yaml", ROUTES),
            file("signals.yaml", "signals: {}"),
            file("entities.cedarschema", self.schema),
            file("entities.json", &self.entities),
            file("policies/all.cedar", &self.policies),
        ];
        let settings = CoreSettings { require_record: self.require_record, ..stage::settings("prod.example") };
        Snapshot::load(&files, &settings, NOW).map_err(|error| match error {
            Error::Configuration(findings) => findings,
            other => panic!("{other}"),
        })
    }

    fn record(&self, path: &str) -> Json {
        let engine = stage::engine(Arc::new(self.load().unwrap()), 4, InfluenceMode::All);
        let request = Request {
            method: "GET".into(),
            path: path.into(),
            host: "pay.prod.example".into(),
            scheme: "https".into(),
            protocol: "HTTP/2".into(),
            source: Peer { principal: AGENT.into(), ..Peer::default() },
            ..Request::default()
        };
        let answer =
            engine.check(&wire::encode_request(&request), &Validated::default(), NOW, [0; 10], &|| 0).answer().unwrap();
        wire::rules::check(&answer).unwrap_or_else(|broken| panic!("Envoy's rules are broken: {broken:?}"));
        serde_json::from_slice(&engine.drain(4).0).unwrap()
    }

    fn reason(&self, path: &str) -> String {
        self.record(path)["reason"].as_str().unwrap().to_owned()
    }
}

/// What `check` says, as (line, code).
fn findings(directory: &Directory) -> Vec<(u32, &'static str, String)> {
    let found = directory.load().map_or_else(|findings| findings, |snapshot| snapshot.warnings);
    let told = found.into_iter().filter(|finding| finding.code != "unenforced_route");
    told.map(|finding| (finding.place.line, finding.code, finding.message)).collect()
}

#[test]
fn each_thing_that_stands_against_a_principal_has_its_reason() {
    for (attributes, path, expected) in [
        (json!({}), "/coarse", "allowed"),
        (json!({"retired_at": AFTER.to_rfc3339()}), "/coarse", "allowed"),
        (json!({"retired_at": NOW.to_rfc3339()}), "/coarse", "principal_retired"),
        (json!({"retired_at": BEFORE.to_rfc3339()}), "/coarse", "principal_retired"),
        (json!({"environment": "prod"}), "/coarse", "allowed"),
        (json!({"environment": "test"}), "/coarse", "environment_mismatch"),
        (json!({"environment": "Prod"}), "/coarse", "environment_mismatch"),
        (json!({"environment": "test"}), "/runtime", "allowed"),
        (json!({"legacy": true, "legacy_until": AFTER.to_rfc3339()}), "/coarse", "allowed"),
        (json!({"legacy_until": AFTER.to_rfc3339()}), "/runtime", "credential_refused"),
        (json!({"legacy": true, "legacy_until": AFTER.to_rfc3339()}), "/runtime", "credential_refused"),
        (json!({"legacy": true, "legacy_until": AFTER.to_rfc3339()}), "/jit", "credential_refused"),
        (json!({"legacy": true, "legacy_until": NOW.to_rfc3339()}), "/coarse", "credential_refused"),
        (json!({"legacy": false}), "/runtime", "allowed"),
        // The first of them all gives the reason.
        (
            json!({"retired_at": NOW.to_rfc3339(), "environment": "test", "legacy_until": NOW.to_rfc3339()}),
            "/coarse",
            "principal_retired",
        ),
        (json!({"environment": "test", "legacy_until": NOW.to_rfc3339()}), "/coarse", "environment_mismatch"),
        // What is not enforced lets pass what policies say, not who nobody is.
        (json!({"retired_at": NOW.to_rfc3339()}), "/free", "principal_retired"),
        (json!({"environment": "test"}), "/free", "environment_mismatch"),
        (json!({"legacy_until": AFTER.to_rfc3339()}), "/free", "credential_refused"),
    ] {
        let record = Directory::of(&attributes).record(path);
        assert_eq!(record["reason"], expected, "{attributes} {path}");
        assert!(record.get("enforced").is_none(), "{attributes} {path}");
    }
}

#[test]
fn a_principal_that_nobody_lists_is_denied_where_a_record_is_required() {
    let nobody = |require_record| Directory { entities: "[]".to_owned(), require_record, ..Directory::of(&json!({})) };
    assert_eq!(nobody(false).reason("/coarse"), "allowed");
    let record = nobody(true).record("/coarse");
    assert_eq!(record["reason"], "entity_unknown");
    assert!(record["detail"].as_str().unwrap().contains("require_record"), "{record}");
    assert_eq!(Directory { require_record: true, ..Directory::of(&json!({})) }.reason("/coarse"), "allowed");
    // A resource with the principal's name is another entity.
    let resource = json!([{"uid": {"type": "Account", "id": AGENT}, "attrs": {}, "parents": []}]).to_string();
    assert_eq!(Directory { entities: resource, ..nobody(true) }.reason("/coarse"), "entity_unknown");
}

#[test]
fn times_may_be_of_cedar() {
    const DATETIMES: &str = "entity Workload = { retired_at?: datetime, legacy_until?: datetime }; entity Account;";
    let extension = |text: &str| json!({"__extn": {"fn": "datetime", "arg": text}});
    for (attributes, expected) in [
        (json!({"retired_at": extension("2027-01-15T08:00:00Z")}), "principal_retired"),
        (json!({"retired_at": "2027-01-15T09:00:00+0100"}), "principal_retired"),
        (json!({"retired_at": "2027-01-15"}), "principal_retired"),
        (json!({"retired_at": "2027-01-15T08:00:00.001Z"}), "allowed"),
        (
            json!({"retired_at": {"__extn": {"fn": "offset", "args": [extension("2027-01-16"), {"__extn": {"fn": "duration", "arg": "-1d"}}]}}}),
            "principal_retired",
        ),
        (json!({"legacy_until": "2027-01-15"}), "credential_refused"),
        (json!({"legacy_until": "2027-01-16"}), "allowed"),
    ] {
        let directory = Directory { schema: DATETIMES, ..Directory::of(&attributes) };
        assert_eq!(directory.reason("/coarse"), expected, "{attributes}");
    }
}

#[test]
fn the_record_says_what_the_directory_says() {
    let attributes = json!({"owner": "team@prod.example", "environment": "prod", "legacy_until": AFTER.to_rfc3339()});
    let principal = &Directory::of(&attributes).record("/runtime")["principal"];
    assert_eq!(principal["owner"], "team@prod.example");
    assert_eq!(principal["environment"], "prod");
    assert_eq!(principal["legacy"], true);
    let plain = &Directory::of(&json!({"legacy": false})).record("/runtime")["principal"];
    for key in ["owner", "environment", "legacy"] {
        assert!(plain.get(key).is_none(), "{plain}");
    }
}

#[test]
fn policies_see_whether_a_principal_is_a_legacy_one() {
    let policies =
        format!("{POLICIES}\n@id(\"new\") forbid(principal, action, resource) when {{ context.identity.legacy }};");
    let ask =
        |attributes: &Json| Directory { policies: policies.clone(), ..Directory::of(attributes) }.reason("/coarse");
    assert_eq!(ask(&json!({})), "allowed");
    assert_eq!(ask(&json!({"legacy": true, "legacy_until": AFTER.to_rfc3339()})), "policy_denied");
    let unlisted = Directory { policies: policies.clone(), entities: "[]".to_owned(), ..Directory::of(&json!({})) };
    assert_eq!(unlisted.reason("/coarse"), "allowed");
}

#[test]
fn an_attribute_that_cannot_be_read_does_not_load() {
    const LOOSE: &str = "entity Workload = { owner?: Long, environment?: String, retired_at?: Long, device?: Set<String>, \
                         legacy?: String, legacy_until?: String }; entity Account;";
    let entities = format!(
        r#"[
  {{"uid": {{"type": "Workload", "id": "spiffe://prod.example/1"}}, "attrs": {{
    "owner": 4,
    "device": ["x"],
    "retired_at": 1800000000}}, "parents": []}},
  {{"uid": {{"type": "Workload", "id": "spiffe://prod.example/2"}}, "attrs": {{
    "environment": "a b",
    "legacy": "yes"}}, "parents": []}},
  {{"uid": {{"type": "Workload", "id": "spiffe://prod.example/3"}}, "attrs": {{
    "legacy_until": "next year"}}, "parents": []}},
  {{"uid": {{"type": "Workload", "id": "spiffe://prod.example/4"}}, "attrs": {{"environment": "{}"}}, "parents": []}},
  {{"uid": {{"type": "Workload", "id": "web"}}, "attrs": {{}}, "parents": []}},
  {{"uid": {{"type": "Workload", "id": "web2"}}, "attrs": {{"environment": "prod"}}, "parents": []}}
]"#,
        "e".repeat(129)
    );
    let found = findings(&Directory { schema: LOOSE, entities, ..Directory::of(&json!({})) });
    let lines: Vec<u32> = found.iter().map(|(line, ..)| *line).collect();
    assert_eq!(lines, [3, 4, 5, 7, 8, 10, 11, 13], "{found:#?}");
    assert!(found.iter().all(|(_, code, _)| *code == "principal_record"), "{found:#?}");
    assert!(found[2].2.starts_with("entry 1: `retired_at`: expected a time such as"), "{found:#?}");
    assert!(found[7].2.contains("`web2` is no SPIFFE ID"), "{found:#?}");
}

#[test]
fn a_legacy_principal_has_an_end_date_and_says_nothing_twice() {
    let found = |attributes: Json| findings(&Directory::of(&attributes)).into_iter().map(|f| f.1).collect::<Vec<_>>();
    assert_eq!(found(json!({"legacy": true})), ["legacy_without_end"]);
    assert_eq!(found(json!({"legacy": false, "legacy_until": AFTER.to_rfc3339()})), ["principal_record"]);
    assert_eq!(found(json!({"legacy": true, "legacy_until": ""})), ["principal_record"]);
    assert_eq!(found(json!({"legacy": true, "legacy_until": AFTER.to_rfc3339()})), Vec::<&str>::new());
    assert_eq!(found(json!({"retired_at": "2027-01-15"})), ["principal_record"]);
    assert_eq!(found(json!({"owner": "o".repeat(255)})), ["principal_record"]);
}

#[test]
fn a_legacy_principal_that_has_ended_or_is_promised_too_much_is_a_warning() {
    let ended = Directory::of(&json!({"legacy_until": NOW.to_rfc3339()}));
    let said = ended.load().unwrap().warnings.into_iter().find(|finding| finding.code == "legacy_ended").unwrap();
    assert_eq!((said.severity, said.file.as_str(), said.place.line), (Severity::Warning, "entities.json", 1));
    let named = |action: &str| {
        let policies = format!(
            "{POLICIES}\npermit(principal == Workload::\"{AGENT}\", {action}, resource);\n\
             forbid(principal == Workload::\"{AGENT}\", action == Action::\"runtime\", resource);"
        );
        findings(&Directory { policies, ..Directory::of(&json!({"legacy_until": AFTER.to_rfc3339()})) })
    };
    assert_eq!(named("action"), []);
    assert_eq!(named("action == Action::\"coarse\""), []);
    let found = named("action in [Action::\"coarse\", Action::\"runtime\", Action::\"jit\"]");
    assert_eq!(found.len(), 1, "{found:#?}");
    assert_eq!((found[0].0, found[0].1), (2, "legacy_permit"));
    assert!(found[0].2.contains("permits `jit`, `runtime` to `spiffe://prod.example/agent`"), "{found:#?}");
}

#[test]
fn an_environment_that_is_no_name_is_a_finding_and_the_route_is_not_open() {
    for written in ["\"\"", "[prod]", "\"pr od\"", "true"] {
        let routes = ROUTES.replacen("environment: prod", &format!("environment: {written}"), 1);
        let texts = stage::Texts { routes: &routes, signals: "signals: {}", schema: SCHEMA, policies: POLICIES };
        let Err(Error::Configuration(found)) = stage::load(&texts, "prod.example", NOW) else { panic!("{written}") };
        assert!(found.iter().any(|f| f.place.line == 3 && f.message.contains("`environment`")), "{found:#?}");
    }
}

#[test]
fn a_description_names_whatever_can_stand_against_a_principal() {
    let described = |attributes: Json| Directory::of(&attributes).load().unwrap().describe()["principals"].clone();
    assert_eq!(described(json!({"owner": "o", "device": "d"})), json!([]));
    let until = AFTER.to_rfc3339();
    assert_eq!(
        described(json!({"owner": "o", "legacy_until": until})),
        json!([{"principal": AGENT, "owner": "o", "legacy_until": until}])
    );
}

fn attributes() -> impl Strategy<Value = Json> {
    let time = || prop::option::of(prop_oneof![Just(BEFORE), Just(NOW), Just(AFTER)]);
    let name = prop::option::of(prop_oneof![Just("prod"), Just("test")]);
    (time(), time(), name, any::<bool>()).prop_map(|(retired, legacy, environment, says_so)| {
        let mut attributes = serde_json::Map::new();
        let mut put = |key: &str, value: Option<Json>| value.map(|value| attributes.insert(key.to_owned(), value));
        put("retired_at", retired.map(|at| at.to_rfc3339().into()));
        put("legacy_until", legacy.map(|at| at.to_rfc3339().into()));
        put("environment", environment.map(Json::from));
        put("legacy", (says_so && legacy.is_some()).then_some(Json::Bool(true)));
        Json::Object(attributes)
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// What is said of a principal here only ever narrows: without it, it could do at least as much.
    #[test]
    fn what_is_said_of_a_principal_never_widens(attributes in attributes(), dropped in 0_usize..4) {
        let keys = ["retired_at", "legacy_until", "environment", "legacy"];
        let mut less = attributes.clone();
        less.as_object_mut().unwrap().remove(keys[dropped]);
        if less.get("legacy_until").is_none() {
            less.as_object_mut().unwrap().remove("legacy");
        }
        for path in ["/coarse", "/runtime"] {
            let (with, without) = (Directory::of(&attributes).reason(path), Directory::of(&less).reason(path));
            prop_assert!(with != "allowed" || without == "allowed", "{attributes}: {with}; {less}: {without}");
        }
    }
}
