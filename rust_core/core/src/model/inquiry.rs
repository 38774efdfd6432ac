//! A question that is no request: another enforcement point asks whether a workload may do something (`AuthZEN`,
//! Authorization API 1.0). It holds what may count, and nothing else of what was sent (I1).

use super::{
    names::{ActionId, ResourceId, is_entity_type},
    spiffe::SpiffeId,
};
use serde::Deserialize;
use serde_json::{Map, Value as Json};

/// The one type of subject: a workload, by its SPIFFE ID.
pub const SUBJECT_TYPE: &str = "workload";

/// Whether a workload may do something.
#[derive(Clone, Debug)]
pub struct Inquiry {
    /// The workload, or why there is none.
    pub subject: Result<SpiffeId, String>,
    /// What it would do; `None`: it has no name that an action can have.
    pub action: Option<ActionId>,
    /// What it would do it to; `None`: no resource can be of this type.
    pub resource: Option<ResourceId>,
    /// What is said of the action. Only arguments that routes name are looked at.
    pub args: Map<String, Json>,
    /// The call that it came by.
    pub path: Box<str>,
    /// The caller's own id of the call.
    pub request_id: Option<Box<str>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    subject: Thing,
    action: Act,
    resource: Thing,
    path: Box<str>,
    request_id: Option<Box<str>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Thing {
    #[serde(rename = "type")]
    kind: Box<str>,
    id: Box<str>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Act {
    name: Box<str>,
    #[serde(default)]
    properties: Map<String, Json>,
}

impl Inquiry {
    /// Reads one; the error is about its form alone, and repeats nothing.
    pub fn from_json(json: &[u8]) -> Result<Self, String> {
        let Written { subject, action, resource, path, request_id } =
            serde_json::from_slice(json).map_err(|error| format!("column {}: not a question", error.column()))?;
        let kind = &resource.kind;
        Ok(Self {
            subject: workload(&subject),
            action: ActionId::parse(&action.name),
            resource: is_entity_type(kind).then(|| ResourceId { kind: (&**kind).into(), id: (&*resource.id).into() }),
            args: action.properties,
            path,
            request_id,
        })
    }

    /// Who is asked about, if it can be told.
    pub fn workload(&self) -> Option<&SpiffeId> {
        self.subject.as_ref().ok()
    }

    /// Roughly how many bytes it holds on to.
    pub fn weight(&self) -> usize {
        let subject = self.workload().map_or(0, |subject| subject.as_str().len());
        let resource = self.resource.as_ref().map_or(0, |resource| resource.id.len());
        let request_id = self.request_id.as_ref().map_or(0, |id| id.len());
        512 + subject + 2 * resource + request_id
    }
}

fn workload(subject: &Thing) -> Result<SpiffeId, String> {
    if &*subject.kind != SUBJECT_TYPE {
        return Err(format!("the subject is not of type `{SUBJECT_TYPE}`"));
    }
    SpiffeId::parse(&subject.id).map_err(|why| format!("the subject's id is no spiffe id: {why}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(kind: &str, id: &str, action: &str, resource: &str) -> Inquiry {
        let json = serde_json::json!({
            "subject": {"type": kind, "id": id},
            "action": {"name": action, "properties": {"amount": 7}},
            "resource": {"type": resource, "id": "42"},
            "path": "/access/v1/evaluation",
        });
        Inquiry::from_json(json.to_string().as_bytes()).unwrap()
    }

    #[test]
    fn a_subject_is_a_workload_by_its_spiffe_id_and_nothing_else() {
        let id = "spiffe://prod.example/ns/shop/sa/cart";
        assert_eq!(read("workload", id, "cart.read", "Cart").subject.unwrap().as_str(), id);
        assert!(read("user", id, "cart.read", "Cart").subject.is_err());
        assert!(read("Workload", id, "cart.read", "Cart").subject.is_err());
        assert!(read("workload", "alice", "cart.read", "Cart").subject.is_err());
    }

    #[test]
    fn a_name_that_no_action_or_type_can_have_is_none() {
        let id = "spiffe://prod.example/a";
        assert!(read("workload", id, "Read It", "Cart").action.is_none());
        assert!(read("workload", id, "read", "a cart").resource.is_none());
        let read = read("workload", id, "read", "Shop::Cart");
        assert_eq!(read.resource.unwrap().to_string(), "Shop::Cart::\"42\"");
        assert_eq!(read.args["amount"], 7);
    }

    #[test]
    fn a_question_of_another_form_is_refused_without_a_word_of_it() {
        for bad in ["", "[]", r#"{"subject":"s3cret"}"#, r#"{"subject":{"type":"a","id":"s3cret","more":1}}"#] {
            let why = Inquiry::from_json(bad.as_bytes()).unwrap_err();
            assert!(!why.contains("s3cret"), "{why}");
        }
    }
}
