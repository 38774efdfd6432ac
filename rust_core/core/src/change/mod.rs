//! What a running core learns beside its configuration: one ordered stream of small, versioned changes.
//! Persistence is that stream written down; a restart is it read back.

mod approvals;
mod identity;
mod overrides;
mod tasks;
mod time;

pub use approvals::ApprovalUsed;
pub use identity::{read_proof, revocation};
pub use tasks::{StandingLost, TaskEnded, TreeTouched, WorkflowMoved};

use crate::error::Error;
use crate::model::names::{EVERYONE, SubjectKind};
use crate::model::{
    Answer, FeedName, Origin, Overridden, Proof, Question, Revoked, SignalName, SignalType, Subject, Task, Timestamp,
    Value,
};
use serde::{Deserialize, Serialize};
use serde_json::Value as Json;

/// Version of the written form. A reader refuses what it does not know: half-understood state is worse than none.
pub const VERSION: u32 = 1;

/// One step of what the core knows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// A value was accepted.
    SignalPublished(Published),
    /// An origin, or one of its signals, was switched on or off.
    PublisherSwitched(PublisherSwitched),
    /// Something was learnt about a stream of events.
    StreamMoved(StreamMoved),
    /// A token was validated. Not kept: after a restart it is validated again.
    ProofAdmitted(Box<Proof>),
    /// The state of an authority, whole. Not kept: who brings it brings it again.
    AuthorityMoved(AuthorityMoved),
    /// Something does not count any more.
    Revoked(Revoked),
    /// A task began, and its grant was issued.
    TaskBegun(Box<Task>),
    /// A task ended before its time.
    TaskEnded(TaskEnded),
    /// A task, or one below it, touched a system or a sensitivity for the first time.
    TreeTouched(TreeTouched),
    /// A workflow was approved or ended.
    WorkflowMoved(WorkflowMoved),
    /// What a principal was given up to a time counts no more.
    StandingLost(StandingLost),
    /// Somebody is asked about one exact call.
    ApprovalAsked(Box<Question>),
    /// Somebody answered.
    ApprovalAnswered(Answer),
    /// A yes was used for its call, or given back unused.
    ApprovalUsed(ApprovalUsed),
    /// Two people's word in place of a signal.
    SignalOverridden(Box<Overridden>),
    /// Time was seen to be at least this: ages and expiries never run backwards, restarts included.
    TimeMark {
        /// The high-water mark.
        at: Timestamp,
    },
    /// Time ran back by more than a step: whatever was given out before, and ends by time, has ended.
    TimeSetBack {
        /// The latest time that ever counted.
        from: Timestamp,
        /// The high-water mark then: it has reached this.
        at: Timestamp,
    },
}

/// A named set of members that proofs rest on: the keys of an issuer, a trust domain's bundle, a status list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuthorityMoved {
    /// `keys:<issuer>`, `jwt:<trust domain>`, `trust:<trust domain>`, `status:<address>`.
    pub name: String,
    /// All of its members; none: it is withdrawn.
    pub members: Vec<String>,
}

/// An origin, or one of its signals, switched on or off.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PublisherSwitched {
    /// Who.
    pub origin: Origin,
    /// One signal; all of them without.
    pub signal: Option<SignalName>,
    /// On or off.
    pub enabled: bool,
    /// When. Values observed before it was switched on do not count.
    pub at: Timestamp,
}

/// What was learnt about a stream of events.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StreamMoved {
    /// The feed.
    pub feed: FeedName,
    /// What.
    pub event: StreamEvent,
    /// When, by the transmitter's clock where it said so.
    pub at: Timestamp,
    /// Why, for people.
    pub detail: String,
}

/// What can be learnt about a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StreamEvent {
    /// Its transmitter was heard.
    Verified,
    /// Something was or may have been missed.
    Suspended,
    /// Somebody vouches that nothing is missing any more.
    Resynchronised,
}

impl StreamEvent {
    /// Every event, with the word of its written form.
    pub const ALL: &'static [(&'static str, Self)] =
        &[("verified", Self::Verified), ("suspended", Self::Suspended), ("resynchronised", Self::Resynchronised)];

    /// Reads the word.
    pub fn parse(word: &str) -> Option<Self> {
        Self::ALL.iter().find(|(known, _)| *known == word).map(|(_, event)| *event)
    }

    /// The word of the written form.
    pub fn as_str(self) -> &'static str {
        Self::ALL.iter().find(|(_, v)| *v == self).map_or("", |(word, _)| word)
    }
}

