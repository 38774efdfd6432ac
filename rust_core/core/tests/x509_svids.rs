//! Certificates of callers: the fixtures of other implementations of SPIFFE, and leaves made for one fact each.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)]

mod certificates;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use certificates::{BEGIN_US, Leaf, tlv, url_encoded_pem};
use serde_json::Value as Json;
use sha2::{Digest, Sha256};
use signalwarden_core::identity::x509::{Certificate, CertificateRefused};
use signalwarden_core::limits::{MAX_CERTIFICATE_BYTES, MAX_CERTIFICATE_TEXT_BYTES};
use signalwarden_core::model::{Fingerprint, SpiffeIdError};

const GO: &str = "go-spiffe/svid/x509svid/testdata";
const RUST: &str = "rust-spiffe/spiffe/tests/testdata/svid/x509";
const PYTHON: &str = "py-spiffe/testutils/src/testutils/x509-certs";

fn vectors() -> String {
    format!("{}/../../tests/vectors/spiffe", env!("CARGO_MANIFEST_DIR"))
}

/// The first certificate of a file, PEM or DER.
fn first(path: &str) -> Vec<u8> {
    let bytes = std::fs::read(format!("{}/fixtures/{path}", vectors())).unwrap();
    let text = String::from_utf8_lossy(&bytes);
    let Some((_, rest)) = text.split_once("-----BEGIN CERTIFICATE-----") else { return bytes };
    let Some((body, _)) = rest.split_once("-----END CERTIFICATE-----") else { return bytes };
    let packed: String = body.chars().filter(|c| !c.is_ascii_whitespace()).collect();
    STANDARD.decode(packed).unwrap_or(bytes)
}

fn read(path: &str) -> Result<Certificate, CertificateRefused> {
    Certificate::parse(&first(path))
}

#[test]
fn every_case_that_a_leaf_alone_decides_is_as_other_implementations_have_it() {
    use CertificateRefused::{Authority, NoDigitalSignature, NotX509, SignsOthers, UriNames};
    let expected: &[(&str, CertificateRefused, &[&str])] = &[
        ("wrong-leaf-ca-true", Authority, &[GO, RUST, PYTHON]),
        ("wrong-leaf-no-digital-signature", SignsOthers, &[GO, RUST, PYTHON]),
        ("wrong-leaf-cert-sign", SignsOthers, &[GO, RUST, PYTHON]),
        ("wrong-leaf-crl-sign", SignsOthers, &[GO, RUST, PYTHON]),
        ("wrong-leaf-empty-id", UriNames(0), &[GO, RUST]),
        ("wrong-empty-spiffe-id", UriNames(0), &[PYTHON]),
        ("corrupt-cert", NotX509, &[GO]),
        ("corrupted", NotX509, &[RUST, PYTHON]),
        ("not-pem", NotX509, &[GO]),
    ];
    let path = |folder: &str, name: &str| {
        let endings = [".pem", ".der", ""].map(|ending| format!("{folder}/{name}{ending}"));
        endings.into_iter().find(|path| std::fs::exists(format!("{}/fixtures/{path}", vectors())).unwrap()).unwrap()
    };
    for (name, why, folders) in expected {
        for folder in *folders {
            assert_eq!(read(&path(folder, name)).as_ref(), Err(why), "{folder}/{name}");
        }
    }
    assert_eq!(read("go-spiffe/bundle/x509bundle/testdata/empty.pem"), Err(NotX509));
    // Its key usage is what a signing certificate has; without those bits only the missing one is left to say.
    let leaf = Leaf { key_usage: Some((vec![3, 2, 5, 0x20], true)), ..Leaf::of("spiffe://prod.example/a") };
    assert_eq!(Certificate::parse(&leaf.der()), Err(NoDigitalSignature));

    let workload = |path: String| read(&path).map(|good| good.spiffe_id.to_string());
    for good in [path(GO, "good-leaf-only"), path(GO, "good-leaf-and-intermediate"), path(PYTHON, "3-good-leaf-only")] {
        assert_eq!(workload(good.clone()).as_deref(), Ok("spiffe://example.org/workload-1"), "{good}");
    }
    // What is wrong with these is another certificate of the chain: whoever verifies the chain refuses them.
    for folder in [GO, PYTHON] {
        assert_eq!(
            workload(path(folder, "wrong-intermediate-no-ca")).as_deref(),
            Ok("spiffe://example.org/workload-1")
        );
    }
    assert_eq!(workload(path(RUST, "svid-with-dns")).as_deref(), Ok("spiffe://example.org/service"));
    let mut longer = first(&path(RUST, "svid-with-dns"));
    longer.extend([0, 1, 2, 3]);
    assert_eq!(Certificate::parse(&longer), Err(NotX509));
}

