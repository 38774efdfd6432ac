//! Judging policies: the vocabulary that every engine shares, and the one trait that an engine implements.
//! The three-valued reasoning of DESIGN section 6, step 5 is in `reasoning.rs` and knows no engine.

mod answer;
pub mod both;
pub mod cedar;
pub mod influence;
pub mod load;
pub mod observe;
pub mod reasoning;
pub mod rego;
pub mod settings;

pub use answer::PolicyAnswer;

use crate::findings::Place;
use crate::model::{
    ActionId, Assurance, Environment, Fact, Influence, PrincipalRecord, ResourceId, Sensitivity, SignalName,
    SignalType, SpiffeId, State, Tier, Timestamp, Value, WhenUnavailable,
};
use std::{collections::BTreeMap, collections::BTreeSet, sync::Arc};

/// Index of a signal in the register, which is sorted by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SignalIndex(pub u16);

/// What the policy room needs to know of a contract.
#[derive(Clone, Debug)]
pub struct SignalRule {
    /// Name, as policies write it after `context.signals.`.
    pub name: SignalName,
    /// Declared type.
    pub kind: SignalType,
    /// What it may do.
    pub influence: Influence,
    /// What its loss means.
    pub when_unavailable: WhenUnavailable,
    /// All its declared sources are self-asserted.
    pub self_asserted: bool,
    /// Actions whose policies may read it.
    pub used_by: BTreeSet<ActionId>,
    /// Where its contract stands in `signals.yaml`.
    pub place: Place,
}

/// What the policy room needs to know of an action.
#[derive(Clone, Debug)]
pub struct ActionRule {
    /// Name, as policies write it in `Action::"…"`.
    pub id: ActionId,
    /// How closely it is guarded.
    pub tier: Tier,
    /// Whether its routes ask for a grant beside what their tier asks for.
    pub grant_required: bool,
    /// Cedar entity types that its routes name.
    pub resource_types: BTreeSet<Arc<str>>,
    /// Arguments of its routes: type, and whether one may lack it.
    pub args: BTreeMap<Arc<str>, (SignalType, bool)>,
    /// Where its first route stands in `routes.yaml`.
    pub place: Place,
}

/// One question: who asks what of which resource. Signals come apart from it.
#[derive(Clone, Debug)]
pub struct Query {
    /// The authenticated workload.
    pub principal: SpiffeId,
    /// The action.
    pub action: ActionId,
    /// How closely the action is guarded.
    pub tier: Tier,
    /// The resource.
    pub resource: ResourceId,
    /// `context.request`.
    pub request: RequestView,
    /// `context.identity`.
    pub identity: IdentityView,
    /// `context.grant`, where a grant was presented and is good.
    pub grant: Option<GrantView>,
    /// `context.chain`, beside it.
    pub chain: Option<ChainView>,
    /// `context.approval.approved_by`: who has said yes to this call so far.
    pub approved_by: BTreeSet<Arc<str>>,
    /// What a built-in action asks for, in place of `context.request`.
    pub built_in: Option<BuiltInRequest>,
    /// The decision's own now: the only time that a policy can know.
    pub now: Timestamp,
    /// The request as a whole, for policies that are not governed (`input: opa_envoy`); `None` for all others (I1).
    pub whole: Option<Arc<serde_json::Value>>,
}

impl Query {
    /// A question with nothing beside who asks what of which resource: no request, no grant, no approval.
    pub fn of(
        principal: SpiffeId,
        action: ActionId,
        tier: Tier,
        resource: ResourceId,
        identity: IdentityView,
        now: Timestamp,
    ) -> Self {
        let (grant, chain, built_in, whole) = (None, None, None, None);
        let (request, approved_by) = (RequestView::default(), BTreeSet::new());
        Self { principal, action, tier, resource, request, identity, grant, chain, approved_by, built_in, now, whole }
    }
}

/// `context.grant`.
#[derive(Clone, Debug)]
pub struct GrantView {
    /// Id of the task.
    pub task: Arc<str>,
    /// Its type.
    pub kind: Arc<str>,
    /// The workflow that it belongs to.
    pub workflow: Option<Arc<str>>,
    /// How long it still counts.
    pub expires_in_seconds: i64,
}

/// `context.chain`: the line of tasks that led here, and what they have touched before this call.
#[derive(Clone, Debug)]
pub struct ChainView {
    /// How many tasks stand above this one.
    pub depth: i64,
    /// SPIFFE ID of the principal of the first task.
    pub root: Arc<str>,
    /// Systems touched so far.
    pub systems: BTreeSet<Arc<str>>,
    /// Highest sensitivity touched so far: 0 none, 1 low, 2 medium, 3 high.
    pub sensitivity: i64,
}

