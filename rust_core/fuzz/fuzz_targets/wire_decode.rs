//! Any bytes as a `CheckRequest`: decoding never panics, stays within its bounds, and what it accepts is one
//! request with one meaning that survives the way out and back.
#![no_main]

use libfuzzer_sys::fuzz_target;
use signalwarden_core::limits::{MAX_HEADERS, MAX_PATH_BYTES};
use signalwarden_core::wire;

fuzz_target!(|bytes: &[u8]| {
    let _ = wire::rules::check(bytes);
    let Ok(request) = wire::decode(bytes) else { return };
    assert!(request.headers.iter().count() <= MAX_HEADERS);
    assert!(request.path.len() <= MAX_PATH_BYTES);
    for (pseudo, value) in [(":path", &request.path), (":authority", &request.host), (":method", &request.method)] {
        assert!(request.headers.all(pseudo).iter().all(|header| header.value == *value));
    }
    if let Ok(again) = wire::decode(&wire::encode_request(&request)) {
        assert_eq!(again.path, request.path);
        assert!(again.headers.iter().count() >= request.headers.iter().count());
        assert_eq!(again.source.principal, request.source.principal);
    }
});
