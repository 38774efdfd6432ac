//! What one check costs in instructions: a fixed number of checks, for callgrind.
//!
//! `check_count POLICIES SIGNALS CHECKS INFLUENCE REQUEST RING` with `none`, `default` or `all`; `allowed` or `denied`; `memory` or
//! `ring`. Every check goes through `one_check`, every record through `one_drain`: these two are what `bench/gate.py`
//! counts, and what to look at in a profile. Prints nanoseconds of both, too: the median of the checks.
//!
//! The ring's region is memory and no file: the instructions are the same, what the kernel does behind a mapped page is not
//! among them.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a measuring tool"
)]

mod directory;

use directory::NOW;
use signalwarden_core::{
    engine::{Engine, Options},
    identity::Validated,
    limits::MAX_LIVE_SIGNALS,
    model::Timestamp,
    record::{
        InfluenceMode, Rendering,
        frames::Region,
        ring::{Ring, Room},
    },
};
use std::{
    cell::Cell,
    sync::{Arc, atomic::AtomicU64},
    time::{Duration, Instant},
};

/// Bytes of the ring: enough for some hundred records, so it goes around like a server's.
const RING_BYTES: usize = 2 * 1024 * 1024;
/// Records that are drained at once, as the log's writer does under load.
const BATCH: usize = 100;
/// How old the values are.
const AGE_MICROS: i64 = 12_345_678;
const TICK_NANOS: u64 = 1_700;

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [policies, signals, checks, influence, request, ring] = args.as_slice() else {
        eprintln!("usage: check_count POLICIES SIGNALS CHECKS none|default|all allowed|denied memory|ring");
        std::process::exit(2);
    };
    let [policies, signals, checks] = [policies, signals, checks].map(|number| number.parse::<usize>().unwrap());
    let influence = match influence.as_str() {
        "none" => InfluenceMode::None,
        "default" => InfluenceMode::Default,
        _ => InfluenceMode::All,
    };
    let engine = engine(influence, ring == "ring");
    engine.swap(Arc::new(directory::snapshot(policies, signals)));
    directory::publish(&engine, signals);
    let bytes = directory::request(request == "denied");
    // The first one brings what is made once.
    let answer = one_check(&engine, &bytes, 0);
    let (record, drained) = one_drain(&engine);
    engine.settle(drained);
    let reason = if request == "denied" { "policy_denied" } else { "allowed" };
    assert!(String::from_utf8_lossy(&record).contains(&format!("\"reason\":\"{reason}\"")), "{answer:?}");
    let mut times = Vec::with_capacity(checks);
    let mut draining = Duration::ZERO;
    for batch in (0..checks).step_by(BATCH) {
        for check in batch..checks.min(batch + BATCH) {
            let started = Instant::now();
            std::hint::black_box(one_check(&engine, std::hint::black_box(&bytes), check));
            times.push(started.elapsed().as_nanos());
        }
        let started = Instant::now();
        let (lines, drained) = one_drain(&engine);
        draining += started.elapsed();
        engine.settle(drained);
        assert!(!lines.is_empty() && drained == times.len() - batch);
    }
    times.sort_unstable();
    println!("request {} bytes, answer {} bytes, record {} bytes", bytes.len(), answer.len(), record.len());
    if let Some(median) = times.get(checks / 2) {
        println!("check {median} ns (median), drain {} ns a record", draining.as_nanos() / checks as u128);
    }
}

fn engine(influence: InfluenceMode, in_ring: bool) -> Engine {
    let words = || (0..RING_BYTES / 8).map(|_| AtomicU64::new(0)).collect::<Vec<_>>();
    let room = Room {
        capacity: 2 * BATCH,
        max_bytes: usize::MAX,
        region: in_ring.then(|| Box::new(words()) as Box<dyn Region>),
        syncing: None,
        patience: Duration::ZERO,
    };
    let ring = Ring::open(room, Rendering { influence, digest_key: vec![0; 32] }).unwrap();
    Engine::new(Options { ring, fold_denials: false, seed: 7, max_live: MAX_LIVE_SIGNALS })
}

/// One call, from the bytes of the request to those of the answer, its record accepted.
#[inline(never)]
fn one_check(engine: &Engine, bytes: &[u8], nth: usize) -> Vec<u8> {
    let mut random = [0; 10];
    random.iter_mut().zip(nth.to_le_bytes()).for_each(|(to, from)| *to = from);
    let now = Timestamp::from_micros(NOW.as_micros() + AGE_MICROS + i64::try_from(nth).unwrap());
    engine.check(bytes, &Validated::default(), now, random, &stopwatch(nth)).answer().unwrap()
}

/// A stopwatch that goes on by as much at each look: every stage takes time, as on a server. A function of its own, so
/// that no closure has the name of one that is counted.
fn stopwatch(nth: usize) -> impl Fn() -> u64 {
    let looks = Cell::new(nth as u64 * 1_000_000);
    move || {
        looks.set(looks.get() + TICK_NANOS);
        looks.get()
    }
}

/// The lines of what was accepted.
#[inline(never)]
fn one_drain(engine: &Engine) -> (Vec<u8>, usize) {
    engine.drain(BATCH)
}
