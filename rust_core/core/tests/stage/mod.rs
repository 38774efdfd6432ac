//! A running core for tests that go through its door: loaded from a few texts, fed by publishers.
#![allow(clippy::unwrap_used, missing_docs)]
#![allow(dead_code, reason = "each test binary uses its own part")]

use serde_json::{Value as Json, json};
use sha2::{Digest, Sha256};
use signalwarden_core::{
    change::Change,
    engine::{Engine, Options},
    error::Error,
    model::{Origin, Timestamp},
    record::{InfluenceMode, Rendering, ring::Ring},
    signals::Admission,
    snapshot::{CoreSettings, Snapshot},
};
use signalwarden_core::{
    identity::{IdentitySource, IssuerTerms, TokenPlace},
    model::Fingerprint,
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

/// The same, with tokens of one issuer in the headers `txn-token` and `other-token`.
pub(crate) fn with_issuer(mut settings: CoreSettings, issuer: &str) -> CoreSettings {
    let place = |header: &str| TokenPlace { header: header.to_owned(), sources: vec![IdentitySource::Oauth] };
    settings.identity.sources = vec![IdentitySource::EnvoyPeer, IdentitySource::Oauth];
    settings.identity.tokens = vec![place("txn-token"), place("other-token")];
    settings.identity.issuers = vec![IssuerTerms {
        class: "transaction_token".to_owned(),
        issuer: Some(issuer.to_owned()),
        audience: vec!["us".to_owned()],
        terms: "t".to_owned(),
    }];
    settings
}

/// Such a token is known from now on, by a key that its issuer has: it proves no principal, and is valid for a minute.
pub(crate) fn prove(engine: &Engine, token: &str, issuer: &str, claims: &Json, now: Timestamp, changes: &Json) {
    engine.set_authority(&format!("keys:{issuer}"), vec!["k 1".to_owned()]);
    let now_us = now.as_micros();
    let proof = json!({
        "v": 1, "digest": Fingerprint(Sha256::digest(token).into()).to_hex(), "class": "transaction_token",
        "source": "oauth", "issuer": issuer, "terms": "t", "principal": null, "subject": "s", "audience": ["us"],
        "key_id": "k", "key_set": "r", "rests_on": [[format!("keys:{issuer}"), "k 1"]], "issued_at_us": now_us, "expires_at_us": now_us + 60_000_000,
        "certificate_sha256": null, "token_id": null, "actor": null, "earlier_actors": [], "interactive": false,
        "transaction": null, "scope": null, "requester": null, "claims": claims,
    });
    let proof = merged(&proof, changes);
    engine.admit_proofs([proof.to_string().as_bytes()]).unwrap();
}

/// The first with what the second changes.
pub(crate) fn merged(first: &Json, changes: &Json) -> Json {
    let mut all = first.clone();
    for (key, value) in changes.as_object().unwrap() {
        all[key] = value.clone();
    }
    all
}

/// A core whose log holds so many records. It has no configuration yet.
pub(crate) fn empty_engine(log_capacity: usize, influence: InfluenceMode) -> Engine {
    Engine::new(Options {
        ring: Ring::in_memory(log_capacity, usize::MAX, Rendering { influence, digest_key: vec![7; 32] }),
        fold_denials: false,
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
