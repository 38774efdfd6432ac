//! The nouns that rooms share: parsed at the edge, trusted inside. Nothing here knows protobuf, Cedar or Python.

pub mod approval;
pub mod fact;
mod hex;
pub mod inquiry;
pub mod names;
pub mod origin;
pub mod overridden;
pub mod principal;
pub mod proof;
pub mod request;
pub mod spiffe;
pub mod task;
pub mod time;
pub mod value;

pub use approval::{Answer, ApprovalId, PolicyText, Question};
pub use fact::{Assurance, Fact, Influence, State, WhenUnavailable};
pub use hex::hex;
pub use inquiry::Inquiry;
pub use names::{ActionId, Environment, FeedName, ResourceId, Sensitivity, SignalName, Subject, Tier};
pub use origin::{FeedKind, Origin};
pub use overridden::{Overridden, StandIn};
pub use principal::PrincipalRecord;
pub use proof::{CredentialClass, Fingerprint, Proof, Revoked, Support};
pub use request::{Body, HeaderEntry, Headers, Peer, Request};
pub use spiffe::{SpiffeId, SpiffeIdError, TrustDomain};
pub use task::{Call, Dimension, Ending, ResourceScope, Scope, Task, TaskFacts, TaskId, TaskType, WorkflowId};
pub use time::{Span, Timestamp};
pub use value::{Decimal, SignalType, Value};
