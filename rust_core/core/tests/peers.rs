//! The caller as the connection has it: Envoy's peer with its certificate, and the last element of
//! `x-forwarded-client-cert`.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)]

mod certificates;

use certificates::{BEGIN_US, Leaf};
use proptest::prelude::*;
use signalwarden_core::identity::{
    ClassLimits, Evidence, Identity, IdentitySettings, IdentitySource, Limit, Proofs, Unestablished,
};
use signalwarden_core::model::{HeaderEntry, Headers, Peer, Request, Timestamp, TrustDomain};
use signalwarden_core::reason::Reason;

const A: &str = "spiffe://prod.example/a";
const B: &str = "spiffe://prod.example/b";
const HOUR_US: i64 = 3_600_000_000;
use IdentitySource::{EnvoyPeer, Xfcc};

fn establish_at(settings: &IdentitySettings, request: &Request, now_us: i64) -> Result<Evidence, Reason> {
    let domain = TrustDomain::parse("prod.example").unwrap();
    let identity = Identity::new(domain, [], settings.clone(), vec![]).unwrap();
    identity.establish(request, &Proofs::new(1), None, Timestamp::from_micros(now_us)).map_err(|why| match why {
        Unestablished::Refused(refused) => refused.reason,
        Unestablished::Pending(_) => panic!("there are no tokens"),
    })
}

fn establish(settings: &IdentitySettings, request: &Request) -> Result<Evidence, Reason> {
    establish_at(settings, request, BEGIN_US + HOUR_US / 2)
}

fn of(sources: &[IdentitySource]) -> IdentitySettings {
    IdentitySettings { sources: sources.to_vec(), ..IdentitySettings::default() }
}

fn peer(principal: &str, certificate: &str) -> Request {
    let source = Peer { principal: principal.into(), certificate: certificate.into(), ..Peer::default() };
    Request { source, ..Request::default() }
}

fn with_xfcc(mut request: Request, lines: &[&str]) -> Request {
    let entry = |line: &&str| HeaderEntry {
        name: "x-forwarded-client-cert".to_owned(),
        value: (*line).to_owned(),
        is_utf8: true,
    };
    request.headers = Headers::new(lines.iter().map(entry).collect());
    request
}

fn xfcc(lines: &[&str]) -> Request {
    with_xfcc(Request::default(), lines)
}

fn element(leaf: &Leaf, uri: &str) -> String {
    let hash = signalwarden_core::identity::x509::fingerprint(&leaf.der()).to_hex();
    format!("By=spiffe://prod.example/envoy;Hash={hash};Cert=\"{}\";Subject=\"\";URI={uri}", leaf.text())
}

#[test]
fn a_peer_with_its_certificate_is_known_by_digest_serial_and_age() {
    let leaf = Leaf::of(A);
    let evidence = establish(&of(&[EnvoyPeer]), &peer(A, &leaf.text())).unwrap();
    let digest = signalwarden_core::identity::x509::fingerprint(&leaf.der());
    assert_eq!((evidence.principal.as_str(), evidence.source, evidence.bound), (A, "envoy_peer", true));
    assert_eq!((evidence.certificate, evidence.serial.as_deref()), (Some(digest), Some("a105")));
    assert_eq!(evidence.age.unwrap().as_micros(), HOUR_US / 2);
    assert_eq!(evidence.expires_at.unwrap().as_micros(), BEGIN_US + HOUR_US);
    let bare = establish(&of(&[EnvoyPeer]), &peer(A, "")).unwrap();
    assert_eq!((bare.certificate, bare.serial, bare.age, bare.expires_at), (None, None, None, None));
}

#[test]
fn a_certificate_that_is_forwarded_must_be_that_of_the_peer() {
    let only = of(&[EnvoyPeer]);
    let cases = [
        Leaf::of(B).text(),
        Leaf::of("").uris(&[A, B]).text(),
        Leaf::of("").uris(&[A, A]).text(),
        Leaf::of("").uris(&[]).text(),
        Leaf { key_usage: None, ..Leaf::of(A) }.text(),
        "not a certificate".to_owned(),
        format!("{}{}", Leaf::of(A).text(), Leaf::of(A).text()),
    ];
    for certificate in cases {
        assert_eq!(establish(&only, &peer(A, &certificate)).unwrap_err(), Reason::IdentityInvalid, "{certificate}");
    }
    // Nobody is known by a certificate alone.
    assert_eq!(establish(&only, &peer("", &Leaf::of(A).text())).unwrap_err(), Reason::IdentityMissing);
}

