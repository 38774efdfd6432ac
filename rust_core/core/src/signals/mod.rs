//! Signals: what may influence access, who says so, and what is known now (DESIGN section 5).
//!
//! - `contract`: one signal's entry in the register. `register`: the file, read and checked.
//! - `sources`: where values come from, one file for each kind.
//! - `store`: what is known now. `gather`: the facts of one request. `list`: the same for people.
//! - `ingest`: a publisher's batch on its way in. `judge`: whether a value is taken. `refusal`: why it is not.

pub mod contract;
pub mod gather;
pub mod ingest;
pub mod judge;
pub mod list;
pub mod refusal;
pub mod register;
pub mod sources;
pub mod store;

pub use contract::{Contract, LogSensitivity};
pub use gather::{Asker, gather};
pub use ingest::{Admission, judge_batch};
pub use judge::{Pending, Publication};
pub use list::{Listed, Listing};
pub use refusal::{Refusal, RefusalReason};
pub use register::Register;
pub use sources::{Circumstances, Flow, Source};
pub use store::{Cells, Known, Store};