/// A value, judged and accepted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Published {
    /// Name of the signal.
    pub name: SignalName,
    /// Whom it is about.
    pub subject: Subject,
    /// Who said so.
    pub origin: Origin,
    /// What was said.
    pub value: Value,
    /// When it was so, says the publisher.
    pub observed_at: Timestamp,
    /// When we took it.
    pub received_at: Timestamp,
    /// True if it contradicts a value of the same instant: it adds to that change instead of replacing it.
    pub disputes: bool,
}

impl Change {
    /// Changes of one key supersede one another. No part but the last can hold a space.
    pub fn key(&self) -> String {
        match self {
            Self::SignalPublished(p) => {
                format!("signal {} {} {} {}", p.name, p.subject.kind.as_str(), p.origin, p.subject.id)
            }
            Self::PublisherSwitched(s) => {
                format!("publisher {} {}", s.origin, s.signal.as_ref().map_or(EVERYONE, SignalName::as_str))
            }
            // Being heard and being in sync are two things: the newest word on each is kept.
            Self::StreamMoved(m) if m.event == StreamEvent::Verified => format!("stream_verified {}", m.feed),
            Self::StreamMoved(m) => format!("stream_sync {}", m.feed),
            Self::ProofAdmitted(proof) => format!("proof {:?}", proof.digest),
            Self::AuthorityMoved(moved) => format!("authority {}", moved.name),
            Self::Revoked(revoked) => key_of(revoked),
            Self::TaskBegun(task) => format!("task {}", task.id),
            Self::TaskEnded(ended) => format!("task_end {}", ended.id),
            Self::TreeTouched(touched) => format!("touched {}", touched.root),
            Self::WorkflowMoved(moved) => format!("workflow {}", moved.id),
            Self::StandingLost(lost) => format!("standing {}", lost.principal.as_str()),
            Self::ApprovalAsked(question) => format!("approval {}", question.id),
            Self::ApprovalAnswered(answer) => format!("approval_answer {} {}", answer.id, answer.by),
            Self::ApprovalUsed(used) => format!("approval_used {}", used.id),
            Self::SignalOverridden(word) => word.key(),
            Self::TimeMark { .. } => "time".to_owned(),
            Self::TimeSetBack { from, .. } => time::key(*from),
        }
    }

    /// Whether earlier changes of this key need not be kept.
    pub fn replaces(&self) -> bool {
        match self {
            Self::SignalPublished(published) => !published.disputes,
            Self::PublisherSwitched(_)
            | Self::StreamMoved(_)
            | Self::ProofAdmitted(_)
            | Self::AuthorityMoved(_)
            | Self::Revoked(_)
            | Self::TaskBegun(_)
            | Self::TaskEnded(_)
            | Self::TreeTouched(_)
            | Self::WorkflowMoved(_)
            | Self::StandingLost(_)
            | Self::ApprovalAsked(_)
            | Self::ApprovalAnswered(_)
            | Self::ApprovalUsed(_)
            | Self::SignalOverridden(_)
            | Self::TimeMark { .. }
            | Self::TimeSetBack { .. } => true,
        }
    }

