//! What is known of identities beside the configuration: proofs of tokens by their digest, what they rest on, and what is
//! revoked. Changed by `apply` alone; read by every decision.

use crate::change::{AuthorityMoved, Change};
use crate::limits;
use crate::locks::{read, write};
use crate::model::{Fingerprint, Proof, Revoked, SpiffeId, Support, Task, Timestamp};
use foldhash::quality::FixedState;
use hashbrown::{HashMap, HashSet};
use serde_json::{Value as Json, json};
use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Arc, RwLock},
};

/// Proofs, authorities and revocations of a running core.
pub struct Proofs {
    known: RwLock<Known>,
    authorities: RwLock<BTreeMap<Box<str>, Members>>,
    revoked: RwLock<Revocations>,
    hasher: FixedState,
}

/// The members of an authority.
type Members = HashSet<Box<str>, FixedState>;

/// By digest, and in the order in which they came.
struct Known {
    proofs: HashMap<Fingerprint, Arc<Proof>, FixedState>,
    order: VecDeque<Fingerprint>,
}

/// A subject and an issuer; `None` is any.
type Scope = (Option<Box<str>>, Option<Box<str>>);

#[derive(Default)]
struct Revocations {
    digests: std::collections::BTreeSet<Fingerprint>,
    ids: std::collections::BTreeSet<(Box<str>, Option<Box<str>>)>,
    before: BTreeMap<Scope, Timestamp>,
}

impl Revocations {
    fn len(&self) -> usize {
        self.digests.len() + self.ids.len() + self.before.len()
    }
}

/// A credential as revocations name it.
pub(super) struct Credential<'a> {
    pub(super) digest: Option<Fingerprint>,
    pub(super) token_id: Option<&'a str>,
    /// Every name of whoever holds it.
    pub(super) subjects: [Option<&'a str>; 2],
    pub(super) issuer: &'a str,
    pub(super) issued_at: Option<Timestamp>,
}

impl<'a> Credential<'a> {
    /// A certificate, of which less may be known than it says.
    pub(super) fn of_certificate(
        subject: &'a SpiffeId,
        digest: Option<Fingerprint>,
        issued_at: Option<Timestamp>,
    ) -> Self {
        let (subjects, issuer) = ([Some(subject.as_str()), None], subject.trust_domain());
        Self { digest, token_id: None, subjects, issuer, issued_at }
    }
}

impl Proofs {
    /// Empty. `seed`: random bits from outside.
    pub fn new(seed: u64) -> Self {
        let hasher = FixedState::with_seed(seed);
        Self {
            known: RwLock::new(Known { proofs: HashMap::with_hasher(hasher.clone()), order: VecDeque::new() }),
            authorities: RwLock::default(),
            revoked: RwLock::default(),
            hasher,
        }
    }

    /// Takes a change in; false if it is none of ours.
    pub fn apply(&self, change: Change) -> bool {
        match change {
            Change::ProofAdmitted(proof) => self.admit(*proof),
            Change::AuthorityMoved(moved) => {
                self.set_authority(&moved);
            }
            Change::Revoked(revoked) => self.revoke(revoked),
            _ => return false,
        }
        true
    }

    fn admit(&self, proof: Proof) {
        let digest = proof.digest;
        let mut known = write(&self.known);
        if known.proofs.insert(digest, Arc::new(proof)).is_none() {
            known.order.push_back(digest);
        }
        while known.order.len() > limits::MAX_PROOFS {
            if let Some(oldest) = known.order.pop_front() {
                known.proofs.remove(&oldest);
            }
        }
    }

    /// The proof of a token that was seen before.
    pub(super) fn find(&self, digest: &Fingerprint) -> Option<Arc<Proof>> {
        read(&self.known).proofs.get(digest).cloned()
    }

    /// Proofs held.
    pub fn count(&self) -> usize {
        read(&self.known).proofs.len()
    }

    /// Puts the state of an authority in place, whole; true if that changes anything.
    pub fn set_authority(&self, moved: &AuthorityMoved) -> bool {
        let mut members = HashSet::with_hasher(self.hasher.clone());
        members.extend(moved.members.iter().take(limits::MAX_AUTHORITY_MEMBERS).map(|member| Box::from(&**member)));
        let mut authorities = write(&self.authorities);
        if members.is_empty() {
            return authorities.remove(&*moved.name).is_some();
        }
        if authorities.get(&*moved.name) == Some(&members) {
            return false;
        }
        if !authorities.contains_key(&*moved.name) && authorities.len() >= limits::MAX_AUTHORITIES {
            return false;
        }
        authorities.insert(moved.name.as_str().into(), members);
        true
    }

