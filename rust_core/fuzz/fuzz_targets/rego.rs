//! Any text as a file of Rego, loaded with all its checks and asked: neither panics, what is refused says why, and what is
//! loaded gives the same answer twice.
#![no_main]

use libfuzzer_sys::fuzz_target;
use signalwarden_core::{
    findings::{Findings, Place},
    model::{ActionId, Influence, ResourceId, SignalName, SignalType, SpiffeId, Tier, Timestamp, WhenUnavailable},
    policy::{
        ActionRule, IdentityView, PolicyEngine, Query, RequestView, Seen, SignalIndex, SignalRule,
        rego::{RegoEngine, RegoFiles},
        settings::RegoSettings,
    },
};
use std::{collections::BTreeSet, sync::LazyLock};

static ACTIONS: LazyLock<Vec<ActionRule>> = LazyLock::new(|| {
    vec![ActionRule {
        id: ActionId::parse("pay").expect("a name"),
        tier: Tier::Runtime,
        grant_required: false,
        resource_types: BTreeSet::from(["Account".into()]),
        args: [("amount".into(), (SignalType::Long, false))].into(),
        place: Place::default(),
    }]
});

static SIGNALS: LazyLock<Vec<SignalRule>> = LazyLock::new(|| {
    let signal = |name: &str, kind: &str| SignalRule {
        name: SignalName::parse(name).expect("a name"),
        kind: SignalType::parse(kind).expect("a type"),
        influence: Influence::Grant,
        when_unavailable: WhenUnavailable::Deny,
        self_asserted: false,
        used_by: [ActionId::parse("pay").expect("a name")].into(),
        place: Place::default(),
    };
    vec![signal("posture", "enum[ok, bad]"), signal("risk", "long")]
});

fn query() -> Query {
    let identity = IdentityView::of("x509", "t", true);
    let principal = SpiffeId::parse("spiffe://t/a").expect("an id");
    let resource = ResourceId { kind: "Account".into(), id: "42".into() };
    Query {
        request: RequestView { method: "POST".into(), path: "/pay".into(), ..RequestView::default() },
        ..Query::of(
            principal,
            ActionId::parse("pay").expect("a name"),
            Tier::Runtime,
            resource,
            identity,
            Timestamp::from_micros(1_795_514_400_000_000),
        )
    }
}

fuzz_target!(|bytes: &[u8]| {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let mut findings = Findings::default();
    let settings = RegoSettings::default();
    let files = RegoFiles { policies: &[("policies/p.rego", text)], data: None, settings: &settings };
    let Some(engine) = RegoEngine::load(files, &ACTIONS, &SIGNALS, &mut findings) else {
        assert!(findings.has_errors(), "what is refused says why");
        return;
    };
    let posture = SIGNALS[0].kind.read_text("ok").map(Seen::Value).expect("a value");
    let worlds = [vec![], vec![(SignalIndex(0), posture)]];
    let slice = engine.slice(&query()).unwrap_or_else(|_| unreachable!("no entity is asked for"));
    for world in worlds {
        assert_eq!(slice.judge_all(&world), slice.judge_all(&world));
    }
});
