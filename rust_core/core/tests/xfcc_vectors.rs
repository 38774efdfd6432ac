//! `x-forwarded-client-cert` as Envoy's own tests and documentation have it, and as whoever means harm would.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)]

mod certificates;

use certificates::Leaf;
use serde_json::Value as Json;
use signalwarden_core::identity::x509::CertificateRefused;
use signalwarden_core::identity::xfcc::{Element, XfccRefused, last_element};
use signalwarden_core::limits::{MAX_XFCC_BYTES, MAX_XFCC_ELEMENTS, MAX_XFCC_PAIRS};
use signalwarden_core::model::SpiffeIdError;

fn vectors() -> Vec<Json> {
    let path = format!("{}/../../tests/vectors/envoy/xfcc.json", env!("CARGO_MANIFEST_DIR"));
    let all: Json = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    all["values"].as_array().unwrap().clone()
}

/// What the vectors say of an element, as we hold it.
fn element(pairs: &Json) -> Element {
    let mut element = Element::default();
    for pair in pairs.as_array().unwrap() {
        let (key, value) = (pair[0].as_str().unwrap(), pair[1].as_str().unwrap().to_owned());
        match key {
            "By" => element.by.push(value),
            "URI" => element.uris.push(value),
            "DNS" => element.dns.push(value),
            "Hash" => element.hash = Some(value),
            "Subject" => element.subject = Some(value),
            "Cert" => element.cert = Some(value),
            "Chain" => element.chain = Some(value),
            _ => {}
        }
    }
    element
}

fn one(value: &str) -> Result<Element, XfccRefused> {
    last_element(&[value]).map(|element| element.unwrap())
}

#[test]
fn every_value_of_envoys_tests_gives_its_last_element() {
    let all = vectors();
    assert_eq!(all.len(), 14);
    for case in &all {
        let elements = case["elements"].as_array().unwrap();
        let value = case["value"].as_str().unwrap();
        assert_eq!(one(value).unwrap(), element(elements.last().unwrap()), "{value}");
        // The lines of a header are one header: cut where an element ends, it says the same.
        let lines: Vec<&str> = if elements.len() > 1 { value.split(',').collect() } else { vec![value] };
        assert_eq!(last_element(&lines).unwrap().unwrap(), one(value).unwrap());
    }
}

#[test]
fn none_of_them_names_a_workload_but_istios() {
    let mut named = Vec::new();
    for case in vectors() {
        if let Ok(Some(found)) = one(case["value"].as_str().unwrap()).unwrap().named() {
            named.push(found.spiffe_id.to_string());
        }
    }
    assert_eq!(named, ["spiffe://cluster.local/ns/istio-system/sa/istio-ingressgateway-service-account"]);
}

