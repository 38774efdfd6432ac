//! Judging the entry point in one world. Each thread has an interpreter of its own, so no evaluation waits for another.

use super::{
    RegoEngine, functions,
    input::{self, Fixed},
    meter, result,
};
use crate::policy::{EngineKind, Judged, PolicyAnswer, PolicyInfo, Query, Seen, SignalIndex, Slice};
use regorus::{Engine, Value, utils::limits::LimitError};
use std::{
    cell::{OnceCell, RefCell},
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, Weak},
};

/// Interpreters that a thread keeps: that of the configuration in force, and of one that is tried beside it or going.
const KEPT: usize = 3;

/// An interpreter, ready for the next evaluation.
struct Ready {
    /// Of which engine; gone once the engine is.
    of: Weak<()>,
    engine: Engine,
}

thread_local! {
    static READY: RefCell<Vec<Ready>> = const { RefCell::new(Vec::new()) };
}

/// Takes this thread's interpreter, or makes one: the compiled policies are shared.
fn take(engine: &RegoEngine) -> Engine {
    READY
        .with_borrow_mut(|ready| {
            ready.retain(|kept| kept.of.strong_count() > 0);
            let at = ready.iter().position(|kept| std::ptr::eq(kept.of.as_ptr(), Arc::as_ptr(&engine.alive)))?;
            Some(ready.swap_remove(at).engine)
        })
        .unwrap_or_else(|| engine.prepared.clone())
}

fn give_back(of: &RegoEngine, engine: Engine) {
    READY.with_borrow_mut(|ready| {
        if ready.len() >= KEPT {
            ready.remove(0);
        }
        ready.push(Ready { of: Arc::downgrade(&of.alive), engine });
    });
}

/// Evaluates the entry point. An interpreter that failed is not used again: what it left behind is anybody's guess.
pub(super) fn evaluate(of: &RegoEngine, input: Value, now_ns: i64) -> Result<Value, String> {
    let mut engine = take(of);
    meter::begin(now_ns);
    // The interpreter is written to return errors, not to panic. Should it all the same, the decision is a denial.
    let outcome = catch_unwind(AssertUnwindSafe(|| {
        engine.set_input(input);
        let outcome = engine.eval_rule(of.query.clone());
        (engine, outcome)
    }));
    match outcome {
        Ok((mut engine, Ok(value))) => {
            engine.set_input(Value::Undefined);
            give_back(of, engine);
            Ok(value)
        }
        Ok((_, Err(error))) => Err(sentence(&error)),
        Err(_) => Err("the interpreter failed; this is a bug of ours".to_owned()),
    }
}

/// What went wrong, with its place if there is one.
fn sentence(error: &anyhow::Error) -> String {
    if error.downcast_ref::<LimitError>().is_some() || error.to_string().contains("exceeded time limit") {
        return meter::too_much_work();
    }
    let text = error.to_string();
    let what = functions::plain(&text).replace('\n', " ");
    match text.split_once("--> ").and_then(|(_, rest)| rest.lines().next()) {
        Some(place) => format!("{place}: {what}"),
        None => what,
    }
}

/// The entry point for one query, if its action is one that it is asked for.
pub(super) struct RegoSlice<'e> {
    engine: &'e RegoEngine,
    /// `None`: it is not asked.
    query: Option<Query>,
    fixed: OnceCell<Fixed>,
    /// What the first world gave, and whether that was a yes.
    first: OnceCell<(bool, Option<PolicyAnswer>)>,
}

impl<'e> RegoSlice<'e> {
    pub(super) fn new(engine: &'e RegoEngine, query: &Query) -> Self {
        let is_asked = engine.actions.contains(&query.action) && query.built_in.is_none();
        Self { engine, query: is_asked.then(|| query.clone()), fixed: OnceCell::new(), first: OnceCell::new() }
    }

    fn input(&self, query: &Query, seen: &[(SignalIndex, Seen)]) -> Result<Value, String> {
        if self.engine.kind() == EngineKind::OpaEnvoy {
            let whole = query.whole.as_ref().ok_or("the request as a whole was not given")?;
            return input::document(whole).ok_or_else(|| "the request is nested too deep".to_owned());
        }
        Ok(self.fixed.get_or_init(|| Fixed::of(query)).with(&self.engine.mentioned, seen))
    }

    /// Judges a world, and says what the policy gave beside its yes or no.
    fn judge(&self, seen: &[(SignalIndex, Seen)]) -> Result<(bool, Option<PolicyAnswer>), String> {
        let query = self.query.as_ref().ok_or("it is not asked about this action")?;
        let now_ns = query.now.as_micros().saturating_mul(1_000);
        let value = evaluate(self.engine, self.input(query, seen)?, now_ns)?;
        result::read(&value).map(|said| (said.allowed, said.answer))
    }

    fn is_open(&self, seen: &[(SignalIndex, Seen)]) -> bool {
        let mentions = &self.engine.info.mentions;
        seen.iter().any(|(signal, seen)| *seen == Seen::Any && mentions.binary_search(signal).is_ok())
    }
}

impl Slice for RegoSlice<'_> {
    fn in_play(&self) -> &[u32] {
        if self.query.is_some() { &[0] } else { &[] }
    }

    fn info(&self, _position: usize) -> &Arc<PolicyInfo> {
        &self.engine.info
    }

    fn engines(&self) -> &[EngineKind] {
        if self.query.is_some() { std::slice::from_ref(&self.engine.info.engine) } else { &[] }
    }

    fn untold(&self, _position: usize) -> Option<String> {
        match self.engine.kind() {
            EngineKind::OpaEnvoy => Some("the whole request".to_owned()),
            _ => self.engine.untold(),
        }
    }

    fn answer(&self, allowed: bool) -> Option<PolicyAnswer> {
        self.first.get().filter(|(yes, _)| *yes == allowed)?.1.clone()
    }

    fn judge_all(&self, seen: &[(SignalIndex, Seen)]) -> Vec<Judged> {
        if self.query.is_none() {
            return Vec::new();
        }
        if self.is_open(seen) {
            return vec![Judged::Open];
        }
        vec![match self.judge(seen) {
            Ok((allowed, answer)) => {
                // Asked again it is asked for another reason; the answer is that of the decision.
                let _ = self.first.set((allowed, answer));
                if allowed { Judged::True } else { Judged::False }
            }
            Err(why) => Judged::Failed(why),
        }]
    }

    fn judge_one(&self, _position: usize, seen: &[(SignalIndex, Seen)]) -> Judged {
        // INVARIANT I2: what can't be told without a value that is not there is not told.
        if self.is_open(seen) {
            return Judged::Open;
        }
        match self.judge(seen) {
            // INVARIANT I2, I3: a signal that may not widen does not choose what an allow says either.
            Ok((true, answer)) if self.first.get().is_some_and(|(_, first)| *first != answer) => Judged::Open,
            Ok((true, _)) => Judged::True,
            Ok((false, _)) => Judged::False,
            Err(why) => Judged::Failed(why),
        }
    }
}