/// `context.request` of a built-in action: what is asked for, and for whom.
#[derive(Clone, Debug)]
pub struct BuiltInRequest {
    /// Whose task begins, or whose call is to be approved; policies see it as `for`.
    pub principal: SpiffeId,
    /// Actions of the task, or the action of the call.
    pub actions: BTreeSet<ActionId>,
    /// Resources of the task as written, or the resource of the call.
    pub resources: BTreeSet<Arc<str>>,
    /// Ceiling of the task, or the sensitivity of the call.
    pub sensitivity: Option<Sensitivity>,
    /// Environment of the task, or of the call.
    pub environment: Option<Environment>,
}

/// `context.request`: the fields that the route names, nothing else (I1).
#[derive(Clone, Debug, Default)]
pub struct RequestView {
    /// HTTP method.
    pub method: Arc<str>,
    /// Path without query.
    pub path: Arc<str>,
    /// Host in lower case, without port.
    pub host: Arc<str>,
    /// Arguments that the route names.
    pub args: BTreeMap<Arc<str>, Value>,
}

/// `context.identity`.
#[derive(Clone, Debug)]
pub struct IdentityView {
    /// `x509`, `jwt_svid` or `oauth`; `client` or `vouched` where the admin door asks.
    pub kind: &'static str,
    /// Name of the trust domain.
    pub trust_domain: Arc<str>,
    /// Whether the credential is bound to its sender.
    pub bound: bool,
    /// Age of the credential, where known.
    pub age_seconds: Option<i64>,
    /// The current actor, where another acts for the principal.
    pub actor: Option<Arc<str>>,
    /// Whether a human stands at the origin of the credential, as far as it can be told.
    pub interactive: bool,
    /// Whether the principal stands for somebody who has nothing but a long-lived secret.
    pub legacy: bool,
}

impl IdentityView {
    /// An identity of which no more is known: no age, no actor, neither interactive nor legacy.
    pub fn of(kind: &'static str, trust_domain: &str, bound: bool) -> Self {
        let (age_seconds, actor, interactive, legacy) = (None, None, false, false);
        Self { kind, trust_domain: trust_domain.into(), bound, age_seconds, actor, interactive, legacy }
    }
}

/// Whether a policy permits or forbids.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// A permit.
    Permit,
    /// A forbid.
    Forbid,
}

/// Whether a policy counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// It decides, with the others.
    Enforce,
    /// It is judged for the record, and changes nothing (`@mode("observe")`).
    Observe,
}

impl Mode {
    /// Every mode, by the word of the annotation.
    pub const ALL: &'static [(&'static str, Self)] = &[("enforce", Self::Enforce), ("observe", Self::Observe)];

    /// The word of the annotation.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Enforce => "enforce",
            Self::Observe => "observe",
        }
    }
}

/// Which engine judges a policy, and by which contract.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EngineKind {
    /// Cedar.
    Cedar,
    /// Rego over the governed projection.
    Rego,
    /// Rego over the whole request, as OPA's Envoy plugin shows it: not governed.
    OpaEnvoy,
}

impl EngineKind {
    /// How many there are.
    pub const COUNT: usize = 3;

    /// The word of the record.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Cedar => "cedar",
            Self::Rego => "rego",
            Self::OpaEnvoy => "opa_envoy",
        }
    }
}

/// What is known of a policy from its text.
#[derive(Debug)]
pub struct PolicyInfo {
    /// Which engine judges it.
    pub engine: EngineKind,
    /// Its `@id`, else `file:line`; of a link its own.
    pub id: Arc<str>,
    /// The template that it is a link of.
    pub template: Option<Arc<str>>,
    /// File, relative to the directory.
    pub file: Arc<str>,
    /// Where it starts.
    pub place: Place,
    /// Permit or forbid.
    pub effect: Effect,
    /// Whether it counts.
    pub mode: Mode,
    /// What `@require_approval` says: where this policy decides, somebody has to say yes.
    pub require_approval: Option<Arc<str>>,
    /// Why it is there, for the record (`@reason`).
    pub note: Option<Arc<str>>,
    /// What a caller whom it denies can do (`@advice`).
    pub advice: Option<Arc<str>>,
    /// Signals that it names, sorted.
    pub mentions: Vec<SignalIndex>,
    /// Hex SHA-256 of its text: whether a policy changed is told without showing it.
    pub text_sha256: String,
}

impl Effect {
    /// The word that policies begin with.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Permit => "permit",
            Self::Forbid => "forbid",
        }
    }
}

