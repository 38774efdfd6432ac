//! What the orders of tasks and questions find is what a look at all of them finds.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, missing_docs)]

mod stage;

use proptest::prelude::*;
use serde_json::{Value as Json, json};
use signalwarden_core::{
    approvals::{ApprovalState, Approvals, Asked, WantedApprovals},
    change::{Change, StandingLost},
    engine::Engine,
    model::{SpiffeId, Timestamp},
    record::InfluenceMode,
    tasks::Wanted,
};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

const START: i64 = 1_795_500_000_000_000;
const SECOND: i64 = 1_000_000;
const RETENTION: i64 = 10;
const PEOPLE: usize = 3;

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_micros(START + seconds * SECOND)
}

fn person(nth: usize) -> SpiffeId {
    SpiffeId::parse(&format!("spiffe://t/p{nth}")).unwrap()
}

fn engine() -> Engine {
    let mut settings = stage::settings("t");
    let tasks = json!({
        "ttl_us": SECOND, "max_ttl_us": SECOND, "max_depth": 4, "retention_us": RETENTION * SECOND,
        "workflow_signal": null, "types": {},
    });
    settings.tasks = serde_json::from_value(tasks).unwrap();
    let routes = "routes: [{match: {host: h, path: \"/\"}, action: a, resource: {type: A, id: \"1\"}, tier: runtime, \
        sensitivity: low}]\ndefault: deny\n";
    let texts = stage::Texts {
        routes,
        signals: "signals: {}\n",
        schema: "entity Workload; entity A;",
        policies: "permit(principal, action, resource);",
    };
    let snapshot = stage::load_with(&texts, &settings, at(0)).unwrap_or_else(|error| panic!("{error}"));
    stage::engine(Arc::new(snapshot), 4, InfluenceMode::None)
}

#[derive(Clone, Debug)]
enum Step {
    Begin { who: usize, ttl: i64, below: Option<usize> },
    End { which: usize },
    Lose { who: usize },
    Touch { which: usize },
    Wait { seconds: i64 },
    SetBack,
    Sweep,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (0..PEOPLE, 1..30_i64, proptest::option::of(any::<usize>()))
            .prop_map(|(who, ttl, below)| Step::Begin { who, ttl, below }),
        2 => any::<usize>().prop_map(|which| Step::End { which }),
        1 => (0..PEOPLE).prop_map(|who| Step::Lose { who }),
        1 => any::<usize>().prop_map(|which| Step::Touch { which }),
        3 => (1..15_i64).prop_map(|seconds| Step::Wait { seconds }),
        1 => Just(Step::SetBack),
        2 => Just(Step::Sweep),
    ]
}

#[derive(Clone)]
struct Held {
    root: String,
    who: usize,
    begun: i64,
    ends: i64,
}

struct World {
    engine: Engine,
    now: i64,
    made: usize,
    held: BTreeMap<String, Held>,
    trees: BTreeSet<String>,
    ended: BTreeSet<String>,
    /// In microseconds.
    lost: BTreeMap<usize, i64>,
}

impl World {
    fn apply(&self, payload: Vec<u8>) {
        self.engine.apply(&[payload], at(self.now)).unwrap();
    }

    fn pick(&self, which: usize) -> Option<String> {
        self.held.keys().nth(which % self.held.len().max(1)).cloned()
    }

    fn take(&mut self, step: &Step) {
        match step {
            Step::Begin { who, ttl, below } => {
                let below = below.and_then(|which| self.pick(which));
                self.begin(*who, *ttl, below.as_deref());
            }
            Step::End { which } => {
                let Some(id) = self.pick(*which) else { return };
                let how = json!({"v": 1, "change": "task_ended", "id": id, "how": "completed", "at_us": 1, "by": "b"});
                self.apply(how.to_string().into_bytes());
                self.ended.insert(id);
            }
            Step::Lose { who } => {
                let lost = StandingLost { principal: person(*who), at: at(self.now), why: "w".into() };
                self.apply(Change::StandingLost(lost).to_payload());
                self.lost.insert(*who, self.now * SECOND);
            }
            Step::Touch { which } => {
                let Some(id) = self.pick(*which) else { return };
                let root = self.held[&id].root.clone();
                let touched =
                    json!({"v": 1, "change": "tree_touched", "root": root, "systems": ["s"], "sensitivity": null});
                self.apply(touched.to_string().into_bytes());
            }
            Step::Wait { seconds } => {
                self.now += seconds;
                self.apply(Change::TimeMark { at: at(self.now) }.to_payload());
            }
            Step::SetBack => {
                self.apply(Change::TimeSetBack { from: at(self.now), at: at(self.now) }.to_payload());
                self.held.values_mut().for_each(|held| held.ends = held.ends.min(self.now));
                // What is begun in the same moment is begun after it.
                self.lost.values_mut().for_each(|lost| *lost = (*lost).min(self.now * SECOND - 1));
            }
            Step::Sweep => self.sweep(),
        }
    }

