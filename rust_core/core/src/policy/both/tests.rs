//! Facts about two engines as one, with engines that say what they are told to.

use super::*;
use crate::{
    findings::Place,
    model::{ResourceId, Tier, Timestamp},
    policy::{Effect, IdentityView, Mode, reasoning::evaluate},
    reason::Reason,
};

/// An engine whose policies apply or not.
struct Told {
    kind: EngineKind,
    asked: bool,
    infos: Vec<Arc<PolicyInfo>>,
    judged: Vec<Judged>,
    answer: Option<PolicyAnswer>,
}

impl Told {
    fn new(kind: EngineKind, policies: &[(Effect, Judged)]) -> Self {
        let info = |(at, (effect, _)): (usize, &(Effect, Judged))| {
            Arc::new(PolicyInfo {
                engine: kind,
                id: format!("{}{at}", kind.as_str()).into(),
                file: "policies/p".into(),
                place: Place::default(),
                effect: *effect,
                mode: Mode::Enforce,
                require_approval: None,
                template: None,
                note: None,
                advice: None,
                mentions: Vec::new(),
                text_sha256: String::new(),
            })
        };
        Self {
            kind,
            asked: true,
            infos: policies.iter().enumerate().map(info).collect(),
            judged: policies.iter().map(|(_, judged)| judged.clone()).collect(),
            answer: None,
        }
    }

    fn boxed(self) -> Box<dyn PolicyEngine> {
        Box::new(self)
    }
}

impl PolicyEngine for Told {
    fn name(&self) -> &'static str {
        self.kind.as_str()
    }
    fn is_asked(&self, _: &ActionId) -> bool {
        self.asked
    }
    fn policies(&self) -> &[Arc<PolicyInfo>] {
        &self.infos
    }
    fn record_of(&self, _: &SpiffeId) -> Option<&PrincipalRecord> {
        None
    }
    fn slice<'e>(&'e self, _: &Query) -> Result<Box<dyn Slice + 'e>, EntityUnknown> {
        let in_play = if self.asked { (0..).take(self.infos.len()).collect() } else { Vec::new() };
        let engines = if self.asked { vec![self.kind] } else { Vec::new() };
        Ok(Box::new(ToldSlice { told: self, in_play, engines }))
    }
}

struct ToldSlice<'e> {
    told: &'e Told,
    in_play: Vec<u32>,
    engines: Vec<EngineKind>,
}

impl Slice for ToldSlice<'_> {
    fn in_play(&self) -> &[u32] {
        &self.in_play
    }
    fn info(&self, position: usize) -> &Arc<PolicyInfo> {
        &self.told.infos[position]
    }
    fn engines(&self) -> &[EngineKind] {
        &self.engines
    }
    fn answer(&self, _: bool) -> Option<PolicyAnswer> {
        self.told.answer.clone()
    }
    fn judge_all(&self, _: &[(SignalIndex, Seen)]) -> Vec<Judged> {
        self.told.judged[..self.in_play.len()].to_vec()
    }
    fn judge_one(&self, position: usize, _: &[(SignalIndex, Seen)]) -> Judged {
        self.told.judged[position].clone()
    }
}

fn query() -> Query {
    let identity = IdentityView::of("x509", "t", true);
    let principal = SpiffeId::parse("spiffe://t/a").unwrap();
    let resource = ResourceId { kind: "Account".into(), id: "42".into() };
    Query::of(principal, ActionId::parse("read").unwrap(), Tier::Runtime, resource, identity, Timestamp::from_micros(0))
}

fn reason(cedar: Told, rego: Told) -> Reason {
    let both = Both::new(cedar.boxed(), rego.boxed(), "cedar+rego");
    let slice = both.slice(&query()).unwrap();
    evaluate(&*slice, &[], &[]).reason
}

fn permits(kind: EngineKind) -> Told {
    Told::new(kind, &[(Effect::Permit, Judged::True)])
}

#[test]
fn both_must_permit() {
    let (cedar, rego) = (EngineKind::Cedar, EngineKind::Rego);
    let silent = |kind| Told::new(kind, &[(Effect::Permit, Judged::False)]);
    let nothing = |kind| Told::new(kind, &[]);
    let open = |kind| Told::new(kind, &[(Effect::Permit, Judged::Open)]);
    let forbids = Told::new(cedar, &[(Effect::Permit, Judged::True), (Effect::Forbid, Judged::True)]);
    let fails = Told::new(rego, &[(Effect::Permit, Judged::Failed("planted".to_owned()))]);
    assert_eq!(reason(permits(cedar), permits(rego)), Reason::Allowed);
    assert_eq!(reason(permits(cedar), silent(rego)), Reason::NoPolicyPermits);
    assert_eq!(reason(silent(cedar), permits(rego)), Reason::NoPolicyPermits);
    assert_eq!(reason(nothing(cedar), permits(rego)), Reason::NoPolicyPermits);
    assert_eq!(reason(permits(cedar), nothing(rego)), Reason::NoPolicyPermits);
    assert_eq!(reason(permits(cedar), open(rego)), Reason::SignalUnavailable);
    assert_eq!(reason(forbids, permits(rego)), Reason::PolicyDenied);
    assert_eq!(reason(permits(cedar), fails), Reason::EngineError);
}

#[test]
fn who_is_not_asked_need_not_permit_and_nobody_asked_permits_nothing() {
    let unasked = |kind| Told { asked: false, ..permits(kind) };
    assert_eq!(reason(unasked(EngineKind::Cedar), permits(EngineKind::Rego)), Reason::Allowed);
    assert_eq!(reason(permits(EngineKind::Cedar), unasked(EngineKind::Rego)), Reason::Allowed);
    assert_eq!(reason(unasked(EngineKind::Cedar), unasked(EngineKind::Rego)), Reason::NoPolicyPermits);
}

#[test]
fn policies_keep_their_index_and_their_answer() {
    let cedar = Told::new(EngineKind::Cedar, &[(Effect::Permit, Judged::True), (Effect::Forbid, Judged::False)]);
    let answer = PolicyAnswer { http_status: Some(418), ..PolicyAnswer::default() };
    let rego = Told { answer: Some(answer.clone()), ..permits(EngineKind::Rego) };
    let both = Both::new(cedar.boxed(), rego.boxed(), "cedar+rego");
    let slice = both.slice(&query()).unwrap();
    assert_eq!(slice.in_play(), &[0, 1, 2]);
    let ids: Vec<&str> = (0..3).map(|at| &*slice.info(at).id).collect();
    assert_eq!(ids, ["cedar0", "cedar1", "rego0"]);
    let known: Vec<&str> = both.policies().iter().map(|info| &*info.id).collect();
    assert_eq!(known, ids);
    assert_eq!(slice.answer(true), Some(answer));
    assert_eq!(slice.judge_one(1, &[]), Judged::False);
    assert_eq!(slice.judge_one(2, &[]), Judged::True);
}
