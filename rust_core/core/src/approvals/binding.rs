//! What a call is made of, as an approval is bound to it: whatever differs is another call.

use crate::model::{ActionId, Fingerprint, ResourceId, SpiffeId, TaskId};
use sha2::{Digest, Sha256};

/// The parts of a call.
#[derive(Clone, Copy, Debug)]
pub struct Bound<'a> {
    /// Who asks.
    pub requester: &'a SpiffeId,
    /// Who acts for it.
    pub actor: Option<&'a str>,
    /// Under which task's grant.
    pub task: Option<&'a TaskId>,
    /// What is done.
    pub action: &'a ActionId,
    /// To what.
    pub resource: &'a ResourceId,
    /// HTTP method.
    pub method: &'a str,
    /// Host as sent.
    pub host: &'a str,
    /// Path with query as sent.
    pub path: &'a str,
    /// SHA-256 of the whole body as sent.
    pub body: Fingerprint,
}

/// SHA-256 over the parts, each with its length before it, so that no two calls have one.
pub fn binding(bound: &Bound<'_>) -> Fingerprint {
    let mut hash = Sha256::new();
    hash.update(b"signalwarden approval 1\0");
    let resource = bound.resource.to_string();
    let parts: [Option<&str>; 8] = [
        Some(bound.requester.as_str()),
        bound.actor,
        bound.task.map(TaskId::as_str),
        Some(bound.action.as_str()),
        Some(&resource),
        Some(bound.method),
        Some(bound.host),
        Some(bound.path),
    ];
    for part in parts {
        // What is absent differs from what is empty.
        hash.update([u8::from(part.is_some())]);
        let bytes = part.unwrap_or_default().as_bytes();
        hash.update((bytes.len() as u64).to_be_bytes());
        hash.update(bytes);
    }
    hash.update(bound.body.0);
    Fingerprint(hash.finalize().into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_part_of_a_call_counts() {
        let (id, other) = (SpiffeId::parse("spiffe://a.b/c").unwrap(), SpiffeId::parse("spiffe://a.b/d").unwrap());
        let (task, action) = (TaskId::parse("t").unwrap(), ActionId::parse("a").unwrap());
        let (read, resource) = (ActionId::parse("read").unwrap(), ResourceId::parse("T::\"x\"").unwrap());
        let elsewhere = ResourceId::parse("T::\"y\"").unwrap();
        let base = Bound {
            requester: &id,
            actor: None,
            task: None,
            action: &action,
            resource: &resource,
            method: "POST",
            host: "h",
            path: "/p?q=1",
            body: Fingerprint([1; 32]),
        };
        let others = [
            Bound { requester: &other, ..base },
            Bound { actor: Some(""), ..base },
            Bound { task: Some(&task), ..base },
            Bound { action: &read, ..base },
            Bound { resource: &elsewhere, ..base },
            Bound { method: "PUT", ..base },
            Bound { host: "h:80", ..base },
            Bound { path: "/p?q=2", ..base },
            Bound { method: "POSTh", host: "", ..base },
            Bound { body: Fingerprint([2; 32]), ..base },
        ];
        for bound in others {
            assert_ne!(binding(&bound), binding(&base), "{bound:?}");
        }
        assert_eq!(binding(&base), binding(&base.clone()));
    }
}