/// What a policy sees of one signal in one evaluation.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Seen {
    /// Not there.
    Absent,
    /// This value.
    Value(Value),
    /// There, with a value that could be any of its type.
    Any,
}

/// Answer of one evaluation of one policy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Judged {
    /// The policy applies.
    True,
    /// It does not.
    False,
    /// The engine can't tell without the value of an `Any`.
    Open,
    /// It failed; why.
    Failed(String),
}

/// A policy engine: its compiled policies, immutable, shared by all threads.
pub trait PolicyEngine: Send + Sync {
    /// Word for the record: `cedar`.
    fn name(&self) -> &'static str;

    /// Whether it is asked for an action at all; where two engines are, both must permit.
    fn is_asked(&self, _action: &ActionId) -> bool {
        true
    }

    /// Whether it needs `Query::whole`.
    fn wants_whole_request(&self) -> bool {
        false
    }

    /// Whether policies of this action see the request as a whole.
    fn shows_whole(&self, action: &ActionId) -> bool {
        self.wants_whole_request() && self.is_asked(action)
    }

    /// Whether nobody but policies over the whole request is asked for this action: then nothing that the register promises
    /// holds, and no identity is needed.
    fn is_ungoverned_for(&self, action: &ActionId) -> bool {
        self.shows_whole(action)
    }

    /// What policies read of the request as a whole, each place once: all of it is outside the register.
    fn reads_outside(&self) -> Vec<OutsideRead> {
        Vec::new()
    }

    /// Every policy, in a stable order.
    fn policies(&self) -> &[Arc<PolicyInfo>];

    /// What is said of a principal; `None` if it is not listed. Asked once for each request.
    fn record_of(&self, principal: &SpiffeId) -> Option<&PrincipalRecord>;

    /// What is said of every listed principal, by name, with its place in the file of entities.
    fn records(&self) -> Vec<Listed<'_>> {
        Vec::new()
    }

    /// Picks the enforcing policies whose scope can match, and fixes what does not vary between evaluations.
    /// `Err`: principal or resource is not listed although a policy of this action asks for it.
    fn slice<'e>(&'e self, query: &Query) -> Result<Box<dyn Slice + 'e>, EntityUnknown>;

    /// Whether the scope of an enforcing permit can match the action; true where the engine can't tell.
    fn can_permit(&self, _action: &ActionId) -> bool {
        true
    }

    /// Whether an enforcing policy that demands an approval can match the action; true where the engine can't tell.
    fn has_gates(&self, _action: &ActionId) -> bool {
        true
    }

    /// Signals that observing policies of this action mention, sorted: gathered for the record alone.
    fn watched(&self, _action: &ActionId) -> &[SignalIndex] {
        &[]
    }

    /// Values that are written out in a policy, texts of decimals, times and addresses as they stand: where an outcome may
    /// flip. None where the engine can't tell.
    fn literals(&self, _policy: u32) -> Vec<Value> {
        Vec::new()
    }

    /// The enforcing and the observing policies together, as if all were enforced; `None` if no observing policy is
    /// in play. Asked for the record, never on the way of an answer.
    fn slice_observing<'e>(&'e self, _query: &Query) -> Option<Observing<'e>> {
        None
    }

    /// What each policy consists of, in the order of `policies`: for tests of policies, which count what they reach.
    fn makeups(&self) -> Vec<Makeup> {
        self.policies().iter().map(|_| Makeup::default()).collect()
    }

    /// Shows the policies in play, observing ones included, cut off behind each of their conditions in turn: a policy stands
    /// in the slice once for each condition, the last time whole, and once if it has none or the engine knows none.
    /// For tests of policies, never on the way of an answer.
    fn with_conditions(&self, query: &Query, show: &mut dyn FnMut(&dyn Slice)) {
        if let Ok(slice) = self.slice(query) {
            show(&*slice);
        }
    }
}

/// What a policy consists of.
#[derive(Clone, Debug, Default)]
pub struct Makeup {
    /// Actions that its scope can match; none where the engine can't tell.
    pub actions: Vec<ActionId>,
    /// Whether its scope asks for more than an action, so that a request of its actions may be out of it.
    pub is_scoped: bool,
    /// Its conditions in their order; none where the engine knows no parts.
    pub conditions: Vec<ConditionInfo>,
}

/// One condition of a policy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConditionInfo {
    /// The word that it begins with: `when` or `unless`.
    pub word: &'static str,
    /// Where what is behind the word begins.
    pub place: Place,
}

