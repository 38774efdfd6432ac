//! Any text as a register, and as the YAML below it: loading never panics, and what is not read says why.
#![no_main]

use libfuzzer_sys::fuzz_target;
use signalwarden_core::document;
use signalwarden_core::findings::Findings;
use signalwarden_core::model::Timestamp;
use signalwarden_core::route::Routes;
use signalwarden_core::signals::Register;
use std::sync::LazyLock;

/// 2026-11-24T10:00:00Z: the core never reads a clock.
const NOW: Timestamp = Timestamp::from_micros(1_795_514_400_000_000);

/// The actions that the corpus names in `used_by`.
static ROUTES: LazyLock<Routes> = LazyLock::new(|| {
    let text = r#"
routes:
  - match: {host: "payments.*", method: POST, path: "/v1/transfers"}
    action: transfer.create
    resource: {type: Account, id: "1"}
    tier: runtime
    sensitivity: high
  - match: {host: "payments.*", method: GET, path: "/v1/transfers"}
    action: transfer.read
    resource: {type: Account, id: "1"}
    tier: coarse
    sensitivity: low
default: deny
"#;
    Routes::load("routes.yaml", text, &mut Findings::default())
});

fuzz_target!(|bytes: &[u8]| {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let mut findings = Findings::default();
    if let Some(node) = document::parse("signals.yaml", text, &mut findings) {
        let _ = node.to_json();
        let _ = node.places();
    } else {
        assert!(findings.has_errors(), "a document that is not read says why");
    }
    let mut findings = Findings::default();
    let register = Register::load("signals.yaml", text, ROUTES.actions(), NOW, &mut findings);
    for contract in register.contracts() {
        assert!(register.find(contract.name.as_str()).is_some());
    }
});
