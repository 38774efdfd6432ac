//! Any text as `x-forwarded-client-cert`, in one line and in two: reading never panics, and lines are one header.
#![no_main]

use libfuzzer_sys::fuzz_target;
use signalwarden_core::identity::xfcc::last_element;

fuzz_target!(|bytes: &[u8]| {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let whole = last_element(&[text]);
    if let Some((first, rest)) = text.split_once(',') {
        assert_eq!(last_element(&[first, rest]), whole);
    }
    if let Ok(Some(element)) = whole {
        let _ = element.named();
    }
});
