//! Judging the policies in play for one query: plainly, or with unknowns in Cedar's partial evaluation.

use super::{
    CedarEngine, Compiled, Reads, built_in,
    quick::World,
    slices::{ActionSlice, Located},
    values,
};
use crate::{
    model::{ActionId, Tier},
    policy::{
        BuiltInRequest, ChainView, EngineKind, EntityUnknown, GrantView, IdentityView, Judged, PolicyEngine as _,
        PolicyInfo, Query, RequestView, Seen, SignalIndex, Slice,
    },
};
use cedar_policy_core::{
    ast::{self, Context, EntityUID, EntityUIDEntry, Expr, Literal, PartialValue, Request, Unknown, ValueKind},
    evaluator::Evaluator,
    extensions::Extensions,
};
use smol_str::SmolStr;
use std::{
    cell::LazyCell,
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
};

type Fields = BTreeMap<SmolStr, ast::Value>;
/// Known values that stand in an open context under a name of their own.
type Known = HashMap<SmolStr, ast::Value>;

/// How often known values are put into what evaluation leaves over: each time uncovers the parts behind them.
/// What is still covered then is open, which is the cautious answer.
const MAX_ROUNDS: usize = 8;

/// The policies in play, with what does not vary between evaluations.
pub(super) struct CedarSlice<'e> {
    engine: &'e CedarEngine,
    principal: EntityUID,
    action: EntityUID,
    is_asked: bool,
    resource: EntityUID,
    tier: Tier,
    request: RequestView,
    built_in: Option<BuiltInRequest>,
    identity: IdentityView,
    grant: Option<GrantView>,
    chain: Option<ChainView>,
    approved_by: BTreeSet<Arc<str>>,
    /// Principal, resource: whether `entities.json` lists them.
    is_listed: (bool, bool),
    in_play: Vec<u32>,
    policies: Vec<&'e Compiled>,
}

impl<'e> CedarSlice<'e> {
    /// The enforcing policies in play.
    pub(super) fn new(engine: &'e CedarEngine, query: &Query) -> Result<Self, EntityUnknown> {
        let mut slice = Self::empty(engine, query);
        let Some(filed) = engine.slices.get(&query.action) else { return Ok(slice) };
        if let Some((unknown, _)) = slice.unknown(filed) {
            return Err(unknown);
        }
        slice.add(slice.select(filed));
        Ok(slice)
    }

    /// Enforcing and observing policies in play together; `None` without one of the latter. One that asks for an
    /// entity that is not listed is in play whatever its scope, as its enforcement would be felt.
    pub(super) fn observing(engine: &'e CedarEngine, query: &Query) -> Option<(Self, Option<EntityUnknown>)> {
        let observing = engine.observing.get(&query.action)?;
        let mut slice = Self::empty(engine, query);
        let (unknown, asks) = slice.unknown(observing).unzip();
        let mut found = slice.select(observing);
        if found.is_empty() && unknown.is_none() {
            return None;
        }
        found.extend(asks);
        found.extend(engine.slices.get(&query.action).into_iter().flat_map(|filed| slice.select(filed)));
        found.sort_unstable();
        found.dedup();
        slice.add(found);
        Some((slice, unknown))
    }

    fn empty(engine: &'e CedarEngine, query: &Query) -> Self {
        let principal = values::entity(&engine.workload, query.principal.as_str());
        // A route whose type is not declared does not load. Failing closed here would need a reason of its own;
        // a resource of the wrong type is in no slice that names one, and policies of any resource still hold.
        let kind = engine.resource_types.get(&query.resource.kind).unwrap_or(&engine.workload);
        let resource = values::entity(kind, &query.resource.id);
        Self {
            engine,
            action: engine.action_uids.get(&query.action).unwrap_or(&principal).clone(),
            is_asked: engine.is_asked(&query.action),
            // Resources of built-in actions can't be listed, and have no attributes that anybody could ask for.
            is_listed: (
                engine.listed(&principal).is_some(),
                built_in::is_built_in(&query.action) || engine.listed(&resource).is_some(),
            ),
            principal,
            resource,
            tier: query.tier,
            request: query.request.clone(),
            built_in: query.built_in.clone(),
            identity: query.identity.clone(),
            grant: query.grant.clone(),
            chain: query.chain.clone(),
            approved_by: query.approved_by.clone(),
            in_play: Vec::new(),
            policies: Vec::new(),
        }
    }

