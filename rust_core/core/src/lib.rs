//! The decision engine: bytes of a `CheckRequest` in, an answer and its record out.
//!
//! No clock, no file, no network, no randomness, no Python: everything comes in as an argument
//! (sans-io). Rooms depend one way:
//! `limits, reason <- model <- {route, identity, signals, policy} <- decide <- record <- check`;
//! `wire` is used by `check`, and by `snapshot` for descriptors. `tests/unit/test_architecture.py` asserts it.
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing))]

pub mod approvals;
pub mod change;
pub mod check;
pub mod decide;
pub mod document;
pub mod engine;
pub mod error;
pub mod findings;
pub mod identity;
mod idle;
pub mod leaves;
pub mod limits;
mod locks;
pub mod measures;
pub mod model;
pub mod policy;
pub mod principals;
pub mod reason;
pub mod record;
pub mod refusal;
pub mod replay;
pub mod route;
pub mod signals;
pub mod snapshot;
pub mod tally;
pub mod tasks;
pub mod wire;
