//! The load of the bench: what is asked, when, of whom, and what came back. The two programs are in `bin/`.
//!
//! A tool of measurement, on loopback, against servers that the bench has started itself: it trusts what it is told and
//! stops with one sentence at what it does not understand.

#![cfg_attr(test, allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic))]

pub mod answer;
pub mod asked;
pub mod client;
pub mod options;
pub mod pace;
pub mod run;
pub mod tally;
pub mod target;
