//! Streams of events, switched-off origins, and the states of merged signals: what vouches for a value beside its age.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)]

use serde_json::json;
use signalwarden_core::change::{Change, PublisherSwitched, StreamEvent, StreamMoved};
use signalwarden_core::findings::Findings;
use signalwarden_core::model::{Fact, FeedName, Origin, SignalName, State, Subject, Timestamp, Value};
use signalwarden_core::route::Routes;
use signalwarden_core::signals::{Reading, Register, Store, judge_batch};

const ROUTES: &str = r#"
routes:
  - {match: {host: a, path: /}, action: act, resource: {type: A, id: "1"}, tier: runtime, sensitivity: low}
default: deny
"#;
const REGISTER: &str = r#"
feeds:
  idp: {kind: ssf, issuer: i, audience: a, keys: {file: f}, delivery: push}
signals:
  compliant: {type: bool, description: d, owner: o@x, purpose: p, subject: device, max_age: 5m, influence: grant, used_by: [act], review_by: 2099-01-01, sources: [{kind: ssf, feed: idp, assurance: sourced, while_live: true, events: {device-compliance-change: {claim: current_status}}}]}
  plain: {type: bool, description: d, owner: o@x, purpose: p, subject: device, max_age: 5m, influence: grant, used_by: [act], review_by: 2099-01-01, sources: [{kind: ssf, feed: idp, assurance: sourced, events: {session-revoked: {value: false}}}]}
  trust: {type: long, description: d, owner: o@x, purpose: p, subject: device, max_age: 5m, influence: grant, used_by: [act], review_by: 2099-01-01, sources: [{kind: push, publisher: "spiffe://t/mdm", assurance: authoritative}]}
  both: {type: long, description: d, owner: o@x, purpose: p, subject: device, max_age: 5m, influence: grant, used_by: [act], review_by: 2099-01-01, merge: agree, sources: [{kind: push, publisher: "spiffe://t/mdm", assurance: authoritative}, {kind: push, publisher: "spiffe://t/other", assurance: sourced}]}
"#;
const IDP: &str = "ssf:idp";
const MDM: &str = "spiffe://t/mdm";
const OTHER: &str = "spiffe://t/other";

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_micros(1_795_600_000_000_000 + seconds * 1_000_000)
}

fn register() -> Register {
    let mut findings = Findings::default();
    let routes = Routes::load("routes.yaml", ROUTES, &mut findings);
    let register = Register::load("signals.yaml", REGISTER, routes.actions(), at(0), &mut findings);
    assert!(!findings.has_errors(), "{findings:?}");
    register
}

fn moved(event: StreamEvent, seconds: i64) -> Change {
    let feed = FeedName::parse("idp").unwrap();
    Change::StreamMoved(StreamMoved { feed, event, at: at(seconds), detail: "a test says so".to_owned() })
}

fn switched(origin: &str, signal: Option<&str>, enabled: bool, seconds: i64) -> Change {
    Change::PublisherSwitched(PublisherSwitched {
        origin: Origin::parse(origin).unwrap(),
        signal: signal.and_then(SignalName::parse),
        enabled,
        at: at(seconds),
    })
}

/// A store, and all that it was told: a restart is that read back.
struct World {
    register: Register,
    store: Store,
    told: Vec<Change>,
}

impl World {
    fn new() -> Self {
        Self { register: register(), store: Store::new(1), told: Vec::new() }
    }

    fn live() -> Self {
        let mut world = Self::new();
        world.tell(moved(StreamEvent::Resynchronised, 0));
        world.tell(moved(StreamEvent::Verified, 0));
        world
    }

    fn tell(&mut self, change: Change) {
        self.store.apply(&change);
        self.told.push(change);
    }