    /// The entity that a policy of the action asks for and that is not listed; and the first policy that asks.
    fn unknown(&self, filed: &ActionSlice) -> Option<(EntityUnknown, u32)> {
        let asked = [
            (&self.principal, self.is_listed.0, filed.asks_principal),
            (&self.resource, self.is_listed.1, filed.asks_resource),
        ];
        asked.into_iter().find_map(|(uid, is_listed, asks)| {
            let index = asks.filter(|_| !is_listed)?;
            let policy = self.engine.infos.get(index as usize)?;
            Some((EntityUnknown { entity: uid.to_string(), policy: policy.id.clone() }, index))
        })
    }

    /// Indices of the policies whose scope matches, ascending.
    fn select(&self, filed: &ActionSlice) -> Vec<u32> {
        let engine = self.engine;
        let mut found = filed.select(&located(engine, &self.principal), &located(engine, &self.resource));
        let fits = |wanted: &Option<ast::EntityType>, uid: &EntityUID| {
            wanted.as_ref().is_none_or(|kind| kind == uid.entity_type())
        };
        found.retain(|index| {
            engine.compiled.get(*index as usize).is_some_and(|policy| {
                fits(&policy.principal_type, &self.principal) && fits(&policy.resource_type, &self.resource)
            })
        });
        found
    }

    /// The policies in play with their indices.
    pub(super) fn whole(&self) -> impl Iterator<Item = (u32, &'e Compiled)> {
        self.in_play.iter().copied().zip(self.policies.iter().copied())
    }

