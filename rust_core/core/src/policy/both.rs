//! Two engines as one: their policies side by side, and each engine that is asked must permit.

use super::{
    EngineKind, EntityUnknown, Judged, Listed, Makeup, Observing, OutsideRead, PolicyAnswer, PolicyEngine, PolicyInfo,
    Query, Seen, SignalIndex, Slice,
};
use crate::model::{ActionId, PrincipalRecord, SpiffeId, Value};
use std::sync::Arc;

/// Two engines. What is said of principals is the first one's to say, and so is what is observed.
pub struct Both {
    first: Box<dyn PolicyEngine>,
    second: Box<dyn PolicyEngine>,
    name: &'static str,
    infos: Vec<Arc<PolicyInfo>>,
    /// Index of the second engine's first policy.
    offset: u32,
}

impl Both {
    /// Joins them. `name`: word for the record.
    pub fn new(first: Box<dyn PolicyEngine>, second: Box<dyn PolicyEngine>, name: &'static str) -> Self {
        let infos: Vec<Arc<PolicyInfo>> = first.policies().iter().chain(second.policies()).cloned().collect();
        let offset = u32::try_from(first.policies().len()).unwrap_or(u32::MAX);
        Self { first, second, name, infos, offset }
    }

    fn asked<'a>(&'a self, action: &'a ActionId) -> impl Iterator<Item = &'a dyn PolicyEngine> {
        [&*self.first, &*self.second].into_iter().filter(|engine| engine.is_asked(action))
    }

    fn join<'e>(&self, first: Box<dyn Slice + 'e>, second: Box<dyn Slice + 'e>) -> Box<dyn Slice + 'e> {
        let shifted = second.in_play().iter().map(|index| index.saturating_add(self.offset));
        let in_play = first.in_play().iter().copied().chain(shifted).collect();
        let engines = first.engines().iter().chain(second.engines()).copied().collect();
        Box::new(Joined { first, second, in_play, engines })
    }
}

impl PolicyEngine for Both {
    fn name(&self) -> &'static str {
        self.name
    }

    fn is_asked(&self, action: &ActionId) -> bool {
        self.asked(action).next().is_some()
    }

    fn wants_whole_request(&self) -> bool {
        self.first.wants_whole_request() || self.second.wants_whole_request()
    }

    fn shows_whole(&self, action: &ActionId) -> bool {
        self.asked(action).any(|engine| engine.shows_whole(action))
    }

    fn is_ungoverned_for(&self, action: &ActionId) -> bool {
        self.is_asked(action) && self.asked(action).all(|engine| engine.is_ungoverned_for(action))
    }

    fn reads_outside(&self) -> Vec<OutsideRead> {
        [self.first.reads_outside(), self.second.reads_outside()].concat()
    }

    fn policies(&self) -> &[Arc<PolicyInfo>] {
        &self.infos
    }

    fn record_of(&self, principal: &SpiffeId) -> Option<&PrincipalRecord> {
        self.first.record_of(principal)
    }

    fn records(&self) -> Vec<Listed<'_>> {
        self.first.records()
    }

    fn slice<'e>(&'e self, query: &Query) -> Result<Box<dyn Slice + 'e>, EntityUnknown> {
        Ok(self.join(self.first.slice(query)?, self.second.slice(query)?))
    }

    fn can_permit(&self, action: &ActionId) -> bool {
        self.is_asked(action) && self.asked(action).all(|engine| engine.can_permit(action))
    }

    fn has_gates(&self, action: &ActionId) -> bool {
        self.asked(action).any(|engine| engine.has_gates(action))
    }

    fn watched(&self, action: &ActionId) -> &[SignalIndex] {
        self.first.watched(action)
    }

    fn literals(&self, policy: u32) -> Vec<Value> {
        match policy.checked_sub(self.offset) {
            Some(policy) => self.second.literals(policy),
            None => self.first.literals(policy),
        }
    }

    fn makeups(&self) -> Vec<Makeup> {
        let mut all = self.first.makeups();
        all.extend(self.second.makeups());
        all
    }

    /// Each engine's own: a policy is judged without the other's.
    fn with_conditions(&self, query: &Query, show: &mut dyn FnMut(&dyn Slice)) {
        self.first.with_conditions(query, show);
        self.second.with_conditions(query, show);
    }

    fn slice_observing<'e>(&'e self, query: &Query) -> Option<Observing<'e>> {
        let Observing { slice, unknown } = self.first.slice_observing(query)?;
        let second = self.second.slice(query).ok()?;
        Some(Observing { slice: self.join(slice, second), unknown })
    }
}

/// The policies in play of two engines: first those of the first.
struct Joined<'e> {
    first: Box<dyn Slice + 'e>,
    second: Box<dyn Slice + 'e>,
    in_play: Vec<u32>,
    engines: Vec<EngineKind>,
}

impl Joined<'_> {
    /// Whose a position is, and which of its own.
    fn at(&self, position: usize) -> (&dyn Slice, usize) {
        match position.checked_sub(self.first.in_play().len()) {
            Some(position) => (&*self.second, position),
            None => (&*self.first, position),
        }
    }
}

impl Slice for Joined<'_> {
    fn in_play(&self) -> &[u32] {
        &self.in_play
    }

    fn info(&self, position: usize) -> &Arc<PolicyInfo> {
        let (slice, position) = self.at(position);
        slice.info(position)
    }

    fn engines(&self) -> &[EngineKind] {
        &self.engines
    }

    fn answer(&self, allowed: bool) -> Option<PolicyAnswer> {
        self.first.answer(allowed).or_else(|| self.second.answer(allowed))
    }

    fn judge_all(&self, seen: &[(SignalIndex, Seen)]) -> Vec<Judged> {
        let mut all = self.first.judge_all(seen);
        all.extend(self.second.judge_all(seen));
        all
    }

    fn judge_one(&self, position: usize, seen: &[(SignalIndex, Seen)]) -> Judged {
        let (slice, position) = self.at(position);
        slice.judge_one(position, seen)
    }

    fn untold(&self, position: usize) -> Option<String> {
        let (slice, position) = self.at(position);
        slice.untold(position)
    }
}

#[cfg(test)]
mod tests;