#[test]
fn a_certificate_counts_in_its_time_and_no_longer_than_its_class_may_live() {
    let request = peer(A, &Leaf::of(A).text());
    let at = |settings: &IdentitySettings, now| establish_at(settings, &request, now).map(|found| found.source);
    let only = of(&[EnvoyPeer]);
    for good in [BEGIN_US - 5_000_000, BEGIN_US, BEGIN_US + HOUR_US] {
        assert_eq!(at(&only, good), Ok("envoy_peer"));
    }
    for bad in [BEGIN_US - 5_000_001, BEGIN_US + HOUR_US + 1] {
        assert_eq!(at(&only, bad), Err(Reason::IdentityInvalid));
    }
    let limited = |max_lifetime_us, max_age_us| {
        let x509_svid = Limit { max_lifetime_us, max_age_us };
        IdentitySettings { limits: ClassLimits { x509_svid, ..only.limits }, ..only.clone() }
    };
    let middle = BEGIN_US + HOUR_US / 2;
    assert_eq!(at(&limited(Some(HOUR_US), Some(HOUR_US / 2)), middle), Ok("envoy_peer"));
    assert_eq!(at(&limited(Some(HOUR_US - 1), None), middle), Err(Reason::TokenTooLongLived));
    assert_eq!(at(&limited(None, Some(HOUR_US / 2 - 1)), middle), Err(Reason::TokenTooLongLived));
}

#[test]
fn where_certificates_are_required_nobody_is_known_without_one() {
    let strict = IdentitySettings { require_certificate: true, ..of(&[EnvoyPeer, Xfcc]) };
    let leaf = Leaf::of(A);
    assert_eq!(establish(&strict, &peer(A, "")).unwrap_err(), Reason::IdentityMissing);
    assert!(establish(&strict, &peer(A, &leaf.text())).is_ok());
    assert!(establish(&strict, &xfcc(&[&element(&leaf, A)])).is_ok());
    let hash = format!("Hash={};URI={A}", "0".repeat(64));
    assert_eq!(establish(&strict, &xfcc(&[&hash])).unwrap_err(), Reason::IdentityMissing);
}

#[test]
fn the_last_element_counts_where_the_settings_say_so_and_only_there() {
    let forged = format!("By=spiffe://prod.example/envoy;URI={B}");
    let request = xfcc(&[&forged, &element(&Leaf::of(A), A)]);
    let evidence = establish(&of(&[Xfcc]), &request).unwrap();
    assert_eq!((evidence.principal.as_str(), evidence.source), (A, "xfcc"));
    assert_eq!(evidence.serial.as_deref(), Some("a105"));
    assert_eq!(establish(&of(&[EnvoyPeer]), &request).unwrap_err(), Reason::IdentityMissing);
    // Not taken, not read: what a caller writes there is no matter.
    let nonsense = with_xfcc(peer(A, ""), &["=;=,"]);
    assert!(establish(&of(&[EnvoyPeer]), &nonsense).is_ok());
    for nobody in ["By=x;URI=", "Subject=\"\"", "SAN=spiffe://prod.example/a"] {
        assert_eq!(establish(&of(&[Xfcc]), &xfcc(&[nobody])).unwrap_err(), Reason::IdentityMissing, "{nobody}");
    }
    for bad in ["", "URI=a;URI=b", "URI=https://a", &format!("URI={A},"), &element(&Leaf::of(A), B), "URI=\"x"] {
        assert_eq!(establish(&of(&[Xfcc]), &xfcc(&[bad])).unwrap_err(), Reason::IdentityInvalid, "{bad}");
    }
    let mut binary = xfcc(&[&format!("URI={A}")]);
    let entry = HeaderEntry { is_utf8: false, ..binary.headers.iter().next().unwrap().clone() };
    binary.headers = Headers::new(vec![entry]);
    assert_eq!(establish(&of(&[Xfcc]), &binary).unwrap_err(), Reason::IdentityInvalid);
}

