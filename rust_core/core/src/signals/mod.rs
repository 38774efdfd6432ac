//! Signals: what may influence access, who says so, and what is known now (DESIGN section 5).
//!
//! - `contract`: one signal's entry in the register. `register`: the file, read and checked.
//! - `sources`: where values come from, one file for each kind.
//! - `feeds`: documents that are fetched, streams that are received. `combine`: how several sources and signals
//!   come together, as declared. `merge`: the same, applied.
//! - `store`: what is known now. `streams`: how live the streams are, and who is switched off. `gather`: the facts of one request. `list`: the same for people.
//! - `overriding`: two people's word in place of a signal that is not available.
//! - `ingest`: a publisher's batch on its way in. `judge`: whether a value is taken. `refusal`: why it is not.

pub mod combine;
pub mod contract;
pub mod derived;
pub mod feeds;
pub mod gather;
pub mod ingest;
pub mod judge;
pub mod list;
pub mod merge;
pub mod overriding;
pub mod refusal;
pub mod register;
pub mod sources;
pub mod store;
pub mod streams;

pub use contract::{Contract, LogSensitivity};
pub use gather::{Asker, gather, read_of};
pub(crate) use gather::{keep_company, subject_of};
pub use ingest::{Admission, judge_batch, judge_next};
pub use judge::{Pending, Publication};
pub use list::{Census, Listed, Listing};
pub use refusal::{Refusal, RefusalReason};
pub use register::Register;
pub use sources::{Circumstances, Flow, Source};
pub use store::{Cells, Known, Reading, Store};