    /// Whether an authority has a member.
    pub(super) fn holds(&self, authority: &str, member: &str) -> bool {
        read(&self.authorities).get(authority).is_some_and(|members| members.contains(member))
    }

    pub(super) fn hold_all(&self, supports: &[Support]) -> bool {
        let authorities = read(&self.authorities);
        let held = |support: &Support| {
            authorities.get(&*support.authority).is_some_and(|members| members.contains(&*support.member))
        };
        !supports.is_empty() && supports.iter().all(held)
    }

    fn revoke(&self, revoked: Revoked) {
        let mut all = write(&self.revoked);
        match revoked {
            Revoked::Digest(digest) => {
                all.digests.insert(digest);
            }
            Revoked::TokenId { id, issuer } => {
                all.ids.insert((id, issuer));
            }
            Revoked::IssuedBefore { subject, issuer, at } => {
                let mark = all.before.entry((subject, issuer)).or_insert(at);
                *mark = at.max(*mark);
            }
        }
    }

    /// Whether a certificate is revoked.
    pub fn is_certificate_revoked(&self, subject: &SpiffeId, digest: Fingerprint, issued_at: Timestamp) -> bool {
        self.is_revoked(&Credential::of_certificate(subject, Some(digest), Some(issued_at)))
    }

    /// Whether a grant of ours is revoked: by its digest, by its task's id, or with all that its principal was given.
    pub fn is_grant_revoked(&self, task: &Task) -> bool {
        self.is_revoked(&Credential {
            digest: Some(task.grant),
            token_id: Some(task.id.as_str()),
            subjects: [Some(task.principal.as_str()), None],
            issuer: task.principal.trust_domain(),
            issued_at: Some(task.begun_at),
        })
    }

    /// Whether there is room for one more.
    pub fn may_revoke(&self) -> bool {
        read(&self.revoked).len() < limits::MAX_REVOCATIONS
    }

    /// The later of this revocation and what is in force for the same scope.
    pub fn never_earlier(&self, revoked: Revoked) -> Revoked {
        match revoked {
            Revoked::IssuedBefore { subject, issuer, at } => {
                let key = (subject, issuer);
                let at = read(&self.revoked).before.get(&key).map_or(at, |mark| at.max(*mark));
                Revoked::IssuedBefore { subject: key.0, issuer: key.1, at }
            }
            other => other,
        }
    }

    /// INVARIANT: what can't be said to be issued later is revoked.
    pub(super) fn is_revoked(&self, credential: &Credential<'_>) -> bool {
        let all = read(&self.revoked);
        if all.len() == 0 {
            return false;
        }
        if credential.digest.is_some_and(|digest| all.digests.contains(&digest)) {
            return true;
        }
        if let Some(id) = credential.token_id
            && (all.ids.contains(&(id.into(), None)) || all.ids.contains(&(id.into(), Some(credential.issuer.into()))))
        {
            return true;
        }
        let [first, second] = credential.subjects;
        let subjects = [None, first, second.filter(|name| Some(*name) != first)];
        let wanted = subjects.iter().enumerate().filter(|(at, name)| *at == 0 || name.is_some());
        wanted.flat_map(|(_, subject)| [(*subject, None), (*subject, Some(credential.issuer))]).any(
            |(subject, issuer)| {
                let mark = all.before.get(&(subject.map(Box::from), issuer.map(Box::from)));
                mark.is_some_and(|mark| credential.issued_at.is_none_or(|issued| issued <= *mark))
            },
        )
    }

    /// What is revoked, newest kinds last, at most so many of it.
    pub fn revocations(&self, most: usize) -> Json {
        let all = read(&self.revoked);
        let digests = all.digests.iter().map(|digest| json!({"digest": digest.to_hex()}));
        let ids = all.ids.iter().map(|(id, issuer)| match issuer {
            Some(issuer) => json!({"jti": id, "issuer": issuer}),
            None => json!({"jti": id}),
        });
        let before = all.before.iter().map(|((subject, issuer), at)| {
            let mut entry = json!({"issued_before": at.to_rfc3339()});
            if let Some(fields) = entry.as_object_mut() {
                fields.extend(subject.iter().map(|subject| ("subject".to_owned(), json!(subject))));
                fields.extend(issuer.iter().map(|issuer| ("issuer".to_owned(), json!(issuer))));
            }
            entry
        });
        let listed: Vec<Json> = before.chain(ids).chain(digests).take(most).collect();
        json!({"revocations": listed, "count": all.len(), "truncated": all.len() > most})
    }

    /// The authorities, and how many members each has.
    pub fn authorities(&self) -> Vec<(String, usize)> {
        read(&self.authorities).iter().map(|(name, members)| (name.to_string(), members.len())).collect()
    }
}