/// Each case of the file is in the test above or below, or needs the chain.
#[test]
fn no_case_of_the_vectors_is_left_out() {
    let cases: Json =
        serde_json::from_slice(&std::fs::read(format!("{}/x509_and_bundle_cases.json", vectors())).unwrap()).unwrap();
    let of =
        |key: &str| -> Vec<&str> { cases["x509"].as_array().unwrap().iter().filter_map(|c| c[key].as_str()).collect() };
    let read_here = [
        "wrong-leaf-ca-true",
        "wrong-leaf-no-digital-signature",
        "wrong-leaf-cert-sign",
        "wrong-leaf-crl-sign",
        "wrong-leaf-empty-id / wrong-empty-spiffe-id",
        "corrupt-cert / corrupted",
        "not-pem",
        "empty.pem",
        "good-leaf-only",
        "good-leaf-and-intermediate",
        "svid-with-dns.der",
        "svid-with-dns.der + 00010203",
        "more than one URI SAN",
        "leaf URI SAN not spiffe",
    ];
    let of_the_chain = [
        "wrong-intermediate-no-ca",
        "wrong-intermediate-no-key-cert-sign",
        "empty chain",
        "no bundle for trust domain",
        "expired", // by the caller's clock: see `peers.rs`
    ];
    for case in of("fixture").into_iter().chain(of("generated")) {
        assert!(read_here.contains(&case) || of_the_chain.contains(&case), "{case}");
    }
}

#[test]
fn a_leaf_says_who_how_long_and_what_it_is_called() {
    let der = Leaf::of("spiffe://prod.example/ns/a/sa/b").der();
    let leaf = Certificate::parse(&der).unwrap();
    assert_eq!(leaf.spiffe_id.as_str(), "spiffe://prod.example/ns/a/sa/b");
    assert_eq!((leaf.not_before.as_micros(), leaf.lifetime().as_micros()), (BEGIN_US, 3_600_000_000));
    assert_eq!(leaf.serial, "a105");
    assert_eq!(leaf.sha256, Fingerprint(Sha256::digest(&der).into()));
    assert_eq!(Certificate::from_url_encoded_pem(&url_encoded_pem(&der)), Ok(leaf));
    let far = Leaf::of("spiffe://prod.example/a").valid("20261124100000Z", "99991231235959Z").der();
    assert_eq!(Certificate::parse(&far).unwrap().not_after.to_rfc3339(), "9999-12-31T23:59:59.000000Z");
}

#[test]
fn exactly_one_uri_names_a_workload() {
    let of = |uris: &[&str]| Certificate::parse(&Leaf::of("").uris(uris).der()).map(|leaf| leaf.spiffe_id.to_string());
    assert_eq!(of(&[]), Err(CertificateRefused::UriNames(0)));
    assert_eq!(of(&["spiffe://prod.example/a", "spiffe://prod.example/a"]), Err(CertificateRefused::UriNames(2)));
    assert_eq!(of(&["spiffe://prod.example/a", "https://prod.example"]), Err(CertificateRefused::UriNames(2)));
    assert_eq!(of(&["https://prod.example/a"]), Err(CertificateRefused::NoSpiffeId(SpiffeIdError::WrongScheme)));
    assert_eq!(of(&[""]), Err(CertificateRefused::NoSpiffeId(SpiffeIdError::Empty)));
    assert_eq!(of(&["spiffe://prod.example"]), Err(CertificateRefused::NoPath));
    assert_eq!(
        of(&["spiffe://prod.example/a,spiffe://b/c"]),
        Err(CertificateRefused::NoSpiffeId(SpiffeIdError::BadPath))
    );
    // Other names stand beside it: DNS, an address, and a URI that is none because it is no primitive value.
    let mut leaf = Leaf::of("spiffe://prod.example/a");
    leaf.names.extend([(0x82, "a.example".to_owned()), (0x87, "abcd".to_owned())]);
    assert!(Certificate::parse(&leaf.der()).is_ok());
    leaf.names.push((0xa6, "spiffe://prod.example/b".to_owned()));
    assert!(Certificate::parse(&leaf.der()).is_err());
}