    fn begin(&mut self, who: usize, ttl: i64, below: Option<&str>) {
        self.made += 1;
        let id = format!("t{:05}", self.made);
        let parent = below.map(|below| self.held[below].clone());
        let root = parent.as_ref().map_or_else(|| id.clone(), |parent| parent.root.clone());
        let ends = parent.as_ref().map_or(i64::MAX, |parent| parent.ends).min(self.now + ttl);
        let begun = json!({
            "v": 1, "change": "task_begun", "id": id, "root": root, "parent": below, "depth": 0,
            "principal": person(who).as_str(), "created_by": person(who).as_str(), "type": "t", "workflow": null,
            "actions": ["a"], "resources": ["A::*"], "systems": [], "sensitivity": "low", "environment": null,
            "begun_at_us": at(self.now).as_micros(), "expires_at_us": at(ends).as_micros(), "idle_us": null,
            "certificate_sha256": null, "grant_sha256": format!("{:064x}", self.made),
        });
        self.apply(begun.to_string().into_bytes());
        self.trees.insert(root.clone());
        self.held.insert(id, Held { root, who, begun: self.now, ends });
    }

    fn sweep(&mut self) {
        let keys: BTreeSet<String> = self.engine.expired(10_000, at(self.now)).into_iter().collect();
        let keys: BTreeSet<String> = keys.into_iter().filter(|key| !key.starts_with("set_back")).collect();
        let mut expected = BTreeSet::new();
        for root in &self.trees {
            let members: Vec<_> = self.held.iter().filter(|(_, held)| held.root == *root).collect();
            if members.iter().all(|(_, held)| self.now >= held.ends + RETENTION) {
                expected.insert(format!("touched {root}"));
                for (id, _) in members {
                    expected.insert(format!("task {id}"));
                    if self.ended.contains(id) {
                        expected.insert(format!("task_end {id}"));
                    }
                }
            }
        }
        for (who, lost) in &self.lost {
            let ends_one = self.held.values().any(|held| held.who == *who && held.begun * SECOND <= *lost);
            if !ends_one && self.now * SECOND >= lost + RETENTION * SECOND {
                expected.insert(format!("standing {}", person(*who).as_str()));
            }
        }
        assert_eq!(keys, expected);
        self.engine.forget(&keys.iter().cloned().collect::<Vec<_>>());
        for key in keys {
            let (kind, id) = key.split_once(' ').unwrap();
            match kind {
                "task" => drop(self.held.remove(id)),
                "task_end" => drop(self.ended.remove(id)),
                "touched" => drop(self.trees.remove(id)),
                _ => self.lost.retain(|who, _| person(*who).as_str() != id),
            }
        }
    }

    fn list(&self, principal: Option<&str>, ended: bool, most: usize) -> (Vec<(String, String)>, bool) {
        let listed = self.engine.list_tasks(&Wanted { id: None, principal, ended, most }, at(self.now));
        let text = |json: &Json| json.as_str().unwrap().to_owned();
        let tasks = listed["tasks"].as_array().unwrap();
        let tasks = tasks.iter().map(|task| (text(&task["task_id"]), text(&task["state"]))).collect();
        (tasks, listed["truncated"] == true)
    }

    fn compare(&self) {
        for who in [None, Some(0), Some(1)] {
            let name = who.map(|who| person(who).as_str().to_owned());
            let mut expected: Vec<_> = self
                .held
                .iter()
                .filter(|(_, held)| who.is_none_or(|who| held.who == who))
                .map(|(id, held)| (held.begun, id.clone()))
                .collect();
            expected.sort();
            expected.reverse();
            let (all, truncated) = self.list(name.as_deref(), true, 10_000);
            assert_eq!(
                all.iter().map(|(id, _)| id).collect::<Vec<_>>(),
                expected.iter().map(|(_, id)| id).collect::<Vec<_>>()
            );
            assert!(!truncated);
            let live: Vec<_> = all.into_iter().filter(|(_, state)| state == "live").collect();
            assert_eq!(self.list(name.as_deref(), false, 10_000), (live.clone(), false));
            let few: Vec<_> = live.iter().take(2).cloned().collect();
            assert_eq!(self.list(name.as_deref(), false, 2), (few, live.len() > 2));
        }
    }
}

#[derive(Clone, Debug)]
enum Deed {
    Ask { who: usize, ttl: i64, need: u32 },
    Answer { which: usize, by: usize, approve: bool },
    Use { which: usize, back: bool },
    Wait { seconds: i64 },
    Cut,
    Sweep,
}

fn deed() -> impl Strategy<Value = Deed> {
    prop_oneof![
        6 => (0..PEOPLE, 1..20_i64, 1..3_u32).prop_map(|(who, ttl, need)| Deed::Ask { who, ttl, need }),
        4 => (any::<usize>(), 0..3_usize, any::<bool>()).prop_map(|(which, by, approve)| Deed::Answer { which, by, approve }),
        2 => (any::<usize>(), any::<bool>()).prop_map(|(which, back)| Deed::Use { which, back }),
        3 => (1..10_i64).prop_map(|seconds| Deed::Wait { seconds }),
        1 => Just(Deed::Cut),
        2 => Just(Deed::Sweep),
    ]
}