    /// The same question to other policies.
    pub(super) fn of<'p>(self, policies: &'p [(u32, Compiled)]) -> CedarSlice<'p>
    where
        'e: 'p,
    {
        let asked: CedarSlice<'p> = self;
        CedarSlice {
            in_play: policies.iter().map(|(index, _)| *index).collect(),
            policies: policies.iter().map(|(_, policy)| policy).collect(),
            ..asked
        }
    }

    fn add(&mut self, found: Vec<u32>) {
        self.policies = found.iter().filter_map(|index| self.engine.compiled.get(*index as usize)).collect();
        self.in_play = found;
    }

    fn evaluator(&self, context: Context) -> Evaluator<'e> {
        let known = |uid: &EntityUID| EntityUIDEntry::known(uid.clone(), None);
        let request =
            Request::new_unchecked(known(&self.principal), known(&self.action), known(&self.resource), Some(context));
        Evaluator::new(request, self.engine.core_entities(), Extensions::all_available())
    }

    /// Whether a policy asks for an entity that is not listed.
    fn lacks(&self, policy: &Compiled) -> bool {
        (policy.asks_principal && !self.is_listed.0) || (policy.asks_resource && !self.is_listed.1)
    }

    /// What needs no evaluator; no signal could be anything.
    fn quick(&self, policy: &Compiled, seen: &[(SignalIndex, Seen)]) -> Option<Judged> {
        if self.lacks(policy) {
            return None;
        }
        if policy.condition.is_none() {
            return Some(Judged::True);
        }
        // `context.request` of a built-in action is another one.
        let test = policy.quick.as_ref().filter(|_| self.built_in.is_none())?;
        let holds = test.holds(&World { seen, request: &self.request, identity: &self.identity })?;
        Some(if holds { Judged::True } else { Judged::False })
    }

    /// The first policy without Cedar, and by Cedar.
    #[cfg(test)]
    pub(super) fn both(&self, seen: &[(SignalIndex, Seen)]) -> (Option<Judged>, Judged) {
        let policy = self.policies.first().unwrap();
        let context = self.plain_context(&self.union_of_reads(), seen.iter()).unwrap();
        (self.quick(policy, seen), self.judge(&self.evaluator(context), policy, &Known::new()))
    }

    fn judge(&self, evaluator: &Evaluator<'e>, policy: &Compiled, known: &Known) -> Judged {
        if self.lacks(policy) {
            // Of enforcing policies none comes here: their slice was not made.
            return Judged::Failed("it asks for an entity that entities.json does not list".to_owned());
        }
        let Some(condition) = &policy.condition else { return Judged::True };
        let mut outcome = evaluator.partial_interpret(condition, &self.engine.no_slots);
        for _ in 0..MAX_ROUNDS {
            match outcome {
                Ok(PartialValue::Residual(rest)) if rest.unknowns().any(|u| known.contains_key(&u.name)) => {
                    outcome = evaluator.partial_interpret(&rest.substitute(known), &self.engine.no_slots);
                }
                _ => break,
            }
        }
        match outcome {
            Ok(PartialValue::Value(value)) => match value.value_kind() {
                ValueKind::Lit(Literal::Bool(applies)) => {
                    if *applies {
                        Judged::True
                    } else {
                        Judged::False
                    }
                }
                _ => Judged::Failed("the condition is not a boolean".to_owned()),
            },
            Ok(PartialValue::Residual(_)) => Judged::Open,
            Err(error) => Judged::Failed(error.to_string()),
        }
    }

    /// The parts of the context beside signals that are read. What a call does not have is left out: a policy that
    /// reads it all the same fails, and so does the decision.
    fn fixed(&self, reads: &Reads) -> Result<Vec<(SmolStr, ast::Value)>, String> {
        let mut parts = Vec::with_capacity(3);
        let mut part = |name: &'static str, fields: Fields| parts.push((SmolStr::new_static(name), record(fields)));
        match &self.built_in {
            Some(asked) if reads.request => part("request", built_in_request(asked)),
            None if reads.request => part("request", self.request(reads)?),
            _ => {}
        }
        if reads.identity {
            part("identity", identity(&self.identity));
        }
        if let Some(grant) = self.grant.as_ref().filter(|_| reads.grant) {
            let mut fields = fields([
                ("task", text(&grant.task)),
                ("type", text(&grant.kind)),
                ("expires_in_seconds", ast::Value::from(grant.expires_in_seconds)),
            ]);
            fields.extend(grant.workflow.as_ref().map(|id| (SmolStr::new_static("workflow"), text(id))));
            part("grant", fields);
        }
        if let Some(chain) = self.chain.as_ref().filter(|_| reads.chain) {
            part(
                "chain",
                fields([
                    ("depth", ast::Value::from(chain.depth)),
                    ("root", text(&chain.root)),
                    ("systems", texts(chain.systems.iter().map(AsRef::as_ref))),
                    ("sensitivity", ast::Value::from(chain.sensitivity)),
                ]),
            );
        }
        if reads.approval && self.tier == Tier::Approval {
            let by = texts(self.approved_by.iter().map(AsRef::as_ref));
            part("approval", fields([("approved_by", by)]));
        }
        Ok(parts)
    }

    /// `context.request` of a route's action: the fields that are read.
    fn request(&self, reads: &Reads) -> Result<Fields, String> {
        let mut request = Fields::new();
        for (read, name, value) in [
            (reads.method, "method", &self.request.method),
            (reads.path, "path", &self.request.path),
            (reads.host, "host", &self.request.host),
        ] {
            if read {
                request.insert(SmolStr::new_static(name), text(value));
            }
        }
        let mut args = Fields::new();
        for (name, value) in &self.request.args {
            if reads.all_args || reads.args.iter().any(|a| **a == **name) {
                args.insert(SmolStr::new(&**name), values::to_cedar(value)?);
            }
        }
        request.insert(SmolStr::new_static("args"), record(args));
        Ok(request)
    }

    /// What the policies in play read together, for one context that serves them all.
    fn union_of_reads(&self) -> Reads {
        let mut all = Reads::default();
        for policy in &self.policies {
            let r = &policy.reads;
            all.request |= r.request;
            all.method |= r.method;
            all.path |= r.path;
            all.host |= r.host;
            all.all_args |= r.all_args || !r.args.is_empty();
            all.identity |= r.identity;
            all.grant |= r.grant;
            all.chain |= r.chain;
            all.approval |= r.approval;
        }
        all
    }

    fn name_of(&self, signal: SignalIndex) -> SmolStr {
        self.engine.signal_names.get(usize::from(signal.0)).cloned().unwrap_or_default()
    }

    /// A context without unknowns: signals that are absent are left out.
    fn plain_context<'s>(
        &self,
        reads: &Reads,
        seen: impl Iterator<Item = &'s (SignalIndex, Seen)>,
    ) -> Result<Context, String> {
        let mut signals = Fields::new();
        for (signal, seen) in seen {
            if let Seen::Value(value) = seen {
                signals.insert(self.name_of(*signal), values::to_cedar(value)?);
            }
        }
        let mut context: Fields = self.fixed(reads)?.into_iter().collect();
        context.insert(SmolStr::new_static("signals"), record(signals));
        Ok(Context::Value(Arc::new(context)))
    }

    /// A context with at least one unknown, and the known values that stand in it by a name of their own.
    /// It holds only what the policy mentions.
    fn open_context<'s>(
        &self,
        reads: &Reads,
        seen: impl Iterator<Item = &'s (SignalIndex, Seen)>,
    ) -> Result<(Context, Known), String> {
        let mut known = Known::new();
        let mut signals: BTreeMap<SmolStr, Expr> = BTreeMap::new();
        for (signal, seen) in seen {
            let name = self.name_of(*signal);
            match seen {
                Seen::Absent => {}
                Seen::Value(value) => drop(signals.insert(name, stand_in(values::to_cedar(value)?, &mut known))),
                Seen::Any => drop(signals.insert(name.clone(), Expr::unknown(Unknown::new_untyped(name)))),
            }
        }
        let mut context: BTreeMap<SmolStr, Expr> =
            self.fixed(reads)?.into_iter().map(|(name, value)| (name, stand_in(value, &mut known))).collect();
        context.insert(SmolStr::new_static("signals"), Expr::record_arc(Arc::new(signals)));
        Ok((Context::RestrictedResidual(Arc::new(context)), known))
    }
}