#[test]
fn what_could_be_read_in_two_ways_is_refused() {
    let good = Leaf::of("spiffe://prod.example/a");
    let refused = |leaf: &Leaf| Certificate::parse(&leaf.der()).unwrap_err();
    let other = Leaf::of("spiffe://prod.example/b").names_extension();
    let twice = |extension: Vec<u8>| Leaf { more: vec![extension], ..good.clone() };
    assert_eq!(refused(&twice(other)), CertificateRefused::RepeatedExtension);
    assert_eq!(refused(&twice(Leaf::extension(19, true, &tlv(0x30, &[])))), CertificateRefused::RepeatedExtension);
    assert_eq!(refused(&twice(Leaf::extension(15, true, &[3, 2, 7, 0x80]))), CertificateRefused::RepeatedExtension);
    assert!(Certificate::parse(&twice(Leaf::extension(37, false, &[])).der()).is_ok());

    let uncritical = Leaf { key_usage: Some((vec![3, 2, 7, 0x80], false)), ..good.clone() };
    assert_eq!(refused(&uncritical), CertificateRefused::NoKeyUsage);
    assert_eq!(refused(&Leaf { key_usage: None, ..good.clone() }), CertificateRefused::NoKeyUsage);
    assert!(Certificate::parse(&Leaf { constraints: None, ..good.clone() }.der()).is_ok());
    assert_eq!(refused(&Leaf { version: vec![2, 1, 1], ..good.clone() }), CertificateRefused::NotX509);
    assert_eq!(refused(&Leaf { serial: vec![0x80], ..good.clone() }), CertificateRefused::NotX509);
    assert_eq!(refused(&good.clone().valid("261124100000Z", "261124095959Z")), CertificateRefused::NeverValid);
    assert_eq!(refused(&good.clone().valid("261124100000Z", "261324100000Z")), CertificateRefused::NotX509);

    let der = good.der();
    for length in 0..der.len() {
        assert!(Certificate::parse(&der[..length]).is_err(), "cut at {length}");
    }
    assert_eq!(Certificate::parse(&vec![0x30; MAX_CERTIFICATE_BYTES + 1]), Err(CertificateRefused::TooLarge));
}

#[test]
fn a_text_holds_one_certificate_and_nothing_else() {
    use CertificateRefused::{NotPem, TooLarge};
    let text = Leaf::of("spiffe://prod.example/a").text();
    assert!(Certificate::from_url_encoded_pem(&text).is_ok());
    assert!(Certificate::from_url_encoded_pem(&text.replace("%0A", "\n").replace("%20", " ")).is_ok());
    for bad in [
        "",
        "nothing",
        "-----BEGIN%20CERTIFICATE-----",
        "-----BEGIN%20CERTIFICATE----------END%20CERTIFICATE-----",
        "%2",
        "%zz",
        "%ff",
        &format!("{text}{text}"),
        &format!("{text}x"),
        &format!("x{text}"),
        &text.replacen("%0AM", "%0A!", 1),
    ] {
        assert_eq!(Certificate::from_url_encoded_pem(bad), Err(NotPem), "{bad}");
    }
    assert_eq!(Certificate::from_url_encoded_pem(&" ".repeat(MAX_CERTIFICATE_TEXT_BYTES + 1)), Err(TooLarge));
}
