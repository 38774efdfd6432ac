//! What a record says of who asked: the identity, how it was proven, the tokens that counted, and what the directory says
//! of the principal.

use super::{Client, pen::Pen};
use crate::{
    identity::Evidence,
    model::{Environment, Fingerprint, Inquiry, PrincipalRecord, Proof, Timestamp},
    snapshot::Snapshot,
};
use serde::Serialize;

/// A token that counted. Never the token: its digest.
#[derive(Serialize)]
struct TokenPart<'a> {
    sha256: String,
    class: &'static str,
    issuer: &'a str,
    key_id: &'a str,
    key_set: &'a str,
    subject: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    token_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    issued_at: Option<String>,
    expires_at: String,
    bound: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    actor: Option<&'a str>,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    earlier_actors: &'a [Box<str>],
    /// Only where it is true.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    interactive: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    transaction: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    scope: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    requester: Option<&'a str>,
}

/// Appends the key and the object of a client of the admin door: it proved to be one there.
pub(super) fn write_client(pen: &mut Pen<'_>, client: &Client) {
    pen.text(r#","principal":{"id":"#, client.id.as_str());
    pen.raw(r#","source":"client","kind":"client""#).text(r#","trust_domain":"#, client.id.trust_domain());
    pen.flag(r#","bound":"#, client.certificate.is_some()).raw(r#","class":"client""#);
    pen.maybe_text(r#","certificate_sha256":"#, client.certificate.map(Fingerprint::to_hex).as_deref()).raw("}");
}

/// Appends the key and the object of who asked.
pub(super) fn write(pen: &mut Pen<'_>, evidence: &Evidence, snapshot: Option<&Snapshot>) {
    let known = snapshot.and_then(|snapshot| snapshot.policies.record_of(&evidence.principal));
    pen.text(r#","principal":{"id":"#, evidence.principal.as_str());
    pen.word(r#","source":"#, evidence.source).word(r#","kind":"#, evidence.class.kind());
    pen.text(r#","trust_domain":"#, evidence.principal.trust_domain());
    pen.flag(r#","bound":"#, evidence.bound).word(r#","class":"#, evidence.class.as_str());
    pen.maybe_time(r#","issued_at":"#, evidence.issued_at).maybe_time(r#","expires_at":"#, evidence.expires_at);
    pen.maybe_text(r#","certificate_sha256":"#, evidence.certificate.map(Fingerprint::to_hex).as_deref());
    pen.maybe_text(r#","serial":"#, evidence.serial.as_deref()).maybe_text(r#","actor":"#, evidence.actor.as_deref());
    if evidence.interactive {
        pen.raw(r#","interactive":true"#);
    }
    if !evidence.proofs.is_empty() {
        pen.part(r#","tokens":"#, &evidence.proofs.iter().map(|proof| TokenPart::of(proof)).collect::<Vec<_>>());
    }
    write_known(pen, known);
}

/// Appends the key and the object of a workload that was asked about: a client vouches for it.
pub(super) fn write_vouched(pen: &mut Pen<'_>, inquiry: &Inquiry, snapshot: Option<&Snapshot>) {
    let Some(subject) = inquiry.workload() else { return };
    pen.text(r#","principal":{"id":"#, subject.as_str());
    pen.raw(r#","source":"vouched","kind":"vouched""#).text(r#","trust_domain":"#, subject.trust_domain());
    pen.raw(r#","bound":false,"class":"vouched""#);
    write_known(pen, snapshot.and_then(|snapshot| snapshot.policies.record_of(subject)));
}

/// What the directory says of it, and the end.
fn write_known(pen: &mut Pen<'_>, known: Option<&PrincipalRecord>) {
    pen.maybe_text(r#","owner":"#, known.and_then(|known| known.owner.as_deref()));
    let environment = known.and_then(|known| known.environment.as_ref());
    pen.maybe_text(r#","environment":"#, environment.map(Environment::as_str));
    if known.is_some_and(PrincipalRecord::is_legacy) {
        pen.raw(r#","legacy":true"#);
    }
    pen.raw("}");
}

impl<'a> TokenPart<'a> {
    fn of(proof: &'a Proof) -> Self {
        Self {
            sha256: proof.digest.to_hex(),
            class: proof.class.as_str(),
            issuer: &proof.issuer,
            key_id: &proof.key_id,
            key_set: &proof.key_set,
            subject: &proof.subject,
            token_id: proof.token_id.as_deref(),
            issued_at: proof.issued_at.map(Timestamp::to_rfc3339),
            expires_at: proof.expires_at.to_rfc3339(),
            bound: proof.certificate.is_some(),
            actor: proof.actor.as_deref(),
            earlier_actors: &proof.earlier_actors,
            interactive: proof.interactive,
            transaction: proof.transaction.as_deref(),
            scope: proof.scope.as_deref(),
            requester: proof.requester.as_deref(),
        }
    }
}
