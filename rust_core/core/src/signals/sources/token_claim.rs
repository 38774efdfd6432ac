//! Source kind `token_claim`: a claim of a token that was validated for this request. How far it can be trusted is what
//! the contract says of its issuer. A token that was not validated has no claims here.

use super::envoy_metadata::way;
use super::{Circumstances, Flow, Kind, ReadRequest, Reading, Source, of_this_request_alone};
use crate::limits::MAX_CLAIM_BYTES;
use crate::model::{Assurance, SignalType, State, Value};
use std::sync::Arc;

pub(super) const KIND: Kind = Kind {
    word: "token_claim",
    ceiling: |_| (Assurance::Authoritative, ""),
    objection: |subject| {
        let why = "a `token_claim` source speaks of this request only: its contract's subject is `request`";
        of_this_request_alone(subject, why)
    },
    read,
};

fn read(reading: &mut Reading<'_, '_>, assurance: Assurance) -> Option<Source> {
    let issuer = reading.parsed("issuer", "bad_claim", issuer);
    let claim = way(reading, "claim", "bad_claim");
    let (issuer, claim) = (issuer?, claim?);
    Some(Source {
        kind: KIND.word,
        assurance,
        label: format!("claim:{issuer}#{}", claim.join("/")).into(),
        settings: vec![("issuer", issuer.into()), ("claim", claim.iter().map(|name| &**name).collect())],
        flow: Flow::OnRequest(Arc::new(FromToken { issuer: issuer.into(), claim })),
    })
}

/// `iss` of a token, or the trust domain of JWT-SVIDs. Whether it is one of the settings is seen when both are known.
fn issuer(text: &str) -> Result<&str, String> {
    let good = !text.is_empty() && text.len() <= MAX_CLAIM_BYTES && !text.chars().any(char::is_control);
    if good { Ok(text) } else { Err(format!("expected an issuer of at most {MAX_CLAIM_BYTES} bytes")) }
}

#[derive(Debug)]
struct FromToken {
    issuer: Box<str>,
    claim: Vec<Box<str>>,
}

impl ReadRequest for FromToken {
    /// What is absent or of another type counts as absent, like a header that does not read as its type. Two tokens of
    /// one issuer that say two things are disputed, as two headers are.
    fn read(&self, circumstances: &Circumstances<'_>, kind: &SignalType) -> (State, Option<Value>) {
        // INVARIANT I1: proofs of this issuer, and of them this claim. What has expired says nothing.
        let live = circumstances.proofs.iter().filter(|proof| circumstances.now < proof.expires_at);
        let of_issuer = live.filter(|proof| *proof.issuer == *self.issuer);
        let mut said = of_issuer.filter_map(|proof| kind.read_json(proof.claim(&self.claim)?));
        match said.next() {
            None => (State::Missing, None),
            Some(value) if said.all(|other| other == value) => (State::Fresh, Some(value)),
            Some(_) => (State::Disputed, None),
        }
    }

