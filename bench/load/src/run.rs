//! The two loops: open, at a constant rate whatever comes back; closed, where each answer lets the next call go.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::{JoinSet, yield_now};

use crate::asked::Asked;
use crate::client::Client;
use crate::options::{Load, Protocol};
use crate::pace::{Schedule, Timer};
use crate::tally::Tally;

/// Sent later than this after its moment, a call is counted as late. Latency has it either way.
pub const LATE: Duration = Duration::from_millis(1);
/// How long answers are awaited after the last call.
const DRAIN: Duration = Duration::from_secs(5);
/// Calls sent at once before others get their turn, when the load is behind its schedule.
const BURST: u64 = 16;
/// Broken calls after which a run is given up: the server is gone.
const MOST_BROKEN: u64 = 1_000;

struct Shared {
    client: Client,
    asked: Vec<Asked>,
    tally: RefCell<Tally>,
    /// Calls under way that count.
    open: Cell<u64>,
}

impl Shared {
    async fn call(&self, number: u64, intended: Instant) {
        let turn = usize::try_from(number).unwrap_or_default();
        let Some(asked) = self.asked.get(turn % self.asked.len().max(1)) else { return };
        let counts = u64::from(self.tally.borrow().counts(intended));
        self.tally.borrow_mut().sent += counts;
        self.open.set(self.open.get() + counts);
        let answer = self.client.call(turn, asked).await;
        self.open.set(self.open.get() - counts);
        self.tally.borrow_mut().record(intended, Instant::now(), &answer);
    }

    fn given_up(&self) -> bool {
        self.tally.borrow().broken() >= MOST_BROKEN
    }
}

/// Runs it, on this thread alone, within a `LocalSet`. The figures as JSON.
pub async fn run(options: &Load, asked: Vec<Asked>) -> Result<Value, String> {
    let client = Client::connect(&options.target, options.protocol, options.connections).await?;
    let begin = Instant::now();
    let counted_from = begin + options.warm_up;
    let end = counted_from + options.seconds;
    let tally = RefCell::new(Tally::new(counted_from)?);
    let shared = Rc::new(Shared { client, asked, tally, open: Cell::new(0) });
    let calls = match options.rate {
        Some(rate) => open_loop(&shared, Schedule::new(begin, rate), end, options.in_flight).await?,
        None => closed_loop(&shared, end, options),
    };
    drained(calls, end + DRAIN).await;
    let mut tally = shared.tally.borrow_mut();
    tally.unanswered = shared.open.get();
    let mut figures = tally.as_json();
    if let Value::Object(map) = &mut figures {
        map.insert("asked_for".to_owned(), asked_for(options));
        map.insert("given_up".to_owned(), json!(tally.broken() >= MOST_BROKEN));
    }
    Ok(figures)
}

async fn open_loop(
    shared: &Rc<Shared>,
    schedule: Schedule,
    end: Instant,
    in_flight: usize,
) -> Result<JoinSet<()>, String> {
    let timer = Timer::new()?;
    let room = Arc::new(Semaphore::new(shared.client.at_once().map_or(in_flight, |most| most.min(in_flight))));
    let mut calls = JoinSet::new();
    let total = schedule.before(end);
    for number in 0..total {
        let intended = schedule.at(number);
        timer.until(intended).await?;
        if number % BURST == 0 {
            yield_now().await;
        }
        let place = place(&room, end + LATE).await;
        let now = Instant::now();
        let (Some(place), true) = (place, now <= end + LATE && !shared.given_up()) else {
            let mut tally = shared.tally.borrow_mut();
            tally.unsent = (number..total).map(|left| u64::from(tally.counts(schedule.at(left)))).sum();
            break;
        };
        if now.duration_since(intended) > LATE && shared.tally.borrow().counts(intended) {
            shared.tally.borrow_mut().late += 1;
        }
        let shared = Rc::clone(shared);
        calls.spawn_local(async move {
            shared.call(number, intended).await;
            drop(place);
        });
        while calls.try_join_next().is_some() {}
    }
    Ok(calls)
}

/// A place among those in flight, or none until then.
async fn place(room: &Arc<Semaphore>, until: Instant) -> Option<OwnedSemaphorePermit> {
    if let Ok(place) = Arc::clone(room).try_acquire_owned() {
        return Some(place);
    }
    tokio::time::timeout_at(until.into(), Arc::clone(room).acquire_owned()).await.ok()?.ok()
}

fn closed_loop(shared: &Rc<Shared>, end: Instant, options: &Load) -> JoinSet<()> {
    let mut calls = JoinSet::new();
    let loops = options.connections * options.streams;
    for first in 0..loops {
        let shared = Rc::clone(shared);
        calls.spawn_local(async move {
            let mut number = first;
            while Instant::now() < end && !shared.given_up() {
                shared.call(number as u64, Instant::now()).await;
                number += loops;
            }
        });
    }
    calls
}

async fn drained(mut calls: JoinSet<()>, until: Instant) {
    let all = async { while calls.join_next().await.is_some() {} };
    // What is still under way then is counted as unanswered.
    let _ = tokio::time::timeout_at(until.into(), all).await;
}

fn asked_for(options: &Load) -> Value {
    json!({
        "target": options.target.to_string(),
        "protocol": match options.protocol { Protocol::Grpc => "grpc", Protocol::Http => "http/1.1" },
        "loop": if options.rate.is_some() { "open" } else { "closed" },
        "rate": options.rate,
        "connections": options.connections,
        "streams": options.rate.is_none().then_some(options.streams),
        "in_flight": options.rate.map(|_| options.in_flight),
        "seconds": options.seconds.as_secs_f64(),
        "warm_up": options.warm_up.as_secs_f64(),
    })
}