fn question(nth: usize, who: usize, now: i64, ttl: i64, need: u32) -> Change {
    let payload = json!({
        "v": 1, "change": "approval_asked", "id": format!("q{nth:05}"), "binding": format!("{nth:064x}"),
        "requester": person(who).as_str(), "actor": null, "task": null, "action": "a", "resource": "A::\"1\"",
        "method": "POST", "host": "h", "path": "/", "body_sha256": "00".repeat(32), "args": {}, "words": [], "policies": [],
        "asked_at_us": at(now).as_micros(), "expires_at_us": at(now + ttl).as_micros(), "need": need,
    });
    Change::from_payload(payload.to_string().as_bytes()).unwrap()
}

fn kept(value: &Json) -> Change {
    Change::from_payload(value.to_string().as_bytes()).unwrap()
}

const MAX_OPEN: usize = 3;

/// What stands of each question: who asked, when, for how long, and when it ends.
type Questions = BTreeMap<String, (usize, i64, i64, i64)>;

fn states(approvals: &Approvals, state: Option<ApprovalState>, now: i64) -> Vec<(String, String)> {
    let listed = approvals.list(&WantedApprovals { id: None, state, most: 10_000 }, at(now));
    let text = |json: &Json| json.as_str().unwrap().to_owned();
    let listed = listed["approvals"].as_array().unwrap();
    listed.iter().map(|one| (text(&one["approval_id"]), text(&one["state"]))).collect()
}

fn asked(deeds: &[Deed]) {
    let approvals = Approvals::default();
    let (mut now, mut made) = (0, 0);
    let mut held = Questions::new();
    for deed in deeds {
        let pick = |which: usize| held.keys().nth(which % held.len().max(1)).cloned();
        match deed {
            Deed::Ask { who, ttl, need } => {
                made += 1;
                let Change::ApprovalAsked(question) = question(made, *who, now, *ttl, *need) else { panic!() };
                let id = question.id.as_str().to_owned();
                let pending = states(&approvals, Some(ApprovalState::Pending), now);
                let open = pending.iter().filter(|(id, _)| held[id].0 == *who).count();
                let became = approvals.ask(*question, MAX_OPEN, at(now));
                assert_eq!(matches!(became, Asked::TooMany), open >= MAX_OPEN, "{open} open");
                if open < MAX_OPEN {
                    held.insert(id, (*who, now, *ttl, now + ttl));
                }
            }
            Deed::Answer { which, by, approve } => {
                let Some(id) = pick(*which) else { continue };
                let by = person(*by);
                approvals.apply(&kept(&json!({
                    "v": 1, "change": "approval_answered", "id": id, "by": by.as_str(), "approve": approve, "comment": "",
                    "at_us": 1,
                })));
            }
            Deed::Use { which, back } => {
                let Some(id) = pick(*which) else { continue };
                let decision = if *back { Json::Null } else { json!("d") };
                approvals.apply(&kept(
                    &json!({"v": 1, "change": "approval_used", "id": id, "decision": decision, "at_us": 1}),
                ));
            }
            Deed::Wait { seconds } => now += seconds,
            Deed::Cut => {
                approvals.cut(at(now));
                for (.., ends) in held.values_mut() {
                    *ends = (*ends).min(now);
                }
            }
            Deed::Sweep => {
                let keys = approvals.expired(10_000, at(now));
                let gone: BTreeSet<_> =
                    keys.iter().filter_map(|key| key.strip_prefix("approval ")).map(str::to_owned).collect();
                let expected: BTreeSet<_> =
                    held.iter().filter(|(_, (.., ttl, ends))| now >= ends + ttl).map(|(id, _)| id.clone()).collect();
                assert_eq!(gone, expected);
                approvals.forget(&keys);
                held.retain(|id, _| !gone.contains(id));
            }
        }
        let all = states(&approvals, None, now);
        assert_eq!(all.len(), held.len());
        assert!(all.windows(2).all(|pair| held[&pair[0].0].1 >= held[&pair[1].0].1), "newest first");
        for (word, state) in ApprovalState::ALL {
            let these: Vec<_> = all.iter().filter(|(_, found)| found == word).cloned().collect();
            assert_eq!(states(&approvals, Some(*state), now), these);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_a_listing_and_a_sweep_of_tasks_find_is_what_a_look_at_all_finds(steps in proptest::collection::vec(step(), 1..60)) {
        let mut world = World {
            engine: engine(),
            now: 0,
            made: 0,
            held: BTreeMap::new(),
            trees: BTreeSet::new(),
            ended: BTreeSet::new(),
            lost: BTreeMap::new(),
        };
        for step in &steps {
            world.take(step);
            world.compare();
        }
    }

    #[test]
    fn what_asking_listing_and_a_sweep_of_questions_find_is_what_a_look_at_all_finds(deeds in proptest::collection::vec(deed(), 1..80)) {
        asked(&deeds);
    }
}