    /// The written form: one JSON object, without a newline.
    pub fn to_payload(&self) -> Vec<u8> {
        let written = match self {
            Self::SignalPublished(published) => serde_json::to_vec(&WrittenPublication::from(published)),
            Self::PublisherSwitched(switched) => serde_json::to_vec(&WrittenSwitch {
                v: VERSION,
                change: Kind::PublisherSwitched,
                publisher: switched.origin.to_string(),
                signal: switched.signal.as_ref().map(ToString::to_string),
                enabled: switched.enabled,
                at_us: switched.at.as_micros(),
            }),
            Self::StreamMoved(moved) => serde_json::to_vec(&WrittenMove {
                v: VERSION,
                change: Kind::StreamMoved,
                feed: moved.feed.to_string(),
                event: moved.event.as_str().to_owned(),
                at_us: moved.at.as_micros(),
                detail: moved.detail.clone(),
            }),
            Self::ProofAdmitted(proof) => serde_json::to_vec(&identity::WrittenProof::from(&**proof)),
            Self::AuthorityMoved(moved) => serde_json::to_vec(&identity::WrittenAuthority {
                v: VERSION,
                change: Kind::AuthorityMoved,
                authority: moved.name.clone(),
                members: moved.members.clone(),
            }),
            Self::Revoked(revoked) => serde_json::to_vec(&identity::WrittenRevocation::from(revoked)),
            Self::TaskBegun(task) => serde_json::to_vec(&tasks::WrittenTask::from(&**task)),
            Self::TaskEnded(ended) => serde_json::to_vec(&tasks::WrittenEnd::from(ended)),
            Self::TreeTouched(touched) => serde_json::to_vec(&tasks::WrittenTouch::from(touched)),
            Self::WorkflowMoved(moved) => serde_json::to_vec(&tasks::WrittenWorkflow::from(moved)),
            Self::StandingLost(lost) => serde_json::to_vec(&tasks::WrittenLoss::from(lost)),
            Self::ApprovalAsked(question) => serde_json::to_vec(&approvals::WrittenQuestion::from(&**question)),
            Self::ApprovalAnswered(answer) => serde_json::to_vec(&approvals::WrittenAnswer::from(answer)),
            Self::ApprovalUsed(used) => serde_json::to_vec(&approvals::WrittenUse::from(used)),
            Self::SignalOverridden(word) => serde_json::to_vec(&overrides::WrittenOverride::from(&**word)),
            Self::TimeMark { at } => serde_json::to_vec(&time::WrittenMark::new(*at)),
            Self::TimeSetBack { from, at } => serde_json::to_vec(&time::WrittenSetBack::new(*from, *at)),
        };
        // Text, numbers and lists of text: serialising them into memory has no way to fail.
        written.unwrap_or_default()
    }

    /// Reads the written form back.
    pub fn from_payload(payload: &[u8]) -> Result<Self, Error> {
        let head: Head = serde_json::from_slice(payload)
            .map_err(|e| Error::BadInput(format!("a kept change is not a JSON object with `v` and `change`: {e}")))?;
        if head.v != VERSION {
            return Err(Error::BadInput(format!(
                "a kept change has version {}, this build reads version {VERSION}: it was written by another release",
                head.v
            )));
        }
        match head.change.as_str() {
            "signal_published" => read::<WrittenPublication>(payload, &head.change)?.into_change(),
            "publisher_switched" => read::<WrittenSwitch>(payload, &head.change)?.into_change(),
            "stream_moved" => read::<WrittenMove>(payload, &head.change)?.into_change(),
            "proof_admitted" => Ok(Self::ProofAdmitted(Box::new(read_proof(payload)?))),
            "authority_moved" => {
                let written = read::<identity::WrittenAuthority>(payload, &head.change)?;
                Ok(Self::AuthorityMoved(AuthorityMoved { name: written.authority, members: written.members }))
            }
            "revoked" => read::<identity::WrittenRevocation>(payload, &head.change)?.into_change(),
            "task_begun" => read::<tasks::WrittenTask>(payload, &head.change)?.into_change(),
            "task_ended" => read::<tasks::WrittenEnd>(payload, &head.change)?.into_change(),
            "tree_touched" => read::<tasks::WrittenTouch>(payload, &head.change)?.into_change(),
            "workflow_moved" => read::<tasks::WrittenWorkflow>(payload, &head.change)?.into_change(),
            "standing_lost" => read::<tasks::WrittenLoss>(payload, &head.change)?.into_change(),
            "approval_asked" => read::<approvals::WrittenQuestion>(payload, &head.change)?.into_change(),
            "approval_answered" => read::<approvals::WrittenAnswer>(payload, &head.change)?.into_change(),
            "approval_used" => read::<approvals::WrittenUse>(payload, &head.change)?.into_change(),
            "signal_overridden" => read::<overrides::WrittenOverride>(payload, &head.change)?.into_change(),
            "time_mark" => Ok(read::<time::WrittenMark>(payload, &head.change)?.into_change()),
            "time_set_back" => Ok(read::<time::WrittenSetBack>(payload, &head.change)?.into_change()),
            other => {
                Err(Error::BadInput(format!("a kept change is of a kind that this build does not know: `{other}`")))
            }
        }
    }
}

