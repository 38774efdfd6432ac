//! Approvals: questions about exact calls, the answers to them, and their single use. Changed by `apply`; beside it a
//! decision asks a question and claims a yes, both at once and in memory, and both are kept before its answer leaves.
//!
//! `binding.rs` says what a call is, `list.rs` shows questions, `order.rs` finds them.

mod binding;
mod list;
mod order;
mod settings;

pub use binding::{Bound, binding};
pub use list::WantedApprovals;
pub use settings::ApprovalSettings;

use crate::change::{ApprovalUsed, Change};
use crate::error::Error;
use crate::limits;
use crate::locks::lock;
use crate::model::{Answer, ApprovalId, Fingerprint, PolicyText, Question, SpiffeId, Timestamp};
use crate::refusal::Refusal;
use order::Orders;
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex},
};

/// The approvals of a running core.
#[derive(Default)]
pub struct Approvals(Mutex<Image>);

#[derive(Default)]
struct Image {
    all: BTreeMap<ApprovalId, Entry>,
    /// The latest question about each call.
    latest: BTreeMap<Fingerprint, ApprovalId>,
    orders: Orders,
}

#[derive(Debug)]
struct Entry {
    question: Arc<Question>,
    answers: BTreeMap<Box<str>, Answer>,
    /// Until when it can be answered, and a yes be used: as it was asked, or earlier where the clock was set back since.
    ends_at: Timestamp,
    /// The decision that claimed it.
    used: Option<Box<str>>,
}

impl Image {
    /// Answers or uses a question.
    fn move_on(&mut self, id: &ApprovalId, change: impl FnOnce(&mut Entry)) {
        let Some(entry) = self.all.get_mut(id) else { return };
        self.orders.displace(entry);
        change(entry);
        self.orders.place(entry);
    }
}

/// How a question stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ApprovalState {
    /// Not enough have answered.
    Pending,
    /// Enough said yes, and no call has used it.
    Approved,
    /// Somebody said no.
    Denied,
    /// Its time is over.
    Expired,
    /// Its call was made.
    Used,
}

impl ApprovalState {
    /// Every state, with its word.
    pub const ALL: &'static [(&'static str, Self)] = &[
        ("pending", Self::Pending),
        ("approved", Self::Approved),
        ("denied", Self::Denied),
        ("expired", Self::Expired),
        ("used", Self::Used),
    ];

    /// The word.
    pub fn as_str(self) -> &'static str {
        Self::ALL.iter().find(|(_, state)| *state == self).map_or("", |(word, _)| word)
    }
}

impl Entry {
    fn state(&self, now: Timestamp) -> ApprovalState {
        let yes = self.answers.values().filter(|answer| answer.approve).count();
        if self.used.is_some() {
            ApprovalState::Used
        } else if self.answers.values().any(|answer| !answer.approve) {
            ApprovalState::Denied
        } else if now >= self.ends_at {
            ApprovalState::Expired
        } else if yes >= usize::try_from(self.question.need).unwrap_or(usize::MAX) {
            ApprovalState::Approved
        } else {
            ApprovalState::Pending
        }
    }

    /// Whether it waits for answers, its end left aside.
    fn waits(&self) -> bool {
        self.used.is_none() && self.state(Timestamp::from_micros(i64::MIN)) == ApprovalState::Pending
    }

    fn approvers(&self) -> BTreeSet<Arc<str>> {
        self.answers.values().filter(|answer| answer.approve).map(|answer| Arc::from(&*answer.by)).collect()
    }

    /// Until when it answers for its call, however it ended: so long a call that was denied, or that nobody answered for, is
    /// not asked about again.
    fn stands_until(&self) -> Timestamp {
        let question = &self.question;
        self.ends_at.plus(question.expires_at.since(question.asked_at))
    }

    /// Whether the clock was set back since it was asked. Then it keeps nobody from asking again.
    fn is_cut(&self) -> bool {
        self.ends_at < self.question.expires_at
    }
}

/// What is known of a call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Known {
    /// Nothing: it may be asked about.
    Nothing,
    /// A question about exactly this call.
    Asked {
        /// The question.
        question: Arc<Question>,
        /// How it stands.
        state: ApprovalState,
        /// Who said yes.
        approved_by: BTreeSet<Arc<str>>,
    },
    /// The approval that was named belongs to another call, or is none.
    Mismatch,
}