    fn claim(&self) -> Option<(Box<str>, Vec<Box<str>>)> {
        Some((self.issuer.clone(), self.claim.clone()))
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{mistakes, read_with, register, routes};
    use super::*;
    use crate::model::{CredentialClass, Fingerprint, Proof, Timestamp};
    use serde_json::{Value as Json, json};

    const SOURCE: &str =
        "{kind: token_claim, issuer: \"https://login.example\", claim: [tctx, agent_type], assurance: authoritative}";
    const NOW: &str = "2026-11-24T10:00:00Z";

    fn proof(issuer: &str, claims: &[(&[&str], Json)], seconds_left: i64) -> Arc<Proof> {
        let way = |names: &[&str]| names.iter().map(|name| Box::from(*name)).collect();
        Arc::new(Proof {
            digest: Fingerprint([7; 32]),
            class: CredentialClass::TransactionToken,
            issuer: issuer.into(),
            terms: "t".into(),
            principal: None,
            subject: "s".into(),
            audience: Vec::new(),
            key_id: "k".into(),
            key_set: "r".into(),
            rests_on: Vec::new(),
            issued_at: None,
            expires_at: Timestamp::from_micros(
                Timestamp::parse_rfc3339(NOW).unwrap().as_micros() + seconds_left * 1_000_000,
            ),
            certificate: None,
            token_id: None,
            actor: None,
            earlier_actors: Vec::new(),
            interactive: false,
            transaction: None,
            scope: None,
            requester: None,
            claims: claims.iter().map(|(names, value)| (way(names), value.clone())).collect(),
        })
    }

    fn said(kind: &str, proofs: &[Arc<Proof>]) -> (State, Option<Value>) {
        read_with(kind, SOURCE, proofs, NOW)
    }

    fn one(kind: &str, value: Json) -> Option<Value> {
        let (state, read) = said(kind, &[proof("https://login.example", &[(&["tctx", "agent_type"], value)], 60)]);
        assert_eq!(state == State::Fresh, read.is_some());
        read
    }

    #[test]
    fn the_claim_of_a_validated_token_is_read_as_its_type() {
        assert_eq!(one("string", json!("assistant")), Some(Value::String("assistant".into())));
        assert_eq!(one("long", json!(3)), Some(Value::Long(3)));
        assert_eq!(one("bool", json!(false)), Some(Value::Bool(false)));
        assert!(one("set", json!(["a", "b"])).is_some());
        for other in [json!(null), json!("3"), json!(3.5), json!([3]), json!({"a": 3}), json!(true), json!(1e300)] {
            assert_eq!(one("long", other.clone()), None, "{other}");
        }
        assert_eq!(one("enum[a, b]", json!("c")), None);
        assert_eq!(one("string", json!("x".repeat(5_000))), None);
    }

    #[test]
    fn nothing_is_read_of_other_issuers_other_claims_or_what_has_expired() {
        let claim: &[&str] = &["tctx", "agent_type"];
        let a = || json!("a");
        let missing = (State::Missing, None);
        assert_eq!(said("string", &[]), missing);
        assert_eq!(said("string", &[proof("https://other.example", &[(claim, a())], 60)]), missing);
        assert_eq!(said("string", &[proof("https://login.example/", &[(claim, a())], 60)]), missing);
        assert_eq!(said("string", &[proof("https://login.example", &[(&["agent_type"], a())], 60)]), missing);
        assert_eq!(
            said("string", &[proof("https://login.example", &[(&["tctx"], json!({"agent_type": "a"}))], 60)]),
            missing
        );
        for expired in [0, -1] {
            assert_eq!(said("string", &[proof("https://login.example", &[(claim, a())], expired)]), missing);
        }
    }

    #[test]
    fn two_tokens_that_say_two_things_are_disputed() {
        let of = |value: &str| proof("https://login.example", &[(&["tctx", "agent_type"], json!(value))], 60);
        let silent = proof("https://login.example", &[(&["tctx", "agent_type"], json!(null))], 60);
        assert_eq!(said("string", &[of("a"), of("b")]), (State::Disputed, None));
        assert_eq!(said("string", &[of("a"), silent, of("a")]).0, State::Fresh);
    }

    #[test]
    fn it_speaks_of_the_request_alone_and_says_which_claim_it_reads() {
        assert!(mistakes("string", "principal", SOURCE).iter().any(|said| said.starts_with("source_subject")));
        let (register, findings) = register(&routes(&[""]), "string", "request", SOURCE);
        assert_eq!(findings, [""; 0]);
        let source = &register.contracts()[0].sources[0];
        assert_eq!(&*source.label, "claim:https://login.example#tctx/agent_type");
        assert_eq!(source.to_json()["claim"], json!(["tctx", "agent_type"]));
        assert_eq!(source.to_json()["issuer"], "https://login.example");
        let [(issuer, claim)] = register.claims().try_into().unwrap();
        assert_eq!((&*issuer, claim.join("/").as_str()), ("https://login.example", "tctx/agent_type"));
        for (from, to) in [
            ("[tctx, agent_type]", "[]"),
            ("[tctx, agent_type]", "''"),
            ("[tctx, agent_type]", "[a, '']"),
            ("[tctx, agent_type]", "[a, b, c, d, e, f, g, h, i]"),
            ("[tctx, agent_type]", "7"),
            ("\"https://login.example\"", "''"),
            ("\"https://login.example\"", "7"),
            ("assurance", "clas: access_token, assurance"),
        ] {
            assert_eq!(mistakes("string", "request", &SOURCE.replace(from, to)).len(), 1, "{to}");
        }
        let one_name = SOURCE.replace("[tctx, agent_type]", "agent_type");
        assert_eq!(mistakes("string", "request", &one_name), [""; 0]);
        for assurance in ["sourced", "derived", "self_asserted"] {
            assert_eq!(mistakes("string", "request", &SOURCE.replace("authoritative", assurance)), [""; 0]);
        }
    }
}