/// A later time of the same scope takes the place of an earlier one; `IssuedBefore` never moves back (see `apply`).
fn key_of(revoked: &Revoked) -> String {
    match revoked {
        Revoked::Digest(digest) => format!("revoked_digest {digest:?}"),
        Revoked::TokenId { id, issuer } => format!("revoked_id {issuer:?} {id:?}"),
        Revoked::IssuedBefore { subject, issuer, .. } => format!("revoked_before {issuer:?} {subject:?}"),
    }
}

/// What must be readable in every version.
#[derive(Deserialize)]
struct Head {
    v: u32,
    change: String,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Kind {
    SignalPublished,
    PublisherSwitched,
    StreamMoved,
    ProofAdmitted,
    AuthorityMoved,
    Revoked,
    TaskBegun,
    TaskEnded,
    TreeTouched,
    WorkflowMoved,
    StandingLost,
    ApprovalAsked,
    ApprovalAnswered,
    ApprovalUsed,
    SignalOverridden,
    TimeMark,
    TimeSetBack,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenSwitch {
    v: u32,
    change: Kind,
    publisher: String,
    signal: Option<String>,
    enabled: bool,
    at_us: i64,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenMove {
    v: u32,
    change: Kind,
    feed: String,
    event: String,
    at_us: i64,
    detail: String,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenPublication {
    v: u32,
    change: Kind,
    name: String,
    subject_kind: String,
    subject: String,
    publisher: String,
    /// Beside the value, since `"1.25"` may be a string or a decimal, and the contract may have changed since.
    #[serde(rename = "type")]
    kind: String,
    value: Json,
    observed_at_us: i64,
    received_at_us: i64,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    disputes: bool,
}

impl From<&Published> for WrittenPublication {
    fn from(published: &Published) -> Self {
        Self {
            v: VERSION,
            change: Kind::SignalPublished,
            name: published.name.to_string(),
            subject_kind: published.subject.kind.as_str().to_owned(),
            subject: published.subject.id.to_string(),
            publisher: published.origin.to_string(),
            kind: published.value.type_word().to_owned(),
            value: published.value.to_json(),
            observed_at_us: published.observed_at.as_micros(),
            received_at_us: published.received_at.as_micros(),
            disputes: published.disputes,
        }
    }
}

fn bad(part: &str, text: &str) -> Error {
    Error::BadInput(format!("a kept change has a {part} that can't be read: `{text}`"))
}

/// The subject of a kept change; `*`: everyone of its kind.
fn whose(kind: &str, subject: &str) -> Result<Subject, Error> {
    let found = SubjectKind::ALL.iter().find(|(word, _)| *word == kind).map(|(_, kind)| *kind);
    let kind = found.ok_or_else(|| bad("subject kind", kind))?;
    let everyone = if subject == EVERYONE { Subject::everyone(kind) } else { None };
    everyone.or_else(|| Subject::parse(kind, subject)).ok_or_else(|| bad("subject", subject))
}

impl WrittenSwitch {
    fn into_change(self) -> Result<Change, Error> {
        let signal = self.signal.map(|name| SignalName::parse(&name).ok_or_else(|| bad("signal name", &name)));
        Ok(Change::PublisherSwitched(PublisherSwitched {
            origin: Origin::parse(&self.publisher).map_err(|_| bad("publisher", &self.publisher))?,
            signal: signal.transpose()?,
            enabled: self.enabled,
            at: Timestamp::from_micros(self.at_us),
        }))
    }
}

impl WrittenMove {
    fn into_change(self) -> Result<Change, Error> {
        Ok(Change::StreamMoved(StreamMoved {
            feed: FeedName::parse(&self.feed).ok_or_else(|| bad("feed", &self.feed))?,
            event: StreamEvent::parse(&self.event).ok_or_else(|| bad("event", &self.event))?,
            at: Timestamp::from_micros(self.at_us),
            detail: self.detail,
        }))
    }
}

impl WrittenPublication {
    fn into_change(self) -> Result<Change, Error> {
        let name = SignalName::parse(&self.name).ok_or_else(|| bad("signal name", &self.name))?;
        let origin = Origin::parse(&self.publisher).map_err(|_| bad("publisher", &self.publisher))?;
        let subject = whose(&self.subject_kind, &self.subject)?;
        let value = SignalType::parse(&self.kind)
            .ok()
            .and_then(|kind| kind.read_json(&self.value))
            .ok_or_else(|| bad("value", &format!("{}: {}", self.kind, self.value)))?;
        Ok(Change::SignalPublished(Published {
            name,
            subject,
            origin,
            value,
            observed_at: Timestamp::from_micros(self.observed_at_us),
            received_at: Timestamp::from_micros(self.received_at_us),
            disputes: self.disputes,
        }))
    }
}

fn read<'a, T: Deserialize<'a>>(payload: &'a [u8], kind: &str) -> Result<T, Error> {
    serde_json::from_slice(payload).map_err(|e| Error::BadInput(format!("a kept change `{kind}` can't be read: {e}")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn published() -> Published {
        Published {
            name: SignalName::parse("posture").unwrap(),
            subject: Subject::parse(SubjectKind::Resource, "Account::\"4 2\"").unwrap(),
            origin: Origin::parse("spiffe://prod.example/mdm").unwrap(),
            value: SignalType::Decimal.read_text("1.25").unwrap(),
            observed_at: Timestamp::from_micros(1_000),
            received_at: Timestamp::from_micros(2_000),
            disputes: false,
        }
    }

    fn switched(signal: Option<SignalName>) -> Change {
        let origin = Origin::parse("spiffe://prod.example/mdm").unwrap();
        Change::PublisherSwitched(PublisherSwitched { origin, signal, enabled: false, at: Timestamp::from_micros(7) })
    }

    fn moved(event: StreamEvent) -> Change {
        let feed = FeedName::parse("idp").unwrap();
        Change::StreamMoved(StreamMoved { feed, event, at: Timestamp::from_micros(7), detail: "why".to_owned() })
    }

    #[test]
    fn what_is_heard_of_a_stream_does_not_replace_whether_it_is_in_sync() {
        assert_ne!(moved(StreamEvent::Verified).key(), moved(StreamEvent::Suspended).key());
        assert_eq!(moved(StreamEvent::Resynchronised).key(), moved(StreamEvent::Suspended).key());
    }

    #[test]
    fn a_change_survives_its_written_form() {
        let changes = [
            Change::SignalPublished(published()),
            Change::SignalPublished(Published { disputes: true, ..published() }),
            Change::SignalPublished(Published {
                subject: Subject::everyone(SubjectKind::Device).unwrap(),
                origin: Origin::parse("ssf:idp").unwrap(),
                ..published()
            }),
            switched(None),
            switched(SignalName::parse("posture")),
            moved(StreamEvent::Verified),
            moved(StreamEvent::Suspended),
            moved(StreamEvent::Resynchronised),
            Change::TimeMark { at: Timestamp::from_micros(i64::MAX) },
            Change::TimeSetBack { from: Timestamp::from_micros(9), at: Timestamp::from_micros(7) },
        ];
        for change in changes {
            assert_eq!(Change::from_payload(&change.to_payload()).unwrap(), change);
        }
    }

    #[test]
    fn the_written_form_is_the_documented_one() {
        let written: Json = serde_json::from_slice(&Change::SignalPublished(published()).to_payload()).unwrap();
        let expected = json!({
            "v": 1, "change": "signal_published", "name": "posture", "subject_kind": "resource",
            "subject": "Account::\"4 2\"", "publisher": "spiffe://prod.example/mdm", "type": "decimal", "value": "1.25",
            "observed_at_us": 1_000, "received_at_us": 2_000,
        });
        assert_eq!(written, expected);
    }

    #[test]
    fn values_of_one_publisher_and_subject_share_a_key_and_others_do_not() {
        let key = |p: Published| Change::SignalPublished(p).key();
        assert_eq!(key(published()), key(Published { disputes: true, value: Value::Bool(true), ..published() }));
        let other = Origin::parse("spiffe://prod.example/other").unwrap();
        assert_ne!(key(published()), key(Published { origin: other, ..published() }));
    }

    #[test]
    fn what_another_release_wrote_is_refused_in_one_sentence() {
        for (payload, part) in [
            (r#"{"v":2,"change":"time_mark","at_us":1}"#, "version 2"),
            (r#"{"v":1,"change":"task_begun"}"#, "`task_begun`"),
            (r#"{"v":1,"change":"time_mark","at_us":1,"more":2}"#, "more"),
            (r#"{"v":1,"change":"time_mark"}"#, "at_us"),
            ("[]", "`change`"),
            ("", "`change`"),
        ] {
            let sentence = Change::from_payload(payload.as_bytes()).unwrap_err().to_string();
            assert!(sentence.contains(part), "{sentence}");
        }
    }
}