    /// The reasons of refusal, if any.
    fn say(
        &mut self,
        origin: &str,
        name: &str,
        subject: &str,
        value: impl Into<serde_json::Value>,
        seconds: i64,
    ) -> Vec<&'static str> {
        let item =
            json!({"name": name, "subject": subject, "value": value.into(), "observed_at": at(seconds).to_rfc3339()});
        let body = json!({"signals": [item]}).to_string();
        let origin = Origin::parse(origin).unwrap();
        let admission = judge_batch(body.as_bytes(), &origin, &self.register, &self.store, at(seconds)).unwrap();
        admission.changes.into_iter().for_each(|change| self.tell(change));
        admission.rejected.iter().map(|(_, refusal)| refusal.reason.code()).collect()
    }

    fn fact(&self, name: &str, device: &str, seconds: i64) -> Fact {
        let fact = Self::fact_of(&self.register, &self.store, name, device, seconds);
        // Whatever is known now is known after a restart.
        let restarted = Store::new(2);
        for change in &self.told {
            restarted.apply(&Change::from_payload(&change.to_payload()).unwrap());
        }
        assert_eq!(Self::fact_of(&self.register, &restarted, name, device, seconds), fact);
        fact
    }

    fn fact_of(register: &Register, store: &Store, name: &str, device: &str, seconds: i64) -> Fact {
        let contract = register.find(name).unwrap();
        let subject = Subject::parse(contract.subject, device).unwrap();
        let vouched = store.vouching().load();
        let reading =
            Reading { store, vouched: &vouched, principal: None, chain: &[], circumstances: None, now: at(seconds) };
        store.bind(contract).read(&reading, &subject)
    }

    fn state(&self, name: &str, seconds: i64) -> State {
        self.fact(name, "dev-1", seconds).state
    }
}

#[test]
fn a_subject_without_events_rests_only_while_the_stream_is_live_and_in_sync() {
    let mut world = World::new();
    assert_eq!(world.state("compliant", 0), State::Missing, "an empty store has missed everything");
    world.tell(moved(StreamEvent::Verified, 0));
    assert_eq!(world.state("compliant", 0), State::Missing, "to be heard is not to be in sync");
    world.tell(moved(StreamEvent::Resynchronised, 0));
    let fact = world.fact("compliant", "dev-1", 60);
    assert_eq!((fact.state, fact.value), (State::Fresh, Some(Value::Bool(true))));
    assert_eq!(world.state("compliant", 301), State::Stale, "a silent stream goes stale");
    world.tell(moved(StreamEvent::Verified, 400));
    assert_eq!(world.state("compliant", 401), State::Fresh);
    world.tell(moved(StreamEvent::Suspended, 402));
    assert_eq!(world.state("compliant", 403), State::Missing, "something was missed");
    world.tell(moved(StreamEvent::Verified, 404));
    assert_eq!(world.state("compliant", 405), State::Missing, "to be heard again brings nothing back");
    assert_eq!(world.state("plain", 1), State::Missing, "no resting value was declared");
}

#[test]
fn a_subject_that_has_had_an_event_never_rests_again() {
    let mut world = World::live();
    assert_eq!(world.say(IDP, "compliant", "dev-1", false, 10), [""; 0]);
    let fact = world.fact("compliant", "dev-1", 20);
    assert_eq!((fact.state, fact.value), (State::Fresh, Some(Value::Bool(false))));
    world.tell(moved(StreamEvent::Verified, 1_000));
    let fact = world.fact("compliant", "dev-1", 1_001);
    assert_eq!((fact.state, fact.value), (State::Fresh, Some(Value::Bool(false))), "it holds until the next event");
    world.tell(moved(StreamEvent::Suspended, 1_002));
    assert_eq!(world.state("compliant", 1_003), State::Stale, "out of sync, an old event is an old event");
    world.tell(moved(StreamEvent::Resynchronised, 1_004));
    assert_eq!(world.state("compliant", 2_000), State::Stale);
    assert_eq!(world.fact("compliant", "dev-2", 1_005).value, Some(Value::Bool(true)), "others rest");
}