/// Proof that a yes was claimed for this decision and no other. Only this room makes one.
#[derive(Debug)]
pub struct Claimed(ApprovalId);

impl Claimed {
    /// Which approval.
    pub fn id(&self) -> &ApprovalId {
        &self.0
    }
}

/// What became of asking.
#[derive(Debug, PartialEq, Eq)]
pub enum Asked {
    /// The question is new: to be kept before the answer leaves.
    New(Arc<Question>),
    /// Another decision has just asked the same.
    Known(Arc<Question>),
    /// Too many of this requester's are open, or too many in all.
    TooMany,
}

impl Approvals {
    /// Takes a change in; false if it is none of ours. Idempotent.
    pub fn apply(&self, change: &Change) -> bool {
        let mut image = lock(&self.0);
        match change {
            Change::ApprovalAsked(question) => ask(&mut image, &Arc::new(Question::clone(question))),
            Change::ApprovalAnswered(answer) => image.move_on(&answer.id, |entry| {
                let known = entry.answers.entry(answer.by.clone()).or_insert_with(|| answer.clone());
                if known.approve && !answer.approve {
                    *known = answer.clone(); // a yes can be taken back, a no can't
                }
            }),
            Change::ApprovalUsed(used) => image.move_on(&used.id, |entry| entry.used.clone_from(&used.decision)),
            _ => return false,
        }
        true
    }

    /// What is known of a call: by the id that it names, else by what it is. What is too old stands no more.
    pub fn find(&self, binding: &Fingerprint, named: Option<&str>, now: Timestamp) -> Known {
        let image = lock(&self.0);
        let found = if let Some(named) = named {
            let entry = ApprovalId::parse(named).and_then(|id| image.all.get(&id));
            let Some(entry) = entry.filter(|entry| entry.question.binding == *binding) else { return Known::Mismatch };
            Some(entry)
        } else {
            let latest = image.latest.get(binding).and_then(|id| image.all.get(id));
            latest.filter(|entry| entry.used.is_none() && !entry.is_cut() && now < entry.stands_until())
        };
        let Some(entry) = found else { return Known::Nothing };
        Known::Asked { question: Arc::clone(&entry.question), state: entry.state(now), approved_by: entry.approvers() }
    }

    /// Ends all that is held, since the clock was set back; until when the last of it would have stood.
    pub fn cut(&self, at: Timestamp) -> Option<Timestamp> {
        let mut image = lock(&self.0);
        let until = image.all.values().map(Entry::stands_until).max();
        let Image { all, orders, .. } = &mut *image;
        *orders = Orders::default();
        for entry in all.values_mut() {
            entry.ends_at = entry.ends_at.min(at);
            orders.place(entry);
        }
        until
    }

    /// Asks, at once and in memory. Two decisions that ask the same at once get one question.
    pub fn ask(&self, question: Question, max_open: usize, now: Timestamp) -> Asked {
        let mut image = lock(&self.0);
        let known = image.latest.get(&question.binding).and_then(|id| image.all.get(id));
        if let Some(entry) = known.filter(|entry| entry.state(now) == ApprovalState::Pending) {
            return Asked::Known(Arc::clone(&entry.question));
        }
        if image.all.len() >= limits::MAX_APPROVALS || image.orders.has_open(&question.requester, max_open, now) {
            return Asked::TooMany;
        }
        let question = Arc::new(question);
        ask(&mut image, &question);
        Asked::New(question)
    }

    /// Takes a question back that could not be kept.
    pub fn unask(&self, id: &ApprovalId) {
        let mut image = lock(&self.0);
        let Some(entry) = image.all.remove(id) else { return };
        image.orders.displace(&entry);
        if image.latest.get(&entry.question.binding) == Some(id) {
            image.latest.remove(&entry.question.binding);
        }
    }

    /// Claims a yes for one decision.
    ///
    /// INVARIANT: single use. Whoever comes second finds it used, and a claim that came to nothing must be given back.
    pub fn claim(&self, id: &ApprovalId, decision: &str, now: Timestamp) -> Option<Claimed> {
        let mut image = lock(&self.0);
        let entry = image.all.get_mut(id).filter(|entry| entry.state(now) == ApprovalState::Approved)?;
        entry.used = Some(decision.into());
        Some(Claimed(id.clone()))
    }

