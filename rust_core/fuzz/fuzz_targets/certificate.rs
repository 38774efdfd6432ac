//! Any bytes as the certificate of a caller, and any text as Envoy forwards it: reading never panics, and what is taken
//! names one workload.
#![no_main]

use libfuzzer_sys::fuzz_target;
use signalwarden_core::identity::x509::{Certificate, fingerprint};

fuzz_target!(|bytes: &[u8]| {
    if let Ok(leaf) = Certificate::parse(bytes) {
        assert!(leaf.spiffe_id.path().starts_with('/') && leaf.not_before <= leaf.not_after);
        assert_eq!(leaf.sha256, fingerprint(bytes));
    }
    if let Ok(text) = std::str::from_utf8(bytes) {
        let _ = Certificate::from_url_encoded_pem(text);
    }
});