#[test]
fn quotes_hold_what_would_end_a_value_and_escapes_what_would_end_them() {
    let subject = |value: &str| one(value).unwrap().subject.unwrap();
    assert_eq!(subject(r#"Subject="CN=a,O=b;c=d""#), "CN=a,O=b;c=d");
    assert_eq!(subject(r#"Subject="a \"b\" c";URI=x"#), r#"a "b" c"#);
    assert_eq!(subject(r#"Subject="a\\";URI=x"#), r"a\");
    assert_eq!(subject(r#"Subject="a\\\"b""#), r#"a\"b"#);
    assert_eq!(subject(r#"Subject="CN=a\,b\+c""#), r"CN=a\,b\+c");
    assert_eq!(subject(r#"Subject="""#), "");
    assert_eq!(subject("Subject="), "");
    // What stands in quotes begins neither a pair nor an element.
    let element = one(
        r#"Subject="x\",By=spiffe://prod.example/envoy;URI=spiffe://prod.example/admin,";URI=spiffe://prod.example/a"#,
    );
    assert_eq!(element.unwrap().uris, ["spiffe://prod.example/a"]);
    let element = one("by=a;HASH=b;uri=C;dNs=d").unwrap();
    assert_eq!(
        (element.by, element.hash, element.uris, element.dns),
        (vec!["a".into()], Some("b".into()), vec!["C".into()], vec!["d".into()])
    );
}

#[test]
fn only_the_last_element_counts_and_its_lines_are_one_header() {
    let uri = |lines: &[&str]| last_element(lines).unwrap().map(|element| element.uris.concat());
    assert_eq!(uri(&[]), None);
    assert_eq!(uri(&["URI=a", "URI=b"]).as_deref(), Some("b"));
    assert_eq!(uri(&["URI=a,URI=b , URI=c", "\tURI=d "]).as_deref(), Some("d"));
    assert_eq!(uri(&["By=x ; URI=d"]).as_deref(), Some("d"));
    assert_eq!(uri(&[r#"URI="a"#, r#"b";By=x"#]).as_deref(), Some("a,b"));
}

#[test]
fn what_does_not_fit_is_refused_wherever_it_stands() {
    let cases: &[(&str, XfccRefused)] = &[
        ("", XfccRefused::NoKey),
        (" ", XfccRefused::NoKey),
        (",", XfccRefused::NoKey),
        (";", XfccRefused::NoKey),
        ("URI=a;", XfccRefused::NoKey),
        ("URI=a,", XfccRefused::NoKey),
        ("URI=a,,URI=b", XfccRefused::NoKey),
        ("URI=a;;By=b", XfccRefused::NoKey),
        ("URI", XfccRefused::NoKey),
        ("=a", XfccRefused::NoKey),
        ("URI =a", XfccRefused::NoKey),
        ("\"URI\"=a", XfccRefused::NoKey),
        ("URI,By=a", XfccRefused::NoKey),
        ("URI=a=b", XfccRefused::NotQuoted),
        ("URI=a\"b\"", XfccRefused::NotQuoted),
        ("URI= \"a\"", XfccRefused::NotQuoted),
        ("URI=\"a", XfccRefused::BadQuotes),
        ("URI=\"a\\\"", XfccRefused::BadQuotes),
        ("URI=\"a\"b", XfccRefused::BadQuotes),
        ("URI=\"a\"\"b\"", XfccRefused::BadQuotes),
        ("URI=a\nb", XfccRefused::ControlCharacter),
        ("URI=a\0", XfccRefused::ControlCharacter),
        ("Hash=a;hash=a", XfccRefused::RepeatedKey("Hash")),
        ("Cert=a;Cert=b", XfccRefused::RepeatedKey("Cert")),
        ("Subject=a;Subject=b", XfccRefused::RepeatedKey("Subject")),
    ];
    for (value, why) in cases {
        assert_eq!(one(value).as_ref(), Err(why), "{value:?}");
        // In front of a good element, and on a line of its own.
        let good = "By=spiffe://prod.example/envoy;URI=spiffe://prod.example/a";
        assert!(one(&format!("{value},{good}")).is_err(), "{value:?}");
        assert!(last_element(&[value, good]).is_err(), "{value:?}");
        assert!(last_element(&[good, value]).is_err(), "{value:?}");
    }
}

#[test]
fn it_is_bounded() {
    let long = format!("URI={}", "a".repeat(MAX_XFCC_BYTES));
    assert_eq!(one(&long), Err(XfccRefused::TooLong));
    assert_eq!(last_element(&vec!["a"; MAX_XFCC_BYTES]), Err(XfccRefused::TooLong));
    assert!(one(&vec!["URI=a"; MAX_XFCC_ELEMENTS].join(",")).is_ok());
    assert_eq!(one(&vec!["URI=a"; MAX_XFCC_ELEMENTS + 1].join(",")), Err(XfccRefused::TooManyElements));
    assert!(one(&vec!["DNS=a"; MAX_XFCC_PAIRS].join(";")).is_ok());
    assert_eq!(one(&vec!["DNS=a"; MAX_XFCC_PAIRS + 1].join(";")), Err(XfccRefused::TooManyPairs));
}

#[test]
fn an_element_names_one_workload_and_all_it_says_of_the_certificate_agrees() {
    let leaf = Leaf::of("spiffe://prod.example/a");
    let hash = signalwarden_core::identity::x509::fingerprint(&leaf.der()).to_hex();
    let text = leaf.text();
    let named = |value: &str| one(value).unwrap().named();
    let who = |value: &str| named(value).unwrap().map(|found| found.spiffe_id.to_string());
    for nobody in ["By=x", "URI=", "URI=;DNS=a.example", "Subject=\"\";URI=\"\"", "SAN=spiffe://prod.example/a"] {
        assert_eq!(who(nobody), None, "{nobody}");
    }
    let alone = named("URI=spiffe://prod.example/a").unwrap().unwrap();
    assert_eq!((alone.sha256, alone.certificate), (None, None));
    let whole = named(&format!("Hash={hash};Cert=\"{text}\";URI=spiffe://prod.example/a")).unwrap().unwrap();
    assert_eq!(whole.sha256.unwrap().to_hex(), hash);
    assert_eq!(whole.certificate.unwrap().serial, "a105");
    let by_certificate = named(&format!("Cert=\"{text}\";URI=spiffe://prod.example/a")).unwrap().unwrap();
    assert_eq!(by_certificate.sha256.unwrap().to_hex(), hash);

    let other = "0".repeat(64);
    let cases = [
        (format!("Hash={other};Cert=\"{text}\";URI=spiffe://prod.example/a"), XfccRefused::Disagrees),
        (format!("Hash={hash};Cert=\"{text}\";URI=spiffe://prod.example/b"), XfccRefused::Disagrees),
        (format!("Hash={};URI=spiffe://prod.example/a", hash.to_uppercase()), XfccRefused::BadHash),
        ("Hash=abc;URI=spiffe://prod.example/a".to_owned(), XfccRefused::BadHash),
        ("Hash=;URI=spiffe://prod.example/a".to_owned(), XfccRefused::BadHash),
        (
            "Cert=\"abc\";URI=spiffe://prod.example/a".to_owned(),
            XfccRefused::BadCertificate(CertificateRefused::NotPem),
        ),
        ("URI=spiffe://prod.example/a;URI=spiffe://prod.example/a".to_owned(), XfccRefused::UriNames(2)),
        ("URI=spiffe://prod.example/a;URI=".to_owned(), XfccRefused::UriNames(2)),
        ("URI=spiffe://prod.example".to_owned(), XfccRefused::NoPath),
        ("URI=http://a.example".to_owned(), XfccRefused::NoSpiffeId(SpiffeIdError::WrongScheme)),
    ];
    for (value, why) in cases {
        assert_eq!(named(&value), Err(why), "{value}");
    }
}

/// A URI SAN with `;` or `,` in it, which Envoy writes bare.
#[test]
fn a_name_that_splits_an_element_is_found_where_what_it_says_disagrees() {
    let of = |san: &str| format!("By=spiffe://prod.example/envoy;Hash={};URI={san}", "0".repeat(64));
    // One more URI, one more hash, one more `By`: seen.
    assert!(one(&of("spiffe://prod.example/a;URI=spiffe://prod.example/admin")).unwrap().named().is_err());
    assert!(one(&of("spiffe://prod.example/a;Hash=1")).is_err());
    assert_eq!(one(&of("spiffe://prod.example/a;By=spiffe://prod.example/b")).unwrap().by.len(), 2);
    // One more element: seen only where its certificate is asked for, or the peer is known by other means.
    let forged = one(&of("spiffe://prod.example/a,By=spiffe://prod.example/envoy;URI=spiffe://prod.example/admin"));
    assert_eq!(forged.unwrap().named().unwrap().unwrap().certificate, None);
}
