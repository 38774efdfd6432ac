//! A running core for tests that go through its door: loaded from a few texts, fed by publishers.
#![allow(clippy::unwrap_used, missing_docs)]
#![allow(dead_code, reason = "each test binary uses its own part")]

use serde_json::{Value as Json, json};
use signalwarden_core::{
    change::Change,
    engine::{Engine, Options},
    error::Error,
    model::{Origin, Timestamp},
    record::{InfluenceMode, Rendering},
    signals::Admission,
    snapshot::{CoreSettings, Snapshot},
};
use std::sync::Arc;

/// The texts of a directory, in this order.
pub(crate) struct Texts<'a> {
    pub(crate) routes: &'a str,
    pub(crate) signals: &'a str,
    pub(crate) schema: &'a str,
    pub(crate) policies: &'a str,
}

/// A directory without entities, through the loader with all its checks.
pub(crate) fn load(texts: &Texts<'_>, trust_domain: &str, now: Timestamp) -> Result<Snapshot, Error> {
    load_with(texts, &settings(trust_domain), now)
}

/// The same with settings of one's own.
pub(crate) fn load_with(texts: &Texts<'_>, settings: &CoreSettings, now: Timestamp) -> Result<Snapshot, Error> {
    let file = |name: &str, text: &str| (name.to_owned(), text.as_bytes().to_vec());
    let files = [
        file("routes.yaml", texts.routes),
        file("signals.yaml", texts.signals),
        file("entities.cedarschema", texts.schema),
        file("entities.json", "[]"),
        file("policies/all.cedar", texts.policies),
    ];
    Snapshot::load(&files, settings, now)
}

pub(crate) fn settings(trust_domain: &str) -> CoreSettings {
    CoreSettings::of(trust_domain)
}

/// A core whose log holds so many records. It has no configuration yet.
pub(crate) fn empty_engine(log_capacity: usize, influence: InfluenceMode) -> Engine {
    Engine::new(Options {
        log_capacity,
        log_bytes: usize::MAX,
        rendering: Rendering { influence, digest_key: vec![7; 32] },
        seed: 1,
        max_live: 1_000,
    })
}

pub(crate) fn engine(snapshot: Arc<Snapshot>, log_capacity: usize, influence: InfluenceMode) -> Engine {
    let engine = empty_engine(log_capacity, influence);
    engine.swap(snapshot);
    engine
}

/// A batch of one origin, judged and taken in.
pub(crate) fn publish(engine: &Engine, origin: &str, items: &Json, now: Timestamp) -> Admission {
    let body = json!({"signals": items}).to_string();
    let admission = engine.admit(body.as_bytes(), &Origin::parse(origin).unwrap(), now).unwrap();
    let payloads: Vec<_> = admission.changes.iter().map(Change::to_payload).collect();
    engine.apply(&payloads, now).unwrap();
    admission
}
