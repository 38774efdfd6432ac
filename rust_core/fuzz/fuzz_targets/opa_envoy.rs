//! Any bytes as the whole request that policies in the compatibility mode see: never a panic, never the same bytes read in
//! two ways, and never more than the bounds of a body allow. The first half is a descriptor set, where it is one.
#![no_main]

use libfuzzer_sys::fuzz_target;
use signalwarden_core::wire;

fuzz_target!(|bytes: &[u8]| {
    let (first, second) = bytes.split_at(bytes.len() / 2);
    let descriptors = wire::Descriptors::load(first).ok();
    for (request, descriptors) in [(bytes, None), (second, descriptors.as_ref())] {
        let Ok(input) = wire::whole_request(request, descriptors) else { continue };
        assert_eq!(wire::whole_request(request, descriptors).as_ref(), Ok(&input));
        assert!(
            input["attributes"].is_object() && input["parsed_path"].is_array() && input["parsed_query"].is_object()
        );
        assert!(!input["truncated_body"].as_bool().unwrap_or(false) || input["parsed_body"].is_null());
    }
});