    /// Gives a claim back that was never kept.
    pub fn unclaim(&self, id: &ApprovalId, decision: &str) {
        let mut image = lock(&self.0);
        if let Some(entry) = image.all.get_mut(id).filter(|entry| entry.used.as_deref() == Some(decision)) {
            entry.used = None;
        }
    }

    /// The question, if it can still be answered by this approver. Four eyes: `people` are those of the requester's chain.
    pub fn answerable(
        &self,
        id: &str,
        by: &SpiffeId,
        people: &dyn Fn(&Question) -> Vec<SpiffeId>,
        approve: bool,
        now: Timestamp,
    ) -> Result<Arc<Question>, Error> {
        let image = lock(&self.0);
        let entry = ApprovalId::parse(id).and_then(|id| image.all.get(&id)).ok_or_else(unknown)?;
        let question = &entry.question;
        let state = entry.state(now);
        // A yes that no call has used yet can be taken back by a no.
        if state != ApprovalState::Pending && (approve || state != ApprovalState::Approved) {
            return Err(Error::refused(Refusal::ApprovalEnded, format!("the question is {}", state.as_str())));
        }
        if approve && entry.answers.contains_key(by.as_str()) {
            return Err(Error::refused(Refusal::AlreadyGiven, "you have said yes before"));
        }
        // INVARIANT: nobody approves what they asked for, act for, or stand in the chain of.
        let is_own = question.requester == *by
            || question.actor.as_deref() == Some(by.as_str())
            || people(question).contains(by);
        if approve && is_own {
            return Err(Error::refused(Refusal::OwnApproval, "an approver is not who asks, nor anyone of its chain"));
        }
        Ok(Arc::clone(question))
    }

    /// A question by its id.
    pub fn question(&self, id: &str) -> Result<Arc<Question>, Error> {
        let image = lock(&self.0);
        let entry = ApprovalId::parse(id).and_then(|id| image.all.get(&id)).ok_or_else(unknown)?;
        Ok(Arc::clone(&entry.question))
    }

    /// How a question stands, and who said yes.
    pub fn standing(&self, id: &ApprovalId, now: Timestamp) -> Option<(ApprovalState, BTreeSet<Arc<str>>)> {
        lock(&self.0).all.get(id).map(|entry| (entry.state(now), entry.approvers()))
    }

    /// Questions held.
    pub fn count(&self) -> usize {
        lock(&self.0).all.len()
    }

    /// Keys of kept changes that count no more, at most so many. A used approval is remembered for as long as any question:
    /// without its use its question goes, too.
    pub fn expired(&self, most: usize, now: Timestamp) -> Vec<String> {
        let image = lock(&self.0);
        let mut keys = Vec::new();
        for (id, entry) in image.orders.past(now).filter_map(|id| image.all.get_key_value(id)) {
            keys.push(format!("approval {id}"));
            keys.extend(entry.answers.keys().map(|by| format!("approval_answer {id} {by}")));
            keys.push(format!("approval_used {id}"));
            if keys.len() >= most {
                break;
            }
        }
        keys
    }

    /// Lets go of what these keys name, once they are gone from where they were kept.
    pub fn forget(&self, keys: &[String]) {
        for key in keys {
            if let Some(id) = key.strip_prefix("approval ").and_then(ApprovalId::parse) {
                self.unask(&id);
            }
        }
    }
}

fn unknown() -> Error {
    Error::refused(Refusal::ApprovalUnknown, "no approval has this id")
}

fn ask(image: &mut Image, question: &Arc<Question>) {
    if image.all.contains_key(&question.id) {
        return;
    }
    image.latest.insert(question.binding, question.id.clone());
    let entry =
        Entry { question: Arc::clone(question), answers: BTreeMap::new(), ends_at: question.expires_at, used: None };
    image.orders.place(&entry);
    image.all.insert(question.id.clone(), entry);
}

/// Whether the policies that a yes was given for still decide: each of them, in the text that it had, and no further one
/// demands an approval.
pub fn still_decide(question: &Question, deciding: &[PolicyText], demanding: &[PolicyText]) -> bool {
    question.policies.iter().all(|policy| deciding.contains(policy) || demanding.contains(policy))
        && demanding.iter().all(|policy| question.policies.contains(policy))
}

/// The change that makes a claim, or its return, durable.
pub fn used(id: &ApprovalId, decision: Option<&str>, at: Timestamp) -> Change {
    Change::ApprovalUsed(ApprovalUsed { id: id.clone(), decision: decision.map(Into::into), at })
}