/// A place where a policy reads the request outside the register.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct OutsideRead {
    /// File of the policy.
    pub file: Arc<str>,
    /// Where the reference stands.
    pub place: Place,
    /// Package and rule, as in `envoy.authz.allow`.
    pub rule: Arc<str>,
    /// What is read, below `input`: `attributes`, `request`, `http`… `None` for a step that is not a text written out.
    pub path: Vec<Option<Arc<str>>>,
}

/// A workload that the directory lists.
#[derive(Clone, Copy, Debug)]
pub struct Listed<'a> {
    /// Which one.
    pub principal: &'a SpiffeId,
    /// What is said of it.
    pub record: &'a PrincipalRecord,
    /// Where; the file as a whole unless the record is one of a legacy principal, of which there is more to say.
    pub place: Place,
}

/// What there is to judge for the record, beside the decision.
pub struct Observing<'e> {
    /// Enforcing and observing policies.
    pub slice: Box<dyn Slice + 'e>,
    /// Set if an observing policy asks for an entity that is not listed. The slice holds that policy, and it fails.
    pub unknown: Option<EntityUnknown>,
}

/// The policies in play for one query.
pub trait Slice {
    /// Indices into `PolicyEngine::policies`, ascending.
    fn in_play(&self) -> &[u32];

    /// What is known of the policy at a position of `in_play`.
    fn info(&self, position: usize) -> &Arc<PolicyInfo>;

    /// The engines that are asked, each once. INVARIANT: each of them must permit, and nobody asked permits nothing.
    fn engines(&self) -> &[EngineKind];

    /// What the policies say of an allow, or of a denial, in the world as it is; known once all were judged in it. What one
    /// says of an allow is for upstream alone: it is no part of a denial by another.
    fn answer(&self, _allowed: bool) -> Option<PolicyAnswer> {
        None
    }

    /// Judges every policy in play, with signals all known (`Any` does not occur). `seen` is sorted.
    fn judge_all(&self, seen: &[(SignalIndex, Seen)]) -> Vec<Judged>;

    /// Judges one policy; only the signals that it mentions are looked at. `seen` is sorted.
    fn judge_one(&self, position: usize, seen: &[(SignalIndex, Seen)]) -> Judged;

    /// What the policy at a position reads that a question without a request does not tell, such as
    /// `context.request.path`: of the call its method, path and host, of who asks the credential. Whoever can't say so
    /// is taken to read it.
    fn untold(&self, _position: usize) -> Option<String> {
        Some("what no question tells".to_owned())
    }

    /// Signals that a policy in play mentions, sorted, each once.
    fn mentioned(&self) -> Vec<SignalIndex> {
        let mut all: Vec<SignalIndex> =
            (0..self.in_play().len()).flat_map(|at| self.info(at).mentions.iter().copied()).collect();
        all.sort_unstable();
        all.dedup();
        all
    }
}

/// A policy asks for attributes or parents of an entity that `entities.json` does not list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EntityUnknown {
    /// The entity, as Cedar writes it.
    pub entity: String,
    /// The policy that asks.
    pub policy: Arc<str>,
}

/// The facts of one decision, by signal, sorted: each signal once.
pub type Facts = [(SignalIndex, Fact)];

/// How one signal counts in this decision (DESIGN section 6, step 5).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// Fresh, and nothing more to ask.
    Known,
    /// Fresh, but a word that may only restrict: the answer must stand without it, too.
    Revocable,
    /// Policies see that it is not there.
    Absent,
    /// Every value, and absence, is possible.
    Uncertain,
}

/// The standing of a signal, from its contract and its fact.
pub fn standing(rule: &SignalRule, fact: &Fact) -> Standing {
    match fact.state {
        State::Fresh if rule.influence == Influence::Restrict || fact.is_self_asserted() => Standing::Revocable,
        State::Fresh => Standing::Known,
        // A contract whose sources are all self-asserted: its absence is the caller's choice.
        _ if rule.self_asserted => Standing::Absent,
        State::Missing | State::Stale if rule.when_unavailable == WhenUnavailable::Absent => Standing::Absent,
        _ => Standing::Uncertain,
    }
}

/// Whether a withdrawn word leaves plain absence behind (otherwise its source is missing,
/// and the signal follows `when_unavailable`).
pub(crate) fn withdrawn_is_absent(rule: &SignalRule, fact: &Fact) -> bool {
    // What people say in place of a signal restricts as its own source would.
    let assurance = fact.overridden.as_ref().map_or(fact.assurance, |stand_in| stand_in.assurance);
    let authoritative_restrict =
        rule.influence == Influence::Restrict && assurance == Assurance::Authoritative && !fact.self_published;
    rule.self_asserted || authoritative_restrict || rule.when_unavailable == WhenUnavailable::Absent
}