#[test]
fn an_event_about_everyone_reaches_every_subject_and_the_later_word_counts() {
    let mut world = World::live();
    world.say(IDP, "compliant", "dev-1", true, 10);
    assert_eq!(world.say(IDP, "compliant", "*", false, 20), [""; 0]);
    for device in ["dev-1", "dev-2", "never-seen"] {
        assert_eq!(world.fact("compliant", device, 21).value, Some(Value::Bool(false)));
    }
    world.say(IDP, "compliant", "dev-1", true, 30);
    assert_eq!(world.fact("compliant", "dev-1", 31).value, Some(Value::Bool(true)));
    assert_eq!(world.fact("compliant", "dev-2", 31).value, Some(Value::Bool(false)));
    assert_eq!(world.say(IDP, "compliant", "*", true, 5), ["older"]);
    world.say(IDP, "compliant", "dev-3", true, 20);
    assert_eq!(world.state("compliant", 31), State::Fresh);
    assert_eq!(world.fact("compliant", "dev-3", 31).state, State::Disputed, "two words of one instant");
    assert_eq!(world.say(MDM, "trust", "*", 5, 30), ["bad_subject"], "a publisher speaks of one subject at a time");
}

#[test]
fn a_publisher_that_is_switched_off_is_unverified_at_once_and_what_it_said_stays_so() {
    let mut world = World::new();
    world.say(MDM, "trust", "dev-1", 5, 0);
    world.say(MDM, "both", "dev-1", 5, 0);
    world.say(OTHER, "both", "dev-1", 5, 0);
    world.tell(switched(MDM, Some("trust"), false, 10));
    assert_eq!((world.state("trust", 11), world.state("both", 11)), (State::Unverified, State::Fresh));
    world.tell(switched(MDM, None, false, 12));
    assert_eq!(world.state("both", 13), State::Unverified);
    assert_eq!(world.say(MDM, "trust", "dev-1", 6, 14), ["publisher_disabled"]);
    world.tell(switched(MDM, None, true, 20));
    assert_eq!(world.say(MDM, "trust", "dev-1", 6, 21), ["publisher_disabled"], "one signal is still off");
    assert_eq!(world.state("both", 22), State::Unverified, "what it said before is not good again");
    world.tell(switched(MDM, Some("trust"), true, 23));
    assert_eq!(world.say(MDM, "trust", "dev-1", 6, 24), [""; 0]);
    world.say(MDM, "both", "dev-1", 5, 24);
    assert_eq!((world.state("trust", 25), world.state("both", 25)), (State::Fresh, State::Fresh));
}

#[test]
fn a_stream_that_is_switched_off_gives_no_resting_value() {
    let mut world = World::live();
    world.tell(switched(IDP, None, false, 10));
    assert_eq!(world.state("compliant", 11), State::Unverified);
}

#[test]
fn a_merged_signal_has_the_worst_state_of_its_parts() {
    let mut world = World::new();
    world.say(MDM, "both", "dev-1", 5, 0);
    assert_eq!(world.state("both", 1), State::Missing);
    world.say(OTHER, "both", "dev-1", 5, 0);
    let fact = world.fact("both", "dev-1", 1);
    assert_eq!((fact.state, fact.source.as_deref()), (State::Fresh, Some("push:spiffe://t/mdm push:spiffe://t/other")));
    world.say(OTHER, "both", "dev-1", 6, 2);
    assert_eq!(world.state("both", 3), State::Disputed, "two sources, two values");
    world.say(OTHER, "both", "dev-1", 5, 100);
    assert_eq!(world.state("both", 350), State::Stale, "as old as the oldest");
    world.say(MDM, "both", "dev-1", 5, 400);
    world.say(MDM, "both", "dev-1", 7, 400);
    assert_eq!(world.state("both", 401), State::Disputed);
    assert_eq!(world.state("both", 390), State::Disputed, "disputed is worse than from the future");
    world.tell(switched(OTHER, None, false, 402));
    assert_eq!(world.state("both", 403), State::Unverified);
}
