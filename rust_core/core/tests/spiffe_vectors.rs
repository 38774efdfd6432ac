//! SPIFFE IDs as other implementations test them: what is valid parses, what is invalid or disputed does not.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)]

use serde_json::Value as Json;
use signalwarden_core::identity::{Identity, IdentitySettings, Proofs, Unestablished};
use signalwarden_core::model::{Peer, Request, SpiffeId, Timestamp, TrustDomain};
use signalwarden_core::reason::Reason;

fn vectors(name: &str) -> Json {
    let path = format!("{}/../../tests/vectors/spiffe/{name}", env!("CARGO_MANIFEST_DIR"));
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

fn refusal(principal: &str) -> Option<Reason> {
    let domain = TrustDomain::parse("prod.example").unwrap();
    let identity = Identity::new(domain, [], IdentitySettings::default(), vec![]).unwrap();
    let source = Peer { principal: principal.to_owned(), ..Peer::default() };
    let request = Request { source, ..Request::default() };
    match identity.establish(&request, &Proofs::new(1), None, Timestamp::from_micros(0)) {
        Err(Unestablished::Refused(refused)) => Some(refused.reason),
        _ => None,
    }
}

#[test]
fn every_valid_id_parses_into_its_parts() {
    let all = vectors("spiffe_ids.json");
    let valid = all["valid"].as_array().unwrap();
    assert!(valid.len() > 100);
    for case in valid {
        let id = SpiffeId::parse(case["id"].as_str().unwrap()).unwrap_or_else(|why| panic!("{case}: {why}"));
        // Some projects' cases say only that the ID is valid.
        if let (Some(domain), Some(path)) = (case["trust_domain"].as_str(), case["path"].as_str()) {
            assert_eq!((id.trust_domain(), id.path()), (domain, path), "{case}");
        }
    }
}

#[test]
fn every_invalid_or_disputed_id_is_refused() {
    let all = vectors("spiffe_ids.json");
    let (invalid, disputed) = (all["invalid"].as_array().unwrap(), all["disputed"].as_array().unwrap());
    assert!(invalid.len() > 400 && !disputed.is_empty());
    for case in invalid.iter().chain(disputed) {
        let id = case["id"].as_str().unwrap();
        assert!(SpiffeId::parse(id).is_err(), "{case}");
        let expected = if id.is_empty() { Reason::IdentityMissing } else { Reason::IdentityInvalid };
        assert_eq!(refusal(id), Some(expected), "{case}");
    }
}

/// These vectors allow upper case and fold it; we refuse it.
#[test]
fn trust_domains_parse_unless_they_have_upper_case() {
    let all = vectors("trust_domains.json");
    let parse = |text: &str| match SpiffeId::parse(text) {
        Ok(id) => Some(id.trust_domain().to_owned()),
        Err(_) => TrustDomain::parse(text).ok().map(|domain| domain.as_str().to_owned()),
    };
    for case in all["valid"].as_array().unwrap() {
        let (text, domain) = (case[0].as_str().unwrap(), case[1].as_str().unwrap());
        let upper_case = text.bytes().any(|b| b.is_ascii_uppercase());
        assert_eq!(parse(text), (!upper_case).then(|| domain.to_owned()), "{text}");
    }
    for case in all["invalid"].as_array().unwrap() {
        assert_eq!(parse(case[0].as_str().unwrap()), None, "{case}");
    }
}