#[test]
fn an_element_counts_only_of_the_proxies_that_are_named() {
    let ours = IdentitySettings { xfcc_by: vec!["spiffe://prod.example/envoy".to_owned()], ..of(&[Xfcc]) };
    let by = |by: &str| establish(&ours, &xfcc(&[&format!("{by}URI={A}")])).map(|found| found.source);
    assert_eq!(by("By=spiffe://prod.example/envoy;"), Ok("xfcc"));
    for other in ["", "By=;", "By=spiffe://prod.example/b;", "By=spiffe://prod.example/envoy;By=x;"] {
        assert_eq!(by(other), Err(Reason::IdentityInvalid), "{other}");
    }
}

#[test]
fn two_sources_that_disagree_name_nobody() {
    let both = of(&[EnvoyPeer, Xfcc]);
    let leaf = Leaf::of(A);
    let agree = with_xfcc(peer(A, &leaf.text()), &[&element(&leaf, A)]);
    assert_eq!(establish(&both, &agree).unwrap().source, "envoy_peer");
    assert_eq!(establish(&of(&[Xfcc, EnvoyPeer]), &agree).unwrap().source, "xfcc");
    let other_name = with_xfcc(peer(A, ""), &[&format!("URI={B}")]);
    assert_eq!(establish(&both, &other_name).unwrap_err(), Reason::IdentityInvalid);
    let renewed = Leaf { serial: vec![7], ..leaf.clone() };
    let other_certificate = with_xfcc(peer(A, &leaf.text()), &[&element(&renewed, A)]);
    assert_eq!(establish(&both, &other_certificate).unwrap_err(), Reason::IdentityInvalid);
    // A name with a comma splits the element; the peer has the whole name and is nobody.
    let san = format!("{A},By=spiffe://prod.example/envoy;URI={B}");
    let split = with_xfcc(peer(&san, ""), &[&format!("URI={san}")]);
    assert_eq!(establish(&both, &split).unwrap_err(), Reason::IdentityInvalid);
}

/// Every value that the header may hold in quotes.
fn quoted() -> impl Strategy<Value = String> {
    "[ -~]{0,20}".prop_map(|text| format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\"")))
}

/// An element that a proxy before ours may have written, or a client made up.
fn earlier() -> impl Strategy<Value = String> {
    let key = prop_oneof![Just("By"), Just("URI"), Just("DNS"), Just("X-Other")];
    proptest::collection::vec((key, quoted()), 1..4).prop_map(|pairs| {
        let pairs: Vec<String> = pairs.into_iter().map(|(key, value)| format!("{key}={value}")).collect();
        pairs.join(";")
    })
}

proptest! {
    // INVARIANT I1: of the header the last element's own name counts, and nothing else that stands there.
    #[test]
    fn what_else_stands_in_the_header_changes_nobodys_identity(
        before in proptest::collection::vec(earlier(), 0..4),
        subject in quoted(),
        names in proptest::collection::vec("[a-z]{1,8}\\.example", 0..3),
        in_two_lines in any::<bool>(),
    ) {
        let settings = of(&[Xfcc]);
        let own = [format!("By=spiffe://prod.example/envoy;Subject={subject};URI={A}")];
        let last = own.into_iter().chain(names.iter().map(|name| format!("DNS={name}"))).collect::<Vec<_>>().join(";");
        let plain = establish(&settings, &xfcc(&[&format!("URI={A}")])).unwrap();
        let all = [before.as_slice(), std::slice::from_ref(&last)].concat();
        let request = if in_two_lines && !before.is_empty() {
            xfcc(&[&before.join(","), &last])
        } else {
            xfcc(&[&all.join(",")])
        };
        prop_assert_eq!(establish(&settings, &request).unwrap(), plain);
    }
}