fn text(text: &str) -> ast::Value {
    ast::Value::new(Literal::String(SmolStr::new(text)), None)
}

fn texts<'t>(members: impl Iterator<Item = &'t str>) -> ast::Value {
    ast::Value::set(members.map(text), None)
}

fn fields<const N: usize>(fields: [(&'static str, ast::Value); N]) -> Fields {
    fields.into_iter().map(|(name, value)| (SmolStr::new_static(name), value)).collect()
}

fn identity(view: &IdentityView) -> Fields {
    let mut identity = fields([
        ("kind", text(view.kind)),
        ("trust_domain", text(&view.trust_domain)),
        ("bound", ast::Value::from(view.bound)),
        ("interactive", ast::Value::from(view.interactive)),
        ("legacy", ast::Value::from(view.legacy)),
    ]);
    identity.extend(view.age_seconds.map(|age| (SmolStr::new_static("age_seconds"), ast::Value::from(age))));
    identity.extend(view.actor.as_ref().map(|actor| (SmolStr::new_static("actor"), text(actor))));
    identity
}

/// `context.request` of a built-in action.
fn built_in_request(asked: &BuiltInRequest) -> Fields {
    let mut request = fields([
        ("for", text(asked.principal.as_str())),
        ("actions", texts(asked.actions.iter().map(ActionId::as_str))),
        ("resources", texts(asked.resources.iter().map(AsRef::as_ref))),
    ]);
    request.extend(asked.sensitivity.map(|level| (SmolStr::new_static("sensitivity"), text(level.as_str()))));
    let environment = asked.environment.as_ref().map(|name| (SmolStr::new_static("environment"), text(name.as_str())));
    request.extend(environment);
    request
}

/// A value as an expression that may stand beside an unknown. Cedar does not look into a record that holds both an
/// unknown and an extension value (decimal, datetime, ip), since building that value could fail: so it stands in
/// under a name, and is put in its place in what evaluation leaves over.
fn stand_in(value: ast::Value, known: &mut Known) -> Expr {
    match value.value {
        ValueKind::Record(fields) => {
            let fields = Arc::unwrap_or_clone(fields).into_iter();
            Expr::record_arc(Arc::new(fields.map(|(name, value)| (name, stand_in(value, known))).collect()))
        }
        ValueKind::ExtensionValue(_) => {
            // No signal has a name with a space.
            let name = SmolStr::new(format!("known {}", known.len()));
            known.insert(name.clone(), value);
            Expr::unknown(Unknown::new_untyped(name))
        }
        _ => Expr::from(value),
    }
}

fn record(fields: Fields) -> ast::Value {
    ast::Value::record_arc(Arc::new(fields), None)
}

fn located<'a>(engine: &'a CedarEngine, uid: &'a EntityUID) -> Located<'a> {
    let ancestors = engine.listed(uid).map(|entity| entity.ancestors().collect()).unwrap_or_default();
    Located { uid, ancestors }
}

impl Slice for CedarSlice<'_> {
    fn in_play(&self) -> &[u32] {
        &self.in_play
    }

    fn info(&self, position: usize) -> &Arc<PolicyInfo> {
        // INVARIANT: positions come from `in_play`, which has as many entries as `policies`.
        match self.policies.get(position) {
            Some(policy) => &policy.info,
            None => &NOBODY,
        }
    }

    fn engines(&self) -> &[EngineKind] {
        if self.is_asked { &[EngineKind::Cedar] } else { &[] }
    }

    fn untold(&self, position: usize) -> Option<String> {
        self.policies.get(position)?.reads.untold().map(str::to_owned)
    }

    fn judge_all(&self, seen: &[(SignalIndex, Seen)]) -> Vec<Judged> {
        // Made for the first policy that needs it: most directories have none.
        let evaluator = LazyCell::new(|| {
            self.plain_context(&self.union_of_reads(), seen.iter()).map(|context| self.evaluator(context))
        });
        let judge = |policy: &&Compiled| {
            self.quick(policy, seen).unwrap_or_else(|| match &*evaluator {
                Ok(evaluator) => self.judge(evaluator, policy, &Known::new()),
                Err(why) => Judged::Failed(why.clone()),
            })
        };
        self.policies.iter().map(judge).collect()
    }

    fn judge_one(&self, position: usize, seen: &[(SignalIndex, Seen)]) -> Judged {
        let Some(policy) = self.policies.get(position) else {
            return Judged::Failed("no such policy".to_owned());
        };
        let own = || seen.iter().filter(|(signal, _)| policy.info.mentions.binary_search(signal).is_ok());
        let open = own().any(|(_, seen)| *seen == Seen::Any);
        if !open && let Some(judged) = self.quick(policy, seen) {
            return judged;
        }
        let context = if open {
            self.open_context(&policy.reads, own())
        } else {
            self.plain_context(&policy.reads, own()).map(|context| (context, Known::new()))
        };
        match context {
            Ok((context, known)) => self.judge(&self.evaluator(context), policy, &known),
            Err(why) => Judged::Failed(why),
        }
    }
}

static NOBODY: std::sync::LazyLock<Arc<PolicyInfo>> = std::sync::LazyLock::new(|| {
    Arc::new(PolicyInfo {
        engine: EngineKind::Cedar,
        id: "".into(),
        template: None,
        file: "".into(),
        place: crate::findings::Place::default(),
        effect: crate::policy::Effect::Forbid,
        mode: crate::policy::Mode::Enforce,
        require_approval: None,
        note: None,
        advice: None,
        mentions: Vec::new(),
        text_sha256: String::new(),
    })
});
